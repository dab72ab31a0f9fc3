"""`bay0 suspend` and `bay0 inhibit`: ask to sleep, and see what stands in the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bay0.cli import client
from bay0.cli.grammar import Options
from bay0.cli.kit import DONE, REFUSED, emit

WAIT_S = 600.0  # of time awake: the request ends within 55 s times patience


def suspend(options: Options) -> int:
    """Ask to sleep and wait until it is over."""
    done = client.call("suspend", timeout_s=WAIT_S, reason=options.reason)
    emit(options, done, str(done["why"]))
    return DONE if done["suspended"] else REFUSED


def show(options: Options) -> int:
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
