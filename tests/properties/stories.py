"""Short lives in which two things meet at a moment that is moved: every bug this suite has found is one of them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from broken import hold
from copies import COPY
from pagecache import LOSES
from people import IDLE, MANIFESTS, PLAY, WORK, Asked
from podman import IMAGE, Vice
from wiring import LOG_LONG
from world import World

from bay0.containers.life import PERSONAS as PERSONAS_GROUP
from bay0.machines import persona
from bay0.state import db

WORK_CONTAINER = "p__work"
Story = Callable[[World, float], None]
MOMENTS = [round(0.05 * i, 2) for i in range(64)]


def stop_at(world: World, moment: float) -> None:
    world.disk.latency_s = 0.15
    world.boot()
    world.run(moment)
    world.stop()
    world.run(60)


def stop_reattaching_at(world: World, moment: float) -> None:
    world.boot()
    world.run(3)
    world.disk.latency_s = 0.15
    world.kill_worker()
    world.run(moment)
    world.stop()
    world.run(60)


def wedge_at(world: World, moment: float) -> None:
    world.disk.latency_s = 0.15
    world.boot()
    world.run(moment)
    world.disk.wedged = True
    world.run(20 * moment)
    world.settle()


def retry_a_wedged_disk(world: World, moment: float) -> None:
    world.boot()
    world.run(3)
    world.disk.readonly = True
    world.run(20)
    world.disk.wedged = True
    world.retry()
    world.run(20 * moment)
    world.settle()


def disk_comes_at(world: World, moment: float) -> None:
    world.plug(present=False)
    world.boot()
    world.run(3 * moment)
    world.plug(present=True)
    world.settle()


def one_write_fails_with_more_behind_it(world: World, moment: float) -> None:
    world.disk.latency_s = 0.15
    world.boot()
    world.run(4)
    world.be(IDLE)
    world.start(WORK)
    world.run(1)
    world.start(PLAY)
    world.run(moment)
    world.disk.fail_once = "full"
    world.verb("stop", WORK)
    world.run(0.05)
    world.verb("stop", PLAY)
    world.verb("start", IDLE)
    world.run(0.4 + moment / 3)


def a_full_disk_is_emptied(world: World, moment: float) -> None:
    """It is called full, and taken again as soon as there is room: not when a pause is over that knows nothing of it."""
    world.boot()
    world.run(3)
    world.be(IDLE)
    world.disk.full = True
    if moment > 1.6:
        world.cut()
        world.boot()
    world.verb("start", IDLE)
    world.run(3 + moment)
    world.verb("start", IDLE)
    world.run(0.5)
    hold(world.state_of_storage.value == "full", f"the disk is full, and storage is {world.state_of_storage.value}")
    hold("is full" in str(world.spine.state.dirty), f"it does not say full: {world.spine.state.dirty}")
    world.run(16 + moment)
    world.disk.full = False
    world.run(6)
    hold(world.spine.state.healthy, f"there has been room for 6 s, and storage is {world.state_of_storage.value}")


def an_exec_that_is_not_wanted_again(world: World, moment: float) -> None:
    world.boot(exec_=True)
    world.run(moment)


def closed_before_the_database_was_current(world: World, moment: float) -> None:
    an_exec_that_is_not_wanted_again(world, 2)
    world.cut()
    world.disk.fail_once = "readonly"
    world.boot()
    world.run(1 + moment)
    world.stop()
    world.run(60)


def a_commit_whose_answer_is_lost(world: World, moment: float) -> None:
    world.boot()
    world.run(3 + moment)
    world.start(WORK)
    world.run(1)
    world.disk.wedged, world.half_done = True, None
    world.verb("stop", WORK)
    world.run(5)
    world.settle()


def a_promise_to_a_wedged_disk(world: World, moment: float) -> None:
    world.boot()
    world.run(3)
    world.disk.wedged = True
    world.start(WORK)
    world.run(3 * moment)


def one_write_fails_near_a_promise(world: World, moment: float) -> None:
    world.boot()
    world.run(3)
    for name in (WORK, PLAY, IDLE):
        world.be(name)  # so that one of the promises is followed by a pruning
    world.disk.fail_once, world.disk.fail_skips = "full", int(moment / 0.3)
    world.start(WORK)
    world.run(1)
    world.start(PLAY)
    world.run(1)


def a_promise_is_asked_for_as_the_disk_is_closed(world: World, moment: float) -> None:
    """Who is told that nothing was changed finds nothing changed."""
    world.boot()
    world.run(3)
    world.be(IDLE)
    world.ask_ai("stop")
    world.run(3)
    world.disk.latency_s = 0.15
    world.stop()
    world.run(moment / 2)
    world.verb("remove", IDLE)
    world.run(60)


def _the_disk_keeps_promises_again(world: World, number: int) -> None:
    """A new worker has the disk, and what it acknowledges is not behind a hole: the cut that follows every story looks."""
    world.run(40)
    asked = world.nack(number)
    world.start(WORK)
    world.run(3)
    hold(bool(asked.answers) and not asked.refused, f"the disk is well, and was asked to keep a NACK: {asked.answers}")


def a_sync_fails_and_memory_shows_what_was_lost(world: World, moment: float) -> None:
    _lived_in(world, PLAY)
    world.be(IDLE)
    world.disk.sync_loses, world.disk.sync_skips = LOSES[int(10 * moment) % 4], int(moment) % 3
    for verb in ("start", "stop", "start"):
        world.verb(verb, IDLE)
        world.run(0.3 + moment / 3)
    for number in (1, 3):
        world.nack(number)
        world.run(moment / 3)
    _the_disk_keeps_promises_again(world, 2)
    hold(world.disk.sync_failures > 0, "no sync failed")


def what_was_not_promised_is_lost_before_a_promise(world: World, moment: float) -> None:
    _lived_in(world, PLAY, IDLE)
    world.verb("stop", PLAY)
    world.run(moment / 2)
    world.verb("stop", IDLE)
    world.run(moment / 2)
    world.disk.writeback(LOSES[int(10 * moment) % 4])
    if moment > 1.6:
        world.kill_worker()  # who might have been told
    world.nack(1)
    _the_disk_keeps_promises_again(world, 2)


def what_was_lost_is_told_to_who_moves_a_long_log(world: World, moment: float) -> None:
    _lived_in(world, PLAY, IDLE)
    world.verb("stop", PLAY)
    world.run(moment / 2)
    world.disk.writeback(LOSES[int(10 * moment) % 3])
    world.patch.setattr(db, "LOG_LONG", 0)
    world.verb("stop", IDLE)
    world.run(0.002)
    world.patch.setattr(db, "LOG_LONG", LOG_LONG)
    world.run(moment / 2)
    world.nack(1)
    _the_disk_keeps_promises_again(world, 2)


def the_database_itself_cannot_be_synced(world: World, moment: float) -> None:
    """A checkpoint copies, and its last sync fails: the log is still there, whoever asked for the checkpoint."""
    _lived_in(world, PLAY, IDLE)
    world.nack(1)
    world.run(moment / 4)
    world.disk.database_loses = LOSES[int(10 * moment) % 4]
    if moment < 1:
        world.patch.setattr(db, "LOG_LONG", 0)
        world.verb("stop", IDLE)
        world.run(0.05)
        world.patch.setattr(db, "LOG_LONG", LOG_LONG)
    elif moment < 2:
        world.call("suspend", reason="lid")
    else:
        world.stop()
        world.run(60)
        hold(world.disk.sync_failures > 0, "no sync failed")
        return
    _the_disk_keeps_promises_again(world, 2)
    hold(world.disk.sync_failures > 0, "no sync failed")


def a_log_that_lost_something_is_not_copied_as_the_disk_is_closed(world: World, moment: float) -> None:
    """The sync of the last steps fails. A checkpoint would then copy what memory shows and the disk has not, be it ours or SQLite's at its close."""
    _lived_in(world, PLAY, IDLE)
    world.nack(1)
    world.run(moment / 4)
    world.disk.latency_s = 0.15
    world.stop()
    for _ in range(200):
        if not world.on or world.state_of_storage.value == "closing":
            break
        world.run(0.05)
    world.disk.sync_loses, world.disk.sync_skips = LOSES[int(10 * moment) % 3], int(moment) % 2
    world.disk.database_loses = LOSES[int(20 * moment) % 4] if moment > 1.6 else None
    world.run(60)


