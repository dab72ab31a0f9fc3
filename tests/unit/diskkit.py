"""Stand-ins for the scripts' tests: a stub, a kernel, a UKI, a module, small but of the real formats; and ways to run a script."""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).parents[2] / "scripts"
SBIN = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def run(*command: str | Path, bound_s: int = 120, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run a program with /usr/sbin in its path."""
    more = {"env": os.environ | {"PATH": SBIN, "LC_ALL": "C"}, "stdin": subprocess.DEVNULL} | more
    return subprocess.run([str(word) for word in command], text=True, capture_output=True, check=False, timeout=bound_s, **more)


def have(*tools: str) -> bool:
    """Tell whether all of these programs are installed."""
    return all(shutil.which(tool, path=SBIN) for tool in tools)


def digest(path: str | Path) -> str:
    """Return the sha256 of a file or device."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def quick_digest(path: str | Path) -> str:
    """Return a digest of where a file holds data and of that data; of a device, all of it. Holes are not read, but a write into one shows."""
    total = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        end, at = os.lseek(file.fileno(), 0, os.SEEK_END), 0
        while at < end:
            try:
                begin = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                break  # nothing but a hole is left
            at = os.lseek(file.fileno(), begin, os.SEEK_HOLE)
            total.update(b"%d %d %d " % (end, begin, at))
            os.lseek(file.fileno(), begin, os.SEEK_SET)
            while begin < at:
                data = file.read(min(1 << 20, at - begin))
                total.update(data)
                begin += len(data)
    return total.hexdigest()


def pe(sections: int = 1, room: int = 8, front: bytes = b"") -> bytes:
    """Return a program for a firmware, with room for so many section headers. It would do nothing."""
    at = max(0x80, len(front) + 7 & ~7)
    table = at + 24 + 240
    headers = (table + 40 * room + 511) & ~511
    data = bytearray(headers + 512 * sections)
    data[: len(front)] = front
    data[:2] = b"MZ"
    struct.pack_into("<I", data, 0x3C, at)
    data[at : at + 4] = b"PE\0\0"
    struct.pack_into("<HHIIIHH", data, at + 4, 0x8664, sections, 1234, 0, 0, 240, 0x206)
    struct.pack_into("<H", data, at + 24, 0x20B)
    struct.pack_into("<II", data, at + 24 + 32, 0x200, 0x200)
    struct.pack_into("<II", data, at + 24 + 56, 0x1000 * (sections + 1), headers)
    struct.pack_into("<HH", data, at + 24 + 68, 10, 0)
    struct.pack_into("<I", data, at + 24 + 108, 16)
    for number in range(sections):
        struct.pack_into("<8sIIII", data, table + 40 * number, f".s{number}".encode(), 512, 0x1000 * (number + 1), 512, headers + 512 * number)
    return bytes(data)


def kernel(release: str = "6.18.56-0-virt") -> bytes:
    """Return a kernel that states a release, and nothing more."""
    front = bytearray(0x400)
    front[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", front, 0x20E, 0x300 - 0x200)
    text = f"{release} (buildozer@build) #1-Alpine".encode()
    front[0x300 : 0x300 + len(text)] = text
    return pe(front=bytes(front))


def module(*firmware: str) -> bytes:
    """Return a kernel module that asks for firmware: an ELF with nothing but its .modinfo."""
    info = b"".join(word.encode() + b"\0" for word in ("license=GPL", *(f"firmware={name}" for name in firmware), "vermagic=6.18"))
    names = b"\0.modinfo\0.shstrtab\0"
    info_at, names_at = 64, 64 + len(info)
    table_at = names_at + len(names) + 7 & ~7
    head = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 1, 62, 1, 0, 0, table_at, 0, 64, 0, 0, 64, 3, 2)
    sections = [struct.pack("<IIQQQQIIQQ", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)]
    sections.append(struct.pack("<IIQQQQIIQQ", 1, 1, 2, 0, info_at, len(info), 0, 0, 1, 0))
    sections.append(struct.pack("<IIQQQQIIQQ", 10, 3, 0, 0, names_at, len(names), 0, 0, 1, 0))
    body = head + info + names
    return body + bytes(table_at - len(body)) + b"".join(sections)
