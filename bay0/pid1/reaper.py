"""What only PID 1 does: own every wait, turn signals into calls, and end the machine when nothing else can.

One owner of all waits (measured: a second waiter turns exit codes into zeroes). Signals that are not handled are ignored by the
kernel for PID 1, except that Python's own SIGINT handler would raise inside it, so all of them are set before anything else.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from attrs import define, field

from bay0.pid1.reactor import READ

if TYPE_CHECKING:
    from bay0.pid1.reactor import Reactor

HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPWR, signal.SIGCHLD)
Exit = Callable[[int], None]
TURN_S = 0.01  # then the rest waits for the next turn: a flood of orphans, or what hears of an end and has much to do


@define(eq=False, repr=False)
class Reaper:
    """The only caller of waitpid(2). Everything that ends is reaped; whoever registered the pid is told its wait status."""

    log: Any
    go_on: Callable[[Callable[[], None]], object] | None = None  # gives `drain` another turn; without one it takes all at once
    clock: Callable[[], float] = time.monotonic
    reaped: int = 0
    orphans: int = 0
    _owned: dict[int, Exit] = field(factory=dict)
    _promised: bool = False  # another turn: a signal meanwhile does not make it two

    def describe(self) -> dict[str, Any]:
        """Return what `bay0 status` shows of it."""
        return {"reaped": self.reaped, "orphans": self.orphans}

    def own(self, pid: int, call: Exit) -> None:
        """Call `call(wait status)` when `pid` has ended. Register in the same turn in which it was started."""
        self._owned[pid] = call

    def drain(self) -> None:
        """Reap all that has ended, `TURN_S` of it in a turn; SIGCHLD coalesces, so one signal may mean many."""
        if self._promised:
            return
        began = self.clock()
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self.reaped += 1
            call = self._owned.pop(pid, None)
            if call is None:
                self.orphans += 1
                self.log.debug("orphan reaped", pid=pid, status=os.waitstatus_to_exitcode(status))
            else:
                call(status)
            if self.go_on is not None and self.clock() - began > TURN_S:
                self._promised = True
                self.go_on(self._again)
                return

    def _again(self) -> None:
        self._promised = False
        self.drain()


@define(eq=False, repr=False)
class Signals:
    """Signals as calls in the reactor's queue, through the interpreter's wake-up descriptor."""

    reactor: Reactor
    on: dict[int, Callable[[], None]] = field(factory=dict)
    _pair: tuple[socket.socket, socket.socket] | None = None

    def install(self) -> None:
        """Take the signals over; a byte of the signal's number arrives for each."""
        self._pair = socket.socketpair()
        for end in self._pair:
            end.setblocking(False)
        signal.set_wakeup_fd(self._pair[1].fileno(), warn_on_full_buffer=False)
        for number in HANDLED:
            signal.signal(number, lambda *_: None)
        self.reactor.watch(self._pair[0].fileno(), READ, self._read)

    def _read(self, _ready: int) -> None:
        numbers: set[int] = set()
        with contextlib.suppress(BlockingIOError):
            while self._pair is not None:
                numbers.update(self._pair[0].recv(4096))
        if len(numbers) == 0:
            return
        numbers.add(signal.SIGCHLD)  # a full pipe drops bytes: always look for ended children
        for number in sorted(numbers):
            call = self.on.get(number)
            if call is not None:
                self.reactor.call_soon(call)


def ignore_python_sigint() -> None:
    """Keep Ctrl-Alt-Del from raising KeyboardInterrupt in PID 1 before the reactor is there."""
    for number in HANDLED:
        if number != signal.SIGCHLD:
            signal.signal(number, signal.SIG_IGN)
