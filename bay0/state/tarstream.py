"""Tar as an export has it (POSIX.1-2017, pax; holes as GNU tar's format 1.0): written, and read back from whoever it comes from.

The writer keeps to what GNU tar understands. The reader takes no more than what the writer makes: no global headers, no other types, no
keyword that it does not know, each number and each length within a bound before anything of that size is read. So its memory does not
grow with what an archive claims. Every byte before the last member, `checksum`, is counted in that member's SHA-256.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from typing import Any

from attrs import define, field

from bay0.base.errors import RefusedError

BLOCK = 512  # bytes
PAX_MAX = 1 << 20  # bytes of one extended header
PIECES_MAX = 10_000  # of a file with holes; its other holes are written as zeros
CHUNK = 1 << 20
FILE, HARD, LINK, CHARACTER, FOLDER, FIFO = b"0", b"1", b"2", b"3", b"5", b"6"
KINDS = (FILE, HARD, LINK, CHARACTER, FOLDER, FIFO)
CHECKSUM = b"checksum"
XATTR = b"SCHILY.xattr."
_OCTAL = re.compile(rb"([0-7]+)[ \0]")
_RECORD = re.compile(rb"([1-9][0-9]{0,6}) ([^=\0]+)=", re.DOTALL)
_TIME = re.compile(rb"(-?)([0-9]{1,12})(?:\.([0-9]{1,9}))?")
_DECIMAL = re.compile(rb"[0-9]{1,18}")
_SUM = re.compile(rb"sha256:[0-9a-f]{64}\n")
_NUMBERS = (b"size", b"uid", b"gid", b"GNU.sparse.realsize")
_TIMES = (b"mtime", b"atime")
_OTHERS = (b"path", b"linkpath", b"GNU.sparse.major", b"GNU.sparse.minor", b"GNU.sparse.name")
Piece = tuple[int, int]  # the offset of some data in a file, and its length


@define
class Member:
    """One entry. Times are nanoseconds. `pieces`: where a file with holes has data; None: everywhere. `stored`: bytes of contents in the archive."""

    name: bytes
    kind: bytes = FILE
    mode: int = 0o600
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime: int = 0
    atime: int = 0
    link: bytes = b""
    attributes: dict[str, bytes] = field(factory=dict)
    pieces: list[Piece] | None = None
    stored: int = 0


def padding(size: int) -> int:
    """Return how many bytes are missing to a whole block."""
    return -size % BLOCK


# ---- writing


def _record(key: bytes, value: bytes) -> bytes:
    """Return one record of an extended header: its own length in front counts itself."""
    rest = len(key) + len(value) + 3
    size = rest + len(str(rest))
    size = rest + len(str(size))
    return b"%d %s=%s\n" % (size, key, value)


def _time(value: int) -> bytes:
    seconds, rest = divmod(abs(value), 10**9)
    return b"%s%d.%09d" % (b"-" if value < 0 else b"", seconds, rest)


def _octal(value: int, width: int) -> bytes:
    """Return a field of a header; of what is too large for it the extended header has the value."""
    return b"%0*o\0" % (width - 1, value if 0 <= value < 8 ** (width - 1) else 0)


def _header(name: bytes, kind: bytes, size: int, member: Member | None = None) -> bytes:
    of = member or Member(name, mode=0o644)
    head = b"".join(
        (
            name[-100:].ljust(100, b"\0"), _octal(of.mode, 8), _octal(of.uid, 8), _octal(of.gid, 8), _octal(size, 12),
            _octal(max(0, of.mtime // 10**9), 12), b" " * 8, kind, of.link[:100].ljust(100, b"\0"), b"ustar\00000", bytes(64),
            _octal(0, 8), _octal(0, 8), bytes(167),
        )
    )  # fmt: skip
    return head[:148] + b"%06o\0 " % sum(head) + head[156:]


def _map(pieces: list[Piece]) -> bytes:
    """Return where data is, as GNU tar's format 1.0 has it in front of the data."""
    lines = b"".join(b"%d\n%d\n" % piece for piece in pieces)
    text = b"%d\n%s" % (len(pieces), lines)
    return text + bytes(padding(len(text)))


