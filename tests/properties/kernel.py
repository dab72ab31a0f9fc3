"""The kernel's cgroups, modelled as real directories with real `cgroup.events`, so that whoever reads or lists them does it for real.

A group is one container's processes. It lives until its processes end; then podman's monitor removes its directory a little later. What was frozen or
has ended is *seen* after a moment (`freeze_lag_s`), as on a real machine. Nothing of it outlives a boot.

Vices of the freezer: it takes long; it never comes to its end, since a process waits for a disk (`stuck`); all of a kind
are frozen from above; a write fails; the group has gone.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from attrs import define, field

from bay0.containers import life as containers
from bay0.containers.life import CONMONS as CONMON_GROUP
from bay0.containers.life import PERSONAS as GROUP
from bay0.containers.life import TENANTS
from bay0.effects import cgroup

if TYPE_CHECKING:
    from world import World

SEEN_S = 0.002
MONITORS = 1 << 24  # pids that no process of this machine has
CLEANED_S = 1.0


@define(eq=False)
class Group:
    """The processes of one container. `on_end(status)` is its monitor; None once that was killed."""

    directory: str
    on_end: Callable[[int], None] | None
    monitor: int = 0  # its pid
    alive: bool = True
    asked_frozen: bool = False
    by_bay0: bool = False  # who asked for that
    refused: bool = False  # the last write of bay0 failed
    stuck: bool = False  # a process of it sleeps where no freeze reaches it


@define(eq=False)
class Kernel:
    """All groups of this boot."""

    world: World
    root: str
    groups: dict[str, Group] = field(factory=dict)
    watches: dict[str, Callable[[], None]] = field(factory=dict)
    freeze_lag_s: float = 0.01
    unwritable: str = ""  # what a write to cgroup.freeze says
    frozen_above: set[str] = field(factory=set)  # parents that are told to freeze
    pids: int = 0
    parents: dict[str, str] = field(factory=dict)  # of containers that are not personas'

    def install(self, patch: Any) -> None:
        self._parents()
        patch.setattr(cgroup, "ROOT", self.root)
        patch.setattr(cgroup, "kill", self.kill)
        patch.setattr(cgroup, "freeze", self.written)
        patch.setattr(cgroup, "remove", self.remove)
        patch.setattr(containers, "monitor", self.monitor)
        patch.setattr(containers, "expose_monitor", lambda _pid: None)

    def monitor(self, container: str) -> int | None:
        """The monitor's pid, as conmon wrote it down; 0 once that was killed."""
        found = self.groups.get(self.directory(container))
        return found.monitor if found is not None and found.on_end is not None else 0

    def end_monitor(self, group: Group) -> None:
        """It is killed: nobody hears of the end of its container; PID 1 reaps it."""
        group.on_end = None
        spine = self.world.spine
        call = spine.reaper._owned.pop(group.monitor, None)
        if call is not None:
            self._later(0.001, lambda: call(9))

    def power_cut(self) -> None:
        """Nothing that lives outlives a boot."""
        self.groups.clear()
        self.watches.clear()
        self.parents.clear()
        self.frozen_above.clear()
        shutil.rmtree(self.root)
        self._parents()

    def _parents(self) -> None:
        for group in (GROUP, TENANTS):
            os.makedirs(f"{self.root}{group}")

    def directory(self, container: str) -> str:
        return f"{self.root}{self.parents.get(container, GROUP)}/libpod-{container}"

    def begin(self, container: str, on_end: Callable[[int], None], parent: str = GROUP) -> None:
        if parent != GROUP:
            self.parents[container] = parent
        directory = self.directory(container)
        os.makedirs(directory)
        self.pids += 1
        self.groups[directory] = Group(directory, on_end, MONITORS + self.pids)
        self._told(directory, frozen=False)
        self._write(directory, "populated 1\nfrozen 0\n")
        self._frozen(self.groups[directory])

    def group(self, container: str) -> Group | None:
        found = self.groups.get(self.directory(container))
        return found if found is not None and found.alive else None

    def lives(self, container: str) -> bool:
        return self.group(container) is not None

    def end(self, container: str, status: int) -> None:
        found = self.group(container)
        if found is not None:
            self._end(found, status)

    def _end(self, found: Group, status: int) -> None:
        found.alive = False
        self._write(found.directory, f"populated 0\nfrozen {int(found.asked_frozen)}\n")
        if found.on_end is not None:
            found.on_end(status)
        self._later(CLEANED_S, lambda: self._clean(found))

    def _clean(self, found: Group) -> None:
        if found.on_end is not None:  # without its monitor the empty directory stays
            self.remove(found.directory)

    def written(self, directory: str, *, frozen: bool) -> str:
        """bay0 writes cgroup.freeze; return why that failed, or ""."""
        found = self.groups.get(directory)
        if found is None:
            return "No such file or directory"
        found.refused = bool(self.unwritable)
        if not self.unwritable:
            self.world.checks.screen.written(found, frozen=frozen)
            self.freeze(directory, frozen=frozen)
            found.by_bay0 = True
        return self.unwritable

    def freeze(self, directory: str, *, frozen: bool) -> None:
        """Write cgroup.freeze, by hand or by podman; it is done a moment later."""
        found = self.groups.get(directory)
        if found is None:
            return
        found.asked_frozen, found.by_bay0 = frozen, False
        self._told(directory, frozen=frozen)
        self._later(self.freeze_lag_s, lambda: self._frozen(found))

    def freeze_above(self, group: str, *, frozen: bool) -> None:
        """Somebody freezes all of a kind together, or lets them go on."""
        parent = f"{self.root}{group}"
        (self.frozen_above.add if frozen else self.frozen_above.discard)(parent)
        self._told(parent, frozen=frozen)
        for each in self.groups.values():
            self._later(self.freeze_lag_s, lambda each=each: self._frozen(each))

    def stick(self, found: Group, *, stuck: bool) -> None:
        """Let a process of it wait for a disk, or have its answer."""
        found.stuck = stuck
        self._frozen(found)

    def mend(self) -> None:
        self.freeze_lag_s, self.unwritable = 0.01, ""
        for group in (GROUP, TENANTS):
            self.freeze_above(group, frozen=False)
        for each in list(self.groups.values()):
            self.stick(each, stuck=False)

    def stands_still(self, found: Group) -> bool:
        return (found.asked_frozen or os.path.dirname(found.directory) in self.frozen_above) and not found.stuck

    def _frozen(self, found: Group) -> None:
        if found.alive and os.path.isdir(found.directory):
            self._write(found.directory, f"populated 1\nfrozen {int(self.stands_still(found))}\n")

    def kill(self, directory: str) -> None:
        """Write cgroup.kill."""
        below = [group for path, group in self.groups.items() if group.alive and f"{path}/".startswith(f"{directory}/")]
        if directory == f"{self.root}{CONMON_GROUP}":
            for group in self.groups.values():
                self.end_monitor(group)
        for group in below:
            self._later(0.001, lambda group=group: self._end(group, 137) if group.alive else None)

    def remove(self, directory: str) -> bool:
        found = self.groups.get(directory)
        if found is not None and found.alive:
            return False
        self.groups.pop(directory, None)
        self.watches.pop(directory, None)
        shutil.rmtree(directory, ignore_errors=True)
        return True

    def _told(self, directory: str, *, frozen: bool) -> None:
        if os.path.isdir(directory):
            with open(f"{directory}/cgroup.freeze", "w", encoding="ascii") as control:
                control.write(f"{int(frozen)}\n")

    def _write(self, directory: str, text: str) -> None:
        with open(f"{directory}/cgroup.events", "w", encoding="ascii") as events:
            events.write(text)
        call = self.watches.get(directory)
        if call is not None:
            self._later(SEEN_S, call)

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        self.world.later(seconds, call)

    def living(self) -> set[str]:
        return {group.directory.rpartition("libpod-")[2] for group in self.groups.values() if group.alive}


@define(eq=False)
class SimWatch:
    """`bay0.effects.watch.CgroupWatch` over the model."""

    kernel: Kernel

    def add(self, directory: str, call: Callable[[], None]) -> bool:
        if not os.path.exists(f"{directory}/cgroup.events"):
            return False
        self.kernel.watches[directory] = call
        return True

    def remove(self, directory: str) -> None:
        self.kernel.watches.pop(directory, None)
