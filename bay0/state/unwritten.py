"""The steps that no sync of the disk has vouched for: those in memory, and those that the next worker may find lost."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from attrs import asdict, define, field

from bay0.machines.instance import Step

CHUNK = 20  # steps in one packet, unless they are so large that fewer fit; their answer is one call of the reactor's
CHUNK_BYTES = 100_000  # of them as they are sent; one may be more, and the largest there is fits into a packet
MEMORY_MAX = 5000  # steps kept while the disk is away
UNSYNCED_MAX = 200  # steps committed without a sync; then one is made


@define(eq=False)
class Unwritten:
    """`memory`: number -> step, not committed yet. `unsynced`: committed without a sync. `lost`: how many found no room."""

    memory: dict[int, Step] = field(factory=dict)
    unsynced: dict[int, Step] = field(factory=dict)
    lost: int = 0

    @property
    def wants_sync(self) -> bool:
        """So many steps wait for a sync that the next commit makes one."""
        return len(self.unsynced) >= UNSYNCED_MAX

    def remember(self, step: Step) -> None:
        """Keep a step; the oldest goes once there are too many."""
        self.memory[step.n] = step
        if len(self.memory) > MEMORY_MAX:
            del self.memory[next(iter(self.memory))]
            self.lost += 1

    def committed(self, numbers: Iterable[int], *, full: bool) -> None:
        """Forget what is on the platter, and with it everything before it; hold on to what is not."""
        self.unsynced = {} if full else self.unsynced | {n: self.memory[n] for n in numbers if n in self.memory}
        self.forget(numbers)

    def forget(self, numbers: Iterable[int]) -> None:
        """Drop steps from memory: they are on the disk, or must not get there."""
        for n in numbers:
            self.memory.pop(n, None)

    def all_again(self) -> list[int]:
        """Take what was committed without a sync back into memory; return all numbers there, in order."""
        self.memory, self.unsynced = dict(sorted((self.unsynced | self.memory).items())), {}
        return list(self.memory)

    def that_fit(self, numbers: Iterable[int]) -> list[dict[str, Any]]:
        """Return the first of these steps as they are sent, as many as one packet takes; at least one, unless none is left in memory."""
        rows: list[dict[str, Any]] = []
        room = CHUNK_BYTES
        for n in numbers:
            if n in self.memory:
                row = asdict(self.memory[n])
                room -= len(json.dumps(row))  # a configuration is JSON in JSON: nobody can tell its size by its length
                if rows and (room < 0 or len(rows) == CHUNK):
                    break
                rows.append(row)
        return rows
