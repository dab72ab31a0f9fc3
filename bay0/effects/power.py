"""The end: reboot(2), and the last resort when PID 1's own program has failed."""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections.abc import Callable

from bay0.effects import cgroup
from bay0.syscalls import RB_AUTOBOOT, RB_HALT, RB_POWER_OFF, reboot

HOW = {"poweroff": RB_POWER_OFF, "reboot": RB_AUTOBOOT, "halt": RB_HALT}
SHELL = ["/bin/sh", "-c", "stty sane; exec /bin/sh -i"]  # a line editor that was killed leaves its terminal raw
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


def restart_at_once() -> None:
    """Restart without asking any driver (sysrq "b", kernel: admin-guide/sysrq.rst): the way out when reboot(2) hangs.

    The disk is closed or lost by then. A power-off that hangs becomes a restart: a machine that is dark is asked for, one that
    hangs for ever is not.
    """
    if os.getpid() != 1:
        return  # a developer's machine is not ours to restart
    try:
        with open("/proc/sysrq-trigger", "w", encoding="ascii") as trigger:
            trigger.write("b")
    except OSError:
        return  # the watchdog, which is no longer fed, is the last word


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
