"""The spine has no network: asserted, not assumed (handoff, "what not to do")."""

from __future__ import annotations

import os

SYS_NET = "/sys/class/net"
PROC_ROUTE = "/proc/net/route"


def violations(sys_net: str = SYS_NET, proc_route: str = PROC_ROUTE) -> list[str]:
    """Return every way in which this network namespace could reach anything, in words; empty means none.

    Interfaces other than `lo` that exist but are down cannot carry a packet, yet a kernel that made one is worth a line.
    """
    return _look(sys_net, proc_route)[0]


def unread(sys_net: str = SYS_NET, proc_route: str = PROC_ROUTE) -> list[str]:
    """Return what could not be looked at, with the system's reason; empty: `violations` has seen all."""
    return _look(sys_net, proc_route)[1]


def _look(sys_net: str, proc_route: str) -> tuple[list[str], list[str]]:
    found, unseen = [], []
    try:
        names = sorted(os.listdir(sys_net))
    except OSError as error:
        names = []
        unseen.append(f"{sys_net}: {error.strerror}")
    for name in names:
        flags = f"{sys_net}/{name}/flags"
        if name != "lo" and os.path.exists(flags):
            found.append(f"interface {name} exists" + (" and is up" if _is_up(flags) else ""))
    try:
        with open(proc_route, encoding="ascii") as routes:
            found += [f"route through {line.split()[0]}" for line in routes.readlines()[1:]]
    except OSError as error:
        # a kernel without IPv4 has no such file, but the directory
        if not isinstance(error, FileNotFoundError) or not os.path.isdir(os.path.dirname(proc_route)):
            unseen.append(f"{proc_route}: {error.strerror}")
    return found, unseen


def _is_up(path: str) -> bool:
    try:
        with open(path, encoding="ascii") as flags:
            return bool(int(flags.read(), 16) & 1)
    except (OSError, ValueError):
        return False
