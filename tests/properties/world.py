"""A simulated machine: the real spine, wired by the real `bay0.init.build`, on a modelled clock, disk and process table.

Real: engine, tables, reactor loop, state port, worker link (with its socket), boot stages, reconcile, services, personas, focus, the verbs of the
control socket, podman's adapter, the worker's operations, peewee and SQLite on a real file, the homes' directories. Modelled: time (it jumps to the
next timer), the disk (disk.py), processes, podman behind its argv (podman.py), cgroups (kernel.py), the kernel's mounts.
One `World` outlives many boots, as a machine does. Nothing in it depends on the wall clock or on luck, so a failure replays.
"""

from __future__ import annotations

import functools
import itertools
import os
import selectors
import shutil
import socket
import tempfile
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NoReturn, Self

import pytest
from ai import AI, Ai
from attrs import define, field
from broken import hold
from checks import Checks
from disk import DEVICE, Calls, Crash, Disk, Files, PowerOff, WorkerDied
from grants import Grants
from houses import Homes
from kernel import Kernel, SimWatch
from podman import ARCHIVE, IMAGE, Podman
from work import ENTRY_S, Overdue, Time, Work
from work import Calls as Charged

import bay0.containers.life
import bay0.log
import bay0.personas.port
from bay0 import init
from bay0.base import cmdline, names
from bay0.base.errors import Bay0Error, SpawnError
from bay0.boot import stages
from bay0.boot.diskwatch import disks
from bay0.control.answers import Listing
from bay0.effects import cgroup, power
from bay0.effects.modules import Wanted
from bay0.effects.spawn import Ending, Result
from bay0.init.spine import Host, build
from bay0.machines import boot, persona, storage
from bay0.machines import tenant as tenants
from bay0.pid1.reactor import TURN_S, Reactor
from bay0.podman import argv as podman_argv
from bay0.state import db, homes, paths, worker
from bay0.state.schema import MIGRATIONS, VERSION, database
from bay0.tenants.port import ServiceSpec

FAST_DIR = "/dev/shm" if os.path.isdir("/dev/shm") else None
PRUNE_EVERY = 3  # commits; in life it is hundreds
LOG_LONG = 800_000  # bytes; in life it is megabytes
ALL = 1_000_000  # seams
TURNS_MAX = 20_000  # in one call of `run`: more is a loop that time does not end
CONSOLE, EXEC = "sys://console", "sys://exec"
WORK, PLAY, IDLE = PERSONAS = ("p://work", "p://play", "p://idle")
MANIFESTS: dict[str, dict[str, Any]] = {
    WORK: {"image": IMAGE, "home": "/home/work", "restart": "on-failure", "retries": 2, "stop_s": 1, "ai": True},
    PLAY: {"image": IMAGE, "home": "/root", "restart": "always", "retries": 1, "stop_s": 3, "autostart": True, "ai": True},
    IDLE: {"image": IMAGE},
}
WORKER_OPS = (
    "probe", "genesis", "containers_prepare", "containers_aside", "persona_prepare", "home_give", "log_remove", "home_empty", "trash_sweep",
    "time_save", "seed_use", "seed_renew", "farewell", "settle",
)  # fmt: skip


class SimSelector:
    """Real readiness, modelled waiting: when nothing is ready, time jumps."""

    def __init__(self, world: World) -> None:
        self.world, self.real = world, selectors.DefaultSelector()
        self.get_map, self.modify = self.real.get_map, self.real.modify
        self.register, self.unregister = self.real.register, self.real.unregister

    def select(self, _timeout: float | None) -> Any:
        self.world.pump()  # may set timers
        timeout = self.world.spine.reactor._wait(None)
        ready = self.real.select(0)
        if not ready and timeout:
            self.world.now += timeout
        return ready


class SimReactor(Reactor):
    """`run` returns at once: the world turns it."""

    def run(self) -> None:
        self._running = True


class SimLog:
    """The last lines, for a person who reads a failure."""

    def __init__(self, world: World) -> None:
        self.world, self.lines = world, deque(maxlen=400)

    def _line(self, event: str, **keys: Any) -> None:
        self.lines.append((round(self.world.now, 3), event, keys))

    debug = info = warning = error = critical = _line


