"""genesis-flash.sh: what it makes, what it refuses without a byte written, and that an interruption leaves nothing half believed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import diskkit
import pytest
from diskkit import SCRIPTS, run
from diskkit import quick_digest as digest

from bay0.state import bootenv, slotfat

sys.path.insert(0, str(SCRIPTS / "lib"))
import mkuki
import slots
import target

FLASH = SCRIPTS / "genesis-flash.sh"
MIB = 1 << 20
ESP = SLOT = 40 * MIB  # the least that is a FAT32
SLOTA, SLOTB = MIB + ESP, MIB + ESP + SLOT  # where they begin
PERSIST = SLOTB + SLOT
SIZE = 200 * MIB
LOADER = diskkit.pe(3)
ONE_SLOT = MIB + ESP  # where /persist begins on a disk without slots
TOOLS = ("sgdisk", "mformat", "mcopy", "mke2fs", "e2fsck", "dumpe2fs")
pytestmark = [pytest.mark.scripts, pytest.mark.skipif(not diskkit.have(*TOOLS), reason="gdisk, mtools or e2fsprogs is not installed")]


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: what is written here is synced all the time."""
    if not os.access("/dev/shm", os.W_OK) or shutil.disk_usage("/dev/shm").free < 10 * SIZE:
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="genesis") as folder:
        yield Path(folder)


