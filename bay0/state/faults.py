"""What an error of SQLite or of the operating system means for storage: the codes of `StorageError`."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from peewee import DatabaseError, OperationalError

from bay0.base.errors import StorageError
from bay0.state import files


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn SQLite's errors into `StorageError` with a code the storage machine knows."""
    try:
        yield
    except DatabaseError as error:
        raise StorageError(*meaning(error)) from error
    except OSError as error:
        raise translate(error) from error


def _cause(error: BaseException) -> BaseException:
    """Return what went wrong first: SQLite rolls back by itself when the disk is full, and peewee then fails to roll back again."""
    while "cannot rollback" in str(error) and error.__context__ is not None:
        error = error.__context__
    return error


def meaning(error: BaseException) -> tuple[str, str]:
    """Return the code of an error of SQLite, and why."""
    error = _cause(error)
    text = str(error)
    if not isinstance(error, OperationalError) or "malformed" in text:
        return "damaged", f"state.db is damaged ({text})"
    if "locked" in text:
        return "fault", "the database is locked by another process"
    code = "full" if "full" in text else "unwritable" if "readonly" in text or "unable to open" in text else "fault"
    return code, text


def translate(error: OSError) -> StorageError:
    """Return what an operating system error means for storage."""
    if isinstance(error, files.MisplacedError):
        return StorageError("misplaced", str(error))
    codes = {errno.ENOSPC: "full", errno.EDQUOT: "full", errno.EROFS: "unwritable", errno.EIO: "unwritable"}
    return StorageError(codes.get(error.errno or 0, "fault"), str(error))
