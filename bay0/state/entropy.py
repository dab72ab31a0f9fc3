"""The seed for the kernel's random number generator, handed from one boot to the next. Runs in the state worker.

The worker mixes it in itself: so the seed leaves no process and no packet, and PID 1 never waits for randomness. The order is the point: *marked
as used and synced, then used, then a new one written*. A seed is credited (counts as randomness) only if the kernel was told
to trust it (`bay0.trust_seed`), the mark is on the platter, and it was made with randomness: then no crash credits it twice. A copy of
a disk is another matter: both copies hold the same unused seed and nobody can see that, hence no credit unless asked for. Without
credit a seed does no harm, whatever it is: it is only mixed in.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import struct
from binascii import crc32
from typing import Any

from attrs import frozen

from bay0.state import files

RNG = "/dev/urandom"
RNDADDENTROPY = 0x40085203  # linux/random.h: _IOW('R', 3, int[2]); both counts are 32 bits wide
SIZE = 32  # bytes
NEW, WEAK, USED = "new", "weak", "used"  # may be credited once; made while the kernel had no randomness yet; spent
_FORM = re.compile(rb"(bay0-seed 1 (new|weak|used) ([0-9a-f]{64})) ([0-9a-f]{8})\n")


@frozen
class Seed:
    """What the file holds. `state`: one of the above, or "none", "nonsense", "unreadable", and then there is no value."""

    state: str
    value: bytes = b""
    why: str = ""


def _read(path: str) -> Seed:
    try:
        data = files.read(path)
    except OSError as error:
        return Seed("unreadable", why=str(error))
    if data is None:
        return Seed("none")
    found = _FORM.fullmatch(data)
    if found is None or f"{crc32(found[1]):08x}".encode() != found[4]:
        return Seed("nonsense", why=f"the file is torn or not ours ({len(data)} bytes)")
    return Seed(found[2].decode(), bytes.fromhex(found[3].decode()))


def _write(path: str, state: str, value: bytes) -> None:
    text = f"bay0-seed 1 {state} {value.hex()}".encode()
    files.replace(path, text + f" {crc32(text):08x}\n".encode())


def use(path: str, *, trust: bool) -> dict[str, Any]:
    """Mix the seed in; {"found", "mixed", "credited", "why"}. Raises nothing: a boot without a seed is a boot."""
    seed = _read(path)
    if not seed.value:
        return {"found": seed.state, "mixed": False, "credited": False, "why": seed.why}
    why = "" if trust else "nobody asked to trust it"
    try:
        _write(path, USED, seed.value)
        marked = True
    except OSError as error:
        marked, why = False, f"it could not be marked as used: {error}"
    if trust and marked and seed.state != NEW:
        why = "it was used before" if seed.state == USED else "it was made without randomness"
    credit = trust and marked and seed.state == NEW
    try:
        credited = mix(seed.value, credit=credit)
    except OSError as error:
        return {"found": seed.state, "mixed": False, "credited": False, "why": str(error)}
    if credit and not credited:
        why = "the kernel did not take the credit"
    return {"found": seed.state, "mixed": True, "credited": credited, "why": why}


def mix(value: bytes, *, credit: bool) -> bool:
    """Give `value` to the kernel and tell whether it was credited. `OSError` if there is no such device. Never waits."""
    fd = os.open(RNG, os.O_WRONLY | os.O_CLOEXEC)
    try:
        if credit:
            try:
                fcntl.ioctl(fd, RNDADDENTROPY, struct.pack("=ii", len(value) * 8, len(value)) + value)
            except OSError:
                pass  # not permitted: mixed in all the same, below
            else:
                return True
        os.write(fd, value)
    finally:
        os.close(fd)
    return False


def fresh() -> bytes:
    """Return randomness of the kernel's, nothing if it has none yet: nobody waits for it."""
    try:
        return os.getrandom(SIZE, os.GRND_NONBLOCK)
    except OSError:
        return b""


def renew(path: str) -> dict[str, Any]:
    """Put a new seed, hash(old, randomness), in place of the old one; {"written", "state", "why"}. `OSError` if the disk does not take it."""
    old, random = _read(path), fresh()
    if not old.value and not random:
        return {"written": False, "state": old.state, "why": "the kernel has no randomness yet"}
    state = NEW if random else WEAK
    _write(path, state, hashlib.sha256(b"bay0 seed\n" + old.value + random).digest())
    return {"written": True, "state": state, "why": ""}
