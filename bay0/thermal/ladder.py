"""The governor's decisions: pressure and temperatures in, actions out. Pure: time comes with each reading, nothing is done here.

Theory of operation. Who may be restrained stands on a ladder: free, half its weight, 50, 25, 10 % of its own limit, frozen, stopped. What moves
somebody is the pressure of the *protected set* (the spine's own groups and the persona in front), never that of who is restrained: throttling
raises one's own pressure and would throttle ever more. At most one step each cool-down; the floor is 10 % of a processor; below it one is frozen,
not starved. While it is hot, heat alone decides over processors, because a slowed machine is under pressure by itself; and both share one ladder
and one cool-down, so throttling cannot feed itself. Memory is not helped by throttling: freeze, then stop; the
AI, which is there for what is left over, goes when memory is scarce, before anybody is pressed. When all has been calm the last one
restrained goes up one rung, and waits longer each time it falls back. The persona in front is never touched, and set free at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import IntEnum

from attrs import define, evolve, field, frozen

from bay0.effects.readings import Group, Pressure, Reading, Tenant
from bay0.thermal.heat import START_BELOW_TRIP, Heat

COOL_DOWN_S = 15.0
MEMORY_WARN, MEMORY_ACT, MEMORY_S = 10.0, 5.0, 6.0  # some avg10; full avg10, for three windows of 2 s
SHORT = 0.25  # share of memory available below which its pressure is a shortage, and not somebody's own limit
SCARCE, SCARCE_S, ROOM = 0.1, 2.0, 0.2  # share of memory available below which the AI goes before anybody is pressed; above which it may return
CPU_ACT, CPU_S = 25.0, 5.0  # some avg10
CALM, CALM_S = 2.5, 60.0
DWELL_S = 30.0  # between two steps for heat, which answers slowly
USES = 0.05  # processors: who takes less is not worth a step
MATTERS, FREEZE_MATTERS = 0.1, 0.25  # processors, of all who may be restrained together
MEMORY_MATTERS = 16 << 20  # bytes
RELAPSE_S, FORGIVEN_S, RELAPSES_MAX = 300.0, 1800.0, 4  # falls back within; forgotten after; the wait is doubled so often
GAP_S = 20.0  # without a reading: what happened meanwhile is not known
NOTES_MAX = 50

Pick = Callable[[Reading], tuple[Tenant, "Rung"] | None]


class Rung(IntEnum):
    """The ladder. Each rung keeps what the ones above it took."""

    FREE = 0
    HALF_WEIGHT = 1
    HALF = 2
    QUARTER = 3
    TENTH = 4
    FROZEN = 5
    STOPPED = 6


@frozen(eq=False, repr=False)
class Action:
    """Take `tenant` from one rung to another. `thaw`: leaving FROZEN means that it shall run again (not if somebody else has decided since)."""

    tenant: str
    life: str
    before: Rung
    rung: Rung
    cause: str
    why: str
    thaw: bool = True


@frozen(eq=False, repr=False)
class Note:
    """Something worth a log line that is no action."""

    event: str
    why: str
    bad: bool = True


@define(eq=False, repr=False)
class _Held:
    """One who is restrained."""

    life: str
    rung: Rung
    at: float
    cause: str


@define(eq=False, repr=False)
class _Since:
    """For how long something has been so without a break."""

    at: float | None = None

    def see(self, now: float, so: bool) -> None:  # noqa: FBT001 - what is seen is the argument
        self.at = (now if self.at is None else self.at) if so else None

    def lasted(self, now: float, seconds: float) -> bool:
        return self.at is not None and now - self.at >= seconds


@define(eq=False, repr=False)
class Governor:
    """Decides. `cpu` and `memory` are the protected set's pressure as last seen, with the group that felt it most."""

    heat: Heat = field(factory=Heat)
    held: dict[str, _Held] = field(factory=dict)
    cpu: tuple[str, Pressure] | None = None
    memory: tuple[str, Pressure] | None = None
    notes: list[Note] = field(factory=list)
    _at: float = float("-inf")
    _acted: float = float("-inf")
    _heated: float = float("-inf")
    _front: str | None = None
    _warned: bool = False
    _exhausted: set[str] = field(factory=set)
    _told: dict[str, str] = field(factory=dict)
    _short: _Since = field(factory=_Since)
    _scarce: _Since = field(factory=_Since)
    _busy: _Since = field(factory=_Since)
    _calm: _Since = field(factory=_Since)
    _released: dict[str, float] = field(factory=dict)
    _relapses: dict[str, int] = field(factory=dict)

    @property
    def quiet(self) -> bool:
        """Nobody is restrained, and nothing gives a reason to look often."""
        return not self.held and not self.heat.hot and self._calm.at is not None and self._scarce.at is None

    def decide(self, seen: Reading) -> list[Action]:
        """Take in one reading and return what is to be done: at most one step, and setting free who must not be held."""
        self._see(seen)
        actions = self._lift(seen)
        if seen.at - self._acted >= COOL_DOWN_S:
            action = self._restrain(seen) or self._release(seen)
            if action is not None:
                self._acted = seen.at
                self._take(seen, action)
                actions.append(action)
        return actions

    # ---- what is seen

    def _see(self, seen: Reading) -> None:
        now = seen.at
        if not 0 <= now - self._at <= GAP_S:
            self._short, self._scarce, self._busy, self._calm = _Since(), _Since(), _Since(), _Since()
        self._at = now
        was_hot = self.heat.hot
        self.heat.look(seen)
        self.cpu = _worst(seen.groups, lambda g: evolve(g.cpu, some=max(0.0, g.cpu.some - g.throttled)) if g.cpu else None, lambda p: p.some)
        self.memory = _worst(seen.groups, lambda g: None if g.at_limit else g.memory, lambda p: p.full)
        cpu, memory = (self.cpu or ("", Pressure()))[1], (self.memory or ("", Pressure()))[1]
        short = seen.available is None or seen.available < SHORT
        self._short.see(now, short and min(memory.full, memory.full_now) > MEMORY_ACT)
        self._scarce.see(now, seen.available is not None and seen.available < SCARCE)
        self._busy.see(now, not self.heat.hot and min(cpu.some, cpu.some_now) > CPU_ACT)
        self._calm.see(now, max(cpu.some, memory.some, memory.full) < CALM and not self.heat.hot)
        if self._calm.at is not None:
            self._exhausted.clear()
        self._tell(seen, was_hot, memory)

    def _tell(self, seen: Reading, was_hot: bool, memory: Pressure) -> None:  # noqa: FBT001 - a state before and after
        if not self._warned and memory.some > MEMORY_WARN:
            self._warned = True
            who = self.memory[0] if self.memory else ""
            self._note("memory pressure", f"{who} waited for memory {memory.some:g} % of the last 10 s, {_share(seen.available)} is available")
        elif self._warned and memory.some < CALM:
            self._warned = False
            self._note("memory pressure is over", f"{memory.some:g} %", bad=False)
        if self.heat.hot is not was_hot:
            self._note("hot" if self.heat.hot else "cool again", self._warmth(), bad=self.heat.hot)
        for name, why in self.heat.distrusted.items():
            if self._told.get(name) is None:
                self._note("sensor not believed", f"{name}: {why}")
        for name in self._told.keys() - self.heat.distrusted.keys():
            self._note("sensor believed again", name, bad=False)
        self._told = dict(self.heat.distrusted)

    def _note(self, event: str, why: str, *, bad: bool = True) -> None:
        self.notes.append(Note(event, why, bad))
        del self.notes[:-NOTES_MAX]

    def _warmth(self) -> str:
        sensor = self.heat.hottest
        return f"{sensor.name} {sensor.celsius:g} C, its trip is {sensor.trip:g} C" if sensor is not None else "no sensor is believed"

    # ---- who must not be held

    def _lift(self, seen: Reading) -> list[Action]:
        """Set free the one in front, forget who is another one by now, and let go of whom somebody else has decided about."""
        tenants, actions = {tenant.name: tenant for tenant in seen.tenants}, []
        front = next((tenant.name for tenant in seen.tenants if tenant.focused), None)
        switched, self._front = front not in (None, self._front), front
        for name, held in list(self.held.items()):
            tenant = tenants.get(name)
            if tenant is None or tenant.life != held.life:
                del self.held[name]
                continue
            why = ""
            if tenant.focused:
                why = "it is in front"
            elif held.rung is Rung.FROZEN and tenant.state == "running":
                why = "somebody resumed it"
            elif held.rung is Rung.FROZEN and switched:
                why = f"{front} came to the front: it stays paused"
            elif held.rung is Rung.STOPPED and tenant.state == "running":
                why = "somebody started it"
            if why:
                thaw = tenant.focused and tenant.state == "paused"
                actions.append(Action(name, held.life, held.rung, Rung.FREE, "lifted", why, thaw))
                del self.held[name]
        for name in [name for name, at in self._released.items() if seen.at - at > FORGIVEN_S]:
            self._released.pop(name)
            self._relapses.pop(name, None)
        return actions

    # ---- down

    def _restrain(self, seen: Reading) -> Action | None:
        """Return the step that the worst cause asks for, if its time has come and there is anybody to take it."""
        ready = self._causes(seen)
        for cause, why, pick in ready:
            found = pick(seen)
            if found is not None:
                self._exhausted.clear()
                tenant, rung = found
                return Action(tenant.name, tenant.life, self._rung(tenant), rung, cause, why)
            if cause not in ("sensor", "scarcity") and cause not in self._exhausted:
                self._exhausted.add(cause)
                self._note("nothing left to restrain", f"{cause}: {why}", bad=cause != "cpu")
        return None

    def _causes(self, seen: Reading) -> list[tuple[str, str, Pick]]:
        now = seen.at
        ready: list[tuple[str, str, Pick]] = []
        if self._scarce.lasted(now, SCARCE_S):
            ready.append(("scarcity", f"{_share(seen.available)} of memory is available (less than {SCARCE:.0%})", self._for_scarcity))
        if self._short.lasted(now, MEMORY_S) and self.memory is not None:
            who, pressure = self.memory
            why = f"{who} stood still for want of memory {pressure.full:g} % of the last 10 s (more than {MEMORY_ACT:g} for {MEMORY_S:g} s), "
            ready.append(("memory", why + f"{_share(seen.available)} is available", self._for_memory))
        if self.heat.hot:  # decides alone over processors
            if now - self._heated >= DWELL_S and self.heat.hottest is not None and self._too_warm():
                ready.append(("heat", self._warmth(), self._for_heat))
        elif self._busy.lasted(now, CPU_S) and self.cpu is not None and not self._warned:  # reclaim takes processors by itself
            who, pressure = self.cpu
            why = f"{who} waited for a processor {pressure.some:g} % of the last 10 s (more than {CPU_ACT:g} for {CPU_S:g} s)"
            ready.append(("cpu", why, self._for_cpu))
        if self.heat.blind:
            whose = "; ".join(f"{name}: {why}" for name, why in self.heat.distrusted.items()) or "there is none"
            ready.append(("sensor", f"no temperature can be believed: {whose}", self._for_caution))
        return ready

    def _too_warm(self) -> bool:
        sensor = self.heat.hottest
        return sensor is not None and sensor.celsius is not None and sensor.celsius >= sensor.trip - START_BELOW_TRIP

    def _for_memory(self, seen: Reading) -> tuple[Tenant, Rung] | None:
        """Stop the AI; freeze who runs behind, the largest first; then stop who is frozen, since frozen memory is still taken."""
        large = [t for t in _behind(seen, "running", "paused") if t.memory >= MEMORY_MATTERS]
        large.sort(key=lambda t: (not t.ai, t.state != "running", -t.memory))
        for tenant in large:
            return tenant, Rung.STOPPED if tenant.ai or tenant.state == "paused" else Rung.FROZEN
        return None

    def _for_scarcity(self, seen: Reading) -> tuple[Tenant, Rung] | None:
        """Stop the AI and nobody else: it is there for what is left over."""
        large = (t for t in _behind(seen, "running", "paused") if t.ai and t.memory >= MEMORY_MATTERS)
        return next(((tenant, Rung.STOPPED) for tenant in large), None)

    def _for_cpu(self, seen: Reading) -> tuple[Tenant, Rung] | None:
        users = self._users(seen)
        return self._down(users, freeze=sum(t.cpu for t in users) > FREEZE_MATTERS) if sum(t.cpu for t in users) > MATTERS else None

    def _for_heat(self, seen: Reading) -> tuple[Tenant, Rung] | None:
        found = self._down(self._users(seen), freeze=True)
        return (found[0], max(found[1], Rung.HALF)) if found is not None else None  # a smaller weight cools nothing

    def _for_caution(self, seen: Reading) -> tuple[Tenant, Rung] | None:
        """Give the fixed cap, half, to everybody but the one in front."""
        free = [t for t in _behind(seen, "running") if self._rung(t) < Rung.HALF]
        return (min(free, key=lambda t: (not t.ai, -t.cpu)), Rung.HALF) if free else None

    def _users(self, seen: Reading) -> list[Tenant]:
        return sorted((t for t in _behind(seen, "running") if t.cpu > USES), key=lambda t: (not t.ai, -t.cpu))

    def _down(self, users: list[Tenant], *, freeze: bool) -> tuple[Tenant, Rung] | None:
        """Take the first one down a rung; at the floor all of them come before the first is frozen."""
        for tenant in users:
            if self._rung(tenant) < Rung.TENTH:
                return tenant, Rung(self._rung(tenant) + 1)
        if freeze and users:
            return users[0], Rung.FROZEN
        return None

    # ---- up

    def _release(self, seen: Reading) -> Action | None:
        """Let the last one restrained up a rung, if all has been calm for its time and the rung is not the cautious one."""
        floor = Rung.HALF if self.heat.blind else Rung.FREE
        tenants = {tenant.name: tenant for tenant in seen.tenants}
        for name, held in sorted(self.held.items(), key=lambda item: -item[1].at):
            if held.rung <= floor or tenants[name].state == "busy":
                continue
            wait = CALM_S * 2 ** self._relapses.get(name, 0)
            if not self._calm.lasted(seen.at, wait) or seen.at - self._acted < wait:
                return None
            if held.cause == "scarcity" and seen.available is not None and seen.available < ROOM:
                return None  # it would only go again
            up = Rung.FREE if held.rung is Rung.STOPPED else Rung(held.rung - 1)
            return Action(name, held.life, held.rung, up, "calm", f"under {CALM:g} % and cool for {wait:g} s")
        return None

    # ---- keeping account

    def _rung(self, tenant: Tenant) -> Rung:
        held = self.held.get(tenant.name)
        return held.rung if held is not None and held.life == tenant.life else Rung.FREE

    def _take(self, seen: Reading, action: Action) -> None:
        name, held = action.tenant, self.held.get(action.tenant)
        if action.rung > action.before:
            if action.before is Rung.FREE or held is None or held.cause == "calm":
                again = seen.at - self._released.pop(name, float("-inf")) <= RELAPSE_S * 2 ** self._relapses.get(name, 0)
                self._relapses[name] = min(RELAPSES_MAX, self._relapses.get(name, 0) + 1) if again else self._relapses.get(name, 0)
            if action.cause == "heat":
                self._heated = seen.at
            elif action.cause in ("memory", "scarcity"):
                self._short, self._scarce = _Since(), _Since()
            else:
                self._busy = _Since()
        else:
            self._released[name] = seen.at
        ends = action.rung is Rung.STOPPED and not _is_ai(seen, name)  # a stopped persona is started by whoever wants it
        if action.rung is Rung.FREE or ends:
            self.held.pop(name, None)
        else:
            self.held[name] = _Held(action.life, action.rung, seen.at, action.cause)


def _behind(seen: Reading, *states: str) -> Iterable[Tenant]:
    return (tenant for tenant in seen.tenants if not tenant.focused and tenant.state in states)


def _is_ai(seen: Reading, name: str) -> bool:
    return any(tenant.ai for tenant in seen.tenants if tenant.name == name)


def _share(available: float | None) -> str:
    return "an unknown part" if available is None else f"{available:.0%}"


def _worst(
    groups: Iterable[Group], of: Callable[[Group], Pressure | None], key: Callable[[Pressure], float]
) -> tuple[str, Pressure] | None:
    felt = [(group.name, pressure) for group in groups if (pressure := of(group)) is not None]
    return max(felt, key=lambda one: key(one[1]), default=None)
