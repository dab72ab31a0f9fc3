"""What a fork of PID 1 does before anything else: it gives back what is PID 1's own."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from typing import NoReturn

from bay0.effects import cgroup

KEPT_FD = 3
RESET_SIGNALS = tuple(s for s in signal.valid_signals() if s not in (signal.SIGKILL, signal.SIGSTOP))


def become(main: Callable[[], int], directory: str | None, keep: int) -> NoReturn:
    """Run `main` as a process of its own; never returns into the parent's program."""
    status = 70  # sysexits.h, EX_SOFTWARE
    try:
        signal.set_wakeup_fd(-1)
        if directory is not None:
            cgroup.enter(directory)  # early, because in PID 1's own group it has as large a share of the processors as PID 1
        for number in RESET_SIGNALS:
            with contextlib.suppress(OSError, ValueError):
                signal.signal(number, signal.SIG_DFL)
        os.setsid()
        os.dup2(keep, KEPT_FD)
        os.closerange(KEPT_FD + 1, os.sysconf("SC_OPEN_MAX"))
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.close(null)
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as score:
            score.write("0")
        status = main()
    finally:
        os._exit(status)
