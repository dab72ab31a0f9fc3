"""The plain processes that each boot has: a shell on the console, and what runs commands in a guest."""

from __future__ import annotations

from bay0.base.cmdline import Words
from bay0.tenants.port import ServiceSpec, console_tty

GUEST_EXEC = "/usr/lib/bay0-exec/run"


def wanted(words: Words) -> dict[str, ServiceSpec]:
    """Return them by name. Call it when /sys is there to name the console.

    The console's shell is never given up: without it a machine has no way in but its control socket.
    """
    found = {}
    tty = console_tty()
    if tty is not None:
        term = "linux" if tty.startswith("/dev/tty") and tty[8:].isdigit() else "vt220" if words.terminal else "dumb"
        found["sys://console"] = ServiceSpec(("/bin/bash", "-l"), {"TERM": term, "HOME": "/root"}, tty=tty)
    if words.exec:
        found["sys://exec"] = ServiceSpec((GUEST_EXEC,), once=True, if_killed=(GUEST_EXEC, "killed"))
    return found
