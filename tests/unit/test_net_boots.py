"""The network over whole boots, the power cut at every seam: the real wiring, worker and database, a modelled kernel (netmodel.py)."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bootkit import Machine
from kit import in_child
from netmodel import NetKernel

from bay0.effects import modules
from bay0.effects.spawn import Spawner
from bay0.init.spine import Spine
from bay0.machines.net import NAME, S
from bay0.net import cables as cablemodule
from bay0.net import port as portmodule
from bay0.net import rules
from bay0.net.helpers import CLIENT, WATCHER
from bay0.net.scripts import SPACE

BOUND = b"bound ip=192.168.1.7 subnet=255.255.255.0 router=192.168.1.1 dns=192.168.1.1 lease=3600\n"
HELPERS = (CLIENT, WATCHER)


class PowerCut(BaseException):
    """The machine loses its power now."""


class Computer:
    """A machine with a card, and a DHCP server at the other end of its cable."""

    def __init__(self, folder: Path) -> None:
        self.machine, self.folder, self.boots = Machine(folder), folder, 0
        self.cut_at: int | None = None  # the number of the script before which the power goes
        self.begins()
        modules.newest = lambda: ""  # type: ignore[assignment]  # this process ends with the test

    def begins(self) -> None:
        """Have power: nothing of a namespace is left."""
        pins = self.folder / f"netns-{self.boots}"
        pins.mkdir()
        self.kernel = NetKernel(pins)
        self.kernel.plug("virtio3")
        cablemodule.NETNS = str(pins)
        portmodule.HERE = str(pins / SPACE)

    def boot(self) -> Spine:
        self.boots += 1
        computer = self

        class Played(Spawner):
            def run(self, name: str, argv: Any, deadline_s: float, done: Any, env: Any = None, **options: Any) -> Callable[[], None]:
                if not name.startswith("net-"):
                    return super().run(name, argv, deadline_s, done, env, **options)
                if len(computer.kernel.calls) == computer.cut_at:
                    raise PowerCut
                result = computer.kernel.run(name, list(argv), options.get("files", ()))
                self.reactor.call_soon(lambda: done(result))
                return lambda: None

            def start(self, name: str, argv: Any, on_exit: Any, *, keep: int | None = None, **options: Any) -> Any:
                if name in HELPERS:
                    argv = ("sleep", "600")
                if name == CLIENT and keep is not None:
                    with socket.socket(fileno=os.dup(keep)) as voice:
                        voice.sendall(BOUND)
                return super().start(name, argv, on_exit, keep=keep, **options)

        spine = self.machine.boot(boot_id=f"{self.boots:04d}0000-aaaa", spawner=Played)
        here = portmodule.HERE
        build = spine.engine._ports["net"].part  # type: ignore[attr-defined]
        make = build.build
        build.build = lambda new: make(lambda *arguments: new(*arguments, here=here))
        return spine

    def until(self, spine: Spine, *states: S) -> None:
        net = spine.engine.instances
        self.machine.turn_until(spine, lambda: NAME in net and net[NAME].now in states and net[NAME].pending is None, f"{states}")

    def call(self, spine: Spine, method: str, **params: Any) -> Any:
        got: list[Any] = []
        spine.control.methods[method](params, got.append)
        self.machine.turn_until(spine, lambda: got, method)
        return got[0]

    def holds(self) -> None:
        """Check what must be true of a network that is up."""
        card = self.kernel.inside()
        assert card is not None
        assert list(card.addresses) == ["192.168.1.7/24"]
        listed = self.kernel._listing(SPACE)
        assert rules.missing(listed, (rules.net(), rules.names("192.168.1.1"))) == ""


@in_child
def test_a_network_that_is_wanted_comes_with_the_next_boot_and_one_that_is_not_does_not(tmp_path: Path) -> None:
    pc = Computer(tmp_path)
    spine = pc.machine.complete(pc.boot())
    pc.call(spine, "net.up")
    pc.until(spine, S.UP)
    pc.holds()
    pc.call(spine, "net.configure", dns=["9.9.9.9"])
    pc.machine.leave(spine)
    (tmp_path / "powered").unlink()
    pc.begins()
    spine = pc.machine.complete(pc.boot())
    pc.until(spine, S.UP)
    assert pc.call(spine, "net.status")["dns"] == ["9.9.9.9"]
    pc.call(spine, "net.down")
    pc.until(spine, S.OFF)
    pc.machine.leave(spine)
    pc.begins()
    spine = pc.machine.complete(pc.boot())
    pc.machine.turn_until(spine, lambda: pc.call(spine, "net.status")["state"] == "off")
    assert pc.kernel.calls == []
    pc.machine.leave(spine)


@pytest.mark.parametrize("seam", range(6))
@in_child
def test_wherever_the_power_goes_the_next_boot_has_the_network_whole(tmp_path: Path, seam: int) -> None:
    pc = Computer(tmp_path)
    spine = pc.machine.complete(pc.boot())
    pc.cut_at = seam
    try:
        spine.control.methods["net.up"]({}, lambda _answer: None)
        pc.until(spine, S.UP)
    except PowerCut:
        cut = True
    else:
        cut = False
    assert cut or seam >= len(pc.kernel.calls)
    assert cut, "a life has more scripts than that"
    pc.cut_at = None
    pc.machine.crash(spine)
    stored = pc.machine.stored().get(NAME, "off")
    assert stored in {state.value for state in S}
    pc.begins()
    spine = pc.machine.complete(pc.boot())
    pc.until(spine, S.UP)
    pc.holds()
    pc.machine.leave(spine)


@in_child
def test_a_machine_that_never_had_a_network_loads_nothing_of_it(tmp_path: Path) -> None:
    pc = Computer(tmp_path)
    spine = pc.machine.complete(pc.boot())
    assert pc.kernel.calls == []
    assert spine.engine._ports["net"].part.made is None  # type: ignore[attr-defined]
    pc.machine.leave(spine)
