"""What of the AI is on the disk, looked at by the state worker: what is a model, and why something is none."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from bay0.state import aifiles, paths

HEAD = struct.pack("<4sI", b"GGUF", 3)
SIZE = aifiles.MODEL_MIN


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(paths, "ROOT", str(tmp_path))
    monkeypatch.setattr(aifiles, "_NOT_BELOW", {f"{tmp_path}/homes": "is a persona's"})
    (tmp_path / "homes").mkdir()
    return tmp_path


def put(path: Path, head: bytes = HEAD, size: int = SIZE, mode: int = 0o644) -> str:
    with path.open("wb") as file:
        file.write(head)
        file.truncate(size)
    path.chmod(mode)
    return str(path)


def test_a_model_is_told_with_its_size(disk: Path) -> None:
    assert aifiles.model(put(disk / "m.gguf", size=123_456)) == {"size": 123_456}


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"head": b"PK\x03\x04zzzz"}, "no GGUF file"), ({"head": b"GGUF"}, "GGUF version 0"),
        ({"head": struct.pack("<4sI", b"GGUF", 9)}, "version 9"),
        ({"size": 4}, "a model has from"), ({"size": (64 << 30) + 1}, "a model has from"), ({"mode": 0o640}, "chmod a+r"),
    ],
)  # fmt: skip
def test_a_file_that_is_none_says_why(disk: Path, keys: dict[str, object], said: str) -> None:
    path = put(disk / "m.gguf", **keys)  # type: ignore[arg-type]
    assert said in aifiles.model(path)["why"]
    assert aifiles.model(path)["why"].startswith(path)


def test_what_is_no_regular_file_is_refused_and_nobody_waits_for_it(disk: Path) -> None:
    os.mkfifo(disk / "pipe")
    (disk / "folder").mkdir()
    for name in ("pipe", "folder"):
        assert "no regular file" in aifiles.model(f"{disk}/{name}")["why"]
    assert "No such file" in aifiles.model(f"{disk}/none")["why"]


def test_only_a_plain_path_below_persist_will_do(disk: Path) -> None:
    real = put(disk / "m.gguf")
    (disk / "link.gguf").symlink_to(real)
    for path in (f"{disk}/link.gguf", f"{disk}/homes/../m.gguf", f"{disk}//m.gguf"):
        assert "links or dots" in aifiles.model(path)["why"]
    for path in ("/etc/passwd", "m.gguf", f"{disk}x/m.gguf", f"{disk}/a\nb"):
        assert "a model is a file below" in aifiles.model(path)["why"]


def test_a_model_in_a_personas_home_could_be_changed_under_the_server(disk: Path) -> None:
    assert "is a persona's" in aifiles.model(put(disk / "homes" / "m.gguf"))["why"]


def test_an_archive_is_there_if_it_is_a_file_with_something_in_it(tmp_path: Path) -> None:
    path = tmp_path / "spine-ai.tar"
    assert aifiles.archive(str(path)) is None
    path.touch()
    assert aifiles.archive(str(path)) is None
    path.write_bytes(b"x")
    assert aifiles.archive(str(path)) == str(path)
    (tmp_path / "link").symlink_to(path)
    assert aifiles.archive(f"{tmp_path}/link") is None
