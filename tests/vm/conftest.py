"""One look at what is needed, one count of VMs."""

from __future__ import annotations

import harness
import pytest


@pytest.fixture(scope="session", autouse=True)
def _needs() -> None:
    why = harness.missing()
    if why is not None:
        harness.skip_or_fail(why)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("disks"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if harness.booted:
        terminalreporter.write_line(f"{len(harness.booted)} VMs were booted")
