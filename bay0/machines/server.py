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

from bay0.machines import container
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


WORDS = container.Words(S, E, Effect, runs=S.READY)

SPECS = (
    StateSpec(S.STOPPED, "no container, none wanted, or not now", converged=True),
    StateSpec(S.STARTING, "a container in its envelope is owed, its image loaded if need be", busy=Effect.RUN, deadline_s=240),
    StateSpec(S.WARMING, "its model loads: a first token is owed, and progress meanwhile", busy=Effect.WARM, deadline_s=1860),
    StateSpec(S.READY, "it serves"),
    *container.freezing(WORDS, "it is frozen"),
    StateSpec(S.DRAINING, "no new requests; the end of those in flight is owed", busy=Effect.DRAIN, deadline_s=40),
    StateSpec(S.STOPPING, "its end is owed: TERM, then KILL, then no container", busy=Effect.STOP, deadline_s=60),
    *container.clearing(WORDS),
)

HAS_CONTAINER = (S.WARMING, S.READY, S.PAUSING, S.PAUSED, S.RESUMING, S.DRAINING)
OWES = (S.STARTING, *HAS_CONTAINER, S.STOPPING, S.CONVERGING, S.STUCK, S.WAITING)
_STILL = (S.STOPPED, S.FAILED)
_UNSURE = (S.STARTING, S.WARMING, S.PAUSING, S.RESUMING, S.STOPPING)
_NOT_SERVING = (S.STARTING, S.WARMING, S.PAUSING, S.PAUSED, S.RESUMING)

ROWS = (
    *container.starts(WORDS, "it starts with the spine"),
    Row(S.STARTING, E.STARTED, S.WARMING, "it runs in its envelope, as the kernel says"),
    Row(S.WARMING, E.WARM, S.READY, "it made its first token"),
    Row(S.READY, E.CALM, S.READY, "it has served long enough: its attempts are forgotten", tries=Tries.FORGET),
    *container.freezes(WORDS),
    # a polite end
    Row(S.READY, E.STOP, S.DRAINING, "asked to stop: requests in flight may end", desired="stopped"),
    *(Row(s, E.STOP, S.STOPPING, "asked to stop; nothing is being answered", desired="stopped") for s in _NOT_SERVING),
    Row(S.DRAINING, E.DRAINED, S.STOPPING, "no request is in flight"),
    Row(S.DRAINING, E.FAULT, S.STOPPING, "its requests are not waited for"),
    Row(S.DRAINING, E.TIMED_OUT, S.STOPPING, "its requests did not end in time"),
    *container.stopped(WORDS),
    # it may have yielded, and would come back
    Row(S.STOPPED, E.STOP, S.STOPPED, "asked to stop: it is not wanted any more", desired="stopped"),
    Row(S.STOPPING, E.STOP, S.STOPPING, "asked to stop: it is not wanted any more", desired="stopped"),
    *container.not_wanted(WORDS),
    # the governor takes it; it stays wanted
    *(Row(s, E.YIELD, S.STOPPING, "it yields: others need the room", desired="running") for s in (S.READY, *_NOT_SERVING)),
    # what we did not want, or do not know
    *container.doubts(WORDS, _UNSURE),
    *container.ends(WORDS, (S.STARTING, *HAS_CONTAINER)),
    Row(S.CONVERGING, E.GONE, S.STOPPED, "nothing of it is left"),
    Row(S.CONVERGING, E.RETRY, S.WAITING, "nothing of it is left, and it is wanted", desired="running"),
    Row(S.CONVERGING, E.GAVE_UP, S.FAILED, "nothing of it is left, and it is not tried again", desired="stopped"),
    *container.stuck(WORDS),
    # what it is made of
    *(Row(s, E.CONFIGURE, s, "configured anew, for its next start", promised=True) for s in (S.STOPPED, S.READY, S.PAUSED)),
    Row(S.FAILED, E.CONFIGURE, S.STOPPED, "configured anew: its failures are forgotten", promised=True, tries=Tries.FORGET),
    *container.converges(WORDS, OWES),
)

_MOVING = [s for s in OWES if s not in (S.READY, S.PAUSED)]
IGNORED = {
    **container.ignored(WORDS, S, _STILL),
    **cells([s for s in S if s is not S.WARMING], (E.WARM,), "a late answer"),
    **cells([s for s in S if s is not S.READY], (E.CALM,), "it does not serve"),
    **cells([s for s in S if s is not S.READY], (E.FROZEN,), "it is not there to serve"),
    **cells([s for s in S if s is not S.DRAINING], (E.DRAINED,), "a late answer"),
    **cells((S.DRAINING,), (E.STOP,), "it is being stopped"),
    **cells((*_STILL, S.DRAINING, S.STOPPING, S.CONVERGING, S.STUCK, S.WAITING), (E.YIELD,), "it has or will soon have nothing to yield"),
    **cells((S.WARMING,), (E.START,), "it is started already"),
}
REFUSED = {
    **container.refused(WORDS),
    **cells((S.PAUSING, S.PAUSED, S.RESUMING), (E.START,), "the governor holds it; it goes on by itself"),
    **cells((S.DRAINING,), (E.START,), "it is being stopped; ask again when it is"),
    **cells([s for s in _MOVING if s not in (S.PAUSING, S.RESUMING)], (E.PAUSE, E.RESUME), "it is on its way; ask again when it is ready"),
    **cells(_MOVING, (E.CONFIGURE,), "it is on its way; ask again when it is ready or stopped"),
}

SERVER = MachineDef("server", S, E, S.STOPPED, SPECS, ROWS, IGNORED, REFUSED, resident=True, single=NAME)
