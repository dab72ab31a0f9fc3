"""What a cgroup uses, from the kernel's files (cgroup-v2.rst): a sample, and what lies between two of them. A file that is missing counts 0."""

from __future__ import annotations

from bay0.base.kernelfile import read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    Sample = Mapping[str, Any]

ROOT = "/sys/fs/cgroup"
CACHE = ("inactive_file", "active_file", "slab_reclaimable")  # given back when somebody else needs it


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None


def _pairs(text: str) -> dict[str, int]:
    """Read lines of `key value`."""
    words = (line.split() for line in text.splitlines())
    return {each[0]: int(each[1]) for each in words if len(each) == 2 and each[1].isdigit()}  # noqa: PLR2004 - key and value


def _named(text: str, line: str, key: str) -> float:
    """Return `key=VALUE` of the line that begins with `line` (PSI)."""
    for each in text.splitlines():
        first, *words = each.split()
        if first == line:
            for word in words:
                name, _, value = word.partition("=")
                if name == key:
                    return float(value)
    return 0.0


def _moved(text: str) -> tuple[int, int]:
    """Return the bytes that were read from, and written to, all disks (io.stat: `8:0 rbytes=1 wbytes=2 ...`)."""
    words = [word.partition("=") for line in text.splitlines() for word in line.split()[1:]]
    return tuple(sum(int(value) for key, _, value in words if key == wanted and value.isdigit()) for wanted in ("rbytes", "wbytes"))  # type: ignore[return-value]


def sample(group: str, at_us: int) -> dict[str, Any]:
    """Look at the group `group` below the root, at `at_us` microseconds of any clock that goes evenly."""

    def read(name: str) -> str:
        return read_text(f"{ROOT}/{group}/{name}") or ""

    stat, cpu = _pairs(read("memory.stat")), _pairs(read("cpu.stat"))
    memory = _number(read("memory.current")) or 0
    read_bytes, written_bytes = _moved(read("io.stat"))
    return {
        "at_us": at_us,
        "cpu_us": cpu.get("usage_usec", 0),
        "throttled_us": cpu.get("throttled_usec", 0),
        "memory_bytes": memory,
        "used_bytes": max(0, memory - sum(stat.get(key, 0) for key in CACHE)),
        "memory_max_bytes": _number(read("memory.max")),
        "oom_kills": _pairs(read("memory.events")).get("oom_kill", 0),
        "pids": _number(read("pids.current")) or 0,
        "pids_max": _number(read("pids.max")),
        "read_bytes": read_bytes,
        "written_bytes": written_bytes,
        "pressure_percent": {
            "cpu": _named(read("cpu.pressure"), "some", "avg10"),
            "memory": _named(read("memory.pressure"), "some", "avg10"),
            "io": _named(read("io.pressure"), "some", "avg10"),
        },
    }


def between(earlier: Sample, later: Sample) -> dict[str, Any]:
    """Return `later` with what was used a second since `earlier`: percent of one processor, bytes."""
    seconds: float = max(1, later["at_us"] - earlier["at_us"]) / 1e6

    def rate(key: str) -> float:
        spent: float = later[key] - earlier[key]
        return max(0, spent) / seconds

    return {
        **later,
        "cpu_percent": round(rate("cpu_us") / 1e4, 1),
        "throttled_percent": round(min(1e6, rate("throttled_us")) / 1e4, 1),
        "read_bytes_s": round(rate("read_bytes")),
        "written_bytes_s": round(rate("written_bytes")),
    }
