"""`bay0 persona clone`, and what all that copies has in common: ask for it, say how far it is, give it up on Ctrl-C."""

from __future__ import annotations

import signal
import sys
import threading

from bay0.base.errors import Bay0Error
from bay0.cli import client
from bay0.cli.kit import DONE, emit
from bay0.cli.persona import semantic
from bay0.cli.persona_text import what_next
from bay0.cli.text import size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from bay0.cli.grammar import Options

COPY_S = 86_400.0  # seconds; bay0 gives the copy up within a bound of its own, which a great patience makes long
LOOK_S = 0.5
PROGRESS_S = 3.0  # for an answer about how far it is


def clone(options: Options) -> int:
    """Make a persona as a copy of another."""
    return made_of(options, options.source, semantic(options.persona))


def made_of(options: Options, template: str, name: str) -> int:
    """Make `name` as a copy of a persona or a snapshot."""
    source = source_of(template)
    made = watched(lambda: name, lambda: client.named(source, "persona.list", "persona.clone", timeout_s=COPY_S, source=source, name=name))
    emit(options, made, told(made))
    return DONE


def told(made: Mapping[str, Any]) -> str:
    """Return what was made, and how long the one that was copied stood still for it."""
    return f"{made['name']} is made and {made['state']}: {how_much(made['copied'])}; {what_next(made)}"


def how_much(copied: Mapping[str, Any]) -> str:
    """Return how much was copied, and how long the one that it was copied from stood still for it."""
    frozen = "" if copied["frozen_s"] is None else f"; who was copied stood still for {copied['frozen_s']:.1f} s"
    what = f"{copied['entries']} entries, {size(copied['bytes'])}" if copied["entries"] else "its home is empty"
    return what + frozen


def source_of(text: str) -> str:
    """Return the full name of a persona or, with `@3` behind it, of a snapshot. `BadNameError` for a bad one."""
    if "@" not in text:
        return semantic(text)
    from bay0.base import names

    return names.snapshot(text).semantic


def watched(whose: Callable[[], str], call: Callable[[], Any]) -> Any:
    """Make the call, and meanwhile keep a line on a terminal that says how far the copy for `whose()` is."""
    answer: list[Any] = []

    def ask() -> None:
        try:
            answer.append(call())
        except Exception as error:  # raised below, where the verb is
            answer.append(error)

    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # it would end this process at once (bay0/__main__.py)
        signal.signal(signal.SIGINT, signal.default_int_handler)
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    terminal = sys.stderr.isatty()
    try:
        while asking.is_alive():
            asking.join(LOOK_S)
            if terminal and asking.is_alive():
                print(f"\r\033[K{_far(whose())}", end="", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        client.call("persona.give_up", name=whose())
        asking.join(PROGRESS_S)
    finally:
        if terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
    if not answer:
        raise Bay0Error("the copy is being given up; `bay0 events -f` tells how that goes")
    if isinstance(answer[0], Exception):
        raise answer[0]
    return answer[0]


def _far(name: str) -> str:
    try:
        found = client.call("persona.copying", timeout_s=PROGRESS_S, name=name)
    except (Bay0Error, OSError):
        found = {}
    if not found:
        return "copying: looking how much there is ..."
    return (
        f"copying: {size(found['bytes'])} of {size(found['of_bytes'])}, {found['entries']} of {found['of_entries']} entries; "
        "Ctrl-C gives it up"
    )
