"""A server: a podman container that belongs to the spine and serves personas, `sys://ai`. The first to be sacrificed.

Theory of operation. STARTING owes a container in its envelope, read back from the kernel; WARMING owes its first answer; READY serves. PAUSING and
RESUMING owe a freeze or a thaw, which only the governor asks for. DRAINING lets the requests in flight end within a bound; STOPPING owes a polite
end. Whenever we do not know (an effect failed, ran out of time, it ended or vanished, a boot found it) it goes to CONVERGING, which owes *nothing
left of it*: no container, no process. What follows is sent by whoever looked: GONE (stopped), RETRY (it is wanted: WAITING, a pause that grows), or
GAVE_UP, also at once if another try cannot help: no image, a damaged model, an envelope that the kernel does not confirm. If podman cannot clear it,
STUCK waits and tries again; its processes are killed meanwhile.

STOP is somebody's wish: it drains, and nothing is wanted any more. YIELD is the governor's need: it is stopped at once and stays wanted, so the
governor starts it again when there is room. FAILED means no container is left and we gave up; the journal says why.

Attempts are counted before the attempt, over boots too: a server that takes the machine down with it is seen. Being READY for a while (CALM)
forgets them. CONFIGURE changes what it is made of, for the next start.
"""

from enum import Enum

from bay0.machines.table import MachineDef, Row, StateSpec, Tries, cells

NAME = "sys://ai"  # there is one


class S(Enum):
    """States of a server."""

    STOPPED = "stopped"
    STARTING = "starting"
    WARMING = "warming"
    READY = "ready"
    PAUSING = "pausing"
    PAUSED = "paused"
    RESUMING = "resuming"
    DRAINING = "draining"
    STOPPING = "stopping"
    CONVERGING = "converging"
    STUCK = "stuck"
    WAITING = "waiting"
    FAILED = "failed"


class E(Enum):
    """What can happen to a server."""

    START = "start"
    AUTOSTART = "autostart"
    STARTED = "started"
    WARM = "warm"
    CALM = "calm"
    ENDED = "ended"
    PAUSE = "pause"
    PAUSED = "paused"
    RESUME = "resume"
    RESUMED = "resumed"
    FROZEN = "frozen"
    THAWED = "thawed"
    STOP = "stop"
    YIELD = "yield"
    DRAINED = "drained"
    GONE = "gone"
    RETRY = "retry"
    WAITED = "waited"
    GAVE_UP = "gave_up"
    CONFIGURE = "configure"
    FAULT = "fault"
    TIMED_OUT = "timed_out"
    CONVERGE = "converge"


class Effect(Enum):
    """What a busy state owes."""

    RUN = "run"
    WARM = "warm"
    PAUSE = "pause"
    RESUME = "resume"
    DRAIN = "drain"
    STOP = "stop"
    CLEAR = "clear"
    WAIT_CLEAR = "wait_clear"
    WAIT = "wait"


SPECS = (
    StateSpec(S.STOPPED, "no container, none wanted, or not now", converged=True),
    StateSpec(S.STARTING, "a container in its envelope is owed, its image loaded if need be", busy=Effect.RUN, deadline_s=240),
    StateSpec(S.WARMING, "its model loads: a first token is owed, and progress meanwhile", busy=Effect.WARM, deadline_s=1860),
    StateSpec(S.READY, "it serves"),
    StateSpec(S.PAUSING, "its freeze is owed, seen in cgroup.events", busy=Effect.PAUSE, deadline_s=20),
    StateSpec(S.PAUSED, "it is frozen"),
    StateSpec(S.RESUMING, "its thaw is owed, seen in cgroup.events", busy=Effect.RESUME, deadline_s=20),
    StateSpec(S.DRAINING, "no new requests; the end of those in flight is owed", busy=Effect.DRAIN, deadline_s=40),
    StateSpec(S.STOPPING, "its end is owed: TERM, then KILL, then no container", busy=Effect.STOP, deadline_s=60),
    StateSpec(S.CONVERGING, "whatever is left of it is removed", busy=Effect.CLEAR, deadline_s=60),
    StateSpec(S.STUCK, "podman could not clear it: its processes are killed, a pause before the next try", busy=Effect.WAIT_CLEAR, deadline_s=45),
    StateSpec(S.WAITING, "it ended and is wanted: a pause before the next try", busy=Effect.WAIT, deadline_s=120),
    StateSpec(S.FAILED, "no container is left and we gave up"),
)

