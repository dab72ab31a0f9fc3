"""Looks whether this machine has a screen, and has the rest of this package loaded only then."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import define, field

from bay0.base.errors import RefusedError
from bay0.machines import boot

if TYPE_CHECKING:
    from bay0.loading.late import Late
    from bay0.machines.engine import Engine
    from bay0.machines.instance import Instance, Step
    from bay0.pid1.reactor import Reactor
    from bay0.screen.methods import ScreenMethods
    from bay0.screen.port import Screen

LOOK_EVERY_S = 5.0
CARDS = "/dev/dri"
OFF = "bay0.screen=off is on the kernel command line"
NONE = "this machine has no screen: there is no card in /dev/dri"
CONSOLE = "the console's shell is on the screen itself: bay0.screen=on gives the screen to the compositor"


def cards(directory: str = CARDS) -> list[str]:
    """Return the kernel's graphics cards, by the names of their nodes."""
    try:
        return sorted(name for name in os.listdir(directory) if re.fullmatch(r"card\d+", name))
    except OSError:
        return []


@define(eq=False, repr=False)
class ScreenWatch:
    """`boot`: this boot's machine.

    `wanted`: on, off, or auto: a screen that the console's shell is on is left to it.

    `console`: returns the terminal that the shell has, None if there is none.
    """

    engine: Engine
    reactor: Reactor
    log: Any
    boot: Instance
    screen: Late[Screen]
    methods: Late[ScreenMethods]
    wanted: str
    console: Callable[[], str | None]
    cards: Callable[[], list[str]] = cards
    _begun: bool = field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        self.engine.on("boot", boot.S.COMPLETE, call=self._completed, of=self.boot)

    def why_not(self) -> str:
        """Return why no compositor is wanted here, or ""."""
        if self.wanted == "off":
            return OFF
        if not self.cards():
            return NONE
        tty = self.console() if self.wanted == "auto" else None
        return CONSOLE if tty is not None and re.fullmatch(r"/dev/tty\d+", tty) else ""

    def _completed(self, _boot: Instance, _step: Step) -> None:
        self._look()

    def _look(self) -> None:
        """Use a screen that is there; one whose driver needs longer, or that is plugged in, is seen later."""
        if self.boot.now is not boot.S.COMPLETE or self._begun or self.wanted == "off":
            return
        if self.why_not():
            self.reactor.call_later(LOOK_EVERY_S, self._look)
            return
        self._begun = True
        self.screen.load(self.reactor.call_soon, self._loaded)

    def _loaded(self, _loaded: None) -> None:
        try:
            part = self.screen()
        except RefusedError as error:
            self.log.warning("the screen waits for its part of the program", why=str(error))
            self._begun = False
            self.reactor.call_later(LOOK_EVERY_S, self._look)
        else:
            part.begin()

    def _show(self, wait: float, reply: Callable[[Any], None], _loaded: None) -> None:
        try:
            part = self.methods()
        except RefusedError as error:
            reply(error)
        else:
            part.show(wait, reply)

    def show(self, params: Mapping[str, Any], reply: Callable[[Any], None]) -> None:
        """Answer `bay0 screen`. `wait` (seconds): once the screen is ready; at once where there is none."""
        wait = params.get("wait", 0)
        if not isinstance(wait, int | float) or isinstance(wait, bool) or wait < 0:
            raise ValueError("wait must be a number of seconds, 0 or more")
        if self._begun:
            self.methods.load(self.reactor.call_soon, partial(self._show, wait, reply))
            return
        why = self.why_not() or "the boot is not that far yet"
        reply(
            {
                "state": "dark",
                "why": why,
                "seat": None,
                "compositor": None,
                "sockets": [],
                "globals": None,
                "outputs": [],
                "inputs": [],
                "impostors": 0,
                "front": None,
                "personas": [],
                "console_taken": False,
            }
        )
