"""Which lines of a log are wanted: by time, level, machine and text; and the time of day of a line that has the kernel's clock.

The kernel's clock (seconds since it started) does not jump. A time of day is found from it by what both say now, so if the clock was set
since, lines from before are off by that.
"""

from __future__ import annotations

import re
import time

from bay0.base.errors import UsageError
from bay0.base.logline import LEVELS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    Options = Any  # of the verb: since, until, grep; machine and level

WANTED = "a time: 10m or 2h ago, 573.2 (seconds of the kernel's clock), 14:30, or 2026-11-30T14:30:00"
AGO = {"s": 1, "m": 60, "h": 3600, "d": 86400}
FORMS = ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M", "%Y-%m-%d")
TODAY = ("%H:%M:%S", "%H:%M")


def started() -> float:
    """Return when the kernel's clock was 0, in seconds since the epoch."""
    return time.time() - time.clock_gettime(time.CLOCK_MONOTONIC)


def moment(text: str) -> float:
    """Return what a word means, in seconds since the epoch. `ValueError`: it is no time."""
    found = re.fullmatch(r"(\d{1,12}(?:\.\d{1,9})?)([smhd]?)", text, re.ASCII)
    if found:
        number = float(found[1])
        return time.time() - number * AGO[found[2]] if found[2] else started() + number
    for form in FORMS:
        try:
            return time.mktime(time.strptime(text, form))
        except (ValueError, OverflowError):
            continue
    day = time.strftime("%Y-%m-%d ")
    for form in TODAY:
        try:
            return time.mktime(time.strptime(day + text, f"%Y-%m-%d {form}"))
        except (ValueError, OverflowError):
            continue
    raise ValueError(WANTED)


def stamped(seconds: float) -> str:
    """Return a time of day, to the second, with the zone's distance: 2026-11-30T14:30:00+0000."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(seconds))


def of_conmon(at: str) -> float | None:
    """Return the time that conmon wrote (RFC 3339 with nanoseconds), None if it is none."""
    from datetime import datetime

    try:
        return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", at)).timestamp()
    except ValueError:
        return None


def matcher(text: str | None) -> Callable[[str], bool]:
    """Return the test of a line by a regular expression. `UsageError`: it is none."""
    if text is None:
        return lambda _line: True
    try:
        found = re.compile(text)
    except re.error as error:
        raise UsageError(f"--grep takes a regular expression, and {text!r} is none: {error}") from None
    return lambda line: found.search(line) is not None


def within(options: Options) -> Callable[[float | None], bool]:
    """Return the test of a time by --since and --until; what has none passes only where neither is given."""
    since, until = options.since, options.until
    if since is not None and until is not None and since > until:
        raise UsageError("--since is behind --until: no line is between them")
    if since is None and until is None:
        return lambda _at: True
    return lambda at: at is not None and (since is None or at >= since) and (until is None or at <= until)


def of_spine(options: Options, is_of: Callable[[str, str], bool], shown: Callable[[str], str]) -> Callable[[str], bool]:
    """Return the test of a stored line of bay0's log; `shown` is how a person sees it, which is what --grep looks at."""
    if options.since is None and options.until is None and options.grep is options.machine is options.level is None:
        return lambda _line: True  # a torn line, too
    start, in_time, matches = started(), within(options), matcher(options.grep)
    least = LEVELS[options.level] if options.level is not None else 0

    def kept(line: str) -> bool:
        import json

        try:
            record: Mapping[str, Any] = json.loads(line)
            at = start + record["t_ms"] / 1000
            level = LEVELS.get(record.get("level", "info"), LEVELS["info"])
        except (ValueError, KeyError, TypeError, AttributeError):
            return False
        whose = record.get("machine") or record.get("persona") or ""
        of_it = options.machine is None or is_of(options.machine, str(whose))
        return in_time(at) and level >= least and of_it and matches(shown(line))

    return kept
