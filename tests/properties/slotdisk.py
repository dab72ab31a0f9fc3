"""The slots of the simulated machine, and its loader.

Real: the layout, the environments, every write of `state/slots.py`, on files. Modelled: the process that does it,
which may end at each write with all the rest; the loader (`blockcuts.loader`, which is held against the real one under
firmware), whose own writes may be torn; what an image says of itself, a line of JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from blockcuts import loader
from blockcuts.fat import mount
from blockcuts.image import Image, over
from broken import Broken

from bay0.effects.spawn import Ending, Result
from bay0.state import bootenv, device, slotfat, slots, slotwork, uki
from bay0.state.bootenv import BootEnv, UState

if TYPE_CHECKING:
    from world import World

SIZE = 34 << 20  # bytes of a slot: little more than the least that is a FAT32
IMAGE = 150_000  # bytes


def image(version: str) -> bytes:
    said = {"version": version, "build_id": f"build-{version}", "schema": 3}
    return json.dumps(said).encode().ljust(IMAGE, b"\n")


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class NoSlots:
    """A disk without slots, as most of the simulated machines have: `state/slotwork.py` finds none there."""

    def __init__(self, world: World) -> None:
        self.world = world

    def run(self, argv: Any, done: Callable[[Result], None]) -> None:
        """Say a moment later that there are no slots."""
        look = {"disk": "/dev/sim", "slots": {}, "next": slots.next_up({}), "build_id": "build-1", "version": "1", "schema": 3}
        answer = {"ok": look} if argv[-2] == "look" else {"error": "there are no slots"}
        result = Result(Ending.EXITED, 0, json.dumps(answer), "", 0, 0.1)
        ended = Result(Ending.SIGNALLED, -9, "", "", 0, 0.1)
        self.world.later(0.05, lambda: done(ended if self.world.spine.spawner.closed else result))


class Both:
    """Both slots one behind the other, as what the loader's model reads."""

    size = len(bootenv.SLOTS) * SIZE

    def __init__(self, paths: list[str]) -> None:
        self.paths = paths

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes of one slot."""
        which, at = divmod(offset, SIZE)
        with open(self.paths[which], "rb") as file:
            file.seek(at)
            return file.read(length)

    def write(self, offset: int, data: memoryview | bytes) -> None:
        """Write to one slot."""
        which, at = divmod(offset, SIZE)
        with open(self.paths[which], "r+b") as file:
            file.seek(at)
            file.write(data)


class Slots:
    """Two slots; the first is good and holds version 1. `NEW` is what is staged."""

    NEW = image("2")

    def __init__(self, world: World) -> None:
        self.world = world
        self.folder = os.path.join(world.folder, "slots")
        os.makedirs(self.folder)
        self.runs = ""
        self.well = True  # what validation says of version 2
        self.hangs = False  # version 2 says nothing at all
        self.takes_s = 0.05  # each call of the process
        self.nacked = False  # its NACK is on the platter
        self.boots: list[str] = []
        self.slots = {name: slots.Slot(name, f"{self.folder}/{name}", SIZE) for name in bootenv.SLOTS}
        self.source = f"{self.folder}/new.efi"
        with open(self.source, "wb") as file:
            file.write(self.NEW)
        first = image("1")
        for name, (state, revision) in zip(bootenv.SLOTS, ((UState.OK, 1), (UState.FAILED, 0)), strict=True):
            env = BootEnv(bootenv.kernel_of(name), ustate=state, revision=revision)
            with open(self.slots[name].path, "wb") as file:
                file.write(slotfat.front(name, slotfat.layout(SIZE), env, len(first), hidden=0, serial=1))
                file.write(first)
                file.truncate(SIZE)
        self.both = Both([slot.path for slot in self.slots.values()])
        world.slots = self
        self._install()

    def _install(self) -> None:
        patch = self.world.patch.setattr
        write = slots._write

        def cut(fd: int, at: int, data: bytes) -> None:
            self.world.seam("slot write")
            write(fd, at, data)

        patch(slots, "_write", cut)
        patch(slots, "on_disk", lambda: self.slots)
        patch(uki, "examine", self._read)
        patch(uki, "of_fd", lambda fd: self._read(lambda at, count: os.pread(fd, count, at), os.fstat(fd).st_size))
        patch(slots, "facts", lambda found: dict(found.__dict__))
        patch(slotwork, "stated", self._stated)
        patch(slotwork, "secure_boot", lambda: False)
        patch(slotwork, "Progress", lambda: lambda *_: None)
        patch(device, "mounted_device", lambda: "/dev/sim4")
        patch(slotwork, "answer", self._answer)
        patch(loader, "_volumes", self._volumes)

    @staticmethod
    def _volumes(disk: Image) -> list[Any]:
        return [fat for at in range(0, Both.size, SIZE) if (fat := mount(disk, at, SIZE)) is not None]

    @staticmethod
    def _read(read: Callable[[int, int], bytes], size: int) -> Any:
        said = json.loads(read(0, size))
        return SimpleNamespace(**said, size=size, built="2026-11-30T00:00:00Z", kernel="6", architecture="x86-64", signed=False)

    def _stated(self, word: str) -> str:
        version = "2" if self.runs == "SLOTB" else "1"
        return {"BUILD_ID": f"build-{version}", "VERSION_ID": version, "BAY0_SCHEMA": "3"}[word]

    @staticmethod
    def _answer(op: str, arguments: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"ok": slotwork.OPS[op](**arguments)}
        except slots.SlotError as error:
            return {"error": str(error), "damaged": isinstance(error, slotwork.DamagedError)}

    # ---- the process

    def run(self, argv: Any, done: Callable[[Result], None]) -> None:
        """Do what the command asks for, a moment later."""

        def work() -> None:
            if self.world.spine.spawner.closed:  # which ends all commands
                done(Result(Ending.SIGNALLED, -9, "", "", 0, 0.1))
                return
            self.world.seam(f"before {argv[-2]}")
            answer = json.dumps(slotwork.answer(argv[-2], json.loads(argv[-1])))
            self.world.seam(f"after {argv[-2]}")
            done(Result(Ending.EXITED, 0, answer, "", 0, 0.1))

        self.world.later(self.takes_s, work)

    # ---- the loader

    def load(self) -> str:
        """Boot by the loader's rules, and look whether that may be; the power may go meanwhile. Return the slot."""
        while True:
            model = loader.Loader([over(Image(self.both))])
            found = model.boot()
            if all(self._written(write.offset, bytes(write.data)) for write in model.wrote):
                break
        if isinstance(found, loader.Back):
            raise Broken(f"the firmware's prompt: {found.why}")
        wanted = digest(self.NEW) if found.slot == "SLOTB" else digest(image("1"))
        if found.digest != wanted:
            raise Broken(f"{found.slot} boots, and is not what was staged")
        if found.slot == "SLOTB" and self.nacked:
            raise Broken("a digest boots that is NACKed")
        self.runs = found.slot
        self.boots.append(found.slot)
        return found.slot

    def _written(self, at: int, data: bytes) -> bool:
        """Do a write of the loader's; tell whether the power stayed. If not, a half of it is there."""
        world = self.world
        world.seams += 1
        world.trace.append("the loader's write")
        cut = world.crash_at == world.seams
        self.both.write(at, data[: len(data) // 2] if cut else data)
        if cut:
            world.crash_at = None
        return not cut

    def offered(self) -> bool:
        """Tell whether the loader would start what was staged."""
        found = loader.Loader([over(Image(self.both))]).boot()
        return isinstance(found, loader.Started) and found.slot == "SLOTB"

    # ---- validation

    def ask(self, _params: Any, reply: Callable[[Any], None]) -> None:
        bad = self.runs == "SLOTB" and not self.well
        checks = [{"name": "persist", "level": "red", "why": "as the story says"}] if bad else []
        reply({"verdict": "red" if bad else "green", "checks": checks})
