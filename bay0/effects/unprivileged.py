"""Give up every right there is, for good: what a process that talks to strangers does first (credentials(7), capabilities(7))."""

from __future__ import annotations

import contextlib
import os
import resource

from bay0.base import syscalls

LAST_CAP = "/proc/sys/kernel/cap_last_cap"
STATUS = "/proc/self/status"
_CAPS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def drop(uid: int, gid: int, limits: dict[int, int]) -> str:
    """Become `uid` and `gid` without groups, capabilities or a way to gain any; `limits`: resource -> its hard limit.

    Return "" when the kernel says so too, else what is still there. Who is not root cannot change uid, and keeps the one it has.
    """
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    os.umask(0o077)
    os.chdir("/")
    for name, most in limits.items():
        _soft, hard = resource.getrlimit(name)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)  # noqa: PLW2901
        resource.setrlimit(name, (most, most))
    if os.geteuid() == 0:
        with open(LAST_CAP, encoding="ascii") as file:
            last = int(file.read())
        for number in range(last + 1):
            syscalls.prctl(syscalls.PR_CAPBSET_DROP, number)
        with contextlib.suppress(OSError):
            syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_CLEAR_ALL)
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    return left(uid, gid) if uid == os.geteuid() else ""


def left(uid: int, gid: int) -> str:
    """Read from the kernel what we still have that we should not; "" is nothing."""
    with open(STATUS, encoding="ascii", errors="replace") as file:
        found = dict(line.rstrip("\n").split(":", 1) for line in file if ":" in line)
    wrong = [f"{name} {found[name].strip()}" for name in _CAPS if int(found[name], 16)]
    wrong += [] if found["NoNewPrivs"].strip() == "1" else ["new privileges"]
    wrong += [] if found["Uid"].split() == [str(uid)] * 4 else [f"uids {found['Uid'].strip()}"]
    wrong += [] if found["Gid"].split() == [str(gid)] * 4 else [f"gids {found['Gid'].strip()}"]
    wrong += [] if not found["Groups"].split() else [f"groups {found['Groups'].strip()}"]
    return ", ".join(wrong)
