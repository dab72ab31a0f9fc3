"""SQLite on /persist: open with asserted pragmas, migrate, commit steps (pages.py reads them back). Runs in the state worker only.

WAL with `locking_mode=exclusive` set first: no -shm file, and one writer by construction. `synchronous=NORMAL` as the handoff says;
a promised commit is made durable by FULL for that one transaction (the pragma cannot change inside one, so it is set before BEGIN).
After a power loss NORMAL may lose the last commits, never consistency.
"""

from __future__ import annotations

import contextlib
import os
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from peewee import DatabaseError, fn

from bay0.base.errors import StorageError
from bay0.state import files
from bay0.state.faults import meaning, translated
from bay0.state.schema import (
    JOURNAL_BOUNDED_KINDS,
    JOURNAL_KEEP_BOOTS,
    JOURNAL_KEEP_ROWS,
    MIGRATIONS,
    NO_ROW,
    REMOVED,
    VERSION,
    BootRow,
    JournalRow,
    database,
)

Row = dict[str, Any]
Seam = Callable[[str], None]
PRAGMAS = (("journal_mode", "wal"), ("synchronous", "normal"), ("foreign_keys", "1"), ("wal_autocheckpoint", "0"))
EXPECTED = {"locking_mode": "exclusive", "journal_mode": "wal", "synchronous": 1, "foreign_keys": 1, "wal_autocheckpoint": 0}
LOG_LONG = 4 << 20  # bytes
LOG_MAX = 128 << 20  # bytes of a log that is read at all: a longer one is not ours, and would take longer than opening may
PAGES = {1 << power for power in range(9, 17)}  # bytes a page may have
FORGOTTEN_AT_ONCE = 20_000  # rows of one kind, in one transaction; the rest goes at the next boot
JOURNAL_FIELDS = tuple(JournalRow._meta.sorted_field_names)  # noqa: SLF001 - peewee's documented name for it
# Built once: a step is the one thing that is written all the time, and making its SQL anew took longer than SQLite does.
PUT_JOURNAL = f"INSERT OR IGNORE INTO journal ({', '.join(JOURNAL_FIELDS)}) VALUES ({', '.join('?' * len(JOURNAL_FIELDS))})"  # noqa: S608 - our schema's names
MACHINE_FIELDS = ("name", "kind", "state", "seq", "attempts", "desired", "boot_id", "config")
# A step may be written out after a later one of the same boot was: it must not turn the machine back. One without a config leaves it as it is.
PUT_MACHINE = f"""INSERT INTO machine ({', '.join(MACHINE_FIELDS)}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ifnull(?8, ''))
ON CONFLICT (name) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in MACHINE_FIELDS[2:-1])}, config = ifnull(?8, config)
WHERE boot_id != excluded.boot_id OR seq < excluded.seq"""  # noqa: S608 - our schema's names
# `+` keeps SQLite from the index on machine: behind `n` there is hardly ever anything to look at
WAS_REMOVED = """SELECT 1 FROM journal WHERE machine = ? AND kind = ? AND dest = ?
    AND NOT EXISTS (SELECT 1 FROM machine WHERE name = ?) LIMIT 1"""
LATER_STEP = "SELECT 1 FROM journal WHERE boot_id = ? AND n > ? AND +machine = ? LIMIT 1"
OLD = f"boot_id NOT IN (SELECT boot_id FROM boot ORDER BY ordinal DESC LIMIT {JOURNAL_KEEP_BOOTS})"  # noqa: S608 - our schema's names
PROGRESS_STEPS = 1000  # of SQLite's virtual machine, between two looks at the time
NOT_TAKEN = ("full", "unwritable")  # whatever it was that a commit could not write, its end was not
HEADER = 100  # bytes of a SQLite header
SUFFIXES = ("", "-wal", "-shm", "-journal")  # what SQLite opens
MOVE_AWAY = "move it away, then `bay0 storage retry`; if the database is elsewhere, put it here"
_unsynced: list[str] = []  # why a sync has failed since the database was opened
WAL_HEADER, WAL_FRAME = 32, 24  # bytes, the latter before each page


