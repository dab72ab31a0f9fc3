"""A snapshot: the home and the manifest of a persona as they were, `p://NAME@NUMBER`.

Theory of operation. It is a copy of a home that is kept beside homes: COPYING until all of it lies beside its place, PLACING until it is there,
which is one rename, then KEPT. So whatever happens it is there whole, or not at all: from COPYING every doubt leads to ABSENT, what is PLACING is
placed again until that is known, and what is DELETING is gone in the end. What it is made of (the manifest, a note, when it was taken) is kept by its
machine, not by its files. Going back to one is a matter of its persona's table (persona.py).
"""

from enum import Enum

from bay0.machines.table import MachineDef, Row, StateSpec, cells


class S(Enum):
    """States of a snapshot."""

    ABSENT = "absent"
    COPYING = "copying"
    PLACING = "placing"
    KEPT = "kept"
    DELETING = "deleting"


class E(Enum):
    """What can happen to a snapshot."""

    TAKE = "take"
    COPIED = "copied"
    PLACED = "placed"
    DROP = "drop"
    GONE = "gone"
    STOP = "stop"
    FAULT = "fault"
    TIMED_OUT = "timed_out"
    CONVERGE = "converge"


class Effect(Enum):
    """What a busy state owes."""

    COPY = "copy"
    PLACE = "place"
    DELETE = "delete"


SPECS = (
    StateSpec(S.ABSENT, "no such snapshot", converged=True),
    StateSpec(S.COPYING, "a home is being copied, beside its place", busy=Effect.COPY, deadline_s=7500),
    StateSpec(S.PLACING, "the copy is whole, and is put in its place", busy=Effect.PLACE, deadline_s=300),
    StateSpec(S.KEPT, "it is there, whole", converged=True),
    StateSpec(S.DELETING, "it is taken away", busy=Effect.DELETE, deadline_s=300),
)

MADE = (S.COPYING, S.PLACING)

ROWS = (
    Row(S.ABSENT, E.TAKE, S.COPYING, "asked to take it", promised=True),
    Row(S.COPYING, E.COPIED, S.PLACING, "all of it is there, beside its place", promised=True),
    Row(S.COPYING, E.STOP, S.ABSENT, "asked to give it up"),
    Row(S.COPYING, E.FAULT, S.ABSENT, "it was not copied"),
    Row(S.COPYING, E.TIMED_OUT, S.ABSENT, "it was not copied in time"),
    Row(S.COPYING, E.CONVERGE, S.ABSENT, "it was found half copied: it was never there"),
    Row(S.PLACING, E.PLACED, S.KEPT, "it is in its place"),
    Row(S.PLACING, E.FAULT, S.ABSENT, "it could not be put in its place"),
    Row(S.PLACING, E.TIMED_OUT, S.PLACING, "the disk gave no answer: again"),
    Row(S.PLACING, E.CONVERGE, S.PLACING, "it was found whole, beside its place: put it there"),
    Row(S.KEPT, E.DROP, S.DELETING, "asked to delete it", promised=True),
    Row(S.DELETING, E.GONE, S.ABSENT, "it is taken away"),
    Row(S.DELETING, E.FAULT, S.DELETING, "it was not taken away: again"),
    Row(S.DELETING, E.TIMED_OUT, S.DELETING, "the disk gave no answer: again"),
    Row(S.DELETING, E.CONVERGE, S.DELETING, "it was found half deleted: delete it"),
)

_STILL = (S.ABSENT, S.KEPT)
IGNORED = {
    **cells([s for s in S if s is not S.COPYING], (E.COPIED,), "a late answer"),
    **cells([s for s in S if s is not S.PLACING], (E.PLACED,), "a late answer"),
    **cells([s for s in S if s is not S.DELETING], (E.GONE,), "a late answer"),
    **cells(_STILL, (E.FAULT, E.TIMED_OUT), "no effect is under way"),
    **cells(_STILL, (E.CONVERGE,), "it rests"),
    **cells((*_STILL, S.DELETING), (E.STOP,), "it is not being taken"),
    **cells((S.DELETING,), (E.DROP,), "it is being deleted already"),
}
REFUSED = {
    **cells([s for s in S if s is not S.ABSENT], (E.TAKE,), "it is there already"),
    **cells((S.PLACING,), (E.STOP,), "it is whole and about to be in its place; delete it then"),
    **cells((S.ABSENT,), (E.DROP,), "there is no such snapshot"),
    **cells(MADE, (E.DROP,), "it is still being taken"),
}

SNAPSHOT = MachineDef("snapshot", S, E, S.ABSENT, SPECS, ROWS, IGNORED, REFUSED, resident=True)
