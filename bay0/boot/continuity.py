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

from attrs import define, field

from bay0.effects import clock
from bay0.machines import boot, storage

if TYPE_CHECKING:
    from bay0.base.bounds import Bounds
    from bay0.machines.engine import Engine
    from bay0.machines.instance import Instance, Step
    from bay0.pid1.reactor import Reactor
    from bay0.state.link import Answer
    from bay0.state.port import StatePort

SAVE_EVERY_S = 60.0
BIRTH = 1735689600  # 2025-01-01: no spine was built before; the floor of an image without a manifest
SENSE_S = 20 * 366 * 86400  # 20 years: no image runs that long after its build
SEEN = "it was seen running then"
PAST_SENSE = "more than 20 years after this image was built"


@define(eq=False, repr=False)
class SavedClock:
    """The clock, its floor and what the disk holds of it: the state port's `Clock`.

    `build`: when the image was built, None if nobody knows. `row`: this boot's, which says when it began.
    """

    log: Any
    row: dict[str, Any]
    build: int | None = None
    now: Callable[[], int] = clock.now
    forward: Callable[[int], int] = clock.forward
    saved: int | None = field(init=False, default=None)  # what the disk holds
    moved_s: int = field(init=False, default=0)
    _known: bool = field(init=False, default=True)  # what the disk holds could be read

    def __attrs_post_init__(self) -> None:
        """Put the clock to the build time if it is behind. Make this part before anything takes a time."""
        self.move(self.build or 0, "the image was built then")
        if self.now() > self.latest:
            self.log.warning("the clock makes no sense and is not saved", seconds=self.now(), why=PAST_SENSE)

    @property
    def latest(self) -> int:
        """The last time that makes sense."""
        return max(self.build or 0, BIRTH) + SENSE_S

    def move(self, floor: int, why: str) -> None:
        """Move the clock forward to `floor` if it is behind."""
        moved = self.forward(floor)
        if moved:
            self.moved_s += moved
            self.row["started_wall"] = self.now()  # not sent yet in the boot's first attempt; later ones find their row
            self.log.info("clock moved forward", by_s=moved, to=floor, why=why)

    def found(self, found: Mapping[str, Any]) -> None:
        """Hear what the disk says of the time (time.py)."""
        seconds, why, self._known = found["seconds"], found["why"], found["read"]
        if seconds is not None and seconds > self.latest:
            seconds, why = None, f"{seconds} is {PAST_SENSE}"
        if seconds is not None:
            self.saved = seconds
            self.move(max(seconds, self.build or 0), SEEN)
        elif why:
            self.log.warning("saved time ignored", why=why)

    def good(self) -> int | None:
        """Return the time as it may be kept, None if the clock makes no sense or may be behind what is kept already."""
        now = self.now()
        return now if self._known and (self.build or 0) <= now <= self.latest else None

    def woke(self) -> None:
        """Look at the clock after a sleep: the kernel has set it by the hardware's, which may be behind what was saved."""
        self.move(max(self.saved or 0, self.build or 0), SEEN)


@define(eq=False, repr=False)
class Continuity:
    """One a boot. `boot`: this boot's machine. `trust`: whether a saved seed counts as entropy."""

    engine: Engine
    reactor: Reactor
    bounds: Bounds
    log: Any
    state: StatePort
    boot: Instance
    clock: SavedClock
    trust: bool = False
    seed: dict[str, Any] | None = field(init=False, default=None)
    _complete: bool = field(init=False, default=False)
    _used: bool = field(init=False, default=False)
    _renewed: bool = field(init=False, default=False)
    _unsaved: str = field(init=False, default="")

    def __attrs_post_init__(self) -> None:
        self.engine.on("storage", storage.S.DURABLE, call=self._durable, of=self.state.storage)
        self.engine.on("boot", boot.S.COMPLETE, call=self._completed, of=self.boot)

    def _durable(self, _storage: Instance, _step: Step) -> None:
        """Storage keeps what it is told: the seed may be used."""
        if not self._used:
            self._used = True
            self.state.ask("seed_use", self.bounds.commit, self._seed_used, trust=self.trust)

    def _completed(self, _boot: Instance, _step: Step) -> None:
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
        """Look at the clock after a sleep, and keep the time."""
        self.clock.woke()
        self.save()

    def save(self) -> None:
        """Keep the time, if the disk keeps anything and the time makes sense."""
        seconds = self.clock.good()
        if not self.state.healthy or seconds is None:
            return

        def saved(answer: Answer) -> None:
            if answer.ok:
                self.clock.saved = seconds
            elif not self.state.in_the_way(answer) and answer.why != self._unsaved:  # not each minute
                self.log.warning("time not saved", why=answer.why)
            self._unsaved = answer.why

        self.state.ask("time_save", self.bounds.commit, saved, seconds=seconds)

    def _save_again(self) -> None:
        self.save()
        self.reactor.call_later(SAVE_EVERY_S, self._save_again)

    def describe(self) -> dict[str, Any]:
        """Return what `bay0 status` shows of it."""
        clock, now = self.clock, self.clock.now()
        return {
            "now": now, "build": clock.build, "saved": clock.saved, "moved_s": clock.moved_s,
            "sane": clock.good() is not None and now >= (clock.saved or 0), "seed": self.seed,
        }  # fmt: skip
