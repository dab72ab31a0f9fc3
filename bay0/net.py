"""The spine has no network: asserted, not assumed (handoff, "what not to do")."""

from __future__ import annotations

import os

SYS_NET = "/sys/class/net"
PROC_ROUTE = "/proc/net/route"


def violations(sys_net: str = SYS_NET, proc_route: str = PROC_ROUTE) -> list[str]:
    """Return every way in which this network namespace could reach anything, in words; empty means none.

    Interfaces other than `lo` that exist but are down cannot carry a packet, yet a kernel that made one is worth a line.
    """
    found = []
    for name in sorted(_listing(sys_net)):
        flags = f"{sys_net}/{name}/flags"
        if name != "lo" and os.path.exists(flags):
            found.append(f"interface {name} exists" + (" and is up" if _is_up(flags) else ""))
    try:
        with open(proc_route, encoding="ascii") as routes:
            found += [f"route through {line.split()[0]}" for line in routes.readlines()[1:]]
    except OSError:
        pass
    return found


def _listing(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def _is_up(path: str) -> bool:
    try:
        with open(path, encoding="ascii") as flags:
            return bool(int(flags.read(), 16) & 1)
    except (OSError, ValueError):
        return False
