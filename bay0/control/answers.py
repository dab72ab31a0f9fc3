"""Answers on their way to a client of the control socket.

A result that grows with the machine (every persona, every row) is a `Listing`: its items are made and encoded while the client takes them, some
tens of KiB ahead of it. So it may be as long as it likes: it never waits whole in PID 1 and never takes a long turn.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from attrs import define, field, frozen

AHEAD = 32 << 10  # bytes that are encoded ahead of a client; also what a listing that has not begun is counted as


@frozen(eq=False, repr=False)
class Listing:
    """A result that is a list, or with `key` the object `around` with that list as its last member. `items` may be a generator."""

    items: Iterable[Any]
    around: Mapping[str, Any] = field(factory=dict)
    key: str = ""


    def whole(self) -> Any:
        """Return all of it, as it arrives at a client."""
        items = list(self.items)
        return {**self.around, self.key: items} if self.key else items


def encode(value: Any) -> bytes:
    """Return JSON in ASCII. `ValueError`, `RecursionError`, `TypeError`: it cannot be said in JSON."""
    return json.dumps(value, default=str, allow_nan=False).encode()


def pieces(number: Any, listing: Listing) -> Iterator[bytes]:
    """Yield the answer to request `number` in pieces: its beginning, each item, its end with the line's."""
    yield b'{"jsonrpc": "2.0", "id": ' + encode(number) + b', "result": '
    if listing.key:
        around = encode(dict(listing.around))[:-1]
        yield around + (b", " if listing.around else b"") + encode(listing.key) + b": "
    between = b"["
    for item in listing.items:
        yield between + encode(item)
        between = b", "
    yield (b"[]" if between == b"[" else b"]") + (b"}" if listing.key else b"") + b"}\n"


@define(eq=False, repr=False)
class Outbox:
    """What waits for one client, in order: encoded bytes, and behind them answers or listings."""

    ready: bytearray = field(factory=bytearray)
    _behind: deque[bytes | Iterator[bytes]] = field(factory=deque)
    _weight: int = 0  # of what is behind

    def __bool__(self) -> bool:
        return bool(self.ready or self._behind)

    @property
    def waiting(self) -> int:
        """How many bytes are held for the client."""
        return len(self.ready) + self._weight

    def put(self, answer: bytes | Iterator[bytes]) -> None:
        """Add an answer, whole or in pieces."""
        if isinstance(answer, bytes) and not self._behind:
            self.ready += answer
        else:
            self._behind.append(answer)
            self._weight += _weight(answer)

    def fill(self) -> None:
        """Encode what comes next, until `AHEAD` bytes are ready. Raises what making an item raises."""
        while self._behind and len(self.ready) < AHEAD:
            first = self._behind[0]
            piece = first if isinstance(first, bytes) else next(first, None)
            self.ready += piece or b""
            if piece is None or piece is first:
                self._behind.popleft()
                self._weight -= _weight(first)


def _weight(answer: bytes | Iterator[bytes]) -> int:
    return len(answer) if isinstance(answer, bytes) else AHEAD
