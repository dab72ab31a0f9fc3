"""What the default tier takes of a matrix: SPINE_SEED (default 1) draws some of its cases, the full tier has all."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from typing import Any

import pytest

SEED = int(os.environ.get("SPINE_SEED", "1"))


def params(cases: Sequence[Any], count: int) -> list[Any]:
    """Return the cases for `parametrize`, of which all but `count` are marked `full`."""
    chosen = random.Random(SEED).sample(range(len(cases)), count)
    marked = []
    for number, case in enumerate(cases):
        values = case if isinstance(case, tuple) else (case,)
        marked.append(pytest.param(*values, marks=() if number in chosen else pytest.mark.full))
    return marked


class Some:
    """Tests that are cases of one matrix: `@SOME("name")` marks the one of that name `full`, unless it is drawn."""

    def __init__(self, count: int, *names: str) -> None:
        self.names, self.chosen = names, random.Random(SEED).sample(names, count)

    def __call__(self, name: str) -> pytest.MarkDecorator:
        """Return the mark of the case `name`."""
        assert name in self.names, name
        return pytest.mark.vm if name in self.chosen else pytest.mark.full
