"""The boot environment of a slot, BGENV.DAT: what the loader (EFI Boot Guard) does next with this slot.

Bytes in, bytes out: no file is opened here.

Each of the two slots, SLOTA and SLOTB, is a FAT of its own with such a file. The loader starts the kernel of
the valid one with the highest revision; one whose CRC is wrong does not count. It writes the file itself in two
cases only: INSTALLED becomes TESTING before the try, and TESTING that is met again becomes FAILED with revision
0, and the other slot is started (EFI Boot Guard, docs/UPDATE.md).

The layout is EFI Boot Guard's `BG_ENVDATA` (include/envdata.h, the same from 0.13 to 0.19): packed,
little-endian; two texts of 255 UTF-16 units each, in_progress, ustate, seconds of the watchdog, revision,
128 KiB for variables of the user, and the CRC32 (zlib's) of all before it.

Needs nothing but the standard library and our errors: scripts/lib/slots.py uses it on a host without more.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from bay0.base.errors import BootEnvError

FILE = "BGENV.DAT"
LABEL_FILE = "EFILABEL"  # beside it: the slot's name, by which `C:NAME:FILE` finds it
KERNEL = "spine.efi"
SLOTS = ("SLOTA", "SLOTB")
UNITS = 255  # UTF-16 units of a text, the terminating zero among them
USERDATA = 131072  # bytes
REVISION_MAX, WATCHDOG_MAX = 0xFFFFFFFF, 0xFFFF
_BODY = struct.Struct(f"<{2 * UNITS}s{2 * UNITS}sBBHI{USERDATA}s")
_CRC = struct.Struct("<I")
SIZE = _BODY.size + _CRC.size  # 132104 bytes


class UState(IntEnum):
    """What is known of the system in a slot."""

    OK = 0  # it was tried, and found good
    INSTALLED = 1  # to be tried
    TESTING = 2  # is being tried: the next boot without an OK is the way back
    FAILED = 3  # was tried, and came to nothing; or was never complete


class BootEnv(NamedTuple):
    """What a boot environment says. The defaults are those of a slot that must not be started."""

    kernel: str  # `C:SLOTA:spine.efi`: a file of the FAT with that EFILABEL
    params: str = ""  # empty: the words that are in the kernel's file
    in_progress: bool = False  # the slot is being written; the loader passes it over
    ustate: UState = UState.FAILED
    watchdog_s: int = 0  # armed before the kernel is started; if the loader knows no watchdog here, only 0 boots
    revision: int = 0  # the highest is started; 0: never chosen before another
    userdata: bytes = b""  # variables of the user, as they stand there, without the zeros at the end


def kernel_of(slot: str) -> str:
    """Return how the loader is told of the UKI in a slot."""
    return f"C:{slot}:{KERNEL}"


def label(slot: str) -> bytes:
    """Return what EFILABEL holds: the slot's name in UTF-16, and no more."""
    return slot.encode("utf-16-le")


def parse(data: bytes) -> BootEnv:
    """Return what a BGENV.DAT says. `BootEnvError` if it is not whole, or says what nobody writes."""
    if len(data) != SIZE:
        raise BootEnvError(f"the boot environment is {len(data)} bytes long, and not {SIZE}")
    stored, real = _CRC.unpack_from(data, _BODY.size)[0], zlib.crc32(data[: _BODY.size])
    if stored != real:
        raise BootEnvError(
            f"the boot environment is damaged: its CRC is {stored:08x}, that of its bytes {real:08x}"
        )
    kernel, params, in_progress, ustate, watchdog_s, revision, userdata = _BODY.unpack_from(data)
    if in_progress > 1:
        raise BootEnvError(f"the boot environment's in_progress is {in_progress}, and neither 0 nor 1")
    if ustate not in tuple(UState):
        raise BootEnvError(f"the boot environment's state is {ustate}, which nobody knows")
    return BootEnv(
        _text("kernel", kernel),
        _text("parameters", params),
        bool(in_progress),
        UState(ustate),
        watchdog_s,
        revision,
        userdata.rstrip(b"\0"),
    )


def encode(env: BootEnv) -> bytes:
    """Return the BGENV.DAT that says this. `BootEnvError` if it cannot hold it."""
    for what, number, most in (
        ("watchdog's seconds", env.watchdog_s, WATCHDOG_MAX),
        ("revision", env.revision, REVISION_MAX),
    ):
        if not 0 <= number <= most:
            raise BootEnvError(f"a boot environment's {what}: 0 to {most}, not {number}")
    if len(env.userdata) > USERDATA:
        raise BootEnvError(
            f"a boot environment has {USERDATA} bytes for variables of the user, not {len(env.userdata)}"
        )
    body = _BODY.pack(
        _units("kernel", env.kernel), _units("parameters", env.params),
        bool(env.in_progress), UState(env.ustate), env.watchdog_s, env.revision, env.userdata,
    )  # fmt: skip
    return body + _CRC.pack(zlib.crc32(body))


def newest(slots: Sequence[BootEnv | None]) -> int | None:
    """Return the index of the environment with the highest revision above 0, of equals the first; None if there is none.

    An environment that is not valid is a None.
    """
    revisions = [0 if env is None else env.revision for env in slots]
    best = max(revisions, default=0)
    return revisions.index(best) if best else None


def _text(what: str, data: bytes) -> str:
    """Return a text of UTF-16 up to its zero; behind it may stand what is left of a longer one."""
    for at in range(0, len(data), 2):
        if data[at : at + 2] == b"\0\0":
            try:
                return data[:at].decode("utf-16-le")
            except UnicodeDecodeError as error:
                raise BootEnvError(f"the boot environment's {what} are no text: {error.reason}") from error
    raise BootEnvError(f"the boot environment's {what} do not end")


def _units(what: str, text: str) -> bytes:
    try:
        data = text.encode("utf-16-le")
    except UnicodeEncodeError as error:
        raise BootEnvError(f"a boot environment's {what} cannot be {text!r}: {error.reason}") from error
    if "\0" in text or len(data) > 2 * (UNITS - 1):
        raise BootEnvError(
            f"a boot environment's {what} are at most {UNITS - 1} characters without a zero, not {text!r}"
        )
    return data
