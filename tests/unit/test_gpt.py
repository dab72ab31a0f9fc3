"""The last partition of a disk, enlarged into room behind it: what sgdisk makes of it, and what is left by a cut at any point of it."""

from __future__ import annotations

import os
import random
import struct
import subprocess
import zlib
from pathlib import Path

import pytest
from blockcuts import cut, gptmodel
from blockcuts.image import File, Image, over
from blockcuts.ops import Op
from blockcuts.recorded import recorded
from diskkit import have, run
from hypothesis import given
from hypothesis import strategies as st

from bay0.base.errors import GptError
from bay0.state import gpt, partition

pytestmark = [pytest.mark.scripts, pytest.mark.skipif(not have("sgdisk"), reason="sgdisk (Debian's gdisk) is not installed")]
MIB = 1 << 20
NAMES = ("SPINE-ESP", "SLOTA", "SLOTB", "SPINE-PERSIST")
BEFORE, AFTER = 64 * MIB, 200 * MIB


def disk(path: Path, *, before: int = BEFORE, after: int = AFTER, first: int = 2048, options: tuple[str, ...] = ()) -> str:
    """Make a disk as genesis-flash.sh does, small, and make it larger."""
    with path.open("wb") as file:
        file.truncate(before)
    words = [f"--new=1:{first}:+4M", "--new=2:0:+8M", "--new=3:0:+8M", "--new=4:0:0"]
    words += [f"--change-name={number}:{name}" for number, name in enumerate(NAMES, 1)]
    done = run("sgdisk", "--clear", "--set-alignment=1" if first < 2048 else "--set-alignment=2048", *options, *words, path)
    assert done.returncode == 0, done.stderr
    with path.open("r+b") as file:
        file.truncate(after)
    return str(path)


def start_of(path: str, number: int = 4) -> int:
    parts = gptmodel.linux(Image(File(path)))
    assert parts is not None
    return next(each.first for each in parts if each.number == number) * 512


def grow(path: str, number: int = 4) -> gpt.Partition:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        return partition.write(fd, number, 512, start_of(path, number), lambda: os.fsync(fd))
    finally:
        os.close(fd)


def sound(path: str) -> bool:
    done = run("sgdisk", "--verify", path)
    return "No problems found" in done.stdout and "Caution" not in done.stdout + done.stderr


def test_the_last_partition_reaches_to_the_end_and_sgdisk_finds_no_fault(tmp_path: Path):
    path = disk(tmp_path / "disk")
    assert not sound(path), "the backup is not at the end of a disk that was made larger"
    old = gptmodel.linux(Image(File(path)))
    found = grow(path)
    assert sound(path)
    new = gptmodel.linux(Image(File(path)))
    assert old is not None
    assert new is not None
    assert new[:3] == old[:3], "and no other one is touched"
    assert (new[3].first, new[3].name, new[3].last) == (old[3].first, "SPINE-PERSIST", found.last)
    assert AFTER - 2 * MIB < (found.last + 1) * 512 <= AFTER - MIB, "at a whole MiB, with room for the backup"
    listed = run("sgdisk", "--print", path).stdout
    assert f"last usable sector is {AFTER // 512 - 34}" in listed
    with_another_tool = subprocess.run(["partx", "--noheadings", "--output", "NR,START,END,NAME", path], capture_output=True, text=True, check=True)
    assert with_another_tool.stdout.splitlines()[3].split() == ["4", str(new[3].first), str(found.last), "SPINE-PERSIST"]


def test_once_it_is_there_nothing_more_is_written(tmp_path: Path):
    path = disk(tmp_path / "disk")
    first = grow(path)
    with recorded(path) as log:
        assert grow(path) == first
    assert log == []


def test_it_grows_again_when_the_disk_does(tmp_path: Path):
    path = disk(tmp_path / "disk")
    first = grow(path)
    os.truncate(path, AFTER + 50 * MIB)
    assert grow(path).last == first.last + 50 * MIB // 512
    assert sound(path)


