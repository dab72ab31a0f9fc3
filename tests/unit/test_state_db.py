"""The database: asserted pragmas, migrations, idempotent and atomic commits, and every way in which a disk refuses."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sqlite3
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peewee
import pytest

from bay0.base.bounds import Bounds
from bay0.base.errors import StorageError
from bay0.machines import MACHINES
from bay0.state import db, faults, nack, pages, schema, worker


@pytest.fixture
def path(tmp_path: Path) -> Iterator[str]:
    yield str(tmp_path / "state.db")
    if not db.database.is_closed():
        db.database.close()


@pytest.fixture
def opened(path: str) -> str:
    """An open database with this boot in it."""
    db.open_database(path)
    db.migrate()
    db.record_boot(boot("b1"))
    return path


def boot(boot_id: str) -> dict[str, Any]:
    return {"boot_id": boot_id, "version": "0.1.0", "kernel": "6.18", "started_wall": 1}


def step(n: int, machine: str = "m", boot_id: str = "b1", **more: Any) -> dict[str, Any]:
    row = {
        "boot_id": boot_id, "n": n, "machine": machine, "kind": "tenant", "seq": n, "source": "stopped", "event": "start",
        "dest": "starting", "why": "asked", "at_ms": 10 * n, "attempts": 0, "desired": "stopped", "config": None,
    }  # fmt: skip
    return {**row, **more}


def bytes_of(path: str) -> dict[str, str]:
    """Every file of a database with its hash."""
    top = Path(path).parent
    return {name: hashlib.sha256((top / name).read_bytes()).hexdigest() for name in sorted(os.listdir(top))}


def crash(path: str, copy: str) -> None:
    """Copy a database as a power cut would leave it: with its write-ahead log, which nobody has closed."""
    for end in ("", "-wal"):
        if os.path.exists(path + end):
            shutil.copy(path + end, copy + end)


# ---- opening


def test_a_new_database_has_version_0_and_the_handoffs_pragmas(path: str) -> None:
    assert db.open_database(path) == 0
    pragmas = {name: db.database.pragma(name) for name in ("locking_mode", "journal_mode", "synchronous", "foreign_keys", "wal_autocheckpoint")}
    assert pragmas == {"locking_mode": "exclusive", "journal_mode": "wal", "synchronous": 1, "foreign_keys": 1, "wal_autocheckpoint": 0}


def test_there_is_no_shared_memory_file_and_nobody_else_gets_in(opened: str) -> None:
    db.commit([step(1)])
    assert sorted(os.listdir(os.path.dirname(opened))) == ["state.db", "state.db-wal"]
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        sqlite3.connect(opened, timeout=0).execute("SELECT * FROM machine")


def test_a_pragma_that_is_not_taken_is_an_error(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db, "PRAGMAS", tuple(p for p in db.PRAGMAS if p[0] != "journal_mode"))
    with pytest.raises(StorageError, match="pragmas were not taken") as error:
        db.open_database(path)
    assert error.value.code == "unwritable"


def test_opening_again_closes_what_was_open(opened: str) -> None:
    db.commit([step(1)])
    assert db.open_database(opened) == schema.VERSION
    assert [row["name"] for row in pages.machines()[0]] == ["m"]


def test_a_locked_database_says_so_at_once(opened: str) -> None:
    db.close()
    other = sqlite3.connect(opened)
    other.execute("PRAGMA locking_mode=exclusive")
    other.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    with pytest.raises(StorageError, match="locked by another process") as error:
        db.open_database(opened)
    assert error.value.code == "fault"
    assert time.monotonic() - began < Bounds().open, "to wait for the lock would miss the bound"
    other.close()


# ---- versions


def newer(path: str, *, in_wal: bool) -> None:
    """Make a database of the next version; `in_wal` leaves the version in the write-ahead log only, as a crash does."""
    made = path + ".made"
    other = sqlite3.connect(made)
    other.execute("PRAGMA journal_mode=wal")
    other.execute("CREATE TABLE future (x)")
    if not in_wal:
        other.execute(f"PRAGMA user_version={schema.VERSION + 1}")
    other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    other.execute(f"PRAGMA user_version={schema.VERSION + 1}")
    other.commit()
    crash(made, path)
    other.close()
    os.unlink(made)


@pytest.mark.parametrize("in_wal", [False, True])
def test_a_newer_database_is_refused_and_not_a_byte_of_it_changes(path: str, in_wal: bool) -> None:
    newer(path, in_wal=in_wal)
    before = bytes_of(path)
    with pytest.raises(StorageError, match=rf"version {schema.VERSION + 1}, this program knows {schema.VERSION}.*untouched") as error:
        db.open_database(path)
    assert error.value.code == "newer"
    assert bytes_of(path) == before
    assert db.database.is_closed()


def test_migrations_run_once_each_with_its_version(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    newest = schema.VERSION + 2
    monkeypatch.setattr(db, "VERSION", newest)
    monkeypatch.setattr(db, "MIGRATIONS", (*schema.MIGRATIONS, lambda _db: ran.append("last but one"), lambda _db: ran.append("last")))
    db.open_database(path)
    assert db.migrate() == newest
    assert ran == ["last but one", "last"]
    assert db.migrate() == 0
    assert db.database.pragma("user_version") == newest


def test_a_database_of_the_first_version_is_brought_up_to_date_with_all_that_is_in_it(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db, "VERSION", 1)
    db.open_database(path)
    assert db.migrate() == 1
    db.database.execute_sql("INSERT INTO machine VALUES ('m', 'tenant', 'running', 3, 'stopped', 1, 'b0')")
    db.database.execute_sql("INSERT INTO journal VALUES ('b0', 1, 'm', 'tenant', 3, 'starting', 'started', 'running', 'it runs', 5, 1)")
    monkeypatch.setattr(db, "VERSION", schema.VERSION)
    assert db.open_database(path) == 1
    assert db.migrate() == schema.VERSION - 1
    (row,), more = pages.machines()
    assert (row["state"], row["attempts"], row["config"], more) == ("running", 1, "", False)
    assert schema.JournalRow.get().desired == "stopped"
    db.record_boot(boot("b1"))
    assert db.commit([step(1, seq=4)]) == 1


def test_machines_are_read_a_page_at_a_time_and_none_is_missed(opened: str) -> None:
    db.commit([step(n, machine=f"m{n:03}", config="x" * 3000) for n in range(1, 101)])
    seen: list[str] = []
    count = 0
    more = True
    while more:
        page, more = pages.machines(seen[-1] if seen else "")
        assert len(json.dumps(page)) <= pages.PAGE_ROOM + 4000
        seen += [row["name"] for row in page]
        count += 1
    assert seen == [f"m{n:03}" for n in range(1, 101)]
    assert count > 2


def test_a_machine_larger_than_a_page_is_a_page_of_its_own(opened: str) -> None:
    db.commit([step(1, machine="a", config="x" * 500), step(2, machine="b", config="x" * 500)])
    assert [row["name"] for row in pages.machines(room=10)[0]] == ["a"]
    assert [row["name"] for row in pages.machines("a", room=10)[0]] == ["b"]


def test_a_migration_that_fails_leaves_the_version_before_it(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(database: peewee.SqliteDatabase) -> None:
        database.execute_sql("CREATE TABLE half (x)")
        database.execute_sql("CREATE TABLE half (x)")

    monkeypatch.setattr(db, "VERSION", schema.VERSION + 1)
    monkeypatch.setattr(db, "MIGRATIONS", (*schema.MIGRATIONS, broken))
    db.open_database(path)
    with pytest.raises(StorageError):
        db.migrate()
    assert db.database.pragma("user_version") == schema.VERSION
    assert not db.database.table_exists("half")


def test_a_crash_inside_a_migration_leaves_the_version_before_it(path: str, tmp_path: Path) -> None:
    def cut(name: str) -> None:
        if name == "in migration":
            raise KeyboardInterrupt

    db.open_database(path)
    with pytest.raises(KeyboardInterrupt):
        db.migrate(cut)
    crash(path, str(tmp_path / "copy.db"))
    assert db.open_database(str(tmp_path / "copy.db")) == 0
    assert db.migrate() == schema.VERSION


def test_the_version_is_that_of_the_last_migration() -> None:
    assert len(schema.MIGRATIONS) == schema.VERSION == db.VERSION


# ---- damage


@pytest.mark.parametrize("content", [b"x", b"not a database" * 100, b"SQLite format 3\0", b"\0" * 4096])
def test_a_file_that_is_no_database_is_damaged_and_left_as_it_is(path: str, content: bytes) -> None:
    Path(path).write_bytes(content)
    with pytest.raises(StorageError) as error:
        db.open_database(path)
    assert error.value.code == "damaged"
    assert Path(path).read_bytes() == content


def test_an_empty_file_is_a_new_database(path: str) -> None:
    Path(path).touch()
    assert db.open_database(path) == 0


def test_a_page_that_was_overwritten_is_found(opened: str) -> None:
    db.commit([step(n) for n in range(200)])
    db.close()
    data = bytearray(Path(opened).read_bytes())
    data[4096:8192] = os.urandom(4096)
    Path(opened).write_bytes(data)
    with pytest.raises(StorageError) as error:
        db.open_database(opened)
        db.check_integrity()
    assert error.value.code == "damaged"


def test_a_database_cut_short_is_found(opened: str) -> None:
    db.commit([step(n) for n in range(200)])
    db.close()
    with open(opened, "r+b") as file:
        file.truncate(8192)
    with pytest.raises(StorageError) as error:
        db.open_database(opened)
        db.check_integrity()
    assert error.value.code == "damaged"


def test_a_sound_database_passes(opened: str) -> None:
    db.check_integrity()


# ---- committing


def test_a_commit_is_a_journal_row_and_the_machines_new_state(opened: str) -> None:
    assert db.commit([step(1, dest="running", attempts=2)]) == 1
    kept = step(1, dest="running", attempts=2)
    del kept["config"]
    assert pages.journal(machine="m") == [kept]
    row = {"name": "m", "kind": "tenant", "state": "running", "seq": 1, "desired": "stopped", "attempts": 2, "boot_id": "b1", "config": ""}
    assert pages.machines()[0] == [row]


def test_what_a_machine_is_made_of_is_kept_by_the_steps_that_say_nothing_of_it(opened: str) -> None:
    db.commit([step(1, config='{"a": 1}'), step(2), step(3, desired="running")])
    (row,), _ = pages.machines()
    assert (row["config"], row["desired"], row["seq"]) == ('{"a": 1}', "running", 3)


def test_a_commit_may_be_sent_again(opened: str) -> None:
    assert db.commit([step(1), step(2)]) == 2
    assert db.commit([step(1), step(2), step(3)]) == 1
    assert [row["n"] for row in pages.journal()] == [1, 2, 3]


def test_steps_are_taken_in_the_order_of_their_numbers(opened: str) -> None:
    db.commit([step(3, dest="stopped"), step(1, dest="starting"), step(2, dest="running")])
    assert pages.machines()[0][0]["state"] == "stopped"


def test_a_step_that_comes_after_a_newer_one_is_journaled_and_does_not_turn_the_machine_back(opened: str) -> None:
    """A commit may fail and a later one succeed; the flush then brings the earlier one."""
    db.commit([step(7, dest="stopped")])
    db.commit([step(5, dest="running")])
    assert [row["n"] for row in pages.journal()] == [5, 7]
    assert (pages.machines()[0][0]["state"], pages.machines()[0][0]["seq"]) == ("stopped", 7)


def persona(n: int, **more: Any) -> dict[str, Any]:
    return step(n, "p://a", kind="persona", **more)


REMOVED = {"source": "stopped", "event": "remove", "dest": "absent"}


def test_a_removed_persona_has_its_history_and_no_row(opened: str) -> None:
    db.commit([persona(1, dest="stopped", config="{}"), persona(2, **REMOVED)])
    assert (pages.machines()[0], [row["event"] for row in pages.journal(machine="p://a")]) == ([], ["start", "remove"])


def test_one_that_is_made_anew_under_a_removed_name_has_a_row_of_its_own(opened: str) -> None:
    db.commit([persona(8, dest="stopped", seq=8, config="old"), persona(9, seq=9, **REMOVED)])
    db.commit([persona(10, dest="stopped", seq=1, config="new")])
    (row,), _ = pages.machines()
    assert (row["state"], row["seq"], row["config"]) == ("stopped", 1, "new")


@pytest.mark.parametrize("anew", [False, True])
def test_a_step_that_comes_after_the_removal_brings_nothing_back(opened: str, *, anew: bool) -> None:
    db.commit([persona(9, seq=9, **REMOVED), *([persona(10, dest="stopped", seq=1, config="new")] if anew else [])])
    db.commit([persona(8, dest="running", seq=8)])
    assert [(row["state"], row["config"]) for row in pages.machines()[0]] == ([("stopped", "new")] if anew else [])


@pytest.mark.parametrize("seam", ["between rows", "before begin"])
def test_a_removal_that_is_cut_leaves_the_persona_as_it_was(opened: str, tmp_path: Path, seam: str) -> None:
    db.commit([persona(1, dest="stopped", config="{}")])

    def cut(name: str) -> None:
        if name == seam:
            crash(opened, str(tmp_path / "after"))

    db.commit([persona(2, **REMOVED)], seam=cut)
    db.open_database(str(tmp_path / "after"))
    assert [row["config"] for row in pages.machines()[0]] == ["{}"]


def test_rows_of_personas_that_an_older_program_has_removed_are_deleted_by_the_next_boot(opened: str) -> None:
    db.commit([persona(1, dest="stopped"), step(2, "sys://ai", kind="server", dest="absent")])
    db.database.execute_sql("UPDATE machine SET state = 'absent'")
    db.record_boot(boot("b2"))
    assert [row["name"] for row in pages.machines()[0]] == ["sys://ai"]


def test_the_state_without_a_row_is_the_first_of_a_personas_table() -> None:
    kind, state = schema.REMOVED
    assert MACHINES[kind].initial.value == state


def test_a_new_boot_may_count_its_machines_from_the_start(opened: str) -> None:
    """When the database could not be read at boot, nobody knew how far it had counted."""
    db.commit([step(50, dest="running")])
    db.record_boot(boot("b2"))
    db.commit([step(1, boot_id="b2", dest="stopped")])
    assert (pages.machines()[0][0]["state"], pages.machines()[0][0]["boot_id"]) == ("stopped", "b2")


@pytest.mark.parametrize("seam", ["before begin", "between rows"])
def test_a_commit_that_is_cut_leaves_nothing(opened: str, tmp_path: Path, seam: str) -> None:
    def cut(name: str) -> None:
        if name == seam:
            crash(opened, str(tmp_path / "copy.db"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        db.commit([step(1), step(2)], seam=cut)
    assert pages.machines()[0] == []
    db.open_database(str(tmp_path / "copy.db"))
    assert pages.journal() == []


def test_a_commit_that_went_through_survives_a_crash(opened: str, tmp_path: Path) -> None:
    db.commit([step(1)], seam=lambda name: crash(opened, str(tmp_path / "copy.db")) if name == "after commit" else None)
    db.open_database(str(tmp_path / "copy.db"))
    assert [row["n"] for row in pages.journal()] == [1]


def test_a_commit_after_a_write_that_failed_does_not_stand_behind_a_hole(
    opened: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel shows a page whose write has failed as if it were written, until it is told to forget it."""
    db.commit([step(1)], full=True)
    on_disk = Path(f"{path}-wal").read_bytes()
    db.commit([step(2)])  # the disk refuses it, and the worker that is told so ends
    seen = str(tmp_path / "seen.db")
    crash(path, seen)
    hole = slice(len(on_disk), os.path.getsize(f"{seen}-wal"))

    def forget(fd: int, _offset: int, _length: int, advice: int) -> None:
        if os.readlink(f"/proc/self/fd/{fd}") == f"{seen}-wal":
            assert advice == os.POSIX_FADV_DONTNEED
            Path(f"{seen}-wal").write_bytes(on_disk)

    monkeypatch.setattr(os, "posix_fadvise", forget)
    db.open_database(seen)
    db.commit([step(3)], full=True)
    cut = str(tmp_path / "cut.db")
    crash(seen, cut)
    if pages.journal(machine="m")[-2]["n"] == 2:  # it still believes what was never written: there is a hole in the log
        log = bytearray(Path(f"{cut}-wal").read_bytes())
        log[hole] = bytes(len(log[hole]))
        Path(f"{cut}-wal").write_bytes(log)
    db.open_database(cut)
    assert [row["n"] for row in pages.journal(machine="m")] == [1, 3]


