"""A disk that boots by itself: packed by package-efi.sh, made by genesis-flash.sh, started by UEFI firmware (OVMF) and EFI Boot Guard."""

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
from blockcuts import loader
from blockcuts.image import File, Image, over
from harness import Vm

from bay0.state import bootenv
from bay0.state.bootenv import BootEnv, UState

pytestmark = pytest.mark.vm

SCRIPTS = Path(harness.TOP, "scripts")
SIZES = ("--size", "768M", "--slot", "256M")  # smaller than a user's, and enough
ONE_SLOT = ("--size", "512M", "--esp", "256M", "--one-slot")
BEHIND = 256 << 20  # bytes of the disk behind its last partition, as of an image that was written to a larger stick
WATCHDOG_S = 300  # without KVM a boot by firmware takes a minute, beside other work two
# i6300esb's lock register, 0x68: it is read as one byte, or it is not read at all
ESB_LOCK = """
for device in /sys/bus/pci/devices/*; do
    [ $(cat $device/device) != 0x25ab ] || dd if=$device/config bs=1 skip=104 count=1 2>/dev/null | od -An -tu1
done
"""
RUNNING, LOCKED = 2, 1  # its bits; Linux' driver does not lock
STUB, OVMF = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub", "/usr/share/OVMF/OVMF_VARS_4M.snakeoil.fd"
KEY, CERT = "/usr/share/ovmf/PkKek-1-snakeoil.key", "/usr/share/ovmf/PkKek-1-snakeoil.pem"  # Debian's test keys; OVMF's variables trust them
NEEDED = ("sgdisk", "mformat", "sbsign", "openssl")
ENFORCED = ("--secure-boot", "snakeoil")
REFUSED = r"failed to load Boot0001 .*Access Denied"  # by the firmware
REFUSED_LATER = r"Cannot load specified kernel image .*(Access Denied|Security Violation)"  # by the firmware, asked by the loader
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


def flash(path: str, uki: str, *options: str, key: tuple[str, str] | None = None) -> str:
    """Make a disk, with `key` a loader that is signed; its last step but one is to compare what it reads back."""
    signing = ("--key", key[0], "--cert", key[1]) if key else ()
    sizes = () if "--one-slot" in options else SIZES
    harness.tool("bash", str(SCRIPTS / "genesis-flash.sh"), *sizes, *options, *signing, "--uki", uki, "--yes-destroy", path, path)
    return path


def starts(disk: str) -> list[int]:
    """Return where the partitions begin (bytes), as sgdisk reads the disk."""
    listing = harness.tool("sgdisk", "-p", disk).stdout.partition("Number")[2]
    return [int(line.split()[1]) * 512 for line in listing.splitlines() if re.match(r" *\d", line)]


def boot_digest(disk: str) -> str:
    """Return the digest of all partitions but the last: the loader's and the slots."""
    first, *_, last = starts(disk)
    with open(disk, "rb") as file:
        file.seek(first)
        return hashlib.sha256(file.read(last - first)).hexdigest()


def words_of(uki: str) -> str:
    shown: dict[str, str] = json.loads(harness.tool("bash", str(SCRIPTS / "package-efi.sh"), "--show", uki).stdout)
    return shown["cmdline"]


# ---- the default tier's one boot: signed, and the firmware enforces it


@pytest.fixture(scope="module")
def signed(folder: str, keys: Keys) -> str:
    return pack(f"{folder}/signed.efi", keys.trusted, f"{TEST_WORDS} bay0.exec")


@pytest.fixture(scope="module")
def disk(folder: str, signed: str, keys: Keys) -> str:
    path = flash(f"{folder}/disk.img", signed, "--watchdog", str(WATCHDOG_S), key=keys.trusted)
    os.truncate(path, os.path.getsize(path) + BEHIND)
    return path


@pytest.fixture(scope="module")
def flashed(disk: str) -> str:
    """Return the digest of what boots, from before it did."""
    return boot_digest(disk)


@pytest.fixture(scope="module")
def machine(disk: str, flashed: str) -> Iterator[Vm]:
    with harness.vm(efi=("--efi", disk, *ENFORCED)) as running:
        running.wait_console(harness.COMPLETE)
        yield running


def test_a_flashed_disk_boots_by_itself_from_slot_a_and_persist_is_its_last_partition(machine: Vm):
    assert re.search(r"starting Boot0001 (.*\n)+.*EFI Boot Guard.*\n(.*\n)*.*stage0: starting", machine.console)
    assert re.search(r"Starting C:SLOTA:spine.efi with watchdog set to 300 seconds", machine.console)
    assert "persist mounted (device=/dev/vda4)" in machine.console
    assert machine.out("awk '$2 == \"/persist\" {print $1}' /proc/mounts") == "/dev/vda4"
    assert machine.wait_durable()["storage"]["state"] == "durable"


