"""What a machine is: enums of states and events, rows between them, checked when the module is imported.

Theory of operation. A table is a pure lookup: facts become events before they reach it, so there are no guards. A state is
*at rest* or *busy*. A busy state owns exactly one effect and one deadline, so the stored state alone says what a crash left
undone. Every (state, event) cell is a `Row`, or is named in `ignored` (harmless, say why) or `refused` (tell the asker why).
Every state leads to a converged one through the event named CONVERGE. (docs/ARCHITECTURE.md.)
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import TYPE_CHECKING

from attrs import field, frozen

from bay0.base.errors import TableError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

CONVERGE, FAULT, TIMED_OUT = "CONVERGE", "FAULT", "TIMED_OUT"


class Tries(Enum):
    """What a step does to the count of attempts. They are counted before the attempt, so that a crash loop is seen."""

    KEEP = "keep"
    COUNT = "count"
    FIRST = "first"  # a person asked: this is attempt 1
    FORGET = "forget"

    def after(self, attempts: int) -> int:
        """Return the count after a step."""
        return {Tries.KEEP: attempts, Tries.COUNT: attempts + 1, Tries.FIRST: 1, Tries.FORGET: 0}[self]


@frozen(repr=False)
class Row:
    """One legal step. `promised`: somebody will be told it is safe, so it is refused while the disk cannot keep it.

    `desired`: what is wanted of the machine from this step on; None leaves it as it was.
    """

    source: Enum
    event: Enum
    dest: Enum
    why: str
    promised: bool = False
    desired: str | None = None
    tries: Tries = Tries.KEEP


@frozen(eq=False, repr=False)
class StateSpec:
    """One state. `busy` names its effect and `deadline_s` bounds it (seconds, before patience); neither means at rest."""

    state: Enum
    about: str
    busy: Enum | None = None
    deadline_s: float | None = None
    converged: bool = False


@frozen(repr=False)
class Pass:
    """The verdict on a cell without a row: nothing happens. `refused` says whether the asker gets an error."""

    why: str
    refused: bool


def cells(states: Iterable[Enum], events: Iterable[Enum], why: str) -> dict[tuple[Enum, Enum], str]:
    """Name a block of cells at once, for `ignored` and `refused`."""
    kept = tuple(events)
    return {(state, event): why for state in states for event in kept}


@frozen(eq=False, repr=False)
class MachineDef:
    """A whole machine. Raises `TableError` at construction, that is at import, for any mistake listed in `problems`.

    `resident`: its instances stay in memory at rest and over a boot, because somebody may ask for them.
    `single`: the name of its one machine, which each boot makes; "" for a kind whose machines come and go.
    """

    kind: str
    states: type[Enum]
    events: type[Enum]
    initial: Enum
    specs: tuple[StateSpec, ...]
    rows: tuple[Row, ...]
    ignored: Mapping[tuple[Enum, Enum], str] = field(factory=dict)
    refused: Mapping[tuple[Enum, Enum], str] = field(factory=dict)
    resident: bool = False
    single: str = ""
    _by_cell: dict[tuple[Enum, Enum], Row] = field(init=False, repr=False, eq=False)
    _by_state: dict[Enum, StateSpec] = field(init=False, repr=False, eq=False)

    @_by_cell.default
    def _index_rows(self) -> dict[tuple[Enum, Enum], Row]:
        return {(row.source, row.event): row for row in self.rows}

    @_by_state.default
    def _index_specs(self) -> dict[Enum, StateSpec]:
        return {spec.state: spec for spec in self.specs}

    def __attrs_post_init__(self) -> None:
        """Refuse a table that is wrong in itself."""
        found = list(problems(self))
        if found:
            raise TableError(f"machine {self.kind}: " + "; ".join(found))

    def lookup(self, state: Enum, event: Enum) -> Row | Pass:
        """Return what `event` means in `state`; total, because the constructor saw to it."""
        row = self._by_cell.get((state, event))
        if row is not None:
            return row
        if (state, event) in self.refused:
            return Pass(self.refused[state, event], refused=True)
        return Pass(self.ignored[state, event], refused=False)

    def spec(self, state: Enum) -> StateSpec:
        """Return the spec of `state`."""
        return self._by_state[state]

    def event(self, name: str) -> Enum:
        """Return the event called `name` (its member name); `KeyError` if there is none."""
        return self.events[name]

    @property
    def landing(self) -> Enum:
        """The state that CONVERGE leads to: where a machine goes whose stored state means nothing to this program."""
        return next(row.dest for row in self.rows if row.event.name == CONVERGE)


def problems(machine: MachineDef) -> Iterable[str]:
    """Yield every mistake of a table, in words."""
    yield from _spec_problems(machine)
    yield from _row_problems(machine)
    yield from _cell_problems(machine)
    yield from _reach_problems(machine)


def _spec_problems(machine: MachineDef) -> Iterable[str]:
    for member in (*machine.states, *machine.events):
        if member.value != member.name.lower():
            yield f"{member} must be called {member.name.lower()!r}"
    declared = [spec.state for spec in machine.specs]
    for state in machine.states:
        if declared.count(state) != 1:
            yield f"state {state.name} is declared {declared.count(state)} times"
    for spec in machine.specs:
        if (spec.busy is None) != (spec.deadline_s is None):
            yield f"state {spec.state.name} needs both an effect and a deadline, or neither"
        if spec.busy is not None and spec.converged:
            yield f"state {spec.state.name} cannot be busy and converged"
    effects = [spec.busy for spec in machine.specs if spec.busy is not None]
    for effect in {e for e in effects if effects.count(e) > 1}:
        yield f"effect {effect.name} is owned by more than one state"
    if not any(spec.converged for spec in machine.specs):
        yield "no state is converged"


def _row_problems(machine: MachineDef) -> Iterable[str]:
    seen: set[tuple[Enum, Enum]] = set()
    for row in machine.rows:
        for state in (row.source, row.dest):
            if not isinstance(state, machine.states):
                yield f"row {row.why!r} names the foreign state {state}"
        if not isinstance(row.event, machine.events):
            yield f"row {row.why!r} names the foreign event {row.event}"
        if (row.source, row.event) in seen:
            yield f"two rows for ({row.source.name}, {row.event.name})"
        seen.add((row.source, row.event))
        if not row.why:
            yield f"({row.source.name}, {row.event.name}) does not say why"


def _cell_problems(machine: MachineDef) -> Iterable[str]:
    rowed = {(row.source, row.event) for row in machine.rows}
    for state in machine.states:
        for event in machine.events:
            cell = (state, event)
            said = (cell in rowed) + (cell in machine.ignored) + (cell in machine.refused)
            if said != 1:
                yield f"cell ({state.name}, {event.name}) is named {said} times"
    for spec in machine.specs:
        if spec.busy is not None:
            for needed in (FAULT, TIMED_OUT):
                if (spec.state, machine.events[needed]) not in rowed:
                    yield f"busy state {spec.state.name} has no {needed} row"


def _reach_problems(machine: MachineDef) -> Iterable[str]:
    onward: dict[Enum, set[Enum]] = {}
    for row in machine.rows:
        onward.setdefault(row.source, set()).add(row.dest)
    for state in set(machine.states) - _reach(machine.initial, onward):
        yield f"state {state.name} cannot be reached"
    converged = {spec.state for spec in machine.specs if spec.converged}
    landing = {row.source: row.dest for row in machine.rows if row.event.name == CONVERGE}
    for state in machine.states:
        if state in converged:
            continue
        if state not in landing:
            yield f"state {state.name} has no CONVERGE row"
        elif not _reach(landing[state], onward) & converged:
            yield f"CONVERGE from {state.name} never gets to a converged state"


def _reach(start: Enum, onward: Mapping[Enum, set[Enum]]) -> set[Enum]:
    seen, todo = {start}, deque([start])
    while todo:
        for dest in onward.get(todo.popleft(), ()):
            if dest not in seen:
                seen.add(dest)
                todo.append(dest)
    return seen
