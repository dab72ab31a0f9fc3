"""Personas' directories on /persist: homes, logs, podman's storage. Runs in the state worker.

A home is the user's data: it is made once and emptied only by asking for just that. It belongs to root, because podman maps its owners
into the container's own range (an idmapped mount): what root of a persona writes is uid 0 on the disk, whatever its range is.
What is taken away is renamed into the trash, which is one step, and deleted there a piece at a time, so that no request takes long.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import time

from bay0.state.paths import CONTAINERS, HOMES, LOGS, TRASH

PODMAN_DIRECTORIES = ("storage", "libpod", "volumes", "tmp")
NEW, OWN = 0o1700, 0o700  # of a home; the sticky bit says that no user has it yet
SWEEP_S = 0.3  # of one request


def prepare_containers() -> dict[str, bool]:
    """Make podman's directories; tell whether it has ever put anything there, so that there may be containers."""
    used = os.path.isdir(f"{CONTAINERS}/storage") and bool(os.listdir(f"{CONTAINERS}/storage"))
    os.makedirs(CONTAINERS, mode=0o711, exist_ok=True)
    for name in PODMAN_DIRECTORIES:
        os.makedirs(f"{CONTAINERS}/{name}", mode=0o711, exist_ok=True)
    os.makedirs(LOGS, mode=0o700, exist_ok=True)
    return {"used": used}


def set_containers_aside() -> bool:
    """Take podman's whole storage away, because it is damaged beyond its own repair, and make an empty one. Homes are elsewhere."""
    _take_away(CONTAINERS)
    prepare_containers()
    return True


def prepare(name: str, *, home: bool) -> bool:
    """Make what the persona with the podman name `name` needs before it starts; podman's directories too, if the boot could not.

    Tell whether its home is new: whose it is to be is known only when its container is there (`give`).
    """
    prepare_containers()
    if not home:
        return False
    os.makedirs(HOMES, mode=0o711, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.mkdir(f"{HOMES}/{name}", NEW)
    return _is_new(os.lstat(f"{HOMES}/{name}"))


def _is_new(home: os.stat_result) -> bool:
    return stat.S_ISDIR(home.st_mode) and bool(home.st_mode & stat.S_ISVTX)


def give(name: str, uid: int, gid: int) -> bool:
    """Make a new home that of its user, as inside; tell whether it was new. By descriptor, never through a link."""
    fd = os.open(f"{HOMES}/{name}", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
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
    try:
        os.unlink(f"{LOGS}/{name}.log")
    except FileNotFoundError:
        return False
    return True


def empty(name: str) -> bool:
    """Take a home's contents away; tell whether there was one."""
    path = f"{HOMES}/{name}"
    if not os.path.lexists(path):
        return False
    _take_away(path)
    return True


def _take_away(path: str) -> None:
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
    """Delete some of the trash, for about `seconds`; tell whether there is more."""
    end = time.monotonic() + seconds
    if not os.path.isdir(TRASH):
        return False
    for folder, names, files in os.walk(TRASH, topdown=False):
        for name in files:
            os.unlink(f"{folder}/{name}")
            if time.monotonic() > end:
                return True
        for name in names:
            path = f"{folder}/{name}"
            if os.path.islink(path):
                os.unlink(path)
            else:
                with contextlib.suppress(OSError):  # it is emptied in a later request
                    os.rmdir(path)
    shutil.rmtree(TRASH, ignore_errors=True)
    return False
