"""Who does what a busy state owes: the effect port of the engine, which hands each effect on by its kind of machine."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import define

from bay0.errors import RefusedError

if TYPE_CHECKING:
    from bay0.machines.engine import Instance
    from bay0.reactor import Reactor

AGAIN_S = 1.0  # until a part that could not be loaded is tried again


@define(eq=False, repr=False)
class Duties:
    """Sends each effect to whoever owns its kind of machine."""

    ports: dict[str, Any]

    def start(self, instance: Instance, effect: Enum, token: int) -> None:
        """Start `effect` of `instance`."""
        self.ports[instance.definition.kind].start(instance, effect, token)


@define(eq=False, repr=False)
class Lately:
    """Stands for an effect port that is made when the first effect is owed.

    One that cannot be made now is tried again as long as the effect is owed.
    """

    make: Callable[[], Any]
    reactor: Reactor
    log: Any

    def start(self, instance: Instance, effect: Enum, token: int) -> None:
        """Start `effect` of `instance`; its deadline runs."""
        if instance.committed is None or instance.committed.n != token:
            return
        try:
            port = self.make()
        except RefusedError as error:
            what = {"machine": instance.name, "effect": effect.value}
            self.log.warning("an effect waits for its part of the program", **what, why=str(error))
            self.reactor.call_later(AGAIN_S, partial(self.start, instance, effect, token))
        else:
            port.start(instance, effect, token)
