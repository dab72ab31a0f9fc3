"""How much room is on the disk, and whether a full one has clearly more than when it was found full."""

from __future__ import annotations

from attrs import define, field

FREED = {"bytes_free": 1 << 20, "files_free": 10}  # either makes it worth while to try a full disk again at once


@define
class Room:
    """`last`: what the worker said at its last look (`room` in state/worker.py); None: it has not looked."""

    last: dict[str, int] | None = None
    _when_full: dict[str, int] | None = field(init=False, default=None)

    def found_full(self, room: dict[str, int] | None) -> None:
        """Note what there was when it was found full; None: not known, so the next look counts as that."""
        self._when_full = room

    def freed(self, room: dict[str, int]) -> bool:
        """Take a look at a full disk; tell whether there is clearly more than then."""
        self.last, self._when_full = room, self._when_full or room
        then = self._when_full
        return any(room[key] >= then[key] + enough for key, enough in FREED.items())
