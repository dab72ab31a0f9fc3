"""A serial line of the guest's with a terminal at this end, which answers when it is asked how large it is."""

from __future__ import annotations

import re
import socket
import threading
from typing import Self

from attrs import define, field
from harness import until

ASKED = b"\x1b[6n"
DEVICE = "/dev/ttyS1"


def words(path: str) -> list[str]:
    """Return QEMU's words for it: the second serial line, at the socket `path`."""
    return ["-chardev", f"socket,id=line,path={path},server=on,wait=off", "-device", "isa-serial,chardev=line"]


@define(eq=False)
class Line:
    """The terminal. Use it as a context manager."""

    path: str
    rows: int = 40
    columns: int = 100
    seen: bytes = b""
    _peer: socket.socket = field(factory=lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))

    def __enter__(self) -> Self:
        """Connect, and answer from now on."""
        self._peer.connect(self.path)
        threading.Thread(target=self._play, daemon=True).start()
        return self

    def __exit__(self, *_what: object) -> None:
        """Hang up."""
        self._peer.close()

    def _play(self) -> None:
        answered = 0
        while data := self._peer.recv(4096):
            self.seen += data
            while self.seen.count(ASKED) > answered:
                answered += 1
                self._peer.sendall(f"\x1b[{self.rows};{self.columns}R".encode())

    def type(self, text: str) -> None:
        """Type a line."""
        self._peer.sendall(f"{text}\n".encode())

    def wait(self, pattern: str, bound_s: float, after: int = 0) -> int:
        """Wait until what has come behind `after` matches; return where it ends."""
        expression = re.compile(pattern.encode())
        found = until(lambda: expression.search(self.seen, after), bound_s, f"the line shows {pattern!r}")
        return int(found.end())
