"""Personas' directories on /persist: homes, logs, podman's storage. Runs in the state worker.

A home is the user's data: it is made once and emptied only by asking for just that. It belongs to root, because podman maps its owners
into the container's own range (an idmapped mount): what root of a persona writes is uid 0 on the disk, whatever its range is.
What is taken away is renamed into the trash, which is one step, and deleted there a piece at a time, so that no request takes long.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time

from bay0.state import files
from bay0.state.paths import CONTAINERS, HOMES, LOGS, TRASH

PODMAN_DIRECTORIES = ("storage", "libpod", "volumes", "tmp")
SWEEP_S = 0.3  # of one request


def prepare_containers() -> dict[str, bool]:
    """Make podman's directories; tell whether it has ever put anything there, so that there may be containers."""
    used = os.path.isdir(f"{CONTAINERS}/storage") and bool(os.listdir(f"{CONTAINERS}/storage"))
    for path in (CONTAINERS, *(f"{CONTAINERS}/{name}" for name in PODMAN_DIRECTORIES)):
        files.directory(path, 0o711, most=0o755, anew=True)
    files.directory(LOGS, 0o700, anew=True)
    return {"used": used}


def set_containers_aside() -> bool:
    """Take podman's whole storage away, because it is damaged beyond its own repair, and make an empty one. Homes are elsewhere."""
    _take_away(CONTAINERS)
    prepare_containers()
    return True


def prepare(name: str, *, home: bool) -> bool:
    """Make what the persona with the podman name `name` needs before it starts; podman's directories too, if the boot could not."""
    prepare_containers()
    for suffix in ("", ".tmp"):  # conmon opens both, follows links and waits for a FIFO
        files.clear(f"{LOGS}/{name}.log{suffix}")
    if home:
        files.directory(HOMES, 0o711, most=0o755, anew=False)
        files.kept_directory(f"{HOMES}/{name}", 0o700)  # a link to somebody else's is not given
    return True


def empty(name: str) -> bool:
    """Take a home's contents away; tell whether there was one."""
    path = f"{HOMES}/{name}"
    if files.look(path) is None:
        return False
    _take_away(path)
    return True


def _take_away(path: str) -> None:
    files.directory(TRASH, 0o700, anew=True)
    if files.look(path) is not None:
        os.rename(path, f"{TRASH}/{os.path.basename(path)}.{time.time_ns()}")
        for folder in (os.path.dirname(path), TRASH):  # what was told to be gone must not come back
            files.sync_directory(folder)


def _trash_is_there() -> bool:
    """Tell whether there is a directory to sweep: through a link somebody's homes would be emptied."""
    try:
        return files.is_directory(TRASH)
    except files.MisplacedError:
        return False


def sweep(seconds: float = SWEEP_S) -> bool:
    """Delete some of the trash, for about `seconds`; tell whether there is more."""
    end = time.monotonic() + seconds
    if not _trash_is_there():
        return False
    for folder, names, leaves in os.walk(TRASH, topdown=False):
        for name in leaves:
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
