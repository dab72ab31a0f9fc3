"""The one way to files and directories below /persist, on a disk that somebody else may have prepared.

Whatever is where a file belongs (a FIFO, a directory, a link, a device, a socket), nothing waits for it,
follows it or writes through it. If the file can be made anew, the thing in its place is set aside beside it,
never deleted, and said with the worker's next answer (`news`). What may hold somebody's data is left as it
is, and named by a `MisplacedError`. Personas cannot reach these places, so nothing changes between the look
at a name and its use.

Small files are replaced whole, so that a crash leaves the old one or the new one: write beside it, fsync,
rename, fsync of the directory. Only when all four have worked is the new one promised. A failure in between
raises `OSError` and leaves it open which of the two a later boot finds; a `.new` that a crash left behind is
never read.
"""

from __future__ import annotations

import errno
import os
import stat

BESIDE = ".new"
LIMIT = 4096  # bytes that are read of such a file
ASIDE = ".set-aside"
ASIDE_MAX = 100  # of one name
FILE, DIRECTORY = "a file", "a directory"
OTHERS = 0o022  # who else may write
_KINDS = {
    stat.S_IFREG: FILE, stat.S_IFDIR: DIRECTORY, stat.S_IFIFO: "a FIFO", stat.S_IFLNK: "a symbolic link",
    stat.S_IFSOCK: "a socket", stat.S_IFBLK: "a block device", stat.S_IFCHR: "a character device",
}  # fmt: skip
news: list[dict[str, str]] = []  # {"path", "found", "now": where it is, "" if it was left}, for the log


class MisplacedError(OSError):
    """Something else is where a file or a directory belongs; its text names it and says what helps."""

    def __init__(self, path: str, found: str, belongs: str, help_: str = "move it away") -> None:
        super().__init__(f"{path} is {found}, where {belongs} belongs: {help_}")
        self.path, self.found = path, found


def look(path: str) -> os.stat_result | None:
    """Return what is at `path` itself, None if nothing is. `MisplacedError` if its parent is no directory."""
    folder = os.path.dirname(path)
    try:
        held = os.lstat(folder)
        if not stat.S_ISDIR(held.st_mode):
            raise MisplacedError(folder, _kind(held), DIRECTORY)
        return os.lstat(path)
    except FileNotFoundError:
        return None


def _kind(found: os.stat_result) -> str:
    return _KINDS[stat.S_IFMT(found.st_mode)]


def is_directory(path: str) -> bool:
    """Tell whether a directory is at `path`, and no link to one."""
    found = look(path)
    return found is not None and stat.S_ISDIR(found.st_mode)


def _wrong(path: str, *, written: bool) -> str:
    """Say what is in the way of a file, "" if nothing is. `written`: in place, so it has one name only."""
    found = look(path)
    if found is None:
        return ""
    if not stat.S_ISREG(found.st_mode):
        return _kind(found)
    return f"a file with {found.st_nlink} names" if written and found.st_nlink > 1 else ""


def check(path: str, help_: str = "move it away") -> None:
    """Raise `MisplacedError` if what is at `path` is no file; what is not there is no error."""
    wrong = _wrong(path, written=False)
    if wrong:
        raise MisplacedError(path, wrong, FILE, help_)


def open_file(path: str, flags: int = os.O_RDONLY, mode: int = 0o600) -> int:
    """Open a regular file as open(2) does, and nothing else: no link, no waiting. `MisplacedError`."""
    written = bool(flags & (os.O_WRONLY | os.O_RDWR))
    wrong = _wrong(path, written=written)
    if wrong:
        raise MisplacedError(path, wrong, FILE)
    fd = os.open(path, flags & ~os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, mode)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise MisplacedError(path, "no regular file", FILE)
        if flags & os.O_TRUNC:
            os.ftruncate(fd, 0)
    except BaseException:
        os.close(fd)
        raise
    return fd


