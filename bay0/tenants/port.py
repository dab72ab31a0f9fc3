"""Tenants that are a plain process of the spine: the console shell, the guest's exec service. Effects of the tenant machine."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen

from bay0.base.errors import SpawnError
from bay0.base.group import within
from bay0.machines.tenant import E, Effect, S

if TYPE_CHECKING:
    from bay0.base.bounds import Bounds
    from bay0.effects.spawn import Child, Spawner
    from bay0.machines.engine import Engine
    from bay0.machines.instance import Instance
    from bay0.pid1.reactor import Reactor, Timer

BACK_OFF_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
IF_KILLED_S = 60.0
SIGNALLED = 128  # and the signal's number, as a shell has it
CALM_S = 10.0  # a process that lived this long has not failed quickly
CONSOLES = "/sys/class/tty/console/active"


@frozen(eq=False, repr=False)
class ServiceSpec:
    """How to start one.

    `tty`: a terminal that becomes its controlling one. `once`: do not start it again when it has ended. `lend`: makes, at each start, the
    socket that the process finds as descriptor 3; ours of it is closed then. `limits`: of its cgroup ("pids.max" -> "4").
    `tries`: after so many attempts in a row that ended within `CALM_S` it is given up; None: never.
    `needs`: tenants that must outlive it: they are stopped after it.
    `if_killed`: a command that says so in its place when a signal has ended it; the status is its last word, as a shell has it.
    """

    argv: Sequence[str]
    env: Mapping[str, str] = field(factory=dict)
    tty: str | None = None
    once: bool = False
    tries: int | None = None
    lend: Callable[[], socket.socket] | None = None
    limits: Mapping[str, str] = field(factory=dict)
    needs: Sequence[str] = ()
    if_killed: Sequence[str] = ()


def console_tty(path: str = CONSOLES) -> str | None:
    """Return the real terminal behind /dev/console (the last of those named is the preferred one), since that itself cannot control."""
    try:
        with open(path, encoding="ascii") as active:
            names = active.read().split()
    except OSError:
        return None
    return f"/dev/{names[-1]}" if names else None


@define(eq=False, repr=False)
class _Live:
    child: Child
    since: float
    calm: Timer | None = None  # until it has lived long enough


@define(eq=False, repr=False)
class Services:
    """The effect port of tenants that are processes."""

    engine: Engine
    reactor: Reactor
    spawner: Spawner
    bounds: Bounds
    log: Any
    specs: dict[str, ServiceSpec] = field(init=False, factory=dict)
    _live: dict[str, _Live] = field(init=False, factory=dict)

    def start(self, instance: Instance, effect: Enum, token: int) -> None:
        """Do what `instance` owes."""
        duty = {Effect.START: self._start, Effect.WAIT: self._wait, Effect.STOP: self._stop, Effect.CLEAR: self._clear}
        duty[effect](instance, token)  # type: ignore[index]

    def owns(self, name: str, pid: int, group: str) -> bool:
        """Tell whether process `pid`, of the cgroup `group` ("/services/ai"), is one that runs for the tenant `name`."""
        live = self._live.get(name)
        mine = "/services/" + name.removeprefix("sys://")
        return live is not None and (pid == live.child.pid or within(group, mine))

    def pid(self, name: str) -> int | None:
        """Return the process of the tenant `name`, which cannot be somebody else's until it is reaped; None if there is none."""
        live = self._live.get(name)
        return live.child.pid if live is not None and not live.child.ended else None

    def users(self, name: str) -> list[str]:
        """Return the tenants that need the tenant `name`."""
        return [each for each, spec in self.specs.items() if name in spec.needs]

    def kill(self, name: str) -> None:
        """End the process of the tenant `name`, which hangs or lies; its machine sees it gone, and starts the next one."""
        live = self._live.get(name)
        if live is not None:
            live.child.kill()

    def _report(self, instance: Instance, token: int, event: E, why: str = "", after_s: float = 0.0) -> None:
        self.reactor.call_later(after_s, lambda: self.engine.outcome(instance.name, token, event, why))

    def _start(self, instance: Instance, token: int) -> None:
        spec = self.specs.get(instance.name)
        if spec is None:  # an earlier boot had it; "init complete" tells every tenant to start
            self._dismiss(instance, "this boot does not want it")
            return
        files: list[tuple[Any, ...]] = []
        if spec.tty is not None:  # opened by a session leader without O_NOCTTY, it becomes the controlling terminal
            files = [(os.POSIX_SPAWN_OPEN, 0, spec.tty, os.O_RDWR, 0), (os.POSIX_SPAWN_DUP2, 0, 1), (os.POSIX_SPAWN_DUP2, 0, 2)]
        group = "services/" + instance.name.removeprefix("sys://")
        lent: socket.socket | None = None
        try:
            lent = spec.lend() if spec.lend is not None else None
            child = self.spawner.start(
                instance.name, spec.argv, lambda status: self._ended(instance, status), group=group, env=spec.env, files=files,
                keep=lent.fileno() if lent is not None else None, limits=spec.limits,
            )  # fmt: skip
        except (OSError, SpawnError) as error:  # OSError: no descriptor is left to lend
            self._report(instance, token, E.FAULT, str(error))
            return
        finally:
            if lent is not None:
                lent.close()
        live = self._live[instance.name] = _Live(child, self.reactor.clock())
        live.calm = self.reactor.call_later(CALM_S, lambda: self._calm(instance, live))
        self.log.info("service started", service=instance.name, pid=child.pid, argv=" ".join(spec.argv))
        self._report(instance, token, E.STARTED, f"pid {child.pid}")

    def _ended(self, instance: Instance, status: int) -> None:
        live = self._live.pop(instance.name)
        if live.calm is not None:
            live.calm.cancel()
        live.child.kill()  # what it left behind in its group
        lived = self.reactor.clock() - live.since
        code = os.waitstatus_to_exitcode(status)
        why = f"exit status {code}" if code >= 0 else f"signal {-code}"
        self.log.info("service ended", service=instance.name, why=why, lived_s=round(lived, 1))
        spec = self.specs.get(instance.name)
        if code < 0 and spec is not None and spec.if_killed and instance.now is S.RUNNING:  # not by a stop of ours
            words = [*spec.if_killed, str(SIGNALLED - code)]
            self.spawner.run(f"{instance.name}-killed", words, IF_KILLED_S, lambda _result: None)
        self.engine.send(instance.name, E.GONE, why)

    def _wait(self, instance: Instance, token: int) -> None:
        spec, tried = self.specs[instance.name], instance.attempts
        if spec.once:
            self._dismiss(instance, "it runs once")
        elif spec.tries is not None and tried >= spec.tries:
            self._report(instance, token, E.GAVE_UP, f"{tried} attempts, each of which ended within {CALM_S:g} s")
        else:
            self._report(instance, token, E.WAITED, after_s=BACK_OFF_S[min(tried, len(BACK_OFF_S) - 1)])

    def _calm(self, instance: Instance, live: _Live) -> None:
        if self._live.get(instance.name) is live:
            self.engine.send(instance.name, E.CALM)

    def _dismiss(self, instance: Instance, why: str) -> None:
        self.reactor.call_soon(lambda: self.engine.send(instance.name, E.STOP, why))

    def _stop(self, instance: Instance, token: int) -> None:
        live = self._live.get(instance.name)
        if live is None:
            self._report(instance, token, E.STOPPED)
            return
        live.child.signal(signal.SIGHUP)  # an interactive shell ignores TERM
        live.child.signal(signal.SIGTERM)
        self.reactor.call_later(self.bounds.term_grace, lambda: self._kill(instance, live))

    def _kill(self, instance: Instance, live: _Live) -> None:
        if self._live.get(instance.name) is live:  # or its cgroup holds the next process already
            live.child.kill()

    def _clear(self, instance: Instance, token: int) -> None:
        live = self._live.get(instance.name)
        if live is None:
            self._report(instance, token, E.STOPPED, "no process of this boot")
            return
        live.child.kill()
        self._report(instance, token, E.FAULT, "it was killed and has not ended yet", after_s=self.bounds.kill_grace)
