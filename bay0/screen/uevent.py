"""Messages about devices, as bytes: the kernel's own, and those of udev, which libudev listens to. Pure.

The kernel sends "ACTION@DEVPATH" and properties, each ended by a NUL (lib/kobject_uevent.c). udev sends a header
before the properties, by which a listener's socket filter chooses: hashes of subsystem and type, and a Bloom
filter of the tags (systemd, src/libsystemd/sd-device/device-monitor.c). What is compared there as a number of the
network is big-endian, all else in the machine's byte order.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Mapping, Sequence

KERNEL_GROUP, UDEV_GROUP = 1, 2  # of NETLINK_KOBJECT_UEVENT
PREFIX, MAGIC = b"libudev\0", 0xFEEDCAFE
HEAD_SIZE = 40
_WORD = 0xFFFFFFFF
_M, _R = 0x5BD1E995, 24  # of MurmurHash2


def murmur2(data: bytes) -> int:
    """Return MurmurHash2 of `data`, 32 bits, with the seed 0: what libudev's filters compare."""
    found = len(data) & _WORD
    whole = len(data) & ~3
    for at in range(0, whole, 4):
        word = int.from_bytes(data[at : at + 4], sys.byteorder) * _M & _WORD
        word = (word ^ word >> _R) * _M & _WORD
        found = found * _M & _WORD ^ word
    if len(data) > whole:
        found = (found ^ int.from_bytes(data[whole:], "little")) * _M & _WORD
    found = (found ^ found >> 13) * _M & _WORD
    return found ^ found >> 15


def bloom(tags: Sequence[str]) -> int:
    """Return the 64 bits of the tags' Bloom filter."""
    bits = 0
    for tag in tags:
        found = murmur2(tag.encode())
        for shift in (0, 6, 12, 18):
            bits |= 1 << (found >> shift & 63)
    return bits


def message(properties: Mapping[str, str], tags: Sequence[str] = ()) -> bytes:
    """Return what udev would send. `KeyError`: without a SUBSYSTEM; `ValueError`: a property holds a NUL."""
    said = {**properties, **({"TAGS": f":{':'.join(tags)}:", "CURRENT_TAGS": f":{':'.join(tags)}:"} if tags else {})}
    body = b"".join(f"{key}={value}".encode() + b"\0" for key, value in said.items())
    if body.count(b"\0") != len(said):
        raise ValueError("a property with a NUL cannot be sent")
    kind, bits = said.get("DEVTYPE"), bloom(tags)
    sizes = struct.pack("=III", HEAD_SIZE, HEAD_SIZE, len(body))
    hashes = struct.pack(
        ">IIII",
        murmur2(said["SUBSYSTEM"].encode()),
        murmur2(kind.encode()) if kind else 0,
        bits >> 32,
        bits & _WORD,
    )
    return PREFIX + struct.pack(">I", MAGIC) + sizes + hashes + body


def parse(data: bytes) -> dict[str, str]:
    """Return the properties of a message of the kernel's; {} for what is none."""
    head, _, rest = data.partition(b"\0")
    if b"@/" not in head:
        return {}
    lines = (line.partition(b"=") for line in rest.split(b"\0") if b"=" in line)
    return {key.decode(errors="replace"): value.decode(errors="replace") for key, _, value in lines}
