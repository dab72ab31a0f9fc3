"""The two slots of the disk that booted: which they are, what is in them, and how they are written.

Only `slotwork.py` calls this, in a process of its own: a disk may hang. Nothing is mounted: see slotfat.py. Two rules hold
everything here. The slot that the loader would start next is never overwritten or wiped. A slot is made so that it is not
believed before it is whole: its environment says `in_progress` first, its first sector is written last.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
from collections.abc import Callable, Iterator
from typing import Any

from attrs import asdict, frozen

from bay0.base.errors import BootEnvError, SlotError, UkiError
from bay0.base.kernelfile import read_text
from bay0.state import bootenv, device, slotfat, uki
from bay0.state.bootenv import BootEnv, UState

CHUNK = 1 << 20  # bytes of one read or write
SYNC_EVERY = 16 << 20  # bytes, so that no sync of /persist on the same disk waits long behind ours
SPINE_MAX = 4 << 30  # bytes
Say = Callable[[str, int, int], None]  # (what is being done, bytes done, of how many)


@frozen
class Slot:
    """A slot of the disk that booted. `hidden`: sectors of the disk before it."""

    name: str
    path: str
    size: int
    hidden: int = 0


def on_disk() -> dict[str, Slot]:
    """Return the slots by name: those on the disk of /persist; without it, those of the one disk that has any. Nothing if that cannot be said.

    The loader takes those of the disk that it was started from alone, and genesis-flash.sh puts /persist on the same. A disk
    with /persist and no slots beside another one with both is a machine of which nothing is known here.
    """
    source = device.mounted_device()
    if source is None:
        found = [slots for slots in map(_of, _disks()) if slots]
        return found[0] if len(found) == 1 else {}
    entry = os.path.realpath(f"{device.SYS_BLOCK}/{os.path.basename(os.path.realpath(source))}")
    return _of(os.path.dirname(entry)) if os.path.exists(f"{entry}/partition") else {}


def _disks() -> list[str]:
    """Return the kernel's directories of all disks that have partitions."""
    entries = (os.path.realpath(f"{device.SYS_BLOCK}/{name}") for name in sorted(os.listdir(device.SYS_BLOCK)))
    return list(dict.fromkeys(os.path.dirname(entry) for entry in entries if os.path.exists(f"{entry}/partition")))


def _of(whole: str) -> dict[str, Slot]:
    """Return the slots of a disk; both, or none."""
    found: dict[str, Slot] = {}
    for name in sorted(os.listdir(whole)):
        if os.path.exists(f"{whole}/{name}/partition"):
            label = _partition_name(f"{whole}/{name}")
            if label in bootenv.SLOTS and label not in found:
                start, size = (int(read_text(f"{whole}/{name}/{key}")) for key in ("start", "size"))
                found[label] = Slot(label, f"/dev/{name}", size * device.SECTOR, start)
    return found if len(found) == len(bootenv.SLOTS) else {}


def _partition_name(entry: str) -> str:
    """Return what a GPT calls a partition (PARTNAME, Documentation/ABI/stable/sysfs-block)."""
    for line in read_text(f"{entry}/uevent").splitlines():
        key, _, value = line.partition("=")
        if key == "PARTNAME":
            return value
    return ""