HAS_CONTAINER = (S.WARMING, S.READY, S.PAUSING, S.PAUSED, S.RESUMING, S.DRAINING)
OWES = (S.STARTING, *HAS_CONTAINER, S.STOPPING, S.CONVERGING, S.STUCK, S.WAITING)
_STILL = (S.STOPPED, S.FAILED)
_UNSURE = (S.STARTING, S.WARMING, S.PAUSING, S.RESUMING, S.STOPPING)
_NOT_SERVING = (S.STARTING, S.WARMING, S.PAUSING, S.PAUSED, S.RESUMING)

ROWS = (
    # a start that somebody was told of is kept, or refused while the disk cannot keep it
    Row(S.STOPPED, E.START, S.STARTING, "asked to start", promised=True, desired="running", tries=Tries.FIRST),
    Row(S.FAILED, E.START, S.STARTING, "asked to try once more", promised=True, desired="running", tries=Tries.FIRST),
    Row(S.WAITING, E.START, S.STARTING, "asked not to wait", promised=True, desired="running", tries=Tries.FIRST),
    Row(S.STOPPED, E.AUTOSTART, S.STARTING, "it starts with the spine", promised=True, desired="running", tries=Tries.COUNT),
    Row(S.WAITING, E.WAITED, S.STARTING, "the pause is over", promised=True, tries=Tries.COUNT),
    Row(S.STARTING, E.STARTED, S.WARMING, "it runs in its envelope, as the kernel says"),
    Row(S.WARMING, E.WARM, S.READY, "it made its first token"),
    Row(S.READY, E.CALM, S.READY, "it has served long enough: its attempts are forgotten", tries=Tries.FORGET),
    # freeze and thaw
    Row(S.READY, E.PAUSE, S.PAUSING, "asked to pause", desired="paused"),
    Row(S.RESUMING, E.PAUSE, S.PAUSING, "asked to pause again", desired="paused"),
    Row(S.PAUSING, E.PAUSED, S.PAUSED, "the kernel says it is frozen"),
    Row(S.PAUSED, E.RESUME, S.RESUMING, "asked to resume", desired="running"),
    Row(S.PAUSING, E.RESUME, S.RESUMING, "asked to resume at once", desired="running"),
    Row(S.RESUMING, E.RESUMED, S.READY, "the kernel says it runs again"),
    Row(S.READY, E.FROZEN, S.RESUMING, "it was frozen, and not by us: thaw it"),
    Row(S.PAUSED, E.THAWED, S.PAUSING, "it was thawed, and not by us: freeze it"),
    # a polite end
    Row(S.READY, E.STOP, S.DRAINING, "asked to stop: requests in flight may end", desired="stopped"),
    *(Row(s, E.STOP, S.STOPPING, "asked to stop; nothing is being answered", desired="stopped") for s in _NOT_SERVING),
    Row(S.DRAINING, E.DRAINED, S.STOPPING, "no request is in flight"),
    Row(S.DRAINING, E.FAULT, S.STOPPING, "its requests are not waited for"),
    Row(S.DRAINING, E.TIMED_OUT, S.STOPPING, "its requests did not end in time"),
    Row(S.STOPPING, E.GONE, S.STOPPED, "it has ended, no container is left", tries=Tries.FORGET),
    Row(S.WAITING, E.STOP, S.STOPPED, "asked to stop; nothing runs", desired="stopped", tries=Tries.FORGET),
    # it may have yielded, and would come back
    Row(S.STOPPED, E.STOP, S.STOPPED, "asked to stop: it is not wanted any more", desired="stopped"),
    Row(S.STOPPING, E.STOP, S.STOPPING, "asked to stop: it is not wanted any more", desired="stopped"),
    Row(S.FAILED, E.STOP, S.STOPPED, "asked to stop; nothing runs", desired="stopped"),
    Row(S.CONVERGING, E.STOP, S.CONVERGING, "asked to stop: it is not wanted any more", desired="stopped"),
    Row(S.STUCK, E.STOP, S.CONVERGING, "asked to stop: try again now", desired="stopped"),
    # the governor takes it; it stays wanted
    *(Row(s, E.YIELD, S.STOPPING, "it yields: others need the room", desired="running") for s in (S.READY, *_NOT_SERVING)),
    # what we did not want, or do not know
    *(Row(s, E.FAULT, S.CONVERGING, f"{s.value} failed: make it stopped") for s in _UNSURE),
    *(Row(s, E.TIMED_OUT, S.CONVERGING, "we do not know: make it stopped") for s in _UNSURE),
    *(Row(s, E.ENDED, S.CONVERGING, "its processes have ended: clear what is left") for s in (S.STARTING, *HAS_CONTAINER)),
    Row(S.CONVERGING, E.GONE, S.STOPPED, "nothing of it is left"),
    Row(S.CONVERGING, E.RETRY, S.WAITING, "nothing of it is left, and it is wanted", desired="running"),
    Row(S.CONVERGING, E.GAVE_UP, S.FAILED, "nothing of it is left, and it is not tried again", desired="stopped"),
    Row(S.STOPPED, E.GAVE_UP, S.FAILED, "not started: its attempts were used up in earlier boots", desired="stopped"),
    Row(S.CONVERGING, E.FAULT, S.STUCK, "podman could not clear it"),
    Row(S.CONVERGING, E.TIMED_OUT, S.STUCK, "podman gave no answer"),
    *(Row(S.STUCK, e, S.CONVERGING, "the pause is over: again") for e in (E.WAITED, E.FAULT, E.TIMED_OUT)),
    Row(S.WAITING, E.FAULT, S.CONVERGING, "the pause could not be kept"),
    Row(S.WAITING, E.TIMED_OUT, S.CONVERGING, "it could not be started again in time"),
    # what it is made of
    *(Row(s, E.CONFIGURE, s, "configured anew, for its next start", promised=True) for s in (S.STOPPED, S.READY, S.PAUSED)),
    Row(S.FAILED, E.CONFIGURE, S.STOPPED, "configured anew: its failures are forgotten", promised=True, tries=Tries.FORGET),
    *(Row(s, E.CONVERGE, S.CONVERGING, f"it was found {s.value}: make it stopped", desired="stopped") for s in (*OWES, S.FAILED)),
    Row(S.STOPPED, E.CONVERGE, S.CONVERGING, "it was found stopped, with a container: clear it", desired="stopped"),
)