def side_file(path: str, flags: int = os.O_RDONLY, mode: int = 0o600) -> int:
    """`open_file` of one that can be made anew: what is in its way is set aside.

    So there may be no file any more: `FileNotFoundError` without O_CREAT.
    """
    try:
        return open_file(path, flags, mode)
    except MisplacedError as error:
        if error.path != path:  # its directory is at fault
            raise
        _set_aside(path, error.found, FILE)
    except PermissionError:
        _set_aside(path, "a file that may not be opened", FILE)
    return open_file(path, flags, mode)


def clear(path: str, *, written: bool = True) -> None:
    """Set aside what is in the way of a file that conmon opens, or (not `written`) is renamed to here."""
    wrong = _wrong(path, written=written)
    if wrong:
        _set_aside(path, wrong, FILE)


def _set_aside(path: str, found: str, belongs: str) -> None:
    for number in range(1, ASIDE_MAX + 1):
        beside = f"{path}{ASIDE}" + (f".{number}" if number > 1 else "")
        if look(beside) is None:
            break
    else:
        raise MisplacedError(path, found, belongs, f"delete what was set aside before, {path}{ASIDE}*")
    try:
        os.rename(path, beside)
    except PermissionError as error:  # it is immutable, or its directory is (chattr(1))
        why = f"it could not be set aside ({error.strerror}); `lsattr` tells why"
        raise MisplacedError(path, found, belongs, why) from error
    news.append({"path": path, "found": found, "now": beside})


def leave(error: MisplacedError) -> None:
    """Say what is in the way, and that it was left there."""
    news.append({"path": error.path, "found": error.found, "now": ""})


def directory(path: str, mode: int, *, most: int | None = None, anew: bool) -> None:
    """Make sure that a directory of our own is at `path`, in which nobody else may write.

    It has the bits of `mode` at least: podman makes a directory that it misses with fewer, and a container whose
    root user is not ours could not pass. `most`: bits of an older mode that may stay. `anew`: what is in its way is set aside, else an error.
    """
    found = look(path)
    if found is not None and not stat.S_ISDIR(found.st_mode):
        if not anew:
            raise MisplacedError(path, _kind(found), DIRECTORY)
        _set_aside(path, _kind(found), DIRECTORY)
        found = None
    if found is None:
        os.makedirs(path, mode, exist_ok=True)
    fd = open_directory(path)
    try:
        now = os.fstat(fd)
        bits = stat.S_IMODE(now.st_mode)
        if bits & ~(mode if most is None else most) or mode & ~bits:
            os.fchmod(fd, mode)
        if now.st_uid != os.geteuid():
            os.fchown(fd, os.geteuid(), -1)
    finally:
        os.close(fd)


def kept_directory(path: str, mode: int) -> None:
    """Make sure that a directory is at `path`; its mode and owner are left as they are. `MisplacedError`."""
    found = look(path)
    if found is None:
        os.mkdir(path, mode)
    elif not stat.S_ISDIR(found.st_mode):
        raise MisplacedError(path, _kind(found), DIRECTORY)


def open_directory(path: str) -> int:
    """Open a directory and no link to one, and return the descriptor."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def sync_directory(path: str) -> None:
    """Bring a directory's names to the platter."""
    fd = open_directory(path)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def read(path: str) -> bytes | None:
    """Return the file's first `LIMIT` bytes, None if there is none."""
    try:
        fd = side_file(path)
    except FileNotFoundError:
        return None
    try:
        return os.read(fd, LIMIT)
    finally:
        os.close(fd)


def replace(path: str, data: bytes) -> None:
    """Put `data` in place of the file, durably when it returns."""
    clear(path, written=False)
    fd = side_file(path + BESIDE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        if os.write(fd, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        os.fsync(fd)
    finally:
        os.close(fd)
    rename(path + BESIDE, path, named=path)
    sync_directory(os.path.dirname(path))


def rename(source: str, path: str, *, named: str) -> None:
    """Rename a file, over what is at `path`. `MisplacedError` of `named` if one of them is immutable or append-only (chattr(1))."""
    try:
        os.replace(source, path)
    except PermissionError as error:
        why = f"{error.strerror}; `lsattr` tells why"
        raise MisplacedError(named, "a file that may not be replaced", "one of ours", why) from error
