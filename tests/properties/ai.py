"""What `sys://ai` has of its own in a `World`: its image's archive, models, the umbilical with its forwarder, the kernel's word, conmon's end.

Real: its table, bay0/servers.py, bay0/containers.py, its verbs. The umbilical keeps what the real one promises (umbilicallink.py): a question that no
forwarder answers is asked of the next one, and is over at its bound.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from attrs import define, field
from podman import AI_ARCHIVE
from umbilical import WARM_S, Done, SimUmbilical, view

import bay0.servers
import bay0.umbilicalport
from bay0.effects import cgroup, gauges, kernelview, sensors
from bay0.errors import RefusedError
from bay0.machines.server import NAME as AI

if TYPE_CHECKING:
    from world import World

CONTAINER = "sys__ai"
TROUBLES = ("cold", "mute", "away", "closed", "wrong", "imageless", "spoilt")
LEVERS = ("PAUSE", "RESUME", "YIELD", "START")  # as the governor sends them
DRAIN_S, SAY_S = 1.0, 0.1


@define(eq=False)
class Ai:
    """Its vices. `cold`: no token is made. `mute`: no request ends. `away`: no forwarder. `closed`: no socket can be made.

    `wrong`: the kernel does not confirm its envelope. `imageless`: no archive of its image. `spoilt`: the models on the disk are damaged.
    """

    world: World
    cold: bool = False
    mute: bool = False
    away: bool = False
    closed: bool = False
    wrong: bool = False
    imageless: bool = False
    spoilt: bool = False
    umbilical: Forwarded | None = None
    monitor: Callable[[], None] | None = None

    @property
    def models(self) -> tuple[str, str]:
        """Two files on the disk."""
        return os.path.join(self.world.folder, "one.gguf"), os.path.join(self.world.folder, "two.gguf")

    def install(self, setattr_: Any, ops: Callable[[str, Callable[..., Any]], None]) -> None:
        """Put the models in the place of what they stand for."""
        for each in self.models:
            with open(each, "w", encoding="ascii"):
                pass
        os.makedirs(self.directory)
        ops("ai_archive", lambda: None if self.imageless else AI_ARCHIVE)
        ops("ai_model", lambda path: {"why": f"{path}: it is damaged"} if self.spoilt else {"size": 1 << 28})
        setattr_(bay0.umbilicalport, "Umbilical", self._umbilical)
        setattr_(bay0.servers.kernelview, "look", self._look)
        setattr_(bay0.servers.Ends, "watch", lambda _ends, pid, ended: self.watch(pid, ended))
        setattr_(bay0.servers.Ends, "forget", lambda _ends: self.forget())
        # the governor sees a machine at ease: what it does is test_governor.py's, its levers are drawn
        setattr_(gauges, "PROC", os.path.join(self.world.folder, "proc"))
        setattr_(gauges, "is_guest", lambda: True)
        setattr_(sensors.Thermometer, "look", lambda _self: ())

    @property
    def directory(self) -> str:
        return os.path.join(self.world.folder, "umbilical")

    def _umbilical(self, *_: Any) -> Forwarded:
        self.umbilical = Forwarded(self.world.later, self.directory, ai=self)
        return self.umbilical

    def _look(self, directory: str) -> kernelview.View:
        if not cgroup.populated(directory):
            raise OSError(f"no process in {directory}")
        return view(self.world.spine.servers, directory, {"no new privileges": "0", "memory limit": "max"} if self.wrong else {})

    # ---- as the end of its monitor (Ends)

    def watch(self, _pid: int, ended: Callable[[], None]) -> None:
        self.monitor = ended

    def forget(self) -> None:
        self.monitor = None

    def monitor_died(self) -> None:
        call, self.monitor = self.monitor, None
        if call is not None:
            self.world.soon(call)

    # ---- life

    def power_cut(self) -> None:
        self.umbilical = self.monitor = None

    def mend(self) -> None:
        for vice in TROUBLES:
            setattr(self, vice, False)
        self.answered_again()

    def answered_again(self) -> None:
        """A forwarder is there: it is asked what the last one did not answer."""
        if self.umbilical is not None and not self.away:
            self.umbilical.ask_again()

    @property
    def lives(self) -> bool:
        """Its server could answer."""
        found = self.world.podman.containers.get(CONTAINER)
        group = self.world.kernel.group(found.id) if found is not None else None
        return group is not None and not group.asked_frozen


@define(eq=False)
class Forwarded(SimUmbilical):
    """One boot's umbilical, with its questions and their bounds."""

    ai: Ai = field(kw_only=True)
    _open: list[tuple[float, Callable[[], bool], Callable[[bool, str], None]]] = field(factory=list)

    def begin(self) -> None:
        if self.ai.closed:
            raise RefusedError("its socket cannot be made")

    def _ask(self, bound_s: float, takes_s: float, able: Callable[[], bool], done: Done, **value: Any) -> None:
        """Answer after `takes_s` if a forwarder is there and the server `able`; else at the bound, with a no."""
        over: list[bool] = []

        def answer(ok: bool, why: str) -> None:
            if not over:
                over.append(True)
                self._open.remove(question)
                done(ok, why, value if ok else {})

        question = (takes_s, able, answer)
        self._open.append(question)
        self.later(bound_s, functools.partial(answer, False, "was not done in time"))
        self.later(takes_s, functools.partial(self._try, question))

    def _try(self, question: Any) -> None:
        _, able, answer = question
        if not self.ai.away and able():
            answer(True, "")

    def ask_again(self) -> None:
        for question in self._open:
            self.later(question[0], functools.partial(self._try, question))

    def warm(self, done: Done) -> None:
        ai, bound = self.ai, self.ai.world.spine.bounds.umbilical_warm
        if ai.cold:
            self.later(WARM_S, lambda: done(False, "no token", {}))
        else:
            self._ask(bound, WARM_S, lambda: ai.lives, done, first_token_s=WARM_S)

    def drain(self, done: Done) -> None:
        self._ask(self.ai.world.spine.bounds.umbilical_drain, DRAIN_S, lambda: not self.ai.mute, done)

    def facts(self, done: Done) -> None:
        self._ask(self.ai.world.spine.bounds.umbilical, SAY_S, lambda: True, done)


__all__ = ["AI", "CONTAINER", "LEVERS", "TROUBLES", "Ai"]
