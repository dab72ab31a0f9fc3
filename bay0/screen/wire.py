"""Messages of the Wayland protocol, as bytes. Pure: no socket, no state beyond what has not come whole yet.

A message is the object's id, then size and opcode in one word, then arguments; all 32-bit words in the
machine's byte order, a string with its length, its NUL and padding
(https://wayland.freedesktop.org/docs/html/ch04.html, "Wire format").
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from attrs import define, field, frozen

from bay0.base.errors import Bay0Error

HEAD = struct.Struct("=II")
WORD = struct.Struct("=I")
SIZE_MAX = 4096  # bytes of one message: what libwayland before 1.24 can send at all
DISPLAY = 1  # the object that is there from the start


class WireError(Bay0Error):
    """What came is no message of this protocol: nothing behind it can be understood either."""


@frozen
class Message:
    """One event. `body`: its arguments, see `Arguments`."""

    sender: int
    opcode: int
    body: bytes


def words(*values: int) -> bytes:
    """Return arguments of the kinds uint, int (not negative), object and new_id."""
    return b"".join(map(WORD.pack, values))


def string(text: str) -> bytes:
    """Return an argument of the kind string. `ValueError`: it holds a NUL."""
    data = text.encode()
    if b"\0" in data:
        raise ValueError("a string with a NUL cannot be sent")
    return WORD.pack(len(data) + 1) + data + bytes(4 - len(data) % 4)


def request(target: int, opcode: int, body: bytes = b"") -> bytes:
    """Return a request to the object `target`. `ValueError`: it is too long."""
    size = HEAD.size + len(body)
    if size > SIZE_MAX:
        raise ValueError(f"a request of {size} bytes: at most {SIZE_MAX} can be sent")
    return HEAD.pack(target, size << 16 | opcode) + body


@define(eq=False, repr=False)
class Reader:
    """Takes bytes as they come, and gives whole messages."""

    _held: bytearray = field(factory=bytearray)

    def feed(self, data: bytes) -> Iterator[Message]:
        """Yield each message that is whole with `data`. `WireError`: the size of one makes no sense."""
        self._held += data
        while len(self._held) >= HEAD.size:
            sender, both = HEAD.unpack_from(self._held)
            size = both >> 16
            if not HEAD.size <= size <= SIZE_MAX or size % WORD.size:
                raise WireError(f"a message of {size} bytes")
            if len(self._held) < size:
                return
            body = bytes(self._held[HEAD.size : size])
            del self._held[:size]
            yield Message(sender, both & 0xFFFF, body)


@define(eq=False, repr=False)
class Arguments:
    """Takes the arguments of one message, in their order.

    Each raises `WireError` if it is not there or not as it must be.
    """

    body: bytes
    _at: int = 0

    def uint(self) -> int:
        """Take a number, or an object's id."""
        if self._at + WORD.size > len(self.body):
            raise WireError("a message that ends within its arguments")
        (value,) = WORD.unpack_from(self.body, self._at)
        self._at += WORD.size
        return int(value)

    def string(self) -> str:
        """Take a text; the protocol's own are never null."""
        length = self.uint()
        end = self._at + length
        data = self.body[self._at : end]
        padded = self._at + -(-length // WORD.size) * WORD.size
        if not length or padded > len(self.body) or data[-1:] != b"\0" or b"\0" in data[:-1]:
            raise WireError("a string that is not whole")
        self._at = padded
        try:
            return data[:-1].decode()
        except UnicodeDecodeError as error:
            raise WireError("a string that is no text") from error

    def end(self) -> None:
        """See that nothing is left."""
        if self._at != len(self.body):
            raise WireError(f"a message with {len(self.body) - self._at} bytes too many")
