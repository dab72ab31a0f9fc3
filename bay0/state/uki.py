"""What a unified kernel image (UKI) says of itself, read without trusting a number of it.

Pure: bytes come from a `Read`, so the same code looks at a file, a slot of a disk, or a test's bytes. It reads some
30 KB at most, whatever the file's size; its digest is somebody else's work.

A UKI is a PE32+ program, systemd's stub, with a kernel, an initramfs, their command line and an os-release as further
sections. Formats: Microsoft, "PE Format"; https://uapi-group.org/specifications/specs/unified_kernel_image/;
os-release(5). Ours is made by scripts/lib/mkuki.py.
"""

from __future__ import annotations

import itertools
import os
import re
import struct
from collections.abc import Callable, Iterator

from attrs import frozen

from bay0.base.errors import UkiError

Read = Callable[[int, int], bytes]  # offset, length -> bytes; fewer only at the end

ID = "alpine-spline"
MAX_BYTES = 0xFFFFFFFF  # the format's fields have 32 bits
MAX_HEADER_AT = 0x10000  # where a PE header may begin; real ones begin below 0x200
MAX_SECTIONS = 96
MAX_OPTIONAL = 0x1000
MAX_OSREL, MAX_CMDLINE, MAX_UNAME = 0x4000, 0x1000, 0x100
ARCHITECTURES = {
    0x8664: "x86-64", 0x14C: "x86", 0xAA64: "arm64", 0x1C4: "arm", 0x5064: "riscv64", 0x6264: "loongarch64",
}  # fmt: skip
NEEDED = (".osrel", ".cmdline", ".initrd", ".linux")

_DOS, _PE32_PLUS = 0x40, 0x20B
_COFF = struct.Struct("<4sHHIIIHH")  # signature, machine, sections, time, symbols (2), size of what follows, flags
_DIRECTORIES_AT, _CERTIFICATE_ENTRY = 108, 4  # how many data directories there are; which of them it is
_SECTION = struct.Struct("<8sIIIIIIHHI")
_CERTIFICATE = struct.Struct("<IHH")  # WIN_CERTIFICATE: length, revision, type
_PKCS7 = (0x0200, 0x0002)
_LINE = re.compile(r"([A-Z][A-Z0-9_]{0,63})=(\"[^\"\\$`]*\"|'[^']*'|[^\s\"'\\$`]*)")
_VALUES = {
    "VERSION_ID": re.compile(r"[A-Za-z0-9._~^+-]{1,64}"),
    "BUILD_ID": re.compile(r"[0-9a-z._-]{8,64}"),
    "BAY0_SCHEMA": re.compile(r"[1-9][0-9]{0,5}"),
    "BAY0_BUILT": re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z"),
}


@frozen
class Section:
    """A section of a PE file: its name, where its bytes stand in the file, and how many of them are content."""

    name: str
    offset: int
    stored: int  # bytes in the file, padding included
    content: int  # bytes without the padding


@frozen
class Uki:
    """What a spine's UKI says of itself. Nothing of it is proved: that takes its digest, or its signature."""

    size: int  # bytes of the whole file
    architecture: str  # a value of ARCHITECTURES; the program's own and the os-release's, which agree
    version: str  # VERSION_ID
    build_id: str  # BUILD_ID, also in /etc/os-release of the system it starts
    built: str  # BAY0_BUILT: 2026-11-30T21:17:03Z, the time of the sources
    schema: int  # BAY0_SCHEMA: the newest version of the state database that this spine can read
    kernel: str  # .uname; empty if it does not say
    cmdline: str
    certificate: tuple[int, int] | None  # offset and length of a signature that is there; whose it is, is not known
    sections: tuple[Section, ...]

    @property
    def signed(self) -> bool:
        """Whether it carries a signature; only the firmware's keys can tell whether that is a good one."""
        return self.certificate is not None


