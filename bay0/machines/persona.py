"""A persona: a podman container that belongs to the user, `p://NAME`.

Theory of operation. STARTING owes a container, RUNNING and PAUSED have one, PAUSING and RESUMING owe a freeze or a thaw, STOPPING owes a polite end.
Whenever we do not know (an effect failed, ran out of time, the container or its monitor ended, a boot found it) the machine goes to CONVERGING,
which owes *nothing left of it*: no container, no process. What follows is sent by whoever looked: GONE (stopped), DONE (it had ended by
itself, with status 0), RETRY (its manifest wants it back: WAITING, a pause that grows), or GAVE_UP. If podman cannot clear it, STUCK
waits and tries again; its processes are killed meanwhile.
FAILED means no container is left and we gave up; the journal says why. ABSENT is a name nobody has created, or that was removed.

A persona that is made as a copy is COPYING until all of its home lies beside its place, and PLACING until it is there, which is one rename.
One that is made of an archive goes the same way.
So whatever happens it is there whole, or not at all: from COPYING every doubt leads to ABSENT; what is PLACING is placed again until that is known.
One that goes back to a snapshot is RESTORING until all of that home lies beside its place: every doubt leads to STOPPED, with the home that it has.
It is REPLACING until that home is in the place of the old one, which is done again until that is known; its manifest changes with that step.

Attempts are counted before the attempt. An operator's START is the first; those that nobody asked for, after a death or by `autostart` at boot, are
counted on, over boots too, so a persona that takes the machine down with it is seen. `desired` is set by the rows that somebody asked for.
CONFIGURE changes what it is made of; it stays where it is, at rest.
"""

import json
from enum import Enum

from bay0.machines import container
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
    COPYING = "copying"
    PLACING = "placing"
    RESTORING = "restoring"
    REPLACING = "replacing"


class E(Enum):
    """What can happen to a persona."""

    CREATE = "create"
    CLONE = "clone"
    IMPORT = "import"
    RESTORE = "restore"
    COPIED = "copied"
    PLACED = "placed"
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
    CONFIGURE = "configure"
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
    COPY = "copy"
    PLACE = "place"
    RESTORE = "restore"
    REPLACE = "replace"


WORDS = container.Words(S, E, Effect, runs=S.RUNNING)

SPECS = (
    StateSpec(S.ABSENT, "no such persona", converged=True),
    StateSpec(S.STOPPED, "no container, none wanted", converged=True),
    StateSpec(S.STARTING, "a container is owed", busy=Effect.RUN, deadline_s=75),
    StateSpec(S.RUNNING, "the container runs"),
    *container.freezing(WORDS, "the container is frozen"),
    StateSpec(S.STOPPING, "its end is owed: TERM, then KILL, then no container", busy=Effect.STOP, deadline_s=90),
    *container.clearing(WORDS),
    StateSpec(S.COPYING, "a home for it is being copied, beside its place", busy=Effect.COPY, deadline_s=7500),
    StateSpec(S.PLACING, "the copy is whole, and is put in its place", busy=Effect.PLACE, deadline_s=300),
    StateSpec(S.RESTORING, "the home of a snapshot is being copied, beside its own", busy=Effect.RESTORE, deadline_s=7500),
    StateSpec(S.REPLACING, "that copy is whole, and takes the place of its home", busy=Effect.REPLACE, deadline_s=300),
)

MADE = (S.COPYING, S.PLACING)
GOES_BACK = (S.RESTORING, S.REPLACING)
HAS_CONTAINER = (S.RUNNING, S.PAUSING, S.PAUSED, S.RESUMING)
OWES = (S.STARTING, *HAS_CONTAINER, S.STOPPING, S.CONVERGING, S.STUCK, S.WAITING)

