"""A filesystem under the code that keeps time and seed: every call is a place where the power may go, and may fail.

What a cut leaves is modelled pessimistically, as POSIX allows and ext4 mostly does not: of a file that was not synced, nothing, a half, zeroes or all
of what was written; of a directory that was not synced, any beginning of what was done to it. `Platter` stands in for the module `os`.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator

from attrs import define, field, frozen

DATA = ("old", "half", "zeroes", "all")  # what a cut leaves of a file that was not synced


FOLDER, FILES = "/disk", ("time", "seed")


def _looked(kind: int) -> os.stat_result:
    return os.stat_result((kind | 0o600, 1, 1, 1, 0, 0, 0, 0, 0, 0))


class PowerCut(BaseException):
    """The machine stops here."""


@define(eq=False)
class File:
    """Contents as they are read, and as they are on the platter."""

    now: bytes = b""
    synced: bytes = b""

    def left(self, how: str) -> bytes:
        if self.now == self.synced or how == "old":
            return self.synced
        kept = {"half": self.now[: len(self.now) // 2], "zeroes": bytes(len(self.now)), "all": self.now}
        return kept[how]


@frozen
class Cut:
    """One way in which the power goes: before call number `at`, keeping so much."""

    at: int
    data: str
    names: int  # of the directory's last, unsynced changes


@define(eq=False)
class Platter:
    """One directory. `cut_at`: the call before which the power goes; `fail_at`: the call that fails with `fail_with`."""

    now: dict[str, File] = field(factory=dict)
    synced: dict[str, File] = field(factory=dict)
    undone: list[Callable[[dict[str, File]], None]] = field(factory=list)  # changes of the directory that are not synced
    calls: int = 0
    cut_at: int | None = None
    fail_at: int | None = None
    fail_with: int = errno.EIO
    readonly: bool = False
    open_files: dict[int, File | None] = field(factory=dict)  # None: the directory
    last: str = ""

    # what the code under test takes from `os`
    O_RDONLY, O_WRONLY, O_RDWR, O_CREAT, O_TRUNC = os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_TRUNC
    O_CLOEXEC, O_NOFOLLOW, O_NONBLOCK, O_DIRECTORY = os.O_CLOEXEC, os.O_NOFOLLOW, os.O_NONBLOCK, os.O_DIRECTORY
    path, strerror = os.path, staticmethod(os.strerror)

    def _call(self, name: str, *, writes: bool = True) -> None:
        self.calls += 1
        self.last = name
        if self.calls == self.cut_at:
            raise PowerCut(name)
        if self.calls == self.fail_at:
            raise OSError(self.fail_with, os.strerror(self.fail_with))
        if self.readonly and writes:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    def open(self, path: str, flags: int, _mode: int = 0) -> int:
        self._call("open", writes=bool(flags & os.O_WRONLY))
        fd = 1000 + self.calls
        if flags & os.O_DIRECTORY:
            self.open_files[fd] = None
            return fd
        if path not in self.now:
            if not flags & os.O_CREAT:
                raise FileNotFoundError(errno.ENOENT, "no such file", path)
            made = File()
            self._change(lambda names: names.__setitem__(path, made))
        self.open_files[fd] = self.now[path]
        return fd

    def ftruncate(self, fd: int, size: int) -> None:
        self._call("ftruncate")
        file = self.open_files[fd]
        assert file is not None
        file.now = file.now[:size]

    def lstat(self, path: str) -> os.stat_result:
        """Say what is there; to look changes nothing, and is no seam."""
        if path not in self.now and os.path.splitext(path)[0] in (f"{FOLDER}/{name}" for name in FILES):
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        return _looked(stat.S_IFREG if path in self.now else stat.S_IFDIR)

    def fstat(self, fd: int) -> os.stat_result:
        return _looked(stat.S_IFREG if self.open_files[fd] is not None else stat.S_IFDIR)

    def _change(self, change: Callable[[dict[str, File]], None]) -> None:
        change(self.now)
        self.undone.append(change)

    def read(self, fd: int, size: int) -> bytes:
        self._call("read", writes=False)
        return self.open_files[fd].now[:size]

    def write(self, fd: int, data: bytes) -> int:
        self._call("write")
        self.open_files[fd].now += data
        return len(data)

    def fsync(self, fd: int) -> None:
        self._call("fsync" if self.open_files[fd] is not None else "fsync of the directory")
        file = self.open_files[fd]
        if file is None:
            self.synced = dict(self.now)
            self.undone.clear()
        else:
            file.synced = file.now

    def replace(self, old: str, new: str) -> None:
        self._call("rename")
        self._change(lambda names: names.__setitem__(new, names.pop(old)) if old in names else None)

    def close(self, fd: int) -> None:
        self._call("close", writes=False)
        del self.open_files[fd]

    # ---- the power

    def after(self, cut: Cut) -> Platter:
        """Return what the next boot finds."""
        names = dict(self.synced)
        for change in self.undone[: cut.names]:
            change(names)
        left = {name: file.left(cut.data) for name, file in names.items()}
        found = {name: File(data, data) for name, data in left.items()}
        return Platter(now=dict(found), synced=dict(found))

    def ways(self) -> Iterator[tuple[str, int]]:
        """Every different thing that a cut now may leave: of data, of names."""
        seen = set()
        for names in range(len(self.undone) + 1):
            for data in DATA:
                left = self.after(Cut(0, data, names))
                key = tuple(sorted((name, file.now) for name, file in left.now.items()))
                if key not in seen:
                    seen.add(key)
                    yield data, names
