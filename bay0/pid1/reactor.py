"""The loop of PID 1: one thread that waits nowhere but in its poll call, and handles one event at a time.

Signals, child exits, timers, the control socket and the state worker's answers all become calls in one queue (docs/ARCHITECTURE.md, rule 5).
A turn that has had its time leaves the rest of the queue to the next one, so that the watchdog and the console have theirs. The loop
measures its own turns: one that blocks is a defect, and `bay0 status` and `bay0 turns` show it.
"""

from __future__ import annotations

import heapq
import itertools
import selectors
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from attrs import define, field

from bay0.pid1.turns import Turns, usage

Call = Callable[[], None]
READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
TURN_S = 0.01  # what is queued then waits for the next turn


@define(eq=False, repr=False)
class Timer:
    """A call that is due once; `cancel()` before that undoes it."""

    due: float
    call: Call | None

    def cancel(self) -> None:
        """Forget the call; harmless when it has happened."""
        self.call = None


@define(eq=False, repr=False)
class Reactor:
    """Descriptors, timers and a queue. Times are monotonic seconds."""

    clock: Callable[[], float] = time.monotonic
    usage: Callable[[], tuple[float, int]] = usage
    turn_s: float = TURN_S  # a turn begins no call after it; each makes at least one
    recent: Turns = field(factory=Turns)
    longest_turn_s: float = 0.0
    turns: int = 0
    after_turn: list[Call] = field(factory=list)
    _selector: selectors.BaseSelector = field(factory=selectors.DefaultSelector)
    _timers: list[tuple[float, int, Timer]] = field(factory=list)
    _serial: Any = field(factory=itertools.count)
    _queue: deque[Call] = field(factory=deque)
    _waiting: set[int] = field(factory=set)  # descriptors that were found ready, and whose call is queued
    _running: bool = False

    def describe(self) -> dict[str, Any]:
        """Return what `bay0 status` shows of its turns."""
        return {"longest_turn_ms": round(self.longest_turn_s * 1000, 1), "turns": self.turns}

    def call_soon(self, call: Call) -> None:
        """Queue `call` behind what is queued already."""
        self._queue.append(call)

    def call_later(self, seconds: float, call: Call) -> Timer:
        """Queue `call` in `seconds`."""
        timer = Timer(self.clock() + seconds, call)
        heapq.heappush(self._timers, (timer.due, next(self._serial), timer))
        return timer

    def watch(self, fd: int, events: int, call: Callable[[int], object]) -> None:
        """Call `call(ready events)` whenever `fd` is ready; replaces an earlier watch of it."""
        if fd in self._selector.get_map():
            self._selector.modify(fd, events, call)
        else:
            self._selector.register(fd, events, call)

    def unwatch(self, fd: int) -> None:
        """Forget `fd`; harmless when it is not watched. Call it before closing the descriptor."""
        if fd in self._selector.get_map():
            self._selector.unregister(fd)

    def run(self) -> None:
        """Turn until `stop`."""
        self._running = True
        while self._running:
            self.turn()

    def stop(self) -> None:
        """Leave `run` after this turn."""
        self._running = False

    def turn(self, at_most_s: float | None = None) -> None:
        """Poll once, then handle what is due, one call after the other, for `turn_s`."""
        ready = self._selector.select(self._wait(at_most_s))
        started, (worked, slept) = self.clock(), self.usage()
        for key, events in ready:
            if key.fd not in self._waiting:
                self._waiting.add(key.fd)
                self._queue.append(partial(self._dispatch, key, events))
        while self._timers and self._timers[0][0] <= started:
            self._queue.append(partial(_fire, heapq.heappop(self._timers)[2]))
        about, most, now = None, 0.0, started
        for _ in range(len(self._queue)):  # what these calls queue waits for the next turn, so descriptors get theirs
            call = self._queue.popleft()
            real = _behind(call)
            call()
            before, now = now, self.clock()
            if now - before > most:
                about, most = real, now - before
            if now - started >= self.turn_s:
                break
        self.turns += 1
        for call in self.after_turn:
            call()
        ended = self.clock()
        self.longest_turn_s = max(self.longest_turn_s, ended - started)
        work, sleeps = self.usage()
        self.recent.took(ended, ended - started, (work - worked, sleeps - slept), about)

    def _wait(self, at_most_s: float | None) -> float | None:
        if self._queue:
            return 0.0
        while self._timers and self._timers[0][2].call is None:
            heapq.heappop(self._timers)
        if not self._timers:
            return at_most_s
        due = max(0.0, self._timers[0][0] - self.clock())
        return due if at_most_s is None else min(due, at_most_s)

    def _dispatch(self, key: selectors.SelectorKey, events: int) -> None:
        self._waiting.discard(key.fd)
        current = self._selector.get_map().get(key.fd)  # it may have been closed since, and a new descriptor may have its number
        if current is not None and current.data is key.data and (wanted := events & current.events):
            key.data(wanted)


def _behind(call: Call) -> Callable[..., object] | None:
    """Return what a queued call of the loop's own is there for."""
    if isinstance(call, partial) and call.args:
        first = call.args[0]
        if isinstance(first, Timer):
            return first.call
        if isinstance(first, selectors.SelectorKey):
            return first.data  # type: ignore[no-any-return]
    return call


def _fire(timer: Timer) -> None:
    call, timer.call = timer.call, None
    if call is not None:
        call()
