"""Modules loaded after the boot."""

from __future__ import annotations

import sys

import pytest

from bay0 import late
from bay0.reactor import Reactor


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
    assert counts == [1, 2, 2]


def test_modules_that_are_there_do_no_harm() -> None:
    reactor = Reactor()
    done: list[None] = []
    late.one_by_one(("bay0.reactor",), reactor.call_soon, done.append)
    reactor.turn(0)
    reactor.turn(0)
    assert done == [None]