@pytest.fixture(autouse=True)
def _scratch(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the script makes beside the disk: one that is killed cannot take it away."""
    monkeypatch.setenv("TMPDIR", str(tmp_path_factory.mktemp("scratch")))


@pytest.fixture
def uki(tmp_path: Path) -> Path:
    parts = {".osrel": b"ID=x", ".cmdline": b"quiet", ".initrd": os.urandom(3 * MIB), ".linux": diskkit.kernel()}
    path = tmp_path / "spine.efi"
    path.write_bytes(mkuki.join(diskkit.pe(), parts))
    return path


def words(uki: Path, *options: str) -> list[str]:
    """Return genesis-flash.sh's words for a small disk; its loader is a stand-in, the real one is in test_bootenv_tools.py."""
    loader = uki.with_name("loader.efi")
    loader.write_bytes(LOADER)
    own = () if "--one-slot" in options else ("--slot", "40M", "--loader", str(loader))
    return [str(FLASH), "--uki", str(uki), "--esp", "40M", *own, *options]


def flash(uki: Path, where: Path | str, *options: str, **more: object) -> subprocess.CompletedProcess[str]:
    return run(*words(uki, *options), where, **more)


def content(disk: Path, at: int, path: str) -> bytes:
    """Return a file of a FAT."""
    return slots.read(str(disk), at, path)


def listed(disk: Path, at: int) -> set[str]:
    """Return all that a FAT holds."""
    environment = os.environ | {"PATH": diskkit.SBIN, "MTOOLS_SKIP_CHECK": "1", "MTOOLSRC": "/dev/null"}
    return set(run("mdir", "-b", "-/", "-i", f"{disk}@@{at}", "::/", env=environment).stdout.split())


def made(path: Path, uki: Path, watchdog_s: int = 0) -> list[str]:
    """Return what is wrong with a disk that should boot; nothing if it is whole."""
    wrong = []
    if "No problems found" not in run("sgdisk", "--verify", path).stdout:
        wrong.append("the table")
    found = [(part["number"], part["name"], part["start"], part["bytes"]) for part in target.partitions(str(path))]
    wanted = [(1, "SPINE-ESP", MIB, ESP), (2, "SLOTA", SLOTA, SLOT), (3, "SLOTB", SLOTB, SLOT)]
    if found != [*wanted, (4, "SPINE-PERSIST", PERSIST, path.stat().st_size - PERSIST - MIB)]:
        wrong.append(f"the partitions: {found}")
    if content(path, MIB, slots.ONE_SLOT) != LOADER or listed(path, MIB) != {"::/EFI/", "::/EFI/BOOT/", "::/EFI/BOOT/BOOTX64.EFI"}:
        wrong.append(f"the loader: {listed(path, MIB)}")
    for name, at, state in (("SLOTA", SLOTA, (bootenv.UState.OK, watchdog_s, 1)), ("SLOTB", SLOTB, (bootenv.UState.FAILED, 0, 0))):
        if content(path, at, "/spine.efi") != uki.read_bytes() or listed(path, at) != {"::/EFILABEL", "::/BGENV.DAT", "::/spine.efi"}:
            wrong.append(f"the UKI in {name}: {listed(path, at)}")
        env = slots.environment(content(path, at, "/BGENV.DAT"))
        if env != bootenv.BootEnv(f"C:{name}:spine.efi", "", False, *state) or content(path, at, "/EFILABEL").decode("utf-16-le") != name:
            wrong.append(f"the environment of {name}: {env}")
    return wrong + persist_wrong(path, PERSIST)


def persist_wrong(path: Path, at: int) -> list[str]:
    """Return what is wrong with the ext4 that begins at `at`."""
    header = run("dumpe2fs", "-h", f"{path}?offset={at}").stdout
    features = next((line.split()[2:] for line in header.splitlines() if line.startswith("Filesystem features")), [])
    lacking = {"project", "quota", "encrypt", "has_journal"} - set(features)
    whole = "SPINE-PERSIST" in header and run("e2fsck", "-fn", f"{path}?offset={at}").returncode == 0
    return ([] if whole else ["the ext4"]) + ([f"the ext4 has not {lacking}"] if lacking else [])


def test_an_image_file_becomes_a_disk_with_a_uki_and_persist_without_root(uki: Path, tmp_path: Path):
    disk = tmp_path / "disk.img"
    done = flash(uki, disk, "--size", "200M")
    assert done.returncode == 0, done.stderr
    assert (made(disk, uki), disk.stat().st_size) == ([], SIZE)
    assert stat.S_IMODE(disk.stat().st_mode) == 0o644
    assert re.findall(r"EF00|0700|8300", run("sgdisk", "-p", disk).stdout) == ["EF00", "0700", "0700", "8300"]
    listing = run("debugfs", "-R", "stat /", f"{disk}?offset={PERSIST}").stdout.split()
    assert (listing[listing.index("User:") + 1], listing[listing.index("Group:") + 1]) == ("0", "0")
    assert {path.name for path in tmp_path.iterdir()} == {"spine.efi", "loader.efi", "disk.img"}, "nothing else is left behind"
    assert re.search(r"\[ +\d+s\] reading back", done.stderr)


def test_without_slots_the_uki_is_what_the_firmware_starts(uki: Path, tmp_path: Path):
    disk = tmp_path / "disk.img"
    done = flash(uki, disk, "--size", "120M", "--one-slot")
    assert done.returncode == 0, done.stderr
    assert [(part["name"], part["start"]) for part in target.partitions(str(disk))] == [("SPINE-ESP", MIB), ("SPINE-PERSIST", ONE_SLOT)]
    assert content(disk, MIB, slots.ONE_SLOT) == uki.read_bytes()
    assert persist_wrong(disk, ONE_SLOT) == []
    assert slots.booted(str(disk)) == (MIB, slots.ONE_SLOT)
    done = flash(uki, disk, "--one-slot", "--watchdog", "150", "--yes-destroy", str(disk))
    assert (done.returncode, "--one-slot has no loader" in done.stderr) == (2, True), done.stderr


def test_the_watchdog_is_armed_for_the_slot_that_boots_if_it_is_asked_for(uki: Path, tmp_path: Path):
    disk = tmp_path / "disk.img"
    done = flash(uki, disk, "--size", "200M", "--watchdog", "150")
    assert done.returncode == 0, done.stderr
    assert made(disk, uki, watchdog_s=150) == []
    for seconds in ("119", "601", "1e3", "-1"):
        done = flash(uki, disk, "--watchdog", seconds, "--yes-destroy", str(disk))
        assert (done.returncode, "120 to 600 seconds" in done.stderr) == (2, True), done.stderr


def test_what_boots_next_is_the_slot_whose_valid_environment_has_the_highest_revision(uki: Path, disk: Path):
    assert flash(uki, disk, "--yes-destroy", str(disk)).returncode == 0
    assert slots.booted(str(disk)) == (SLOTA, "/spine.efi")
    newer = bootenv.encode(bootenv.BootEnv(bootenv.kernel_of("SLOTB"), ustate=bootenv.UState.INSTALLED, revision=2))
    for data, where in ((newer, SLOTB), (newer[:-1] + b"?", SLOTA), (newer[:-1], SLOTA)):
        Path(uki.parent, "BGENV.DAT").write_bytes(data)
        run("mcopy", "-n", "-o", "-i", f"{disk}@@{SLOTB}", uki.parent / "BGENV.DAT", "::/BGENV.DAT")
        assert slots.booted(str(disk)) == (where, "/spine.efi")


@pytest.mark.skipif(not diskkit.have("sbsign", "openssl"), reason="sbsigntool or openssl is not installed")
def test_a_signed_uki_wants_a_signed_loader_and_a_key_signs_it(uki: Path, disk: Path, tmp_path: Path):
    key, cert = str(tmp_path / "key"), str(tmp_path / "cert")
    run("openssl", "req", "-new", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x/", "-keyout", key, "-out", cert)
    assert run("sbsign", "--key", key, "--cert", cert, "--output", uki, uki).returncode == 0
    refused(uki, disk, "is signed and the loader is not")
    refused(uki, disk, "belong together", "--key", key)
    refused(uki, disk, "could not be signed", "--key", cert, "--cert", key)
    done = flash(uki, disk, "--key", key, "--cert", cert, "--yes-destroy", str(disk))
    assert done.returncode == 0, done.stderr
    (tmp_path / "seen.efi").write_bytes(content(disk, MIB, slots.ONE_SLOT))
    assert run("sbverify", "--cert", cert, tmp_path / "seen.efi").returncode == 0
    assert made(disk, uki)[0].startswith("the loader"), "which is another file now"


@pytest.mark.skipif(not diskkit.have("fsck.vfat"), reason="dosfstools is not installed")
def test_the_efi_partition_and_the_slots_are_clean_fat32s_of_their_own_size(uki: Path, tmp_path: Path):
    disk = tmp_path / "disk.img"
    assert flash(uki, disk, "--size", "200M").returncode == 0
    for at in (MIB, SLOTA, SLOTB):
        (tmp_path / "fat").write_bytes(disk.read_bytes()[at : at + ESP])
        checked = run("fsck.vfat", "-nv", tmp_path / "fat")
        assert checked.returncode == 0, checked.stdout
        assert "FATs, 32 bit entries" in checked.stdout
        assert f"{ESP // 512} sectors total" in checked.stdout


def test_a_slots_files_lie_one_behind_the_other_from_its_first_cluster_on(uki: Path, disk: Path):
    """So that what is written again, the environment, lies where it always lay."""
    assert flash(uki, disk, "--yes-destroy", str(disk)).returncode == 0
    data = disk.read_bytes()
    for name, at in (("SLOTA", SLOTA), ("SLOTB", SLOTB)):
        parts = (bootenv.label(name) + bytes(64), bootenv.kernel_of(name).encode("utf-16-le"), uki.read_bytes())
        label, env, kernel = (data.index(part, at) for part in parts)
        assert label < env < kernel < at + SLOT, "the UKI in one piece"
        assert (kernel - at) == slotfat.spine_at(slotfat.layout(SLOT)), "where an upgrade puts it, too"
        assert (env - at) % 4096 == (label - at) % 4096 == (kernel - at) % 4096 == 0


def test_the_same_again_gives_the_same_boot_partitions_and_a_new_persist_whatever_was_there(uki: Path, tmp_path: Path):
    disk = tmp_path / "disk.img"
    disk.write_bytes(os.urandom(SIZE))
    for _ in range(2):  # seconds apart
        done = flash(uki, disk, "--size", "200M", "--yes-destroy", str(disk))
        assert done.returncode == 0, done.stderr
        assert made(disk, uki) == []
    assert 'partition 4 "SPINE-PERSIST": 78.0 MiB' in done.stderr, "the second time says what the first one made"
    other = tmp_path / "other.img"
    assert flash(uki, other, "--size", "200M").returncode == 0
    for at in (MIB, SLOTA, SLOTB):
        written = other.read_bytes()[at : at + ESP].rstrip(b"\0")  # behind it lies what lay there before
        assert disk.read_bytes()[at : at + len(written)] == written


# ---- wrong targets: each refused, and not a byte of it written


def refused(uki: Path, where: Path | str, reason: str, *options: str, name: str | None = None) -> None:
    """Assert that a target is refused for a reason, in spite of --yes-destroy, and left as it was."""
    readable = os.path.exists(where) and (stat.S_ISREG(os.stat(where).st_mode) or stat.S_ISBLK(os.stat(where).st_mode))
    before = digest(where) if readable else None
    done = flash(uki, where, "--yes-destroy", name or str(where), *options)
    assert done.returncode in (1, 2), (reason, done.stderr)
    assert reason in done.stderr, done.stderr
    assert "taking the old partition table" not in done.stderr
    assert before is None or digest(where) == before, reason


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A disk image with something on it."""
    path = tmp_path / "disk.img"
    with open(path, "wb") as file:
        file.write(os.urandom(3 * MIB))
        file.truncate(SIZE)
    return path


def test_paths_that_are_no_disk_are_refused(uki: Path, disk: Path, tmp_path: Path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(disk)
    before = digest(disk)
    refused(uki, tmp_path, "is a directory")
    refused(uki, tmp_path / "absent", "A new image file takes --size")
    assert not (tmp_path / "absent").exists()
    refused(uki, tmp_path / "fifo", "neither a disk nor a file")
    refused(uki, "/dev/null", "neither a disk nor a file")
    refused(uki, tmp_path / "link", f"is a symbolic link to {disk}")
    refused(uki, "/dev/stdin", "is a symbolic link")
    assert digest(disk) == before


def test_files_that_are_too_small_protected_or_in_use_are_refused(uki: Path, disk: Path, tmp_path: Path):
    (tmp_path / "small.img").write_bytes(bytes(185 * MIB))
    refused(uki, tmp_path / "small.img", "is too small: 185.0 MiB, and 186.0 MiB are needed")
    (tmp_path / "odd.img").write_bytes(bytes(SIZE + 1))
    refused(uki, tmp_path / "odd.img", "whole number of sectors")
    refused(uki, disk, "exists and is not 230M large", "--size", "230M")
    disk.chmod(0o444)
    refused(uki, disk, "write-protected" if os.geteuid() == 0 else "cannot be opened for writing")
    disk.chmod(0o644)
    code = f"import fcntl, sys; f = open({str(disk)!r}, 'rb'); fcntl.lockf(f, fcntl.LOCK_SH); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        refused(uki, disk, "another program holds a lock on it, perhaps a VM")
        holder.communicate()
    with open(uki, "ab") as file:
        file.truncate(SIZE)
    refused(uki, uki, "is what would be written", "--slot", "250M")


def test_without_a_uki_that_is_one_and_fits_nothing_is_touched(uki: Path, disk: Path, tmp_path: Path):
    (tmp_path / "bare.efi").write_bytes(diskkit.pe())
    refused(tmp_path / "absent.efi", disk, "make it with scripts/package-efi.sh")
    refused(disk, disk, "is not a UKI")
    refused(tmp_path / "bare.efi", disk, "has no kernel in it")
    refused(uki, disk, "does not fit", "--slot", "41M", "--uki", str(big(tmp_path, uki)))
    refused(uki, disk, "at least 40M", "--esp", "39M")
    refused(uki, disk, "at least 40M", "--slot", "39M")
    refused(uki, disk, "whole megabytes", "--esp", "45678K")
    refused(uki, disk, "there is no loader at", "--loader", str(tmp_path / "absent.efi"))
    refused(uki, disk, "is no loader", "--loader", str(disk))


def big(tmp_path: Path, uki: Path) -> Path:
    path = tmp_path / "big.efi"
    path.write_bytes(uki.read_bytes() + bytes(38 * MIB))
    return path


def test_without_room_for_what_is_to_be_written_nothing_is_touched(uki: Path, disk: Path, tmp_path: Path):
    (tmp_path / "df").write_text("#!/bin/sh\nprintf 'head\\nnone 100000 89760 10240 90%% /\\n'\n")
    (tmp_path / "df").chmod(0o755)
    before = digest(disk)
    done = flash(uki, disk, "--yes-destroy", str(disk), env=os.environ | {"PATH": f"{tmp_path}:{diskkit.SBIN}"})
    assert (done.returncode, digest(disk)) == (1, before)
    assert "has 10 MB free, and 14 are needed: name another folder with TMPDIR" in done.stderr


def test_another_name_or_nobody_to_ask_destroys_nothing(uki: Path, disk: Path, tmp_path: Path):
    refused(uki, disk, f"--yes-destroy names /dev/sdz, the target is {disk}", name="/dev/sdz")
    before = digest(disk)
    done = flash(uki, disk)
    assert (done.returncode, digest(disk)) == (1, before)
    assert "nobody can be asked" in done.stderr
    done = flash(uki, disk, "--yes-destroy", str(disk), "--dry-run")
    assert (done.returncode, digest(disk)) == (0, before)
    assert "ALL OF THIS WILL BE DESTROYED" in done.stderr


@pytest.mark.parametrize(("typed", "taken"), [("PATH", True), ("yes", False), ("", False)])
def test_on_a_terminal_the_name_must_be_typed(uki: Path, disk: Path, typed: str, taken: bool):
    before = digest(disk)
    mine, theirs = pty.openpty()
    try:
        os.write(mine, (str(disk) if typed == "PATH" else typed).encode() + b"\n")
        done = flash(uki, disk, stdin=theirs)
    finally:
        os.close(mine)
        os.close(theirs)
    assert (done.returncode == 0) is taken, done.stderr
    assert (digest(disk) != before) is taken


def test_what_is_taken_into_use_while_the_question_waits_is_refused_all_the_same(uki: Path, disk: Path):
    before = digest(disk)
    mine, theirs = pty.openpty()
    argv = [*words(uki), str(disk)]
    with (
        open(disk, "rb") as used,
        subprocess.Popen(argv, env=os.environ | {"PATH": diskkit.SBIN}, stdin=theirs, stderr=subprocess.PIPE, text=True) as process,
    ):
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith(("    partition", "    no partitions")):
                break
        fcntl.lockf(used, fcntl.LOCK_SH)
        os.write(mine, str(disk).encode() + b"\n")
        said = process.stderr.read()
        assert process.wait(60) == 1
        os.close(mine)
        os.close(theirs)
    assert "another program holds a lock" in said
    assert digest(disk) == before


# ---- the pinned loader


def locked(tmp_path: Path, url: str, digest: str = "0" * 64) -> subprocess.CompletedProcess[str]:
    """Ask loader.sh for the loader, with a lock and a cache of the test's own."""
    (tmp_path / "loader.txt").write_text(f"# a comment\npackage {digest} {url}\nloader {'0' * 64} usr/lib/loader.efi\n")
    parts = " ".join(f'. "$LIB/{name}.sh";' for name in ("say", "inputs", "loader"))
    script = f"LIB={SCRIPTS}/lib; {parts} LOCK={tmp_path} CACHE={tmp_path}/cache; pinned_loader"
    return run("bash", "-euo", "pipefail", "-c", script, FLASH)


def test_a_loader_that_cannot_be_had_or_is_not_the_locked_one_is_never_kept(tmp_path: Path):
    (tmp_path / "x.deb").write_bytes(b"something else")
    done = locked(tmp_path, f"file://{tmp_path}/x.deb")
    assert (done.returncode, done.stdout) == (1, "")
    assert "is not what scripts/lock/loader.txt names: nothing was taken" in done.stderr
    done = locked(tmp_path, f"file://{tmp_path}/absent.deb")
    assert (done.returncode, "could not be downloaded" in done.stderr, "--loader" in done.stderr) == (1, True, True), done.stderr
    done = locked(tmp_path, f"file://{tmp_path}/x.deb", diskkit.digest(tmp_path / "x.deb"))
    assert (done.returncode, "cannot be unpacked" in done.stderr) == (1, True), done.stderr
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.skipif(not diskkit.have("dpkg-deb"), reason="dpkg is not installed")
def test_a_loader_that_was_changed_in_the_cache_is_refused(tmp_path: Path):
    (tmp_path / "tree/usr/lib").mkdir(parents=True)
    (tmp_path / "tree/usr/lib/loader.efi").write_bytes(b"changed")
    (tmp_path / "tree/DEBIAN").mkdir()
    (tmp_path / "tree/DEBIAN/control").write_text("Package: x\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: x\n")
    assert run("dpkg-deb", "-b", tmp_path / "tree", tmp_path / "x.deb").returncode == 0
    done = locked(tmp_path, f"file://{tmp_path}/x.deb", diskkit.digest(tmp_path / "x.deb"))
    assert (done.returncode, done.stdout) == (1, "")
    assert "is not the loader that scripts/lock/loader.txt names: delete" in done.stderr
    assert [path.name for path in (tmp_path / "cache").rglob("loader.efi")] == ["loader.efi"], "it was unpacked"


# ---- the same with real block devices; these need root and loop devices, and leave none behind

can_loop = os.geteuid() == 0 and os.path.exists("/dev/loop-control") and diskkit.have("losetup", "mkswap", "swapon")
needs_loop = pytest.mark.skipif(not can_loop, reason="needs root and loop devices")


@contextlib.contextmanager
def loop(path: Path | str, *options: str) -> Iterator[str]:
    done = run("losetup", "--find", "--show", *options, path)
    if done.returncode:
        pytest.skip(f"no loop device: {done.stderr}")
    device = done.stdout.strip()
    try:
        yield device
    finally:
        run("losetup", "--detach", device)


@needs_loop
def test_a_block_device_becomes_such_a_disk_too(uki: Path, disk: Path):
    with loop(disk) as device:
        done = flash(uki, device, "--yes-destroy", device)
        assert done.returncode == 0, done.stderr
        assert "ALL OF THIS WILL BE DESTROYED:\n    " + device in done.stderr
    assert made(disk, uki) == []


@needs_loop
def test_devices_that_are_in_use_are_refused(uki: Path, disk: Path, tmp_path: Path):
    with loop(disk, "--read-only") as device:
        refused(uki, device, "is read-only")
    with loop(disk) as device:
        refused(uki, disk, f"is in use by {device}")
        with loop(device) as upper:
            refused(uki, device, f"is in use by {upper}")
        with open(device, "rb") as file:
            held = os.open(device, os.O_RDONLY | os.O_EXCL)
            refused(uki, device, "the kernel does not give it to us alone")
            os.close(held)
            assert file.fileno() >= 0
        run("mkfs.ext4", "-q", "-F", device)
        (tmp_path / "mnt").mkdir()
        assert run("mount", "-o", "ro", device, tmp_path / "mnt").returncode == 0
        try:
            refused(uki, device, f"is mounted on {tmp_path / 'mnt'}")
        finally:
            run("umount", tmp_path / "mnt")
        run("mkswap", device)
        if run("swapon", device).returncode == 0:
            try:
                refused(uki, device, "is swap")
            finally:
                run("swapoff", device)


@pytest.mark.skipif(os.geteuid() != 0 or os.major(os.stat("/").st_dev) == 0, reason="needs root, and a root on a disk")
def test_the_disk_of_the_running_system_is_refused():
    number = f"{os.major(os.stat('/').st_dev)}:{os.minor(os.stat('/').st_dev)}"
    machine = target.Machine("/sys", "/proc")
    disk = f"/dev/{machine.disk_of(machine.name(number))}"
    if not os.path.exists(disk):
        pytest.skip(f"there is no {disk} here")
    # target.py alone: it never writes, so a mistake in it costs no machine
    done = run(sys.executable, SCRIPTS / "lib" / "target.py", "--lines", disk)
    assert (done.returncode, done.stdout.strip()) == (1, f"{disk} holds the system that is running")


# ---- and with machines that only sysfs and procfs tell of


class Machine:
    """A sysfs and a procfs, written by a test."""

    def __init__(self, folder: Path) -> None:
        self.sys, self.proc = folder / "sys", folder / "proc"
        for path in ("class/block", "dev/block", "devices"):
            (self.sys / path).mkdir(parents=True)
        (self.proc / "self").mkdir(parents=True)
        self.tell()

    def tell(self, mounts: str = "", swaps: str = "") -> None:
        (self.proc / "self/mountinfo").write_text(mounts)
        (self.proc / "swaps").write_text(f"Filename Type Size Used Priority\n{swaps}")

    def add(self, name: str, number: str, disk: str = "", **files: str) -> Path:
        entry = self.sys / "devices" / disk / name
        entry.mkdir(parents=True)
        facts = {"size": str(SIZE // 512), "ro": "0", "dev": number} | ({"partition": "1"} if disk else {"queue__logical_block_size": "512"}) | files
        for key, value in facts.items():
            path = entry / key.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(value + "\n")
        (entry / "holders").mkdir()
        (self.sys / "class/block" / name).symlink_to(entry)
        (self.sys / "dev/block" / number).symlink_to(entry)
        return entry

    def judge(self, path: Path, number: str) -> str:
        done = run(SCRIPTS / "lib/target.py", "--sys", self.sys, "--proc", self.proc, "--number", number, "--lines", path)
        return done.stdout if done.returncode else f"taken: {done.stdout}"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "machine")


def test_a_plain_disk_is_taken_and_told_by_its_model(machine: Machine, disk: Path):
    machine.add("sdb", "8:16", device__vendor="ACME", device__model="Stick 3000", removable="1")
    machine.add("sdb1", "8:17", "sdb")
    assert "200.0 MiB, ACME Stick 3000, removable" in machine.judge(disk, "8:16")


@pytest.mark.parametrize(
    ("name", "files", "reason"),
    [
        ("dm-0", {}, "belongs to the device mapper"),
        ("md127", {}, "is a RAID"),
        ("sr0", {}, "is an optical drive"),
        ("zram0", {}, "is compressed memory"),
        ("mmcblk0boot0", {}, "part of a flash chip"),
        ("sdb", {"size": "0"}, "holds no medium"),
        ("sdb", {"ro": "1"}, "is read-only"),
        ("sdb", {"queue__logical_block_size": "4096"}, "sectors of 4096 bytes"),
    ],
)
def test_devices_that_are_no_disk_to_write_are_refused(machine: Machine, disk: Path, name: str, files: dict[str, str], reason: str):
    machine.add(name, "8:16", **files)
    assert reason in machine.judge(disk, "8:16")


def test_a_partition_is_refused_and_its_disk_named(machine: Machine, disk: Path):
    machine.add("nvme0n1", "259:0")
    machine.add("nvme0n1p2", "259:2", "nvme0n1")
    assert "is a partition: name the whole disk, /dev/nvme0n1" in machine.judge(disk, "259:2")


def test_a_disk_is_refused_for_what_uses_a_partition_of_it(machine: Machine, disk: Path):
    machine.add("sdb", "8:16")
    part = machine.add("sdb1", "8:17", "sdb")
    machine.tell("30 1 8:17 / /media/my\\040stick rw - vfat /dev/sdb1 rw\n")
    assert "sdb1 is mounted on /media/my stick" in machine.judge(disk, "8:16")
    machine.tell("30 1 0:41 / /data rw - btrfs /dev/sdb1 rw\n")  # btrfs has a number of its own
    assert "sdb1 is mounted on /data" in machine.judge(disk, "8:16")
    machine.tell("30 1 8:17 / / rw - ext4 /dev/root rw\n")
    assert "holds the system that is running" in machine.judge(disk, "8:16")
    machine.tell(swaps="/dev/sdb1 partition 1048572 0 -2\n")
    assert "sdb1 is swap" in machine.judge(disk, "8:16")
    machine.tell()
    (part / "holders/dm-3").mkdir()
    assert "dm-3 stands on sdb1" in machine.judge(disk, "8:16")
    (part / "holders/dm-3").rmdir()
    assert "taken" in machine.judge(disk, "8:16")


def test_the_disk_below_an_encrypted_root_holds_the_running_system(machine: Machine, disk: Path):
    machine.add("sdb", "8:16")
    machine.add("sdb1", "8:17", "sdb")
    root = os.stat("/").st_dev
    upper = machine.add("dm-0", f"{os.major(root)}:{os.minor(root)}")
    (upper / "slaves/sdb1").mkdir(parents=True)
    assert "holds the system that is running" in machine.judge(disk, "8:16")


# ---- interrupted


@pytest.fixture
def shims(tmp_path: Path) -> Path:
    """Tools that count the calls that write, and kill everything after the one whose number is in STOP_AFTER."""
    folder = tmp_path / "shims"
    folder.mkdir()
    for tool in ("dd", "mke2fs", "sgdisk", "sync"):
        real = shutil.which(tool, path=diskkit.SBIN)
        path = folder / tool
        path.write_text(
            f'#!/bin/bash\n{real} "$@"; status=$?\n'
            'case "$*" in of=*|*" of="*|*SPINE-PERSIST*|/*) ;; *) exit $status ;; esac\n'
            'exec 9>>"$CALLS"; flock 9; echo . >&9\n'
            '[ "$(wc -l <"$CALLS")" -ne "$STOP_AFTER" ] || kill -KILL 0\n'
            "exit $status\n"
        )
        path.chmod(0o755)
    return folder


def interrupted(uki: Path, disk: Path, shims: Path, after: int) -> int:
    """Flash, and be killed with all children after so many calls of tools; return the status."""
    calls = shims / "calls"
    calls.unlink(missing_ok=True)
    environment = os.environ | {"PATH": f"{shims}:{diskkit.SBIN}", "CALLS": str(calls), "STOP_AFTER": str(after)}
    argv = [*words(uki), "--yes-destroy", str(disk), str(disk)]
    silent = subprocess.DEVNULL
    with subprocess.Popen(argv, env=environment, start_new_session=True, stdin=silent, stdout=silent, stderr=silent) as process:
        return process.wait(120)


def test_killed_after_any_tool_the_disk_is_all_old_or_all_new_or_nothing_on_it_is_believed(uki: Path, disk: Path, tmp_path: Path, shims: Path):
    old = tmp_path / "old.efi"
    old.write_bytes(mkuki.join(diskkit.pe(), {".linux": diskkit.kernel(), ".initrd": b"old"}))
    assert flash(old, disk, "--yes-destroy", str(disk)).returncode == 0
    run("cp", "--sparse=always", disk, tmp_path / "old.img")
    inside = slice(MIB, SIZE - MIB)
    before = disk.read_bytes()[inside]
    seen = []
    for after in range(1, 100):
        run("cp", "--sparse=always", tmp_path / "old.img", disk)
        status = interrupted(uki, disk, shims, after)
        if status == 0:
            break
        assert status == -signal.SIGKILL
        if target.partitions(str(disk)):
            seen.append("old" if disk.read_bytes()[inside] == before else "new")
            assert seen[-1] == "old" or made(disk, uki) == []
        else:
            seen.append("none")
            assert "Found valid GPT" not in run("sgdisk", "-p", disk).stdout, "nor has a tool something to repair it from"
            assert target.probe(str(disk), 0, 0) == {}
    assert sorted(set(seen), key=seen.index) == ["old", "none", "new"]
    assert seen == sorted(seen, key=["old", "none", "new"].index), "each comes once, in this order"
    assert made(disk, uki) == [], "and a run that is not interrupted mends it"


def test_a_new_image_that_is_interrupted_is_not_there(uki: Path, tmp_path: Path, shims: Path):
    disk = tmp_path / "new.img"
    environment = os.environ | {"PATH": f"{shims}:{diskkit.SBIN}", "CALLS": str(shims / "calls"), "STOP_AFTER": "0"}
    (shims / "mke2fs").write_text("#!/bin/bash\nsleep 60\n")
    with subprocess.Popen(
        [*words(uki), "--size", "200M", str(disk)],
        env=environment, start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        for line in process.stderr:
            if "making the ext4" in line:
                break
        time.sleep(0.2)
        os.killpg(process.pid, signal.SIGTERM)
        assert process.wait(30) == 143
        assert "has no partition table, nothing on it is believed" in process.stderr.read()
    assert not list(tmp_path.glob("new.img*"))
