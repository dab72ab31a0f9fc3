"""What a persona that is made as a copy, or goes back to a snapshot, owes is done by a part of the program that a boot does not load (copies.py)."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any

from bay0.base.errors import RefusedError
from bay0.machines import snapshot
from bay0.machines.persona import Effect
from bay0.pid1 import flow

if TYPE_CHECKING:
    from bay0.containers.life import Duty, Outcome_
    from bay0.loading.late import Late
    from bay0.machines.engine import Engine
    from bay0.machines.instance import Instance
    from bay0.personas.copies import Copies
    from bay0.pid1.reactor import Reactor

AGAIN_S = 1.0  # until a part that could not be loaded is tried again
Act = Callable[["Copies", "Instance"], "flow.Flow[Outcome_]"]


def duties(copies: Late[Copies], reactor: Reactor, log: Any) -> dict[Enum, Duty]:
    """Return effect -> the flow that does it."""

    def duty(act: Act, instance: Instance) -> flow.Flow[Outcome_]:
        while True:
            yield partial(copies.load, reactor.call_soon)
            try:
                part = copies()
            except RefusedError as error:
                log.warning("a copy waits for its part of the program", machine=instance.name, why=str(error))
                yield lambda resume: reactor.call_later(AGAIN_S, partial(resume, None))
            else:
                return (yield from act(part, instance))

    return {
        Effect.COPY: partial(duty, lambda part, instance: part.copy(instance)),
        Effect.PLACE: partial(duty, lambda part, instance: part.place(instance)),
        Effect.RESTORE: partial(duty, lambda part, instance: part.copy(instance)),
        Effect.REPLACE: partial(duty, lambda part, instance: part.place(instance, "staging_replace")),
    }


def forget_snapshots(engine: Engine, reactor: Reactor) -> None:
    """Let go of each snapshot that is not there any more."""
    engine.on("snapshot", snapshot.S.ABSENT, call=lambda instance, _step: reactor.call_soon(partial(let_go, engine, instance.name)))


def let_go(engine: Engine, name: str) -> None:
    """Let go of a snapshot if it is not there; the journal has its history."""
    instance = engine.instances.get(name)
    if instance is not None and instance.now is snapshot.S.ABSENT and instance.pending is None and not instance.queue:
        engine.forget(name)
