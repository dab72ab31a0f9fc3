"""`bay0 persona stats` and `bay0 top`: what each uses, read in the command's own process. PID 1 is asked only who there is."""

from __future__ import annotations

import sys
from time import monotonic, sleep

from bay0.cli import client, plainjson, use
from bay0.cli import persona_text as report
from bay0.cli.kit import DONE, emit
from bay0.cli.persona_many import chosen
from bay0.cli.text import columns, size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from bay0.cli.grammar import Options

    Row = Mapping[str, Any]

WATCH_S, ONCE_S = 2.0, 0.5
CLEAR = "\x1b[H\x1b[2J"  # ECMA-48: to the top, erase all
SPINE = {"init": "PID 1", "services": "services", "commands": "commands", "tenants": "the AI", "personas": "all personas"}
HEAD = ("NAME", "STATE", "CPU", "MEM", "OF", "PIDS", "READ/s", "WRITE/s", "CPU", "MEM", "IO  (pressure)")


def personas(options: Options) -> int:
    """Show what personas use; those named, or all that have a container."""
    words = list(options.personas)
    return _show(options, lambda: _personas(words), watch=options.watch, by_use=False)


def top(options: Options) -> int:
    """Show what everything uses, who uses most first, until Ctrl-C; once with --once or --json, or where nobody watches."""
    watch = not options.once and not options.json and sys.stdout.isatty()
    return _show(options, lambda: {**_spine(), **_personas([])}, watch=watch, by_use=True)


def _spine() -> dict[str, tuple[str, str]]:
    return {name: ("", group) for group, name in SPINE.items()}


def _personas(words: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return name -> (state, cgroup), "" for one without a container."""
    named = chosen(words)[0] if words else []
    there = {each["name"]: each for each in client.call("persona.list")}
    for name in named:
        if name not in there:
            client.named(name, "persona.list", "persona.show", name=name)  # refuses, and says who was meant
    found = {name: there[name] for name in named if name in there} if words else {n: p for n, p in there.items() if p["container"]}
    return {name: (p["state"], f"personas/libpod-{p['container']}" if p["container"] else "") for name, p in found.items()}


def _show(options: Options, who: Callable[[], Mapping[str, tuple[str, str]]], *, watch: bool, by_use: bool) -> int:
    earlier = _samples(who())
    while True:
        sleep(WATCH_S if watch else ONCE_S)
        groups = who()
        later = _samples(groups)
        rows = [_row(name, state, earlier.get(group), later.get(group)) for name, (state, group) in groups.items()]
        if by_use:
            rows.sort(key=lambda row: (row["state"] == "", -(row["cpu_percent"] or 0), row["name"]))
        if options.json and watch:
            print(plainjson.dumps(rows), flush=True)
        else:
            text = table(rows)
            emit(options, rows, CLEAR + text if watch and sys.stdout.isatty() else text)
            sys.stdout.flush()
        if not watch:
            return DONE
        earlier = later


def _samples(groups: Mapping[str, tuple[str, str]]) -> dict[str, dict[str, Any]]:
    return {group: use.sample(group, round(monotonic() * 1e6)) for _state, group in groups.values() if group}


def _row(name: str, state: str, earlier: Row | None, later: Row | None) -> dict[str, Any]:
    """Return a row of one; its rates are None if it has no container, or had another one at the last look."""
    if later is None:
        return {"name": name, "state": state, "cpu_percent": None}
    found = use.between(earlier or later, later)
    return {"name": name, "state": state, **found, **({} if earlier is not None else {"cpu_percent": None})}


def table(rows: Sequence[Row]) -> str:
    """Return rows for people; "-" is what is not known."""
    if not rows:
        return "no persona has a container; `bay0 persona list` shows all"
    return columns([HEAD, *(_line(row) for row in rows)])


def _line(row: Row) -> tuple[str, ...]:
    name = report.label(row["name"])
    if "memory_bytes" not in row:
        return (name, row["state"], *["-"] * (len(HEAD) - 2))
    pressure, most = row["pressure_percent"], row["memory_max_bytes"]
    share = "-" if row["cpu_percent"] is None else f"{row['cpu_percent']:.1f} %"
    pids = f"{row['pids']}" + (f"/{row['pids_max']}" if row["pids_max"] is not None else "")
    return (
        name, row["state"], share, size(row["used_bytes"]), size(most) if most is not None else "-", pids,
        size(row["read_bytes_s"]), size(row["written_bytes_s"]), *(f"{pressure[kind]:.0f} %" for kind in ("cpu", "memory", "io")),
    )  # fmt: skip