@define(eq=False, repr=False)
class Writer:
    """Writes members to `out`, which takes all bytes that it is given."""

    out: Callable[[bytes], Any]
    _sum: Any = field(init=False, factory=hashlib.sha256)

    def _put(self, data: bytes) -> None:
        self._sum.update(data)
        self.out(data)

    def member(self, member: Member) -> None:
        """Write the headers of a member, and the map of one with holes. Its data follows by `data`, in whole, then `pad`."""
        records = [_record(b"path" if member.pieces is None else b"GNU.sparse.name", member.name)]
        where = b"" if member.pieces is None else _map(member.pieces)
        size = len(where) + sum(length for _, length in member.pieces) if member.pieces is not None else member.size
        if member.pieces is not None:
            records += [_record(b"GNU.sparse.major", b"1"), _record(b"GNU.sparse.minor", b"0")]
            records.append(_record(b"GNU.sparse.realsize", b"%d" % member.size))
        if member.link:
            records.append(_record(b"linkpath", member.link))
        for key, number, most in ((b"size", size, 8**11), (b"uid", member.uid, 8**7), (b"gid", member.gid, 8**7)):
            if number >= most:
                records.append(_record(key, b"%d" % number))
        records += [_record(b"mtime", _time(member.mtime)), _record(b"atime", _time(member.atime))]
        records += [_record(XATTR + _escaped(name), value) for name, value in member.attributes.items()]
        text = b"".join(records)
        if len(text) > PAX_MAX:
            raise RefusedError(f"its name and attributes take {len(text)} bytes, and {PAX_MAX} is the most")
        self._put(_header(b"PaxHeaders/" + member.name[-60:].replace(b"/", b"_"), b"x", len(text)) + text + bytes(padding(len(text))))
        self._put(_header(member.name, member.kind, size, member) + where)
        member.stored = size

    def data(self, data: bytes) -> None:
        """Write some of the contents."""
        self._put(data)

    def pad(self, member: Member) -> None:
        """Fill the last block of the contents."""
        self._put(bytes(padding(member.stored)))

    def end(self) -> None:
        """Write the checksum of all that went before, and the end of the archive."""
        text = b"sha256:%s\n" % self._sum.hexdigest().encode()
        self.out(_header(CHECKSUM, FILE, len(text)) + text + bytes(padding(len(text))) + bytes(2 * BLOCK))


def _escaped(name: str) -> bytes:
    """Return the name of an attribute as GNU tar writes it: an equals sign would end it."""
    return name.encode(errors="surrogateescape").replace(b"%", b"%25").replace(b"=", b"%3D")


# ---- reading


