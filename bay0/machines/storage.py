"""Storage health as a machine: what a commit means right now, asked by everybody, decided here.

Theory of operation (docs/ARCHITECTURE.md, storage health). /persist is touched by one worker process. A bound that is missed means WEDGED: the worker
is abandoned, and only the kernel's word that it has ended (WORKER_GONE) lets a new one start, because a second opener
while the first lives would meet its lock. REATTACHING flushes the memory journal before anything is DURABLE again. Rows of
this machine are the one thing always journaled in memory first: they cannot ask the disk whether the disk is there.
"""

from enum import Enum

from bay0.machines.table import MachineDef, Row, StateSpec, cells


class S(Enum):
    """Health of /persist."""

    DETACHED = "detached"
    OPENING = "opening"
    DURABLE = "durable"
    WEDGED = "wedged"
    REATTACHING = "reattaching"
    FULL = "full"
    READONLY = "readonly"
    CLOSING = "closing"
    CLOSED = "closed"


class E(Enum):
    """What can happen to it."""

    ATTACH = "attach"
    OPENED = "opened"
    NO_DEVICE = "no_device"
    FULL = "full"
    UNWRITABLE = "unwritable"
    MISSED = "missed"
    WORKER_GONE = "worker_gone"
    RETRY = "retry"
    CLOSE = "close"
    DONE = "done"
    FAULT = "fault"
    TIMED_OUT = "timed_out"
    CONVERGE = "converge"


class Effect(Enum):
    """What a busy state owes."""

    OPEN = "open"
    REOPEN = "reopen"
    CLOSE = "close"


SPECS = (
    StateSpec(S.DETACHED, "no device, or not tried yet", converged=True),
    StateSpec(S.OPENING, "a worker mounts, opens, migrates, reads", busy=Effect.OPEN, deadline_s=25),
    StateSpec(S.DURABLE, "healthy: a commit is kept"),
    StateSpec(S.WEDGED, "a bound was missed: the old worker must end first"),
    StateSpec(S.REATTACHING, "a new worker opens, then writes out the memory journal", busy=Effect.REOPEN, deadline_s=25),
    StateSpec(S.FULL, "opened, and there is no room: its free space is watched"),
    StateSpec(S.READONLY, "opened but not writable: read-only, damaged or from a newer program"),
    StateSpec(S.CLOSING, "checkpoint, close, unmount", busy=Effect.CLOSE, deadline_s=10),
    StateSpec(S.CLOSED, "nothing will be written any more", converged=True),
)

_RESULTS = {
    E.OPENED: (S.DURABLE, "the database is open and current"),
    E.NO_DEVICE: (S.DETACHED, "no disk to keep anything on"),
    E.FULL: (S.FULL, "the disk is full"),
    E.UNWRITABLE: (S.READONLY, "the database cannot be written"),
    E.FAULT: (S.WEDGED, "the worker failed: it will be replaced"),
    E.TIMED_OUT: (S.WEDGED, "the disk did not answer within its bound"),
    E.MISSED: (S.WEDGED, "the disk did not answer within its bound"),
    E.CLOSE: (S.CLOSING, "the spine is going down"),
}

_OPENED = (S.FULL, S.READONLY)  # there is a worker, and nothing can be kept