@contextlib.contextmanager
def _opened(slot: Slot, flags: int = os.O_RDONLY) -> Iterator[int]:
    fd = os.open(slot.path, flags | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


# ---- what is in it


def _place(fd: int, slot: Slot, name: str, most: int) -> slotfat.Found:
    """Return where a file of the slot is. `SlotError` if it has none, or no filesystem."""

    def read(at: int, count: int) -> bytes:
        return os.pread(fd, count, at)

    plan = slotfat.geometry(read(0, slotfat.SECTOR), slot.size)
    found = slotfat.find(read, plan, name, most)
    if found is None:
        raise SlotError(f"{slot.name} has no {name}")
    return found


def environment(slot: Slot) -> BootEnv:
    """Return the slot's boot environment. `SlotError`, `BootEnvError`."""
    with _opened(slot) as fd:
        found = _place(fd, slot, bootenv.FILE, bootenv.SIZE)
        return bootenv.parse(b"".join(os.pread(fd, count, at) for at, count in found.pieces))


def set_environment(slot: Slot, env: BootEnv) -> None:
    """Write the slot's boot environment, and read it back from the disk. It is on the disk when this returns. `SlotError`."""
    data = bootenv.encode(env)
    with _opened(slot, os.O_RDWR) as fd:
        found = _place(fd, slot, bootenv.FILE, bootenv.SIZE)
        if found.size != len(data) or len(found.pieces) != 1:
            raise SlotError(f"{slot.name}'s {bootenv.FILE} is not in one piece: stage into this slot anew")
        _write(fd, found.pieces[0][0], data)
        os.fsync(fd)
    if b"".join(_from_disk(slot, found.pieces)) != data:
        raise SlotError(f"{slot.name}'s {bootenv.FILE} is not on the disk as it was written")


def environments(slots: dict[str, Slot]) -> dict[str, BootEnv | None]:
    """Return the environments that are valid, None for those that are not, as the loader sees them."""
    return {name: _or_none(slot) for name, slot in slots.items()}


def _or_none(slot: Slot) -> BootEnv | None:
    try:
        return environment(slot)
    except (SlotError, BootEnvError):
        return None


def next_up(envs: dict[str, BootEnv | None]) -> str | None:
    """Return the slot that the loader starts next: the valid one with the highest revision that nobody is writing."""
    names = list(envs)
    found = bootenv.newest([None if env is None or env.in_progress else env for env in envs.values()])
    return None if found is None else names[found]


def describe(slot: Slot) -> dict[str, Any]:
    """Return what is in a slot, for people and for PID 1; what cannot be read has its reason."""
    said: dict[str, Any] = {"path": slot.path, "bytes": slot.size, "env": None, "uki": None, "why": ""}
    try:
        env = environment(slot)
        said["env"] = {
            "state": env.ustate.name.lower(), "revision": env.revision, "in_progress": env.in_progress,
            "watchdog_s": env.watchdog_s,
        }  # fmt: skip
    except (SlotError, BootEnvError, OSError) as error:
        said["why"] = str(error)
    try:
        said["uki"] = facts(_uki(slot))
    except (SlotError, UkiError, OSError) as error:
        said["why"] = said["why"] or str(error)
    return said


def _uki(slot: Slot) -> uki.Uki:
    with _opened(slot) as fd:
        found = _place(fd, slot, bootenv.KERNEL, SPINE_MAX)
        if len(found.pieces) == 1:
            begin = found.pieces[0][0]
            return uki.examine(lambda at, count: os.pread(fd, count, begin + at), found.size)
        return uki.examine(lambda at, count: _scattered(fd, found, at, count), found.size)


def _scattered(fd: int, found: slotfat.Found, at: int, count: int) -> bytes:
    """Read from a file that lies in several pieces."""
    data, place = b"", 0
    for begin, length in found.pieces:
        first, last = max(at, place), min(at + count, place + length)
        if first < last:
            data += os.pread(fd, last - first, begin + first - place)
        place += length
    return data


def facts(image: uki.Uki) -> dict[str, Any]:
    """Return what an image says of itself, as JSON has it."""
    keys = ("size", "architecture", "version", "build_id", "built", "schema", "kernel")
    return {**{key: value for key, value in asdict(image, recurse=False).items() if key in keys}, "signed": image.signed}


def digest(slot: Slot, say: Say) -> tuple[str, int]:
    """Return the digest of the slot's image as the disk gives it, past the kernel's memory, and its size. `SlotError`."""
    with _opened(slot) as fd:
        found = _place(fd, slot, bootenv.KERNEL, SPINE_MAX)
    total, done = hashlib.sha256(), 0
    for data in _from_disk(slot, found.pieces):
        total.update(data)
        done += len(data)
        say("reading it back", done, found.size)
    return f"sha256:{total.hexdigest()}", found.size


def _from_disk(slot: Slot, pieces: tuple[tuple[int, int], ...]) -> Iterator[bytes]:
    """Yield the bytes of some pieces from the disk itself: O_DIRECT (open(2)), or after the cache was dropped where there is none."""
    try:
        fd = os.open(slot.path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    except OSError:  # a file on tmpfs
        fd = os.open(slot.path, os.O_RDONLY | os.O_CLOEXEC)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    try:
        with mmap.mmap(-1, CHUNK + slotfat.PAGE) as buffer:  # pages begin at pages
            for begin, length in pieces:
                yield from _piece(fd, buffer, begin, length)
    finally:
        os.close(fd)


def _piece(fd: int, buffer: mmap.mmap, begin: int, length: int) -> Iterator[bytes]:
    at, end = begin, begin + length
    while at < end:
        skip = at % slotfat.PAGE
        want = min(CHUNK, -(-(end - at + skip) // slotfat.PAGE) * slotfat.PAGE)
        with memoryview(buffer) as view, view[:want] as part:
            got = os.preadv(fd, [part], at - skip)
        if got <= skip:
            raise SlotError(f"the disk ends at {at - skip}, in the middle of a file")
        yield bytes(buffer[skip : min(got, skip + end - at)])
        at += min(got - skip, end - at)


# ---- how it is written


def _write(fd: int, at: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, at)
        view, at = view[count:], at + count


def _spare(slots: dict[str, Slot], name: str) -> Slot:
    """Return a slot that may be written: what runs, and the only way back, may not. `SlotError`."""
    if name not in slots:
        raise SlotError(f"this disk has no {name}")
    envs = environments(slots)
    own = envs[name]
    if next_up(envs) == name and (own is None or own.ustate is not UState.INSTALLED):
        raise SlotError(f"{name} is what starts next on this disk: it is not touched")
    _way_back(envs, name)
    return slots[name]


def _way_back(envs: dict[str, BootEnv | None], name: str) -> int:
    """Return the revision of the slot that is good beside this one. `SlotError` if there is none."""
    for other, env in envs.items():
        if other != name and env is not None and env.ustate is UState.OK and not env.in_progress and env.revision:
            return env.revision
    raise SlotError(f"beside {name} this disk has no slot that is good: there would be no way back")


def wipe(slots: dict[str, Slot], name: str) -> None:
    """Make a slot one that is believed by nobody: its environment first, then its filesystem. On the disk when this returns."""
    slot = _spare(slots, name)
    _disown(slot)
    with _opened(slot, os.O_RDWR) as fd:
        for sector in (0, slotfat.BACKUP):
            _write(fd, sector * slotfat.SECTOR, bytes(slotfat.SECTOR))
        os.fsync(fd)


def _disown(slot: Slot) -> None:
    """Have the loader pass the slot over, if it has an environment that says anything else."""
    env = _or_none(slot)
    if env is not None and (not env.in_progress or env.revision):
        with contextlib.suppress(SlotError):  # in two pieces, as another program may have left it: the first sector will do
            set_environment(slot, BootEnv(bootenv.kernel_of(slot.name), in_progress=True))


def stage(slots: dict[str, Slot], name: str, source: int, wanted: str, say: Say) -> None:
    """Write the image behind a descriptor into a slot, and read it back. `SlotError` if it is not `wanted` (a digest).

    The slot's old content is given up first; whatever fails leaves a slot that nothing starts.
    """
    size = os.fstat(source).st_size
    slot = _spare(slots, name)
    plan = slotfat.layout(slot.size)
    env = BootEnv(bootenv.kernel_of(name), in_progress=True)
    serial = int(wanted.rpartition(":")[2][:8], 16) ^ bootenv.SLOTS.index(name)
    front = slotfat.front(name, plan, env, size, hidden=slot.hidden, serial=serial)
    wipe(slots, name)
    with _opened(slot, os.O_RDWR) as fd:
        _write(fd, 2 * slotfat.SECTOR, front[2 * slotfat.SECTOR :])
        if _copy(source, fd, len(front), size, say) != wanted:
            raise SlotError(f"the file is not {wanted} any more: it was changed while it was read")
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        _write(fd, 0, front[: 2 * slotfat.SECTOR])
        os.fsync(fd)
    found, _ = digest(slot, say)
    if found != wanted or environment(slot) != env:
        wipe(slots, name)
        raise SlotError(f"the disk does not give back what was written into {name}: it is broken, or smaller than it says")


def _copy(source: int, fd: int, at: int, size: int, say: Say) -> str:
    """Copy `size` bytes to `at`, and return their digest."""
    total, done, synced = hashlib.sha256(), 0, 0
    while data := os.pread(source, min(CHUNK, size - done), done):
        total.update(data)
        _write(fd, at + done, data)
        done += len(data)
        if done - synced >= SYNC_EVERY:
            os.fdatasync(fd)
            synced = done
        say("writing", done, size)
    _write(fd, at + done, bytes(-done % slotfat.PAGE))
    return f"sha256:{total.hexdigest()}"


def arm(slots: dict[str, Slot], name: str, watchdog_s: int) -> None:
    """Have the loader try a slot once: INSTALLED, with a higher revision than the other's. On the disk when this returns."""
    if environment(slots[name]).ustate is UState.OK:
        raise SlotError(f"what is in {name} was found good already: it is not tried")
    revision = _way_back(environments(slots), name) + 1
    if revision > bootenv.REVISION_MAX:
        raise SlotError("the revision of the other slot is the highest there is: flash the disk anew")
    env = BootEnv(bootenv.kernel_of(name), ustate=UState.INSTALLED, watchdog_s=watchdog_s, revision=revision)
    set_environment(slots[name], env)


def commit(slots: dict[str, Slot], name: str) -> None:
    """Make a slot that is being tried the good one. On the disk when this returns: this is the moment."""
    env = environment(slots[name])
    if env.ustate is UState.OK:
        return
    if env.ustate is not UState.TESTING or next_up(environments(slots)) != name:
        raise SlotError(f"{name} is {env.ustate.name}, and not being tried: it cannot become the good one")
    set_environment(slots[name], env._replace(ustate=UState.OK, watchdog_s=0))


def favour(slots: dict[str, Slot], name: str) -> None:
    """Have the loader start a slot that was good before. `SlotError` if it never was."""
    env = environment(slots[name])
    if env.ustate is not UState.OK or env.in_progress:
        raise SlotError(f"what is in {name} was never found good: there is nothing to go back to")
    revision = 1 + max(each.revision for each in environments(slots).values() if each is not None)
    set_environment(slots[name], env._replace(revision=revision, watchdog_s=0))
