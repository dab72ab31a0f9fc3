"""A thousand personas: what PID 1 does for all of them is linear, and a part of it in each turn. Work is counted, never timed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum
from types import SimpleNamespace
from typing import Any

import pytest
from kit import Log, Timers
from personakit import Bench

from bay0.boot import leaving
from bay0.focus import switch
from bay0.focus.switch import Focus
from bay0.machines import MACHINES, boot, focus, server
from bay0.machines.instance import Instance
from bay0.machines.persona import E, S
from bay0.podman.calls import Container, Outcome, Verdict
from bay0.reconcile import clearing
from bay0.reconcile import plan as reconcile

MANY = 1000


class Counted:
    """Counts the calls of a function."""

    def __init__(self, patch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        self.calls, self.real = 0, getattr(owner, name)
        patch.setattr(owner, name, self)

    def __call__(self, *args: Any, **keys: Any) -> Any:
        self.calls += 1
        return self.real(*args, **keys)


class Crowd:
    """Machines without a journal: a step is taken at once by whoever is told."""

    def __init__(self, state: S, count: int = MANY) -> None:
        self.instances = {f"p://n{n}": Instance(f"p://n{n}", MACHINES["persona"], state) for n in range(count)}
        self.sent: list[tuple[str, Enum]] = []
        self.told: list[Any] = []

    def on(self, _kind: str, *_states: Enum, call: Any, of: Any = None) -> None:
        self.told.append(call)

    def of_kind(self, kind: str) -> list[Instance]:
        return [each for each in self.instances.values() if each.definition.kind == kind]

    def send(self, name: str, event: Enum, *_why: Any, **_more: Any) -> None:
        self.sent.append((name, event))


# ---- the focus


def nobody(_instance: Instance) -> bool:
    return False


def turns_of(switch: Iterator[Any], crowd: Crowd, looks: Counted) -> list[tuple[int, int]]:
    """Drive a switch to its first pause; return what each turn did: looks, steps."""
    found = []
    for waits_for in switch:
        found.append((looks.calls, len(crowd.sent)))
        looks.calls = 0
        crowd.sent.clear()
        if waits_for.__name__ == "_wait":
            return found
    return [*found, (looks.calls, len(crowd.sent))]


def test_a_switch_looks_at_each_persona_once_and_does_a_part_of_it_in_each_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    crowd, looks = Crowd(S.RUNNING), Counted(monkeypatch, switch, "_there")
    port = Focus(crowd, SimpleNamespace(), Log(), nobody)  # type: ignore[arg-type]
    turns = turns_of(port._switch("p://n500"), crowd, looks)
    assert sum(looks for looks, _ in turns) == MANY
    assert sum(steps for _, steps in turns) == MANY - 1
    assert max(looks for looks, _ in turns) <= 400
    assert max(steps for _, steps in turns) <= 20


def test_a_switch_with_nobody_to_freeze_takes_few_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    crowd, looks = Crowd(S.STOPPED), Counted(monkeypatch, switch, "_there")
    crowd.instances["p://n1"].state = S.RUNNING
    port = Focus(crowd, SimpleNamespace(), Log(), nobody)  # type: ignore[arg-type]
    assert turns_of(port._switch("p://n1"), crowd, looks) == [(400, 0), (400, 0), (200, 0)]


ODD = (
    "", "nonsense", "[]", "{}", "null", "1", '{"active": 1}', '{"active": null}', '{"active": ["p://a"]}', '"active"', "[" * 60000, "\x00",
    "1e999",
)  # fmt: skip


@pytest.mark.parametrize("text", ODD)
def test_a_focus_that_this_program_did_not_write_is_nobody_and_ends_nothing(text: str) -> None:
    instance = Instance(focus.NAME, MACHINES["focus"], focus.S.SETTLED)
    instance.config = text
    assert focus.active(instance) is None


def test_a_switch_to_nobody_fails_and_freezes_nobody() -> None:
    crowd = Crowd(S.RUNNING, 3)
    switch = Focus(crowd, SimpleNamespace(), Log(), nobody)._switch(None)  # type: ignore[arg-type]
    with pytest.raises(StopIteration) as end:
        next(switch)
    assert end.value.value[0].value == "fault"
    assert crowd.sent == []


def test_a_persona_that_ends_in_front_of_a_focus_that_makes_no_sense_ends_nothing() -> None:
    crowd = Crowd(S.STOPPED, 1)
    crowd.instances[focus.NAME] = Instance(focus.NAME, MACHINES["focus"], focus.S.SETTLED, config="{}")
    Focus(crowd, SimpleNamespace(), Log(), nobody)  # type: ignore[arg-type]
    crowd.told[0](crowd.instances["p://n0"], SimpleNamespace(dest="stopped"))
    assert crowd.sent == []


# ---- reconcile


def stored(count: int, drawn: list[int]) -> Iterator[dict[str, Any]]:
    for n in range(count):
        drawn.append(n)
        yield {"name": f"p://n{n}", "kind": "persona", "state": "running", "seq": 1, "attempts": 0, "desired": "running", "config": ""}


def test_a_plan_is_made_in_turns_and_each_row_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed, drawn = Counted(monkeypatch, reconcile.names, "parse"), []  # type: ignore[var-annotated]
    looked = {"persona": SpecsCounted(MACHINES["persona"])}
    containers = [f"p__n{n}" for n in range(0, 2 * MANY, 2)]
    making = reconcile.planning(stored(MANY, drawn), looked, containers)  # type: ignore[arg-type]
    turns, before = [], 0
    while True:
        try:
            next(making)
        except StopIteration as end:
            plan = end.value
            break
        turns.append(len(drawn) - before)
        before = len(drawn)
    assert max(turns) <= reconcile.ROWS_A_TURN
    assert len(turns) == 2 * MANY // reconcile.ROWS_A_TURN, "rows and containers"
    assert (parsed.calls, looked["persona"].looks) == (MANY, 1)
    assert len(plan.replays) == MANY
    assert len(plan.sweep) == MANY // 2
    assert [replay.container for replay in plan.replays[:2]] == ["p__n0", "p__n1"]


class SpecsCounted:
    """A table that counts how often all its states are looked at."""

    def __init__(self, definition: Any) -> None:
        self.definition, self.looks = definition, 0

    def __getattr__(self, name: str) -> Any:
        if name == "specs":
            self.looks += 1
        return getattr(self.definition, name)


def test_clearing_looks_up_each_container_once() -> None:
    """It asked for each of podman's containers whether it was in the list of those wanted."""
    compared = 0

    class Text(str):
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    names = [Text(f"p__n{n}") for n in range(MANY)]
    known = [Container("a" * 64, (str(name),), "exited", 0, 0, "", {}) for name in names]
    podman = SimpleNamespace(
        list=lambda done: done(Verdict(Outcome.OK, "", known)), remove=lambda _names, _stop_s, done: done(Verdict(Outcome.OK, ""))
    )
    timers, told = Timers(), []  # type: ignore[var-annotated]
    clear = clearing.Clearing(timers, podman)  # type: ignore[arg-type]
    for name in names:
        clear.clear(name, told.append)
    timers.advance(1)
    assert len(told) == MANY
    assert all(each.gone and each.status == 0 for each in told)
    assert compared < 20 * MANY


