"""The end: reboot(2), and the last resort when PID 1's own program has failed."""

from __future__ import annotations

import contextlib
import os
import signal
import time
import traceback
from collections.abc import Callable

from attrs import define, field

from bay0.base.syscalls import RB_AUTOBOOT, RB_HALT, RB_POWER_OFF, reboot
from bay0.effects import cgroup

HOW = {"poweroff": RB_POWER_OFF, "reboot": RB_AUTOBOOT, "halt": RB_HALT}
SHELL = ["/bin/sh", "-c", "stty sane; exec /bin/sh -i"]  # a line editor that was killed leaves its terminal raw
SYSRQ, RESTART, POWER_OFF = "/proc/sysrq-trigger", "b", "o"
PAUSE_S = 3.0


def power(how: str) -> None:
    """End the machine `how`: poweroff, reboot or halt. Returns only by `OSError`."""
    reboot(HOW[how])


def power_child(how: str) -> int:
    """`power` as the whole of a forked process: returns an exit status if the kernel refuses."""
    try:
        power(how)
    except OSError as error:
        return error.errno or 1
    return 0


class Sysrq:
    """The kernel's own way to end a machine (admin-guide/sysrq.rst), when reboot(2) hangs or nothing may be waited for.

    A word to it waits for no disk: "b" restarts there and then, without asking any driver; "o" is handed to a thread of the kernel's. It is
    opened while the boot is young, because a machine that is to be ended by force may have no file or memory left for it.
    """

    def __init__(self, path: str = SYSRQ) -> None:
        self.path = path
        self._fd = -1

    def open(self) -> None:
        """Be ready, in PID 1 alone: a developer's machine is not ours to end. `OSError`."""
        if os.getpid() == 1 and self._fd < 0:
            self._fd = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)

    def __call__(self, word: str) -> bool:
        """Give the kernel a word; tell whether it took it."""
        with contextlib.suppress(OSError):
            self.open()
            return os.write(self._fd, word.encode()) == len(word)
        return False  # the watchdog, which is no longer fed, is the last word


def has_acpi() -> bool:
    """Tell whether this machine has what switches a PC off.

    Where the kernel knows no power-off, reboot(2) halts instead (kernel/reboot.c: "Power off not available: System halted
    instead"), and nothing is left that could restart it.
    """
    return os.path.isdir("/sys/firmware/acpi")


def sync_child() -> int:
    """sync(2) as the whole of a forked process: it never ends on a wedged disk."""
    os.sync()
    return 0


@define(eq=False, repr=False)
class Calls:
    """How a machine is ended: `end(how)` and `sync()` are each the whole of a forked process and return its exit status.

    `can_power_off`: reboot(2) may be asked for it.
    """

    end: Callable[[str], int] = power_child
    sync: Callable[[], int] = sync_child
    sysrq: Sysrq = field(factory=Sysrq)
    can_power_off: Callable[[], bool] = has_acpi


def bounded_sync(seconds: float) -> bool:
    """sync(2) in a child, for at most `seconds`: it never ends on a wedged disk. Tell whether it ended."""
    try:
        pid = os.fork()
    except OSError:
        return False
    if pid == 0:
        try:
            os.sync()
        finally:
            os._exit(0)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, _ = os.waitpid(pid, os.WNOHANG)
        if done == pid:
            return True
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    return False


def last_resort(error: BaseException, policy: str, say: Callable[[str], None], sync_s: float) -> None:
    """Say what happened, sync within a bound, then reboot, halt, or give a shell (`bay0.panic=`). Never returns in PID 1.

    The program's state is not to be trusted here, so it uses nothing of it: no reactor, no spawner, no database.
    """
    lines = traceback.format_exception(error)
    for line in "".join(lines).rstrip().splitlines()[-30:]:
        say(f"bay0: PANIC: {line}")
    synced = bounded_sync(sync_s)
    say(f"bay0: PANIC: PID 1 failed; sync {'done' if synced else 'gave no answer'}; policy: {policy}")
    if policy == "shell":
        say("bay0: PANIC: a shell follows; leave it to reboot")
        try:
            _shell()
        except OSError as failure:
            say(f"bay0: PANIC: no shell: {failure}")
    time.sleep(PAUSE_S)  # so that a person can read it
    while True:
        try:
            power("halt" if policy == "halt" else "reboot")
        except OSError as failure:
            say(f"bay0: PANIC: reboot(2): {failure.strerror}; trying again")
        time.sleep(PAUSE_S)


def _shell() -> None:
    cgroup.kill(f"{cgroup.ROOT}/services")  # the console's own shell would take every second key
    pid = os.posix_spawn(
        SHELL[0], SHELL, {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "PS1": "panic# "}, setsid=True,
        file_actions=[(os.POSIX_SPAWN_OPEN, fd, "/dev/console", os.O_RDWR, 0) for fd in (0, 1, 2)],
    )  # fmt: skip
    while True:
        ended, _ = os.waitpid(-1, 0)  # still the only reaper
        if ended == pid:
            return
