"""The scripts that can be tried without a build and without root: what mkpersist.sh puts on a disk, and the base image's bytes."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.scripts
SCRIPTS = Path(__file__).parents[2] / "scripts"
SBIN = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in command], env=os.environ | {"PATH": SBIN}, capture_output=True, text=True, check=False, timeout=60)


needs_ext4 = pytest.mark.skipif(
    not all(shutil.which(tool, path=SBIN) for tool in ("mkfs.ext4", "debugfs", "e2fsck")), reason="e2fsprogs is not installed"
)


def archive(path: Path, member: str = "manifest.json", mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        info = tarfile.TarInfo(member)
        info.size = 2
        tar.addfile(info, io.BytesIO(b"[]"))
    return path


# ---- mkpersist.sh --image


@needs_ext4
def test_an_image_archive_lands_on_the_persist_disk_whole_and_belongs_to_root(tmp_path: Path) -> None:
    docker, oci = archive(tmp_path / "a.tar"), archive(tmp_path / "b.tar.gz", "./oci-layout", "w:gz")
    disk = tmp_path / "persist.img"
    made = run(SCRIPTS / "mkpersist.sh", "--size", "16M", "--image", docker, f"--image={oci}", disk)
    assert made.returncode == 0, made.stderr
    assert disk.stat().st_size == 16 << 20
    assert run("e2fsck", "-fn", disk).returncode == 0
    for path in ("/images", "/images/a.tar", "/images/b.tar.gz"):
        inode = run("debugfs", "-R", f"stat {path}", disk).stdout.split()
        assert (inode[inode.index("User:") + 1], inode[inode.index("Group:") + 1]) == ("0", "0"), path
        assert inode[inode.index("Mode:") + 1] == ("0755" if path == "/images" else "0644"), path
    run("debugfs", "-R", f"dump /images/a.tar {tmp_path}/back.tar", disk)
    assert (tmp_path / "back.tar").read_bytes() == docker.read_bytes()
    assert {entry.name for entry in tmp_path.iterdir()} == {"a.tar", "b.tar.gz", "persist.img", "back.tar"}, "nothing else is left behind"


@needs_ext4
def test_a_disk_without_images_has_no_folder_for_them(tmp_path: Path) -> None:
    assert run(SCRIPTS / "mkpersist.sh", "--size", "16M", tmp_path / "p.img").returncode == 0
    assert "images" not in run("debugfs", "-R", "ls /", tmp_path / "p.img").stdout


@needs_ext4
def test_what_is_no_image_archive_makes_no_disk(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "text.tar").write_text("no tar")
    big = tmp_path / "big.tar"
    archive(big).open("ab").write(os.urandom(17 << 20))
    cases = {
        "is no image archive": [tmp_path / "text.tar"],
        "no image archive: make one": [archive(tmp_path / "other.tar", "etc/passwd")],
        "there is no file": [tmp_path / "absent.tar"],
        "rename": [archive(tmp_path / "a b.tar")],
        "two images are called": [archive(tmp_path / "a.tar"), archive(tmp_path / "sub" / "a.tar")],
        "Do the images fit into 16M?": [big],
    }
    for reason, files in cases.items():
        made = run(SCRIPTS / "mkpersist.sh", "--size", "16M", *(f"--image={file}" for file in files), tmp_path / "p.img")
        assert made.returncode == 1, reason
        assert reason in made.stderr
        assert not list(tmp_path.glob("p.img*")), "nothing is left behind"


def features(disk: Path) -> set[str]:
    lines = run("dumpe2fs", "-h", disk).stdout.splitlines()
    return next(set(line.split()[2:]) for line in lines if line.startswith("Filesystem features:"))


@needs_ext4
def test_a_new_persist_disk_of_any_size_has_the_features_that_no_mounted_disk_can_get(tmp_path: Path) -> None:
    for size in ("16M", "700M"):
        assert run(SCRIPTS / "mkpersist.sh", "--force", "--size", size, tmp_path / "p.img").returncode == 0
        assert {"project", "quota", "encrypt", "has_journal"} <= features(tmp_path / "p.img")
        assert run("e2fsck", "-fn", tmp_path / "p.img").returncode == 0


# ---- mkpersist.sh --add


@needs_ext4
def test_a_disk_made_before_there_were_quotas_takes_archives_and_stays_as_it_is(tmp_path: Path) -> None:
    disk = tmp_path / "old.img"
    with open(disk, "wb") as file:
        file.truncate(16 << 20)
    run("mkfs.ext4", "-q", "-F", "-L", "SPINE-PERSIST", disk)
    had = features(disk)
    assert not {"project", "quota", "encrypt"} & had
    assert add(disk, archive(tmp_path / "a.tar")).returncode == 0
    assert features(disk) == had
    assert run("e2fsck", "-fn", disk).returncode == 0


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    made = tmp_path / "persist.img"
    assert run(SCRIPTS / "mkpersist.sh", "--size", "16M", made).returncode == 0
    return made


def add(disk: Path, *files: Path, words: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return run(SCRIPTS / "mkpersist.sh", *(f"--add={file}" for file in files), *words, disk)


def on_disk(disk: Path, path: str) -> bytes:
    return subprocess.run(["debugfs", "-R", f"cat {path}", str(disk)], capture_output=True, check=False, env=os.environ | {"PATH": SBIN}).stdout


@needs_ext4
def test_archives_are_added_to_a_disk_that_is_there_and_all_else_of_it_stays(tmp_path: Path, disk: Path) -> None:
    (tmp_path / "mine").write_text("kept")
    run("debugfs", "-w", "-R", f"write {tmp_path}/mine kept", disk)
    one, two = archive(tmp_path / "a.tar"), archive(tmp_path / "b.tar.gz", "./oci-layout", "w:gz")
    done = add(disk, one)
    assert done.returncode == 0, done.stderr
    assert "bay0 image load /persist/images/a.tar" in done.stdout + done.stderr
    assert add(disk, two).returncode == 0
    assert (on_disk(disk, "/images/a.tar"), on_disk(disk, "/images/b.tar.gz")) == (one.read_bytes(), two.read_bytes())
    assert on_disk(disk, "/kept") == b"kept"
    for path in ("/images", "/images/a.tar", "/images/b.tar.gz"):
        inode = run("debugfs", "-R", f"stat {path}", disk).stdout.split()
        assert (inode[inode.index("User:") + 1], inode[inode.index("Group:") + 1]) == ("0", "0"), path
        assert inode[inode.index("Mode:") + 1] == ("0755" if path == "/images" else "0644"), path
    assert run("e2fsck", "-fn", disk).returncode == 0


@needs_ext4
def test_an_archive_that_is_on_the_disk_is_replaced_only_by_force(tmp_path: Path, disk: Path) -> None:
    one = archive(tmp_path / "a.tar")
    assert add(disk, one).returncode == 0
    first = one.read_bytes()
    one.unlink()
    archive(one, "oci-layout")
    done = add(disk, one)
    assert (done.returncode, "--force replaces it" in done.stderr, on_disk(disk, "/images/a.tar")) == (1, True, first)
    assert add(disk, one, words=("--force",)).returncode == 0
    assert on_disk(disk, "/images/a.tar") == one.read_bytes()


@needs_ext4
def test_a_disk_in_use_not_ours_or_not_there_and_an_archive_that_does_not_fit_change_nothing(tmp_path: Path, disk: Path) -> None:
    one, big = archive(tmp_path / "a.tar"), archive(tmp_path / "big.tar")
    big.open("ab").write(os.urandom(17 << 20))
    other = tmp_path / "other.img"
    with open(other, "wb") as file:
        file.truncate(16 << 20)
    run("mkfs.ext4", "-q", "-F", "-L", "HOLIDAYS", other)
    unformatted = tmp_path / "zeroes.img"
    with open(unformatted, "wb") as file:
        file.truncate(16 << 20)
    for path, file_, reason in (
        (disk, big, "does not fit"), (other, one, "is no persist disk"), (unformatted, one, "is no persist disk"),
        (tmp_path / "absent.img", one, "there is no disk"), (disk, tmp_path / "absent.tar", "there is no file"), (tmp_path, one, "is a directory"),
    ):  # fmt: skip
        before = path.read_bytes() if path.is_file() else b""
        done = add(path, file_)
        assert (done.returncode, reason in done.stderr) == (1, True), (reason, done.stderr)
        assert done.stderr.count("\n") == 1
        assert (path.read_bytes() if path.is_file() else b"") == before
    before = disk.read_bytes()
    code = f"import fcntl; f = open({str(disk)!r}, 'r+b'); fcntl.lockf(f, fcntl.LOCK_SH, 1, 201); print(flush=True); input()"
    holder = [sys.executable, "-c", code]
    with subprocess.Popen(holder, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as using:  # a byte of those that QEMU locks
        assert using.stdout is not None
        using.stdout.readline()
        done = add(disk, one)
        using.communicate(b"\n")
    assert (done.returncode, "is in use" in done.stderr, disk.read_bytes() == before) == (1, True, True)
    assert run(SCRIPTS / "mkpersist.sh", f"--add={one}", "--size", "1G", disk).returncode == 2


@needs_ext4
def test_the_journal_of_a_spine_that_lost_its_power_is_replayed_before_an_archive_is_added(tmp_path: Path, disk: Path) -> None:
    (tmp_path / "mine").write_text("in the journal")
    run("debugfs", "-w", "-R", f"write {tmp_path}/mine kept", disk)
    script = "journal_open\njournal_write -b 3000 /dev/null\njournal_close\n"
    tool = ["debugfs", "-w", "-f", "-", str(disk)]
    subprocess.run(tool, input=script, capture_output=True, text=True, check=False, env=os.environ | {"PATH": SBIN})
    run("debugfs", "-w", "-R", "feature needs_recovery", disk)
    assert "needs_recovery" in run("dumpe2fs", "-h", disk).stdout
    done = add(disk, archive(tmp_path / "a.tar"))
    assert done.returncode == 0, done.stderr
    assert "needs_recovery" not in run("dumpe2fs", "-h", disk).stdout
    assert run("e2fsck", "-fn", disk).returncode == 0


# ---- mkpersona.sh


@pytest.mark.parametrize(
    ("arguments", "status", "reason"),
    [
        ([], 2, "say which directory"),
        (["absent"], 1, "no directory absent"),
        (["empty"], 1, "has no Containerfile"),
        (["--tag", "Hello", "hello"], 2, "localhost/NAME:TAG"),
        (["--tag", "docker.io/hello:1", "hello"], 2, "localhost/NAME:TAG"),
        (["--tag", "localhost/hello", "hello"], 2, "localhost/NAME:TAG"),
        (["-o", "precious", "hello"], 1, "is no image archive"),
        (["-o", "absent/x.tar", "hello"], 1, "does not exist"),
        (["--engine", "lxc", "hello"], 2, "podman or docker"),
        (["--engine"], 2, "needs a value"),
    ],
)
def test_mkpersona_says_what_is_wrong_before_it_builds(tmp_path: Path, arguments: list[str], status: int, reason: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "hello").mkdir()
    (tmp_path / "hello" / "Containerfile").write_text("FROM localhost/alpine:3.23\n")
    (tmp_path / "precious").write_text("not to be lost")
    made = subprocess.run([SCRIPTS / "mkpersona.sh", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert made.returncode == status
    assert reason in made.stderr
    assert (tmp_path / "precious").read_text() == "not to be lost"


def test_mkpersona_without_an_engine_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "hello").mkdir()
    (tmp_path / "hello" / "Containerfile").write_text("FROM localhost/alpine:3.23\n")
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("bash", "dirname", "basename", "tar", "sed", "grep"):
        (tools / tool).symlink_to(shutil.which(tool) or f"/bin/{tool}")
    made = subprocess.run(
        [SCRIPTS / "mkpersona.sh", "hello"], cwd=tmp_path, env={"PATH": str(tools)}, capture_output=True, text=True, check=False, timeout=60
    )
    assert made.returncode == 1
    assert "install" in made.stderr


# ---- mkimage.py: an Alpine root of a few files stands in for the real one


def root_of(top: Path, *, changed: bool = False) -> Path:
    files = {
        "bin/busybox": b"busybox", "etc/busybox-paths.d/busybox": b"bin/ls\nbin/busybox\n", "etc/passwd": b"root:x:0:0::/root:/bin/sh\n",
        "etc/hostname": b"localhost\n", "etc/shadow": b"root:*::0:::::\n",
    }  # fmt: skip
    for name, data in files.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    packages = run(SCRIPTS / "lib" / "mkimage.py", "--packages").stdout.split()
    records = {name: f"P:{name}\nV:1\n" for name in packages}
    for name, data in files.items():
        folder, _, base = name.rpartition("/")
        checksum = base64.b64encode(hashlib.sha1(data, usedforsecurity=False).digest()).decode()
        mode = "a:0:0:4755\n" if name == "bin/busybox" else ""
        records["busybox"] += f"F:{folder}\nR:{base}\n{mode}Z:Q1{checksum}\n"
    records["busybox"] += "F:tmp\nM:0:0:1777\n"
    (top / "lib/apk/db").mkdir(parents=True)
    (top / "lib/apk/db/installed").write_text("\n\n".join([*records.values(), "P:linux-virt\nV:1\nF:boot\nR:vmlinuz\n"]) + "\n\n")
    (top / "etc/apk").mkdir()
    (top / "etc/apk/repositories").write_text("")
    (top / "etc/apk/arch").write_text("x86_64\n")
    # what the machine did to it: an account, a name, another time and mode
    (top / "etc/passwd").write_bytes(files["etc/passwd"] + b"quicksand:x:1000:1000::/home/quicksand:/bin/sh\n")
    (top / "etc/hostname").write_bytes(b"" if not changed else b"x")
    (top / "bin/busybox").write_bytes(b"busybox" if not changed else b"changed")
    return top


def image(root: Path, out: Path, epoch: int = 1_700_000_000) -> subprocess.CompletedProcess[str]:
    return run(SCRIPTS / "lib" / "mkimage.py", "--name", "localhost/alpine:3.23", "--epoch", str(epoch), "--root", root, "--out", out)


def test_the_base_image_is_a_docker_archive_whose_digests_are_right(tmp_path: Path) -> None:
    assert image(root_of(tmp_path / "root"), tmp_path / "a.tar").returncode == 0
    with tarfile.open(tmp_path / "a.tar") as tar:
        members = {info.name: tar.extractfile(info).read() for info in tar}  # type: ignore[union-attr]
    (described,) = json.loads(members["manifest.json"])
    assert described["RepoTags"] == ["localhost/alpine:3.23"]
    layer, config = members[described["Layers"][0]], members[described["Config"]]
    assert described["Config"] == f"{hashlib.sha256(config).hexdigest()}.json"
    assert json.loads(config)["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(layer).hexdigest()}"]
    assert json.loads(config)["created"] == "2023-11-14T22:13:20Z"
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        entries = {info.name: info for info in tar}
        assert tar.extractfile("etc/passwd").read() == b"root:x:0:0::/root:/bin/sh\n", "the machine's own account is gone"  # type: ignore[union-attr]
    assert (entries["bin/busybox"].mode, entries["tmp"].mode) == (0o755, 0o1777), "setuid is dropped, sticky is kept"
    assert entries["bin/ls"].linkname == "/bin/busybox"
    assert not any(name.startswith("boot") for name in entries)
    assert {(info.uid, info.gid, info.uname, info.mtime) for info in entries.values()} == {(0, 0, "", 1_700_000_000)}


def test_the_same_root_gives_the_same_bytes_whatever_its_times_and_modes(tmp_path: Path) -> None:
    one, other = root_of(tmp_path / "one"), root_of(tmp_path / "other")
    for path in other.rglob("*"):
        os.utime(path, (5, 5))
        path.chmod(0o777)
    image(one, tmp_path / "1.tar")
    image(other, tmp_path / "2.tar")
    image(one, tmp_path / "3.tar", epoch=5)
    assert (tmp_path / "1.tar").read_bytes() == (tmp_path / "2.tar").read_bytes()
    assert (tmp_path / "1.tar").read_bytes() != (tmp_path / "3.tar").read_bytes()


def test_a_file_that_is_not_as_its_package_made_it_stops_the_build(tmp_path: Path) -> None:
    made = image(root_of(tmp_path / "root", changed=True), tmp_path / "a.tar")
    assert made.returncode == 1
    assert "/bin/busybox is not as its package made it" in made.stderr
    assert not (tmp_path / "a.tar").exists()
