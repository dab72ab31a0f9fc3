"""What the command line says where no bay0 answers: on a spine something else helps than on a developer's machine."""

from __future__ import annotations

import posix


def on_spine(pid1: str = "/proc/1/exe") -> bool:
    """Tell whether this machine's PID 1 is bay0. Only root may ask (proc(5)), as only root may talk to it."""
    try:
        return posix.readlink(pid1).rpartition("/")[2] == "bay0"
    except OSError:
        return False


def what_helps(*, here: bool | None = None) -> str:
    """Say what to do where nobody answers: on a spine (`here`), or on a machine that is none."""
    if on_spine() if here is None else here:
        return (
            "PID 1 of this machine is bay0: if its socket was removed it listens anew within seconds, so try again. If that does not help, "
            "`kill -TERM 1` turns the machine off in order, `kill -INT 1` or Ctrl-Alt-Del reboots it; `dmesg` may say more"
        )
    return "This verb needs a running spine: scripts/quickstart.sh boots one, scripts/boot-qemu.sh --exec 'bay0 ...' runs one command in it"
