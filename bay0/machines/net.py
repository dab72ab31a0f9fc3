"""The network: `sys://net`, a namespace that holds a network card and one end of each persona's cable.

Theory of operation. bay0 owns the namespace and everything in it; no process is needed for packets to pass.
RAISING makes the namespace and its filter anew. LOOKING finds the card, by its device and never by its
name, moves it there and sees whether it has a link. ASKING waits for the DHCP client's first answer, which
bay0 judges; SETTING applies it for as long as it is lent. NEWS is anything that may have changed these
facts: they are looked at again, and what is still so stays. What fails is tried again after a pause
(WAITING), for good. `desired` says whether it is wanted, also by the next boot; nothing of a namespace
outlives a boot.
"""

from enum import Enum

from bay0.machines.table import MachineDef, Row, StateSpec, Tries, cells

NAME = "net"  # of the one machine


class S(Enum):
    """How the network is."""

    OFF = "off"
    RAISING = "raising"
    LOOKING = "looking"
    NO_CARD = "no_card"
    NO_LINK = "no_link"
    ASKING = "asking"
    SETTING = "setting"
    UP = "up"
    WAITING = "waiting"
    LOWERING = "lowering"
    FAILED = "failed"


class E(Enum):
    """What can happen to it."""

    RAISE = "raise"
    LOWER = "lower"
    CONFIGURE = "configure"
    NEWS = "news"
    GONE = "gone"
    NO_CARD = "no_card"
    NO_LINK = "no_link"
    LINKED = "linked"
    FIXED = "fixed"
    LEASED = "leased"
    LOST = "lost"
    WAITED = "waited"
    DONE = "done"
    FAULT = "fault"
    TIMED_OUT = "timed_out"
    CONVERGE = "converge"


class Effect(Enum):
    """What a busy state owes."""

    RAISE = "raise"
    LOOK = "look"
    ASK = "ask"
    SET = "set"
    WAIT = "wait"
    LOWER = "lower"


SPECS = (
    StateSpec(S.OFF, "nothing of a network is there", converged=True),
    StateSpec(S.RAISING, "its namespace and its filter are made", busy=Effect.RAISE, deadline_s=30),
    StateSpec(
        S.LOOKING, "the card is looked for, moved, and its link looked at", busy=Effect.LOOK, deadline_s=30
    ),
    StateSpec(S.NO_CARD, "there is no network card"),
    StateSpec(S.NO_LINK, "the card has no link: nothing is at the other end of its cable"),
    StateSpec(S.ASKING, "a DHCP server is asked for an address", busy=Effect.ASK, deadline_s=60),
    StateSpec(S.SETTING, "the address is applied", busy=Effect.SET, deadline_s=15),
    StateSpec(S.UP, "the card has an address: personas that may have a way out"),
    StateSpec(S.WAITING, "something failed: a pause before the next try", busy=Effect.WAIT, deadline_s=120),
    StateSpec(S.LOWERING, "all of it is taken away", busy=Effect.LOWER, deadline_s=15),
    StateSpec(S.FAILED, "it could not be made, or not be taken away", converged=True),
)

_REST = (S.NO_CARD, S.NO_LINK, S.UP)
_LIVE = (S.RAISING, S.LOOKING, *_REST, S.ASKING, S.SETTING, S.WAITING)
_STARTS = (S.OFF, S.FAILED)