def podman_gives_no_answer(world: World, moment: float) -> None:
    world.boot()
    world.run(3)
    world.podman.vices.append(Vice("", "hang", lasting=True))
    world.start(WORK)
    world.run(20 * moment)
    world.settle()


def a_cut_while_personas_run(world: World, moment: float) -> None:
    world.boot()
    world.run(3)
    world.start(WORK)
    world.start(PLAY)
    world.run(moment)


# ---- personas


def _lived_in(world: World, *names: str, **changes: Any) -> None:
    """Boot, and let these run."""
    world.boot()
    world.run(3)
    for name in names:
        world.be(name, **changes)
        world.verb("start", name)
    world.run(6)


def verbs_follow_each_other(world: World, moment: float) -> None:
    _lived_in(world, PLAY)
    world.start(WORK)
    world.run(moment)
    for verb in ("pause", "resume", "pause", "stop", "start"):
        world.verb(verb, WORK)
        world.run(moment / 4)
    world.settle()
    world.verb("stop", WORK)
    world.run(moment)


def a_container_ends_as_something_is_asked_of_it(world: World, moment: float) -> None:
    _lived_in(world, WORK)
    world.verb("pause" if moment < 1 else "reset" if moment < 2 else "stop", WORK)
    world.run(moment % 1)
    world.podman.dies(WORK_CONTAINER, 1)
    world.run(0.5)
    world.settle()


def a_container_ends_while_it_is_started(world: World, moment: float) -> None:
    _lived_in(world)
    world.start(WORK)
    world.run(moment)
    world.podman.dies(WORK_CONTAINER, int(10 * moment) % 2)
    world.run(1)
    world.podman.dies(WORK_CONTAINER, 0)
    world.settle()


