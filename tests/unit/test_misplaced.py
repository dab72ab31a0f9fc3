"""A disk that somebody else has prepared: whatever is where a file or a directory belongs, nothing hangs or is lost.

The real worker in a process of its own. A socket's timeout stands for "it hangs": it is far beyond anything that the
worker does here.
"""

from __future__ import annotations

import os
import shutil
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_state_worker import Peer, step

ROOT = os.geteuid() == 0
PRECIOUS = "what somebody else keeps\n"


class Disk:
    """A /persist with somebody else's file and directory on it, and others beside it."""

    def __init__(self, top: Path, beside: Path) -> None:
        self.top, self.beside = top, beside
        for place in (top, beside):
            (place / "victims").mkdir()
            for name in ("victim", "victims/file"):
                (place / name).write_text(PRECIOUS)
                (place / name).chmod(0o644)

    def untouched(self) -> bool:
        """Nothing of somebody else's was written to, added to or taken away."""
        for place in (self.top, self.beside):
            names = ("victim", "victims/file")
            if any((place / name).read_text() != PRECIOUS for name in names) or os.listdir(
                place / "victims"
            ) != ["file"]:
                return False
        return not (self.beside / "nothing").exists()


def _file(path: Path, text: str = "something\n") -> None:
    path.write_text(text)


def _directory(path: Path, _disk: Disk) -> None:
    path.mkdir()
    _file(path / "file")


def _socket(path: Path, _disk: Disk) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # a name of a socket may have 107 characters
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def _closed(path: Path, _disk: Disk) -> None:
    _file(path)
    path.chmod(0)


def _closed_directory(path: Path, _disk: Disk) -> None:
    path.mkdir()
    path.chmod(0)


Make = Callable[[Path, Disk], object]
ANYWHERE: dict[str, Make] = {
    "a FIFO": lambda path, _disk: os.mkfifo(path),
    "a socket": _socket,
    "a character device": lambda path, _disk: os.mknod(
        path, 0o666 | stat.S_IFCHR, os.makedev(1, 5)
    ),  # /dev/zero
    "a block device": lambda path, _disk: os.mknod(
        path, 0o666 | stat.S_IFBLK, os.makedev(250, 250)
    ),  # none is there
    "a link to a file": lambda path, disk: path.symlink_to(disk.top / "victim"),
    "a link to a file elsewhere": lambda path, disk: path.symlink_to(disk.beside / "victim"),
    "a link to a directory": lambda path, disk: path.symlink_to(disk.top / "victims"),
    "a link to a directory elsewhere": lambda path, disk: path.symlink_to(disk.beside / "victims"),
    "a link to nothing": lambda path, disk: path.symlink_to(disk.beside / "nothing"),
    "a link to itself": lambda path, _disk: path.symlink_to(path),
}
FOR_A_FILE: dict[str, Make] = {
    **ANYWHERE,
    "a directory": _directory,
    "a file of mode 000": _closed,
    "a file with another name": lambda path, disk: os.link(disk.top / "victim", path),
}
FOR_A_DIRECTORY: dict[str, Make] = {
    **ANYWHERE,
    "a file": lambda path, _disk: _file(path),
    "a directory of mode 000": _closed_directory,
}
RIGHT = ("a file of mode 000", "a directory of mode 000")  # root opens them
WRONG_FILES = [name for name in FOR_A_FILE if name not in (*RIGHT, "a file with another name")]
WRONG_DIRECTORIES = [name for name in FOR_A_DIRECTORY if name not in RIGHT]
LOG = "logs/p__x.log"
WRITTEN_IN_PLACE = (
    "spine/genesis.log",
    "spine/alive",
    "spine/validate.marker",
    LOG,
    f"{LOG}.tmp",
    "spine/time.new",
    "spine/seed.new",
)
REPLACED = ("spine/time", "spine/seed", "spine/genesis.log.1")
MADE_ANEW = (
    "logs",
    "containers",
    "containers/storage",
    "containers/libpod",
    "containers/volumes",
    "containers/tmp",
    "spine/trash",
)
DATABASE = ("spine/state.db", "spine/state.db-wal", "spine/state.db-shm", "spine/state.db-journal")
ARCHIVES = ("images/spine-ai.tar", "images/mine.tar")


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Peer]]:
    """One worker for all cases: it must survive each of them."""
    made: list[Peer] = []
    yield made
    for peer in made:
        peer.ours.close()
        peer.process.kill()
        peer.process.wait()


