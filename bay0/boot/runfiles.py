"""What PID 1 keeps on /run: the log of the run, the control socket, the doors to the AI. Root may remove them at any time.

Without its socket the spine would be deaf for good, the way to turn it off included. So PID 1 looks every few seconds
whether each path still leads to what it made there, and makes it anew if not. /run is memory: a look waits for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from attrs import define, field

from bay0.base.errors import RefusedError

if TYPE_CHECKING:
    from bay0.pid1.reactor import Reactor

LOOK_EVERY_S = 5.0


@define(eq=False, repr=False)
class RunFiles:
    """Looks at all of them."""

    reactor: Reactor
    log: Any
    _looks: dict[str, Callable[[], Iterable[str]]] = field(init=False, factory=dict)
    _failing: dict[str, str] = field(factory=dict)  # name -> why it cannot be made anew; said once

    def look_after(self, name: str, look: Callable[[], Iterable[str]]) -> None:
        """Have `look` called now and then: it looks at `name`, mends it and returns what had happened to it, in words."""
        self._looks[name] = look

    def begin(self) -> None:
        """Look now and then from now on."""
        self.reactor.call_later(LOOK_EVERY_S, self._again)

    def _again(self) -> None:
        self.reactor.call_later(LOOK_EVERY_S, self._again)
        self.look()

    def look(self) -> None:
        """Look once. What cannot be made anew is tried again with the next look."""
        for name, look in self._looks.items():
            try:
                for why in look():
                    self.log.warning("made anew on /run", what=name, why=why)
            except (OSError, RefusedError) as error:
                if self._failing.get(name) != str(error):
                    self._failing[name] = str(error)
                    self.log.error("not made anew on /run", what=name, why=str(error))
            else:
                self._failing.pop(name, None)
