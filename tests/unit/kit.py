"""What the unit tests share: a clock that is moved by hand, a small table, a world with real processes, and a place to run it in.

`in_child` runs a test's body in a fork of the test process: code that reaps *every* child, sets signal handlers or arms an audit
hook must not do so in pytest itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import heapq
import itertools
import json
import os
import pickle
import resource
import select
import signal
import socket
import subprocess
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any, NoReturn

import pytest
from attrs import define, field

from bay0.base.bounds import Bounds
from bay0.base.errors import SpawnError
from bay0.control.server import ControlServer
from bay0.effects.spawn import Result, Spawner
from bay0.machines.engine import Acceptance, Engine
from bay0.machines.instance import Instance, Step
from bay0.machines.table import MachineDef, Row, StateSpec, cells
from bay0.pid1.reactor import Reactor
from bay0.pid1.reaper import Reaper, Signals
from bay0.reconcile.replay import Replay

BUILT_ROOT = Path(__file__).parents[2] / "build/rootfs"  # what the built image has
HANG_S = 60.0  # a test that takes longer hangs; nothing here needs more than a few seconds
PR_SET_CHILD_SUBREAPER = 36
QUICK = Bounds(term_grace=0.3, kill_grace=2.0, pipe_grace=0.25)


# ---- waiting


def until(true: Callable[[], Any], what: str = "the condition", at_most_s: float = 20.0, step: Callable[[], Any] | None = None) -> None:
    """Wait for a condition with a bound; `step` is called in between (a reactor's turn, say)."""
    end = time.monotonic() + at_most_s
    while not true():
        assert time.monotonic() < end, f"{what} did not come true within {at_most_s:g} s"
        if step is None:
            time.sleep(0.005)
        else:
            step()


# ---- a test's body in a process of its own


def in_child(test: Callable[..., None]) -> Callable[..., None]:
    """Run the test in a fork that adopts its orphans; report its failure or skip here. Leaves no process behind."""

    @functools.wraps(test)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read)
            _be_child(write, test, args, kwargs)
        os.close(write)
        try:
            report = _report_of(read)
        finally:
            os.close(read)
            _end(pid)
        kind, text = pickle.loads(report) if report else ("died", "the child ended without a word")
        if kind == "skip":
            pytest.skip(text)
        if kind != "ok":
            pytest.fail(text, pytrace=False)

    return wrapper


