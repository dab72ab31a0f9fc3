"""No unit test touches the machine's own cgroups, control socket or log."""

from __future__ import annotations

from pathlib import Path

import pytest

from bay0.effects import cgroup


@pytest.fixture(autouse=True)
def _away_from_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cgroup, "ROOT", str(tmp_path / "no-cgroups"))
    monkeypatch.setenv("BAY0_SOCKET", str(tmp_path / "no.sock"))
