"""Whose a process is, by its cgroup: asked of the kernel, and in a way that a pid used again is noticed."""

from __future__ import annotations

import contextlib
import os
import signal

from bay0.base.kernelfile import read_text
from bay0.effects import peers

STARTED = 19  # field 22 of /proc/PID/stat, counted behind the program's name (proc_pid_stat(5))
PID_MAX = "/proc/sys/kernel/pid_max"
MOST_PIDS = 1 << 22  # PID_MAX_LIMIT of a 64-bit kernel (include/linux/threads.h)


def process(pid: int) -> tuple[str, str] | None:
    """Return (cgroup from the root on, when it was started); None if there is no such process.

    Or it has ended.
    """
    if pid <= 0:
        return None
    before = _started(pid)
    group = peers.group_of(pid)
    return (group, before) if before and group and _started(pid) == before else None


def _started(pid: int) -> str:
    words = read_text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return words[STARTED] if len(words) > STARTED and words[0] not in "ZX" else ""


def end(pid: int, started: str) -> bool:
    """Kill the process that is `pid` and was started then; tell whether it was there."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if _started(pid) != started:
            return False
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(fd, signal.SIGKILL)
            return True
        return False
    finally:
        os.close(fd)


def keep_pids_apart() -> None:
    """Have the kernel use a pid again as late as it can. `OSError` if it refuses."""
    if int(read_text(PID_MAX) or 0) < MOST_PIDS:
        with open(PID_MAX, "w", encoding="ascii") as file:
            file.write(str(MOST_PIDS))
