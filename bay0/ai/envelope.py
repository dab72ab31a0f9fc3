"""The AI's envelope: what was asked for, in the words in which the kernel says it, and the comparison. Pure; effects/kernelview.py reads.

Twenty properties, read back after every start and never from podman: a flag that was not carried out (a controller that is not handed on, swap that
is not counted) says nothing by itself.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

OWN = "its own"
BELOW = "below "
PERIOD_US = 100_000  # of the processor limit, as crun writes it


@frozen
class Envelope:
    """What is wanted. Bytes, processors, the first uid of its range, the uid inside; `weight_below`: the weight that personas have."""

    group: str
    uid_base: int
    uids: int
    user: int
    memory: int
    cpus: float
    weight_below: int
    pids: int
    oom_score_adj: int


@frozen
class Row:
    """One property, both sides of it."""

    name: str
    wanted: str
    found: str

    @property
    def ok(self) -> bool:
        """What was found is what was wanted."""
        if self.wanted.startswith(BELOW):
            return self.found.isascii() and self.found.isdigit() and 0 < int(self.found) < int(self.wanted.removeprefix(BELOW))
        return self.found == self.wanted


def wanted(envelope: Envelope) -> dict[str, str]:
    """Return the twenty properties in the kernel's words."""
    user = envelope.uid_base + envelope.user
    mapped = f"0 {envelope.uid_base} {envelope.uids}"
    return {
        "net namespace": OWN,
        "interfaces": "lo",
        "routes": "none",
        "pid namespace": OWN,
        "ipc namespace": OWN,
        "mount namespace": OWN,
        "uid map": mapped,
        "gid map": mapped,
        "user": f"uid {user}, gid {user}",
        "capabilities": "0",
        "no new privileges": "1",
        "seccomp": "2",
        "root": "ro",
        "cgroup": envelope.group,
        "memory": str(envelope.memory),
        "swap": "0",
        "processors": f"{round(envelope.cpus * 1000) * PERIOD_US // 1000} {PERIOD_US}",
        "processor weight": f"{BELOW}{envelope.weight_below}",
        "processes": str(envelope.pids),
        "oom score": str(envelope.oom_score_adj),
    }


def compare(envelope: Envelope, found: Mapping[str, str]) -> tuple[Row, ...]:
    """Return both sides of each property; one that was not read does not match."""
    return tuple(Row(name, text, found.get(name, "not read")) for name, text in wanted(envelope).items())


def mismatch(rows: tuple[Row, ...]) -> str:
    """Say which do not match, or ""."""
    return "; ".join(f"{row.name}: wanted {row.wanted}, found {row.found}" for row in rows if not row.ok)
