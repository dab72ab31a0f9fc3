"""The command line's end of the control socket.

`_socket` is what `socket` is made of; with the rest, tables of constants as enums, it would take as long to
load as a question to answer.
"""

from __future__ import annotations

import posix
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_STREAM
from _socket import socket as Socket  # noqa: N812 - it is a class
from itertools import islice
from time import monotonic, sleep

from bay0.base.errors import NoSpineError, RefusedError
from bay0.cli import plainjson
from bay0.cli.nospine import what_helps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any, Self

SOCKET = "/run/bay0/control.sock"  # as bay0/control/wire.py has it
TIMEOUT_S = 60.0
AGAIN_S = 0.01
AT_ONCE = 200  # requests under way; PID 1 takes 256 of one client
CHUNK = 64 << 10
HUNG_UP = "bay0 closed the connection without an answer; see `bay0 log`"


def socket_path() -> str:
    """Return where the socket is; `BAY0_SOCKET` may say otherwise."""
    return posix.environ.get(b"BAY0_SOCKET", SOCKET.encode()).decode(errors="surrogateescape")


class Peer:
    """A connection to bay0: requests and answers, one a line."""

    def __init__(self, socket: Socket) -> None:
        self.socket = socket
        self._rest = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.socket.close()

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield the answers as they come."""
        while True:
            chunks = [self._rest]
            while b"\n" not in chunks[-1]:
                chunk = self.socket.recv(CHUNK)
                if not chunk:
                    return
                chunks.append(chunk)
            line, _, self._rest = b"".join(chunks).partition(b"\n")
            yield plainjson.loads(line)


def connect(timeout_s: float = TIMEOUT_S) -> Peer:
    """Connect to bay0. `NoSpineError` says what to do if nobody listens."""
    path = socket_path()
    socket = Socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
    socket.settimeout(timeout_s)
    try:
        _in_turn(socket, path, timeout_s)
    except PermissionError as error:
        raise NoSpineError(f"{path}: only root may talk to bay0") from error
    except OSError as error:
        raise NoSpineError(f"no bay0 answers at {path} ({error.strerror}). {what_helps()}") from error
    return Peer(socket)


def _in_turn(socket: Socket, path: str, timeout_s: float) -> None:
    """Connect; while the queue before the socket is full (connect(2), EAGAIN), try again."""
    end = monotonic() + timeout_s
    while True:
        try:
            socket.connect(path)
        except BlockingIOError:
            if monotonic() > end:
                raise
            sleep(AGAIN_S)
        else:
            return


def send(peer: Peer, requests: Iterable[bytes]) -> None:
    """Send whole requests, one a line. If bay0 has hung up, `take` gives its last word or says so."""
    try:
        peer.socket.sendall(b"".join(request + b"\n" for request in requests))
    except (BrokenPipeError, ConnectionResetError):
        pass


def take(answers: Iterator[dict[str, Any]]) -> dict[str, Any]:
    """Return the next answer. `NoSpineError` if none will come."""
    try:
        answer = next(answers, None)
    except ConnectionResetError:
        answer = None
    if answer is None:
        raise NoSpineError(HUNG_UP)
    return answer


def _request(number: int, method: str, params: Mapping[str, Any]) -> bytes:
    return plainjson.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}).encode()


def call(method: str, timeout_s: float = TIMEOUT_S, **params: Any) -> Any:
    """Call one method. `RefusedError` carries what bay0 said."""
    with connect(timeout_s) as peer:
        send(peer, [_request(1, method, params)])
        try:
            answer = take(peer.lines())
        except TimeoutError as error:
            raise NoSpineError(
                f"bay0 gave no answer to {method} within {timeout_s:g} s; see `bay0 log`"
            ) from error
    if "error" in answer:
        raise RefusedError(answer["error"]["message"])
    return answer["result"]


def history(machine: str, limit: int) -> Any:
    """Return the journal of a machine.

    `RefusedError` for a name that nobody has or had, with the nearest one there is.
    """
    return named(machine, "machines", "history", machine=machine, limit=limit)


def listed(listing: str) -> list[str] | None:
    """Return the names that the method `listing` has; None if it is refused, or bay0 is not there."""
    try:
        return [each["name"] for each in call(listing)]
    except (RefusedError, NoSpineError):
        return None


def named(wanted: str, listing: str, method: str, /, **params: Any) -> Any:
    """Call a method for what is called `wanted`.

    If that is refused, and `listing` does not have the name, the refusal says the nearest one.
    """
    try:
        return call(method, **params)
    except RefusedError as refusal:
        from bay0.cli import near

        known = listed(listing)
        meant = None if known is None else near.name(wanted, known)
        if meant is None:
            raise
        raise RefusedError(f"{refusal}. Did you mean {meant}?") from refusal


def call_all(method: str, many: Sequence[Mapping[str, Any]], timeout_s: float = TIMEOUT_S) -> list[Any]:
    """Call one method once for each of `many` params, `AT_ONCE` of them under way.

    A refusal stands in the list as a `RefusedError`.
    """
    found: dict[int, Any] = {}
    left = (_request(n, method, params) for n, params in enumerate(many))
    with connect(timeout_s) as peer:
        answers = peer.lines()
        send(peer, islice(left, AT_ONCE))
        try:
            while len(found) < len(many):
                answer = take(answers)
                if answer["id"] is None:  # it refuses to talk to us at all
                    raise RefusedError(answer["error"]["message"])
                found[answer["id"]] = (
                    RefusedError(answer["error"]["message"]) if "error" in answer else answer["result"]
                )
                send(peer, islice(left, 1))
        except TimeoutError as error:
            raise NoSpineError(
                f"bay0 gave no answer to {method} within {timeout_s:g} s; see `bay0 log`"
            ) from error
    return [found[n] for n in range(len(many))]
