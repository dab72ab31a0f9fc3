"""The gauges PID 1 reads itself: PSI, a group's use of processors and memory, the machine's load. Missing files give None, never an error.

All of them are made up by the kernel from its own counters while they are read (proc(5), cgroup-v2.rst, psi.rst): no disk, no device, no process is
waited for. A read is one page. Temperatures are not like that, see `sensors.py`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from attrs import define, field

from bay0.effects import cgroup
from bay0.effects.readings import PERCENT, Counted, Group, Pressure, Ticks, in_memory, meminfo, pairs, psi, ticks

PROC = "/proc"
KINDS = ("cpu", "memory", "io")
PAGE = 4096
BUSY = 0.01  # of a processor; a server that waits for questions takes less
MOVED = 1 << 20  # bytes
VIRTUAL = "hypervisor"  # a processor flag that every x86 hypervisor sets for its guests
ARM_GUEST = "/sys/hypervisor/type"


def read(path: str, size: int = PAGE) -> str:
    """Return the beginning of a kernel file, "" if it cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(fd, size).decode("ascii", "replace")
    except OSError:
        return ""
    finally:
        os.close(fd)


def is_guest() -> bool:
    """Tell whether this machine is somebody's guest."""
    return os.path.exists(ARM_GUEST) or VIRTUAL in read(f"{PROC}/cpuinfo", 4 * PAGE).split()


@define(eq=False, repr=False)
class Gauges:
    """Reads, and remembers the counters of the last look; times are monotonic seconds."""

    _psi: dict[str, tuple[float, Counted]] = field(factory=dict)
    _used: dict[str, tuple[float, dict[str, int]]] = field(factory=dict)
    _hits: dict[str, int] = field(factory=dict)
    _ticks: Ticks | None = None

    def pressure(self, path: str, now: float) -> Pressure | None:
        """Read a PSI file."""
        found = psi(read(path))
        if found is None:
            self._psi.pop(path, None)
            return None
        at, earlier = self._psi.get(path, (now, None))
        self._psi[path] = (now, found)
        return found.since(earlier, now - at)

    def machine(self, now: float) -> tuple[tuple[str, Pressure | None], ...]:
        """Return the whole machine's pressures."""
        return tuple((kind, self.pressure(f"{PROC}/pressure/{kind}", now)) for kind in KINDS)

    def use(self, directory: str, now: float) -> tuple[float, float]:
        """Return the processors a group has used since the last look, and the percent of that time in which its own limit held it up."""
        found = pairs(read(f"{directory}/cpu.stat"))
        at, earlier = self._used.get(directory, (now, found))
        self._used[directory] = (now, found)
        span = (now - at) * 1e6
        if span <= 0:
            return 0.0, 0.0
        used, held = (max(0, found.get(key, 0) - earlier.get(key, 0)) / span for key in ("usage_usec", "throttled_usec"))
        return used, min(PERCENT, held * PERCENT)

    def group(self, name: str, directory: str, now: float, throttled: float) -> Group:
        """Look at a part of the protected set."""
        hits = pairs(read(f"{directory}/memory.events")).get("max", 0)
        before = self._hits.get(directory, hits)
        self._hits[directory] = hits
        cpu, memory = (self.pressure(f"{directory}/{kind}.pressure", now) for kind in ("cpu", "memory"))
        return Group(name, cpu, memory, throttled, hits > before)

    def load(self) -> float | None:
        """Return the share of the machine's processors that was busy since the last look."""
        found = ticks(read(f"{PROC}/stat"))
        earlier, self._ticks = self._ticks, found
        return found.load_since(earlier) if found is not None else None

    def forget(self, kept: set[str]) -> None:
        """Drop what is remembered of groups that are gone."""
        for known in (self._used, self._hits):
            for directory in known.keys() - kept:
                known.pop(directory)
        for path in [path for path in self._psi if path.startswith(cgroup.ROOT) and os.path.dirname(path) not in kept]:
            self._psi.pop(path)


def memory(directory: str) -> int:
    """Return the bytes a group holds."""
    text = read(f"{directory}/memory.current").strip()
    return int(text) if text.isascii() and text.isdigit() else 0


def memory_bytes() -> tuple[int, int]:
    """Return all memory and what can be had of it; zeros if that is not known."""
    return meminfo(read(f"{PROC}/meminfo")) or (0, 0)


def shmem() -> int:
    """Return the bytes that files in memory take (/run, /tmp, /dev/shm and the like); nothing can push them out."""
    return in_memory(read(f"{PROC}/meminfo"))


def psi_missing() -> str | None:
    """Say why there is no pressure information, or None."""
    for kind in KINDS:
        if not os.path.exists(f"{PROC}/pressure/{kind}"):
            return f"{PROC}/pressure/{kind} is missing: the kernel needs psi=1 on its command line"
    return None


# ---- limits of a group's processors


@define(eq=False, repr=False)
class Limits:
    """What a group has by itself. `quota` is microseconds a `period`, None without a limit."""

    weight: int
    quota: int | None
    period: int

    @property
    def processors(self) -> float:
        """How many processors it may use."""
        return self.quota / self.period if self.quota is not None else float(os.cpu_count() or 1)


FLOOR = 0.1  # processors; below it a group would rather be frozen
WEIGHT_MIN, QUOTA_MIN_US = 1, 1000  # the kernel's


def limits(directory: str) -> Limits | None:
    """Read a group's own limits; None if there are none to read."""
    weight, words = read(f"{directory}/cpu.weight").strip(), read(f"{directory}/cpu.max").split()
    with contextlib.suppress(ValueError):
        if len(words) == 2:  # noqa: PLR2004 - quota and period
            return Limits(int(weight), None if words[0] == "max" else int(words[0]), int(words[1]))
    return None


def restrain(directory: str, own: Limits, weight: float, cap: float) -> list[str]:
    """Give a group these shares of its own weight and limit, never below the floor; 1 and 1 restore it. Return what failed."""
    quota = "max" if own.quota is None else str(own.quota)
    if cap < 1:
        quota = str(max(QUOTA_MIN_US, int(max(min(FLOOR, own.processors), own.processors * cap) * own.period)))
    failures = []
    for name, value in (("cpu.weight", str(max(WEIGHT_MIN, int(own.weight * weight)))), ("cpu.max", f"{quota} {own.period}")):
        try:
            with open(f"{directory}/{name}", "w", encoding="ascii") as control:
                control.write(value)
        except OSError as error:
            failures.append(f"{name}: {error}")
    return failures


@define(eq=False, repr=False)
class Progress:
    """Whether a group gets anywhere: it uses a processor, or its memory grows or shrinks, as a file's that is being read does."""

    directory: str
    clock: Callable[[], float]
    _used_us: int = 0
    _bytes: int = 0
    _looked: float = field(init=False)
    _since: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Begin to count now."""
        self._looked = self._since = self.clock()

    def still_s(self) -> float:
        """Look; return for how long it has been getting nowhere."""
        now = self.clock()
        used = pairs(read(f"{self.directory}/cpu.stat")).get("usage_usec", 0)
        taken = read(f"{self.directory}/memory.current").strip()
        memory = int(taken) if taken.isdecimal() else 0
        if used - self._used_us > (now - self._looked) * 1e6 * BUSY or abs(memory - self._bytes) >= MOVED:
            self._since = now
        self._looked, self._used_us, self._bytes = now, used, memory
        return now - self._since
