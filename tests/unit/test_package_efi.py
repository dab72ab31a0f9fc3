"""package-efi.sh on stand-ins for stub, kernel and image; that a firmware starts the real ones is shown in tests/vm/test_vm_efi.py."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import diskkit
import pytest
from diskkit import SCRIPTS, run

pytestmark = pytest.mark.scripts
IMAGE = b"070701 not really an image" * 1000
OS_RELEASE = """NAME="Alpine-Spline"
ID=alpine-spline
VERSION_ID=9.8.7
VARIANT_ID=registry-vm
BUILD_ID=0123456789abcdef
ARCHITECTURE=x86-64
BAY0_SCHEMA=3
BAY0_BUILT="2026-11-30T21:17:03Z"
"""
needs_signing = pytest.mark.skipif(not diskkit.have("sbsign", "sbverify", "openssl"), reason="sbsigntool or openssl is not installed")


class Bench:
    """A folder with inputs, and the script run on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        (folder / "stub").write_bytes(diskkit.pe())
        (folder / "vmlinuz").write_bytes(diskkit.kernel())
        (folder / "spine.img").write_bytes(IMAGE)
        self.describe()
        self.out = folder / "spine.efi"

    def describe(self) -> None:
        artifacts = {name: {"sha256": diskkit.digest(self.folder / name)} for name in ("vmlinuz", "spine.img")}
        (self.folder / "manifest").write_text(json.dumps({"os_release": OS_RELEASE, "artifacts": artifacts}))

    def pack(self, *more: str) -> subprocess.CompletedProcess[str]:
        here = self.folder
        inputs = ["--stub", here / "stub", "--kernel", here / "vmlinuz", "--image", here / "spine.img", "--manifest", here / "manifest"]
        return run(SCRIPTS / "package-efi.sh", *inputs, "--output", self.out, *more)

    def shown(self) -> dict[str, object]:
        return json.loads(run(SCRIPTS / "package-efi.sh", "--show", self.out).stdout)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "one")


def test_a_uki_holds_kernel_image_words_and_names_unchanged(bench: Bench):
    assert bench.pack("--append", "bay0.patience=5").returncode == 0
    shown = bench.shown()
    assert str(shown["cmdline"]).startswith("console=tty0 console=ttyS0,115200 ")
    assert str(shown["cmdline"]).endswith(" bay0.patience=5")
    assert (shown["kernel"], shown["signed"]) == ("6.18.56-0-virt", False)
    sections = shown["sections"]
    assert isinstance(sections, dict)
    assert sections[".linux"]["sha256"] == diskkit.digest(bench.folder / "vmlinuz")
    assert sections[".initrd"]["sha256"] == hashlib.sha256(IMAGE).hexdigest()
    assert b"VERSION_ID=9.8.7\n" in bench.out.read_bytes()
    assert json.loads(Path(f"{bench.out}.json").read_text()) == shown
    assert sorted(path.name for path in bench.folder.glob("spine.efi*")) == ["spine.efi", "spine.efi.json"], "nothing else is left behind"


@pytest.mark.skipif(not diskkit.have("objcopy"), reason="binutils is not installed")
def test_another_tool_reads_the_same_sections(bench: Bench):
    assert bench.pack().returncode == 0
    for section, file in ((".linux", "vmlinuz"), (".initrd", "spine.img")):
        assert run("objcopy", "-O", "binary", "--only-section", section, bench.out, bench.folder / "back").returncode == 0
        assert (bench.folder / "back").read_bytes() == (bench.folder / file).read_bytes()


def test_the_same_inputs_give_the_same_bytes_in_any_folder_at_any_time(bench: Bench, tmp_path: Path):
    other = Bench(tmp_path / "another place")
    for name in ("stub", "vmlinuz", "spine.img", "manifest"):
        os.utime(other.folder / name, (5, 5))
    assert bench.pack().returncode == other.pack().returncode == 0
    assert bench.out.read_bytes() == other.out.read_bytes()
    before = bench.out.read_bytes()
    assert bench.pack("--append", "quiet").returncode == 0
    assert bench.out.read_bytes() != before


