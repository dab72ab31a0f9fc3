"""Tables and migrations of the state database. Version in `PRAGMA user_version`; migrations run before reconcile.

States and events are stored by name, so that a program which does not know one can still say which it was.
"""

from __future__ import annotations

from collections.abc import Callable

from peewee import CompositeKey, IntegerField, Model, SqliteDatabase, TextField

database = SqliteDatabase(None)
JOURNAL_KEEP_BOOTS = 50
JOURNAL_KEEP_TENANT_ROWS = 2000


class _Base(Model):
    class Meta:
        database = database


class MachineRow(_Base):
    """The latest known state of a machine."""

    name = TextField(primary_key=True)
    kind = TextField()
    state = TextField()
    seq = IntegerField()
    desired = TextField(default="stopped")
    attempts = IntegerField(default=0)
    boot_id = TextField()

    class Meta:
        table_name = "machine"


class JournalRow(_Base):
    """One committed step; append-only, numbered by PID 1 within a boot."""

    boot_id = TextField()
    n = IntegerField()
    machine = TextField(index=True)
    kind = TextField()
    seq = IntegerField()
    source = TextField()
    event = TextField()
    dest = TextField()
    why = TextField()
    at_ms = IntegerField()
    attempts = IntegerField(default=0)

    class Meta:
        table_name = "journal"
        primary_key = CompositeKey("boot_id", "n")


class BootRow(_Base):
    """One boot, in the order in which they were seen (`ordinal`), because clocks lie."""

    boot_id = TextField(primary_key=True)
    ordinal = IntegerField(index=True)
    version = TextField()
    kernel = TextField()
    started_wall = IntegerField()  # seconds since the epoch; for people only

    class Meta:
        table_name = "boot"


def _create(db: SqliteDatabase) -> None:
    db.create_tables([MachineRow, JournalRow, BootRow], safe=False)


MIGRATIONS: tuple[Callable[[SqliteDatabase], None], ...] = (_create,)
VERSION = len(MIGRATIONS)
