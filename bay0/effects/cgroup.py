"""cgroup v2 by plain files (kernel: Documentation/admin-guide/cgroup-v2.rst). A missing hierarchy makes every call a no-op."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping

from bay0.base.errors import NONE_LEFT
from bay0.base.kernelfile import read_text

ROOT = "/sys/fs/cgroup"
INIT = "init"
CONTROLLERS = ("cpu", "memory", "io", "pids")
INIT_WEIGHT = 10000  # of the processors: PID 1 asks for little, and everybody waits for its turns
SPINE_WEIGHT = 1000  # of the processors, for what PID 1 has others do: podman's next word must come while a persona burns all it can get
TENANTS_WEIGHT = 20  # of the processors, all tenants together against 100 of all personas: a weight counts among siblings only
SERVICES_WEIGHT = 1000  # of the disk, against 100 of personas: the state worker is a service
PARENTS = ("commands", "services", "personas", "tenants")


def available() -> bool:
    """Tell whether a v2 hierarchy is mounted whole at its usual place."""
    return os.path.exists(f"{ROOT}/cgroup.controllers") and os.path.exists(f"{ROOT}/cgroup.procs")


def make(path: str) -> str | None:
    """Make the group `path` below the root and return its directory; None where there is no hierarchy."""
    if not available():
        return None
    directory = f"{ROOT}/{path}"
    os.makedirs(directory, exist_ok=True)
    return directory


def enter(directory: str) -> None:
    """Move the calling process into the group."""
    with open(f"{directory}/cgroup.procs", "w", encoding="ascii") as procs:
        procs.write("0")


def limit(directory: str, limits: Mapping[str, str]) -> None:
    """Write limits ("memory.max" -> "1000000") to the group. `OSError` if one cannot be set."""
    for name, value in limits.items():
        with open(f"{directory}/{name}", "r+", encoding="ascii") as control:  # never made: a file that is not there is no limit
            control.write(value)


def _events(directory: str) -> str | None:
    """Return what the kernel says of the group, "" if there is none.

    None if it cannot be asked now, since no descriptor or no memory is left.
    """
    try:
        with open(f"{directory}/cgroup.events", encoding="ascii") as events:
            return events.read()
    except OSError as error:
        return None if error.errno in NONE_LEFT else ""


def populated(directory: str) -> bool:
    """Tell whether any process is left in the group or below it, or may be: what cannot be asked is not known to have ended."""
    events = _events(directory)
    return events is None or "populated 1" in events


def frozen(directory: str) -> bool:
    """Tell whether every process of the group is frozen; a freeze takes a moment after it was asked for."""
    return "frozen 1" in (_events(directory) or "")


def usage_us(directory: str) -> int:
    """Return the processor time that the group and those below it have used, in microseconds (cpu.stat); 0 if it is not there."""
    try:
        with open(f"{directory}/cpu.stat", encoding="ascii") as stat:
            return next((int(line.split()[1]) for line in stat if line.startswith("usage_usec ")), 0)
    except (OSError, ValueError):
        return 0


def told_to_freeze(directory: str) -> bool:
    """Tell whether the group itself was told to freeze: it may also stand still with one above it, which is not said in this file."""
    return read_text(f"{directory}/cgroup.freeze") == "1"


def freeze(directory: str, *, frozen: bool) -> str:
    """Tell the group to freeze, or to thaw, and return why that was not possible, or "". When it is done `frozen` says so.

    The write itself waits for no process of the group. A group that has gone is ENOENT, or ENODEV.
    """
    try:
        control = os.open(f"{directory}/cgroup.freeze", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(control, b"1" if frozen else b"0")
        finally:
            os.close(control)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def thaw(directory: str) -> str:
    """Unfreeze the group, and return why that was not possible, or "": one that was killed while frozen stays so, and would hang the next process."""
    return freeze(directory, frozen=False)


def kill(directory: str) -> None:
    """SIGKILL everything in the group at once, forks included."""
    with contextlib.suppress(OSError), open(f"{directory}/cgroup.kill", "w", encoding="ascii") as control:
        control.write("1")


def pids(directory: str) -> list[int]:
    """Return the processes directly in the group."""
    try:
        with open(f"{directory}/cgroup.procs", encoding="ascii") as listing:
            return [pid for line in listing if (pid := int(line)) > 0]  # 0: of another pid namespace; kill(0) would be ourselves
    except (OSError, ValueError):
        return []


def remove(directory: str) -> bool:
    """Remove the group if it is empty; tell whether it is gone."""
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def prefer(directory: str, weight: int) -> None:
    """Give the group a share of the disk against its siblings, 1 to 10000, 100 is the default; a no-op where the kernel weighs nothing.

    `io.weight` counts with a cost model, `io.bfq.weight` with that scheduler.
    """
    for name in ("io.weight", "io.bfq.weight"):
        with contextlib.suppress(OSError), open(f"{directory}/{name}", "r+", encoding="ascii") as control:
            control.write(str(min(weight, 1000) if "bfq" in name else weight))


def weigh(directory: str, weight: int) -> None:
    """Give the group a share of the processors against its siblings (cpu.weight), 1 to 10000, 100 is the default. `OSError` where it has none."""
    with open(f"{directory}/cpu.weight", "w", encoding="ascii") as control:
        control.write(str(weight))


def children(directory: str) -> list[str]:
    """Return the names of the groups in it, sorted; none if it is not there."""
    with contextlib.suppress(OSError), os.scandir(directory) as found:
        return sorted(each.name for each in found if each.is_dir(follow_symlinks=False))
    return []


def remove_all(directory: str) -> bool:
    """Remove the group and those in it if they are empty; tell whether it is gone."""
    with contextlib.suppress(OSError), os.scandir(directory) as found:
        for each in found:
            if each.is_dir(follow_symlinks=False):
                remove(each.path)
    return remove(directory)


def shield_pid1() -> list[str]:
    """Move PID 1 into its own leaf and hand the controllers to the others; return those that are missing.

    Its own leaf, so that what it uses is counted and nobody else's limit reaches it.
    """
    leaf = make(INIT)
    if leaf is None:
        return list(CONTROLLERS)
    enter(leaf)  # the kernel's own threads stay in the root, which alone may hold processes and controllers both
    with open(f"{ROOT}/cgroup.controllers", encoding="ascii") as listing:
        offered = listing.read().split()
    on = [name for name in CONTROLLERS if name in offered]
    _delegate(ROOT, on)
    for parent in PARENTS:
        os.makedirs(f"{ROOT}/{parent}", exist_ok=True)
        _delegate(f"{ROOT}/{parent}", on)
    prefer(f"{ROOT}/services", SERVICES_WEIGHT)
    with contextlib.suppress(OSError):
        weigh(leaf, INIT_WEIGHT)
        for parent in ("commands", "services"):
            weigh(f"{ROOT}/{parent}", SPINE_WEIGHT)
    return [name for name in CONTROLLERS if name not in offered]


def _delegate(directory: str, names: list[str]) -> None:
    with open(f"{directory}/cgroup.subtree_control", "w", encoding="ascii") as control:
        control.write(" ".join(f"+{name}" for name in names))
