"""Sleeping safely: what the inhibit machine's states owe, and its two verbs. Made when the first request comes (handoff, "Suspend safety").

A request comes by the control socket (`bay0 suspend`), later by whoever reads the lid's switch. The machine is put to sleep by one word in
/sys/power/state, written by a command under the spawner's rules, and only with `bay0.suspend=on`; else everything up to that word is done and said.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import define

from bay0 import flow
from bay0.effects import sleep
from bay0.errors import RefusedError
from bay0.machines import boot, storage
from bay0.machines.inhibit import NAME, E, Effect, S

if TYPE_CHECKING:
    from bay0.control import Reply
    from bay0.effects.spawn import Result
    from bay0.init import Spine
    from bay0.machines.engine import Instance, Step
    from bay0.state.link import Answer

LOOK_S = 0.2
REASON_MAX = 80
ON_THE_WAY = (storage.S.OPENING, storage.S.REATTACHING)
NO_ANSWER = (storage.S.WEDGED, storage.S.CLOSING, storage.S.CLOSED, *ON_THE_WAY)
End = tuple[E, str]


@define(eq=False, repr=False)
class Inhibit:
    """The effect port of the inhibit machine. Time asleep is the difference of two clocks, one of which goes on (clock_gettime(2))."""

    spine: Spine
    states: Callable[[], tuple[str, ...]] = sleep.states
    asleep: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
    reason: str = ""
    last: dict[str, Any] | None = None
    _reply: Reply | None = None

    # ---- verbs

    def suspend(self, params: Mapping[str, Any], reply: Reply) -> None:
        """Ask to sleep; answered when the machine is awake again, or has stayed awake."""
        reason = str(params.get("reason") or "asked")
        if len(reason) > REASON_MAX or not reason.isprintable():
            raise ValueError(f"reason must be at most {REASON_MAX} printable characters")
        if NAME not in self.spine.engine.instances:
            raise RefusedError("the boot is not that far yet")

        def taken(result: Step | Exception | None) -> None:
            if isinstance(result, Exception):
                reply(result)
            else:
                self.reason, self._reply = reason, reply

        self.spine.engine.send(NAME, E.SUSPEND, reason, taken)

    def show(self, _params: Mapping[str, Any], reply: Reply) -> None:
        """Say who holds the lock, what waits, and what became of the last request."""
        link, instance = self.spine.state.link, self.spine.engine.instances.get(NAME)
        state = instance.now if instance is not None else S.FREE
        reply(
            {
                "state": state.value,
                "held_by": [{"op": op, "for_ms": round(s * 1000)} for op, s in link.under_way().items()],
                "held_back": link.held_back,
                "waiting": None if state is S.FREE else self.reason,
                "last": self.last,
                "hook": self._stays() or f"{sleep.WORD} to {sleep.STATE}",
                "sleeps": not self._stays(),
            }
        )

    # ---- what the states owe

    def start(self, instance: Instance, effect: Enum, token: int) -> None:
        """Flush, or sleep. Each wait has a bound of its own, so each ends and lets the writers go on."""

        def ended(outcome: End) -> None:
            self.spine.reactor.call_soon(partial(self.spine.engine.outcome, instance.name, token, *outcome))

        flow.run(self._flush() if effect is Effect.FLUSH else self._sleep(), ended)

    def _health(self) -> Enum:
        found = self.spine.state.storage
        return found.now if found is not None else storage.S.DETACHED

    def _flush(self) -> flow.Flow[End]:
        """Wait for what is being written, then flush what there is. Others go on writing meanwhile."""
        end = self.spine.reactor.clock() + self.spine.bounds.settle
        while self._health() in ON_THE_WAY and self.spine.reactor.clock() < end:
            yield partial(self._later, LOOK_S)
        if self._health() in NO_ANSWER:
            return E.FAULT, self._unwell()
        if not self.spine.state.healthy:
            return E.FLUSHED, f"storage is {self._health().value}: there was nothing to flush"
        answer: Answer = yield self._settle
        return (E.FAULT, _problem(answer)) if _problem(answer) else (E.FLUSHED, _kept(answer))

    def _sleep(self) -> flow.Flow[End]:
        """Hold the writers back, flush the few steps since, sleep, let them go on."""
        if self.spine.boot.now in boot.LEAVES:
            return E.FAULT, "the spine is going down"
        if self._health() in NO_ANSWER:
            return E.FAULT, self._unwell()
        link = self.spine.state.link
        try:
            if self.spine.state.healthy:
                answer: Answer = yield self._settle_and_hold
                if _problem(answer):
                    return E.FAULT, _problem(answer)
            link.hold()
            stays = self._stays()
            if stays:
                self.spine.log.info("would suspend", reason=self.reason, why=stays)
                return E.STAYED, stays
            return (yield from self._asleep())
        finally:
            link.release()

    def _asleep(self) -> flow.Flow[End]:
        """Write the word. The watchdog is stopped meanwhile: some count on while the machine sleeps, and would end the sleep with a reset."""
        before, guarded = self.asleep(), self.spine.watchdog.wanted
        self.spine.watchdog.disarm()
        self.spine.log.warning("suspending", reason=self.reason)
        done: Result = yield lambda resume: self.spine.spawner.run("suspend", sleep.ARGV, self.spine.bounds.suspend, resume)
        if guarded:
            self.spine.watchdog.open()
            self.spine.watchdog.feed(self.spine.reactor.clock())
        slept = self.asleep() - before
        self.spine.continuity.woke()
        if not done.ok:
            return E.FAULT, f"the kernel did not take it: {done.reason()}"
        self.spine.log.warning("awake", slept_s=round(slept, 1))
        return E.WOKE, f"{slept:.1f} s"

    def _settle(self, resume: flow.Resume) -> None:
        self.spine.state.tell("settle", self.spine.bounds.settle, resume, seconds=self.spine.continuity.good_time())

    def _settle_and_hold(self, resume: flow.Resume) -> None:
        """Nothing gets between this flush and the sleep: what is asked for from now on waits in PID 1."""
        self._settle(resume)
        self.spine.state.link.hold()

    def _later(self, seconds: float, resume: flow.Resume) -> None:
        self.spine.reactor.call_later(seconds, lambda: resume(None))

    def _unwell(self) -> str:
        return f"storage is {self._health().value}: what was written may not be on the disk"

    def _stays(self) -> str:
        """Say why the word is not written, or ""."""
        offered = self.states()
        if sleep.WORD not in offered:
            return f"this machine has no sleep state ({sleep.STATE} offers {' '.join(offered) or 'nothing'})"
        return "" if self.spine.words.suspend else "bay0.suspend=on is not on the kernel command line"

    def stepped(self, instance: Instance, step: Step) -> None:
        """Follow the engine: answer whoever asked, once the machine is free again."""
        if instance.name != NAME or instance.now is not S.FREE:
            return
        self.last = {"suspended": step.event == E.WOKE.value, "flushed": step.source == S.SUSPENDING.value, "reason": self.reason, "why": step.why}
        reply, self._reply = self._reply, None
        if reply is not None:
            reply(self.last)


def _problem(answer: Answer) -> str:
    """Say why a flush is none, or ""."""
    if not answer.ok:
        return answer.why
    return "" if answer.value["checkpointed"] else "the database is busy: its log could not be written out"


def _kept(answer: Answer) -> str:
    """Say what a flush has done, and what it could not."""
    failed = answer.value["failed"]
    return f"without {json.dumps(failed)}" if failed else ""


def make(spine: Spine) -> Inhibit:
    """Wire one to a running spine."""
    made = Inhibit(spine)
    spine.ports.ports["inhibit"] = made
    spine.engine.watchers.append(made.stepped)
    return made