def _answers(peer: Peer) -> bool:
    """Tell whether the worker can go on after the last case."""
    try:
        peer.ok("close")
    except (OSError, AssertionError, ValueError):
        peer.process.kill()
        return False
    return True


@pytest.fixture
def peer(workers: list[Peer], tmp_path_factory: pytest.TempPathFactory) -> Peer:
    if not workers or not _answers(workers[-1]):
        workers.append(Peer(tmp_path_factory.mktemp("persist")))
    found = workers[-1]
    for path in found.top.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    return found


@pytest.fixture
def disk(peer: Peer, tmp_path: Path) -> Disk:
    return Disk(peer.top, tmp_path)


def put(disk: Disk, where: str, make: Make) -> Path:
    """Put a thing in the place of a file on a disk that has been used."""
    path = disk.top / where
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        make(path, disk)
    except PermissionError:
        pytest.skip("only root may make a device")
    return path


def boot(peer: Peer) -> list[dict[str, Any]]:
    """Ask what a boot with a persona asks, in its order; each of it has to be done. Return what was in the way."""
    peer.said.clear()
    assert peer.ok("time_load")["read"], "nothing would ever be saved over a time that could not be read"
    peer.ready()
    peer.ok("seed_use", trust=True)
    peer.ok("containers_prepare")
    peer.ok("commit", steps=[step(1)], full=True)
    peer.ok("genesis", lines=["durable"])
    assert peer.ok("seed_renew")["written"]
    peer.ok("time_save", seconds=1_800_000_000)
    peer.ok("probe", text="b1 1")
    peer.ok("persona_prepare", name="p__x", home=True)
    assert peer.ok("validate_marker", text="b1")
    assert peer.ok("validate_log", line="validate")
    peer.ok("home_empty", name="p__y")
    peer.ok("trash_sweep")
    assert peer.ok("farewell", seconds=1_800_000_001)["failed"] == []
    return list(peer.said)


def kind(path: Path) -> int:
    return stat.S_IFMT(os.lstat(path).st_mode)


# ---- files and directories that can be made anew


@pytest.mark.parametrize("thing", FOR_A_FILE)
@pytest.mark.parametrize("where", [*WRITTEN_IN_PLACE, *REPLACED])
def test_whatever_is_where_a_file_belongs_is_set_aside_and_named(
    peer: Peer, disk: Disk, where: str, thing: str
) -> None:
    if where.endswith(".1"):  # so that it is written to
        (disk.top / "spine").mkdir()
        (disk.top / "spine/genesis.log").write_bytes(b"x" * (1 << 20))
    path = put(disk, where, FOR_A_FILE[thing])
    was = kind(path)
    said = boot(peer)
    assert disk.untouched()
    assert not path.exists() or path.is_file()
    if thing in RIGHT or (
        thing == "a file with another name" and where in REPLACED
    ):  # whose other name is not written to
        assert said == []
        return
    beside = path.with_name(f"{path.name}.set-aside")
    assert kind(beside) == was, "it may hold something, and is kept"
    assert [(each["path"], each["now"]) for each in said] == [(str(path), str(beside))]
    assert boot(peer) == [], "the next boot has nothing to say"


@pytest.mark.parametrize("thing", FOR_A_DIRECTORY)
@pytest.mark.parametrize("where", MADE_ANEW)
def test_whatever_is_where_a_directory_belongs_that_can_be_made_anew_is_set_aside_and_named(
    peer: Peer, disk: Disk, where: str, thing: str
) -> None:
    path = put(disk, where, FOR_A_DIRECTORY[thing])
    was = kind(path)
    if where == "spine/trash":
        (disk.top / "homes/p__y").mkdir(parents=True)
    said = boot(peer)
    assert disk.untouched()
    assert path.is_dir() or where == "spine/trash"  # which is gone when it is empty
    if thing in RIGHT:
        assert said == []
        return
    beside = path.with_name(f"{path.name}.set-aside")
    assert kind(beside) == was
    assert [(each["path"], each["now"]) for each in said] == [(str(path), str(beside))]


def test_what_was_set_aside_before_is_not_written_over(peer: Peer, disk: Disk) -> None:
    path = put(disk, "spine/genesis.log", _directory)
    _file(path.with_name("genesis.log.set-aside"), "the first")
    assert [each["now"] for each in boot(peer)] == [f"{path}.set-aside.2"]
    assert path.with_name("genesis.log.set-aside").read_text() == "the first"


