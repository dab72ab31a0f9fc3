"""The link to the state worker: one process, requests with bounds, and the replacement gate.

A bound that is missed abandons the worker: it is killed, every open request is answered "timed out", and `on_missed` is called. Killing
a process that hangs on a dead disk ends it only when the disk answers, so the link counts it as left behind until the reaper
has seen its end; only then is `on_dead` called, after a back-off, and a new worker may start (docs/ARCHITECTURE.md, storage health).
"""

from __future__ import annotations

import itertools
import json
import socket
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from attrs import define, field, frozen

from bay0.base.errors import SpawnError
from bay0.pid1.reactor import READ, WRITE

if TYPE_CHECKING:
    from bay0.pid1 import flow
    from bay0.pid1.reactor import Reactor, Timer

BACK_OFF_S = (0.1, 0.5, 2.0, 5.0, 15.0, 30.0)
CALM_S = 60.0
PACKET_MAX = 256 << 10
REQUEST_MAX = 160 << 10  # bytes the worker reads at once (its PACKET_MAX; a test compares them)
TIMED_OUT, GONE, FAULT, UNSURE, MISPLACED = "timed_out", "gone", "fault", "unsure", "misplaced"
OPEN_ENDED = (TIMED_OUT, GONE, UNSURE)  # whether it was done is not known


class WorkerProcess(Protocol):
    """What the link needs of a started worker."""

    def kill(self) -> None:
        """SIGKILL it; it may take as long as the disk to die."""


Launch = Callable[[socket.socket, Callable[[], None]], WorkerProcess]


@frozen(repr=False)
class Answer:
    """What came of a request. `code` is None for an answer, else a `StorageError` code, "timed_out" or "gone"."""

    value: Any = None
    code: str | None = None
    why: str = ""

    @property
    def ok(self) -> bool:
        """An answer came and it is not an error."""
        return self.code is None


@define(eq=False, repr=False)
class _Call:
    done: Callable[[Answer], None]
    timer: Timer
    op: str
    asked: float


@define(eq=False, repr=False)
class _Worker:
    peer: socket.socket
    process: WorkerProcess | None = None
    calls: dict[int, _Call] = field(factory=dict)
    outbox: deque[bytes] = field(factory=deque)
    full: bool = False
    gone: bool = False


