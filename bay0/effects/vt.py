"""The kernel's own console on the screen.

It draws nothing and hears no key while a compositor has the screen (ioctl_console(2)).

Without that every key, a passphrase too, would also reach whatever reads the console, since seatd takes no
virtual terminal.
"""

from __future__ import annotations

import contextlib
import fcntl
import os

from attrs import define

TERMINAL = "/dev/tty0"  # the one in front
KDSETMODE, KDSKBMODE = 0x4B3A, 0x4B45  # linux/kd.h
KD_TEXT, KD_GRAPHICS = 0, 1
K_UNICODE, K_OFF = 3, 4


@define(eq=False, repr=False)
class Console:
    """Taken from the kernel, or left to it."""

    path: str = TERMINAL
    taken: bool = False

    def take(self) -> None:
        """Let the kernel neither draw on the screen nor take keys.

        `OSError`: it does not do so; a kernel without consoles is none.
        """
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            fcntl.ioctl(fd, KDSKBMODE, K_OFF)
            fcntl.ioctl(fd, KDSETMODE, KD_GRAPHICS)
        finally:
            os.close(fd)
        self.taken = True

    def give_back(self) -> None:
        """Let the kernel have both again; harmless when it has."""
        if not self.taken:
            return
        self.taken = False
        with contextlib.suppress(OSError):
            fd = os.open(self.path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                for request, value in ((KDSETMODE, KD_TEXT), (KDSKBMODE, K_UNICODE)):
                    with contextlib.suppress(OSError):
                        fcntl.ioctl(fd, request, value)
            finally:
                os.close(fd)
