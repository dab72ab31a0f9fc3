"""The model of the loader (`blockcuts.loader`) against EFI Boot Guard itself, on what cuts of an upgrade left.

The program of a slot is a kernel with nothing to start, so that one image takes seconds: which of them it is
stands on its command line.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path

import harness
import pytest
from attrs import frozen
from blockcuts import cut, gptmodel, loader
from blockcuts.fat import mount
from blockcuts.image import File, Image, merged, over
from blockcuts.ops import Flush, Op
from blockcuts.recorded import recorded
from test_vm_efi import SCRIPTS

from bay0.state import bootenv, slots

pytestmark = [pytest.mark.vm, pytest.mark.full]
MIB = 1 << 20
IMAGES = 30
SIZES = ("--size", "256M", "--slot", "48M")
WORDS = "console=ttyS0,115200 panic=-1 spine.mark={}"
MARK = r"Command line: .*spine\.mark=(\d)"
GAVE_UP = (
    r"Cannot load specified kernel image|Environment not set|Too many config partitions|Cannot probe watchdog"
)


@frozen(eq=False)
class Case:
    """An image, what it is, and what the model makes of it."""

    what: str
    image: Image


@frozen(eq=False)
class Bench:
    """Programs by version, and images to be started."""

    disk: str
    programs: dict[int, str]  # version -> digest
    cases: list[Case]


def program(folder: str, version: int) -> str:
    path = f"{folder}/{version}.efi"
    Path(folder, "empty").write_text("")
    harness.tool(
        "python3", str(SCRIPTS / "lib/mkcpio.py"), f"{folder}/tiny.img", f"file:nothing:644:{folder}/empty"
    )
    parts = (
        "--kernel",
        harness.IMAGES[0],
        "--image",
        f"{folder}/tiny.img",
        "--manifest",
        "none",
        "--cmdline",
        WORDS.format(version),
    )
    harness.tool("bash", str(SCRIPTS / "package-efi.sh"), *parts, "--output", path)
    return path


def digest(path: str) -> str:
    return f"sha256:{hashlib.sha256(Path(path).read_bytes()).hexdigest()}"


def life(folder: str, disk: str, programs: dict[int, str]) -> Iterator[tuple[str, Image, list[Op]]]:
    """Yield what is written in a life of upgrades, step by step: its name, the disk before, the log."""
    platter = Image(File(disk))
    parts = {part.name: part for part in gptmodel.linux(platter) or () if part.name in bootenv.SLOTS}
    files: dict[str, slots.Slot] = {}
    for name, part in parts.items():
        size = (part.last - part.first + 1) * 512
        Path(folder, name).write_bytes(platter.read(part.first * 512, size))
        files[name] = slots.Slot(name, f"{folder}/{name}", size, part.first)

    def stage(name: str, version: int) -> None:
        with open(f"{folder}/{version}.efi", "rb") as source:
            slots.stage(files, name, source.fileno(), programs[version], lambda *_: None)

    def start() -> None:
        disk_now = over(platter)
        model = loader.Loader([disk_now])
        model.boot()
        for write in model.wrote:
            name = max(
                (name for name in files if parts[name].first * 512 <= write.offset),
                key=lambda name: parts[name].first,
            )
            fd = os.open(files[name].path, os.O_RDWR)
            os.pwrite(fd, write.data, write.offset - parts[name].first * 512)
            os.fsync(fd)
            os.close(fd)

    for what, do in (
        ("stage 2", lambda: stage("SLOTB", 2)), ("arm 2", lambda: slots.arm(files, "SLOTB", 150)),
        ("the loader's try of 2", start),
        ("commit 2", lambda: slots.commit(files, "SLOTB")), ("stage 3", lambda: stage("SLOTA", 3)),
        ("arm 3", lambda: slots.arm(files, "SLOTA", 0)), ("the loader's try of 3", start),
        ("the loader's end of 3", start),
        ("wipe 3", lambda: slots.wipe(files, "SLOTA")),
    ):  # fmt: skip
        with recorded(
            *(files[name].path for name in parts), at=tuple(part.first * 512 for part in parts.values())
        ) as log:
            do()
        yield what, platter, log
        done = over(platter)
        for op in log:
            cut.apply(done, op)
        platter = merged(platter, done)


@pytest.fixture(scope="module")
def bench(folder: str) -> Bench:
    programs = {version: digest(program(folder, version)) for version in (1, 2, 3)}
    disk = f"{folder}/disk.img"
    flash = ("bash", str(SCRIPTS / "genesis-flash.sh"))
    harness.tool(*flash, *SIZES, "--uki", f"{folder}/1.efi", "--yes-destroy", disk, disk)
    rng = random.Random(int(os.environ.get("SPINE_SEED", "1")))
    steps = []
    for what, before, log in life(folder, disk, programs):
        some = [*cut.prefixes(log), *cut.reorders(log, rng, 4), *cut.torn(log, rng, 8)]
        rng.shuffle(some)
        whole = cut.Cut("prefix", len(log))
        steps.append([(what, before, log, one) for one in (whole, *some)])
    by_turns = [step[number] for number in range(max(map(len, steps))) for step in steps if number < len(step)]
    cases = list(by_hand(Image(File(disk))))
    for what, before, log, one in by_turns[: IMAGES - len(cases)]:
        assert not all(isinstance(op, Flush) for op in log), what
        left = merged(before, cut.image_of(before, log, one))
        cases.append(Case(f"{what}, {one.kind} after {one.done}", left))
    return Bench(disk, programs, cases)


def by_hand(disk: Image) -> Iterator[Case]:
    """Yield what no cut leaves: from some of it nothing starts."""
    for what, names, file in (
        ("both environments are torn", bootenv.SLOTS, loader.ENV),
        ("the good slot has another's label", bootenv.SLOTS[:1], loader.LABEL),
        ("the good slot's environment is torn, the other's is FAILED", bootenv.SLOTS[:1], loader.ENV),
    ):
        left = over(disk)
        for part in gptmodel.linux(disk) or ():
            if part.name in names:
                volume = mount(left, part.first * 512, (part.last - part.first + 1) * 512)
                assert volume is not None
                ((at, _),) = volume.file(file) or ()
                left.write(at + 2, b"?")
        yield Case(what, merged(disk, left))


def environments(image: Image) -> list[bytes | None]:
    """Return what the slots' environments are, byte for byte."""
    found: list[bytes | None] = []
    for part in gptmodel.linux(image) or ():
        if part.name in bootenv.SLOTS:
            volume = mount(image, part.first * 512, (part.last - part.first + 1) * 512)
            found.append(None if volume is None else volume.read(loader.ENV))
    return found


@pytest.mark.parametrize("number", range(IMAGES))
def test_the_loader_starts_and_writes_what_the_model_says(bench: Bench, number: int, folder: str):
    case, path = bench.cases[number], f"{folder}/left.img"
    case.image.save(path)
    expected = over(case.image)
    model = loader.Loader([expected]).boot()
    with harness.vm(efi=("--efi", path), console=True, life_s=240) as machine:
        machine.wait_console(f"{MARK}|{GAVE_UP}", 180)
        shown = re.search(MARK, machine.console)
    seen = None if shown is None else bench.programs[int(shown[1])]
    assert seen == (model.digest if isinstance(model, loader.Started) else None), case.what
    assert environments(Image(File(path))) == environments(expected), case.what
    os.unlink(path)
