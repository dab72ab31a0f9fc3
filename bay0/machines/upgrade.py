"""An upgrade: a newer image is written into the other slot, tried once, and found good, or the machine goes back by itself.

Theory of operation. Three places know one thing each. The environments of the slots say what the loader starts next: bay0 writes them when it
arms and when it commits, the loader on a try. This machine's row says what was staged, how often it was tried, and its verdict. The image says
which build runs. So a boot never guesses what a try came to: TRIED, TORN and CONDEMNED rest until init is complete, then the slots are looked at.

A try is counted before it is armed. RED, or a proof that does not end, is a verdict: CONDEMNED, and the digest is NACKED by the spine that was good
before. A try that came back without one (a hang, a panic, a power cut) is armed again for the next boot, and is NACKED after the third. The
environment that says OK is the moment of the commit; a crash behind it is finished by the next look.
"""

from enum import Enum

from bay0.machines.table import MachineDef, Row, StateSpec, Tries

NAME = "upgrade"
TRIES = 3  # without a verdict


class S(Enum):
    """Where an upgrade is."""

    IDLE = "idle"
    STAGING = "staging"
    STAGED = "staged"
    ARMING = "arming"
    TRYING = "trying"
    TRIED = "tried"
    JUDGING = "judging"
    PROVING = "proving"
    REARMING = "rearming"
    COMMITTING = "committing"
    GOOD = "good"
    CONDEMNED = "condemned"
    NACKING = "nacking"
    NACKED = "nacked"
    RETURNING = "returning"
    TORN = "torn"
    WIPING = "wiping"


class E(Enum):
    """What can happen to it."""

    STAGE = "stage"
    TRY = "try"
    CANCEL = "cancel"
    ROLLBACK = "rollback"
    ACCEPT = "accept"
    LOOK = "look"
    PROVE = "prove"
    COMMITTED = "committed"
    NOT_BEGUN = "not_begun"
    AGAIN = "again"
    REJECT = "reject"
    BYPASSED = "bypassed"
    GREEN = "green"
    RED = "red"
    LEAVE = "leave"
    DAMAGED = "damaged"
    DONE = "done"
    FAULT = "fault"
    TIMED_OUT = "timed_out"
    CONVERGE = "converge"


class Effect(Enum):
    """What a busy state owes."""

    STAGE = "stage"
    ARM = "arm"
    JUDGE = "judge"
    PROVE = "prove"
    REARM = "rearm"
    COMMIT = "commit"
    NACK = "nack"
    RETURN = "return"
    WIPE = "wipe"


SPECS = (
    StateSpec(S.IDLE, "nothing is staged", converged=True),
    StateSpec(S.STAGING, "an image is written into the other slot and read back", busy=Effect.STAGE, deadline_s=900),
    StateSpec(S.STAGED, "it is in the other slot, whole, and not offered to the loader", converged=True),
    StateSpec(S.ARMING, "it is read back once more, then the loader is told to try it", busy=Effect.ARM, deadline_s=180),
    StateSpec(S.TRYING, "the next boot tries it"),
    StateSpec(S.TRIED, "a boot may have tried it: the slots tell, once they are looked at", converged=True),
    StateSpec(S.JUDGING, "the slots are looked at", busy=Effect.JUDGE, deadline_s=60),
    StateSpec(S.PROVING, "it runs, and is watched", busy=Effect.PROVE, deadline_s=1200),
    StateSpec(S.REARMING, "the loader is told to try it again at the next boot", busy=Effect.REARM, deadline_s=20),
    StateSpec(S.COMMITTING, "it is read back, then becomes the good one", busy=Effect.COMMIT, deadline_s=180),
    StateSpec(S.GOOD, "it is the good one, and must come through one more boot before the old one is given up"),
    StateSpec(S.CONDEMNED, "it was found bad: the next boot is the old one's, which refuses it from then on", converged=True),
    StateSpec(S.NACKING, "its digest is refused for good, its slot is wiped", busy=Effect.NACK, deadline_s=60),
    StateSpec(S.NACKED, "the last upgrade was found bad", converged=True),
    StateSpec(S.RETURNING, "the loader is told to start the old one again", busy=Effect.RETURN, deadline_s=60),
    StateSpec(S.TORN, "what is in the other slot is not whole; nothing starts it", converged=True),
    StateSpec(S.WIPING, "the other slot is wiped", busy=Effect.WIPE, deadline_s=60),
)

