"""Archives of personas: as GNU tar reads them, there and back, hostile ones, and what PID 1 makes of one."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from attrs import evolve, fields
from copykit import Desk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from personakit import IMAGE, WORK, Bench

from bay0.base.errors import RefusedError
from bay0.machines.persona import S
from bay0.personas import grants
from bay0.personas.manifest import Manifest
from bay0.state import copier, export, homes, staging, tarstream, tree, unpack
from bay0.state.link import Answer
from bay0.state.tarstream import CHARACTER, FIFO, FOLDER, HARD, LINK, Member

ROOT = os.geteuid() == 0
ABOUT = {"name": "p://work", "manifest": {"image": IMAGE}, "taken": 7, "version": "0"}


# ---- there and back


def scan(top: Path) -> dict[str, Any]:
    """Return all that is to be the same of a tree, by our own eyes."""
    found: dict[str, Any] = {}
    names: dict[int, str] = {}
    for folder, folders, files in os.walk(top):
        folders.sort()  # the first name of a file with several is one of the order of the walk
        for name in [".", *sorted([*folders, *files])] if folder == str(top) else sorted([*folders, *files]):
            path = os.path.join(folder, name)
            seen = os.lstat(path)
            what: dict[str, Any] = {
                "mode": seen.st_mode, "owner": (seen.st_uid, seen.st_gid), "mtime": seen.st_mtime_ns,
                "attributes": {each: os.getxattr(path, each, follow_symlinks=False) for each in os.listxattr(path, follow_symlinks=False)},
            }  # fmt: skip
            if stat.S_ISREG(seen.st_mode):
                data = Path(path).read_bytes()
                what["data"] = (len(data), hashlib.sha256(data).hexdigest())
            if stat.S_ISLNK(seen.st_mode):
                what["link"] = os.readlink(path)
            if seen.st_nlink > 1 and not stat.S_ISDIR(seen.st_mode):
                what["same as"] = names.setdefault(seen.st_ino, os.path.relpath(path, top))
            found[os.path.relpath(path, top)] = what
    return found


def packed(home: Path | None, about: dict[str, Any] = ABOUT) -> bytes:
    out = io.BytesIO()
    writer = tarstream.Writer(out.write)
    made = export.Export(writer)
    fd = None if home is None else os.open(home, os.O_RDONLY | os.O_DIRECTORY)
    try:
        made.about(about, fd)
        if fd is not None:
            made.home(fd)
    finally:
        if fd is not None:
            os.close(fd)
    writer.end()
    assert (made.entries, made.bytes) == (made.wanted.entries, made.wanted.bytes), "it says in front what there will be"
    return out.getvalue()


def unpacked(data: bytes, into: Path, meter: Any = None) -> unpack.Unpack:
    into.mkdir()
    reader = tarstream.Reader(io.BytesIO(data).read)
    told = unpack.about(reader)
    fd = os.open(into, os.O_RDONLY | os.O_DIRECTORY)
    try:
        meter = meter or SimpleNamespace(look=lambda _far: None)
        made = unpack.Unpack(reader, fd, tree.Size(told["entries"], told["bytes"]), meter)
        made.all()
    finally:
        os.close(fd)
    return made


NAMES = st.binary(min_size=1, max_size=30).filter(lambda name: not set(name) & {0, ord("/")} and name not in (b".", b".."))
LONG = st.sampled_from([b"x" * 255, b"\xff" * 200, "\u00e4".encode() * 100, b"a\nb", b" ", b"-rf", b"=", b"%3D", b"\\"])
TIMES = st.integers(-(2**31), 2**33).flatmap(lambda s: st.integers(0, 999_999_999).map(lambda ns: s * 10**9 + ns))
ATTRIBUTES = st.dictionaries(st.sampled_from(["user.a", "user.b=c", "user.%25", "user.\u00e4"]), st.binary(max_size=300), max_size=2)
THING = st.fixed_dictionaries(
    {
        "name": NAMES | LONG, "kind": st.sampled_from(["file", "file", "holes", "folder", "link", "fifo", "hard"]), "mode": st.integers(0, 0o7777),
        "data": st.binary(max_size=3000), "mtime": TIMES, "owner": st.tuples(*[st.integers(0, 70_000)] * 2), "attributes": ATTRIBUTES,
        "into": st.integers(0, 5), "link": NAMES | st.just(b"/etc/shadow") | st.just(b"../" * 300),
    }
)  # fmt: skip


def plant(top: Path, things: list[dict[str, Any]]) -> None:
    """Make a tree of what was drawn; what cannot be is left out."""
    folders, made = [os.fsencode(top)], []
    late = []
    for each in things:
        path = folders[each["into"] % len(folders)] + b"/" + each["name"]
        if os.path.lexists(path) or len(path) > 3900:
            continue
        if each["kind"] == "folder":
            os.mkdir(path)
            folders.append(path)
        elif each["kind"] == "link":
            os.symlink(each["link"], path)
        elif each["kind"] == "fifo":
            os.mkfifo(path)
        elif each["kind"] == "hard" and made:
            os.link(made[-1], path, follow_symlinks=False)
            continue
        else:
            with open(path, "wb") as file:
                for part in range(3 if each["kind"] == "holes" else 1):
                    file.seek(part * 300_000)
                    file.write(each["data"])
                file.truncate(max(len(each["data"]), 700_000 if each["kind"] == "holes" else 0))
            made.append(path)
        late.append((path, each))
    for path, each in reversed(late):  # what is in a folder changes its times
        link = stat.S_ISLNK(os.lstat(path).st_mode)
        if ROOT:
            os.chown(path, *each["owner"], follow_symlinks=False)
        if not link:
            os.chmod(path, each["mode"])
        if each["kind"] in ("file", "holes", "folder"):
            for name, value in each["attributes"].items():
                os.setxattr(path, name, value)
        os.utime(path, ns=(0, each["mtime"]), follow_symlinks=False)


GNU_TAR = ["tar", "--xattrs", "--xattrs-include=*", "-xpf", "-", "--warning=no-timestamp"]


@pytest.mark.skipif(not ROOT, reason="owners and modes of all kinds are root's to give")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
@given(things=st.lists(THING, max_size=12))
def test_what_is_exported_is_the_same_read_by_gnu_tar_and_by_us(tmp_path: Path, things: list[dict[str, Any]]) -> None:
    for name in os.listdir(tmp_path):
        shutil.rmtree(tmp_path / name)
    home, theirs, ours = tmp_path / "home", tmp_path / "theirs", tmp_path / "ours"
    home.mkdir()
    theirs.mkdir()
    plant(home, things)
    wanted, data = scan(home), packed(home)
    subprocess.run(GNU_TAR, cwd=theirs, input=data, check=True, capture_output=True)
    assert scan(theirs / "home") == wanted
    unpacked(data, ours)
    assert scan(ours) == wanted
    for path, what in wanted.items():
        if what.get("data", (0,))[0] >= 700_000:
            assert (ours / path).lstat().st_blocks * 512 <= (home / path).lstat().st_blocks * 512 + 8192, "holes stay holes"


def test_a_file_that_is_all_hole_takes_nothing_however_large(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with open(home / "huge", "wb") as file:
        file.truncate(1 << 42)
    data = packed(home)
    assert len(data) < 10_000
    unpacked(data, tmp_path / "ours")
    found = (tmp_path / "ours/huge").stat()
    assert (found.st_size, found.st_blocks) == (1 << 42, 0)


def test_a_file_with_more_holes_than_an_archive_tells_of_has_the_same_contents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tarstream, "PIECES_MAX", 4)
    home = tmp_path / "home"
    home.mkdir()
    with open(home / "comb", "wb") as file:
        for tooth in range(10):
            file.seek(tooth * 100_000)
            file.write(b"%d" % tooth)
    unpacked(packed(home), tmp_path / "ours")
    assert (tmp_path / "ours/comb").read_bytes() == (home / "comb").read_bytes()


def test_a_persona_that_never_ran_has_an_archive_without_a_home(tmp_path: Path) -> None:
    data = packed(None)
    assert unpacked(data, tmp_path / "ours").entries == 0
    assert os.listdir(tmp_path / "ours") == []


def test_sockets_are_left_out_and_nobody_waits_for_a_pipe(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    os.mkfifo(home / "pipe")
    (home / "notes").write_text("mine")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(home / "agent"))
        unpacked(packed(home), tmp_path / "ours")
    assert sorted(os.listdir(tmp_path / "ours")) == ["notes", "pipe"]


@pytest.mark.skipif(not ROOT, reason="a device is root's to make")
def test_a_device_is_refused_by_name_and_a_whiteout_is_not(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    os.mknod(home / "gone", stat.S_IFCHR, 0)
    unpacked(packed(home), tmp_path / "ours")
    assert (tmp_path / "ours/gone").lstat().st_rdev == 0
    os.mknod(home / "disk", stat.S_IFBLK, os.makedev(254, 0))
    with pytest.raises(RefusedError, match="home/disk: it is a block device"):
        packed(home)


def test_attributes_that_only_root_sets_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "listxattr", lambda *_a, **_k: ["trusted.overlay.opaque", "security.selinux", "user.mine", "security.capability"])
    monkeypatch.setattr(os, "getxattr", lambda _of, name, **_k: name.encode())
    assert sorted(export._attributes(3)) == ["security.capability", "user.mine"]


# ---- hostile archives


def archive(*members: Member | bytes, entries: int = 100, size: int = 1 << 20, **about: Any) -> bytes:
    """Write an archive of any members; bytes are the contents of the member before."""
    out = io.BytesIO()
    writer = tarstream.Writer(out.write)
    text = json.dumps({"format": 1, **ABOUT, "entries": entries, "bytes": size, "room": 0, "home": True, **about}).encode()
    for each in (Member(export.ABOUT, size=len(text)), text, *members):
        if isinstance(each, Member):
            last = each
            writer.member(each)
        else:
            writer.data(each)
            writer.pad(last)
    writer.end()
    return out.getvalue()


HOME = Member(b"home", kind=FOLDER, mode=0o700)
HOSTILE: dict[str, tuple[list[Member | bytes], str]] = {
    "a path upwards": ([HOME, Member(b"home/..", kind=FOLDER)], "is no name of a file"),
    "a file upwards": ([HOME, Member(b"home/../evil", size=1), b"x"], "does not come in the order of a tree"),
    "a whole path": ([HOME, Member(b"/evil", size=1), b"x"], "does not come in the order"),
    "outside of the home": ([HOME, Member(b"evil", size=1), b"x"], "does not come in the order"),
    "through a link": ([HOME, Member(b"home/l", kind=LINK, link=b"/tmp"), Member(b"home/l/evil", size=1), b"x"], "does not come in the order"),
    "over a link": ([HOME, Member(b"home/l", kind=LINK, link=b"/tmp/evil"), Member(b"home/l", size=1), b"x"], "File exists"),
    "a folder over a link": ([HOME, Member(b"home/l", kind=LINK, link=b"/tmp"), Member(b"home/l", kind=FOLDER)], "File exists"),
    "a name of a file outside": ([HOME, Member(b"home/h", kind=HARD, link=b"/etc/passwd")], "which is elsewhere"),
    "a name of a file upwards": ([HOME, Member(b"home/h", kind=HARD, link=b"home/../../x")], "is no name of a file"),
    "a name through a link": (
        [HOME, Member(b"home/l", kind=LINK, link=b"/etc"), Member(b"home/h", kind=HARD, link=b"home/l/passwd")], "Not a directory",
    ),
    "a name of nothing": ([HOME, Member(b"home/h", kind=HARD, link=b"home/none")], "No such file"),
    "a name of a folder": ([HOME, Member(b"home/d", kind=FOLDER), Member(b"home/h", kind=HARD, link=b"home/d")], "ermi"),
    "twice the same": ([HOME, Member(b"home/f"), Member(b"home/f")], "File exists"),
    "no home": ([Member(b"home", size=1), b"x"], "its home is no directory"),
    "another top": ([Member(b"house", kind=FOLDER)], "its home is no directory"),
    "an empty name": ([HOME, Member(b"home/")], "is no name of a file"),
    "a point": ([HOME, Member(b"home/.", kind=FOLDER)], "is no name of a file"),
    "a NUL": ([HOME, Member(b"home/a\0b")], "is no name of a file"),
    "a NUL in a link": ([HOME, Member(b"home/l", kind=LINK, link=b"a\0b")], "a link that is none"),
    "a long name": ([HOME, Member(b"home/" + b"x" * 256)], "is no name of a file"),
    "a strange attribute": ([HOME, Member(b"home/f", attributes={"trusted.overlay.redirect": b"/"})], "the attribute"),
    "an owner that is none": ([HOME, Member(b"home/f", uid=(1 << 32) - 1)], "the owner 4294967295"),
    "a home within another": ([HOME, Member(b"home/a", kind=FOLDER), Member(b"home/b"), Member(b"home/a/c")], "does not come in the order"),
}


@pytest.mark.skipif(not ROOT, reason="as it is unpacked")
@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_archive_is_refused_and_makes_nothing_elsewhere(tmp_path: Path, what: str) -> None:
    members, why = HOSTILE[what]
    (tmp_path / "secret").mkdir()
    before = scan(tmp_path / "secret"), set(os.listdir(tmp_path)), set(os.listdir("/tmp")), os.stat("/etc/passwd").st_nlink
    data = archive(*members)
    with pytest.raises((RefusedError, OSError), match=why):
        unpacked(data, tmp_path / "ours")
    shutil.rmtree(tmp_path / "ours")
    assert (scan(tmp_path / "secret"), set(os.listdir(tmp_path)), os.stat("/etc/passwd").st_nlink) == (before[0], before[1], before[3])
    assert "evil" not in os.listdir("/tmp")


@pytest.mark.skipif(not ROOT, reason="owners are root's to give")
def test_a_set_user_id_program_and_what_else_there_is_comes_as_it_was_and_a_device_never_does(tmp_path: Path) -> None:
    inside = [Member(b"home/su", mode=0o4755, size=1), b"x", Member(b"home/gone", kind=CHARACTER), Member(b"home/pipe", kind=FIFO, mode=0o622)]
    data = bytearray(archive(HOME, *inside))
    at = data.index(b"home/gone", data.index(b"home/gone") + 1) if data.count(b"home/gone") > 1 else data.index(b"home/gone")
    head = at - at % 512
    data[head + 329 : head + 337] = b"0000001\0"  # a device of its own in the header: /dev/mem
    text = bytes(data[head : head + 148]) + b" " * 8 + bytes(data[head + 156 : head + 512])
    data[head + 148 : head + 156] = b"%06o\0 " % sum(text)
    data = bytearray(_summed(bytes(data)))
    unpacked(bytes(data), tmp_path / "ours")
    assert stat.S_IMODE((tmp_path / "ours/su").stat().st_mode) == 0o4755
    assert (tmp_path / "ours/gone").lstat().st_rdev == 0


def _summed(data: bytes) -> bytes:
    """Put the right checksum into an archive that was changed: whoever makes one can."""
    end = data.rindex(b"sha256:")
    head = end - 512
    return data[:end] + b"sha256:" + hashlib.sha256(data[:head]).hexdigest().encode() + data[end + 71 :]


@pytest.mark.parametrize(
    ("about", "why"),
    [({"entries": 1}, "more than the 1 entries"), ({"size": 3}, "other contents than the 3 bytes"), ({"format": 2}, "a newer one wrote it")],
)
def test_no_more_is_taken_than_it_says(tmp_path: Path, about: dict[str, Any], why: str) -> None:
    data = archive(HOME, Member(b"home/a"), Member(b"home/b", size=4), b"1234", **about)
    with pytest.raises(RefusedError, match=why):
        unpacked(data, tmp_path / "ours")


def test_each_byte_that_is_changed_and_each_end_that_comes_early_is_seen(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "notes").write_text("mine")
    (home / "out").symlink_to("/etc/shadow")
    data = packed(home)
    trailer = data.rindex(b"sha256:") + 72
    for at in range(0, trailer, 7):
        with pytest.raises((RefusedError, OSError)):
            unpacked(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], tmp_path / f"changed{at}")
    for at in range(0, trailer, 101):
        with pytest.raises(RefusedError, match="ends early"):
            unpacked(data[:at], tmp_path / f"short{at}")


@given(st.binary(max_size=4000), st.integers(0, 3000))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_noise_is_refused_and_never_read_for_long(noise: bytes, at: int) -> None:
    good = archive(HOME, Member(b"home/a", size=4), b"1234")
    reader = tarstream.Reader(io.BytesIO(good[:at] + noise).read)
    with pytest.raises(RefusedError):
        while reader.next() is not None:
            pass
    assert reader.at <= at + len(noise)


def test_an_extended_header_that_claims_gigabytes_is_refused_before_it_is_read() -> None:
    head = tarstream._header(b"x", b"x", (1 << 33) - 1)
    reader = tarstream.Reader(io.BytesIO(head + bytes(1 << 20)).read)
    with pytest.raises(RefusedError, match="an extended header of 8589934591 bytes"):
        reader.next()
    assert reader.at == 512


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (b"2\n0\n5\n3\n5\n", "do not follow each other"), (b"1\n0\n400\n", "not as large as it says"), (b"9999999\n", "are not told"),
        (b"x\n", "are not told"), (b"1" * 600, "are not told"), (b"1\n999999999999\n10\n", "not as large as it says"),
    ],
)  # fmt: skip
def test_pieces_that_make_no_sense_are_refused(lines: bytes, why: str) -> None:
    out = io.BytesIO()
    writer = tarstream.Writer(out.write)
    text = lines + bytes(-len(lines) % 512)
    member = Member(b"home/f", size=1000, pieces=[(0, 10)])
    writer.member(member)
    data = out.getvalue().replace(b"1\n0\n10\n".ljust(512, b"\0"), text)
    if len(text) > 512:
        head = data.index(b"ustar", 1024) - 257
        block = bytearray(data[head : head + 512])
        block[124:136] = b"%011o\0" % (10 + len(text))
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
        data = data[:head] + bytes(block) + data[head + 512 :]
    with pytest.raises(RefusedError, match=why):
        tarstream.Reader(io.BytesIO(data + bytes(1024)).read).next()


def test_a_tree_that_is_too_deep_is_refused(tmp_path: Path) -> None:
    members = [Member(b"home" + b"/d" * depth, kind=FOLDER) for depth in range(1, tree.DEPTH_MAX + 2)]
    with pytest.raises(RefusedError, match="more than 1000 deep"):
        unpacked(archive(HOME, *members, entries=2000), tmp_path / "ours")
    subprocess.run(["rm", "-rf", str(tmp_path / "ours")], check=True)


# ---- the process


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for module in (staging, copier, homes, unpack):
        for name in ("HOMES", "SNAPSHOTS", "STAGING", "TRASH"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, str(tmp_path / name.lower()))
    (tmp_path / "homes").mkdir()
    return tmp_path


def test_the_process_makes_the_home_and_says_what_or_why_not(disk: Path) -> None:
    """As PID 1 starts it, but for the paths."""
    (disk / "home").mkdir()
    (disk / "home/notes").write_text("mine")
    (disk / "work.tar").write_bytes(packed(disk / "home"))
    code = (
        "import sys; from bay0.state import unpack\n"
        f"unpack.STAGING = {str(disk / 'staging')!r}\n"
        "sys.exit(unpack.main(sys.argv[1:]))"
    )

    def run(path: Path) -> subprocess.CompletedProcess[str]:
        staging.begin_anew("p__new")
        words = json.dumps({"archive": str(path), "name": "p__new", "progress": str(disk / "progress")})
        return subprocess.run([sys.executable, "-c", code, words], capture_output=True, text=True, check=False, timeout=60)

    assert json.loads(run(disk / "work.tar").stdout) == {"entries": 1, "bytes": 4, "home": True}
    assert staging.place("p__new")
    assert (disk / "homes/p__new/notes").read_text() == "mine"
    os.mkfifo(disk / "pipe")
    assert "is no file" in run(disk / "pipe").stderr, "nobody writes to it, and it is not waited for"
    (disk / "half.tar").write_bytes((disk / "work.tar").read_bytes()[:2000])
    again = run(disk / "half.tar")
    assert (again.returncode, again.stdout) == (1, "")
    assert "it ends early" in again.stderr
    (disk / "none.tar").write_bytes(packed(None))
    assert json.loads(run(disk / "none.tar").stdout) == {"entries": 0, "bytes": 0, "home": False}
    assert staging.place("p__new2")
    assert not (disk / "homes/p__new2").exists()


def test_there_is_room_before_anything_is_unpacked(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (disk / "work.tar").write_bytes(archive(HOME, room=900 << 20))
    staging.begin_anew("p__new")
    monkeypatch.setattr(copier, "_free", lambda _place: (20 << 20, 1 << 20))
    with pytest.raises(RefusedError, match="no room: it takes 964 MiB, and 20 MiB are free"):
        unpack.unpack(unpack.Job(str(disk / "work.tar"), "p__new", str(disk / "progress")))


# ---- PID 1's end


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    bench = Bench(monkeypatch)
    return Desk(bench)


def bring(desk: Desk, manifest: dict[str, Any], seconds: float = 1, **params: Any) -> list[Any]:
    answers: list[Any] = []
    try:
        desk.copies.bring({"name": "p://new", "archive": "/x/work.tar", "manifest": manifest, **params}, answers.append)
    except RefusedError as refusal:
        answers.append(refusal)
    desk.bench.timers.advance(seconds)
    return answers


def test_a_persona_is_made_of_an_archive(desk: Desk) -> None:
    answers = bring(desk, {"image": IMAGE, "memory": 64 << 20})
    assert desk.now("p://new") is S.COPYING
    (job, _, _), = desk.jobs
    assert (job["archive"], job["name"]) == ("/x/work.tar", "p__new")
    assert ("staging_begin_anew", {"name": "p__new"}) in desk.bench.state.asked
    desk.ends()
    assert (answers[0]["state"], answers[0]["copied"]["entries"]) == ("stopped", 7)
    assert [step.event for step in desk.bench.journal.steps if step.machine == "p://new"] == ["import", "copied", "placed"]


def test_one_whose_archive_is_not_whole_is_not_there(desk: Desk) -> None:
    answers = bring(desk, {"image": IMAGE})
    desk.ends(1, "", "the archive is not as `bay0 persona export` wrote it, at byte 9: it ends early\n")
    assert "there is no p://new" in str(answers[0])
    assert "it ends early" in str(answers[0])
    assert desk.now("p://new") is None


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"ai": True}, "a way to the AI"), ({"screen": True}, "windows on the screen"), ({"userns": True}, "namespaces of its own"),
        ({"capabilities": ["CHOWN"]}, "the capabilities CHOWN"), ({"autostart": True}, "a start with the machine"),
        ({"behind": "run"}, "running on behind others"), ({"network": "net"}, "a network, to every public address and names"),
    ],
)  # fmt: skip
def test_what_it_asks_for_is_named_and_not_given_unless_it_is_accepted(desk: Desk, keys: dict[str, Any], words: str) -> None:
    manifest = {"image": IMAGE, **keys}
    for accept in ({}, {"accept": False}, {"accept": "yes"}, {"accept": 1}):
        answers = bring(desk, manifest, **accept)
        assert words in str(answers[0])
        assert "--accept" in str(answers[0])
    assert (desk.jobs, desk.now("p://new")) == ([], None)
    bring(desk, manifest, accept=True)
    assert desk.now("p://new") is S.COPYING


def test_each_key_of_a_manifest_is_either_a_grant_or_known_to_be_none() -> None:
    """A new key is to be looked at here, and put into grants.py if it gives anything."""
    harmless = {"image", "command", "environment", "home", "memory", "cpus", "pids", "user", "restart", "retries", "stop_s", "description"}
    given = {"network", "allow", "lan", "dns", "nf_tables_risk", "capabilities", "ai", "screen", "userns", "autostart", "behind"}
    assert {each.name for each in fields(Manifest)} == harmless | given
    plain = Manifest(image=IMAGE)
    assert grants.asked(plain) == []
    for key, value in {"capabilities": ("CHOWN",), "ai": True, "screen": True, "userns": True, "autostart": True, "behind": "run"}.items():
        assert len(grants.asked(evolve(plain, **{key: value}))) == 1
    for keys, words in (
        ({}, "a network, to every public address and names"), ({"dns": False}, "a network, to every public address"),
        ({"lan": True}, "a network, to every address, private ones too and names"),
        ({"allow": ("203.0.113.0/24:443/tcp",), "dns": False}, "a network, to 203.0.113.0/24:443/tcp"),
    ):
        assert grants.asked(evolve(plain, network="net", **keys)) == [words]
    both = grants.asked(evolve(plain, network="net", userns=True, nf_tables_risk=True))
    assert [words for words in both if "packet filter" in words] != []


def test_a_home_that_is_kept_under_its_name_is_in_the_way(desk: Desk) -> None:
    desk.bench.state.answers["home_is_free"] = Answer(value=False)
    assert "a home of p://new is kept on the disk" in str(bring(desk, {"image": IMAGE})[0])


@pytest.mark.parametrize("path", ["work.tar", 7, None])
def test_an_archive_is_a_whole_path(desk: Desk, path: Any) -> None:
    assert "the whole path of a file" in str(bring(desk, {"image": IMAGE}, archive=path)[0])
    assert WORK not in desk.bench.engine.instances