def no_seam(_name: str) -> None:
    """Stand at a seam and do nothing; the property tests cut here."""


def _refuse_newer(version: int) -> None:
    if version > VERSION:
        raise StorageError(
            "newer", f"state.db has version {version}, this program knows {VERSION}: it is left untouched; boot the newer image"
        )


def header_version(path: str) -> int:
    """Return `user_version` from the file's header (sqlite.org/fileformat, offset 60) without opening the database; 0 if new."""
    try:
        with open(files.open_file(path), "rb") as file:
            header = file.read(HEADER)
    except FileNotFoundError:
        return 0
    if not header:
        return 0
    if len(header) < HEADER or not header.startswith(b"SQLite format 3\0"):
        raise StorageError("damaged", "state.db is damaged (it is not a SQLite database)")
    return int.from_bytes(header[60:64], "big")


def _checksum(data: bytes, order: str, start: tuple[int, int]) -> tuple[int, int]:
    """Go on with a write-ahead log's running checksum (sqlite.org/walformat)."""
    first, second = start
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return first, second


def _refuse_long(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        size = os.path.getsize(f"{path}-wal")
        if size > LOG_MAX:
            raise StorageError("damaged", f"state.db is damaged (its write-ahead log has {size >> 20} MiB)")


def log_version(path: str, *, verify: bool = False) -> int:
    """Return the version that a write-ahead log left by a crash holds, which the header does not know yet; 0 if it says none.

    `verify` stops at the first frame whose checksum is wrong, as SQLite does: a torn last frame proves nothing. That takes
    time, so it is asked for only when the quick look has found a newer version.

    Read from the file (sqlite.org/walformat): a connection would need room for a -shm file, which a full disk has not, and
    the last one to close would copy the log into a database that must stay untouched.
    """
    version = seen = 0
    wal = path + "-wal"
    _refuse_long(path)
    with contextlib.suppress(FileNotFoundError), open(files.open_file(wal), "rb", buffering=0) as log:
        start = log.read(WAL_HEADER)
        order = ">" if start[3:4] == b"\x83" else "<"
        total = _checksum(start[:24], order, (0, 0)) if len(start) == WAL_HEADER else (0, 0)
        size = int.from_bytes(start[8:12], "big")
        while len(start) == WAL_HEADER and size in PAGES:  # SQLite ignores a log that says anything else
            frame = log.read(WAL_FRAME)
            if len(frame) < WAL_FRAME or frame[8:16] != start[16:24]:  # its salts are not the log's: left from an earlier round
                break
            page = log.read(size if verify else HEADER)
            if verify:
                if len(page) < size:
                    break
                total = _checksum(frame[:8] + page, order, total)
                if struct.pack(">2I", *total) != frame[16:24]:
                    break
            if frame[:4] == b"\0\0\0\1" and len(page) >= HEADER:  # page 1 begins with the header
                seen = int.from_bytes(page[60:64], "big")
            if frame[4:8] != b"\0\0\0\0":  # it ends a transaction
                version = seen
            log.seek(size - len(page), os.SEEK_CUR)
    return version


def _forget_cached(path: str) -> None:
    """Let what is read of a file come from the disk.

    Of a write that failed the kernel keeps the page, clean, as if it had been written, and the next sync says nothing (fsync(2), notes on
    errors). A log that looks whole in memory would have a hole on the disk, and what is acknowledged behind the hole be lost.
    """
    with contextlib.suppress(FileNotFoundError):
        fd = files.open_file(path)
        try:
            os.fdatasync(fd)  # what is still to be written is not dropped
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)


def text_of(data: bytes) -> str:
    """Read a text column; bytes that are no text are another's, and no reason to read nothing at all."""
    return data.decode(errors="replace")


