"""Time and seed, case by case: what is on the disk, what the clock and the kernel are told. Real files, the real worker's code."""

from __future__ import annotations

import errno
import os
import shutil
import struct
from binascii import crc32
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kit import Launcher, Log, Timers

from bay0.base.bounds import Bounds
from bay0.boot.continuity import SAVE_EVERY_S, SENSE_S, Continuity, SavedClock
from bay0.effects import clock
from bay0.machines import MACHINES
from bay0.machines.engine import Engine
from bay0.machines.storage import S as Health
from bay0.state import entropy, files, time, worker
from bay0.state.link import Answer
from bay0.state.port import StatePort

BUILD = 1_760_000_000
LATER = BUILD + 86_400 * 100
SEED = bytes(range(32))


def time_line(seconds: int) -> bytes:
    text = f"bay0-time 1 {seconds}".encode()
    return text + f" {crc32(text):08x}\n".encode()


def seed_line(state: str, value: bytes = SEED) -> bytes:
    text = f"bay0-seed 1 {state} {value.hex()}".encode()
    return text + f" {crc32(text):08x}\n".encode()


class Kernel:
    """What the random number generator was told."""

    def __init__(self) -> None:
        self.credited: list[bytes] = []
        self.written: list[bytes] = []
        self.refuses = False

    def ioctl(self, _fd: int, request: int, packed: bytes) -> int:
        assert request == 0x40085203
        bits, size = struct.unpack("=ii", packed[:8])
        assert (bits, size) == (256, 32)
        assert len(packed) == 8 + size
        if self.refuses:
            raise OSError(errno.EPERM, "Operation not permitted")
        self.credited.append(packed[8:])
        return 0


class DiskPort(StatePort):
    """The state port, with the worker's operations called on the spot."""

    def ask(self, op: str, _bound_s: float, done: Callable[[Answer], None], **arguments: Any) -> None:
        self.__dict__.setdefault("asked", []).append(op)
        reply = worker.answer({"id": 1, "op": op, **arguments})
        error = reply.get("error")
        done(Answer(code=error["code"], why=error["message"]) if error else Answer(value=reply["ok"]))


class Spine:
    """The real `Continuity` and the worker's real operations on a directory; the clock is a number."""

    def __init__(self, folder: Path, *, now: float = BUILD + 5, trust: bool = False, build: int | None = BUILD) -> None:
        self.now, self.log, self.timers = now, Log(), Timers()
        self.engine = Engine("b", self.timers, lambda: 0, self.log)  # type: ignore[arg-type]
        self.boot = self.engine.add("boot:b", MACHINES["boot"])
        self.row = {"boot_id": "b"}
        self.folder, self.build, self.trust = folder, build, trust

    def forward(self, floor: int) -> int:
        moved = int(max(0, floor - self.now))
        self.now += moved
        return moved

    def begin(self) -> Spine:
        self.clock = SavedClock(self.log, self.row, self.build, lambda: int(self.now), self.forward)
        made: Any = (self.timers, Bounds(), self.log)
        self.port = DiskPort(self.engine, *made, Launcher(), self.row, self.clock)  # type: ignore[arg-type]
        self.one = Continuity(self.engine, *made, self.port, self.boot, self.clock, self.trust)
        self.port.storage.state = Health.DURABLE
        return self

    def up(self) -> Spine:
        self.begin()
        self.port.clock.found(worker.answer({"id": 1, "op": "time_load"})["ok"])
        self.durable()
        self.one._completed(self.boot, None)  # type: ignore[arg-type]
        return self

    def durable(self) -> None:
        self.one._durable(self.port.storage, None)  # type: ignore[arg-type]

    def off(self) -> dict[str, Any]:
        return dict(worker.answer({"id": 1, "op": "farewell", "seconds": self.clock.good()})["ok"])

    @property
    def kept(self) -> int | None:
        found: int | None = time.load(worker.TIME)["seconds"]
        return found


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(worker, "TIME", str(tmp_path / "time"))
    monkeypatch.setattr(worker, "SEED", str(tmp_path / "seed"))
    return tmp_path


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    device = tmp_path / "urandom"
    device.touch()
    monkeypatch.setattr(entropy, "RNG", str(device))
    monkeypatch.setattr(entropy.fcntl, "ioctl", made.ioctl)
    made.device = device  # type: ignore[attr-defined]
    return made