def a_monitor_is_killed(world: World, moment: float) -> None:
    _lived_in(world, PLAY)
    world.start(WORK)
    world.run(moment)
    if int(20 * moment) % 3 == 0:
        world.verb("pause", PLAY)
        world.run(moment / 2)
    for name in (WORK_CONTAINER, "p__play"):
        world.podman.monitor_dies(name)
    world.run(moment)
    world.settle()


def a_container_of_a_later_boot_ends(world: World, moment: float) -> None:
    _lived_in(world, IDLE, WORK)
    world.verb("stop", IDLE)
    world.verb("stop", WORK)
    world.run(5)
    world.cut()
    world.boot()
    world.run(3 + moment)
    world.start(IDLE)
    world.run(3)
    world.podman.dies("p__idle", 1)
    world.settle()


def a_long_life_ends_badly(world: World, moment: float) -> None:
    """Attempts of long ago do not count."""
    _lived_in(world, WORK, retries=1)
    for _ in range(3):
        world.run(100)
        world.podman.dies(WORK_CONTAINER, 1)
        world.run(10 + moment)
    hold(world.state_of(WORK) is persona.S.RUNNING, f"it lived long each time, and is {world.state_of(WORK)}")


def podman_hangs_at(verb: str, command: str, end: str) -> Story:
    """A command hangs at its n-th moment until the spawner ends it, and does the rest late or never."""

    def story(world: World, moment: float) -> None:
        _lived_in(world, PLAY, IDLE)
        at = int(10 * moment) % 6 - 1
        world.podman.vices.append(Vice(command, "hang", at, end, late_s=25 * moment + 0.5))
        if verb == "resume":
            world.podman.paused_by_hand("p__play", paused=True)  # it is thawed, and podman is told, by the way
        if command == "run":  # one with a new home is made in steps
            world.be(WORK, home="")
        world.start(WORK) if verb == "start" else world.verb(verb, PLAY)
        world.run(10 * moment)
        world.settle()

    story.__name__ = f"{verb}_while_podman_{command}_hangs_and_ends_by_{end}"
    return story


def podman_fails_at(verb: str, command: str, error: str) -> Story:
    def story(world: World, moment: float) -> None:
        _lived_in(world, PLAY)
        at, lasting = int(10 * moment) % 6 - 1, moment > 1.6
        world.podman.vices.append(Vice(command, error, at, lasting=lasting))
        if command == "run":
            world.be(WORK, home="")
        world.start(WORK) if verb == "start" else world.verb(verb, PLAY)
        world.run(15 * moment)
        world.settle()

    story.__name__ = f"{verb}_while_podman_{command or 'itself'}_fails_{error}"
    return story


def a_freeze_is_slow(world: World, moment: float) -> None:
    _lived_in(world, WORK)
    world.kernel.freeze_lag_s = moment
    world.verb("pause", WORK)
    world.run(0.7)
    state, frozen = world.state_of(WORK), world.frozen(WORK_CONTAINER)
    hold(state is not persona.S.PAUSED or frozen, "it is said to be paused, and the kernel says that it is not frozen")
    world.run(5)
    world.settle()


def a_focus_moves_on(world: World, moment: float) -> None:
    _lived_in(world, WORK, IDLE)
    world.be(PLAY, behind="run")
    world.start(PLAY)
    world.run(3)
    calls = len(world.podman.calls)
    for name in (PLAY, WORK, IDLE):
        asked = world.call("focus", name=name, wait=True)
        world.run(moment)
        told = [each for each in asked.answers if isinstance(each, dict) and each["settled"]]
        behind = [other for other in (WORK, IDLE) if other != name and world.state_of(other) is not persona.S.PAUSED]
        hold(not told or moment < 0.5 or not behind, f"{name} is said to be in front, and {behind} run behind it")
    hold(len(world.podman.calls) == calls, f"for a switch podman is called: {world.podman.calls[calls:]}")
    world.settle()
    states = {name: world.state_of(name) for name in (WORK, PLAY, IDLE)}
    wanted = {WORK: persona.S.PAUSED, PLAY: persona.S.RUNNING, IDLE: persona.S.RUNNING}
    hold(states == wanted, f"{IDLE} is in front, {PLAY} may run behind it, and they are {states}")
    world.podman.vanishes("p__idle")


def a_crash_loop(world: World, moment: float) -> None:
    """One that is started by each boot takes each boot down, until it is given up."""
    _lived_in(world, PLAY)
    for _ in range(4):
        world.cut()
        world.boot()
        world.run(2.2 + moment % 1)
    world.cut()
    world.boot()
    world.settle()
    later = [step for (boot_id, _), step in world.checks.steps.items() if boot_id != "00000001-sim"]
    started = [step for step in later if step.machine == PLAY and step.dest == "starting"]
    hold(len(started) <= MANIFESTS[PLAY]["retries"], f"{PLAY} was started {len(started)} times, and took each boot down")