def test_the_trash_as_a_link_to_the_homes_empties_no_home(peer: Peer, disk: Disk) -> None:
    (disk.top / "homes/p__a").mkdir(parents=True)
    _file(disk.top / "homes/p__a/letter", "dear")
    put(disk, "spine/trash", lambda path, disk: path.symlink_to(disk.top / "homes"))
    peer.ready()
    while peer.ok("trash_sweep"):
        pass
    assert (disk.top / "homes/p__a/letter").read_text() == "dear"


def test_directories_of_ours_are_for_nobody_else_to_write_in(peer: Peer, disk: Disk) -> None:
    names = ("spine", "logs", "homes", "containers", "containers/tmp")
    for name in names:
        (disk.top / name).mkdir()
        (disk.top / name).chmod(0o777)
    assert boot(peer) == []
    assert [name for name in names if (disk.top / name).stat().st_mode & 0o022] == []


def test_directories_that_podman_made_too_narrow_let_containers_pass(peer: Peer, disk: Disk) -> None:
    """It makes one that it misses for root alone; a container's root is not ours."""
    names = ("containers", "containers/tmp", "containers/storage")
    for name in names:
        (disk.top / name).mkdir(mode=0o700)
    assert boot(peer) == []
    assert [oct((disk.top / name).stat().st_mode & 0o777) for name in names] == ["0o711"] * 3


# ---- what holds somebody's data: named, and left as it is


@pytest.mark.parametrize("thing", WRONG_FILES)
@pytest.mark.parametrize("where", DATABASE)
def test_a_database_that_is_no_file_is_named_and_left_and_all_else_goes_on(
    peer: Peer, disk: Disk, where: str, thing: str
) -> None:
    path = put(disk, where, FOR_A_FILE[thing])
    before = os.lstat(path)
    error = peer.error("open")
    assert error["code"] == "misplaced"
    assert str(path) in error["message"]
    assert "bay0 storage retry" in error["message"]
    after = os.lstat(path)
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    assert disk.untouched()
    assert peer.ok("time_load")["read"]
    assert peer.ok("persona_prepare", name="p__x", home=True)


@pytest.mark.parametrize("thing", WRONG_DIRECTORIES)
def test_the_spines_own_directory_that_is_none_is_named_and_nothing_is_read_or_written_through_it(
    peer: Peer, disk: Disk, thing: str
) -> None:
    path = put(disk, "spine", FOR_A_DIRECTORY[thing])
    found = peer.ok("time_load")
    assert (found["read"], found["seconds"]) == (False, None)
    error = peer.error("open")
    assert (error["code"], str(path) in error["message"]) == ("misplaced", True)
    for op, arguments in (
        ("genesis", {"lines": ["x"]}),
        ("probe", {"text": "x"}),
        ("time_save", {"seconds": 1}),
        ("validate_marker", {"text": "x"}),
    ):
        assert peer.error(op, **arguments)["code"] == "misplaced"
    assert not peer.ok("seed_use", trust=True)["mixed"]
    assert peer.ok("trash_sweep") is False
    assert disk.untouched()


@pytest.mark.parametrize("thing", WRONG_DIRECTORIES)
@pytest.mark.parametrize("where", ["homes", "homes/p__x"])
def test_a_home_that_is_none_is_refused_and_left(peer: Peer, disk: Disk, where: str, thing: str) -> None:
    peer.ready()
    path = put(disk, where, FOR_A_DIRECTORY[thing])
    error = peer.error("persona_prepare", name="p__x", home=True)
    assert (error["code"], str(path) in error["message"]) == ("misplaced", True)
    assert os.path.lexists(path)
    assert disk.untouched()
    assert peer.ok("persona_prepare", name="p__x", home=False) is False, "one without a home is prepared, and has no new home"


def test_a_home_that_is_a_link_to_another_personas_is_never_given(peer: Peer, disk: Disk) -> None:
    peer.ready()
    peer.ok("persona_prepare", name="p__a", home=True)
    _file(disk.top / "homes/p__a/letter", "dear")
    put(disk, "homes/p__b", lambda path, disk: path.symlink_to(disk.top / "homes/p__a"))
    assert "p__b is a symbolic link" in peer.error("persona_prepare", name="p__b", home=True)["message"]
    peer.ok("home_empty", name="p__b")
    while peer.ok("trash_sweep"):
        pass
    assert (disk.top / "homes/p__a/letter").read_text() == "dear", "to empty the link empties nobody's home"
    assert peer.ok("persona_prepare", name="p__b", home=True)
    assert os.listdir(disk.top / "homes/p__b") == []