# ---- the clock


@pytest.mark.parametrize(
    ("case", "data", "complains"),
    [
        ("no file", None, False),
        ("an empty file", b"", True),
        ("a torn file", time_line(LATER)[:17], True),
        ("a file of zeroes", bytes(40), True),
        ("a flipped digit", time_line(LATER).replace(b"17", b"18", 1), True),
        ("words", b"yesterday\n", True),
        ("1970", time_line(5), False),
        ("2106", time_line(2**32 - 1), True),
        ("21 years after the build", time_line(BUILD + 21 * 366 * 86_400), True),
        ("the year 33658", time_line(999_999_999_999), True),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_saved_time_that_makes_no_sense_is_said_and_the_floor_is_the_build(
    case: str, data: bytes | None, complains: bool, disk: Path, kernel: Kernel
) -> None:
    if data is not None:
        (disk / "time").write_bytes(data)
    spine = Spine(disk, now=0).up()
    assert spine.now == BUILD, case
    assert ("saved time ignored" in spine.log.events()) == complains, case
    assert spine.kept == BUILD, "and the next save mends the file"


def test_the_clock_goes_forward_to_the_saved_time(disk: Path, kernel: Kernel) -> None:
    (disk / "time").write_bytes(time_line(LATER))
    spine = Spine(disk, now=0).up()
    assert spine.now == LATER
    assert [line["to"] for line in spine.log.of("clock moved forward")] == [BUILD, LATER]
    assert spine.one.describe()["moved_s"] == LATER


def test_a_clock_that_is_ahead_is_left_alone(disk: Path, kernel: Kernel) -> None:
    (disk / "time").write_bytes(time_line(LATER))
    spine = Spine(disk, now=LATER + 50).up()
    assert spine.now == LATER + 50
    assert spine.log.of("clock moved forward") == []


def test_a_clock_in_the_far_future_is_said_and_never_saved(disk: Path, kernel: Kernel) -> None:
    (disk / "time").write_bytes(time_line(LATER))
    spine = Spine(disk, now=2**32 - 1).up()
    assert "the clock makes no sense and is not saved" in spine.log.events()
    spine.off()
    assert spine.kept == LATER, "the next boot, with its clock mended, is right again"
    assert not spine.one.describe()["sane"]


def test_without_a_manifest_the_saved_time_is_the_floor(disk: Path, kernel: Kernel) -> None:
    (disk / "time").write_bytes(time_line(LATER))
    assert Spine(disk, now=0, build=None).up().now == LATER


def test_a_time_that_cannot_be_read_is_not_written_over(disk: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    (disk / "time").write_bytes(time_line(LATER))

    def refuses(_path: str) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(files, "read", refuses)
        spine = Spine(disk, now=0).up()
        spine.timers.advance(3 * SAVE_EVERY_S)
        assert spine.now == BUILD
    spine.off()
    assert spine.kept == LATER
    assert Spine(disk, now=0).up().now == LATER


def test_the_time_is_saved_each_minute_and_at_the_end(disk: Path, kernel: Kernel) -> None:
    spine = Spine(disk).up()
    for minute in range(1, 4):
        spine.now += SAVE_EVERY_S
        spine.timers.advance(SAVE_EVERY_S)
        assert spine.kept == BUILD + 5 + minute * 60
    spine.now += 30
    assert spine.off()["time"] == spine.kept == BUILD + 5 + 3 * 60 + 30


def test_nothing_is_saved_while_storage_is_not_durable(disk: Path, kernel: Kernel) -> None:
    spine = Spine(disk).up()
    spine.port.storage.state = Health.DETACHED
    spine.now += SAVE_EVERY_S
    spine.timers.advance(SAVE_EVERY_S)
    assert spine.kept == BUILD + 5


def test_a_read_only_disk_is_read_and_said_once(disk: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    (disk / "time").write_bytes(time_line(LATER))
    (disk / "seed").write_bytes(seed_line("new"))

    def refuses(path: str, _data: bytes) -> None:
        raise OSError(errno.EROFS, "Read-only file system", path)

    monkeypatch.setattr(files, "replace", refuses)
    spine = Spine(disk, now=0, trust=True).up()
    spine.timers.advance(5 * SAVE_EVERY_S)
    assert spine.now == LATER
    assert len(spine.log.of("time not saved")) == 1
    assert (spine.one.seed or {})["credited"] is False, "it could be used again and again"
    assert kernel.credited == []
    assert len(spine.off()["failed"]) == 2


def test_a_save_that_is_cut_before_its_rename_leaves_the_old_time(disk: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    (disk / "time").write_bytes(time_line(LATER))

    class Cut(BaseException):
        pass

    def cut(*_: Any) -> None:
        raise Cut

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", cut)
        with pytest.raises(Cut):
            time.save(worker.TIME, LATER + 60)
    assert (disk / "time.new").exists()
    assert Spine(disk, now=0).up().now == LATER
    assert not (disk / "time.new").exists(), "and the next save uses it up"


def test_the_state_directory_may_be_missing(tmp_path: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "TIME", str(tmp_path / "nowhere" / "time"))
    monkeypatch.setattr(worker, "SEED", str(tmp_path / "nowhere" / "seed"))
    spine = Spine(tmp_path, now=0).up()
    assert spine.now == BUILD
    assert spine.log.of("time not saved")


def test_only_pid_1_sets_a_clock_and_the_build_time_is_found_in_the_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_to: list[float] = []
    monkeypatch.setattr(clock.time, "clock_settime", lambda _which, to: set_to.append(to))
    assert clock.forward(2**33) == 0
    monkeypatch.setattr(clock.os, "getpid", lambda: 1)
    assert clock.forward(0) == 0
    assert clock.forward(2**33) > 0
    assert set_to == [2**33]
    manifest = tmp_path / "manifest.json"
    manifest.write_text('{"schema": 1,\n "source_date_epoch": 1760000000,\n "packages": []}')
    assert clock.build_time(str(manifest)) == 1760000000
    manifest.write_text("{")
    assert clock.build_time(str(manifest)) is clock.build_time(str(tmp_path / "none")) is None
    assert SENSE_S > 20 * 365 * 86_400


# ---- the seed


def test_a_seed_is_marked_before_it_is_used_and_a_new_one_follows(disk: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    (disk / "seed").write_bytes(seed_line("new"))
    seen: list[str] = []
    mix = entropy.mix

    def watched(value: bytes, *, credit: bool) -> bool:
        seen.append((disk / "seed").read_text().split()[2])
        return mix(value, credit=credit)

    monkeypatch.setattr(entropy, "mix", watched)
    Spine(disk, trust=True).up()
    assert seen == ["used"]
    assert kernel.credited == [SEED]
    found = entropy._read(worker.SEED)
    assert found.state == "new"
    assert found.value != SEED
    assert (disk / "seed").stat().st_mode & 0o777 == 0o600


def test_nothing_is_credited_unless_asked_for(disk: Path, kernel: Kernel) -> None:
    (disk / "seed").write_bytes(seed_line("new"))
    spine = Spine(disk).up()
    assert kernel.credited == []
    assert kernel.device.read_bytes() == SEED, "and it is mixed in all the same"  # type: ignore[attr-defined]
    assert (spine.one.seed or {})["why"] == "nobody asked to trust it"


@pytest.mark.parametrize("state", ["used", "weak"])
def test_a_seed_that_was_used_or_made_without_randomness_is_mixed_in_and_not_credited(state: str, disk: Path, kernel: Kernel) -> None:
    (disk / "seed").write_bytes(seed_line(state))
    spine = Spine(disk, trust=True).up()
    assert (spine.one.seed or {}) | {"why": ""} == {"found": state, "mixed": True, "credited": False, "why": ""}
    assert kernel.credited == []


@pytest.mark.parametrize(
    "data",
    [b"", seed_line("new")[:50], bytes(95), b"x" * 5000, seed_line("new").replace(b"00", b"01", 1)],
    ids=("empty", "torn", "zeroes", "long", "flipped"),
)
def test_a_file_that_is_no_seed_is_said_and_replaced(data: bytes, disk: Path, kernel: Kernel) -> None:
    (disk / "seed").write_bytes(data)
    spine = Spine(disk, trust=True).up()
    assert (spine.one.seed or {})["found"] == "nonsense"
    assert kernel.credited == []
    assert kernel.device.read_bytes() == b""  # type: ignore[attr-defined]
    assert entropy._read(worker.SEED).state == "new"


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_mark_whose_sync_fails_gives_no_credit(number: int, disk: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    (disk / "seed").write_bytes(seed_line("new"))

    def fails(_fd: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fails)
    spine = Spine(disk, trust=True).up()
    assert (spine.one.seed or {})["credited"] is False
    assert "could not be marked" in (spine.one.seed or {})["why"]
    assert kernel.device.read_bytes() == SEED  # type: ignore[attr-defined]


def test_without_a_device_for_randomness_the_boot_goes_on(disk: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    (disk / "seed").write_bytes(seed_line("new"))
    monkeypatch.setattr(entropy, "RNG", str(disk / "no-such-device"))
    spine = Spine(disk, trust=True).up()
    assert (spine.one.seed or {})["mixed"] is False
    assert entropy._read(worker.SEED).state == "new", "a new one is written all the same"


def test_a_kernel_that_refuses_the_credit_gets_the_seed_without(disk: Path, kernel: Kernel) -> None:
    (disk / "seed").write_bytes(seed_line("new"))
    kernel.refuses = True
    spine = Spine(disk, trust=True).up()
    assert (spine.one.seed or {})["why"] == "the kernel did not take the credit"
    assert kernel.device.read_bytes() == SEED  # type: ignore[attr-defined]


def test_a_copy_of_a_disk_is_credited_on_neither_machine_unless_asked_for_and_the_two_part_at_once(disk: Path, kernel: Kernel) -> None:
    (disk / "seed").write_bytes(seed_line("new"))
    shutil.copy(disk / "seed", disk / "copy")
    Spine(disk).up()
    first = entropy._read(worker.SEED).value
    shutil.copy(disk / "copy", disk / "seed")
    Spine(disk).up()
    assert kernel.credited == []
    assert entropy._read(worker.SEED).value != first


def test_a_seed_made_without_randomness_is_marked_weak_and_without_an_old_one_none_is_made(
    disk: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entropy, "fresh", lambda: b"")
    Spine(disk, trust=True).up()
    assert not (disk / "seed").exists()
    (disk / "seed").write_bytes(seed_line("new"))
    Spine(disk, trust=True).up()
    assert entropy._read(worker.SEED).state == "weak"


def test_randomness_is_asked_for_without_waiting_and_its_absence_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def not_yet(_size: int, flags: int) -> bytes:
        asked.append(flags)
        raise BlockingIOError

    monkeypatch.setattr(os, "getrandom", not_yet)
    assert entropy.fresh() == b""
    assert asked == [os.GRND_NONBLOCK]


def test_pid_1_never_asks_for_randomness() -> None:
    """Only the worker's half does; what PID 1 loads does not even name the ways."""
    top = Path(worker.__file__).parents[1]
    users = [
        path.relative_to(top).as_posix()
        for path in top.rglob("*.py")
        if any(word in path.read_text() for word in ("os.urandom", "os.getrandom", "import random", "import secrets", "import uuid"))
    ]
    assert users == ["state/entropy.py"]


def test_the_seed_is_used_once_a_boot_however_often_storage_becomes_durable(disk: Path, kernel: Kernel) -> None:
    (disk / "seed").write_bytes(seed_line("new"))
    spine = Spine(disk, trust=True).up()
    for _ in range(3):
        spine.durable()
    assert spine.port.asked.count("seed_use") == spine.port.asked.count("seed_renew")  # type: ignore[attr-defined] == 1


def test_the_end_renews_the_seed_even_if_the_time_cannot_be_kept(disk: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    spine = Spine(disk).up()
    before = entropy._read(worker.SEED).value
    monkeypatch.setattr(worker, "TIME", str(disk / "no-such-folder" / "time"))
    done = spine.off()
    assert done["seed"] == "new"
    assert len(done["failed"]) == 1
    assert entropy._read(worker.SEED).value != before
