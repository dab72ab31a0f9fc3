"""`bay0 suspend` and `bay0 inhibit`: ask to sleep, and see what stands in the way."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from bay0.cli import client
from bay0.cli.kit import DONE, REFUSED, emit

WAIT_S = 600.0  # of time awake: the request ends within 55 s times patience


def register(verbs: Any) -> None:
    """Add the two verbs to the command line's grammar."""
    text = "put the machine to sleep once nothing is being written; status 1 if it stayed awake, with the reason"
    more = (
        f"{text}. What is being written ends first, then database, time and seed are flushed, within a bound. The kernel is asked only with "
        "bay0.suspend=on on its command line; without it everything else is done and said, which is how to try it."
    )
    verb = verbs.add_parser("suspend", help=text, description=more)
    verb.add_argument("--reason", default="asked", metavar="TEXT", help="who asks, for the log; a lid's switch says lid (default: asked)")
    verb.add_argument("--json", action="store_true", help="print JSON for programs")
    verb.set_defaults(call=suspend)
    text = "show who holds the lock against sleep, what waits for it, and what became of the last request"
    verb = verbs.add_parser("inhibit", help=text, description=text)
    verb.add_argument("--json", action="store_true", help="print JSON for programs")
    verb.set_defaults(call=show)


def suspend(options: argparse.Namespace) -> int:
    """Ask to sleep and wait until it is over."""
    done = client.call("suspend", timeout_s=WAIT_S, reason=options.reason)
    emit(options, done, str(done["why"]))
    return DONE if done["suspended"] else REFUSED


def show(options: argparse.Namespace) -> int:
    """Print the lock."""
    found = client.call("inhibit")
    emit(options, found, text(found))
    return DONE


def text(found: Mapping[str, Any]) -> str:
    """Return the lock for people."""
    holders = ", ".join(f"{each['op']} for {each['for_ms']} ms" for each in found["held_by"])
    lines = [
        f"lock:     {f'held by {holders}' if holders else 'free, nothing is being written'}",
        f"request:  {'none' if found['waiting'] is None else found['waiting'] + ', ' + found['state']}",
    ]
    if found["held_back"]:
        lines.append(f"waiting:  {found['held_back']} requests of the state are held back until it is awake")
    lines.append(f"sleep:    {found['hook']}" if found["sleeps"] else f"sleep:    it would stay awake: {found['hook']}")
    if found["last"] is not None:
        lines.append(f"last:     {found['last']['reason']}: {found['last']['why']}")
    return "\n".join(lines)
