"""Copies and snapshots over the shared bench of personas: the process that copies is played."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from kit import Known
from personakit import WORK, Bench

from bay0.base.bounds import Bounds
from bay0.base.errors import RefusedError
from bay0.boot.trash import Trash
from bay0.control.outcomes import Outcomes
from bay0.effects.spawn import Ending, Result
from bay0.machines import MACHINES
from bay0.machines.boot import S as Boot
from bay0.machines.focus import NAME as FOCUS
from bay0.personas import copyduties
from bay0.personas.copies import Copies
from bay0.personas.methods import PersonaVerbs
from bay0.personas.snapshots import Snapshots
from bay0.state.link import Answer

NEW = "p://new"


class Desk:
    """The methods over the shared bench; the copier's process is played."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        timers: Any = bench.timers
        state: Any = bench.state
        state.answers.update(staging_clear=Answer(value=[]), trash_sweep=Answer(value=False), trash_left=Answer(value=[]))
        state.storage = bench.engine.add("storage:this", MACHINES["storage"])
        bench.engine.serve("storage", SimpleNamespace(start=lambda *_: None))
        bench.engine.add(FOCUS, MACHINES["focus"])
        boot: Any = SimpleNamespace(now=Boot.COMPLETE)
        self.trash = Trash(bench.engine, timers, Bounds(), bench.log, state, boot, lambda: True)
        replay: Any = Known()
        outcomes = Outcomes(bench.engine, timers, Bounds())
        self.verbs = PersonaVerbs(bench.engine, timers, Bounds(), state, boot, bench.port, replay, outcomes, self.trash.sweep)
        self.jobs: list[tuple[Any, ...]] = []
        self.ended: list[str] = []
        bench.copies = self.copies = Copies(bench.means, bench.port.life, self.verbs, self.run, self.trash.sweep)
        self.snapshots = Snapshots(bench.means, self.copies, lambda: 1_800_000_000.5)
        bench.engine.serve("snapshot", self.snapshots)
        copyduties.forget_snapshots(bench.engine, timers)

    def run(self, name: str, argv: tuple[str, ...], deadline_s: float, done: Callable[[Result], None]) -> Callable[[], None]:
        self.jobs.append((json.loads(argv[-1]), deadline_s, done))
        return lambda: self.ended.append(name)

    def ends(self, status: int = 0, out: str = '{"entries": 7, "bytes": 900}', err: str = "") -> None:
        self.jobs[-1][2](Result(Ending.EXITED, status, out, err, 0, 1.0))
        self.bench.timers.advance(1)

    def clone(self, source: str = WORK, name: str = NEW, seconds: float = 1) -> list[Any]:
        answers: list[Any] = []
        try:
            self.copies.clone({"source": source, "name": name}, answers.append)
        except RefusedError as refusal:
            answers.append(refusal)
        self.bench.timers.advance(seconds)
        return answers

    def ask(self, method: str, seconds: float = 1, **params: Any) -> list[Any]:
        """Ask one of the methods of snapshots; return its answers."""
        answers: list[Any] = []
        try:
            getattr(self.snapshots, method)(params, answers.append)
        except (RefusedError, TypeError) as refusal:
            answers.append(refusal)
        self.bench.timers.advance(seconds)
        return answers

    def now(self, name: str) -> Any:
        instance = self.bench.engine.instances.get(name)
        return None if instance is None else instance.now
