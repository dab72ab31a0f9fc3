"""Whose a window is: what its program's cgroup said when it was first seen, as long as that process lives.

The pid is the kernel's word (SO_PEERCRED of the connection). A process that has ended need not close its
windows, and may have passed its connection on: it is cut off (lines.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen

from bay0.effects import whose

if TYPE_CHECKING:
    from bay0.screen.doors import Doors
    from bay0.screen.tree import Window

SAY_EVERY_S = 10.0


@frozen
class _Owner:
    persona: str | None
    started: str  # of the process: a pid is used again


NOBODY = _Owner(None, "")


@define(eq=False, repr=False)
class Owners:
    """Of all windows. `cut(pid)`: end the connections that this process has opened, which has ended."""

    doors: Doors
    log: Any
    clock: Callable[[], float]
    cut: Callable[[int], None]
    nobodys: int = field(init=False, default=0)  # windows that were nobody's when they were first seen
    _owners: dict[int, _Owner] = field(init=False, factory=dict)
    _said: float = field(init=False, default=float("-inf"))

    def of(self, window: Window) -> str | None:
        """Return whose a window is; None if that was never known, or its process has ended."""
        now = whose.process(window.pid)
        if window.con not in self._owners:
            name = self.doors.owner(now[0]) if now is not None else None
            self._owners[window.con] = _Owner(name, now[1] if now is not None else "")
            if name is None:
                self._say_nobodys(window.pid)
        known = self._owners[window.con]
        if now is None:
            self.cut(window.pid)
        return known.persona if now is not None and now[1] == known.started else None

    def stray(self, con: int, front: str | None) -> bool:
        """Tell whether a window was seen before, and is not of the one whose windows may be seen."""
        return con in self._owners and (front is None or self._owners[con].persona != front)

    def known(self, windows: Iterable[Window], persona: str) -> Iterator[Window]:
        """Yield those that were the persona's when they were first seen."""
        return (window for window in windows if self._owners.get(window.con, NOBODY).persona == persona)

    def keep(self, there: set[int]) -> None:
        """Forget all windows but these."""
        self._owners = {con: owner for con, owner in self._owners.items() if con in there}

    def _say_nobodys(self, pid: int) -> None:
        self.nobodys += 1
        now = self.clock()
        if now - self._said >= SAY_EVERY_S:
            self._said = now
            self.log.warning(
                "a window is closed: its program is no persona's, or has ended", pid=pid, so_far=self.nobodys
            )
