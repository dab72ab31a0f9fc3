"""Clipboard and primary selection over wlr-data-control-unstable-v1 (wlr-protocols): what is offered, emptied, offered anew.

Opcodes are in the order of their requests and events there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from attrs import define, field

from bay0.screen import wire

if TYPE_CHECKING:
    from bay0.screen.wayland import Display

CLIPBOARD, PRIMARY = "clipboard", "primary selection"
TEXTS = ("text/plain;charset=utf-8", "UTF8_STRING", "text/plain", "TEXT", "STRING")  # types of one text, the best first
OURS = "application/x-bay0-given-back"  # a type that nobody wants: by it we know what we offer ourselves
MANAGER, VERSION = "zwlr_data_control_manager_v1", 2
# requests: of the manager, a device, a source, an offer
CREATE_SOURCE, GET_DEVICE = 0, 1
SET = {CLIPBOARD: 0, PRIMARY: 2}
DEVICE_DESTROY = 1
SOURCE_OFFER, SOURCE_DESTROY = 0, 1
RECEIVE, OFFER_DESTROY = 0, 1
# events: of a device, an offer, a source
DATA_OFFER, SELECTIONS = 0, {1: CLIPBOARD, 3: PRIMARY}
OFFER = 0
SEND, CANCELLED = 0, 1


@define(eq=False, repr=False)
class Selections:
    """What is on both, as it is told from now on. `ValueError`: the protocol is not offered."""

    display: Display
    offers: dict[str, int] = field(init=False, factory=dict)  # CLIPBOARD or PRIMARY -> the offer, if there is one
    _texts: dict[int, int] = field(init=False, factory=dict)  # offer -> the best place in TEXTS
    _ours: set[int] = field(init=False, factory=set)
    _device: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        manager, seat = self.display.bind(MANAGER, VERSION), self.display.bind("wl_seat", 1)
        self._device = self.display.new(self._heard)
        self.display.request(manager, GET_DEVICE, wire.words(self._device, seat))

    def _heard(self, opcode: int, arguments: wire.Arguments) -> None:
        if opcode == DATA_OFFER:
            offer = arguments.uint()

            def typed(opcode: int, arguments: wire.Arguments) -> None:
                kind = arguments.string() if opcode == OFFER else ""
                if kind in TEXTS:
                    self._texts[offer] = min(TEXTS.index(kind), self._texts.get(offer, len(TEXTS)))
                elif kind == OURS:
                    self._ours.add(offer)

            self.display.adopt(offer, typed)
        elif opcode in SELECTIONS:
            name, offer = SELECTIONS[opcode], arguments.uint()
            before = self.offers.pop(name, 0)
            if before and before not in self.offers.values():
                self._texts.pop(before, None)
                self.display.request(before, OFFER_DESTROY)
            if offer:
                self.offers[name] = offer

    def of_others(self) -> list[str]:
        """Return on which of both something is offered, and not by `offer` below."""
        return [name for name, offer in self.offers.items() if offer not in self._ours]

    def receive(self, name: str, fd: int) -> bool:
        """Have the text of one of both written to a copy of `fd`; False: it is no text."""
        offer = self.offers[name]
        if offer not in self._texts:
            return False
        self.display.request(offer, RECEIVE, wire.string(TEXTS[self._texts[offer]]), (fd,))
        return True

    def clear(self) -> None:
        """Let nothing be offered on either, whoever offered it."""
        for opcode in SET.values():
            self.display.request(self._device, opcode, wire.words(0))


def offer(display: Display, names: Sequence[str], heard: Callable[[int, str], None]) -> None:
    """Offer a text on each of `names`; `heard(SEND or CANCELLED, name)`: somebody wants it, or something else is offered there.

    `ValueError`: the protocol is not offered. What others offer this connection is not told of.
    """
    manager, seat = display.bind(MANAGER, VERSION), display.bind("wl_seat", 1)
    device = display.new(partial(_refuse, display))
    display.request(manager, GET_DEVICE, wire.words(device, seat))
    for name in names:
        source = _source(display, name, heard)
        display.request(manager, CREATE_SOURCE, wire.words(source))
        for kind in (*TEXTS, OURS):
            display.request(source, SOURCE_OFFER, wire.string(kind))
        display.request(device, SET[name], wire.words(source))
    display.request(device, DEVICE_DESTROY)


def _refuse(display: Display, opcode: int, arguments: wire.Arguments) -> None:
    if opcode == DATA_OFFER:
        number = arguments.uint()
        display.adopt(number)
        display.request(number, OFFER_DESTROY)


def _source(display: Display, name: str, heard: Callable[[int, str], None]) -> int:
    def said(opcode: int, _arguments: wire.Arguments) -> None:
        if opcode == CANCELLED:
            display.request(source, SOURCE_DESTROY)
        heard(opcode, name)

    source = display.new(said)
    return source
