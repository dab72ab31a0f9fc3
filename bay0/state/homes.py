"""Personas' directories on /persist: homes, logs, podman's storage. Runs in the state worker.

A home is the user's data: it is made once and emptied only by asking for just that. It belongs to root, because podman maps its owners
into the container's own range (an idmapped mount): what root of a persona writes is uid 0 on the disk, whatever its range is.
What is taken away is renamed into the trash, which is one step, and deleted there a piece at a time, so that no request takes long.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Callable, Generator

from bay0.base import names
from bay0.state import files
from bay0.state.paths import CONTAINERS, HOMES, LOGS, TRASH

PODMAN_DIRECTORIES = ("storage", "libpod", "volumes", "tmp")
NEW, OWN = 0o1700, 0o700  # of a home; the sticky bit says that no user has it yet
SWEEP_S = 0.3  # of one request
UNDELETED_MAX = 5  # that are named
DEPTH = 8  # directories inside each other that are emptied where they are; eight names of 255 bytes fit into a path
PIECE = 32 << 20  # bytes of a file that are freed at once


def prepare_containers() -> dict[str, bool]:
    """Make podman's directories; tell whether it has ever put anything there, so that there may be containers."""
    for path in (CONTAINERS, *(f"{CONTAINERS}/{name}" for name in PODMAN_DIRECTORIES)):
        files.directory(path, 0o711, most=0o755, anew=True)
    files.directory(LOGS, 0o700, anew=True)
    return {"used": _holds_anything(f"{CONTAINERS}/storage")}


def _holds_anything(path: str) -> bool:
    """Tell whether something is in a directory, without reading the names of all."""
    with os.scandir(path) as entries:
        return next(entries, None) is not None


def set_containers_aside() -> bool:
    """Take podman's whole storage away, because it is damaged beyond its own repair, and make an empty one. Homes are elsewhere."""
    take_away(CONTAINERS)
    prepare_containers()
    return True


def prepare(name: str, *, home: bool) -> bool:
    """Make what the persona with the podman name `name` needs before it starts; podman's directories too, if the boot could not.

    Tell whether its home is new: whose it is to be is known only when its container is there (`give`).
    """
    prepare_containers()
    for suffix in ("", ".tmp"):  # conmon opens both, follows links and waits for a FIFO
        files.clear(f"{LOGS}/{name}.log{suffix}")
    if not home:
        return False
    files.directory(HOMES, 0o711, most=0o755, anew=False)
    files.kept_directory(f"{HOMES}/{name}", NEW)  # a link to somebody else's is not given
    return _is_new(os.lstat(f"{HOMES}/{name}"))


def _is_new(home: os.stat_result) -> bool:
    return stat.S_ISDIR(home.st_mode) and bool(home.st_mode & stat.S_ISVTX)


def give(name: str, uid: int, gid: int) -> bool:
    """Make a new home that of its user, as inside; tell whether it was new. By descriptor, never through a link."""
    fd = files.open_directory(f"{HOMES}/{name}")
    try:
        if not _is_new(os.fstat(fd)):
            return False
        os.fchown(fd, uid, gid)
        os.fchmod(fd, OWN)  # last: until then it is new, and what a crash cut short is done again
        os.fsync(fd)
    finally:
        os.close(fd)
    return True


def remove_log(name: str) -> bool:
    """Delete the log of a persona that is removed; tell whether there was one."""
    found = files.look(f"{LOGS}/{name}.log")
    if found is None or stat.S_ISDIR(found.st_mode):
        return False
    os.unlink(f"{LOGS}/{name}.log")
    return True


def empty(name: str) -> bool:
    """Take a home's contents away; tell whether there was one."""
    path = f"{HOMES}/{name}"
    if files.look(path) is None:
        return False
    take_away(path)
    return True


def take_away(path: str) -> None:
    """Rename what is at `path` into the trash, durably; nothing there is no error."""
    stop_sweeping()  # a sweep under way may have passed the place where this one will lie; the next begins anew
    files.directory(TRASH, 0o700, anew=True)
    if files.look(path) is not None:
        os.rename(path, f"{TRASH}/{os.path.basename(path)}.{time.time_ns()}")
        for folder in (os.path.dirname(path), TRASH):  # what was told to be gone must not come back
            files.sync_directory(folder)


def _is_there(path: str) -> bool:
    """Tell whether there is a directory to sweep: through a link somebody's homes would be emptied."""
    try:
        return files.is_directory(path)
    except files.MisplacedError:
        return False


