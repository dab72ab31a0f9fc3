"""The typed calls of the NACK registry, PID 1's end: for `bay0 nack`, and for whatever installs images. What it is: nack.py.

Both fail closed: who cannot be told that a digest is clear is told that nobody knows. PID 1 remembers nothing of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bay0.base.digests import parse
from bay0.base.errors import RefusedError
from bay0.pid1 import flow
from bay0.state.link import OPEN_ENDED, Answer

if TYPE_CHECKING:
    from bay0.state.port import StatePort

Rows = list[dict[str, Any]]
WHY_MAX = 300  # characters


def read_nack_registry(port: StatePort, done: Callable[[Rows | RefusedError], None], digest: str | None = None) -> None:
    """Call `done` with all NACKs, or with that of `digest` (an empty list: it is clear), or with why nobody knows now.

    `RefusedError` at once while too many ask.
    """
    if digest is not None:
        parse(digest)
    port.keep_out_a_crowd()
    flow.run(_all(port) if digest is None else _one(port, digest), done)


def list_nack_registry(port: StatePort, done: Callable[[tuple[int, Rows] | RefusedError], None], most: int) -> None:
    """Call `done` with how many NACKs there are and the newest `most` of them, or with why nobody knows now. Holds no more than that.

    `RefusedError` at once while too many ask.
    """
    port.keep_out_a_crowd()
    flow.run(_newest(port, most), done)


def write_nack_registry(
    port: StatePort, done: Callable[[bool | RefusedError], None], digest: str, *, why: str = "", nacked: bool = True
) -> None:
    """NACK `digest`, or lift its NACK; `done` gets True once it is on the platter, False if nothing was to be changed, or the refusal.

    `RefusedError` at once while nothing can be kept. A refusal for lack of an answer leaves it open: asking again is harmless.
    """
    parse(digest)
    if len(why) > WHY_MAX or not why.isprintable():
        raise RefusedError(f"the reason must be one line of at most {WHY_MAX} characters")
    port.need_durable()
    port.keep_out_a_crowd()

    def answered(answer: Answer) -> None:
        if answer.ok:
            verb = "added" if nacked else "removed"
            port.log.warning("nack registry", change=verb, digest=digest, why=why or "not said", new=answer.value)
            if answer.value:
                port.append_genesis([f"{port.boot['boot_id']} NACK {verb}: {digest} {why}".rstrip()])
            done(bool(answer.value))
        elif answer.code in OPEN_ENDED:
            done(RefusedError("storage did not say whether it kept this; say it again when `bay0 storage` is durable, that does no harm"))
        else:
            done(RefusedError(f"the disk did not take it ({answer.why}); nothing was changed"))

    if nacked:
        port.tell("nack_put", port.bounds.commit, answered, digest=digest, why=why, at=int(time.time()), boot_id=port.boot["boot_id"])
    else:
        port.tell("nack_drop", port.bounds.commit, answered, digest=digest)


def _refusal(answer: Answer) -> RefusedError:
    return RefusedError(f"the NACK registry cannot be read now: {answer.why}; treat every digest as NACKed")


def _one(port: StatePort, digest: str) -> flow.Flow[Rows | RefusedError]:
    found: Answer = yield lambda resume: port.ask("nack_find", port.bounds.commit, resume, digest=digest)
    if not found.ok:
        return _refusal(found)
    return [] if found.value is None else [found.value]


def _all(port: StatePort, most: int | None = None) -> flow.Flow[Rows | RefusedError]:
    found = yield from _newest(port, most)
    return found if isinstance(found, RefusedError) else found[1]


def _newest(port: StatePort, most: int | None) -> flow.Flow[tuple[int, Rows] | RefusedError]:
    """Read all, a page at a time; return how many there are, and the newest `most` of them."""
    rows: Rows = []
    total, after = 0, ""
    while True:
        page: Answer = yield lambda resume, after=after: port.ask("nack_page", port.bounds.commit, resume, after=after)  # type: ignore[misc]
        if not page.ok:
            return _refusal(page)
        if not page.value:
            return total, rows
        total, after = total + len(page.value), page.value[-1]["digest"]
        rows += page.value
        if most is not None:
            rows = sorted(rows, key=lambda row: (row["at"], row["digest"]), reverse=True)[:most]
