"""Modules loaded after the boot."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bay0.loading import late
from bay0.pid1.reactor import Reactor


def test_each_module_is_loaded_in_a_turn_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in late.MANIFESTS:
        monkeypatch.delitem(sys.modules, name, raising=False)
    reactor = Reactor()
    done: list[None] = []
    late.one_by_one(late.MANIFESTS, reactor.call_soon, done.append)
    counts = []
    while not done:
        reactor.turn(0)
        counts.append(sum(name in sys.modules for name in late.MANIFESTS))
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


def test_what_is_loaded_late_asks_for_nothing_else_in_its_turn_and_for_nothing_that_pid_1_puts_off() -> None:
    code = """
import importlib, sys
from bay0.loading import lazy
for name in lazy.UNUSED_BY_PID1:
    lazy.load(name)
import bay0.init
from bay0.loading import late
for name in late.ALL:
    before = set(sys.modules)
    importlib.import_module(name)
    more = sorted(set(sys.modules) - before - {name})
    assert not more, (name, more)
awake = [name for name in lazy.UNUSED_BY_PID1 if not isinstance(sys.modules[name], lazy._Later)]
assert not awake, awake
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

