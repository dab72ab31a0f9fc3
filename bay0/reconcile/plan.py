"""Reconcile: stored intent and what podman says -> what to do. Pure; the engine does it.

At boot every stored machine of an earlier boot is driven through CONVERGE, whatever it claims to be: the machine never believes half
states (handoff, "reconciliation on boot"). A machine of a kind this program does not know is left alone and named. A container under one of our
names is removed unless a running machine owns it; everybody else's containers are left alone and named.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any

from attrs import frozen

from bay0.base import names
from bay0.base.errors import BadNameError
from bay0.machines import persona, server

if TYPE_CHECKING:
    from bay0.machines.table import MachineDef


CONTAINED = ("persona", "server")  # the kinds of machines that are containers
# states of one that is to have no container
RESTS = (persona.S.STOPPED, persona.S.FAILED, server.S.STOPPED, server.S.FAILED)
# states of one that has nothing started of it: a container under its name is nobody's
CONTAINERLESS = frozenset(state.value for state in (persona.S.ABSENT, *persona.MADE, *persona.GOES_BACK))
ROWS_A_TURN = 100


@frozen(eq=False, repr=False)
class Replay:
    """One stored machine to take over; `converge` says whether it owes anything, `container` what podman calls it, if it is a container."""

    definition: MachineDef
    stored: Mapping[str, Any]
    converge: bool
    container: str = ""

    @property
    def name(self) -> str:
        """The machine's name."""
        return str(self.stored["name"])


@frozen(eq=False, repr=False)
class Plan:
    """What a boot does about the stored machines and podman's containers (names as podman has them)."""

    replays: tuple[Replay, ...]
    unknown: tuple[str, ...] = ()
    sweep: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()


def plan(stored: Iterable[Mapping[str, Any]], definitions: Mapping[str, MachineDef], containers: Iterable[str] = ()) -> Plan:
    """Make the plan at once; see `planning`."""
    making = planning(stored, definitions, containers)
    while True:
        try:
            next(making)
        except StopIteration as made:
            return made.value  # type: ignore[no-any-return]


def planning(
    stored: Iterable[Mapping[str, Any]], definitions: Mapping[str, MachineDef], containers: Iterable[str] = ()
) -> Generator[None, None, Plan]:
    """Decide for each stored machine row and each container. Those at rest in a converged state, with no container, owe nothing.

    Yields after every `ROWS_A_TURN` of them: a thousand are more than a turn.
    """
    there = set(containers)
    converged = {kind: {spec.state.value for spec in each.specs if spec.converged} for kind, each in definitions.items()}
    replays: list[Replay] = []
    unknown: list[str] = []
    owned: set[str] = set()
    for count, row in enumerate(stored, 1):
        definition = definitions.get(row["kind"])
        container = _container(row) if definition is not None and definition.kind in CONTAINED else ""
        if definition is None or container is None:
            unknown.append(str(row["name"]))
        else:
            owes = row["state"] not in converged[row["kind"]]
            if container and row["state"] not in CONTAINERLESS:
                owned.add(container)
                haunted = container in there
            else:
                haunted = False
            if definition.resident or owes:
                replays.append(Replay(definition, row, owes or haunted, container))
        if count % ROWS_A_TURN == 0:
            yield
    ours: set[str] = set()
    for count, name in enumerate(there, 1):
        if names.from_podman(name) is not None:
            ours.add(name)
        if count % ROWS_A_TURN == 0:
            yield
    return Plan(tuple(replays), tuple(unknown), tuple(sorted(ours - owned)), tuple(sorted(there - ours)))


def _container(row: Mapping[str, Any]) -> str | None:
    try:
        return names.parse(str(row["name"])).podman
    except BadNameError:
        return None  # no such name can have a container


@frozen
class End:
    """Why a container is no more: `status` is its exit status if it ended `by_itself` and podman knows it, else None."""

    why: str
    by_itself: bool = False
    status: int | None = None


class Then(Enum):
    """What follows when nothing is left of a container; each kind of machine has events of its own for it."""

    STOPPED = "stopped"
    WELL = "well"  # it ended by itself with status 0, and that is the end of it
    AGAIN = "again"
    GIVEN_UP = "given_up"


def after_end(end: End, *, desired: str, restart: str, retries: int, attempts: int) -> tuple[Then, str]:
    """Return what follows an end, and why. `attempts`: those made so far, the last one included."""
    if desired == "stopped":
        return Then.STOPPED, end.why
    if end.status == 0 and restart != "always":
        return Then.WELL, "status 0"
    why = end.why if end.status is None else f"it ended by itself with status {end.status}"
    if restart == "no":
        return Then.GIVEN_UP, f"{why}; its manifest says restart = no"
    if attempts <= retries:
        return Then.AGAIN, f"{why}; attempt {attempts} of {retries + 1}"
    return Then.GIVEN_UP, f"{why}; {attempts} attempts of {retries + 1} were made"


def strays(machines: Mapping[str, Enum], containers: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Look at podman's containers while bay0 runs: (machines at rest that have one and must converge, containers of nobody to sweep).

    `machines`: name -> state. One that owes or has a container looks after it itself, as does whoever made a tenant's that is no machine.
    """
    haunted, orphans = [], []
    for container in containers:
        name = names.from_podman(container)
        if name is None:
            continue
        state = machines.get(name.semantic)
        if state in RESTS:
            haunted.append(name.semantic)
        elif name.kind == "persona" and state in (None, persona.S.ABSENT):
            orphans.append(container)
    return tuple(haunted), tuple(orphans)