_MOVING = [s for s in OWES if s not in (S.READY, S.PAUSED)]
IGNORED = {
    **cells((*_STILL, S.READY, S.PAUSED), (E.FAULT, E.TIMED_OUT), "no effect is under way"),
    **cells([s for s in S if s is not S.STARTING], (E.STARTED,), "a late answer"),
    **cells([s for s in S if s is not S.WARMING], (E.WARM,), "a late answer"),
    **cells([s for s in S if s is not S.READY], (E.CALM,), "it does not serve"),
    **cells([s for s in S if s is not S.PAUSING], (E.PAUSED,), "a late answer"),
    **cells([s for s in S if s is not S.RESUMING], (E.RESUMED,), "a late answer"),
    **cells([s for s in S if s is not S.READY], (E.FROZEN,), "it is not there to serve"),
    **cells([s for s in S if s is not S.PAUSED], (E.THAWED,), "it is not there to stand still"),
    **cells([s for s in S if s is not S.DRAINING], (E.DRAINED,), "a late answer"),
    **cells([s for s in S if s not in (S.STOPPING, S.CONVERGING)], (E.GONE,), "a late answer"),
    **cells([s for s in S if s is not S.CONVERGING], (E.RETRY,), "a late answer"),
    **cells([s for s in S if s not in (S.WAITING, S.STUCK)], (E.WAITED,), "a late answer"),
    **cells([s for s in S if s not in (S.STOPPED, S.CONVERGING)], (E.GAVE_UP,), "it is not being tried"),
    **cells((*_STILL, S.STOPPING, S.CONVERGING, S.STUCK, S.WAITING), (E.ENDED,), "its end is known"),
    **cells([s for s in S if s is not S.STOPPED], (E.AUTOSTART,), "it is not at rest"),
    **cells((S.DRAINING,), (E.STOP,), "it is being stopped"),
    **cells((*_STILL, S.DRAINING, S.STOPPING, S.CONVERGING, S.STUCK, S.WAITING), (E.YIELD,), "it has or will soon have nothing to yield"),
    **cells((S.STARTING, S.WARMING, S.READY), (E.START,), "it is started already"),
    **cells((S.PAUSING, S.PAUSED), (E.PAUSE,), "it is paused already"),
    **cells((S.READY, S.RESUMING), (E.RESUME,), "it runs already"),
}
REFUSED = {
    **cells((S.PAUSING, S.PAUSED, S.RESUMING), (E.START,), "the governor holds it; it goes on by itself"),
    **cells((S.DRAINING, S.STOPPING, S.CONVERGING, S.STUCK), (E.START,), "it is being stopped; ask again when it is"),
    **cells(_STILL, (E.PAUSE, E.RESUME), "start it first"),
    **cells([s for s in _MOVING if s not in (S.PAUSING, S.RESUMING)], (E.PAUSE, E.RESUME), "it is on its way; ask again when it is ready"),
    **cells(_MOVING, (E.CONFIGURE,), "it is on its way; ask again when it is ready or stopped"),
}

SERVER = MachineDef("server", S, E, S.STOPPED, SPECS, ROWS, IGNORED, REFUSED, resident=True, single=NAME)
