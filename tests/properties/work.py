"""What a request costs: each entry of a directory that the state worker looks at, makes, moves or deletes takes its time on the disk.

Without this a request would take no longer for 30,000 entries than for one, and work that misses its bound on a healthy disk would not show. `Work`
stands in for the modules `os` and `time` of code that runs in the worker. A request that takes longer than its bound is killed in the middle, at that
entry, as SIGKILL would.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import Any, Self

from attrs import define

ENTRY_S = 0.0001
CHARGED = ("unlink", "rmdir", "rename", "mkdir", "makedirs", "truncate", "lstat", "open")  # an entry each


class Overdue(BaseException):
    """The bound of the request is over: its worker is killed in the middle of it."""


@define(eq=False)
class Work:
    """The time that the request under way has taken. `now`: the world's clock, which stands still while a request runs."""

    now: Callable[[], float]
    entry_s: float = ENTRY_S
    spent_s: float = 0.0
    left_s: float = float("inf")  # of the bound of the request

    def begin(self, left_s: float) -> None:
        self.spent_s, self.left_s = 0.0, left_s

    def touch(self) -> None:
        self.spent_s += self.entry_s
        if self.spent_s >= self.left_s:
            raise Overdue

    def monotonic(self) -> float:
        return self.now() + self.spent_s


@define(eq=False)
class Time:
    """Stands in for the module `time`."""

    work: Work

    def __getattr__(self, name: str) -> Any:
        return self.work.monotonic if name == "monotonic" else getattr(time, name)


@define(eq=False)
class Calls:
    """Stands in for the module `os`."""

    work: Work

    def __getattr__(self, name: str) -> Any:
        found = getattr(os, name)
        if name not in CHARGED:
            return found

        def charged(*args: Any, **more: Any) -> Any:
            self.work.touch()
            return found(*args, **more)

        return charged

    def scandir(self, path: Any) -> Entries:
        self.work.touch()
        return Entries(self.work, os.scandir(path))

    def listdir(self, path: Any) -> list[str]:
        with self.scandir(path) as entries:
            return [entry.name for entry in entries]

    def walk(self, top: str, *, topdown: bool = True) -> Iterator[tuple[str, list[str], list[str]]]:
        for folder, names, files in os.walk(top, topdown=topdown):
            for _ in (*names, *files):
                self.work.touch()
            yield folder, names, files


@define(eq=False)
class Entries:
    """What `os.scandir` returns: a name is read when it is asked for."""

    work: Work
    real: Any

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.real.close()

    close = __exit__

    def __iter__(self) -> Entries:
        return self

    def __next__(self) -> Any:
        entry = next(self.real)
        self.work.touch()
        return entry
