"""Did you mean: the words that were probably meant by one that there is not."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

SHOWN_MAX = 3


def words(word: str, known: Sequence[str]) -> list[str]:
    """Return the words of `known` that are like `word`, the likeliest first: only those one slip away, if there are any."""
    return (
        [each for each in known if one_slip(word, each)][:SHOWN_MAX]
        or difflib.get_close_matches(word, known, SHOWN_MAX)
        or ([each for each in known if word and each.startswith(word)][:SHOWN_MAX])
    )


def one_slip(word: str, meant: str) -> bool:
    """Tell whether `word` is `meant` with one letter too many, missing or changed, or with two neighbours swapped."""
    shorter = min(len(word), len(meant))
    if shorter <= 1 or word == meant:  # every letter is one slip from every other
        return False
    front = next((at for at in range(shorter) if word[at] != meant[at]), shorter)
    rest, wanted = word[front:], meant[front:]
    swapped = rest[1::-1] + rest[2:]
    return wanted in (rest[1:], swapped) or rest == wanted[1:] or rest[1:] == wanted[1:]


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
