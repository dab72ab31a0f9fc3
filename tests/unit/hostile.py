"""Usage: hostile.py SOCKET FRAMES SEED. Attacks a control socket; prints what it did as JSON. The same seed is the same attack.

It needs nothing but Python, so that it also runs inside a spine. Each connection is one kind of attack; most send a batch of frames and then wait,
within a bound, for their end or for the answer to a last, valid request: whoever answers that has survived the batch.
"""

from __future__ import annotations

import contextlib
import json
import random
import socket
import sys
import time
from collections.abc import Callable, Iterator

BATCH = 150
WAIT_S = 120.0  # an attacker has a low priority, and time passes while it does not run
REFUSED_MAX = 100  # nobody listens any more
METHODS = ("status", "machines", "history", "nack.list", "nack.check", "persona.show", "boots", "inhibit", "echo", "big", "no such method")
NOT_ASKED = ("power", "suspend", "run", "persona.remove", "debug.crash", "nack.add")  # an attack by root's own rights is no attack
Frames = Iterator[bytes]
LAST = b'{"jsonrpc":"2.0","id":"the last one","method":"no such method"}'


def garbage(rng: random.Random) -> bytes:
    return rng.randbytes(rng.randrange(1, 300)).replace(b"\n", b"\0") or b"\0"


def request(rng: random.Random) -> dict[str, object]:
    return {"jsonrpc": "2.0", "id": rng.randrange(1 << 40), "method": rng.choice(METHODS), "params": {"name": "p://x", "machine": "focus"}}


def truncated(rng: random.Random) -> bytes:
    whole = json.dumps(request(rng)).encode()
    return whole[: rng.randrange(1, len(whole))]


def nested(rng: random.Random) -> bytes:
    depth = rng.choice((10, 500, 990, 5000, 20000))
    opening, closing = rng.choice(((b"[", b"]"), (b'{"a":', b"}")))
    inner = opening * depth + b"1" + closing * rng.choice((0, depth))
    places = (b"%s", b'{"jsonrpc":"2.0","id":%s,"method":"status"}', b'{"jsonrpc":"2.0","id":1,"method":"status","params":%s}')
    return rng.choice(places).replace(b"%s", inner)[:65000]


def bad_text(rng: random.Random) -> bytes:
    odd = rng.choice((b"\xff\xfe", b"\xc0\x80", b"\xed\xa0\x80", b"\0", b"\\ud800", b"\\u0000", b"\x1b[2J", b"\xf4\x90\x80\x80"))
    places = (b'"id":"%s","method":"status"', b'"id":1,"method":"%s"', b'"id":1,"method":"persona.show","params":{"name":"%s"}')
    return rng.choice((b"%s", *(b'{"jsonrpc":"2.0",' + place + b"}" for place in places))).replace(b"%s", odd * rng.randrange(1, 9))


def wrong_types(rng: random.Random) -> bytes:
    odd: tuple[object, ...] = (None, True, -1, 1e308, "", "x", [], {}, [1], {"a": 1}, 10**30, "p://../../x", "../etc", -0.0)
    frame: dict[str, object] = request(rng)
    for key in rng.sample(("jsonrpc", "id", "method", "params"), rng.randrange(1, 4)):
        frame[key] = rng.choice(odd)
    if rng.random() < 0.3:
        frame["params"] = {rng.choice(("name", "machine", "limit", "previous", "digest", "only", "wait")): rng.choice(odd) for _ in range(3)}
    return json.dumps(frame).encode()


def odd_json(rng: random.Random) -> bytes:
    version = b'{"jsonrpc":"2.0",'
    return rng.choice(
        (
            b'[{"id":1,"method":"status"},{"id":2,"method":"status"}]', b"[]", b"{}", b"null", b"true", b'"status"', b"NaN", b"Infinity", b"1e999",
            version + b'"id":1,"id":2,"method":"status","method":"machines"}', version + b'"id":NaN,"method":"status"}',
            version + b'"id":1e999,"method":"none"}', version + b'"id":' + b"9" * 5000 + b',"method":"status"}',
            version + b'"id":1,"method":"status"}{"id":2,"method":"status"}', b" " * 2000, b"\r", b"\t\t", b'{"id":1,"method":"status"}',
            version + b'"method":"status"}', version + b'"id":null,"method":"status"}', version + b'"id":1,"method":"' + b"m" * 3000 + b'"}',
            b"\xef\xbb\xbf{}",
        )
    )  # fmt: skip


def valid(rng: random.Random) -> bytes:
    return json.dumps(request(rng)).encode()


def large(rng: random.Random) -> bytes:
    return b'{"jsonrpc":"2.0","id":1,"method":"status","params":{"x":"' + b"y" * rng.choice((60_000, 65_400, 65_536, 70_000, 300_000)) + b'"}}'


