"""Who does what a busy state owes: the effect port of the engine, which hands each effect on by its kind of machine."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any

from attrs import define

if TYPE_CHECKING:
    from bay0.machines.engine import Instance


@define(eq=False, repr=False)
class Duties:
    """Sends each effect to whoever owns its kind of machine."""

    ports: dict[str, Any]

    def start(self, instance: Instance, effect: Enum, token: int) -> None:
        """Start `effect` of `instance`."""
        self.ports[instance.definition.kind].start(instance, effect, token)


@define(eq=False, repr=False)
class Lately:
    """Stands for an effect port that is made when the first effect is owed."""

    make: Callable[[], Any]

    def start(self, instance: Instance, effect: Enum, token: int) -> None:
        """Start `effect` of `instance`."""
        self.make().start(instance, effect, token)
