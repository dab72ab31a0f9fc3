"""News of steps: in the order in which they were taken, each once its step is whole, whatever the effects and the news themselves send."""

from __future__ import annotations

from enum import Enum
from typing import Any

import pytest
from kit import E, Effect, Journal, Log, S, Timers, small

from bay0.machines.bus import ANY
from bay0.machines.engine import Engine
from bay0.machines.instance import Instance, Step


class Port:
    """An effect port that answers at once, or sends to another machine at once."""

    def __init__(self) -> None:
        self.engine: Any = None
        self.sends: dict[str, tuple[str, Enum]] = {}

    def start(self, instance: Instance, _effect: Enum, _token: int) -> None:
        if instance.name in self.sends:
            self.engine.send(*self.sends.pop(instance.name))


def bench(**kinds: Port) -> tuple[Engine, Port]:
    port = Port()
    engine = Engine("b", Timers(), lambda: 0, Log())  # type: ignore[arg-type]
    engine.keep_with(Journal())
    engine.serve("small", port)
    port.engine = engine
    engine.add("one", small())
    engine.add("two", small())
    return engine, port


def test_a_step_within_anothers_effect_is_told_behind_it() -> None:
    engine, port = bench()
    port.sends["one"] = ("two", E.WORK)
    told: list[int] = []
    engine.on("small", call=lambda _instance, step: told.append(step.n))
    engine.send("one", E.WORK)
    assert told == sorted(told) == [1, 2]


def test_what_news_makes_somebody_send_is_told_behind_the_news_that_waits() -> None:
    engine, port = bench()
    port.sends["one"] = ("two", E.WORK)
    told: list[tuple[str, str]] = []

    def hears(instance: Instance, step: Step) -> None:
        told.append((instance.name, step.dest))
        if (instance.name, step.dest) == ("one", "working"):
            engine.send("one", E.CONVERGE)

    engine.on("small", call=hears)
    engine.send("one", E.WORK)
    assert told == [("one", "working"), ("two", "working"), ("one", "ending")]


def test_a_step_is_told_when_it_is_whole() -> None:
    engine, _port = bench()
    seen: list[Any] = []
    engine.on("small", S.WORKING, call=lambda instance, step: seen.append((instance.now, step.dest)))
    engine.send("one", E.WORK, reply=lambda step: seen.append(step.dest))  # type: ignore[union-attr]
    assert seen == ["working", (S.WORKING, "working")], "who asked is answered first"


def test_states_kind_and_machine_select_what_is_heard() -> None:
    engine, _port = bench()
    heard: dict[str, list[str]] = {"state": [], "of": [], "any": [], "other kind": []}
    engine.on("small", S.ENDING, call=lambda _i, step: heard["state"].append(step.dest))
    engine.on("small", call=lambda i, _step: heard["of"].append(i.name), of=engine.instances["two"])
    engine.on(ANY, call=lambda i, _step: heard["any"].append(i.name))
    engine.on("large", call=lambda i, _step: heard["other kind"].append(i.name))
    engine.send("one", E.WORK)
    engine.send("two", E.WORK)
    engine.send("one", E.CONVERGE)
    assert heard == {"state": ["ending"], "of": ["two"], "any": ["one", "two", "one"], "other kind": []}


def test_a_kind_has_one_port_and_an_engine_one_journal() -> None:
    engine, port = bench()
    with pytest.raises(AssertionError, match="small has a port already"):
        engine.serve("small", port)
    with pytest.raises(AssertionError, match="a journal already"):
        engine.keep_with(Journal())


def test_wiring_that_is_not_whole_is_refused_with_what_is_missing() -> None:
    engine, _port = bench()
    engine.complete(["small"])
    with pytest.raises(AssertionError, match="without a port: large, medium"):
        engine.complete(["small", "medium", "large"])
    with pytest.raises(AssertionError, match="no journal"):
        Engine("b", Timers(), lambda: 0, Log()).complete([])  # type: ignore[arg-type]
    assert Effect  # the kit's machine has one
