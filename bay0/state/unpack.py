"""Make a home of an archive, in a staging directory: a process of its own, `bay0 --unpack-home`, under the rules of the copier.

An archive is anybody's. Its members come in the order of a tree (export.py), and a member is made by the descriptor of the directory that
is open for it, under a name that is no path, as something new (O_EXCL): so nothing is followed, nothing is written over, and nothing is
made elsewhere. It says in front how many entries and bytes there are, which must have room, and no more are taken. What it is of counts
only when its last member, the checksum, is right: before that nobody sees the home.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from typing import Any, BinaryIO

from attrs import asdict, define, field, frozen

from bay0.base.errors import RefusedError
from bay0.base.syscalls import syncfs
from bay0.state import copier, export, files, staging, tree
from bay0.state.paths import STAGING
from bay0.state.tarstream import CHARACTER, FIFO, FILE, FOLDER, HARD, LINK, Member, Reader

ABOUT_MAX = 64 << 10  # bytes
SYNC_EVERY = 16 << 20  # bytes of one file, so that no sync on the disk has to wait long behind ours
NAME_MAX = 255
Raw = bytes  # in a class with a field of that name
NUMBERS = ("format", "entries", "bytes", "room")  # what persona.json counts


@frozen
class Job:
    """`archive`: a file. `name`: what the home is called on the disk. `progress`: the path of a file that tells how far it is."""

    archive: str
    name: str
    progress: str


def about(reader: Reader) -> dict[str, Any]:
    """Read what an archive is of, its first member. `RefusedError` if it is none."""
    member = reader.next()
    if member is None or member.name != export.ABOUT or member.kind != FILE or not 0 < member.size <= ABOUT_MAX or member.pieces is not None:
        raise reader.wrong("it does not begin with persona.json")
    try:
        told = json.loads(b"".join(reader.contents()))
    except ValueError:
        told = None
    if not isinstance(told, dict) or not all(isinstance(told.get(key), int) and 0 <= told[key] < 1 << 62 for key in NUMBERS):
        raise reader.wrong("its persona.json says nothing")
    if told["format"] != export.FORMAT:
        raise RefusedError(f"the archive has format {told['format']}, and this program knows {export.FORMAT}: a newer one wrote it")
    return told


@define(eq=False, repr=False)
class _Folder:
    """A directory that is being filled. `path`: its name in the archive."""

    path: bytes
    fd: int
    member: Member


@define(eq=False, repr=False)
class Unpack:
    """One home. `top`: a descriptor of its directory, which is empty. `wanted`: how much the archive says there is."""

    reader: Reader
    top: int
    wanted: tree.Size
    meter: copier.Meter
    entries: int = field(init=False, default=0)
    bytes: int = field(init=False, default=0)
    _open: list[_Folder] = field(init=False, factory=list)

    def all(self) -> bool:
        """Make all of it; tell whether there was a home. `RefusedError`, `OSError`: none of it counts."""
        member = self.reader.next()
        if member is None:
            return False
        if member.kind != FOLDER or member.name != export.HOME:
            raise self.reader.wrong("its home is no directory")
        self._open.append(_Folder(member.name, os.dup(self.top), member))
        try:
            while (member := self.reader.next()) is not None:
                self._count(member)
                try:
                    self._make(member)
                except OSError as error:
                    raise OSError(error.errno, f"{_shown(member.name)}: {error.strerror}") from error
            while self._open:
                self._leave()
        finally:
            for each in self._open:
                os.close(each.fd)
        return True

    def _count(self, member: Member) -> None:
        self.entries += 1
        if self.entries > self.wanted.entries:
            raise self.reader.wrong(f"it has more than the {self.wanted.entries} entries that it says")
        self.meter.look(self)
        bad = [name for name in member.attributes if not export.is_kept(name)]
        if bad:
            raise self.reader.wrong(f"the attribute {bad[0][:40]!a} of {_shown(member.name)}")

    def _make(self, member: Member) -> None:
        folder, _, last = member.name.rpartition(b"/")
        while len(self._open) > 1 and self._open[-1].path != folder:
            self._leave()
        if self._open[-1].path != folder:
            raise self.reader.wrong(f"{_shown(member.name)} does not come in the order of a tree")
        self._need_name(last)
        into, name = self._open[-1].fd, os.fsdecode(last)
        if member.kind == FOLDER:
            if len(self._open) > tree.DEPTH_MAX:
                raise RefusedError(f"directories lie more than {tree.DEPTH_MAX} deep in the archive")
            os.mkdir(name, 0o700, dir_fd=into)
            self._open.append(_Folder(member.name, os.open(name, tree.DIRECTORY, dir_fd=into), member))
        elif member.kind == HARD:
            self._link(member.link, into, name)
        elif member.kind == FILE:
            self._file(member, into, name)
        else:
            self._special(member, into, name)

    def _need_name(self, name: Raw) -> None:
        if name in (b"", b".", b"..") or b"\0" in name or b"/" in name or len(name) > NAME_MAX:
            raise self.reader.wrong(f"{name[:40]!r} is no name of a file")

    def _link(self, target: Raw, into: int, name: str) -> None:
        """Give a file that was made a further name. It is found from the top on, by names alone; no link is followed on the way."""
        head, *folders, last = target.split(b"/") if b"/" in target else (b"", target)
        if head != export.HOME:
            raise self.reader.wrong(f"a name of {_shown(target)}, which is elsewhere")
        with contextlib.ExitStack() as opened:
            at = self.top
            for each in folders:
                self._need_name(each)
                at = os.open(os.fsdecode(each), tree.DIRECTORY, dir_fd=at)
                opened.callback(os.close, at)
            self._need_name(last)
            os.link(os.fsdecode(last), name, src_dir_fd=at, dst_dir_fd=into, follow_symlinks=False)

    def _file(self, member: Member, into: int, name: str) -> None:
        fd = os.open(name, tree.WRITE, 0o600, dir_fd=into)
        try:
            if member.pieces is None:
                self._data(fd, 0, member.size)
            else:
                for offset, length in member.pieces:
                    self._data(fd, offset, length)
                os.ftruncate(fd, member.size)
            _like(fd, member)
        finally:
            os.close(fd)

    def _data(self, fd: int, at: int, length: int) -> None:
        synced, end = at, at + length
        while at < end:
            data = next(self.reader.contents(min(1 << 20, end - at)), b"")
            self.bytes += len(data)
            if not data or self.bytes > self.wanted.bytes:
                raise self.reader.wrong(f"it has other contents than the {self.wanted.bytes} bytes that it says")
            view = memoryview(data)
            while view:
                done = os.pwrite(fd, view, at)
                view, at = view[done:], at + done
            if at - synced >= SYNC_EVERY:
                os.fdatasync(fd)
                synced = at
            self.meter.look(self)

    def _special(self, member: Member, into: int, name: str) -> None:
        if member.kind == LINK:
            os.symlink(os.fsdecode(member.link), name, dir_fd=into)
        else:  # a FIFO, or the whiteout of an overlay (device 0:0): the header's own device is not even read
            os.mknod(name, {FIFO: stat.S_IFIFO, CHARACTER: stat.S_IFCHR}[member.kind] | 0o600, 0, dir_fd=into)
        os.chown(name, member.uid, member.gid, dir_fd=into, follow_symlinks=False)
        if member.kind != LINK:
            os.chmod(name, member.mode, dir_fd=into)
        for attribute, value in member.attributes.items():
            os.setxattr(f"/proc/self/fd/{into}/{name}", attribute, value, follow_symlinks=False)
        os.utime(name, ns=(member.atime, member.mtime), dir_fd=into, follow_symlinks=False)

    def _leave(self) -> None:
        folder = self._open.pop()
        try:
            _like(folder.fd, folder.member)
        finally:
            os.close(folder.fd)


def _like(fd: int, member: Member) -> None:
    """Give what is open the owner, mode, attributes and times of its member, in the order that tree.py has."""
    os.fchown(fd, member.uid, member.gid)
    os.fchmod(fd, member.mode)
    for name, value in member.attributes.items():
        os.setxattr(fd, name, value)
    os.utime(fd, ns=(member.atime, member.mtime))


def _shown(name: bytes) -> str:
    return ascii(os.fsdecode(name[:80]))


def open_archive(path: str) -> BinaryIO:
    """Open a file, and nothing that one would wait for. `RefusedError`; `OSError`."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise RefusedError(f"{path} is no file")
    return os.fdopen(fd, "rb", 1 << 18)


def unpack(job: Job) -> dict[str, int | bool]:
    """Make the home where the worker has made room; return how much there is, and whether there was one. `RefusedError`, `OSError`."""
    path = f"{STAGING}/{job.name}"
    with open_archive(job.archive) as archive, contextlib.ExitStack() as opened:
        place = files.open_directory(f"{path}/{staging.HOME}")
        opened.callback(os.close, place)
        reader = Reader(archive.read)
        told = about(reader)
        wanted = tree.Size(told["entries"], told["bytes"])
        copier.need_room(place, tree.Size(told["entries"], max(told["room"], told["bytes"])))
        made = Unpack(reader, place, wanted, copier.Meter(job.progress, place, wanted))
        home = made.all()
        syncfs(place)
    if not home:
        os.rmdir(f"{path}/{staging.HOME}")
    return {**asdict(tree.Size(made.entries, made.bytes)), "home": home}


def main(words: list[str]) -> int:
    """Do the job in `words` and say what was made; exit status 1 and a reason if it could not be done."""
    job = Job(**json.loads(words[0]))
    return copier.answer(job.progress, lambda: unpack(job))
