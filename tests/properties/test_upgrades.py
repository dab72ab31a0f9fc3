"""An upgrade of the simulated machine, stopped at every seam of every boot: a good spine boots always, and the end is the right one.

The faults at the end are bay0 broken on purpose: each must be caught.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from broken import Broken
from conftest import Size, has
from slotdisk import Slots, digest
from world import World

from bay0.boot import leaving
from bay0.machines import upgrade as table
from bay0.machines.upgrade import NAME, E, S
from bay0.state import slots, slotwork
from bay0.upgrade import judging
from bay0.upgrade.methods import UpgradeMethods
from bay0.upgrade.port import Upgrade
from bay0.upgrade.watch import UpgradeWatch

BOOTS_MAX = 16
CUTS = 8  # of a story, in `ci`
Patch = pytest.MonkeyPatch
Story = Callable[[World, Slots], None]


def boot(world: World, disk: Slots) -> None:
    disk.load()
    world.boot()
    if world.on:
        world.spine.validation.made = disk
        world.run(30)


def state(world: World) -> S:
    return world.spine.engine.instances[NAME].now


def until(world: World, *states: S, seconds: float = 600) -> None:
    end = world.now + seconds
    while world.on and world.now < end and state(world) not in states:
        world.run(1)


def goes_on(world: World, disk: Slots) -> bool:
    """Do what an operator does now that this machine is up; tell whether nothing is left to do."""
    now = state(world)
    if now is S.IDLE and disk.runs == "SLOTA" and not disk.nacked:
        world.call("upgrade.stage", path=disk.source)
        until(world, S.STAGED, seconds=30)
    if world.on and state(world) is S.STAGED:
        world.call("upgrade.try", no_watchdog=True)
        world.run(60)
    if world.on and state(world) is S.PROVING and disk.hangs:
        world.run(5)
        world.cut()
    if world.on and state(world) in (S.PROVING, S.COMMITTING):
        until(world, S.GOOD, S.CONDEMNED)
        world.run(60)
    if not world.on:
        return False
    if state(world) is S.CONDEMNED and disk.runs == "SLOTB":
        raise Broken("it is bad, and runs on")
    if state(world) is S.NACKED:
        disk.nacked = True
        return True
    return (state(world) is S.IDLE and disk.runs == "SLOTB") or (disk.nacked and state(world) is S.IDLE)


def lives(world: World, disk: Slots) -> None:
    """Boot again and again until the upgrade has its end."""
    for _ in range(BOOTS_MAX):
        boot(world, disk)
        if world.on and goes_on(world, disk):
            check_end(world, disk)
            world.cut()
            return
        restarts(world)
    raise Broken(f"no end after {BOOTS_MAX} boots: {disk.boots}")


def check_end(world: World, disk: Slots) -> None:
    asked = world.call("nack.check", digest=digest(disk.NEW))
    world.run(5)
    nacked = asked.answers[0]["nacked"]
    if disk.well and not disk.hangs:
        if nacked or disk.runs != "SLOTB":
            raise Broken(f"a good spine ended in {disk.runs}, nacked={nacked}")
    elif not nacked or disk.runs != "SLOTA":
        raise Broken(f"a bad spine ended in {disk.runs}, nacked={nacked}")
    refused = world.call("upgrade.stage", path=disk.source)
    world.run(30)
    if disk.runs == "SLOTA" and not refused.refused:
        raise Broken("a digest that is NACKed was staged")


def story(*, well: bool = True, hangs: bool = False) -> Story:
    def told(world: World, disk: Slots) -> None:
        disk.well, disk.hangs = well, hangs
        lives(world, disk)

    return told


def reboots_in_order(world: World, disk: Slots) -> None:
    """Four ordered reboots during the proof are no verdict, though all else has stopped before it is armed again."""
    disk.takes_s = 4.0
    proofs = 0
    for _ in range(BOOTS_MAX):
        boot(world, disk)
        if world.on and state(world) is S.PROVING and proofs < 4:
            proofs += 1
            world.stop("reboot")
            world.run(120)
        elif world.on and goes_on(world, disk):
            check_end(world, disk)
            world.cut()
            return
        restarts(world)
    raise Broken(f"no end: {disk.boots}")


def flips(world: World, disk: Slots) -> None:
    """A bit flips while it is proved: it must not become the good one."""
    for _ in range(4):
        boot(world, disk)
        if state(world) is S.PROVING:
            with open(disk.slots["SLOTB"].path, "r+b") as file:
                file.seek(slots.slotfat.spine_at(slots.slotfat.layout(disk.slots["SLOTB"].size)) + 1000)
                file.write(b"x")
            until(world, S.GOOD, S.CONDEMNED, S.TRIED)
            if world.on and state(world) is S.GOOD:
                raise Broken("it was committed, and is not what was staged")
            world.run(60)
            boot(world, disk)
            until(world, S.NACKED, seconds=60)
            disk.nacked, disk.well = True, False
            check_end(world, disk)
            world.cut()
            return
        goes_on(world, disk)
        if world.on:
            world.cut()
    raise Broken(f"it was never proved: {disk.boots}")


def once_cut(world: World, disk: Slots) -> None:
    """One power cut in the proof of a good spine: it is tried again, and is good."""
    cut = False
    for _ in range(BOOTS_MAX):
        boot(world, disk)
        if world.on and state(world) is S.PROVING and not cut:
            cut = True
            world.cut()
        elif world.on and goes_on(world, disk):
            check_end(world, disk)
            world.cut()
            return
        restarts(world)
    raise Broken(f"no end: {disk.boots}")


def goes_back(world: World, disk: Slots) -> None:
    """It is good, came through one more boot, and somebody goes back from it."""
    asked = False
    for _ in range(BOOTS_MAX):
        boot(world, disk)
        if world.on and disk.runs == "SLOTB" and state(world) is S.IDLE:
            asked = True
            disk.well = False  # says he who asks
            world.call("upgrade.rollback")
            world.run(60)
        elif world.on and asked and disk.runs == "SLOTA" and state(world) in (S.NACKED, S.IDLE):
            disk.nacked = True
            check_end(world, disk)
            world.cut()
            return
        elif world.on and not asked:
            goes_on(world, disk)
        restarts(world)
    raise Broken(f"no end: {disk.boots}")


def is_cancelled(world: World, disk: Slots) -> None:
    """It is staged and forgotten, armed and forgotten, and then staged and good."""
    forgotten: set[S] = set()
    for _ in range(BOOTS_MAX):
        boot(world, disk)
        if world.on and disk.runs == "SLOTA" and state(world) is S.IDLE and S.STAGED not in forgotten:
            world.call("upgrade.stage", path=disk.source)
            until(world, S.STAGED, seconds=30)
        if world.on and state(world) in (S.STAGED, S.TRYING) and state(world) not in forgotten:
            forgotten.add(state(world))
            world.call("upgrade.cancel")
            world.run(30)
            if world.on and disk.offered():
                raise Broken("it was forgotten, and is offered to the loader")
        elif world.on and state(world) is S.PROVING and S.TRYING not in forgotten:
            world.cut()  # so that it is armed again
        elif world.on and goes_on(world, disk):
            check_end(world, disk)
            world.cut()
            return
        restarts(world)
    raise Broken(f"no end: {disk.boots}")


def is_accepted(world: World, disk: Slots) -> None:
    """Somebody does not wait for the end of its proof."""
    for _ in range(BOOTS_MAX):
        boot(world, disk)
        if world.on and state(world) is S.PROVING:
            world.call("upgrade.accept")
            until(world, S.GOOD, seconds=40)
        if world.on and goes_on(world, disk):
            check_end(world, disk)
            world.cut()
            return
        restarts(world)
    raise Broken(f"no end: {disk.boots}")


def restarts(world: World) -> None:
    """End this boot in order, if it has not ended."""
    if world.on:
        world.stop("reboot")
        world.run(120)
    if world.on:
        world.cut()


STORIES: dict[str, Story] = {
    "good": story(), "red": story(well=False), "hangs": story(hangs=True), "ordered": reboots_in_order, "flips": flips,
    "a cut": once_cut, "back": goes_back, "cancelled": is_cancelled, "accepted": is_accepted,
}  # fmt: skip


def told(which: Story, crash_at: int | None = None) -> int:
    """Tell a story, the power cut at one seam of it; return how many seams there were."""
    with World() as world:
        disk = Slots(world)
        world.crash_at = crash_at
        which(world, disk)
        return world.seams


@pytest.mark.parametrize("name", STORIES)
def test_an_upgrade_comes_to_the_end_that_it_should(name: str) -> None:
    assert told(STORIES[name]) > 50


@pytest.mark.parametrize("name", [name for name in STORIES if name != "flips"])
def test_a_power_cut_at_any_seam_leaves_a_spine_that_boots_and_the_end_is_the_same(name: str, size: Size) -> None:
    """`ci` takes a sample of the seams, `nightly` all. Among them are the loader's own writes, torn."""
    seams = told(STORIES[name])
    stride = 1 if size.whole else max(size.seams * 5, seams // CUTS)
    cuts = [at for at in range(1, seams) if size.whole or has(at, stride)]
    for at in cuts:
        told(STORIES[name], at)
    assert len(cuts) > 5


# ---- bay0, broken on purpose


def never_rejects(patch: Patch) -> None:
    patch.setattr(judging, "TRIES", 1000)


def a_cut_is_a_verdict(patch: Patch) -> None:
    patch.setattr(judging, "TRIES", 0)


def commits_what_it_did_not_read(patch: Patch) -> None:
    patch.setattr(slotwork, "_verified", lambda *_: None)


def forgets_the_nack(patch: Patch) -> None:
    def nack(self: Upgrade, _instance: object) -> object:
        yield self._slots("wipe", 5, slot="SLOTB")
        return E.DONE, ""

    patch.setattr(Upgrade, "_nack", nack)


def asks_no_nack(patch: Patch) -> None:
    def nobody(_self: UpgradeMethods, _digest: str) -> object:
        return None
        yield

    patch.setattr(UpgradeMethods, "_nacked", nobody)


def does_not_rearm(patch: Patch) -> None:
    patch.setattr(UpgradeWatch, "_leaves", lambda *_: None)


def a_stop_does_not_wait(patch: Patch) -> None:
    patch.setattr(leaving.upgrade, "HOLDS_A_STOP", ())


def never_commits(patch: Patch) -> None:
    patch.setattr(slots, "commit", lambda *_: None)


def offers_what_it_writes(patch: Patch) -> None:
    """The environment of a slot that is being written says that it may be tried."""
    encode = slots.bootenv.encode
    patch.setattr(
        slots.bootenv, "encode",
        lambda env: encode(env._replace(in_progress=False, revision=9, ustate=slots.UState.INSTALLED) if env.in_progress else env),
    )  # fmt: skip


def red_does_not_go_back(patch: Patch) -> None:
    patch.setattr(UpgradeWatch, "_goes", lambda *_: None)


def is_not_newer_for_the_loader(patch: Patch) -> None:
    """The revision that is armed is not above the good one's: the loader never tries it."""
    way_back = slots._way_back
    patch.setattr(slots, "_way_back", lambda envs, name: way_back(envs, name) - 1)


def writes_over_what_runs(patch: Patch) -> None:
    patch.setattr(slots, "_spare", lambda found, _name: found["SLOTA"])


def forgets_without_disarming(patch: Patch) -> None:
    patch.setattr(Upgrade, "_wipe", forgets_nothing)


def forgets_nothing(_self: Upgrade, _instance: object) -> object:
    return E.DONE, ""
    yield


def believes_that_it_runs(patch: Patch) -> None:
    """Whatever the slots say, the try is taken for one that never came back."""
    patch.setattr(judging, "became", lambda *_: (E.AGAIN, "so it is"))


def goes_back_to_nothing(patch: Patch) -> None:
    patch.setattr(slots, "favour", lambda *_: None)


def accepts_unseen(patch: Patch) -> None:
    """A proof is over before anything was checked."""

    def prove(_self: Upgrade, _instance: object) -> object:
        return E.GREEN, "it will be well"
        yield

    patch.setattr(Upgrade, "_prove", prove)


FAULTS: dict[Callable[[Patch], None], tuple[str, ...]] = {
    never_rejects: ("hangs",), a_cut_is_a_verdict: ("a cut",), commits_what_it_did_not_read: ("flips",), forgets_the_nack: ("red",),
    asks_no_nack: ("red",), does_not_rearm: ("ordered",), a_stop_does_not_wait: ("ordered",), never_commits: ("good",),
    offers_what_it_writes: ("good", "red"), red_does_not_go_back: ("red",),
    is_not_newer_for_the_loader: ("good",), writes_over_what_runs: ("good",),
    forgets_without_disarming: ("cancelled",),
    believes_that_it_runs: ("good",), goes_back_to_nothing: ("back",), accepts_unseen: ("red",),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_in_the_program_is_caught(fault: Callable[[Patch], None], monkeypatch: Patch) -> None:
    fault(monkeypatch)
    with pytest.raises((Broken, AssertionError, slots.SlotError)):
        for name in FAULTS[fault]:
            told(STORIES[name])


def test_three_tries_are_what_the_table_counts() -> None:
    assert table.TRIES == judging.TRIES == 3