def test_a_disk_of_sectors_of_4096_bytes_is_understood():
    """sgdisk makes such tables for devices only: this one is its table with other numbers."""
    sectors, at = 20_000, 4096
    entries = bytearray(128 * 128)
    struct.pack_into("<16s16sQQ", entries, 0, b"k" * 16, b"g" * 16, 256, 10_000)
    body = struct.pack("<8s4sIIIQQQQ16sQIII", b"EFI PART", b"\0\0\1\0", 92, 0, 0, 1, 12_000, 6, 11_990, b"d" * 16, 2, 128, 128, zlib.crc32(entries))
    header = body[:16] + struct.pack("<I", zlib.crc32(body)) + body[20:]
    mbr = bytearray(4096)
    struct.pack_into("<BBBBBBBBII", mbr, 446, 0, 0, 2, 0, 0xEE, 0xFF, 0xFF, 0xFF, 1, 12_000)
    mbr[510:512] = b"\x55\xaa"
    data = bytearray(sectors * at)
    for place, part in ((0, mbr), (at, header), (2 * at, entries)):
        data[place : place + len(part)] = part
    table = gpt.parse(lambda offset, length: bytes(data[offset : offset + length]), at, sectors)
    for write in gpt.grow(table, 1):
        assert write.offset % at == 0
        assert len(write.data) % at == 0
        data[write.offset : write.offset + len(write.data)] = write.data
    after = gpt.parse(lambda offset, length: bytes(data[offset : offset + length]), at, sectors)
    assert (after.alternate, after.entries_at, after.first_usable) == (sectors - 1, 2, 6)
    assert (after.partitions[0].last + 1) * at % MIB == 0
    assert gpt.grow(after, 1) == ()


# ---- refused, and nothing written


def refused(path: str, number: int = 4) -> str:
    start = start_of(path, number) if gptmodel.linux(Image(File(path))) else 0
    fd = os.open(path, os.O_RDWR)
    try:
        with recorded(path) as log, pytest.raises(GptError) as caught:
            partition.write(fd, number, 512, start, lambda: os.fsync(fd))
    finally:
        os.close(fd)
    assert log == []
    return str(caught.value)


def test_only_the_last_partition_is_grown(tmp_path: Path):
    assert "partition 2 is not the last one on its disk: partition 4 lies behind it" in refused(disk(tmp_path / "disk"), 2)


def test_without_room_for_a_second_copy_of_the_table_it_is_refused(tmp_path: Path):
    assert "no room for a second copy" in refused(disk(tmp_path / "disk", first=40))


def test_a_disk_that_grew_by_a_few_sectors_is_refused(tmp_path: Path):
    assert "too little larger" in refused(disk(tmp_path / "disk", after=BEFORE + 16 * 512))


def test_what_is_no_table_or_a_damaged_one_is_refused(tmp_path: Path):
    path = tmp_path / "disk"
    path.write_bytes(bytes(MIB))
    assert "no GUID partition table" in refused(str(path))
    disk(path)
    whole = path.read_bytes()
    for at, why in ((512, "header is none"), (512 + 56, "header is damaged"), (1024 + 3 * 128 + 40, "entries are damaged")):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert why in refused(str(path))


def test_a_table_that_the_kernel_does_not_have_is_refused(tmp_path: Path):
    path = disk(tmp_path / "disk")
    fd = os.open(path, os.O_RDWR)
    with pytest.raises(GptError, match="does not begin where the kernel has it"):
        partition.write(fd, 4, 512, 512, lambda: None)
    os.close(fd)


def sealed(header: bytes) -> bytes:
    return header[:16] + struct.pack("<I", zlib.crc32(header[:16] + bytes(4) + header[20:92])) + header[20:]