ROWS = (
    Row(S.ABSENT, E.CREATE, S.STOPPED, "asked to create it", promised=True, desired="stopped", tries=Tries.FORGET),
    Row(S.ABSENT, E.CLONE, S.COPYING, "asked to make it as a copy", promised=True, desired="stopped", tries=Tries.FORGET),
    Row(S.ABSENT, E.IMPORT, S.COPYING, "asked to make it of an archive", promised=True, desired="stopped", tries=Tries.FORGET),
    Row(S.COPYING, E.COPIED, S.PLACING, "all of it is there, beside its place", promised=True),
    Row(S.COPYING, E.STOP, S.ABSENT, "asked to give the copy up", desired="stopped"),
    Row(S.COPYING, E.FAULT, S.ABSENT, "it was not copied", desired="stopped"),
    Row(S.COPYING, E.TIMED_OUT, S.ABSENT, "it was not copied in time", desired="stopped"),
    Row(S.PLACING, E.PLACED, S.STOPPED, "its home is in its place", desired="stopped"),
    Row(S.PLACING, E.FAULT, S.ABSENT, "its home could not be put in its place", desired="stopped"),
    Row(S.PLACING, E.TIMED_OUT, S.PLACING, "the disk gave no answer: again"),
    *(
        Row(s, E.RESTORE, S.RESTORING, "asked to go back to a snapshot", promised=True, desired="stopped", tries=Tries.FORGET)
        for s in (S.STOPPED, S.FAILED)
    ),
    Row(S.RESTORING, E.COPIED, S.REPLACING, "all of it is there, beside its place", promised=True),
    Row(S.RESTORING, E.STOP, S.STOPPED, "asked to leave it as it is", desired="stopped"),
    Row(S.RESTORING, E.FAULT, S.STOPPED, "it is as it was", desired="stopped"),
    Row(S.RESTORING, E.TIMED_OUT, S.STOPPED, "the snapshot was not copied in time: it is as it was", desired="stopped"),
    Row(S.REPLACING, E.PLACED, S.STOPPED, "its home is that of the snapshot", desired="stopped"),
    Row(S.REPLACING, E.FAULT, S.REPLACING, "its home could not be replaced: again"),
    Row(S.REPLACING, E.TIMED_OUT, S.REPLACING, "the disk gave no answer: again"),
    *container.starts(WORDS, "its manifest says autostart"),
    Row(S.STARTING, E.STARTED, S.RUNNING, "podman says it runs"),
    Row(S.RUNNING, E.CALM, S.RUNNING, "it has lived long enough: its attempts are forgotten", tries=Tries.FORGET),
    *container.freezes(WORDS),
    # a polite end
    *(Row(s, E.STOP, S.STOPPING, "asked to stop", desired="stopped") for s in (S.STARTING, *HAS_CONTAINER)),
    *container.stopped(WORDS),
    *container.not_wanted(WORDS),
    # what we did not want, or do not know
    *container.doubts(WORDS, (S.STARTING, S.PAUSING, S.RESUMING, S.STOPPING)),
    *container.ends(WORDS, (S.STARTING, *HAS_CONTAINER)),
    *(
        Row(s, E.UNWATCHED, S.CONVERGING, "its monitor has ended: what it says is lost, and how it ends would be too")
        for s in (S.STARTING, *HAS_CONTAINER)
    ),
    Row(S.CONVERGING, E.GONE, S.STOPPED, "nothing of it is left", desired="stopped"),
    Row(S.CONVERGING, E.DONE, S.STOPPED, "it ended by itself, and well; nothing of it is left", desired="stopped", tries=Tries.FORGET),
    Row(S.CONVERGING, E.RETRY, S.WAITING, "nothing of it is left, and it is wanted"),
    Row(S.CONVERGING, E.GAVE_UP, S.FAILED, "nothing of it is left, and its attempts are used up", desired="stopped"),
    *container.stuck(WORDS),
    # begin anew
    *(
        Row(s, E.RESET, S.CONVERGING, "asked to reset: nothing is kept but its home", promised=True, desired="stopped", tries=Tries.FORGET)
        for s in (S.STOPPED, S.FAILED, *OWES)
    ),
    *(Row(s, E.CONFIGURE, s, "asked to change what it is made of", promised=True) for s in (S.STOPPED, S.FAILED, S.RUNNING, S.PAUSED)),
    Row(S.STOPPED, E.REMOVE, S.ABSENT, "asked to remove it", promised=True, desired="stopped", tries=Tries.FORGET),
    Row(S.FAILED, E.REMOVE, S.ABSENT, "asked to remove it", promised=True, desired="stopped", tries=Tries.FORGET),
    *container.converges(WORDS, OWES),
    Row(S.COPYING, E.CONVERGE, S.ABSENT, "it was found half copied: it was never there", desired="stopped"),
    Row(S.PLACING, E.CONVERGE, S.PLACING, "it was found whole, beside its place: put it there"),
    Row(S.RESTORING, E.CONVERGE, S.STOPPED, "the home of a snapshot was found half copied: it is as it was", desired="stopped"),
    Row(S.REPLACING, E.CONVERGE, S.REPLACING, "the home of a snapshot was found whole, beside its own: put it there"),
)

