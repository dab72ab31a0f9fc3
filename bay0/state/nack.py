"""The NACK registry: content digests that must not be installed again, because they failed. Runs in the state worker.

A request of its own, not a step of a machine, and why that bypasses nothing. The journal exists for what moves: a state, what it owes, what a
crash left undone. A NACK is a fact without a state: nothing is owed for it, no deadline runs, a crash cannot leave half of it. What the
journal's discipline protects is kept by other means: it is refused unless storage is durable (as a promised row is); one transaction,
synced before the answer; PID 1 keeps no copy that could run ahead of the disk, so every question is answered from the disk or not at
all; adding and removing twice is harmless, so an answer that got lost is asked again. The data flows one way, as for a step: verb, port,
worker, SQLite, answer. The upgrade machine will write the fact first and take its own step, `nacked`, after: a crash in between
finds the fact and converges to the same.

Nothing is ever deleted here but by `drop`, which only a person's `bay0 nack remove` reaches. Pruning knows other tables only.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bay0.base.digests import parse
from bay0.state import db, faults, pages
from bay0.state.schema import NackRow

PAGE = 60  # rows in one answer, fewer if their reasons are long


def put(digest: str, why: str, at: int, boot_id: str) -> bool:
    """Add a digest; tell whether it is new. One that is there keeps its first reason. On the platter when it returns."""
    parse(digest)
    db.require_open()
    db.trim()
    with faults.translated(), db.forced(), db.transaction():
        row = {"digest": digest, "why": why, "at": at, "boot_id": boot_id}
        return bool(NackRow.insert(**row).on_conflict_ignore().as_rowcount().execute())


def drop(digest: str) -> bool:
    """Remove a digest; tell whether it was there. On the platter when it returns."""
    parse(digest)
    db.require_open()
    db.trim()
    with faults.translated(), db.forced(), db.transaction():
        return bool(NackRow.delete().where(NackRow.digest == digest).execute())


def find(digest: str) -> dict[str, Any] | None:
    """Return the row of a digest, None if it is not NACKed."""
    parse(digest)
    db.require_open()
    with faults.translated():
        rows: Iterable[Any] = NackRow.select().where(NackRow.digest == digest).dicts()
        return next(iter(rows), None)


def page(after: str = "") -> list[dict[str, Any]]:
    """Return up to `PAGE` rows behind the digest `after`, as many as a packet takes; none mean that there are no more."""
    db.require_open()
    with faults.translated():
        rows: Iterable[Any] = NackRow.select().where(NackRow.digest > after).order_by(NackRow.digest).limit(PAGE).dicts()
        return pages.page(rows)[0]
