"""The power goes while an upgrade is written: whatever is left of it, the machine comes up by itself, with a spine that may run.

Every write of slots.py is recorded, and every image that a cut may leave is given to a model of the loader (`blockcuts.loader`).
"""

from __future__ import annotations

import os
import random
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from attrs import define, field
from blockcuts import cut, loader
from blockcuts.image import File, Image, merged, over
from blockcuts.ops import Flush, Op, within
from blockcuts.recorded import recorded
from diskkit import have, run
from slotkit import MIB, SIZE, Disk, digest, image

from bay0.state import bootenv, slots

pytestmark = [pytest.mark.scripts, pytest.mark.skipif(not have("sgdisk"), reason="sgdisk (Debian's gdisk) is not installed")]
STARTS = {"SLOTA": 8 * MIB, "SLOTB": 8 * MIB + SIZE}
VERSIONS = {number: image(f"{number}.0") for number in (1, 2, 3, 4)}
DIGESTS = {number: digest(data) for number, data in VERSIONS.items()}
WATCHDOG_S = 150


@define(eq=False)
class Bench:
    """A disk with two slots: as files, which slots.py works on, and as what is on the platter."""

    folder: Path
    files: Disk
    platter: Image
    tried: Counter[str] = field(factory=Counter)
    rng: random.Random = field(factory=lambda: random.Random(int(os.environ.get("SPINE_SEED", "1"))))

    @contextmanager
    def step(self, what: str, *allowed: int, other: str = "") -> Iterator[None]:
        """Record what is written within, and cut it everywhere: one of the `allowed` versions must come up. `other`: the slot that is left alone."""
        slots_ = self.files.slots
        with recorded(*(slots_[name].path for name in STARTS), at=tuple(STARTS.values())) as log:
            yield
        self.cut(what, log, *allowed, other=other)

    def cut(self, what: str, log: list[Op], *allowed: int, other: str = "") -> None:
        if other:
            assert not [op for op in within(log, STARTS[other], STARTS[other] + SIZE) if not isinstance(op, Flush)], f"{what} writes to {other}"
        good, sound = {DIGESTS[number] for number in allowed}, set(DIGESTS.values())
        cuts = [*cut.prefixes(log), *cut.reorders(log, self.rng, 8), *cut.torn(log, self.rng, 12)]

        def visit(one: cut.Cut, left: Image) -> None:
            found = loader.comes_up([left], sound)
            assert isinstance(found, loader.Started), f"{what}, {one}: {found}"
            assert found.digest in good, f"{what}, {one}: {found}"

        self.tried[what.partition(" ")[0]] += cut.each(self.platter, log, cuts, visit)
        done = over(self.platter)
        for op in log:
            cut.apply(done, op)
        self.platter = merged(self.platter, done)

    def reset(self, what: str, *allowed: int) -> loader.Started:
        """Start the machine once; what the loader writes is cut too, and reaches the files."""
        disk = over(self.platter)
        model = loader.Loader([disk])
        found = model.boot()
        assert isinstance(found, loader.Started), found
        self.cut(f"loader: {what}", [op for write in model.wrote for op in (write, Flush())], *allowed)
        for write in model.wrote:
            name = max((name for name in STARTS if STARTS[name] <= write.offset), key=STARTS.__getitem__)
            with open(self.files.slots[name].path, "r+b") as file:
                file.seek(write.offset - STARTS[name])
                file.write(write.data)
        return found

    def stage(self, name: str, version: int) -> None:
        source = self.folder / "source"
        source.write_bytes(VERSIONS[version])
        fd = os.open(source, os.O_RDONLY)
        try:
            slots.stage(self.files.slots, name, fd, DIGESTS[version], lambda *_: None)
        finally:
            os.close(fd)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    files = Disk(tmp_path)
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(16 * MIB + 2 * SIZE)
    sectors = {name: start // 512 for name, start in STARTS.items()}
    words = ["--new=1:2048:+2M", *(f"--new={number}:{sectors[name]}:+{SIZE // MIB}M" for number, name in enumerate(STARTS, 2))]
    words += ["--new=4:0:0", *(f"--change-name={number}:{name}" for number, name in enumerate(STARTS, 2))]
    assert run("sgdisk", "--clear", *words, path).returncode == 0
    for name, start in STARTS.items():
        words = ["dd", f"if={files.slots[name].path}", f"of={path}", "bs=1M", f"seek={start // MIB}", "conv=notrunc,sparse", "status=none"]
        subprocess.run(words, check=True)
    return Bench(tmp_path, files, Image(File(str(path))))


def same_on_platter(bench: Bench) -> bool:
    """Tell whether the log has all that was written: the files are as the platter."""
    return all(Path(bench.files.slots[name].path).read_bytes() == bench.platter.read(start, SIZE) for name, start in STARTS.items())


def tried(found: loader.Started) -> tuple[str, int]:
    return found.slot, next(number for number, each in DIGESTS.items() if each == found.digest)


def test_no_cut_of_a_whole_life_of_upgrades_leaves_a_machine_that_does_not_come_up_or_runs_what_it_must_not(bench: Bench):
    wiped: Callable[[str], None] = lambda name: slots.wipe(bench.files.slots, name)
    assert tried(bench.reset("the first start", 1)) == ("SLOTA", 1)

    with bench.step("stage 2 into B", 1, other="SLOTA"):
        bench.stage("SLOTB", 2)
    assert tried(bench.reset("2 is staged", 1)) == ("SLOTA", 1)
    with bench.step("arm 2", 1, 2, other="SLOTA"):
        slots.arm(bench.files.slots, "SLOTB", WATCHDOG_S)
    assert tried(bench.reset("the try of 2", 1, 2)) == ("SLOTB", 2)
    with bench.step("commit 2", 1, 2, other="SLOTA"):
        slots.commit(bench.files.slots, "SLOTB")
    assert tried(bench.reset("2 is good", 2)) == ("SLOTB", 2)

    with bench.step("stage 3 into A", 2, other="SLOTB"):
        bench.stage("SLOTA", 3)
    with bench.step("arm 3", 2, 3, other="SLOTB"):
        slots.arm(bench.files.slots, "SLOTA", WATCHDOG_S)
    assert tried(bench.reset("the try of 3", 2, 3)) == ("SLOTA", 3)
    assert tried(bench.reset("3 came to nothing", 2)) == ("SLOTB", 2)
    with bench.step("wipe the NACKed 3", 2, other="SLOTB"):
        wiped("SLOTA")

    with bench.step("stage 4 into A", 2, other="SLOTB"):
        bench.stage("SLOTA", 4)
    with bench.step("arm 4", 2, 4, other="SLOTB"):
        slots.arm(bench.files.slots, "SLOTA", 0)
    with bench.step("cancel 4", 2, 4, other="SLOTB"):
        wiped("SLOTA")
    with bench.step("stage 4 once more", 2, other="SLOTB"):
        bench.stage("SLOTA", 4)
    with bench.step("arm 4", 2, 4, other="SLOTB"):
        slots.arm(bench.files.slots, "SLOTA", WATCHDOG_S)
    assert tried(bench.reset("the try of 4", 2, 4)) == ("SLOTA", 4)
    with bench.step("commit 4", 2, 4, other="SLOTB"):
        slots.commit(bench.files.slots, "SLOTA")
    with bench.step("rollback to 2", 2, 4, other="SLOTA"):
        slots.favour(bench.files.slots, "SLOTB")
    assert tried(bench.reset("2 is favoured", 2)) == ("SLOTB", 2)

    assert same_on_platter(bench)
    print(dict(bench.tried))
    assert sum(bench.tried.values()) >= 200


def test_the_judge_sees_an_image_that_is_armed_before_it_is_whole(bench: Bench):
    """Seeded fault: the environment says INSTALLED while the image is still on its way."""
    real = slots.BootEnv

    def hasty(kernel: str, **words: object) -> bootenv.BootEnv:
        env = real(kernel, **words)  # type: ignore[arg-type]
        return env._replace(in_progress=False, ustate=bootenv.UState.INSTALLED, revision=9) if env.in_progress else env

    with pytest.MonkeyPatch.context() as patch, pytest.raises(AssertionError, match="stage 2"), bench.step("stage 2", 1, other="SLOTA"):
        patch.setattr(slots, "BootEnv", hasty)
        bench.stage("SLOTB", 2)


def test_the_judge_sees_an_armed_slot_that_is_written_without_disarming_it_first(bench: Bench):
    """Seeded fault: staging anew leaves the old environment until its first sector goes."""
    with bench.step("stage 2", 1, other="SLOTA"):
        bench.stage("SLOTB", 2)
    with bench.step("arm 2", 1, 2, other="SLOTA"):
        slots.arm(bench.files.slots, "SLOTB", 0)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(AssertionError, match="stage 3"), bench.step("stage 3", 1, 2, other="SLOTA"):
        patch.setattr(slots, "wipe", lambda *_: None)
        bench.stage("SLOTB", 3)