@define(eq=False)
class SimWorker:
    """The state worker's process: the real `worker.answer`, one request at a time, on the modelled disk."""

    world: World
    peer: socket.socket
    ended: Callable[[], None]
    inbox: deque[dict[str, Any]] = field(factory=deque)
    busy: dict[str, Any] | None = None
    working: bool = False
    occupied: bool = False  # the request has been done, and took some time: its answer comes then, or its bound is over first
    stuck: bool = False
    killed: bool = False
    alive: bool = True
    ops: list[str] = field(factory=list)

    def pump(self) -> None:
        while True:
            try:
                packet = self.peer.recv(worker.PACKET_MAX)
            except (BlockingIOError, OSError):
                break
            if not packet:
                break
            self.inbox.append(worker.json.loads(packet))
        if self.alive and not self.killed and not self.occupied and self.busy is None and self.inbox:
            self.busy = self.inbox.popleft()
            self.world.spine.reactor.call_later(self.world.disk.latency_s, self.proceed)

    def proceed(self) -> None:
        """Do the request, unless the disk hangs: then it is done when the disk is back."""
        if not self.alive or self.killed or self.busy is None:
            return
        self.stuck = self.world.disk.wedged
        if self.stuck:
            return
        reply = self._do()
        if reply is None:
            return
        self.busy, self.occupied = None, True
        if self.world.work.spent_s:
            self.world.spine.reactor.call_later(self.world.work.spent_s, functools.partial(self.reply, reply))
        else:
            self.reply(reply)

    def reply(self, reply: dict[str, Any]) -> None:
        if not self.alive or self.killed:
            return
        self.occupied = False
        try:
            self.peer.send(worker._encode(reply))
        except OSError:
            return
        self.pump()

    def _do(self) -> dict[str, Any] | None:
        world, self.working = self.world, True
        self.ops.append(self.busy["op"])
        world.checks.asked(self, self.busy["op"])
        world.work.begin(self._bound_left())
        try:
            return worker.answer(dict(self.busy))
        except Overdue:
            self.busy, self.occupied = None, True  # until it is killed
            return None
        except WorkerDied:
            if world.half_left is None:
                self.die(world.left_behind)
            return None
        finally:
            self.working = False
            hold(not world.disk.torn, world.disk.torn)

    def _bound_left(self) -> float:
        """Return for how long PID 1 still waits for the request under way."""
        current = self.world.spine.state.link._current
        call = current.calls.get(self.busy["id"]) if current is not None else None
        return float("inf") if call is None else max(0.0, call.timer.due - self.world.now)

    def drain(self) -> None:
        """Do all that was asked, at once."""
        while self.alive and not self.killed and not self.world.disk.wedged and (self.busy is not None or self.inbox):
            self.busy = self.busy or self.inbox.popleft()
            self._do()
            self.busy = None

    def kill(self) -> None:
        """SIGKILL. In the middle of a request on a dead disk it ends only when the disk is back."""
        self.killed = True
        if not (self.stuck and self.world.disk.wedged):
            self.world.spine.reactor.call_later(0.002, self.end)

    def released(self) -> None:
        """The disk answers again."""
        if not self.stuck:
            return
        self.stuck = False
        if self.killed:
            self.world.spine.reactor.call_later(0.002, self.end)
        else:
            self.world.spine.reactor.call_later(0.0, self.proceed)

    def end(self) -> None:
        """End a killed one; what it was doing may have happened, up to `world.half_done` seams (None: all of it)."""
        if not self.alive:
            return
        files = None
        if self.busy is not None and self.world.half_done != 0 and not self.world.disk.unplugged:
            files = self.finish_half()
        self.die(files)

    def finish_half(self) -> Files | None:
        """Run the request that was under way up to a seam, its answer never sent; return the files it leaves."""
        world = self.world
        world.half_left = ALL if world.half_done is None else world.half_done
        self._do()
        world.half_left = None
        files, world.left_behind = world.left_behind, None
        return files

    def die(self, files: Files | None = None) -> None:
        if not self.alive:
            return
        self.alive = False
        self.world.disk.lose_open_files(files)
        self.world.left_behind = None
        self.world.spine.reactor.call_soon(self.ended)  # SIGCHLD


@define(eq=False)
class SimProcess:
    """A tenant's process."""

    world: World
    name: str
    on_exit: Callable[[int], None]
    pid: int = 0
    ended: bool = False

    def signal(self, number: int) -> None:
        if not self.world.stubborn:
            self.world.spine.reactor.call_later(0.05, functools.partial(self.end, number))

    def kill(self) -> None:
        if not self.world.unkillable:
            self.world.spine.reactor.call_later(0.001, functools.partial(self.end, 9))

    def end(self, status: int) -> None:
        if not self.ended:
            self.ended = True
            self.world.processes.remove(self)
            self.on_exit(status)

    @property
    def left(self) -> bool:
        return not self.ended


