"""What is done to the slots of the disk: a process of its own, `bay0 --slots OP JSON`, under a deadline of the spawner's.

An image has some 140 MB, and a disk may hang in the middle of it: neither PID 1 nor the state worker, whose commits have
bounds of a second, may wait for that. Prints one JSON object: {"ok": ...}, or {"error": why, "damaged": whether the slot does not
hold what it should}. How far it is stands in a file on /run, for whoever asks meanwhile.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from bay0.base.errors import Bay0Error, SlotError
from bay0.base.syscalls import MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY, mount, umount
from bay0.state import bootenv, device, slotfat, slots, uki
from bay0.state.slotcalls import PROGRESS

SAY_EVERY_S = 0.2
OS_RELEASE = "/etc/os-release"
EFI = "/sys/firmware/efi"
SECURE_BOOT = f"{EFI}/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"  # UEFI 2.10, 3.3


class DamagedError(SlotError):
    """The slot does not hold what was staged."""


class Progress:
    """Says how far something is, a few times a second, in a file that is replaced whole."""

    def __init__(self, path: str = PROGRESS) -> None:
        self.path = path
        self._due = 0.0

    def __call__(self, doing: str, done: int, of: int) -> None:
        """Say it; nobody depends on it."""
        now = time.monotonic()
        if now >= self._due or done == of:
            self._due = now + SAY_EVERY_S
            with contextlib.suppress(OSError):
                with open(f"{self.path}.new", "w", encoding="ascii") as file:
                    json.dump({"doing": doing, "done": done, "of": of}, file)
                os.replace(f"{self.path}.new", self.path)

    def end(self) -> None:
        """Say nothing any more."""
        with contextlib.suppress(OSError):
            os.unlink(self.path)


def secure_boot() -> bool | None:
    """Tell whether the firmware starts only what is signed; None if it does not say. Without a UEFI firmware nothing does."""
    if not os.path.isdir(EFI):
        return False
    if not os.path.isdir(os.path.dirname(SECURE_BOOT)):
        return None
    with _efivars():
        try:
            with open(SECURE_BOOT, "rb") as file:
                return file.read(5)[4:] == b"\1"  # four bytes of attributes come first
        except FileNotFoundError:
            return False if os.listdir(os.path.dirname(SECURE_BOOT)) else None
        except OSError:
            return None


@contextlib.contextmanager
def _efivars() -> Iterator[None]:
    """Have the firmware's variables there, to be read."""
    place = os.path.dirname(SECURE_BOOT)
    mounted = False
    if not os.listdir(place):
        with contextlib.suppress(OSError):
            mount("efivarfs", place, "efivarfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)
            mounted = True
    try:
        yield
    finally:
        if mounted:
            with contextlib.suppress(OSError):
                umount(place)


def stated(word: str, path: str | None = None) -> str:
    """Return what the system that runs says of itself (os-release(5)); "" if it does not say that."""
    with contextlib.suppress(OSError), open(path or OS_RELEASE, encoding="utf-8") as file:
        for line in file:
            key, _, value = line.strip().partition("=")
            if key == word:
                return value.strip("\"'")
    return ""


def look() -> dict[str, Any]:
    """Return what is in both slots, which of them starts next, and what runs."""
    found = slots.on_disk()
    return {
        "disk": device.mounted_device(),
        "slots": {name: {**slots.describe(slot), "room": _room(slot)} for name, slot in found.items()},
        "next": slots.next_up(slots.environments(found)),
        "build_id": stated("BUILD_ID"),
        "version": stated("VERSION_ID"),
        "schema": int(stated("BAY0_SCHEMA") or 0),
    }


def _room(slot: slots.Slot) -> int:
    try:
        return slotfat.room(slotfat.layout(slot.size))
    except SlotError:
        return 0


def inspect(path: str) -> dict[str, Any]:
    """Return `look`, what the file is, and its digest; nothing is written."""
    with _file(path) as fd:
        image = uki.of_fd(fd)
        total, done, say = hashlib.sha256(), 0, Progress()
        while data := os.pread(fd, slots.CHUNK, done):
            total.update(data)
            done += len(data)
            say("reading the file", done, image.size)
        return {**look(), "digest": f"sha256:{total.hexdigest()}", "file": slots.facts(image), "secure_boot": secure_boot()}


@contextlib.contextmanager
def _file(path: str) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise SlotError(f"{path} is no file")
        yield fd
    finally:
        os.close(fd)


def stage(slot: str, path: str, digest: str) -> dict[str, Any]:
    """Write a file into a slot and read it back."""
    with _file(path) as fd:
        slots.stage(slots.on_disk(), slot, fd, digest, Progress())
    return {"slot": slot}


def arm(slot: str, digest: str, watchdog_s: int, verify: bool) -> dict[str, Any]:  # noqa: FBT001 - a field of the protocol
    """Have the loader try a slot at the next boot; `verify`: if it still holds what was staged."""
    found = slots.on_disk()
    if verify:
        _verified(found, slot, digest)
    slots.arm(_known(found, slot), slot, watchdog_s)
    return {"slot": slot}


def verify(slot: str, digest: str) -> dict[str, Any]:
    """Read a slot back from the disk."""
    _verified(slots.on_disk(), slot, digest)
    return {"slot": slot}


def commit(slot: str, digest: str) -> dict[str, Any]:
    """Make a slot that is being tried the good one, if it holds what was staged."""
    found = slots.on_disk()
    _verified(found, slot, digest)
    slots.commit(found, slot)
    return {"slot": slot}


def favour(slot: str) -> dict[str, Any]:
    """Have the loader start a slot that was good before."""
    slots.favour(_known(slots.on_disk(), slot), slot)
    return {"slot": slot}


def wipe(slot: str) -> dict[str, Any]:
    """Make a slot one that nothing starts."""
    slots.wipe(slots.on_disk(), slot)
    return {"slot": slot}


def _known(found: dict[str, slots.Slot], name: str) -> dict[str, slots.Slot]:
    if name not in found:
        raise SlotError(f"the disk of /persist has no {name} now")
    return found


def _verified(found: dict[str, slots.Slot], name: str, wanted: str) -> None:
    try:
        got, _ = slots.digest(_known(found, name)[name], Progress())
    except SlotError as error:
        raise DamagedError(str(error)) from error
    if got != wanted:
        raise DamagedError(f"{name} does not hold what was staged: its {bootenv.KERNEL} is {got}, and not {wanted}")


OPS: Mapping[str, Callable[..., dict[str, Any]]] = {
    "look": look, "inspect": inspect, "stage": stage, "arm": arm, "verify": verify, "commit": commit, "favour": favour, "wipe": wipe,
}  # fmt: skip


def answer(op: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Do one thing; every failure becomes an answer."""
    try:
        return {"ok": OPS[op](**arguments)}
    except Bay0Error as error:
        return {"error": str(error), "damaged": isinstance(error, DamagedError)}
    except OSError as error:
        return {"error": f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error), "damaged": False}
    finally:
        Progress().end()


def main(words: list[str]) -> int:
    """Do what the words say: an op, and its arguments as a JSON object."""
    op, arguments = words
    print(json.dumps(answer(op, json.loads(arguments))))
    sys.stdout.flush()
    return 0