def open_database(path: str) -> int:
    """Open `path` and return its version.

    `StorageError`: newer or misplaced (both left untouched), damaged, full, unwritable, fault.
    """
    with translated():
        if not database.is_closed():
            _let_go()
        for suffix in SUFFIXES:  # SQLite would wait for a FIFO
            files.check(path + suffix, MOVE_AWAY)
        for suffix in ("", "-wal"):
            _forget_cached(path + suffix)
        _refuse_newer(header_version(path))
        if log_version(path) > VERSION:
            _refuse_newer(log_version(path, verify=True))
        _unsynced.clear()
        database.init(path, pragmas=(), timeout=0)  # a lock is said at once; to wait for it would miss the bound
        database.connect()
        database.connection().text_factory = text_of
        database.execute_sql("PRAGMA locking_mode=exclusive").fetchall()  # before the first read, or SQLite makes a -shm file
        version = int(database.pragma("user_version"))
        for name, value in PRAGMAS:
            database.execute_sql(f"PRAGMA {name}={value}").fetchall()
        found = {name: database.pragma(name) for name in EXPECTED}
        if found != EXPECTED:
            raise StorageError("unwritable", f"pragmas were not taken: {found}")
        return version


def check_integrity() -> None:
    """Raise `StorageError("damaged")` unless SQLite's quick_check is satisfied."""
    with translated():
        verdict = database.execute_sql("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise StorageError("damaged", f"state.db is damaged ({verdict})")


def look_through(seconds: float) -> bool:
    """Check an open database as `check_integrity` does, from the disk, for at most `seconds`; tell whether that was enough."""
    end = time.monotonic() + seconds
    connection = database.connection()
    database.execute_sql("PRAGMA shrink_memory").fetchall()  # or its cache would answer for the disk
    connection.set_progress_handler(lambda: time.monotonic() > end, PROGRESS_STEPS)
    try:
        check_integrity()
    except StorageError:
        if time.monotonic() > end:  # interrupted
            return False
        raise
    finally:
        connection.set_progress_handler(None, 0)
    return True


def migrate(seam: Seam = no_seam) -> int:
    """Run the missing migrations, each in a transaction of its own with its version; return how many ran."""
    ran = 0
    with translated():
        for number in range(int(database.pragma("user_version")), VERSION):
            seam("before migration")
            with database.atomic("IMMEDIATE"):
                MIGRATIONS[number](database)
                database.execute_sql(f"PRAGMA user_version={number + 1}")
                seam("in migration")
            ran += 1
    return ran


def record_boot(boot: Row) -> None:
    """Add this boot, once, and forget what is older than the last `JOURNAL_KEEP_BOOTS`."""
    with translated(), database.atomic("IMMEDIATE"):
        last = BootRow.select(fn.MAX(BootRow.ordinal)).scalar() or 0
        BootRow.insert(ordinal=last + 1, **boot).on_conflict_ignore().execute()
        _forget("journal", OLD)
        _forget("machine", f"{OLD} AND kind IN ('boot', 'storage')")
        for kind, state in NO_ROW:
            _forget("machine", f"kind = '{kind}' AND state = '{state}'")  # an older program kept them for ever
        _forget("boot", OLD)
    prune()


def _forget(table: str, which: str, *values: Any) -> None:
    """Delete rows, no more than fit into a bound.

    How many there are is decided by whatever made the disk, or by a program that ends again and again.
    """
    database.execute_sql(
        f"DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} WHERE {which} LIMIT {FORGOTTEN_AT_ONCE})",  # noqa: S608 - our own words
        values,
    )


def prune() -> None:
    """Forget the oldest rows of tenants and personas: a program that dies at once makes thousands a day."""
    with translated(), database.atomic("IMMEDIATE"):
        for kind in JOURNAL_BOUNDED_KINDS:
            last = "(SELECT rowid FROM journal WHERE kind = ? ORDER BY rowid DESC LIMIT 1 OFFSET ?)"
            _forget("journal", f"kind = ? AND rowid <= {last}", kind, kind, JOURNAL_KEEP_ROWS)


@contextlib.contextmanager
def forced() -> Iterator[None]:
    """Let the transactions inside be on the platter when they have ended, for what somebody is told is safe."""
    database.execute_sql("PRAGMA synchronous=FULL")
    try:
        yield
    finally:
        with contextlib.suppress(DatabaseError):  # what became of the transaction is known; to sync too much is no harm
            database.execute_sql("PRAGMA synchronous=NORMAL")


@contextlib.contextmanager
def transaction() -> Iterator[None]:
    """All or nothing. `StorageError("unsure")`: it was written, then its sync failed, and which of the two a later worker finds is open."""
    written = False
    try:
        with database.atomic("IMMEDIATE"):
            yield
            written = True
    except DatabaseError as error:
        code, why = meaning(error)
        if written and code not in NOT_TAKEN:
            _unsynced.append(why)
            raise StorageError("unsure", why) from error
        raise


def commit(steps: Sequence[Row], *, full: bool = False, seam: Seam = no_seam) -> int:
    """Insert `steps` in order and set their machines, in one transaction; steps that are there already are skipped.

    Idempotent by (boot_id, n), so a commit whose answer was lost can simply be sent again. Returns how many were new.
    """
    new = 0
    trim()
    with translated(), forced() if full else contextlib.nullcontext():
        seam("before begin")
        with transaction():
            for step in sorted(steps, key=lambda row: (row["boot_id"], row["n"])):
                new += _put(step)
                seam("between rows")
        seam("after commit")
    return new


def _put(step: Row) -> int:
    cursor = database.execute_sql(PUT_JOURNAL, [step[name] for name in JOURNAL_FIELDS])
    if cursor.rowcount < 1:
        return 0
    if database.execute_sql(LATER_STEP, [step["boot_id"], step["n"], step["machine"]]).fetchone() is not None:
        return 1  # or what was removed since would be there again
    if (step["kind"], step["dest"]) in NO_ROW:
        database.execute_sql("DELETE FROM machine WHERE name = ?", [step["machine"]])
    else:
        database.execute_sql(PUT_MACHINE, [step["machine"], step["kind"], step["dest"], *(step[name] for name in MACHINE_FIELDS[3:])])
    return 1


def was_removed(name: str) -> bool:
    """Tell whether a persona of that name was removed, as the journal says, and none has it now."""
    require_open()
    with translated():
        return database.execute_sql(WAS_REMOVED, [name, *REMOVED, name]).fetchone() is not None


def require_open() -> None:
    """Raise `StorageError("no_device")` unless a database is open."""
    if database.is_closed():
        raise StorageError("no_device", "no database is open")


def trim() -> None:
    """Move a long log into the database.

    Before a commit, and not by SQLite in one: that would say nothing of a sync that failed, the only one to be told of what was not written
    (wal_autocheckpoint; sqlite3WalDefaultHook), and what is promised next would stand behind the hole.
    """
    with translated(), contextlib.suppress(FileNotFoundError):
        if os.path.getsize(f"{database.database}-wal") > LOG_LONG:
            checkpoint()


def checkpoint() -> bool:
    """Move the write-ahead log into the database, synced; tell whether the log is empty now.

    Not once a sync has failed: the log may lack on the disk what memory still shows, and no later sync says so. A database
    half copied from it, beside a log with a hole, is torn for good; the log alone has lost at most its end.
    """
    require_open()
    if _unsynced:
        raise StorageError("fault", f"a sync has failed, the log is left as it is: {_unsynced[0]}")
    with translated():
        try:
            busy, _, _ = database.execute_sql("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except DatabaseError as error:
            _unsynced.append(str(error))
            raise
        return not busy


def close() -> bool:
    """Checkpoint the write-ahead log into the database and close; tell whether the log is empty now."""
    with translated():
        if database.is_closed():
            return True
        try:
            return checkpoint()
        finally:
            _let_go()  # whatever happens, or the filesystem could not be unmounted


def _let_go() -> None:
    """Close without the checkpoint that SQLite makes as its last connection closes.

    Nobody hears what came of that one, and a sync may have failed (`checkpoint`). An interrupt ends it before its first page.
    NO_CKPT_ON_CLOSE would say the same; Python has it from 3.12 on.
    """
    database.connection().interrupt()
    database.close()
