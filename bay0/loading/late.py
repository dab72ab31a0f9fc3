"""Parts of the program that a boot does not pay for: loaded when they are needed, a module a turn, since each takes its time on a slow machine.

What a part takes, dependencies first, is found out when the program is frozen, by importing it: so the lists cannot drift from the
imports. In a checkout there are no lists, and a part is loaded in the turn that needs it.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from attrs import define, field

from bay0.base.errors import RefusedError
from bay0.loading import garbage, precompiled

LISTS = os.path.join(os.path.dirname(__file__), "late.json")  # made by scripts/freeze/late_modules.py; a checkout has none

Later = Callable[[Callable[[], None]], object]
Part = TypeVar("Part")


@define(eq=False, repr=False)
class Late(Generic[Part]):
    """A part of the spine that is made when it is first needed: call it to have it.

    `target`: "module:Class" within bay0; `build` gets that class and makes the part. Those who can wait call `load` first,
    so that each module has a turn of its own.
    """

    target: str
    build: Callable[[type[Part]], Part]
    needs: Sequence[Late[Any]] = ()  # the late parts that `build` calls
    made: Part | None = field(init=False, default=None)

    @property
    def modules(self) -> Sequence[str]:
        """What it takes, dependencies first; () in a checkout."""
        of_others = (name for part in self.needs for name in part.modules)
        return tuple(dict.fromkeys((*of_others, *_lists().get(self.target, ()))))

    def __call__(self) -> Part:
        """Return the part; make it first if this is the first time. `RefusedError`: it cannot be loaded, since no descriptor is free for example."""
        if self.made is None:
            self.made = self.build(self._found())
        return self.made

    def _found(self) -> type[Part]:
        module, _, name = self.target.partition(":")
        try:
            with loading():
                found: type[Part] = getattr(importlib.import_module(f"bay0.{module}"), name)
        except (ImportError, OSError) as error:
            raise RefusedError(f"bay0's part {module} cannot be loaded now: {error}") from error
        return found

    def load(self, later: Later, done: Callable[[None], None]) -> None:
        """Load its modules, one in each turn that `later` gives, then call `done`."""
        one_by_one(self.modules, later, done)

    def ask(self, name: str) -> Callable[..., Any]:
        """Return a call of its method `name` that does nothing and returns () while it is not made."""
        return lambda *arguments: () if self.made is None else getattr(self.made, name)(*arguments)

    def method(self, name: str) -> Callable[[Mapping[str, Any], Callable[[Any], None]], None]:
        """Return its method `name` as one of the control socket's, for a part that is made when the first request comes."""
        return lambda params, reply: getattr(self(), name)(params, reply)



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


@functools.cache
def _lists() -> Mapping[str, Sequence[str]]:
    """Return target -> modules, as the freezer wrote them."""
    try:
        with open(LISTS, encoding="utf-8") as file:
            return {str(target): tuple(names) for target, names in json.load(file).items()}
    except (OSError, ValueError, AttributeError, TypeError):  # without them a part is loaded at once
        return {}


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
