"""The package that cuts logs of block writes: it reads what QEMU writes, makes the images it says, and no others."""

from __future__ import annotations

import contextlib
import random
import struct
from pathlib import Path

import pytest
from blockcuts import cut, ops
from blockcuts.image import File, Image, over
from blockcuts.ops import Discard, Flush, LogError, Op, Write
from diskkit import have, run
from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.scripts
MIB = 1 << 20


def write(sector: int, byte: int, sectors: int = 1, *, settled: bool = False) -> Write:
    return Write(sector * 512, memoryview(bytes([byte]) * 512 * sectors), settled)


class Bytes:
    """A small disk in memory."""

    def __init__(self, size: int) -> None:
        self.size = size

    def read(self, offset: int, length: int) -> bytes:
        return bytes(max(0, min(length, self.size - offset)))


@pytest.mark.skipif(not have("qemu-io", "qemu-img"), reason="qemu-io (Debian's qemu-utils) is not installed")
def test_a_log_of_qemus_driver_is_read_and_its_last_prefix_is_the_disk(tmp_path: Path):
    disk, log, base = tmp_path / "disk", tmp_path / "log", tmp_path / "base"
    disk.write_bytes(bytes(range(256)) * 16 * 1024)
    base.write_bytes(disk.read_bytes())
    log.write_bytes(b"")
    commands = ["write -P 1 0 4k", "write -P 2 8k 1k", "flush"]
    commands += ["write -P 3 64k 512", "write -z 128k 4k", "discard 1M 64k", "flush", "write -P 4 1k 512"]
    node = f"driver=blklogwrites,file.driver=file,file.filename={disk},log.driver=file,log.filename={log}"
    words = [word for each in commands for word in ("-c", each)]
    done = run("qemu-io", "--image-opts", f"{node},log-sector-size=512", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    found = ops.read(str(log))
    assert [type(op).__name__ for op in found if not isinstance(op, Flush)] == ["Write", "Write", "Write", "Write", "Discard", "Write"]
    assert sum(isinstance(op, Flush) for op in found) >= 2
    image = cut.image_of(Image(File(str(base))), found, cut.Cut("prefix", len(found)))
    same = File(str(disk))
    for at in range(0, same.size, MIB):
        if at != MIB:
            assert image.read(at, MIB) == same.read(at, MIB)
    assert image.read(MIB, 64 << 10) == bytes(64 << 10), "what was discarded reads as zeros"


@given(st.binary(max_size=300), st.integers(0, 3))
def test_any_bytes_are_a_log_or_refused(data: bytes, entries: int):
    for each in (data, struct.pack("<QQQI", ops.MAGIC, 1, entries, 512).ljust(512, b"\0") + data):
        with contextlib.suppress(LogError):
            list(ops.parse(memoryview(each)))


def test_prefixes_are_all_of_them():
    log: list[Op] = [write(0, 1), write(1, 2), Flush(), write(0, 3), Flush()]
    base = Image(Bytes(4096))
    seen = []
    cut.each(base, log, list(cut.prefixes(log)), lambda _one, image: seen.append((image.read(0, 1), image.read(512, 1))))
    assert seen == [(b"\0", b"\0"), (b"\1", b"\0"), (b"\1", b"\2"), (b"\3", b"\2")]
    assert base.sectors == {}, "and the base is as it was"


def test_a_reorder_has_what_was_flushed_and_any_part_of_what_came_after():
    log: list[Op] = [write(0, 1), Flush(), write(1, 2), write(2, 3), write(3, 4, settled=True), write(4, 5), Flush()]
    seen = set()
    cuts = list(cut.reorders(log, random.Random(1), 300))
    cut.each(Image(Bytes(4096)), log, cuts, lambda _one, image: seen.add(tuple(image.read(512 * n, 1)[0] for n in range(5))))
    assert {each[0] for each in seen} == {1}, "what was flushed is there"
    assert {(1, 0, 3, 0, 0), (1, 2, 3, 4, 5), (1, 0, 0, 4, 5), (1, 0, 0, 0, 0)} <= seen
    assert all(each[3] == 4 for each in seen if each[4] == 5), "what was settled came before what was sent after it"


def test_a_torn_write_has_some_of_its_sectors_or_a_part_of_one():
    log: list[Op] = [write(0, 1, sectors=4)]
    seen = set()
    cut.each(Image(Bytes(4096)), log, list(cut.torn(log, random.Random(1), 200)), lambda _one, image: seen.add(image.read(0, 2048)))
    assert any(data[0] == 0 and data[512] == 1 for data in seen), "sectors in any order"
    assert any(data.count(b"\1") % 512 > 0 for data in seen), "and a sector that is half new"
    assert bytes([1]) * 2048 not in seen


@given(st.lists(st.tuples(st.integers(0, 3000), st.binary(min_size=1, max_size=1200)), max_size=12), st.integers(0, 4095), st.integers(0, 5000))
def test_an_image_reads_as_a_disk_that_was_written_to(writes: list[tuple[int, bytes]], offset: int, length: int):
    plain, image = bytearray(4096), Image(Bytes(4096))
    for number, (at, whole) in enumerate(writes):
        data = whole[: 4096 - at]
        plain[at : at + len(data)] = data
        if number % 3 == 2:
            image = over(image)
        image.write(at, data)
    assert image.read(offset, length) == bytes(plain[offset : offset + length])


def test_requests_of_one_partition_are_told_from_those_of_another():
    log: list[Op] = [write(0, 1), Flush(), write(10, 2, sectors=2), Discard(20 * 512, 512)]
    assert [type(op) for op in ops.within(log, 10 * 512, 12 * 512)] == [Flush, Write]
    with pytest.raises(ValueError, match="crosses the edge"):
        ops.within(log, 11 * 512, 14 * 512)
