"""docs/how-to/add-a-machine.md: the code of the page, added as it says, goes through the table, enumeration and world suites."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import test_enumeration
import test_tables
from bench import Bench
from conftest import Size
from world import World

from bay0.machines import MACHINES, graph
from bay0.machines.table import MachineDef

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "add-a-machine.md"
TABLE, PORT, LINE = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def module(name: str, code: str) -> ModuleType:
    made = ModuleType(name)
    exec(compile(code, name, "exec"), vars(sys.modules.setdefault(name, made)))
    return sys.modules[name]


@pytest.fixture
def lamp(monkeypatch: pytest.MonkeyPatch) -> Iterator[MachineDef]:
    """The machine of the page, in the program until the test ends."""
    kept = dict(sys.modules)
    table = module("bay0.machines.lamp", TABLE)
    monkeypatch.setitem(MACHINES, "lamp", table.LAMP)
    yield table.LAMP
    for name in set(sys.modules) - set(kept):
        del sys.modules[name]


def ports(engine_: Any, reactor: Any, logger: Any) -> dict[str, Any]:
    """Return what the page's line adds to `ports` of spine.py."""
    made = module("bay0.lamp.port", PORT)
    found: dict[str, Any] = eval("{" + LINE + "}", {"Lamp": made.Lamp, "engine": engine_, "reactor": reactor, "logger": logger})
    return found


def test_its_table_goes_through_the_table_suite(lamp: MachineDef, size: Size) -> None:
    test_tables.test_converge_ends_at_rest_whatever_the_effects_do("lamp", size, lambda *_: None)
    test_tables.test_a_second_reconcile_finds_nothing_to_do("lamp")
    test_tables.test_a_state_this_program_does_not_know_goes_where_converge_leads_and_is_journaled_by_its_name("lamp")
    assert "darkening" in graph.page(lamp, str(sys.modules["bay0.machines.lamp"].__doc__))


def test_whatever_was_stored_of_it_a_boot_ends_converged(lamp: MachineDef, monkeypatch: pytest.MonkeyPatch) -> None:
    class Lamps(Bench):
        def __init__(self) -> None:
            super().__init__()
            self.more_ports = ports

    others = [("lamp", state) for state in (*(each.value for each in lamp.states), test_enumeration.UNKNOWN)]
    monkeypatch.setattr(test_enumeration, "OTHERS", others)
    monkeypatch.setattr(test_enumeration, "Bench", Lamps)
    test_enumeration.test_every_other_machine_ends_converged_from_whatever_was_stored("lamp")


@pytest.mark.parametrize("seams", [None, 3, 9, 27])
def test_in_a_world_it_lights_is_kept_and_is_dark_after_a_cut(lamp: MachineDef, seams: int | None) -> None:
    on = lamp.event("ON")
    with World() as world:
        world.more_ports = ports
        world.boot()
        world.run(10)
        world.send("lamp", on)
        world.run(2)
        assert world.state_of("lamp").value == "lit"
        world.crash_at = None if seams is None else world.seams + seams
        for event in ("OFF", "ON"):
            if world.on:
                world.send("lamp", lamp.event(event))
                world.run(1)
        world.cut()
        world.crash_at = None
        world.boot()
        world.run(10)
        assert world.state_of("lamp").value == "dark"
        world.send("lamp", on)
        world.run(2)
        assert world.state_of("lamp").value == "lit"
        world.settle()


def test_without_its_port_the_wiring_is_refused(lamp: MachineDef) -> None:
    with World() as world, pytest.raises(AssertionError, match="without a port: lamp"):
        world.boot()
