"""MachineDef -> `transitions.Machine`, and the one funnel every step goes through. The only importer of `transitions`.

Theory of operation: *commit, then memory, then effect* (docs/ARCHITECTURE.md, rule 3).
 1. An event is looked up in the table. No row: nothing happens (ignored) or the asker is told (refused).
 2. A row becomes a numbered `Step`, handed to the journal port. Until it answers, this machine takes no other step; others go on.
 3. The answer DURABLE or VOLATILE moves memory; `before_state_change` refuses a step that is not the committed one.
 4. Entering a busy state arms its deadline and starts its effect (one that waits in a queue of ours first has it anew when its turn comes, see
    `waits`). The outcome comes back as an event carrying the step's number;
    an outcome with another number is late and dropped.
 5. Once the step is whole, who subscribed to it is told (bus.py), in the order of the steps.
A promised step whose commit timed out, or failed at its very end, is UNKNOWN: it is taken in memory, its effect is not run, CONVERGE follows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from attrs import define, field
from transitions import Machine

from bay0.base.errors import RefusedError, UncommittedError
from bay0.machines.bus import Bus
from bay0.machines.instance import Instance, Order, Reply, Step
from bay0.machines.table import CONVERGE, TIMED_OUT, MachineDef, Pass, Row

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from transitions import EventData

    from bay0.machines import Ripple

logging.getLogger("transitions").setLevel(logging.WARNING)  # it logs every callback at INFO

WHY_MAX = 500  # characters of a reason: what is kept, logged and listed of a step has a bound


class Acceptance(Enum):
    """What the journal port made of a step (docs/ARCHITECTURE.md, storage health)."""

    DURABLE = "durable"
    VOLATILE = "volatile"
    UNKNOWN = "unknown"  # a promised step whose commit gave no answer, or failed when it had been written
    REFUSED = "refused"  # a promised step that the disk definitely did not take


class JournalPort(Protocol):
    """Where steps are kept."""

    def admits(self, machine: MachineDef, row: Row) -> str | None:
        """Return why `row` cannot be accepted now, or None."""

    def commit(self, step: Step, row: Row, done: Callable[[Acceptance], None]) -> None:
        """Keep `step`, then call `done` once, at once or later."""


class EffectPort(Protocol):
    """Who does what a busy state owes."""

    def start(self, instance: Instance, effect: Enum, token: int) -> None:
        """Start `effect`; report with `Engine.outcome(name, token, ...)`. Must not wait."""


class TimerPort(Protocol):
    """Deadlines, monotonic, in seconds."""

    def call_later(self, seconds: float, call: Callable[[], None]) -> Any:
        """Call `call` once after `seconds`; what is returned has `cancel()`."""


def _trigger(event: Enum) -> str:
    return f"on_{event.value}"  # the prefix keeps trigger names apart from the model's attributes


def _check_committed(data: EventData) -> None:
    """`before_state_change`: no memory moves for a step no journal accepted."""
    model: Any = data.model
    step: Step | None = model.committed
    move: Any = data.transition
    # transitions knows enum states by member name; tables hold value == name.lower()
    if step is None or (step.source.upper(), step.dest.upper()) != (move.source, move.dest):
        raise UncommittedError(f"{model.name}: {move.source} -> {move.dest} was not committed")


def build(definition: MachineDef) -> Machine:
    """Make the `transitions` machine of a table. It moves any model that has a `state`: see `move`."""
    return Machine(
        model=None,
        states=definition.states,
        initial=definition.initial,
        transitions=[
            {"trigger": _trigger(row.event), "source": row.source, "dest": row.dest} for row in definition.rows
        ],
        auto_transitions=False,
        send_event=True,
        queued=False,
        before_state_change=_check_committed,
    )


def move(machine: Machine, instance: Instance, event: Enum) -> None:
    """Trigger `event` on `instance`.

    Through the machine's own event, not `Machine.add_model`: that hangs some sixty partial functions on each model, which takes a thousand
    personas a second to make and 20 MB to keep.
    """
    machine.events[_trigger(event)].trigger(instance)


@define(eq=False, repr=False)
class Engine:
    """All live machines of this boot."""

    boot_id: str
    timers: TimerPort
    clock_ms: Callable[[], int]
    log: Any
    patience: float = 1.0
    instances: dict[str, Instance] = field(factory=dict)
    _journal: JournalPort | None = field(init=False, default=None)
    _ports: dict[str, EffectPort] = field(init=False, factory=dict)
    _machines: dict[str, Machine] = field(init=False, factory=dict)
    _bus: Bus = field(init=False, factory=Bus)
    _n: int = field(init=False, default=0)

    # ---- wiring

    def keep_with(self, journal: JournalPort) -> None:
        """Keep every step with `journal`. `AssertionError`: there is one already."""
        if self._journal is not None:
            raise AssertionError("the engine has a journal already")
        self._journal = journal

    def serve(self, kind: str, port: EffectPort) -> None:
        """Let `port` do the effects of all machines of `kind`. `AssertionError`: another one does."""
        if kind in self._ports:
            raise AssertionError(f"{kind} has a port already")
        self._ports[kind] = port

    def on(self, kind: str, *states: Enum, call: Callable[[Instance, Step], None], of: Instance | None = None) -> None:
        """Call `call` after each step that leads a machine of `kind` (`ANY`: of every kind) into one of `states`; without states after each step.

        `of`: only that machine. Calls hear of steps in the order in which these were taken, each once the step is whole: committed, in
        memory, its effect begun, who asked for it answered. By then a machine may have moved on: `step.dest` says which step it is about,
        `instance.now` how things are.
        """
        self._bus.subscribe(kind, tuple(state.value for state in states), call, of)

    def ripple(self, ripples: Iterable[Ripple]) -> None:
        """Tell machines of the steps of others, by these rules."""
        for each in ripples:
            self.on(each.kind, each.state, call=partial(self._tell, each))

    def _tell(self, ripple: Ripple, _instance: Instance, step: Step) -> None:
        for other in self.of_kind(ripple.told):
            self.send(other.name, ripple.event, step.why)

    def complete(self, kinds: Iterable[str]) -> None:
        """Check that the wiring is whole. `AssertionError` names the kinds whose effects nothing would do."""
        missing = sorted(set(kinds) - self._ports.keys())
        if missing or self._journal is None:
            raise AssertionError(f"without a port: {', '.join(missing)}" if missing else "the engine has no journal")

    @property
    def journal(self) -> JournalPort:
        """Where steps are kept."""
        if self._journal is None:
            raise AssertionError("the engine has no journal")
        return self._journal

    # ---- machines

    def know(self, definition: MachineDef) -> None:
        """Make what moves the machines of a kind, unless it is there."""
        if definition.kind not in self._machines:
            self._machines[definition.kind] = build(definition)

    def add(self, name: str, definition: MachineDef, state: Enum | None = None, seq: int = 0) -> Instance:
        """Take a machine under care, in `state` (a stored one) or its initial state."""
        self.know(definition)
        instance = Instance(name, definition, definition.initial if state is None else state, seq=seq, entered_ms=self.clock_ms())
        self.instances[name] = instance
        return instance

    def adopt(self, definition: MachineDef, stored: Mapping[str, Any]) -> Instance:
        """Take over a stored machine. One in a state this program does not know goes where CONVERGE leads; the journal keeps its name."""
        name, state, seq = str(stored["name"]), str(stored["state"]), int(stored["seq"])
        known = {each.value: each for each in definition.states}
        instance = self.add(name, definition, known.get(state, definition.landing), seq)
        instance.attempts, instance.desired, instance.config = stored["attempts"], stored["desired"], stored["config"]
        if state not in known:
            self._land(instance, state)
        return instance

    def _land(self, instance: Instance, stored: str) -> None:
        row = Row(instance.now, instance.definition.event(CONVERGE), instance.now, f"no such state as {stored!r} in this program", desired="stopped")
        step = instance.pending = self._step(instance, row, row.why, source=stored)
        self.log.warning("unknown state converged", machine=instance.name, state=stored, dest=row.dest.value)

        def landed(_accepted: Acceptance) -> None:
            instance.pending = None
            with self._bus.step(instance, step):
                self._move(instance, step)
                self._enter(instance, step, row.dest)
            self._advance(instance)

        self.journal.commit(step, row, landed)

    def forget(self, name: str) -> None:
        """Drop a converged machine from memory; its rows stay in the journal."""
        del self.instances[name]

    def of_kind(self, kind: str) -> Iterable[Instance]:
        """Return the live machines of one kind."""
        return [i for i in self.instances.values() if i.definition.kind == kind]

    def send(
        self, name: str, event: Enum, why: str = "", reply: Reply | None = None, *, config: str | None = None, **context: Any
    ) -> None:
        """Queue `event`; `reply` gets the Step once committed, None if ignored, or the exception that refused it.

        `config` becomes what the machine is made of, in the same commit.
        """
        instance = self.instances[name]
        instance.queue.append(Order(event, why, reply, config=config, context=context))
        self._advance(instance)

    def outcome(self, name: str, token: int, event: Enum, why: str = "", config: str | None = None) -> None:
        """Report how the effect of step `token` went; dropped if the machine has moved on. `config`: see `send`."""
        instance = self.instances.get(name)
        if instance is None:
            return
        instance.queue.append(Order(event, why, token=token, config=config))
        self._advance(instance)

    def waits(self, name: str, token: int, seconds: float) -> None:
        """Say that the effect of step `token` stands in a queue of ours: it may for `seconds`, and has its own deadline when its turn comes."""
        self._rearm(name, token, seconds, "its turn did not come")

    def begins(self, name: str, token: int) -> None:
        """Say that the turn of step `token`'s effect has come: the deadline that its state owns counts from now."""
        instance = self.instances.get(name)
        if instance is not None:
            self._rearm(name, token, (instance.definition.spec(instance.now).deadline_s or 0.0) * self.patience, "no outcome")

    def _rearm(self, name: str, token: int, seconds: float, what: str) -> None:
        instance = self.instances.get(name)
        if instance is None or instance.deadline is None or instance.committed is None or instance.committed.n != token:
            return  # it has moved on
        instance.deadline.cancel()
        self._arm(instance, token, seconds, what)

    def _arm(self, instance: Instance, token: int, seconds: float, what: str) -> None:
        event = instance.definition.event(TIMED_OUT)
        instance.deadline = self.timers.call_later(seconds, lambda: self.outcome(instance.name, token, event, f"{what} in {seconds:g} s"))

    def _advance(self, instance: Instance) -> None:
        while instance.queue and instance.pending is None:
            self._take(instance, instance.queue.popleft())

    def _take(self, instance: Instance, order: Order) -> None:
        if order.token is not None and (instance.committed is None or order.token != instance.committed.n):
            self.log.debug("late outcome dropped", machine=instance.name, outcome=order.event.value, n=order.token)
            return
        verdict = instance.definition.lookup(instance.now, order.event)
        if isinstance(verdict, Pass):
            self._pass(instance, order, verdict)
            return
        refusal = self.journal.admits(instance.definition, verdict)
        if refusal is not None:
            _answer(order, RefusedError(f"{refusal}; nothing was changed"))
            return
        step = self._step(instance, verdict, _reason(verdict, order), config=order.config)
        instance.pending = step
        self.journal.commit(step, verdict, lambda accepted: self._committed(instance, order, verdict, step, accepted))

    def _step(self, instance: Instance, row: Row, why: str, source: str | None = None, config: str | None = None) -> Step:
        self._n += 1
        return Step(
            boot_id=self.boot_id,
            n=self._n,
            machine=instance.name,
            kind=instance.definition.kind,
            seq=instance.seq + 1,
            source=source or row.source.value,
            event=row.event.value,
            dest=row.dest.value,
            why=why[:WHY_MAX],
            at_ms=self.clock_ms(),
            attempts=row.tries.after(instance.attempts),
            desired=instance.desired if row.desired is None else row.desired,
            config=config,
        )

    def _pass(self, instance: Instance, order: Order, verdict: Pass) -> None:
        self.log.debug("event passed", machine=instance.name, state=instance.now.value, asked=order.event.value, why=verdict.why)
        _answer(order, RefusedError(f"{instance.name} is {instance.now.value}: {verdict.why}") if verdict.refused else None)

    def _committed(self, instance: Instance, order: Order, row: Row, step: Step, accepted: Acceptance) -> None:
        instance.pending = None
        if accepted is Acceptance.REFUSED:
            _answer(order, RefusedError("the disk did not take it; nothing was changed"))
            self._advance(instance)
            return
        with self._bus.step(instance, step):
            self._take_in(instance, order, row, step, accepted)
        self._advance(instance)

    def _take_in(self, instance: Instance, order: Order, row: Row, step: Step, accepted: Acceptance) -> None:
        """Move memory, then begin the effect, then answer."""
        instance.committed = step
        took = step.at_ms - instance.entered_ms
        move(self._machines[instance.definition.kind], instance, row.event)
        self._move(instance, step)
        instance.context.update(order.context)
        if instance.deadline is not None:
            instance.deadline.cancel()
            instance.deadline = None
        self.log.info(
            "step", machine=instance.name, source=step.source, by=step.event, dest=step.dest, why=step.why,
            n=step.n, after_ms=took, kept=accepted.value,
        )  # fmt: skip
        if accepted is Acceptance.UNKNOWN:
            instance.queue.appendleft(Order(instance.definition.event(CONVERGE), "nobody knows whether it was kept"))
            _answer(order, RefusedError("storage did not say whether it kept this; it is being converged to stopped"))
        else:
            self._enter(instance, step, row.dest)
            _answer(order, step)

    def _move(self, instance: Instance, step: Step) -> None:
        """Let memory say what was committed; the state itself is moved by `transitions`."""
        instance.committed = step
        instance.seq, instance.entered_ms = step.seq, step.at_ms
        instance.attempts, instance.desired = step.attempts, step.desired
        if step.config is not None:
            instance.config = step.config

    def _enter(self, instance: Instance, step: Step, state: Enum) -> None:
        spec = instance.definition.spec(state)
        if spec.busy is None or spec.deadline_s is None:
            return
        self._arm(instance, step.n, spec.deadline_s * self.patience, "no outcome")
        self._ports[instance.definition.kind].start(instance, spec.busy, step.n)


def _reason(row: Row, order: Order) -> str:
    return f"{row.why}: {order.why}" if order.why and order.why != row.why else row.why


def _answer(order: Order, result: Step | Exception | None) -> None:
    if order.reply is not None:
        order.reply(result)
