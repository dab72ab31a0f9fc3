"""A persona: a podman container that belongs to the user, `p://NAME`.

Theory of operation. STARTING owes a container, RUNNING and PAUSED have one, PAUSING and RESUMING owe a freeze or a thaw, STOPPING owes a polite end.
Whenever we do not know (an effect failed, ran out of time, the container or its monitor ended, a boot found it) the machine goes to CONVERGING,
which owes *nothing left of it*: no container, no process. What follows is sent by whoever looked: GONE (stopped), DONE (it had ended by
itself, with status 0), RETRY (its manifest wants it back: WAITING, a pause that grows), or GAVE_UP. If podman cannot clear it, STUCK
waits and tries again; its processes are killed meanwhile.
FAILED means no container is left and we gave up; the journal says why. ABSENT is a name nobody has created, or that was removed.

Attempts are counted before the attempt. An operator's START is the first; those that nobody asked for, after a death or by `autostart` at boot, are
counted on, over boots too, so a persona that takes the machine down with it is seen. `desired` is set by the rows that somebody asked for.
"""

from enum import Enum

from bay0.machines.table import MachineDef, Row, StateSpec, Tries, cells


class S(Enum):
    """States of a persona."""

    ABSENT = "absent"
    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    RESUMING = "resuming"
    STOPPING = "stopping"
    CONVERGING = "converging"
    STUCK = "stuck"
    WAITING = "waiting"
    FAILED = "failed"


class E(Enum):
    """What can happen to a persona."""

    CREATE = "create"
    START = "start"
    AUTOSTART = "autostart"
    STARTED = "started"
    CALM = "calm"
    ENDED = "ended"
    UNWATCHED = "unwatched"
    PAUSE = "pause"
    PAUSED = "paused"
    RESUME = "resume"
    RESUMED = "resumed"
    FROZEN = "frozen"
    THAWED = "thawed"
    STOP = "stop"
    GONE = "gone"
    DONE = "done"
    RETRY = "retry"
    WAITED = "waited"
    GAVE_UP = "gave_up"
    RESET = "reset"
    REMOVE = "remove"
    FAULT = "fault"
    TIMED_OUT = "timed_out"
    CONVERGE = "converge"


class Effect(Enum):
    """What a busy state owes."""

    RUN = "run"
    PAUSE = "pause"
    RESUME = "resume"
    STOP = "stop"
    CLEAR = "clear"
    WAIT_CLEAR = "wait_clear"
    WAIT = "wait"


SPECS = (
    StateSpec(S.ABSENT, "no such persona", converged=True),
    StateSpec(S.STOPPED, "no container, none wanted", converged=True),
    StateSpec(S.STARTING, "a container is owed", busy=Effect.RUN, deadline_s=75),
    StateSpec(S.RUNNING, "the container runs"),
    StateSpec(S.PAUSING, "its freeze is owed, seen in cgroup.events", busy=Effect.PAUSE, deadline_s=20),
    StateSpec(S.PAUSED, "the container is frozen"),
    StateSpec(S.RESUMING, "its thaw is owed, seen in cgroup.events", busy=Effect.RESUME, deadline_s=20),
    StateSpec(S.STOPPING, "its end is owed: TERM, then KILL, then no container", busy=Effect.STOP, deadline_s=90),
    StateSpec(S.CONVERGING, "whatever is left of it is removed", busy=Effect.CLEAR, deadline_s=60),
    StateSpec(S.STUCK, "podman could not clear it: its processes are killed, a pause before the next try", busy=Effect.WAIT_CLEAR, deadline_s=45),
    StateSpec(S.WAITING, "it ended and is wanted: a pause before the next try", busy=Effect.WAIT, deadline_s=120),
    StateSpec(S.FAILED, "no container is left and we gave up"),
)

HAS_CONTAINER = (S.RUNNING, S.PAUSING, S.PAUSED, S.RESUMING)
OWES = (S.STARTING, *HAS_CONTAINER, S.STOPPING, S.CONVERGING, S.STUCK, S.WAITING)

