"""What one boot hands to the next besides the machines: the time and a seed. PID 1's half; the files are the state worker's.

The clock's floor is max(build time of the image, last good time), and the clock is only ever moved forward to it: at once to the build time,
to the saved one as soon as the disk is mounted. A saved time that makes no sense is said and ignored; a clock that makes no sense is
not saved, nor is any over one that could not be read. Because a disk is durable only after its time was read, no save puts a time before the
one it replaces, unless somebody has set the clock back by hand.

A file that cannot be written is said and is no trouble of the disk's: the probe, a moment later, judges that.

The seed is used (marked, synced, mixed in) as soon as storage is durable, and renewed once init is complete, so that the boot does not
wait for its syncs. Time and seed are kept once more at the end, in the state port's close.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from attrs import define

from bay0.effects import clock

if TYPE_CHECKING:
    from bay0.bounds import Bounds
    from bay0.reactor import Reactor
    from bay0.state.link import Answer
    from bay0.state.port import StatePort

SAVE_EVERY_S = 60.0
BIRTH = 1735689600  # 2025-01-01: no spine was built before; the floor of an image without a manifest
SENSE_S = 20 * 366 * 86400  # 20 years: no image runs that long after its build
PAST_SENSE = "more than 20 years after this image was built"


@define(eq=False, repr=False)
class Continuity:
    """One a boot. `build`: when the image was built, None if nobody knows. The three clock calls are the tests' to replace."""

    reactor: Reactor
    bounds: Bounds
    log: Any
    state: StatePort
    build: int | None = None
    trust: bool = False
    now: Callable[[], int] = clock.now
    forward: Callable[[int], int] = clock.forward
    saved: int | None = None  # what the disk holds
    moved_s: int = 0
    seed: dict[str, Any] | None = None
    _known: bool = True  # what the disk holds could be read
    _complete: bool = False
    _used: bool = False
    _renewed: bool = False
    _unsaved: str = ""

    @property
    def latest(self) -> int:
        """The last time that makes sense."""
        return max(self.build or 0, BIRTH) + SENSE_S

    def begin(self) -> None:
        """Put the clock to the build time if it is behind, and wire the state port. Before anything takes a time."""
        self.state.found_time, self.state.good_time = self._found_time, self.good_time
        self._move(self.build or 0, "the image was built then")
        if self.now() > self.latest:
            self.log.warning("the clock makes no sense and is not saved", seconds=self.now(), why=PAST_SENSE)

    def _move(self, floor: int, why: str) -> None:
        moved = self.forward(floor)
        if moved:
            self.moved_s += moved
            self.state.boot["started_wall"] = self.now()  # not sent yet in the boot's first attempt; later ones find their row
            self.log.info("clock moved forward", by_s=moved, to=floor, why=why)

    def _found_time(self, found: Mapping[str, Any]) -> None:
        seconds, why, self._known = found["seconds"], found["why"], found["read"]
        if seconds is not None and seconds > self.latest:
            seconds, why = None, f"{seconds} is {PAST_SENSE}"
        if seconds is not None:
            self.saved = seconds
            self._move(max(seconds, self.build or 0), "it was seen running then")
        elif why:
            self.log.warning("saved time ignored", why=why)

    def good_time(self) -> int | None:
        """Return the time as it may be kept, None if the clock makes no sense or may be behind what is kept already."""
        now = self.now()
        return now if self._known and (self.build or 0) <= now <= self.latest else None

    def durable(self) -> None:
        """Storage keeps what it is told: the seed may be used."""
        if not self._used:
            self._used = True
            self.state.ask("seed_use", self.bounds.commit, self._seed_used, trust=self.trust)

    def completed(self) -> None:
        """Init is complete: what takes a sync or two may be done now."""
        self._complete = True
        self.reactor.call_later(SAVE_EVERY_S, self._save_again)
        self._renew()

    def _seed_used(self, answer: Answer) -> None:
        if answer.ok:
            self.seed = answer.value
            known = self.seed["mixed"] or self.seed["found"] == "none"  # a first boot has none
            (self.log.info if known else self.log.warning)("entropy seed", **self.seed)
            self._renew()

    def _renew(self) -> None:
        if self._complete and self.seed is not None and not self._renewed:
            self._renewed = True
            self.state.ask("seed_renew", self.bounds.commit, self._seed_renewed)
            self.save()

    def _seed_renewed(self, answer: Answer) -> None:
        if answer.ok:
            self.log.info("entropy seed renewed", **answer.value)
        elif not self.state.in_the_way(answer):
            self.log.warning("entropy seed not renewed", why=answer.why)

    def woke(self) -> None:
        """Look at the clock after a sleep: the kernel has set it by the hardware's, which may be behind what was saved."""
        self._move(max(self.saved or 0, self.build or 0), "it was seen running then")
        self.save()

    def save(self) -> None:
        """Keep the time, if the disk keeps anything and the time makes sense."""
        seconds = self.good_time()
        if not self.state.healthy or seconds is None:
            return

        def saved(answer: Answer) -> None:
            if answer.ok:
                self.saved = seconds
            elif not self.state.in_the_way(answer) and answer.why != self._unsaved:  # not each minute
                self.log.warning("time not saved", why=answer.why)
            self._unsaved = answer.why

        self.state.ask("time_save", self.bounds.commit, saved, seconds=seconds)

    def _save_again(self) -> None:
        self.save()
        self.reactor.call_later(SAVE_EVERY_S, self._save_again)

    def describe(self) -> dict[str, Any]:
        """Return what `bay0 status` shows of it."""
        now = self.now()
        return {
            "now": now, "build": self.build, "saved": self.saved, "moved_s": self.moved_s,
            "sane": self.good_time() is not None and now >= (self.saved or 0), "seed": self.seed,
        }  # fmt: skip
