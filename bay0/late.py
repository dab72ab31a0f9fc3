"""Modules that a boot does not pay for: loaded a module a turn, since each takes its time on a slow machine."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from functools import partial

from bay0 import precompiled

MANIFESTS = ("bay0.manifestrules", "bay0.manifest")  # what a stored persona is read with


def one_by_one(names: Sequence[str], later: Callable[[Callable[[], None]], object], done: Callable[[None], None]) -> None:
    """Load `names`, each in a turn of its own that `later` gives, then call `done`; for a flow."""
    later(partial(_load, names, precompiled.read(), later, done))


def _load(names: Sequence[str], known: precompiled.Known, later: Callable[[Callable[[], None]], object], done: Callable[[None], None]) -> None:
    if not names:
        done(None)
        return
    with precompiled.used(known=known):
        importlib.import_module(names[0])
    later(partial(_load, names[1:], known, later, done))
