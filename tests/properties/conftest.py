"""Two sizes of the same suite: `--profile ci` (default, some minutes) and `--profile nightly` (as long as a night allows).

`nightly` has the whole sets: every seam, every moment, every combination. `ci` takes a part of each, which SPINE_SEED (default 1) draws, and is
derandomized: the same examples everywhere, so a red CI is red on the desk. Hypothesis draws new examples in `nightly`; `--hypothesis-seed`
repeats them, and a failing example is printed as a program.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from typing import Any

import pytest
from attrs import frozen
from hypothesis import HealthCheck, Phase, settings

SLOW_BY_NATURE = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
BOTH = {"deadline": None, "report_multiple_bugs": False, "suppress_health_check": SLOW_BY_NATURE, "print_blob": True}
SEED = int(os.environ.get("SPINE_SEED", "1"))
settings.register_profile("ci", max_examples=50, stateful_step_count=25, derandomize=True, database=None, **BOTH)
settings.register_profile(
    "nightly", max_examples=6000, stateful_step_count=60, phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink), **BOTH
)


@frozen
class Size:
    """How much of each set is walked; a stride of n takes every nth, beginning where SPINE_SEED says.

    `seams`: stride of the seams at which a life is stopped. `double_stride`: of those that are followed by crashes in their recovery.
    `cases`: of the enumerated combinations in which each seam of the recovery is crashed. `stride`: of the moments of a persona's story.
    `faults`: bad outcomes on one walk. `lives`: of each part of test_lives.py.
    """

    seams: int
    double_stride: int
    cases: int
    faults: int
    lives: int
    stride: int

    @property
    def whole(self) -> bool:
        """Whether all of each set is walked."""
        return self.seams == 1


def has(at: int, stride: int) -> bool:
    """Tell whether the sample of this seed has number `at` of a set."""
    return at % stride == SEED % stride


def sample(members: Sequence[Any], stride: int) -> Sequence[Any]:
    """Return the part of a set that the sample of this seed has."""
    return members[SEED % stride :: stride]


SIZES = {
    "ci": Size(seams=8, double_stride=64, cases=9, faults=4, lives=25, stride=20),
    "nightly": Size(seams=1, double_stride=1, cases=1, faults=6, lives=5000, stride=1),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--profile", default="ci", choices=sorted(SIZES), help="size of the property tests")


def _profile(config: pytest.Config) -> str:
    return config.getoption("--profile", default="ci")


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile(_profile(config))
    gc.freeze = lambda: None  # a world is garbage when its test is over, whatever its PID 1 thought


def pytest_report_header(config: pytest.Config) -> str:
    name = _profile(config)
    how = f"SPINE_SEED={SEED}, derandomized" if name == "ci" else "whole sets, a new seed each run; --hypothesis-seed repeats one"
    return f"properties: profile {name}, {how}"


@pytest.fixture
def size(pytestconfig: pytest.Config) -> Size:
    return SIZES[_profile(pytestconfig)]
