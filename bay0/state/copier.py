"""Copy a home into a staging directory: a process of its own, `bay0 --copy-home`.

A command under the spawner's rules, since it may take minutes: the state worker goes on with commits meanwhile, and the copy
has the lowest priority at the disk. Its argument is a JSON object, the `Job`. It looks first whether there is room, writes how
far it is to a small file on /run, and syncs before it ends with status 0 and what it has copied as JSON. It changes nothing
but its own staging directory, so it can be killed at any moment: what it leaves goes into the trash.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Protocol

from attrs import asdict, define, field, frozen

from bay0.base.errors import RefusedError
from bay0.base.syscalls import syncfs
from bay0.state import files, staging, tree
from bay0.state.paths import STAGING

LOOK_S = 0.25  # between two looks at the room, and two words of how far it is
MIB = 20  # bits
SPARE = 64 << MIB  # bytes that stay free for the state and for what others write
SPARE_FILES = 1000
PER_ENTRY = 512  # bytes of a directory that an entry may take


@frozen
class Job:
    """What is to be copied. `source`, `name`: two homes, as they are called on the disk. `progress`: the path of a file that tells how far it is."""

    source: str
    name: str
    progress: str


class Far(Protocol):
    """What is made, as far as it is."""

    entries: int
    bytes: int


@define(eq=False, repr=False)
class Meter:
    """Says how far a copy is, and ends it when the disk has no more room for it. `place`: a descriptor on that disk."""

    path: str
    place: int
    wanted: tree.Size
    clock: Callable[[], float] = time.monotonic
    _next: float = field(init=False, default=0.0)

    def look(self, copy: Far) -> None:
        """Hear how far it is, often; do something every `LOOK_S` seconds. `RefusedError` if there is no room left."""
        now = self.clock()
        if now < self._next:
            return
        self._next = now + LOOK_S
        if _free(self.place)[0] < SPARE:
            raise RefusedError(f"less than {SPARE >> MIB} MiB are free on /persist by now")
        self.say(copy)

    def say(self, copy: Far) -> None:
        """Write how far it is; that nobody can read it is no reason to end."""
        told = {"entries": copy.entries, "of_entries": self.wanted.entries, "bytes": copy.bytes, "of_bytes": self.wanted.bytes}
        with contextlib.suppress(OSError):
            write(self.path, told)


def write(path: str, told: dict[str, int]) -> None:
    """Replace the small file at `path`, on a filesystem in memory."""
    with open(f"{path}.new", "w", encoding="ascii") as file:
        json.dump(told, file)
    os.replace(f"{path}.new", path)


def _free(place: int) -> tuple[int, int]:
    """Return how many bytes and files are free on the filesystem of `place`, to others than root too."""
    found = os.fstatvfs(place)
    return found.f_bavail * found.f_frsize, found.f_favail


def need_room(place: int, wanted: tree.Size) -> None:
    """Raise `RefusedError` unless what is `wanted` has room, with something to spare."""
    bytes_free, files_free = _free(place)
    need = wanted.bytes + wanted.entries * PER_ENTRY + SPARE
    if need > bytes_free:
        raise RefusedError(f"no room: it takes {need >> MIB} MiB, and {bytes_free >> MIB} MiB are free on /persist")
    if wanted.entries + SPARE_FILES > files_free:
        raise RefusedError(f"no room: it has {wanted.entries} entries, and {files_free} more files are possible on /persist")


def copy(job: Job) -> tree.Size:
    """Copy the home of `job.source` to where `staging.begin` has made room; return what was copied. `RefusedError`, `OSError`: none of it counts."""
    path = f"{STAGING}/{job.name}"
    with contextlib.ExitStack() as opened:

        def directory(path: str) -> int:
            fd = files.open_directory(path)
            opened.callback(os.close, fd)
            return fd

        source = directory(staging.place_of(job.source))
        place, links = directory(f"{path}/{staging.HOME}"), directory(f"{path}/{staging.LINKS}")
        wanted = tree.measure(source)
        need_room(place, wanted)
        meter = Meter(job.progress, place, wanted)
        made = tree.Copy(links, meter.look)
        made.tree(source, place)
        tree.forget_links(links)
        syncfs(place)
    return tree.Size(made.entries, made.bytes)


def answer(progress: str, make: Callable[[], dict[str, int | bool]]) -> int:
    """Be the process that makes a home: print what `make` returns as JSON, or say why not; return the exit status."""
    tree.prepare()
    try:
        made = make()
    except (OSError, RefusedError) as error:
        print(error.strerror if isinstance(error, OSError) and error.strerror else error, file=sys.stderr)
        return 1
    finally:
        with contextlib.suppress(OSError):
            os.unlink(progress)
    print(json.dumps(made))
    return 0


def main(words: list[str]) -> int:
    """Do the job in `words` and say what was copied; exit status 1 and a reason if it could not be done."""
    job = Job(**json.loads(words[0]))
    return answer(job.progress, lambda: asdict(copy(job)))

