"""The effect port of machines whose part of the program a boot does not load."""

from __future__ import annotations

from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import frozen

from bay0.base.errors import RefusedError

if TYPE_CHECKING:
    from bay0.loading.late import Late
    from bay0.machines.instance import Instance
    from bay0.pid1.reactor import Reactor

AGAIN_S = 1.0  # until a part that could not be loaded is tried again


@frozen(eq=False, repr=False)
class LatePort:
    """The effect port of a kind whose part is made with its first effect. One that cannot be made now is tried again while it is owed."""

    part: Late[Any]
    reactor: Reactor
    log: Any

    def start(self, instance: Instance, effect: Enum, token: int) -> None:
        """Start `effect` of `instance`; its deadline runs."""
        if instance.committed is None or instance.committed.n != token:
            return
        try:
            port = self.part()
        except RefusedError as error:
            self.log.warning("an effect waits for its part of the program", machine=instance.name, effect=effect.value, why=str(error))
            self.reactor.call_later(AGAIN_S, partial(self.start, instance, effect, token))
        else:
            port.start(instance, effect, token)
