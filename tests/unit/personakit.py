"""Personas over a podman that is played: the real engine, tables, port and focus; the clock is moved by hand. Two test modules share it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from attrs import define, field
from kit import Journal, Log, Timers
from parts import Ready

from bay0.base.bounds import Bounds
from bay0.containers import life as containers
from bay0.containers.life import Means, Places
from bay0.focus.switch import Focus
from bay0.machines import MACHINES
from bay0.machines.engine import Engine
from bay0.machines.instance import Instance
from bay0.machines.persona import E, S
from bay0.personas import manifest
from bay0.personas import port as personas
from bay0.personas.port import Config, Personas
from bay0.pid1 import flow
from bay0.podman.calls import Container, Outcome, StoragePaths, Verdict
from bay0.reconcile.audit import Audit
from bay0.reconcile.clearing import Clearing
from bay0.state.link import Answer

WORK, PLAY = "p://work", "p://play"
IMAGE = "localhost/alpine:3.23"
OK = Verdict(Outcome.OK, "")


def verdict(outcome: str, why: str = "because") -> Verdict:
    return Verdict(Outcome(outcome), why)


@define(eq=False)
class Podman:
    """Remembers what it was asked; answers at once from `answers` (by verb), or holds it until `go`."""

    timers: Timers
    asked: list[tuple[Any, ...]] = field(factory=list)
    answers: dict[str, list[Verdict]] = field(factory=dict)
    held: set[str] = field(factory=set)
    waiting_calls: list[Callable[[], None]] = field(factory=list)
    there: dict[str, tuple[str, int]] = field(factory=dict)  # podman's name -> (state, exit code)
    made: int = 0
    ids: dict[str, str] = field(factory=dict)
    on_end: Callable[[str], None] = lambda _container: None  # the kernel: a removed container has no process left
    told: list[Callable[[str], None]] = field(factory=list)  # of damage

    def on_damage(self, call: Callable[[str], None]) -> None:
        self.told.append(call)

    def _answer(self, verb: str, words: tuple[Any, ...], done: Callable[[Verdict], None], otherwise: Callable[[], Verdict]) -> None:
        self.asked.append((verb, *words))

        def go() -> None:
            queued = self.answers.get(verb)
            done(queued.pop(0) if queued else otherwise())

        if verb in self.held:
            self.waiting_calls.append(go)
        else:
            self.timers.call_later(0.1, go)

    def verbs(self) -> list[str]:
        return [words[0] for words in self.asked]

    under_way = waiting = 0

    def list(self, done: Callable[[Verdict], None], *, first: bool = False) -> None:
        def listing() -> Verdict:
            rows = [Container(f"{n:064x}", (name,), state, code, 1, IMAGE, {}) for n, (name, (state, code)) in enumerate(self.there.items())]
            return Verdict(Outcome.OK, "", tuple(rows))

        self._answer("list", (), done, listing)

    def run(self, spec: Any, done: Callable[[Verdict], None], **_asker: Any) -> None:
        self._answer("run", (spec,), done, lambda: self._made(spec.name, "running"))

    def create(self, spec: Any, done: Callable[[Verdict], None], **_asker: Any) -> None:
        self._answer("create", (spec,), done, lambda: self._made(spec.name, "created"))

    def _made(self, name: str, state: str) -> Verdict:
        self.made += 1
        self.there[name] = (state, 0)
        self.ids[name] = f"{self.made:064x}"
        return Verdict(Outcome.OK, "", self.ids[name])

    def init(self, name: str, done: Callable[[Verdict], None], **_asker: Any) -> None:
        self._answer("init", (name,), done, lambda: OK)

    def start(self, name: str, done: Callable[[Verdict], None], **_asker: Any) -> None:
        def started() -> Verdict:
            self.there[name] = ("running", 0)
            return OK

        self._answer("start", (name,), done, started)

    def unpause(self, name: str, done: Callable[[Verdict], None], **_asker: Any) -> None:
        self._answer("unpause", (name,), done, lambda: OK)

    def remove(self, names: list[str], stop_s: float, done: Callable[[Verdict], None], **_asker: Any) -> None:
        def removed() -> Verdict:
            for name in names:
                self.there.pop(name, None)
                self.on_end(self.ids.pop(name, ""))
            return OK

        self._answer("remove", (tuple(names), stop_s), done, removed)

    def image_load(self, path: str, done: Callable[[Verdict], None]) -> None:
        self._answer("load", (path,), done, lambda: OK)

    def image_remove(self, name: str, done: Callable[[Verdict], None]) -> None:
        self._answer("untag", (name,), done, lambda: OK)


@define(eq=False)
class State:
    """The state port, as far as personas need it."""

    timers: Timers
    asked: list[tuple[str, dict[str, Any]]] = field(factory=list)
    answer: Answer = field(factory=lambda: Answer(value=True))
    answers: dict[str, Answer] = field(factory=lambda: {"persona_prepare": Answer(value=False)})  # by operation; `answer` for all others
    healthy: bool = True
    storage: Any = None

    def keep_out_a_crowd(self) -> None:
        """There is none."""

    def need_durable(self) -> None:
        """It is."""

    def ask(self, op: str, _bound_s: float, done: Callable[[Answer], None], **arguments: Any) -> None:
        self.asked.append((op, arguments))
        self.timers.call_later(0.01, lambda: done(self.answers.get(op, self.answer)))


class MonitorsOf:
    """Every container has one, with a pid of its own, unless something else is said of it."""

    def __init__(self) -> None:
        self.said: dict[str, int | None] = {}

    def get(self, container: str) -> int | None:
        return self.said.get(container, 1000 + int(container, 16))


class Nothing:
    """An effect port that does nothing."""

    def start(self, _instance: Instance, _effect: Any, _token: int) -> None:
        """Do nothing."""


class Doors:
    """The ways to the screen, as far as personas need them."""

    def __init__(self, hide: Callable[[str], flow.Flow[None]]) -> None:
        self.said: list[tuple[str, ...]] = []
        self.hide = hide

    def prepare(self, name: str) -> str:
        self.said.append(("prepare", name))
        return f"/doors/{name}"

    def grant(self, name: str, group: str) -> None:
        self.said.append(("grant", name, group))

    def revoke(self, name: str) -> None:
        self.said.append(("revoke", name))


class Cables:
    """The ways to sys://net, as far as personas need them. `refuses`: why none can be made."""

    def __init__(self, timers: Timers) -> None:
        self.timers = timers
        self.said: list[tuple[Any, ...]] = []
        self.refuses = ""

    def attach(self, name: str, space: str, slot: int, table: Any, resume: flow.Resume) -> None:
        self.said.append(("attach", name, space, slot, table))
        self.timers.call_later(0.3, lambda: resume(self.refuses))

    def detach(self, name: str) -> None:
        self.said.append(("detach", name))


