"""check-firmware.sh on roots of stand-in modules, and its reading of real modules against modinfo's."""

from __future__ import annotations

import gzip
import json
import lzma
import sys
from pathlib import Path
from typing import Any

import diskkit
import pytest
from diskkit import SCRIPTS, run
from kit import not_built

sys.path.insert(0, str(SCRIPTS / "lib"))
import firmware

ROOTFS = SCRIPTS.parent / "build" / "rootfs"


def check(path: Path, *options: str) -> tuple[int, dict[str, Any]]:
    done = run(SCRIPTS / "check-firmware.sh", "--json", *options, path)
    return done.returncode, json.loads(done.stdout) if done.stdout else {"error": done.stderr}


def states(found: dict[str, Any]) -> dict[str, str]:
    return {row["what"]: row["state"] for row in found["rows"]}


def metal(top: Path, *there: str, release: str = "6.18.56-0-lts") -> Path:
    """Return a root as an image for real machines has it, with the firmware files `there`."""
    drivers = top / "lib/modules" / release / "kernel/drivers"
    drivers.mkdir(parents=True)
    (drivers / "i915.ko").write_bytes(diskkit.module("i915/skl_guc_70.1.1.bin", "i915/kbl_dmc_ver1_04.bin"))
    (drivers / "amdgpu.ko.gz").write_bytes(gzip.compress(diskkit.module("amdgpu/navi10_pfp.bin")))
    (drivers / "iwlwifi.ko.xz").write_bytes(lzma.compress(diskkit.module("iwlwifi-so-a0-gf-a0-89.ucode")))
    (drivers / "qat-4xxx.ko").write_bytes(diskkit.module("qat_4xxx.bin"))
    (drivers / "e1000.ko").write_bytes(diskkit.module())
    for name in there:
        path = top / "lib/firmware" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"firmware")
    return top


ALL = ("i915/skl_guc_70.1.1.bin", "i915/kbl_dmc_ver1_04.bin.zst", "amdgpu/navi10_pfp.bin.xz", "iwlwifi-so-a0-gf-a0-83.ucode")
MICROCODE = ("intel-ucode/06-8e-09", "amd-ucode/microcode_amd_fam17h.bin")


def test_all_there_is_status_0_packed_files_and_an_older_wireless_api_included(tmp_path: Path):
    status, found = check(metal(tmp_path, *ALL, *MICROCODE))
    assert (status, found["verdict"], found["modules"]) == (0, "present", 5)
    assert set(states(found).values()) == {"present", "missing"}, "the other modules' firmware is shown"
    assert states(found)["other modules"] == "missing"
    assert next(row["note"] for row in found["rows"] if row["what"] == "iwlwifi") == "1 by an older API"


def test_whatever_is_missing_is_named_and_status_1(tmp_path: Path):
    for number, name in enumerate((*ALL, *MICROCODE)):
        rest = [other for other in (*ALL, *MICROCODE) if other != name]
        status, found = check(metal(tmp_path / str(number), *rest))
        assert (status, found["verdict"]) == (1, "missing"), name
        missing = [file for row in found["rows"] if row["what"] != "other modules" for file in row["missing"]]
        assert len(missing) == 1, (name, missing)
        if "ucode/" not in name:
            assert missing[0].split("-8")[0] == name.removesuffix(".zst").removesuffix(".xz").split("-8")[0]


def test_a_newer_wireless_api_or_another_chips_is_no_substitute(tmp_path: Path):
    for number, name in enumerate(("iwlwifi-so-a0-gf-a0-90.ucode", "iwlwifi-so-a0-hr-b0-89.ucode", "iwlwifi-so-a0-gf-a0-x.ucode")):
        assert check(metal(tmp_path / str(number), *ALL[:3], *MICROCODE, name))[0] == 1, name


def test_an_empty_file_is_not_firmware_nor_is_one_in_a_folder_the_kernel_does_not_look_in(tmp_path: Path):
    root = metal(tmp_path, *ALL[1:], *MICROCODE, "elsewhere/i915/skl_guc_70.1.1.bin")
    assert check(root)[0] == 1
    (root / "lib/firmware/i915/skl_guc_70.1.1.bin").write_bytes(b"")
    assert check(root)[0] == 1
    (root / "lib/firmware/updates/i915").mkdir(parents=True)
    (root / "lib/firmware/updates/i915/skl_guc_70.1.1.bin").write_bytes(b"x")
    assert check(root)[0] == 0


