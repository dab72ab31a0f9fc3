"""A disk that boots by itself: packed by package-efi.sh, made by genesis-flash.sh, started by UEFI firmware (OVMF)."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import harness
import pytest
from attrs import frozen
from harness import Vm

pytestmark = pytest.mark.vm

SCRIPTS = Path(harness.TOP, "scripts")
ESP_AT = 1 << 20
ESP = "256M"  # smaller than a user's, and enough
SIZE = "512M"
STUB, OVMF = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub", "/usr/share/OVMF/OVMF_VARS_4M.snakeoil.fd"
KEY, CERT = "/usr/share/ovmf/PkKek-1-snakeoil.key", "/usr/share/ovmf/PkKek-1-snakeoil.pem"  # Debian's test keys; OVMF's variables trust them
NEEDED = ("sgdisk", "mformat", "sbsign", "openssl")
ENFORCED = ("--secure-boot", "snakeoil")
REFUSED = r"failed to load Boot0001 .*Access Denied"
NOTHING_BOOTS = r"No bootable option or device was found"
TEST_WORDS = "bay0.patience=5"  # without KVM; with it nothing but longer bounds


@frozen
class Keys:
    """A key that the firmware trusts, and one that it does not know."""

    trusted: tuple[str, str]
    foreign: tuple[str, str]


@pytest.fixture(scope="module", autouse=True)
def _needs() -> None:
    absent = [tool for tool in NEEDED if shutil.which(tool, path=harness.ENVIRONMENT["PATH"]) is None]
    absent += [path for path in (STUB, OVMF, KEY) if not os.path.exists(path)]
    if absent:
        harness.skip_or_fail(f"host tools are missing: {', '.join(absent)}; scripts/test.sh installs them")


@pytest.fixture(scope="module")
def keys(folder: str) -> Keys:
    harness.tool("openssl", "rsa", "-in", KEY, "-passin", "pass:snakeoil", "-out", f"{folder}/trusted.key")
    foreign = (f"{folder}/foreign.key", f"{folder}/foreign.pem")
    request = ("openssl", "req", "-new", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=nobody/", "-days", "3650")
    harness.tool(*request, "-keyout", foreign[0], "-out", foreign[1])
    return Keys((f"{folder}/trusted.key", CERT), foreign)


def pack(path: str, key: tuple[str, str] | None = None, words: str = TEST_WORDS) -> str:
    signing = ("--key", key[0], "--cert", key[1]) if key else ()
    image = ("--kernel", harness.IMAGES[0], "--image", harness.IMAGES[1], "--append", words)
    harness.tool("bash", str(SCRIPTS / "package-efi.sh"), *image, *signing, "--output", path)
    return path


def flash(path: str, uki: str) -> str:
    """Make a disk; its sixth step is to compare what it reads back."""
    harness.tool("bash", str(SCRIPTS / "genesis-flash.sh"), "--size", SIZE, "--esp", ESP, "--uki", uki, "--yes-destroy", path, path)
    return path


def starts(disk: str) -> list[int]:
    """Return where the partitions begin (bytes), as sgdisk reads the disk."""
    listing = harness.tool("sgdisk", "-p", disk).stdout.partition("Number")[2]
    return [int(line.split()[1]) * 512 for line in listing.splitlines() if re.match(r" *\d", line)]


def esp_digest(disk: str) -> str:
    with open(disk, "rb") as file:
        file.seek(ESP_AT)
        return hashlib.sha256(file.read(starts(disk)[1] - ESP_AT)).hexdigest()


def words_of(uki: str) -> str:
    shown: dict[str, str] = json.loads(harness.tool("bash", str(SCRIPTS / "package-efi.sh"), "--show", uki).stdout)
    return shown["cmdline"]


# ---- the default tier's one boot: signed, and the firmware enforces it


@pytest.fixture(scope="module")
def signed(folder: str, keys: Keys) -> str:
    return pack(f"{folder}/signed.efi", keys.trusted, f"{TEST_WORDS} bay0.exec")


@pytest.fixture(scope="module")
def disk(folder: str, signed: str) -> str:
    return flash(f"{folder}/disk.img", signed)


@pytest.fixture(scope="module")
def machine(disk: str) -> Iterator[Vm]:
    with harness.vm(efi=("--efi", disk, *ENFORCED)) as running:
        running.wait_console(harness.COMPLETE)
        yield running


def test_a_flashed_disk_boots_by_itself_and_persist_is_its_second_partition(machine: Vm):
    assert re.search(r"starting Boot0001 .*\n(.*\n)*.*stage0: starting", machine.console)
    assert "persist mounted (device=/dev/vda2)" in machine.console
    assert machine.out("awk '$2 == \"/persist\" {print $1}' /proc/mounts") == "/dev/vda2"
    assert machine.wait_durable()["storage"]["state"] == "durable"


def test_secure_boot_is_enforced_in_that_boot(machine: Vm):
    mount = "modprobe efivarfs; mount -t efivarfs none /sys/firmware/efi/efivars"
    assert machine.out(f"{mount}; od -An -j4 -tu1 /sys/firmware/efi/efivars/SecureBoot-*") == "1"
    assert machine.out("od -An -j4 -tu1 /sys/firmware/efi/efivars/SetupMode-*") == "0"


def test_the_words_of_the_command_line_are_those_that_were_signed(machine: Vm, signed: str):
    assert machine.out("cat /proc/cmdline") == words_of(signed)
    assert "loglevel=4 psi=1" in words_of(signed)


def test_such_a_spine_validates_but_for_the_umbilical(machine: Vm):
    answer = json.loads(machine.sh("bay0 validate --json", 240).stdout)
    assert answer["verdict"] in ("green", "yellow"), answer
    weak = {check["name"] for check in answer["checks"] if check["level"] != "green"}
    assert weak <= {"umbilical"}, answer


def test_the_spine_leaves_the_efi_partition_alone_and_its_own_clean(machine: Vm, disk: str, folder: str):
    before = esp_digest(disk)
    assert machine.quit().status == 0
    assert esp_digest(disk) == before
    with open(disk, "rb") as file, open(f"{folder}/persist", "wb") as out:
        file.seek(starts(disk)[1])
        shutil.copyfileobj(file, out)
    harness.check_clean(f"{folder}/persist")
    os.unlink(f"{folder}/persist")


# ---- the full tier


def tamper(source: str, to: str, section: str) -> str:
    """Change one bit in the middle of a section."""
    data = bytearray(Path(source).read_bytes())
    for line in harness.tool("objdump", "-h", source).stdout.splitlines():
        words = line.split()
        if len(words) > 5 and words[1] == section:
            data[int(words[5], 16) + int(words[2], 16) // 2] ^= 1
            Path(to).write_bytes(data)
            return to
    raise AssertionError(f"no section {section}")


@pytest.mark.full
@pytest.mark.parametrize("what", ["unsigned", "foreign key", "one bit of .initrd", "one bit of .cmdline", "one bit of .linux"])
def test_with_secure_boot_the_firmware_refuses_what_is_not_as_it_was_signed_and_bay0_never_starts(what: str, keys: Keys, signed: str, folder: str):
    if what.startswith("one bit"):
        uki = tamper(signed, f"{folder}/bad.efi", what.rpartition(" ")[2])
    else:
        uki = pack(f"{folder}/bad.efi", keys.foreign if what == "foreign key" else None)
    disk = f"{folder}/bad.img"
    flash(disk, uki)
    with harness.vm(efi=("--efi", disk, *ENFORCED), console=True, life_s=180) as machine:
        machine.wait_console(REFUSED, 120)
        machine.wait_console(NOTHING_BOOTS, 60)
        assert "bay0" not in machine.console
        assert "stage0" not in machine.console
    os.unlink(disk)
    os.unlink(uki)


@pytest.mark.full
def test_an_unsigned_usb_stick_boots_without_secure_boot_to_a_console_and_comes_back_through_the_firmware(folder: str):
    disk = flash(f"{folder}/stick.img", pack(f"{folder}/plain.efi"))
    with harness.vm(efi=("--efi", disk, "--bus", "usb"), console=True) as machine:
        machine.wait_console(harness.COMPLETE)
        machine.wait_console(r"persist mounted \(device=/dev/sda2\)", 120)
        machine.wait_console(r"spine:/# ", 60)
        machine.type("bay0 --validate; echo verdict=$((40 + $?))\r")
        machine.wait_console(r"^(GREEN|YELLOW)", 240)
        machine.wait_console(r"verdict=4[01]", 60)
        machine.type("bay0 nack add sha256:" + "7" * 64 + " --why kept; bay0 reboot\r")
        first = len(machine.console)
        machine.wait_console(r"starting Boot0001", 240, after=first)
        machine.wait_console(harness.COMPLETE, after=first)
        machine.wait_console(r"persist mounted \(device=/dev/sda2\)", 120, after=first)
        machine.wait_console(r"spine:/# ", 60, after=first)
        machine.type("bay0 nack list; bay0 poweroff\r")
        machine.wait_console("7" * 64, 60, after=first)
        assert machine.wait().status == 0


@pytest.mark.full
@pytest.mark.parametrize(("bus", "partition"), [("sata", "/dev/sda2"), ("nvme", "/dev/nvme0n1p2")])
def test_it_boots_from_whatever_a_pc_has_and_the_boot_is_clean(bus: str, partition: str, folder: str):
    disk = flash(f"{folder}/{bus}.img", pack(f"{folder}/exec.efi", words=f"{TEST_WORDS} bay0.exec"))
    with harness.vm(efi=("--efi", disk, "--bus", bus)) as machine:
        machine.wait_console(harness.COMPLETE)
        assert re.search(r"init complete \(after_ms=\d+ dirty=no\)", machine.console)
        assert f"persist mounted (device={partition})" in machine.console
        assert machine.quit().status == 0
    os.unlink(disk)


def boot_entry_with_words(entry: bytes, words: str) -> bytes:
    """Return a Boot#### variable (UEFI specification, 3.1.3) as efivarfs shows it, with `words` as its load options."""
    at = 4 + 6  # efivarfs's attributes; the entry's own, and the length of its path
    while entry[at : at + 2] != b"\0\0":
        at += 2
    end = at + 2 + int.from_bytes(entry[8:10], "little")
    return entry[:end] + words.encode("utf-16-le") + b"\0\0"


