"""The keys of the switch.

What sway says was pressed becomes a FOCUS of the persona that is meant. No process is started.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import define

from bay0.machines import focus, persona
from bay0.screen import config

if TYPE_CHECKING:
    from bay0.machines.engine import Engine
    from bay0.machines.instance import Step

MARK = persona.mark("screen", True)
FOCUSABLE = (persona.S.STARTING, *persona.HAS_CONTAINER)


@define(eq=False, repr=False)
class Keys:
    """See above."""

    engine: Engine
    log: Any

    def personas(self) -> list[str]:
        """Return those that a key can bring to the front, in the order of the digits: that of their names."""
        found = self.engine.of_kind("persona")
        return sorted(each.name for each in found if each.now in FOCUSABLE and MARK in each.config)

    def pressed(self, command: str) -> None:
        """Switch, if it is a key of the switch and there is such a persona."""
        name = self._meant(command)
        live = self.engine.instances.get(focus.NAME)
        if name is None or live is None or (focus.active(live) == name and live.now is focus.S.SETTLED):
            return
        self.log.info("a key asks for a persona", persona=name)

        def taken(result: Step | Exception | None) -> None:
            if isinstance(result, Exception):  # a switch is a promise, which a disk that is gone cannot keep
                self.log.warning("a key's switch is refused", persona=name, why=str(result))

        why, config_ = f"{name}, by a key", focus.config(name)
        self.engine.send(focus.NAME, focus.E.FOCUS, why, taken, config=config_)

    def _meant(self, command: str) -> str | None:
        there = self.personas()
        if command == config.NEXT and there:
            front = focus.front(self.engine.instances)
            return there[(there.index(front) + 1) % len(there)] if front in there else there[0]
        said, _, digit = command.rpartition(" ")
        number = int(digit) - 1 if said == config.PERSONA and digit.isdecimal() else -1
        return there[number] if 0 <= number < len(there) else None
