"""Modules that a boot does not pay for: loaded a module a turn, since each takes its time on a slow machine.

The tuples name what something takes, dependencies first. Whoever needs it before it is there loads it at once, in his own turn.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial

from bay0 import precompiled

MANIFESTS = ("bay0.manifestrules", "bay0.manifest")  # what a stored persona is read with
SERVERS = ("bay0.envelope", "bay0.effects.kernelview", "bay0.effects.pidfd", "bay0.servers")
UMBILICAL = (*SERVERS, "bay0.umbilicallink", "bay0.umbilicalquota", "bay0.umbilicalport")
TENANT_VERBS = (*SERVERS, "bay0.tenantverbs")
VALIDATION = ("bay0.verdict", "bay0.freezer", "bay0.effects.peers", "bay0.validate", "bay0.validation")
INHIBIT = ("bay0.effects.sleep", "bay0.inhibit")
RESERVE = ("bay0.readings", "bay0.effects.gauges", "bay0.effects.reserve")
GOVERNOR = (*MANIFESTS, *RESERVE, "bay0.heat", "bay0.effects.sensors", "bay0.thermal", "bay0.governor")
ALL = (*GOVERNOR, *TENANT_VERBS, *UMBILICAL, *VALIDATION, *INHIBIT)

Later = Callable[[Callable[[], None]], object]


def one_by_one(names: Sequence[str], later: Later, done: Callable[[None], None]) -> None:
    """Load `names`, each in a turn of its own that `later` gives, then call `done`; for a flow.

    One that cannot be loaded is passed over: whoever then needs it is told why.
    """
    later(partial(_begin, names, later, done))


def missing(names: Sequence[str]) -> bool:
    """Tell whether any of them is still to be loaded."""
    return any(name not in sys.modules for name in names)


def _begin(names: Sequence[str], later: Later, done: Callable[[None], None]) -> None:
    known = precompiled.read(precompiled.LATE) if missing(names) else {}
    for name in names:
        with contextlib.suppress(ImportError, OSError, ValueError):
            _ahead(name)
    later(partial(_load, names, known, later, done))


def _ahead(name: str) -> None:
    """Have the kernel read a module's file meanwhile: the turn that loads it must not sleep until it is there (posix_fadvise(2))."""
    spec = None if name in sys.modules else importlib.util.find_spec(name)
    path = None if spec is None else spec.cached or spec.origin
    if path is not None:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(fd)


def _load(names: Sequence[str], known: precompiled.Known, later: Later, done: Callable[[None], None]) -> None:
    if not names:
        done(None)
        return
    with precompiled.used(known=known), contextlib.suppress(ImportError, OSError):
        importlib.import_module(names[0])
    later(partial(_load, names[1:], known, later, done))
