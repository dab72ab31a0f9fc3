"""Both clipboards are emptied before another persona is shown, or it could paste what the last one copied.

That takes a connection of its own, which is told of what is offered: a persona may offer so much that sway
hangs up on it. So it is used once, and the next is made ready behind it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import define, field

from bay0.pid1 import flow
from bay0.screen.context import clear_clipboards

if TYPE_CHECKING:
    from bay0.pid1.reactor import Reactor
    from bay0.screen.proof import Proof
    from bay0.screen.wayland import Display

CLEAR_S = 0.25  # that a switch waits for it, before patience
ANSWER_S = 5.0  # behind it a connection is given up


@define(eq=False, repr=False)
class Clipboards:
    """See above."""

    reactor: Reactor
    log: Any
    patience: float
    _proof: Proof | None = field(init=False, default=None)
    _spare: Display | None = field(init=False, default=None)  # for the next time, its registry asked for

    def attach(self, proof: Proof) -> None:
        """Use a compositor that has proved itself."""
        self._proof = proof
        self._have_spare()

    def detach(self) -> None:
        """Use it no more."""
        self._proof = None
        if self._spare is not None:
            self._spare.close()
            self._spare = None

    def clear(self, resume: flow.Resume) -> None:
        """Empty both, or say that it did not go in time; for a flow.

        Which is not resumed if the compositor is gone meanwhile.
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

        def known() -> None:
            try:
                clear_clipboards(display)  # type: ignore[arg-type]
                display.sync(ANSWER_S * self.patience, partial(go, ""))  # type: ignore[union-attr]
            except ValueError as error:
                go(str(error))

        go = flow.once(done, self.reactor, CLEAR_S * self.patience, late="no answer in time")
        if display is None:
            self.reactor.call_soon(partial(go, "there is no connection for it"))
        elif display.offered:
            known()
        else:
            display.sync(ANSWER_S * self.patience, known)

    def _have_spare(self) -> None:
        if self._proof is not None:
            self._spare = self._proof.spare(self._lost)
            if self._spare is not None:
                self._spare.look(ANSWER_S * self.patience, lambda: None)

    def _lost(self, _why: str) -> None:
        """Have none: the next clearing makes one, and says what goes wrong then."""
        self._spare = None
