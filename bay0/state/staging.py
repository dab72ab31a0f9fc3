"""Where a copy is made: beside its place, until it is whole. Used by the state worker and by the processes that copy.

`STAGING/NAME` belongs to the copy that is to become the home called NAME, a persona's (its podman name) or a snapshot's: in it are
`home`, the copy, and `links` (see tree.py); while one home takes the place of another, `old` too. A copy is put in its place by one
rename, which `place` and `replace` repeat harmlessly after a crash. What is left of a copy that was given up goes into the trash.
"""

from __future__ import annotations

import os
from collections.abc import Collection

from bay0.base import names
from bay0.state import files, homes
from bay0.state.paths import HOMES, SNAPSHOTS, STAGING

HOME, LINKS, OLD = "home", "links", "old"


def place_of(name: str) -> str:
    """Return where the home called `name` belongs."""
    return f"{SNAPSHOTS if names.is_snapshot(name) else HOMES}/{name}"


def _folder(name: str) -> str:
    """Make sure that there is the directory in which the home called `name` belongs; return it."""
    if names.is_snapshot(name):
        files.directory(SNAPSHOTS, 0o700, anew=False)
        return SNAPSHOTS
    files.directory(HOMES, 0o711, most=0o755, anew=False)
    return HOMES


def begin(name: str, source: str) -> bool:
    """Make the staging directory of `name`, empty; tell whether there is a home of `source` to be copied there. If not, there is none."""
    drop(name)
    if is_free(source):
        return False
    _make(name, HOME, LINKS)
    return True


def begin_anew(name: str) -> bool:
    """Make the staging directory of `name`, with an empty home in it."""
    drop(name)
    _make(name, HOME)
    return True


def begin_again(name: str, source: str, home: bool) -> bool:  # noqa: FBT001 - a field of the protocol
    """Do the same for a home that is to take the place of another. `home`: there must be one of `source`; without one nothing takes its place.

    `FileNotFoundError`: there is none where one was kept.
    """
    drop(name)
    if home and is_free(source):
        raise FileNotFoundError(2, "its files are not there any more", place_of(source))
    _make(name, *((HOME, LINKS) if home else ()))
    return home


def _make(name: str, *folders: str) -> None:
    path = f"{STAGING}/{name}"
    for folder in (STAGING, path, *(f"{path}/{each}" for each in folders)):
        files.directory(folder, 0o700, anew=True)


def is_free(name: str) -> bool:
    """Tell whether there is no home of that name, so that one can be placed there."""
    path = place_of(name)
    return not _is_there(os.path.dirname(path)) or files.look(path) is None


def free_number(name: str, least: int) -> int:
    """Return the first number from `least` under which nothing lies of a persona's snapshots: files may be there that no machine knows."""
    while not is_free(f"{name}@{least}"):
        least += 1
    return least


def place(name: str) -> bool:
    """Make the copy in the staging directory of `name` its home; True also if an earlier call has done that.

    `MisplacedError` if another home is there: that one stays.
    """
    staged, home = f"{STAGING}/{name}/{HOME}", place_of(name)
    if _is_there(f"{STAGING}/{name}") and files.is_directory(staged):
        folder = _folder(name)
        if files.look(home) is not None:
            raise files.MisplacedError(home, "a home that is kept", "the copy", "create the persona and empty its home first")
        _move(staged, home, folder, f"{STAGING}/{name}")
    drop(name)
    return True


def replace(name: str) -> bool:
    """Put the copy in the staging directory of `name` in the place of its home, which goes into the trash; True also if an earlier call has.

    Where nothing was copied there is no home afterwards. `old` says that the home that was there is moved away already: what is in
    its place is the new one then.
    """
    path, home = f"{STAGING}/{name}", place_of(name)
    if not _is_there(path):
        return True
    folder, old = _folder(name), f"{path}/{OLD}"
    if files.look(old) is None:
        if files.look(home) is not None:
            _move(home, old, folder, path)
        else:
            files.directory(old, 0o700, anew=False)
            files.sync_directory(path)
    if files.look(f"{path}/{HOME}") is not None:
        _move(f"{path}/{HOME}", home, path, folder)
    drop(name)
    return True


def _move(source: str, target: str, *folders: str) -> None:
    os.rename(source, target)
    for folder in folders:
        files.sync_directory(folder)


def delete(name: str) -> bool:
    """Take the home called `name` away; tell whether there was one."""
    if is_free(name):
        return False
    homes.take_away(place_of(name))
    return True


def drop(name: str) -> bool:
    """Take the staging directory of `name` away; tell whether there was one."""
    if not _is_there(STAGING) or files.look(f"{STAGING}/{name}") is None:
        return False
    homes.take_away(f"{STAGING}/{name}")
    return True


def clear(wanted: Collection[str]) -> list[str]:
    """Take away every staging directory but those of `wanted`; return their names. They are of copies that were given up."""
    if not _is_there(STAGING):
        return []
    left = [name for name in os.listdir(STAGING) if name not in wanted]
    for name in left:
        homes.take_away(f"{STAGING}/{name}")
    return left


def _is_there(path: str) -> bool:
    try:
        return files.is_directory(path)
    except FileNotFoundError:
        return False
