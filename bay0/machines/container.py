"""What the tables of personas and of servers share: both are a container that podman starts, freezes, stops and clears.

Such a table is made of the blocks here and of rows of its own. A block is a function of the kind's own enums. A row that
differs in its reason, or in what it promises or counts, stands in the table itself. The same enums tell the common life
(containers/life.py) which states and events it is about; mypy refuses an enum that lacks one.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from attrs import frozen

from bay0.machines.table import Row, StateSpec, Tries, cells

if TYPE_CHECKING:
    # a class of enum members is such an object; they are read-only, hence properties

    class States(Protocol):
        """The states that each kind of container has. The one that runs is called differently in each: `Words.runs`."""

        @property
        def STOPPED(self) -> Enum: ...
        @property
        def STARTING(self) -> Enum: ...
        @property
        def PAUSING(self) -> Enum: ...
        @property
        def PAUSED(self) -> Enum: ...
        @property
        def RESUMING(self) -> Enum: ...
        @property
        def STOPPING(self) -> Enum: ...
        @property
        def CONVERGING(self) -> Enum: ...
        @property
        def STUCK(self) -> Enum: ...
        @property
        def WAITING(self) -> Enum: ...
        @property
        def FAILED(self) -> Enum: ...

    class Events(Protocol):
        """The events that each kind of container knows."""

        @property
        def START(self) -> Enum: ...
        @property
        def AUTOSTART(self) -> Enum: ...
        @property
        def STARTED(self) -> Enum: ...
        @property
        def CALM(self) -> Enum: ...
        @property
        def ENDED(self) -> Enum: ...
        @property
        def PAUSE(self) -> Enum: ...
        @property
        def PAUSED(self) -> Enum: ...
        @property
        def RESUME(self) -> Enum: ...
        @property
        def RESUMED(self) -> Enum: ...
        @property
        def FROZEN(self) -> Enum: ...
        @property
        def THAWED(self) -> Enum: ...
        @property
        def STOP(self) -> Enum: ...
        @property
        def GONE(self) -> Enum: ...
        @property
        def RETRY(self) -> Enum: ...
        @property
        def WAITED(self) -> Enum: ...
        @property
        def GAVE_UP(self) -> Enum: ...
        @property
        def FAULT(self) -> Enum: ...
        @property
        def TIMED_OUT(self) -> Enum: ...
        @property
        def CONVERGE(self) -> Enum: ...

    class Effects(Protocol):
        """The effects that the common life does for each kind."""

        @property
        def PAUSE(self) -> Enum: ...
        @property
        def RESUME(self) -> Enum: ...
        @property
        def STOP(self) -> Enum: ...
        @property
        def CLEAR(self) -> Enum: ...
        @property
        def WAIT_CLEAR(self) -> Enum: ...
        @property
        def WAIT(self) -> Enum: ...


@frozen(eq=False, repr=False)
class Words:
    """A kind's own enums, as the blocks and the common life use them.

    `runs`: the state of one that runs and is not to be frozen.
    """

    states: States
    events: Events
    effects: Effects
    runs: Enum


# ---- states


def freezing(words: Words, paused: str) -> tuple[StateSpec, ...]:
    """Return the states of a freeze and a thaw; `paused` says what it means to be frozen."""
    s, effects = words.states, words.effects
    return (
        StateSpec(s.PAUSING, "its freeze is owed, seen in cgroup.events", busy=effects.PAUSE, deadline_s=20),
        StateSpec(s.PAUSED, paused),
        StateSpec(s.RESUMING, "its thaw is owed, seen in cgroup.events", busy=effects.RESUME, deadline_s=20),
    )


def clearing(words: Words) -> tuple[StateSpec, ...]:
    """Return the states in which nothing is to be left of it, and those that follow."""
    s, effects = words.states, words.effects
    could_not = "podman could not clear it: its processes are killed, a pause before the next try"
    retried = "it ended and is wanted: a pause before the next try"
    return (
        StateSpec(s.CONVERGING, "whatever is left of it is removed", busy=effects.CLEAR, deadline_s=60),
        StateSpec(s.STUCK, could_not, busy=effects.WAIT_CLEAR, deadline_s=45),
        StateSpec(s.WAITING, retried, busy=effects.WAIT, deadline_s=120),
        StateSpec(s.FAILED, "no container is left and we gave up"),
    )


# ---- rows, in the order in which a table tells them


def starts(words: Words, with_the_spine: str) -> tuple[Row, ...]:
    """Return what leads to a start; `with_the_spine` is why one starts that nobody asked for.

    A start that somebody was told of is kept, or refused while the disk cannot keep it.
    """
    s, e = words.states, words.events

    def wanted(source: Enum, event: Enum, why: str, tries: Tries) -> Row:
        return Row(source, event, s.STARTING, why, promised=True, desired="running", tries=tries)

    return (
        wanted(s.STOPPED, e.START, "asked to start", Tries.FIRST),
        wanted(s.FAILED, e.START, "asked to try once more", Tries.FIRST),
        wanted(s.WAITING, e.START, "asked not to wait", Tries.FIRST),
        wanted(s.STOPPED, e.AUTOSTART, with_the_spine, Tries.COUNT),
        Row(s.WAITING, e.WAITED, s.STARTING, "the pause is over", promised=True, tries=Tries.COUNT),
    )


def freezes(words: Words) -> tuple[Row, ...]:
    """Return freeze and thaw, ours and those of others."""
    s, e, runs = words.states, words.events, words.runs
    return (
        Row(runs, e.PAUSE, s.PAUSING, "asked to pause", desired="paused"),
        Row(s.RESUMING, e.PAUSE, s.PAUSING, "asked to pause again", desired="paused"),
        Row(s.PAUSING, e.PAUSED, s.PAUSED, "the kernel says it is frozen"),
        Row(s.PAUSED, e.RESUME, s.RESUMING, "asked to resume", desired="running"),
        Row(s.PAUSING, e.RESUME, s.RESUMING, "asked to resume at once", desired="running"),
        Row(s.RESUMING, e.RESUMED, runs, "the kernel says it runs again"),
        Row(runs, e.FROZEN, s.RESUMING, "it was frozen, and not by us: thaw it"),
        Row(s.PAUSED, e.THAWED, s.PAUSING, "it was thawed, and not by us: freeze it"),
    )


def stopped(words: Words) -> tuple[Row, ...]:
    """Return what leads to its rest after somebody asked for it."""
    s, e, nothing = words.states, words.events, "asked to stop; nothing runs"
    return (
        Row(s.STOPPING, e.GONE, s.STOPPED, "it has ended, no container is left", tries=Tries.FORGET),
        Row(s.WAITING, e.STOP, s.STOPPED, nothing, desired="stopped", tries=Tries.FORGET),
    )


def not_wanted(words: Words) -> tuple[Row, ...]:
    """Return what a stop means where no container runs."""
    s, e, not_any_more = words.states, words.events, "asked to stop: it is not wanted any more"
    return (
        Row(s.FAILED, e.STOP, s.STOPPED, "asked to stop; nothing runs", desired="stopped"),
        Row(s.CONVERGING, e.STOP, s.CONVERGING, not_any_more, desired="stopped"),
        Row(s.STUCK, e.STOP, s.CONVERGING, "asked to stop: try again now", desired="stopped"),
    )


def doubts(words: Words, busy: Iterable[Enum]) -> tuple[Row, ...]:
    """Return what follows when the effect of one of `busy` fails or gives no answer: nobody knows what there is."""
    e, kept, dest = words.events, tuple(busy), words.states.CONVERGING
    return (
        *(Row(s, e.FAULT, dest, f"{s.value} failed: make it stopped") for s in kept),
        *(Row(s, e.TIMED_OUT, dest, "we do not know: make it stopped") for s in kept),
    )


def ends(words: Words, alive: Iterable[Enum]) -> tuple[Row, ...]:
    """Return what follows when the processes of one in `alive` have ended."""
    e, dest = words.events, words.states.CONVERGING
    return tuple(Row(s, e.ENDED, dest, "its processes have ended: clear what is left") for s in alive)


def stuck(words: Words) -> tuple[Row, ...]:
    """Return what follows when it cannot be started, or cleared, or waited for."""
    s, e, used_up = words.states, words.events, "not started: its attempts were used up in earlier boots"
    ends_of_a_pause = (e.WAITED, e.FAULT, e.TIMED_OUT)
    return (
        Row(s.STOPPED, e.GAVE_UP, s.FAILED, used_up, desired="stopped"),
        Row(s.CONVERGING, e.FAULT, s.STUCK, "podman could not clear it"),
        Row(s.CONVERGING, e.TIMED_OUT, s.STUCK, "podman gave no answer"),
        *(Row(s.STUCK, each, s.CONVERGING, "the pause is over: again") for each in ends_of_a_pause),
        Row(s.WAITING, e.FAULT, s.CONVERGING, "the pause could not be kept"),
        Row(s.WAITING, e.TIMED_OUT, s.CONVERGING, "it could not be started again in time"),
    )


def converges(words: Words, owing: Iterable[Enum]) -> tuple[Row, ...]:
    """Return what a boot does with one that it found: in one of `owing`, or at rest."""
    s, e = words.states, words.events

    def found(state: Enum, how: str) -> Row:
        return Row(state, e.CONVERGE, s.CONVERGING, f"it was found {state.value}{how}", desired="stopped")

    return (
        *(found(each, ": make it stopped") for each in (*owing, s.FAILED)),
        found(s.STOPPED, ", with a container: clear it"),
    )


# ---- cells without a row


def ignored(words: Words, states: Iterable[Enum], still: Iterable[Enum]) -> dict[tuple[Enum, Enum], str]:
    """Return what means nothing. `states`: all of the kind; `still`: those of one at rest that has no container."""
    s, e, runs, everywhere, rests = words.states, words.events, words.runs, tuple(states), tuple(still)

    def but(*these: Enum) -> list[Enum]:
        return [each for each in everywhere if each not in these]

    late = "a late answer"
    return {
        **cells((*rests, runs, s.PAUSED), (e.FAULT, e.TIMED_OUT), "no effect is under way"),
        **cells(but(s.STARTING), (e.STARTED,), late),
        **cells(but(s.PAUSING), (e.PAUSED,), late),
        **cells(but(s.RESUMING), (e.RESUMED,), late),
        **cells(but(s.PAUSED), (e.THAWED,), "it is not there to stand still"),
        **cells(but(s.STOPPING, s.CONVERGING), (e.GONE,), late),
        **cells(but(s.CONVERGING), (e.RETRY,), late),
        **cells(but(s.WAITING, s.STUCK), (e.WAITED,), late),
        **cells(but(s.STOPPED, s.CONVERGING), (e.GAVE_UP,), "it is not being tried"),
        **cells((*rests, s.STOPPING, s.CONVERGING, s.STUCK, s.WAITING), (e.ENDED,), "its end is known"),
        **cells(but(s.STOPPED), (e.AUTOSTART,), "it is not at rest"),
        **cells((s.STARTING, runs), (e.START,), "it is started already"),
        **cells((s.PAUSING, s.PAUSED), (e.PAUSE,), "it is paused already"),
        **cells((runs, s.RESUMING), (e.RESUME,), "it runs already"),
    }


def refused(words: Words) -> dict[tuple[Enum, Enum], str]:
    """Return what is refused, with the reason that the asker is told."""
    s, e = words.states, words.events
    return {
        **cells((s.STOPPING, s.CONVERGING, s.STUCK), (e.START,), "it is being stopped; ask again when it is"),
        **cells((s.STOPPED, s.FAILED), (e.PAUSE, e.RESUME), "start it first"),
    }
