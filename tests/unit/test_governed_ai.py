"""The governor's first lever is the AI: slowed, frozen, made to yield, and back when there is room. The real machine, keeper and brain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from kit import Log
from parts import Ready
from serverkit import Bench
from test_keeper import STEP_S, Kernel, Thermometer

from bay0.ai.port import NAME
from bay0.effects import cgroup, gauges
from bay0.effects.ceilings import Ceilings
from bay0.machines import MACHINES
from bay0.machines.server import E, S
from bay0.thermal.governor import Keeper
from bay0.thermal.ladder import Rung
from bay0.thermal.reserve import Reserve


class Govern:
    """The AI serves; nobody is in front, so the console stands for those that are protected."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, top: Path) -> None:
        monkeypatch.setattr(cgroup, "ROOT", str(top / "cgroup"))
        self.bench, self.kernel = Bench(monkeypatch), Kernel(top)
        monkeypatch.setattr(gauges, "PROC", str(top / "proc"))
        self.kernel.write("proc/meminfo", "MemTotal:       1000 kB\nMemFree:  10 kB\nMemAvailable:    100 kB\n")
        self.kernel.write("proc/stat", "cpu  10 0 10 80 0 0 0 0 0 0\n")
        self.kernel.write("proc/cpuinfo", "flags : fpu hypervisor\n")
        for kind in ("cpu", "memory", "io"):
            self.kernel.pressure("", kind, 0)
        for name in ("init", "services/console", "services/umbilical"):
            for kind in ("cpu", "memory"):
                self.kernel.pressure(name, kind, 0)
        self.bench.engine.add("focus", MACHINES["focus"])
        self.serve()
        self.log = Log()
        ceilings = Ceilings()
        servers = Ready(lambda: self.bench.servers)
        limits = (Reserve(self.log, ceilings), ceilings)
        made: Any = (self.bench.engine, self.bench.timers, self.log, self.bench.boot, self.bench.port, servers, Thermometer(), *limits)
        self.keeper = Keeper(*made)
        self.keeper.begin()

    def serve(self) -> None:
        """Let it be warm, with the files of its cgroup."""
        if self.bench.ai.now is S.STOPPED:
            self.bench.go(E.START)
        self.group = f"tenants/libpod-{self.bench.servers.container(NAME)}"
        for name, text in (
            ("cpu.weight", "20\n"), ("cpu.max", "100000 100000\n"), ("memory.current", f"{200 << 20}\n"), ("memory.events", "low 0\nmax 0\n"),
            ("cpu.stat", "usage_usec 0\nthrottled_usec 0\n"),
        ):  # fmt: skip
            self.kernel.write(f"cgroup/{self.group}/{name}", text)
        self.bench.umbilical.answer("warm", first_token_s=1.0)
        self.bench.timers.advance(0.1)

    def pressed(self, kind: str, seconds: float, percent: float = 60, uses: float = 0.8, whom: str = "services/console") -> None:
        for _ in range(int(seconds / STEP_S)):
            self.kernel.pressure(whom, kind, percent)
            self.kernel.uses(self.group, uses)
            self.bench.timers.advance(STEP_S)

    def calm(self, seconds: float) -> None:
        self.pressed("cpu", seconds, percent=0, uses=0)

    def of(self, file: str) -> str:
        return self.kernel.read(f"cgroup/{self.group}/{file}").strip()

    def rung(self) -> Rung:
        held = self.keeper.brain.held.get(NAME)
        return held.rung if held is not None else Rung.FREE


