"""Whether the machine may sleep: one machine, whose steps are the requests to suspend, by a person or by a closed lid.

Theory of operation. The inhibit lock is held by whatever the state worker has not answered yet: a commit, a flush, a checkpoint. That is a fact
in memory (state/link.py) and costs no step, or each commit would need another one. Only a request makes steps. The worker answers in order, so a
flush that is asked for now ends after everything that was begun before it: to wait for that answer is to wait for the lock. PENDING owes this
flush (checkpoint, seed, time) while others go on writing; SUSPENDING owes a last short one with the writers held back, then the sleep. A flush
that fails or is late, and a disk that does not answer, end in FREE: the request is refused, and the machine stays awake. So does a boot.
"""

from enum import Enum

from bay0.machines.table import MachineDef, Row, StateSpec, cells

NAME = "inhibit"


class S(Enum):
    """Where a request to sleep is."""

    FREE = "free"
    PENDING = "pending"
    SUSPENDING = "suspending"


class E(Enum):
    """What can happen to it."""

    SUSPEND = "suspend"
    FLUSHED = "flushed"
    WOKE = "woke"
    STAYED = "stayed"
    FAULT = "fault"
    TIMED_OUT = "timed_out"
    CONVERGE = "converge"


class Effect(Enum):
    """What a request owes."""

    FLUSH = "flush"
    SLEEP = "sleep"


SPECS = (
    StateSpec(S.FREE, "nobody asks to sleep", converged=True),
    StateSpec(S.PENDING, "a request waits for what is being written, then for a flush", busy=Effect.FLUSH, deadline_s=15),
    StateSpec(S.SUSPENDING, "writers are held back, the rest is flushed, the machine sleeps", busy=Effect.SLEEP, deadline_s=40),
)

ROWS = (
    Row(S.FREE, E.SUSPEND, S.PENDING, "asked to suspend"),
    Row(S.PENDING, E.FLUSHED, S.SUSPENDING, "nothing is being written any more"),
    Row(S.PENDING, E.FAULT, S.FREE, "not suspended, it could not be flushed"),
    Row(S.PENDING, E.TIMED_OUT, S.FREE, "not suspended, the flush took too long"),
    Row(S.SUSPENDING, E.WOKE, S.FREE, "it has slept and is awake"),
    Row(S.SUSPENDING, E.STAYED, S.FREE, "flushed, but not suspended"),
    Row(S.SUSPENDING, E.FAULT, S.FREE, "not suspended"),
    Row(S.SUSPENDING, E.TIMED_OUT, S.FREE, "not suspended, the kernel took too long"),
    Row(S.PENDING, E.CONVERGE, S.FREE, "a boot is awake"),
    Row(S.SUSPENDING, E.CONVERGE, S.FREE, "a boot is awake"),
)

IGNORED = {
    **cells((S.FREE,), (E.FLUSHED, E.WOKE, E.STAYED, E.FAULT, E.TIMED_OUT), "nothing is under way"),
    **cells((S.FREE,), (E.CONVERGE,), "nobody asks to sleep"),
    **cells((S.PENDING,), (E.WOKE, E.STAYED), "it is not that far"),
    **cells((S.SUSPENDING,), (E.FLUSHED,), "it was flushed already"),
}
REFUSED = cells((S.PENDING, S.SUSPENDING), (E.SUSPEND,), "a request to suspend is under way already")

INHIBIT = MachineDef("inhibit", S, E, S.FREE, SPECS, ROWS, IGNORED, REFUSED, resident=True, single=NAME)
