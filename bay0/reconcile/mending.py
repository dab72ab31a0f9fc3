"""podman's storage is damaged: what helps, one rung after the other. The same at boot and while it runs.

 1. podman checks it and repairs what it finds: images that go are loaded anew, those of the spine by themselves. While personas run it
    may not end any for that.
 2. What is beyond repair is set aside and made anew; homes are elsewhere. Not while personas run, whom podman would not know any more:
    they go on, and the last one's end is waited for. The AI is no reason to wait: it is started again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import define, field

from bay0.pid1 import flow
from bay0.podman.calls import Outcome

if TYPE_CHECKING:
    from bay0.base.bounds import Bounds
    from bay0.pid1.reactor import Reactor, Timer
    from bay0.podman.calls import Podman, Verdict
    from bay0.state.port import StatePort

AGAIN_S = 10.0  # between two tries, when podman goes on saying so


@define(eq=False, repr=False)
class Mending:
    """`lives` tells whether a persona runs; `done` is told when the storage is well again."""

    reactor: Reactor
    bounds: Bounds
    log: Any
    podman: Podman
    state: StatePort
    lives: Callable[[], bool]
    done: Callable[[], None]
    images: frozenset[str] = frozenset()  # podman's, as they were seen last
    _busy: bool = False
    _told: list[Callable[[frozenset[str]], None]] = field(init=False, factory=list)
    _not_before: float = field(default=0.0)
    _again: Timer | None = field(init=False, default=None)
    _waits: bool = field(init=False, default=False)  # it is beyond repair, and personas run

    def __attrs_post_init__(self) -> None:
        self.podman.on_damage(self.noticed)

    def on_images(self, call: Callable[[frozenset[str]], None]) -> None:
        """Call `call` with the names of images that podman has got since the boot looked."""
        self._told.append(call)

    def came(self, images: Iterable[str]) -> None:
        """Hear of images that podman has since it was asked last."""
        new = frozenset(images)
        self.images |= new
        for call in self._told:
            call(new)

    def went(self, image: str) -> None:
        """Hear of one that was removed."""
        self.images -= {image}

    def noticed(self, why: str) -> None:
        """Hear that a call failed for that while the spine runs; what mends it is begun once at a time."""
        early = self._not_before - self.reactor.clock()
        if self._busy or self._again is not None or not self.state.healthy:
            return
        if early > 0:  # it may be the last call for a long time that says so
            self._look_again(why, early)
            return
        self.log.warning("podman says that its storage is damaged", why=why)
        flow.run(self._mend(), self._over)

    def _look_again(self, why: str, after_s: float = AGAIN_S) -> None:
        self._again = self.reactor.call_later(after_s, partial(self._when_alone, why))

    def _when_alone(self, why: str) -> None:
        """Mend what is left, once nobody runs for whom it has to wait."""
        self._again = None
        if self._waits and self.lives():
            self._look_again(why)
        else:
            self.noticed(why)

    def first_look(self) -> flow.Flow[Verdict]:
        """List the containers for the first time in a boot, and mend what that says: the listing that counts."""
        return self._mend(first=True)

    def _mend(self, *, first: bool = False) -> flow.Flow[Verdict]:
        self._busy = True  # before the first call, whose failure is noticed as well: two that mend get in each other's way
        try:
            return (yield from self._climb((yield from self.listed(first=first))))
        finally:
            self._busy = False

    def _over(self, listed: Verdict) -> None:
        self._not_before = self.reactor.clock() + AGAIN_S
        if listed.ok:
            self.log.info("podman's storage is well")
            self.done()
        elif listed.outcome is Outcome.STORAGE and self._waits:
            self._look_again(listed.why)

    def listed(self, *, first: bool = False) -> flow.Flow[Verdict]:
        """List the containers, and have a look at the images: the first does not open the layers, which may be damaged all the same."""
        listed: Verdict = yield partial(self.podman.list, first=first)
        if listed.ok:
            images: Verdict = yield self.podman.image_list
            if images.outcome is Outcome.STORAGE:
                return images
            self.images = frozenset(each.name for each in images.value or ()) if images.ok else frozenset()
        return listed

    def _climb(self, listed: Verdict) -> flow.Flow[Verdict]:
        """Mend what a listing says; return the next listing, or the same where nothing was to be mended."""
        if listed.outcome is Outcome.STORAGE:
            self.log.warning("podman's storage is damaged: it repairs itself", why=listed.why)
            yield partial(self.podman.check, repair=True, force=not self.lives())
            listed = yield from self.listed()
        self._waits = listed.outcome is Outcome.STORAGE and self.lives()
        if self._waits:
            self.log.error("podman's storage is beyond repair: it is set aside when no persona runs any more; those that run go on", why=listed.why)
        elif listed.outcome is Outcome.STORAGE:  # images and containers can be made anew; homes are elsewhere
            self.log.error("podman's storage is beyond repair: set aside, images are to be loaded again", why=listed.why)
            aside = partial(self.state.ask, "containers_aside", self.bounds.open)
            yield partial(self.podman.while_it_rests, aside)  # a call under way would make half of it anew meanwhile
            listed = yield from self.listed()
        return listed
