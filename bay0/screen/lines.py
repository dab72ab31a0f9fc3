"""The connections that personas have to the compositor: counted for each, and cut off where nothing else helps.

sway says nothing of connections, and a program need not obey when its windows are to close. But PID 1 may take a
copy of a socket that sway holds (pidfd_getfd(2)): the socket's own name is the door through which its client came,
also when the process that opened it has ended, and shutting it down ends the client and all that it had in sway.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import define, field

from bay0.base.syscalls import pidfd_getfd
from bay0.effects import peers
from bay0.pid1 import flow

if TYPE_CHECKING:
    from bay0.pid1.reactor import Reactor
    from bay0.screen.doors import Doors

LINES_MAX = 48  # connections of one persona
FDS_EACH = 2  # descriptors that libwayland has of each: both its reader and its event loop
A_TURN = 16  # descriptors that are looked at
PACE_S = 0.2  # between two looks that windows ask for


@define(eq=False, repr=False)
class Lines:
    """See above."""

    reactor: Reactor
    log: Any
    doors: Doors
    _busy: bool = field(init=False, default=False)
    _next: float = field(init=False, default=0.0)
    _due: bool = field(init=False, default=False)
    _ended: set[int] = field(init=False, factory=set)  # processes that have ended, and whose connections are to be cut off

    def bound(self, compositor: int) -> None:
        """Have no persona more connections than it may, among those of the process `compositor`."""
        try:
            few = len(os.listdir(f"/proc/{compositor}/fd")) <= FDS_EACH * LINES_MAX
        except OSError:
            return
        if not few:
            self._look(compositor)

    def cut(self, compositor: int, pid: int) -> None:
        """Cut off whoever speaks over a connection that the process `pid` opened, which has ended."""
        self._ended.add(pid)
        if self._due:
            return
        self._due = True

        def due() -> None:
            self._due = False
            self._look(compositor)

        self.reactor.call_later(max(0.0, self._next - self.reactor.clock()), due)

    def _look(self, compositor: int) -> None:
        if self._busy:
            return
        self._busy = True
        self._next = self.reactor.clock() + PACE_S

        def done(_: None) -> None:
            self._busy = False

        flow.run(self._each(compositor), done)

    def _each(self, compositor: int) -> flow.Flow[None]:
        """Look at all that it holds, some in a turn."""
        counts: dict[str, int] = {}
        ended, self._ended = self._ended, set()
        seen: set[str] = set()
        paths = {door.path: door.name for door in self.doors.doors.values()}
        with contextlib.ExitStack() as held:
            try:
                pidfd = os.pidfd_open(compositor)
                held.callback(os.close, pidfd)
                fds = sorted(int(name) for name in os.listdir(f"/proc/{compositor}/fd"))
            except OSError:
                return
            for at in range(0, len(fds), A_TURN):
                for line in _sockets(compositor, pidfd, fds[at : at + A_TURN], seen):
                    self._judge(line, paths, counts, ended)
                yield self._next_turn
        for name, count in counts.items():
            if count > LINES_MAX:
                self.log.warning("connections are cut off: too many", persona=name, found=count, most=LINES_MAX)

    def _judge(self, line: socket.socket, paths: dict[str, str], counts: dict[str, int], ended: set[int]) -> None:
        try:
            name = paths.get(str(line.getsockname()))
            who = peers.identify(line) if name is not None else None
        except OSError:
            return
        if name is None or who is None:
            return
        if who.pid in ended and not who.alive:
            self.log.warning("a connection is cut off: the process that opened it has ended", persona=name, pid=who.pid)
        else:
            counts[name] = counts.get(name, 0) + 1
            if counts[name] <= LINES_MAX:
                return
        with contextlib.suppress(OSError):
            line.shutdown(socket.SHUT_RDWR)

    def _next_turn(self, resume: flow.Resume) -> None:
        self.reactor.call_soon(partial(resume, None))


def _sockets(pid: int, pidfd: int, fds: list[int], seen: set[str]) -> Iterator[socket.socket]:
    """Yield our copies of those that are connected unix sockets, once each; it is closed behind it."""
    for fd in fds:
        try:
            link = os.readlink(f"/proc/{pid}/fd/{fd}")
            if not link.startswith("socket:") or link in seen:
                continue
            seen.add(link)
            copy = socket.socket(fileno=pidfd_getfd(pidfd, fd))
        except OSError:
            continue
        with copy:
            if copy.family == socket.AF_UNIX and not copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                yield copy
