"""A podman with vices (fake_podman.py) behind the real reactor, reaper, spawner and adapter: it is always answered for, in time, and never believed
without proof.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from fake_podman import ID, VICES
from kit import QUICK, World, alive, children, descriptors_kept, in_child, zombies

from bay0.base.bounds import Bounds
from bay0.effects import cgroup
from bay0.podman.calls import Image, Outcome, Podman, RunSpec, Verdict

FAKE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fake_podman.py")
SOON, LATE = 0.3, 30.0  # seconds: bounds that a hanging one shall miss, and that nothing else may miss on a busy machine
SLACK_S = 5.0
ROUNDS = 3  # eight calls, four at a time, the last of them alone
SPEC = RunSpec(
    name="p__r", image="localhost/bb:1", command=("sh",), environment={}, labels={}, memory=1 << 26, cpus=1, pids=9, capabilities=(),
    cgroup_parent="/personas", uid_base=165_536, mounts=(), workdir="", hostname="", log_path="/run/x.log", log_size=65_536, oom_score_adj=0,
    read_only=False, stop_s=0,
)  # fmt: skip
CALLS: dict[str, Callable[[Podman, Any], None]] = {
    "ps": lambda podman, done: podman.list(done),
    "run": lambda podman, done: podman.run(SPEC, done),
    "unpause": lambda podman, done: podman.unpause("p__a", done),
    "rm": lambda podman, done: podman.remove(["p__b"], 0, done),
    "load": lambda podman, done: podman.image_load("/x.tar", done),
    "images": lambda podman, done: podman.image_list(done),
    "image-rm": lambda podman, done: podman.image_remove("localhost/bb:1", done),
    "system-check": lambda podman, done: podman.check(done),
}
# podman is silent where there is nothing to remove or to mend: silence with status 0 cannot be told from that
SILENT = {"rm", "system-check"}
TAKES_TOO_LONG = {
    "hang", "ignores_term", "answers_then_hangs", "hangs_with_its_streams_closed", "stops_itself", "tidies_up_for_ever", "endless_output",
    "endless_rows", "endless_errors", "drip_without_end", "succeeds_when_it_is_told_to_end",
}  # fmt: skip
IS_WELL = {"honest", "grandchild_holds_the_pipe", "leaves_a_daemon", "slow_drip"}
SAYS = {"disk_full": Outcome.DISK_FULL, "damaged": Outcome.STORAGE}
MAY_BE_RIGHT = {"warns_a_lot"}  # it did what it was asked, and too much was said about it: not knowing is allowed


def bounds(deadline_s: float) -> Bounds:
    names = ("podman_first", "podman_list", "podman_run", "podman_quick", "podman_remove", "podman_load", "podman_check")
    return evolve(QUICK, **dict.fromkeys(names, deadline_s))


def plain_cgroups(root: str) -> None:
    """Plain files stand in for the hierarchy; this process ends with the test."""
    cgroup.ROOT = root
    os.mkdir(root)
    for name in ("cgroup.controllers", "cgroup.procs"):
        with open(f"{root}/{name}", "w", encoding="ascii"):
            pass
    cgroup.populated = lambda directory: any(map(alive, cgroup.pids(directory)))  # type: ignore[assignment]


def podman_of(world: World, tmp_path: Path, vice: str) -> Podman:
    program = tmp_path / "podman"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -S {FAKE} "$@"\n')
    program.chmod(0o755)
    plain_cgroups(f"{tmp_path}/cgroup")
    return Podman(world.spawner, world.bounds, world.log, {"FAKE_VICE": vice, "FAKE_DIR": str(tmp_path)}, str(program))


def ask_all(world: World, podman: Podman) -> dict[str, Verdict]:
    """Ask everything at once; each must be answered once."""
    told: dict[str, Verdict] = {}

    def done(key: str, verdict: Verdict) -> None:
        assert key not in told, f"{key} was answered twice"
        told[key] = verdict

    for key, call in CALLS.items():
        call(podman, lambda verdict, key=key: done(key, verdict))  # type: ignore[misc]
    world.until(lambda: len(told) == len(CALLS), "an answer to each call", at_most_s=55)
    return told


def nothing_is_left(world: World) -> None:
    world.until(lambda: not children(), "the end of all it started")
    assert zombies() == []
    assert (world.spawner.running, world.spawner.abandoned) == (0, 0)


def truly_done(tmp_path: Path) -> set[str]:
    done = tmp_path / "done"
    return set(done.read_text().split()) if done.exists() else set()


@pytest.mark.parametrize("vice", VICES)
@in_child
def test_whatever_podman_does_each_call_is_answered_in_time_and_ok_only_if_it_was(vice: str, tmp_path: Path) -> None:
    deadline_s = SOON if vice in TAKES_TOO_LONG else LATE
    world = World(bounds(deadline_s))
    podman = podman_of(world, tmp_path, vice)
    world.run("true")
    with descriptors_kept():
        began = time.monotonic()
        told = ask_all(world, podman)
        took = time.monotonic() - began
    graces = QUICK.term_grace + QUICK.kill_grace + QUICK.pipe_grace
    assert took < ROUNDS * (deadline_s + graces) + SLACK_S
    done = truly_done(tmp_path)
    for key, verdict in told.items():
        assert verdict.outcome in allowed(vice, key), (key, verdict)
        assert verdict.ok or verdict.why
        assert not verdict.ok or key in done or key in SILENT, (key, verdict)
    if vice in IS_WELL:
        assert_values(told)
    assert (podman.waiting, podman.under_way) == (0, 0)
    nothing_is_left(world)


def allowed(vice: str, key: str) -> set[Outcome]:
    if vice in IS_WELL or vice == "long_list":
        return {Outcome.OK}
    if vice in TAKES_TOO_LONG:
        return {Outcome.TIMED_OUT}
    if vice in SAYS:
        return {SAYS[vice]}
    if vice == "error_behind_a_flood" and key in ("ps", "images"):
        return {Outcome.NO_CONTAINER}  # so much is kept of a list that the error is found
    if vice in MAY_BE_RIGHT or (key in SILENT and vice not in ("error_and_yet_status_0", "error_behind_a_flood", "crashes", "go_panic")):
        return {Outcome.OK, Outcome.FAULT}
    return {Outcome.FAULT}


def assert_values(told: dict[str, Verdict]) -> None:
    assert [(c.id, c.name, c.state, c.labels) for c in told["ps"].value] == [(ID, "p__a", "running", {"bay0.persona": "p://a", "x": "é"})]
    assert told["images"].value == (Image("localhost/bb:1", ID, 1486320),)
    assert (told["run"].value, told["rm"].value, told["load"].value) == (ID, ("p__b",), ("localhost/bb:1",))


@pytest.mark.parametrize("status", [1, 2, 125, 126, 127, 137, 255])
@in_child
def test_a_status_that_is_not_0_is_never_ok_even_for_calls_that_may_be_silent(status: int, tmp_path: Path) -> None:
    for vice in (f"answers_and_fails_{status}", f"fails_without_a_word_{status}"):
        world = World(bounds(LATE))
        (tmp_path / vice).mkdir()
        told = ask_all(world, podman_of(world, tmp_path / vice, vice))
        assert {verdict.outcome for verdict in told.values()} == {Outcome.FAULT}
        nothing_is_left(world)


@in_child
def test_a_podman_that_is_not_there_or_may_not_be_run_is_told_apart_from_one_that_fails(tmp_path: Path) -> None:
    world = World(bounds(LATE))
    plain = tmp_path / "plain"
    plain.write_text("")
    for program in (f"{tmp_path}/nowhere/podman", "no-such-podman", str(plain), str(tmp_path)):
        told = ask_all(world, Podman(world.spawner, world.bounds, world.log, {}, program))
        assert {verdict.outcome for verdict in told.values()} == {Outcome.NOT_THERE}, program
    nothing_is_left(world)


@in_child
def test_two_thousand_containers_are_listed_whole(tmp_path: Path) -> None:
    world = World(bounds(LATE))
    told = ask_all(world, podman_of(world, tmp_path, "long_list"))
    assert [container.id for container in told["ps"].value] == [f"{number:064x}" for number in range(2000)]


@in_child
def test_podman_is_found_where_the_environment_of_commands_says(tmp_path: Path) -> None:
    world = World(bounds(LATE))
    podman_of(world, tmp_path, "honest")
    environment = {"FAKE_VICE": "honest", "FAKE_DIR": str(tmp_path), "PATH": f"{tmp_path}:/usr/bin:/bin"}
    assert_values(ask_all(world, Podman(world.spawner, world.bounds, world.log, environment)))


@in_child
def test_once_the_spine_goes_down_every_call_is_answered_and_nothing_starts(tmp_path: Path) -> None:
    world = World(bounds(LATE))
    podman = podman_of(world, tmp_path, "honest")
    world.spawner.closed = True
    told = ask_all(world, podman)
    assert {verdict.outcome for verdict in told.values()} == {Outcome.FAULT}
    assert truly_done(tmp_path) == set()


@in_child
def test_calls_behind_one_that_hangs_get_their_turn(tmp_path: Path) -> None:
    world = World(bounds(SOON))
    podman = podman_of(world, tmp_path, "ignores_term")
    order: list[str] = []
    for n in range(3):
        podman.start("p__a", lambda _, n=n: order.append(f"a{n}"))  # type: ignore[misc]
    podman.start("p__b", lambda _: order.append("b"))
    world.until(lambda: len(order) == 4, "all answers")
    assert [key for key in order if key != "b"] == ["a0", "a1", "a2"]
    assert order.index("b") < 2, "another container's call did not wait for them"
    nothing_is_left(world)