@pytest.mark.full
@pytest.mark.parametrize("enforced", [True, False])
def test_words_from_a_boot_entry_are_ignored_with_secure_boot_and_taken_without(enforced: bool, folder: str, signed: str):
    disk = flash(f"{folder}/words.img", signed)
    variables = "/sys/firmware/efi/efivars"
    guid = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
    with harness.vm(efi=("--efi", disk, *(ENFORCED if enforced else ())), qemu=("-action", "reboot=reset")) as machine:
        machine.wait_console(harness.COMPLETE)
        shown = machine.out(f"modprobe efivarfs; mount -t efivarfs none {variables}; base64 -w0 {variables}/Boot0001-{guid}")
        entry = base64.b64encode(boot_entry_with_words(base64.b64decode(shown), "console=ttyS0,115200 bay0.patience=7 bay0.console=debug")).decode()
        machine.out(f"echo {entry} | base64 -d >/run/entry; cat /run/entry >{variables}/Boot0077-{guid}")
        machine.out(f"printf '\\7\\0\\0\\0\\167\\0' >/run/next; cat /run/next >{variables}/BootNext-{guid}")
        first = len(machine.console)
        machine.send("bay0 reboot")
        machine.wait_console(r"starting Boot0077", 240, after=first)
        patience = machine.wait_console(r"bay0: starting .*patience=([0-9.]+)", 240, after=first)[1]
        assert patience == ("5.0" if enforced else "7.0")
    os.unlink(disk)
