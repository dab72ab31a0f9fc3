"""Time and seed over any power cut and any failing call: the clock never goes back, no seed is credited twice. The worker's real code."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from attrs import define, field
from conftest import Size
from parts import Steps
from platter import FOLDER, Cut, Platter, PowerCut

from bay0.base.bounds import Bounds
from bay0.boot.continuity import Continuity, SavedClock
from bay0.machines.boot import S as Boot
from bay0.machines.storage import S as Storage
from bay0.state import entropy, files, time, worker

TIME, SEED = f"{FOLDER}/time", f"{FOLDER}/seed"
BUILD = 1_760_000_000
RTC = 5.0  # a machine without a battery begins in 1970
Patch = pytest.MonkeyPatch


class Wrong(BaseException):
    """An invariant does not hold. Not an Exception: the worker turns those into answers."""


@define(eq=False)
class Log:
    warnings: list[str] = field(factory=list)

    def info(self, *_: Any, **__: Any) -> None:
        pass

    def warning(self, event: str, **_: Any) -> None:
        self.warnings.append(event)


@define(eq=False)
class Life:
    """One machine with one disk, over boots. What the kernel was told is remembered."""

    patch: Patch
    platter: Platter = field(factory=Platter)
    trust: bool = True
    randomness: bool = True
    credited: list[bytes] = field(factory=list)
    mixed: list[bytes] = field(factory=list)
    told: int = 0  # the latest time that was acknowledged as kept
    draws: int = 0
    cuts: int = 0
    log: Log = field(factory=Log)
    clock: float = RTC

    def __attrs_post_init__(self) -> None:
        for name, path in (("TIME", TIME), ("SEED", SEED)):
            self.patch.setattr(worker, name, path)

    def _mix(self, value: bytes, *, credit: bool) -> bool:
        self.platter._call("mix", writes=False)
        if credit and value in self.credited:
            raise Wrong("a seed is credited twice")
        (self.credited if credit else self.mixed).append(value)
        return credit

    def _fresh(self) -> bytes:
        self.draws += 1
        return self.draws.to_bytes(32, "big") if self.randomness else b""

    def _forward(self, floor: int) -> int:
        moved = max(0.0, floor - self.clock)
        self.clock += moved
        return int(moved)

    def ask(self, op: str, _bound: float, done: Callable[[Any], None], **arguments: Any) -> None:
        """Be the state worker."""
        reply = worker.answer({"id": 1, "op": op, **arguments})
        error = reply.get("error")
        answer = worker_answer(reply.get("ok"), error)
        if op == "time_save" and answer.ok:
            self.told = max(self.told, answer.value)
        done(answer)

    @property
    def healthy(self) -> bool:
        return True

    def boot(self) -> None:
        """A whole life: on, use, renew, two minutes, off. The real `Continuity` decides."""
        self.patch.setattr(files, "os", self.platter)
        self.patch.setattr(entropy, "mix", self._mix)
        self.patch.setattr(entropy, "fresh", self._fresh)
        self.clock = RTC
        port: Any = Port(self)
        steps: Any = Steps()
        the_boot: Any = object()
        saved = SavedClock(self.log, {}, BUILD, lambda: int(self.clock), self._forward)
        one = Continuity(steps, Reactor(), Bounds(), self.log, port, the_boot, saved, self.trust)  # type: ignore[arg-type]
        self.hold(self.clock >= BUILD, "the clock is before the image's build")
        found = worker.answer({"id": 1, "op": "time_load"})["ok"]
        saved.found(found)
        self.hold(not found["read"] or self.clock >= self.told, f"the clock is {self.clock:.0f}, kept was {self.told}")
        steps.tell("storage", Storage.DURABLE)
        steps.tell("boot", Boot.COMPLETE, of=the_boot)
        for _ in range(2):
            self.clock += 60
            one.save()
        self.clock += 7
        kept = worker.answer({"id": 1, "op": "farewell", "seconds": saved.good()})["ok"]
        self.told = max(self.told, kept["time"] or 0)

    def hold(self, true: object, text: str) -> None:
        if not true:
            raise Wrong(text)


@define(eq=False, slots=False)
class Port:
    """What `Continuity` needs of the state port."""

    life: Life
    storage: Any = None
    healthy: bool = True

    def ask(self, *arguments: Any, **more: Any) -> None:
        self.life.ask(*arguments, **more)

    def in_the_way(self, _answer: Any) -> bool:
        return False


class Reactor:
    def call_later(self, _seconds: float, _call: Callable[[], None]) -> None:
        """The life saves by itself."""


def worker_answer(value: Any, error: Any) -> Any:
    from bay0.state.link import Answer

    return Answer(code=error["code"], why=error["message"]) if error else Answer(value=value)


def copy(life: Life, patch: Patch, platter: Platter) -> Life:
    return Life(
        patch, platter, life.trust, life.randomness, list(life.credited), list(life.mixed), life.told, life.draws + 1000, log=life.log
    )  # fmt: skip


def cuts_of(life: Life, patch: Patch) -> Iterator[Life]:
    """Boot this life again and again, stopped before call 1, 2, 3 ... and yield what each kind of cut leaves."""
    start = life.platter
    names, at = {name: file.now for name, file in start.now.items()}, 0
    while True:
        at += 1
        platter = Platter(cut_at=at)
        for name, data in names.items():
            platter.now[name] = platter.synced[name] = _file(data)
        running = copy(life, patch, platter)
        try:
            running.boot()
        except PowerCut:
            pass
        else:
            return
        for data, kept in platter.ways():
            yield copy(running, patch, platter.after(Cut(at, data, kept)))


def _file(data: bytes) -> Any:
    from platter import File

    return File(data, data)


def settled(patch: Patch, boots: int = 1) -> Life:
    life = Life(patch)
    for _ in range(boots):
        life.boot()
    return life


def sweep(patch: Patch, size: Size, *, begin: Callable[[], Life]) -> int:
    """Cut at every place, then boot; and cut that boot at every place too (`ci`: a part of them)."""
    points = 0
    for count, once in enumerate(cuts_of(begin(), patch)):
        points += 1
        copy(once, patch, once.platter.after(Cut(0, "all", 0))).boot()
        if count % max(1, size.double_stride // 16) == 0:
            for twice in cuts_of(once, patch):
                points += 1
                twice.boot()
    return points


def test_over_every_power_cut_the_clock_never_goes_back_and_no_seed_is_credited_twice(monkeypatch: Patch, size: Size) -> None:
    points = sum(sweep(monkeypatch, size, begin=begin) for begin in (lambda: Life(monkeypatch), lambda: settled(monkeypatch)))
    print(f"{points} cut points")
    assert points > 500


SOON = 12  # calls after the failing one


def test_a_call_that_fails_and_a_power_cut_soon_after(monkeypatch: Patch) -> None:
    points = 0
    for error in (errno.EIO, errno.ENOSPC, errno.EROFS):
        for soon in range(1, SOON):
            points += sum(1 for _ in failing(monkeypatch, error, soon))
    print(f"{points} cuts soon after a failing call")
    assert points > 500


def failing(patch: Patch, error: int, soon: int) -> Iterator[None]:
    """Let call 1, 2, 3 ... fail, cut the power `soon` calls later, and boot twice."""
    at, reached = 0, True
    while reached:
        at += 1
        life = settled(patch)
        platter = life.platter
        platter.calls, platter.fail_at, platter.fail_with, platter.cut_at = 0, at, error, at + soon
        with contextlib.suppress(PowerCut):
            life.boot()
        reached = platter.calls >= at
        for data, kept in platter.ways():
            later = copy(life, patch, platter.after(Cut(0, data, kept)))
            later.boot()
            later.boot()
            yield


def test_a_life_without_trouble_credits_each_seed_once_when_trusted_and_none_when_not(monkeypatch: Patch) -> None:
    life = settled(monkeypatch, boots=5)
    assert len(life.credited) == len(set(life.credited)) == 4, "the first boot has none"
    life = Life(monkeypatch, trust=False)
    for _ in range(5):
        life.boot()
    assert (len(life.credited), len(life.mixed)) == (0, 4)


def test_a_kernel_without_randomness_makes_seeds_that_are_never_credited(monkeypatch: Patch) -> None:
    life = settled(monkeypatch)
    life.randomness = False
    for _ in range(3):
        life.boot()
    assert len(life.credited) == 1, "the one that was made while there was some"
    assert len(set(life.mixed)) == len(life.mixed) == 2


# ---- it has been red


def _without(patch: Patch, call: str) -> None:
    patch.setattr(Platter, call, lambda self, fd: self._call(call, writes=False))


MUTANTS: dict[str, Callable[[Patch], None]] = {}


def mutant(fault: Callable[[Patch], None]) -> Callable[[Patch], None]:
    MUTANTS[fault.__name__] = fault
    return fault


@mutant
def nothing_is_synced(patch: Patch) -> None:
    _without(patch, "fsync")


@mutant
def the_directory_is_not_synced(patch: Patch) -> None:
    fsync = Platter.fsync
    patch.setattr(Platter, "fsync", lambda self, fd: fsync(self, fd) if self.open_files[fd] is not None else self._call("none", writes=False))


@mutant
def the_file_is_not_synced(patch: Patch) -> None:
    fsync = Platter.fsync
    patch.setattr(Platter, "fsync", lambda self, fd: fsync(self, fd) if self.open_files[fd] is None else self._call("none", writes=False))


@mutant
def it_is_written_in_place(patch: Patch) -> None:
    def in_place(path: str, data: bytes) -> None:
        fd = files.os.open(path, os.O_WRONLY | os.O_CREAT)
        files.os.ftruncate(fd, 0)
        files.os.write(fd, data)
        files.os.fsync(fd)
        files.os.close(fd)

    patch.setattr(files, "replace", in_place)


@mutant
def the_seed_is_used_before_it_is_marked(patch: Patch) -> None:
    use = entropy.use

    def hasty(path: str, *, trust: bool) -> dict[str, Any]:
        seed = entropy._read(path)
        if seed.state == entropy.NEW:
            entropy.mix(seed.value, credit=trust)
        return use(path, trust=False)

    patch.setattr(entropy, "use", hasty)


@mutant
def a_used_seed_is_credited(patch: Patch) -> None:
    patch.setattr(entropy, "NEW", entropy.USED)


@mutant
def a_mark_that_failed_counts(patch: Patch) -> None:
    write = entropy._write

    def careless(path: str, state: str, value: bytes) -> None:
        try:
            write(path, state, value)
        except OSError:
            if state != entropy.USED:
                raise

    patch.setattr(entropy, "_write", careless)


@mutant
def the_saved_time_is_not_looked_at(patch: Patch) -> None:
    patch.setattr(time, "load", lambda _path: {"seconds": None, "why": "", "read": True})


@mutant
def a_time_is_put_over_one_that_could_not_be_read(patch: Patch) -> None:
    load = time.load
    patch.setattr(time, "load", lambda path: {**load(path), "read": True})


@pytest.mark.parametrize("fault", MUTANTS)
def test_the_suite_sees_that(fault: str, monkeypatch: Patch, size: Size) -> None:
    MUTANTS[fault](monkeypatch)
    with pytest.raises(Wrong, match="twice" if "seed" in fault or "mark" in fault else "twice|the clock is") as wrong:
        sweep(monkeypatch, size, begin=lambda: settled(monkeypatch))
        test_a_call_that_fails_and_a_power_cut_soon_after(monkeypatch)
    print(wrong.value)
