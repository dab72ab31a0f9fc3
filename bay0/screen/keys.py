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

MARK = '"screen":true'  # in a configuration as it is stored: reading them all takes long
FOCUSABLE = (persona.S.STARTING, *persona.HAS_CONTAINER)


@define(eq=False, repr=False)
class Keys:
    """See above."""

    engine: Engine
    log: Any

    def personas(self) -> list[str]:
        """Return those that a key can bring to the front, in the order of their names.

        Which is that of the digits.
        """
        found = self.engine.of_kind("persona")
        return sorted(each.name for each in found if each.now in FOCUSABLE and MARK in each.config)

    def pressed(self, command: str) -> None:
        """Switch, if it is a key of the switch and there is such a persona."""
        name = self._meant(command)
        live = self.engine.instances.get(focus.NAME)
        if name is None or live is None or (focus.active(live) == name and live.now is focus.S.SETTLED):
            return
        self.log.info("a key asks for a persona", persona=name)
        self.engine.send(focus.NAME, focus.E.FOCUS, f"{name}, by a key", config=focus.config(name))

    def _meant(self, command: str) -> str | None:
        there = self.personas()
        if command == config.NEXT and there:
            live = self.engine.instances.get(focus.NAME)
            front = focus.active(live) if live is not None else None
            return there[(there.index(front) + 1) % len(there)] if front in there else there[0]
        said, _, digit = command.rpartition(" ")
        number = int(digit) - 1 if said == config.PERSONA and digit.isdecimal() else -1
        return there[number] if 0 <= number < len(there) else None
