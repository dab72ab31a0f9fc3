"""Reconcile on boot: what was stored is compared with what podman has, and each machine goes through CONVERGE.

Once a boot, as soon as the database could be read: in its stage, or later if the disk comes late.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import define, field

from bay0.base.errors import RefusedError
from bay0.base.uids import slot_of
from bay0.loading import garbage
from bay0.machines import MACHINES, boot, storage
from bay0.machines.boot import E
from bay0.machines.bus import ANY
from bay0.machines.table import CONVERGE
from bay0.pid1 import flow
from bay0.reconcile import plan as reconcile

if TYPE_CHECKING:
    from bay0.base.bounds import Bounds
    from bay0.loading.late import Late
    from bay0.machines.engine import Engine
    from bay0.machines.instance import Instance, Step
    from bay0.pid1.reactor import Reactor
    from bay0.podman.calls import Container, Verdict
    from bay0.reconcile.audit import Audit
    from bay0.reconcile.clearing import Clearing
    from bay0.reconcile.mending import Mending
    from bay0.state.link import Answer
    from bay0.state.port import StatePort

REPLAYS_A_TURN = 25


@define(eq=False, repr=False)
class Replay:
    """One a boot. `boot`: this boot's machine. `configure` tells podman where things are."""

    engine: Engine
    reactor: Reactor
    bounds: Bounds
    log: Any
    state: StatePort
    boot: Instance
    clearing: Clearing
    audit: Audit
    mending: Mending
    configure: Callable[[], None]
    manifests: Late[Any]  # what a stored persona is read with
    slots_left_alone: frozenset[int] = field(init=False, default=frozenset())  # uid ranges of stored machines that are not known here
    _begun: bool = field(init=False, default=False)
    _known: bool = field(init=False, default=False)
    _stage: tuple[Instance, int] | None = field(init=False, default=None)  # the stage that waits for the end of it
    _converged: int = field(init=False, default=0)  # machines that this boot made converge
    _owing: list[str] = field(init=False, factory=list)  # those of them that the stage waits for
    _seqs: dict[str, int] = field(init=False, factory=dict)
    _then: list[Callable[[], None]] = field(init=False, factory=list)

    def __attrs_post_init__(self) -> None:
        self.engine.on("storage", storage.S.DURABLE, call=self._durable, of=self.state.storage)
        self.engine.on(ANY, call=self._stepped)
        self.engine.on("boot", call=self._earlier_boots)
        self.engine.on("storage", call=self._earlier_boots)

    def when_known(self, call: Callable[[], None]) -> None:
        """Call `call` once what was stored is taken over."""
        self._then.append(call)

    @property
    def known(self) -> bool:
        """What was stored is taken over; before that nobody can say which names are free."""
        return self._known

    def need_known(self) -> None:
        """Refuse until the stored machines are known, or a name could be given twice. `RefusedError`."""
        if not self._known:
            raise RefusedError("what is stored on /persist is not known in this boot (yet); `bay0 storage` tells why. Nothing was changed")

    def stored_seq(self, name: str) -> int:
        """Return the number of the last step that the database had of a machine; 0 if it had none."""
        return self._seqs.get(name, 0)

    # ---- when

    def stage(self, instance: Instance, token: int) -> None:
        """Be the stage of the boot that reconciles."""
        if self.state.stored is None:
            why = "the database could not be read this boot; nothing is swept"
            self.reactor.call_soon(lambda: self.engine.outcome(instance.name, token, E.FAULT, why))
            return
        self._stage = (instance, token)
        self.begin()
        self._look_converged()

    def _durable(self, _storage: Instance, _step: Step) -> None:
        if self.boot.now not in (boot.S.ATTACHING, *boot.LEAVES):
            self.begin()  # the disk came too late for its stage

    def _stepped(self, _instance: Instance, _step: Step) -> None:
        if self._stage is not None:
            self._look_converged()

    def _earlier_boots(self, instance: Instance, _step: Step) -> None:
        """Forget the boot and storage machines of earlier boots: their only step is to converge, and the journal has it."""
        if instance not in (self.boot, self.state.storage):
            self.reactor.call_soon(partial(self.engine.forget, instance.name))

    def begin(self) -> None:
        """Replay what was stored, once a boot; nothing happens while it could not be read."""
        if self._begun or self.state.stored is None:
            return
        self._begun = True
        self._seqs = {str(row["name"]): int(row["seq"]) for row in self.state.stored}
        flow.run(self._planned(), self._replay)

    # ---- what is there, and what follows from it

    def _planned(self) -> flow.Flow[tuple[reconcile.Plan, int]]:
        """Return the plan for what was stored, made in many turns, and how many containers podman has."""
        containers: tuple[Container, ...] = yield from self._containers()
        making = reconcile.planning(self.state.stored or (), MACHINES, {each.name for each in containers})
        while True:
            try:
                next(making)
            except StopIteration as made:
                return made.value, len(containers)
            yield self._next_turn

    def _containers(self) -> flow.Flow[tuple[Container, ...]]:
        """Ask podman what there is. Its first call after a boot renews its own database, so it is made alone, with a long bound."""
        prepared: Answer = yield partial(self.state.ask, "containers_prepare", self.bounds.open)
        self.configure()
        if not prepared.ok:
            self.log.error("podman's directories could not be made", why=prepared.why)
        if not prepared.ok or not prepared.value["used"]:
            return ()  # nothing has ever been there: a boot without personas does not wait for podman
        yield partial(self.manifests.load, self.reactor.call_soon)  # else all in the turn that first asks for one
        yield self._know_personas
        listed: Verdict = yield from self.mending.first_look()
        if not listed.ok:
            self.log.error("podman does not say what there is: personas are cleared one by one", why=listed.why)
            self.audit.soon()
            return ()
        self.clearing.seed(listed.value)
        return listed.value  # type: ignore[no-any-return]

    def _next_turn(self, resume: Callable[[None], None]) -> None:
        self.reactor.call_soon(partial(resume, None))

    def _know_personas(self, resume: Callable[[None], None]) -> None:
        """Make their machine, in a turn of its own."""
        with garbage.staying():
            self.engine.know(MACHINES["persona"])
        self._next_turn(resume)

    def _replay(self, planned: tuple[reconcile.Plan, int]) -> None:
        """Take over what was stored; whatever owes anything goes through CONVERGE."""
        plan, containers = planned
        left_alone = set(plan.unknown)
        self.slots_left_alone = _slots(row for row in self.state.stored or () if row["name"] in left_alone)
        for name in plan.unknown:
            self.log.warning("machine of an unknown kind or name left alone", machine=name)
        if plan.foreign:
            self.log.warning("containers of somebody else left alone", containers=", ".join(plan.foreign))
        new = deque(replay for replay in plan.replays if self._is_new(replay))
        owed = [replay.container for replay in new if replay.converge and replay.container]
        self.clearing.gather((*owed, *plan.sweep), self.bounds.gather)
        if plan.sweep:
            self.log.warning("containers without a persona removed", containers=", ".join(plan.sweep))
            self.audit.sweep(plan.sweep)
        self._replay_some(new, containers)

    def _is_new(self, replay: reconcile.Replay) -> bool:
        """Tell whether a stored machine says something new: what lives in this boot knows better, unless it has done nothing since it was made."""
        live = self.engine.instances.get(replay.name)
        if live is not None and replay.definition.resident and live.committed is None and live.pending is None:
            self.engine.forget(replay.name)  # made before a disk that came late
            return True
        return live is None

    def _replay_some(self, left: deque[reconcile.Replay], containers: int) -> None:
        """Go on with a few; the next turns with the others, so that a thousand of them do not hold the reactor."""
        with garbage.staying():
            for replay in [left.popleft() for _ in range(min(len(left), REPLAYS_A_TURN))]:
                instance = self.engine.adopt(replay.definition, replay.stored)
                if replay.converge:
                    self._converged += 1
                    self._owing.append(instance.name)
                    self.engine.send(instance.name, replay.definition.event(CONVERGE))
        if left:
            self.reactor.call_soon(partial(self._replay_some, left, containers))
            return
        self._known = True
        self.state.taken_over()
        self.log.info("reconciled", stored=len(self._seqs), converged=self._converged, containers=containers)
        self._look_converged()
        for call in self._then:
            call()

    # ---- its end

    def _look_converged(self) -> None:
        """Report the stage as done once every machine that was replayed has converged.

        Called after each step, so it must not look at all of them.
        """
        if self._stage is None or not self._known:
            return
        while self._owing and self._has_converged(self._owing[-1]):
            self._owing.pop()
        if not self._owing:
            (instance, token), self._stage = self._stage, None
            self.reactor.call_soon(lambda: self.engine.outcome(instance.name, token, E.DONE, ""))

    def _has_converged(self, name: str) -> bool:
        instance = self.engine.instances.get(name)
        return instance is None or (instance.pending is None and bool(instance.definition.spec(instance.now).converged))


def _slots(rows: Iterable[Mapping[str, Any]]) -> frozenset[int]:
    """Return the uid ranges of stored machines that this program does not know: a newer one runs them again."""
    return frozenset(slot for row in rows if (slot := slot_of(row["config"])) is not None)