@pytest.mark.parametrize(("text", "code"), [("disk I/O error", "unsure"), ("database or disk is full", "full")])
def test_of_a_commit_that_failed_when_it_had_been_written_nobody_is_told_that_it_was_not_kept(
    opened: str, monkeypatch: pytest.MonkeyPatch, text: str, code: str
) -> None:
    commit = db.database.commit

    def failing() -> None:
        commit()
        raise peewee.OperationalError(text)

    monkeypatch.setattr(db.database, "commit", failing)
    with pytest.raises(StorageError) as error:
        db.commit([step(1)], full=True)
    assert error.value.code == code
    with pytest.raises(StorageError) as error:
        nack.put("sha256:" + 64 * "a", "", 1, "b1")
    assert error.value.code == code


def test_no_commit_syncs_the_log_without_saying_what_came_of_it(opened: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite moves a long log into the database by itself, and keeps an error of that to itself."""
    monkeypatch.setattr(db, "trim", lambda: None)
    before = Path(opened).read_bytes()
    for n in range(1, 400):
        db.commit([step(n, config=20_000 * "x")])
    assert os.path.getsize(f"{opened}-wal") > db.LOG_LONG
    assert Path(opened).read_bytes() == before


def test_a_long_log_is_moved_into_the_database_before_the_next_commit(opened: str) -> None:
    sizes = []
    for n in range(1, 400):
        db.commit([step(n, config=20_000 * "x")])
        sizes.append(os.path.getsize(f"{opened}-wal"))
    assert max(sizes) < db.LOG_LONG + 200_000
    assert sizes[-1] < max(sizes)


def test_if_a_long_log_cannot_be_moved_nothing_is_committed_and_that_is_said(opened: str, monkeypatch: pytest.MonkeyPatch) -> None:
    db.commit([step(1)])
    monkeypatch.setattr(db, "LOG_LONG", 0)
    execute_sql = db.database.execute_sql

    def failing(sql: str, params: Any = None) -> Any:
        if "checkpoint" in sql:
            raise peewee.OperationalError("disk I/O error")
        return execute_sql(sql, params)

    monkeypatch.setattr(db.database, "execute_sql", failing)
    with pytest.raises(StorageError, match="disk I/O error") as error:
        db.commit([step(2)], full=True)
    assert error.value.code == "fault", "it is certain that it was not kept"
    assert [row["n"] for row in pages.journal()] == [1]


def test_a_worker_that_cannot_look_at_its_log_commits_nothing_more(opened: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a step that was refused behind the one that failed could be kept all the same."""
    monkeypatch.setattr(worker, "_failed", [])

    def failing(_path: str) -> int:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os.path, "getsize", failing)
        assert worker.answer({"id": 1, "op": "commit", "steps": [step(1)], "full": True})["error"]["code"] == "unwritable"
    assert "an earlier commit failed" in worker.answer({"id": 2, "op": "commit", "steps": [step(2)], "full": True})["error"]["message"]
    assert pages.journal() == []


