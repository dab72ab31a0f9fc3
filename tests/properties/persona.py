"""A machine for tests only: like a persona, its start is a promise, and what it starts outlives a crash of the spine.

bay0 has no machine with promised rows yet; without one, "nothing acknowledged is ever lost" would be tested on nothing.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from bay0.machines.table import MachineDef, Row, StateSpec, cells

if TYPE_CHECKING:
    from world import World

    from bay0.machines.engine import Instance


class S(Enum):
    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    CONVERGING = "converging"
    FAILED = "failed"


class E(Enum):
    START = "start"
    STARTED = "started"
    STOP = "stop"
    STOPPED = "stopped"
    VANISHED = "vanished"
    GAVE_UP = "gave_up"
    FAULT = "fault"
    TIMED_OUT = "timed_out"
    CONVERGE = "converge"


class Effect(Enum):
    RUN = "run"
    STOP = "stop"
    CLEAR = "clear"


SPECS = (
    StateSpec(S.STOPPED, "no container", converged=True),
    StateSpec(S.STARTING, "a container is owed", busy=Effect.RUN, deadline_s=30),
    StateSpec(S.RUNNING, "the container runs"),
    StateSpec(S.STOPPING, "its end is owed", busy=Effect.STOP, deadline_s=8),
    StateSpec(S.CONVERGING, "whatever is left is removed", busy=Effect.CLEAR, deadline_s=8),
    StateSpec(S.FAILED, "no container is left and we gave up", converged=True),
)
ROWS = (
    Row(S.STOPPED, E.START, S.STARTING, "asked to start", promised=True),
    Row(S.FAILED, E.START, S.STARTING, "asked to start again", promised=True),
    Row(S.STARTING, E.STARTED, S.RUNNING, "it runs"),
    Row(S.STARTING, E.FAULT, S.CONVERGING, "it could not be started"),
    Row(S.STARTING, E.TIMED_OUT, S.CONVERGING, "we do not know: make it stopped"),
    Row(S.STARTING, E.STOP, S.STOPPING, "asked to stop"),
    Row(S.RUNNING, E.STOP, S.STOPPING, "asked to stop"),
    Row(S.RUNNING, E.VANISHED, S.CONVERGING, "it is not there any more"),
    Row(S.STOPPING, E.STOPPED, S.STOPPED, "it has ended"),
    Row(S.STOPPING, E.FAULT, S.CONVERGING, "it could not be stopped"),
    Row(S.STOPPING, E.TIMED_OUT, S.CONVERGING, "it did not stop in time"),
    Row(S.CONVERGING, E.STOPPED, S.STOPPED, "nothing of it is left"),
    Row(S.CONVERGING, E.FAULT, S.CONVERGING, "something is left: again"),
    Row(S.CONVERGING, E.TIMED_OUT, S.CONVERGING, "something is left: again"),
    Row(S.CONVERGING, E.GAVE_UP, S.FAILED, "it cannot be cleared"),
    *(Row(s, E.CONVERGE, S.CONVERGING, f"a boot found it {s.value}") for s in (S.STARTING, S.RUNNING, S.STOPPING, S.CONVERGING)),
)
_REST = (S.STOPPED, S.RUNNING, S.FAILED)
IGNORED = {
    **cells(_REST, (E.FAULT, E.TIMED_OUT), "no effect is under way"),
    **cells([s for s in S if s is not S.STARTING], (E.STARTED,), "a late answer"),
    **cells([s for s in S if s not in (S.STOPPING, S.CONVERGING)], (E.STOPPED,), "a late answer"),
    **cells([s for s in S if s is not S.RUNNING], (E.VANISHED,), "it does not run"),
    **cells([s for s in S if s is not S.CONVERGING], (E.GAVE_UP,), "it is not being cleared"),
    **cells((S.STOPPED, S.STOPPING, S.CONVERGING, S.FAILED), (E.STOP,), "it is stopped or stopping"),
    **cells((S.STARTING, S.RUNNING), (E.START,), "it is started already"),
    **cells((S.STOPPED, S.FAILED), (E.CONVERGE,), "nothing of it is left"),
}
REFUSED = cells((S.STOPPING, S.CONVERGING), (E.START,), "it is being stopped")

PERSONA = MachineDef("persona", S, E, S.STOPPED, SPECS, ROWS, IGNORED, REFUSED)
TOOK_S = 0.05


class Podman:
    """The modelled effects of a persona. `world.containers` outlives every boot; `fails` and `hangs` are its vices."""

    def __init__(self, world: World) -> None:
        self.world = world

    def start(self, instance: Instance, effect: Enum, token: int) -> None:
        world = self.world
        world.seam(f"before {effect.value}")
        if world.podman == "hangs":
            return
        if world.podman == "fails":
            self._report(instance, token, E.FAULT)
            return
        if effect is Effect.RUN:
            world.containers.add(instance.name)
        else:
            world.containers.discard(instance.name)
        world.seam(f"after {effect.value}")
        self._report(instance, token, E.STARTED if effect is Effect.RUN else E.STOPPED)

    def _report(self, instance: Instance, token: int, event: E) -> None:
        engine = self.world.spine.engine
        self.world.spine.reactor.call_later(TOOK_S, lambda: engine.outcome(instance.name, token, event))
