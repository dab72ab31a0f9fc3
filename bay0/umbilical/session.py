"""One connection of a client: one request, one answer. Part of the forwarder.

Theory of operation. HEAD and BODY read the request, TURN waits for the server, FLIGHT has it, FLUSH writes what is left of the answer, LINGER
lets a client that still sends read it (closing at once would lose it), CLOSED. Each has its deadline. A client sends nothing but one request; what
it passes as descriptors is dropped by the kernel, since there is no room for any, and ends the session.
"""

from __future__ import annotations

import contextlib
import select
import socket
from enum import Enum
from typing import TYPE_CHECKING

from attrs import define, field

from bay0.pid1.reactor import READ, WRITE
from bay0.umbilical import body as umbilicaljson
from bay0.umbilical import http
from bay0.umbilical.http import Refusal

if TYPE_CHECKING:
    from bay0.effects.peers import Answerer
    from bay0.umbilical.forwarder import Door, Forwarder
    from bay0.umbilical.upstream import Flight

READ_CHUNK = 64 << 10
HELD_ABOVE, HELD_BELOW = 256 << 10, 64 << 10  # bytes that wait for the client: more of the answer is not read, is read again
LINGER_S, LINGER_BYTES = 2.0, 1 << 20


class S(Enum):
    """States of a session."""

    HEAD = "head"
    BODY = "body"
    TURN = "turn"
    FLIGHT = "flight"
    FLUSH = "flush"
    LINGER = "linger"
    CLOSED = "closed"


