"""Modules loaded after the boot."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from kit import in_child

from bay0.loading import late
from bay0.pid1.reactor import Reactor

TOP = Path(__file__).resolve().parents[2]
MANIFESTS = ("bay0.personas.rules", "bay0.personas.manifest")


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lists as the freezer makes them."""
    made = tmp_path_factory.mktemp("late") / "late.json"
    environment = {**os.environ, "PYTHONPATH": str(TOP)}
    subprocess.run([sys.executable, str(TOP / "scripts" / "freeze" / "late_modules.py"), str(made)], env=environment, check=True)
    return made


@in_child
def test_each_module_is_loaded_in_a_turn_of_its_own() -> None:
    for name in MANIFESTS:  # of a process that ends: what others hold of a module would be of another one
        sys.modules.pop(name, None)
    reactor = Reactor()
    done: list[None] = []
    late.one_by_one(MANIFESTS, reactor.call_soon, done.append)
    counts = []
    while not done:
        reactor.turn(0)
        counts.append(sum(name in sys.modules for name in MANIFESTS))
    assert counts == [0, 0, 0, 1, 2, 2]


def test_modules_that_are_there_do_no_harm() -> None:
    reactor = Reactor()
    done: list[None] = []
    late.one_by_one(("bay0.pid1.reactor",), reactor.call_soon, done.append)
    reactor.turn(0)
    assert done == [None]


def test_one_that_cannot_be_loaded_does_not_keep_the_others_back() -> None:
    reactor = Reactor()
    done: list[None] = []
    late.one_by_one(("bay0.not_there", "bay0.pid1.reactor"), reactor.call_soon, done.append)
    while not done:
        reactor.turn(0)
    assert late.missing(("bay0.not_there",))
    assert not late.missing(("bay0.pid1.reactor",))


def test_what_is_made_to_stay_is_not_looked_through_again() -> None:
    code = """
import contextlib, gc
from bay0.loading import garbage
with garbage.staying():
    machines = [[] for _ in range(5000)]
    assert gc.get_count()[0] >= 5000, "nothing was collected meanwhile"
assert gc.isenabled() and gc.get_freeze_count() > 5000
assert not any(each is machines for each in gc.get_objects())
with contextlib.suppress(KeyError), garbage.staying():
    raise KeyError
assert gc.isenabled()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_is_loaded_late_asks_for_nothing_else_in_its_turn_and_for_nothing_that_pid_1_puts_off(lists: Path) -> None:
    code = """
import importlib, json, sys
from bay0.loading import lazy
for name in lazy.UNUSED_BY_PID1:
    lazy.load(name)
import bay0.init
for names in json.load(open(sys.argv[1])).values():
    for name in names:
        before = set(sys.modules)
        importlib.import_module(name)
        more = sorted(set(sys.modules) - before - {name})
        assert not more, (name, more)
awake = [name for name in lazy.UNUSED_BY_PID1 if not isinstance(sys.modules[name], lazy._Later)]
assert not awake, awake
"""
    environment = {**os.environ, "PYTHONPATH": str(TOP)}
    done = subprocess.run([sys.executable, "-c", code, str(lists)], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr


def test_every_late_part_of_the_spine_is_in_the_lists_with_what_it_takes(lists: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = json.loads(lists.read_text())
    for target, names in found.items():
        assert names[-1] == f"bay0.{target.partition(':')[0]}", "itself comes last"
    monkeypatch.setattr(late, "LISTS", str(lists))
    late._lists.cache_clear()
    try:
        one, two = (late.Late(target, lambda new: new) for target in ("ai.port:Servers", "umbilical.doors:Umbilical"))
        both = late.Late("umbilical.doors:Umbilical", lambda new: new, (one,))
        assert set(both.modules) == {*one.modules, *two.modules}
        assert len(both.modules) == len(set(both.modules))
    finally:
        late._lists.cache_clear()


def test_in_a_checkout_without_lists_a_part_is_made_at_once() -> None:
    part = late.Late("base.uids:first_uid", lambda new: new)
    assert (part.modules, part.made) == ((), None)
    done: list[None] = []
    part.load(lambda call: call(), done.append)  # type: ignore[no-untyped-call,arg-type]
    assert done == [None]
    assert part()(0) == 100_000  # type: ignore[operator]
