"""Which persona is in front: one machine, whose steps are the switches.

Theory of operation. A FOCUS is promised: the name it carries is the active persona, kept with the step. SWITCHING owes the switch: the one in
front is thawed, then those behind it are taken off the screen and frozen. Whatever podman does, it ends within its deadline; what is
still on its way is each persona's own business, since its desired state was set. A boot finds nobody in front, because all were stopped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import Enum
from typing import Protocol

from bay0.machines.table import MachineDef, Row, StateSpec, cells

NAME = "focus"  # of the one machine


class S(Enum):
    """Where the focus is."""

    NONE = "none"
    SWITCHING = "switching"
    SETTLED = "settled"


class E(Enum):
    """What can happen to the focus."""

    FOCUS = "focus"
    DONE = "done"
    LOST = "lost"
    FAULT = "fault"
    TIMED_OUT = "timed_out"
    CONVERGE = "converge"


class Effect(Enum):
    """What a switch owes."""

    SWITCH = "switch"


SPECS = (
    StateSpec(S.NONE, "no persona is in front", converged=True),
    StateSpec(S.SWITCHING, "one is brought to the front, the others are frozen", busy=Effect.SWITCH, deadline_s=15),
    StateSpec(S.SETTLED, "one is in front"),
)

ROWS = (
    *(Row(s, E.FOCUS, S.SWITCHING, "asked to focus", promised=True) for s in S),
    Row(S.SWITCHING, E.DONE, S.SETTLED, "it is in front, the others are frozen"),
    Row(S.SWITCHING, E.FAULT, S.SETTLED, "the switch is not complete: each persona goes on by itself"),
    Row(S.SWITCHING, E.TIMED_OUT, S.SETTLED, "the switch takes long: each persona goes on by itself"),
    Row(S.SWITCHING, E.LOST, S.NONE, "the one in front has ended"),
    Row(S.SETTLED, E.LOST, S.NONE, "the one in front has ended"),
    Row(S.SWITCHING, E.CONVERGE, S.NONE, "a boot stopped them all"),
    Row(S.SETTLED, E.CONVERGE, S.NONE, "a boot stopped them all"),
)

IGNORED = {
    **cells((S.NONE, S.SETTLED), (E.DONE, E.FAULT, E.TIMED_OUT), "no switch is under way"),
    **cells((S.NONE,), (E.LOST, E.CONVERGE), "nobody is in front"),
}

FOCUS = MachineDef("focus", S, E, S.NONE, SPECS, ROWS, IGNORED, resident=True, single=NAME)


class Focused(Protocol):
    """The live machine."""

    @property
    def now(self) -> Enum:
        """Its state."""

    @property
    def config(self) -> str:
        """What its last FOCUS kept."""


def config(active: str) -> str:
    """Return what a FOCUS step keeps."""
    return json.dumps({"active": active})


def front(instances: Mapping[str, Focused]) -> str | None:
    """Return the persona in front of all `instances` of a boot, or None; the focus may not be among them yet."""
    instance = instances.get(NAME)
    return active(instance) if instance is not None else None


def active(instance: Focused) -> str | None:
    """Return the persona in front, or None."""
    if instance.now is S.NONE or not instance.config:
        return None
    try:
        found = json.loads(instance.config)["active"]
    except (ValueError, KeyError, TypeError, RecursionError):  # the database may be another program's, and this is asked in watchers
        return None
    return found if isinstance(found, str) else None