@define(eq=False, repr=False)
class WorkerLink:
    """At most one worker that answers, and at most one that was abandoned and has not ended."""

    reactor: Reactor
    log: Any
    launch: Launch
    on_missed: Callable[[str], None]
    on_fault: Callable[[str], None]
    on_dead: Callable[[], None]
    _current: _Worker | None = None
    _abandoned: _Worker | None = None
    _waiters: list[Callable[[Answer], None]] = field(factory=list)
    longest_s: dict[str, float] = field(factory=dict)  # op -> the longest that an answer to it took, waiting for others included
    _ids: Any = field(factory=itertools.count)
    _held: list[Callable[[], None]] | None = None  # requests that wait in PID 1
    _failures: int = 0
    _last_failure: float = -CALM_S

    @property
    def there(self) -> bool:
        """A worker can be asked."""
        return self._current is not None

    @property
    def left_behind(self) -> int:
        """Workers abandoned and not yet ended: 0 or 1."""
        return 0 if self._abandoned is None else 1

    def under_way(self) -> dict[str, float]:
        """Return what the worker has not answered yet: op -> seconds since the oldest of its kind was asked."""
        found: dict[str, float] = {}
        for call in self._current.calls.values() if self._current is not None else ():
            found.setdefault(call.op, self.reactor.clock() - call.asked)
        return found

    @property
    def questions(self) -> int:
        """Requests that the worker has not answered."""
        return len(self._current.calls) if self._current is not None else 0

    @property
    def held_back(self) -> int:
        """Requests that wait for `release`."""
        return len(self._held or ())

    def hold(self) -> None:
        """Keep what is asked from now on in PID 1; what was asked before goes on. Its bounds begin with `release`."""
        if self._held is None:
            self._held = []

    def release(self) -> None:
        """Ask what was held back, in order."""
        held, self._held = self._held or [], None
        for ask in held:
            ask()

    def start(self) -> None:
        """Start a worker. `SpawnError` if it cannot be started."""
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            raise SpawnError(f"no socket for a state worker: {error}") from error
        ours.setblocking(False)
        worker = _Worker(ours)
        try:
            worker.process = self.launch(theirs, lambda: self._ended(worker))
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._current = worker
        self._watch(worker)

    def ask(self, op: str, bound_s: float, done: Callable[[Answer], None], **arguments: Any) -> None:
        """Send a request; `done` comes once, within `bound_s`."""
        if self._held is not None:
            self._held.append(partial(self.ask, op, bound_s, done, **arguments))
            return
        worker = self._current
        if worker is None:
            self.reactor.call_soon(lambda: done(Answer(code=GONE, why="there is no state worker")))
            return
        number = next(self._ids)
        request = json.dumps({"id": number, "op": op, **arguments}).encode()
        if len(request) > REQUEST_MAX:  # the kernel or the worker would cut it, and a healthy worker would look wedged
            self.reactor.call_soon(lambda: done(Answer(code=FAULT, why=f"the request {op} is too large")))
            return
        timer = self.reactor.call_later(bound_s, lambda: self._missed(worker, number, op, bound_s))
        worker.calls[number] = _Call(done, timer, op, self.reactor.clock())
        worker.outbox.append(request)
        if len(worker.outbox) == 1:
            self._push(worker)

    def waiting(self, op: str, bound_s: float, **arguments: Any) -> flow.Waitable:
        """`ask` for a flow."""
        return lambda resume: self.ask(op, bound_s, resume, **arguments)

    def ended(self) -> flow.Waitable:
        """Kill what is there and wait until the reaper has seen its end; resumes at once if there is nothing."""

        def wait(resume: Callable[[Answer], None]) -> None:
            if self._current is not None:
                self.abandon("it is replaced")
            if self._abandoned is None:
                resume(Answer())
            else:
                self._waiters.append(resume)

        return wait

    def abandon(self, why: str, code: str = GONE) -> None:
        """Give the worker up: kill it, and answer for it."""
        worker, self._current = self._current, None
        if worker is None:
            return
        self._abandoned = worker
        self._drop(worker)
        if worker.process is not None:
            worker.process.kill()
        _fail(worker, Answer(code=code, why=why))

    def replace_later(self) -> None:
        """Call `on_dead` after a back-off that grows while workers keep failing."""
        now = self.reactor.clock()
        self._failures = self._failures + 1 if now - self._last_failure < CALM_S else 0
        self._last_failure = now
        self.reactor.call_later(BACK_OFF_S[min(self._failures, len(BACK_OFF_S) - 1)], self.on_dead)

    def _watch(self, worker: _Worker) -> None:
        events = READ | WRITE if worker.full else READ
        self.reactor.watch(worker.peer.fileno(), events, lambda ready: self._ready(worker, ready))

    def _ready(self, worker: _Worker, ready: int) -> None:
        if ready & WRITE:
            self._push(worker)
        if ready & READ and worker is self._current:
            self._receive(worker)

    def _push(self, worker: _Worker) -> None:
        """Send what waits; the socket holds some hundred requests. If it stays full, the worker hangs and a bound will say so."""
        try:
            while worker.outbox:
                worker.peer.send(worker.outbox[0])
                worker.outbox.popleft()
        except BlockingIOError:
            pass
        except OSError:
            worker.outbox.clear()  # it is dying: the reaper will say so
            return
        if worker.full != bool(worker.outbox):
            worker.full = not worker.full
            self._watch(worker)

    def _receive(self, worker: _Worker) -> bool:
        """Handle one packet; tell whether there was one."""
        try:
            packet = worker.peer.recv(PACKET_MAX)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            packet = b""
        if not packet:
            self.reactor.unwatch(worker.peer.fileno())  # the reaper will say that it is gone
            return False
        try:
            number, answer, misplaced = _read(packet)
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as nonsense:
            why = f"the state worker says what makes no sense: {type(nonsense).__name__}"
            self.abandon(why)
            self.on_fault(why)
            return False
        for each in misplaced:
            self.log.warning("set aside on /persist" if each["now"] else "left alone on /persist", **each)
        call = worker.calls.pop(number, None)
        if call is None:
            return True  # late: it was answered "timed out"
        call.timer.cancel()
        self.longest_s[call.op] = max(self.longest_s.get(call.op, 0.0), self.reactor.clock() - call.asked)
        call.done(answer)
        return True

    def _missed(self, worker: _Worker, number: int, op: str, bound_s: float) -> None:
        while worker is self._current and number in worker.calls and self._receive(worker):
            pass  # answers wait in the socket, one a turn: then it is we who are late, and the worker is well
        if worker is not self._current or number not in worker.calls:
            return
        why = f"{op} gave no answer in {bound_s:g} s"
        self.log.warning("persist timeout", op=op, bound_s=bound_s)
        self.abandon(why, TIMED_OUT)
        self.on_missed(why)

    def _ended(self, worker: _Worker) -> None:
        worker.gone = True
        if worker is self._abandoned:
            self._abandoned = None
            self.log.info("abandoned state worker has ended")
        elif worker is self._current:
            while worker is self._current and self._receive(worker):
                pass  # its last answers may still be in the socket
            if worker is self._current:
                self._current = None
                self._drop(worker)
                _fail(worker, Answer(code=GONE, why="the state worker died"))
                self.on_fault("the state worker died")
            else:
                self._abandoned = None  # one of those answers made somebody give it up
        waiters, self._waiters = self._waiters, []
        for resume in waiters:
            resume(Answer())
        if not waiters:
            self.replace_later()

    def _drop(self, worker: _Worker) -> None:
        self.reactor.unwatch(worker.peer.fileno())
        worker.peer.close()


def _read(packet: bytes) -> tuple[int, Answer, list[dict[str, str]]]:
    """Return the number of the request that is answered, the answer, and what the worker found in the way on the disk.

    Raises what reading a packet of nonsense raises.
    """
    reply = json.loads(packet)
    error = reply.get("error") if isinstance(reply, dict) else None
    answer = Answer(code=str(error["code"]), why=str(error["message"])) if error else Answer(value=reply["ok"])
    misplaced = [{key: str(each[key]) for key in ("path", "found", "now")} for each in reply.get("misplaced", ())]
    return int(reply["id"]), answer, misplaced


def _fail(worker: _Worker, answer: Answer) -> None:
    calls, worker.calls = worker.calls, {}
    for call in calls.values():
        call.timer.cancel()
        call.done(answer)
