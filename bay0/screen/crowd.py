"""Windows without end: a program that opens more of them than its persona may have is killed.

It need not close them when it is asked to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import define, field

from bay0.effects import whose
from bay0.screen import tree

if TYPE_CHECKING:
    from bay0.screen.doors import Doors


@define(eq=False, repr=False)
class Crowd:
    """Counts windows as sway tells of them: the tree may come too late."""

    doors: Doors
    log: Any
    _open: dict[int, str] = field(init=False, factory=dict)  # opened and not closed -> persona
    _ended: tuple[int, str] = field(init=False, default=(0, ""))  # who was last killed

    def opened(self, con: int, pid: int) -> None:
        """Count one, and kill its program if it is one too many."""
        process = whose.process(pid)
        name = self.doors.owner(process[0]) if process is not None else None
        if process is None or name is None:
            return
        self._open[con] = name
        if list(self._open.values()).count(name) <= tree.WINDOWS_MAX:
            return
        ended = whose.end(pid, process[1])
        if self._ended != (pid, process[1]):
            self._ended = pid, process[1]
            most = tree.WINDOWS_MAX
            self.log.warning(
                "a program is ended: too many windows", persona=name, pid=pid, ended=ended, most=most
            )

    def closed(self, con: int) -> None:
        """Count one less; harmless if it was not counted."""
        self._open.pop(con, None)

    def forget(self) -> None:
        """Begin anew, with another compositor."""
        self._open.clear()
