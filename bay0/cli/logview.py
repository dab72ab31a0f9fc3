"""`bay0 log`: reads the log file under /run in the command's own process, so that a slow reader is nobody's problem but its own."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator

from bay0.base.errors import NoSpineError
from bay0.base.logline import RUN_LOG, render
from bay0.cli.nospine import what_helps

POLL_S = 0.25


def stored(path: str) -> Iterator[str]:
    """Yield the lines of the older file, then of the current one."""
    for name in (path + ".1", path):
        try:
            with open(name, encoding="utf-8", errors="replace") as file:
                yield from file
        except FileNotFoundError:
            continue


def follow(path: str) -> Iterator[str]:
    """Yield lines as they come, across rotations; never ends."""
    file = open(path, encoding="utf-8", errors="replace")  # noqa: SIM115 - it changes hands below
    file.seek(0, os.SEEK_END)
    partial = ""
    while True:
        line = file.readline()
        if line:
            partial += line
            if partial.endswith("\n"):
                yield partial
                partial = ""
            continue
        time.sleep(POLL_S)
        try:
            rotated = os.stat(path).st_ino != os.fstat(file.fileno()).st_ino
        except FileNotFoundError:
            continue
        if rotated:
            for rest in file:
                partial += rest
                if partial.endswith("\n"):
                    yield partial
                    partial = ""
            file.close()
            file = open(path, encoding="utf-8", errors="replace")  # noqa: SIM115 - as above


def form(line: str, *, as_json: bool, stamp: Callable[[float], str] | None = None) -> str:
    """Return a stored line as JSON or as the console shows it; before it what `stamp` makes of its milliseconds of the kernel's clock."""
    if as_json:
        return line
    try:
        record = json.loads(line)
        before = f"{stamp(record['t_ms'])} " if stamp is not None else ""
        return f"{before}{render(record)}\n"
    except (ValueError, KeyError, TypeError):
        return line  # a torn line is shown as it is


def show(
    last: int, *, follow: bool, as_json: bool, kept: Callable[[str], bool] = lambda _line: True, path: str = RUN_LOG,
    stamp: Callable[[float], str] | None = None,
) -> int:  # fmt: skip
    """Print the log, as `select` does; `last` 0 means all of it."""
    return select(kept, last, follow=follow, as_json=as_json, path=path, stamp=stamp)


def select(
    kept: Callable[[str], bool], last: int, *, follow: bool, as_json: bool, path: str = RUN_LOG, stamp: Callable[[float], str] | None = None
) -> int:
    """Print the lines of the log that are `kept`, the `last` of them or, with 0, all; `stamp` as in `form`."""
    if not os.path.exists(path):
        raise NoSpineError(f"there is no log at {path}. {what_helps()}")
    lines = [line for line in stored(path) if kept(line)]
    for line in lines[-last:] if last else lines:
        sys.stdout.write(form(line, as_json=as_json, stamp=stamp))
    sys.stdout.flush()
    if follow:
        for line in filter(kept, _following(path)):
            sys.stdout.write(form(line, as_json=as_json, stamp=stamp))
            sys.stdout.flush()
    return 0


_following = follow
