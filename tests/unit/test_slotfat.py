"""The FAT32 of a slot: whole to fsck.fat and mtools, and found again in whatever layout it has."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bay0.base.errors import SlotError
from bay0.state import bootenv, slotfat
from bay0.state.bootenv import BootEnv, UState

MIB = 1 << 20
ENVIRONMENT = os.environ | {"PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin", "MTOOLSRC": "/dev/null"}
ENV = BootEnv(bootenv.kernel_of("SLOTB"), ustate=UState.OK, revision=7)
PLAN = slotfat.layout(40 * MIB)
SIZES = (40, 100, 512)


def has(tool: str) -> bool:
    return shutil.which(tool, path=ENVIRONMENT["PATH"]) is not None


def run(*argv: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([str(word) for word in argv], capture_output=True, check=False, env=ENVIRONMENT)


def made(path: Path, spine: bytes, mib: int = 40, slot: str = "SLOTB") -> slotfat.Layout:
    """Make a whole slot as a sparse file."""
    plan = slotfat.layout(mib * MIB)
    with path.open("wb") as file:
        file.write(slotfat.front(slot, plan, ENV, len(spine), hidden=2048, serial=0x1234ABCD))
        assert file.tell() == slotfat.spine_at(plan)
        file.write(spine)
        file.truncate(plan.size)
    return plan


def content(path: Path, name: str) -> bytes | None:
    """Return a file by our own walk."""
    with path.open("rb") as file:

        def read(at: int, count: int) -> bytes:
            file.seek(at)
            return file.read(count)

        plan = slotfat.geometry(read(0, slotfat.SECTOR), path.stat().st_size)
        found = slotfat.find(read, plan, name, 1 << 30)
        return None if found is None else b"".join(read(*piece) for piece in found.pieces)


@pytest.mark.parametrize("mib", SIZES)
@pytest.mark.parametrize("spine", [1, MIB + 17])
@pytest.mark.host
@pytest.mark.skipif(not has("fsck.fat"), reason="dosfstools is not installed")
def test_fsck_finds_nothing_to_mend(tmp_path: Path, mib: int, spine: int) -> None:
    made(tmp_path / "slot", os.urandom(spine), mib)
    done = run("fsck.fat", "-n", "-v", tmp_path / "slot")
    assert done.returncode == 0, done.stdout
    assert b"4 files, " in done.stdout  # with the root directory


@pytest.mark.parametrize("mib", SIZES)
@pytest.mark.host
@pytest.mark.skipif(not has("mcopy"), reason="mtools is not installed")
def test_mtools_lists_the_three_files_and_gives_them_back(tmp_path: Path, mib: int) -> None:
    spine = os.urandom(2 * MIB + 5)
    made(tmp_path / "slot", spine, mib)
    assert set(run("mdir", "-b", "-i", tmp_path / "slot", "::/").stdout.split()) == {b"::/EFILABEL", b"::/BGENV.DAT", b"::/spine.efi"}
    for name, wanted in (("spine.efi", spine), ("BGENV.DAT", bootenv.encode(ENV)), ("EFILABEL", bootenv.label("SLOTB"))):
        assert run("mcopy", "-i", tmp_path / "slot", f"::/{name}", "-").stdout == wanted


@pytest.mark.parametrize("mib", SIZES)
def test_each_file_lies_in_one_piece_where_the_layout_says_and_at_a_page(tmp_path: Path, mib: int) -> None:
    spine = os.urandom(MIB)
    plan = made(tmp_path / "slot", spine, mib)
    with (tmp_path / "slot").open("rb") as file:
        data = file.read(slotfat.spine_at(plan) + 2 * MIB)
    for name, size in (("spine.efi", len(spine)), ("BGENV.DAT", bootenv.SIZE), ("EFILABEL", 10)):
        found = slotfat.find(lambda at, count: data[at : at + count], plan, name, MIB)
        assert found is not None
        assert [count for _, count in found.pieces] == [size]
        assert found.pieces[0][0] % 4096 == 0
        if name == "spine.efi":
            assert found.pieces[0][0] == slotfat.spine_at(plan)
    assert content(tmp_path / "slot", "spine.efi") == spine


def test_what_is_stated_is_what_was_planned() -> None:
    for mib in SIZES:
        plan = slotfat.layout(mib * MIB)
        front = slotfat.front("SLOTA", plan, ENV, 1, hidden=0, serial=1)
        stated = slotfat.geometry(front[: slotfat.SECTOR], mib * MIB)
        assert stated._replace(clusters=plan.clusters) == plan
        assert plan.clusters >= slotfat.FAT32_CLUSTERS


@pytest.mark.parametrize("size", [0, 512, 30 * MIB, 1 << 46])
def test_a_size_that_no_fat32_can_have_is_refused(size: int) -> None:
    with pytest.raises(SlotError, match="cannot be a FAT32"):
        slotfat.layout(size)


def test_an_image_may_fill_the_slot_to_its_last_cluster_and_not_one_byte_more(tmp_path: Path) -> None:
    room = slotfat.room(PLAN)
    made(tmp_path / "slot", bytes(room))
    if has("fsck.fat"):
        assert run("fsck.fat", "-n", tmp_path / "slot").returncode == 0
    with pytest.raises(SlotError, match="does not fit"):
        slotfat.front("SLOTB", PLAN, ENV, room + 1, hidden=0, serial=1)


@pytest.mark.host
@pytest.mark.skipif(not (has("mformat") and has("mcopy")), reason="mtools is not installed")
def test_a_slot_that_another_program_made_is_read_by_walking_its_chains(tmp_path: Path) -> None:
    slot, spine = tmp_path / "slot", os.urandom(MIB + 3)
    with slot.open("wb") as file:
        file.truncate(40 * MIB)
    (tmp_path / "spine.efi").write_bytes(spine)
    (tmp_path / "BGENV.DAT").write_bytes(bootenv.encode(ENV))
    (tmp_path / "hole").write_bytes(bytes(3 * 4096))
    assert run("mformat", "-i", slot, "-F", "-v", "SLOTB", "-T", 40 * 2048, "-h", 255, "-s", 63, "::").returncode == 0
    for name in ("hole", "BGENV.DAT"):
        assert run("mcopy", "-i", slot, tmp_path / name, "::/").returncode == 0
    assert run("mdel", "-i", slot, "::/hole").returncode == 0  # what comes now is in two pieces
    assert run("mcopy", "-i", slot, tmp_path / "spine.efi", "::/").returncode == 0
    assert content(slot, "spine.efi") == spine
    assert content(slot, "BGENV.DAT") == bootenv.encode(ENV)
    assert content(slot, "EFILABEL") is None


def test_a_slot_that_was_wiped_has_no_filesystem() -> None:
    with pytest.raises(SlotError, match="no filesystem"):
        slotfat.geometry(bytes(512), 40 * MIB)


def test_a_chain_that_runs_in_circles_or_ends_early_is_refused() -> None:
    front = bytearray(slotfat.front("SLOTB", PLAN, ENV, MIB, hidden=0, serial=1))
    label_cluster = slotfat.ROOT_CLUSTER + slotfat.PAGE // PLAN.cluster
    env_cluster = label_cluster + slotfat.PAGE // PLAN.cluster
    for copy in (env_cluster, slotfat.END, 0, 1, 0x0FFFFFF7):
        at = PLAN.reserved * slotfat.SECTOR + env_cluster * 4
        front[at : at + 4] = copy.to_bytes(4, "little")

        def read(at: int, count: int) -> bytes:
            return bytes(front[at : at + count])

        if copy == env_cluster:  # a circle: what is read has the right size, and the CRC says the rest
            found = slotfat.find(read, PLAN, "BGENV.DAT", bootenv.SIZE)
            assert found is not None
            assert sum(count for _, count in found.pieces) == bootenv.SIZE
        else:
            with pytest.raises(SlotError, match="leads nowhere"):
                slotfat.find(read, PLAN, "BGENV.DAT", bootenv.SIZE)


@settings(max_examples=300, deadline=None)
@given(at=st.integers(0, 511), value=st.integers(0, 255), size=st.sampled_from([MIB, 40 * MIB]))
def test_a_damaged_boot_sector_is_refused_or_read_within_the_slot(at: int, value: int, size: int) -> None:
    front = bytearray(slotfat.front("SLOTB", PLAN, ENV, MIB, hidden=0, serial=1))
    front[at] = value
    asked: list[tuple[int, int]] = []

    def read(where: int, count: int) -> bytes:
        asked.append((where, count))
        return bytes(front[where : where + count]).ljust(count, b"\0")

    try:
        plan = slotfat.geometry(bytes(front[:512]), size)
        slotfat.find(read, plan, "BGENV.DAT", bootenv.SIZE)
    except SlotError:
        pass
    assert all(where >= 0 and where + count <= size for where, count in asked)
    assert sum(count for _, count in asked) < 4 * MIB
