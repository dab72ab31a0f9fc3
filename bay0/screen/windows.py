"""Whose windows are on the screen: those of the persona in front while it runs, and of nobody else.

Theory of operation. Nothing of a window is believed but its pid, which is the kernel's word (SO_PEERCRED of
its connection); whose it is says that process's cgroup, as it was when the window was first seen, and only as
long as that process lives. After each news, of sway or of a persona, the tree is read and put right (tree.py)
until nothing is to be done. One question is under way at a time, and one message makes the whole switch, so
sway shows it in one frame. A freeze waits here (`hide`) until the tree and then a frame say that nothing of
the persona is seen any more; it does not wait longer than `HIDE_S`, `SETTLES_S` and `FENCE_S`, whatever sway
does. Without a compositor that is ready it does not wait at all.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import define, field

from bay0.machines import focus, persona
from bay0.pid1 import flow
from bay0.screen import tree
from bay0.screen.clipboards import Clipboards
from bay0.screen.context import Fence
from bay0.screen.crowd import Crowd
from bay0.screen.ipc import Ask
from bay0.screen.lines import Lines
from bay0.screen.owners import Owners

if TYPE_CHECKING:
    from bay0.machines.engine import Engine
    from bay0.machines.instance import Instance, Step
    from bay0.pid1.reactor import Reactor
    from bay0.screen.doors import Doors
    from bay0.screen.proof import Proof
    from bay0.screen.tree import Window

HIDE_S, FENCE_S = 1.0, 0.25  # that a freeze waits for the tree, and for a frame; before patience, as all of these
# until sway draws what it was told, or a client asked for: so long it waits for one that gets a new size and does
# not take it; the old picture stays meanwhile, though the tree says otherwise (sway 1.10.1, desktop/transaction.c)
SETTLES_S = 0.2
GRACE_S = 0.25  # that the old one stays on the screen until the one that comes to the front is thawed
ANSWER_S = 5.0  # of sway's own answers; behind it the screen is lost (port.py's beat notices before)
PACE_S = 0.05  # between two readings of the tree that events asked for: a client may make any number of them
ROUNDS = 8  # in a row, until news: what cannot be put right is not tried for ever
STANDS = (persona.S.PAUSING, persona.S.PAUSED, persona.S.RESUMING)
CHANGES = ("new", "close", "move", "floating", "fullscreen_mode", "mark")
FOCUS = "focus"  # all that is said of a floating window which sway itself has moved (sway 1.10.1)


@define(eq=False, repr=False)
class Windows:
    """See above. `told()`: who is on the screen has changed. `give(text, fd)`: have what was copied written there."""

    engine: Engine
    reactor: Reactor
    log: Any
    doors: Doors
    told: Callable[[], None]
    give: Callable[[bytes, int], None]
    patience: float = 1.0
    front: str | None = field(init=False, default=None)  # whose workspace sway shows
    found: list[Window] = field(init=False, factory=list)  # in the last tree
    outputs: set[str] = field(init=False, factory=set)  # in it, too
    _proof: Proof | None = field(init=False, default=None)
    _fence: Fence | None = field(init=False, default=None)
    _clipboards: Clipboards = field(init=False)
    _crowd: Crowd = field(init=False)
    lines: Lines = field(init=False)
    owners: Owners = field(init=False)
    _closing: set[int] = field(init=False, factory=set)
    _busy: bool = field(init=False, default=False)
    _again: bool = field(init=False, default=False)  # news came meanwhile
    _rounds: int = field(init=False, default=0)
    _shown_once: bool = field(init=False, default=False)
    _grace: float = field(init=False, default=0.0)  # until then
    _next: float = field(init=False, default=0.0)  # when events may have the tree read again
    _paced: bool = field(init=False, default=False)
    _settles: float = field(init=False, default=0.0)  # by then sway draws what the tree says
    _hiding: list[tuple[str, Callable[[], None]]] = field(init=False, factory=list)

    def __attrs_post_init__(self) -> None:
        self._clipboards = Clipboards(self.reactor, self.log, self.patience, self.give)
        self._crowd = Crowd(self.doors, self.log)
        self.lines = Lines(self.reactor, self.log, self.doors)
        self.owners = Owners(self.doors, self.log, self.reactor.clock, self._cut)
        self.doors.hides(self.hide)
        self.engine.on("persona", call=self._persona_stepped)
        self.engine.on("focus", call=self._focus_stepped)

    # ---- a compositor that is ready, and its end

    def attach(self, proof: Proof) -> None:
        """Use a compositor that has proved itself: nothing of anybody is on it yet."""
        self._forget()
        if proof.wayland is None:
            return
        self._proof, self._fence = proof, Fence(proof.wayland)
        self.doors.attach(proof.wayland)
        self._clipboards.attach(proof)
        self._news()

    def detach(self) -> None:
        """Use it no more, since it has ended or is not believed; harmless when that is so."""
        if self._proof is None:
            return
        self.doors.detach()
        self._forget()
        self.told()

    def _forget(self) -> None:
        self._clipboards.detach()
        self._proof = self._fence = None
        self.front, self.found, self.outputs = None, [], set()
        self._busy = self._again = self._shown_once = False
        self.owners.keep(set())
        self._closing.clear()
        self._crowd.forget()
        waiting, self._hiding = self._hiding, []
        for _name, resume in waiting:
            self.reactor.call_soon(resume)

    # ---- news

    def _persona_stepped(self, instance: Instance, _step: Step) -> None:
        if instance.now not in persona.HAS_CONTAINER:
            self._clipboards.forget(instance.name)
        if instance.name in self.doors.doors or instance.name in (self.front, self._asked_for()):
            self._news()

    def _focus_stepped(self, instance: Instance, _step: Step) -> None:
        if instance.now is focus.S.SWITCHING:
            grace_s = GRACE_S * self.patience
            self._grace = self.reactor.clock() + grace_s
            self.reactor.call_later(grace_s, self._news)
        self._news()

    def event(self, value: Any) -> None:
        """Hear of a window from sway; its own words on it are not used, the tree is."""
        con = int(value["container"]["id"])
        if value["change"] == "new":
            self._crowd.opened(con, int(value["container"]["pid"]))
        elif value["change"] == "close":
            self._crowd.closed(con)
        stray = value["change"] == FOCUS and self.owners.stray(con, self._wanted())
        if value["change"] not in CHANGES and not stray:
            return
        self._settles = self.reactor.clock() + SETTLES_S
        if self._paced:
            return
        wait_s = self._next - self.reactor.clock()
        self._paced = wait_s > 0

        def read() -> None:
            self._paced = False
            self._next = self.reactor.clock() + PACE_S
            self._news()

        if self._paced:
            self.reactor.call_later(wait_s, read)
        else:
            read()

    def look_again(self) -> None:
        """Hear that outputs may have come or gone."""
        self._news()

    def _news(self) -> None:
        """Look, soon: several steps of one turn are one piece of news."""
        self._rounds = 0
        if self._proof is None:
            return
        if self._busy:
            self._again = True
            return
        self._busy = True
        self.reactor.call_soon(self._look)

    # ---- what is to be seen

    def _asked_for(self) -> str | None:
        return focus.front(self.engine.instances)

    def _wanted(self) -> str | None:
        """Return whose workspace is to be shown; the old one's for a moment while the next is being thawed."""
        live, name = self.engine.instances.get(focus.NAME), self._asked_for()
        instance = self.engine.instances.get(name) if name is not None else None
        if instance is None:
            return None
        if instance.now is persona.S.RUNNING:
            return name
        comes = live is not None and live.now is focus.S.SWITCHING and instance.now in STANDS
        return self.front if comes and self.reactor.clock() < self._grace else None

    def _stands(self, name: str) -> bool:
        instance = self.engine.instances.get(name)
        return instance is not None and instance.now in STANDS

    def _cut(self, pid: int) -> None:
        if self._proof is not None:
            self.lines.cut(self._proof.pid, pid)

    def _look(self) -> None:
        proof = self._proof

        def owed() -> bool:
            return self._proof is proof and proof is not None

        def done(_: None) -> None:
            if not owed():
                return
            self._busy = False
            if self._again:
                self._again = False
                self._busy = True
                self.reactor.call_soon(self._look)

        flow.run(flow.as_long_as(owed, self._put_right()), done)

    def _put_right(self) -> flow.Flow[None]:
        """Say what is to be said after the last tree, and read the next; again, until nothing is to be said."""
        while self._rounds < ROUNDS:
            self._rounds += 1
            wanted = self._wanted()
            switches = wanted != self.front or not self._shown_once
            if switches and self._shown_once:
                yield partial(self._clipboards.clear, self.front)
                if wanted != self._wanted():
                    if self.front is not None and self.front == self._wanted():
                        self._clipboards.give_back(self.front)  # it stays in front after all
                    continue
            owners = {window.con: self.owners.of(window) for window in self.found}
            commands = tree.mend(self.found, wanted, owners, self._stands, self._closing)
            self._closing |= {con for con, name in owners.items() if name is None}
            if commands or switches:
                said: list[Any] = []
                self._ask(
                    Ask.RUN_COMMAND, said.append, "; ".join((*commands, tree.show(wanted, self.outputs)))
                )
            found = yield partial(self._ask, Ask.GET_TREE)
            self.found, current = tree.windows(found), tree.current(found)
            if commands:
                self._settles = self.reactor.clock() + SETTLES_S
            if commands or switches:
                self._shown(wanted, current)
            elsewhere = bool(current) and (self.front or tree.NOBODY) not in current.values()
            if elsewhere or (len(current) > 1 and set(current) != self.outputs):
                self._shown_once = False  # once more, on the output that it belongs on
            self.outputs = set(current)
            there = {window.con for window in self.found}
            self.owners.keep(there)
            self._closing &= there
            self._answer_hiding()
            if self._shown_once and self.front == self._wanted() and not self._wrong():
                return
        self.log.warning("windows are not where they belong", windows=len(self.found))

    def _wrong(self) -> bool:
        owners = {window.con: self.owners.of(window) for window in self.found}
        return bool(tree.mend(self.found, self._wanted(), owners, self._stands, self._closing))

    def _shown(self, wanted: str | None, current: dict[str, str]) -> None:
        if current and (wanted or tree.NOBODY) not in current.values():
            self.log.warning(
                "sway does not show what it was told to", persona=wanted, shown=sorted(current.values())
            )
            return
        changed, self.front, self._shown_once = self.front != wanted or not self._shown_once, wanted, True
        if changed:
            self.log.info("on the screen", persona=wanted or tree.NOBODY)
            if wanted is not None:
                self._clipboards.give_back(wanted)
            self.told()

    def _ask(self, kind: Ask, done: Callable[[Any], None], payload: str = "") -> None:
        if self._proof is not None and self._proof.sway is not None:
            self._proof.sway.ask(kind, ANSWER_S * self.patience, done, payload)

    # ---- a freeze waits

    def hide(self, name: str) -> flow.Flow[None]:
        """Return once nothing of the persona is seen any more, or once it takes too long."""
        if self._proof is None or (self.front != name and not any(self.owners.known(self.found, name))):
            return
        began, clock = self.reactor.clock(), self.reactor.clock
        hidden = yield partial(self._await_hidden, name)
        fence = "" if hidden or self._proof is None else "not asked for"
        if hidden and self._proof is not None:
            fence = yield self._await_settled_frame
        took_ms = round(1000 * (clock() - began))
        if hidden and not fence:
            self.log.info("gpu detach", persona=name, took_ms=took_ms)
        else:
            self.log.warning(
                "gpu detach: it goes on without", persona=name, took_ms=took_ms, hidden=hidden, frame=fence
            )

    def _await_hidden(self, name: str, resume: flow.Resume) -> None:
        """Wait until a tree that was read from now on shows nothing of it."""
        go = flow.once(resume, self.reactor, HIDE_S * self.patience, late=False)
        self._hiding.append((name, partial(go, True)))
        self._news()

    def _answer_hiding(self) -> None:
        """Tell those of whom this tree shows nothing; one that is on the screen waits for the next."""
        waiting, self._hiding = self._hiding, []
        for name, resume in waiting:
            if self.front == name or any(window.visible for window in self.owners.known(self.found, name)):
                self._hiding.append((name, resume))
            else:
                self.reactor.call_soon(resume)

    def _await_settled_frame(self, resume: flow.Resume) -> None:
        """Wait for a frame that shows what the tree says."""

        def settled() -> None:
            if self._proof is None:
                resume("")  # it has ended meanwhile: nothing is seen of anybody
            else:
                self.await_frame(FENCE_S * self.patience, resume)

        wait_s = self._settles - self.reactor.clock()
        if wait_s > 0:
            self.reactor.call_later(wait_s, settled)
        else:
            settled()

    def await_frame(self, bound_s: float, resume: flow.Resume) -> None:
        """Resume with "" once a frame has come, or with why none has in `bound_s` seconds."""

        def soon(why: str) -> None:
            self.reactor.call_soon(partial(resume, why))

        go = flow.once(soon, self.reactor, bound_s, late="no frame came in time")
        if self._fence is not None:
            try:
                self._fence.ask(go)
            except (OSError, ValueError) as error:
                go(str(error))

    # ---- what is told

    def describe(self) -> list[dict[str, Any]]:
        """Return each persona with a way to the screen: how many windows it has, and how many are seen."""
        rows = []
        for name in sorted(self.doors.doors):
            found = list(self.owners.known(self.found, name))
            rows.append(
                {
                    "name": name,
                    "windows": len(found),
                    "visible": sum(each.visible for each in found),
                    "in_front": name == self.front,
                    "colour": tree.colour(name),
                    "socket": self.doors.doors[name].context >= 0,
                }
            )
        return rows