# ---- archives and models, which are only read


@pytest.mark.parametrize("thing", WRONG_FILES)
@pytest.mark.parametrize("where", ARCHIVES)
def test_an_archive_that_is_no_file_is_named_and_not_used(
    peer: Peer, disk: Disk, where: str, thing: str
) -> None:
    path = put(disk, where, FOR_A_FILE[thing])
    peer.said.clear()
    assert peer.ok("ai_archive") is None
    named = [each["path"] for each in peer.said]
    assert named == ([str(path)] if where.endswith("spine-ai.tar") else [])
    assert str(path) in peer.ok("image_archive", path=str(path))
    assert os.path.lexists(path)


@pytest.mark.parametrize("thing", WRONG_DIRECTORIES)
def test_archives_in_a_directory_that_is_none_are_not_used(peer: Peer, disk: Disk, thing: str) -> None:
    for place in (disk.top, disk.beside):
        _file(place / "victims/spine-ai.tar")
    path = put(disk, "images", FOR_A_DIRECTORY[thing])
    assert peer.ok("ai_archive") is None
    assert str(path) in peer.ok("image_archive", path=f"{path}/spine-ai.tar")


def test_an_archive_is_used(peer: Peer, disk: Disk) -> None:
    path = put(disk, "images/spine-ai.tar", lambda path, _disk: _file(path))
    assert peer.ok("ai_archive") == str(path)
    assert peer.ok("image_archive", path=str(path)) == ""
    assert "no such file" in peer.ok("image_archive", path=f"{path}.not").lower()


@pytest.mark.parametrize("thing", WRONG_FILES)
def test_a_model_that_is_no_file_is_said_to_be_none(peer: Peer, disk: Disk, thing: str) -> None:
    path = put(disk, "models/m.gguf", FOR_A_FILE[thing])
    assert str(path) in peer.ok("ai_model", path=str(path))["why"]


# ---- what cannot even be set aside, or replaced


@pytest.mark.parametrize("where", ["time", "seed"])
def test_a_file_that_cannot_be_replaced_is_named_and_no_fault_of_the_disk(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bay0.state import files

    def refuse(*_names: str) -> None:
        raise PermissionError(1, "Operation not permitted")  # as of a file that is immutable (chattr(1))

    (tmp_path / where).write_text("old")
    monkeypatch.setattr(files.os, "replace", refuse)
    with pytest.raises(files.MisplacedError, match=rf"{where} is a file that may not be replaced.*lsattr"):
        files.replace(str(tmp_path / where), b"new")
    assert (tmp_path / where).read_text() == "old"


def test_a_genesis_log_that_cannot_be_begun_anew_is_named_and_no_fault_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bay0.state import files, genesis

    def refuse(*_names: str) -> None:
        raise PermissionError(1, "Operation not permitted")  # as of a file that may only be appended to (chattr(1))

    log = tmp_path / "genesis.log"
    log.write_text("old\n")
    monkeypatch.setattr(files.os, "replace", refuse)
    with pytest.raises(files.MisplacedError, match=r"genesis\.log is a file that may not be replaced.*lsattr"):
        genesis.append(str(log), ["new"], limit=4)
    assert log.read_text() == "old\n"


@pytest.mark.parametrize("where", [*WRITTEN_IN_PLACE[:3], "spine/time", "spine/seed"])
def test_what_cannot_be_set_aside_is_an_error_that_names_it_and_no_fault_of_the_disk(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bay0.state import files, worker

    def refuse(*_names: str) -> None:
        raise PermissionError(1, "Operation not permitted")  # as of a file that is immutable (chattr(1))

    for name in ("GENESIS", "ALIVE", "MARKER", "TIME", "SEED"):
        monkeypatch.setattr(worker, name, getattr(worker, name).replace("/persist", str(tmp_path)))
    monkeypatch.setattr(files.os, "rename", refuse)
    (tmp_path / where).mkdir(parents=True)
    ops: dict[str, dict[str, Any]] = {
        "spine/genesis.log": {"op": "genesis", "lines": ["x"]},
        "spine/alive": {"op": "probe", "text": "x"},
        "spine/validate.marker": {"op": "validate_marker", "text": "x"},
        "spine/time": {"op": "time_save", "seconds": 1},
        "spine/seed": {"op": "seed_renew"},
    }
    error = worker.answer({"id": 1, **ops[where]})["error"]
    assert error["code"] == "misplaced"
    assert str(tmp_path / where) in error["message"]
