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


def mode(path: Path) -> int:
    return os.stat(path, follow_symlinks=False).st_mode & 0o7777


def test_a_home_is_new_until_it_is_given_to_its_user_and_then_nobody_else_enters_it(disk: Path) -> None:
    assert homes.prepare("p__work", home=True)
    assert homes.prepare("p__work", home=True), "a crash before it was given changes nothing"
    assert homes.give("p__work", os.getuid(), os.getgid())
    assert mode(disk / "homes/p__work") == 0o700
    assert not homes.prepare("p__work", home=True)
    assert not homes.give("p__work", os.getuid(), os.getgid()), "it is given once"
    homes.empty("p__work")
    assert homes.prepare("p__work", home=True), "one that was emptied is new again"


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives a directory away")
def test_a_new_home_belongs_to_the_user_that_it_was_given_to(disk: Path) -> None:
    homes.prepare("p__work", home=True)
    homes.give("p__work", 1234, 1235)
    found = os.stat(disk / "homes/p__work")
    assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (1234, 1235, 0o700)


def test_a_home_from_before_is_left_to_whom_it_belongs(disk: Path) -> None:
    (disk / "homes/p__work").mkdir(mode=0o700, parents=True)
    assert not homes.prepare("p__work", home=True)
    assert not homes.give("p__work", 1234, 1234)


def test_nothing_is_given_away_through_a_link_nor_a_file(disk: Path) -> None:
    (disk / "precious").mkdir(mode=0o1700)
    os.chmod(disk / "precious", 0o1700)
    (disk / "homes").mkdir()
    (disk / "homes/p__work").symlink_to(disk / "precious")
    (disk / "homes/p__play").write_text("")
    for name in ("p__work", "p__play"):
        assert not homes.prepare(name, home=True)
        with pytest.raises(OSError):
            homes.give(name, 1234, 1234)
    assert mode(disk / "precious") == 0o1700


def test_the_log_of_a_removed_persona_goes_and_what_it_points_to_stays(disk: Path) -> None:
    (disk / "logs").mkdir()
    (disk / "precious").write_text("mine")
    (disk / "logs/p__work.log").symlink_to(disk / "precious")
    assert homes.remove_log("p__work")
    assert not homes.remove_log("p__work")
    assert (os.listdir(disk / "logs"), (disk / "precious").read_text()) == ([], "mine")


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
