"""`sys://net` over its life: the real engine, tables, port, helpers and cables over a modelled kernel (netmodel.py)."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from attrs import define
from kit import Journal, Log, Timers
from netmodel import NetKernel
from parts import Ready

from bay0.base.bounds import Bounds
from bay0.control.outcomes import Outcomes
from bay0.effects import modules
from bay0.machines import MACHINES, boot
from bay0.machines.engine import Engine
from bay0.machines.net import NAME, E, S
from bay0.net import cables as cablemodule
from bay0.net import rules, scripts
from bay0.net.cables import Cables
from bay0.net.helpers import CLIENT, WATCHER
from bay0.net.methods import NetMethods
from bay0.net.port import BEAT_S, Net
from bay0.net.scripts import SPACE, Scripts
from bay0.net.watch import NetWatch
from bay0.tenants.port import Services

BOUND = b"bound ip=192.168.1.7 subnet=255.255.255.0 router=192.168.1.1 dns=192.168.1.1 lease=3600\n"
MOVED = b"3: card: <BROADCAST,MULTICAST> mtu 1500\n"


class Reactor(Timers):
    """The clock by hand, and descriptors that are looked at when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.watched: dict[int, Callable[[int], object]] = {}

    def watch(self, fd: int, _events: int, call: Callable[[int], object]) -> None:
        self.watched[fd] = call

    def unwatch(self, fd: int) -> None:
        del self.watched[fd]


@define(eq=False)
class Process:
    """A helper that runs."""

    bench: Bench
    name: str
    on_exit: Callable[[int], None]
    voice: socket.socket
    pid: int = 77
    ended: bool = False

    def signal(self, _number: int) -> None:
        self.bench.reactor.call_later(0.05, self.end)

    def kill(self) -> None:
        self.bench.reactor.call_soon(self.end)

    def end(self) -> None:
        if not self.ended:
            self.ended = True
            self.voice.close()
            self.bench.listen()
            del self.bench.processes[self.name]
            self.on_exit(9)

    def says(self, line: bytes) -> None:
        self.voice.sendall(line)
        self.bench.listen()