def storage_is_damaged_before_a_boot(world: World, moment: float) -> None:
    _lived_in(world, WORK, PLAY)
    world.run(moment)
    world.cut()
    world.podman.damage = ("mendable", "beyond")[int(10 * moment) % 2]
    world.boot()
    world.run(10)
    world.start(WORK)
    world.run(5)
    hold(world.state_of(WORK) is persona.S.RUNNING, f"storage has been made anew, and {WORK} is {world.state_of(WORK)}")


def a_full_disk_meets_a_stop(world: World, moment: float) -> None:
    _lived_in(world, WORK, PLAY)
    world.podman.full = True
    world.verb("stop", WORK)
    world.verb("pause", PLAY)
    world.run(20 * moment)
    world.settle()


def a_rollback(world: World, moment: float) -> None:
    _lived_in(world, WORK)
    world.run(moment)
    world.cut()
    world.boot(older=True)
    world.run(3 + moment)
    world.settle()


def a_home_is_to_be_emptied(world: World, moment: float) -> None:
    _lived_in(world, WORK, PLAY)
    world.disk.latency_s = 0.15
    world.verb("reset", WORK, home=True, wait=True)
    world.verb("reset", PLAY)
    world.run(moment)


def a_home_is_full_of_empty_directories(world: World, moment: float) -> None:
    """More of them than can be deleted within a bound. The disk is slow and well: nothing of it may look wedged, at this boot or the next."""
    _lived_in(world, WORK)
    home = os.path.join(world.homes.folder, WORK_CONTAINER)
    for number in range(300):
        os.mkdir(os.path.join(home, f"d{number}"))
    world.work.entry_s = 0.02
    before = len(world.checks.steps)
    world.verb("reset", WORK, home=True)
    world.run(4 + moment)
    asked = world.start(WORK)
    world.run(4)
    hold(bool(asked.answers) and not asked.refused, f"a start was refused because of what was in a home: {asked.answers}")
    if moment > 1.6:
        world.cut()
        world.boot()
        world.work.entry_s = 0.02
    world.run(40)
    lost = [step for step in list(world.checks.steps.values())[before:] if step.kind == "storage" and step.dest == "wedged"]
    hold(not lost, f"a healthy disk is taken for a dead one: {[step.why for step in lost]}")
    hold(not os.path.exists(os.path.join(world.disk.folder, "trash")), "what was taken away is still there after a minute")


def containers_by_hand(world: World, moment: float) -> None:
    _lived_in(world, WORK, PLAY)
    world.verb("stop", WORK)
    world.run(moment)
    for name in (WORK_CONTAINER, "p__nobody", "web"):
        world.by_hand(name, runs=moment > 1)
    world.verb("start", WORK)
    world.podman.vanishes("p__play")
    world.settle()


def somebody_else_freezes_and_thaws(world: World, moment: float) -> None:
    """By hand, or as a podman that was given up does when it comes late."""
    _lived_in(world, WORK, PLAY)
    containers = {name: world.podman.containers[name].id for name in (WORK_CONTAINER, "p__play")}
    world.verb("pause", PLAY)
    world.run(moment)
    paused = world.state_of(PLAY) is persona.S.PAUSED
    for name, frozen in ((WORK_CONTAINER, True), ("p__play", False)):
        world.kernel.freeze(world.kernel.directory(containers[name]), frozen=frozen)
    world.run(moment / 2)
    world.verb("pause", WORK)
    world.verb("resume", WORK)
    world.settle()
    ended = [name for name, container in containers.items() if not world.kernel.lives(container) and (paused or name == WORK_CONTAINER)]
    hold(not ended, f"only frozen or thawed, and ended for it: {ended}")


def a_freeze_never_ends(world: World, moment: float) -> None:
    """A process of it waits for a disk: it is not said to be paused, and if the answer comes in time nobody is ended."""
    _lived_in(world, WORK, PLAY)
    group = world.kernel.group(world.podman.containers[WORK_CONTAINER].id)
    world.kernel.stick(group, stuck=True)
    world.verb("pause", WORK)
    world.run(3 * moment)
    hold(world.state_of(WORK) is persona.S.PAUSING, f"a process of it runs on, and it is {world.state_of(WORK)}")
    world.kernel.stick(group, stuck=False)
    world.run(1)
    hold(world.state_of(WORK) is persona.S.PAUSED, f"the kernel says frozen 1, and it is {world.state_of(WORK)}")
    world.kernel.stick(group, stuck=True)
    world.verb("resume", WORK)
    world.run(1)
    hold(world.state_of(WORK) is persona.S.RUNNING, f"it is thawed, and {world.state_of(WORK)}")
    world.verb("pause", WORK)
    world.run(30)
    hold(not world.kernel.lives(group.directory.rpartition("libpod-")[2]), "it cannot be frozen, and runs on unknown to anybody")
    world.settle()


