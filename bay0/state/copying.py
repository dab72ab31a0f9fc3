"""PID 1's end of a copy: the process that makes it (copier.py), how far that is, and how it is ended."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from attrs import frozen

from bay0.base import itself
from bay0.base.kernelfile import read_text

PROCESS, UNPACK = "--copy-home", "--unpack-home"  # hidden entries of the program
PROGRESS = "/run/bay0/copy-{}"  # by what that which is being made is called on the disk
Run = Callable[[str, tuple[str, ...], float, Callable[[Any], None]], Callable[[], None]]  # the spawner's


@frozen
class Copied:
    """What came of a copy: `why` says what was wrong, "" if it is whole and synced. `home`: there was one to be copied."""

    why: str
    entries: int = 0
    bytes: int = 0
    home: bool = False


def start(run: Run, bound_s: float, source: str, name: str, done: Callable[[Copied], None]) -> Callable[[], None]:
    """Copy the home of `source` for `name` (names on the disk) within `bound_s` seconds; `done` comes once. Return a call that ends it early."""
    job = {"source": source, "name": name, "progress": PROGRESS.format(name)}
    return run("copy-home", (*itself.argv(PROCESS), json.dumps(job)), bound_s, lambda result: done(_outcome(result)))


def unpack(run: Run, bound_s: float, archive: str, name: str, done: Callable[[Copied], None]) -> Callable[[], None]:
    """Do the same with what is in an archive, a file."""
    job = {"archive": archive, "name": name, "progress": PROGRESS.format(name)}
    return run("copy-home", (*itself.argv(UNPACK), json.dumps(job)), bound_s, lambda result: done(_outcome(result)))


def _outcome(result: Any) -> Copied:
    if not result.ok:
        return Copied(result.stderr.strip() or result.reason())
    found = json.loads(result.stdout)
    return Copied("", found["entries"], found["bytes"], home=found.get("home", True))


def progress(name: str) -> dict[str, int]:
    """Return how far the copy for `name` is (`entries`, `of_entries`, `bytes`, `of_bytes`); {} while it does not say."""
    try:
        found = json.loads(read_text(PROGRESS.format(name)) or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