WRITES = (S.STAGING, S.ARMING, S.REARMING, S.COMMITTING, S.NACKING, S.RETURNING, S.WIPING)  # a slot, or reads all of it
HOLDS_A_STOP = (S.ARMING, S.JUDGING, S.PROVING, S.REARMING, S.COMMITTING, S.RETURNING)  # a proof ends by LEAVE; the others are short
LOOKS = (S.TRIED, S.TORN)  # what LOOK means something to

_UNKNOWN = "what became of it is to be looked at"
_BACK = "the old one is started from now on"

ROWS = (
    *(Row(s, E.STAGE, S.STAGING, "asked to stage", promised=True, tries=Tries.FORGET) for s in (S.IDLE, S.STAGED, S.NACKED, S.TORN)),
    Row(S.STAGING, E.DONE, S.STAGED, "it was written and read back"),
    Row(S.STAGING, E.FAULT, S.WIPING, "it could not be staged"),
    Row(S.STAGING, E.TIMED_OUT, S.WIPING, "staging took too long"),
    Row(S.STAGED, E.TRY, S.ARMING, "asked to try", promised=True, tries=Tries.FIRST),
    *(Row(s, E.CANCEL, S.WIPING, "asked to forget it", promised=True) for s in (S.STAGED, S.TRYING)),
    Row(S.ARMING, E.DONE, S.TRYING, "the next boot tries it"),
    Row(S.ARMING, E.DAMAGED, S.WIPING, "the slot does not hold what was staged"),
    Row(S.ARMING, E.FAULT, S.TRIED, f"it could not be armed: {_UNKNOWN}"),
    Row(S.ARMING, E.TIMED_OUT, S.TRIED, f"arming took too long: {_UNKNOWN}"),
    *(Row(s, E.CONVERGE, S.TRIED, f"a boot found it {s.value}") for s in (S.ARMING, S.TRYING, S.JUDGING, S.PROVING, S.REARMING, S.COMMITTING)),
    Row(S.TRIED, E.LOOK, S.JUDGING, "the slots can be looked at"),
    Row(S.JUDGING, E.PROVE, S.PROVING, "it runs"),
    Row(S.JUDGING, E.COMMITTED, S.GOOD, "it was committed, and runs"),
    Row(S.JUDGING, E.NOT_BEGUN, S.STAGED, "the try never began"),
    Row(S.JUDGING, E.AGAIN, S.REARMING, "the try came back without a verdict", tries=Tries.COUNT),
    Row(S.JUDGING, E.REJECT, S.NACKING, "it is not to be tried again"),
    Row(S.JUDGING, E.BYPASSED, S.TRYING, "it is armed, and the loader was not asked yet"),
    Row(S.JUDGING, E.DAMAGED, S.WIPING, "there is nothing in its slot that could be tried"),
    Row(S.JUDGING, E.FAULT, S.TRIED, f"the slots could not be read: {_UNKNOWN}"),
    Row(S.JUDGING, E.TIMED_OUT, S.TRIED, f"the slots gave no answer: {_UNKNOWN}"),
    Row(S.PROVING, E.GREEN, S.COMMITTING, "it was well all the time"),
    Row(S.PROVING, E.ACCEPT, S.COMMITTING, "somebody accepts it", promised=True),
    Row(S.PROVING, E.RED, S.CONDEMNED, "it is not well"),
    Row(S.PROVING, E.ROLLBACK, S.CONDEMNED, "somebody refuses it", promised=True),
    Row(S.PROVING, E.LEAVE, S.REARMING, "an ordered stop is no verdict"),
    Row(S.PROVING, E.FAULT, S.CONDEMNED, "its proof failed"),
    Row(S.PROVING, E.TIMED_OUT, S.CONDEMNED, "its proof did not end"),
    Row(S.REARMING, E.DONE, S.TRYING, "the next boot tries it"),
    Row(S.REARMING, E.FAULT, S.TRYING, "it could not be armed again: the next boot finds the old one"),
    Row(S.REARMING, E.TIMED_OUT, S.TRYING, "whether it is armed again is not known: the next boot tells"),
    Row(S.COMMITTING, E.DONE, S.GOOD, "it is the good one now"),
    Row(S.COMMITTING, E.DAMAGED, S.CONDEMNED, "the slot does not hold what was staged"),
    Row(S.COMMITTING, E.FAULT, S.TRIED, f"it could not be committed: {_UNKNOWN}"),
    Row(S.COMMITTING, E.TIMED_OUT, S.TRIED, f"the commit took too long: {_UNKNOWN}"),
    Row(S.GOOD, E.CONVERGE, S.IDLE, "it came through one more boot"),
    *(Row(s, E.ROLLBACK, S.RETURNING, "asked to go back", promised=True) for s in (S.GOOD, S.IDLE)),
    Row(S.RETURNING, E.DONE, S.CONDEMNED, _BACK),
    Row(S.RETURNING, E.FAULT, S.IDLE, "there was no going back"),
    Row(S.RETURNING, E.TIMED_OUT, S.IDLE, "whether it goes back is not known: the next boot tells"),
    Row(S.RETURNING, E.CONVERGE, S.IDLE, "a crash while it was told to go back"),
    Row(S.CONDEMNED, E.REJECT, S.NACKING, "the old one runs"),
    Row(S.NACKING, E.DONE, S.NACKED, "its digest is refused from now on"),
    Row(S.NACKING, E.FAULT, S.CONDEMNED, "its digest could not be kept: once more at the next boot"),
    Row(S.NACKING, E.TIMED_OUT, S.CONDEMNED, "its digest could not be kept in time: once more at the next boot"),
    Row(S.NACKING, E.CONVERGE, S.CONDEMNED, "a crash while it was refused"),
    Row(S.TORN, E.LOOK, S.WIPING, "the slot can be wiped"),
    Row(S.WIPING, E.DONE, S.IDLE, "nothing is staged any more"),
    Row(S.WIPING, E.FAULT, S.TORN, "it could not be wiped: nothing starts it"),
    Row(S.WIPING, E.TIMED_OUT, S.TORN, "wiping took too long: nothing starts it"),
    Row(S.WIPING, E.CONVERGE, S.TORN, "a crash while it was wiped"),
    Row(S.STAGING, E.CONVERGE, S.TORN, "a crash while it was written"),
)