def what_is_paused_is_told_to_end(world: World, moment: float) -> None:
    """It hears that, however it was frozen, and podman has nothing to do for a pause."""
    _lived_in(world, WORK, PLAY)
    calls = len(world.podman.calls)
    world.verb("pause", WORK)
    world.verb("pause", PLAY)
    world.run(moment / 3)
    world.verb("resume", PLAY)
    world.run(moment / 3)
    hold(len(world.podman.calls) == calls, f"for a pause and a resume podman is called: {world.podman.calls[calls:]}")
    world.verb("stop", WORK)
    world.run(10)
    hold(world.podman.heard[WORK_CONTAINER], "it was paused, and did not hear that it is to end")
    world.settle()


def a_freeze_that_cannot_be_written_is_overtaken_by_a_stop(world: World, moment: float) -> None:
    _lived_in(world, WORK)
    world.kernel.unwritable = "Input/output error"
    world.verb("pause", WORK)
    world.run(moment)
    world.verb("stop", WORK)
    world.run(0.01)
    world.kernel.unwritable = ""
    world.run(10)
    hold(world.podman.heard[WORK_CONTAINER], "it was not frozen in time, but when it was told to end")
    world.settle()


def somebody_pauses_by_podman(world: World, moment: float) -> None:
    """What podman calls paused it ends by KILL, and lets nobody in: it is told that it runs."""
    _lived_in(world, WORK, PLAY)
    world.verb("pause", PLAY)
    world.run(1)
    for name in (WORK_CONTAINER, "p__play"):
        world.podman.paused_by_hand(name, paused=True)
    world.run(moment / 10)
    world.verb("pause", WORK)
    world.run(moment / 10)
    world.verb("resume", WORK)
    world.run(5)
    container = world.podman.containers[WORK_CONTAINER]
    hold(container.state == "running" or moment < 0.2, f"it runs, and podman calls it {container.state}")
    world.run(310)  # what was paused twice at once, nothing shows until podman is asked anyway
    hold(container.state == "running", f"it has run for long, and podman calls it {container.state}")
    world.verb("stop", PLAY)
    world.run(10)
    hold(world.podman.heard["p__play"], "podman called it paused, and ended it without TERM")
    world.settle()


def all_are_frozen_from_above(world: World, moment: float) -> None:
    """It is somebody's purpose: nobody is ended for it, and what is asked meanwhile counts when they go on."""
    _lived_in(world, WORK, PLAY, IDLE)
    containers = [world.podman.containers[name].id for name in (WORK_CONTAINER, "p__play", "p__idle")]
    world.verb("pause", WORK)
    world.run(moment / 4)
    world.kernel.freeze_above(PERSONAS_GROUP, frozen=True)
    world.run(moment / 4)
    world.verb("resume", WORK)
    world.verb("pause", PLAY)
    world.run(30)
    resumed = world.state_of(WORK) is persona.S.RUNNING
    world.kernel.freeze_above(PERSONAS_GROUP, frozen=False)
    world.run(1)
    hold(all(map(world.kernel.lives, containers)), "all were frozen from above, and one was ended for it")
    now = [world.state_of(name) for name in (WORK, PLAY, IDLE)]
    hold(resumed and now == [persona.S.RUNNING, persona.S.PAUSED, persona.S.RUNNING], f"they are {now}")
    world.settle()


def podman_fails_a_boot_without_personas(world: World, moment: float) -> None:
    """Their database was moved aside, or somebody made them: what is under our names is removed all the same, if not at once."""
    for verb, error in (("ps", "internal"), ("rm", "internal"), ("ps", "hang"), ("rm", "hang")):
        world.boot()
        world.run(3 + moment)
        world.podman.by_hand("p__nobody", runs=True)
        world.cut()
        world.podman.vices.append(Vice(verb, error, end="kill"))
        world.boot()
        world.run(60)
        world.settle()
        world.cut()


def it_goes_down_with_personas_that_do_not_listen(world: World, moment: float) -> None:
    world.podman.lingering.update((WORK_CONTAINER, "p__play"))
    _lived_in(world, WORK, PLAY, stop_s=30)
    world.verb("pause", PLAY)
    world.run(moment)
    world.stop()
    world.run(60)


def it_goes_down_before_all_is_cleared(world: World, moment: float) -> None:
    _lived_in(world, PLAY)
    world.cut()
    world.podman.vices.append(Vice("rm", "hang", lasting=True))
    world.boot()
    world.run(30 + moment)
    world.podman.vices.clear()
    world.stop()
    world.run(60)


def the_spine_is_not_well_and_a_container_ends(world: World, moment: float) -> None:
    _lived_in(world, WORK, PLAY)
    world.disk.readonly = True
    world.run(moment)
    world.podman.dies(WORK_CONTAINER, 1)
    world.run(20)
    world.verb("stop", PLAY)
    world.run(10 * moment)
    world.settle()


