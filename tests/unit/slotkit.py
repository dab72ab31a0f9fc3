"""Disks with two slots, as files; and a loader as EFI Boot Guard is one."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import diskkit

from bay0.base.errors import SlotError
from bay0.state import bootenv, slotfat, slots
from bay0.state.bootenv import BootEnv, UState

sys.path.insert(0, str(diskkit.SCRIPTS / "lib"))
import mkuki

MIB = 1 << 20
SIZE = 40 * MIB
OSREL = 'ID=alpine-spline\nVERSION_ID={0}\nBUILD_ID={0}-0123456789\nARCHITECTURE=x86-64\nBAY0_SCHEMA=3\nBAY0_BUILT="2026-11-30T21:17:03Z"\n'


def image(version: str = "2.0", payload: int = 300_000) -> bytes:
    """Return a UKI of a spine of that version, with a build id to match."""
    parts = {
        ".osrel": OSREL.format(version).encode(), ".uname": b"6.18.56-0-virt", ".cmdline": b"quiet",
        ".initrd": hashlib.sha256(version.encode()).digest() * (payload // 32), ".linux": diskkit.kernel(),
    }  # fmt: skip
    return mkuki.join(diskkit.pe(), parts)


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Disk:
    """Two slots as files in `folder`, as genesis-flash.sh makes them: both hold version 1.0, the first is good."""

    def __init__(self, folder: Path) -> None:
        self.slots = {name: slots.Slot(name, str(folder / name), SIZE, 2048) for name in bootenv.SLOTS}
        first = image("1.0")
        for name, (state, revision) in zip(bootenv.SLOTS, ((UState.OK, 1), (UState.FAILED, 0)), strict=True):
            env = BootEnv(bootenv.kernel_of(name), ustate=state, revision=revision)
            with open(self.slots[name].path, "wb") as file:
                file.write(slotfat.front(name, slotfat.layout(SIZE), env, len(first), hidden=2048, serial=1))
                file.write(first)
                file.truncate(SIZE)

    def env(self, name: str) -> BootEnv:
        return slots.environment(self.slots[name])

    def load(self) -> str | None:
        """Be the loader: what EFI Boot Guard does at a boot (env/ and main.c of 0.19). Return the slot that it starts."""
        envs = slots.environments(self.slots)
        best = slots.next_up(envs)
        env = envs.get(best or "")
        if best is None or env is None:
            return None
        if env.ustate is UState.TESTING:
            slots.set_environment(self.slots[best], env._replace(ustate=UState.FAILED, revision=0))
            return self.load()
        if env.ustate is UState.INSTALLED:
            slots.set_environment(self.slots[best], env._replace(ustate=UState.TESTING))
        return best

    def bytes_of(self, name: str) -> str:
        return diskkit.quick_digest(self.slots[name].path)

    def flip(self, name: str, at: int) -> None:
        """Change one bit of a slot's image."""
        with open(self.slots[name].path, "r+b") as file:
            file.seek(slotfat.spine_at(slotfat.layout(SIZE)) + at)
            (byte,) = file.read(1)
            file.seek(-1, 1)
            file.write(bytes([byte ^ 1]))


def refused(call: object, *arguments: object) -> str:
    """Call what must be refused, and return why."""
    try:
        call(*arguments)  # type: ignore[operator]
    except SlotError as error:
        return str(error)
    raise AssertionError("it was not refused")
