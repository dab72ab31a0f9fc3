"""Each persona's own namespace, its filter, and its cable to sys://net.

Theory of operation. A namespace is made, and its filter is in it and was read back, before the persona's
first process; without that it does not start. The cable may come later: when sys://net is raised, every
persona that has a namespace gets one, without being started anew. All of it is done in one queue, one after
the other. What is pinned of a namespace goes as its persona's end begins; the namespace itself, and with it
the cable, goes with the last process in it.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import define, field

from bay0.net import ipv4, rules
from bay0.net.scripts import CABLE, COUNT, MARK, NAMESPACE, NETNS, UNPIN, Scripts
from bay0.pid1 import flow

if TYPE_CHECKING:
    from bay0.effects.spawn import Result
    from bay0.pid1.reactor import Reactor

Flow = flow.Flow[Any]
SHOWN_MAX = 500  # an answer has its bound


@define(eq=False, repr=False)
class Cable:
    """`space`: the name of the persona's namespace.

    `end`: of the cable in sys://net, named by slot: 15 characters are the kernel's most.
    """

    space: str
    end: str
    address: str
    table: rules.Table
    laid: bool = False


@define(eq=False, repr=False)
class Cables:
    """All of them, by the name of their persona."""

    reactor: Reactor
    log: Any
    scripts: Scripts
    _cables: dict[str, Cable] = field(init=False, factory=dict)
    _ready: bool = field(init=False, default=False)  # sys://net is there, and its filter was read back
    _queue: deque[tuple[Flow, flow.Resume]] = field(init=False, factory=deque)

    def attach(self, name: str, space: str, slot: int, table: rules.Table, resume: flow.Resume) -> None:
        """Make the namespace of a persona that is about to start, and its cable if there is a network.

        `resume` is told "", or why it must not start.
        """
        cable = self._cables[name] = Cable(space, f"v{slot}", ipv4.of_slot(slot), table)
        self._in_turn(self._made(name, cable), resume)

    def detach(self, name: str) -> None:
        """Let go of the namespace of one whose end begins; harmless for one that has none."""
        cable = self._cables.pop(name, None)
        if cable is not None:
            self._in_turn(self._unpinned(name, cable), lambda _nothing: None)

    def lay(self, resume: flow.Resume) -> None:
        """Lay the cables that are missing."""
        self._in_turn(self._laid(), resume)

    def rose(self) -> None:
        """Hear that sys://net is there, with its filter in it."""
        self._ready = True

    def fell(self) -> None:
        """Hear that sys://net goes, and every cable with it. Where no filter is, no cable is laid."""
        self._ready = False
        for cable in self._cables.values():
            cable.laid = False

    def describe(self) -> list[dict[str, Any]]:
        """Return whose cables there are; the first of very many."""
        found = sorted(self._cables.items())[:SHOWN_MAX]
        return [
            {"persona": name, "address": each.address, "end": each.end, "laid": each.laid}
            for name, each in found
        ]

    def count(self, name: str, resume: Callable[[dict[str, Any] | None], None]) -> None:
        """Ask the kernel what the cable of `name` has carried, and what its filter has counted.

        None: it has none.
        """
        cable = self._cables.get(name)
        if cable is None:
            self.reactor.call_soon(partial(resume, None))
        else:
            self._in_turn(self._counted(cable), resume)

    # ---- one after the other

    def _in_turn(self, work: Flow, resume: flow.Resume) -> None:
        self._queue.append((work, resume))
        if len(self._queue) == 1:
            self._next()

    def _next(self) -> None:
        work, resume = self._queue[0]

        def done(value: Any) -> None:
            self._queue.popleft()
            if self._queue:
                self.reactor.call_soon(self._next)
            resume(value)

        flow.run(work, done)

    def _made(self, name: str, cable: Cable) -> flow.Flow[str]:
        if self._cables.get(name) is not cable:
            return "its start was taken back"
        yield from self.scripts.modules()
        made: Result = yield self.scripts("net-space", NAMESPACE, cable.space, text=cable.table.text())
        if not made.ok:
            return f"its network namespace could not be made: {made.reason()}"
        why = rules.missing(made.stdout, (cable.table,))
        if why:
            return f"its packet filter is not as it must be: {why}"
        yield from self._one(name, cable)
        return ""

    def _one(self, name: str, cable: Cable) -> flow.Flow[None]:
        """Lay one, if there is where to."""
        if not self._ready or self._cables.get(name) is not cable:
            return
        laid: Result = yield self.scripts(
            "net-cable", CABLE, cable.space, cable.end, cable.address, ipv4.GATEWAY
        )
        cable.laid = laid.ok
        if not laid.ok:
            self.log.warning(
                "no cable to sys://net; the next change there tries again", persona=name, why=laid.reason()
            )

    def _laid(self) -> flow.Flow[None]:
        for name, cable in list(self._cables.items()):
            if not cable.laid:
                yield from self._one(name, cable)

    def _unpinned(self, name: str, cable: Cable) -> flow.Flow[None]:
        # one that has begun again meanwhile makes a new one, behind this in the queue
        gone: Result = yield self.scripts("net-unpin", UNPIN, cable.space)
        if not gone.ok and os.path.exists(f"{NETNS}/{cable.space}"):
            self.log.warning("its network namespace is still pinned", persona=name, why=gone.reason())

    def _counted(self, cable: Cable) -> flow.Flow[dict[str, Any]]:
        found: Result = yield self.scripts("net-count", COUNT, cable.space)
        link, _, listing = found.stdout.partition(f"\n{MARK}\n")
        facts = {
            "address": cable.address,
            "gateway": ipv4.GATEWAY,
            "laid": cable.laid,
            "rules": rules.counters(listing),
        }
        return {**facts, **carried(link), "why": "" if found.ok else found.reason()}


def carried(text: str) -> dict[str, Any]:
    """Return bytes and packets each way, as the persona sees it, of `ip -j -s addr show`.

    None for what is not said.
    """
    try:
        stats = json.loads(text)[0]["stats64"]
        pairs = {"sent": stats["tx"], "received": stats["rx"]}
        return {key: {unit: int(each[unit]) for unit in ("bytes", "packets")} for key, each in pairs.items()}
    except (ValueError, LookupError, TypeError, RecursionError):
        return {"sent": None, "received": None}