HANGS = [
    podman_hangs_at(verb, command, end)
    for verb, command in (("start", "run"), ("stop", "rm"), ("reset", "rm"), ("resume", "unpause"), ("reset", "ps"))
    for end in ("term", "kill", "never", "late")
]
HANGS += [podman_hangs_at("start", command, end) for command in ("create", "init", "start") for end in ("kill", "late")]
FAILS = [
    podman_fails_at("start", "run", "internal"), podman_fails_at("start", "run", "storage"), podman_fails_at("stop", "rm", "conmon"),
    podman_fails_at("start", "init", "internal"), podman_fails_at("start", "start", "silent"),
    podman_fails_at("reset", "rm", "internal"), podman_fails_at("reset", "ps", "garbage"), podman_fails_at("stop", "rm", "silent"),
    podman_fails_at("stop", "", "absent"),
]  # fmt: skip
def starts_wait_for_their_turn_and_some_are_taken_back(world: World, moment: float) -> None:
    world.podman.images.discard(IMAGE)
    world.boot()
    world.run(3)
    for name in (WORK, IDLE, PLAY):
        world.be(name)
        world.start(name)
    world.run(moment)
    for name in (PLAY, WORK):
        world.verb("stop", name)
    world.run(moment / 3)
    world.start(PLAY)
    world.run(moment)
    world.verb("reset", IDLE)


def storage_is_damaged_while_it_runs(world: World, moment: float) -> None:
    """What can be repaired is, and the persona that runs does not notice. What cannot be waits for its end, and is set aside then."""
    _lived_in(world, WORK)
    container = world.podman.containers[WORK_CONTAINER].id
    world.be(IDLE)
    for damage in ("mendable", "beyond"):
        world.run(moment)
        world.podman.damage = damage
        world.start(IDLE)
        world.run(60)
        hold(world.kernel.lives(container), f"podman's storage was damaged ({damage}), and a persona that ran was ended for it")
        hold((world.podman.damage is None) == (damage == "mendable"), f"a minute later the storage is {world.podman.damage or 'well'}")
    world.verb("stop", WORK)
    world.run(60)
    hold(world.podman.damage is None, "nobody runs any more, and podman's storage is still damaged")
    hold(world.state_of(WORK) is persona.S.STOPPED, f"the persona is {world.state_of(WORK)}")
    world.start(IDLE)
    world.run(10)
    hold(world.state_of(IDLE) is persona.S.RUNNING, f"mended, and a persona is {world.state_of(IDLE)}")


def it_is_changed_and_the_power_goes(world: World, moment: float) -> None:
    world.boot()
    world.run(3)
    world.start(WORK)
    world.run(3)
    world.disk.latency_s = 0.15
    asked = [world.change(WORK, memory=1 << 30)]
    world.run(moment)
    asked.append(world.change(WORK, retries=7))
    world.run(moment)
    told = [each for each in asked if each.answers and not isinstance(each.answers[0], Exception)]
    if world.on and told:
        world.cut(0.0)
        world.disk.latency_s = 0.0
        world.boot()
        world.run(10)
        kept = json.loads(world.spine.engine.instances[WORK].config)["manifest"]
        for each in told:
            lost = {key: value for key, value in each.params["changes"].items() if kept[key] != value}
            hold(not lost, f"a change was told to be kept, and after a power cut it is not: {lost}")


def a_restart_meets_a_stop(world: World, moment: float) -> None:
    world.boot()
    world.run(3)
    world.start(WORK)
    world.run(3)
    restarted = world.verb("restart", WORK)
    world.run(moment)
    stopped = world.verb("stop", WORK)
    world.run(90)
    if not isinstance(stopped.answers[0], Exception):
        hold(world.state_of(WORK) is persona.S.STOPPED, f"a stop was the last word, and the persona is {world.state_of(WORK)}")
    world.verb("restart", WORK)
    world.run(30)
    hold(world.state_of(WORK) is persona.S.RUNNING, f"it was restarted, and is {world.state_of(WORK)}: {restarted.answers}")


def _about_to_be_copied(world: World, *, running: bool = False) -> None:
    _lived_in(world, WORK, IDLE)
    world.copies.plant(WORK)
    if not running:
        world.verb("stop", WORK)
        world.run(4)
    world.disk.latency_s = 0.05


def a_copy_is_cut_short(world: World, moment: float) -> None:
    _about_to_be_copied(world, running=moment > 1.5)
    world.clone(WORK)
    world.run(moment % 1.5)


def a_copy_is_cut_short_and_the_next_boot_too(world: World, moment: float) -> None:
    a_copy_is_cut_short(world, 0.9)
    world.cut()
    world.disk.latency_s = 0.15
    world.boot()
    world.run(moment)


def a_copy_meets_a_disk_that_fails(world: World, moment: float) -> None:
    _about_to_be_copied(world, running=moment > 2)
    asked = world.clone(WORK)
    world.run(moment % 1)
    if moment < 1:
        world.disk.wedged = True
    elif moment < 2:
        world.disk.full = True
        world.verb("start", IDLE)
    else:
        world.kill_worker()
    world.run(15)
    world.settle()
    hold(not world.on or asked.answers, "who asked for a copy was never answered")


