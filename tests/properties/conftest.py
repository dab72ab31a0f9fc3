"""Two sizes of the same suite: `--profile ci` (default, some three minutes) and `--profile nightly` (as long as a night allows).

`ci` is derandomized: the same examples everywhere, so a red CI is red on the desk. `nightly` draws new ones; `--hypothesis-seed` repeats them,
and a failing example is printed as a program.
"""

from __future__ import annotations

import gc

import pytest
from attrs import frozen
from hypothesis import HealthCheck, Phase, settings

SLOW_BY_NATURE = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
BOTH = {"deadline": None, "report_multiple_bugs": False, "suppress_health_check": SLOW_BY_NATURE, "print_blob": True}
settings.register_profile("ci", max_examples=85, stateful_step_count=25, derandomize=True, database=None, **BOTH)
settings.register_profile(
    "nightly", max_examples=6000, stateful_step_count=60, phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink), **BOTH
)


@frozen
class Size:
    """`double_stride`: every how manieth crash point is followed by crashes in its recovery. `faults`: bad outcomes on one walk.

    `lives`: of each part of test_lives.py. `stride`: every how manieth moment of a persona's story.
    """

    double_stride: int
    faults: int
    lives: int
    stride: int


SIZES = {"ci": Size(double_stride=64, faults=4, lives=42, stride=10), "nightly": Size(double_stride=1, faults=6, lives=5000, stride=1)}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--profile", default="ci", choices=sorted(SIZES), help="size of the property tests")


def _profile(config: pytest.Config) -> str:
    return config.getoption("--profile", default="ci")


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile(_profile(config))
    gc.freeze = lambda: None  # a world is garbage when its test is over, whatever its PID 1 thought


def pytest_report_header(config: pytest.Config) -> str:
    name = _profile(config)
    how = "derandomized" if name == "ci" else "a new seed each run; --hypothesis-seed repeats one"
    return f"properties: profile {name}, {how}"


@pytest.fixture
def size(pytestconfig: pytest.Config) -> Size:
    return SIZES[_profile(pytestconfig)]
