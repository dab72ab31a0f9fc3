"""PID 1's end of the state: the engine's journal port, and what the storage machine's busy states owe.

What a commit means is decided by the storage machine's state (docs/ARCHITECTURE.md, storage health): DURABLE goes to the worker;
anything else is kept in memory under its number and written out, in order and idempotently, when a worker has opened the database again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen

from bay0.base.errors import RefusedError, SpawnError
from bay0.machines import MACHINES
from bay0.machines.engine import Acceptance, Engine
from bay0.machines.instance import Instance, Step
from bay0.machines.storage import E, Effect, S
from bay0.pid1 import flow
from bay0.state.link import FAULT, GONE, MISPLACED, OPEN_ENDED, TIMED_OUT, UNSURE, Answer, Launch, WorkerLink
from bay0.state.opening import Clock, Opening
from bay0.state.room import Room
from bay0.state.unwritten import Unwritten

if TYPE_CHECKING:
    from bay0.base.bounds import Bounds
    from bay0.machines.table import MachineDef, Row
    from bay0.pid1.reactor import Reactor, Timer

LAZY_FLUSH_S = 1.0
QUESTIONS_MAX = 24  # of clients, waiting for the worker


_EVENTS = {
    "no_device": E.NO_DEVICE, "unmountable": E.NO_DEVICE, "full": E.FULL, TIMED_OUT: E.TIMED_OUT, FAULT: E.FAULT, UNSURE: E.FAULT, GONE: E.FAULT,
}  # fmt: skip
_MEND_THEMSELVES = ("full", "unwritable", "busy", "unmountable")


def _event(answer: Answer) -> E:
    return _EVENTS.get(answer.code or "", E.UNWRITABLE)


@frozen(eq=False)
class _Waiter:
    """Somebody who is told what became of a step."""

    promised: bool
    done: Callable[[Answer], None]


@define(eq=False, repr=False)
class StatePort:
    """One a boot. `boot` is this boot's row; `stored` the machines as the database had them when it was first read.

    `clock`: is told what the disk says of the time, and says what is to be kept of it. `held` ends what still runs on a dead
    filesystem, which cannot be mounted anew before.
    """

    engine: Engine
    reactor: Reactor
    bounds: Bounds
    log: Any
    launch: Launch
    boot: dict[str, Any]
    clock: Clock
    wanted_device: str | None = None
    held: Callable[[], None] = lambda: None
    storage: Instance = field(init=False)
    dirty: str | None = field(init=False, default=None)
    growing: bool = field(init=False, default=False)  # the filesystem, to the size of its disk
    room: Room = field(init=False, factory=Room)
    link: WorkerLink = field(init=False)
    _opening: Opening = field(init=False)
    _unwritten: Unwritten = field(init=False, factory=Unwritten)
    _in_flight: set[int] = field(init=False, factory=set)
    _waiters: dict[int, _Waiter] = field(init=False, factory=dict)
    _lazy: Timer | None = field(init=False, default=None)
    _current: bool = field(init=False, default=False)  # the database has been opened, migrated and read by the worker that is there
    _readonly_code: str | None = field(init=False, default=None)
    _misplaced: set[str] = field(init=False, factory=set)  # what was said of files that cannot be written
    _retry_at: float = field(init=False, default=0.0)

    def __attrs_post_init__(self) -> None:
        """Make this boot's storage machine, and wire the link's three kinds of news to it."""
        engine = self.engine
        self.storage = engine.add(f"storage:{self.boot['boot_id'][:8]}", MACHINES["storage"])
        engine.on("storage", S.DETACHED, S.WEDGED, S.FULL, S.READONLY, call=self._is_dirty, of=self.storage)
        engine.on("storage", S.DURABLE, call=self._is_clean, of=self.storage)
        self.link = WorkerLink(
            self.reactor, self.log, self.launch,
            on_missed=lambda why: self._send(E.MISSED, why),
            on_fault=lambda why: self._send(E.FAULT, why),
            on_dead=lambda: self._send(E.WORKER_GONE, ""),
        )  # fmt: skip
        self._opening = Opening(self.link, self.bounds, self.log, self.boot, self.clock, self.wanted_device)

    def _is_dirty(self, _storage: Instance, step: Step) -> None:
        self.dirty = step.why

    def _is_clean(self, _storage: Instance, _step: Step) -> None:
        self.dirty = None

    # ---- what the rest of the program asks

    @property
    def device(self) -> str | None:
        """The disk that was mounted."""
        return self._opening.device

    @property
    def stored(self) -> list[dict[str, Any]] | None:
        """The machines as the database had them when it was first read; None: it has not been read."""
        return self._opening.stored

    @property
    def memory(self) -> Mapping[int, Step]:
        """Number -> step: what is not committed yet."""
        return self._unwritten.memory

    @property
    def healthy(self) -> bool:
        """A commit is kept now."""
        return self.storage.now is S.DURABLE

    def describe(self) -> dict[str, Any]:
        """Return what `bay0 status` shows of it."""
        return {
            "state": self.storage.now.value,
            "device": self.device,
            "in_memory": len(self.memory),
            "lost": self._unwritten.lost,
            "room": self.room.last if self.healthy or self.full else None,
            "workers_left_behind": self.link.left_behind,
            "longest_ms": {op: round(s * 1000, 1) for op, s in self.link.longest_s.items()},
        }

    def grows(self, growing: bool) -> None:  # noqa: FBT001 - as it is said
        """Note that the filesystem is being grown, or is no more."""
        self.growing = growing

    def taken_over(self) -> None:
        """Let go of the stored machines: each is a live one now."""
        self._opening.stored = []

    def retry(self, why: str, reply: Callable[[Step | Exception | None], None] | None = None) -> None:
        """Try the disk again; `reply` as in `Engine.send`."""
        self.engine.send(self.storage.name, E.RETRY, why, reply)

    def worth_retrying(self) -> bool:
        """Tell whether what failed may have mended itself, and enough time has passed to look."""
        now = self.reactor.clock()
        if self._readonly_code not in _MEND_THEMSELVES or now < self._retry_at:
            return False
        self._retry_at = now + self.bounds.storage_retry
        return True

    @property
    def full(self) -> bool:
        """There is no room on the disk."""
        return self.storage.now is S.FULL

    def look_for_room(self, freed: Callable[[], None]) -> None:
        """Ask how much room is on a full disk, which costs no access to it; call `freed` if it is clearly more than then."""

        def answered(answer: Answer) -> None:
            if answer.ok and self.full and self.room.freed(answer.value):
                freed()

        if self.full:
            self.ask("room", self.bounds.commit, answered)

    def keep_out_a_crowd(self) -> None:
        """Before a client's question: `RefusedError` while many wait. The worker answers in order; a flood would look like a dead disk."""
        if self.link.questions + self.link.held_back >= QUESTIONS_MAX:
            raise RefusedError("too many requests wait for the disk; ask again in a moment")

    def ask(self, op: str, bound_s: float, done: Callable[[Answer], None], **arguments: Any) -> None:
        """Ask the worker; see `WorkerLink.ask`."""
        self.link.ask(op, bound_s, done, **arguments)

    def tell(self, op: str, bound_s: float, done: Callable[[Answer], None], **arguments: Any) -> None:
        """`ask` the database to keep something: a failure is the storage machine's business too."""

        def answered(answer: Answer) -> None:
            done(answer)
            self._judge(answer)

        self.ask(op, bound_s, answered, **arguments)

    def in_the_way(self, answer: Answer) -> bool:
        """Tell whether something else is in the place of a file: no trouble of the disk's. Said once."""
        if answer.code == MISPLACED and answer.why not in self._misplaced:
            self._misplaced.add(answer.why)
            self.log.warning("not written on /persist", why=answer.why)
        return answer.code == MISPLACED

    def append_genesis(self, lines: list[str]) -> None:
        """Append to the genesis log if the disk is healthy; a failure is the storage machine's business."""
        if self.healthy:
            self.ask("genesis", self.bounds.genesis, self._judge, lines=lines)

    def probe(self, text: str) -> None:
        """See whether a healthy disk still answers, and how much room is on it."""

        def answered(answer: Answer) -> None:
            if answer.ok:
                self.room.last = answer.value
            self._judge(answer)

        if self.healthy:
            self.ask("probe", self.bounds.commit, answered, text=text)

    # ---- the journal port

    def admits(self, machine: MachineDef, row: Row) -> str | None:  # noqa: ARG002 - the protocol's
        """Refuse a promise that cannot be kept."""
        return self._lacking() if row.promised and not self.healthy else None

    def _lacking(self) -> str:
        return f"storage is {self.storage.now.value}"

    def need_durable(self) -> None:
        """Before something that must be kept: `RefusedError` while nothing can be."""
        if not self.healthy:
            raise RefusedError(f"{self._lacking()}; nothing was changed")

    def commit(self, step: Step, row: Row, done: Callable[[Acceptance], None]) -> None:
        """Keep `step`: on disk if storage is healthy, else in memory until it is."""
        self._unwritten.remember(step)
        if not self.healthy or step.kind == "storage":
            self._flush_soon()
            done(Acceptance.VOLATILE)
            return

        self._waiters[step.n] = _Waiter(row.promised, lambda answer: done(self._accept(step, row, answer)))
        self._send_some()

    def _send_some(self) -> None:
        """Commit what is in memory, in order; one commit is under way at a time, and what comes meanwhile goes together in the next."""
        rows = [] if self._in_flight else self._unwritten.that_fit(self.memory)
        sent = [row["n"] for row in rows]
        if not sent:
            return
        self._in_flight.update(sent)
        full = self._unwritten.wants_sync or any(self._waiters[n].promised for n in sent if n in self._waiters)

        def answered(answer: Answer) -> None:
            if answer.ok:
                self._unwritten.committed(sent, full=full)
            self._answer(sent, answer)  # what these ask for goes together: a switch's thaw and its freeze are one commit
            self._in_flight.clear()
            if answer.ok and self.healthy:
                self._send_some()
            else:  # the rest was not even sent: nobody needs to wonder about it
                self._answer(list(self._waiters), Answer(code=FAULT, why=answer.why or "storage is not durable any more"))
            self._judge(answer)

        self.ask("commit", self.bounds.commit, answered, steps=rows, full=full)

    def _answer(self, numbers: list[int], answer: Answer) -> None:
        for waiter in [self._waiters.pop(n) for n in numbers if n in self._waiters]:
            waiter.done(answer)

    def _stage_all(self) -> flow.Flow[Answer]:
        """Give the worker everything that is in memory, in order, a packet at a time, to be written by its next flush."""
        staged = Answer()
        left = list(self.memory)
        while staged.ok and (rows := self._unwritten.that_fit(left)):
            staged = yield self.link.waiting("stage", self.bounds.commit, steps=rows)
            left = left[left.index(rows[-1]["n"]) + 1 :]
        return staged

    def _accept(self, step: Step, row: Row, answer: Answer) -> Acceptance:
        if answer.ok or not row.promised:
            return Acceptance.DURABLE if answer.ok else Acceptance.VOLATILE
        if answer.code in OPEN_ENDED:
            return Acceptance.UNKNOWN
        self._unwritten.forget([step.n])
        return Acceptance.REFUSED

    def _flush_soon(self) -> None:
        if self._lazy is None:
            self._lazy = self.reactor.call_later(LAZY_FLUSH_S, self._flush_lazily)

    def _flush_lazily(self) -> None:
        self._lazy = None
        if self.healthy:
            self._send_some()

    # ---- news for the storage machine

    def _judge(self, answer: Answer) -> None:
        """Tell the storage machine about an error; of a missed bound or a death it has heard already."""
        if not self.in_the_way(answer) and not answer.ok and answer.code not in (TIMED_OUT, GONE):
            self._note(answer)
            self._send(_event(answer), answer.why)
            self._distrust(_event(answer), answer.why)

    def _distrust(self, event: E, why: str) -> None:
        """Replace a worker with a fault, or WEDGED would wait for an end that never comes."""
        if event is E.FAULT:
            self.link.abandon(why)

    def _note(self, answer: Answer) -> None:
        self._readonly_code = answer.code
        self._retry_at = self.reactor.clock() + self.bounds.storage_retry
        if answer.code == "busy":
            self.held()
        if answer.code == "full":
            self.room.found_full(None)
            self.ask("room", self.bounds.commit, lambda now: self.room.found_full(now.value if now.ok else None))

    def _send(self, event: Enum, why: str) -> None:
        self.engine.send(self.storage.name, event, why)

    # ---- the storage machine's effects

    def start(self, instance: Instance, effect: Enum, token: int) -> None:
        """Run what the storage machine owes; the outcome is its next event."""

        def owed() -> bool:
            return instance.committed is not None and instance.committed.n == token

        sequences: dict[Enum, Callable[[Callable[[], bool]], flow.Flow[tuple[E, str]]]] = {
            Effect.OPEN: self._open,
            Effect.REOPEN: self._reopen,
            Effect.CLOSE: self._close,
        }
        flow.run(sequences[effect](owed), lambda end: self._outcome(instance, token, *end) if owed() else self._overtaken())

    def _overtaken(self) -> None:
        """End an attempt that outlived its state's deadline: WEDGED waits for its worker's end, so there must be one."""
        if self.storage.now is not S.WEDGED:
            return
        if self.link.there:
            self.link.abandon("the attempt took too long")
        elif not self.link.left_behind:
            self.link.replace_later()

    def _outcome(self, instance: Instance, token: int, event: E, why: str) -> None:
        self._distrust(event, why)
        self.reactor.call_soon(lambda: self.engine.outcome(instance.name, token, event, why))

    def _reopen(self, owed: Callable[[], bool]) -> flow.Flow[tuple[E, str]]:
        yield self.link.ended()
        return (yield from self._open(owed))

    def _open(self, owed: Callable[[], bool]) -> flow.Flow[tuple[E, str]]:
        """Find, mount, open, migrate, read, flush: each with its own bound, and none once it is no longer owed."""
        if not owed():
            return E.FAULT, "overtaken"
        if not self.link.there:
            if self.link.left_behind:  # never two at once
                yield self.link.ended()
            try:
                self.link.start()
            except SpawnError as error:
                self.link.replace_later()
                return E.FAULT, str(error)
        for stage in (*self._opening.stages(), self._flush_memory):
            self._current = stage == self._flush_memory
            failure = yield from flow.as_long_as(owed, stage())
            if not owed():
                return E.FAULT, "overtaken"
            if failure is not None:
                self._note(failure)
                return _event(failure), failure.why
        return E.OPENED, str(self.device)

    def _flush_memory(self) -> flow.Flow[Answer | None]:
        """Write out what no sync has vouched for, in order; what is there is skipped."""
        sent = self._unwritten.all_again()
        staged = yield from self._stage_all()
        if not staged.ok:
            return staged
        flushed: Answer = yield self.link.waiting("flush", self.bounds.flush)
        if not flushed.ok:
            return flushed
        self._unwritten.forget(sent)
        self.log.info("memory journal written out", steps=len(sent), new=flushed.value, lost=self._unwritten.lost)
        return None

    def _close(self, _owed: Callable[[], bool]) -> flow.Flow[tuple[E, str]]:
        if self._in_flight:  # their answers come first: what was refused must not be written after all
            yield self.link.waiting("hello", self.bounds.commit)
        self._answer(list(self._waiters), Answer(code=FAULT, why="storage is being closed"))
        if self.memory and self._current:  # else the database may be an older program's, or lack this boot
            yield from self._stage_all()
            yield self.link.waiting("flush", self.bounds.commit)
        if self._current:
            kept: Answer = yield self.link.waiting("farewell", self.bounds.commit, seconds=self.clock.good())
            told = kept.value if kept.ok else {"failed": [kept.why]}
            (self.log.warning if told["failed"] else self.log.info)("time and seed kept for the next boot", **told)
        closed: Answer = yield self.link.waiting("close", self.bounds.close)
        if not closed.ok:
            return (E.TIMED_OUT if closed.code == TIMED_OUT else E.FAULT), closed.why
        self.log.info("persist closed", checkpointed=closed.value["checkpointed"])
        return E.DONE, ""
