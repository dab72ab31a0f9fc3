"""What an upgrade's states owe: calls to the process that does things to the slots, the proof of a candidate, the word that is kept of a bad one."""

from __future__ import annotations

import json
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import define

from bay0.base.errors import RefusedError
from bay0.machines.upgrade import NAME, E, Effect
from bay0.pid1 import flow
from bay0.state import slotcalls
from bay0.state.registry import Rows, read_nack_registry, write_nack_registry
from bay0.upgrade import judging

if TYPE_CHECKING:
    from bay0.base.bounds import Bounds
    from bay0.effects.spawn import Spawner
    from bay0.loading.late import Late
    from bay0.machines.engine import Engine
    from bay0.machines.instance import Instance
    from bay0.pid1.reactor import Reactor
    from bay0.state.port import StatePort

CHECK_EVERY_S = 60.0
VERDICT_MAX = 250  # characters that a NACK keeps
End = tuple[E, str] | None


def or_refusal(reactor: Reactor, ask: Callable[[flow.Resume], None]) -> flow.Waitable:
    """Wait for an answer; what is refused at once is an answer, too."""

    def wait(resume: flow.Resume) -> None:
        try:
            ask(resume)
        except RefusedError as error:
            reactor.call_soon(partial(resume, error))

    return wait


@define(eq=False, repr=False)
class Upgrade:
    """The effect port. `prove_s`: how long a candidate is watched. `validation`: what `bay0 --validate` asks."""

    engine: Engine
    reactor: Reactor
    bounds: Bounds
    log: Any
    state: StatePort
    spawner: Spawner
    validation: Late[Any]
    prove_s: float = 300.0

    def start(self, instance: Instance, effect: Enum, token: int) -> None:
        """Begin what the state owes; its outcome is the machine's next event."""

        def owed() -> bool:
            return instance.committed is not None and instance.committed.n == token

        def ended(end: End) -> None:
            if end is not None:
                self.reactor.call_soon(partial(self.engine.outcome, instance.name, token, *end))

        flows: dict[Enum, Callable[[Instance], flow.Flow[End]]] = {
            Effect.STAGE: self._stage, Effect.ARM: self._arm, Effect.REARM: self._rearm, Effect.JUDGE: self._judge,
            Effect.PROVE: self._prove, Effect.COMMIT: self._commit, Effect.NACK: self._nack, Effect.RETURN: self._return,
            Effect.WIPE: self._wipe,
        }  # fmt: skip
        flow.run(flow.as_long_as(owed, flows[effect](instance)), ended)

    def _slots(self, op: str, seconds: float, **arguments: Any) -> flow.Waitable:
        return lambda resume: slotcalls.call(self.spawner.run, op, seconds, resume, **arguments)

    @staticmethod
    def _end(answer: slotcalls.Answer) -> End:
        if answer.ok:
            return E.DONE, ""
        return (E.DAMAGED if answer.damaged else E.FAULT), answer.why

    # ---- the slots

    def _stage(self, instance: Instance) -> flow.Flow[End]:
        kept = judging.config_of(instance.config)
        which = {key: str(kept.get(key)) for key in ("slot", "digest")}
        answer = yield self._slots("stage", self.bounds.slots_copy, path=str(instance.context.get("path")), **which)
        return (E.DONE, f"{kept.get('version')} in {kept.get('slot')}") if answer.ok else (E.FAULT, answer.why)

    def _arm(self, instance: Instance) -> flow.Flow[End]:
        answer = yield self._armed(instance, self.bounds.slots_read, verify=True)
        return self._end(answer)

    def _rearm(self, instance: Instance) -> flow.Flow[End]:
        answer: slotcalls.Answer = yield self._armed(instance, self.bounds.slots, verify=False)
        return (E.DONE, "") if answer.ok else (E.FAULT, answer.why)

    def _armed(self, instance: Instance, seconds: float, *, verify: bool) -> flow.Waitable:
        kept = judging.config_of(instance.config)
        which = {key: str(kept.get(key)) for key in ("slot", "digest")}
        return self._slots("arm", seconds, watchdog_s=int(kept.get("watchdog_s", 0)), verify=verify, **which)

    def _commit(self, instance: Instance) -> flow.Flow[End]:
        kept = judging.config_of(instance.config)
        answer = yield self._slots("commit", self.bounds.slots_read, slot=str(kept.get("slot")), digest=str(kept.get("digest")))
        return self._end(answer)

    def _return(self, instance: Instance) -> flow.Flow[End]:
        kept = judging.config_of(instance.config)
        answer = yield self._slots("favour", self.bounds.slots, slot=str(kept.get("back")))
        return (E.DONE, "") if answer.ok else (E.FAULT, answer.why)

    def _wipe(self, instance: Instance) -> flow.Flow[End]:
        kept = judging.config_of(instance.config)
        answer = yield self._slots("wipe", self.bounds.slots, slot=str(kept.get("slot")))
        return (E.DONE, "") if answer.ok else (E.FAULT, answer.why)

    # ---- what became of a try

    def _judge(self, instance: Instance) -> flow.Flow[End]:
        kept = judging.config_of(instance.config)
        if not kept:
            return E.FAULT, "what was staged cannot be read in the database"
        look: slotcalls.Answer = yield self._slots("look", self.bounds.slots)
        if look.value is None:
            return E.FAULT, look.why
        event, why = judging.became(kept, look.value, instance.attempts)
        if event is E.AGAIN:
            refused = yield from self._refused(kept["digest"])
            if isinstance(refused, RefusedError):
                return E.FAULT, str(refused)
            if refused:
                event, why = E.REJECT, f"it is refused since: {refused}"
        if event in (E.AGAIN, E.BYPASSED):
            self.log.warning("the try of an upgrade came back", version=kept.get("version"), why=why)
        return event, why

    def _refused(self, digest: str) -> flow.Flow[str | RefusedError]:
        """Return why a digest is NACKed, "" if it is not, or why nobody knows."""
        rows: Rows | RefusedError = yield or_refusal(self.reactor, lambda resume: read_nack_registry(self.state, resume, digest))
        if isinstance(rows, RefusedError):
            return rows
        return str(rows[0]["why"] or "no reason was given") if rows else ""

    def _nack(self, instance: Instance) -> flow.Flow[End]:
        """Keep the digest for good, then take away what nobody shall start; without the latter it is harmless."""
        kept = judging.config_of(instance.config)
        if not kept:
            return E.FAULT, "what was tried cannot be read in the database"
        why = str(kept.get("verdict") or "it did not come through its proof; see `bay0 history upgrade`")[:VERDICT_MAX]
        done = yield or_refusal(self.reactor, lambda resume: write_nack_registry(self.state, resume, kept["digest"], why=why))
        if isinstance(done, RefusedError):
            return E.FAULT, str(done)
        self.log.warning("an upgrade was taken back", version=kept.get("version"), digest=kept["digest"], why=why)
        wiped: slotcalls.Answer = yield self._slots("wipe", self.bounds.slots, slot=kept["slot"])
        return E.DONE, why if wiped.ok else f"{why} (its slot was not wiped: {wiped.why})"

    # ---- the proof

    def _prove(self, instance: Instance) -> flow.Flow[End]:
        """Watch the candidate that runs: its own image, all checks, what ran before; for `prove_s`."""
        kept = judging.config_of(instance.config)
        end = self.reactor.clock() + self.prove_s
        refused = yield from self._refused(str(kept.get("digest")))
        if refused:
            self._red(instance, kept, f"its digest is refused: {refused}")
            return None
        read: slotcalls.Answer = yield self._slots(
            "verify", self.bounds.slots_read, slot=str(kept.get("slot")), digest=str(kept.get("digest"))
        )
        if not read.ok:
            self._red(instance, kept, read.why)
            return None
        yield partial(self.validation.load, self.reactor.call_soon)
        while True:
            last = self.reactor.clock() >= end
            bad = yield from self._unwell(kept)
            if bad:
                self._red(instance, kept, bad)
                return None
            if last:
                return E.GREEN, f"{self.prove_s:g} s"
            yield partial(self._later, min(CHECK_EVERY_S, max(0.0, end - self.reactor.clock())))

    def _unwell(self, kept: dict[str, Any]) -> flow.Flow[str]:
        """Return what is not well, ""."""
        result: Any = yield self._validated
        if isinstance(result, Exception):
            return f"it cannot be validated: {result}"
        if result["verdict"] == "red":
            return "; ".join(f"{each['name']}: {each['why']}" for each in result["checks"] if each["level"] == "red")
        states = {name: live.now.value for name, live in self.engine.instances.items()}
        gone = judging.failed(kept.get("running", ()), states)
        return f"{', '.join(gone)} failed, and ran under the spine before" if gone else ""

    def _validated(self, resume: flow.Resume) -> None:
        try:
            self.validation().ask({}, resume)
        except RefusedError as error:
            self.reactor.call_soon(partial(resume, error))

    def _later(self, seconds: float, resume: flow.Resume) -> None:
        self.reactor.call_later(seconds, partial(resume, None))

    def _red(self, instance: Instance, kept: dict[str, Any], why: str) -> None:
        """Give the verdict; the spine that was good before keeps it with the digest."""
        token = instance.committed.n if instance.committed is not None else 0

        def say() -> None:
            if instance.committed is not None and instance.committed.n == token:
                self.log.error("the upgrade is not well: the machine goes back", version=kept.get("version"), why=why)
                self.engine.send(NAME, E.RED, why, config=json.dumps({**kept, "verdict": why[:VERDICT_MAX]}))

        self.reactor.call_soon(say)
