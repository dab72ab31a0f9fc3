"""Reconcile: stored intent and what podman says -> what to do. Pure; the engine does it.

At boot every stored machine of an earlier boot is driven through CONVERGE, whatever it claims to be: the machine never believes half
states (handoff, "reconciliation on boot"). A machine of a kind this program does not know is left alone and named. A container under one of our
names is removed unless a running machine owns it; everybody else's containers are left alone and named.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from attrs import frozen

from bay0 import names
from bay0.errors import BadNameError
from bay0.machines import persona

if TYPE_CHECKING:
    from bay0.machines.table import MachineDef


CONTAINED = ("persona", "server")  # the kinds of machines that are containers


@frozen(eq=False, repr=False)
class Replay:
    """One stored machine to take over; `converge` says whether it owes anything."""

    definition: MachineDef
    stored: Mapping[str, Any]
    converge: bool

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
    """Decide for each stored machine row and each container. Those at rest in a converged state, with no container, owe nothing."""
    there = set(containers)
    replays, unknown, owned = [], [], set()
    for row in stored:
        definition = definitions.get(row["kind"])
        if definition is None:
            unknown.append(str(row["name"]))
            continue
        converged = row["state"] in {spec.state.value for spec in definition.specs if spec.converged}
        haunted = False
        if definition.kind in CONTAINED:
            container = _container(row)
            if container is None:
                unknown.append(str(row["name"]))
                continue
            if row["state"] != persona.S.ABSENT.value:
                owned.add(container)
                haunted = container in there
        if definition.resident or not converged:
            replays.append(Replay(definition, row, not converged or haunted))
    ours = {name for name in there if names.from_podman(name) is not None}
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


def after_end(end: End, *, desired: str, restart: str, retries: int, attempts: int) -> tuple[persona.E, str]:
    """Return what follows when nothing is left of a persona: stopped, tried again, or given up. `attempts` so far, the last one included."""
    if desired == "stopped":
        return persona.E.GONE, end.why
    if end.status == 0 and restart != "always":
        return persona.E.DONE, "status 0"
    why = end.why if end.status is None else f"it ended by itself with status {end.status}"
    if restart == "no":
        return persona.E.GAVE_UP, f"{why}; its manifest says restart = no"
    if attempts <= retries:
        return persona.E.RETRY, f"{why}; attempt {attempts} of {retries + 1}"
    return persona.E.GAVE_UP, f"{why}; {attempts} attempts of {retries + 1} were made"


def strays(machines: Mapping[str, str], containers: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Look at podman's containers while bay0 runs: (machines at rest that have one and must converge, containers of nobody to sweep).

    `machines`: name -> state. One that owes or has a container looks after it itself, as does whoever made a tenant's that is no machine.
    """
    haunted, orphans = [], []
    for container in containers:
        name = names.from_podman(container)
        if name is None:
            continue
        state = machines.get(name.semantic)
        if state in ("stopped", "failed"):
            haunted.append(name.semantic)
        elif name.kind == "persona" and state in (None, "absent"):
            orphans.append(container)
    return tuple(haunted), tuple(orphans)
