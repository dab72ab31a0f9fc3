"""What `sys://ai` has of its own in a `World`: its image's archive, models, the kernel's word, conmon's end.

Real: its table, bay0/ai/port.py, bay0/containers/life.py, its verbs. The umbilical and its forwarder are in grants.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from attrs import define
from podman import AI_ARCHIVE
from umbilical import view

import bay0.ai.port
from bay0.ai import kernelview
from bay0.effects import cgroup, gauges
from bay0.machines.server import NAME as AI
from bay0.thermal import sensors

if TYPE_CHECKING:
    from world import World

CONTAINER = "sys__ai"
TROUBLES = ("cold", "mute", "away", "wrong", "imageless", "spoilt")
LEVERS = ("PAUSE", "RESUME", "YIELD", "START")  # as the governor sends them


@define(eq=False)
class Ai:
    """Its vices. `cold`: no token is made. `mute`: no request ends. `away`: no forwarder stays.

    `wrong`: the kernel does not confirm its envelope. `imageless`: no archive of its image. `spoilt`: the models on the disk are damaged.
    """

    world: World
    cold: bool = False
    mute: bool = False
    away: bool = False
    wrong: bool = False
    imageless: bool = False
    spoilt: bool = False
    monitor: Callable[[], None] | None = None

    @property
    def models(self) -> tuple[str, str]:
        """Two files on the disk."""
        return os.path.join(self.world.folder, "one.gguf"), os.path.join(self.world.folder, "two.gguf")

    def install(self, setattr_: Any, ops: Callable[[str, Callable[..., Any]], None]) -> None:
        """Put the models in the place of what they stand for."""
        for each in self.models:
            with open(each, "w", encoding="ascii"):
                pass
        ops("ai_archive", lambda: None if self.imageless else AI_ARCHIVE)
        ops("ai_model", lambda path: {"why": f"{path}: it is damaged"} if self.spoilt else {"size": 1 << 28})
        setattr_(bay0.ai.port.kernelview, "look", self._look)
        setattr_(bay0.ai.port.Ends, "watch", lambda _ends, pid, ended: self.watch(pid, ended))
        setattr_(bay0.ai.port.Ends, "forget", lambda _ends: self.forget())
        # the governor sees a machine at ease: what it does is test_governor.py's, its levers are drawn
        setattr_(gauges, "PROC", os.path.join(self.world.folder, "proc"))
        setattr_(gauges, "is_guest", lambda: True)
        setattr_(sensors.Thermometer, "look", lambda _self: ())

    def _look(self, directory: str) -> kernelview.View:
        if not cgroup.populated(directory):
            raise OSError(f"no process in {directory}")
        return view(self.world.spine.servers.made, directory, {"no new privileges": "0", "memory limit": "max"} if self.wrong else {})

    # ---- as the end of its monitor (Ends)

    def watch(self, _pid: int, ended: Callable[[], None]) -> None:
        self.monitor = ended

    def forget(self) -> None:
        self.monitor = None

    def monitor_died(self) -> None:
        call, self.monitor = self.monitor, None
        if call is not None:
            self.world.soon(call)

    # ---- life

    def power_cut(self) -> None:
        self.monitor = None

    def mend(self) -> None:
        for vice in TROUBLES:
            setattr(self, vice, False)

    @property
    def lives(self) -> bool:
        """Its server could answer."""
        found = self.world.podman.containers.get(CONTAINER)
        group = self.world.kernel.group(found.id) if found is not None else None
        return group is not None and not group.asked_frozen


__all__ = ["AI", "CONTAINER", "LEVERS", "TROUBLES", "Ai"]