ROWS = (
    *(
        Row(
            s, E.RAISE, S.RAISING, "asked to bring it up", promised=True, desired="running", tries=Tries.FIRST
        )
        for s in _STARTS
    ),
    *(
        Row(
            s,
            E.LOWER,
            S.LOWERING,
            "asked to take it down",
            promised=True,
            desired="stopped",
            tries=Tries.FORGET,
        )
        for s in (*_LIVE, S.FAILED)
    ),
    *(Row(s, E.CONFIGURE, s, "asked to change how it is configured", promised=True) for s in _STARTS),
    *(
        Row(s, E.CONFIGURE, S.LOOKING, "asked to change how it is configured", promised=True)
        for s in (*_REST, S.ASKING, S.WAITING)
    ),
    Row(S.RAISING, E.DONE, S.LOOKING, "the namespace is there, with its filter"),
    Row(S.RAISING, E.FAULT, S.FAILED, "it could not be made"),
    Row(S.RAISING, E.TIMED_OUT, S.FAILED, "it could not be made in time"),
    Row(S.LOOKING, E.NO_CARD, S.NO_CARD, "no device is a network card"),
    Row(S.LOOKING, E.NO_LINK, S.NO_LINK, "the card has no link"),
    Row(S.LOOKING, E.LINKED, S.ASKING, "the card has a link", tries=Tries.FORGET),
    Row(S.LOOKING, E.FIXED, S.SETTING, "the card has a link; its address is configured", tries=Tries.FORGET),
    Row(S.LOOKING, E.DONE, S.UP, "all is as it was"),
    Row(S.LOOKING, E.GONE, S.RAISING, "the namespace is not the one that was made: anew"),
    Row(S.LOOKING, E.FAULT, S.WAITING, "the card could not be used", tries=Tries.COUNT),
    Row(S.LOOKING, E.TIMED_OUT, S.WAITING, "the card gave no answer", tries=Tries.COUNT),
    *(Row(s, E.NEWS, S.LOOKING, "something has changed") for s in (*_REST, S.ASKING)),
    Row(S.ASKING, E.LEASED, S.SETTING, "a DHCP server has answered"),
    Row(S.ASKING, E.FAULT, S.WAITING, "nobody could be asked", tries=Tries.COUNT),
    Row(S.ASKING, E.TIMED_OUT, S.LOOKING, "no answer that could be used"),
    Row(S.SETTING, E.DONE, S.UP, "the address is applied"),
    Row(S.SETTING, E.FAULT, S.WAITING, "the address could not be applied", tries=Tries.COUNT),
    Row(S.SETTING, E.TIMED_OUT, S.WAITING, "the address could not be applied in time", tries=Tries.COUNT),
    Row(S.UP, E.LEASED, S.SETTING, "the DHCP server has renewed it"),
    Row(S.UP, E.LOST, S.ASKING, "the address is not ours any more"),
    *(Row(S.WAITING, e, S.LOOKING, "the pause is over: again") for e in (E.WAITED, E.FAULT, E.TIMED_OUT)),
    Row(S.LOWERING, E.DONE, S.OFF, "nothing of it is left"),
    Row(S.LOWERING, E.FAULT, S.FAILED, "it could not be taken away"),
    Row(S.LOWERING, E.TIMED_OUT, S.FAILED, "it could not be taken away in time"),
    *(
        Row(s, E.CONVERGE, S.LOWERING, f"it was found {s.value}: nothing is to be left")
        for s in (*_LIVE, S.LOWERING)
    ),
)

_ROWED = {(row.source, row.event) for row in ROWS}
_BUSY = "it is being changed; ask again in a moment"
REFUSED = {
    **cells((S.LOWERING,), (E.RAISE, E.CONFIGURE), _BUSY),
    **cells((S.RAISING, S.LOOKING, S.SETTING), (E.CONFIGURE,), _BUSY),
}
IGNORED: dict[tuple[Enum, Enum], str] = {
    **cells(_LIVE, (E.RAISE,), "it is up already, or on its way"),
    **cells((S.OFF, S.LOWERING), (E.LOWER,), "it is down already, or on its way"),
    **{
        (s, e): "it is not waited for"
        for s in S
        for e in E
        if (s, e) not in _ROWED and e not in (E.RAISE, E.LOWER, E.CONFIGURE)
    },
}

NET = MachineDef("net", S, E, S.OFF, SPECS, ROWS, IGNORED, REFUSED, resident=True, single=NAME)
