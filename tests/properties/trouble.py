"""What goes wrong with the simulated machine, and how all of it is mended."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from ai import Ai
from disk import DEVICE, Disk
from grants import Grants
from kernel import Kernel
from podman import Podman
from processes import SimProcess
from stateworker import SimWorker
from work import ENTRY_S, Work

from bay0.machines import storage
from bay0.machines import tenant as tenants


class Trouble:
    """The part of `World` that breaks and mends: its disk, its worker, its processes."""

    on: bool
    blocks: str
    spine: Any
    workers: list[SimWorker]
    processes: list[SimProcess]
    disk: Disk
    work: Work
    podman: Podman
    kernel: Kernel
    ai: Ai
    grants: Grants
    send: Callable[[str, Any], None]
    _guard: Callable[[Callable[[], None]], None]

    def plug(self, *, present: bool) -> None:
        """A disk comes or goes, seen in sysfs."""
        self.disk.unplugged = self.disk.unplugged or (self.disk.mounted and not present)
        self.disk.present = present
        entry = os.path.join(self.blocks, os.path.basename(DEVICE))
        if present:
            with open(entry, "w", encoding="ascii"):
                pass
            self.unwedge()
        elif os.path.exists(entry):
            os.unlink(entry)

    def unwedge(self) -> None:
        self.disk.wedged = False
        for each in self.workers:
            each.released()
        if self.on:
            self.podman.released()

    def mend(self) -> None:
        """Undo every vice."""
        disk = self.disk
        disk.full = disk.readonly = disk.damaged = False
        disk.fail_once, disk.fail_skips, disk.latency_s = None, 0, 0.001
        disk.sync_loses, disk.sync_skips, disk.database_loses = None, 0, None
        self.stage_fault = None
        self.work.entry_s = ENTRY_S
        self.podman.mend()
        self.ai.mend()
        self.grants.closed = self.grants.deaf = False
        self.screen.mend()
        self.kernel.mend()
        self.stubborn = self.unkillable = self.spawn_fails = self.modprobe_hangs = False
        self.worker_dies_at = None
        if not disk.present:
            self.plug(present=True)
        self.unwedge()
        for process in [] if self.spine is None else list(self.processes):
            instance = self.spine.engine.instances.get(process.name)
            if instance is not None and instance.now is tenants.S.STOPPING:
                process.end(9)

    def retry(self) -> None:
        self.send(self.spine.state.storage.name, storage.E.RETRY)

    def kill_worker(self) -> None:
        for each in self.workers:
            if each.alive and not each.stuck:
                each.killed = True
                each.end()

    def end_process(self, index: int) -> None:
        if self.processes:
            self._guard(lambda: self.processes[index % len(self.processes)].end(256))
