"""The images that a power cut may leave, of a log of requests.

What a disk owes: everything that was answered before a flush is on it once that is answered. Of what came after the last flush it may
have any part, in any order, each sector of 512 bytes whole; a torn sector, new in front and old behind, is worse than disks promise.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

from attrs import frozen

from blockcuts.image import SECTOR, Image, over
from blockcuts.ops import Discard, Flush, Op, Write

Visit = Callable[["Cut", Image], None]


@frozen
class Cut:
    """A moment: the first `done` requests, and of later ones of the same epoch `more` (each with the bytes of it that came through)."""

    kind: str  # prefix, reorder, torn
    done: int
    more: tuple[tuple[int, tuple[tuple[int, int], ...]], ...] = ()  # request -> pieces (from, to) in bytes of its data

    def __str__(self) -> str:
        return f"{self.kind} after {self.done} requests" + (f" with {list(self.more)}" if self.more else "")


def epochs(ops: Sequence[Op]) -> list[tuple[int, int]]:
    """Return the requests between flushes, as ranges without the flushes; none of them is empty."""
    found, begin = [], 0
    for number, op in enumerate([*ops, Flush()]):
        if isinstance(op, Flush):
            if number > begin:
                found.append((begin, number))
            begin = number + 1
    return found


def prefixes(ops: Sequence[Op]) -> Iterator[Cut]:
    """Yield a cut before each request that changes something, and after the last."""
    yield from (Cut("prefix", number) for number, op in enumerate(ops) if not isinstance(op, Flush))
    yield Cut("prefix", len(ops))


def reorders(ops: Sequence[Op], rng: random.Random, count: int) -> Iterator[Cut]:
    """Yield so many cuts within epochs of two requests or more: any part of the epoch is there. What is settled by itself was there first."""
    wide = [(begin, end) for begin, end in epochs(ops) if end - begin > 1]
    for _ in range(count if wide else 0):
        begin, end = rng.choice(wide)
        last = rng.randint(begin + 1, end)  # requests behind it were never sent
        settled = {n for n in range(begin, last) if getattr(ops[n], "settled", False)}
        there = settled | {n for n in range(begin, last) if rng.random() < 0.5}
        yield Cut("reorder", begin, tuple((n, ((0, _length(ops[n])),)) for n in sorted(there)))


def torn(ops: Sequence[Op], rng: random.Random, count: int) -> Iterator[Cut]:
    """Yield so many cuts in the middle of a write: some of its sectors, or a part of one sector only."""
    writes = [number for number, op in enumerate(ops) if isinstance(op, Write)]
    for _ in range(count if writes else 0):
        number = rng.choice(writes)
        op = ops[number]
        length = _length(op)
        total = -(-length // SECTOR)
        if total > 1 and rng.random() < 0.6:
            edges = sorted(rng.sample(range(total + 1), 2 * rng.randint(1, min(8, (total + 1) // 2))))  # a few runs of sectors
            if edges == [0, total]:
                edges = [0, total - 1]  # all of it would not be torn
            pieces = tuple((a * SECTOR, min(b * SECTOR, length)) for a, b in zip(edges[::2], edges[1::2], strict=True))
        else:
            whole = rng.randrange(total) * SECTOR
            pieces = ((0, min(length, whole + rng.randint(1, SECTOR - 1))),)
        yield Cut("torn", number, ((number, pieces),))


def image_of(base: Image, ops: Sequence[Op], cut: Cut) -> Image:
    """Return the image of one cut. For many of one log, `each` is a hundred times as fast."""
    image = over(base)
    for op in ops[: cut.done]:
        apply(image, op)
    return _more(image, ops, cut)


def each(base: Image, ops: Sequence[Op], cuts: Sequence[Cut], visit: Visit) -> int:
    """Call `visit` with each cut and its image, which it may write to; return how many there were. Requests are applied once, in order."""
    image, done = over(base), 0
    for cut in sorted(cuts, key=lambda one: one.done):
        for op in ops[done : cut.done]:
            apply(image, op)
        done = cut.done
        visit(cut, _more(over(image), ops, cut))
    return len(cuts)


def apply(image: Image, op: Op, pieces: Sequence[tuple[int, int]] | None = None) -> None:
    """Do what a request says, or pieces of it."""
    if isinstance(op, Write):
        for begin, end in [(0, len(op.data))] if pieces is None else pieces:
            image.write(op.offset + begin, op.data[begin:end])
    elif isinstance(op, Discard):
        for begin, end in [(0, op.length)] if pieces is None else pieces:
            image.write(op.offset + begin, bytes(end - begin))


def _more(image: Image, ops: Sequence[Op], cut: Cut) -> Image:
    for number, pieces in cut.more:
        apply(image, ops[number], pieces)
    return image


def _length(op: Op) -> int:
    return len(op.data) if isinstance(op, Write) else op.length if isinstance(op, Discard) else 0
