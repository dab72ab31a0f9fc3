"""What the states of `sys://net` owe. PID 1 waits for nothing here: each script is a command with a bound."""

from __future__ import annotations

import os
from collections.abc import Callable
from enum import Enum
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen

from bay0.effects import modules
from bay0.machines.boot import LEAVES
from bay0.machines.net import NAME, E, Effect, S
from bay0.net import config, links, rules
from bay0.net.helpers import CLIENT, WATCHER, Helpers
from bay0.net.lease import Lease, report
from bay0.net.scripts import (
    BRING_UP,
    LOOK,
    LOWER,
    MARK,
    MOVE,
    NETNS,
    RAISE,
    RETURN,
    SET,
    SPACE,
    UNSET,
    Scripts,
)
from bay0.pid1 import flow

if TYPE_CHECKING:
    from bay0.base.bounds import Bounds
    from bay0.effects.spawn import Result
    from bay0.machines.engine import Engine
    from bay0.machines.instance import Instance
    from bay0.net.cables import Cables
    from bay0.net.links import Link
    from bay0.pid1.reactor import Reactor
    from bay0.tenants.port import Services

BEAT_S = (
    5.0  # between two looks at whether the namespace is the one that was made, and whether a device has come
)
SETTLE_S = 0.3  # a link that changes says so several times
CARRIER_S, CARRIER_LOOKS = (
    0.5,
    6,
)  # until a card that was just brought up has found out what is at its other end
BACK_OFF_S = (1.0, 2.0, 5.0, 10.0, 30.0)
DEVICES_A_TURN = 32
HERE = f"{NETNS}/{SPACE}"
End = tuple[Enum, str]


@frozen
class Applied:
    """What was applied, to which card, until when on the reactor's clock."""

    lease: Lease
    index: int
    until: float