def who_is_copied_does_not_stand_still(world: World, moment: float) -> None:
    """It is started, or thawed: the copy ends, or it was whole before."""
    running = moment > 1.6
    _about_to_be_copied(world, running=running)
    asked = world.clone(WORK)
    world.run(moment % 1.6)
    begun = world.copies.has_just_begun()
    world.verb("resume" if running else "start", WORK)
    world.run(8)
    refused = asked.answers and isinstance(asked.answers[0], Exception)
    hold(bool(refused) or not begun, "a copy was made of a persona that did not stand still")
    world.settle()


def a_copy_is_given_up_and_made_again(world: World, moment: float) -> None:
    _about_to_be_copied(world)
    world.clone(WORK)
    world.run(moment / 3)
    world.verb("stop", COPY)
    world.clone(WORK)
    world.run(moment)
    world.verb("start", COPY)
    world.run(4)
    world.settle()


def a_copy_of_who_runs_leaves_it_running(world: World, moment: float) -> None:
    _about_to_be_copied(world, running=True)
    asked = world.clone(WORK)
    world.run(moment)
    world.run(6)
    hold(bool(asked.answers) and not asked.refused, f"a copy of who runs is not made: {asked.answers}")
    hold(world.state_of(WORK) is persona.S.RUNNING, f"who was copied ran, and is {world.state_of(WORK)}")
    world.settle()


FIRST, SECOND = {"": "first", "changed": "second"}, "changed"  # descriptions of the manifest -> what the files say


def _wait_for(world: World, asked: Asked, seconds: float = 30) -> None:
    end = world.now + seconds
    while world.on and not asked.answers and world.now < end:
        world.run(0.1)


def _has_a_past(world: World) -> None:
    """It has a snapshot, and is another one since."""
    _about_to_be_copied(world)
    asked = world.snapshot(WORK)
    _wait_for(world, asked)
    hold(bool(asked.answers) and not asked.refused, f"no snapshot was taken: {asked.answers}")
    world.copies.plant(WORK, "second")
    world.change(WORK, description=SECOND)
    world.run(1)


def _one_of_two(world: World) -> None:
    world.settle()
    if world.on:
        world.copies.goes_back(WORK, FIRST)


def a_snapshot_is_cut_short(world: World, moment: float) -> None:
    _about_to_be_copied(world, running=moment > 1.5)
    world.snapshot(WORK, note="before")
    world.run(moment % 1.5)


def snapshots_follow_each_other(world: World, moment: float) -> None:
    _about_to_be_copied(world)
    for _ in range(3):
        _wait_for(world, world.snapshot(WORK, keep=2))
    world.snapshot(WORK, keep=1)
    world.run(moment)


def a_snapshot_is_deleted(world: World, moment: float) -> None:
    _has_a_past(world)
    world.call("persona.drop", name=f"{WORK}@1")
    world.run(moment / 4)
    world.snapshot(WORK)
    world.run(moment)


def going_back_is_cut_short(world: World, moment: float) -> None:
    _has_a_past(world)
    world.verb("restore", WORK)
    world.run(moment)
    world.cut()
    world.boot()
    world.run(10)
    _one_of_two(world)


def going_back_is_cut_between_two_moves(world: World, moment: float) -> None:
    """The power goes when the old home has been moved away, or the new one is in its place; then once more."""
    _has_a_past(world)
    world.verb("restore", WORK)
    for part in (0.0, 1.0):
        world.crash_on = "after a move" if moment % 1 < 0.5 or part else "after write"
        world.run(8)
        if not world.on:
            world.crash_on = None
            world.boot()
    world.crash_on = None
    world.run(10)
    _one_of_two(world)


def going_back_meets_a_disk_that_fails(world: World, moment: float) -> None:
    _has_a_past(world)
    asked = world.verb("restore", WORK)
    world.run(moment % 1.2)
    if moment < 1.2:
        world.disk.wedged = True
    elif moment < 2.4:
        world.disk.full = True
        world.verb("start", IDLE)
    else:
        world.kill_worker()
    world.run(15)
    _one_of_two(world)
    hold(not world.on or asked.answers, "who asked to go back was never answered")


def what_one_goes_back_to_is_deleted_meanwhile(world: World, moment: float) -> None:
    _has_a_past(world)
    world.verb("restore", WORK, number=1)
    world.run(moment / 3)
    world.call("persona.drop", name=f"{WORK}@1")
    world.run(6)
    _one_of_two(world)


def others_are_copied_while_one_goes_back(world: World, moment: float) -> None:
    """What is left beside places is taken away when each of them is done."""
    _has_a_past(world)
    world.clone(IDLE)
    world.run(moment / 3)
    world.verb("restore", WORK)
    world.run(6)
    _one_of_two(world)


def others_are_copied_while_a_snapshot_is_taken(world: World, moment: float) -> None:
    _about_to_be_copied(world)
    world.clone(IDLE)
    world.run(moment / 3)
    asked = world.snapshot(WORK)
    _wait_for(world, asked)
    hold(bool(asked.answers) and not asked.refused, f"no snapshot was taken: {asked.answers}")
    world.settle()