def test_a_file_may_be_accepted_as_missing_and_the_other_modules_made_to_count(tmp_path: Path):
    root = metal(tmp_path, *ALL[1:], *MICROCODE)
    status, found = check(root, "--accept", "i915/skl_guc_*")
    assert status == 0
    assert "1 accepted as missing" in found["rows"][0]["note"]
    assert check(root, "--accept=i915/skl_guc_*", "--all")[0] == 1
    assert check(root, "--accept=i915/skl_guc_*", "--accept", "qat_*", "--all")[0] == 0


def test_an_image_for_virtual_machines_is_not_called_green(tmp_path: Path):
    drivers = tmp_path / "lib/modules/6.18.56-0-virt/kernel"
    drivers.mkdir(parents=True)
    (drivers / "virtio-gpu.ko").write_bytes(diskkit.module())
    status, found = check(tmp_path)
    assert (status, found["verdict"]) == (3, "nothing to check")
    assert set(states(found).values()) == {"not applicable"}
    assert "says nothing of real hardware" in run(SCRIPTS / "check-firmware.sh", tmp_path).stdout


def test_what_cannot_be_read_is_never_taken_for_present(tmp_path: Path):
    root = metal(tmp_path / "root", *ALL, *MICROCODE)
    (root / "lib/modules/6.18.56-0-lts/kernel/drivers/torn.ko").write_bytes(diskkit.module("x")[:150])
    status, found = check(root)
    assert (status, found["verdict"]) == (1, "unreadable")
    (tmp_path / "image").write_bytes(b"070701 nonsense")
    (tmp_path / "empty").mkdir()
    for path in ("image", "empty", "absent"):
        status, found = check(tmp_path / path)
        assert status == 2, path
        assert "check-firmware.sh: " in found["error"]


def member(name: str, data: bytes) -> bytes:
    fields = [0, 0o100644, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
    head = b"070701" + b"".join(b"%08x" % number for number in fields) + name.encode() + b"\0"
    head += bytes(-len(head) % 4)
    return head + data + bytes(-len(data) % 4)


@pytest.mark.skipif(not diskkit.have("mkfs.erofs", "fsck.erofs"), reason="erofs-utils is not installed")
def test_a_spine_img_is_looked_into_with_the_microcode_in_front_of_it(tmp_path: Path):
    root = metal(tmp_path / "root", *ALL)
    assert run("mkfs.erofs", "--quiet", tmp_path / "root.erofs", root).returncode == 0
    spine = member("init", b"#!/bin/sh") + member("root.erofs", (tmp_path / "root.erofs").read_bytes()) + member("TRAILER!!!", b"")
    (tmp_path / "spine.img").write_bytes(spine)
    status, found = check(tmp_path / "spine.img")
    assert (status, states(found)["microcode intel"], states(found)["i915"]) == (1, "missing", "present")
    front = b"".join(
        member(f"kernel/x86/microcode/{name}.bin", b"code") + member("TRAILER!!!", b"") + bytes(512) for name in ("GenuineIntel", "AuthenticAMD")
    )
    (tmp_path / "spine.img").write_bytes(front + spine)
    status, found = check(tmp_path / "spine.img")
    assert (status, states(found)["microcode intel"], states(found)["microcode amd"]) == (0, "present", "present")


@pytest.mark.built
@pytest.mark.skipif(not diskkit.have("modinfo"), reason="kmod is not installed")
def test_real_modules_are_read_as_modinfo_reads_them():
    if not ROOTFS.joinpath("lib/modules").is_dir():
        not_built("no image is built")
    (folder,) = ROOTFS.joinpath("usr/lib/modules").iterdir()
    every = sorted(folder.rglob("*.ko"))
    asking = [path for path in every if b"firmware=" in path.read_bytes()]
    assert asking
    for path in [*asking, *every[::40]]:
        mine = [value for key, value in firmware.modinfo(path.read_bytes()) if key == "firmware"]
        assert mine == run("modinfo", "-F", "firmware", path).stdout.splitlines(), path
