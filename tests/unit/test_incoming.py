"""`bay0 image load -`: an archive from stdin, held on the disk without a name, within a bound."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bay0.base.errors import RefusedError
from bay0.cli import client
from bay0.cli import main as cli
from bay0.state import incoming


def heard(_size: int) -> None:
    """Listen to nothing."""


def test_what_came_can_be_read_by_its_path_and_has_no_name(tmp_path: Path) -> None:
    data = os.urandom(3 * incoming.CHUNK + 5)
    sizes: list[int] = []
    path, size = incoming.receive(io.BytesIO(data), sizes.append, str(tmp_path))
    assert Path(path).read_bytes() == data
    assert (size, sizes[-1]) == (len(data), len(data))
    assert sizes == sorted(sizes)
    assert os.listdir(tmp_path) == []
    os.close(int(path.rpartition("/")[2]))


def test_more_than_half_of_what_is_free_is_refused_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming.os, "fstatvfs", lambda _fd: SimpleNamespace(f_bavail=4, f_frsize=1 << 20))
    with open("/dev/zero", "rb") as endless, pytest.raises(RefusedError, match="more than 2 MiB, half of what is free"):
        incoming.receive(endless, heard, str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_nothing_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="stdin was empty"):
        incoming.receive(io.BytesIO(), heard, str(tmp_path))


def test_without_a_disk_it_is_said_where_to_look(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="bay0 storage"):
        incoming.receive(io.BytesIO(b"x"), heard, str(tmp_path / "gone"))


def test_the_verb_hands_over_what_came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[tuple[str, Any]] = []

    def call(method: str, timeout_s: float = 0, **params: Any) -> Any:
        asked.append((method, Path(params["path"]).read_bytes() if params else None))
        return {"loaded": ["localhost/shell:latest"]}

    monkeypatch.setattr(client, "call", call)
    monkeypatch.setattr(incoming.receive, "__defaults__", (str(tmp_path),))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"an archive")))
    assert cli.main(["image", "load", "-"]) == 0
    assert asked == [("image.list", None), ("image.load", b"an archive")]
    assert "loaded localhost/shell:latest" in capsys.readouterr().out


def test_from_a_terminal_it_is_wrong_usage(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    assert cli.main(["image", "load", "-"]) == 2
    assert "| bay0 image load -" in capsys.readouterr().err
