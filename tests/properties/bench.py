"""Reconcile alone: the real stages' reconcile, engine, tables, personas, clearing and podman's adapter over the modelled podman, without SQLite.

A `World` boots a whole spine; a `Bench` does what a boot does with stored rows and a podman, and a hundred times as often. Its seams are those of
podman (before, in and after each command) and both sides of each commit. What was committed is what the next boot finds.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Self

import pytest
from attrs import define
from disk import Crash
from kernel import Kernel, SimWatch
from parts import Ready
from podman import AI_ARCHIVE, ARCHIVE, IMAGE, Podman
from umbilical import SimUmbilical, view

import bay0.ai.port
import bay0.machines.engine
import bay0.personas.port
from bay0.ai.port import Servers
from bay0.base import names
from bay0.base.bounds import Bounds
from bay0.boot.autostart import Autostart
from bay0.containers.life import Means, Places
from bay0.effects.spawn import Ending, Result
from bay0.machines import MACHINES
from bay0.machines.boot import S as BootS
from bay0.machines.engine import Acceptance, Engine, build
from bay0.machines.instance import Step
from bay0.net.cables import Cables
from bay0.net.port import Net
from bay0.net.scripts import Scripts
from bay0.personas import copyduties, manifest
from bay0.personas.copies import Copies
from bay0.personas.port import Config, Personas
from bay0.personas.snapshots import Snapshots
from bay0.pid1.reactor import Reactor
from bay0.podman import argv as podman_argv
from bay0.podman import calls as adapter
from bay0.reconcile.audit import Audit
from bay0.reconcile.clearing import Clearing
from bay0.reconcile.mending import Mending
from bay0.reconcile.replay import Replay
from bay0.state.link import Answer
from bay0.tenants.port import Services

FAST_DIR = "/dev/shm" if os.path.isdir("/dev/shm") else None
LIMIT_S = 150.0  # no recovery from one vice may take longer
QUIET = SimpleNamespace(**dict.fromkeys(("debug", "info", "warning", "error"), lambda *_a, **_k: None))
NAME, PODMAN_NAME = "p://work", "p__work"
AI, PODMAN_AI = "sys://ai", "sys__ai"


BUILT = functools.cache(lambda kind: build(MACHINES[kind]))  # takes longer than a recovery
MACHINE_OF = lambda definition: BUILT(definition.kind)
CONFIG = functools.cache(lambda changes: Config(manifest.Manifest(image=IMAGE, **dict(changes)), 0).text())


class NoDescriptors:
    """A selector in which only time passes."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    def get_map(self) -> dict[int, Any]:
        return {}

    def select(self, timeout: float | None) -> list[Any]:
        if timeout:
            self.bench.now += timeout
        return []


@define(eq=False)
class Rows:
    """The journal port and the worker, on a database that is a dict; it keeps what it is told."""

    bench: Bench
    boot_id: str
    stored: list[dict[str, Any]]
    healthy: bool = True
    storage: Any = None

    def admits(self, *_: object) -> None:
        return None

    def commit(self, step: Step, _row: Any, done: Callable[[Acceptance], None]) -> None:
        bench = self.bench
        bench.seam(f"before {step.event}")
        row = bench.rows.setdefault(step.machine, {"name": step.machine, "kind": step.kind, "config": ""})
        row.update(state=step.dest, seq=step.seq, attempts=step.attempts, desired=step.desired, boot_id=step.boot_id)
        row["config"] = row["config"] if step.config is None else step.config
        bench.steps.append(step)
        bench.seam(f"after {step.event}")
        bench.soon(lambda: done(Acceptance.DURABLE))

    def ask(self, op: str, _bound_s: float, done: Callable[[Answer], None], **_arguments: Any) -> None:
        self.bench.seam(f"before {op}")
        if op == "containers_aside":
            shutil.rmtree(self.bench.podman.store)
            os.makedirs(f"{self.bench.podman.store}/tmp")
        values = {
            "containers_prepare": {"used": True}, "ai_archive": AI_ARCHIVE if self.bench.ai_archive else None, "ai_model": {"size": 1 << 20},
            "persona_prepare": self.bench.new_homes,
        }  # fmt: skip
        self.bench.soon(lambda: done(Answer(values.get(op, True))))

    def taken_over(self) -> None:
        self.stored = []

    def append_genesis(self, _lines: list[str]) -> None:
        pass


@define(eq=False)
class Commands:
    """The spawner."""

    bench: Bench

    @property
    def reactor(self) -> Reactor:
        return self.bench.reactor

    def run(self, _name: str, argv: Any, deadline_s: float, done: Callable[[Result], None], env: Any = None, capture: int = 0) -> None:
        if self.bench.no_podman:
            self.bench.soon(lambda: done(Result(Ending.EXITED, 127, "", "/bin/sh: exec: podman: not found", 0, 0.0)))
        else:
            self.bench.podman.run(argv, deadline_s, done)


