"""Copies and snapshots in the modelled world: the real copier on real directories, as a modelled process; and what holds of each at any time."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import asdict, define, field
from broken import hold

from bay0.base import names
from bay0.base.errors import RefusedError
from bay0.effects.spawn import Ending, Result
from bay0.machines import snapshot
from bay0.state import copier, copying, export, staging, tarstream, unpack

if TYPE_CHECKING:
    from world import World

COPY = "p://copy"
FILES = 4  # that are planted in a home that is to be copied
TAKES_S = 0.25  # before it begins to write, and again before it ends


def _copy(job: copier.Job) -> dict[str, Any]:
    return asdict(copier.copy(job))


@define(eq=False)
class SimCopy:
    """The process: it can be ended before it writes, and before anybody hears that it has written all."""

    world: World
    make: Callable[[], dict[str, Any]]
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
            made = self.make()
        except (OSError, RefusedError) as error:
            self.finish(Result(Ending.EXITED, 1, "", str(error), 0, TAKES_S))
            return
        self.world.later(TAKES_S, lambda: self.finish(Result(Ending.EXITED, 0, json.dumps(made), "", 0, TAKES_S)))

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
        for module in (staging, copier, unpack):
            for name in ("HOMES", "SNAPSHOTS", "STAGING"):
                if hasattr(module, name):
                    setattr_(module, name, os.path.join(folder, name.lower()))
        move = staging._move

        def moved(*words: str) -> None:
            move(*words)
            self.world.seam("after a move")

        setattr_(staging, "_move", moved)
        setattr_(copier.Meter, "look", lambda _meter, _copy: self.world.seam("in a copy"))

    def run(self, argv: Any, deadline_s: float, done: Callable[[Result], None]) -> Callable[[], None]:
        words = json.loads(argv[-1])
        make = partial(unpack.unpack, unpack.Job(**words)) if copying.UNPACK in argv else partial(_copy, copier.Job(**words))
        process = self.last = SimCopy(self.world, make, deadline_s, done)
        process.begin()
        return process.end

    def has_just_begun(self) -> bool:
        """What is asked now is done long before the copy that is under way."""
        return self.last is not None and not self.last.over and self.world.now - self.last.since < TAKES_S

    def plant(self, name: str, what: str = "first") -> None:
        """Put files into a home; `what`: they all say so."""
        home = os.path.join(self.world.homes.folder, names.parse(name).podman)
        if os.path.isdir(home):
            for number in range(FILES):
                with open(os.path.join(home, f"file{number}"), "w", encoding="ascii") as file:
                    file.write(what)
            self.planted = True

    def archive(self, name: str, cut: int = 0) -> str:
        """Write a home into an archive, without its last `cut` bytes; return its path."""
        path = os.path.join(self.world.disk.folder, "archive.tar")
        home = os.open(os.path.join(self.world.homes.folder, names.parse(name).podman), os.O_RDONLY | os.O_DIRECTORY)
        try:
            with open(path, "wb") as file:
                writer = tarstream.Writer(file.write)
                made = export.Export(writer)
                made.about({"name": name}, home)
                made.home(home)
                writer.end()
                file.flush()
                os.truncate(path, file.tell() - cut)
        finally:
            os.close(home)
        return path

    def whole_or_not_there(self) -> None:
        """At any time."""
        home = os.path.join(self.world.homes.folder, names.parse(COPY).podman)
        if not self.planted or not os.path.isdir(home):
            return
        there = {name for name in os.listdir(home) if name.startswith("file")}
        hold(len(there) == FILES, f"half a copy is in its place: {sorted(there)}")

        self._snapshots_are_whole()

    def _snapshots_are_whole(self) -> None:
        for name in self.snapshots():
            there = [each for each in os.listdir(os.path.join(self.folder("snapshots"), name)) if each.startswith("file")]
            hold(len(there) == FILES, f"half a snapshot is in its place: {name}")
            hold(len(self.says("snapshots", name)) == 1, f"the files of {name} are of two times")

    def folder(self, what: str) -> str:
        return os.path.join(self.world.disk.folder, what)

    def snapshots(self) -> list[str]:
        """Return what lies in the place of snapshots."""
        folder = self.folder("snapshots")
        return sorted(os.listdir(folder)) if os.path.isdir(folder) else []

    def says(self, where: str, name: str) -> set[str]:
        """Return what the planted files of a home say."""
        found = set()
        for number in range(FILES):
            path = os.path.join(self.folder(where), name, f"file{number}")
            with open(path, encoding="ascii") if os.path.exists(path) else open(os.devnull, encoding="ascii") as file:
                found.add(file.read())
        return found

    def moved_away(self, name: str) -> bool:
        """Tell whether a home is beside its place, since another one is about to have it."""
        return os.path.exists(os.path.join(self.folder("staging"), name, staging.OLD, "data"))

    def goes_back(self, name: str, manifests: dict[str, str]) -> None:
        """One that was at two times is, at rest, all of one of them: its files as its manifest. `manifests`: description -> what files say."""
        instance = self.world.spine.engine.instances[name]
        says = self.says("homes", names.parse(name).podman)
        told = json.loads(instance.config)["manifest"].get("description", "")
        hold(says == {manifests[told]}, f"{name} is {instance.now.value}, its manifest is that of {manifests[told]!r} and its files say {says}")

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
        self._snapshots_are_known()
        folder = os.path.join(self.world.disk.folder, "staging")
        left = os.listdir(folder) if os.path.isdir(folder) else []
        hold(not left, f"copies are left beside their places: {left}")
        home = os.path.join(self.world.homes.folder, names.parse(COPY).podman)
        state = self.world.state_of(COPY)
        owned = state is not None and state.value != "absent"
        hold(owned or not os.path.isdir(home) or COPY in self.removed(), f"there is no {COPY}, and a home of it")

    def _snapshots_are_known(self) -> None:
        live = {names.snapshot(i.name).podman: i for i in self.world.spine.engine.of_kind("snapshot")}
        odd = [i.name for i in live.values() if i.now is not snapshot.S.KEPT]
        hold(not odd, f"snapshots are neither kept nor gone: {odd}")
        hold(sorted(live) == self.snapshots(), f"there are the snapshots {sorted(live)}, and on the disk {self.snapshots()}")

    def removed(self) -> set[str]:
        """Return who was removed after being there: a home is kept then."""
        steps = self.world.checks.steps.values()
        return {step.machine for step in steps if step.event == "remove"}
