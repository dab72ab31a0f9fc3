"""One canonical line a step, to three places: the console, a bounded file under /run, and memory.

structlog makes the record; `Sinks` writes it. The console is written without blocking (a terminal stopped with ^S must not
stop PID 1); what does not fit is kept in a ring, and what the ring loses is counted and said. Timestamps are the kernel's
(CLOCK_MONOTONIC, the clock of printk to within its own drift), so they line up with dmesg.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time
from collections import deque
from collections.abc import MutableMapping
from typing import Any

from attrs import define, field

from bay0.base import inode
from bay0.base.logline import LEVELS, RUN_LOG, render
from bay0.loading import lazy

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

    def describe(self) -> dict[str, Any]:
        """Return what `bay0 status` shows of it."""
        return {"console_lines_dropped": self.dropped}

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
    """JSON lines in a file of bounded size. Lines before `open` (no /run yet) wait in memory.

    Nothing that fails ends it: a file that cannot be begun is tried again with the next line, meanwhile the old one
    grows to twice its bound; a line that cannot be kept is counted, and the count is written when something can be.
    """

    path: str = RUN_LOG
    limit: int = RUN_LOG_MAX
    lost: int = 0  # lines of this boot
    failing: str = ""  # why the next one may be lost, too
    _fd: int | None = None
    _size: int = 0
    _file: inode.File | None = None
    _told: int = 0  # of those lost
    _early: deque[bytes] = field(factory=lambda: deque(maxlen=1000))

    def open(self) -> None:
        """Start writing, in a new file if the path leads to ours no more; a missing directory is made.

        `OSError` if that fails.
        """
        os.makedirs(os.path.dirname(self.path), mode=0o755, exist_ok=True)
        self._take(self._begin(self.path, 0))
        while self._early:
            self._put(self._early.popleft())

    def look(self) -> list[str]:
        """See that the path leads to our file, and begin a new one if somebody removed it; return what had happened.

        `OSError` if that fails.
        """
        if self._fd is not None and inode.which(self.path) == self._file:
            return []
        was = "it could not be opened before" if self._fd is None else "somebody removed it"
        try:
            self.open()
        except OSError as error:
            self.failing = str(error)
            raise
        self.failing = ""
        return [was]

    def write(self, record: dict[str, Any]) -> None:
        """Append one record, and before it how many could not be."""
        if self._fd is None:
            self._early.append(_line(record))
            return
        if self.lost != self._told:
            missed = self.lost - self._told
            said = {"t_ms": kernel_ms(), "level": "warning", "event": "run log lines lost", "lines": missed, "why": self.failing}
            self._told = self.lost if self._put(_line(said)) else self._told
        self.lost += not self._put(_line(record))

    def _put(self, line: bytes) -> bool:
        """Write a line whole or not at all; tell whether it was."""
        try:
            if self._size + len(line) > self.limit:
                self._rotate()
            self.failing = ""
        except OSError as error:
            self.failing = f"no new file can be begun: {error}"
            if self._size + len(line) > 2 * self.limit:
                return False
        fd, before = self._fd, self._size
        if fd is None:
            return False
        try:
            written = os.write(fd, line)
        except OSError as error:
            self.failing = str(error)
            return False
        if written < len(line):  # the filesystem is full: half a line would spoil the next one
            self.failing = os.strerror(errno.ENOSPC)
            with contextlib.suppress(OSError):
                os.ftruncate(fd, before)
            return False
        self._size += written
        return True

    def _rotate(self) -> None:
        """Keep the file as the older one and begin the next, which is opened first: a failure leaves all as it is."""
        new = self._begin(f"{self.path}.new", os.O_TRUNC)
        try:
            with contextlib.suppress(FileNotFoundError):  # removed by hand
                os.replace(self.path, f"{self.path}.1")
            os.replace(f"{self.path}.new", self.path)
        except OSError:
            os.close(new)
            raise
        self._take(new)

    @staticmethod
    def _begin(path: str, more: int) -> int:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | more, 0o640)

    def _take(self, new: int) -> None:
        """Write to `new` from now on. It was opened first: a number that is closed and kept would soon be another's."""
        if self._fd is not None:
            os.close(self._fd)
        found = os.fstat(new)
        self._fd, self._size, self._file = new, found.st_size, (found.st_dev, found.st_ino)


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record, default=str, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


@define(eq=False, repr=False)
class Sinks:
    """Where records go. `console_level` rises once a shell shares the console."""

    console: Console = field(factory=Console)
    file: RunLog = field(factory=RunLog)
    console_level: int = LEVELS["info"]
    _told_dropped: int = 0
    _told_failing: bool = False

    def emit(self, record: dict[str, Any]) -> None:
        """Write one finished record. Steps of machines are always shown on the console."""
        self.file.write(record)
        if bool(self.file.failing) is not self._told_failing:
            self._told_failing = bool(self.file.failing)
            self.console.write(f"bay0: {self.file.path} " + (f"cannot be written: {self.file.failing}" if self.file.failing else "is written again"))
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
