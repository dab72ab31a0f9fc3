"""How a disk is opened: find, mount, migrate, read. Each question to the worker has its own bound; the first that fails ends it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from attrs import define, field

from bay0.pid1 import flow
from bay0.state.link import Answer, WorkerLink

if TYPE_CHECKING:
    from bay0.base.bounds import Bounds

Stage = Callable[[], flow.Flow[Answer | None]]  # returns the answer that failed, None if all is well


class Clock(Protocol):
    """What the disk keeps of the time (continuity.py)."""

    def found(self, found: Mapping[str, Any]) -> None:
        """Hear what the disk says (time.py), as soon as it is mounted."""

    def good(self) -> int | None:
        """Return the seconds to be kept; None: the clock makes no sense."""


@define(eq=False)
class Opening:
    """`device`: what was mounted. `stored`: the machines as the database had them when it was first read, without those of this boot."""

    link: WorkerLink
    bounds: Bounds
    log: Any
    boot: dict[str, Any]
    clock: Clock
    wanted_device: str | None = None
    device: str | None = field(init=False, default=None)
    stored: list[dict[str, Any]] | None = field(init=False, default=None)

    def stages(self) -> tuple[Stage, ...]:
        """Return the stages in order; after the last the database is current: opened, migrated and read."""
        return (self._hello, self._mount, self._prefer, self._read_time, self._open_database, self._read)

    def _hello(self) -> flow.Flow[Answer | None]:
        answer: Answer = yield self.link.waiting("hello", self.bounds.worker_start)
        return None if answer.ok else answer

    def _mount(self) -> flow.Flow[Answer | None]:
        found: Answer = yield self.link.waiting("find", self.bounds.find, wanted=self.wanted_device)
        self.log.info("persist mount attempt", devices=found.value if found.ok else found.why)
        if not found.ok:
            return found
        mounted: Answer = yield self.link.waiting("mount", self.bounds.mount, devices=found.value)
        if not mounted.ok:
            return mounted
        self.device = mounted.value
        self.log.info("persist mounted", device=self.device)
        return None

    def _prefer(self) -> flow.Flow[Answer | None]:
        preferred: Answer = yield self.link.waiting("prefer", self.bounds.find, device_=self.device)
        if not preferred.ok:
            return preferred
        self.log.info("state i/o priority", **preferred.value)
        return None

    def _read_time(self) -> flow.Flow[Answer | None]:
        """Read the last good time: before the database, so that this boot's own row has a time that makes sense."""
        found: Answer = yield self.link.waiting("time_load", self.bounds.read)
        if found.ok:
            self.clock.found(found.value)
        return None if found.ok else found

    def _open_database(self) -> flow.Flow[Answer | None]:
        opened: Answer = yield self.link.waiting("open", self.bounds.open)
        migrated: Answer = opened
        if opened.ok:
            migrated = yield self.link.waiting("migrate", self.bounds.migrate, boot=self.boot)
        if not migrated.ok:
            self.log.error("state db open/migrate failed", why=migrated.why)
            return migrated
        self.log.info("state db open/migrate", found=opened.value["version"], **migrated.value)
        if not opened.value.get("checked", True):
            self.log.warning("state db is too large to be checked as it is opened", why="`bay0 --validate` checks it")
        return None

    def _read(self) -> flow.Flow[Answer | None]:
        """Read the stored machines, a page at a time; each page is a read that the boot waits for, with its own bound."""
        rows: list[dict[str, Any]] = []
        while self.stored is None:
            page: Answer = yield self.link.waiting("machines", self.bounds.read, after=rows[-1]["name"] if rows else "")
            if not page.ok:
                return page
            found, more = page.value
            rows += found
            if not more:
                self.stored = [row for row in rows if row["boot_id"] != self.boot["boot_id"]]
        return None
