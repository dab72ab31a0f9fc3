"""A copy of a home: equal in everything that GNU tar sees, and whatever lies in it, nothing is followed, waited for or opened that is no file."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import stat
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bay0.base.errors import RefusedError
from bay0.state import tree

ROOT = os.geteuid() == 0
WORDS = (
    "--acls", "--xattrs", "--xattrs-include=*", "--sparse", "--numeric-owner", "--sort=name", "--format=pax",
    "--pax-option=delete=atime,delete=ctime",
)  # fmt: skip
Entry = tuple[object, ...]


@contextlib.contextmanager
def opened(*paths: Path) -> Iterator[list[int]]:
    fds = [os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in paths]
    try:
        yield fds
    finally:
        for fd in fds:
            os.close(fd)


def copy(source: Path, look: Callable[[tree.Copy], None] = lambda _copy: None) -> tree.Copy:
    """Copy `source` to `copy` beside it."""
    target, links = source.parent / "copy", source.parent / "links"
    target.mkdir()
    links.mkdir()
    with opened(source, target, links) as (source_fd, target_fd, links_fd):
        made = tree.Copy(links_fd, look)
        try:
            made.tree(source_fd, target_fd)
        finally:
            tree.forget_links(links_fd)
    assert list(links.iterdir()) == []
    return made


def seen_by_tar(path: Path) -> list[Entry]:
    """What GNU tar finds in a tree: names, kinds, owners, modes, times, attributes, hard links, holes, contents."""
    data = subprocess.run(["tar", "-C", str(path), "-cf", "-", *WORDS, "."], capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(data)) as file:
        return [_entry(info, data) for info in file]


def _entry(info: tarfile.TarInfo, data: bytes) -> Entry:
    pieces = info.sparse
    taken = sum(size for _, size in pieces) if pieces is not None else info.size if info.isreg() else 0
    contents = data[info.offset_data : info.offset_data + taken]
    return (
        info.pax_headers.get("GNU.sparse.name", info.name), info.type, info.mode, info.uid, info.gid, info.size, info.mtime,
        info.linkname, info.devmajor, info.devminor, pieces,
        sorted((key, value) for key, value in info.pax_headers.items() if pieces is None or key != "path"),  # which has tar's pid in it
        contents,
    )  # fmt: skip


@pytest.fixture
def home(tmp_path: Path) -> Path:
    made = tmp_path / "home"
    made.mkdir()
    return made


def test_a_copy_is_what_gnu_tar_cannot_tell_from_it(home: Path) -> None:
    (home / "a").mkdir(mode=0o2750)
    (home / "a/file").write_bytes(b"hello" * 100_000)
    (home / "empty").touch(mode=0o400)
    (home / "run").write_text("#!/bin/sh\n")
    (home / "run").chmod(0o4755)
    os.link(home / "a/file", home / "again")
    os.link(home / "a/file", home / "a/third")
    (home / "link").symlink_to("/etc/shadow")
    os.link(home / "link", home / "link2", follow_symlinks=False)
    (home / "dangling").symlink_to("../../nowhere")
    os.mkfifo(home / "pipe", 0o620)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(home / "socket"))
    os.setxattr(home / "a/file", "user.colour", b"\0red")
    os.setxattr(home / "a", "user.of.a.directory", b"x" * 1000)
    (home / b"\xff\n name".decode(errors="surrogateescape")).write_text("odd")
    with (home / "holes").open("wb") as file:
        file.seek(3 << 20)
        file.write(b"x" * 5000)
        file.truncate(1 << 40)
    for path in home.rglob("*"):
        if ROOT:
            os.chown(path, 100_000 + len(path.name), 7, follow_symlinks=False)
    if ROOT:
        (home / "run").chmod(0o4755)
        os.mknod(home / "whiteout", stat.S_IFCHR, 0)
        os.setxattr(home / "run", "security.capability", b"\x01\x00\x00\x02\x00\x04\x00\x00" + bytes(12))
        os.setxattr(home / "link", "trusted.on.a.link", b"y", follow_symlinks=False)
    for number, path in enumerate(sorted(home.rglob("*"))):
        os.utime(path, ns=(10**18 + number, 10**18 + number * 7), follow_symlinks=False)
    os.utime(home, ns=(5, 1_234_567_890_123_456_789))
    home.chmod(0o1700)
    made = copy(home)
    assert made.entries == len(list(home.rglob("*")))
    # tar says of a socket that it ignores it
    assert stat.S_ISSOCK((home.parent / "copy/socket").stat().st_mode)
    assert seen_by_tar(home.parent / "copy") == seen_by_tar(home)
    assert (home.parent / "copy/holes").stat().st_blocks * 512 < 1 << 20


NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=8).filter(
    lambda name: name not in (".", "..") and len(name.encode()) < 100
)
MODES = st.integers(0, 0o7777).map(lambda mode: mode | 0o600)
LEAVES = st.one_of(
    st.tuples(st.just("file"), st.lists(st.tuples(st.integers(0, 64), st.binary(max_size=300)), max_size=3), MODES),
    st.tuples(st.just("link"), st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20), MODES),
    st.tuples(st.just("fifo"), st.none(), MODES),
    st.tuples(st.just("same"), st.integers(0, 5), MODES),
)
TREES = st.recursive(
    st.dictionaries(NAMES, LEAVES, max_size=5), lambda below: st.dictionaries(NAMES, st.one_of(LEAVES, below), max_size=5), max_leaves=25
)


def plant(folder: Path, wanted: dict, files: list[Path]) -> None:
    """Make what was drawn; a file is written at multiples of 64 KiB, so that it has holes."""
    for name, what in wanted.items():
        path = folder / name
        if isinstance(what, dict):
            path.mkdir()
            plant(path, what, files)
            continue
        kind, value, mode = what
        if kind == "file" or (kind == "same" and not files):
            with path.open("wb") as file:
                for at, data in value if kind == "file" else ():
                    file.seek(at << 16)
                    file.write(data)
            path.chmod(mode)
            os.setxattr(path, "user.mode", str(mode).encode())
            files.append(path)
        elif kind == "same":
            os.link(files[value % len(files)], path)
        elif kind == "link":
            path.symlink_to(value)
        else:
            os.mkfifo(path, mode)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(TREES)
def test_any_tree_is_copied_so_that_gnu_tar_sees_no_difference(tmp_path_factory: pytest.TempPathFactory, wanted: dict) -> None:
    home = tmp_path_factory.mktemp("tree") / "home"
    home.mkdir()
    plant(home, wanted, [])
    copy(home)
    assert seen_by_tar(home.parent / "copy") == seen_by_tar(home)


# ---- what a hostile home may hold


def test_a_link_is_never_followed_also_one_that_takes_the_place_of_a_directory_or_a_file(home: Path) -> None:
    outside = home.parent / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (home / "a").mkdir()
    (home / "b").write_text("mine")

    def swap(made: tree.Copy) -> None:
        if made.entries == 1:
            for name, to in (("a", outside), ("b", outside / "secret")):
                path = home / name
                path.rmdir() if path.is_dir() else path.unlink()
                path.symlink_to(to)

    copy(home, swap)
    found = {path.name: path for path in (home.parent / "copy").iterdir()}
    assert all(path.is_symlink() for path in found.values())
    assert (outside / "secret").read_text() == "secret"


def test_a_file_that_was_replaced_by_a_fifo_is_not_waited_for(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "b").write_text("mine")
    real = os.lstat

    def then_replaced(name: str, **where: int) -> os.stat_result:
        found = real(name, **where)
        if name == "b" and (home / "b").is_file():
            (home / "b").unlink()
            os.mkfifo(home / "b")
        return found

    monkeypatch.setattr(tree.os, "lstat", then_replaced)
    with pytest.raises(RefusedError, match="b: it was replaced while it was copied"):
        copy(home)


@pytest.mark.skipif(not ROOT, reason="only root makes device nodes")
def test_no_copy_is_made_of_a_device_node(home: Path) -> None:
    (home / "dev").mkdir()
    os.mknod(home / "dev/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    with pytest.raises(RefusedError, match="dev/null: it is a character device, and no copy is made of one: delete it first"):
        copy(home)


def test_a_tree_that_is_too_deep_is_refused_and_leaves_no_descriptor_open(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "DEPTH_MAX", 20)
    here = home
    for _ in range(20):
        here = here / "d"
        here.mkdir()
    before = len(os.listdir("/proc/self/fd"))
    copy(home)
    with opened(home) as (fd,):
        assert tree.measure(fd).entries == 20
        (here / "d").mkdir()
        with pytest.raises(RefusedError, match="more than 20 deep"):
            tree.measure(fd)
    (home.parent / "copy").rename(home.parent / "earlier")
    (home.parent / "links").rmdir()
    with pytest.raises(RefusedError, match="more than 20 deep"):
        copy(home)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_copy_can_be_ended_at_any_entry(home: Path) -> None:
    for number in range(5):
        (home / str(number)).write_text("x")

    def no_more(made: tree.Copy) -> None:
        if made.entries == 3:
            raise RefusedError("enough")

    with pytest.raises(RefusedError, match="enough"):
        copy(home, no_more)


def test_a_measure_counts_a_file_of_two_names_once_and_holes_not_at_all(home: Path) -> None:
    (home / "a").write_bytes(b"x" * (1 << 20))
    os.link(home / "a", home / "b")
    with (home / "holes").open("wb") as file:
        file.truncate(1 << 40)
    with opened(home) as (fd,):
        found = tree.measure(fd)
    assert found.entries == 3
    assert 1 << 20 <= found.bytes < 2 << 20


def test_where_the_kernel_cannot_copy_a_range_it_is_read_and_written(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "a").write_bytes(os.urandom(5 << 20))

    def cannot(*_: int) -> int:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(tree.os, "copy_file_range", cannot)
    copy(home)
    assert (home.parent / "copy/a").read_bytes() == (home / "a").read_bytes()
