"""Personas' directories on /persist: homes, logs, podman's storage. Runs in the state worker.

A home is the user's data: it is made once and emptied only by asking for just that. It belongs to root, because podman maps its owners
into the container's own range (an idmapped mount): what root of a persona writes is uid 0 on the disk, whatever its range is.
What is taken away is renamed into the trash, which is one step, and deleted there a piece at a time, so that no request takes long.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Generator

from bay0.state.paths import CONTAINERS, HOMES, LOGS, TRASH

PODMAN_DIRECTORIES = ("storage", "libpod", "volumes", "tmp")
SWEEP_S = 0.3  # of one request
DEPTH = 8  # directories inside each other that are emptied where they are; eight names of 255 bytes fit into a path
PIECE = 32 << 20  # bytes of a file that are freed at once


def prepare_containers() -> dict[str, bool]:
    """Make podman's directories; tell whether it has ever put anything there, so that there may be containers."""
    used = _holds_anything(f"{CONTAINERS}/storage")
    os.makedirs(CONTAINERS, mode=0o711, exist_ok=True)
    for name in PODMAN_DIRECTORIES:
        os.makedirs(f"{CONTAINERS}/{name}", mode=0o711, exist_ok=True)
    os.makedirs(LOGS, mode=0o700, exist_ok=True)
    return {"used": used}


def _holds_anything(path: str) -> bool:
    """Tell whether something is in a directory, without reading the names of all."""
    try:
        with os.scandir(path) as entries:
            return next(entries, None) is not None
    except (FileNotFoundError, NotADirectoryError):
        return False


def set_containers_aside() -> bool:
    """Take podman's whole storage away, because it is damaged beyond its own repair, and make an empty one. Homes are elsewhere."""
    _take_away(CONTAINERS)
    prepare_containers()
    return True


def prepare(name: str, *, home: bool) -> bool:
    """Make what the persona with the podman name `name` needs before it starts; podman's directories too, if the boot could not."""
    prepare_containers()
    if home:
        os.makedirs(HOMES, mode=0o711, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkdir(f"{HOMES}/{name}", 0o700)
    return True


def empty(name: str) -> bool:
    """Take a home's contents away; tell whether there was one."""
    path = f"{HOMES}/{name}"
    if not os.path.lexists(path):
        return False
    _take_away(path)
    return True


def _take_away(path: str) -> None:
    stop_sweeping()  # a sweep under way may have passed the place where this one will lie; the next begins anew
    os.makedirs(TRASH, mode=0o700, exist_ok=True)
    if os.path.lexists(path):
        os.rename(path, f"{TRASH}/{os.path.basename(path)}.{time.time_ns()}")
        for folder in (os.path.dirname(path), TRASH):  # what was told to be gone must not come back
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)


def sweep(seconds: float = SWEEP_S) -> bool:
    """Delete some of the trash, for about `seconds`; tell whether there is more. The next call goes on where this one stopped.

    What is in it is a persona's doing: a million entries, or a million directories inside each other. So the clock is looked
    at before every call of the kernel, nothing is listed as a whole, and what was deleted stays so if the worker is killed here.
    """
    end = time.monotonic() + seconds
    if not _deleting:
        _deleting.append(_emptied_trash())
    try:
        for _ in _deleting[0]:
            if time.monotonic() > end:
                return True
    except OSError:
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


def _emptied_trash() -> Steps:
    """Delete all of the trash, then its directory. What cannot be deleted is left for a later sweep."""
    try:
        if not stat.S_ISDIR(os.lstat(TRASH).st_mode):
            return 0
    except FileNotFoundError:
        return 0
    while (yield from _emptied(TRASH, DEPTH)):
        pass  # what was too deep lies in the trash itself now
    yield
    with contextlib.suppress(OSError):
        os.rmdir(TRASH)
    return 0


def _emptied(folder: str, depth: int) -> Steps:
    """Delete what is in `folder`.

    What lies deeper than `depth` is moved to the top of the trash: the length of a path is limited, and so are descriptors.
    """
    gone = 0
    with os.scandir(folder) as entries:
        while True:
            yield
            with contextlib.suppress(OSError):  # one that is in the way must not keep the others
                entry = next(entries, None)
                if entry is None:
                    return gone
                gone += yield from _deleted(entry, depth)


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
    with contextlib.suppress(OSError):  # something in it could not be deleted, and what else was counts
        os.rmdir(entry.path)
        gone += 1
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
