"""A simulated machine: the real spine, wired by the real `init.spine.build`, on a modelled clock and disk.

Real: engine, tables, reactor loop, state port, worker link (with its socket), boot stages, reconcile,
services, personas, focus, the verbs of the control socket, podman's adapter, the worker's operations, peewee
and SQLite on a real file, the homes' directories. Modelled: time (clock.py), the disk (disk.py), processes
(processes.py, stateworker.py), podman behind its argv (podman.py), cgroups (kernel.py), the kernel's mounts (wiring.py).
What happens to it: people.py, trouble.py, and here the power. One `World` outlives many boots, as a machine
does. Nothing in it depends on the wall clock or on luck, so a failure replays.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NoReturn, Self

import pytest
from ai import Ai
from checks import Checks
from clock import SimLog
from compositor import Screen
from copies import Copies
from disk import Crash, Disk, Files, PowerOff, WorkerDied
from grants import Grants
from houses import Homes
from kernel import Kernel
from people import Asked, People
from podman import Podman
from processes import SimProcess
from slotdisk import NoSlots
from stateworker import SimWorker
from trouble import Trouble
from wiring import Wiring
from work import Work

from bay0 import init
from bay0.base import cmdline
from bay0.init.spine import build
from bay0.machines import boot, storage
from bay0.pid1.reactor import TURN_S
from bay0.state import db, worker
from bay0.state.schema import MIGRATIONS, VERSION, database

FAST_DIR = "/dev/shm" if os.path.isdir("/dev/shm") else None
TURNS_MAX = 20_000  # in one call of `run`: more is a loop that time does not end


class World(People, Trouble):
    """The machine. Attributes are its vices; methods are what happens to it. Use as a context manager."""

    def __init__(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="bay0-world-", dir=FAST_DIR)
        self.now = 1.0
        self.boots = 0
        self.boot_id = ""
        self.began = self.clock_moved = 0.0
        self.turn_s = TURN_S  # 0.0: a host so slow that a turn has time for one call
        self.rolled_back: Files | None = None  # the database as a program too old for it found it
        self.on = False
        self.spine: Any = None
        self.more_ports: Callable[..., dict[str, Any]] = lambda *_: {}  # of further kinds of machines
        self.workers: list[SimWorker] = []
        self.processes: list[SimProcess] = []
        self.asked: list[Asked] = []
        self.stubborn = self.unkillable = self.spawn_fails = self.modprobe_hangs = False
        self.stage_fault: str | None = None
        self.seams = 0
        self.crash_at: int | None = None  # the number of the seam at which the machine stops
        self.crash_on: str | None = None  # or its name
        self.worker_dies_at: int | None = None
        self.half_done: int | None = 0  # seams a killed worker still passes in its last request
        self.half_left: int | None = None
        self.left_behind: Files | None = None
        self.kept = 1.0  # the part of the unsynced bytes that the next cut lets through
        self.trace: list[str] = []
        self.disk = Disk(os.path.join(self.folder, "disk"), self.seam)
        self.work = Work(lambda: self.now)
        self.kernel = Kernel(self, os.path.join(self.folder, "cgroup"))
        self.homes = Homes(os.path.join(self.disk.folder, "homes"))
        self.podman = Podman(
            self, os.path.join(self.disk.folder, "containers"), os.path.join(self.folder, "exits")
        )
        self.ai = Ai(self)
        self.grants = Grants(self)
        self.copies = Copies(self)
        self.screen = Screen(self)
        self.checks = Checks(self)
        self.log = SimLog(self)
        self.wiring = Wiring(self)
        self.slots: Any = NoSlots(self)
        self.patch = pytest.MonkeyPatch()

    # ---- life of the model

    def __enter__(self) -> Self:
        os.makedirs(self.disk.folder)
        os.makedirs(self.blocks)
        self.plug(present=True)
        try:
            self.wiring.install()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_everything()
        self.patch.undo()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def blocks(self) -> str:
        return os.path.join(self.folder, "block")

    # ---- seams

    def seam(self, name: str) -> None:
        """Stand at a numbered place where the world may end."""
        if self.half_left is not None:  # a worker that is dead already finishes what it was told
            self.half_left -= 1
            if self.half_left < 0:
                self.left_behind = self.disk.read()
                self._end(WorkerDied(name))
            return
        self.seams += 1
        self.trace.append(name)
        if self.crash_at == self.seams or name == self.crash_on:
            self.left_behind = self.disk.after_cut(self.kept)
            self._end(Crash(name))
        if self.worker_dies_at == self.seams and any(w.working for w in self.workers):
            self.worker_dies_at, self.left_behind = None, self.disk.read()
            self._end(WorkerDied(name))

    def _end(self, how: BaseException) -> NoReturn:
        self.disk.quiet, self.disk.dying = True, how
        raise how

    # ---- power

    def boot(self, *, exec_: bool = False, older: bool = False) -> None:
        """Power on. `older`: rolled back to a program that knows one version of the database less."""
        assert not self.on
        self._program(older=older)
        self.boots += 1
        self.boot_id = f"{self.boots:08x}-sim"
        self.began, self.clock_moved = self.now, 0.0
        self.on = True
        console = SimpleNamespace(push=lambda: None, describe=dict)
        sinks = SimpleNamespace(
            file=SimpleNamespace(open=lambda: None, look=list), console=console, console_level=0
        )
        watchdog = SimpleNamespace(
            path="none", open=lambda: False, feed=lambda _now: False, armed=False, failing=""
        )
        words = cmdline.Words(exec=exec_, screen="on")
        self.spine = build(words, sinks, self.log, watchdog, self.wiring.host())
        self.checks.booted()
        self._guard(lambda: init.run(self.spine))

    def _program(self, *, older: bool) -> None:
        """Take a program; an older one only if a newer one was here, as a rollback does."""
        files = self.disk.read()
        seen = (
            max(db.header_version(self.disk.path), db.log_version(self.disk.path, verify=True))
            if files.get("")
            else 0
        )
        self.rolled_back = files if older and seen == VERSION else None
        known = VERSION if self.rolled_back is None else VERSION - 1
        for module in (db, worker):
            module.VERSION = known
        db.MIGRATIONS = MIGRATIONS[:known]

    def run(self, seconds: float) -> None:
        """Let time pass; returns early if the machine stops."""
        if self.on:
            self._guard(lambda: self._turn(seconds))

    def _turn(self, seconds: float) -> None:
        over: list[bool] = []
        self.spine.reactor.call_later(seconds, lambda: over.append(True))
        for _ in range(TURNS_MAX):
            self.spine.reactor.turn()
            self.checks.turned()
            if over:
                return
        raise AssertionError(f"{TURNS_MAX} turns in {seconds} s: it never rests")

    def _guard(self, call: Callable[[], None]) -> None:
        try:
            call()
        except (Crash, PowerOff):
            self._lights_out()
            self.checks.after_cut()

    def _reboot(self, _how: str) -> NoReturn:
        self.checks.powered_off()
        for each in self.workers:  # reboot(2) is not instant: a worker goes on with what it was asked
            each.drain()
        raise PowerOff

    def cut(self, kept: float = 1.0) -> None:
        """Pull the plug; `kept` of what was written and not synced is on the platter."""
        if self.on:
            self.kept = kept
            self._lights_out()
            self.checks.after_cut()

    def _lights_out(self) -> None:
        self.disk.dying = None
        for each in self.workers:
            if each.alive and each.busy is not None and each.stuck and self.half_done != 0:
                half = each.finish_half()
                self.left_behind = None if half is None else self.disk.pages.below(half)
        files = self.disk.after_cut(self.kept) if self.left_behind is None else self.left_behind
        self.podman.power_cut(self.kept)
        self.kernel.power_cut()
        self.ai.power_cut()
        self.checks.lights_out(files)
        self.left_behind, self.crash_at, self.crash_on, self.worker_dies_at = None, None, None, None
        self._stop_everything()
        self.disk.power_cut(files)
        self.disk.mounted = self.disk.unplugged = self.disk.wedged = False
        self.kept = 1.0

    def _stop_everything(self) -> None:
        self.on = False
        self.disk.quiet, self.disk.dying = True, None
        if not database.is_closed():
            database.close()
        self.disk.quiet = False
        for each in self.workers:
            each.alive = False
            each.peer.close()
        link = self.spine.state.link if self.spine is not None else None
        for end in (link._current, link._abandoned) if link is not None else ():
            if end is not None:
                end.peer.close()
        self.grants.power_cut()
        self.screen.power_cut()
        if self.spine is not None:
            self.spine.reactor._selector.real.close()
        self.spine = None
        self.workers.clear()
        self.processes.clear()
        self.asked.clear()

    def pump(self) -> None:
        for each in self.workers:
            if each.alive:
                each.pump()
        self.grants.pump()
        self.screen.pump()

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """Call in `seconds` of this boot."""
        self.spine.reactor.call_later(seconds, call)

    def soon(self, call: Callable[[], None]) -> None:
        self.spine.reactor.call_soon(call)

    # ---- shorthands

    @property
    def state_of_boot(self) -> boot.S:
        return self.spine.boot.now

    @property
    def state_of_storage(self) -> storage.S:
        return self.spine.state.storage.now

    def settle(self) -> None:
        """Mend everything, wait until all is well or longer than every bound, and look whether it is."""
        self.mend()
        self._until_well(130)
        if self.on and not self.checks.well() and self.rolled_back is None:
            self.retry()  # a person mended it
            self._until_well(400)  # a whole round of audits
        if self.on:
            self.crash_at = None
            self.checks.settled()

    def _until_well(self, at_most_s: float) -> None:
        end = self.now + at_most_s
        while self.on and self.now < end:
            self.run(5)
            if self.on and self.checks.well():
                self.run(1)  # what a disk that came late brings is begun a moment later
                if self.on and self.checks.well():
                    return
