"""A large file that comes through stdin, kept on the disk until somebody has read it; used by the command line in its own process.

podman wants an archive that it can go about in, an upgrade reads its image twice, and memory has no room for either.
The file has no name (O_TMPFILE, open(2)): it is gone with
the process that holds it, however that ends.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import BinaryIO

from bay0.base.errors import RefusedError
from bay0.state import paths

CHUNK = 1 << 20
SYNC_EVERY = 16 << 20  # bytes, so that no sync on the disk has to wait long behind ours
MIB = 1 << 20
PLACE = f"{paths.CONTAINERS}/tmp"  # noqa: S108 - podman's own folder


def receive(stream: BinaryIO, say: Callable[[int], None], directory: str = PLACE, *, what: str = "archive") -> tuple[str, int]:
    """Keep all of `stream`, and return a path for as long as this process lives, and the size. `say(bytes)` hears how far it is.

    `what` it is, for the refusals: `RefusedError` if there is no disk, nothing came, or it is more than half of what is free; the other half is
    for what podman makes of it.
    """
    try:
        fd = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        why = f"an {what} from stdin is kept on /persist, and that cannot be written now ({error.strerror}): `bay0 storage` tells why"
        raise RefusedError(why) from error
    free = os.fstatvfs(fd)
    most = free.f_bavail * free.f_frsize // 2
    size = synced = 0
    while data := stream.read(CHUNK):
        size += len(data)
        if size > most:
            raise RefusedError(f"the {what} has more than {most // MIB} MiB, half of what is free on /persist; nothing was loaded")
        _write(fd, data)
        if size - synced >= SYNC_EVERY:
            os.fdatasync(fd)
            synced = size
        say(size)
    if not size:
        raise RefusedError(f"stdin was empty: no {what} came; nothing was loaded")
    return f"/proc/{os.getpid()}/fd/{fd}", size


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