@define(eq=False)
class SimSpawner:
    """Starts modelled processes; the state worker is one of them."""

    world: World
    running: int = 0
    abandoned: int = 0
    closed: bool = False
    ceilings: dict[str, str] = field(factory=dict)

    @property
    def reactor(self) -> SimReactor:
        return self.world.spine.reactor  # type: ignore[no-any-return]

    def describe(self) -> dict[str, int]:
        return {}

    def bound(self, _limits: dict[str, str]) -> None:
        """There are no cgroups of commands."""

    def close(self) -> None:
        self.closed = True
        self.world.podman.close()

    def fork(self, name: str, main: Callable[[], int], on_exit: Callable[[int], None], *, group: str, keep: int) -> SimWorker | None:
        world = self.world
        if name == "power":
            main()
            return None
        if world.spawn_fails:
            raise SpawnError("fork: Resource temporarily unavailable")
        if name == "sync":
            world.soon(lambda: on_exit(main()))
            return None
        world.checks.worker_starts(world.workers)
        peer = socket.socket(fileno=os.dup(keep))
        peer.setblocking(False)
        worker._staged.clear()
        worker._failed.clear()
        worker._commits = itertools.count(1)
        made = SimWorker(world, peer, lambda: on_exit(9))
        world.workers.append(made)
        return made

    def run(self, _name: str, argv: Any, deadline_s: float, done: Callable[[Result], None], env: Any = None, capture: int = 0) -> None:
        if self.closed:
            self.world.soon(lambda: done(Result(Ending.EXITED, 126, "", "the spine is going down", 0, 0.0)))
            return
        if argv[0] == "podman":
            self.world.checks.podman_called(list(argv))
            self.world.podman.run(argv, deadline_s, done)
            return
        hangs = self.world.modprobe_hangs
        result = Result(Ending.TIMED_OUT if hangs else Ending.EXITED, -15 if hangs else 0, "", "", 0, 0.0)
        self.world.spine.reactor.call_later(deadline_s if hangs else 0.01, lambda: done(result))

    def start(self, name: str, _argv: Any, on_exit: Callable[[int], None], keep: int | None = None, **_options: Any) -> SimProcess:
        if self.world.spawn_fails:
            raise SpawnError("posix_spawn: Resource temporarily unavailable")
        self.world.seam("before start")
        process = SimProcess(self.world, name, on_exit)
        self.world.processes.append(process)
        if keep is not None:
            self.world.grants.process_starts(process, keep)
        return process


class SimSysrq(power.Sysrq):
    """Ends the modelled machine, whatever the word."""

    def open(self) -> None:
        """Nothing to open."""

    def __init__(self, end: Callable[[str], NoReturn]) -> None:
        super().__init__()
        self.end = end

    def __call__(self, word: str) -> bool:
        self.end(word)


@define(eq=False)
class SimControl:
    """The control socket without its socket."""

    methods: dict[str, Any] = field(factory=dict)
    takes: dict[str, Any] = field(factory=dict)  # everything is loaded here
    is_open: bool = False

    def offer(self, methods: dict[str, Any], _takes: Any = ()) -> None:
        self.methods.update(methods)

    def open(self) -> None:
        self.is_open = True

    def look(self) -> list[str]:
        return []


@define(eq=False)
class Asked:
    """One call of a method, and its answers: there must be one."""

    method: str
    params: dict[str, Any]
    at: float
    boot_id: str
    answers: list[Any] = field(factory=list)
    before: bool | None = None  # what was known of a digest when it was asked about

    @property
    def refused(self) -> bool:
        return bool(self.answers) and isinstance(self.answers[0], Exception)


