"""How an invariant says that it does not hold. `Broken`, so that a mutant test can tell a caught fault from a broken test."""

from __future__ import annotations


class Broken(AssertionError):  # noqa: N818 - an invariant, broken
    """An invariant does not hold."""

    seen = 0

    def __init__(self, text: str) -> None:
        super().__init__(text)
        Broken.seen += 1


def hold(true: object, text: str) -> None:
    if not true:
        raise Broken(text)
