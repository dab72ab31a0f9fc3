"""No unit test touches the machine's own cgroups, control socket or log, nor anything below its own /persist.

CI runs each of them once: in the build root or on the host. What one of the two has to skip is run by the other, and that is checked here.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from bay0.effects import cgroup

# A busy machine draws slowly and takes long for an example: neither says anything of what is tested.
settings.register_profile("unit", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("unit")
PART = os.environ.get("TOX_ENV_NAME")


def _below_persist() -> dict[str, int]:
    return {path: os.lstat(path).st_mtime_ns for folder, _, files in os.walk("/persist") for path in (folder, *(f"{folder}/{f}" for f in files))}


@pytest.fixture(autouse=True, scope="session")
def _persist_is_left_alone() -> Iterator[None]:
    before = _below_persist()
    yield
    assert _below_persist() == before, "a test reached the machine's own /persist"


@pytest.fixture(autouse=True)
def _away_from_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cgroup, "ROOT", str(tmp_path / "no-cgroups"))
    monkeypatch.setenv("BAY0_SOCKET", str(tmp_path / "no.sock"))


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):  # pytest-xdist's second thread waits for the next test's name, and holds no lock as it does
        config.addinivalue_line("filterwarnings", "ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let a skip fail where no other part of CI would run the test: in the build root what is not marked `host`, on the host what is."""
    report = yield
    host = item.get_closest_marker("host") is not None
    last = PART == "scripts" if host else PART == "shipped"
    if report.skipped and last:
        report.outcome, report.longrepr = "failed", f"skipped, and no other part runs it (see the mark `host`): {report.longrepr}"
    return report


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """These tests wait, for processes and short bounds, for more than half of their time: `-n auto` takes twice as many as there are processors."""
    return 2 * (os.cpu_count() or 1)
