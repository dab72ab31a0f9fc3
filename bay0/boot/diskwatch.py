"""The disk is looked at now and then: whether it still answers, whether another one has come, whether there is room again."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from attrs import define, field

from bay0 import log
from bay0.base.kernelfile import read_text
from bay0.machines import boot
from bay0.machines.storage import S

if TYPE_CHECKING:
    from bay0.boot.stages import BootStages
    from bay0.machines.engine import Engine
    from bay0.machines.instance import Instance, Step
    from bay0.pid1.reactor import Reactor
    from bay0.state.port import StatePort

PROBE_EVERY_S = 10.0
LOOK_EVERY_S = 5.0
SYS_BLOCK = "/sys/class/block"

Disks = frozenset[tuple[str, str]]


def disks(directory: str = SYS_BLOCK) -> Disks:
    """Return the block devices that may hold something: the name, and the number that the kernel gives to no other (`diskseq`, sysfs-block).

    One that is unplugged and another that is plugged in between two looks may have the same name.
    """
    try:
        names = [name for name in os.listdir(directory) if not name.startswith(("loop", "ram", "zram"))]
    except OSError:
        return frozenset()
    return frozenset((name, read_text(f"{directory}/{name}/diskseq")) for name in names)


@define(eq=False, repr=False)
class DiskWatch:
    """`boot`: this boot's machine. `disks`: what is plugged in now."""

    engine: Engine
    reactor: Reactor
    state: StatePort
    boot: Instance
    stages: BootStages
    disks: Callable[[], Disks] = disks
    _tried: Disks = field(init=False, default=frozenset())  # what was there when the last attempt began

    def __attrs_post_init__(self) -> None:
        self.engine.on("storage", S.OPENING, S.REATTACHING, call=self._tries, of=self.state.storage)

    def begin(self) -> None:
        """Look now and then from now on."""
        self.reactor.call_later(PROBE_EVERY_S, self._probe)
        self.reactor.call_later(LOOK_EVERY_S, self._look)

    def _tries(self, _storage: Instance, _step: Step) -> None:
        self._tried = self.disks()

    def _probe(self) -> None:
        self.state.probe(f"{self.engine.boot_id} {log.kernel_ms()}")
        self.reactor.call_later(PROBE_EVERY_S, self._probe)

    def _look(self) -> None:
        """Notice a disk that came after the last attempt began, seen in sysfs, which never waits for it; or room on one that was full."""
        health = self.state.storage.now
        if health is S.DETACHED and self.boot.now is boot.S.COMPLETE:
            self._look_for_new()
        elif health in (S.FULL, S.READONLY) and self.state.worth_retrying():
            self.state.retry("it may be writable again")
        else:
            self.state.look_for_room(self._room_made)
        self.reactor.call_later(LOOK_EVERY_S, self._look)

    def _look_for_new(self) -> None:
        found = self.disks()
        came, self._tried = found - self._tried, found
        if came:
            self.state.retry(f"{', '.join(sorted(name for name, _number in came))} appeared")
        elif self.state.worth_retrying():
            self.state.retry("it may answer again")
        else:
            self.stages.load_new()

    def _room_made(self) -> None:
        self.state.retry("there is more room on it")
