"""`bay0 rpc`: JSON-RPC requests from stdin, one object a line, and the answers as they come."""

from __future__ import annotations

import json
import sys
from itertools import islice

from bay0.cli import client
from bay0.control import wire
from bay0.control.wire import FRAME_MAX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from bay0.cli.grammar import Options

TIMEOUT_S = 3600.0


def run(options: Options) -> int:
    """Send `options.window` requests, print their answers, and so on."""
    if options.each:
        return _conversation()
    requests = _requests()
    with client.connect(timeout_s=TIMEOUT_S) as peer:
        answers = peer.lines()
        while window := list(islice(requests, options.window)):
            client.send(peer, window)
            for _ in filter(_is_answered, window):
                print(json.dumps(client.take(answers)), flush=True)
    return 0


def _conversation() -> int:
    """Answer each request before the next is read, until stdin ends."""
    with client.connect(timeout_s=TIMEOUT_S) as peer:
        answers = peer.lines()
        for line in _requests():
            client.send(peer, [line])
            if _is_answered(line):
                print(json.dumps(client.take(answers)), flush=True)
    return 0


def _requests() -> Iterator[bytes]:
    """Yield the lines of stdin as they come, without those that are empty.

    One that is too long for a frame is cut: bay0 refuses it and hangs up.
    """
    while line := sys.stdin.buffer.readline(2 * FRAME_MAX):
        if line.strip():
            yield line.rstrip(b"\r\n")


def _is_answered(line: bytes) -> bool:
    """Tell whether a request gets an answer: all do but notifications, whole requests without an id."""
    try:
        return "id" in wire.read(line)
    except wire.FrameError:
        return True
