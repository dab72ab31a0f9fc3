"""What `bay0 --validate` looks at and how its findings are said. Pure; PID 1 and the command line share it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

from attrs import frozen

# check -> the component that its failure is about, in the order in which they are shown
COMPONENTS = {
    "freezer": "podman",
    "umbilical": "sys://ai",
    "compositor": "sys://compositor",
    "persist": "storage",
    "log": "genesis log",
    "database": "state database",
    "machines": "engine",
    "pid1": "bay0",
    "cgroups": "kernel",
    "psi": "kernel",
    "network": "kernel",
    "root": "image",
    "watchdog": "hardware",
    "clock": "clock",
}


class Level(Enum):
    """How well it is. RED: it does not work. YELLOW: it works without something, or could not be looked at."""

    GREEN = "green"
    YELLOW = "yellow"
    RED = "red"


STATUS = {Level.GREEN: 0, Level.YELLOW: 1, Level.RED: 2}  # the exit status of `bay0 --validate`


@frozen
class Finding:
    """What one check found. A green one has nothing to say, or what is not there and need not be."""

    level: Level
    why: str = ""


GREEN = Finding(Level.GREEN)


def green(note: str) -> Finding:
    """Say that all is well, and what is not there because nobody wanted it."""
    return Finding(Level.GREEN, note)


def yellow(why: str) -> Finding:
    """Say that something is missing, or could not be looked at."""
    return Finding(Level.YELLOW, why)


def red(why: str) -> Finding:
    """Say that something does not work."""
    return Finding(Level.RED, why)


def worst(levels: Iterable[Level]) -> Level:
    """Return the worst of them; green if there are none."""
    return max(levels, key=STATUS.__getitem__, default=Level.GREEN)


def text(result: Mapping[str, Any]) -> str:
    """Return the answer of `validate` for people: one line, then one for each check that is not green or says something."""
    checks = result["checks"]
    bad = [each for each in checks if each["level"] != Level.GREEN.value]
    noted = [each for each in checks if each["level"] == Level.GREEN.value and each["why"]]
    said = f"{len(checks)} checks, all green" if not bad else f"{len(bad)} of {len(checks)} checks not green"
    lines = [f"{result['verdict'].upper()}: {said} ({result['took_ms'] / 1000:.1f} s)"]
    lines += [f"{each['level'].upper():6} {each['name']} ({each['component']}): {each['why']}" for each in (*bad, *noted)]
    return "\n".join(lines)
