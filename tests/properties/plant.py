"""A machine that is simulated: processors shared by weight and cap, memory that fills, heat that follows the load, PSI as the kernel averages it.

Crude, and honest about what matters: who is throttled is under more pressure itself, pressure averages lag by ten seconds, heat by a minute.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from attrs import define, field

from bay0.effects.readings import Group, Pressure, Reading, Sensor, Tenant
from bay0.thermal.ladder import Action, Governor, Rung

STEP_S = 2.0
PROCESSORS = 2.0
CAPS = {Rung.FREE: 1.0, Rung.HALF_WEIGHT: 1.0, Rung.HALF: 0.5, Rung.QUARTER: 0.25, Rung.TENTH: 0.1, Rung.FROZEN: 0.0, Rung.STOPPED: 0.0}
AMBIENT, DEGREES_A_LOAD, HEAT_S = 40.0, 62.0, 180.0  # C; what full load adds in the end; how slowly
MEMORY = 1 << 30


@define
class Load:
    """One who may be restrained: what he wants of processors, at a time, and what memory he takes a second until `most`."""

    name: str
    wants: Callable[[float], float]
    grows: float = 0.0
    most: float = 0.0
    ai: bool = False
    focused: bool = False
    state: str = "running"
    memory: float = 64 << 20
    rung: Rung = Rung.FREE
    cpu: float = 0.0
    full: float = 0.0  # its own pressure, which nobody may act on


@define(eq=False)
class Plant:
    """Runs a governor over the machine; `temperature` may replace the true one by what a broken sensor says."""

    loads: list[Load]
    governor: Governor = field(factory=Governor)
    temperature: Callable[[float, float], float | None] = lambda _at, true: true
    sensor: bool = True
    virtual: bool = False
    trip: float = 95.0
    at: float = 1000.0
    celsius: float = AMBIENT
    cpu_avg: float = 0.0
    memory_avg: float = 0.0
    actions: list[tuple[float, Action]] = field(factory=list)
    temperatures: list[float] = field(factory=list)

    def run(self, seconds: float) -> Plant:
        for _ in range(int(seconds / STEP_S)):
            self.step()
        return self

    def step(self) -> None:
        self.at += STEP_S
        cpu, stall = self._processors(), self._memory()
        decay = math.exp(-STEP_S / 10)
        self.cpu_avg = self.cpu_avg * decay + cpu * (1 - decay)
        self.memory_avg = self.memory_avg * decay + stall * (1 - decay)
        load = min(1.0, sum(each.cpu for each in self.loads) / PROCESSORS)
        self.celsius += (AMBIENT + DEGREES_A_LOAD * load - self.celsius) * STEP_S / HEAT_S
        self.temperatures.append(self.celsius)
        for action in self.governor.decide(self.reading(cpu, stall, load)):
            self.take(action)

    def reading(self, cpu: float, stall: float, load: float) -> Reading:
        front = Group("front", Pressure(self.cpu_avg, 0, cpu, 0), Pressure(self.memory_avg, self.memory_avg, stall, stall))
        tenants = tuple(
            Tenant(each.name, "life", each.state, each.focused, each.ai, each.cpu, int(each.memory)) for each in self.loads
        )
        says = self.temperature(self.at, self.celsius)
        sensors = (Sensor("zone0", says, self.trip),) if self.sensor and not (says is not None and says == math.inf) else ()
        return Reading(self.at, (front,), tenants, sensors, load, 1 - self.used / MEMORY, self.virtual)

    @property
    def used(self) -> float:
        return min(MEMORY, sum(each.memory for each in self.loads if each.state != "stopped"))

    def _processors(self) -> float:
        """Share the processors; return the percent of the time in which the one in front waited."""
        for each in self.loads:
            each.cpu = min(each.wants(self.at), PROCESSORS) * CAPS[each.rung] if each.state == "running" else 0.0
            each.full = 100.0 * (1 - CAPS[each.rung])  # it feels every cap
        wanted = sum(each.cpu for each in self.loads)
        if wanted <= PROCESSORS:
            return 0.0
        weight = {each.name: each.cpu * (0.5 if each.rung >= Rung.HALF_WEIGHT else 1.0) for each in self.loads}
        total, front = sum(weight.values()), [each for each in self.loads if each.focused]
        missing = [1 - min(1.0, PROCESSORS * weight[each.name] / total / each.cpu) for each in front if each.cpu]
        for each in self.loads:
            each.cpu = min(each.cpu, PROCESSORS * weight[each.name] / total)
        return 100.0 * max(missing, default=0.0)

    def _memory(self) -> float:
        """Fill memory; return the percent of the time in which everybody else stood still for want of it."""
        for each in self.loads:
            if each.state == "running" and each.grows:
                each.memory = min(each.most, each.memory + each.grows * STEP_S)
        left = 1 - self.used / MEMORY
        return 0.0 if left > 0.05 else 100.0 * (1 - left / 0.05)

    def take(self, action: Action) -> None:
        self.actions.append((self.at, action))
        load = next(each for each in self.loads if each.name == action.tenant)
        assert load.rung is action.before, "an action begins where its tenant is"
        load.rung = action.rung
        if action.rung is Rung.FROZEN:
            load.state = "paused"
        elif action.rung is Rung.STOPPED:
            load.state, load.memory = "stopped", 0.0
        elif action.before in (Rung.FROZEN, Rung.STOPPED) and action.thaw:
            load.state = "running"

    # ---- what is asked of it

    def steps(self) -> list[tuple[float, Action]]:
        """The actions that count against the cool-down: all but setting free who must not be held."""
        return [(at, action) for at, action in self.actions if action.cause != "lifted"]

    def rungs(self) -> dict[str, Rung]:
        return {each.name: each.rung for each in self.loads}


def calm_from(end: float, wants: Callable[[float], float]) -> Callable[[float], float]:
    """A load that ends at a time."""
    return lambda at: wants(at) if at < end else 0.0

