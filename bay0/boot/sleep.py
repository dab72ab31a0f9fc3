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

from bay0.base.errors import RefusedError
from bay0.effects import sleep
from bay0.machines import boot, storage, upgrade
from bay0.machines.inhibit import NAME, E, Effect, S
from bay0.pid1 import flow

if TYPE_CHECKING:
    from bay0.base.bounds import Bounds
    from bay0.boot.continuity import Continuity
    from bay0.control.server import Reply
    from bay0.effects.shield import Watchdog
    from bay0.effects.spawn import Result, Spawner
    from bay0.machines.engine import Engine
    from bay0.machines.instance import Instance, Step
    from bay0.pid1.reactor import Reactor
    from bay0.state.link import Answer
    from bay0.state.port import StatePort

LOOK_S = 0.2
REASON_MAX = 80
ON_THE_WAY = (storage.S.OPENING, storage.S.REATTACHING)
NO_ANSWER = (storage.S.WEDGED, storage.S.CLOSING, storage.S.CLOSED, *ON_THE_WAY)
End = tuple[E, str]


@define(eq=False, repr=False)
class Inhibit:
    """The effect port of the inhibit machine. Time asleep is the difference of two clocks, one of which goes on (clock_gettime(2)).

    `boot`: this boot's machine. `enabled`: `bay0.suspend=on` is on the kernel command line.
    """

    engine: Engine
    reactor: Reactor
    bounds: Bounds
    log: Any
    state: StatePort
    spawner: Spawner
    boot: Instance
    watchdog: Watchdog
    continuity: Continuity
    enabled: bool = False
    states: Callable[[], tuple[str, ...]] = sleep.states
    asleep: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
    reason: str = ""
    last: dict[str, Any] | None = None
    _reply: Reply | None = None

    def __attrs_post_init__(self) -> None:
        self.engine.on("inhibit", S.FREE, call=self._freed)

    # ---- verbs

    def suspend(self, params: Mapping[str, Any], reply: Reply) -> None:
        """Ask to sleep; answered when the machine is awake again, or has stayed awake."""
        reason = str(params.get("reason") or "asked")
        if len(reason) > REASON_MAX or not reason.isprintable():
            raise ValueError(f"reason must be at most {REASON_MAX} printable characters")
        if NAME not in self.engine.instances:
            raise RefusedError("the boot is not that far yet")

        def taken(result: Step | Exception | None) -> None:
            if isinstance(result, Exception):
                reply(result)
            else:
                self.reason, self._reply = reason, reply

        self.engine.send(NAME, E.SUSPEND, reason, taken)

    def show(self, _params: Mapping[str, Any], reply: Reply) -> None:
        """Say who holds the lock, what waits, and what became of the last request."""
        link, instance = self.state.link, self.engine.instances.get(NAME)
        state = instance.now if instance is not None else S.FREE
        reply(
            {
                "state": state.value,
                "held_by": [*({"op": op, "for_ms": round(s * 1000)} for op, s in link.under_way().items()), *self._slot_written()],
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
            self.reactor.call_soon(partial(self.engine.outcome, instance.name, token, *outcome))

        flow.run(self._flush() if effect is Effect.FLUSH else self._sleep(), ended)

    def _slot_written(self) -> list[dict[str, Any]]:
        """Return what an upgrade does to a slot now, as a holder of the lock; nothing if it does nothing."""
        live = self.engine.instances.get(upgrade.NAME)
        if live is None or live.now not in upgrade.WRITES:
            return []
        return [{"op": f"upgrade {live.now.value}", "for_ms": max(0, self.engine.clock_ms() - live.entered_ms)}]

    def _health(self) -> Enum:
        return self.state.storage.now

    def _flush(self) -> flow.Flow[End]:
        """Wait for what is being written, then flush what there is. Others go on writing meanwhile."""
        end = self.reactor.clock() + self.bounds.settle
        while self._health() in ON_THE_WAY and self.reactor.clock() < end:
            yield partial(self._later, LOOK_S)
        if self._slot_written():
            return E.FAULT, "a slot of the disk is being written: `bay0 upgrade status` shows how far"
        if self._health() in NO_ANSWER:
            return E.FAULT, self._unwell()
        if not self.state.healthy:
            return E.FLUSHED, f"storage is {self._health().value}: there was nothing to flush"
        answer: Answer = yield self._settle
        return (E.FAULT, _problem(answer)) if _problem(answer) else (E.FLUSHED, _kept(answer))

    def _sleep(self) -> flow.Flow[End]:
        """Hold the writers back, flush the few steps since, sleep, let them go on."""
        if self.boot.now in boot.LEAVES:
            return E.FAULT, "the spine is going down"
        if self._health() in NO_ANSWER:
            return E.FAULT, self._unwell()
        link = self.state.link
        try:
            if self.state.healthy:
                answer: Answer = yield self._settle_and_hold
                if _problem(answer):
                    return E.FAULT, _problem(answer)
            link.hold()
            stays = self._stays()
            if stays:
                self.log.info("would suspend", reason=self.reason, why=stays)
                return E.STAYED, stays
            return (yield from self._asleep())
        finally:
            link.release()

    def _asleep(self) -> flow.Flow[End]:
        """Write the word. The watchdog is stopped meanwhile: some count on while the machine sleeps, and would end the sleep with a reset."""
        before, guarded = self.asleep(), self.watchdog.wanted
        self.watchdog.disarm()
        self.log.warning("suspending", reason=self.reason)
        done: Result = yield lambda resume: self.spawner.run("suspend", sleep.ARGV, self.bounds.suspend, resume)
        if guarded:
            self.watchdog.open()
            self.watchdog.feed(self.reactor.clock())
        slept = self.asleep() - before
        self.continuity.woke()
        if not done.ok:
            return E.FAULT, f"the kernel did not take it: {done.reason()}"
        self.log.warning("awake", slept_s=round(slept, 1))
        return E.WOKE, f"{slept:.1f} s"

    def _settle(self, resume: flow.Resume) -> None:
        self.state.tell("settle", self.bounds.settle, resume, seconds=self.continuity.clock.good())

    def _settle_and_hold(self, resume: flow.Resume) -> None:
        """Nothing gets between this flush and the sleep: what is asked for from now on waits in PID 1."""
        self._settle(resume)
        self.state.link.hold()

    def _later(self, seconds: float, resume: flow.Resume) -> None:
        self.reactor.call_later(seconds, lambda: resume(None))

    def _unwell(self) -> str:
        return f"storage is {self._health().value}: what was written may not be on the disk"

    def _stays(self) -> str:
        """Say why the word is not written, or ""."""
        offered = self.states()
        if sleep.WORD not in offered:
            return f"this machine has no sleep state ({sleep.STATE} offers {' '.join(offered) or 'nothing'})"
        return "" if self.enabled else "bay0.suspend=on is not on the kernel command line"

    def _freed(self, _instance: Instance, step: Step) -> None:
        """Answer the request, now that the machine is free again."""
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
