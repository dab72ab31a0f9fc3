"""What the control socket offers about upgrades. Each refusal comes before anything is written, and says what is to be done."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from attrs import define, field

from bay0.base.digests import parse
from bay0.base.errors import RefusedError
from bay0.machines import boot
from bay0.machines.instance import Instance, Step
from bay0.machines.table import Pass
from bay0.machines.upgrade import NAME, WRITES, E, S
from bay0.pid1 import flow
from bay0.state import slotcalls
from bay0.state.registry import Rows, read_nack_registry
from bay0.upgrade import judging
from bay0.upgrade.port import or_refusal

if TYPE_CHECKING:
    from bay0.base.bounds import Bounds
    from bay0.control.outcomes import Outcomes
    from bay0.control.server import Reply
    from bay0.effects.shield import Watchdog
    from bay0.effects.spawn import Spawner
    from bay0.machines.engine import Engine
    from bay0.pid1.reactor import Reactor
    from bay0.reconcile.replay import Replay
    from bay0.state.port import StatePort

NO_WATCHDOG = (
    "this machine has no watchdog that bay0 feeds: an image that hangs before bay0 starts, or that the firmware cannot start, would stay so "
    "until somebody presses reset (then the old one boots). Say --no-watchdog if that is acceptable"
)


@define(eq=False, repr=False)
class UpgradeMethods:
    """The methods. `boot`: this boot's machine. `entered_s`: when its program began, on the kernel's clock."""

    engine: Engine
    reactor: Reactor
    bounds: Bounds
    state: StatePort
    spawner: Spawner
    boot: Instance
    replay: Replay
    outcomes: Outcomes
    watchdog: Watchdog
    entered_s: float
    patience: float
    machine: Callable[[], str] = lambda: os.uname().machine
    _looking: bool = field(init=False, default=False)

    def _instance(self) -> Instance:
        if NAME not in self.engine.instances:
            raise RefusedError("the boot is not that far yet")
        return self.engine.instances[NAME]

    def _slots(self, op: str, seconds: float, **arguments: Any) -> flow.Waitable:
        return lambda resume: slotcalls.call(self.spawner.run, op, seconds, resume, **arguments)

    # ---- how it is

    def status(self, params: Mapping[str, Any], reply: Reply) -> None:
        """Answer with the state, what is staged, and what both slots hold; with `quick` without the slots, which are on the disk."""
        instance = self._instance()
        if params.get("quick", False) or instance.now in WRITES:
            reply({**self._state(instance), "slots": None})
        else:
            flow.run(self._looked_at(instance), reply)

    def _state(self, instance: Instance) -> dict[str, Any]:
        kept = judging.config_of(instance.config)
        steps = self.outcomes.recent(NAME)
        shown = ("version", "build_id", "built", "kernel", "schema", "size", "slot", "digest", "verdict", "watchdog_s")
        return {
            "state": instance.now.value,
            "about": instance.definition.spec(instance.now).about,
            "why": steps[-1].why if steps else "",
            "attempts": instance.attempts,
            "image": {key: kept.get(key) for key in shown} if kept and instance.now is not S.IDLE else None,
            "progress": slotcalls.progress() if instance.now in WRITES or self._looking else None,
        }

    def _looked_at(self, instance: Instance) -> flow.Flow[dict[str, Any] | RefusedError]:
        look: slotcalls.Answer = yield self._slots("look", self.bounds.slots)
        if look.value is None:
            return RefusedError(f"the slots cannot be looked at: {look.why}")
        seen = look.value
        return {**self._state(instance), **seen, "runs": judging.running(seen), "missing": "" if seen["slots"] else judging.ONE_SLOT}

    # ---- stage

    def stage(self, params: Mapping[str, Any], reply: Reply) -> None:
        """Begin to write the image at `path` into the other slot; answered once that is decided and kept. `digest`: what it must have."""
        path, wanted = params["path"], params.get("digest")
        if not isinstance(path, str) or not path.startswith("/") or "\0" in path:
            raise ValueError("path must be an absolute path")
        if wanted is not None:
            parse(wanted)
        instance = self._may_change()
        verdict = instance.definition.lookup(instance.now, E.STAGE)
        if isinstance(verdict, Pass):
            raise RefusedError(f"nothing can be staged now: {verdict.why}; nothing was changed")
        if self._looking:
            raise RefusedError("another image is being looked at already; nothing was changed")
        self._looking = True

        def ended(result: dict[str, Any] | Exception) -> None:
            self._looking = False
            reply(result)

        flow.run(self._staged(path, wanted), ended)

    def _may_change(self) -> Instance:
        """Refuse what cannot be kept, or would not be there any more in a moment."""
        instance = self._instance()
        if self.boot.now in boot.LEAVES:
            raise RefusedError("the spine is going down; nothing was changed")
        self.replay.need_known()
        self.state.need_durable()
        return instance

    def _staged(self, path: str, wanted: str | None) -> flow.Flow[dict[str, Any] | Exception]:
        look: slotcalls.Answer = yield self._slots("inspect", self.bounds.slots_read, path=path)
        if look.value is None:
            return RefusedError(f"it cannot be staged: {look.why}; nothing was changed")
        seen = look.value
        if wanted is not None and wanted != seen["digest"]:
            return RefusedError(f"it is {seen['digest']}, and not {wanted}; nothing was changed")
        why = judging.why_not_staged(seen, self.machine())
        if why:
            return RefusedError(f"it cannot be staged: {why}; nothing was changed")
        refusal = yield from self._nacked(seen["digest"])
        if refusal is not None:
            return refusal
        kept = judging.staged(seen)
        taken: Step | Exception | None = yield lambda resume: self.engine.send(
            NAME, E.STAGE, kept["version"], resume, config=json.dumps(kept), path=path
        )
        return taken if isinstance(taken, Exception) else {"state": S.STAGING.value, **kept}

    def _nacked(self, digest: str) -> flow.Flow[RefusedError | None]:
        """Return the refusal of a digest that is NACKed, or of which nobody knows."""
        rows: Rows | RefusedError = yield or_refusal(self.reactor, lambda resume: read_nack_registry(self.state, resume, digest))
        if isinstance(rows, RefusedError):
            return RefusedError(f"{rows}; nothing was changed")
        if rows:
            why = rows[0]["why"] or "no reason was given"
            return RefusedError(f"{digest} is refused ({why}); `bay0 nack remove` allows it again. Nothing was changed")
        return None

    # ---- try, and its ends

    def try_(self, params: Mapping[str, Any], reply: Reply) -> None:
        """Arm what is staged and restart. `no_watchdog`: even if nothing would end a hang before bay0."""
        instance = self._may_change()
        if instance.now is S.STAGED and not self.watchdog.armed and not params.get("no_watchdog", False):
            raise RefusedError(f"{NO_WATCHDOG}. Nothing was changed")
        flow.run(self._tried(instance), reply)

    def _tried(self, instance: Instance) -> flow.Flow[dict[str, Any] | Exception]:
        kept = judging.config_of(instance.config)
        refusal = (yield from self._nacked(kept["digest"])) if kept and instance.now is S.STAGED else None
        if refusal is not None:
            return refusal
        seconds = judging.watchdog_s(self.entered_s, self.patience) if self.watchdog.armed else 0
        running = [live.name for live in self.engine.of_kind("tenant") if live.now.value == "running"]
        running += [live.name for live in self.engine.of_kind("server") if live.now.value == "running"]
        new = {key: value for key, value in kept.items() if key != "verdict"} | {"watchdog_s": seconds, "running": running}
        taken: Step | Exception | None = yield lambda resume: self.engine.send(NAME, E.TRY, "", resume, config=json.dumps(new))
        if isinstance(taken, Exception):
            return taken
        yield lambda resume: self.outcomes.when_rested(instance, wait=True, then=resume)
        return {"state": instance.now.value, "why": self.outcomes.recent(NAME)[-1].why, "watchdog_s": seconds}

    def cancel(self, _params: Mapping[str, Any], reply: Reply) -> None:
        """Forget what is staged or armed: its slot is wiped."""
        instance = self._may_change()
        self._send(instance, E.CANCEL, reply)

    def accept(self, _params: Mapping[str, Any], reply: Reply) -> None:
        """End the proof: the candidate becomes the good one, if it is still what was staged."""
        instance = self._may_change()
        self._send(instance, E.ACCEPT, reply)

    def rollback(self, _params: Mapping[str, Any], reply: Reply) -> None:
        """Go back to the spine before this one, and refuse this one's digest from then on."""
        instance = self._may_change()
        if instance.now in (S.GOOD, S.IDLE):
            flow.run(self._gone_back(instance), reply)
            return
        kept = judging.config_of(instance.config)
        self._send(instance, E.ROLLBACK, reply, json.dumps({**kept, "verdict": "somebody refused it during its proof"}))

    def _gone_back(self, instance: Instance) -> flow.Flow[dict[str, Any] | Exception]:
        kept = judging.config_of(instance.config)
        look: slotcalls.Answer = yield self._slots("look", self.bounds.slots)
        if look.value is None:
            return RefusedError(f"the slots cannot be looked at: {look.why}; nothing was changed")
        runs = judging.running(look.value)
        back = judging.other(look.value["slots"], str(runs))
        before = look.value["slots"].get(back)
        good = before is not None and before["uki"] and before["env"] and before["env"]["state"] == "ok" and not before["env"]["in_progress"]
        if not kept or runs != kept["slot"] or not good:
            return RefusedError("there is nothing to go back to: the other slot holds no spine that was good before this one; nothing was changed")
        config = json.dumps({**kept, "back": back, "verdict": "somebody went back from it"})
        taken: Any = yield lambda resume: self._send(instance, E.ROLLBACK, resume, config)
        return taken  # type: ignore[no-any-return]

    def _send(self, instance: Instance, event: E, reply: Callable[[Any], None], config: str | None = None) -> None:
        def rested(_settled: bool) -> None:  # noqa: FBT001 - what was waited for
            reply({"state": instance.now.value, "why": self.outcomes.recent(NAME)[-1].why})

        def taken(result: Step | Exception | None) -> None:
            if isinstance(result, Exception):
                reply(result)
            else:
                wait = event is not E.ACCEPT  # which reads the whole image
                self.outcomes.when_rested(instance, wait=wait, then=rested)

        self.engine.send(NAME, event, "", taken, config=config)