def one_that_went_back_lives_on(world: World, moment: float) -> None:
    _has_a_past(world)
    asked = world.verb("restore", WORK)
    _wait_for(world, asked)
    hold(not asked.refused and world.copies.says("homes", "p__work") == {"first"}, f"it did not go back: {asked.answers}")
    world.copies.goes_back(WORK, FIRST)
    copy = world.clone(f"{WORK}@1")
    _wait_for(world, copy)
    hold(world.copies.says("homes", "p__copy") == {"first"}, f"no copy of a snapshot was made: {copy.answers}")
    world.verb("start", WORK)
    world.run(moment)
    world.settle()


def an_archive_is_brought_in_and_the_power_goes(world: World, moment: float) -> None:
    _about_to_be_copied(world)
    world.bring(world.copies.archive(WORK), MANIFESTS[WORK])
    world.run(moment / 2)


def an_archive_is_brought_in_and_the_disk_fails(world: World, moment: float) -> None:
    _about_to_be_copied(world)
    asked = world.bring(world.copies.archive(WORK), MANIFESTS[WORK])
    world.run(moment % 1)
    if moment < 1:
        world.disk.wedged = True
    elif moment < 2:
        world.kill_worker()
    else:
        world.verb("stop", COPY)
    world.run(15)
    world.settle()
    hold(not world.on or asked.answers, "who brought an archive was never answered")


def an_archive_is_not_whole(world: World, moment: float) -> None:
    """Whatever is missing at its end, the checksum at least: nothing is made of it, and then of the whole one all."""
    _about_to_be_copied(world)
    asked = world.bring(world.copies.archive(WORK, cut=1500 + int(moment * 1000)), MANIFESTS[WORK])
    _wait_for(world, asked)
    hold(bool(asked.refused), f"half an archive was taken for whole: {asked.answers}")
    world.run(2)
    again = world.bring(world.copies.archive(WORK), MANIFESTS[WORK])
    _wait_for(world, again)
    hold(not again.refused and world.copies.says("homes", "p__copy") == {"first"}, f"nothing was made of an archive: {again.answers}")
    world.settle()


SNAPSHOT_STORIES: tuple[Story, ...] = (
    a_snapshot_is_cut_short, snapshots_follow_each_other, a_snapshot_is_deleted, going_back_is_cut_short, going_back_is_cut_between_two_moves,
    going_back_meets_a_disk_that_fails, what_one_goes_back_to_is_deleted_meanwhile, others_are_copied_while_one_goes_back,
    others_are_copied_while_a_snapshot_is_taken, one_that_went_back_lives_on, an_archive_is_brought_in_and_the_power_goes,
    an_archive_is_brought_in_and_the_disk_fails, an_archive_is_not_whole,
)  # fmt: skip
COPY_STORIES: tuple[Story, ...] = (
    a_copy_is_cut_short, a_copy_is_cut_short_and_the_next_boot_too, a_copy_meets_a_disk_that_fails, who_is_copied_does_not_stand_still,
    a_copy_is_given_up_and_made_again, a_copy_of_who_runs_leaves_it_running,
)  # fmt: skip
PERSONA_STORIES: tuple[Story, ...] = (
    it_is_changed_and_the_power_goes, a_restart_meets_a_stop,
    verbs_follow_each_other, a_container_ends_as_something_is_asked_of_it, a_container_ends_while_it_is_started,
    a_monitor_is_killed, a_container_of_a_later_boot_ends, a_long_life_ends_badly,
    a_freeze_is_slow, a_focus_moves_on, a_crash_loop, storage_is_damaged_before_a_boot, a_full_disk_meets_a_stop, a_rollback,
    a_home_is_to_be_emptied, a_home_is_full_of_empty_directories,
    a_freeze_never_ends, what_is_paused_is_told_to_end, a_freeze_that_cannot_be_written_is_overtaken_by_a_stop,
    somebody_pauses_by_podman, all_are_frozen_from_above,
    containers_by_hand, somebody_else_freezes_and_thaws, podman_fails_a_boot_without_personas,
    it_goes_down_with_personas_that_do_not_listen, it_goes_down_before_all_is_cleared, the_spine_is_not_well_and_a_container_ends,
    starts_wait_for_their_turn_and_some_are_taken_back, storage_is_damaged_while_it_runs, *HANGS, *FAILS,
)  # fmt: skip
STORIES: tuple[Story, ...] = (
    stop_at, stop_reattaching_at, wedge_at, retry_a_wedged_disk, disk_comes_at, one_write_fails_with_more_behind_it, a_full_disk_is_emptied,
    an_exec_that_is_not_wanted_again, closed_before_the_database_was_current, a_commit_whose_answer_is_lost,
    a_promise_to_a_wedged_disk, one_write_fails_near_a_promise, a_promise_is_asked_for_as_the_disk_is_closed,
    a_sync_fails_and_memory_shows_what_was_lost, what_was_not_promised_is_lost_before_a_promise,
    what_was_lost_is_told_to_who_moves_a_long_log, the_database_itself_cannot_be_synced,
    a_log_that_lost_something_is_not_copied_as_the_disk_is_closed, podman_gives_no_answer, a_cut_while_personas_run,
)  # fmt: skip