KINDS: tuple[tuple[int, Callable[[random.Random], bytes]], ...] = (
    (6, garbage), (4, truncated), (3, nested), (4, bad_text), (6, wrong_types), (4, odd_json), (3, valid),
)  # fmt: skip


class Attack:
    """One attacker."""

    def __init__(self, path: str, frames: int, seed: int) -> None:
        self.path, self.frames, self.rng = path, frames, random.Random(seed)
        self.done: dict[str, int] = {"frames": 0, "connections": 0, "answers": 0, "cut_off": 0, "refused": 0, "survived": 0}
        self.idle: list[socket.socket] = []

    def connect(self) -> socket.socket | None:
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        peer.settimeout(WAIT_S)
        try:
            while True:
                with contextlib.suppress(BlockingIOError):  # the queue is full
                    peer.connect(self.path)
                    break
                time.sleep(0.01)
        except OSError:
            peer.close()
            self.done["refused"] += 1
            if self.done["refused"] > REFUSED_MAX:
                raise
            return None
        self.done["connections"] += 1
        return peer

    def send(self, peer: socket.socket, data: bytes, frames: int) -> bool:
        self.done["frames"] += frames
        try:
            peer.sendall(data)
        except OSError:
            self.done["cut_off"] += 1
            return False
        return True

    def batch(self) -> None:
        """Many frames, one kind or all mixed, cut into odd pieces; then see that somebody is still there."""
        weights, kinds = zip(*KINDS, strict=True)
        one = self.rng.choice((None, *kinds))
        lines = [(one or self.rng.choices(kinds, weights)[0])(self.rng) for _ in range(self.rng.randrange(1, BATCH))]
        data = b"\n".join([*lines, LAST]) + b"\n"
        if (peer := self.connect()) is None:
            return
        with peer:
            peer.setblocking(False)
            self.done["frames"] += len(lines)
            self.exchange(peer, data)

    def exchange(self, peer: socket.socket, data: bytes) -> None:
        """Send and read side by side, until the last answer has come or the other end is gone."""
        end, tail, over = time.monotonic() + WAIT_S, b"", False
        while not over:
            if time.monotonic() > end:
                raise AssertionError(f"no answer within {WAIT_S:g} s; it said {tail[-200:]!r}")
            try:
                if data:
                    with contextlib.suppress(BlockingIOError):
                        data = data[peer.send(data[: self.rng.choice((1, 7, 1000, 50_000, 200_000))]) :]
                got = peer.recv(1 << 16)
            except BlockingIOError:
                if not data:
                    time.sleep(0.001)
                continue
            except OSError:
                got = b""
            if not got:
                self.done["cut_off"] += 1
                return
            self.done["answers"] += got.count(b"\n")
            over = b"the last one" in tail + got  # what is asked of the disk may be answered after it
            tail = got[-100:]
        self.done["survived"] += 1

    def too_large(self) -> None:
        if (peer := self.connect()) is not None:
            with peer:
                self.send(peer, large(self.rng) + b"\n", 1)

    def hang_up(self) -> None:
        """Half a frame, and gone; with or without a half-closed moment."""
        if (peer := self.connect()) is not None:
            with peer:
                if self.send(peer, truncated(self.rng), 1) and self.rng.random() < 0.5:
                    peer.shutdown(self.rng.choice((socket.SHUT_WR, socket.SHUT_RD)))

    def never_read(self) -> None:
        """Ask for much and stay there without reading."""
        if (peer := self.connect()) is not None:
            peer.settimeout(0.05)
            requests = b'{"jsonrpc":"2.0","id":1,"method":"status"}\n{"jsonrpc":"2.0","id":1,"method":"big"}\n'
            self.send(peer, requests * 200, 400)
            self.keep(peer)

    def drip(self) -> None:
        """A byte now, the rest never."""
        if (peer := self.connect()) is not None:
            self.send(peer, b"{", 1)
            self.keep(peer)

    def flood(self) -> None:
        """Connect and say nothing, more often than there are places."""
        for _ in range(40):
            if (peer := self.connect()) is not None:
                self.keep(peer)

    def keep(self, peer: socket.socket) -> None:
        self.idle.append(peer)
        while len(self.idle) > 100:
            self.idle.pop(self.rng.randrange(len(self.idle))).close()

    def run(self) -> dict[str, int]:
        others = (self.too_large, self.hang_up, self.hang_up, self.never_read, self.drip, self.flood)
        while self.done["frames"] < self.frames:
            if self.rng.random() < 0.25:
                self.rng.choice(others)()
            else:
                self.batch()
            for peer in self.rng.sample(self.idle, min(3, len(self.idle))):  # a byte at a time
                peer.settimeout(0.01)
                with contextlib.suppress(OSError):
                    peer.send(b"{")
        for peer in self.idle:
            peer.close()
        return self.done


if __name__ == "__main__":
    print(json.dumps(Attack(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])).run()))
