"""Clipboard and primary selection belong to a persona: emptied before another one is shown, given back when it returns.

Before both are emptied, the text that the persona going behind offers is read, and kept in memory as bytes: it
is not looked into, and goes to nobody but the same persona. Only text, at most `TEXT_MAX` bytes, and only what
its owner writes at once: a switch waits for nobody, and what came too late is lost and said. The emptying takes
a connection of its own, which is told of what is offered: a persona may offer so much that sway hangs up on it.
So it is used once, and the next is made ready behind it. Another one offers what is given back; it is told of
nothing but who wants to have it, and the writing is a command's (giving.py).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import define, field

from bay0.pid1 import flow
from bay0.pid1.reactor import READ
from bay0.screen import selection
from bay0.screen.selection import Selections

if TYPE_CHECKING:
    from bay0.pid1.reactor import Reactor
    from bay0.screen.proof import Proof
    from bay0.screen.wayland import Display

CLEAR_S = 0.25  # that a switch waits for it, before patience
READ_S = 0.1  # of that for the text of the one who goes behind
ANSWER_S = 5.0  # behind it a connection is given up
TEXT_MAX = 64 << 10  # bytes of one text that is kept
CHUNK = 16 << 10


@define(eq=False, repr=False)
class _Reading:
    """One text, as it comes through a socket: who writes there cannot hold up who reads, as he could in a pipe."""

    reactor: Reactor
    peer: socket.socket
    done: Callable[[bytes | None], None]  # None: it is too long, or did not come
    text: bytearray = field(factory=bytearray)

    def begin(self) -> None:
        self.reactor.watch(self.peer.fileno(), READ, self._ready)

    def end(self, text: bytes | None = None) -> None:
        if self.peer.fileno() >= 0:
            self.reactor.unwatch(self.peer.fileno())
            self.peer.close()
            self.done(text)

    def _ready(self, _ready: int) -> None:
        try:
            data = self.peer.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self.end()
            return
        self.text += data
        if not data:
            self.end(bytes(self.text))
        elif len(self.text) > TEXT_MAX:
            self.end()


@define(eq=False, repr=False)
class Clipboards:
    """`give(text, fd)`: have the text written to the descriptor, and close it."""

    reactor: Reactor
    log: Any
    patience: float
    give: Callable[[bytes, int], None]
    _proof: Proof | None = field(init=False, default=None)
    _spare: Display | None = field(init=False, default=None)  # for the next time, its registry asked for
    _offers: Display | None = field(init=False, default=None)  # that offers what is given back
    _kept: dict[str, dict[str, bytes]] = field(init=False, factory=dict)  # persona -> what of both -> text
    _given: dict[str, object] = field(init=False, factory=dict)  # what of both is offered by us; which time

    def attach(self, proof: Proof) -> None:
        """Use a compositor that has proved itself."""
        self._proof = proof
        self._have_spare()

    def detach(self) -> None:
        """Use it no more."""
        self._proof = None
        self._given = {}
        for each in (self._spare, self._offers):
            if each is not None:
                each.close()
        self._spare = self._offers = None

    def forget(self, persona: str) -> None:
        """Keep nothing of a persona that has ended; harmless if nothing is."""
        self._kept.pop(persona, None)

    def clear(self, persona: str | None, resume: flow.Resume) -> None:
        """Keep what `persona`, who was in front, offers as text; then empty both, or say that it did not go in time.

        For a flow, which is not resumed if the compositor is gone meanwhile.
        """
        if self._spare is None:
            self._have_spare()
        display, proof = self._spare, self._proof
        self._spare = None

        def done(why: str) -> None:
            if display is not None:
                display.close()
            if self._proof is not proof:
                return
            if why:
                self.log.warning("the clipboards may not be empty", why=why)
            self._have_spare()
            self.reactor.call_soon(partial(resume, None))

        go = flow.once(done, self.reactor, CLEAR_S * self.patience, late="no answer in time")
        if display is None:
            self.reactor.call_soon(partial(go, "there is no connection for it"))
            return
        known = partial(self._known, display, persona, go)
        if display.offered:
            known()
        else:
            display.sync(ANSWER_S * self.patience, known)

    def _known(self, display: Display, persona: str | None, go: flow.Resume) -> None:
        """Ask what is offered, then read it, then empty both: each step begins when the last is done."""
        try:
            found = Selections(display)
        except ValueError as error:
            go(str(error))
            return

        def empty(_: Any = None) -> None:
            self._given = {}
            found.clear()
            display.sync(ANSWER_S * self.patience, partial(go, ""))

        def told() -> None:
            names = found.of_others()
            if not found.offers:  # both are empty: no further answer to wait for
                go("")
            elif persona is None or not names:
                empty()
            else:
                self._read(found, persona, names, flow.once(empty, self.reactor, READ_S * self.patience))

        display.sync(ANSWER_S * self.patience, told)

    def _read(self, found: Selections, persona: str, names: list[str], go: flow.Resume) -> None:
        """Read the texts of `names`; each that is not there when the time is over is lost."""
        kept = self._kept.setdefault(persona, {})
        left: dict[str, _Reading | None] = dict.fromkeys(names)

        def come(name: str, text: bytes | None) -> None:
            del left[name]
            if text is None:
                self.log.warning("what was copied is lost", persona=persona, what=name, most=TEXT_MAX)
            else:
                kept[name] = text
            if not left:
                go(None)

        for name in names:
            kept.pop(name, None)
            self._given.pop(name, None)
            reading = self._begin_reading(found, name, partial(come, name))
            if reading is None:
                come(name, None)
            else:
                left[name] = reading

        def late() -> None:
            for each in list(left.values()):
                if each is not None:
                    each.end()

        if left:
            self.reactor.call_later(READ_S * self.patience, late)

    def _begin_reading(self, found: Selections, name: str, done: Callable[[bytes | None], None]) -> _Reading | None:
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        except OSError:
            return None
        ours.setblocking(False)
        try:
            asked = found.receive(name, theirs.fileno())
        except OSError:
            asked = False
        finally:
            theirs.close()
        if not asked:
            ours.close()
            return None
        ours.shutdown(socket.SHUT_WR)
        reading = _Reading(self.reactor, ours, done)
        reading.begin()
        return reading

    # ---- given back

    def give_back(self, persona: str) -> None:
        """Offer what is kept of a persona, which is in front now; harmless if nothing is."""
        kept = self._kept.get(persona)
        if not kept or self._proof is None:
            return
        if self._offers is None:
            self._offers = self._proof.spare(self._offers_lost)
            if self._offers is None:
                return
            self._offers.take_descriptors()
            self._offers.look(ANSWER_S * self.patience, lambda: None)
        display, times = self._offers, object()
        self._given = dict.fromkeys(kept, times)

        def heard(opcode: int, name: str) -> None:
            fd = display.descriptor() if opcode == selection.SEND else -1
            ours = self._given.get(name) is times
            if fd >= 0 and ours and name in kept:
                self.give(kept[name], fd)
            elif fd >= 0:
                os.close(fd)
            elif ours:  # the persona has copied something else
                del self._given[name]
                kept.pop(name, None)

        def known() -> None:
            if times in self._given.values():
                try:
                    selection.offer(display, list(kept), heard)
                except ValueError as error:
                    self.log.warning("the clipboard is not given back", persona=persona, why=str(error))

        if display.offered:
            known()
        else:
            display.sync(ANSWER_S * self.patience, known)

    def _offers_lost(self, _why: str) -> None:
        self._offers = None
        self._given = {}

    def _have_spare(self) -> None:
        if self._proof is not None:
            self._spare = self._proof.spare(self._lost)
            if self._spare is not None:
                self._spare.look(ANSWER_S * self.patience, lambda: None)

    def _lost(self, _why: str) -> None:
        """Have none: the next clearing makes one, and says what goes wrong then."""
        self._spare = None