@define(eq=False, repr=False)
class Reader:
    """Reads members. `read(n)` gives up to n bytes, b"" at the end. `RefusedError`: this is no export of ours, or not as it was written."""

    read: Callable[[int], bytes]
    at: int = field(init=False, default=0)  # bytes that were read
    whole: bool = field(init=False, default=False)  # the checksum was there, and is right
    _sum: Any = field(init=False, factory=hashlib.sha256)
    _left: int = field(init=False, default=0)  # of the contents of the last member
    _pad: int = field(init=False, default=0)

    def wrong(self, why: str) -> RefusedError:
        """Return what is to be raised."""
        return RefusedError(f"the archive is not as `bay0 persona export` wrote it, at byte {self.at}: {why}")

    def _take(self, size: int) -> bytes:
        data = self.read(size)
        while len(data) < size:
            more = self.read(size - len(data))
            if not more:
                raise self.wrong("it ends early")
            data += more
        self.at += size
        self._sum.update(data)
        return data

    def next(self) -> Member | None:
        """Return the next member; None behind the last, whose checksum was right then. What was not read of the one before is passed over."""
        for _ in self.contents():
            pass
        before = self._sum.copy()
        head, name, kind, size = self._head()
        if kind == FILE and name == CHECKSUM:
            self._check(before, size)
            return None
        if kind != b"x":
            raise self.wrong("a member without an extended header")
        if not 0 < size <= PAX_MAX:
            raise self.wrong(f"an extended header of {size} bytes")
        told = dict(self._records(self._take(size)))
        self._take(padding(size))
        head, name, kind, size = self._head()
        if kind not in KINDS:
            raise self.wrong(f"a member of type {kind!r}")
        return self._member(head, kind, size, told)

    def _head(self) -> tuple[bytes, bytes, bytes, int]:
        head = self._take(BLOCK)
        if head[257:265] != b"ustar\00000":
            raise self.wrong("this is no header of tar")
        if self._octal(head[148:156]) != sum(head) - sum(head[148:156]) + 8 * 32:
            raise self.wrong("a header whose sum is wrong")
        return head, head[:100].rstrip(b"\0"), head[156:157], self._octal(head[124:136])

    def _octal(self, data: bytes) -> int:
        found = _OCTAL.match(data)
        if found is None:
            raise self.wrong("a number that is none")
        return int(found[1], 8)

    def _check(self, before: Any, size: int) -> None:
        if size != len("sha256:\n") + 64 or not _SUM.fullmatch(text := self._take(size)):
            raise self.wrong("its checksum is none")
        if text != b"sha256:%s\n" % before.hexdigest().encode():
            raise self.wrong("its checksum is another: it was changed, or damaged on its way")
        self.whole = True

    def _records(self, text: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield keyword and value of each record."""
        at = 0
        while at < len(text):
            found = _RECORD.match(text, at)
            end = at + int(found[1]) if found else 0
            if found is None or not found.end() < end <= len(text) or text[end - 1] != ord("\n"):
                raise self.wrong("an extended header that is none")
            key, value, at = found[2], text[found.end() : end - 1], end
            good = key in _OTHERS or key.startswith(XATTR)
            good = good or (key in _NUMBERS and bool(_DECIMAL.fullmatch(value))) or (key in _TIMES and bool(_TIME.fullmatch(value)))
            if not good:
                raise self.wrong(f"the keyword {key[:40]!r} in an extended header")
            yield key, value

    def _member(self, head: bytes, kind: bytes, size: int, told: dict[bytes, bytes]) -> Member:
        sparse = b"GNU.sparse.realsize" in told
        number = {key: int(told[key]) for key in _NUMBERS if key in told}
        member = Member(
            name=told.get(b"GNU.sparse.name" if sparse else b"path", b""), kind=kind, mode=self._octal(head[100:108]) & 0o7777,
            uid=number.get(b"uid", self._octal(head[108:116])), gid=number.get(b"gid", self._octal(head[116:124])),
            size=number.get(b"GNU.sparse.realsize", number.get(b"size", size)), stored=number.get(b"size", size),
            mtime=_nanoseconds(told.get(b"mtime", b"0")), atime=_nanoseconds(told.get(b"atime", b"0")), link=told.get(b"linkpath", b""),
            attributes={_unescaped(key): value for key, value in told.items() if key.startswith(XATTR)},
        )  # fmt: skip
        if max(member.uid, member.gid) >= (1 << 32) - 1:
            raise self.wrong(f"the owner {max(member.uid, member.gid)}")
        if b"\0" in member.link or (member.link == b"") is (kind in (HARD, LINK)):
            raise self.wrong("a link that is none")
        if kind != FILE and (member.stored or member.size):
            raise self.wrong("contents of what is no file")
        self._left, self._pad = member.stored, padding(member.stored)
        if sparse:
            member.pieces = self._pieces(member)
        return member

    def _pieces(self, member: Member) -> list[Piece]:
        """Read where a file with holes has data: in order, within its size, as much as is stored of it."""
        text = self._some(BLOCK)
        while (lines := text.split(b"\n"))[0] == b"" or len(lines) - 1 < 1 + 2 * self._count(lines[0]):
            text += self._some(BLOCK)
        count = self._count(lines[0])
        numbers = [self._count(line, 1 << 62) for line in lines[1 : 1 + 2 * count]]
        pieces, at = list(zip(numbers[::2], numbers[1::2], strict=True)), 0
        for offset, length in pieces:
            if offset < at:
                raise self.wrong("pieces of a file that do not follow each other")
            at = offset + length
        if at > member.size or sum(length for _, length in pieces) != self._left:
            raise self.wrong("pieces of a file that are not as large as it says")
        return pieces

    def _count(self, line: bytes, most: int = PIECES_MAX + 1) -> int:
        if not _DECIMAL.fullmatch(line) or int(line) > most:
            raise self.wrong("the pieces of a file with holes are not told")
        return int(line)

    def _some(self, size: int) -> bytes:
        """Return bytes of the contents."""
        if size > self._left:
            raise self.wrong("a file with holes ends early")
        self._left -= size
        return self._take(size)

    def contents(self, most: int = CHUNK) -> Iterator[bytes]:
        """Yield what is left of the contents of the last member."""
        while self._left:
            yield self._some(min(most, self._left))
        if self._pad:
            size, self._pad = self._pad, 0
            self._take(size)


def _nanoseconds(text: bytes) -> int:
    found = _TIME.fullmatch(text)
    if found is None:
        return 0
    value = int(found[2]) * 10**9 + int((found[3] or b"").ljust(9, b"0"))
    return -value if found[1] else value


def _unescaped(key: bytes) -> str:
    return key[len(XATTR) :].replace(b"%3D", b"=").replace(b"%25", b"%").decode(errors="surrogateescape")