class World:
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
        self.podman = Podman(self, os.path.join(self.disk.folder, "containers"), os.path.join(self.folder, "exits"))
        self.ai = Ai(self)
        self.grants = Grants(self)
        self.checks = Checks(self)
        self.log = SimLog(self)
        self.patch = pytest.MonkeyPatch()

    # ---- life of the model

    def __enter__(self) -> Self:
        os.makedirs(self.disk.folder)
        os.makedirs(self.blocks)
        self.plug(present=True)
        try:
            self._install()
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

    def _install(self) -> None:
        if not database.is_closed():
            database.close()
        setattr_ = self.patch.setattr
        self.disk.install(self.patch)
        for name in ("find", "mount_first", "prefer", "prepare", "room", "unmount"):
            setattr_(worker.device, name, getattr(self.disk, name))
        setattr_(worker, "PRUNE_EVERY", PRUNE_EVERY)
        for module in (db, worker):
            setattr_(module, "VERSION", VERSION)
        setattr_(db, "MIGRATIONS", MIGRATIONS)
        setattr_(db, "LOG_LONG", LOG_LONG)
        setattr_(db, "os", Calls(self.disk))
        setattr_(worker, "DATABASE", self.disk.path)
        setattr_(worker, "ALIVE", os.path.join(self.disk.folder, "alive"))
        setattr_(worker, "GENESIS", os.path.join(self.disk.folder, "genesis.log"))
        for name in ("TIME", "SEED"):
            setattr_(worker, name, os.path.join(self.disk.folder, name.lower()))
        setattr_(worker.entropy, "RNG", os.devnull)
        setattr_(worker.entropy, "fresh", lambda: b"%32d" % self.boots)
        for op in WORKER_OPS:
            self.patch.setitem(worker.OPS, op, self._guarded(worker.OPS[op]))
        for name in ("HOMES", "LOGS", "CONTAINERS", "TRASH"):
            for module in (homes, paths):
                setattr_(module, name, os.path.join(self.disk.folder, name.lower()))
        setattr_(homes, "os", Charged(self.work))
        setattr_(homes, "time", Time(self.work))
        os.makedirs(self.podman.exits)
        setattr_(podman_argv, "EXITS", self.podman.exits)
        setattr_(bay0.containers.life, "write_config", lambda _files: None)
        setattr_(bay0.personas.port, "user_of", lambda _container: (os.getuid(), os.getgid()))
        self.kernel.install(self.patch)
        self.ai.install(setattr_, lambda op, act: self.patch.setitem(worker.OPS, op, self._guarded(act)))
        self.grants.install(setattr_)
        setattr_(bay0.log, "kernel_ms", lambda: int(self.now * 1000))
        setattr_(stages.mounts, "mount_kernel_filesystems", lambda: self._stage("mount"))
        setattr_(stages.cgroup, "shield_pid1", lambda: self._stage("shield"))
        setattr_(stages.shield, "unkillable", lambda: None)
        setattr_(stages.shield, "ctrl_alt_del_is_a_signal", lambda: None)
        setattr_(stages.net, "violations", list)
        setattr_(stages.limbo, "violations", list)
        setattr_(stages.modules, "aliases", lambda: iter(()))
        setattr_(stages.modules, "wanted", lambda _found: Wanted((), ()))
        setattr_(stages, "socket", SimpleNamespace(sethostname=lambda _name: None))

    def _host(self) -> Host:
        """What the spine takes from this machine."""
        return Host(
            self.boot_id,
            reactor=lambda: SimReactor(clock=lambda: self.now, selector=SimSelector(self), turn_s=self.turn_s),
            spawner=lambda *_: SimSpawner(self),  # type: ignore[arg-type,return-value]
            control=lambda *_, **_k: SimControl(),  # type: ignore[arg-type,return-value]
            watch=lambda _reactor: SimWatch(self.kernel),  # type: ignore[arg-type,return-value]
            now=self._wall,
            forward=self._forward,
            kernel_ms=lambda: int(self.now * 1000),
            built_in=lambda: {IMAGE: ARCHIVE},
            services=self._wanted,
            disks=lambda: disks(self.blocks),
            cards=list,
            ports=self.more_ports,
            calls=power.Calls(self._reboot, lambda: 0, SimSysrq(self._reboot)),
        )

    def _guarded(self, op: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(**arguments: Any) -> Any:
            self.disk.plain_write()
            answer = op(**arguments)
            self.seam("after write")
            return answer

        return guarded

    def _stage(self, name: str) -> list[str]:
        self.seam(f"stage {name}")
        return [f"{name} fails"] if self.stage_fault == name else []

    def _wall(self) -> int:
        """The machine's clock: its battery is empty, so each boot begins in 1970."""
        return int(self.now - self.began + self.clock_moved)

    def _forward(self, floor: int) -> int:
        moved = max(0, floor - self._wall())
        self.clock_moved += moved
        return moved

    def _wanted(self, words: cmdline.Words) -> dict[str, ServiceSpec]:
        wanted = {CONSOLE: ServiceSpec(("/bin/sh",))}
        if words.exec:
            wanted[EXEC] = ServiceSpec(("/bin/true",), once=True)
        return wanted

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
        if self.crash_at == self.seams:
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
        """Power on. `older`: the image is rolled back to a program that knows only the first version of the database."""
        assert not self.on
        self._program(older=older)
        self.boots += 1
        self.boot_id = f"{self.boots:08x}-sim"
        self.began, self.clock_moved = self.now, 0.0
        self.on = True
        console = SimpleNamespace(push=lambda: None, describe=dict)
        sinks = SimpleNamespace(file=SimpleNamespace(open=lambda: None, look=list), console=console, console_level=0)
        watchdog = SimpleNamespace(path="none", open=lambda: False, feed=lambda _now: False, armed=False, failing="")
        words = cmdline.Words(exec=exec_)
        self.spine = build(words, sinks, self.log, watchdog, self._host())
        self.checks.booted()
        self._guard(lambda: init.run(self.spine))

    def _program(self, *, older: bool) -> None:
        """Take a program; an older one only if a newer one was here, as a rollback does."""
        files = self.disk.read()
        seen = max(db.header_version(self.disk.path), db.log_version(self.disk.path, verify=True)) if files.get("") else 0
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
        self.left_behind, self.crash_at, self.worker_dies_at = None, None, None
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

    # ---- what happens to the disk

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

    # ---- what people and processes do

    def call(self, method: str, **params: Any) -> Asked:
        """Call a method of the control socket; what is answered is remembered. Does nothing before the socket is open."""
        asked = Asked(method, params, self.now, self.boot_id)
        if self.on and self.spine.control.is_open:
            self.asked.append(asked)
            self._guard(lambda: self._ask(asked))
        return asked

    def _ask(self, asked: Asked) -> None:
        def reply(result: Any) -> None:
            result = result.whole() if isinstance(result, Listing) else result
            asked.answers.append(result)
            self.checks.answered(asked, result)

        self.checks.asked_for(asked)
        try:
            self.spine.control.methods[asked.method](asked.params, reply)
        except Bay0Error as refusal:
            reply(refusal)

    def nack(self, number: int, *, nacked: bool = True) -> Asked:
        """An operator refuses a digest, or allows it again."""
        return self.call("nack.add" if nacked else "nack.remove", digest=f"sha256:{number:064x}")

    def be(self, name: str, **changes: Any) -> None:
        """See to it that a persona is there."""
        if self.on and self.state_of(name) in (None, persona.S.ABSENT):
            asked = self.call("persona.create", name=name, manifest={**MANIFESTS[name], **changes})
            for _ in range(40):
                if not asked.answers:
                    self.run(0.05)

    def start(self, name: str) -> Asked:
        """An operator starts a persona that is there or is made for it."""
        self.be(name)
        return self.verb("start", name)

    def begin_with(self, name: str, **changes: Any) -> Asked:
        """An operator edits a manifest: the persona is stopped, removed, made anew with `changes`, and started."""
        self.verb("stop", name)
        for _ in range(40):
            if self.on and self.state_of(name) not in (None, persona.S.ABSENT):
                self.run(0.1)
                self.verb("remove", name)
        self.be(name, **changes)
        return self.verb("start", name)

    def verb(self, verb: str, name: str, **params: Any) -> Asked:
        return self.call(f"persona.{verb}", name=name, **{"wait": False, **params})

    def ask_ai(self, verb: str, **params: Any) -> Asked:
        return self.call(f"tenant.{verb}", name=AI, **({} if verb == "configure" else {"wait": False}), **params)

    def frozen(self, container: str) -> bool:
        """What the kernel says."""
        found = self.podman.containers.get(container)
        return found is not None and cgroup.frozen(self.kernel.directory(found.id))

    def by_hand(self, name: str, *, runs: bool) -> None:
        """Somebody makes a container with podman himself. Under one of our names it is looked for only where there are personas.

        One whose creation was refused is none: it has taken no step.
        """
        if self.on and (names.from_podman(name) is None or any(i.seq for i in self.spine.engine.of_kind("persona"))):
            self.podman.by_hand(name, runs=runs)
            self.checks.note_foreign()

    def state_of(self, name: str) -> Any:
        instance = self.spine.engine.instances.get(name) if self.on else None
        return None if instance is None else instance.now

    def send(self, name: str, event: Any) -> None:
        if name in self.spine.engine.instances:
            self._guard(lambda: self.spine.engine.send(name, event, "an operator asked"))

    def stop(self, how: str = "poweroff") -> None:
        """Ask for an end: `poweroff`, `reboot`, or `force`."""
        if how == "force":
            self._guard(lambda: self.spine.engine.send(self.spine.boot.name, boot.E.FORCE, "asked", how="reboot"))
        else:
            self._guard(lambda: self.spine.power_signals.stop(how, "asked"))

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
