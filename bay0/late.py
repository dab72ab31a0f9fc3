"""Modules that a boot does not pay for: loaded a module a turn, since each takes its time on a slow machine."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from functools import partial
from types import ModuleType

from bay0 import precompiled

MANIFESTS = ("bay0.manifestrules", "bay0.manifest")  # what a stored persona is read with


def load(name: str) -> ModuleType:
    """Load one module now; at once if it is there already."""
    with precompiled.used():
        return importlib.import_module(name)


def one_by_one(names: Sequence[str], later: Callable[[Callable[[], None]], object], done: Callable[[None], None]) -> None:
    """Load `names`, each in a turn that `later` gives, then call `done`; for a flow."""
    if not names:
        done(None)
        return
    load(names[0])
    later(partial(one_by_one, names[1:], later, done))
