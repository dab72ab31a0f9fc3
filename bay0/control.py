"""The control socket: JSON-RPC 2.0, one object a line, root only (SO_PEERCRED), and no client can stall the reactor.

A frame is at most 64 KiB, a client that does not read is cut off when 1 MiB waits for it, and at most 32 are served at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from attrs import define, field

from bay0.errors import Bay0Error
from bay0.reactor import READ, WRITE
from bay0.wire import FRAME_MAX, SOCKET

if TYPE_CHECKING:
    from bay0.reactor import Reactor

BACKLOG_MAX = 1 << 20  # bytes waiting for a client
CLIENTS_MAX = 32
ACCEPT_AGAIN_S = 1.0
FRAMES_A_TURN = 32  # so that one client's flood leaves turns to the others
PARSE, INVALID, NO_METHOD, PARAMS, INTERNAL, DECLINED = -32700, -32600, -32601, -32602, -32603, -32000

Reply = Callable[[Any], None]
Method = Callable[[Mapping[str, Any], Reply], None]


def peer_uid(peer: socket.socket) -> int:
    """Return the effective uid of the process that called connect(2) (unix(7), SO_PEERCRED)."""
    _pid, uid, _gid = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return int(uid)


def error(code: int, message: str) -> dict[str, Any]:
    """Make a JSON-RPC error object."""
    return {"code": code, "message": message}


def _is_request(frame: Any) -> bool:
    """Tell whether `frame` is a JSON-RPC 2.0 request. Its id is sent back, so a nested one must not come in."""
    return isinstance(frame, dict) and isinstance(frame.get("method"), str) and isinstance(frame.get("id"), str | int | float | None)


@define(eq=False, repr=False)
class _Client:
    peer: socket.socket
    inbox: bytearray = field(factory=bytearray)
    outbox: bytearray = field(factory=bytearray)
    open: bool = True
    closing: bool = False
    busy: bool = False  # whole frames wait in its inbox: nothing more is read from it


@define(eq=False, repr=False)
class ControlServer:
    """Serves `methods`; a method gets its params and a reply function it may call at once or later."""

    reactor: Reactor
    log: Any
    methods: dict[str, Method]
    path: str = SOCKET
    uids: frozenset[int] = frozenset({0})
    served: int = 0
    _listener: socket.socket | None = None
    _clients: set[_Client] = field(factory=set)

    def open(self) -> None:
        """Listen; replaces a socket that a dead process left."""
        os.makedirs(os.path.dirname(self.path), mode=0o755, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.setblocking(False)
        listener.bind(self.path)
        os.chmod(self.path, 0o600)
        listener.listen(CLIENTS_MAX)
        self._listener = listener
        self.reactor.watch(listener.fileno(), READ, self._accept)

    def _accept(self, _ready: int) -> None:
        if self._listener is None:
            return
        try:
            peer, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as failure:  # no descriptor is left: look again when some have been closed, not at once
            self.log.warning("control client not accepted", why=str(failure))
            self.reactor.unwatch(self._listener.fileno())
            self.reactor.call_later(ACCEPT_AGAIN_S, self._listen_again)
            return
        if len(self._clients) >= CLIENTS_MAX or peer_uid(peer) not in self.uids:
            self.log.warning("control client refused", uid=peer_uid(peer), clients=len(self._clients))
            peer.close()
            return
        peer.setblocking(False)
        client = _Client(peer)
        self._clients.add(client)
        self._watch(client)

    def _listen_again(self) -> None:
        if self._listener is not None:
            self.reactor.watch(self._listener.fileno(), READ, self._accept)

    def _watch(self, client: _Client) -> None:
        events = (0 if client.busy or client.closing else READ) | (WRITE if client.outbox else 0)
        if events:
            self.reactor.watch(client.peer.fileno(), events, lambda ready: self._ready(client, ready))
        else:
            self.reactor.unwatch(client.peer.fileno())

    def _ready(self, client: _Client, ready: int) -> None:
        if ready & READ:
            self._read(client)
        if ready & WRITE and client.open:
            self._push(client)

    def _read(self, client: _Client) -> None:
        try:
            data = client.peer.recv(FRAME_MAX)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close(client)
            return
        client.inbox += data
        self._frames(client)

    def _frames(self, client: _Client) -> None:
        for _ in range(FRAMES_A_TURN):
            end = client.inbox.find(b"\n")
            if end < 0 or client.closing or not client.open:
                break
            line = bytes(client.inbox[:end])
            del client.inbox[: end + 1]
            self._frame(client, line)
        client.busy = client.open and not client.closing and b"\n" in client.inbox
        if client.busy:
            self.reactor.call_soon(lambda: self._frames(client))
        elif len(client.inbox) > FRAME_MAX and client.open and not client.closing:
            self._too_long(client)
        if client.open:
            self._watch(client)

    def _too_long(self, client: _Client) -> None:
        client.closing = True
        client.inbox.clear()
        self._send(client, {"jsonrpc": "2.0", "id": None, "error": error(INVALID, f"a frame is at most {FRAME_MAX} bytes")})

    def _frame(self, client: _Client, line: bytes) -> None:
        if len(line) > FRAME_MAX:
            self._too_long(client)
            return
        if not line.strip():
            return
        self.served += 1
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            self._send(client, {"jsonrpc": "2.0", "id": None, "error": error(PARSE, "not JSON: send one JSON-RPC 2.0 object a line")})
            return
        self._call(client, request)

    def _call(self, client: _Client, request: Any) -> None:
        if not _is_request(request):
            self._send(client, {"jsonrpc": "2.0", "id": None, "error": error(INVALID, "not a JSON-RPC 2.0 request")})
            return
        number, params = request.get("id"), request.get("params", {})

        def answer(what: str, value: Any) -> None:
            if "id" in request:  # or it is a notification, which is never answered
                self._send(client, {"jsonrpc": "2.0", "id": number, what: value})

        def reply(result: Any) -> None:
            if isinstance(result, Exception):
                answer("error", error(DECLINED, str(result)))
            else:
                answer("result", result)

        method = self.methods.get(request["method"])
        if method is None:
            answer("error", error(NO_METHOD, f"no method {request['method'][:60]!r}"))
        elif not isinstance(params, dict):
            answer("error", error(PARAMS, "params must be an object"))
        else:
            try:
                method(params, reply)
            except Bay0Error as declined:
                reply(declined)
            except (TypeError, ValueError, KeyError, OverflowError) as failure:
                answer("error", error(PARAMS, f"{type(failure).__name__}: {failure}"))
            except Exception as failure:  # a bug in a verb is not a reason to end PID 1
                self.log.error("method failed", method=request["method"], why=f"{type(failure).__name__}: {failure}")
                answer("error", error(INTERNAL, "internal error; see `bay0 log`"))

    def _send(self, client: _Client, message: dict[str, Any]) -> None:
        if not client.open:
            return
        client.outbox += json.dumps(message, default=str).encode() + b"\n"
        if len(client.outbox) > BACKLOG_MAX:
            self.log.warning("control client cut off", why="it does not read its answers")
            self._close(client)
            return
        self._push(client)

    def _push(self, client: _Client) -> None:
        try:
            while client.outbox:
                sent = client.peer.send(client.outbox)
                del client.outbox[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self._close(client)
            return
        if client.closing and not client.outbox:
            self._close(client)
        else:
            self._watch(client)

    def _close(self, client: _Client) -> None:
        if client.open:
            client.open = False
            self._clients.discard(client)
            self.reactor.unwatch(client.peer.fileno())
            client.peer.close()