def of_fd(fd: int) -> Uki:
    """Return what the file (or block device) behind a descriptor is. `UkiError`, `OSError`. Its position moves."""
    return examine(lambda offset, length: os.pread(fd, length, offset), os.lseek(fd, 0, os.SEEK_END))


def of_bytes(data: bytes) -> Uki:
    """Return what some bytes are. `UkiError`."""
    return examine(lambda offset, length: data[offset : offset + length], len(data))


def examine(read: Read, size: int) -> Uki:
    """Return what `size` bytes behind `read` are; `UkiError` says in one sentence why they are no UKI of a spine."""
    if not 0 < size <= MAX_BYTES:
        raise UkiError("it is empty" if not size else f"it has {size} bytes, and a UKI at most {MAX_BYTES}")
    bounded = _bounded(read, size)
    machine, optional, table, count = _headers(bounded)
    if machine not in ARCHITECTURES:
        raise UkiError(f"it is a program for an unknown machine, {machine:#x}")
    sections = tuple(_sections(bounded, table, count, size))
    by_name = _by_name(sections)
    certificate = _certificate(bounded, optional, max(each.offset + each.stored for each in sections), size)
    stated = _os_release(_text(bounded, by_name[".osrel"], MAX_OSREL))
    if stated.get("ARCHITECTURE", ARCHITECTURES[machine]) != ARCHITECTURES[machine]:
        raise UkiError(
            f"it says it is for {stated['ARCHITECTURE']}, and its program is for {ARCHITECTURES[machine]}"
        )
    uname = by_name.get(".uname")
    return Uki(
        size, ARCHITECTURES[machine], stated["VERSION_ID"], stated["BUILD_ID"], stated["BAY0_BUILT"],
        int(stated["BAY0_SCHEMA"]), _text(bounded, uname, MAX_UNAME) if uname else "",
        _text(bounded, by_name[".cmdline"], MAX_CMDLINE), certificate, sections,
    )  # fmt: skip


def _bounded(read: Read, size: int) -> Read:
    """Return a `Read` that gives all that was asked for, or says that the file is cut short."""

    def whole(offset: int, length: int) -> bytes:
        data = read(offset, length) if offset + length <= size else b""
        if len(data) != length:
            raise UkiError(f"it is cut short: {length} bytes at {offset} are not in its {size}")
        return data

    return whole


def _headers(read: Read) -> tuple[int, bytes, int, int]:
    """Return the machine's number, the optional header, the offset of the section table, and how long that is."""
    start = read(0, 2)
    if start != b"MZ":
        raise UkiError("it is no program for a firmware: it does not begin with MZ")
    (at,) = struct.unpack_from("<I", read(0, _DOS), 0x3C)
    if not _DOS <= at <= MAX_HEADER_AT:
        raise UkiError(f"it is no program for a firmware: its header is said to be at {at}")
    signature, machine, count, _, _, _, length, _ = _COFF.unpack(read(at, _COFF.size))
    if signature != b"PE\0\0":
        raise UkiError("it is no program for a firmware: it has no PE signature")
    if not _DIRECTORIES_AT + 4 <= length <= MAX_OPTIONAL:
        raise UkiError(f"its optional header is said to have {length} bytes")
    optional = read(at + _COFF.size, length)
    if struct.unpack_from("<H", optional)[0] != _PE32_PLUS:
        raise UkiError(f"it is no 64-bit program, but one for {ARCHITECTURES.get(machine, 'an unknown machine')}")
    if not 0 < count <= MAX_SECTIONS:
        raise UkiError(f"it has {count} sections, and not 1 to {MAX_SECTIONS}")
    return machine, optional, at + _COFF.size + length, count


