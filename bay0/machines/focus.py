"""Which persona is in front: one machine, whose steps are the switches.

Theory of operation. A FOCUS is promised: the name it carries is the active persona, kept with the step. SWITCHING owes the switch: the one in
front is thawed, then those behind it are taken off the screen and frozen. Whatever podman does, it ends within its deadline; what is
still on its way is each persona's own business, since its desired state was set. A boot finds nobody in front, because all were stopped.
"""

from enum import Enum

from bay0.machines.table import MachineDef, Row, StateSpec, cells


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

FOCUS = MachineDef("focus", S, E, S.NONE, SPECS, ROWS, IGNORED, resident=True)