ROWS = (
    Row(S.DETACHED, E.ATTACH, S.OPENING, "the boot wants its disk"),
    Row(S.DETACHED, E.RETRY, S.OPENING, "a disk may have come"),
    Row(S.DETACHED, E.CLOSE, S.CLOSED, "there is nothing to close"),
    *(Row(S.OPENING, event, dest, why) for event, (dest, why) in _RESULTS.items()),
    *(Row(S.REATTACHING, event, dest, why) for event, (dest, why) in _RESULTS.items()),
    Row(S.OPENING, E.WORKER_GONE, S.REATTACHING, "the worker died while it opened"),
    Row(S.DURABLE, E.MISSED, S.WEDGED, "the disk did not answer within its bound"),
    Row(S.DURABLE, E.FAULT, S.WEDGED, "the worker failed: it will be replaced"),
    Row(S.DURABLE, E.WORKER_GONE, S.REATTACHING, "the worker died"),
    Row(S.DURABLE, E.FULL, S.FULL, "the disk is full"),
    Row(S.DURABLE, E.UNWRITABLE, S.READONLY, "the disk refuses to be written"),
    Row(S.DURABLE, E.CLOSE, S.CLOSING, "the spine is going down"),
    Row(S.WEDGED, E.WORKER_GONE, S.REATTACHING, "the old worker has ended: a new one may open the disk"),
    Row(S.WEDGED, E.CLOSE, S.CLOSED, "a wedged disk cannot be flushed"),
    *(Row(s, E.RETRY, S.REATTACHING, "asked to try again") for s in _OPENED),
    *(Row(s, E.MISSED, S.WEDGED, "the disk did not answer within its bound") for s in _OPENED),
    *(Row(s, E.WORKER_GONE, S.REATTACHING, "the worker died") for s in _OPENED),
    *(Row(s, E.CLOSE, S.CLOSING, "the spine is going down") for s in _OPENED),
    Row(S.CLOSING, E.DONE, S.CLOSED, "checkpointed and unmounted"),
    Row(S.CLOSING, E.FAULT, S.CLOSED, "it could not be closed cleanly: the journal replays it"),
    Row(S.CLOSING, E.TIMED_OUT, S.CLOSED, "it did not close in time: the journal replays it"),
    Row(S.CLOSING, E.MISSED, S.CLOSED, "it did not close in time: the journal replays it"),
    *(
        Row(s, E.CONVERGE, S.DETACHED, "an earlier boot's disk is nobody's")
        for s in S
        if s not in (S.DETACHED, S.CLOSED)
    ),
)

_AT_REST = (S.DETACHED, S.DURABLE, S.WEDGED, *_OPENED, S.CLOSED)
IGNORED = {
    **cells(_AT_REST, (E.OPENED, E.NO_DEVICE, E.TIMED_OUT, E.DONE), "nothing is under way"),
    **cells((S.OPENING, S.REATTACHING), (E.DONE,), "an open ends with what it found"),
    **cells((S.CLOSING,), (E.OPENED, E.NO_DEVICE, E.FULL, E.UNWRITABLE, E.WORKER_GONE), "it is being closed"),
    **cells((S.DETACHED, S.WEDGED, S.CLOSED), (E.FAULT, E.MISSED, E.FULL, E.UNWRITABLE), "nothing is trusted to it now"),
    **cells(_OPENED, (E.FAULT, E.FULL, E.UNWRITABLE), "nothing is written to it now"),
    **cells((S.DETACHED, S.CLOSED), (E.WORKER_GONE,), "no worker is needed"),
    **cells((S.REATTACHING,), (E.WORKER_GONE,), "its effect sees that itself"),
    **cells([s for s in S if s is not S.DETACHED], (E.ATTACH,), "it was attached already"),
    **cells((S.CLOSING, S.CLOSED), (E.CLOSE,), "it is closed or closing"),
    **cells((S.DETACHED, S.CLOSED), (E.CONVERGE,), "it holds nothing"),
}
REFUSED = {
    **cells((S.OPENING, S.REATTACHING), (E.RETRY,), "an attempt is under way"),
    **cells((S.DURABLE,), (E.RETRY,), "storage is healthy"),
    **cells((S.WEDGED,), (E.RETRY,), "the old worker still hangs on the disk; it is replaced by itself when the disk answers"),
    **cells((S.CLOSING, S.CLOSED), (E.RETRY,), "the spine is going down"),
}

STORAGE = MachineDef("storage", S, E, S.DETACHED, SPECS, ROWS, IGNORED, REFUSED)