ROWS = (
    Row(S.ABSENT, E.CREATE, S.STOPPED, "asked to create it", promised=True, desired="stopped", tries=Tries.FORGET),
    # a start that somebody was told of is kept, or refused while the disk cannot keep it
    Row(S.STOPPED, E.START, S.STARTING, "asked to start", promised=True, desired="running", tries=Tries.FIRST),
    Row(S.FAILED, E.START, S.STARTING, "asked to try once more", promised=True, desired="running", tries=Tries.FIRST),
    Row(S.WAITING, E.START, S.STARTING, "asked not to wait", promised=True, desired="running", tries=Tries.FIRST),
    Row(S.STOPPED, E.AUTOSTART, S.STARTING, "its manifest says autostart", promised=True, desired="running", tries=Tries.COUNT),
    Row(S.WAITING, E.WAITED, S.STARTING, "the pause is over", promised=True, tries=Tries.COUNT),
    Row(S.STARTING, E.STARTED, S.RUNNING, "podman says it runs"),
    Row(S.RUNNING, E.CALM, S.RUNNING, "it has lived long enough: its attempts are forgotten", tries=Tries.FORGET),
    # freeze and thaw
    Row(S.RUNNING, E.PAUSE, S.PAUSING, "asked to pause", desired="paused"),
    Row(S.RESUMING, E.PAUSE, S.PAUSING, "asked to pause again", desired="paused"),
    Row(S.PAUSING, E.PAUSED, S.PAUSED, "the kernel says it is frozen"),
    Row(S.PAUSED, E.RESUME, S.RESUMING, "asked to resume", desired="running"),
    Row(S.PAUSING, E.RESUME, S.RESUMING, "asked to resume at once", desired="running"),
    Row(S.RESUMING, E.RESUMED, S.RUNNING, "the kernel says it runs again"),
    Row(S.RUNNING, E.FROZEN, S.RESUMING, "it was frozen, and not by us: thaw it"),
    Row(S.PAUSED, E.THAWED, S.PAUSING, "it was thawed, and not by us: freeze it"),
    # a polite end
    *(Row(s, E.STOP, S.STOPPING, "asked to stop", desired="stopped") for s in (S.STARTING, *HAS_CONTAINER)),
    Row(S.STOPPING, E.GONE, S.STOPPED, "it has ended, no container is left", tries=Tries.FORGET),
    Row(S.WAITING, E.STOP, S.STOPPED, "asked to stop; nothing runs", desired="stopped", tries=Tries.FORGET),
    Row(S.FAILED, E.STOP, S.STOPPED, "asked to stop; nothing runs", desired="stopped"),
    Row(S.CONVERGING, E.STOP, S.CONVERGING, "asked to stop: it is not wanted any more", desired="stopped"),
    Row(S.STUCK, E.STOP, S.CONVERGING, "asked to stop: try again now", desired="stopped"),
    # what we did not want, or do not know
    *(Row(s, E.FAULT, S.CONVERGING, f"{s.value} failed: make it stopped") for s in (S.STARTING, S.PAUSING, S.RESUMING, S.STOPPING)),
    *(Row(s, E.TIMED_OUT, S.CONVERGING, "we do not know: make it stopped") for s in (S.STARTING, S.PAUSING, S.RESUMING, S.STOPPING)),
    *(Row(s, E.ENDED, S.CONVERGING, "its processes have ended: clear what is left") for s in (S.STARTING, *HAS_CONTAINER)),
    *(
        Row(s, E.UNWATCHED, S.CONVERGING, "its monitor has ended: what it says is lost, and how it ends would be too")
        for s in (S.STARTING, *HAS_CONTAINER)
    ),
    Row(S.CONVERGING, E.GONE, S.STOPPED, "nothing of it is left", desired="stopped"),
    Row(S.CONVERGING, E.DONE, S.STOPPED, "it ended by itself, and well; nothing of it is left", desired="stopped", tries=Tries.FORGET),
    Row(S.CONVERGING, E.RETRY, S.WAITING, "nothing of it is left, and it is wanted"),
    Row(S.CONVERGING, E.GAVE_UP, S.FAILED, "nothing of it is left, and its attempts are used up", desired="stopped"),
    Row(S.STOPPED, E.GAVE_UP, S.FAILED, "not started: its attempts were used up in earlier boots", desired="stopped"),
    Row(S.CONVERGING, E.FAULT, S.STUCK, "podman could not clear it"),
    Row(S.CONVERGING, E.TIMED_OUT, S.STUCK, "podman gave no answer"),
    *(Row(S.STUCK, e, S.CONVERGING, "the pause is over: again") for e in (E.WAITED, E.FAULT, E.TIMED_OUT)),
    Row(S.WAITING, E.FAULT, S.CONVERGING, "the pause could not be kept"),
    Row(S.WAITING, E.TIMED_OUT, S.CONVERGING, "it could not be started again in time"),
    # begin anew
    *(
        Row(s, E.RESET, S.CONVERGING, "asked to reset: nothing is kept but its home", promised=True, desired="stopped", tries=Tries.FORGET)
        for s in (S.STOPPED, S.FAILED, *OWES)
    ),
    Row(S.STOPPED, E.REMOVE, S.ABSENT, "asked to remove it", promised=True, desired="stopped", tries=Tries.FORGET),
    Row(S.FAILED, E.REMOVE, S.ABSENT, "asked to remove it", promised=True, desired="stopped", tries=Tries.FORGET),
    *(Row(s, E.CONVERGE, S.CONVERGING, f"it was found {s.value}: make it stopped", desired="stopped") for s in (*OWES, S.FAILED)),
    Row(S.STOPPED, E.CONVERGE, S.CONVERGING, "it was found stopped, with a container: clear it", desired="stopped"),
)