def test_a_promised_commit_is_synchronous_and_the_next_one_is_not(opened: str) -> None:
    levels: list[int] = []
    db.commit([step(1)], full=True, seam=lambda _name: levels.append(int(db.database.pragma("synchronous"))))
    assert set(levels) == {2}
    assert db.database.pragma("synchronous") == 1


def test_a_promised_commit_that_fails_leaves_the_level_as_it_was(opened: str) -> None:
    def cut(_name: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        db.commit([step(1)], full=True, seam=cut)
    assert db.database.pragma("synchronous") == 1


# ---- reading


def test_the_journal_is_read_by_machine_and_by_boot_newest_at_the_end(opened: str) -> None:
    db.record_boot(boot("b0-later"))
    db.commit([step(1), step(2, "other"), step(3), step(1, boot_id="b0-later", event="converge")])
    assert [(row["boot_id"], row["n"]) for row in pages.journal(machine="m")] == [("b1", 1), ("b1", 3), ("b0-later", 1)]
    assert [row["n"] for row in pages.journal(boot_id="b1")] == [1, 2, 3]
    assert [row["n"] for row in pages.journal(boot_id="b1", limit=2)] == [2, 3]


def test_boots_are_ordered_as_they_were_seen_because_clocks_lie(opened: str) -> None:
    db.record_boot({**boot("b2"), "started_wall": -5})
    db.record_boot({**boot("b2"), "started_wall": 9})
    assert [(row["boot_id"], row["ordinal"], row["started_wall"]) for row in pages.boots(10)] == [("b2", 2, -5), ("b1", 1, 1)]


def test_the_journal_keeps_fifty_boots_and_the_machines_that_live_longer(opened: str) -> None:
    db.commit([step(1, "sys://console", kind="tenant"), step(2, "boot:b1", kind="boot"), step(3, "storage:b1", kind="storage")])
    for number in range(2, 60):
        name = f"b{number}"
        db.record_boot(boot(name))
        db.commit([step(1, f"boot:{name}", name, kind="boot")])
    boots = [row["boot_id"] for row in pages.boots(1000)]
    assert len(boots) == schema.JOURNAL_KEEP_BOOTS == 50
    assert boots[0] == "b59"
    assert {row["boot_id"] for row in pages.journal(limit=10000)} <= set(boots)
    names = {row["name"] for row in pages.machines()[0]}
    assert "sys://console" in names
    assert "boot:b1" not in names
    assert "storage:b1" not in names
    assert "boot:b59" in names


# ---- refusals


def test_a_full_disk_is_full_and_nothing_is_changed(opened: str) -> None:
    db.commit([step(1)])
    most = int(db.database.pragma("page_count"))
    db.database.pragma("max_page_count", most)
    with pytest.raises(StorageError) as error:
        db.commit([step(n, why="x" * 2000) for n in range(2, 100)])
    assert error.value.code == "full"
    assert [row["n"] for row in pages.journal()] == [1]


def test_a_readonly_database_is_unwritable(opened: str) -> None:
    db.database.pragma("query_only", 1)
    with pytest.raises(StorageError) as error:
        db.commit([step(1)])
    assert error.value.code == "unwritable"


def test_a_directory_that_is_not_there_is_unwritable(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as error:
        db.open_database(str(tmp_path / "none" / "state.db"))
    assert error.value.code == "unwritable"


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.ENOSPC, "full"), (errno.EDQUOT, "full"), (errno.EROFS, "unwritable"), (errno.EIO, "unwritable"), (errno.EPERM, "fault")],
)
def test_errors_of_the_system_become_codes_the_storage_machine_knows(number: int, code: str) -> None:
    with pytest.raises(StorageError) as error, faults.translated():
        raise OSError(number, os.strerror(number))
    assert error.value.code == code


