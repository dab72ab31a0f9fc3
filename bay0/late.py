"""Modules that a boot does not pay for: loaded a module a turn, since each takes its time on a slow machine.

The tuples name what something takes, dependencies first. Whoever needs it before it is there loads it at once, in his own turn.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from bay0 import garbage, precompiled
from bay0.errors import RefusedError

MANIFESTS = ("bay0.manifestrules", "bay0.manifest")  # what a stored persona is read with
SERVERS = ("bay0.envelope", "bay0.effects.kernelview", "bay0.effects.pidfd", "bay0.readings", "bay0.effects.gauges", "bay0.servers")
UMBILICAL = (*SERVERS, "bay0.umbilicallink", "bay0.umbilicalquota", "bay0.umbilicalport")
TENANT_VERBS = (*SERVERS, "bay0.tenantverbs")
VALIDATION = ("bay0.verdict", "bay0.freezer", "bay0.effects.peers", "bay0.validate", "bay0.validation")
INHIBIT = ("bay0.effects.sleep", "bay0.inhibit")
RESERVE = ("bay0.readings", "bay0.effects.gauges", "bay0.effects.reserve")
GOVERNOR = (*MANIFESTS, *RESERVE, "bay0.heat", "bay0.effects.sensors", "bay0.thermal", "bay0.governor")
ALL = (*GOVERNOR, *TENANT_VERBS, *UMBILICAL, *VALIDATION, *INHIBIT)

Later = Callable[[Callable[[], None]], object]


def one_by_one(names: Sequence[str], later: Later, done: Callable[[None], None]) -> None:
    """Load `names`, then call `done`; for a flow. `later` gives the turns: for each module one to have it read ahead and one to load it.

    One that cannot be loaded is passed over: whoever then needs it is told why.
    """
    known: precompiled.Known = {}
    wanted = [name for name in names if name not in sys.modules]
    if not wanted:
        later(partial(done, None))
        return
    steps = [*(partial(_ahead, name) for name in wanted), partial(_learn, known), *(partial(_load, name, known) for name in wanted)]
    later(partial(_load_next, steps, later, done))


@contextlib.contextmanager
def loading(known: precompiled.Known | None = None) -> Iterator[None]:
    """Import what a boot did not, with what attrs would compile from `known` or else from the file, and for good."""
    with garbage.staying(), precompiled.used(precompiled.LATE, known):
        yield


@contextlib.contextmanager
def needed(what: str) -> Iterator[None]:
    """Do as `loading`, for `what` somebody needs now.

    `RefusedError`: it cannot be loaded, for example since no descriptor is free.
    """
    try:
        with loading():
            yield
    except (ImportError, OSError) as error:
        raise RefusedError(f"what {what} takes cannot be loaded now: {error}") from error


def missing(names: Sequence[str]) -> bool:
    """Tell whether any of them is still to be loaded."""
    return any(name not in sys.modules for name in names)


def _load_next(steps: Sequence[Callable[[], None]], later: Later, done: Callable[[None], None]) -> None:
    if not steps:
        done(None)
        return
    with contextlib.suppress(Exception):  # whatever is wrong with a module is for who needs it to hear, not for the reactor
        steps[0]()
    later(partial(_load_next, steps[1:], later, done))


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


def _learn(known: precompiled.Known) -> None:
    known.update(precompiled.read(precompiled.LATE))


def _load(name: str, known: precompiled.Known) -> None:
    with loading(known):
        importlib.import_module(name)
