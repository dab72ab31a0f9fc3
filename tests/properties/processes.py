"""Processes in the simulated machine: the tenants', the spawner that starts all, sysrq."""

from __future__ import annotations

import functools
import itertools
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from attrs import define, field
from stateworker import SimWorker

from bay0.base.errors import SpawnError
from bay0.effects import power
from bay0.effects.spawn import Ending, Result
from bay0.state import worker
from bay0.state.slotcalls import ENTRY

if TYPE_CHECKING:
    from clock import SimReactor
    from world import World


@define(eq=False)
class SimProcess:
    """A tenant's process."""

    world: World
    name: str
    on_exit: Callable[[int], None]
    pid: int = 0
    ended: bool = False

    def signal(self, number: int) -> None:
        if not self.world.stubborn:
            self.world.spine.reactor.call_later(0.05, functools.partial(self.end, number))

    def kill(self) -> None:
        if not self.world.unkillable:
            self.world.spine.reactor.call_later(0.001, functools.partial(self.end, 9))

    def end(self, status: int) -> None:
        if not self.ended:
            self.ended = True
            self.world.processes.remove(self)
            self.on_exit(status)

    @property
    def left(self) -> bool:
        return not self.ended


@define(eq=False)
class SimSpawner:
    """Starts modelled processes; the state worker is one of them."""

    world: World
    running: int = 0
    abandoned: int = 0
    closed: bool = False
    ceilings: dict[str, str] = field(factory=dict)

    @property
    def reactor(self) -> SimReactor:
        return self.world.spine.reactor  # type: ignore[no-any-return]

    def describe(self) -> dict[str, int]:
        return {}

    def bound(self, _limits: dict[str, str]) -> None:
        """There are no cgroups of commands."""

    def close(self) -> None:
        self.closed = True
        self.world.podman.close()

    def fork(
        self, name: str, main: Callable[[], int], on_exit: Callable[[int], None], *, group: str, keep: int
    ) -> SimWorker | None:
        world = self.world
        if name == "power":
            main()
            return None
        if world.spawn_fails:
            raise SpawnError("fork: Resource temporarily unavailable")
        if name == "sync":
            world.soon(lambda: on_exit(main()))
            return None
        world.checks.worker_starts(world.workers)
        peer = socket.socket(fileno=os.dup(keep))
        peer.setblocking(False)
        worker._staged.clear()
        worker._failed.clear()
        worker._commits = itertools.count(1)
        made = SimWorker(world, peer, lambda: on_exit(9))
        world.workers.append(made)
        return made

    def run(
        self,
        name: str,
        argv: Any,
        deadline_s: float,
        done: Callable[[Result], None],
        env: Any = None,
        *,
        capture: int = 0,
    ) -> Callable[[], None]:
        if self.closed:
            self.world.soon(lambda: done(Result(Ending.EXITED, 126, "", "the spine is going down", 0, 0.0)))
            return lambda: None
        if name == "copy-home":
            return self.world.copies.run(argv, deadline_s, done)
        if argv[0] == "podman":
            self.world.checks.podman_called(list(argv))
            self.world.podman.run(argv, deadline_s, done)
            return lambda: None
        if ENTRY in argv:
            self.world.slots.run(argv, done)
            return lambda: None
        hangs = self.world.modprobe_hangs
        result = Result(Ending.TIMED_OUT if hangs else Ending.EXITED, -15 if hangs else 0, "", "", 0, 0.0)
        self.world.spine.reactor.call_later(deadline_s if hangs else 0.01, lambda: done(result))
        return lambda: None

    def start(
        self, name: str, _argv: Any, on_exit: Callable[[int], None], keep: int | None = None, **_options: Any
    ) -> SimProcess:
        if self.world.spawn_fails:
            raise SpawnError("posix_spawn: Resource temporarily unavailable")
        self.world.seam("before start")
        process = SimProcess(self.world, name, on_exit)
        self.world.processes.append(process)
        if keep is not None and not self.world.screen.process_starts(process, keep):
            self.world.grants.process_starts(process, keep)
        return process


class SimSysrq(power.Sysrq):
    """Ends the modelled machine, whatever the word."""

    def open(self) -> None:
        """Nothing to open."""

    def __init__(self, end: Callable[[str], NoReturn]) -> None:
        super().__init__()
        self.end = end

    def __call__(self, word: str) -> bool:
        self.end(word)
