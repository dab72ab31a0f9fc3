"""What is read back of the database, a page at a time: machines, boots, journal. Runs in the state worker only."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from bay0.state.db import MACHINE_FIELDS, Row, require_open, text_of
from bay0.state.faults import translated
from bay0.state.schema import BootRow, JournalRow, database

PAGE_ROOM = 100_000  # bytes of JSON in one answer; a packet takes more
TEXT_MAX = 1000  # characters of a text in a row that alone is more than that: this program writes no such row


def page(rows: Iterable[Row], room: int = PAGE_ROOM) -> tuple[list[Row], bool]:
    """Return the first of `rows`, as many as `room` bytes of JSON hold and at least one, and whether there are more."""
    found: list[Row] = []
    for row in rows:
        size = len(json.dumps(row))
        room -= size
        if found and room < 0:
            return found, True
        found.append(row if size < PAGE_ROOM else _short(row))
    return found, False


def _short(row: Row) -> Row:
    """Cut the texts of a row that no packet takes; half a configuration would be another one, so it is left out."""
    kept = {key: value[:TEXT_MAX] if isinstance(value, str) else value for key, value in row.items()}
    return {**kept, "config": ""} if "config" in row else kept


def machines(after: str = "", room: int = PAGE_ROOM) -> tuple[list[Row], bool]:
    """Return a page of the stored machines behind the name `after`. A row whose values are not what they should be is of the kind "unreadable"."""
    require_open()
    with translated():
        fields = ", ".join(MACHINE_FIELDS)
        found = database.execute_sql(
            f"SELECT {fields} FROM machine WHERE name > ? AND typeof(name) = 'text' AND length(name) <= {TEXT_MAX} ORDER BY name",  # noqa: S608 - ours
            [after],
        )
        return page(map(_machine, found), room)


def _machine(values: Sequence[Any]) -> Row:
    row = dict(zip(MACHINE_FIELDS, values, strict=True))
    if all(isinstance(row[name], int if name in ("seq", "attempts") else str) for name in MACHINE_FIELDS):
        return row
    config = text_of(row["config"]) if isinstance(row["config"], bytes) else str(row["config"])
    return {"name": row["name"], "kind": "unreadable", "state": "", "seq": 0, "attempts": 0, "desired": "stopped", "boot_id": "", "config": config}


def boots(limit: int, before: int | None = None) -> list[Row]:
    """Return the last `limit` boots, newest first; `before`: only those with a lower ordinal."""
    require_open()
    with translated():
        query = BootRow.select()
        if before is not None:
            query = query.where(BootRow.ordinal < before)
        rows: Iterable[Any] = query.order_by(BootRow.ordinal.desc()).limit(limit).dicts()
        return list(rows)


def journal(
    *, machine: str | None = None, boot_id: str | None = None, kinds: Sequence[str] = (), limit: int = 200, before: Sequence[Any] | None = None
) -> list[Row]:
    """Return the last `limit` journal rows of a machine, a boot or some kinds, oldest first; `before`: only those before (boot_id, n)."""
    require_open()
    with translated():
        query = JournalRow.select()
        if machine is not None:
            query = query.where(JournalRow.machine == machine)
        if kinds:
            query = query.where(JournalRow.kind.in_(kinds))
        if boot_id is not None:
            query = query.where(JournalRow.boot_id == boot_id)
        if before is not None:
            ordinal = BootRow.select(BootRow.ordinal).where(BootRow.boot_id == before[0]).scalar() or 0
            query = query.where((BootRow.ordinal < ordinal) | ((BootRow.ordinal == ordinal) & (JournalRow.n < before[1])))
        rows: Iterable[Any] = query.join(BootRow, on=(BootRow.boot_id == JournalRow.boot_id)).order_by(
            BootRow.ordinal.desc(), JournalRow.n.desc()
        ).limit(limit).dicts()
        return list(rows)[::-1]
