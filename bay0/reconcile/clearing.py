"""Nothing of it is left: many personas are cleared by two calls of podman, however many they are.

Who wants a container gone says so with `clear`; all that was said in one turn of the reactor is done together: one listing, one removal of
all of them. A removal that did not go well is followed by a second listing, which tells whose container is gone all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen

from bay0.pid1 import flow

if TYPE_CHECKING:
    from bay0.pid1.reactor import Reactor
    from bay0.podman.calls import Container, Podman, Verdict

FRESH_S = 5.0  # of a listing: what ends later, it does not know


@frozen
class Cleared:
    """What became of one container. `status`: its exit status, if it had ended by itself; None otherwise."""

    gone: bool
    why: str
    status: int | None = None


@define(eq=False, repr=False)
class Clearing:
    """Removes containers by name, in rounds."""

    reactor: Reactor
    podman: Podman
    _wanted: dict[str, Callable[[Cleared], None]] = field(factory=dict)
    _known: tuple[Container, ...] | None = None
    _known_until: float = 0.0
    _expected: set[str] = field(factory=set)
    _busy: bool = False

    def seed(self, containers: Iterable[Container]) -> None:
        """Take a listing that was just made as the first half of a round that begins soon."""
        self._known, self._known_until = tuple(containers), self.reactor.clock() + FRESH_S

    def gather(self, names: Iterable[str], at_most_s: float) -> None:
        """Begin no round until all of `names` have been asked for, or the time is over: a boot does them together, with its one listing."""
        self._expected.update(names)
        self._known_until += at_most_s
        self.reactor.call_later(at_most_s, self._expect_no_more)

    def _expect_no_more(self) -> None:
        self._expected.clear()
        self._begin_soon()

    def clear(self, name: str, done: Callable[[Cleared], None]) -> None:
        """Remove the container called `name`, if there is one; `done` hears of it once."""
        self._wanted[name] = done  # an earlier asker for the same name has been overtaken: its token is late
        self._expected.discard(name)
        self._begin_soon()

    def _begin_soon(self) -> None:
        if self._wanted and not self._busy and not self._expected:
            self._busy = True
            self.reactor.call_soon(self._begin)

    def _begin(self) -> None:
        wanted, self._wanted = self._wanted, {}

        def told(results: dict[str, Cleared]) -> None:
            for name, call in wanted.items():  # a thousand of them are more than a turn
                self.reactor.call_soon(partial(call, results[name]))
            self._busy = False
            self._begin_soon()

        flow.run(self._round(list(wanted)), told)

    def _round(self, wanted: list[str]) -> flow.Flow[dict[str, Cleared]]:
        known, self._known = self._known if self.reactor.clock() < self._known_until else None, None
        if known is None:
            listed: Verdict = yield self.podman.list
            if not listed.ok:
                return dict.fromkeys(wanted, Cleared(gone=False, why=listed.why))
            known = listed.value
        asked = set(wanted)
        there = {each.name: each for each in known if each.name in asked}
        statuses = {name: each.exit_code if each.state == "exited" else None for name, each in there.items()}
        left = yield from self._remove(wanted)  # also what is not listed: one may be made just now, and a run that was killed holds its name
        return {
            name: Cleared(gone=name not in left, why=left.get(name) or ("removed" if name in there else "there was none"), status=statuses.get(name))
            for name in wanted
        }

    def _remove(self, wanted: list[str]) -> flow.Flow[dict[str, str]]:
        """Remove; return whose container is left, and why."""
        removed: Verdict = yield _asking(self.podman.remove, wanted)
        if removed.ok:
            return {}
        listed: Verdict = yield self.podman.list
        if not listed.ok:
            return dict.fromkeys(wanted, removed.why)
        asked = set(wanted)
        return {each.name: removed.why for each in listed.value if each.name in asked}


def _asking(remove: Any, names: list[str]) -> flow.Waitable:
    return lambda resume: remove(names, 0, resume)