def _sections(read: Read, table: int, count: int, size: int) -> Iterator[Section]:
    """Yield the sections that have bytes in the file. Each stands in it whole, behind the headers, and shares no byte."""
    rows = read(table, count * _SECTION.size)
    end = table + len(rows)
    found = []
    for name, virtual, _, stored, offset, *_ in _SECTION.iter_unpack(rows):
        shown = name.rstrip(b"\0").decode("ascii", "replace")
        if not stored:
            continue
        if offset < end or offset + stored > size:
            raise UkiError(
                f"its section {shown!r} is said to be at {offset} to {offset + stored}, which is "
                + (f"within its headers of {end}" if offset < end else f"not in its {size} bytes: is it cut short?")
            )
        found.append(Section(shown, offset, stored, min(virtual, stored)))
    if not found:
        raise UkiError("its sections are all empty")
    ordered = sorted(found, key=lambda each: each.offset)
    for one, other in itertools.pairwise(ordered):
        if one.offset + one.stored > other.offset:
            raise UkiError(f"its sections {one.name!r} and {other.name!r} share bytes")
    yield from found


def _by_name(sections: tuple[Section, ...]) -> dict[str, Section]:
    """Return the sections that matter by name: each of NEEDED is there, has content, and none of them is there twice."""
    found: dict[str, Section] = {}
    for each in sections:
        if each.name == ".profile":
            raise UkiError("it has several profiles, and a spine has one")
        if each.name in (*NEEDED, ".uname"):
            if each.name in found:
                raise UkiError(f"it has two sections {each.name}")
            found[each.name] = each
    for name in NEEDED:
        if name not in found or not found[name].content:
            raise UkiError(f"it is no UKI: it has no section {name}")
    return found


def _certificate(read: Read, optional: bytes, end: int, size: int) -> tuple[int, int] | None:
    """Return where the signature is, None if there is none; `UkiError` if one is said to be where none can be."""
    (directories,) = struct.unpack_from("<I", optional, _DIRECTORIES_AT)
    at = _DIRECTORIES_AT + 4 + _CERTIFICATE_ENTRY * 8
    if directories <= _CERTIFICATE_ENTRY or at + 8 > len(optional):
        return None
    offset, length = struct.unpack_from("<II", optional, at)
    if not offset and not length:
        return None
    if offset < end or offset % 8 or length < _CERTIFICATE.size or offset + length > size:
        raise UkiError(
            f"its signature is said to be at {offset} to {offset + length}, and there it cannot be: the sections end "
            f"at {end}, the file at {size}"
        )
    real, *kind = _CERTIFICATE.unpack(read(offset, _CERTIFICATE.size))
    if tuple(kind) != _PKCS7 or not _CERTIFICATE.size < real <= length:
        raise UkiError(f"what it has at {offset} is no signature that a firmware knows")
    return offset, length


def _text(read: Read, section: Section, most: int) -> str:
    """Return a section that is a short text, without the zeros and line ends behind it."""
    if section.content > most:
        raise UkiError(f"its section {section.name} has {section.content} bytes, and may have {most}")
    try:
        text = read(section.offset, section.content).rstrip(b"\0\n").decode("utf-8")
    except UnicodeDecodeError as error:
        raise UkiError(f"its section {section.name} is no text") from error
    if "\0" in text:
        raise UkiError(f"its section {section.name} has zeros in it")
    return text


def _os_release(text: str) -> dict[str, str]:
    """Return what an os-release says, if it is a spine's and says all that an upgrade must know."""
    stated: dict[str, str] = {}
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        found = _LINE.fullmatch(line.rstrip())
        if not found or found[1] in stated:
            raise UkiError(
                f"its .osrel has a line that makes no sense: {line[:80]!r}"
                if not found
                else f"its .osrel says {found[1]} twice"
            )
        stated[found[1]] = found[2].strip("\"'")
    if stated.get("ID") != ID:
        raise UkiError(f"it is a UKI of {stated.get('ID', 'an unnamed system')[:40]!r}, and not of {ID}")
    for key, form in _VALUES.items():
        if key not in stated:
            raise UkiError(f"its .osrel says no {key}: it was made by a spine before upgrades, or without its manifest")
        if not form.fullmatch(stated[key]):
            raise UkiError(f"its .osrel says {key}={stated[key][:80]!r}, which is none")
    return stated