@given(st.lists(st.tuples(st.integers(0, 91), st.integers(0, 255)), max_size=5), st.binary(max_size=200), st.integers(0, 1 << 40))
def test_any_header_is_understood_or_refused_and_none_is_written_outside_of_the_disk(changes: list[tuple[int, int]], entries: bytes, sectors: int):
    array = entries.ljust(128 * 128, b"\0")
    body = struct.pack("<8s4sIIIQQQQ16sQIII", b"EFI PART", b"\0\0\1\0", 92, 0, 0, 1, 4095, 34, 4062, b"d" * 16, 2, 128, 128, zlib.crc32(array))
    header = bytearray(body)
    for at, byte in changes:
        header[at] = byte
    mbr = bytearray(512)
    mbr[450], mbr[454], mbr[510:512] = 0xEE, 1, b"\x55\xaa"
    data = bytes(mbr) + sealed(bytes(header)).ljust(512, b"\0") + array

    def read(offset: int, length: int) -> bytes:
        assert length <= gpt.MAX_ARRAY
        return data[offset : offset + length].ljust(length, b"\0")

    try:
        table = gpt.parse(read, 512, sectors)
        writes = gpt.grow(table, table.partitions[-1].number) if table.partitions else ()
    except GptError:
        return
    for write in writes:
        assert write.offset >= 0
        assert write.offset + len(write.data) <= sectors * 512


# ---- cuts


def log_of_growing(path: str) -> tuple[Image, list[Op], Image]:
    """Return the disk before, what was written, and the disk after."""
    base = f"{path}.before"
    subprocess.run(["cp", "--sparse=always", path, base], check=True)
    with recorded(path) as log:
        grow(path)
    return Image(File(base)), log, Image(File(path))


def goes_on(image: Image, path: str) -> tuple[gptmodel.Part, ...] | None:
    """Say the same command to what a cut left; return what Linux finds then."""
    size = image.size // 512
    table = gpt.parse(image.read, 512, size)
    for write in gpt.grow(table, 4):
        image.write(write.offset, write.data)
    del path
    return gptmodel.linux(image)


def test_a_cut_at_any_point_leaves_a_table_that_firmware_and_linux_read_and_the_same_command_goes_on(tmp_path: Path):
    path = disk(tmp_path / "disk")
    base, log, after = log_of_growing(path)
    old, new = gptmodel.linux(base), gptmodel.linux(after)
    rng = random.Random(int(os.environ.get("SPINE_SEED", "1")))
    cuts = [*cut.prefixes(log), *cut.reorders(log, rng, 30), *cut.torn(log, rng, 120)]
    by_linux = []

    def visit(one: cut.Cut, image: Image) -> None:
        linux = gptmodel.linux(image)
        by_linux.append(linux)
        assert linux in (old, new) or (linux is None and one.kind == "torn"), one
        firmware = gptmodel.firmware(over(image))
        assert firmware in (old, new), one
        mended = over(image)
        gptmodel.firmware(mended)
        assert goes_on(mended, path) == new, one
        assert gptmodel.firmware(over(mended)) == new, one

    assert cut.each(base, log, cuts, visit) >= 120
    assert {old, new} <= set(by_linux)


def test_what_a_cut_left_and_the_same_command_ended_satisfies_sgdisk(tmp_path: Path):
    path = disk(tmp_path / "disk")
    base, log, _ = log_of_growing(path)
    for number, one in enumerate(cut.prefixes(log)):
        image = cut.image_of(base, log, one)
        left = f"{tmp_path}/left{number}"
        flat = Image(base.base, dict(image.sectors))
        flat.save(left)
        grow(left)
        assert sound(left), one
        os.unlink(left)


def test_written_in_the_usual_order_a_cut_would_lose_the_table(tmp_path: Path):
    """The judge sees it: entries in place first, then the header, as one would do it without a thought."""
    path = disk(tmp_path / "disk")
    base, log, _ = log_of_growing(path)
    naive = [op for op in log if getattr(op, "offset", None) in (512, 1024)]
    entries, header = naive[-2], naive[-1]
    lost = 0

    def visit(_one: cut.Cut, image: Image) -> None:
        nonlocal lost
        lost += gptmodel.firmware(image) is None

    cut.each(base, [entries, header], list(cut.prefixes([entries, header])), visit)
    assert lost == 1