@define(eq=False, repr=False)
class Session:
    """See above. It is also the sink of its flight."""

    house: Forwarder
    door: Door
    peer: socket.socket
    speaker: Answerer
    state: S = S.HEAD
    deadline: float = 0.0
    status: int = 0  # of the answer
    bytes_in: int = 0
    bytes_out: int = 0
    began: float = 0.0
    verdict: str = ""
    why: str = ""
    took_s: float = 0.0  # until the verdict
    flight: Flight | None = None
    _head: http.Head | None = None
    _inbox: bytearray = field(factory=bytearray)
    _outbox: bytearray = field(factory=bytearray)
    _booked: int = 0  # bytes of a body that are held
    _body_out: int = 0
    _streams: bool = False  # the answer is events
    _chunked: bool = False
    _abrupt: bool = False
    _deaf: bool = False  # the client will send no more
    _idle: bool = False
    _thrown: int = 0  # bytes that came after the answer

    def begin(self) -> None:
        """Read."""
        self.began = self.house.reactor.clock()
        self._enter(S.HEAD, self.house.quota.head_s)
        self._watch()

    # ---- what the client does

    def _watch(self) -> None:
        if self.state is S.CLOSED:
            return
        events = (0 if self._deaf else READ) | (WRITE if self._outbox else 0)
        if events:
            self.house.reactor.watch(self.peer.fileno(), events, self._ready)
        else:
            self.house.reactor.unwatch(self.peer.fileno())

    def _ready(self, ready: int) -> None:
        if ready & READ and not self._deaf:
            self._receive()
        if ready & WRITE and self.state is not S.CLOSED and self._outbox:
            self._push()

    def _receive(self) -> None:
        try:
            data, _, flags, _ = self.peer.recvmsg(READ_CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            self._gone(str(error.strerror))
            return
        self.bytes_in += len(data)
        if flags & socket.MSG_CTRUNC:
            self.refuse(Refusal(403, "descriptors", "file descriptors are not taken"))
        elif not data:
            self._half_closed()
        elif self.state in (S.HEAD, S.BODY):
            self._inbox += data
            try:
                self._read()
            except Refusal as refusal:
                self.refuse(refusal)
        elif self.state is S.LINGER:
            self._thrown += len(data)
            if self._thrown > LINGER_BYTES:
                self.close()
        elif self.state in (S.TURN, S.FLIGHT):
            self.refuse(Refusal(400, "one_request", "one request a connection: nothing may follow it"))

    def _half_closed(self) -> None:
        """Ask the kernel whether a client that will send no more still listens."""
        poll = select.poll()
        poll.register(self.peer.fileno(), 0)
        hung_up = any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll(0))
        if hung_up or self.state in (S.HEAD, S.BODY, S.LINGER):
            self._gone("it hung up")
            return
        self._deaf = True
        self._watch()

    def _gone(self, why: str) -> None:
        if self.state is not S.LINGER and not (self.state is S.FLUSH and not self._outbox):
            self._note("gone", f"the client: {why}, in {self.state.value}")
        self.close()

    # ---- the request

    def _read(self) -> None:
        if self.state is S.HEAD:
            size = http.end_of_head(self._inbox)
            if not size:
                return
            self._head = http.parse_head(bytes(self._inbox[:size]))
            del self._inbox[:size]
            self._admit(self._head)
        if self.state is S.BODY and self._head is not None:
            if len(self._inbox) > self._head.length:
                raise Refusal(400, "one_request", "one request a connection: nothing may follow it")
            if len(self._inbox) == self._head.length:
                self._whole(self._head)

    def _admit(self, head: http.Head) -> None:
        """Decide by the head alone, so that nobody sends a body for nothing."""
        quota = self.house.quota
        self.house.may_ask()
        if head.path == http.HEALTH:
            body = b'{"status":"ok"}'
            self._answer(200, http.answer_head(200, http.KINDS[0], len(body)) + body)
            return
        self.door.account.requests += 1
        wait = self.door.requests.take(self.house.reactor.clock())
        if wait:
            raise Refusal(429, "too_many_requests", f"{quota.requests_a_minute:g} requests a minute are let through", wait)
        if head.length > quota.request_bytes:
            raise Refusal(413, "too_large", f"a request's body may have {quota.request_bytes} bytes")
        if self.house.held + head.length > quota.request_bytes_all:
            raise Refusal(503, "busy", "too many requests wait with their bodies", 2.0)
        self._booked = head.length
        self.house.held += head.length
        self._enter(S.BODY, quota.body_s)
        if head.expects and not self._inbox:
            self._outbox += http.CONTINUE
            self._push()

    def _whole(self, head: http.Head) -> None:
        body = umbilicaljson.rebuild(head.path, bytes(self._inbox), self.house.quota.tokens) if head.method == "POST" else None
        self._inbox = bytearray(http.request(head.path, body))
        self._enter(S.TURN, self.house.quota.wait_s)
        self.house.turns.wait(self.door.name, self)
        self.house.next_turns()

    def take_off(self) -> None:
        """Send its request to the server: it is its turn."""
        self._enter(S.FLIGHT, self.house.quota.seconds * 2)  # the flight has its own bounds
        request = bytes(self._inbox)
        self._let_go()
        self.door.account.flying += 1
        self.house.turns.flying += 1
        self.flight = self.house.flight(request, self, self._landed)
        self.flight.begin()

    def _landed(self) -> None:
        self.flight = None
        self.door.account.flying -= 1
        self.house.landed()

    def _let_go(self) -> None:
        self._inbox.clear()
        self.house.held -= self._booked
        self._booked = 0

    # ---- the answer, as the sink of a flight

    def head(self, reader: http.AnswerReader) -> None:
        """Begin the answer with what the server's says, made anew."""
        if reader.status not in http.REASONS:
            self._break(Refusal(502, "bad_answer", f"the AI's server answered with status {reader.status}"))
            return
        if reader.length is not None and reader.length > self.house.quota.response_bytes:
            self._break(self._too_long())
            return
        old = self._head is not None and self._head.old
        self.status = reader.status
        self._streams = reader.kind == "text/event-stream"
        self._chunked = reader.length is None and not old
        self._outbox += http.answer_head(reader.status, reader.kind, reader.length, old=old)
        self._push()

    def data(self, data: bytes) -> None:
        """Pass a piece on, unless it is too much."""
        self._body_out += len(data)
        if self._body_out > self.house.quota.response_bytes:
            self._break(self._too_long())
            return
        self._outbox += http.chunk(data) if self._chunked else data
        self._push()

    def end(self) -> None:
        """Take that the answer is whole."""
        if self._chunked:
            self._outbox += http.chunk(b"")
        self._note("served", f"status {self.status}")
        self._enter(S.FLUSH, self.house.quota.write_s)
        self._push()

    def failed(self, refusal: Refusal) -> None:
        """There will be no more: an error if nothing was sent yet, else an answer that visibly has no end."""
        if not self.status:
            self.refuse(refusal, verdict="failed")
            return
        self._note("failed", refusal.message)
        if self._streams:
            event = b"data: " + http.error_body(refusal.status, refusal.code, refusal.message) + b"\n\n"
            self._outbox += http.chunk(event) if self._chunked else event
        self._abrupt = True
        self._enter(S.FLUSH, self.house.quota.write_s)
        self._push()

    def _break(self, refusal: Refusal) -> None:
        """End the flight ourselves."""
        if self.flight is not None:
            self.flight.cancel()
        self.failed(refusal)

    def _too_long(self) -> Refusal:
        return Refusal(502, "answer_too_long", f"the answer is longer than {self.house.quota.response_bytes} bytes")

    def refuse(self, refusal: Refusal, verdict: str = "refused") -> None:
        """Answer with an error, whatever was under way."""
        if self.state in (S.FLUSH, S.LINGER, S.CLOSED):
            return
        self._drop_out()
        if self.status:  # an answer has begun
            self.failed(refusal)
            return
        self.door.account.refused += 1
        self._note(verdict, f"{refusal.status} {refusal.code}: {refusal.message}")
        self._answer(refusal.status, http.error(refusal))

    def _answer(self, status: int, answer: bytes) -> None:
        self.status = status
        if not self.verdict:
            self._note("served", f"status {status}")
        self._outbox += answer
        self._enter(S.FLUSH, self.house.quota.write_s)
        self._push()

    # ---- writing, and the end

    def _push(self) -> None:
        if self.state is S.CLOSED:
            return
        before = len(self._outbox)
        try:
            while self._outbox:
                sent = self.peer.send(self._outbox)
                del self._outbox[:sent]
        except BlockingIOError:
            pass
        except OSError as error:
            self._gone(str(error.strerror))
            return
        if len(self._outbox) < before:
            self.bytes_out += before - len(self._outbox)
            if self.state is S.FLUSH:
                self._enter(S.FLUSH, self.house.quota.write_s)
        if self.flight is not None:
            self._pace(self.flight, moved=len(self._outbox) < before)
        if not self._outbox and self.state is S.FLUSH:
            self._finish()
        else:
            self._watch()

    def _pace(self, flight: Flight, *, moved: bool) -> None:
        now, quota = self.house.reactor.clock(), self.house.quota
        if len(self._outbox) > HELD_ABOVE:
            if not self._idle:
                self._idle, self.deadline = True, now + quota.write_s
                flight.hold(held=True)
            elif moved:
                self.deadline = now + quota.write_s
        elif self._idle and len(self._outbox) < HELD_BELOW:
            self._idle, self.deadline = False, now + quota.seconds * 2
            flight.hold(held=False)
        elif self._idle and moved:
            self.deadline = now + quota.write_s

    def _finish(self) -> None:
        if self._abrupt or self._deaf:
            self.close()
            return
        with contextlib.suppress(OSError):
            self.peer.shutdown(socket.SHUT_WR)
        self._enter(S.LINGER, LINGER_S)
        self._watch()

    def _enter(self, state: S, seconds: float) -> None:
        self.state, self.deadline = state, self.house.reactor.clock() + seconds

    def look(self, now: float) -> None:
        """See whether its time is up; called about twice a second."""
        if self.flight is not None:
            self.flight.look(now)
        if now < self.deadline:
            return
        quota = self.house.quota
        if self.state is S.HEAD:
            self.refuse(Refusal(408, "head_timeout", f"the request's head took longer than {quota.head_s:g} s"))
        elif self.state is S.BODY:
            self.refuse(Refusal(408, "body_timeout", f"the request's body took longer than {quota.body_s:g} s"))
        elif self.state is S.TURN:
            self.refuse(Refusal(503, "busy", f"the AI was busy with others for {quota.wait_s:g} s", 5.0))
        else:
            if self.state is not S.LINGER:
                self._note("gone", f"the client read nothing for {quota.write_s:g} s")
            self.close()

    def _drop_out(self) -> None:
        self.house.turns.leave(self.door.name, self)
        self._let_go()
        if self.flight is not None:
            self.flight.cancel()

    def _note(self, verdict: str, why: str) -> None:
        if not self.verdict:
            self.verdict, self.why, self.took_s = verdict, why, self.house.reactor.clock() - self.began

    def close(self) -> None:
        """End it, whatever it is doing; harmless if it has ended."""
        if self.state is S.CLOSED:
            return
        self.state = S.CLOSED
        self._drop_out()
        self.house.reactor.unwatch(self.peer.fileno())
        self.peer.close()
        self._note("gone", "bay0 closed the door")
        self.house.left(self)
