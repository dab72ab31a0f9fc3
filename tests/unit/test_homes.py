"""Personas' directories on the disk: made once, emptied only when asked, in one step."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bay0.state import homes


@pytest.fixture(autouse=True)
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HOMES", "LOGS", "CONTAINERS", "TRASH"):
        monkeypatch.setattr(homes, name, str(tmp_path / name.lower()))
    return tmp_path


def test_a_home_is_made_once_and_what_is_in_it_stays(disk: Path) -> None:
    homes.prepare("p__work", home=True)
    (disk / "homes/p__work/letter").write_text("dear")
    homes.prepare("p__work", home=True)
    assert (disk / "homes/p__work/letter").read_text() == "dear"
    assert os.stat(disk / "homes/p__work").st_mode & 0o777 == 0o700


def test_a_persona_without_a_home_gets_none(disk: Path) -> None:
    homes.prepare("p__work", home=False)
    assert not (disk / "homes").exists()
    assert (disk / "logs").is_dir()


def test_an_emptied_home_is_gone_in_one_step_and_the_others_are_untouched(disk: Path) -> None:
    for name in ("p__work", "p__play"):
        homes.prepare(name, home=True)
        (disk / f"homes/{name}/letter").write_text(name)
    assert homes.empty("p__work")
    assert not (disk / "homes/p__work").exists()
    assert (disk / "homes/p__play/letter").read_text() == "p__play"
    assert not homes.empty("p__work"), "there was nothing to empty"


def test_the_trash_is_swept_a_piece_at_a_time_without_following_links(disk: Path) -> None:
    homes.prepare("p__work", home=True)
    home = disk / "homes/p__work"
    (disk / "precious").mkdir()
    (disk / "precious/file").write_text("mine")
    (home / "deep/er").mkdir(parents=True)
    for number in range(50):
        (home / f"deep/er/{number}").write_text("x")
    (home / "link").symlink_to(disk / "precious")
    homes.empty("p__work")
    calls = 1
    while homes.sweep(seconds=-1):
        calls += 1
    assert calls > 50
    assert not (disk / "trash").exists()
    assert (disk / "precious/file").read_text() == "mine"


def test_podmans_storage_set_aside_leaves_homes_and_logs_alone(disk: Path) -> None:
    assert homes.prepare_containers() == {"used": False}
    assert homes.prepare_containers() == {"used": False}, "a boot without personas does not wait for podman, the second one neither"
    homes.prepare("p__work", home=True)
    (disk / "homes/p__work/letter").write_text("dear")
    (disk / "containers/storage/layer").write_text("broken")
    assert homes.prepare_containers() == {"used": True}
    homes.set_containers_aside()
    assert (disk / "containers/storage").is_dir()
    assert not (disk / "containers/storage/layer").exists()
    assert homes.prepare_containers() == {"used": False}
    assert (disk / "homes/p__work/letter").read_text() == "dear"