@define(eq=False, repr=False)
class Net:
    """The effect port. `boot`: this boot's machine. `stored_seq`: see Replay.stored_seq."""

    engine: Engine
    reactor: Reactor
    bounds: Bounds
    log: Any
    services: Services
    boot: Instance
    stored_seq: Callable[[str], int]
    scripts: Scripts
    cables: Cables
    here: str = HERE
    helpers: Helpers = field(init=False)
    card: Link | None = field(init=False, default=None)
    applied: Applied | None = field(init=False, default=None)
    without: tuple[str, ...] = field(
        init=False, default=()
    )  # what was left out of the last answer, or why it was refused
    _offered: Lease | None = field(init=False, default=None)
    _there: str = field(init=False, default="")  # the address that the card has, also when it counts no more
    _made: int | None = field(init=False, default=None)  # inode of the namespace
    _newest: str = field(init=False, default="")  # the kernel's last word on devices
    _news: Any = field(init=False, default=None)  # the timer of what is about to be looked at
    _asked: set[str] = field(init=False, factory=set)  # drivers

    def __attrs_post_init__(self) -> None:
        self.helpers = Helpers(
            self.engine, self.reactor, self.services, self.boot, self.stored_seq, self._told, self._soon
        )
        self.reactor.call_later(BEAT_S, self._beat)

    def start(self, instance: Instance, effect: Enum, token: int) -> None:
        """Begin what the state owes; its outcome is the machine's next event."""

        def owed() -> bool:
            return instance.committed is not None and instance.committed.n == token

        def ended(end: End | None) -> None:
            if end is not None:
                self.reactor.call_soon(partial(self.engine.outcome, instance.name, token, *end))

        flows: dict[Enum, Callable[[Instance], flow.Flow[End]]] = {
            Effect.RAISE: self._raise, Effect.LOOK: self._look, Effect.ASK: self._ask, Effect.SET: self._set,
            Effect.WAIT: self._wait, Effect.LOWER: self._lower,
        }  # fmt: skip
        flow.run(flow.as_long_as(owed, flows[effect](instance)), ended)

    # ---- the namespace

    def _raise(self, _instance: Instance) -> flow.Flow[End]:
        yield from self._let_go()
        yield from self.scripts.modules()
        tables = (rules.net(), rules.names(""))
        made: Result = yield self.scripts("net-raise", RAISE, text="".join(table.text() for table in tables))
        if not made.ok:
            return E.FAULT, made.reason()
        why = rules.missing(made.stdout, tables)
        if why:
            return E.FAULT, f"its packet filter is not as it must be: {why}"
        self._made = self._inode()
        self.cables.rose()
        yield self.cables.lay
        return E.DONE, ""

    def _lower(self, _instance: Instance) -> flow.Flow[End]:
        yield from self._let_go()
        if self._inode() is None:
            return E.DONE, ""
        gone: Result = yield self.scripts("net-lower", LOWER)
        return (E.DONE, "") if gone.ok or self._inode() is None else (E.FAULT, gone.reason())

    def _let_go(self) -> flow.Flow[None]:
        """End whoever lives in the namespace, or it would outlive its name."""
        self.card = self.applied = self._offered = self._made = None
        self._there = ""
        self.cables.fell()
        yield from self.helpers.stop(CLIENT, WATCHER)

    def _inode(self) -> int | None:
        try:
            return os.stat(self.here).st_ino
        except OSError:
            return None

    # ---- the card

    def _look(self, instance: Instance) -> flow.Flow[End]:
        if self._made is None or self._inode() != self._made:
            return E.GONE, ""
        kept = config.read(instance.config)
        found = yield from self._found(kept.device)
        if isinstance(found, str):
            self.card = None
            return E.FAULT, found
        if found is None:
            self._forget_link()
            yield from self.helpers.stop(CLIENT)
            return E.NO_CARD, f"no device {kept.device}" if kept.device else ""
        self.card = found
        yield from self.helpers.start(WATCHER)
        yield from self._carrier()
        if self.card is None or not self.card.carrier:
            self._forget_link()
            yield from self.helpers.stop(CLIENT)
            return E.NO_LINK, found.device
        return self._linked(kept)

    def _linked(self, kept: config.Config) -> End:
        """Say what follows now that the card has a link."""
        now, card = self.applied, self.card
        same = (
            now is not None
            and card is not None
            and now.index == card.index
            and self.reactor.clock() < now.until
        )
        if kept.static is not None:
            return (
                (E.DONE, "")
                if same and now is not None and now.lease == kept.static
                else (E.FIXED, kept.address)
            )
        if not same or now is None or now.lease.seconds is None:
            self.applied = None  # of another card, over, or configured
        elif self._offered is None:
            if not kept.dns or now.lease.dns == kept.dns:
                return E.DONE, ""
            self._offered = now.lease  # once more, with other name servers
        return E.LINKED, ""

    def _forget_link(self) -> None:
        self.applied = self._offered = None

    def _found(self, device: str) -> flow.Flow[Link | str | None]:
        """Return the card, moved into the namespace; None if there is none, or why it cannot be had."""
        inside, outside = yield from self._both()
        if inside is not None and device not in ("", inside.device):
            name = f"w{inside.index}"  # what it was called may be taken
            back: Result = yield self.scripts("net-return", RETURN, name)
            if not back.ok:
                return f"{inside.device} could not be given back: {back.reason()}"
            inside = None
        if inside is not None:
            return inside
        if not links.ordered(outside, device):
            yield from self._drivers()
            inside, outside = yield from self._both()
        yield from self.helpers.stop(CLIENT)  # it spoke over another one
        self._there = ""
        return (yield from self._moved(links.ordered(outside, device)))

    def _moved(self, cards: tuple[Link, ...]) -> flow.Flow[Link | str | None]:
        """Move the first that can be: one for Wi-Fi cannot, and must not keep a cable's from being used."""
        whys = []
        for card in cards:
            moved: Result = yield self.scripts("net-move", MOVE, card.name)
            if moved.ok:
                inside, _ = yield from self._both()
                there = inside is not None and inside.device == card.device
                return inside if there else f"{card.device} is not where it was moved to"
            whys.append(f"{card.device} could not be moved: {moved.reason()}")
        return "; ".join(whys) or None

    def _both(self) -> flow.Flow[tuple[Link | None, tuple[Link, ...]]]:
        """Return the card in the namespace, and the cards where the kernel makes them."""
        seen: Result = yield self.scripts("net-look", LOOK)
        here, _, there = seen.stdout.partition(f"\n{MARK}\n")
        inside = links.read(here.strip())
        return (inside[0] if inside else None), links.read(there.strip())

    def _drivers(self) -> flow.Flow[None]:
        """Load the drivers of network cards, which no boot has loaded."""
        self._newest = modules.newest()
        devices, found = modules.aliases(), list[str]()
        while some := tuple(islice(devices, DEVICES_A_TURN)):
            found += some
            yield self._next_turn
        wanted = [alias for alias in modules.network(found) if alias not in self._asked]
        if wanted:
            self._asked.update(wanted)
            yield lambda resume: self.scripts.run(
                "modprobe-cards", ["modprobe", "-a", "-q", *wanted], self.bounds.modprobe, resume
            )

    def _next_turn(self, resume: flow.Resume) -> None:
        self.reactor.call_soon(partial(resume, None))

    def _carrier(self) -> flow.Flow[None]:
        """Bring the card up, and see whether it has a link."""
        for _ in range(CARRIER_LOOKS):
            seen: Result = yield self.scripts("net-link", BRING_UP)
            found = links.read(seen.stdout.strip())
            self.card = found[0] if seen.ok and found else None
            if self.card is None or self.card.carrier:
                return
            yield partial(self._later, CARRIER_S)

    # ---- its address

    def _ask(self, instance: Instance) -> flow.Flow[End]:
        """Wait for an answer of the client's; one that came meanwhile counts."""
        step = instance.committed
        if step is not None and step.event == E.LOST.value:
            yield self.scripts("net-unset", UNSET)
            self.applied, self._there = None, ""
        yield from self.helpers.start(CLIENT)
        while self._offered is None:
            yield partial(self._later, SETTLE_S)
        return E.LEASED, f"{self._offered.address}/{self._offered.length}"

    def _set(self, instance: Instance) -> flow.Flow[End]:
        kept, card = config.read(instance.config), self.card
        lease = kept.static or self._offered
        if lease is None or card is None:
            return E.FAULT, "there is nothing to apply"
        if kept.static is not None:
            yield from self.helpers.stop(CLIENT)
        elif kept.dns:
            lease = Lease(lease.address, lease.length, lease.gateway, kept.dns, lease.seconds, lease.without)
        server = lease.dns[0] if lease.dns else ""
        old = self._before(lease)
        tables = (rules.net(), rules.names(server))
        words = (f"{lease.address}/{lease.length}", str(lease.seconds or "forever"), lease.gateway, old)
        done: Result = yield self.scripts("net-set", SET, *words, text=tables[1].text())
        if not done.ok:
            return E.FAULT, done.reason()
        why = rules.missing(done.stdout, tables)
        if why:
            return E.FAULT, f"its packet filter is not as it must be: {why}"
        until = self.reactor.clock() + lease.seconds if lease.seconds else float("inf")
        self.applied, self._offered, self.without = Applied(lease, card.index, until), None, lease.without
        self._there = words[0]
        if lease.without:
            self.log.warning("left out of what the network said", what="; ".join(lease.without))
        yield self.cables.lay
        return E.DONE, f"{words[0]} for {words[1]} s" if lease.seconds else words[0]

    def _before(self, lease: Lease) -> str:
        """Return the address that the card has beside the new one, or ""."""
        return "" if self._there == f"{lease.address}/{lease.length}" else self._there

    def _wait(self, instance: Instance) -> flow.Flow[End]:
        yield partial(self._later, BACK_OFF_S[min(max(0, instance.attempts - 1), len(BACK_OFF_S) - 1)])
        return E.WAITED, ""

    def _later(self, seconds: float, resume: flow.Resume) -> None:
        self.reactor.call_later(seconds, partial(resume, None))

    # ---- what happens by itself

    def _told(self, line: bytes) -> None:
        """Hear the client."""
        said, net = report(line), self.engine.instances.get(NAME)
        if net is None:
            return
        if said.lease is not None:
            self._offered = said.lease
            if net.now is S.UP:
                self.engine.send(NAME, E.LEASED, f"{said.lease.address}/{said.lease.length}")
            return
        self.log.info("the DHCP client says", what=said.why)
        self.without = (said.why,) if not said.lost else self.without
        if said.lost and net.now is S.UP:
            self._offered = None
            self.engine.send(NAME, E.LOST, said.why)

    def _soon(self) -> None:
        """Look at the link, once it has said all."""
        if self._news is not None:
            self._news.cancel()
        self._news = self.reactor.call_later(SETTLE_S, self._send_news)

    def _send_news(self) -> None:
        self._news = None
        net = self.engine.instances.get(NAME)
        if net is None or self.boot.now in LEAVES or net.now in (S.OFF, S.FAILED, S.LOWERING):
            return
        if net.definition.spec(net.now).busy is not None and net.now is not S.ASKING:
            self._soon()  # it may have looked already
        else:
            self.engine.send(NAME, E.NEWS)

    def _beat(self) -> None:
        """See what nobody says: a namespace that was made anew by hand, a device that was plugged in."""
        net = self.engine.instances.get(NAME)
        if net is not None and net.now in (S.NO_CARD, S.NO_LINK, S.UP):
            plugged = net.now is S.NO_CARD and modules.newest() != self._newest
            if plugged or self._inode() != self._made:
                self._newest = modules.newest()
                self._soon()
        self.reactor.call_later(BEAT_S, self._beat)

    def describe(self) -> dict[str, Any]:
        """Return the card, the address and the cables."""
        card, now = self.card, self.applied
        left = (
            None
            if now is None or now.until == float("inf")
            else max(0, round(now.until - self.reactor.clock()))
        )
        return {
            "card": None
            if card is None
            else {"device": card.device, "bus": card.bus, "mac": card.mac, "link": card.carrier},
            "address": None if now is None else f"{now.lease.address}/{now.lease.length}",
            "gateway": None if now is None else now.lease.gateway or None,
            "dns": [] if now is None else list(now.lease.dns),
            "lease_left_s": left,
            "complaints": list(self.without),
            "helpers": self.helpers.describe(),
            "cables": self.cables.describe(),
        }
