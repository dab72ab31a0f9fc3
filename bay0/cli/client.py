"""The command line's end of the control socket."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from bay0.cli.nospine import what_helps
from bay0.errors import NoSpineError, RefusedError
from bay0.wire import SOCKET

TIMEOUT_S = 60.0
AGAIN_S = 0.01
AT_ONCE = 200  # requests under way; PID 1 takes 256 of one client
HUNG_UP = "bay0 closed the connection without an answer; see `bay0 log`"


def socket_path() -> str:
    """Return where the socket is; `BAY0_SOCKET` may say otherwise."""
    return os.environ.get("BAY0_SOCKET", SOCKET)


def connect(timeout_s: float = TIMEOUT_S) -> socket.socket:
    """Connect to bay0. `NoSpineError` says what to do if nobody listens."""
    path = socket_path()
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    peer.settimeout(timeout_s)
    try:
        _in_turn(peer, path, timeout_s)
    except PermissionError as error:
        raise NoSpineError(f"{path}: only root may talk to bay0") from error
    except OSError as error:
        raise NoSpineError(f"no bay0 answers at {path} ({error.strerror}). {what_helps()}") from error
    return peer


def _in_turn(peer: socket.socket, path: str, timeout_s: float) -> None:
    """Connect; while the queue before the socket is full (connect(2), EAGAIN), try again."""
    end = time.monotonic() + timeout_s
    while True:
        try:
            peer.connect(path)
        except BlockingIOError:
            if time.monotonic() > end:
                raise
            time.sleep(AGAIN_S)
        else:
            return


def lines(peer: socket.socket) -> Iterator[dict[str, Any]]:
    """Yield the answers as they come."""
    with peer.makefile("rb") as stream:
        for line in stream:
            yield json.loads(line)


def send(peer: socket.socket, requests: Iterable[bytes]) -> None:
    """Send whole requests, one a line. If bay0 has hung up, `take` gives its last word or says so."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        peer.sendall(b"".join(request + b"\n" for request in requests))


def take(answers: Iterator[dict[str, Any]]) -> dict[str, Any]:
    """Return the next answer. `NoSpineError` if none will come."""
    try:
        answer = next(answers, None)
    except ConnectionResetError:
        answer = None
    if answer is None:
        raise NoSpineError(HUNG_UP)
    return answer


def call(method: str, timeout_s: float = TIMEOUT_S, **params: Any) -> Any:
    """Call one method. `RefusedError` carries what bay0 said."""
    with connect(timeout_s) as peer:
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        send(peer, [json.dumps(request).encode()])
        try:
            answer = take(lines(peer))
        except TimeoutError as error:
            raise NoSpineError(f"bay0 gave no answer to {method} within {timeout_s:g} s; see `bay0 log`") from error
    if "error" in answer:
        raise RefusedError(answer["error"]["message"])
    return answer["result"]


def history(machine: str, limit: int) -> Any:
    """Return the journal of a machine. `RefusedError` for a name that nobody has or had, with the nearest one there is."""
    try:
        return call("history", machine=machine, limit=limit)
    except RefusedError as refusal:
        near = _nearest(machine, [each["name"] for each in call("machines")])
        if near is None:
            raise
        raise RefusedError(f"{refusal}. Did you mean {near}?") from refusal


def _nearest(word: str, names: Sequence[str]) -> str | None:
    """Return the name that was probably meant by a word that is none; None if it is one, or is like none."""
    import difflib  # only for this sentence

    if word in names:
        return None
    spelled = {name: name for name in names} | {name.rpartition("://")[2].partition(":")[0]: name for name in names}  # `work`, `boot`
    found = difflib.get_close_matches(word, spelled, 1)
    return spelled[found[0]] if found else None


def call_all(method: str, many: Sequence[Mapping[str, Any]], timeout_s: float = TIMEOUT_S) -> list[Any]:
    """Call one method once for each of `many` params, `AT_ONCE` of them under way. A refusal stands in the list as a `RefusedError`."""
    found: dict[int, Any] = {}
    left = ({"jsonrpc": "2.0", "id": n, "method": method, "params": params} for n, params in enumerate(many))
    with connect(timeout_s) as peer:
        answers = lines(peer)
        send(peer, [json.dumps(request).encode() for request in islice(left, AT_ONCE)])
        try:
            while len(found) < len(many):
                answer = take(answers)
                if answer["id"] is None:  # it refuses to talk to us at all
                    raise RefusedError(answer["error"]["message"])
                found[answer["id"]] = RefusedError(answer["error"]["message"]) if "error" in answer else answer["result"]
                send(peer, [json.dumps(request).encode() for request in islice(left, 1)])
        except TimeoutError as error:
            raise NoSpineError(f"bay0 gave no answer to {method} within {timeout_s:g} s; see `bay0 log`") from error
    return [found[n] for n in range(len(many))]