_STILL = (S.ABSENT, S.STOPPED, S.FAILED)
_NONE = "there is no such persona"
IGNORED = {
    **cells((*_STILL, S.RUNNING, S.PAUSED), (E.FAULT, E.TIMED_OUT), "no effect is under way"),
    **cells([s for s in S if s is not S.STARTING], (E.STARTED,), "a late answer"),
    **cells([s for s in S if s is not S.RUNNING], (E.CALM,), "it does not run"),
    **cells([s for s in S if s is not S.PAUSING], (E.PAUSED,), "a late answer"),
    **cells([s for s in S if s is not S.RESUMING], (E.RESUMED,), "a late answer"),
    **cells([s for s in S if s is not S.RUNNING], (E.FROZEN,), "it is not there to run"),
    **cells([s for s in S if s is not S.PAUSED], (E.THAWED,), "it is not there to stand still"),
    **cells([s for s in S if s not in (S.STOPPING, S.CONVERGING)], (E.GONE,), "a late answer"),
    **cells([s for s in S if s is not S.CONVERGING], (E.RETRY, E.DONE), "a late answer"),
    **cells([s for s in S if s not in (S.WAITING, S.STUCK)], (E.WAITED,), "a late answer"),
    **cells([s for s in S if s not in (S.STOPPED, S.CONVERGING)], (E.GAVE_UP,), "it is not being tried"),
    **cells((*_STILL, S.STOPPING, S.CONVERGING, S.STUCK, S.WAITING), (E.ENDED, E.UNWATCHED), "its end is known"),
    **cells([s for s in S if s is not S.STOPPED], (E.AUTOSTART,), "it is not at rest"),
    **cells((S.ABSENT, S.STOPPED, S.STOPPING), (E.STOP,), "it is stopped or stopping"),
    **cells((S.STARTING, S.RUNNING), (E.START,), "it is started already"),
    **cells((S.PAUSING, S.PAUSED), (E.PAUSE,), "it is paused already"),
    **cells((S.RUNNING, S.RESUMING), (E.RESUME,), "it runs already"),
    **cells((S.ABSENT,), (E.CONVERGE,), _NONE),
}
REFUSED = {
    **cells([s for s in S if s is not S.ABSENT], (E.CREATE,), "it exists already; remove it first, its home is kept"),
    **cells((S.ABSENT,), (E.START, E.PAUSE, E.RESUME, E.RESET, E.REMOVE), _NONE),
    **cells((S.PAUSING, S.PAUSED, S.RESUMING), (E.START,), "resume it instead"),
    **cells((S.STOPPING, S.CONVERGING, S.STUCK), (E.START,), "it is being stopped; ask again when it is"),
    **cells((S.STOPPED, S.FAILED), (E.PAUSE, E.RESUME), "start it first"),
    **cells((S.STARTING, S.STOPPING, S.CONVERGING, S.STUCK, S.WAITING), (E.PAUSE, E.RESUME), "it is on its way; ask again when it runs"),
    **cells(OWES, (E.REMOVE,), "stop it first"),
}

PERSONA = MachineDef("persona", S, E, S.ABSENT, SPECS, ROWS, IGNORED, REFUSED, resident=True)
