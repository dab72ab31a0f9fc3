"""A file into a home and out of it, whatever its persona does there meanwhile."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from kit import until

from bay0.base.errors import RefusedError
from bay0.base.syscalls import open_in_root
from bay0.state import carry, staging

ROOT = os.geteuid() == 0


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(staging, "HOMES", str(tmp_path / "homes"))
    home = tmp_path / "homes/p__work"
    (home / "docs").mkdir(parents=True)
    (home / "docs/notes").write_text("mine")
    (tmp_path / "secret").write_text("not yours")
    return home


def fetched(path: str) -> bytes:
    out = io.BytesIO()
    assert carry.fetch("p__work", path, out) == len(out.getvalue())
    return out.getvalue()


def brought(path: str, data: bytes = b"new", called: str = "file", mode: int = 0o755) -> int:
    return carry.bring("p__work", path, io.BytesIO(data), called, mode)


def test_a_file_comes_out_by_its_path_in_the_home_and_by_links_within_it(home: Path) -> None:
    (home / "to").symlink_to("docs/notes")
    (home / "from-the-top").symlink_to("/docs/notes")
    assert fetched("docs/notes") == fetched("to") == fetched("from-the-top") == fetched("../../docs/notes") == b"mine"


@pytest.mark.parametrize("link", ["/etc/passwd", "../../secret", "../" * 40 + "etc/passwd", "/proc/self/environ"])
def test_a_link_that_leads_out_leads_nowhere(home: Path, link: str) -> None:
    (home / "out").symlink_to(link)
    (home / "up").symlink_to(os.path.dirname(link) or "/")
    with pytest.raises(FileNotFoundError):
        fetched("out")
    with pytest.raises(FileNotFoundError):
        fetched(f"up/{os.path.basename(link)}")
    assert brought("out") == 3, "the link itself is replaced"
    assert (home / "out").read_bytes() == b"new"
    assert not (home / "out").is_symlink()


def test_a_link_of_the_kernels_own_is_not_followed(home: Path) -> None:
    root = os.open("/", os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="symbolic link"):
            open_in_root(root, f"/proc/self/fd/{root}/etc/passwd", os.O_RDONLY)
        with pytest.raises(OSError, match="Invalid"):
            open_in_root(root, "a\0b", os.O_RDONLY)
    finally:
        os.close(root)


def test_what_is_no_file_is_refused_and_nobody_is_waited_for(home: Path) -> None:
    os.mkfifo(home / "pipe")
    for path in ("pipe", "docs", "."):
        with pytest.raises(RefusedError, match="is no file"):
            fetched(path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(home / "agent"))
        with pytest.raises(OSError, match="No such device"):
            fetched("agent")
    assert brought("pipe") == 3, "it is replaced, and nothing is written into it"
    assert stat.S_ISREG((home / "pipe").lstat().st_mode)


def test_what_is_brought_in_is_of_the_owner_of_its_folder_and_never_set_user_id(home: Path) -> None:
    if ROOT:
        os.chown(home / "docs", 1234, 1235)
    brought("docs/notes", b"theirs", mode=0o104755)
    brought("docs", b"by its own name", called="again")
    brought("docs/", b"by its own name", called="once more")
    assert (home / "docs/notes").read_bytes() == b"theirs"
    assert sorted(os.listdir(home / "docs")) == ["again", "notes", "once more"]
    found = (home / "docs/notes").stat()
    assert stat.S_IMODE(found.st_mode) == 0o755
    if ROOT:
        assert (found.st_uid, found.st_gid) == (1234, 1235)


@pytest.mark.parametrize("path", ["none/file", "docs/notes/file", "docs/..", "docs/none/", ".."])
def test_where_there_is_no_folder_or_no_name_nothing_is_made(home: Path, path: str) -> None:
    before = sorted(map(str, home.rglob("*")))
    with pytest.raises((OSError, RefusedError)):
        brought(path, called="")
    assert sorted(map(str, home.rglob("*"))) == before


def test_a_folder_is_not_replaced_and_nothing_is_left_beside_it(home: Path) -> None:
    (home / "docs/sub").mkdir()
    with pytest.raises(OSError, match="directory"):
        brought("docs", called="sub")
    assert sorted(os.listdir(home / "docs")) == ["notes", "sub"]


def test_what_fails_on_the_way_leaves_nothing_and_the_old_one_stays(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Breaks(io.BytesIO):
        def read(self, _most: int | None = -1) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        carry.bring("p__work", "docs/notes", Breaks(), "", 0o600)
    full: Any = os.statvfs_result((4096, 4096, 100, 1, 1, 100, 100, 100, 0, 255))
    monkeypatch.setattr(os, "fstatvfs", lambda _fd: full)
    with pytest.raises(RefusedError, match="no room: less than 64 MiB"):
        brought("docs/notes")
    assert os.listdir(home / "docs") == ["notes"]
    assert (home / "docs/notes").read_text() == "mine"


def test_a_home_that_is_not_there_or_has_no_user_yet_is_said(home: Path) -> None:
    with pytest.raises(RefusedError, match="start it once"):
        carry.fetch("p__idle", "x", io.BytesIO())
    home.chmod(0o1700)
    with pytest.raises(RefusedError, match="has no user yet"):
        brought("docs/notes")


SWAP = """
import os
while True:
    for old, new in (("docs", "kept"), ("link", "docs"), ("docs", "link"), ("kept", "docs")):
        os.rename(old, new)
"""


def test_while_its_persona_swaps_a_folder_for_a_link_nothing_outside_is_read_or_written(home: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "notes").write_text("not yours")
    (home / "link").symlink_to("../../outside")
    got = 0
    with subprocess.Popen([sys.executable, "-c", SWAP], cwd=home) as swapping:
        try:
            until(lambda: not (home / "docs").is_dir() or (home / "docs").is_symlink(), "the first swap")
            for _ in range(2000):
                with contextlib.suppress(OSError, RefusedError):
                    assert fetched("docs/notes") in (b"mine", b"new")
                    got += 1
                with contextlib.suppress(OSError, RefusedError):
                    brought("docs/notes")
        finally:
            swapping.kill()
    assert os.listdir(outside) == ["notes"]
    assert (outside / "notes").read_text() == "not yours"
    assert got, "and sometimes it went well"
