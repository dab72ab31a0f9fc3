"""EFI Boot Guard 0.19 as a model: what it starts from a disk, and what it writes there (main.c, env/fatvars.c, env/syspart.c, utils.c).

Held against the real one under firmware by tests/vm/test_vm_loader.py. It reads the disk by itself: partitions, FATs, environments.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Collection, Sequence

from attrs import define, field, frozen

from blockcuts import gptmodel
from blockcuts.fat import Fat, FatError, mount
from blockcuts.image import Image
from blockcuts.ops import Write

ENV, LABEL, PARTS = "BGENV.DAT", "EFILABEL", 2
SIZE, UNITS = 132104, 255
OK, INSTALLED, TESTING, FAILED = range(4)
RESETS = 4  # more than two never happen


@frozen
class Env:
    """A boot environment, as its bytes say; `data` without the CRC."""

    kernel: str
    in_progress: int
    ustate: int
    watchdog_s: int
    revision: int
    data: bytes

    def changed(self, ustate: int, revision: int) -> Env:
        data = bytearray(self.data)
        struct.pack_into("<BHI", data, 1021, ustate, self.watchdog_s, revision)
        return Env(self.kernel, self.in_progress, ustate, self.watchdog_s, revision, bytes(data))

    def sealed(self) -> bytes:
        return self.data + struct.pack("<I", zlib.crc32(self.data))


NONE = Env("", 0, 0, 0, 0, bytes(SIZE - 4))  # memory that was cleared


def _env(data: bytes) -> tuple[Env, bool]:
    """Return what is in the loader's memory after reading a file, and whether it takes it for valid."""
    if len(data) < SIZE:
        return NONE, False
    body = data[: SIZE - 4]
    in_progress, ustate, watchdog_s, revision = struct.unpack_from("<BBHI", body, 1020)
    kernel = body[: 2 * (UNITS - 1)].decode("utf-16-le", "replace").partition("\0")[0]
    return Env(kernel, in_progress, ustate, watchdog_s, revision, body), zlib.crc32(body) == struct.unpack_from("<I", data, SIZE - 4)[0]


@frozen
class Started:
    """A program was started: from which slot, its digest, and whether a watchdog counts."""

    slot: str
    digest: str
    watchdog_s: int


@frozen
class Back:
    """The loader gave up. Without a watchdog somebody must reset the machine."""

    why: str
    watchdog_s: int = 0


@define(eq=False)
class Loader:
    """The loader on `disks`, of which it was itself started from the first. What it writes is in them, and in `wrote`."""

    disks: Sequence[Image]
    watchdog: bool = True  # whether the machine has one that it knows
    wrote: list[Write] = field(factory=list)

    def boot(self) -> Started | Back:
        """Return what one start of the machine comes to."""
        volumes = [(number, fat) for number, disk in enumerate(self.disks) for fat in _volumes(disk)]
        configs = [(number, fat) for number, fat in volumes if fat.has(ENV)]
        if any(number == 0 for number, _ in configs):
            configs = [each for each in configs if each[0] == 0]  # "Booting with environments from boot medium only"
        if len(configs) > PARTS:
            return Back("Too many config partitions found")
        read = [_env(fat.read(ENV) or b"") for _, fat in configs]
        envs = [env for env, _ in read] + [NONE] * (PARTS - len(read))
        valid = [good for _, good in read] + [True] * (PARTS - len(read))
        latest, before = _two(envs, valid)
        current = latest
        if envs[latest].in_progress == 1:
            current = before
        elif envs[latest].ustate == TESTING:
            envs[latest] = envs[latest].changed(FAILED, 0)
            self._save(configs, latest, envs[latest])
            current = before
        elif envs[latest].ustate == INSTALLED:
            envs[latest] = envs[latest].changed(TESTING, envs[latest].revision)
            self._save(configs, latest, envs[latest])
        return self._start(envs[current], [fat for _, fat in volumes])

    def _save(self, configs: Sequence[tuple[int, Fat]], which: int, env: Env) -> None:
        if len(configs) != PARTS:
            return
        pieces, data = configs[which][1].file(ENV), env.sealed()
        for at, length in pieces or ():
            write = Write(at, memoryview(data[:length]))
            data = data[length:]
            self.wrote.append(write)
            configs[which][1].image.write(write.offset, write.data)

    def _start(self, env: Env, volumes: Sequence[Fat]) -> Started | Back:
        kind, slot, path = (*env.kernel.split(":", 2), "", "")[:3]
        if env.watchdog_s and not self.watchdog:
            return Back("Cannot probe watchdog")
        for volume in volumes if kind == "C" else ():
            label = (volume.read(LABEL) or b"").decode("utf-16-le", "replace").rstrip("\0")
            if slot and label[: len(slot)] == slot:
                try:
                    pieces = volume.file(path)
                except FatError:
                    pieces = None
                if pieces is None:
                    break
                total = hashlib.sha256()
                for at, length in pieces:
                    total.update(volume.image.read(at, length))
                return Started(slot, f"sha256:{total.hexdigest()}", env.watchdog_s)
        return Back("Cannot load specified kernel image", env.watchdog_s)


def _volumes(disk: Image) -> list[Fat]:
    parts = gptmodel.firmware(disk) or ()
    found = [mount(disk, part.first * 512, (part.last - part.first + 1) * 512) for part in parts]
    return [each for each in found if each is not None]


def _two(envs: Sequence[Env], valid: Sequence[bool]) -> tuple[int, int]:
    """Return the newest and the one before it, as the loader's loop finds them."""
    latest_rev = latest = before_rev = before = 0
    for number, (env, good) in enumerate(zip(envs, valid, strict=True)):
        if not good:
            continue
        if env.revision > latest_rev:
            before_rev, latest_rev, before, latest = latest_rev, env.revision, latest, number
        elif env.revision > before_rev:
            before_rev, before = env.revision, number
    return latest, before


def comes_up(disks: Sequence[Image], sound: Collection[str]) -> Started | Back:
    """Return what a machine comes to by itself: what does not run (a digest that is not `sound`) is reset by a watchdog, if one counts."""
    outcome: Started | Back = Back("was not started")
    for _ in range(RESETS):
        outcome = Loader(disks).boot()
        if isinstance(outcome, Started) and outcome.digest in sound:
            return outcome
        if not outcome.watchdog_s:
            return Back(outcome.why if isinstance(outcome, Back) else f"{outcome.slot} has something that does not run")
    return Back(f"after {RESETS} resets: {outcome}")