def _be_child(write: int, test: Callable[..., None], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    try:
        os.setsid()
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        test(*args, **kwargs)
        report = ("ok", "")
    except pytest.skip.Exception as skip:
        report = ("skip", str(skip))
    except BaseException:
        report = ("failed", traceback.format_exc())
    with contextlib.suppress(BaseException):
        _kill_descendants(os.getpid())
        os.write(write, pickle.dumps((report[0], report[1][-30000:])))
    os._exit(0)


def _report_of(read: int) -> bytes:
    ready, _, _ = select.select([read], [], [], HANG_S)
    return os.read(read, 65536) if ready else pickle.dumps(("hung", f"the test's child gave no answer in {HANG_S:g} s"))


def _end(pid: int) -> None:
    """Kill a child that hangs, and what it started."""
    _kill_descendants(pid)
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _kill_descendants(root: int) -> None:
    parents = {pid: int(found[1]) for pid in _pids() if (found := _stat(pid))}
    doomed, more = set(), {root}
    while more:
        doomed |= more
        more = {pid for pid, parent in parents.items() if parent in doomed} - doomed
    for pid in doomed - {root}:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def zombies() -> list[int]:
    """Our children that have ended and were not reaped."""
    return [pid for pid in children() if _state(pid) == "Z"]


def children() -> list[int]:
    """Our direct children, from /proc (proc(5), field 4 of stat)."""
    mine = str(os.getpid())
    return [pid for pid in _pids() if _stat(pid)[1:2] == [mine]]


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _stat(pid: int) -> list[str]:
    """State, parent and so on: what follows the command's name."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return []


def _state(pid: int) -> str:
    return next(iter(_stat(pid)), "")


def alive(pid: int) -> bool:
    """It exists and has not ended."""
    return _state(pid) not in ("", "Z", "X")


# ---- a control server on a thread


@contextlib.contextmanager
def served(path: str, methods: dict[str, Any], reactor: Reactor | None = None) -> Iterator[None]:
    """Serve `methods` at `path` from a thread, for tests of the command line."""
    turning, over = reactor or Reactor(), threading.Event()
    ControlServer(turning, Log(), methods, path=path, uids=frozenset({os.getuid()})).open()

    def serve() -> None:
        while not over.is_set():
            turning.turn(0.02)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield
    over.set()
    thread.join(10)


# ---- time by hand


@define(eq=False)
class Timers:
    """Deadlines and a queue on a clock that only `advance` moves. Serves as the engine's timers and as a reactor without descriptors."""

    now: float = 0.0
    _heap: list[Any] = field(factory=list)
    _serial: Any = field(factory=itertools.count)

    @define(eq=False)
    class Timer:
        call: Callable[[], None] | None

        def cancel(self) -> None:
            self.call = None

    def clock(self) -> float:
        return self.now

    def call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        timer = Timers.Timer(call)
        heapq.heappush(self._heap, (self.now + seconds, next(self._serial), timer))
        return timer

    def call_soon(self, call: Callable[[], None]) -> None:
        self.call_later(0, call)

    def advance(self, seconds: float = 0.0) -> None:
        """Let `seconds` pass, and everything that is due meanwhile happen in order."""
        end = self.now + seconds
        while self._heap and self._heap[0][0] <= end:
            due, _, timer = heapq.heappop(self._heap)
            self.now = max(self.now, due)
            call, timer.call = timer.call, None
            if call is not None:
                call()
        self.now = end

    @property
    def waiting(self) -> int:
        return sum(timer.call is not None for _, _, timer in self._heap)


# ---- a log that remembers


@define(eq=False)
class Log:
    """Keeps what it is told as (level, event, keys)."""

    lines: list[tuple[str, str, dict[str, Any]]] = field(factory=list)

    def __getattr__(self, level: str) -> Callable[..., None]:
        if level not in ("debug", "info", "warning", "error"):
            raise AttributeError(level)
        return lambda event, **keys: self.lines.append((level, event, keys))

    def events(self) -> list[str]:
        return [event for _, event, _ in self.lines]

    def of(self, event: str) -> list[dict[str, Any]]:
        return [keys for _, name, keys in self.lines if name == event]


# ---- a small machine: at rest, busy, promised


class S(Enum):
    IDLE = "idle"
    WORKING = "working"
    READY = "ready"
    ENDING = "ending"


class E(Enum):
    WORK = "work"
    DONE = "done"
    STORE = "store"
    FAULT = "fault"
    TIMED_OUT = "timed_out"
    CONVERGE = "converge"


class Effect(Enum):
    DO = "do"
    END = "end"


SPECS = (
    StateSpec(S.IDLE, "nothing runs", converged=True),
    StateSpec(S.WORKING, "work is owed", busy=Effect.DO, deadline_s=10),
    StateSpec(S.READY, "work is done"),
    StateSpec(S.ENDING, "its end is owed", busy=Effect.END, deadline_s=5),
)
ROWS = (
    Row(S.IDLE, E.WORK, S.WORKING, "asked to work"),
    Row(S.IDLE, E.STORE, S.WORKING, "asked to work, and told it is kept", promised=True),
    Row(S.WORKING, E.DONE, S.READY, "it is done"),
    Row(S.WORKING, E.FAULT, S.ENDING, "it failed"),
    Row(S.WORKING, E.TIMED_OUT, S.ENDING, "it took too long"),
    Row(S.ENDING, E.DONE, S.IDLE, "it has ended"),
    Row(S.ENDING, E.FAULT, S.ENDING, "again"),
    Row(S.ENDING, E.TIMED_OUT, S.ENDING, "again"),
    *(Row(s, E.CONVERGE, S.ENDING, "make it stopped") for s in (S.WORKING, S.READY, S.ENDING)),
)
IGNORED = {
    **cells((S.IDLE, S.READY), (E.DONE, E.FAULT, E.TIMED_OUT), "nothing is under way"),
    **cells((S.IDLE,), (E.CONVERGE,), "nothing runs"),
}
REFUSED = cells((S.WORKING, S.READY, S.ENDING), (E.WORK, E.STORE), "it works already")
SMALL: dict[str, Any] = {
    "kind": "small", "states": S, "events": E, "initial": S.IDLE, "specs": SPECS, "rows": ROWS, "ignored": IGNORED, "refused": REFUSED,
}  # fmt: skip


def small(**changes: Any) -> MachineDef:
    """The small machine, or one with mistakes in it."""
    return MachineDef(**{**SMALL, **changes})


# ---- the engine's ports, recording


@define(eq=False)
class Journal:
    """A journal port. `hold` keeps commits waiting until `answer`; otherwise each is accepted at once with `verdict`."""

    verdict: Acceptance = Acceptance.DURABLE
    hold: bool = False
    refusal: str | None = None
    steps: list[Step] = field(factory=list)
    held: list[Callable[[Acceptance], None]] = field(factory=list)
    order: list[str] = field(factory=list)

    def admits(self, _machine: MachineDef, row: Row) -> str | None:
        return self.refusal if row.promised else None

    def commit(self, step: Step, _row: Row, done: Callable[[Acceptance], None]) -> None:
        self.steps.append(step)
        self.order.append(f"commit {step.dest}")
        if self.hold:
            self.held.append(done)
        else:
            done(self.verdict)

    def answer(self, verdict: Acceptance = Acceptance.DURABLE) -> None:
        self.held.pop(0)(verdict)

    def moves(self) -> list[tuple[str, str, str]]:
        return [(step.source, step.event, step.dest) for step in self.steps]


@define(eq=False)
class Effects:
    """An effect port that only remembers."""

    journal: Journal
    started: list[tuple[str, Enum, int]] = field(factory=list)

    def start(self, instance: Instance, effect: Enum, token: int) -> None:
        self.journal.order.append(f"effect {effect.value} in {instance.now.value}")
        self.started.append((instance.name, effect, token))

    @property
    def token(self) -> int:
        """Of the effect started last."""
        return self.started[-1][2]


@define(eq=False)
class Bench:
    """An engine with recording ports and a clock by hand."""

    journal: Journal = field(factory=Journal)
    timers: Timers = field(factory=Timers)
    log: Log = field(factory=Log)
    effects: Effects = field(init=False)
    engine: Engine = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.effects = Effects(self.journal)
        self.engine = Engine("boot-1", self.timers, lambda: int(self.timers.now * 1000), self.log)
        self.engine.keep_with(self.journal)
        self.engine.serve("small", self.effects)


class Known:
    """A `replay.Replay` that has taken over what was stored, or has not."""

    def __init__(self) -> None:
        self.known, self.slots_left_alone = True, frozenset[int]()

    def need_known(self) -> None:
        self._known = self.known
        Replay.need_known(self)  # type: ignore[arg-type]


# ---- real processes


@define(eq=False)
class World:
    """A reactor, the reaper and the spawner, with real children. Use it inside `in_child` only: it reaps all children."""

    bounds: Bounds = QUICK
    log: Log = field(factory=Log)
    reactor: Reactor = field(factory=Reactor)
    reaper: Reaper = field(init=False)
    spawner: Spawner = field(init=False)
    signals: Signals = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.reaper = Reaper(self.log)
        self.spawner = Spawner(self.reactor, self.reaper, self.bounds, self.log)
        self.signals = Signals(self.reactor)
        self.signals.on[signal.SIGCHLD] = self.reaper.drain
        self.signals.install()

    def until(self, true: Callable[[], Any], what: str = "the condition", at_most_s: float = 30.0) -> None:
        until(true, what, at_most_s, lambda: self.reactor.turn(0.05))

    def run(self, *argv: str, deadline_s: float = 20.0, **more: Any) -> Result:
        """Run one command to its end."""
        return self.run_all([argv], deadline_s, **more)[0]

    def sh(self, script: str, deadline_s: float = 20.0, **more: Any) -> Result:
        return self.run("sh", "-c", script, deadline_s=deadline_s, **more)

    def run_all(self, commands: list[tuple[str, ...]], deadline_s: float = 20.0, **more: Any) -> list[Result]:
        """Run all at once; each must report exactly once."""
        results: dict[int, Result] = {}

        def done(number: int, result: Result) -> None:
            assert number not in results, f"command {number} reported twice"
            results[number] = result

        for number, argv in enumerate(commands):
            self.spawner.run(argv[0], argv, deadline_s, functools.partial(done, number), **more)
        self.until(lambda: len(results) == len(commands), "the end of all commands", at_most_s=HANG_S - 10)
        return [results[number] for number in range(len(commands))]


@contextlib.contextmanager
def descriptors_kept() -> Iterator[None]:
    """Fail if the block leaves a descriptor open that was not there before."""
    gc.collect()  # what earlier tests left must not be closed, and its number used again, in the middle
    before = set(os.listdir("/proc/self/fd"))
    yield
    left = set(os.listdir("/proc/self/fd")) - before
    assert not left, f"descriptors leaked: {sorted(left)}"


@contextlib.contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Let every open(2) and pipe(2) of this process fail with EMFILE; use it inside `in_child` only."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# ---- a reactor with real descriptors on a clock that is moved by hand


@define(eq=False)
class HandClock:
    """`wait` lets time pass and everything that became due or ready happen."""

    now: float = 1000.0
    reactor: Reactor = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.reactor = Reactor(clock=lambda: self.now)

    def wait(self, seconds: float = 0.0) -> None:
        self.now += seconds
        for _ in range(10):
            self.reactor.turn(0)


@define(eq=False)
class PlayedWorker:
    """The far end of a link: a socket that the test answers by hand, and a death that comes when the test says so."""

    peer: socket.socket
    ended: Callable[[], None]
    killed: int = 0
    seen: list[dict[str, Any]] = field(factory=list)

    def kill(self) -> None:
        self.killed += 1

    def requests(self) -> list[dict[str, Any]]:
        """Read what was asked and not looked at yet."""
        found = []
        with contextlib.suppress(BlockingIOError):
            while packet := self.peer.recv(256 << 10):
                found.append(json.loads(packet))
        self.seen += found
        return found

    def answer(self, request: dict[str, Any], value: Any = None, **beside: Any) -> None:
        self.peer.send(json.dumps({"id": request["id"], "ok": value, **beside}).encode())

    def fail(self, request: dict[str, Any], code: str, message: str = "because") -> None:
        self.peer.send(json.dumps({"id": request["id"], "error": {"code": code, "message": message}}).encode())

    def die(self) -> None:
        """End, and be reaped."""
        self.peer.close()
        self.ended()


@define(eq=False)
class Launcher:
    """Starts played workers; `failing` makes the next starts fail."""

    workers: list[PlayedWorker] = field(factory=list)
    failing: int = 0

    def __call__(self, theirs: socket.socket, ended: Callable[[], None]) -> PlayedWorker:
        if self.failing:
            self.failing -= 1
            raise SpawnError("no process left")
        peer = theirs.dup()
        peer.setblocking(False)
        self.workers.append(PlayedWorker(peer, ended))
        return self.workers[-1]

    @property
    def last(self) -> PlayedWorker:
        return self.workers[-1]


def need_namespaces() -> None:
    """Skip what makes a namespace of its own where that is refused, as in a chroot."""
    done = subprocess.run(["unshare", "--user", "--map-root-user", "--net", "true"], stderr=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        pytest.skip("namespaces are refused here")


def not_built(why: str) -> NoReturn:
    """Skip what looks at what scripts/quickstart.sh builds; in `tox -e freeze`, which has just built it, that is a failure."""
    if os.environ.get("TOX_ENV_NAME") == "freeze":
        pytest.fail(why)
    pytest.skip(why)
