"""The screen.

Its seat, its compositor, and whether what answers as the compositor is the one that was started.

Theory of operation. The processes are two tenants (tenant.py), `sys://seat` and `sys://compositor`, which
come back by themselves. This machine says what they are to each other. SEATING owes a seat that is answered
by our own seatd, and then the compositor's start; PROVING owes the proof that the compositor's sockets are
answered by the process that was started, with nothing on offer but what is allowed; only READY may be used. A
file of that name proves nothing, nor does a connection. What is silent or not as it must be is ended
(ENDING), and its tenant begins it anew. A machine without a screen stays DARK, and nothing of a screen
outlives a boot.
"""

from enum import Enum

from bay0.machines.table import MachineDef, Row, StateSpec, cells

NAME = "screen"  # of the one machine


class S(Enum):
    """How the screen is."""

    DARK = "dark"
    SEATING = "seating"
    ABSENT = "absent"
    PROVING = "proving"
    READY = "ready"
    ENDING = "ending"


class E(Enum):
    """What can happen to it."""

    FOUND = "found"
    SEATED = "seated"
    UP = "up"
    PROVED = "proved"
    SILENT = "silent"
    GONE = "gone"
    UNSEATED = "unseated"
    LEAVE = "leave"
    FAULT = "fault"
    TIMED_OUT = "timed_out"
    CONVERGE = "converge"


class Effect(Enum):
    """What a busy state owes."""

    SEAT = "seat"
    PROVE = "prove"
    END = "end"


SPECS = (
    StateSpec(S.DARK, "no screen is used", converged=True),
    StateSpec(
        S.SEATING,
        "the seat must be answered by our seatd; no compositor runs",
        busy=Effect.SEAT,
        deadline_s=40,
    ),
    StateSpec(S.ABSENT, "the seat is there, the compositor is not: its tenant starts it"),
    StateSpec(S.PROVING, "the compositor runs and must prove who it is", busy=Effect.PROVE, deadline_s=30),
    StateSpec(S.READY, "the compositor is the one that was started, and answers"),
    StateSpec(S.ENDING, "the compositor is ended, to be begun anew", busy=Effect.END, deadline_s=8),
)

_SEATED = (S.ABSENT, S.PROVING, S.READY, S.ENDING)
_RUNS = (S.PROVING, S.READY, S.ENDING)
_LIVE = (S.SEATING, *_SEATED)

ROWS = (
    Row(S.DARK, E.FOUND, S.SEATING, "there is a screen"),
    Row(S.SEATING, E.SEATED, S.ABSENT, "the seat is answered by our seatd"),
    Row(S.SEATING, E.FAULT, S.SEATING, "the seat could not be prepared: again"),
    Row(S.SEATING, E.TIMED_OUT, S.SEATING, "there is no seat yet: again"),
    Row(S.ABSENT, E.UP, S.PROVING, "the compositor was started"),
    Row(S.PROVING, E.PROVED, S.READY, "both its sockets are answered by the process that was started"),
    Row(S.PROVING, E.FAULT, S.ENDING, "it is not as it must be"),
    Row(S.PROVING, E.TIMED_OUT, S.ENDING, "it has not proved itself in time"),
    Row(S.READY, E.SILENT, S.ENDING, "it does not answer"),
    Row(S.ENDING, E.FAULT, S.ENDING, "it could not be ended: again"),
    Row(S.ENDING, E.TIMED_OUT, S.ENDING, "it has not ended yet: again"),
    *(Row(s, E.GONE, S.ABSENT, "the compositor has ended") for s in _RUNS),
    *(
        Row(
            s,
            E.UNSEATED,
            S.SEATING,
            "seatd has ended: a compositor that had its devices from it is begun anew",
        )
        for s in _SEATED
    ),
    *(Row(s, E.LEAVE, S.DARK, "the spine goes down") for s in _LIVE),
    *(Row(s, E.CONVERGE, S.DARK, f"a boot found it {s.value}: nothing of it is left") for s in _LIVE),
)

IGNORED = {
    **cells((S.DARK,), [e for e in E if e is not E.FOUND], "no screen is used"),
    **cells(_LIVE, (E.FOUND,), "it is in use already"),
    **cells(_SEATED, (E.SEATED,), "a late answer"),
    **cells(
        (S.SEATING,), (E.UP, E.GONE, E.UNSEATED), "what the compositor and the seat did before counts no more"
    ),
    **cells((S.ABSENT,), (E.GONE,), "it is gone already"),
    **cells(_RUNS, (E.UP,), "it runs already"),
    **cells([s for s in _LIVE if s is not S.PROVING], (E.PROVED,), "a late answer"),
    **cells([s for s in _LIVE if s is not S.READY], (E.SILENT,), "nothing is asked of it"),
    **cells((S.ABSENT, S.READY), (E.FAULT, E.TIMED_OUT), "no effect is under way"),
}

SCREEN = MachineDef("screen", S, E, S.DARK, SPECS, ROWS, IGNORED)