def test_the_model_of_the_loader_says_the_same_of_that_disk(machine: Vm, disk: str, signed: str):
    model = loader.Loader([over(Image(File(disk)))])
    digest = f"sha256:{hashlib.sha256(Path(signed).read_bytes()).hexdigest()}"
    assert model.boot() == loader.Started("SLOTA", digest, WATCHDOG_S)
    assert model.wrote == []
    assert f"Starting C:SLOTA:spine.efi with watchdog set to {WATCHDOG_S} seconds" in machine.console


def test_the_loader_arms_the_watchdog_and_bay0_takes_it_over(machine: Vm):
    assert int(machine.out(ESB_LOCK)) == RUNNING | LOCKED
    assert re.search(r"stage0: watchdog armed, 150 s\n(.*\n)*.*bay0: watchdog armed", machine.console), "handed on by stage 0, and taken"
    assert "did not stop" not in machine.console


def test_persist_is_mounted_with_all_its_features_and_the_kernel_counts_what_each_owner_has(machine: Vm):
    assert "rw," in machine.out("awk '$2 == \"/persist\" {print $4}' /proc/mounts")
    features = machine.out("dumpe2fs -h /dev/vda4 2>/dev/null | sed -n 's/^Filesystem features: *//p'").split()
    assert {"project", "quota", "encrypt"} <= set(features)
    assert int(machine.out("cat /proc/sys/fs/quota/allocated_dquots")) > 0


def test_secure_boot_is_enforced_in_that_boot(machine: Vm):
    mount = "modprobe efivarfs; mount -t efivarfs none /sys/firmware/efi/efivars"
    assert machine.out(f"{mount}; od -An -j4 -tu1 /sys/firmware/efi/efivars/SecureBoot-*") == "1"
    assert machine.out("od -An -j4 -tu1 /sys/firmware/efi/efivars/SetupMode-*") == "0"


def test_the_words_of_the_command_line_are_those_that_were_signed(machine: Vm, signed: str):
    assert machine.out("cat /proc/cmdline") == words_of(signed)
    assert "loglevel=4 psi=1" in words_of(signed)


@pytest.mark.full
def test_such_a_spine_validates_but_for_the_umbilical(machine: Vm):
    answer = json.loads(machine.sh("bay0 validate --json", 240).stdout)
    assert answer["verdict"] in ("green", "yellow"), answer
    weak = {check["name"] for check in answer["checks"] if check["level"] != "green"}
    assert weak <= {"umbilical"}, answer


def test_the_last_partition_grows_into_the_room_behind_it_while_it_is_used(machine: Vm, disk: str):
    machine.wait_durable()
    before = harness.until(lambda: machine.status()["storage"]["room"], 60, "the room is known")
    assert abs(before["behind"] - BEHIND) <= 2 << 20
    assert "`bay0 storage grow`" in machine.out("bay0 storage")
    grown = machine.json("bay0 storage grow --json", 120)
    assert grown["device"] == "/dev/vda4"
    assert abs(grown["to_bytes"] - grown["from_bytes"] - BEHIND) <= 2 << 20
    status = harness.until(lambda: (found := machine.status())["storage"]["room"]["bytes"] > before["bytes"] and found, 60, "there is room")
    assert (status["storage"]["state"], status["storage"]["room"]["behind"], status["dirty"]) == ("durable", 0, None)
    assert "No problems found" in harness.tool("sgdisk", "--verify", disk).stdout


def test_loader_and_spine_leave_the_efi_partition_and_the_slots_alone_and_persist_clean(machine: Vm, flashed: str, disk: str, folder: str):
    assert machine.quit().status == 0
    assert boot_digest(disk) == flashed
    with open(disk, "rb") as file, open(f"{folder}/persist", "wb") as out:
        file.seek(starts(disk)[-1])
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
@pytest.mark.parametrize(
    "what",
    ["unsigned", "foreign key", "one bit of .initrd", "one bit of .cmdline", "one bit of .linux", "the loader: foreign key", "one bit, one slot"],
)
def test_with_secure_boot_the_firmware_refuses_what_is_not_as_it_was_signed_and_bay0_never_starts(what: str, keys: Keys, signed: str, folder: str):
    disk, refused, key = f"{folder}/bad.img", REFUSED_LATER, keys.trusted
    options: tuple[str, ...] = ()
    uki = f"{folder}/bad.efi"
    if what == "the loader: foreign key":
        shutil.copyfile(signed, uki)
        refused, key = REFUSED, keys.foreign
    elif what == "one bit, one slot":
        tamper(signed, uki, ".initrd")
        refused, options = REFUSED, ONE_SLOT
    elif what.startswith("one bit"):
        tamper(signed, uki, what.rpartition(" ")[2])
    else:
        pack(uki, keys.foreign if what == "foreign key" else None)
    flash(disk, uki, *options, key=None if options else key)
    with harness.vm(efi=("--efi", disk, *ENFORCED), console=True, life_s=180) as machine:
        machine.wait_console(refused, 120)
        machine.wait_console(NOTHING_BOOTS, 60)
        assert "bay0" not in machine.console
        assert "stage0" not in machine.console
    os.unlink(disk)
    os.unlink(uki)