class Bench:
    """The real engine, tables and port; podman, the state worker, the cgroups and the clock are played."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.timers, self.log, self.journal = Timers(), Log(), Journal()
        self.podman, self.state = Podman(self.timers), State(self.timers)
        self.cgroups: dict[str, SimpleNamespace] = {}
        self.exits: dict[str, int] = {}
        self.killed: list[str] = []
        self.user: tuple[int, int] | None = (1000, 1001)
        self.conmons = MonitorsOf()
        self.owned: dict[int, Callable[[int], None]] = {}
        self.exposed: list[int] = []
        self.frozen_above: set[str] = set()  # groups that stand still with one above them, whatever they are told
        self.watched: dict[str, Callable[[], None]] = {}
        monkeypatch.setattr(personas.cgroup, "populated", lambda path: self.group(path).populated)
        self.freeze_lag_s: float | None = 0.02  # from a write to the kernel's word; None: a process of it waits for a disk
        self.unwritable = ""  # why cgroup.freeze cannot be written
        self.written: list[tuple[str, bool]] = []  # to cgroup.freeze, by bay0
        monkeypatch.setattr(personas.cgroup, "frozen", lambda path: self.group(path).frozen or path in self.frozen_above)
        monkeypatch.setattr(personas.cgroup, "told_to_freeze", lambda path: self.group(path).told)
        monkeypatch.setattr(personas.cgroup, "freeze", self._write)
        monkeypatch.setattr(personas.cgroup, "kill", self.killed.append)
        monkeypatch.setattr(personas, "user_of", lambda _container: self.user)
        monkeypatch.setattr(containers, "exit_status", self.exits.get)
        monkeypatch.setattr(containers, "monitor", self.conmons.get)
        monkeypatch.setattr(containers, "expose_monitor", self.exposed.append)
        watch: Any = SimpleNamespace(add=self.watched.__setitem__, remove=lambda path: self.watched.pop(path, None))
        places = Places("/homes", "/logs", StoragePaths("/g", "/s", "/v", "/t"))
        self.engine = engine = Engine("boot-1", self.timers, lambda: int(self.timers.now * 1000), self.log)
        engine.keep_with(self.journal)
        self.boot = engine.add("boot:this", MACHINES["boot"])
        self.umbilical: Any = SimpleNamespace()
        self.hidden: list[str] = []  # who was taken off the screen
        self.hide_s: float | None = None  # how long that takes; None: it is not waited for
        self.door: Any = Doors(self._hide)
        self.doors: Any = Ready(lambda: self.door)
        self.ways: Any = Ready(lambda: self.umbilical)
        timers: Any = self.timers
        podman: Any = self.podman
        state: Any = self.state
        self.clearing = Clearing(timers, podman)
        self.audit = Audit(engine, timers, self.log, state, podman, self.clearing, self.boot)
        log: Any = self.log
        self.means = Means(engine, timers, Bounds(), log, state, podman, watch, places, self.clearing, self.audit)
        self.copies: Any = None  # who tests copies puts them here
        self.cables = Cables(self.timers)
        self.port = Personas(
            self.means, self.boot, lambda: {IMAGE: "/images/alpine.tar"}, self.ways, self.owned.__setitem__,
            doors=self.doors, copies=Ready(lambda: self.copies), cables=Ready(lambda: self.cables),  # type: ignore[arg-type]
        )  # fmt: skip
        self.focus = Focus(engine, timers, log, self.port.runs_behind)
        engine.serve("boot", Nothing())
        engine.serve("persona", self.port)
        engine.serve("focus", self.focus)
        self.podman.on_end = lambda container: setattr(self.group(self.path(container)), "populated", False)

    @staticmethod
    def path(container: str) -> str:
        return f"{personas.cgroup.ROOT}/personas/libpod-{container}"

    def group(self, path: str) -> SimpleNamespace:
        return self.cgroups.setdefault(path, SimpleNamespace(populated=True, told=False, frozen=False))

    def _hide(self, name: str) -> flow.Flow[None]:
        self.hidden.append(name)
        if self.hide_s is not None:
            yield lambda resume: self.timers.call_later(self.hide_s or 0, lambda: resume(None))

    def _write(self, path: str, *, frozen: bool) -> str:
        """Write cgroup.freeze, as bay0 does."""
        if not self.unwritable:
            self.written.append((path, frozen))
            self.freezes(path, frozen=frozen)
        return self.unwritable

    def freezes(self, path: str, *, frozen: bool) -> None:
        """Write it by hand, or by podman: it is done, and seen, a moment later."""
        group = self.group(path)
        group.told = frozen
        if not frozen or self.freeze_lag_s is not None:
            self.timers.call_later(self.freeze_lag_s or 0.0, lambda: self._done(path))

    def _done(self, path: str) -> None:
        group = self.group(path)
        if group.frozen is not group.told:
            group.frozen = group.told
            self.watched.get(path, lambda: None)()

    def persona(self, name: str = WORK, **keys: Any) -> Instance:
        instance = self.engine.add(name, MACHINES["persona"])
        wanted = manifest.from_wire({"image": IMAGE, "home": "/home/me", **keys})
        self.engine.send(name, E.CREATE, config=Config(wanted, len(self.engine.instances)).text())
        return instance

    def send(self, event: E, name: str = WORK, seconds: float = 3) -> S:
        self.engine.send(name, event)
        return self.wait(seconds, name)

    def wait(self, seconds: float, name: str = WORK) -> S:
        self.timers.advance(seconds)
        return self.engine.instances[name].now  # type: ignore[return-value]

    def running(self, name: str = WORK, **keys: Any) -> str:
        """Make one that runs; return its cgroup."""
        self.persona(name, **keys)
        assert self.send(E.START, name) is S.RUNNING
        return self.path(str(self.port.container(name)))

    def dies(self, path: str, status: int | None) -> None:
        """Its processes end; conmon writes down how, unless it was killed too."""
        self.group(path).populated = False
        if status is not None:
            self.exits[path.rpartition("libpod-")[2]] = status
        self.watched[path]()

    def why(self) -> str:
        return self.journal.steps[-1].why
