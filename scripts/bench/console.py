"""A guest in QEMU, read through its serial console, with the host's clock on every byte."""

import os
import re
import select
import subprocess
import tempfile
import time
from types import TracebackType
from typing import Self

KERNEL_LINE = re.compile(rb"\[ *(\d+\.\d{6})\] [^\n]*\n")
TAIL_LINES = 12
ANCHOR_WINDOW_S = 1.0
READ_SIZE = 65536
END_GRACE_S = 15


class BootError(Exception):
    """One boot did not give its figures; the message says why."""


ASKED = b"\x1b[6n"


class Console:
    """One run of QEMU. `timeout` stands in front of it, so it ends even if this program is killed."""

    def __init__(self, argv: list[str], bound_s: int) -> None:
        self.deadline = time.monotonic() + bound_s
        self.text = bytearray()
        self.arrivals: list[tuple[int, float]] = []
        self.at = 0
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            ["timeout", "--kill-after=5", str(bound_s + 10), *argv],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, bufsize=0,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End QEMU: `timeout` hands SIGTERM on, and SIGKILL five seconds later."""
        self.process.terminate()
        self.process.wait(END_GRACE_S)
        for stream in (self.process.stdin, self.process.stdout, self.errors):
            if stream:
                stream.close()

    def send(self, text: str) -> None:
        """Type on the console."""
        if self.process.stdin is None:
            raise BootError("QEMU has no standard input")
        try:
            self.process.stdin.write(text.encode())
        except BrokenPipeError:
            raise BootError(f"QEMU is gone.\n{self.tail()}") from None

    def read(self, until: float) -> bool:
        """Take what the guest has written, waiting for it until then at most; False when nothing came."""
        stream = self.process.stdout
        if stream is None:
            raise BootError("QEMU has no standard output")
        ready, _, _ = select.select([stream], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            return False
        data = os.read(stream.fileno(), READ_SIZE)
        now = time.monotonic()
        if not data:
            self.errors.seek(0)
            raise BootError(f"QEMU ended. {self.errors.read().decode(errors='replace').strip()}\n{self.tail()}")
        if ASKED in self.text[-len(ASKED) + 1 :] + data:
            self.send("\x1b[24;80R")  # as a terminal answers that is asked how large it is; else the shell would wait for it
        self.text += data
        self.arrivals.append((len(self.text), now))
        return True

    def settle(self, seconds: float) -> None:
        """Let the guest come to rest."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.read(until)

    def wait_for(self, pattern: bytes) -> re.Match[bytes]:
        """Return the next match behind the previous one. The bound is that of the whole boot."""
        compiled = re.compile(pattern)
        while True:
            found = compiled.search(self.text, self.at)
            if found:
                self.at = found.end()
                return found
            if not self.read(self.deadline):
                raise BootError(f"{pattern.decode()!r} did not come in time.\n{self.tail()}")

    def when(self, offset: int) -> float:
        """Return the host's time at which the console's byte before this offset arrived."""
        return next(at for end, at in self.arrivals if end >= offset)

    def kernel_zero(self, init: re.Match[bytes]) -> float:
        """Return the host's time of the kernel's time 0.

        A line is stamped before it is sent, so each one gives an upper bound. The lowest of the last second before
        "Run /init" is taken: earlier the kernel's clock is not calibrated yet.
        """
        last = float(init.group(1))
        lines = KERNEL_LINE.finditer(self.text, 0, init.end())
        return min(self.when(line.end()) - float(line.group(1)) for line in lines if float(line.group(1)) >= last - ANCHOR_WINDOW_S)

    def tail(self) -> str:
        """Return the console's last lines, for a message."""
        lines = self.text.decode(errors="replace").splitlines()[-TAIL_LINES:]
        return "\n".join("    | " + line for line in lines) or "    | (the console is empty)"
