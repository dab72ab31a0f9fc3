"""One look at what is needed, one count of VMs, and the order in which two processes share the modules."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import harness
import pytest

BOOTED = pytest.StashKey[int]()  # VMs that pytest-xdist's workers have started

# Longest first, in seconds without KVM: two workers that take the next module each end at about the same time.
# A module that is not here is taken as short; nothing but the order depends on it.
LONG = {
    "test_vm_ai": 300, "test_vm_persona": 250, "test_vm_normal": 200, "test_vm_validate": 150, "test_vm_governor": 120, "test_vm_screen": 110,
    "test_vm_matrix": 100, "test_vm_mending": 80, "test_vm_efi": 60, "test_vm_durable": 50, "test_vm_trace": 40, "test_vm_build": 40,
    "test_vm_bare": 30,
}  # fmt: skip


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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Longest module first; within a module the order stays, since its cases share a boot."""
    items.sort(key=lambda item: -LONG.get(item.path.stem, 0))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell the process that reports how many VMs this one has started."""
    workeroutput = getattr(session.config, "workeroutput", None)
    if workeroutput is not None:
        workeroutput["booted"] = len(harness.booted)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    config: pytest.Config = node.config  # type: ignore[attr-defined]
    booted = getattr(node, "workeroutput", {}).get("booted", 0)
    config.stash[BOOTED] = config.stash.get(BOOTED, 0) + booted


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    booted = len(harness.booted) + terminalreporter.config.stash.get(BOOTED, 0)
    if booted:
        terminalreporter.write_line(f"{booted} VMs were booted")
