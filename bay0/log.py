"""One canonical line a step, to three places: the console, a bounded file under /run, and memory.

structlog makes the record; `Sinks` writes it. The console is written without blocking (a terminal stopped with ^S must not
stop PID 1); what does not fit is kept in a ring, and what the ring loses is counted and said. Timestamps are the kernel's
(CLOCK_MONOTONIC, the clock of printk to within its own drift), so they line up with dmesg.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import deque
from collections.abc import MutableMapping
from typing import Any

from attrs import define, field

from bay0 import lazy
from bay0.logline import LEVELS, RUN_LOG, render

lazy.load("asyncio")  # structlog imports it for methods that PID 1 never calls; it would double our memory and start-up
lazy.bare("structlog")  # nor the half of it that draws tracebacks and serves the standard library's logging
from structlog._native import make_filtering_bound_logger  # noqa: E402 - after the lines above

RUN_LOG_MAX = 2 << 20  # bytes; one older file of the same size is kept
CONSOLE_RING = 256  # lines


def kernel_ms() -> int:
    """Return milliseconds since the kernel started."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000_000


@define(eq=False, repr=False)
class Console:
    """A terminal that may stop reading. Opened O_NOCTTY so that it never becomes PID 1's own."""

    path: str | None = "/dev/console"
    dropped: int = 0
    _fd: int | None = None
    _ring: deque[bytes] = field(factory=deque)
    _begun: bytes = b""  # the rest of a line that is partly out: it is never dropped, or two lines would become one

    def write(self, line: str) -> None:
        """Queue a line and push out what the terminal takes."""
        if len(self._ring) >= CONSOLE_RING:
            self._ring.popleft()
            self.dropped += 1
        self._ring.append(line.encode("utf-8", "replace")+ b"\n")  # the terminal adds the carriage return
        self.push()

    def push(self) -> None:
        """Write until the ring is empty or the terminal is full."""
        try:
            fd = self._open()
            while fd is not None and (self._begun or self._ring):
                if not self._begun:
                    self._begun = self._ring.popleft()
                self._begun = self._begun[os.write(fd, self._begun) :]
        except BlockingIOError:
            return
        except OSError:
            self.close()

    def close(self) -> None:
        """Let go of the terminal; the next line opens it again."""
        if self._fd is not None:
            with contextlib.suppress(OSError):
                os.close(self._fd)
        self._fd = None

    def _open(self) -> int | None:
        if self._fd is None and self.path is not None:
            with contextlib.suppress(OSError):
                self._fd = os.open(self.path, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        return self._fd


@define(eq=False, repr=False)
class RunLog:
    """JSON lines in a file of bounded size. Lines before `open` (no /run yet) wait in memory."""

    path: str = RUN_LOG
    limit: int = RUN_LOG_MAX
    _fd: int | None = None
    _size: int = 0
    _early: deque[bytes] = field(factory=lambda: deque(maxlen=1000))

    def open(self) -> None:
        """Start writing; the directory is made when it is missing."""
        os.makedirs(os.path.dirname(self.path), mode=0o755, exist_ok=True)
        self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._size = os.fstat(self._fd).st_size
        while self._early:
            self._put(self._early.popleft())

    def write(self, record: dict[str, Any]) -> None:
        """Append one record."""
        line = json.dumps(record, default=str, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        if self._fd is None:
            self._early.append(line)
        else:
            with contextlib.suppress(OSError):
                self._put(line)

    def _put(self, line: bytes) -> None:
        if self._size + len(line) > self.limit and self._fd is not None:
            os.replace(self.path, self.path + ".1")
            # opened first, closed second: a number that is closed and kept would soon be somebody else's
            new = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
            os.close(self._fd)
            self._fd, self._size = new, 0
        if self._fd is not None:
            self._size += os.write(self._fd, line)


@define(eq=False, repr=False)
class Sinks:
    """Where records go. `console_level` rises once a shell shares the console."""

    console: Console = field(factory=Console)
    file: RunLog = field(factory=RunLog)
    console_level: int = LEVELS["info"]
    _told_dropped: int = 0

    def emit(self, record: dict[str, Any]) -> None:
        """Write one finished record. Steps of machines are always shown on the console."""
        self.file.write(record)
        if record["event"] == "step" or LEVELS.get(record["level"], 20) >= self.console_level:
            if self.console.dropped != self._told_dropped:
                lost, self._told_dropped = self.console.dropped - self._told_dropped, self.console.dropped
                self.console.write(f"bay0: {lost} console lines lost while the terminal did not read; see {self.file.path}")
            self.console.write(render(record))

    debug = info = warning = error = critical = emit


def _stamp(_logger: Any, level: str, record: MutableMapping[str, Any]) -> dict[str, Any]:
    return {"t_ms": kernel_ms(), "level": level, **record}


def _hand_over(_logger: Any, _level: str, record: MutableMapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (record,), {}


def make(sinks: Sinks) -> Any:
    """Return the program's logger: `log.info("static event", key=value)`."""
    bound: Any = make_filtering_bound_logger(0)
    return bound(sinks, [_stamp, _hand_over], {})
