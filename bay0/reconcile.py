"""Reconcile on boot: what was stored -> what to replay. Pure; the engine does it.

Every stored machine of an earlier boot is driven through CONVERGE, whatever it claims to be: the machine never believes half
states (handoff, "reconciliation on boot"). A machine of a kind this program does not know is left alone and named.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from attrs import frozen

from bay0.machines.table import MachineDef


@frozen(eq=False, repr=False)
class Replay:
    """One stored machine to take over and converge."""

    name: str
    definition: MachineDef
    stored: str
    seq: int


@frozen(eq=False, repr=False)
class Plan:
    """What a boot does about the stored machines."""

    replays: tuple[Replay, ...]
    unknown_kinds: tuple[str, ...]


def plan(stored: Iterable[Mapping[str, Any]], definitions: Mapping[str, MachineDef]) -> Plan:
    """Decide for each stored machine row; those at rest in a converged state owe nothing."""
    replays, unknown = [], []
    for row in stored:
        definition = definitions.get(row["kind"])
        if definition is None:
            unknown.append(str(row["name"]))
            continue
        converged = {spec.state.value for spec in definition.specs if spec.converged}
        if row["state"] not in converged:
            replays.append(Replay(row["name"], definition, row["state"], row["seq"]))
    return Plan(tuple(replays), tuple(unknown))
