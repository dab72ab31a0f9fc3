"""No unit test touches the machine's own cgroups, control socket or log, nor anything below its own /persist."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bay0.effects import cgroup


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
