"""The sample personas that are on the spine."""

from __future__ import annotations

import posix  # `os` without its classes: see bay0/cli/main.py

from bay0.cli.persona_words import MANIFEST, SAMPLES

PLACE = SAMPLES
TYPE_BITS, REGULAR = 0o170000, 0o100000  # S_IFMT and S_IFREG of inode(7)


def names() -> tuple[list[str], str]:
    """Return the names of the samples on this machine, and where they are."""
    try:
        return sorted(entry for entry in posix.listdir(PLACE) if _is_file(f"{PLACE}/{entry}/{MANIFEST}")), PLACE
    except OSError:
        return [], PLACE


def _is_file(path: str) -> bool:
    try:
        return posix.stat(path).st_mode & TYPE_BITS == REGULAR
    except OSError:
        return False