def test_microcode_comes_first_in_the_initramfs_and_nothing_else_passes_for_it(bench: Bench):
    early = b"070701" + bytes(104) + b"kernel/x86/microcode/GenuineIntel.bin\0" + bytes(201)
    (bench.folder / "ucode").write_bytes(early)
    assert bench.pack("--microcode", str(bench.folder / "ucode")).returncode == 0
    data = bench.out.read_bytes()
    assert data.index(early) < data.index(IMAGE)
    refused = bench.pack("--microcode", str(bench.folder / "spine.img"))
    assert refused.returncode == 1
    assert "is no microcode image" in refused.stderr


def test_what_cannot_be_a_uki_is_refused_with_its_reason_and_the_old_one_stays(bench: Bench):
    assert bench.pack().returncode == 0
    before = diskkit.digest(bench.out)
    (bench.folder / "crowded").write_bytes(diskkit.pe(room=1))
    (bench.folder / "short").write_bytes(diskkit.pe()[:-100])
    (bench.folder / "text").write_text("no program")
    cases = {
        "its header has no room": ["--stub", "crowded"],
        "it is cut short": ["--stub", "short"],
        "it does not begin with MZ": ["--stub", "text"],
        "has a section .osrel already": ["--stub", "spine.efi"],
        "is no kernel that a firmware can start": ["--kernel", "text", "--manifest", "none"],
        "is not the vmlinuz that": ["--kernel", "stub"],
        "is not the spine.img that": ["--image", "text"],
        "there is no kernel": ["--kernel", "absent"],
        "there is no image": ["--image", "absent"],
        "there is no manifest": ["--manifest", "absent"],
        "printable ASCII": ["--append", "a\nb"],
        "2047": ["--append", "a" * 2048],
        "belong together": ["--key", "text"],
        "unknown option": ["--sign"],
    }
    for reason, words in cases.items():
        given = [str(bench.folder / word) if os.path.exists(bench.folder / word) or word == "absent" else word for word in words]
        made = bench.pack(*given)
        assert made.returncode in (1, 2), reason
        assert reason in made.stderr, made.stderr
        assert diskkit.digest(bench.out) == before, reason
        assert not list(bench.folder.glob("spine.efi.*[!n]")), "no half artifact"


def test_without_a_stub_the_packages_are_named(bench: Bench):
    made = bench.pack("--stub", "/nowhere/stub")
    assert made.returncode == 1
    assert "/nowhere/stub" in made.stderr


@needs_signing
def test_a_signature_is_the_given_keys_and_taking_it_off_gives_the_unsigned_bytes(bench: Bench):
    folder = bench.folder
    for name in ("mine", "other"):  # elliptic keys are made in no time, but sbsign takes RSA
        request = ("openssl", "req", "-new", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}/", "-days", "30")
        assert run(*request, "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem").returncode == 0
    assert bench.pack().returncode == 0
    shutil.copy(bench.out, folder / "plain.efi")
    made = bench.pack("--key", str(folder / "mine.key"), "--cert", str(folder / "mine.pem"))
    assert made.returncode == 0, made.stderr
    assert bench.shown()["signed"] is True
    assert run("sbverify", "--cert", folder / "mine.pem", bench.out).returncode == 0
    assert run("sbverify", "--cert", folder / "other.pem", bench.out).returncode != 0
    assert run("sbverify", "--cert", folder / "mine.pem", folder / "plain.efi").returncode != 0
    tampered = bytearray(bench.out.read_bytes())
    tampered[tampered.index(b"console=tty0")] ^= 1
    (folder / "tampered.efi").write_bytes(tampered)
    assert run("sbverify", "--cert", folder / "mine.pem", folder / "tampered.efi").returncode != 0
    before = diskkit.digest(bench.out)
    mixed = bench.pack("--key", str(folder / "mine.key"), "--cert", str(folder / "other.pem"))
    assert mixed.returncode == 1
    assert "its own certificate" in mixed.stderr
    assert diskkit.digest(bench.out) == before
    assert run("sbattach", "--remove", bench.out).returncode == 0
    plain, bare = (folder / "plain.efi").read_bytes(), bytearray(bench.out.read_bytes())
    bare[_checksum(bare) : _checksum(bare) + 4] = bytes(4)  # sbsign and sbattach fill it in; UEFI does not look at it
    assert bytes(bare) == plain


def _checksum(program: bytes | bytearray) -> int:
    return int.from_bytes(program[0x3C:0x40], "little") + 24 + 64