def sweep(seconds: float = SWEEP_S, was_removed: Callable[[str], bool] | None = None) -> bool:
    """Delete some of the trash, for about `seconds`; tell whether there is more. The next call goes on where this one stopped.

    `was_removed` tells whether a persona of that name was removed: a log that a crash left of it is deleted.

    What is in it is a persona's doing: a million entries, or a million directories inside each other. So the clock is looked
    at before every call of the kernel, nothing is listed as a whole, and what was deleted stays so if the worker is killed here.
    """
    end = time.monotonic() + seconds
    if not _deleting:
        _deleting.append(_swept(was_removed))
    try:
        for _ in _deleting[0]:
            if time.monotonic() > end:
                return True
    except Exception:
        _deleting.clear()
        raise
    _deleting.clear()
    return False


def stop_sweeping() -> None:
    """Close the directories that an unfinished sweep holds open: the filesystem is to be unmounted."""
    while _deleting:
        _deleting.pop().close()


Steps = Generator[None, None, int]  # a step is one call of the kernel; it returns how many entries are gone
_deleting: list[Steps] = []  # the sweep under way
_undeleted: dict[str, str] = {}  # path -> why; of the last time that the trash was gone through


def undeleted() -> list[str]:
    """Return what the last sweep could not delete and why, the first few."""
    return [f"{path}: {why}" for path, why in _undeleted.items()]


def _not_deleted(path: str, error: OSError) -> None:
    """Remember it for whoever asks; a directory that is not empty is so because of what is named already."""
    if error.errno != errno.ENOTEMPTY and len(_undeleted) < UNDELETED_MAX:
        _undeleted.setdefault(path, error.strerror or str(error))


def _swept(was_removed: Callable[[str], bool] | None) -> Steps:
    _undeleted.clear()
    yield from _emptied_trash()
    if was_removed is not None:
        yield from _logs_left(was_removed)
    return 0


def _logs_left(was_removed: Callable[[str], bool]) -> Steps:
    """Delete the logs of personas that were removed."""
    if not _is_there(LOGS):
        return 0
    with os.scandir(LOGS) as entries:
        for entry in entries:
            yield
            own, _, ending = entry.name.partition(".")
            name = names.from_podman(own) if ending in ("log", "log.tmp") else None
            if name is not None and was_removed(name.semantic):
                try:
                    os.unlink(entry.path)
                except OSError as error:
                    _not_deleted(entry.path, error)
    return 0


def _emptied_trash() -> Steps:
    """Delete all of the trash, then its directory. What cannot be deleted is left for a later sweep."""
    if not _is_there(TRASH):
        return 0
    gone = 1
    while gone:  # what was too deep lies in the trash itself now
        _undeleted.clear()
        gone = yield from _emptied(TRASH, DEPTH)
    yield
    try:
        os.rmdir(TRASH)
    except OSError as error:
        _not_deleted(TRASH, error)
    return 0


def _emptied(folder: str, depth: int) -> Steps:
    """Delete what is in `folder`.

    What lies deeper than `depth` is moved to the top of the trash: the length of a path is limited, and so are descriptors.
    """
    gone = 0
    with os.scandir(folder) as entries:
        while True:
            yield
            entry = None
            try:  # one that is in the way must not keep the others
                entry = next(entries, None)
                if entry is None:
                    return gone
                gone += yield from _deleted(entry, depth)
            except OSError as error:
                _not_deleted(folder if entry is None else entry.path, error)


def _deleted(entry: os.DirEntry[str], depth: int) -> Steps:
    if not entry.is_dir(follow_symlinks=False):
        while _shortened(entry):
            yield
        os.unlink(entry.path)
        return 1
    with contextlib.suppress(OSError):  # it is not empty
        os.rmdir(entry.path)
        return 1
    if depth == 0:
        os.rename(entry.path, f"{TRASH}/{time.time_ns()}")
        return 1
    gone = yield from _emptied(entry.path, depth - 1)
    yield
    try:
        os.rmdir(entry.path)
        gone += 1
    except OSError as error:  # something in it could not be deleted, and what else was counts
        _not_deleted(entry.path, error)
    return gone


def _shortened(entry: os.DirEntry[str]) -> bool:
    """Take a piece off the end of a file if it is large; tell whether that was done.

    To free millions of blocks in one call takes too long.
    """
    found = os.lstat(entry.path)  # an entry would remember what it was at first
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1 or not found.st_size or found.st_blocks * 512 <= PIECE:
        return False
    fd = os.open(entry.path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.ftruncate(fd, max(0, _data_end(fd, found.st_size) - PIECE))
    finally:
        os.close(fd)
    return True


def _data_end(fd: int, size: int) -> int:
    """Return the end of the last piece of data in a file that may be full of holes, to within `PIECE`."""
    low, high = 0, size
    while high - low > PIECE:
        middle = (low + high) // 2
        try:
            os.lseek(fd, middle, os.SEEK_DATA)
        except OSError:  # ENXIO: nothing but a hole is behind it
            high = middle
        else:
            low = middle
    return high