class Bench:
    """One boot of it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kernel = NetKernel(folder)
        self.reactor, self.log, self.journal = Reactor(), Log(), Journal()
        self.processes: dict[str, Process] = {}
        self.newest = "1"
        monkeypatch.setattr(cablemodule, "NETNS", str(folder))
        monkeypatch.setattr(modules, "aliases", lambda: iter(("virtio:d00000001v00001AF4", "virtio:d00000002v00001AF4")))
        monkeypatch.setattr(modules, "newest", lambda: self.newest)
        reactor: Any = self.reactor
        log: Any = self.log
        spawner: Any = SimpleNamespace(run=self.run, start=self.start)
        self.engine = engine = Engine("boot-1", self.reactor, lambda: int(self.reactor.now * 1000), log)
        engine.keep_with(self.journal)
        self.boot = engine.add("boot:this", MACHINES["boot"], boot.S.COMPLETE)
        services = Services(engine, reactor, spawner, Bounds(), log)
        commands = Scripts(self.run, Bounds())
        self.cables = Cables(reactor, log, commands)
        self.port = Net(
            engine, reactor, Bounds(), log, services, self.boot, lambda _name: 0, commands, self.cables, str(folder / SPACE)
        )
        engine.serve("net", self.port)
        engine.serve("tenant", services)
        self.net = engine.add(NAME, MACHINES["net"])
        replay: Any = SimpleNamespace(known=True, when_known=lambda _call: None, need_known=lambda: None)
        self.watch = NetWatch(engine, reactor, self.boot, replay)
        outcomes = Outcomes(engine, reactor, Bounds())
        port: Any = Ready(lambda: self.port)
        laid: Any = Ready(lambda: self.cables)
        self.methods = NetMethods(engine, self.boot, replay, outcomes, port, laid)

    def run(self, name: str, argv: Any, _deadline_s: float, done: Callable[[Any], None], **options: Any) -> None:
        result = self.kernel.run(name, list(argv), options.get("files", ()))
        self.reactor.call_later(0.01, lambda: done(result))

    def start(self, name: str, _argv: Any, on_exit: Callable[[int], None], *, keep: int, **_options: Any) -> Process:
        self.processes[name] = Process(self, name, on_exit, socket.socket(fileno=os.dup(keep)))
        return self.processes[name]

    def listen(self) -> None:
        for fd, call in list(self.reactor.watched.items()):
            if fd in self.reactor.watched:
                call(1)

    def wait(self, seconds: float = 10) -> S:
        self.reactor.advance(seconds)
        return self.net.now  # type: ignore[return-value]

    def send(self, event: E, seconds: float = 10, **more: Any) -> S:
        self.engine.send(NAME, event, **more)
        return self.wait(seconds)

    def says(self, line: bytes, seconds: float = 2) -> S:
        self.processes[CLIENT].says(line)
        return self.wait(seconds)

    def ask(self, method: str, **params: Any) -> Any:
        got: list[Any] = []
        try:
            getattr(self.methods, method)(params, got.append)
        except Exception as error:  # as the control server answers it
            return error
        self.reactor.advance(10)
        return got[0]

    def up(self) -> None:
        self.kernel.plug("virtio3")
        assert self.send(E.RAISE) is S.ASKING
        assert self.says(BOUND) is S.UP

    def attach(self, name: str = "p://work", slot: int = 0) -> str:
        got: list[str] = []
        space = name.replace("://", "__")
        self.cables.attach(name, space, slot, rules.persona([], lan=False, dns=True), got.append)
        self.reactor.advance(1)
        return got[0]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    made = Bench(tmp_path, monkeypatch)
    yield made
    for each in list(made.processes.values()):
        each.end()


# ---- up and down


def test_the_card_is_moved_asked_for_and_given_its_address(bench: Bench) -> None:
    bench.up()
    card = bench.kernel.inside()
    assert card is not None
    assert card.device == "virtio3"
    assert card.addresses == {"192.168.1.7/24": "3600"}
    assert bench.kernel.routes == {"default": "192.168.1.1"}
    assert bench.net.desired == "running"


def test_a_card_whose_driver_no_boot_has_loaded_comes_with_it(bench: Bench) -> None:
    bench.kernel.drivers = [bench.kernel.plug("virtio3")]
    bench.kernel.cards.clear()
    assert bench.send(E.RAISE) is S.ASKING
    assert "modprobe-cards" in bench.kernel.calls


def test_down_leaves_nothing(bench: Bench) -> None:
    bench.up()
    assert bench.send(E.LOWER) is S.OFF
    assert not bench.kernel.there(SPACE)
    assert bench.kernel.inside() is None
    assert bench.processes == {}
    assert bench.net.desired == "stopped"
    assert bench.wait(60) is S.OFF


def test_what_is_there_of_another_boot_is_not_believed(bench: Bench) -> None:
    (bench.kernel.pins / SPACE).write_text("")
    bench.kernel.rules[SPACE] = [{"table": {"family": "inet", "name": "other"}}]
    bench.up()
    assert {each["table"]["name"] for each in bench.kernel.rules[SPACE] if "table" in each} == {"net", "names"}


def test_a_namespace_that_cannot_be_made_has_failed_and_says_why(bench: Bench) -> None:
    bench.kernel.fails["net-raise"] = "no nft here"
    assert bench.send(E.RAISE) is S.FAILED
    assert "no nft here" in bench.journal.steps[-1].why
    del bench.kernel.fails["net-raise"]
    bench.kernel.plug("virtio3")
    assert bench.send(E.RAISE) is S.ASKING


@pytest.mark.parametrize("rule", ["spoofed", "from outside", "too many", "no way"])
def test_a_filter_that_is_not_whole_in_the_kernel_is_not_used(bench: Bench, rule: str) -> None:
    bench.kernel.loses = rule
    assert bench.send(E.RAISE) is S.FAILED
    assert "packet filter" in bench.journal.steps[-1].why


def test_a_filter_that_has_lost_a_rule_by_the_time_an_address_comes_gives_none(bench: Bench) -> None:
    bench.kernel.plug("virtio3")
    bench.send(E.RAISE)
    bench.kernel.loses = "spoofed"
    assert bench.says(BOUND, 0.3) is S.WAITING


# ---- cards and links


def test_without_a_card_it_waits_for_one(bench: Bench) -> None:
    assert bench.send(E.RAISE) is S.NO_CARD
    looks = bench.kernel.calls.count("net-look")
    assert bench.wait(30 * BEAT_S) is S.NO_CARD
    assert bench.kernel.calls.count("net-look") == looks, "nothing has come"
    bench.kernel.plug("virtio3")
    bench.newest = "2"
    assert bench.wait(2 * BEAT_S) is S.ASKING


def test_a_card_that_is_unplugged_and_back_gets_an_address_again(bench: Bench) -> None:
    bench.up()
    card = bench.kernel.inside()
    assert card is not None
    bench.kernel.cards.remove(card)
    bench.processes[WATCHER].says(b"Deleted " + MOVED)
    assert bench.wait() is S.NO_CARD
    assert CLIENT not in bench.processes
    bench.kernel.plug("virtio3", "eth7")
    bench.newest = "2"
    assert bench.wait(2 * BEAT_S) is S.ASKING
    assert bench.says(BOUND) is S.UP


def test_a_link_that_goes_and_comes_is_asked_about_anew(bench: Bench) -> None:
    bench.up()
    card = bench.kernel.inside()
    assert card is not None
    card.carrier = False
    bench.processes[WATCHER].says(MOVED)
    assert bench.wait() is S.NO_LINK
    card.carrier = True
    bench.processes[WATCHER].says(MOVED)
    assert bench.wait() is S.ASKING, "it may be another network"
    assert bench.says(BOUND) is S.UP


def test_news_that_change_nothing_leave_it_up_and_its_address_alone(bench: Bench) -> None:
    bench.up()
    sets = bench.kernel.calls.count("net-set")
    bench.processes[WATCHER].says(MOVED * 20)
    assert bench.wait() is S.UP
    assert bench.kernel.calls.count("net-set") == sets


def test_cables_of_personas_are_no_news(bench: Bench) -> None:
    bench.up()
    looks = bench.kernel.calls.count("net-look")
    bench.processes[WATCHER].says(b"9: v3@if2: <BROADCAST> mtu 1500\nDeleted 9: v3@if2: <BROADCAST> mtu 1500\n")
    bench.wait()
    assert bench.kernel.calls.count("net-look") == looks


def test_the_card_that_is_asked_for_is_taken_and_the_other_given_back(bench: Bench) -> None:
    bench.up()
    bench.kernel.plug("virtio5", "eth1")
    client = bench.processes[CLIENT]
    assert bench.ask("configure", device="virtio5")["state"] == "asking"
    card = bench.kernel.inside()
    assert card is not None
    assert card.device == "virtio5"
    assert bench.processes[CLIENT] is not client, "that one asks over the other card"
    assert [each.device for each in bench.kernel.cards if each.space == ""] == ["virtio3"]


def test_a_card_that_cannot_be_moved_keeps_no_other_from_being_used(bench: Bench) -> None:
    bench.kernel.plug("virtio1", "wlan0").stuck = True
    bench.up()
    card = bench.kernel.inside()
    assert card is not None
    assert card.device == "virtio3"


def test_what_fails_is_tried_again_with_a_pause_that_grows_and_for_good(bench: Bench) -> None:
    bench.kernel.plug("virtio3")
    bench.kernel.fails["net-move"] = "busy"
    bench.send(E.RAISE, 1)
    assert bench.wait(300) is S.WAITING
    assert bench.net.attempts > 3
    assert 5 < bench.kernel.calls.count("net-move") < 20
    bench.kernel.fails.clear()
    assert bench.wait(31) is S.ASKING


def test_a_namespace_that_somebody_made_anew_is_made_anew_by_us(bench: Bench) -> None:
    bench.up()
    bench.kernel.remove(SPACE)
    assert bench.wait(3 * BEAT_S) is S.ASKING
    assert bench.says(BOUND) is S.UP
    assert bench.kernel.there(SPACE)


# ---- addresses


def test_nobody_answers(bench: Bench) -> None:
    bench.kernel.plug("virtio3")
    bench.send(E.RAISE)
    assert bench.says(b"leasefail\n", 200) is S.ASKING
    assert bench.ask("status")["complaints"] == ["no DHCP server answers"]


def test_a_hostile_answer_is_not_applied_and_said(bench: Bench) -> None:
    bench.kernel.plug("virtio3")
    bench.send(E.RAISE)
    assert bench.says(BOUND.replace(b"ip=192.168.1.7", b"ip=10.137.0.1")) is S.ASKING
    assert bench.kernel.calls.count("net-set") == 0
    assert "10.137.0.0/16" in bench.ask("status")["complaints"][0]


def test_a_renewed_lease_is_applied_and_one_that_ended_is_asked_for_again(bench: Bench) -> None:
    bench.up()
    assert bench.says(BOUND.replace(b"bound", b"renew").replace(b"3600", b"7200")) is S.UP
    card = bench.kernel.inside()
    assert card is not None
    assert card.addresses == {"192.168.1.7/24": "7200"}
    assert bench.says(b"nak\n") is S.ASKING
    assert card.addresses == {}
    assert bench.says(BOUND.replace(b".7 ", b".8 ")) is S.UP
    assert list(card.addresses) == ["192.168.1.8/24"]


def test_a_client_that_dies_is_begun_anew_and_the_address_stays_meanwhile(bench: Bench) -> None:
    bench.up()
    bench.processes[CLIENT].kill()
    bench.wait(5)
    assert CLIENT in bench.processes
    card = bench.kernel.inside()
    assert bench.net.now is S.UP
    assert card is not None
    assert card.addresses
    bench.processes[WATCHER].kill()
    bench.wait(5)
    assert WATCHER in bench.processes


def test_a_static_address_needs_no_client(bench: Bench) -> None:
    bench.up()
    answer = bench.ask("configure", address="192.168.1.50/24", gateway="192.168.1.1", dns=["9.9.9.9"])
    assert answer["state"] == "up", answer
    card = bench.kernel.inside()
    assert card is not None
    assert card.addresses == {"192.168.1.50/24": "forever"}
    assert CLIENT not in bench.processes
    asking = bench.ask("configure", address=None)
    assert (asking["state"], asking["address"]) == ("asking", None)
    assert bench.says(BOUND) is S.UP
    assert list(card.addresses) == ["192.168.1.7/24"]


def test_a_wrong_configuration_is_refused_whole(bench: Bench) -> None:
    bench.up()
    refused = bench.ask("configure", address="10.137.0.7/24", dns=["127.0.0.1"])
    assert "address: 10.137.0.7" in str(refused)
    assert "dns: " in str(refused)
    assert bench.net.config == ""


# ---- personas


def test_a_persona_has_its_filter_before_it_starts_and_its_cable(bench: Bench) -> None:
    bench.up()
    assert bench.attach() == ""
    assert bench.kernel.cables == {"p__work": ("v0", "10.137.0.1")}
    shown = bench.ask("status")["cables"]
    assert shown == [{"persona": "p://work", "address": "10.137.0.1", "end": "v0", "laid": True}]


def test_a_persona_without_its_filter_does_not_start(bench: Bench) -> None:
    bench.up()
    bench.kernel.loses = "refused"
    assert "packet filter" in bench.attach()
    assert bench.kernel.cables == {}
    bench.kernel.loses = ""
    bench.kernel.fails["net-space"] = "no nft here"
    assert "no nft here" in bench.attach()


def test_a_persona_that_started_before_the_network_gets_its_cable_with_it(bench: Bench) -> None:
    assert bench.attach() == ""
    assert bench.kernel.cables == {}
    bench.up()
    assert bench.kernel.cables == {"p__work": ("v0", "10.137.0.1")}


def test_a_network_that_is_made_anew_has_every_cable_again(bench: Bench) -> None:
    bench.up()
    for slot, name in enumerate(("p://a", "p://b")):
        bench.attach(name, slot)
    bench.send(E.LOWER)
    assert bench.kernel.cables == {}
    assert [each["laid"] for each in bench.ask("status")["cables"]] == [False, False]
    bench.send(E.RAISE)
    assert bench.kernel.cables == {"p__a": ("v0", "10.137.0.1"), "p__b": ("v1", "10.137.0.2")}


def test_a_cable_that_could_not_be_laid_is_laid_with_the_next_change(bench: Bench) -> None:
    bench.up()
    bench.kernel.fails["net-cable"] = "for some reason"
    assert bench.attach() == "", "its filter is there, so nothing goes out"
    bench.kernel.fails.clear()
    bench.says(BOUND.replace(b"bound", b"renew"))
    assert "p__work" in bench.kernel.cables


def test_one_that_ends_is_unpinned_and_one_that_began_again_is_not(bench: Bench) -> None:
    bench.up()
    bench.attach()
    bench.cables.detach("p://work")
    bench.reactor.advance(1)
    assert not bench.kernel.there("p__work")
    bench.attach()
    bench.cables.detach("p://work")
    assert bench.attach() == ""
    assert bench.kernel.there("p__work")


def test_what_a_persona_has_is_counted(bench: Bench) -> None:
    bench.up()
    bench.attach()
    got: list[Any] = []
    bench.cables.count("p://work", got.append)
    bench.cables.count("p://nobody", got.append)
    bench.reactor.advance(1)
    assert got[0] is None
    assert got[1]["sent"] == {"bytes": 7, "packets": 1}
    assert {each["rule"] for each in got[1]["rules"]} == {"names", "private", "out", "refused", "from outside"}


# ---- boots


def test_no_cable_leads_to_a_net_without_its_filter(bench: Bench) -> None:
    bench.kernel.loses = "no way"
    assert bench.send(E.RAISE) is S.FAILED
    bench.kernel.loses = ""
    assert bench.attach() == ""
    assert bench.kernel.cables == {}, "or it would lead to all other cables"


@pytest.mark.parametrize("found", [state for state in S if state not in (S.OFF, S.FAILED)])
def test_a_boot_makes_nothing_of_what_it_found_and_then_what_is_wanted(bench: Bench, found: S) -> None:
    bench.kernel.plug("virtio3")
    stored = {"name": NAME, "state": found.value, "seq": 7, "attempts": 2, "desired": "running", "config": ""}
    bench.net = bench.engine.adopt(MACHINES["net"], stored)
    assert bench.send(E.CONVERGE, 0.5) is S.OFF
    assert bench.wait() is S.ASKING


def test_what_has_failed_is_tried_by_the_next_boot(bench: Bench) -> None:
    stored = {"name": NAME, "state": "failed", "seq": 7, "attempts": 2, "desired": "running", "config": ""}
    bench.net = bench.engine.adopt(MACHINES["net"], stored)
    bench.watch._soon()
    assert bench.wait() is S.NO_CARD


def test_what_is_not_wanted_stays_off(bench: Bench) -> None:
    stored = {"name": NAME, "state": "up", "seq": 7, "attempts": 0, "desired": "stopped", "config": ""}
    bench.net = bench.engine.adopt(MACHINES["net"], stored)
    bench.send(E.CONVERGE, 0.5)
    assert bench.wait(60) is S.OFF
    assert bench.kernel.calls == []


def test_each_script_is_known_to_the_model() -> None:
    texts = {name: value for name, value in vars(scripts).items() if name.isupper() and isinstance(value, str) and "ip " in value}
    assert set(texts) == {
        "RAISE", "LOWER", "LOOK", "MOVE", "RETURN", "BRING_UP", "SET", "UNSET", "NAMESPACE", "CABLE", "UNPIN", "COUNT"
    }  # fmt: skip


def test_another_network_behind_the_same_link_leaves_no_old_address(bench: Bench) -> None:
    bench.up()
    card = bench.kernel.inside()
    assert card is not None
    card.carrier = False
    bench.processes[WATCHER].says(MOVED)
    bench.wait()
    card.carrier = True
    bench.processes[WATCHER].says(MOVED)
    bench.wait()
    assert bench.says(BOUND.replace(b"192.168.1.", b"10.0.0.")) is S.UP
    assert list(card.addresses) == ["10.0.0.7/24"]
    assert bench.kernel.routes == {"default": "10.0.0.1"}


def test_other_name_servers_are_used_at_once_without_asking_again(bench: Bench) -> None:
    bench.up()
    client = bench.processes[CLIENT]
    assert bench.ask("configure", dns=["9.9.9.9"])["dns"] == ["9.9.9.9"]
    assert bench.processes[CLIENT] is client
