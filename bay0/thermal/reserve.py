"""What the spine keeps for itself: a limit of memory for all personas together, and a floor under its own groups.

Measured with 768 MiB: a persona that takes all memory, without swap, evicts every program's text; then podman needs a minute to be paged in, and no
freeze nor stop comes in time. With a reserve the kernel ends the largest persona instead, and the governor's own errands run.
Source: cgroup-v2.rst, memory.max and memory.min.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import frozen

from bay0.effects import cgroup
from bay0.effects.gauges import memory, memory_bytes

if TYPE_CHECKING:
    from bay0.effects.ceilings import Ceilings

SHARE = 0.15  # of all memory
LEAST, MOST = 96 << 20, 1 << 30  # bytes
PERSONAS_LEAST = 64 << 20
KEPT = {"init": 48 << 20, "services": 48 << 20}  # never taken from them


@frozen(eq=False, repr=False)
class Reserve:
    """Writes the limits by `ceilings`, which looks after them from then on."""

    log: Any
    ceilings: Ceilings

    def keep(self) -> int | None:
        """Write the limits and say so; return the bytes all personas together may take."""
        limit, failures = keep(self.ceilings)
        self.log.info("memory of all personas together", limit_mib=limit >> 20 if limit is not None else None)
        if failures:
            self.log.warning("memory is not reserved", why="; ".join(failures))
        return limit


def keep(ceilings: Ceilings) -> tuple[int | None, list[str]]:
    """Write the limits; return the bytes all personas together may take (None: unknown, no limit), and what failed."""
    total, available = memory_bytes()
    writes = {f"{name}/memory.min": kept for name, kept in KEPT.items()}
    limit = None
    if total and available:
        held = memory(f"{cgroup.ROOT}/personas")
        limit = max(PERSONAS_LEAST, available + held - max(LEAST, min(MOST, int(total * SHARE))))
        writes["personas/memory.max"] = limit
    failed = ceilings.write({path: str(value) for path, value in writes.items()})
    return None if "personas/memory.max" in failed else limit, [f"{path}: {why}" for path, why in failed.items()]