_MOVING = [s for s in OWES if s not in (S.RUNNING, S.PAUSED)]
_STILL = (S.ABSENT, S.STOPPED, S.FAILED)
_NONE = "there is no such persona"
IGNORED = {
    **container.ignored(WORDS, S, _STILL),
    **cells([s for s in S if s is not S.RUNNING], (E.CALM,), "it does not run"),
    **cells([s for s in S if s is not S.RUNNING], (E.FROZEN,), "it is not there to run"),
    **cells([s for s in S if s is not S.CONVERGING], (E.DONE,), "a late answer"),
    **cells((*_STILL, *MADE, *GOES_BACK, S.STOPPING, S.CONVERGING, S.STUCK, S.WAITING), (E.UNWATCHED,), "its end is known"),
    **cells((*MADE, *GOES_BACK), (E.ENDED,), "it has no process"),
    **cells([s for s in S if s not in (S.COPYING, S.RESTORING)], (E.COPIED,), "a late answer"),
    **cells([s for s in S if s not in (S.PLACING, S.REPLACING)], (E.PLACED,), "a late answer"),
    **cells((S.ABSENT, S.STOPPED, S.STOPPING), (E.STOP,), "it is stopped or stopping"),
    **cells((S.ABSENT,), (E.CONVERGE,), _NONE),
}
REFUSED = {
    **container.refused(WORDS),
    **cells([s for s in S if s is not S.ABSENT], (E.CREATE,), "it exists already; remove it first, its home is kept"),
    **cells([s for s in S if s is not S.ABSENT], (E.CLONE, E.IMPORT), "it exists already; take another name"),
    **cells(MADE, (E.START, E.PAUSE, E.RESUME, E.RESET, E.REMOVE, E.CONFIGURE), "it is still being made"),
    **cells((S.PLACING,), (E.STOP,), "its copy is whole and about to be in its place; remove it then"),
    **cells(MADE, (E.RESTORE,), "it is still being made"),
    **cells(
        GOES_BACK, (E.START, E.PAUSE, E.RESUME, E.RESET, E.REMOVE, E.CONFIGURE, E.RESTORE), "it goes back to a snapshot; ask again when it is stopped"
    ),
    **cells((S.REPLACING,), (E.STOP,), "its home is about to be that of the snapshot; nothing runs"),
    **cells((S.ABSENT,), (E.START, E.PAUSE, E.RESUME, E.RESET, E.REMOVE, E.CONFIGURE, E.RESTORE), _NONE),
    **cells(OWES, (E.RESTORE,), "stop it first"),
    **cells(_MOVING, (E.CONFIGURE,), "it is on its way; ask again when it runs or is stopped"),
    **cells((S.PAUSING, S.PAUSED, S.RESUMING), (E.START,), "resume it instead"),
    **cells((S.STARTING, S.STOPPING, S.CONVERGING, S.STUCK, S.WAITING), (E.PAUSE, E.RESUME), "it is on its way; ask again when it runs"),
    **cells(OWES, (E.REMOVE,), "stop it first"),
}

PERSONA = MachineDef("persona", S, E, S.ABSENT, SPECS, ROWS, IGNORED, REFUSED, resident=True)


def mark(key: str, value: str | bool) -> str:  # noqa: FBT001 - a manifest's value
    """Return what stands in the stored configuration of a persona whose manifest says so: to look for it costs less than to read them all."""
    return f'"{key}":{json.dumps(value)}'
