"""The umbilical's data path: a service process without any right, between the personas' doors and the AI's server.

PID 1 hands it the doors' listening sockets over a channel, and tells it who may speak there and how the AI is; it never sees a byte of what
is said. This process reads strangers' bytes, so it holds nothing worth having: no capability, no file, no way to gain one.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import time
from collections.abc import Callable
from typing import Any

from attrs import define, field

from bay0.effects import peers, unprivileged
from bay0.pid1.reactor import READ, WRITE, Reactor
from bay0.umbilical import admission as umbilical
from bay0.umbilical.admission import Grant
from bay0.umbilical.http import Refusal, error
from bay0.umbilical.places import CONSOLE_NAME, TENANT_SOCKET, UMBILICAL_GID, UMBILICAL_UID
from bay0.umbilical.probe import Probe
from bay0.umbilical.quota import Account, Bucket, Quota, Turns
from bay0.umbilical.session import S, Session
from bay0.umbilical.upstream import Flight, Sink

CHANNEL_FD = 3
MESSAGE_MAX = 64 << 10
OUTBOX_MAX = 64  # messages that PID 1 has not taken; decisions are dropped first
BACKLOG = 32
ACCEPTS_A_TURN = 4
ACCEPT_AGAIN_S = 1.0
LOOK_S = 0.5
DECISIONS_A_SECOND, DECISIONS_AT_ONCE = 5.0, 50.0
RUNNING = ("ready", "draining", "warming")  # states of the AI in which what is in flight goes on
LIMITS = {
    resource.RLIMIT_NOFILE: 1024, resource.RLIMIT_NPROC: 1, resource.RLIMIT_CORE: 0, resource.RLIMIT_FSIZE: 0, resource.RLIMIT_MEMLOCK: 0,
    resource.RLIMIT_AS: 512 << 20,
}  # fmt: skip
EX_NOPERM = 77  # sysexits.h


@define(eq=False, repr=False)
class Door:
    """A listening socket and who may speak there."""

    grant: Grant
    listener: socket.socket
    account: Account
    accepts: Bucket
    requests: Bucket
    shut: bool = False  # nobody is let in for now

    @property
    def name(self) -> str:
        """Whose it is."""
        return self.grant.name


@define(eq=False, repr=False)
class Forwarder:
    """Doors, sessions, the channel."""

    reactor: Reactor
    channel: socket.socket
    quota: Quota = field(factory=Quota)
    turns: Turns = field(factory=Turns)
    held: int = 0  # bytes of bodies
    tenant_socket: str = TENANT_SOCKET
    tenant: dict[str, Any] = field(factory=lambda: {"state": "stopped", "why": "bay0 has not said how the AI is", "group": "", "retry_s": 5.0})
    draining: int | None = None  # the number of the request to drain
    accounts: dict[str, Account] = field(factory=dict)
    _doors: dict[str, Door] = field(factory=dict)
    _sessions: set[Session] = field(factory=set)
    _probes: set[Probe] = field(factory=set)
    _outbox: list[bytes] = field(factory=list)
    _decisions: Bucket = field(factory=lambda: Bucket(DECISIONS_A_SECOND, DECISIONS_AT_ONCE))
    _unsaid: int = 0
    _looking: bool = False
    _patience: float = 1.0

    def begin(self, uid: int) -> None:
        """Say hello and listen to PID 1."""
        self.channel.setblocking(False)
        self.reactor.watch(self.channel.fileno(), READ, self._channel_ready)
        self.say(op="hello", pid=os.getpid(), uid=uid)

    # ---- the channel

    def say(self, **message: Any) -> None:
        """Tell PID 1."""
        self._outbox.append(json.dumps(message).encode())
        self._push()

    def _push(self) -> None:
        try:
            while self._outbox:
                self.channel.send(self._outbox[0])
                self._outbox.pop(0)
        except BlockingIOError:
            pass
        except OSError:
            os._exit(0)  # PID 1 has hung up
        self.reactor.watch(self.channel.fileno(), READ | WRITE if self._outbox else READ, self._channel_ready)

    def _channel_ready(self, ready: int) -> None:
        if ready & WRITE:
            self._push()
        if ready & READ:
            try:
                data, fds, _, _ = socket.recv_fds(self.channel, MESSAGE_MAX, 1, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return
            if not data:
                os._exit(0)  # PID 1 has hung up: it starts the next one, or nothing more
            self._hear(json.loads(data), fds[0] if fds else None)

    def _hear(self, message: dict[str, Any], fd: int | None) -> None:
        verbs: dict[str, Callable[[], None]] = {
            "setup": lambda: self._setup(message),
            "grant": lambda: self._grant(message, fd),
            "revoke": lambda: self._revoke(str(message["name"])),
            "tenant": lambda: self._tenant(message),
            "warm": lambda: self._probe(message, warm=True),
            "check": lambda: self._probe(message, warm=False),
            "drain": lambda: self._drain(int(message["n"])),
            "facts": lambda: self.say(op="facts", n=message["n"], names={name: a.facts() for name, a in self.accounts.items()}),
        }
        verbs[message["op"]]()

    def _setup(self, message: dict[str, Any]) -> None:
        self.tenant_socket = message["tenant_socket"]
        self._patience = float(message["patience"])
        self.quota = Quota().changed(message["quota"], self._patience)

    def _grant(self, message: dict[str, Any], fd: int | None) -> None:
        grant = Grant(message["name"], int(message["uid_base"]), int(message["uids"]), message["group"])
        if fd is None:
            raise ValueError("a grant comes with a listening socket")
        self._revoke(grant.name)
        listener = socket.socket(fileno=fd)
        listener.setblocking(False)
        listener.listen(BACKLOG)  # again: whoever connects is told by the kernel that we, not PID 1, are at the other end
        account = self.accounts.setdefault(grant.name, Account())
        minute = self.quota.requests_a_minute
        accepts = Bucket(self.quota.accepts_a_second, self.quota.accepts_a_second * 2)
        door = Door(grant, listener, account, accepts, Bucket(minute / 60, minute))
        self._doors[grant.name] = door
        self._open(door)

    def _revoke(self, name: str) -> None:
        door = self._doors.pop(name, None)
        if door is None:
            return
        door.shut = True
        self.reactor.unwatch(door.listener.fileno())
        door.listener.close()
        for session in [s for s in self._sessions if s.door is door]:
            session.close()
        self.accounts.pop(name, None)

    def _tenant(self, message: dict[str, Any]) -> None:
        self.tenant = message
        if message["state"] == "ready":
            self.draining = None
        refusal = self._unready()
        if refusal is not None:
            for session in self.turns.everybody():
                session.refuse(refusal)
        if message["state"] not in RUNNING:
            for session in list(self._sessions):
                if session.state is S.FLIGHT:
                    session.refuse(refusal or Refusal(503, "unavailable", "the AI is not there", 5.0), "failed")
            for probe in list(self._probes):
                probe.give_up(f"the AI is {message['state']}")

    def _unready(self) -> Refusal | None:
        state, why = self.tenant["state"], self.tenant["why"]
        if state == "ready":
            if self.draining is None:
                return None
            state = "draining"  # bay0 has asked for it and not said yet that it is
        return Refusal(503, f"ai_{state}", f"the AI is {state}" + (f": {why}" if why else ""), float(self.tenant["retry_s"]))

    def may_ask(self) -> None:
        """Raise the refusal of a request if the AI takes none now."""
        refusal = self._unready()
        if refusal is not None:
            raise refusal

    def _drain(self, number: int) -> None:
        self.draining = number
        refusal = self._unready()
        for session in self.turns.everybody():
            session.refuse(refusal or Refusal(503, "ai_draining", "the AI is draining"))
        self._look_drained()

    def _look_drained(self) -> None:
        if self.draining is not None and self.draining >= 0 and not self.turns.flying:
            number, self.draining = self.draining, -1  # said once; requests are refused until the AI is ready again
            self.say(op="drained", n=number)

    def _probe(self, message: dict[str, Any], *, warm: bool) -> None:
        probe = Probe(self, int(message["n"]), float(message["within"]), warm=warm)
        self._probes.add(probe)
        probe.begin()

    def probed(self, probe: Probe, result: dict[str, Any]) -> None:
        """Tell what a probe found."""
        self._probes.discard(probe)
        self.say(op="warm" if probe.warm else "checked", n=probe.number, **result)

    def flight(self, request: bytes, sink: Sink, on_over: Callable[[], None], seconds: float | None = None) -> Flight:
        """Make a flight to the server that bay0 named; with `seconds` it may be silent for all of them, as before its first token."""
        most = self.quota.seconds if seconds is None else seconds
        stall_s = min(self.quota.stall_s, most) if seconds is None else most
        return Flight(self.reactor, self.tenant_socket, self.tenant["group"], request, sink, stall_s, most, on_over)

    # ---- doors

    def _open(self, door: Door) -> None:
        self.reactor.watch(door.listener.fileno(), READ, lambda _ready: self._accept(door))

    def _shut_for(self, door: Door, seconds: float) -> None:
        self.reactor.unwatch(door.listener.fileno())
        self.reactor.call_later(seconds, lambda: self._reopen(door))

    def _reopen(self, door: Door) -> None:
        if self._doors.get(door.name) is door:
            self._open(door)

    def _accept(self, door: Door) -> None:
        for _ in range(ACCEPTS_A_TURN):
            if door.account.open >= 2 * self.quota.connections:  # the rest waits in the listener until somebody leaves
                door.shut = True
                self.reactor.unwatch(door.listener.fileno())
                return
            wait = door.accepts.take(self.reactor.clock())
            if wait:
                self._shut_for(door, wait)
                return
            try:
                peer, _ = door.listener.accept()
            except BlockingIOError:
                door.accepts.level += 1
                return
            except OSError:  # no descriptor is left
                self._shut_for(door, ACCEPT_AGAIN_S)
                return
            self._admit(door, peer)

    def _admit(self, door: Door, peer: socket.socket) -> None:
        peer.setblocking(False)
        door.account.connections += 1
        speaker = peers.identify(peer)
        session = Session(self, door, peer, speaker)
        why = umbilical.refusal(door.grant, speaker)
        if why:
            self._turn_away(session, Refusal(403, "not_you", f"this socket is not for you: {why}"))
            return
        if len(self._sessions) >= self.quota.connections_all and door.name != CONSOLE_NAME:
            self._turn_away(session, Refusal(503, "busy", "too many connections", 2.0))
            return
        door.account.open += 1
        self._sessions.add(session)
        session.begin()
        if door.account.open > self.quota.connections:
            session.refuse(Refusal(429, "too_many_connections", f"{self.quota.connections} connections at the same time are let through", 1.0))
        self.look_after()

    def _turn_away(self, session: Session, refusal: Refusal) -> None:
        session.door.account.refused += 1
        session.status, session.verdict, session.why = refusal.status, "refused", refusal.message
        self.decided(session)
        try:
            session.peer.send(error(refusal))
        except OSError:
            pass
        finally:
            session.peer.close()

    def left(self, session: Session) -> None:
        """Take note that a session has ended."""
        self._sessions.discard(session)
        account, door = session.door.account, session.door
        account.open -= 1
        account.bytes_in += session.bytes_in
        account.bytes_out += session.bytes_out
        self.decided(session)
        if door.shut and self._doors.get(door.name) is door:
            door.shut = False
            self._open(door)

    def landed(self) -> None:
        """Take note that a flight has ended: the next ones' turn."""
        self.turns.flying -= 1
        self._look_drained()
        self.reactor.call_soon(self.next_turns)

    def next_turns(self) -> None:
        """Let those go whose turn it is."""
        while (session := self.turns.next({name: door.account for name, door in self._doors.items()}, self.quota)) is not None:
            session.take_off()

    # ---- time, and the log

    def look_after(self) -> None:
        """See to the deadlines of what is there, from now on until nothing is."""
        if not self._looking:
            self._looking = True
            self.reactor.call_later(LOOK_S, self._look)

    def _look(self) -> None:
        self._looking = False
        now = self.reactor.clock()
        for session in list(self._sessions):
            session.look(now)
        for probe in list(self._probes):
            probe.look(now)
        if self._sessions or self._probes:
            self.look_after()

    def decided(self, session: Session) -> None:
        """Tell PID 1 what became of a connection, never what was said; too many are counted."""
        if self._decisions.take(self.reactor.clock()) or len(self._outbox) >= OUTBOX_MAX:
            self._unsaid += 1
            return
        unsaid, self._unsaid = self._unsaid, 0
        who = session.speaker
        self.say(
            op="decision", name=session.door.name, verdict=session.verdict, why=session.why[:200], pid=who.pid, uid=who.uid, comm=who.name[:32],
            status=session.status, bytes_in=session.bytes_in, bytes_out=session.bytes_out, took_ms=int(session.took_s * 1000), unsaid=unsaid,
        )  # fmt: skip


def main() -> int:
    """Be the forwarder, with PID 1's channel as descriptor 3."""
    channel = socket.socket(fileno=CHANNEL_FD)
    try:
        wrong = unprivileged.drop(UMBILICAL_UID, UMBILICAL_GID, LIMITS)
    except OSError as failure:
        wrong = str(failure)
    if wrong:
        channel.send(json.dumps({"op": "failed", "why": f"the forwarder could not give up its rights: {wrong}"}).encode())
        return EX_NOPERM
    forwarder = Forwarder(Reactor(time.monotonic), channel)
    forwarder.begin(os.geteuid())
    forwarder.reactor.run()
    return 0