@pytest.fixture
def govern(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Govern:
    return Govern(monkeypatch, tmp_path)


def test_when_others_wait_for_a_processor_it_is_slowed_and_then_frozen_and_the_umbilical_says_so(govern: Govern) -> None:
    govern.pressed("cpu", 14)
    assert (govern.of("cpu.weight"), govern.of("cpu.max")) == ("10", "100000 100000")
    assert govern.kernel.read("cgroup/tenants/cpu.weight") == "10", "against the personas, where a weight counts"
    govern.pressed("cpu", 54)
    assert govern.of("cpu.max") == "10000 100000"
    assert govern.bench.ai.now is S.READY
    govern.pressed("cpu", 20)
    assert govern.bench.ai.now is S.PAUSED
    assert govern.bench.umbilical.states()[-1] == "paused"


def test_frozen_it_comes_back_rung_by_rung_when_all_is_calm(govern: Govern) -> None:
    govern.pressed("cpu", 68)
    govern.pressed("cpu", 22)
    assert govern.bench.ai.now is S.PAUSED
    govern.calm(80)
    assert govern.bench.ai.now is S.READY
    govern.calm(300)
    assert (govern.of("cpu.weight"), govern.of("cpu.max"), govern.rung()) == ("20", "100000 100000", Rung.FREE)
    assert govern.kernel.read("cgroup/tenants/cpu.weight") == "20"


def test_what_the_forwarder_feels_while_it_serves_the_ai_is_no_reason(govern: Govern) -> None:
    govern.pressed("cpu", 60, whom="services/umbilical")
    assert govern.rung() is Rung.FREE


def test_when_memory_is_short_it_yields_at_once_and_is_started_again_when_there_is_room(govern: Govern) -> None:
    govern.pressed("memory", 14)
    assert govern.bench.ai.now is S.STOPPED
    assert (govern.bench.ai.desired, govern.rung()) == ("running", Rung.STOPPED)
    assert govern.bench.umbilical.states()[-1] == "stopped"
    govern.pressed("memory", 40, percent=0, uses=0)
    assert govern.bench.ai.now is S.STOPPED, "not before it has been calm for a while"
    govern.pressed("memory", 40, percent=0, uses=0)
    assert govern.bench.ai.now is S.WARMING
    govern.serve()
    govern.calm(10)
    assert (govern.bench.ai.now, govern.rung()) == (S.READY, Rung.FREE)


def test_frozen_and_memory_short_it_yields_too(govern: Govern) -> None:
    govern.pressed("cpu", 68)
    govern.pressed("cpu", 22)
    assert govern.bench.ai.now is S.PAUSED
    govern.pressed("memory", 30, uses=0)
    assert govern.bench.ai.now is S.STOPPED


def test_who_stops_it_meanwhile_has_the_last_word(govern: Govern) -> None:
    govern.pressed("memory", 14)
    govern.bench.engine.send(NAME, E.START)
    govern.bench.timers.advance(1)
    govern.bench.engine.send(NAME, E.STOP)
    govern.bench.timers.advance(5)
    govern.pressed("memory", 200, percent=0, uses=0)
    assert (govern.bench.ai.now, govern.bench.ai.desired, govern.rung()) == (S.STOPPED, "stopped", Rung.FREE)


def test_while_it_warms_up_it_yields_where_it_would_be_frozen(govern: Govern) -> None:
    govern.bench.go(E.STOP, 1)
    govern.bench.umbilical.answer("drain")
    govern.bench.timers.advance(3)
    govern.bench.go(E.START)
    govern.group = f"tenants/libpod-{govern.bench.servers.container(NAME)}"
    for name, text in (("cpu.weight", "20\n"), ("cpu.max", "100000 100000\n"), ("memory.current", "1000\n"), ("cpu.stat", "usage_usec 0\n")):
        govern.kernel.write(f"cgroup/{govern.group}/{name}", text)
    assert govern.bench.ai.now is S.WARMING
    govern.pressed("cpu", 100)
    assert (govern.bench.ai.now, govern.bench.ai.desired) == (S.STOPPED, "running")


def test_whoever_stops_it_while_it_has_yielded_has_the_last_word(govern: Govern) -> None:
    govern.pressed("memory", 14)
    assert (govern.bench.ai.now, govern.bench.ai.desired) == (S.STOPPED, "running")
    govern.bench.engine.send(NAME, E.STOP)
    govern.bench.timers.advance(1)
    assert govern.bench.ai.desired == "stopped"
    govern.pressed("memory", 200, percent=0, uses=0)
    assert govern.bench.ai.now is S.STOPPED
