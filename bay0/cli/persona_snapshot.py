"""`bay0 persona snapshot`, `snapshots`, `restore` and `drop`: what is sent, and what is made of the answer."""

from __future__ import annotations

import sys
import time

from bay0.base.errors import RefusedError
from bay0.cli import client
from bay0.cli.kit import DONE, emit
from bay0.cli.persona import semantic
from bay0.cli.persona_copy import COPY_S, how_much, watched
from bay0.cli.persona_text import label, what_next
from bay0.cli.text import columns, on_terminal, size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from bay0.base.names import Snapshot
    from bay0.cli.grammar import Options


def _name(text: str) -> Snapshot:
    from bay0.base import names

    return names.snapshot(text)


def snapshot(options: Options) -> int:
    """Take one."""
    name = semantic(options.persona)
    params = {"name": name, "note": options.note or "", "keep": options.keep}

    def call() -> Any:
        return client.named(name, "persona.list", "persona.snapshot", timeout_s=COPY_S, **params)

    made = watched(lambda: _coming(name), call)
    dropped = f"; deleted: {', '.join(label(each) for each in made['dropped'])}" if made["dropped"] else ""
    back = f"`bay0 persona restore {label(made['name'])}` goes back to it"
    emit(options, made, f"{made['name']} is kept: {how_much(made['copied'])}{dropped}; {back}")
    return DONE


def _coming(name: str) -> str:
    """Return the name of the snapshot of `name` that is being taken, "" if none is."""
    found = client.call("persona.snapshots", name=name)
    coming = [each["name"] for each in found if each["state"] in ("copying", "placing")]
    return str(coming[-1]) if coming else ""


def list_all(options: Options) -> int:
    """Show the snapshots of a persona, or all."""
    params: dict[str, Any] = {"name": semantic(options.persona)} if options.persona else {}
    found = client.call("persona.snapshots", **params)
    whose = label(params["name"]) if params else "NAME"
    emit(options, found, listing(found) if found else f"no snapshots; `bay0 persona snapshot {whose}` takes one")
    return DONE


def listing(found: Sequence[Mapping[str, Any]]) -> str:
    """Return the table of snapshots."""
    rows = [("NAME", "TAKEN", "SIZE", "ENTRIES", "STATE", "IMAGE", "NOTE")]
    for each in found:
        taken = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(each["taken"]))
        image, note = each["image"] or "?", on_terminal(each["note"])
        rows.append((label(each["name"]), taken, size(each["bytes"]), str(each["entries"]), each["state"], image, note))
    return columns(rows)


def restore(options: Options) -> int:
    """Go back to one."""
    whose, _, number = options.persona.partition("@")
    name = semantic(whose)
    params: dict[str, Any] = {"name": name}
    if number:
        params["number"] = _name(options.persona).number
    _confirm(options, name)
    made = watched(lambda: name, lambda: client.named(name, "persona.list", "persona.restore", timeout_s=COPY_S, **params))
    emit(options, made, f"{made['name']} is back: {how_much(made['copied'])}; {what_next(made)}")
    return DONE


def _confirm(options: Options, name: str) -> None:
    """Ask before a home gives way. `RefusedError` unless its persona's name is typed, or --yes was given."""
    if options.yes:
        return
    if not sys.stdin.isatty():
        raise RefusedError(f"what is in the home of {name} now gives way for good: say --yes where nobody can be asked. Nothing was changed")
    print(f"Everything in the home of {name} gives way to what was in it then.", file=sys.stderr)
    print("type the persona's name to go back: ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip() not in (label(name), name):
        raise RefusedError("that is not its name; nothing was changed")


def drop(options: Options) -> int:
    """Delete snapshots, each named with what became of it."""
    names = [_name(each).semantic for each in options.snapshots]
    if not names:
        raise RefusedError("say which: `bay0 persona drop work@3`; `bay0 persona snapshots` lists them")
    results = [client.call("persona.drop", name=name) for name in names]
    emit(options, results, "\n".join(f"{each['name']} is deleted" for each in results))
    return DONE
