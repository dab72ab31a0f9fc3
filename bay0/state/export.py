"""Write a home into an archive, for the command line in its own process: what it is of, then `home`, then a checksum (tarstream.py).

A home is somebody's, so it is gone through as a copy goes through one (tree.py): by descriptors, following nothing, opening only what
was seen to be a file. Sockets are left out, since no archive has them, and so are attributes that only root can set.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from typing import Any

from attrs import define, field

from bay0.base.errors import RefusedError
from bay0.state import files, staging, tarstream, tree
from bay0.state.tarstream import CHARACTER, FIFO, FILE, FOLDER, HARD, LINK, Member

ABOUT, HOME = b"persona.json", b"home"
FORMAT = 1
Raw = bytes  # in a class with a field of that name
LINKED_MAX = 200_000  # files with several names whose other names were not met yet: each is kept in mind
ATTRIBUTES = ("user.", "security.capability", "system.posix_acl_access", "system.posix_acl_default")
_KINDS = {stat.S_IFREG: FILE, stat.S_IFLNK: LINK, stat.S_IFDIR: FOLDER, stat.S_IFIFO: FIFO, stat.S_IFCHR: CHARACTER}


def is_kept(attribute: str) -> bool:
    """Tell whether an archive has this attribute."""
    return attribute.startswith("user.") or attribute in ATTRIBUTES


@define(eq=False, repr=False)
class Export:
    """One archive under way. `say` hears of it often, and may raise to end it."""

    out: tarstream.Writer
    say: Callable[[Export], None] = lambda _export: None
    entries: int = field(init=False, default=0)
    bytes: int = field(init=False, default=0)
    left_out: int = field(init=False, default=0)  # sockets
    wanted: tree.Size = field(init=False, default=tree.Size(0, 0))
    _linked: dict[tuple[int, int], tuple[Raw, int]] = field(init=False, factory=dict)  # file -> its first name, how many names are to come

    def about(self, what: dict[str, Any], home: int | None) -> None:
        """Write what it is of. `home`: a descriptor, None if there is none."""
        room = 0 if home is None else self._measure(home)
        told = {"format": FORMAT, **what, "home": home is not None, "entries": self.wanted.entries, "bytes": self.wanted.bytes, "room": room}
        text = json.dumps(told, indent=1).encode() + b"\n"
        member = Member(ABOUT, mode=0o644, size=len(text))
        self.out.member(member)
        self.out.data(text)
        self.out.pad(member)

    def _measure(self, home: int) -> int:
        """Find out how many entries and bytes there will be in the archive; return how many bytes they take on this disk."""
        entries = contents = room = 0
        for levels, name, found in tree.walk(home):
            kind = stat.S_IFMT(found.st_mode)
            entries += kind != stat.S_IFSOCK
            if not self._first_name(b"met", found):
                room += found.st_blocks * tarstream.BLOCK
                if kind == stat.S_IFREG:
                    contents += _stored(levels[-1].source, name, found)
        self._linked.clear()
        self.wanted = tree.Size(entries, contents)
        return room

    def home(self, home: int) -> None:
        """Write all of a home. `RefusedError` names what cannot be in an archive; `OSError` what could not be read."""
        self.out.member(_member(HOME, os.fstat(home), _attributes(home)))
        for levels, name, found in tree.walk(home):
            self.say(self)
            path = b"/".join([HOME, *(os.fsencode(each.name) for each in levels[1:]), os.fsencode(name)])
            try:
                self._entry(levels[-1].source, name, path, found)
            except OSError as error:
                raise OSError(error.errno, f"{os.fsdecode(path)}: {error.strerror}") from error
            except RefusedError as error:
                raise RefusedError(f"{os.fsdecode(path)}: {error}") from error

    def _entry(self, folder: int, name: str, path: Raw, found: os.stat_result) -> None:
        kind = stat.S_IFMT(found.st_mode)
        if kind == stat.S_IFSOCK:
            self.left_out += 1
            return
        if kind == stat.S_IFBLK or (kind == stat.S_IFCHR and found.st_rdev):
            raise RefusedError(f"it is {tree.KINDS[kind]}, and no archive has one: delete it first")
        self.entries += 1
        first = self._first_name(path, found)
        if first:
            self.out.member(_member(path, found, {}, kind=HARD, link=first))
        elif kind == stat.S_IFREG:
            self._file(folder, name, path, found)
        else:
            link = os.fsencode(os.readlink(name, dir_fd=folder)) if kind == stat.S_IFLNK else b""
            self.out.member(_member(path, found, _attributes(f"/proc/self/fd/{folder}/{name}"), link=link))

    def _first_name(self, path: Raw, found: os.stat_result) -> Raw:
        """Return the name under which a file is in the archive already; b"" for one that is not."""
        if found.st_nlink < 2 or stat.S_ISDIR(found.st_mode):  # noqa: PLR2004 - names
            return b""
        key = (found.st_dev, found.st_ino)
        first, to_come = self._linked.pop(key, (b"", found.st_nlink))
        if to_come > 1:
            self._linked[key] = (first or path, to_come - 1)
        if len(self._linked) > LINKED_MAX:
            raise RefusedError(f"more than {LINKED_MAX} files have further names that were not met yet: no archive is made of such a tree")
        return first

    def _file(self, folder: int, name: str, path: Raw, seen: os.stat_result) -> None:
        fd = os.open(name, tree.READ, dir_fd=folder)
        try:
            found = os.fstat(fd)
            if (found.st_ino, stat.S_IFMT(found.st_mode)) != (seen.st_ino, stat.S_IFREG):
                raise RefusedError("it was replaced while it was written")
            member = _member(path, found, _attributes(fd), size=found.st_size, pieces=_pieces(fd, found))
            self.out.member(member)
            for offset, length in member.pieces if member.pieces is not None else [(0, member.size)]:
                self._data(fd, offset, offset + length)
            self.out.pad(member)
        finally:
            os.close(fd)

    def _data(self, fd: int, at: int, end: int) -> None:
        while at < end:
            data = os.pread(fd, min(tarstream.CHUNK, end - at), at)
            if not data:
                raise RefusedError("it became shorter while it was written")
            self.out.data(data)
            at += len(data)
            self.bytes += len(data)
            self.say(self)


def _member(path: bytes, found: os.stat_result, attributes: dict[str, bytes], **more: Any) -> Member:
    what = {"kind": _KINDS[stat.S_IFMT(found.st_mode)], **more}
    return Member(
        path, mode=stat.S_IMODE(found.st_mode), uid=found.st_uid, gid=found.st_gid, mtime=found.st_mtime_ns, atime=found.st_atime_ns,
        attributes=attributes, **what,
    )  # fmt: skip


def _attributes(of: int | str) -> dict[str, bytes]:
    """Return those that an archive has, of a descriptor or of a path that is no link's target."""
    follow = isinstance(of, int)
    return {name: os.getxattr(of, name, follow_symlinks=follow) for name in os.listxattr(of, follow_symlinks=follow) if is_kept(name)}


def _stored(folder: int, name: str, seen: os.stat_result) -> int:
    """Return how many bytes of a file are in an archive."""
    if seen.st_blocks * tarstream.BLOCK >= seen.st_size:
        return seen.st_size
    fd = os.open(name, tree.READ, dir_fd=folder)
    try:
        return sum(length for _, length in _pieces(fd, os.fstat(fd)) or [(0, seen.st_size)])
    finally:
        os.close(fd)


def _pieces(fd: int, found: os.stat_result) -> list[tarstream.Piece] | None:
    """Return where a file has data, the last of them an empty one at its end; None if it has no holes."""
    size = found.st_size
    if found.st_blocks * tarstream.BLOCK >= size:
        return None
    pieces: list[tarstream.Piece] = []
    at = 0
    while at < size and len(pieces) < tarstream.PIECES_MAX - 1:
        start, end = tree.piece(fd, at, size)
        if start < end:
            pieces.append((start, end - start))
        at = end
    if at < size:
        pieces.append((at, size - at))
    return [*pieces, (size, 0)]


def open_home(name: str) -> int | None:
    """Return a descriptor of the home called `name` on the disk, a persona's or a snapshot's; None if there is none."""
    return None if staging.is_free(name) else files.open_directory(staging.place_of(name))
