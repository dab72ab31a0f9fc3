"""What a boot does about what was stored and what podman has; what follows when a container is no more."""

from __future__ import annotations

from typing import Any

import pytest

from bay0.machines import MACHINES, persona
from bay0.machines.persona import E, S
from bay0.reconcile.plan import End, Then, after_end, plan, strays


def row(name: str, state: str, kind: str = "persona") -> dict[str, Any]:
    return {"name": name, "kind": kind, "state": state, "seq": 3, "attempts": 0, "desired": "running", "config": "{}"}


def owed(*rows: dict[str, Any], containers: tuple[str, ...] = ()) -> list[str]:
    return [replay.name for replay in plan(rows, MACHINES, containers).replays if replay.converge]


@pytest.mark.parametrize("state", [s.value for s in S if s not in (S.STOPPED, S.ABSENT)])
def test_a_persona_that_was_not_at_rest_owes_a_converge_whatever_podman_says(state: str) -> None:
    assert owed(row("p://work", state)) == ["p://work"]
    assert owed(row("p://work", state), containers=("p__work",)) == ["p://work"]


def test_a_stopped_persona_is_taken_over_and_owes_nothing() -> None:
    (replay,) = plan([row("p://work", "stopped")], MACHINES).replays
    assert (replay.name, replay.converge) == ("p://work", False)


def test_a_stopped_persona_with_a_container_owes_a_converge() -> None:
    assert owed(row("p://work", "stopped"), containers=("p__work",)) == ["p://work"]


def test_a_state_nobody_knows_owes_a_converge() -> None:
    assert owed(row("p://work", "levitating")) == ["p://work"]


def test_a_container_under_our_names_without_a_row_is_swept_and_others_are_named_and_left() -> None:
    found = plan([row("p://work", "running"), row("p://gone", "absent")], MACHINES, ("p__work", "p__ghost", "p__gone", "sys__probe", "web", "p_x"))
    assert found.sweep == ("p__ghost", "p__gone", "sys__probe")
    assert found.foreign == ("p_x", "web")


def test_a_machine_of_an_unknown_kind_and_a_persona_of_an_impossible_name_are_named_and_left() -> None:
    found = plan([row("x", "running", kind="teapot"), row("p://Not A Name", "running")], MACHINES)
    assert (found.replays, found.unknown) == ((), ("x", "p://Not A Name"))


def test_machines_of_the_spine_itself_are_converged_as_before() -> None:
    boots = [row("boot:1", "complete", "boot"), row("boot:0", "died", "boot")]
    assert owed(*boots, row("sys://console", "running", "tenant"), row("focus", "settled", "focus")) == ["boot:1", "sys://console", "focus"]


STATUS = {"failed": End("its start failed"), "killed": End("it ended", by_itself=True, status=137), "well": End("it ended", by_itself=True, status=0)}


@pytest.mark.parametrize(
    ("end", "restart", "attempts", "follows"),
    [
        ("well", "no", 1, Then.WELL),
        ("well", "on-failure", 1, Then.WELL),
        ("well", "always", 1, Then.AGAIN),
        ("killed", "no", 1, Then.GIVEN_UP),
        ("killed", "on-failure", 1, Then.AGAIN),
        ("killed", "on-failure", 3, Then.AGAIN),
        ("killed", "on-failure", 4, Then.GIVEN_UP),
        ("failed", "no", 1, Then.GIVEN_UP),
        ("failed", "always", 3, Then.AGAIN),
        ("failed", "always", 4, Then.GIVEN_UP),
    ],
)
def test_what_follows_an_end_is_what_the_manifest_says(end: str, restart: str, attempts: int, follows: Then) -> None:
    found, why = after_end(STATUS[end], desired="running", restart=restart, retries=3, attempts=attempts)
    assert found is follows
    assert why


@pytest.mark.parametrize("end", STATUS)
@pytest.mark.parametrize("restart", ["no", "on-failure", "always"])
def test_what_is_wanted_stopped_stays_stopped(end: str, restart: str) -> None:
    assert after_end(STATUS[end], desired="stopped", restart=restart, retries=3, attempts=9)[0] is Then.STOPPED


def test_while_it_runs_a_container_of_a_machine_at_rest_is_converged_one_of_nobody_swept_and_the_others_left() -> None:
    machines = {"p://a": S.STOPPED, "p://b": S.FAILED, "p://c": S.RUNNING, "p://d": S.STARTING, "p://e": S.ABSENT}
    found = strays(machines, ("p__a", "p__b", "p__c", "p__d", "p__e", "p__f", "sys__ai", "web"))
    assert found == (("p://a", "p://b"), ("p__e", "p__f"))


def test_from_every_state_a_boot_reaches_stopped_when_podman_answers() -> None:
    """By the table alone: CONVERGE, then GONE."""
    for state in S:
        verdict = persona.PERSONA.lookup(state, E.CONVERGE)
        if state in (S.ABSENT, *persona.MADE, *persona.GOES_BACK):
            continue
        assert verdict.dest is S.CONVERGING  # type: ignore[union-attr]
        assert verdict.desired == "stopped"  # type: ignore[union-attr]
        assert persona.PERSONA.lookup(S.CONVERGING, E.GONE).dest is S.STOPPED  # type: ignore[union-attr]


def test_a_boot_gives_up_what_was_half_copied_and_puts_what_was_whole_in_its_place() -> None:
    """By the table alone. Neither has ever had a container."""
    lookup = persona.PERSONA.lookup
    assert lookup(S.COPYING, E.CONVERGE).dest is S.ABSENT  # type: ignore[union-attr]
    assert lookup(S.PLACING, E.CONVERGE).dest is S.PLACING  # type: ignore[union-attr]
    assert lookup(S.PLACING, E.PLACED).dest is S.STOPPED  # type: ignore[union-attr]
    assert lookup(S.RESTORING, E.CONVERGE).dest is S.STOPPED, "as it was"  # type: ignore[union-attr]
    assert lookup(S.REPLACING, E.CONVERGE).dest is S.REPLACING  # type: ignore[union-attr]
    assert lookup(S.RESTORING, E.COPIED).promised, "or the manifest could be that of one time and the home that of another"  # type: ignore[union-attr]
    assert lookup(S.COPYING, E.COPIED).promised, "or a crash could find a home in its place, and nobody whose it is"  # type: ignore[union-attr]


def test_every_row_towards_a_container_that_somebody_asked_for_is_promised() -> None:
    for each in persona.ROWS:
        if each.event in (E.CREATE, E.START, E.AUTOSTART, E.WAITED, E.REMOVE, E.RESET) and each.source is not S.STUCK:
            assert each.promised, each
        if each.event in (E.STOP, E.CONVERGE, E.FAULT, E.TIMED_OUT, E.ENDED, E.GONE, E.PAUSE, E.RESUME):
            assert not each.promised, each
