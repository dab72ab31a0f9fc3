"""Did you mean: the words that were probably meant by one that there is not."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

SHOWN_MAX = 3


def words(word: str, known: Sequence[str]) -> list[str]:
    """Return the words of `known` that are like `word`, the likeliest first."""
    return (
        difflib.get_close_matches(word, known, SHOWN_MAX)
        or ([each for each in known if word and each.startswith(word)][:SHOWN_MAX])
    )


def name(word: str, names: Sequence[str]) -> str | None:
    """Return the name that was probably meant by a word that is none; None if it is one, or is like none.

    `work` is p://work, too.
    """
    if word in names:
        return None
    spelled = {name: name for name in names} | {
        name.rpartition("://")[2].partition(":")[0]: name for name in names
    }  # `work`, `boot`
    found = difflib.get_close_matches(word, spelled, 1) or difflib.get_close_matches(
        word.rpartition("://")[2], spelled, 1
    )
    return spelled[found[0]] if found else None
