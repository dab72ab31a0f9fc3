"""Programs of personas that have windows, in a `World`: processes that connect to the socket which their container has mounted.

The connection is a real one, through the directory that the container has, whatever stands at its path later. What
passes over it is not modelled: a program's windows are said to the compositor (compositor.py), once it takes the connection.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from attrs import define, field

from bay0.containers.life import PERSONAS as GROUP
from bay0.screen.doors import SOCKET

if TYPE_CHECKING:
    from compositor import Screen
    from podman import Container
    from sway import Sway

AGAIN_S = 0.5  # between two tries to connect


class Directory:
    """What a container has at /run/wayland."""

    def __init__(self, source: str) -> None:
        self.fd = os.open(source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def __del__(self) -> None:
        os.close(self.fd)

    def connect(self) -> socket.socket:
        """Connect as a process inside does, under a name of its own by which it is known again; `OSError`."""
        client = socket.socket(socket.AF_UNIX)
        client.setblocking(False)  # a full backlog is an error, not a wait
        try:
            client.bind("")  # autobind (unix(7))
            client.connect(f"/proc/self/fd/{self.fd}/{SOCKET}")
        except OSError:
            client.close()
            raise
        return client


@define(eq=False)
class Program:
    """A process. `persona`: "" for one that is of none. `wants`: windows that it opens whenever it is served.

    `full`: each asks for full screen at once. `acks`: it answers what sizes sway proposes; `stubborn`: it closes no
    window that it is asked to close.
    """

    screen: Screen
    persona: str
    pid: int
    group: str  # from the root on
    container: Container | None
    directory: Directory
    wants: int = 1
    full: bool = False
    acks: bool = True
    stubborn: bool = False
    ended: bool = False
    passed: bool = False  # it has ended, and another process has its connection
    served: Sway | None = None  # who has taken its connection
    _connection: socket.socket | None = None
    _tried: float = field(init=False, default=float("-inf"))

    @property
    def lives(self) -> bool:
        """It has not ended, nor have all of its container."""
        there = self.container is None or self.screen.world.kernel.lives(self.container.id)
        return not self.ended and there

    @property
    def hung_up(self) -> bool:
        """Nobody has its connection any more."""
        gone = self.container is not None and not self.screen.world.kernel.lives(self.container.id)
        return gone or (self.ended and not self.passed)

    @property
    def stands(self) -> bool:
        """It is frozen."""
        kernel = self.screen.world.kernel
        group = kernel.group(self.container.id) if self.container is not None else None
        return group is not None and kernel.stands_still(group)

    @property
    def name(self) -> bytes:
        """Its end's address, as who accepts it is told."""
        return self._connection.getsockname() if self._connection is not None else b""

    def pump(self) -> None:
        """Connect, or notice that the connection has ended; what is frozen does neither."""
        if not self.lives or self.stands:
            return
        if self._connection is None:
            self._connect()
        elif self.served is not None and not self._open():
            self.close()

    def _open(self) -> bool:
        try:
            return bool(self._connection.recv(1))  # type: ignore[union-attr]
        except BlockingIOError:
            return True
        except OSError:
            return False

    def _connect(self) -> None:
        now = self.screen.world.now
        if now - self._tried < AGAIN_S:
            return
        self._tried = now
        try:
            self._connection = self.directory.connect()
        except OSError:
            self.screen.world.later(AGAIN_S, lambda: None)  # there is something to wake up for

    def close(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            self._connection.close()
        self._connection = self.served = None

    def end(self, *, passes_on: bool = False) -> None:
        """End; `passes_on`: another process has its connection by then, so its windows stay."""
        self.ended, self.passed = True, passes_on
        if not passes_on:
            self.close()


def group_of(container: Container) -> str:
    return f"{GROUP}/libpod-{container.id}"
