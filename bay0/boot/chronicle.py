"""What this boot has to tell of itself: its steps, those of its disk and of an upgrade, and when it was complete."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import define, field

from bay0.base.logline import LEVELS
from bay0.machines import boot, storage

if TYPE_CHECKING:
    from bay0.log import Sinks
    from bay0.machines.engine import Engine
    from bay0.machines.instance import Instance, Step
    from bay0.state.port import StatePort

FIRST, LAST = 200, 100  # steps that are kept: the first of a boot, and the last of a disk that comes and goes


@define(eq=False, repr=False)
class Chronicle:
    """One a boot. `boot`: its machine. `entered_ms`: when its program began, on the kernel's clock. `console`: the level of the console's log."""

    engine: Engine
    log: Any
    sinks: Sinks
    state: StatePort
    boot: Instance
    entered_ms: int
    console: str
    steps: list[Step] = field(init=False, factory=list)
    complete_ms: int | None = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self.engine.on("boot", call=self._keep, of=self.boot)
        self.engine.on("storage", call=self._keep, of=self.state.storage)
        self.engine.on("upgrade", call=self._keep)
        self.engine.on("storage", storage.S.DURABLE, call=self._durable, of=self.state.storage)
        self.engine.on("boot", boot.S.COMPLETE, call=self._completed, of=self.boot)

    def _keep(self, _instance: Instance, step: Step) -> None:
        self.steps.append(step)
        del self.steps[FIRST:-LAST]

    def _durable(self, _storage: Instance, step: Step) -> None:
        self.state.append_genesis([f"{step.boot_id} +{step.at_ms} ms: /persist is durable on {self.state.device}"])

    def _completed(self, _boot: Instance, step: Step) -> None:
        self.complete_ms = step.at_ms
        self.log.info("init complete", after_ms=step.at_ms, dirty=self.state.dirty or "no")
        self.state.append_genesis([f"{step.boot_id} +{step.at_ms} ms: init complete"])
        # from now on the console is for those who work at it
        self.sinks.console_level = max(LEVELS[self.console], LEVELS["warning"] if self.console == "info" else 0)

    def look(self) -> list[str]:
        """Make the run log anew if somebody removed it, and say so (runfiles.py); `OSError` if that fails."""
        return [] if self.boot.now in (boot.S.NEW, boot.S.MOUNTING) else self.sinks.file.look()  # there is no /run yet

    def describe(self) -> dict[str, Any]:
        """Return what `bay0 status` shows of it."""
        return {"boot": self.boot.now.value, "complete_ms": self.complete_ms, "dirty": self.state.dirty}
