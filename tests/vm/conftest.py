"""One look at what is needed, and one count of VMs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import harness
import pytest


@pytest.fixture(scope="session", autouse=True)
def _needs() -> None:
    why = harness.missing()
    if why is not None:
        harness.skip_or_fail(why)


@pytest.fixture(scope="module")
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A place for disks, which all together would fill one. Those of a module that failed stay, to be looked into."""
    failed, made = request.session.testsfailed, tmp_path_factory.mktemp("disks")
    yield str(made)
    if request.session.testsfailed == failed:
        shutil.rmtree(made)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if harness.booted:
        terminalreporter.write_line(f"{len(harness.booted)} VMs were booted")