# ---- the stop


def leaves(crowd: Crowd, timers: Any, monkeypatch: pytest.MonkeyPatch) -> leaving.Leaving:
    nothing: Callable[..., None] = lambda *_args, **_keys: None
    monkeypatch.setattr(leaving.containers, "kill_all", nothing)
    state: Any = SimpleNamespace(append_genesis=nothing, boot={"boot_id": "b"})
    bounds: Any = SimpleNamespace(polite_stop=10.0, slow_stop=30.0)
    return leaving.Leaving(crowd, timers, bounds, Log(), None, SimpleNamespace(close=nothing), state, None)  # type: ignore[arg-type]


def test_a_stop_asks_some_in_a_turn_and_looks_at_few_after_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    crowd, timers, looks = Crowd(S.RUNNING), Timers(), Counted(monkeypatch, leaving, "_rests")
    crowd.instances["sys://ai"] = Instance("sys://ai", MACHINES["server"], server.S.STOPPED)
    made = leaves(crowd, timers, monkeypatch)
    made._stop(Instance("boot:b", MACHINES["boot"], boot.S.STOPPING), 1)
    assert len(crowd.sent) == leaving.STOPS_A_TURN
    timers.advance(1)
    assert [name for name, event in crowd.sent if event is E.STOP] == [f"p://n{n}" for n in range(MANY)]
    for instance in crowd.of_kind("persona"):
        assert made._polite is not None, "not before the last one rests"
        instance.state = S.STOPPED
        made._look_stopped()
    assert made._polite is None
    assert looks.calls < 6 * MANY


def test_one_that_rested_and_does_not_any_more_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    crowd, timers = Crowd(S.RUNNING, 3), Timers()
    made = leaves(crowd, timers, monkeypatch)
    made._stop(Instance("boot:b", MACHINES["boot"], boot.S.STOPPING), 1)
    one, two, three = crowd.of_kind("persona")
    for instance, state in ((three, S.STOPPED), (two, S.STOPPED), (three, S.CONVERGING), (one, S.FAILED)):
        instance.state = state
        made._look_stopped()
    assert made._polite is not None
    three.state = S.STOPPED
    made._look_stopped()
    assert made._polite is None


# ---- what starts with the spine


def test_what_starts_with_the_spine_is_looked_at_when_it_takes_a_step_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    for n in range(50):
        bench.persona(f"p://n{n}", autostart=True).state = S.CONVERGING  # each is cleared away before it may start
    bench.timers.advance(1)
    bench.port.autostart()
    looks = Counted(monkeypatch, bench.port, "_look_autostart")
    for n in range(50):
        instance = bench.engine.instances[f"p://n{n}"]
        instance.state = S.STOPPED
        bench.port._stepped(instance, SimpleNamespace(event="gone"))  # type: ignore[arg-type]
    bench.timers.advance(0.1)
    assert looks.calls < 300
    assert bench.port._waiting == set()
