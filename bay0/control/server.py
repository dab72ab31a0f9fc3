"""The control socket: JSON-RPC 2.0, one object a line, root only (SO_PEERCRED), and no client can stall or swell the reactor.

A frame is at most 64 KiB and must be whole within its bound. An answer may be of any length (answers.py), and who reads gets all of it: what a
client asks next is not looked at while much waits for it. One that does not read is cut off when more answers to what it asked before come
while 1 MiB waits already, or when too much waits for all together and it has stood still for longest.
At most 32 are served at once. When one more comes, the one gives way that has done nothing for longest and waits for no answer; who is taking one
is spared, but never for half of the places and never for long when it takes nothing. So nobody can hold a place for ever but by a request that is
under way. If all are held so, who comes is told to try again; if some are held only because we have not got round to them, who comes waits in
the queue before the socket until we have.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import define, field

from bay0.base import inode
from bay0.base.errors import Bay0Error
from bay0.control import answers, wire
from bay0.control.answers import Listing
from bay0.control.clients import CLIENTS_MAX, FRAMES_AT_ONCE, Client, peer_uid, who_gives_way
from bay0.control.wire import FRAME_MAX, INVALID, SOCKET
from bay0.loading import late
from bay0.pid1.reactor import READ, WRITE

if TYPE_CHECKING:
    from bay0.pid1.reactor import Reactor

BACKLOG_MAX = 1 << 20  # then a further answer, to something it asked before, is too much
BACKLOGS_MAX = 4 << 20  # for all of them
QUEUE_MAX = 128  # who waits to be accepted, one a turn
ACCEPT_AGAIN_S = 1.0  # when no descriptor was left
PLACE_AGAIN_S = 0.05  # when all places are held by clients we have not got round to
TURN_S = 0.01  # of a turn, for all clients together; who then still has frames waits for the next one
LOOK_S = 1.0  # how often half frames are looked at, while there are any
SAY_AGAIN_S = 10.0  # a flood of one kind is one line of the log
FULL = f"all {CLIENTS_MAX} places are taken by requests that are under way; try again"
ONLY_ROOT = "only root may talk to bay0"
NO_METHOD, PARAMS, INTERNAL, DECLINED = -32601, -32602, -32603, -32000

Reply = Callable[[Any], None]
Method = Callable[[Mapping[str, Any], Reply], None]
Call = Callable[[], None]


def error(code: int, message: str) -> dict[str, Any]:
    """Make a JSON-RPC error object."""
    return {"code": code, "message": message}


@define(eq=False, repr=False)
class ControlServer:
    """Serves `methods`; a method gets its params and a reply function it may call at once or later."""

    reactor: Reactor
    log: Any
    methods: dict[str, Method] = field(factory=dict)
    path: str = SOCKET
    uids: frozenset[int] = frozenset({0})
    frame_s: float = 10.0
    takes: dict[str, Sequence[str]] = field(factory=dict)  # method -> modules, see late.py
    alone: frozenset[str] = frozenset()  # methods with large answers that come later: of each client one at a time
    served: int = 0
    _listener: socket.socket | None = None
    _wanted: bool = False
    _file: inode.File | None = None  # the socket's
    _clients: set[Client] = field(factory=set)
    _loading: dict[Sequence[str], deque[Call]] = field(factory=dict)  # and who waits for them
    _looking: bool = False
    _queue: deque[Client] = field(factory=deque)  # who has whole frames, in the order in which they are served
    _working: bool = False  # there will be a turn for them
    _end: float = 0.0  # when that turn has given them its time
    _said: dict[str, tuple[float, int]] = field(factory=dict)  # event -> when it was last said, how often it was not since

    def offer(self, methods: Mapping[str, Method], takes: Sequence[str] = ()) -> None:
        """Serve these, too. `takes`: the modules that are loaded before the first call of one of them, a module a turn (late.py)."""
        self.methods.update(methods)
        if takes:
            self.takes.update(dict.fromkeys(methods, takes))

    def open(self) -> None:
        """Listen, in place of a socket that a dead process left, or of our own that nobody can reach any more.

        `OSError` if that fails.
        """
        self._wanted = True
        os.makedirs(os.path.dirname(self.path), mode=0o755, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            listener.bind(self.path)
            os.chmod(self.path, 0o600)
            listener.listen(QUEUE_MAX)
        except OSError:
            listener.close()
            raise
        old, self._listener, self._file = self._listener, listener, inode.which(self.path)
        if old is not None:
            self.reactor.unwatch(old.fileno())
            old.close()
        self.reactor.watch(listener.fileno(), READ, self._accept)

    def look(self) -> list[str]:
        """Listen anew if the path leads to our socket no more; return what had happened. `OSError` if it cannot."""
        if not self._wanted or (self._listener is not None and inode.which(self.path) == self._file):
            return []
        was = "somebody removed it" if self._listener is not None else "it could not be opened before"
        self.open()
        return [was]

    def _accept(self, _ready: int) -> None:
        if self._listener is None:
            return
        full = len(self._clients) >= CLIENTS_MAX
        victim = who_gives_way(self._clients, self.reactor.clock(), self.frame_s) if full else None
        if full and victim is None and not all(client.owed for client in self._clients):
            self._listen_later(PLACE_AGAIN_S)
            return
        try:
            peer, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as failure:  # no descriptor is left: look again when some have been closed, not at once
            self.log.warning("control client not accepted", why=str(failure))
            self._listen_later(ACCEPT_AGAIN_S)
            return
        peer.setblocking(False)
        refusal = ONLY_ROOT if peer_uid(peer) not in self.uids else FULL if full and victim is None else ""
        if refusal:
            self._say("control client refused", uid=peer_uid(peer), clients=len(self._clients))
            with contextlib.suppress(OSError):
                peer.send(answers.encode({"jsonrpc": "2.0", "id": None, "error": error(DECLINED, refusal)}) + b"\n")
            peer.close()
            return
        if victim is not None:
            why = "floods" if victim.queued else "does not read its answers" if victim.outbox else "was idle"
            self._cut(victim, f"it {why} and its place was needed")
        client = Client(peer, active=self.reactor.clock())
        self._clients.add(client)
        self._watch(client)

    def _listen_later(self, seconds: float) -> None:
        if self._listener is not None:
            self.reactor.unwatch(self._listener.fileno())
            self.reactor.call_later(seconds, self._listen_again)

    def _say(self, event: str, **keys: Any) -> None:
        """Log a warning that clients can cause at will: once, then how often it was left out."""
        now = self.reactor.clock()
        at, left_out = self._said.get(event, (-SAY_AGAIN_S, 0))
        if now - at < SAY_AGAIN_S:
            self._said[event] = (at, left_out + 1)
            return
        self._said[event] = (now, 0)
        self.log.warning(event, **keys, **({"left_out": left_out} if left_out else {}))

    def _cut(self, client: Client, why: str) -> None:
        self._say("control client cut off", why=why)
        self._close(client)

    def _listen_again(self) -> None:
        if self._listener is not None:
            self.reactor.watch(self._listener.fileno(), READ, self._accept)

    def _watch(self, client: Client) -> None:
        deaf = client.busy or not client.heard
        events = (0 if deaf else READ) | (WRITE if client.outbox else 0)
        if events:
            self.reactor.watch(client.peer.fileno(), events, lambda ready: self._ready(client, ready))
        else:
            self.reactor.unwatch(client.peer.fileno())

    def _ready(self, client: Client, ready: int) -> None:
        if ready & READ:
            self._read(client)
        if ready & WRITE and client.open:
            self._push(client)

    def _read(self, client: Client) -> None:
        try:
            data = client.peer.recv(FRAME_MAX)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close(client)
            return
        client.active = self.reactor.clock()
        client.inbox += data
        self._go_on(client)

    def _work(self) -> None:
        """Handle frames of one client after the other for `TURN_S`, at least one frame; who has more comes behind them, in the next turn."""
        self._working = False
        self._end = self.reactor.clock() + TURN_S
        for _ in range(len(self._queue)):
            client = self._queue.popleft()
            client.queued = False
            if client.open:
                self._frames(client)
            if self.reactor.clock() > self._end:
                break
        self._work_soon()

    def _work_soon(self) -> None:
        if self._queue and not self._working:
            self._working = True
            self.reactor.call_soon(self._work)

    def _frames(self, client: Client) -> None:
        """Handle some of what has come, at least one frame."""
        for count in range(FRAMES_AT_ONCE):
            end = client.inbox.find(b"\n")
            spent = count and self.reactor.clock() > self._end
            if end < 0 or not client.open or not client.heard or spent:
                break
            line = bytes(client.inbox[:end])
            del client.inbox[: end + 1]
            self._frame(client, line)
        if client.open:
            self._go_on(client)

    def _go_on(self, client: Client) -> None:
        client.busy = not client.closing and b"\n" in client.inbox
        if client.busy and client.heard and not client.queued:
            client.queued = True
            self._queue.append(client)
            self._work_soon()
        elif not client.busy and not client.closing and len(client.inbox) > FRAME_MAX:
            self._too_long(client)
        half = bool(client.inbox) and not client.busy and client.heard  # else the rest waits for us
        client.half = (self.reactor.clock() if client.half is None else client.half) if half else None
        if half and not self._looking:
            self._looking = True
            self.reactor.call_later(LOOK_S, self._look)
        if client.open:
            self._watch(client)

    def _look(self) -> None:
        """Cut off who has sent half a frame and does not send the rest."""
        now, left = self.reactor.clock(), False
        for client in tuple(self._clients):
            if client.half is not None and now - client.half >= self.frame_s:
                self._cut(client, "it did not finish a frame in time")
            left = left or (client.open and client.half is not None)
        self._looking = left
        if left:
            self.reactor.call_later(LOOK_S, self._look)

    def _too_long(self, client: Client) -> None:
        client.closing = True
        client.inbox.clear()
        self._refuse(client, INVALID, f"a frame is at most {FRAME_MAX} bytes")

    def _refuse(self, client: Client, code: int, message: str) -> None:
        """Answer a frame whose id cannot be known."""
        self._send(client, self._encoded(None, "error", error(code, message)))

    def _frame(self, client: Client, line: bytes) -> None:
        if len(line) > FRAME_MAX:
            self._too_long(client)
            return
        if not line.strip():
            return
        self.served += 1
        try:
            request = wire.read(line)
        except wire.FrameError as fault:
            self._refuse(client, fault.code, str(fault))
        else:
            self._call(client, request)

    def _call(self, client: Client, request: dict[str, Any]) -> None:
        method, number, params = request["method"], request.get("id"), request.get("params", {})
        client.owed, answered, alone = client.owed + 1, False, method in self.alone
        client.alone = client.alone or alone

        def answer(what: str, value: Any) -> None:
            nonlocal answered
            if answered:
                return
            answered = True
            deaf, client.owed, client.alone = not client.heard, client.owed - 1, client.alone and not alone
            if "id" in request:  # or it is a notification, which is never answered
                self._send(client, self._encoded(number, what, value))
            if deaf and client.open:
                self._go_on(client)

        def reply(result: Any) -> None:
            if isinstance(result, Exception):
                answer("error", error(DECLINED, str(result)))
            else:
                answer("result", result)

        if method not in self.methods:
            answer("error", error(NO_METHOD, f"no method {method[:60]!r}"))
        elif not isinstance(params, dict):
            answer("error", error(PARAMS, "params must be an object"))
        else:
            self._loaded(method, partial(self._perform, request, params, reply, answer))

    def _loaded(self, name: str, go: Call) -> None:
        """Call `go` once what the method takes is loaded; those that were asked meanwhile follow in their order."""
        modules = self.takes.get(name, ())
        if modules in self._loading:
            self._loading[modules].append(go)
        elif late.missing(modules):
            self._loading[modules] = deque([go])
            late.one_by_one(modules, self.reactor.call_soon, lambda _none: self._go(modules))
        else:
            go()

    def _go(self, modules: Sequence[str]) -> None:
        """Call those who waited, in their order, for `TURN_S` of a turn; who asks meanwhile comes after them."""
        waiting, end = self._loading[modules], self.reactor.clock() + TURN_S
        while waiting:
            waiting.popleft()()
            if waiting and self.reactor.clock() > end:
                self.reactor.call_soon(partial(self._go, modules))
                return
        del self._loading[modules]

    def _perform(self, request: dict[str, Any], params: dict[str, Any], reply: Reply, answer: Callable[[str, Any], None]) -> None:
        try:
            self.methods[request["method"]](params, reply)
        except Bay0Error as declined:
            reply(declined)
        except (TypeError, ValueError, KeyError, OverflowError) as failure:
            answer("error", error(PARAMS, f"{type(failure).__name__}: {failure}"))
        except Exception as failure:  # a bug in a verb is not a reason to end PID 1
            self.log.error("method failed", method=request["method"], why=f"{type(failure).__name__}: {failure}")
            answer("error", error(INTERNAL, "internal error; see `bay0 log`"))

    def _encoded(self, number: Any, what: str, value: Any) -> bytes | Iterator[bytes]:
        if isinstance(value, Listing):
            return answers.pieces(number, value)
        try:
            return answers.encode({"jsonrpc": "2.0", "id": number, what: value}) + b"\n"
        except (ValueError, TypeError, RecursionError) as failure:  # a bug in a verb, as above
            self.log.error("answer cannot be said in JSON", why=f"{type(failure).__name__}: {failure}")
            return answers.encode({"jsonrpc": "2.0", "id": number, "error": error(INTERNAL, "internal error; see `bay0 log`")}) + b"\n"

    def _send(self, client: Client, answer: bytes | Iterator[bytes]) -> None:
        if not client.open:
            return
        if client.outbox.waiting > BACKLOG_MAX:
            self._cut(client, "it does not read its answers")
            return
        if not client.outbox:
            client.still = self.reactor.clock()
        client.outbox.put(answer)
        self._push(client)
        if sum(each.outbox.waiting for each in self._clients) > BACKLOGS_MAX:
            most = [each for each in self._clients if each.outbox.waiting > BACKLOGS_MAX // CLIENTS_MAX]
            self._cut(min(most, key=lambda each: each.still), "it does not read its answers, and all wait for too much")

    def _push(self, client: Client) -> None:
        """Send what the socket takes of what is ready; a long answer goes on in the next turns."""
        was_heard, now = client.heard, self.reactor.clock()
        try:
            client.outbox.fill()
        except Exception as failure:  # a bug in a verb, and the beginning of its answer may be sent already
            self.log.error("answer not finished", why=f"{type(failure).__name__}: {failure}")
            self._cut(client, "its answer could not be finished")
            return
        try:
            sent = client.peer.send(client.outbox.ready) if client.outbox else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            self._close(client)
            return
        del client.outbox.ready[:sent]
        if sent:
            client.active = client.still = now
        if client.closing and not client.outbox:
            self._close(client)
        elif client.heard and not was_heard:
            self._go_on(client)
        else:
            self._watch(client)

    def _close(self, client: Client) -> None:
        if client.open:
            client.open = False
            self._clients.discard(client)
            self.reactor.unwatch(client.peer.fileno())
            client.peer.close()