_ASKED = (E.STAGE, E.TRY, E.CANCEL, E.ROLLBACK, E.ACCEPT)  # by people: they are told why not
_WHY_NOT = {
    S.IDLE: "nothing is staged",
    S.STAGING: "an image is being written; wait until it is done",
    S.STAGED: "it was not tried yet",
    S.ARMING: "it is being armed",
    S.TRYING: "the next boot tries it; `bay0 upgrade cancel` forgets it",
    S.TRIED: "what became of the try is not known yet",
    S.JUDGING: "what became of the try is being looked at",
    S.PROVING: "it is being proved; accept or rollback ends that",
    S.REARMING: "it is being armed for the next boot",
    S.COMMITTING: "it is becoming the good one",
    S.GOOD: "it must come through one more boot first, or there would be no way back",
    S.CONDEMNED: "it was found bad, and the old one has not come up yet",
    S.NACKING: "it is being refused for good",
    S.NACKED: "nothing is staged; the last one was found bad",
    S.RETURNING: "the old one is being made the next one",
    S.TORN: "what was staged is not whole",
    S.WIPING: "the slot is being wiped",
}
_ROWED = {(row.source, row.event) for row in ROWS}
_LEFT = [(s, e) for s in S for e in E if (s, e) not in _ROWED]
REFUSED: dict[tuple[Enum, Enum], str] = {(s, e): _WHY_NOT[s] for s, e in _LEFT if e in _ASKED}
IGNORED: dict[tuple[Enum, Enum], str] = {(s, e): "it is not waited for" for s, e in _LEFT if e not in _ASKED}

UPGRADE = MachineDef("upgrade", S, E, S.IDLE, SPECS, ROWS, IGNORED, REFUSED, resident=True, single=NAME)
