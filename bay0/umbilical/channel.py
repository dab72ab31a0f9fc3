"""PID 1's end of the channel to the forwarder: messages out, questions with bounds, and a strict ear. Nothing here waits.

Questions outlive a forwarder: what one that died has not answered is asked of the next, within the same bound. One that misses a bound, does
not read or says what makes no sense is ended; the supervisor starts another.
"""

from __future__ import annotations

import itertools
import json
import socket
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from attrs import define, field

from bay0.pid1.reactor import READ, WRITE

if TYPE_CHECKING:
    from bay0.pid1.reactor import Reactor, Timer

MESSAGE_MAX = 64 << 10  # bytes
MESSAGES_A_TURN = 16
OUTBOX_MAX = 512
WITHIN = 0.8  # of a bound is given to the forwarder, which answers by itself then

Done = Callable[[bool, str, dict[str, Any]], None]
Descriptor = Callable[[], int | None]


@define(eq=False, repr=False)
class _Question:
    message: dict[str, Any]
    done: Done
    timer: Timer
    sent: bool = False


@define(eq=False, repr=False)
class Link:
    """See above. `on_hello`: a forwarder is there; `on_word`: what it says unasked; `on_hang(why)`: it must be ended."""

    reactor: Reactor
    on_hello: Callable[[dict[str, Any]], None]
    on_word: Callable[[dict[str, Any]], None]
    on_hang: Callable[[str], None]
    there: bool = False
    _channel: socket.socket | None = None
    _outbox: deque[tuple[bytes, Descriptor | None]] = field(factory=deque)
    _questions: dict[int, _Question] = field(factory=dict)
    _numbers: Any = field(factory=lambda: itertools.count(1))
    _greeting: Timer | None = None  # until it has said hello

    def lend(self, bound_s: float) -> socket.socket:
        """Make a channel for a forwarder that is being started, and return its end. `OSError` if there is no descriptor left.

        One that has not said hello in `bound_s` hangs.
        """
        self.hang_up()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self._channel = ours
        self._greeting = self.reactor.call_later(bound_s, lambda: self._hangs(f"it has not said hello in {bound_s:g} s"))
        self._watch()
        return theirs

    def hang_up(self) -> None:
        """Forget the forwarder; harmless if there is none."""
        self.there = False
        self._outbox.clear()
        self._greeted()
        if self._channel is not None:
            self.reactor.unwatch(self._channel.fileno())
            self._channel.close()
            self._channel = None
        for question in self._questions.values():
            question.sent = False

    def _greeted(self) -> None:
        if self._greeting is not None:
            self._greeting.cancel()
            self._greeting = None

    def send(self, message: dict[str, Any], descriptor: Descriptor | None = None) -> None:
        """Tell it, if it is there. `descriptor` is asked for one when the message's turn comes; None then drops the message."""
        if not self.there:
            return
        if len(self._outbox) >= OUTBOX_MAX:
            self._hangs("it does not read what it is told")
            return
        self._outbox.append((json.dumps(message).encode(), descriptor))
        self._push()

    def ask(self, op: str, bound_s: float, done: Done, *, hangs: bool = True) -> None:
        """Ask; `done` comes once, within `bound_s`. `hangs`: a forwarder that has not answered by then does."""
        number = next(self._numbers)
        timer = self.reactor.call_later(bound_s, lambda: self._missed(number, bound_s, hangs=hangs))
        question = _Question({"op": op, "n": number, "within": bound_s * WITHIN}, done, timer)
        self._questions[number] = question
        if self.there:
            self._put(question)

    def _put(self, question: _Question) -> None:
        question.sent = True
        self.send(question.message)

    def _missed(self, number: int, bound_s: float, *, hangs: bool) -> None:
        question = self._questions.pop(number)
        op = question.message["op"]
        if not question.sent:
            question.done(False, "the forwarder is not there", {})
            return
        question.done(False, f"{op} was not done in {bound_s:g} s", {})
        if hangs:
            self._hangs(f"it gave no answer to {op} in {bound_s:g} s")

    def _hangs(self, why: str) -> None:
        self.hang_up()
        self.on_hang(why)

    def _push(self) -> None:
        try:
            while self._outbox and self._channel is not None:
                data, descriptor = self._outbox[0]
                fd = descriptor() if descriptor is not None else None
                if descriptor is None:
                    self._channel.send(data)
                elif fd is not None:
                    socket.send_fds(self._channel, [data], [fd])
                self._outbox.popleft()
        except BlockingIOError:
            pass
        except OSError:
            self._outbox.clear()  # it is dying: the reaper will say so
        self._watch()

    def _watch(self) -> None:
        if self._channel is not None:
            self.reactor.watch(self._channel.fileno(), READ | WRITE if self._outbox else READ, self._ready)

    def _ready(self, ready: int) -> None:
        if ready & WRITE:
            self._push()
        for _ in range(MESSAGES_A_TURN if ready & READ else 0):
            if self._channel is None or not self._receive(self._channel):
                return

    def _receive(self, channel: socket.socket) -> bool:
        """Take one message; tell whether there was one."""
        try:
            data, _, flags, _ = channel.recvmsg(MESSAGE_MAX)
        except BlockingIOError:
            return False
        except OSError:
            data, flags = b"", 0
        if not data:
            self.hang_up()  # the reaper will say how it ended
            return False
        try:
            if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                raise ValueError("a message that is too long, or with a descriptor")
            self._hear(json.loads(data))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as nonsense:
            self._hangs(f"what it says makes no sense: {type(nonsense).__name__}: {nonsense}"[:200])
            return False
        return True

    def _hear(self, message: dict[str, Any]) -> None:
        op = message["op"]
        if op == "hello":
            self.there = True
            self._greeted()
            self.on_hello(message)
            for question in list(self._questions.values()):
                self._put(question)
        elif "n" in message:
            self._answer(int(message["n"]), message)
        else:
            self.on_word(message)

    def _answer(self, number: int, message: dict[str, Any]) -> None:
        question = self._questions.get(number)
        if question is None:
            return  # late: its bound was missed
        value = {str(key): each for key, each in message.items() if key not in ("op", "n", "ok", "why")}
        ok, why = bool(message.get("ok", True)), plain(message.get("why", ""))
        del self._questions[number]
        question.timer.cancel()
        question.done(ok, why, value)


def plain(text: Any, most: int = 200) -> str:
    """Return a stranger's text as something that can be logged."""
    return "".join(c if c.isprintable() else "?" for c in str(text)[:most])
