"""A system tenant: a process the spine owns and keeps alive, such as the console shell.

Theory of operation. STARTING owes a process, RUNNING has one, WAITING owes a pause before the next try (the back-off grows with each
quick death, so a broken program cannot eat the machine), STOPPING owes its end. GAVE_UP is sent by whoever counts the attempts.
FAILED means: no process is left, and here is why.
"""

from enum import Enum

from bay0.machines.table import MachineDef, Row, StateSpec, Tries, cells


class S(Enum):
    """States of a tenant."""

    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    WAITING = "waiting"
    STOPPING = "stopping"
    CONVERGING = "converging"
    FAILED = "failed"


class E(Enum):
    """What can happen to a tenant."""

    START = "start"
    STARTED = "started"
    CALM = "calm"
    GONE = "gone"
    WAITED = "waited"
    STOP = "stop"
    STOPPED = "stopped"
    GAVE_UP = "gave_up"
    FAULT = "fault"
    TIMED_OUT = "timed_out"
    CONVERGE = "converge"


class Effect(Enum):
    """What a busy state owes."""

    START = "start"
    WAIT = "wait"
    STOP = "stop"
    CLEAR = "clear"


SPECS = (
    StateSpec(S.STOPPED, "no process, none wanted", converged=True),
    StateSpec(S.STARTING, "a process is owed", busy=Effect.START, deadline_s=10),
    StateSpec(S.RUNNING, "the process is there"),
    StateSpec(S.WAITING, "it ended; a pause before the next try", busy=Effect.WAIT, deadline_s=120),
    StateSpec(S.STOPPING, "its end is owed: TERM, then KILL", busy=Effect.STOP, deadline_s=8),
    StateSpec(S.CONVERGING, "whatever is left of it is ended", busy=Effect.CLEAR, deadline_s=8),
    StateSpec(S.FAILED, "no process is left and we gave up", converged=True),
)

ROWS = (
    Row(S.STOPPED, E.START, S.STARTING, "the spine wants it", tries=Tries.FIRST),
    Row(S.FAILED, E.START, S.STARTING, "asked to try once more", tries=Tries.FIRST),
    Row(S.STARTING, E.STARTED, S.RUNNING, "the process is there"),
    Row(S.STARTING, E.GONE, S.WAITING, "it ended at once"),
    Row(S.STARTING, E.FAULT, S.WAITING, "it could not be started"),
    Row(S.STARTING, E.TIMED_OUT, S.CONVERGING, "we do not know: make it stopped"),
    Row(S.STARTING, E.STOP, S.STOPPING, "asked to stop"),
    Row(S.RUNNING, E.CALM, S.RUNNING, "it has lived long enough: its attempts are forgotten", tries=Tries.FORGET),
    Row(S.RUNNING, E.GONE, S.WAITING, "it ended"),
    Row(S.RUNNING, E.STOP, S.STOPPING, "asked to stop"),
    Row(S.WAITING, E.WAITED, S.STARTING, "the pause is over", tries=Tries.COUNT),
    Row(S.WAITING, E.GAVE_UP, S.FAILED, "its attempts are used up"),
    Row(S.WAITING, E.STOP, S.STOPPED, "asked to stop; nothing runs"),
    Row(S.WAITING, E.FAULT, S.STARTING, "the pause could not be kept", tries=Tries.COUNT),
    Row(S.WAITING, E.TIMED_OUT, S.STARTING, "the pause is over", tries=Tries.COUNT),
    Row(S.STOPPING, E.STOPPED, S.STOPPED, "it has ended"),
    Row(S.STOPPING, E.GONE, S.STOPPED, "it has ended"),
    Row(S.STOPPING, E.FAULT, S.CONVERGING, "it could not be told to stop"),
    Row(S.STOPPING, E.TIMED_OUT, S.CONVERGING, "it did not stop in time"),
    Row(S.CONVERGING, E.STOPPED, S.STOPPED, "nothing of it is left"),
    Row(S.CONVERGING, E.GONE, S.STOPPED, "nothing of it is left"),
    Row(S.CONVERGING, E.FAULT, S.CONVERGING, "something is left: again"),
    Row(S.CONVERGING, E.TIMED_OUT, S.CONVERGING, "something is left: again"),
    *(
        Row(s, E.CONVERGE, S.CONVERGING, f"a boot found it {s.value}")
        for s in (S.STARTING, S.RUNNING, S.WAITING, S.STOPPING, S.CONVERGING)
    ),
)

_LIVE = (S.STARTING, S.RUNNING, S.WAITING)
IGNORED = {
    **cells((S.STOPPED, S.FAILED, S.RUNNING), (E.FAULT, E.TIMED_OUT), "no effect is under way"),
    **cells((S.STOPPED, S.WAITING, S.FAILED), (E.GONE,), "it was gone already"),
    **cells([s for s in S if s is not S.STARTING], (E.STARTED,), "a late answer"),
    **cells([s for s in S if s is not S.RUNNING], (E.CALM,), "it does not run"),
    **cells([s for s in S if s is not S.WAITING], (E.WAITED,), "a late answer"),
    **cells([s for s in S if s not in (S.STOPPING, S.CONVERGING)], (E.STOPPED,), "a late answer"),
    **cells([s for s in S if s is not S.WAITING], (E.GAVE_UP,), "it is not being tried"),
    **cells((S.STOPPED, S.STOPPING, S.CONVERGING, S.FAILED), (E.STOP,), "it is stopped or stopping"),
    **cells((S.STOPPED, S.FAILED), (E.CONVERGE,), "nothing of it is left"),
    **cells(_LIVE, (E.START,), "it is started already"),
}
REFUSED = cells((S.STOPPING, S.CONVERGING), (E.START,), "it is being stopped; ask again when it is")

TENANT = MachineDef("tenant", S, E, S.STOPPED, SPECS, ROWS, IGNORED, REFUSED)
