"""A disk that fails in every way we know, under the real SQLite.

What survives a power cut is modelled by bytes: SQLite appends to its write-ahead log and syncs it only at a FULL commit or a checkpoint. `synced` is
what was on the platter then; a cut keeps any prefix of what was written since, torn frames included (docs/ARCHITECTURE.md, facts, "Power cuts").
Which statements sync is read from `PRAGMA synchronous` itself, so that code which turns syncing off is believed.
What was written and could not be brought to the platter is shown all the same (pagecache.py). A checkpoint syncs twice, the log before it
copies and the database after it; either may fail. SQLite makes one more as it closes the last connection, and says nothing of what came of it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
from collections.abc import Callable
from typing import Any

import peewee
from attrs import define, field
from pagecache import Files, PageCache

from bay0.base.errors import StorageError
from bay0.state.schema import database

SUFFIXES = ("", "-wal", "-journal")
WRITES = ("INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "ALTER")
LOG = "-wal"
DEVICE = "/dev/vda"
FULL = 2  # PRAGMA synchronous


class Crash(BaseException):
    """The machine stops here. Not an Exception, so that no `except Exception` of the program can survive it."""


class WorkerDied(BaseException):
    """The worker process stops here."""


class PowerOff(BaseException):
    """reboot(2) was called: it does not return."""


@define(eq=False)
class Disk:
    """Conditions are plain attributes. `strike` is told of every seam and may raise `Crash` or `WorkerDied`."""

    folder: str
    strike: Callable[[str], None]
    present: bool = True
    wedged: bool = False
    full: bool = False
    readonly: bool = False
    damaged: bool = False
    fail_once: str | None = None
    fail_skips: int = 0  # writes that go well before that one
    sync_loses: str | None = None  # the next sync fails, and does not write these (pagecache.LOSES)
    sync_skips: int = 0  # syncs that go well before that one
    database_loses: str | None = None  # the next sync of the database file itself fails, and does not write these
    sync_failures: int = 0  # how many there were
    torn: str = ""  # what went wrong inside a request, whose worker answers for every exception
    latency_s: float = 0.001
    mounted: bool = False
    unplugged: bool = False  # pulled out while mounted: what is open on it is dead
    quiet: bool = False  # unwinding after a crash
    dying: BaseException | None = None  # what ended the process: nothing that it still tries on its way out happens
    pages: PageCache = field(factory=PageCache)

    @property
    def path(self) -> str:
        return os.path.join(self.folder, "state.db")

    # ---- bytes

    def read(self) -> Files:
        files = {}
        for suffix in SUFFIXES:
            try:
                with open(self.path + suffix, "rb") as file:
                    files[suffix] = file.read()
            except FileNotFoundError:
                continue
        return files

    def write(self, files: Files) -> None:
        for suffix in SUFFIXES:
            if suffix in files:
                with open(self.path + suffix, "wb") as file:
                    file.write(files[suffix])
            elif os.path.exists(self.path + suffix):
                os.unlink(self.path + suffix)

    def sync(self) -> None:
        """Everything written is on the platter now, but for what could not be."""
        self.pages.written(self.read())

    def power_cut(self, files: Files) -> None:
        """Memory is gone; these are left."""
        self.write(files)
        self.pages.power_cut(files)

    def after_cut(self, kept: float) -> Files:
        """Return the files after a power cut that let the fraction `kept` of the unsynced bytes through."""
        now, old = self.pages.below(self.read()), self.pages.platter
        if now.get("", b"") != old.get("", b""):
            return now  # it is being created, or checkpointed: SQLite syncs those itself
        new, before = now.get("-wal", b""), old.get("-wal", b"")
        same = _common(new, before)
        cut = same + int((len(new) - same) * kept)
        return {**now, "-wal": new[:cut] + before[cut:]}

    def lose_open_files(self, files: Files | None = None) -> None:
        """A process that held the database is gone; `files` is what it leaves (default: what it wrote)."""
        left = self.read() if files is None else files
        self.quiet = True
        try:
            if not database.is_closed():
                database.close()  # it would checkpoint: a process that died does not, so the bytes are put back
        finally:
            self.quiet, self.dying = False, None
        self.write(left)

    # ---- between peewee and SQLite

    def install(self, patch: Any) -> None:
        """Stand before and after every statement and commit."""
        execute_sql, commit, close = database.execute_sql, database.commit, database.close

        def watched_execute(sql: str, params: Any = None) -> Any:
            self._before(sql)
            if "checkpoint" in sql:
                self._flush()
                self._is_whole(self.read())
                self._copy()
            result = execute_sql(sql, params)
            if "checkpoint" in sql and not (self.quiet or self.wedged):
                self.pages.write_anew("")
            if (sql.startswith("PRAGMA") and "=" in sql) or "checkpoint" in sql:
                self._after(checkpointed="checkpoint" in sql)
            elif sql.startswith(WRITES) and not database.connection().in_transaction:
                self._after(checkpointed=_level() >= FULL)
            return result

        def watched_commit() -> Any:
            self._before("COMMIT")
            level = self._level()
            result = commit()
            if level >= FULL:
                self._flush()
            self._after(checkpointed=level >= FULL, level=level)
            self._seam("after COMMIT")
            return result

        def watched_close() -> Any:
            self._seam("before close")
            before = self.read()
            result = close()
            if before.get(LOG) and not self.read().get(LOG):
                self._moved_at_close(before)
            return result

        def _level() -> int:
            return int(execute_sql("PRAGMA synchronous").fetchone()[0])

        self._level = _level
        patch.setattr(database, "execute_sql", watched_execute)
        patch.setattr(database, "commit", watched_commit)
        patch.setattr(database, "close", watched_close)

    _level: Callable[[], int] = field(default=lambda: 2)

    def _seam(self, name: str) -> None:
        if not self.quiet:
            self.strike(name)

    def _before(self, sql: str) -> None:
        if self.dying is not None:
            raise self.dying
        if self.quiet:
            return
        self._seam(f"before {' '.join(sql.split()[:3])}")
        if self.unplugged or not self.present:
            raise peewee.OperationalError("disk I/O error")
        word = sql.split(maxsplit=1)[0].upper()
        if self.damaged and word in ("SELECT", *WRITES):
            raise peewee.DatabaseError("database disk image is malformed")
        if word in WRITES:
            once = self._fails_now()
            if self.full or once == "full":
                raise peewee.OperationalError("database or disk is full")
            if self.readonly or once == "readonly":
                raise peewee.OperationalError("attempt to write a readonly database")
            if once == "fault":
                raise peewee.OperationalError("disk I/O error")

    def _fails_now(self) -> str | None:
        if self.fail_once is None or self.fail_skips:
            self.fail_skips = max(0, self.fail_skips - 1)
            return None
        once, self.fail_once = self.fail_once, None
        return once

    def _after(self, *, checkpointed: bool, level: int | None = None) -> None:
        if self.quiet or self.wedged:  # what a wedged disk was told never reached it
            return
        files, old = self.read(), self.pages.platter
        if (self._level() if level is None else level) == 0:
            self.pages.platter = {**files, "-wal": old.get("-wal", b"")[: len(files.get("-wal", b""))]}
        elif checkpointed or self.pages.below(files).get("") != old.get(""):
            self.pages.written(files)

    # ---- syncs that fail

    def _flush(self) -> None:
        """Stand before a sync of the log: it may fail, or tell of a write that failed before."""
        if self.quiet or self.wedged:
            return
        if self._sync_fails():
            raise peewee.OperationalError("disk I/O error")

    def _sync_fails(self) -> bool:
        told, self.pages.untold = self.pages.untold, False
        if self.sync_loses is None or self.sync_skips:
            self.sync_skips = max(0, self.sync_skips - 1)
            return told
        loses, self.sync_loses = self.sync_loses, None
        self.pages.fail(self.read(), LOG, loses)
        self.sync_failures += 1
        return True

    def _copy(self) -> None:
        """Stand before a checkpoint whose log has been synced: the pages are copied, and then the sync of the database may fail."""
        if self.quiet or self.wedged or self.database_loses is None:
            return
        files = self.read()
        copied = self._checkpointed(files)
        with open(self.path, "r+b") as file:
            file.write(copied[""])
        self._database_sync_fails({**files, "": copied[""]})
        raise peewee.OperationalError("disk I/O error")

    def _is_whole(self, files: Files) -> None:
        """A log that lost something must not be copied: a crash in the middle would leave half a copy beside a log with a hole."""
        lost = [] if self.quiet or self.wedged else self.pages.lost(files, LOG)
        if lost:
            self.torn = f"the log is copied into the database, and its pages {lost} were never written"

    def _moved_at_close(self, before: Files) -> None:
        """SQLite has made a checkpoint of its own, of which nobody hears: had a sync of it failed, it would have left the log."""
        if self.quiet or self.wedged:
            return
        if self._sync_fails():
            self.write(before)
            return
        self._is_whole(before)
        if self.database_loses is not None:
            files = {**before, "": self.read()[""]}
            self.write(files)
            self._database_sync_fails(files)
        else:
            self.pages.write_anew("")
            self.pages.written(self.read())

    def _database_sync_fails(self, files: Files) -> None:
        loses, self.database_loses = self.database_loses, None
        self.pages.fail(files, "", loses or "nothing")
        self.sync_failures += 1

    def _checkpointed(self, files: Files) -> Files:
        """Return what these files become in a checkpoint."""
        copy = self.copy_to(self.folder + "-copy", files)
        with contextlib.closing(sqlite3.connect(copy)) as base:
            base.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        with open(copy, "rb") as file:
            data = file.read()
        shutil.rmtree(self.folder + "-copy")
        return {"": data}

    def writeback(self, loses: str) -> None:
        """The kernel writes the log by itself, as it does every few seconds, and fails: the next sync says so."""
        if not self.wedged and self.dying is None and self.pages.fail(self.read(), LOG, loses):
            self.pages.untold = True
            self.sync_failures += 1

    def fdatasync(self, fd: int) -> None:
        """Stand in for the call on one of the database's files."""
        name = self._name_of(fd)
        if self.dying is not None:
            raise self.dying
        self._seam("before fdatasync")
        if self.unplugged or not self.present or (not self.wedged and self._sync_fails()):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if not self.wedged:
            self.pages.write_one(self.read(), name)

    def posix_fadvise(self, fd: int, offset: int, length: int, advice: int) -> None:
        """Stand in for the call on one of the database's files."""
        assert (offset, length, advice) == (0, 0, os.POSIX_FADV_DONTNEED)
        self._let_go(self._name_of(fd))

    def _name_of(self, fd: int) -> str:
        path = os.readlink(f"/proc/self/fd/{fd}")
        assert path.startswith(self.path), f"{path} is not the database's"
        return path.removeprefix(self.path)

    def _let_go(self, name: str) -> None:
        shown = self.pages.let_go(self.read(), name)
        if shown is not None:
            with open(self.path + name, "wb") as file:
                file.write(shown)

    def plain_write(self) -> None:
        """Stand before a write that is not SQLite's."""
        self._seam("before write")
        if self.unplugged or not self.present:
            raise OSError(errno.EIO, "Input/output error")
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        if self.readonly:
            raise OSError(errno.EROFS, "Read-only file system")

    # ---- what bay0.state.device offers

    def find(self, _wanted: str | None) -> list[str]:
        self._seam("find")
        if not self.present:
            raise StorageError("no_device", "no disk")
        return [DEVICE]

    def mount_first(self, _devices: list[str]) -> str:
        self._seam("mount")
        if not self.present:
            raise StorageError("unmountable", "no disk could be mounted")
        if self.unplugged:
            self.lose_open_files()
            self.unplugged = False
            for suffix in SUFFIXES:  # of a filesystem that is mounted anew nothing is in memory
                self._let_go(suffix)
            self.pages.untold = False
        self.mounted = True
        return DEVICE

    def prefer(self, _device: str) -> dict[str, Any]:
        return {"scheduler": "none", "priority": "none", "level": 0}

    def room(self, _where: int | None = None) -> dict[str, int]:
        free = 0 if self.full else 1 << 30
        return {"bytes": 1 << 31, "bytes_free": free, "bytes_for_others": free, "files": 1000, "files_free": 500}

    def prepare(self) -> None:
        assert self.mounted, "the database is opened without a mounted disk"
        if self.readonly:
            raise OSError(errno.EROFS, "Read-only file system")

    def unmount(self) -> None:
        self._seam("unmount")
        self.mounted = False
        if self.present and not self.unplugged:
            self.sync()
        self._seam("unmounted")

    def copy_to(self, folder: str, files: Files) -> str:
        """Put a set of files elsewhere, to be looked at."""
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        target = os.path.join(folder, "state.db")
        for suffix, data in files.items():
            with open(target + suffix, "wb") as file:
                file.write(data)
        return target


@define(eq=False)
class Calls:
    """Stands in for `os` in `bay0.state.db`."""

    disk: Disk

    def __getattr__(self, name: str) -> Any:
        return getattr(self.disk if name in ("fdatasync", "posix_fadvise") else os, name)


def _common(one: bytes, other: bytes) -> int:
    """Return how many bytes at the beginning are the same."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle - 1
    return low
