"""Copies in the modelled world: the real copier on the homes' real directories, as a modelled process; and what holds of each at any time."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from attrs import asdict, define, field
from broken import hold

from bay0.base import names
from bay0.effects.spawn import Ending, Result
from bay0.state import copier, staging

if TYPE_CHECKING:
    from world import World

COPY = "p://copy"
FILES = 4  # that are planted in a home that is to be copied
TAKES_S = 0.25  # before it begins to write, and again before it ends


@define(eq=False)
class SimCopy:
    """The process: it can be ended before it writes, and before anybody hears that it has written all."""

    world: World
    job: copier.Job
    deadline_s: float
    done: Callable[[Result], None]
    over: bool = False
    since: float = 0.0

    def begin(self) -> None:
        self.since = self.world.now
        reactor = self.world.spine.reactor
        reactor.call_later(TAKES_S, self.work)
        reactor.call_later(self.deadline_s, self.end)

    def work(self) -> None:
        disk = self.world.disk
        if self.over:
            return
        if disk.wedged or disk.unplugged:
            self.world.later(0.5, self.work)
            return
        try:
            if disk.full or disk.readonly:
                raise OSError(28, "No space left on device")
            made = copier.copy(self.job)
        except OSError as error:
            self.finish(Result(Ending.EXITED, 1, "", str(error), 0, TAKES_S))
            return
        self.world.later(TAKES_S, lambda: self.finish(Result(Ending.EXITED, 0, json.dumps(asdict(made)), "", 0, TAKES_S)))

    def end(self) -> None:
        if not self.over and self.world.spine is not None:  # else the power is off, and what is left of the program is thrown away
            self.over = True
            self.world.later(0.01, lambda: self.done(Result(Ending.TIMED_OUT, -15, "", "", 0, TAKES_S)))

    def finish(self, result: Result) -> None:
        if not self.over:
            self.over = True
            self.done(result)


@define(eq=False)
class Copies:
    """The copies of one world. A home that is copied holds `FILES` files; a copy has all of them as soon as it is in its place."""

    world: World
    planted: bool = field(init=False, default=False)
    last: SimCopy | None = field(init=False, default=None)

    def install(self, setattr_: Callable[..., None]) -> None:
        folder = self.world.disk.folder
        for module in (staging, copier):
            setattr_(module, "HOMES", os.path.join(folder, "homes"))
            setattr_(module, "STAGING", os.path.join(folder, "staging"))
        setattr_(copier.Meter, "look", lambda _meter, _copy: self.world.seam("in a copy"))

    def run(self, argv: Any, deadline_s: float, done: Callable[[Result], None]) -> Callable[[], None]:
        process = self.last = SimCopy(self.world, copier.Job(**json.loads(argv[-1])), deadline_s, done)
        process.begin()
        return process.end

    def has_just_begun(self) -> bool:
        """What is asked now is done long before the copy that is under way."""
        return self.last is not None and not self.last.over and self.world.now - self.last.since < TAKES_S

    def plant(self, name: str) -> None:
        """Put files into a home."""
        home = os.path.join(self.world.homes.folder, names.parse(name).podman)
        if os.path.isdir(home):
            for number in range(FILES):
                with open(os.path.join(home, f"file{number}"), "w", encoding="ascii") as file:
                    file.write(str(number))
            self.planted = True

    def whole_or_not_there(self) -> None:
        """At any time."""
        home = os.path.join(self.world.homes.folder, names.parse(COPY).podman)
        if not self.planted or not os.path.isdir(home):
            return
        there = {name for name in os.listdir(home) if name.startswith("file")}
        hold(len(there) == FILES, f"half a copy is in its place: {sorted(there)}")

    def answered(self, result: dict[str, Any]) -> None:
        """Somebody was told that the copy is there."""
        if not result["copied"]["entries"]:
            return
        home = os.path.join(self.world.homes.folder, names.parse(result["name"]).podman)
        hold(os.path.isdir(home), f"the copy {result['name']} was told to be there, and its home is not")
        if os.path.exists(os.path.join(home, "data")):
            self.world.homes.kept.add(os.path.basename(home))

    def settled(self) -> None:
        """Nothing is left beside any place."""
        folder = os.path.join(self.world.disk.folder, "staging")
        left = os.listdir(folder) if os.path.isdir(folder) else []
        hold(not left, f"copies are left beside their places: {left}")
        home = os.path.join(self.world.homes.folder, names.parse(COPY).podman)
        state = self.world.state_of(COPY)
        owned = state is not None and state.value != "absent"
        hold(owned or not os.path.isdir(home) or COPY in self.removed(), f"there is no {COPY}, and a home of it")

    def removed(self) -> set[str]:
        """Return who was removed after being there: a home is kept then."""
        steps = self.world.checks.steps.values()
        return {step.machine for step in steps if step.event == "remove"}
