"""`bay0 storage grow` in a VM whose disk keeps a log of every request (QEMU's `blklogwrites`): what a cut at any moment of it leaves.

The same order on files, in hundreds of cuts: tests/unit/test_gpt.py. Here the kernel's own writes are in it, ext4's among them.
"""

from __future__ import annotations

import os
import random
import re
import shutil

import harness
import pytest
from attrs import frozen
from blockcuts import cut, gptmodel, ops
from blockcuts.image import File, Image, over
from blockcuts.ops import Op, Write

pytestmark = [pytest.mark.vm, pytest.mark.full]
MIB = 1 << 20
SIZE, LARGER = 128 * MIB, 400 * MIB
FIRST = 16 * MIB  # where the partition of /persist begins
CUTS, CHECKED = 150, 12  # looked at; of them checked by e2fsck


@frozen(eq=False)
class Grown:
    """A disk before, what was done to it from the moment that it was to grow, and what it had in between."""

    base: Image
    log: list[Op]
    old: tuple[gptmodel.Part, ...]
    new: tuple[gptmodel.Part, ...]
    kept: str  # a file's text that was synced before


def make(path: str) -> None:
    with open(path, "wb") as file:
        file.truncate(SIZE)
    harness.tool("sgdisk", "--clear", "--new=1:2048:+8M", f"--new=2:{FIRST // 512}:0", path)
    end = int(harness.tool("sgdisk", "--info=2", path).stdout.partition("Last sector: ")[2].split()[0])
    blocks = ((end + 1) * 512 - FIRST) // 4096
    options = ("-b", "4096", "-L", "SPINE-PERSIST", "-E", f"offset={FIRST},lazy_itable_init=0,lazy_journal_init=0")
    harness.tool("mke2fs", "-q", "-F", "-t", "ext4", *options, path, str(blocks))
    os.truncate(path, LARGER)


@pytest.fixture(scope="module")
def grown(folder: str) -> Grown:
    disk, base, log = f"{folder}/disk.img", f"{folder}/base.img", f"{folder}/log"
    make(disk)
    shutil.copyfile(disk, base)
    with open(log, "wb"):
        pass
    node = f"driver=blklogwrites,node-name=logged,log-sector-size=512,file.driver=file,file.filename={disk},log.driver=file,log.filename={log}"
    with harness.vm(qemu=("-blockdev", node, "-device", "virtio-blk-pci,drive=logged")) as machine:
        machine.wait_console(harness.COMPLETE)
        machine.wait_durable()
        machine.out("mkdir /persist/kept && echo so it is >/persist/kept/file && sync")
        answer = machine.json("bay0 storage grow --json", 180)
        assert answer["to_bytes"] > answer["from_bytes"] + 200 * MIB
        assert machine.quit().status == 0
    found = ops.read(log)
    start = next(number for number, op in enumerate(found) if isinstance(op, Write) and op.offset > LARGER - MIB)
    before = over(Image(File(base)))
    for op in found[:start]:
        cut.apply(before, op)
    old, new = gptmodel.linux(before), gptmodel.linux(Image(File(disk)))
    assert old is not None
    assert new is not None
    assert new[1].last > old[1].last
    return Grown(before, found[start:], old, new, "so it is")


def checked(path: str, partition: gptmodel.Part, kept: str) -> int:
    """Let e2fsck replay the journal; return the filesystem's size. It must be whole, within its partition, and hold what was synced."""
    place = f"{path}?offset={FIRST}"
    assert harness.tool("e2fsck", "-fy", place, check=False).returncode in {0, 1}
    assert harness.tool("e2fsck", "-fn", place, check=False).returncode == 0
    header = harness.tool("dumpe2fs", "-h", place).stdout
    blocks = int(re.findall(r"^Block count: +(\d+)$", header, re.MULTILINE)[0])
    assert blocks * 4096 <= (partition.last - partition.first + 1) * 512, "no part of it lies behind its partition"
    assert kept in harness.tool("debugfs", "-R", "cat /kept/file", place).stdout
    return blocks * 4096


def test_a_cut_at_any_moment_leaves_a_table_and_a_filesystem_within_its_partition(grown: Grown, folder: str):
    rng = random.Random(int(os.environ.get("SPINE_SEED", "1")))
    some = [*cut.prefixes(grown.log)]
    some = [*some[:40], *rng.sample(some, min(50, len(some))), *cut.reorders(grown.log, rng, 30), *cut.torn(grown.log[:60], rng, 30)]
    look, sizes = set(rng.sample(range(len(some)), CHECKED)), set()
    order = {id(one): number for number, one in enumerate(some)}

    def visit(one: cut.Cut, image: Image) -> None:
        linux = gptmodel.linux(image)
        assert linux in (grown.old, grown.new) or (linux is None and one.kind == "torn"), one
        mended = over(image)
        firmware = gptmodel.firmware(mended)
        assert firmware in (grown.old, grown.new), one
        if order[id(one)] in look and firmware is not None:
            path = f"{folder}/left.img"
            flat(mended).save(path)
            sizes.add(checked(path, firmware[1], grown.kept))
            os.unlink(path)

    assert cut.each(grown.base, grown.log, some, visit) >= CUTS - 10
    assert len(sizes) > 1, f"of the sizes in between: {sizes}"


def flat(image: Image) -> Image:
    """Return an image over the file that is below all layers."""
    layers = [image]
    while isinstance(layers[-1].base, Image):
        layers.append(layers[-1].base)
    sectors = {number: where for layer in reversed(layers) for number, where in layer.sectors.items()}
    return Image(layers[-1].base, sectors)