class Bench:
    """One set of stored rows and one podman, over any number of boots. Use as a context manager; `reset` makes it new."""

    def __init__(self) -> None:
        self.more_ports: Callable[[Engine, Reactor, Any], dict[str, Any]] = lambda *_: {}  # of further kinds
        self.folder = tempfile.mkdtemp(prefix="bay0-bench-", dir=FAST_DIR)
        self.patch = pytest.MonkeyPatch()
        self.engine: Any = None
        self.kernel = Kernel(self, os.path.join(self.folder, "cgroup"))  # type: ignore[arg-type]
        self.disk = SimpleNamespace(wedged=False, unplugged=False, present=True, full=False)
        self.homes = SimpleNamespace(used=lambda _path: None)
        self.screen = SimpleNamespace(begins=lambda *_: None)  # of which a container knows its sockets
        self.checks = SimpleNamespace(note_foreign=lambda: None)
        self.reset()

    def __enter__(self) -> Self:
        os.makedirs(f"{self.folder}/exits")
        self.kernel.install(self.patch)
        self.patch.setattr(podman_argv, "EXITS", f"{self.folder}/exits")
        self.patch.setattr(bay0.personas.port, "user_of", lambda _container: (os.getuid(), os.getgid()))
        self.patch.setattr(bay0.machines.engine, "build", MACHINE_OF)
        self.patch.setattr(bay0.ai.port.kernelview, "look", lambda directory: view(self.servers, directory, self.wrong))
        self.patch.setattr(bay0.ai.port.Ends, "watch", lambda *_: None)
        return self

    def __exit__(self, *_: object) -> None:
        self._unwire()
        self.patch.undo()
        shutil.rmtree(self.folder, ignore_errors=True)

    def reset(self) -> None:
        """Forget everything."""
        self.now, self.boots, self.seams = 1.0, 0, 0
        self.crash_at: int | None = None
        self.crash_on: str | None = None
        self.no_podman = False
        self.ai_archive, self.cold, self.wrong = True, False, {}
        self.new_homes = False  # a home is given to its user as it is made: podman creates, prepares and starts in three calls
        self.rows: dict[str, dict[str, Any]] = {}
        self.steps: list[Step] = []
        self.podman = Podman(self, f"{self.folder}/containers", f"{self.folder}/exits")  # type: ignore[arg-type]
        for name in ("storage", "tmp"):
            os.makedirs(f"{self.folder}/containers/{name}", exist_ok=True)
        with open(f"{self.folder}/containers/storage/db.sql", "w", encoding="ascii"):
            pass
        self.kernel.groups.clear()
        self.kernel.watches.clear()

    def store(self, kind: str, name: str, state: str, *, attempts: int = 0, desired: str = "running", **changes: Any) -> None:
        """Let the database hold one machine."""
        config = CONFIG(tuple(sorted(changes.items()))) if kind == "persona" else json.dumps(changes) if changes else ""
        self.rows[name] = {
            "name": name, "kind": kind, "state": state, "seq": 7, "attempts": attempts, "desired": desired, "config": config, "boot_id": "earlier",
        }  # fmt: skip

    # ---- what the models ask of a world

    def seam(self, name: str) -> None:
        self.seams += 1
        if self.seams == self.crash_at or name == self.crash_on:
            raise Crash(name)

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        self.reactor.call_later(seconds, call)

    def soon(self, call: Callable[[], None]) -> None:
        self.reactor.call_soon(call)

    # ---- boots

    def boot(
        self, *, crash_at: int | None = None, crash_on: str | None = None, complete: bool = False, until: Callable[[], bool] | None = None
    ) -> bool:
        """Reconcile, until everything is at rest (or `until`) or LIMIT_S are over; tell whether it did not crash, at a seam's number or on its name.

        `complete`: init is complete, so that what is marked so starts.
        """
        self.boots += 1
        self.seams, self.crash_at, self.crash_on = 0, crash_at, crash_on
        self._wire()
        self.boot_machine.state = BootS.COMPLETE if complete else BootS.RECONCILING
        end = self.now + LIMIT_S
        try:
            self.replay.begin()
            while self.now < end and not (self.rests() if until is None else until()):
                self.reactor.turn(1.0)
        except Crash:
            return False
        finally:
            self.crash_at = self.crash_on = None
        return True

    def go_on(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.reactor.turn(1.0)

    def cut(self, kept: float = 1.0) -> None:
        self.podman.power_cut(kept)
        if self.kernel.groups:
            self.kernel.power_cut()

    def _unwire(self) -> None:
        self.engine = None

    def _wire(self) -> None:
        self._unwire()
        boot_id = f"{self.boots:08x}-bench"
        self.reactor = Reactor(clock=lambda: self.now, selector=NoDescriptors(self))  # type: ignore[arg-type]
        state: Any = Rows(self, boot_id, [dict(row) for row in self.rows.values()])
        bounds, spawner = Bounds(), Commands(self)
        podman = adapter.Podman(spawner, bounds, QUIET)  # type: ignore[arg-type]
        places: Any = Places(*("/nowhere" for _ in Places.__attrs_attrs__))
        self.engine = engine = Engine(boot_id, self.reactor, lambda: int(self.now * 1000), QUIET)
        self.boot_machine = engine.add(f"boot:{boot_id[:8]}", MACHINES["boot"])
        self.clearing = Clearing(self.reactor, podman)
        audit = Audit(engine, self.reactor, QUIET, state, podman, self.clearing, self.boot_machine)
        watch: Any = SimWatch(self.kernel)
        means = Means(engine, self.reactor, bounds, QUIET, state, podman, watch, places, self.clearing, audit)
        ways: Any = Ready(lambda: self.umbilical)
        doors: Any = Ready(object, there=False)  # no persona of the world has a way to the screen, or to a network
        own = lambda _monitor, _ended: None  # here monitors live as long as their containers
        # as at a boot: whoever asked for a copy is gone, and so is the process
        copies: Any = Ready(lambda: Copies(means, self.personas.life, SimpleNamespace(), lambda *_: lambda: None, lambda: None))  # type: ignore[arg-type]
        self.personas = Personas(means, self.boot_machine, lambda: {IMAGE: ARCHIVE}, ways, own, doors=doors, copies=copies, cables=doors)
        self.servers = Servers(means, self.boot_machine, ways)
        self.umbilical = SimUmbilical(self.later, self.folder, cold=self.cold)
        services = Services(engine, self.reactor, spawner, bounds, QUIET)  # type: ignore[arg-type]
        mending = Mending(self.reactor, bounds, QUIET, podman, state, self.personas.life.lives, audit.soon)
        there: Any = Ready(lambda: self.servers)
        self.replay = Replay(engine, self.reactor, bounds, QUIET, state, self.boot_machine, self.clearing, audit, mending, lambda: None, there)
        Autostart(engine, self.reactor, QUIET, self.boot_machine, self.replay, self.personas, there, mending)
        engine.keep_with(state)
        nothing = SimpleNamespace(start=lambda *_: None)
        scripts = Scripts(spawner.run, bounds)
        laid = Cables(self.reactor, QUIET, scripts)
        net = Net(engine, self.reactor, bounds, QUIET, services, self.boot_machine, lambda _name: 0, scripts, laid, "/nowhere")
        ports: dict[str, Any] = {
            "persona": self.personas, "server": self.servers, "tenant": services, "focus": nothing, "boot": nothing, "net": net,
        }  # fmt: skip
        ports["snapshot"] = Snapshots(means, copies())
        copyduties.forget_snapshots(engine, self.reactor)
        for kind, port in {**ports, **self.more_ports(engine, self.reactor, QUIET)}.items():
            engine.serve(kind, port)

    def rests(self) -> bool:
        """Reconcile has read what is there, nothing is owed and podman is idle."""
        live = [each for each in self.engine.instances.values() if each is not self.boot_machine]
        return (
            self.replay.known
            and not (self.podman.under_way or self.podman.late or self.clearing._busy)
            and not (self.haunted() or self.personas._waiting or self.servers._waiting)
            and all(i.pending is None and i.definition.spec(i.now).busy is None for i in live)
        )

    def haunted(self) -> bool:
        """Tell whether there is a container under our names that no persona has."""
        ours_too = (*self.engine.of_kind("persona"), *self.engine.of_kind("server"))
        has = [i.name for i in ours_too if i.now.value not in ("stopped", "absent", "failed")]
        ours = {found.semantic for name, c in self.podman.containers.items() if (found := names.from_podman(name)) and not c.external}
        return bool(ours - set(has))

    def state(self, name: str = NAME) -> str:
        return str(self.rows[name]["state"])

    def wanted(self, name: str = NAME) -> str:
        return str(self.rows[name]["desired"])


def config_of(row: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(row["config"])["manifest"]
    return found


__all__ = ["AI", "LIMIT_S", "MACHINES", "NAME", "PODMAN_AI", "PODMAN_NAME", "Bench", "config_of"]
