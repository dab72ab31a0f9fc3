"""What the governor is told: pressures, tenants, temperatures; and the kernel's texts they are read from.

Pure: text in, numbers out, and nonsense is None. PSI: Documentation/accounting/psi.rst; /proc/meminfo, /proc/stat: proc(5); cpu.stat: cgroup-v2.rst.
"""

from __future__ import annotations

from attrs import frozen

PERCENT = 100.0
KIB = 1024
IDLE_FIELDS = (3, 4)  # of the first line of /proc/stat: idle, iowait
STAT_FIELDS = 8  # the rest counts guests a second time


@frozen(eq=False, repr=False)
class Pressure:
    """How much of the time some, or all, of a group's processes waited: percent of the last ten seconds, and of the time since the last look.

    The average lags behind for as long as it averages; the last window does not. Both must agree before anything is done.
    """

    some: float = 0.0
    full: float = 0.0
    some_now: float = 0.0
    full_now: float = 0.0


@frozen(eq=False, repr=False)
class Counted:
    """A PSI file as it stands. The totals are microseconds since the boot."""

    some: float
    full: float
    some_us: int
    full_us: int

    def since(self, earlier: Counted | None, seconds: float) -> Pressure:
        """Return the pressure, with the window since `earlier`; without one the average has to do for it."""
        if earlier is None or seconds <= 0:
            return Pressure(self.some, self.full, self.some, self.full)
        share = PERCENT / (seconds * 1e6)
        some, full = (self.some_us - earlier.some_us) * share, (self.full_us - earlier.full_us) * share
        return Pressure(self.some, self.full, _percent(some), _percent(full))


@frozen(eq=False, repr=False)
class Group:
    """A part of the protected set. What its own limits do to it is nobody else's doing.

    `throttled`: percent of the time since the last look in which its own processor limit held it up; `at_limit`: it ran into its memory limit since.
    """

    name: str
    cpu: Pressure | None = None
    memory: Pressure | None = None
    throttled: float = 0.0
    at_limit: bool = False


@frozen(eq=False, repr=False)
class Tenant:
    """Who may be restrained. `state`: running, paused, stopped (by us) or busy (on its way); `cpu` in processors, `memory` in bytes.

    `ai`: sacrificed before any persona. `life`: its container, so that a new one is not taken for the old one.
    """

    name: str
    life: str
    state: str = "running"
    focused: bool = False
    ai: bool = False
    cpu: float = 0.0
    memory: int = 0


@frozen(eq=False, repr=False)
class Sensor:
    """A thermal zone. Celsius, None if it gave nothing; `trip` is where the kernel itself begins to act."""

    name: str
    celsius: float | None
    trip: float


@frozen(eq=False, repr=False)
class Reading:
    """All that was seen at one time. `at`: monotonic seconds; `load`, `available`: shares of the machine's processors and memory.

    `virtual`: the machine is a guest, so heat is its host's business if it has no sensor. `machine`: the whole machine's PSI, to be shown only.
    """

    at: float
    groups: tuple[Group, ...] = ()
    tenants: tuple[Tenant, ...] = ()
    sensors: tuple[Sensor, ...] = ()
    load: float | None = None
    available: float | None = None
    virtual: bool = False
    machine: tuple[tuple[str, Pressure | None], ...] = ()


def psi(text: str) -> Counted | None:
    """Read a PSI file. Without a `full` line (cpu before Linux 5.13) full is 0."""
    found: dict[str, tuple[float, int]] = {}
    try:
        for line in text.splitlines():
            kind, *pairs = line.split()
            values = dict(pair.split("=", 1) for pair in pairs)
            found[kind] = (float(values["avg10"]), int(values["total"]))
        (some, some_us), (full, full_us) = found["some"], found.get("full", (0.0, 0))
    except (ValueError, KeyError):
        return None
    sane = all(0 <= value <= PERCENT for value in (some, full)) and min(some_us, full_us) >= 0  # NaN is not
    return Counted(some, full, some_us, full_us) if sane else None


def pairs(text: str) -> dict[str, int]:
    """Read lines of `key value`, such as cpu.stat and memory.events; lines that are none are left out."""
    found = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if value.isascii() and value.isdigit():
            found[key] = int(value)
    return found


def _fields(text: str) -> dict[str, int]:
    return pairs("\n".join(" ".join(line.replace(":", "").split()[:2]) for line in text.splitlines()))


def in_memory(text: str) -> int:
    """Return the bytes that files on filesystems in memory take (Shmem of /proc/meminfo)."""
    return _fields(text).get("Shmem", 0) * KIB


def meminfo(text: str) -> tuple[int, int] | None:
    """Return all of memory and what can be had of it without pushing anybody out, in bytes (MemTotal, MemAvailable)."""
    found = _fields(text)
    total, free = found.get("MemTotal", 0), found.get("MemAvailable")
    return None if free is None or total <= 0 or free > total else (total * KIB, free * KIB)


@frozen(eq=False, repr=False)
class Ticks:
    """Processor time of the whole machine since the boot, in clock ticks."""

    idle: int
    total: int

    def load_since(self, earlier: Ticks | None) -> float | None:
        """Return the share of all processors that was busy since `earlier`."""
        spent = self.total - earlier.total if earlier is not None else 0
        return None if earlier is None or spent <= 0 else min(1.0, max(0.0, 1 - (self.idle - earlier.idle) / spent))


def ticks(stat: str) -> Ticks | None:
    """Read the first line of /proc/stat."""
    first = stat.partition("\n")[0].split()
    try:
        numbers = [int(word) for word in first[1 : STAT_FIELDS + 1]]
    except ValueError:
        return None
    if first[:1] != ["cpu"] or len(numbers) <= max(IDLE_FIELDS):
        return None
    return Ticks(sum(numbers[at] for at in IDLE_FIELDS), sum(numbers))


def _percent(value: float) -> float:
    return min(PERCENT, max(0.0, value))
