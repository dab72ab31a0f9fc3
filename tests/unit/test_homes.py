"""Personas' directories on the disk: made once, emptied only when asked, in one step."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bay0.state import homes


@pytest.fixture(autouse=True)
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in ("HOMES", "LOGS", "CONTAINERS", "TRASH"):
        monkeypatch.setattr(homes, name, str(tmp_path / name.lower()))
    yield tmp_path
    homes.stop_sweeping()


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
        with pytest.raises(homes.files.MisplacedError):
            homes.prepare(name, home=True)
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


def taken_away(disk: Path) -> Path:
    """A home to be filled, which lies in the trash already."""
    home = disk / "trash/p__work.1"
    home.mkdir(parents=True)
    return home


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that goes on by a second with every call of the kernel that a sweep makes."""
    now = [0.0]

    def tick(call: Callable[..., Any]) -> Callable[..., Any]:
        def ticking(*args: Any, **more: Any) -> Any:
            now[0] += 1
            return call(*args, **more)

        return ticking

    calls = ("unlink", "rmdir", "rename", "scandir", "listdir", "open", "truncate", "ftruncate")
    monkeypatch.setattr(homes, "os", SimpleNamespace(**{**vars(os), **{name: tick(getattr(os, name)) for name in calls}}))
    monkeypatch.setattr(homes.time, "monotonic", lambda: now[0])
    return now


def directories(home: Path) -> None:
    for number in range(50):
        (home / f"d{number}").mkdir()


def a_tree_of_directories(home: Path) -> None:
    for number in range(50):
        (home / f"{number % 3}/{number % 7}/{number}").mkdir(parents=True)


def files(home: Path) -> None:
    for number in range(50):
        (home / f"f{number}").touch()


def links_to_directories(home: Path) -> None:
    for number in range(50):
        (home / f"l{number}").symlink_to("/")


def a_chain(home: Path) -> None:
    """Deeper than a path can be."""
    at = os.open(home, os.O_RDONLY)
    for _ in range(60):
        os.mkdir("x" * 200, dir_fd=at)
        below = os.open("x" * 200, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)


def a_large_file(home: Path) -> None:
    with (home / "big").open("wb") as file:
        for number in range(40):
            file.seek(number << 20)
            file.write(b"x" * 4096)


KINDS = (directories, a_tree_of_directories, files, links_to_directories, a_chain, a_large_file)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_whatever_a_persona_made_no_request_takes_longer_than_its_time_and_one_call_of_the_kernel(
    disk: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch, kind: Callable[[Path], None]
) -> None:
    monkeypatch.setattr(homes, "PIECE", 16384)
    kind(taken_away(disk))
    for _ in range(1000):
        began = clock[0]
        more = homes.sweep(seconds=5)
        assert clock[0] - began <= 5 + 3, "a look at an entry is up to three calls: rmdir, which fails, and opening the directory"
        if not more:
            break
    assert not (disk / "trash").exists()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_sweep_whose_worker_is_killed_in_the_middle_has_got_on(disk: Path, kind: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each worker here has time for ten looks and dies; none knows of the one before it."""
    monkeypatch.setattr(homes, "PIECE", 16384)
    kind(taken_away(disk))
    for _ in range(400):
        for _ in range(30):
            more = homes.sweep(seconds=-1)
        homes.stop_sweeping()
        if not more:
            break
    assert not (disk / "trash").exists()


def test_what_cannot_be_deleted_keeps_nothing_else_and_ends_the_sweep(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = taken_away(disk)
    a_tree_of_directories(home)
    (home / "0/0/stays").touch()

    def refusing(path: str) -> None:
        if path.endswith("stays"):
            raise PermissionError(1, "Operation not permitted", path)
        os.unlink(path)

    monkeypatch.setattr(homes, "os", SimpleNamespace(**{**vars(os), "unlink": refusing}))
    for _ in range(1000):
        if not homes.sweep(seconds=-1):
            break
    else:
        raise AssertionError("it never ends")
    assert [Path(folder) / name for folder, _, names in os.walk(disk / "trash") for name in names] == [home / "0/0/stays"]
    assert homes.undeleted() == [f"{home}/0/0/stays: Operation not permitted"], (
        "and not the directories that it keeps"
    )
    monkeypatch.setattr(homes, "os", os)
    while homes.sweep(seconds=-1):
        pass
    assert homes.undeleted() == []


def test_a_home_that_comes_into_the_trash_while_it_is_swept_is_swept_too(disk: Path) -> None:
    directories(taken_away(disk))
    assert homes.sweep(seconds=-1)
    homes.prepare("p__play", home=True)
    (disk / "homes/p__play/letter").touch()
    homes.empty("p__play")
    while homes.sweep(seconds=-1):
        pass
    assert not (disk / "trash").exists()


def test_no_directory_is_held_open_once_the_disk_is_to_be_unmounted(disk: Path) -> None:
    a_tree_of_directories(taken_away(disk))

    def held() -> list[str]:
        paths = []
        for fd in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                paths.append(os.readlink(f"/proc/self/fd/{fd}"))
        return [path for path in paths if path.startswith(str(disk))]

    for _ in range(8):
        assert homes.sweep(seconds=-1)
    assert held()
    homes.stop_sweeping()
    assert not held()


def test_the_trash_is_a_directory_and_not_a_link_to_one(disk: Path) -> None:
    (disk / "precious").mkdir()
    (disk / "precious/file").touch()
    (disk / "trash").symlink_to(disk / "precious")
    assert not homes.sweep(seconds=5)
    assert (disk / "precious/file").exists()


def test_of_a_large_file_the_data_go_a_piece_at_a_time_and_a_file_of_holes_is_one_step(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(homes, "PIECE", 1 << 20)
    home = taken_away(disk)
    with (home / "dense").open("wb") as file:
        file.write(b"x" * (5 << 20))
    sizes = []
    while homes.sweep(seconds=-1):
        if (home / "dense").exists():
            sizes.append((home / "dense").stat().st_blocks * 512)
    freed = [before - after for before, after in itertools.pairwise(sizes)]
    assert max(freed) <= 2 << 20
    assert sizes[-1] <= 1 << 20
    home.mkdir(parents=True)
    with (home / "holes").open("wb") as file:
        file.truncate(1 << 43)
    calls = 1
    while homes.sweep(seconds=-1):
        calls += 1
    assert calls < 20


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
