"""The two processes that live in sys://net: who asks for an address, and who says that a link has changed.

Both are nobody there. They are tenants, so they are begun anew with a pause that grows. Neither may change
anything: what they say are lines on a pipe, which `bay0/net/lease.py` reads, or which only say that it is
time to look. Packets pass without them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import define, field

from bay0.machines import MACHINES, tenant
from bay0.machines.boot import LEAVES
from bay0.net.scripts import NETNS, SPACE
from bay0.pid1 import flow
from bay0.tenants.pipe import Pipe
from bay0.tenants.port import ServiceSpec

if TYPE_CHECKING:
    import socket

    from bay0.machines.engine import Engine
    from bay0.machines.instance import Instance
    from bay0.pid1.reactor import Reactor
    from bay0.tenants.port import Services

CLIENT, WATCHER = "sys://dhcp", "sys://link"
_ENTER = ("nsenter", f"--net={NETNS}/{SPACE}", "unshare", "--mount", "/usr/lib/bay0-net/enter")
ASK = (
    *_ENTER, "+net_raw,+net_bind_service", "udhcpc", "-f", "-i", "card", "-s", "/usr/lib/bay0-net/report",
    "-t", "4", "-T", "3", "-A", "8", "-V", "", "-o", "-O", "subnet", "-O", "router", "-O", "dns",
)  # fmt: skip
WATCH = (*_ENTER, "", "ip", "-o", "monitor", "link")
LIMITS: Mapping[str, str] = {"memory.max": str(16 << 20), "pids.max": "8"}
AT_REST = (tenant.S.STOPPED, tenant.S.FAILED)
LOOK_S = 0.1
CHUNK, LINES_A_TURN = 4096, 16
_OF_THE_CARD = re.compile(rb"(?:Deleted )?[0-9]+: card[:@ ]")  # not of a cable


@define(eq=False, repr=False)
class _Ear:
    """Hears the lines of one process after the other; whoever floods it is heard a little in each turn."""

    reactor: Reactor
    heard: Callable[[bytes], None]
    _pipe: Pipe = field(init=False)
    _rest: bytes = b""

    def __attrs_post_init__(self) -> None:
        self._pipe = Pipe(self.reactor, self._came, CHUNK)

    def lend(self) -> socket.socket:
        """Return the end that the next process writes to. `OSError` if there is no descriptor left."""
        self._rest = b""
        return self._pipe.lend()

    def _came(self, data: bytes) -> None:
        if not data:
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > CHUNK:
            self._rest = b"?"  # the end of a line that is no line of ours
        for line in lines[:LINES_A_TURN]:
            self.heard(line)


@define(eq=False, repr=False)
class Helpers:
    """Both. `told` hears each line of the client, `moved` that the card's link may have changed."""

    engine: Engine
    reactor: Reactor
    services: Services
    boot: Instance
    stored_seq: Callable[[str], int]
    told: Callable[[bytes], None]
    moved: Callable[[], None]
    _ears: dict[str, _Ear] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._ears = {CLIENT: _Ear(self.reactor, self.told), WATCHER: _Ear(self.reactor, self._line)}

    def _line(self, line: bytes) -> None:
        if _OF_THE_CARD.match(line):
            self.moved()

    def start(self, name: str) -> flow.Flow[None]:
        """Have one running; one that is being stopped is waited for."""
        argv = {CLIENT: ASK, WATCHER: WATCH}[name]
        self.services.specs.setdefault(name, ServiceSpec(argv, lend=self._ears[name].lend, limits=LIMITS))
        if name not in self.engine.instances:
            self.engine.add(name, MACHINES["tenant"], seq=self.stored_seq(name))
        helper = self.engine.instances[name]
        while helper.now in (tenant.S.STOPPING, tenant.S.CONVERGING) or helper.pending is not None:
            yield self._pause
        if helper.now in AT_REST and self.boot.now not in LEAVES:
            self.engine.send(name, tenant.E.START, "the network is wanted")

    def stop(self, *names: str) -> flow.Flow[None]:
        """End these, and wait until they are gone."""
        for name in names:
            if name in self.engine.instances:
                self.engine.send(name, tenant.E.STOP, "the network does without it")
        while any(self._there(name) for name in names):
            yield self._pause

    def _there(self, name: str) -> bool:
        helper = self.engine.instances.get(name)
        return helper is not None and (helper.now not in AT_REST or helper.pending is not None)

    def _pause(self, resume: flow.Resume) -> None:
        self.reactor.call_later(LOOK_S, partial(resume, None))

    def describe(self) -> list[dict[str, Any]]:
        """Return how both are."""
        found = [(name, self.engine.instances.get(name)) for name in (CLIENT, WATCHER)]
        return [
            {"name": name, "state": helper.now.value if helper else "stopped", "pid": self.services.pid(name)}
            for name, helper in found
        ]
