"""What the kernel says of the processes of a cgroup: proc(5), namespaces(7), cgroup-v2.rst. Texts, each read at once and bounded.

Where the processes of one group disagree, every value is shown.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from attrs import frozen

from bay0.effects import cgroup

PROC = "/proc"
READ_MAX = 256 << 10  # bytes of one file
PROCESSES_MAX = 256
CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
_LOOPBACK = "lo"


@frozen
class View:
    """The properties by name, the group's first process (1 inside), and who is its parent: its monitor."""

    found: dict[str, str]
    first: int
    monitor: int


def look(directory: str) -> View:
    """Read everything about the group `directory` below the cgroup root. `OSError`: it has no process, or they end while they are looked at."""
    pids = processes(directory)
    if not pids:
        raise ProcessLookupError(f"{directory} has no process")
    status = {pid: _status(pid) for pid in pids}
    first = next((pid for pid in pids if status[pid].get("NSpid", "").split()[-1:] == ["1"]), pids[0])
    found = {
        "net namespace": _own(first, "net"),
        "interfaces": _listed(interfaces(_read(f"{PROC}/{first}/net/dev"))),
        "routes": _listed(routes(_read(f"{PROC}/{first}/net/route"), _read(f"{PROC}/{first}/net/ipv6_route", missing=""))),
        "pid namespace": _own(first, "pid"),
        "ipc namespace": _own(first, "ipc"),
        "mount namespace": _own(first, "mnt"),
        "uid map": " ".join(_read(f"{PROC}/{first}/uid_map").split()),
        "gid map": " ".join(_read(f"{PROC}/{first}/gid_map").split()),
        "user": _all(pids, lambda pid: f"uid {_ids(status[pid], 'Uid')}, gid {_ids(status[pid], 'Gid')}"),
        "capabilities": _all(pids, lambda pid: _capabilities(status[pid])),
        "no new privileges": _all(pids, lambda pid: status[pid].get("NoNewPrivs", "?")),
        "seccomp": _all(pids, lambda pid: status[pid].get("Seccomp", "?")),
        "root": root(_read(f"{PROC}/{first}/mountinfo")),
        "cgroup": _all(pids, lambda pid: _read(f"{PROC}/{pid}/cgroup").strip().partition("0::")[2]),
        "memory": _read(f"{directory}/memory.max").strip(),
        "swap": _read(f"{directory}/memory.swap.max").strip(),
        "processors": _read(f"{directory}/cpu.max").strip(),
        "processor weight": _weight(directory),
        "processes": _read(f"{directory}/pids.max").strip(),
        "oom score": _all(pids, lambda pid: _read(f"{PROC}/{pid}/oom_score_adj").strip()),
    }
    return View(found, first, int(status[first].get("PPid", "0")))


def processes(directory: str) -> list[int]:
    """Return the processes of the group and those below it, at most PROCESSES_MAX."""
    found: list[int] = []
    for folder, _groups, _files in os.walk(directory):
        found += cgroup.pids(folder)
        if len(found) > PROCESSES_MAX:
            break
    return found[:PROCESSES_MAX]


def interfaces(dev: str) -> list[str]:
    """Read /proc/PID/net/dev."""
    return sorted(line.partition(":")[0].strip() for line in dev.splitlines() if ":" in line)


def routes(ipv4: str, ipv6: str) -> list[str]:
    """Return the interfaces that there are routes through, but for lo (/proc/PID/net/route, ipv6_route)."""
    through = [line.split()[0] for line in ipv4.splitlines()[1:] if line.strip()] + [line.split()[-1] for line in ipv6.splitlines() if line.strip()]
    return sorted({name for name in through if name != _LOOPBACK})


def root(mountinfo: str) -> str:
    """Return "ro" if the last mount at / is read-only, "rw" if it is not."""
    options = [words[5].split(",") for line in mountinfo.splitlines() if len(words := line.split()) > 5 and words[4] == "/"]  # noqa: PLR2004 - proc(5)
    return "not mounted" if not options else "ro" if "ro" in options[-1] else "rw"


def _status(pid: int) -> dict[str, str]:
    lines = (line.partition(":") for line in _read(f"{PROC}/{pid}/status").splitlines())
    return {key: value.strip() for key, _, value in lines}


def _ids(status: dict[str, str], key: str) -> str:
    """Real, effective, saved and filesystem id: one number if they agree."""
    return "/".join(sorted(set(status.get(key, "?").split())))


def _capabilities(status: dict[str, str]) -> str:
    masks = {key: status.get(key, "?").lstrip("0") or "0" for key in CAPABILITIES}
    return "0" if set(masks.values()) == {"0"} else " ".join(f"{key} {mask}" for key, mask in masks.items() if mask != "0")


def _weight(directory: str) -> str:
    """Return the larger of its own weight and that of the group above it: the one counts among siblings there, the other against personas."""
    return max((_read(f"{each}/cpu.weight").strip() for each in (directory, os.path.dirname(directory))), key=lambda text: int(text or 0))


def _own(pid: int, kind: str) -> str:
    theirs, ours = (os.readlink(f"{PROC}/{each}/ns/{kind}") for each in (str(pid), "self"))
    return "its own" if theirs != ours else "the spine's"


def _all(pids: Iterable[int], of: Callable[[int], str]) -> str:
    return " and ".join(sorted({of(pid) for pid in pids}))


def _listed(names: list[str]) -> str:
    return " ".join(names) or "none"


def _read(path: str, missing: str | None = None) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        if missing is None:
            raise
        return missing
    try:
        parts, size = [], 0
        while size < READ_MAX and (part := os.read(fd, READ_MAX - size)):
            parts.append(part)
            size += len(part)
        return b"".join(parts).decode("utf-8", "replace")
    finally:
        os.close(fd)
