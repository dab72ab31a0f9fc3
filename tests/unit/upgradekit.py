"""A machine with two slots, for tests of upgrades over whole boots.

What is played: the process at the slots runs in this one, validation says what the test wants, and the machine's build is the slot's that booted.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bootkit import Machine
from slotkit import Disk, image

from bay0.effects.spawn import Ending, Result, Spawner
from bay0.init.spine import Spine
from bay0.machines import upgrade
from bay0.machines.upgrade import S
from bay0.state import slots, slotwork

NEW = image("2.0")
WORDS = "bay0.prove=5"


class PowerCut(Exception):  # noqa: N818 - it is one
    """The machine loses its power now."""


class Computer:
    """A machine with two slots. `boot` asks the loader; what boots is of the build that the slot holds."""

    def __init__(self, folder: Path) -> None:
        (folder / "disk").mkdir()
        self.disk = Disk(folder / "disk")
        self.machine = Machine(folder)
        self.folder = folder
        self.count = 0
        self.verdict = "green"
        self.cut_before: str | None = None  # an op at whose begin the power goes
        self.cut_after: str | None = None
        self.hold: str | None = None  # an op that takes its time, until somebody calls what is `held`
        self.held: list[Callable[[], None]] = []
        self.asked: list[str] = []
        self.runs: str | None = None
        slots.on_disk = lambda: self.disk.slots  # type: ignore[assignment]  # this process ends with the test
        slotwork.device.mounted_device = lambda: "/dev/vda4"  # type: ignore[assignment]
        slotwork.secure_boot = lambda: False  # type: ignore[assignment]
        slotwork.stated = self._stated  # type: ignore[assignment]
        (folder / "new.efi").write_bytes(NEW)

    def _stated(self, word: str) -> str:
        found = slots.describe(self.disk.slots[str(self.runs)])["uki"]
        return str({"BUILD_ID": found["build_id"], "VERSION_ID": found["version"], "BAY0_SCHEMA": 3}[word])

    def boot(self, words: str = WORDS, *, runs: str | None = None) -> Spine:
        self.runs = runs or self.disk.load()
        assert self.runs is not None, "nothing boots"
        self.count += 1
        computer = self

        class Played(Spawner):
            def run(self, name: str, argv: Any, deadline_s: float, done: Any, env: Any = None, *, capture: int = 0) -> None:
                if not name.startswith("slots-"):
                    super().run(name, argv, deadline_s, done, env, capture=capture or 65536)
                    return
                if argv[-2] == computer.hold:
                    computer.held.append(lambda: done(computer.work(*argv[-2:])))
                else:
                    self.reactor.call_soon(lambda: done(computer.work(*argv[-2:])))

        spine = self.machine.boot(words, boot_id=f"{self.count:04d}0000-aaaa", spawner=Played)
        spine.validation.made = self  # type: ignore[assignment]
        self.spine = spine
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.folder / "powered")
        return self.machine.complete(spine)

    def work(self, op: str, arguments: str) -> Result:
        self.asked.append(op)
        if op == self.cut_before:
            raise PowerCut
        answer = json.dumps(slotwork.answer(op, json.loads(arguments)))
        if op == self.cut_after:
            raise PowerCut
        return Result(Ending.EXITED, 0, answer, "", 0, 0.1)

    def ask(self, _params: Mapping[str, Any], reply: Callable[[Any], None]) -> None:
        """Be the validation."""
        checks = [{"name": "persist", "level": self.verdict, "why": "as the test says"}]
        reply({"verdict": self.verdict, "checks": checks})

    def call(self, spine: Spine, method: str, **params: Any) -> Any:
        got: list[Any] = []
        try:
            spine.control.methods[method](params, got.append)
        except Exception as error:  # as the control server answers it
            return error
        self.machine.turn_until(spine, lambda: got, method)
        return got[0]

    def until(self, spine: Spine, *states: S) -> None:
        live = spine.engine.instances
        self.machine.turn_until(spine, lambda: live[upgrade.NAME].now in states and live[upgrade.NAME].pending is None, f"{states}")

    def staged(self, spine: Spine) -> None:
        answer = self.call(spine, "upgrade.stage", path=str(self.folder / "new.efi"))
        assert answer["state"] == "staging", answer
        self.until(spine, S.STAGED)

    def tried(self, spine: Spine) -> None:
        answer = self.call(spine, "upgrade.try", no_watchdog=True)
        assert answer["state"] == "trying", answer
        self.ends(spine)

    def ends(self, spine: Spine) -> None:
        """Wait for the end of the boot that the program itself has asked for."""
        self.machine.turn_until(spine, lambda: self.machine.powered, "the restart")
        assert self.machine.powered == ["reboot"]

    def cut(self, spine: Spine) -> None:
        self.machine.crash(spine)

    def state(self) -> str:
        return self.machine.stored()[upgrade.NAME]
