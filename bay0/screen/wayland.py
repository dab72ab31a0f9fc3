"""PID 1 as a client of the compositor's Wayland socket: what is offered, and whether it answers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import define, field

from bay0.screen import wire
from bay0.screen.stream import Stream

if TYPE_CHECKING:
    import socket

    from bay0.effects.peers import Answerer
    from bay0.pid1.reactor import Reactor, Timer

# opcodes of wayland.xml: requests of wl_display; events of wl_display, wl_registry, wl_callback
SYNC, GET_REGISTRY, BIND = 0, 1, 0
ERROR, DELETE_ID = 0, 1
GLOBAL, GLOBAL_REMOVE = 0, 1
GLOBALS_MAX = 256
OURS_MAX = 0xFEFFFFFF  # the numbers above are of objects that the compositor makes
WHY_MAX = 120  # characters of the compositor's own words


Events = Callable[[int, wire.Arguments], None]


def ignore(_opcode: int, _arguments: wire.Arguments) -> None:
    """Hear an object's events, and do nothing."""


@define(eq=False, repr=False)
class Display:
    """One connection. `lost(why)`: it has ended, or makes no sense, or was silent for too long; once."""

    reactor: Reactor
    peer: socket.socket
    lost: Callable[[str], None]
    offered: dict[int, str] = field(init=False, factory=dict)  # the registry: number -> interface
    _stream: Stream = field(init=False)
    _reader: wire.Reader = field(init=False, factory=wire.Reader)
    _ids: Any = field(init=False, factory=lambda: itertools.count(wire.DISPLAY + 1))
    _registry: int = field(init=False, default=0)
    _objects: dict[int, Events] = field(init=False, factory=dict)  # of ours, beside the registry and callbacks
    _waiting: dict[int, tuple[Timer, Callable[[], None]]] = field(
        init=False, factory=dict
    )  # callback -> who waits for it

    def __attrs_post_init__(self) -> None:
        self._stream = Stream(self.reactor, self.peer, self._heard, self._lost)

    @property
    def who(self) -> Answerer:
        """Who listens there."""
        return self._stream.who

    def look(self, bound_s: float, done: Callable[[], None]) -> None:
        """Read the registry, then call `done`: `offered` is whole, and kept up to date from then on."""
        self._registry = next(self._ids)
        self._stream.send(wire.request(wire.DISPLAY, GET_REGISTRY, wire.words(self._registry)))
        self.sync(bound_s, done)

    def sync(self, bound_s: float, done: Callable[[], None]) -> None:
        """Call `done` when all that was asked before is done.

        No answer within `bound_s` seconds: it is lost.
        """
        number = next(self._ids)
        timer = self.reactor.call_later(bound_s, partial(self._silent, number, bound_s))
        self._waiting[number] = timer, done
        self._stream.send(wire.request(wire.DISPLAY, SYNC, wire.words(number)))

    def bind(self, interface: str, version: int, events: Events = ignore) -> int:
        """Return a new object that is the global `interface`, the first of its kind. `ValueError`: it is not offered."""
        for name, offered in self.offered.items():
            if offered == interface:
                number = self.new(events)
                self.request(self._registry, BIND, wire.words(name) + wire.string(interface) + wire.words(version, number))
                return number
        raise ValueError(f"{interface} is not offered")

    def new(self, events: Events = ignore) -> int:
        """Return the number of an object that the next request makes; `events(opcode, arguments)` hears it until it is deleted."""
        number = next(self._ids)
        self._objects[number] = events
        return int(number)

    def adopt(self, number: int, events: Events = ignore) -> None:
        """Hear an object that the compositor has made."""
        if number > OURS_MAX:
            self._objects[number] = events

    def request(self, target: int, opcode: int, body: bytes = b"", fds: Sequence[int] = ()) -> None:
        """Ask an object for something. `OSError`: no descriptor is free for a copy of one of `fds`."""
        self._stream.send(wire.request(target, opcode, body), fds)

    def take_descriptors(self) -> None:
        """Take descriptors that come with events, from now on; whoever hears such an event fetches its `descriptor`."""
        self._stream.takes = []

    def descriptor(self) -> int:
        """Return the descriptor that came with the event that is heard: the caller's to close. `WireError`: none came."""
        if not self._stream.takes:
            raise wire.WireError("an event without its descriptor")
        return self._stream.takes.pop(0)

    def close(self) -> None:
        """Hang up, and forget who waits; harmless when that has happened."""
        for timer, _done in self._waiting.values():
            timer.cancel()
        self._waiting.clear()
        self._stream.close()

    def _lost(self, why: str) -> None:
        self.close()
        self.lost(why)

    def _silent(self, number: int, bound_s: float) -> None:
        if number in self._waiting:
            self._lost(f"no answer on its Wayland socket in {bound_s:g} s")

    def _heard(self, data: bytes) -> None:
        for message in self._reader.feed(data):
            if not self._stream.open:
                return
            self._take(message)

    def _take(self, message: wire.Message) -> None:
        arguments = wire.Arguments(message.body)
        if message.sender == wire.DISPLAY and message.opcode == DELETE_ID:
            self._objects.pop(arguments.uint(), None)
        elif message.sender == wire.DISPLAY and message.opcode == ERROR:
            arguments.uint(), arguments.uint()
            raise wire.WireError(f"it calls a request of ours an error: {arguments.string()[:WHY_MAX]}")
        elif message.sender == self._registry and message.opcode == GLOBAL:
            number, interface = arguments.uint(), arguments.string()
            arguments.uint()  # its version
            self.offered[number] = interface
            if len(self.offered) > GLOBALS_MAX:
                raise wire.WireError(f"it offers more than {GLOBALS_MAX} globals")
        elif message.sender == self._registry and message.opcode == GLOBAL_REMOVE:
            self.offered.pop(arguments.uint(), None)
        elif message.sender in self._waiting:
            arguments.uint()  # a serial
            timer, done = self._waiting.pop(message.sender)
            timer.cancel()
            done()
        elif message.sender in self._objects:
            self._objects[message.sender](message.opcode, arguments)
            return
        else:
            raise wire.WireError(f"an event {message.opcode} of object {message.sender}, which nobody made")
        arguments.end()
