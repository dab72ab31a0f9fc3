#!/usr/bin/env python3
"""Join a stub, a kernel, an initramfs and a command line into one unified kernel image (UKI), or show what one is made of.

A UKI is systemd's stub, a PE program, with sections added: the format is https://uapi-group.org/specifications/specs/unified_kernel_image/.
What ukify would do, which Debian 12 does not have; one way on all hosts, so that the same inputs give the same bytes everywhere.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import struct
import sys
from collections.abc import Iterator
from typing import Any

# Microsoft's PE format. Offsets into the COFF header, which follows the signature; the optional header (PE32+) is behind it.
_NSECTIONS, _TIMESTAMP, _SYMBOLS, _OPTIONAL_SIZE, _OPTIONAL = 2, 4, 8, 16, 20
_INITIALIZED, _SECTION_ALIGN, _FILE_ALIGN, _IMAGE_SIZE, _HEADERS_SIZE, _CHECKSUM, _CERTIFICATE = 8, 32, 36, 56, 60, 64, 144
_SECTION = struct.Struct("<8sIIIIIIHHI")  # name, virtual size and address, size and offset in the file, ..., characteristics
_READ_DATA = 0x40000040  # initialized data, readable
_AMD64, _PE32_PLUS = 0x8664, 0x20B
PAGE = 0x1000
MAX_UKI = 0xFFFFFFFF  # the fields have 32 bits


class PeError(Exception):
    """Not a PE program that we can work with; the message says why."""


def align(number: int, to: int) -> int:
    """Round up."""
    return -(-number // to) * to


class Pe:
    """A PE32+ program for x86-64, whole in memory."""

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)
        try:
            if data[:2] != b"MZ":
                raise PeError("it does not begin with MZ")
            (at,) = struct.unpack_from("<I", data, 0x3C)
            if data[at : at + 4] != b"PE\0\0":
                raise PeError("it has no PE signature")
            self.coff = at + 4
            self.optional = self.coff + _OPTIONAL
            if self.u16(self.coff) != _AMD64 or self.u16(self.optional) != _PE32_PLUS:
                raise PeError("it is not a program for x86-64")
            self.table = self.optional + self.u16(self.coff + _OPTIONAL_SIZE)
            self.sections = list(self._sections())
        except struct.error as error:
            raise PeError(f"it is cut short ({error})") from error
        for name, *_, size, offset in self.sections:
            if offset + size > len(data):
                raise PeError(f"it is cut short: section {name} ends at {offset + size}, the file at {len(data)}")

    def u16(self, at: int) -> int:
        """Return the 16-bit number at an offset of the file."""
        return int(struct.unpack_from("<H", self.data, at)[0])

    def u32(self, at: int) -> int:
        """Return the 32-bit number at an offset of the file."""
        return int(struct.unpack_from("<I", self.data, at)[0])

    def put(self, at: int, number: int) -> None:
        """Write a 32-bit number."""
        struct.pack_into("<I", self.data, at, number)

    def _sections(self) -> Iterator[tuple[str, int, int, int, int]]:
        for number in range(self.u16(self.coff + _NSECTIONS)):
            name, virtual, address, size, offset, *_ = _SECTION.unpack_from(self.data, self.table + number * _SECTION.size)
            yield name.rstrip(b"\0").decode("ascii", "replace"), virtual, address, size, offset

    def content(self, name: str) -> bytes | None:
        """Return what is in a section."""
        for found, virtual, _, size, offset in self.sections:
            if found == name:
                return bytes(self.data[offset : offset + min(virtual, size)])
        return None

    @property
    def signed(self) -> bool:
        """Whether it carries a signature; whose, only a firmware or sbverify can tell."""
        return self.u32(self.optional + _CERTIFICATE + 4) > 0


def join(stub: bytes, parts: dict[str, bytes]) -> bytes:
    """Return `stub` with `parts` as further sections. `PeError` if the stub has no room for their headers, or all is too large."""
    pe = Pe(stub)
    if pe.signed:
        raise PeError("it is signed, and the signature would not hold: take an unsigned stub")
    taken = [name for name, *_ in pe.sections if name in parts]
    if taken:
        raise PeError(f"it has a section {taken[0]} already: it is no bare stub")
    end = pe.table + (len(pe.sections) + len(parts)) * _SECTION.size
    if end > min([pe.u32(pe.optional + _HEADERS_SIZE), *(offset for *_, size, offset in pe.sections if size)]):
        raise PeError(f"its header has no room for {len(parts)} more sections")
    unit = pe.u32(pe.optional + _FILE_ALIGN)
    # behind the last section a linker may have left symbols, which nothing loads and no checksum needs
    body = bytearray(pe.data[: max(offset + size for *_, size, offset in pe.sections)])
    body += bytes(align(len(body), unit) - len(body))
    address = align(max(at + max(virtual, size) for _, virtual, at, size, _ in pe.sections), max(PAGE, pe.u32(pe.optional + _SECTION_ALIGN)))
    headers, added = bytearray(), 0
    for name, data in parts.items():
        size = align(len(data), unit)
        if address + size > MAX_UKI:
            raise PeError("the parts are larger than 4 GiB together, and a UKI cannot be")
        headers += _SECTION.pack(name.encode(), len(data), address, size, len(body), 0, 0, 0, 0, _READ_DATA)
        body += data + bytes(size - len(data))
        last, address, added = address + len(data), align(address + size, PAGE), added + size
    body[pe.table + len(pe.sections) * _SECTION.size : end] = headers
    pe.data = body
    struct.pack_into("<H", body, pe.coff + _NSECTIONS, len(pe.sections) + len(parts))
    pe.put(pe.coff + _TIMESTAMP, 0)
    pe.put(pe.coff + _SYMBOLS, 0)
    pe.put(pe.coff + _SYMBOLS + 4, 0)
    pe.put(pe.optional + _INITIALIZED, pe.u32(pe.optional + _INITIALIZED) + added)
    pe.put(pe.optional + _IMAGE_SIZE, align(last, pe.u32(pe.optional + _SECTION_ALIGN)))
    pe.put(pe.optional + _CHECKSUM, 0)  # UEFI does not look at it
    return bytes(body)


def early_microcode(data: bytes) -> bool:
    """Tell whether `data` is a cpio as the kernel wants it for microcode: uncompressed, kernel/x86/microcode/ in it."""
    return data[:6] == b"070701" and b"kernel/x86/microcode/" in data[:4096]


def kernel_release(kernel: bytes) -> str:
    """Return the release that a bzImage states (kernel: Documentation/arch/x86/boot.rst, kernel_version)."""
    if kernel[0x202:0x206] != b"HdrS":
        raise PeError("it is no Linux kernel for x86")
    (at,) = struct.unpack_from("<H", kernel, 0x20E)
    return kernel[at + 0x200 : at + 0x200 + 256].split(b"\0")[0].split(b" ")[0].decode("ascii", "replace")


def read(path: str) -> bytes:
    """Return a file's content, `-` is stdin."""
    if path == "-":
        return sys.stdin.buffer.read()
    with open(path, "rb") as file:
        return file.read()


