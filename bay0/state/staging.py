"""Where a copy is made: beside its place, until it is whole. Used by the state worker and by the processes that copy.

`STAGING/NAME` belongs to the copy that is to become the home of the persona with the podman name NAME: in it are `home`, the
copy, and `links` (see tree.py). A copy is put in its place by one rename, which `place` repeats harmlessly after a crash. What
is left of a copy that was given up goes into the trash.
"""

from __future__ import annotations

import os
from collections.abc import Collection

from bay0.state import files, homes
from bay0.state.paths import HOMES, STAGING

HOME, LINKS = "home", "links"


def begin(name: str, source: str) -> bool:
    """Make the staging directory of `name`, empty; tell whether there is a home of `source` to be copied there. If not, there is none."""
    drop(name)
    if is_free(source):
        return False
    path = f"{STAGING}/{name}"
    files.directory(STAGING, 0o700, anew=True)
    for folder in (path, f"{path}/{HOME}", f"{path}/{LINKS}"):
        files.directory(folder, 0o700, anew=True)
    return True


def is_free(name: str) -> bool:
    """Tell whether there is no home of that name, so that one can be placed there."""
    return not _is_there(HOMES) or files.look(f"{HOMES}/{name}") is None


def place(name: str) -> bool:
    """Make the copy in the staging directory of `name` its home; True also if an earlier call has done that.

    `MisplacedError` if another home is there: that one stays.
    """
    staged, home = f"{STAGING}/{name}/{HOME}", f"{HOMES}/{name}"
    if _is_there(f"{STAGING}/{name}") and files.is_directory(staged):
        files.directory(HOMES, 0o711, most=0o755, anew=False)
        if files.look(home) is not None:
            raise files.MisplacedError(home, "a home that is kept", "the copy", "create the persona and empty its home first")
        os.rename(staged, home)
        for folder in (HOMES, f"{STAGING}/{name}"):
            files.sync_directory(folder)
    drop(name)
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