@pytest.mark.full
def test_a_disk_as_it_was_made_before_there_were_slots_boots_and_is_durable(folder: str):
    disk = flash(f"{folder}/old.img", pack(f"{folder}/old.efi", words=f"{TEST_WORDS} bay0.exec"), *ONE_SLOT)
    at, end = starts(disk)[1], os.path.getsize(disk) - (1 << 20)
    harness.tool("mke2fs", "-q", "-F", "-t", "ext4", "-L", "SPINE-PERSIST", "-E", f"offset={at}", disk, f"{(end - at) // 1024}k")
    with harness.vm(efi=("--efi", disk)) as machine:
        machine.wait_console(harness.COMPLETE)
        assert "EFI Boot Guard" not in machine.console
        assert machine.wait_durable()["storage"]["state"] == "durable"
        features = machine.out("dumpe2fs -h /dev/vda2 2>/dev/null | sed -n 's/^Filesystem features: *//p'").split()
        assert not {"project", "quota", "encrypt"} & set(features)
        assert int(machine.out(ESB_LOCK)) == RUNNING, "armed by bay0 alone"
        assert machine.quit().status == 0
    os.unlink(disk)


@pytest.mark.full
def test_an_unsigned_usb_stick_boots_without_secure_boot_to_a_console_and_comes_back_through_the_firmware(folder: str):
    disk = flash(f"{folder}/stick.img", pack(f"{folder}/plain.efi"))
    with harness.vm(efi=("--efi", disk, "--bus", "usb"), console=True) as machine:
        machine.wait_console(harness.COMPLETE)
        machine.wait_console(r"persist mounted \(device=/dev/sda4\)", 120)
        machine.wait_console(r"spine:/# ", 60)
        machine.type("bay0 --validate; echo verdict=$((40 + $?))\r")
        machine.wait_console(r"^(GREEN|YELLOW)", 240)
        machine.wait_console(r"verdict=4[01]", 60)
        machine.type("bay0 nack add sha256:" + "7" * 64 + " --why kept; bay0 reboot\r")
        first = len(machine.console)
        machine.wait_console(r"starting Boot0001", 240, after=first)
        machine.wait_console(harness.COMPLETE, after=first)
        machine.wait_console(r"persist mounted \(device=/dev/sda4\)", 120, after=first)
        machine.wait_console(r"spine:/# ", 60, after=first)
        machine.type("bay0 nack list; bay0 poweroff\r")
        machine.wait_console("7" * 64, 60, after=first)
        assert machine.wait().status == 0


@pytest.mark.full
@pytest.mark.parametrize(("bus", "partition"), [("sata", "/dev/sda4"), ("nvme", "/dev/nvme0n1p4")])
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
@pytest.mark.parametrize("case", [((), False, "5.0"), (ONE_SLOT, True, "5.0"), (ONE_SLOT, False, "7.0")])
def test_words_from_a_boot_entry_reach_the_uki_only_without_secure_boot_and_without_a_loader(
    case: tuple[tuple[str, ...], bool, str], keys: Keys, folder: str, signed: str
):
    options, enforced, seen = case
    disk = flash(f"{folder}/words.img", signed, *options, key=None if options else keys.trusted)
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
        assert patience == seen
    os.unlink(disk)


@pytest.mark.full
@pytest.mark.parametrize("enforced", [True, False])
def test_words_in_the_boot_environment_are_ignored_with_secure_boot_and_taken_without(enforced: bool, keys: Keys, folder: str, signed: str):
    disk = flash(f"{folder}/environment.img", signed, key=keys.trusted)
    env = BootEnv(bootenv.kernel_of("SLOTA"), "console=ttyS0,115200 bay0.patience=7", ustate=UState.OK, revision=1)
    Path(folder, bootenv.FILE).write_bytes(bootenv.encode(env))
    harness.tool("mcopy", "-D", "o", "-i", f"{disk}@@{starts(disk)[1]}", f"{folder}/{bootenv.FILE}", "::/")
    with harness.vm(efi=("--efi", disk, *(ENFORCED if enforced else ())), console=True) as machine:
        assert machine.wait_console(r"bay0: starting .*patience=([0-9.]+)", 240)[1] == ("5.0" if enforced else "7.0")
    os.unlink(disk)
