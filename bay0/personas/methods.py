"""What the control socket offers about personas: one function a method.

A verb is answered when its step is kept and, with `wait`, when the machine rests again, but never later than its bound: then the answer says
`settled: false` and the machine goes on by itself. A refusal has changed nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import asdict, define, field

from bay0.base import names
from bay0.base.errors import RefusedError
from bay0.base.uids import slot_of
from bay0.containers import lookup
from bay0.control.answers import Listing
from bay0.control.outcomes import rests
from bay0.machines import MACHINES, focus
from bay0.machines.instance import Instance, Step
from bay0.machines.persona import GOES_BACK, MADE, E, S
from bay0.personas import port as personas
from bay0.personas import waiting
from bay0.personas.again import Restarts

if TYPE_CHECKING:
    from bay0.base.bounds import Bounds
    from bay0.base.names import Name
    from bay0.control.outcomes import Outcomes
    from bay0.control.server import Method, Reply
    from bay0.machines.engine import Engine
    from bay0.personas.manifest import Manifest
    from bay0.personas.port import Personas
    from bay0.pid1.reactor import Reactor
    from bay0.reconcile.replay import Replay
    from bay0.state.link import Answer
    from bay0.state.port import StatePort

EVENTS = {"start": E.START, "stop": E.STOP, "pause": E.PAUSE, "resume": E.RESUME, "reset": E.RESET, "remove": E.REMOVE}
PERSONAS_MAX = 2000
Taken = Step | Exception | None


@define(eq=False, repr=False)
class PersonaVerbs:
    """The methods. `boot`: this boot's machine."""

    engine: Engine
    reactor: Reactor
    bounds: Bounds
    state: StatePort
    boot: Instance
    personas: Personas
    replay: Replay
    outcomes: Outcomes
    sweep: Callable[[], None]  # deletes what was taken away
    waiting: waiting.Waiting = field(init=False)
    restarts: Restarts = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.waiting = waiting.Waiting(self.engine, self.reactor)
        self.restarts = Restarts(self.engine, self.reactor, self.boot)

    def methods(self) -> dict[str, Method]:
        """Return method name -> function."""
        table: dict[str, Method] = {
            "persona.create": self.create,
            "persona.list": self.list_all,
            "persona.show": self.show,
            "persona.wait": self.wait,
            "persona.restart": self.restart,
        }
        for verb, event in EVENTS.items():
            table[f"persona.{verb}"] = partial(self.act, event)
        return table

    # ---- looking

    def list_all(self, _params: Mapping[str, Any], reply: Reply) -> None:
        """Answer with every persona; refused while that is not known, since an empty list would be a lie."""
        self.replay.need_known()
        found = sorted(self.engine.of_kind("persona"), key=lambda instance: instance.name)
        front = self._front()
        reply(Listing(self.facts(instance, front) for instance in found if instance.now is not S.ABSENT))

    def show(self, params: Mapping[str, Any], reply: Reply) -> None:
        """Answer with one persona, its manifest and its last steps of this boot; with `wait`, once it rests or its bound is over."""
        instance = self._instance(params)
        self.outcomes.when_rested(instance, wait=bool(params.get("wait")), then=lambda _settled: reply(self._shown(instance)))

    def wait(self, params: Mapping[str, Any], reply: Reply) -> None:
        """Answer once it is as asked `for`, or `seconds` (60) are over: `reached`; `ended`: it cannot come there by itself."""
        instance = self._instance(params)
        states, seconds = waiting.read(params.get("for", "running"), params.get("seconds", 60))

        def over(reached: bool, ended: bool) -> None:  # noqa: FBT001 - as it is told
            reply({**self.facts(instance), "reached": reached, "ended": ended})

        self.waiting.until(instance, states, seconds, over)

    def _shown(self, instance: Instance) -> dict[str, Any]:
        config = personas.read_config(instance.config)
        wire, digest = None, None
        if config is not None:
            from bay0.personas import manifest  # late, as below

            wire, digest = config.manifest.to_wire(), manifest.digest(config.manifest)
        steps = [asdict(step) for step in self.outcomes.recent(instance.name)]
        return {**self.facts(instance), "manifest": wire, "digest": digest, "steps": steps}

    def _front(self) -> str | None:
        return focus.active(self.engine.instances[focus.NAME])

    def facts(self, instance: Instance, front: str | None = None) -> dict[str, Any]:
        """Describe one, as `persona.list` does."""
        config = personas.read_config(instance.config)
        wanted = config.manifest if config is not None else None
        return {
            "name": instance.name,
            "state": instance.now.value,
            "desired": instance.desired,
            "attempts": instance.attempts,
            "seq": instance.seq,
            "active": (front or self._front()) == instance.name,
            "since_ms": instance.entered_ms,
            "image": wanted.image if wanted else None,
            "autostart": wanted.autostart if wanted else False,
            "restart": wanted.restart if wanted else "no",
            "behind": wanted.behind if wanted else "freeze",
            "description": wanted.description if wanted else "",
            "not_understood": personas.not_understood(instance.config),
            "why": instance.committed.why if instance.committed is not None else "as an earlier boot left it",
            "container": self.personas.container(instance.name),
        }

    def _instance(self, params: Mapping[str, Any]) -> Instance:
        return lookup.persona(self.engine, self.replay, params)

    # ---- acting

    def create(self, params: Mapping[str, Any], reply: Reply) -> None:
        """Make a persona known; nothing is started. Durable before the answer."""
        from bay0.personas import manifest  # late: a boot without personas does not pay for it

        name, wanted = lookup.name(params), manifest.from_wire(params["manifest"])
        self.make(
            name, wanted, E.CREATE,
            lambda result: reply(result if isinstance(result, Exception) else self.facts(self.engine.instances[name.semantic])),
        )  # fmt: skip

    def make(self, name: Name, wanted: Manifest, event: E, taken: Callable[[Taken], None], why: str = "", **context: Any) -> None:
        """Send the `event` that makes a persona, with a uid range of its own; `taken` hears what became of it. `RefusedError`."""
        self.replay.need_known()
        engine = self.engine
        there = [i for i in engine.of_kind("persona") if i.now is not S.ABSENT or i.pending is not None]
        config = personas.Config(wanted, self._free_slot(there)).text()
        instance = engine.instances.get(name.semantic)
        if instance is None:
            if len(there) >= PERSONAS_MAX:
                raise RefusedError(f"there are {PERSONAS_MAX} personas already")
            instance = engine.add(name.semantic, MACHINES["persona"])
        made = instance

        def answered(result: Taken) -> None:
            if isinstance(result, Exception):
                self.reactor.call_soon(partial(self.personas.forget, made))
            taken(result)

        engine.send(name.semantic, event, why, answered, config=config, **context)

    def _free_slot(self, there: list[Instance]) -> int:
        """Return the first uid range that nobody has, nor is about to get; `RefusedError` if that cannot be known.

        What this program does not understand keeps its range: a newer program that wrote it runs it again.
        """
        stored = [(i.name, i.config) for i in there if i.now is not S.ABSENT]
        coming = [(i.name, i.pending.config) for i in there if i.pending is not None]
        coming += [(i.name, order.config) for i in there for order in i.queue]
        taken = set(self.replay.slots_left_alone)
        for name, text in (*stored, *coming):
            slot = slot_of(text or "")
            if text and slot is None:
                why = "can be read, not even its uid range, which could be given twice; remove it first"
                raise RefusedError(f"nothing stored of {name} {why}")
            if slot is not None:
                taken.add(slot)
        return next(slot for slot in range(len(taken) + 1) if slot not in taken)

    def act(self, event: E, params: Mapping[str, Any], reply: Reply) -> None:
        """Send one event, and answer when its outcome is seen or the bound is over."""
        instance, wait, empty = self._instance(params), bool(params.get("wait", True)), bool(params.get("home"))

        def taken(result: Taken) -> None:
            if isinstance(result, Exception):
                reply(result)
            elif empty and event in (E.RESET, E.REMOVE):
                self.outcomes.when_rested(instance, wait=True, then=partial(self._empty, instance, reply))
            else:
                self.outcomes.when_rested(instance, wait=wait, then=partial(self._answer, instance, reply))

        if event is E.START:
            self._may_start(instance)
        if event is E.STOP:
            self.personas.not_wanted(instance.name)
            self.restarts.not_wanted(instance.name)
        self.engine.send(instance.name, event, "", taken)

    def restart(self, params: Mapping[str, Any], reply: Reply) -> None:
        """Stop it if it runs or is about to, then start it; answered like a start. A stop that comes meanwhile is the last word."""
        instance, wait = self._instance(params), bool(params.get("wait", True))
        if instance.now in (S.STOPPED, S.FAILED, S.WAITING):
            self.act(E.START, params, reply)
            return
        if instance.now in (*MADE, *GOES_BACK):  # a stop would give the copy up
            raise RefusedError(f"{instance.name} is {instance.now.value}: it is still being made")
        lookup.need_up(self.boot)
        obstacle = self.personas.obstacle(instance)
        if obstacle:
            raise RefusedError(f"{instance.name} is not restarted: {obstacle}")

        def taken(result: Taken) -> None:
            if isinstance(result, Exception):
                reply(result)
                return
            self.restarts.begin(instance, result)
            self._restarted(instance, wait=wait, reply=reply)

        self.engine.send(instance.name, E.STOP, "asked to restart it", taken)

    def _restarted(self, instance: Instance, *, wait: bool, reply: Reply) -> None:
        """Answer once it rests, and not because it is stopped on its way."""

        def then(settled: bool) -> None:  # noqa: FBT001 - what was waited for
            if settled and wait and (instance.name in self.restarts or not rests(instance)):
                self.reactor.call_soon(partial(self._restarted, instance, wait=wait, reply=reply))
            else:
                self._answer(instance, reply, settled and instance.name not in self.restarts)

        self.outcomes.when_rested(instance, wait=wait, then=then)

    def _may_start(self, instance: Instance) -> None:
        """Refuse a start that cannot go well, before anything changes."""
        lookup.need_up(self.boot)
        self._need_turn()
        obstacle = self.personas.obstacle(instance) if instance.now in (S.STOPPED, S.FAILED, S.WAITING) else ""
        if obstacle:
            raise RefusedError(f"{instance.name} is not started: {obstacle}")

    def _need_turn(self) -> None:
        """Refuse a start whose turn would not come in its bound, at the pace at which they begin."""
        line, bound = self.personas.line, self.bounds.turn
        if line.wait_s() > bound:
            raise RefusedError(
                f"{line.waiting} starts wait for their turn, each of which takes some {line.pace_s:.1f} s: this one's would come "
                f"in {line.wait_s() / 60:.0f} minutes, and a start may wait {bound / 60:.0f}. Nothing was changed; "
                "ask again when fewer wait (`bay0 status`)"
            )

    def _answer(self, instance: Instance, reply: Reply, settled: bool) -> None:  # noqa: FBT001 - the last argument is what was waited for
        reply({**self.facts(instance), "settled": settled})

    def _empty(self, instance: Instance, reply: Reply, settled: bool) -> None:  # noqa: FBT001 - as above
        now = self.engine.instances.get(instance.name, instance).now  # one that was removed may be there anew
        if not settled or now not in (S.STOPPED, S.FAILED, S.ABSENT):
            reply(RefusedError(f"{instance.name} is still {now.value}: its home was not emptied; ask again when it is stopped"))
            return

        def emptied(answer: Answer) -> None:
            if answer.ok:
                self._answer(instance, reply, settled=True)
                self.sweep()
            else:
                reply(RefusedError(f"its home was not emptied: {answer.why}"))

        self.state.ask("home_empty", self.bounds.open, emptied, name=names.parse(instance.name).podman)
