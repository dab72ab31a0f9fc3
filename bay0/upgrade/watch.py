"""What a boot does about an upgrade by itself: it looks at the slots, arms a try anew that an ordered stop ends, goes back from a bad one."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import define, field

from bay0.machines import boot, storage
from bay0.machines.upgrade import LOOKS, NAME, E, S
from bay0.state import slotcalls

if TYPE_CHECKING:
    from bay0.base.bounds import Bounds
    from bay0.effects.spawn import Spawner
    from bay0.machines.engine import Engine
    from bay0.machines.instance import Instance, Step
    from bay0.pid1.reactor import Reactor
    from bay0.reconcile.replay import Replay
    from bay0.state.port import StatePort

AGAIN_S, LOOKS_MAX = 15.0, 5  # looks at slots that cannot be read, in one boot
ANSWER_S = 1.0  # so that whoever asked has an answer before the machine goes down


@define(eq=False, repr=False)
class UpgradeWatch:
    """`boot`: this boot's machine. `prove_s`: how long a candidate has, here to come to know that it is one."""

    engine: Engine
    reactor: Reactor
    bounds: Bounds
    log: Any
    boot: Instance
    state: StatePort
    replay: Replay
    spawner: Spawner
    prove_s: float
    _condemned: bool = field(init=False, default=False)  # in this boot: the next one's spine keeps the verdict
    _looks: int = field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        self.engine.on("boot", boot.S.COMPLETE, call=self._news, of=self.boot)
        self.engine.on("boot", boot.S.COMPLETE, call=self._completed, of=self.boot)
        self.engine.on("boot", boot.S.STOPPING, call=self._leaves, of=self.boot)
        self.engine.on("upgrade", S.PROVING, call=self._leaves)
        self.engine.on("storage", storage.S.DURABLE, call=self._news, of=self.state.storage)
        self.engine.on("upgrade", S.TRIED, call=self._unknown)
        self.engine.on("upgrade", S.CONDEMNED, S.TRYING, call=self._goes)
        self.replay.when_known(self._look)

    def _news(self, _instance: Instance, _step: Step) -> None:
        self._look()

    def _look(self) -> None:
        """Go on with what an earlier boot left, once this one is complete and what was stored is known and can be kept."""
        upgrade = self.engine.instances.get(NAME)
        if upgrade is None or self.boot.now is not boot.S.COMPLETE or not self.replay.known or not self.state.healthy:
            return
        if upgrade.now in LOOKS:
            self.engine.send(NAME, E.LOOK)
        elif upgrade.now is S.CONDEMNED and not self._condemned:
            self.engine.send(NAME, E.REJECT)

    def _unknown(self, _upgrade: Instance, step: Step) -> None:
        """Look again at what could not be known."""
        if step.event != E.CONVERGE.value and self._looks < LOOKS_MAX:
            self._looks += 1
            self.reactor.call_later(AGAIN_S if step.source == S.JUDGING.value else 0, self._look)

    def _leaves(self, _instance: Instance, _step: Step) -> None:
        """End a proof once a stop has begun, whichever of the two came last."""
        upgrade = self.engine.instances.get(NAME)
        if self.boot.now is boot.S.STOPPING and upgrade is not None and upgrade.now is S.PROVING:
            self.engine.send(NAME, E.LEAVE)

    def _goes(self, _upgrade: Instance, step: Step) -> None:
        """Restart: to try what was armed by somebody's word, or to go back."""
        self._condemned = step.dest == S.CONDEMNED.value or self._condemned
        if step.source in (S.ARMING.value, S.PROVING.value, S.COMMITTING.value, S.RETURNING.value):
            self.log.warning("the machine restarts", why=step.why)
            restart = partial(self.engine.send, self.boot.name, boot.E.REBOOT, step.why, how="reboot")
            self.reactor.call_later(ANSWER_S, restart)

    # ---- a candidate that does not even find what it is to prove

    def _completed(self, _boot: Instance, _step: Step) -> None:
        self.reactor.call_later(self.prove_s, self._look_if_forgotten)

    def _look_if_forgotten(self) -> None:
        """Look into the slots if /persist has said nothing by now: a candidate that cannot read it would else stay for good."""
        if self.boot.now is boot.S.COMPLETE and not self.replay.known:
            slotcalls.call(self.spawner.run, "look", self.bounds.slots, self._seen)

    def _seen(self, look: slotcalls.Answer) -> None:
        if look.value is None or self.replay.known:
            return
        name = look.value["next"]
        slot = look.value["slots"].get(name) or {"env": None, "uki": None}
        tried = slot["env"] is not None and slot["env"]["state"] == "testing"
        if tried and slot["uki"] is not None and slot["uki"]["build_id"] == look.value["build_id"]:
            why = "this spine is being tried, and cannot read what it is to prove on /persist"
            self.log.error("the machine goes back", slot=name, why=why)
            self.engine.send(self.boot.name, boot.E.REBOOT, why, how="reboot")
