"""What Linux shows of a write that failed, over what the platter holds.

A page whose writeback failed stays in memory, clean, as if it were written. The failure is told once, by the next sync of who has the file open,
or of who opens it if nobody has been told; after that no sync speaks of it (fsync(2); the kernel's errseq). Until memory is told to let go of the
page, readers see what the platter has not. A write into the page makes it dirty, and then all of it is written. A power cut leaves the platter.
"""

from __future__ import annotations

from attrs import define, field

PAGE = 4096
LOSES = ("all", "first", "last", "nothing")  # which of the dirty pages a sync that fails does not write; "nothing": only the flush behind them failed
Files = dict[str, bytes]


@define(eq=False)
class PageCache:
    """`ghosts`: of a file and a page, what memory shows of it and the platter has not."""

    platter: Files = field(factory=dict)
    ghosts: dict[tuple[str, int], bytes] = field(factory=dict)
    untold: bool = False  # a failure that no sync has reported yet

    def below(self, seen: Files) -> Files:
        """Return what the platter holds when everything dirty in the files `seen` has been written."""
        files = dict(seen)
        for name, number in self._ghosts_in(seen):
            files[name] = self._with_old(files[name], name, number)
        return files

    def written(self, seen: Files) -> None:
        """Everything dirty has been written."""
        self.platter, self.ghosts = self.below(seen), {key: self.ghosts[key] for key in self._ghosts_in(seen)}

    def write_one(self, seen: Files, name: str) -> None:
        """Everything dirty of one file has been written."""
        if name in seen:
            self.platter = {**self.platter, name: self.below(seen)[name]}

    def fail(self, seen: Files, name: str, loses: str) -> bool:
        """Try to write one file; tell whether pages of it were lost."""
        want, old = self.below(seen).get(name, b""), self.platter.get(name, b"")
        dirty = [n for n in range(-(-len(want) // PAGE)) if _page(want, n) != _page(old, n)]
        half = (len(dirty) + 1) // 2
        lost = {"all": dirty, "first": dirty[:half], "last": dirty[-half:], "nothing": []}[loses]
        for number in lost:
            want = self._with_old(want, name, number)
            self.ghosts[name, number] = _page(seen[name], number)
        if name in seen:
            self.platter = {**self.platter, name: want}
        return bool(lost)

    def let_go(self, seen: Files, name: str) -> bytes | None:
        """Drop the clean pages of a file: return what is read of it from now on, None if that is no different."""
        there = [(each, number) for each, number in self._ghosts_in(seen) if each == name]
        shown = self.below(seen)[name] if there else None
        self.ghosts = {key: page for key, page in self.ghosts.items() if key[0] != name}
        return shown

    def lost(self, seen: Files, name: str) -> list[int]:
        """Return the pages of a file that memory shows and the platter has not."""
        return [number for each, number in self._ghosts_in(seen) if each == name]

    def write_anew(self, name: str) -> None:
        """All pages of a file that were lost are written into once more: they are dirty again."""
        self.ghosts = {key: page for key, page in self.ghosts.items() if key[0] != name}

    def power_cut(self, files: Files) -> None:
        """Memory is empty, and these are on the platter."""
        self.platter, self.ghosts, self.untold = files, {}, False

    def _ghosts_in(self, seen: Files) -> list[tuple[str, int]]:
        """Return the ghosts that nobody has written over."""
        return [(name, n) for (name, n), page in self.ghosts.items() if _page(seen.get(name, b""), n) == page]

    def _with_old(self, data: bytes, name: str, number: int) -> bytes:
        begin, size = number * PAGE, len(_page(data, number))
        return data[:begin] + _page(self.platter.get(name, b""), number)[:size].ljust(size, b"\0") + data[begin + size :]


def _page(data: bytes, number: int) -> bytes:
    return data[number * PAGE : (number + 1) * PAGE]
