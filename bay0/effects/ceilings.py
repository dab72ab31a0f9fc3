"""Ceilings over the spine's own groups: what runs for it may fail, and must not take it along.

A fork bomb on the console, or in a command, meets the limit of its own group before the machine has no process left
to give; one that takes memory is ended within its group, before the whole machine is short. The groups `services` and
`commands` have a ceiling each, and every group in them a lower one, so that one of them leaves some to its siblings.
Sizes come from the machine. Source: cgroup-v2.rst, pids.max, memory.max; proc(5), threads-max, pid_max.

Whatever is written here is the spine's, not a preset: found changed, it is set right and said (governor.py).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from attrs import define, field, frozen

from bay0.effects import cgroup, mounts

PROC_KERNEL = "/proc/sys/kernel"
BOUNDED = ("services", "commands")
PIDS_SHARE, PIDS_SHARE_OF_ONE = 0.25, 0.125  # of all processes and threads that the kernel gives
PIDS_LEAST = 128
MEMORY_SHARE, MEMORY_SHARE_OF_ONE = 0.85, 0.75  # of all memory
PAGE = 4096


def _read(path: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(fd, PAGE).decode("ascii", "replace").strip()
    except OSError:
        return ""
    finally:
        os.close(fd)


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0


def processes() -> int:
    """Return how many processes and threads this machine can have; 0 if the kernel does not say."""
    return min(_number(_read(f"{PROC_KERNEL}/{name}")) for name in ("threads-max", "pid_max"))


def sizes(memory_share: float, pids_share: float) -> dict[str, str]:
    """Return the limits of a group with these shares of the machine; of what is not known there is none."""
    threads = processes()
    pids = {"pids.max": str(max(PIDS_LEAST, int(threads * pids_share)))} if threads else {}
    return {**pids, "memory.max": str(int(mounts.memory() * memory_share))}


def of_one() -> dict[str, str]:
    """Return the limits of each service and each command."""
    return sizes(MEMORY_SHARE_OF_ONE, PIDS_SHARE_OF_ONE)


def of_all() -> dict[str, str]:
    """Return what to write for all services together, and for all commands: file below the root -> value."""
    limits = sizes(MEMORY_SHARE, PIDS_SHARE)
    return {f"{group}/{name}": value for group in BOUNDED for name, value in limits.items()}


@define(eq=False, repr=False)
class Ceilings:
    """Writes limits of the spine's, and remembers them as the kernel shows them."""

    _kept: dict[str, str] = field(factory=dict)

    def write(self, values: Mapping[str, str]) -> dict[str, str]:
        """Write them (file below the root -> value); return what could not be written: file -> why."""
        failed = {}
        for path, value in values.items():
            whole = f"{cgroup.ROOT}/{path}"
            try:
                with open(whole, "r+", encoding="ascii") as control:  # never made: a file that is not there is no limit
                    control.write(value)
            except OSError as error:
                failed[path] = str(error)
            else:
                self._kept[path] = _read(whole)  # memory is rounded to pages
        return failed

    def look(self) -> Iterator[tuple[str, str, str]]:
        """Set right what somebody changed; yield each file with what was found there and what it is again."""
        for path, kept in list(self._kept.items()):
            found = _read(f"{cgroup.ROOT}/{path}")
            if found and found != kept:
                self.write({path: kept})
                yield path, found, kept


# ---- who met his ceiling


@frozen
class Group:
    """A bounded group as it is now.

    `refused`: how often it could have no further process; `killed`: processes that were ended for its memory.
    """

    name: str
    pids: int
    pids_max: int | None
    memory: int
    memory_max: int | None
    refused: int
    killed: int


def _limit(text: str) -> int | None:
    return _number(text) or None  # "max"


def _count(text: str, key: str) -> int:
    words = (line.split() for line in text.splitlines())
    return next((_number(found[1]) for found in words if len(found) > 1 and found[0] == key), 0)


def look_at(name: str) -> Group:
    """Look at one; of one that is not there all is 0."""
    found = {file: _read(f"{cgroup.ROOT}/{name}/{file}") for file in ("pids.current", "pids.max", "memory.current", "memory.max")}
    events = {kind: _read(f"{cgroup.ROOT}/{name}/{kind}.events") for kind in ("pids", "memory")}
    return Group(
        name, _number(found["pids.current"]), _limit(found["pids.max"]), _number(found["memory.current"]), _limit(found["memory.max"]),
        _count(events["pids"], "max"), _count(events["memory"], "oom_kill"),
    )  # fmt: skip


def bounded() -> list[Group]:
    """Look at all: each service, all services, all commands. A command's own group goes with it, its counts stay there."""
    services = cgroup.children(f"{cgroup.ROOT}/services")
    return [look_at(name) for name in (*(f"services/{each}" for each in services), *BOUNDED)]


@define(eq=False, repr=False)
class Met:
    """Tells who has met his ceiling since the last look: once, until a look without it."""

    _seen: dict[str, tuple[int, int]] = field(factory=dict)
    _said: set[tuple[str, str]] = field(factory=set)

    def look(self, now: list[Group]) -> Iterator[tuple[str, Group]]:
        """Yield "pids" or "memory" with each group that met that ceiling; all services only if none of them did."""
        met: dict[tuple[str, str], Group] = {}
        for each in now:
            refused, killed = self._seen.get(each.name, (0, 0))
            self._seen[each.name] = (each.refused, each.killed)
            below = {kind for kind, name in met if name.startswith(f"{each.name}/")}
            news = {"pids": each.refused > refused, "memory": each.killed > killed}
            met.update({(kind, each.name): each for kind, new in news.items() if new and kind not in below})
        yield from ((kind, each) for (kind, name), each in met.items() if (kind, name) not in self._said)
        self._said = set(met)
        for name in self._seen.keys() - {each.name for each in now}:
            del self._seen[name]
