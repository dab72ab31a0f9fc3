"""PID 1 protects itself: from the OOM killer, from crowded cgroups, from Ctrl-Alt-Del, from hanging unseen."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
from typing import Any

from attrs import define

from bay0.base.syscalls import RB_DISABLE_CAD, ioprio_set, reboot

WATCHDOG = "/dev/watchdog"
HANDED_ON = "BAY0_WATCHDOG_FD"  # stage 0 has armed it, and this is its descriptor
WDIOC_SETTIMEOUT = 0xC0045706  # linux/watchdog.h
WATCHDOG_S = 30
FEED_EVERY_S = 5.0


def unkillable() -> None:
    """Set our own oom_score_adj to -1000 (proc(5)); children get 0 back in the spawner."""
    with open("/proc/self/oom_score_adj", "w", encoding="ascii") as score:
        score.write("-1000")


def first_at_the_disk() -> None:
    """Take the highest I/O priority there is (ioprio_set(2)); for the state worker, whose syncs must not queue behind a persona's writes.

    Real-time, or the first of best-effort where that is not permitted. It counts with a disk scheduler that knows priorities.
    """
    for kind, level in ((1, 4), (2, 0)):
        with contextlib.suppress(OSError):
            ioprio_set(kind, level)
            return


def last_at_the_disk() -> None:
    """Take the lowest priority that still gets on, of processor and disk; for a copy, which nobody's commit is to wait for."""
    with contextlib.suppress(OSError):
        ioprio_set(2, 7)
    with contextlib.suppress(OSError):
        os.nice(10)


def ctrl_alt_del_is_a_signal() -> None:
    """Make the kernel send SIGINT instead of rebooting at once (reboot(2), LINUX_REBOOT_CMD_CAD_OFF)."""
    reboot(RB_DISABLE_CAD)


@define(eq=False, repr=False)
class Watchdog:
    """The hardware's own opinion whether we live. Fed by the reactor after a full turn, by nothing else.

    With `watchdog.stop_on_reboot=0` on the kernel command line it also guards reboot(2), which does not finish
    with a wedged disk. One that goes away while it is wanted is opened again as soon as its driver is back.
    """

    path: str = WATCHDOG
    wanted: bool = False  # there was one, and nobody has disarmed it
    fed: int = 0
    fed_at: float = 0.0  # monotonic seconds of the last time that it took
    failing: str = ""  # why it is not fed though it is wanted
    _fd: int | None = None
    _due: float = 0.0

    @property
    def armed(self) -> bool:
        """Tell whether there is one that counts and takes what it is fed."""
        return self._fd is not None and not self.failing

    def take_over(self, fd: str | None) -> None:
        """Feed the one that stage 0 has armed, if this (a number, as text) is its descriptor; it can be opened but once.

        Its timeout, a long one, stays until `open`: by then the reactor turns.
        """
        try:
            handed_on, status = int(fd or ""), os.fstat(int(fd or ""))
            if stat.S_ISCHR(status.st_mode) and status.st_rdev == os.stat(self.path).st_rdev:
                os.set_inheritable(handed_on, False)
                self._fd, self.wanted, self.failing = handed_on, True, ""
        except (ValueError, OverflowError, OSError):  # there is none, or not any more: `open` says what can be had
            return

    def open(self) -> bool:
        """Arm it; False where there is none, or where it cannot be had (`failing`)."""
        try:
            if self._fd is None:
                self._fd = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            self.failing = f"{self.path} is gone" if self.wanted else ""
            return False
        except OSError as error:
            self.wanted, self.failing = True, str(error.strerror)
            return False
        self.wanted, self.failing = True, ""
        with contextlib.suppress(OSError):
            fcntl.ioctl(self._fd, WDIOC_SETTIMEOUT, struct.pack("i", WATCHDOG_S))
        return True

    def disarm(self) -> None:
        """Stop it (the magic close, watchdog-api.rst): only for a last resort that is meant to stay, a halt or a shell."""
        self.wanted = False
        if self._fd is not None:
            with contextlib.suppress(OSError):
                os.write(self._fd, b"V")
            self._close()

    def feed(self, now: float) -> bool:
        """Feed it when that is due. Return whether it has begun to fail, for this reason, or fails no more."""
        if not self.wanted or now < self._due:
            return False
        before, self._due = self.failing, now + FEED_EVERY_S
        if self._fd is None:
            self.open()
        if self._fd is not None:
            try:
                os.write(self._fd, b"\0")
            except OSError as error:  # it may bite; that is its business
                self.failing = str(error.strerror)
                if error.errno == errno.ENODEV:  # its driver is gone: the next one needs to be opened
                    self._close()
            else:
                self.fed, self.fed_at, self.failing = self.fed + 1, now, ""
        return self.failing != before

    def _close(self) -> None:
        if self._fd is not None:
            with contextlib.suppress(OSError):
                os.close(self._fd)
            self._fd = None


def describe(watchdog: Watchdog) -> dict[str, Any]:
    """Return what `bay0 status` shows of it: how it is now."""
    timeout = WATCHDOG_S if watchdog.armed else None
    return {"armed": watchdog.armed, "timeout_s": timeout, "fed": watchdog.fed, "failing": watchdog.failing}