def test_a_row_that_contradicts_the_schema_is_damage(opened: str) -> None:
    with pytest.raises(StorageError) as error, faults.translated():
        db.database.execute_sql("INSERT INTO machine (name) VALUES ('x')")
    assert error.value.code == "damaged"


# ---- closing


def test_closing_leaves_one_file_with_everything_in_it(opened: str) -> None:
    db.commit([step(1)])
    assert db.close() is True
    assert os.listdir(os.path.dirname(opened)) == ["state.db"]
    assert sqlite3.connect(opened).execute("SELECT n FROM journal").fetchall() == [(1,)]


def test_closing_twice_is_harmless(opened: str) -> None:
    db.close()
    assert db.close() is True


def test_after_a_checkpoint_that_failed_sqlite_makes_none_of_its_own_as_it_closes(opened: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log may have lost something on the disk that memory still shows: to copy it would tear the database."""
    db.commit([step(n) for n in range(1, 50)])
    before, execute = bytes_of(opened), db.database.execute_sql

    def failing(sql: str, params: Any = None) -> Any:
        if "checkpoint" in sql:
            raise peewee.OperationalError("disk I/O error")
        return execute(sql, params)

    with monkeypatch.context() as patch:
        patch.setattr(db.database, "execute_sql", failing)
        with pytest.raises(StorageError):
            db.close()
    assert db.database.is_closed()
    assert bytes_of(opened) == before, "the log stays, and the database is as it was"
    db.open_database(opened)
    assert len(pages.journal(machine="m")) == 49


def test_after_a_sync_that_failed_nothing_is_copied_out_of_the_log(opened: str, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = db.database.commit

    def failing() -> None:
        commit()
        raise peewee.OperationalError("disk I/O error")

    db.commit([step(1)])
    with monkeypatch.context() as patch:
        patch.setattr(db.database, "commit", failing)
        with pytest.raises(StorageError):
            db.commit([step(2)], full=True)
    before = Path(opened).read_bytes()
    for act in (db.checkpoint, db.close):
        with pytest.raises(StorageError, match="the log is left as it is"):
            act()
    assert Path(opened).read_bytes() == before
    db.open_database(opened)
    assert db.close() is True, "the next worker reads the log from the disk, and may copy it"


def test_a_checkpoint_that_fails_still_lets_go_of_the_file(opened: str) -> None:
    """Or the filesystem could not be unmounted."""
    db.commit([step(1)])
    db.database.pragma("query_only", 1)
    try:
        db.close()
    except StorageError:
        assert db.database.is_closed()
    assert db.database.is_closed()


def _wal(tmp_path: Path, version: int, *, torn: bool) -> str:
    """Write a log of one frame that claims page 1 with `version`, as a crash may leave it (sqlite.org/walformat)."""
    path = str(tmp_path / "state.db")
    salts, size = b"saltsalt", 512
    head = struct.pack(">4I", 0x377F0682, 3007000, size, 0) + salts
    total = db._checksum(head, "<", (0, 0))
    page = bytearray(size)
    page[60:64] = struct.pack(">I", version)
    mark = struct.pack(">2I", 1, 1)
    good = db._checksum(mark + bytes(page), "<", total)
    frame = mark + salts + struct.pack(">2I", good[0] + (1 if torn else 0), good[1]) + bytes(page)
    Path(path + "-wal").write_bytes(head + struct.pack(">2I", *total) + frame)
    return path


@pytest.mark.parametrize("size", [0, 1, 100, 1 << 31, (1 << 32) - 1])
def test_a_log_whose_pages_have_no_size_that_there_is_says_no_version_and_is_not_read(tmp_path: Path, size: int) -> None:
    path = _wal(tmp_path, 999, torn=False)
    log = bytearray(Path(f"{path}-wal").read_bytes())
    log[8:12] = struct.pack(">I", size)
    Path(f"{path}-wal").write_bytes(log)
    assert db.log_version(path) == db.log_version(path, verify=True) == 0


def test_a_log_of_any_size_is_not_read_as_a_database_is_opened(path: str) -> None:
    with open(f"{path}-wal", "wb") as log:
        log.truncate(db.LOG_MAX + 1)
    with pytest.raises(StorageError, match="write-ahead log has 128 MiB") as error:
        db.open_database(path)
    assert error.value.code == "damaged"
    assert os.path.getsize(f"{path}-wal") == db.LOG_MAX + 1, "it is left as it is"


def test_of_too_many_old_rows_a_boot_forgets_some_and_the_next_ones_the_rest(opened: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db, "FORGOTTEN_AT_ONCE", 100)
    db.commit([step(n, kind="boot", boot_id="of no boot") for n in range(250)])
    left = []
    for number in range(3):
        db.record_boot(boot(f"boot-{number}"))
        left.append(db.database.execute_sql("SELECT count(*) FROM journal").fetchone()[0])
    assert left == [150, 50, 0]


def test_a_torn_frame_of_the_log_is_not_taken_for_a_newer_program(tmp_path: Path) -> None:
    assert db.log_version(_wal(tmp_path, 999, torn=True)) == 999, "the quick look cannot know"
    assert db.log_version(_wal(tmp_path, 999, torn=True), verify=True) == 0
    assert db.log_version(_wal(tmp_path, 999, torn=False), verify=True) == 999


def test_rows_of_tenants_are_bounded_and_those_of_boots_are_kept(opened: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db, "JOURNAL_KEEP_ROWS", 10)
    rows = [step(n, f"m{n % 2}", kind=("boot", "tenant")[n % 2]) for n in range(1, 61)]
    db.commit(rows)
    db.prune()
    kinds = [row["kind"] for row in pages.journal(limit=300)]
    assert (kinds.count("tenant"), kinds.count("boot")) == (10, 30)
