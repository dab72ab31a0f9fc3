"""The reader of a UKI: what it says of a good one, and that no bad one makes it do more than say so.

That it agrees with binutils, and with the UKI of the real build, is in test_uki_tools.py.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable

import diskkit
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bay0.base.errors import UkiError
from bay0.state import uki

sys.path.insert(0, str(diskkit.SCRIPTS / "lib"))
import mkuki

OSREL = """NAME="Alpine-Spline"
# which build it is
ID=alpine-spline
VERSION_ID=9.8.7
BUILD_ID=0123456789abcdef
ARCHITECTURE=x86-64
BAY0_SCHEMA=3
BAY0_BUILT="2026-11-30T21:17:03Z"
"""
PARTS = {
    ".osrel": OSREL.encode(),
    ".uname": b"6.18.56-0-virt",
    ".cmdline": b"quiet bay0.patience=2",
    ".initrd": bytes(range(256)) * 30,
    ".linux": diskkit.kernel(),
}


def made(**changed: bytes) -> bytes:
    """Return a UKI with some sections changed (`osrel=...`); an empty one is left out."""
    parts = PARTS | {f".{name}": data for name, data in changed.items()}
    return mkuki.join(diskkit.pe(), {name: data for name, data in parts.items() if data})


GOOD = made()
COFF = struct.unpack_from("<I", GOOD, 0x3C)[0] + 4
OPTIONAL, TABLE = COFF + 20, COFF + 20 + 240
CERTIFICATE = OPTIONAL + 144
SECTIONS = struct.unpack_from("<H", GOOD, COFF + 2)[0]
HEADERS = TABLE + SECTIONS * 40


def put(at: int, form: str, *values: int | bytes, data: bytes = GOOD) -> bytes:
    """Return the file with other values at a place."""
    changed = bytearray(data)
    struct.pack_into("<" + form, changed, at, *values)
    return bytes(changed)


def signed(at: int | None = None, length: int = 64, kind: tuple[int, int, int] = (60, 0x200, 2)) -> bytes:
    """Return the file with a certificate table behind it, said to be at another place or of another kind."""
    data = GOOD + bytes(-len(GOOD) % 8)
    table = struct.pack("<IHH", *kind).ljust(64, b"s")
    return put(CERTIFICATE, "II", len(data) if at is None else at, length, data=data + table)


def row(name: str) -> int:
    """Return where the header of a section stands."""
    return next(at for at in range(TABLE, HEADERS, 40) if GOOD[at : at + 8].rstrip(b"\0") == name.encode())


def test_a_good_one_says_what_it_is():
    found = uki.of_bytes(GOOD)
    assert (found.version, found.build_id, found.built) == ("9.8.7", "0123456789abcdef", "2026-11-30T21:17:03Z")
    assert (found.schema, found.architecture, found.kernel) == (3, "x86-64", "6.18.56-0-virt")
    assert (found.cmdline, found.size, found.signed) == ("quiet bay0.patience=2", len(GOOD), False)
    by_name = {each.name: each for each in found.sections}
    linux = by_name[".linux"]
    assert GOOD[linux.offset : linux.offset + linux.content] == PARTS[".linux"]


def test_a_signature_is_seen_where_it_is():
    found = uki.of_bytes(signed())
    assert found.signed
    assert found.certificate == (len(GOOD) + -len(GOOD) % 8, 64)


WRONG: dict[str, Callable[[], bytes]] = {
    "it is empty": lambda: b"",
    "does not begin with MZ": lambda: b"\x7fELF" + GOOD[4:],
    "it is cut short: 64 bytes at 0": lambda: b"MZ",
    "its header is said to be at 4294967295": lambda: put(0x3C, "I", 0xFFFFFFFF),
    "its header is said to be at 0": lambda: put(0x3C, "I", 0),
    "has no PE signature": lambda: put(COFF - 4, "I", 0),
    "an unknown machine, 0x1234": lambda: put(COFF, "H", 0x1234),
    "it says it is for x86-64, and its program is for arm64": lambda: put(COFF, "H", 0xAA64),
    "no 64-bit program, but one for x86": lambda: put(COFF, "H", 0x14C, data=put(OPTIONAL, "H", 0x10B)),
    "it has 0 sections": lambda: put(COFF + 2, "H", 0),
    "it has 65535 sections": lambda: put(COFF + 2, "H", 0xFFFF),
    "optional header is said to have 0 bytes": lambda: put(COFF + 16, "H", 0),
    "optional header is said to have 65535 bytes": lambda: put(COFF + 16, "H", 0xFFFF),
    "is it cut short?": lambda: GOOD[:-1000],
    "which is within its headers": lambda: put(row(".linux") + 20, "I", HEADERS - 1),
    "share bytes": lambda: put(row(".linux") + 20, "I", struct.unpack_from("<I", GOOD, row(".initrd") + 20)[0]),
    "two sections .cmdline": lambda: put(row(".uname"), "8s", b".cmdline"),
    "several profiles": lambda: put(row(".uname"), "8s", b".profile"),
    "its sections are all empty": lambda: put(COFF + 2, "H", 1, data=put(TABLE + 16, "I", 0)),
    "no section .linux": lambda: made(linux=b""),
    "no section .osrel": lambda: made(osrel=b""),
    "no section .initrd": lambda: put(row(".initrd") + 8, "I", 0),
    "there it cannot be": lambda: signed(at=0x200),
    "there it cannot be: the sections": lambda: signed(length=65),
    "and there it cannot be": lambda: signed(at=len(GOOD) + -len(GOOD) % 8 + 4, length=60),
    "is no signature that a firmware knows": lambda: signed(kind=(60, 0x200, 1)),
    "no signature that a firmware knows": lambda: signed(kind=(4, 0x200, 2)),
    ".osrel has 16385 bytes, and may have 16384": lambda: made(osrel=b"#" * 16385),
    ".cmdline is no text": lambda: made(cmdline=b"\xff\xfe"),
    ".cmdline has zeros in it": lambda: made(cmdline=b"a\0b"),
    "a line that makes no sense: 'what is this'": lambda: made(osrel=OSREL.encode() + b"what is this\n"),
    "a line that makes no sense: 'A=$(reboot)'": lambda: made(osrel=OSREL.encode() + b"A=$(reboot)\n"),
    "says ID twice": lambda: made(osrel=OSREL.encode() + b"ID=debian\n"),
    "a UKI of 'debian', and not of alpine-spline": lambda: made(osrel=b"ID=debian\n"),
    "a UKI of 'an unnamed system'": lambda: made(osrel=b"NAME=x\n"),
    "says no BUILD_ID": lambda: made(osrel=OSREL.replace("BUILD_ID", "OTHER_ID").encode()),
    "says BAY0_SCHEMA='0', which is none": lambda: made(osrel=OSREL.replace("SCHEMA=3", "SCHEMA=0").encode()),
    "says BAY0_SCHEMA='9999999'": lambda: made(osrel=OSREL.replace("SCHEMA=3", "SCHEMA=9999999").encode()),
    "says VERSION_ID='9/8'": lambda: made(osrel=OSREL.replace("9.8.7", "9/8").encode()),
    "says BAY0_BUILT='yesterday'": lambda: made(osrel=OSREL.replace("2026-11-30T21:17:03Z", "yesterday").encode()),
}


@pytest.mark.parametrize("reason", WRONG)
def test_what_is_none_is_refused_with_one_sentence(reason: str):
    with pytest.raises(UkiError) as caught:
        uki.of_bytes(WRONG[reason]())
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


class Counted:
    """A reader that counts, and is asked for nothing outside of the file."""

    def __init__(self, data: bytes) -> None:
        self.data, self.calls, self.bytes = data, 0, 0

    def __call__(self, offset: int, length: int) -> bytes:
        assert offset >= 0
        assert length >= 0
        self.calls, self.bytes = self.calls + 1, self.bytes + length
        return self.data[offset : offset + length]


MOST = 2 + 64 + 24 + uki.MAX_OPTIONAL + 40 * uki.MAX_SECTIONS + 8 + uki.MAX_OSREL + uki.MAX_CMDLINE + uki.MAX_UNAME


def looked_at(data: bytes, size: int | None = None) -> uki.Uki | UkiError:
    """Return the answer; whatever it is, little was read for it."""
    read = Counted(data)
    try:
        return uki.examine(read, len(data) if size is None else size)
    except UkiError as error:
        return error
    finally:
        assert read.calls <= 10
        assert read.bytes <= MOST


@given(st.binary(max_size=2000))
@example(b"MZ" + bytes(100))
def test_bytes_of_no_kind_are_refused(data: bytes):
    assert isinstance(looked_at(data), UkiError)


@given(st.lists(st.tuples(st.integers(0, HEADERS + 600), st.integers(0, 255)), min_size=1, max_size=6), st.booleans())
def test_any_bytes_of_the_headers_may_be_wrong(changes: list[tuple[int, int]], is_signed: bool):
    data = bytearray(signed() if is_signed else GOOD)
    for at, byte in changes:
        data[at] = byte
    found = looked_at(bytes(data))
    if isinstance(found, uki.Uki):
        for each in found.sections:
            assert each.offset >= HEADERS
            assert each.offset + each.stored <= len(data)
            assert each.content <= each.stored


EDGES = st.sampled_from([0, 1, 7, 8, 0x7FFF, 0xFFFF, 0x10000, len(GOOD), 0x7FFFFFFF, 0x80000000, 0xFFFFFFF8, 0xFFFFFFFF])


@given(st.integers(0, (HEADERS - 4) // 4), EDGES, st.booleans())
def test_any_number_of_the_headers_may_be_wrong(at: int, number: int, is_signed: bool):
    looked_at(put(at * 4, "I", number, data=signed() if is_signed else GOOD))


@given(st.integers(0, len(GOOD) - 1))
def test_no_part_of_a_file_passes_for_all_of_it(length: int):
    assert isinstance(looked_at(GOOD[:length]), UkiError)


@given(st.integers(len(GOOD), 1 << 40))
def test_a_size_that_is_not_the_files_is_found_or_does_no_harm(size: int):
    looked_at(GOOD, size)


@given(st.binary(max_size=400) | st.text(max_size=200).map(lambda text: OSREL.encode() + text.encode("utf-8", "replace")))
def test_any_os_release_is_understood_or_refused(osrel: bytes):
    found = looked_at(made(osrel=osrel or b" "))
    if isinstance(found, uki.Uki):
        assert found.version == "9.8.7"
