"""PID 1's end of what is done to the slots: one process for each call (slotwork.py), and its answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen

from bay0.base import itself

ENTRY = "--slots"  # the hidden entry of the program
PROGRESS = "/run/bay0/upgrade.progress"
Run = Callable[[str, tuple[str, ...], float, Callable[[Any], None]], object]  # the spawner's


@frozen
class Answer:
    """What came of a call. `value` is what it answered; else `why`. `damaged`: the slot does not hold what was staged.

    `known` is False if nobody can tell whether it was done: the process was ended, or gave no answer.
    """

    value: Mapping[str, Any] | None = None
    why: str = ""
    damaged: bool = False
    known: bool = True

    @property
    def ok(self) -> bool:
        """It was done."""
        return self.value is not None


def call(run: Run, op: str, deadline_s: float, done: Callable[[Answer], None], **arguments: Any) -> None:
    """Do `op`; `done` comes once, with the answer."""

    def ended(result: Any) -> None:
        if not result.ok:
            done(Answer(why=result.reason(), known=False))
            return
        try:
            found = json.loads(result.stdout)
            value, why, damaged = found.get("ok"), str(found.get("error", "")), bool(found.get("damaged"))
        except (ValueError, AttributeError, RecursionError) as nonsense:
            done(Answer(why=f"its answer makes no sense: {type(nonsense).__name__}", known=False))
            return
        done(Answer(value, why, damaged) if isinstance(value, dict) else Answer(None, why or "it gave no answer", damaged))

    run(f"slots-{op}", (*itself.argv(ENTRY), op, json.dumps(arguments)), deadline_s, ended)


def progress(path: str = PROGRESS) -> dict[str, Any] | None:
    """Return how far a process of this kind is, None if none says anything. Of memory: PID 1 may ask."""
    try:
        with open(path, encoding="ascii") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
