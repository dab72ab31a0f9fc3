"""Frames of sway's IPC, which is i3's: as bytes.

Pure: no socket, no state beyond what has not come whole yet.

A frame is "i3-ipc", the payload's length, its type, and the payload, which is JSON but for commands (sway-
ipc(7), "MESSAGE AND REPLY FORMAT"). An event's type has its highest bit set.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Any

from attrs import define, field, frozen

from bay0.base.errors import Bay0Error

MAGIC = b"i3-ipc"
HEAD = struct.Struct("=6sII")
PAYLOAD_MAX = 4 << 20  # bytes: a tree of some hundred windows, whose titles are as long as they may be
EVENT = 1 << 31


class FrameError(Bay0Error):
    """What came is no frame of this protocol, or one that is too large.

    Nothing behind it can be understood either.
    """


class Ask(IntEnum):
    """What can be asked."""

    RUN_COMMAND = 0
    SUBSCRIBE = 2
    GET_OUTPUTS = 3
    GET_TREE = 4
    GET_VERSION = 7


class Event(IntEnum):
    """What is said unasked to who has subscribed to it; the numbers are without the highest bit."""

    WORKSPACE = 0
    OUTPUT = 1
    WINDOW = 3
    BINDING = 5
    SHUTDOWN = 6


@frozen
class Frame:
    """One answer or event. `event`: which of the two `kind` is a number of."""

    kind: int
    event: bool
    payload: bytes

    def value(self) -> Any:
        """Return what the payload says. `FrameError`: it is no JSON."""
        try:
            return json.loads(self.payload)
        except (ValueError, RecursionError) as error:
            raise FrameError("a payload that is no JSON") from error


def frame(kind: Ask, payload: str = "") -> bytes:
    """Return a question. `ValueError`: it is too large."""
    data = payload.encode()
    if len(data) > PAYLOAD_MAX:
        raise ValueError(f"a question of {len(data)} bytes: at most {PAYLOAD_MAX}")
    return HEAD.pack(MAGIC, len(data), kind) + data


@define(eq=False, repr=False)
class Reader:
    """Takes bytes as they come, and gives whole frames."""

    _held: bytearray = field(factory=bytearray)

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield each frame that is whole with `data`.

        `FrameError`: it does not begin as a frame does, or is too large.
        """
        self._held += data
        while self._held:
            begins = bytes(self._held[: len(MAGIC)])
            if not MAGIC.startswith(begins):
                raise FrameError("a frame that does not begin as one")
            if len(self._held) < HEAD.size:
                return
            _magic, size, kind = HEAD.unpack_from(self._held)
            if size > PAYLOAD_MAX:
                raise FrameError(f"a frame of {size} bytes, where at most {PAYLOAD_MAX} are read")
            if len(self._held) < HEAD.size + size:
                return
            payload = bytes(self._held[HEAD.size : HEAD.size + size])
            del self._held[: HEAD.size + size]
            yield Frame(kind & ~EVENT, bool(kind & EVENT), payload)
