"""Tables and migrations of the state database. Version in `PRAGMA user_version`; migrations run before reconcile.

States and events are stored by name, so that a program which does not know one can still say which it was.
"""

from __future__ import annotations

from collections.abc import Callable

from peewee import CompositeKey, IntegerField, Model, SqliteDatabase, TextField

database = SqliteDatabase(None)
JOURNAL_KEEP_BOOTS = 50
JOURNAL_KEEP_ROWS = 2000  # of each kind of machine that can make many a day
JOURNAL_BOUNDED_KINDS = ("tenant", "persona", "snapshot")
REMOVED = ("persona", "absent")  # kind and state of a machine that has no row, but its history in the journal
NO_ROW = (REMOVED, ("snapshot", "absent"))  # each of that sort


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
    config = TextField(default="")  # JSON: what the machine is made of; empty for those that the program itself defines

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
    desired = TextField(default="stopped")

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


class NackRow(_Base):
    """A digest that must not be installed (nack.py). `at`: seconds since the epoch, by the clock of the boot that was told."""

    digest = TextField(primary_key=True)
    why = TextField()
    at = IntegerField()
    boot_id = TextField()

    class Meta:
        table_name = "nack"


# A migration is written in SQL and never changed: the models above are those of the newest version.
_VERSION_1 = (
    """CREATE TABLE machine (
        name TEXT NOT NULL PRIMARY KEY, kind TEXT NOT NULL, state TEXT NOT NULL, seq INTEGER NOT NULL, desired TEXT NOT NULL,
        attempts INTEGER NOT NULL, boot_id TEXT NOT NULL)""",
    """CREATE TABLE journal (
        boot_id TEXT NOT NULL, n INTEGER NOT NULL, machine TEXT NOT NULL, kind TEXT NOT NULL, seq INTEGER NOT NULL, source TEXT NOT NULL,
        event TEXT NOT NULL, dest TEXT NOT NULL, why TEXT NOT NULL, at_ms INTEGER NOT NULL, attempts INTEGER NOT NULL,
        PRIMARY KEY (boot_id, n))""",
    "CREATE INDEX journalrow_machine ON journal (machine)",
    """CREATE TABLE boot (
        boot_id TEXT NOT NULL PRIMARY KEY, ordinal INTEGER NOT NULL, version TEXT NOT NULL, kernel TEXT NOT NULL, started_wall INTEGER NOT NULL)""",
    "CREATE INDEX bootrow_ordinal ON boot (ordinal)",
)
_VERSION_2 = (  # personas: what is wanted of a machine in each step, and what it is made of
    "ALTER TABLE machine ADD COLUMN config TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE journal ADD COLUMN desired TEXT NOT NULL DEFAULT 'stopped'",
)
_VERSION_3 = (  # what must not be installed again
    "CREATE TABLE nack (digest TEXT NOT NULL PRIMARY KEY, why TEXT NOT NULL, at INTEGER NOT NULL, boot_id TEXT NOT NULL)",
)


def _run(statements: tuple[str, ...]) -> Callable[[SqliteDatabase], None]:
    def migration(db: SqliteDatabase) -> None:
        for statement in statements:
            db.execute_sql(statement)

    return migration


MIGRATIONS: tuple[Callable[[SqliteDatabase], None], ...] = (_run(_VERSION_1), _run(_VERSION_2), _run(_VERSION_3))
VERSION = len(MIGRATIONS)