def describe(data: bytes) -> dict[str, Any]:
    """Return what a UKI is made of."""
    pe = Pe(data)
    contents = {name: pe.content(name) for name, *_ in pe.sections}
    return {
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        "signed": pe.signed,
        "cmdline": (contents.get(".cmdline") or b"").rstrip(b"\0\n").decode("utf-8", "replace"),
        "kernel": (contents.get(".uname") or b"").rstrip(b"\0").decode("ascii", "replace"),
        "sections": {
            name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()} for name, content in contents.items() if content is not None
        },
    }


def os_release(template: bytes, stated: dict[str, Any]) -> bytes:
    """Return what the image says of itself: its own /etc/os-release; without a manifest, what is true of every spine."""
    if stated:
        return str(stated["os_release"]).encode()
    return b"".join(line for line in template.splitlines(keepends=True) if b"@" not in line)


def check_pair(options: argparse.Namespace, stated: dict[str, Any], **artifacts: bytes) -> None:
    """Refuse a kernel and an image that are not of the build that the manifest describes."""
    for name, path, data in (("vmlinuz", options.linux, artifacts["kernel"]), ("spine.img", options.initrd, artifacts["image"])):
        if stated["artifacts"].get(name, {}).get("sha256") != hashlib.sha256(data).hexdigest():
            raise PeError(f"{path} is not the {name} that {options.manifest} describes: build again with scripts/mkspine.sh, or say --manifest none")


def build(options: argparse.Namespace) -> bytes:
    """Return the UKI that the command line asks for. `PeError`, `OSError`."""
    kernel, image = read(options.linux), read(options.initrd)
    stated: dict[str, Any] = {}
    if options.manifest != "none":
        stated = json.loads(read(options.manifest))
        check_pair(options, stated, kernel=kernel, image=image)
    try:
        if not Pe(kernel).sections:
            raise PeError("it has no sections")
        release = kernel_release(kernel)
    except PeError as error:
        raise PeError(f"{options.linux} is no kernel that a firmware can start: {error}") from error
    initrd = b""
    for path in options.microcode:
        early = read(path)
        if not early_microcode(early):
            raise PeError(f"{path} is no microcode image: an uncompressed cpio with kernel/x86/microcode/ in it, as intel-ucode and amd-ucode bring")
        initrd += early + bytes(align(len(early), 4) - len(early))
    parts = {  # in this order: the kernel comes last, as the specification advises
        ".osrel": os_release(read(options.osrel), stated),
        ".uname": release.encode(),
        ".cmdline": options.cmdline.encode(),
        ".initrd": initrd + image,
        ".linux": kernel,
    }
    try:
        return join(read(options.stub), parts)
    except PeError as error:
        raise PeError(f"the stub {options.stub} cannot be used: {error}") from error


def main() -> int:
    """Do as the command line says; 1 and one sentence if that cannot be."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("build")
    for name in ("stub", "linux", "initrd", "osrel", "cmdline", "manifest", "out"):
        make.add_argument(f"--{name}", required=True)
    make.add_argument("--microcode", action="append", default=[])
    show = commands.add_parser("show", help="JSON: command line, kernel, sections with sizes and digests")
    show.add_argument("file")
    commands.add_parser("words", help="the command line").add_argument("file")
    options = parser.parse_args()
    try:
        if options.command == "build":
            data = build(options)
            with open(options.out, "wb") as out:
                out.write(data)
                out.flush()
                os.fsync(out.fileno())
        elif options.command == "words":
            print((Pe(read(options.file)).content(".cmdline") or b"").decode("utf-8", "replace"))
        else:
            json.dump(describe(read(options.file)), sys.stdout, indent=1)
            print()
    except PeError as error:
        what = f"{options.file} is no program for a firmware: " if options.command != "build" else ""
        print(f"mkuki: {what}{error}.", file=sys.stderr)
        return 1
    except (ValueError, KeyError) as error:
        print(f"mkuki: {options.manifest} is no manifest of a build: {error}.", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"mkuki: {error.filename}: {error.strerror}.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
