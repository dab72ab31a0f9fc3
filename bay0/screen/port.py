"""The effects of the screen's machine.

The seat awaited, the compositor started, proved, watched and ended.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import define, field

from bay0.effects import peers, whose
from bay0.effects.vt import Console
from bay0.machines import MACHINES, boot, tenant
from bay0.machines.screen import NAME, E, Effect, S
from bay0.screen import config, proof, registry
from bay0.screen.bar import Bar
from bay0.screen.ear import Ear
from bay0.screen.giving import Giver
from bay0.screen.hotplug import Hotplug
from bay0.screen.ipc import Event
from bay0.screen.keys import Keys
from bay0.screen.places import COMPOSITOR, COMPOSITOR_LIMITS, CTRL_ALT_DEL, SEAT, SEAT_LIMITS
from bay0.screen.windows import Windows
from bay0.tenants.port import ServiceSpec

if TYPE_CHECKING:
    import socket

    from bay0.base.bounds import Bounds
    from bay0.effects.spawn import Result, Spawner
    from bay0.machines.engine import Engine
    from bay0.machines.instance import Instance, Step
    from bay0.pid1 import flow
    from bay0.pid1.reactor import Reactor, Timer
    from bay0.screen.doors import Doors
    from bay0.screen.places import Places
    from bay0.screen.proof import Proof
    from bay0.tenants.port import Services

LOOK_S = 0.1  # between two looks for the seat
BEAT_S = 5.0  # between two questions whether it answers
INPUT_MODULES = ("evdev",)
REAPED_S = 0.3  # from the end of its sockets to the reaper's word, before patience
NAMES_MAX = 3  # in one reason
AT_REST = (tenant.S.STOPPED, tenant.S.FAILED)


@define(eq=False, repr=False)
class Screen:
    """One a boot. `boot`: this boot's machine.

    `stored_seq`: the number of a machine's last stored step (Replay.stored_seq).

    `ctrl_alt_del`: what that key does; the kernel does not hear it any more.
    """

    engine: Engine
    reactor: Reactor
    bounds: Bounds
    log: Any
    spawner: Spawner
    services: Services
    boot: Instance
    stored_seq: Callable[[str], int]
    ctrl_alt_del: Callable[[], None]
    doors: Doors
    places: Places
    patience: float = 1.0
    console: Console = field(init=False)
    windows: Windows = field(init=False)
    keys: Keys = field(init=False)
    hotplug: Hotplug = field(init=False)
    impostors: int = field(init=False, default=0)  # who was found at a socket and refused
    proof: Proof | None = field(init=False, default=None)
    _ears: dict[str, Ear] = field(init=False)
    _last_impostor: tuple[str, str] = field(init=False, default=("", ""))
    _bar: Bar = field(init=False, factory=Bar)
    _loaded: bool = field(init=False, default=False)  # the module that makes input devices readable
    _writes: bool = field(init=False, default=False)  # the bar, in this turn
    _beat: Timer | None = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self.console = Console(self.places.terminal)
        giver = Giver(self.spawner, self.reactor, self.log)
        self.windows = Windows(self.engine, self.reactor, self.log, self.doors, self._write_bar, giver.give, self.patience)
        self.keys = Keys(self.engine, self.log)
        self.hotplug = Hotplug(self.reactor, self.log, self.places.udev, self._devices_changed)
        self._ears = {name: Ear(self.reactor, self.log, name) for name in (SEAT, COMPOSITOR)}
        self.engine.on("tenant", call=self._tenant_stepped)
        self.engine.on("screen", call=self._stepped)
        self.engine.on("focus", call=self._others_stepped)
        self.engine.on("persona", call=self._others_stepped)
        self.engine.on("boot", *boot.LEAVES, call=self._leaves, of=self.boot)

    def begin(self) -> None:
        """Use the screen that was found; harmless when that is done."""
        at = self.places
        self.doors.listen()
        try:
            whose.keep_pids_apart()
        except (OSError, ValueError) as error:
            self.log.warning("pids are used again soon: a window may be taken for another's", why=str(error))
        specs = {
            SEAT: ServiceSpec(
                at.seat_argv, at.seat_environment(), lend=self._before_seat, limits=SEAT_LIMITS
            ),
            COMPOSITOR: ServiceSpec(
                at.compositor_argv,
                at.environment(),
                lend=self._before_compositor,
                limits=COMPOSITOR_LIMITS,
                needs=(SEAT,),
            ),
        }
        for name, spec in specs.items():
            self.services.specs.setdefault(name, spec)
            if name not in self.engine.instances:
                self.engine.add(name, MACHINES["tenant"], seq=self.stored_seq(name))
        if NAME not in self.engine.instances:
            self.engine.add(NAME, MACHINES["screen"], seq=self.stored_seq(NAME))
        if self.boot.now not in boot.LEAVES:
            self.engine.send(NAME, E.FOUND)

    def start(self, instance: Instance, effect: Enum, token: int) -> None:
        """Do what the machine owes."""
        duty = {Effect.SEAT: self._seat, Effect.PROVE: self._prove, Effect.END: self._end}
        duty[effect](instance, token)  # type: ignore[index]

    def _owed(self, instance: Instance, token: int) -> bool:
        return instance.committed is not None and instance.committed.n == token

    # ---- the seat

    def _seat(self, instance: Instance, token: int) -> None:
        """Have input devices made readable.

        No device asks for that module by itself, and without a screen nobody needs it.
        """
        if self._loaded:
            self._await_seat(instance, token)
            return

        def done(
            _result: Result,
        ) -> None:  # built into some kernels; a machine without input devices has a screen all the same
            self._loaded = True
            self._await_seat(instance, token)

        self.spawner.run(
            "modprobe-input", ["modprobe", "-a", "-q", *INPUT_MODULES], self.bounds.modprobe, done
        )

    def _await_seat(self, instance: Instance, token: int) -> None:
        """Wait until no compositor runs and our seatd answers; then start the compositor."""
        if not self._owed(instance, token) or self.boot.now in boot.LEAVES:
            return
        if self._unseated():
            self.reactor.call_later(LOOK_S, partial(self._await_seat, instance, token))
            return
        try:
            self.console.take()
        except OSError as error:
            self.log.warning("the kernel's console keeps the screen or the keys", why=str(error))
        self.engine.outcome(NAME, token, E.SEATED)
        self.engine.send(COMPOSITOR, tenant.E.START, "the seat is there")

    def _unseated(self) -> bool:
        """Tell whether something is still to be waited for; ask for it."""
        compositor, seat = self.engine.instances[COMPOSITOR], self.engine.instances[SEAT]
        if compositor.now not in AT_REST:
            if compositor.now is not tenant.S.STOPPING and compositor.pending is None:
                self.engine.send(COMPOSITOR, tenant.E.STOP, "its seat is gone")
            return True
        if seat.now in AT_REST and seat.pending is None:
            self.engine.send(SEAT, tenant.E.START, "there is a screen")
        pid = self.services.pid(SEAT)
        if seat.now is not tenant.S.RUNNING or pid is None:
            return True
        try:
            who = peers.answerer(self.places.seatd)
        except OSError:
            return True
        if proof.foreign(who, pid, self.places.seat_uid):
            self._impostor(self.places.seatd, proof.shown(who))
            return True
        return False

    def _before_seat(self) -> socket.socket:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.places.seatd)
        return self._ears[SEAT].lend()

    def _before_compositor(self) -> socket.socket:
        """Make its places anew, tell of the input devices, and begin the bar's protocol.

        `OSError`: one of these cannot be done.
        """
        self._hang_up()
        config.prepare(self.places)
        self.hotplug.begin()
        self._bar.begin(self.places)
        self._write_bar()
        return self._ears[COMPOSITOR].lend()

    # ---- the proof

    def _prove(self, instance: Instance, token: int) -> None:
        pid = self.services.pid(COMPOSITOR)
        self._hang_up()
        if pid is None:
            return  # it has ended meanwhile, and its tenant will say so
        report = partial(self._report, instance, token)
        self.proof = proof.Proof(
            self.reactor,
            pid,
            partial(report, E.PROVED),
            partial(report, E.FAULT),
            self._impostor,
            self._event,
            self.places.uid,
            self.places.wayland,
            self.places.ipc,
        )
        self.proof.begin()

    def _report(self, instance: Instance, token: int, event: E, why: str = "") -> None:
        self.reactor.call_soon(partial(self.engine.outcome, instance.name, token, event, why))

    def _impostor(self, path: str, who: str) -> None:
        """Say so, once in a row: he is found again at each try."""
        if (path, who) == self._last_impostor:
            return
        self._last_impostor = path, who
        self.impostors += 1
        self.log.warning("an impostor is refused: not ready", socket=path, answers=who)

    def _watch(self) -> None:
        """Ask now and then whether it answers: it may be alive and hang."""
        self._stop_watching()
        if self.proof is not None:
            self.proof.watch(self.bounds.compositor, self._silent)
            self.hotplug.look()
            self.windows.lines.bound(self.proof.pid)
            self._beat = self.reactor.call_later(BEAT_S, self._watch)

    def _stop_watching(self) -> None:
        if self._beat is not None:
            self._beat.cancel()
            self._beat = None

    def _silent(self, why: str) -> None:
        """Have it ended, unless it is just about to be said that it has ended.

        Its sockets close before it is reaped.
        """
        proof_then = self.proof

        def still() -> None:
            if self.proof is proof_then and self.engine.instances[NAME].now is S.READY:
                self.log.warning("the compositor does not answer", why=why)
                self.engine.send(NAME, E.SILENT, why)

        self.reactor.call_later(REAPED_S * self.patience, still)

    def _end(self, _instance: Instance, _token: int) -> None:
        self._hang_up()
        self.services.kill(COMPOSITOR)

    def _hang_up(self) -> None:
        self._stop_watching()
        self.windows.detach()
        if self.proof is not None:
            self.proof.close()
            self.proof = None

    def _event(self, kind: int, value: Any) -> None:
        if kind == Event.WINDOW:
            self.windows.event(value)
        elif kind == Event.OUTPUT:
            self._devices_changed()
        elif kind == Event.BINDING and value["binding"]["command"] == CTRL_ALT_DEL:
            self.ctrl_alt_del()
        elif kind == Event.BINDING:
            self.keys.pressed(value["binding"]["command"])

    def _devices_changed(self) -> None:
        """Have the outputs read again, and the windows looked at: some of them may be elsewhere now."""
        if self.proof is not None and self.engine.instances[NAME].now is S.READY:
            self.proof.read_outputs(self.bounds.compositor)
            self.windows.look_again()

    # ---- what others do

    def _tenant_stepped(self, instance: Instance, step: Step) -> None:
        running = tenant.S.RUNNING.value
        if NAME not in self.engine.instances or (step.source == running) == (step.dest == running):
            return
        came = step.dest == running
        if instance.name == SEAT and not came:
            self.engine.send(NAME, E.UNSEATED, step.why)
        elif instance.name == COMPOSITOR:
            self.engine.send(NAME, E.UP if came else E.GONE, step.why)

    def _stepped(self, _instance: Instance, step: Step) -> None:
        if step.dest == S.READY.value and self.proof is not None:
            self.log.info(
                "the screen is ready",
                version=self.proof.version,
                globals=len(self.proof.globals),
                dmabuf=False,
            )
            self.windows.attach(self.proof)
            self._watch()
        elif step.dest in (S.ABSENT.value, S.SEATING.value, S.DARK.value):
            self._hang_up()
        if step.dest == S.DARK.value:
            self._give_back()

    def _give_back(self) -> None:
        """Leave the screen to the kernel's console once no compositor runs."""
        compositor = self.engine.instances.get(COMPOSITOR)
        if compositor is not None and compositor.now not in AT_REST:
            self.reactor.call_later(LOOK_S, self._give_back)
            return
        self._bar.close()
        self.hotplug.close()
        self.console.give_back()

    def _leaves(self, _boot: Instance, _step: Step) -> None:
        if NAME in self.engine.instances:
            self.engine.send(NAME, E.LEAVE)

    def _others_stepped(self, _instance: Instance, _step: Step) -> None:
        self._write_bar()

    def _write_bar(self) -> None:
        """Say what is to be said in the bar, once a turn."""
        if self._writes:
            return
        self._writes = True

        def write() -> None:
            self._writes = False
            self._bar.say(self.windows.front, self.keys.personas())

        self.reactor.call_soon(write)

    def find_fault(self) -> str:
        """Return what is wrong with what answers now, for a validation.

        "" if it is as it must be, or not ready.
        """
        live = self.engine.instances.get(NAME)
        if live is None or live.now is not S.READY or self.proof is None:
            return ""
        fault = registry.fault(self.proof.wayland.offered) if self.proof.wayland is not None else ""
        if not fault and (unserved := self.doors.unserved()):
            fault = f"the sockets of these personas are not served: {', '.join(unserved[:NAMES_MAX])}"
        return fault

    def await_frame(self, resume: flow.Resume) -> None:
        """Resume with "" once a frame has come on the screen, or with why none has, within the bound of any answer."""
        self.windows.await_frame(self.bounds.compositor, resume)
