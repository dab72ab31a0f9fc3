"""Ready by proof.

Who answers at the compositor's two sockets is the process that was started, and offers what it may.

A file of that name proves nothing, nor does a connection. The kernel says who listens (SO_PEERCRED) and that
he lives (his pidfd); the pid cannot be somebody else's, because only PID 1 reaps its child. Who is not the
compositor is never spoken to: the connection is closed before a byte is sent.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import define, field

from bay0.effects import peers
from bay0.effects.peers import Answerer
from bay0.screen import registry
from bay0.screen.ipc import Ask
from bay0.screen.sway import Sway
from bay0.screen.wayland import Display

if TYPE_CHECKING:
    import socket

    from bay0.pid1.reactor import Reactor, Timer

AGAIN_S = 0.1  # until somebody listens there
EVENTS = ("window", "binding", "output", "shutdown")
BOUND_S = 3600.0  # of the first answers: the state's own deadline is shorter, and ends this


def shown(found: Answerer) -> str:
    """Return for people who answers somewhere."""
    return (
        f"pid {found.pid} ({found.name}), uid {found.uid}, cgroup {found.group}"
        if found.alive
        else f"pid {found.pid}, which is dead"
    )


def foreign(found: Answerer, pid: int, uid: int) -> bool:
    """Tell whether who answers is not the process `pid` that we started as `uid`."""
    return not found.alive or (found.pid, found.uid) != (pid, uid)


@define(eq=False, repr=False)
class Proof:
    """One attempt, for the process `pid`.

    `proved()`, or `failed(why)`: what it offers is not what it must be; once, or neither.

    `impostor(path, who)`: somebody else answers at a socket; said once for each, and it is tried again. After
    `proved`, `lost(why)` says that it does not answer any more.
    """

    reactor: Reactor
    pid: int
    proved: Callable[[], None]
    failed: Callable[[str], None]
    impostor: Callable[[str, str], None]
    event: Callable[[int, Any], None]
    uid: int
    wayland_path: str
    ipc_path: str
    wayland: Display | None = None
    sway: Sway | None = None
    version: str = ""
    outputs: list[dict[str, Any]] = field(factory=list)
    _whole: set[str] = field(init=False, factory=set)  # what has answered: "wayland", "ipc"
    _timer: Timer | None = None
    _named: set[tuple[str, int]] = field(init=False, factory=set)
    _lost: Callable[[str], None] | None = None

    def begin(self) -> None:
        """Look for both sockets from now on."""
        if self.wayland is None and (peer := self._connect(self.wayland_path)) is not None:
            self.wayland = Display(self.reactor, peer, partial(self._gone, "wayland"))
            self.wayland.look(BOUND_S, partial(self._answered, "wayland"))
        if self.sway is None and (peer := self._connect(self.ipc_path)) is not None:
            self.sway = Sway(self.reactor, peer, partial(self._gone, "ipc"), self.event)
            self.sway.ask(Ask.GET_VERSION, BOUND_S, self._take_version)
            self.sway.ask(Ask.GET_OUTPUTS, BOUND_S, self._take_outputs)
            self.sway.subscribe(EVENTS, BOUND_S, self._subscribed)
        if self.wayland is None or self.sway is None:
            self._timer = self.reactor.call_later(AGAIN_S, self.begin)

    def close(self) -> None:
        """Hang up on both, and try no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._lost = None
        for each in (self.wayland, self.sway):
            if each is not None:
                each.close()

    def watch(self, bound_s: float, lost: Callable[[str], None]) -> None:
        """Ask both for something small.

        One that has not answered in `bound_s` seconds, or that hangs up at any time, is `lost`.
        """
        self._lost = lost
        if self.wayland is None or self.sway is None:  # it hung up as it was proved
            self.reactor.call_soon(lambda: lost("it hung up"))
        else:
            self.wayland.sync(bound_s, lambda: None)
            self.read_outputs(bound_s)

    def read_outputs(self, bound_s: float) -> None:
        """Read again what outputs there are."""
        if self.sway is not None:
            self.sway.ask(Ask.GET_OUTPUTS, bound_s, self._take_outputs)

    def spare(self, lost: Callable[[str], None]) -> Display | None:
        """Return another connection to the same compositor's Wayland socket; None if it is not the one that answers there."""
        peer = self._connect(self.wayland_path)
        return Display(self.reactor, peer, lost) if peer is not None else None

    @property
    def globals(self) -> list[str]:
        """What it offers, sorted."""
        return sorted(self.wayland.offered.values()) if self.wayland is not None else []

    def _connect(self, path: str) -> socket.socket | None:
        """Return a connection to the compositor's own socket at `path`.

        None while it is not there, or somebody else's.
        """
        try:
            peer = peers.connect(path)
        except OSError:
            return None
        who = peers.identify(peer)
        if not foreign(who, self.pid, self.uid):
            return peer
        peer.close()
        if (path, who.pid) not in self._named:
            self._named.add((path, who.pid))
            self.impostor(path, shown(who))
        return None

    def _gone(self, what: str, why: str) -> None:
        """Try anew, while nothing is proved; after that it is lost."""
        if self._lost is not None:
            lost, self._lost = self._lost, None
            lost(why)
            return
        self._whole.discard(what)
        if what == "wayland":
            self.wayland = None
        else:
            self.sway = None
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.reactor.call_later(AGAIN_S, self.begin)

    def _take_version(self, found: Any) -> None:
        self.version = str(found["human_readable"])[:40]

    def _take_outputs(self, found: Any) -> None:
        self.outputs = [_output(each) for each in found][:OUTPUTS_MAX]

    def _subscribed(self, found: Any) -> None:
        if found.get("success") is not True:
            raise ValueError("it does not let us subscribe")
        self._answered("ipc")

    def _answered(self, what: str) -> None:
        self._whole.add(what)
        if self._whole != {"wayland", "ipc"} or self.wayland is None:
            return
        why = registry.fault(self.wayland.offered)
        if why:
            self.failed(why)
        else:
            self.proved()


OUTPUTS_MAX = 16


def _output(found: dict[str, Any]) -> dict[str, Any]:
    mode = found.get("current_mode") or {}
    texts = {name: str(found.get(name) or "")[:60] for name in ("name", "make", "model")}
    numbers = {
        "width": int(mode.get("width", 0)),
        "height": int(mode.get("height", 0)),
        "refresh_hz": round(int(mode.get("refresh", 0)) / 1000, 1),
    }
    return {**texts, **numbers, "on": bool(found.get("active")) and bool(found.get("power", True))}
