"""The acting half of the governor: what it reads from a tree like the kernel's, what it writes there, and what it asks of machines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from kit import Log
from parts import Ready
from personakit import PLAY, WORK, Bench

from bay0.effects import cgroup, gauges
from bay0.effects.ceilings import Ceilings
from bay0.effects.readings import Sensor
from bay0.machines import MACHINES, boot, focus
from bay0.machines.focus import NAME as FOCUS
from bay0.machines.focus import E as FocusEvent
from bay0.machines.persona import E
from bay0.thermal.governor import EAGER_S, IDLE_S, WATCHFUL_S, Keeper
from bay0.thermal.reserve import Reserve

CALM = "some avg10=0.00 avg60=0.00 avg300=0.00 total={}\nfull avg10=0.00 avg60=0.00 avg300=0.00 total={}\n"
STEP_S = 2.0


@define
class Thermometer:
    sensors: tuple[Sensor, ...] = ()
    closed: bool = False

    def look(self) -> tuple[Sensor, ...]:
        return self.sensors

    def close(self) -> None:
        self.closed = True


@define(eq=False)
class Kernel:
    """Files as the kernel shows them, below a folder."""

    top: Path
    totals: dict[str, float] = field(factory=dict)

    def write(self, path: str, text: str) -> None:
        file = self.top / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def read(self, path: str) -> str:
        return (self.top / path).read_text()

    def pressure(self, group: str, kind: str, percent: float, seconds: float = STEP_S) -> None:
        """Some and full are alike; the totals go up as the percentage says."""
        path = f"cgroup/{group}/{kind}.pressure" if group else f"proc/pressure/{kind}"
        self.totals[path] = self.totals.get(path, 0) + percent / 100 * seconds * 1e6
        line = f"avg10={percent:.2f} avg60=0.00 avg300=0.00 total={int(self.totals[path])}"
        self.write(path, f"some {line}\nfull {line}\n")

    def persona(self, container: str, memory: int = 64 << 20) -> str:
        group = f"personas/libpod-{container}"
        for name, text in (
            ("cpu.weight", "100\n"), ("cpu.max", "100000 100000\n"), ("memory.current", f"{memory}\n"), ("memory.events", "low 0\nmax 0\n"),
            ("cpu.stat", "usage_usec 0\nthrottled_usec 0\n"),
        ):  # fmt: skip
            self.write(f"cgroup/{group}/{name}", text)
        for kind in ("cpu", "memory"):
            self.pressure(group, kind, 0)
        return group

    def uses(self, group: str, processors: float, seconds: float = STEP_S) -> None:
        key = f"used {group}"
        self.totals[key] = self.totals.get(key, 0) + processors * seconds * 1e6
        self.write(f"cgroup/{group}/cpu.stat", f"usage_usec {int(self.totals[key])}\nthrottled_usec 0\n")


class Govern:
    """Two personas that run, one in front, the governor beside them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, top: Path) -> None:
        self.bench, self.kernel, self.thermometer = Bench(monkeypatch), Kernel(top), Thermometer()
        monkeypatch.setattr(gauges, "PROC", str(top / "proc"))
        self.kernel.write("proc/meminfo", "MemTotal:       1000 kB\nMemFree:  10 kB\nMemAvailable:    100 kB\n")
        self.kernel.write("proc/stat", "cpu  10 0 10 80 0 0 0 0 0 0\n")
        self.kernel.write("proc/cpuinfo", "flags : fpu hypervisor\n")
        for kind in ("cpu", "memory", "io"):
            self.kernel.pressure("", kind, 0)
        self.engine = self.bench.engine
        self.engine.add(FOCUS, MACHINES["focus"])
        self.groups = {}
        monkeypatch.setattr(cgroup, "ROOT", str(top / "cgroup"))
        for name in (WORK, PLAY):  # who starts after the switch runs behind
            self.bench.running(name)
            self.groups[name] = self.kernel.persona(str(self.bench.port.container(name)))
            if name == WORK:
                self.front(WORK)
        for file in ("personas/memory.max", "init/memory.min", "services/memory.min"):
            self.kernel.write(f"cgroup/{file}", "max\n")
        for name in ("init", "services/console", "services/umbilical"):
            for kind in ("cpu", "memory"):
                self.kernel.pressure(name, kind, 0)
        self.log = Log()
        ceilings = Ceilings()
        none = Ready(lambda: None)
        limits = (Reserve(self.log, ceilings), ceilings)
        made: Any = (self.engine, self.bench.timers, self.log, self.bench.boot, self.bench.port, none, self.thermometer, *limits)
        self.keeper = Keeper(*made)

    def front(self, name: str) -> None:
        """Bring one to the front; the others are frozen."""
        self.engine.send(FOCUS, FocusEvent.FOCUS, name, config=focus.config(name))
        self.bench.timers.advance(5)

    def pressed(self, kind: str, seconds: float, percent: float = 60, uses: float = 0.8) -> None:
        """Let the one in front wait for so long."""
        for _ in range(int(seconds / STEP_S)):
            self.kernel.pressure(self.groups[WORK], kind, percent)
            self.kernel.uses(self.groups[PLAY], uses)
            self.bench.timers.advance(STEP_S)

    def of(self, name: str, file: str) -> str:
        return self.kernel.read(f"cgroup/{self.groups[name]}/{file}").strip()

    def state(self, name: str) -> str:
        return str(self.engine.instances[name].now.value)


@pytest.fixture
def govern(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Govern:
    made = Govern(monkeypatch, tmp_path)
    made.keeper.begin()
    made.bench.timers.advance(0)
    return made


def test_when_the_one_in_front_waits_for_a_processor_the_one_behind_loses_weight_then_time(govern: Govern) -> None:
    govern.pressed("cpu", 14)
    assert (govern.of(PLAY, "cpu.weight"), govern.of(PLAY, "cpu.max")) == ("50", "100000 100000")
    govern.pressed("cpu", 20)
    assert govern.of(PLAY, "cpu.max") == "50000 100000"
    govern.pressed("cpu", 60)
    assert govern.of(PLAY, "cpu.max") == "10000 100000"
    assert (govern.of(WORK, "cpu.weight"), govern.of(WORK, "cpu.max")) == ("100", "100000 100000")
    causes = govern.log.of("restrained")
    assert causes[0]["persona"] == PLAY
    assert causes[0]["cause"] == "cpu"
    assert "p://work waited for a processor 60 %" in causes[0]["why"]


def test_when_it_is_calm_again_weight_and_time_come_back_one_rung_a_minute(govern: Govern) -> None:
    govern.pressed("cpu", 34)
    assert govern.of(PLAY, "cpu.max") == "50000 100000"
    govern.pressed("cpu", 70, percent=0, uses=0)
    assert (govern.of(PLAY, "cpu.weight"), govern.of(PLAY, "cpu.max")) == ("50", "100000 100000")
    govern.pressed("cpu", 70, percent=0, uses=0)
    assert (govern.of(PLAY, "cpu.weight"), govern.of(PLAY, "cpu.max")) == ("100", "100000 100000")
    assert [line["dest"] for line in govern.log.of("released")] == ["half weight", "free"]


def test_one_whose_limit_is_changed_while_it_is_restrained_is_restrained_by_the_new_one_and_gets_that_back(govern: Govern) -> None:
    govern.pressed("cpu", 34)
    assert govern.of(PLAY, "cpu.max") == "50000 100000"
    container = str(govern.bench.port.container(PLAY))
    govern.kernel.write(f"cgroup/{govern.groups[PLAY]}/cpu.max", "300000 100000\n")  # as the command did that changed it
    govern.keeper.limited(PLAY, "another", 3.0)
    assert govern.of(PLAY, "cpu.max") == "300000 100000", "news of an older container is none"
    govern.keeper.limited(PLAY, container, 3.0)
    assert govern.of(PLAY, "cpu.max") == "150000 100000"
    govern.pressed("cpu", 140, percent=0, uses=0)
    assert (govern.of(PLAY, "cpu.weight"), govern.of(PLAY, "cpu.max")) == ("100", "300000 100000")
    govern.keeper.limited(WORK, str(govern.bench.port.container(WORK)), 3.0)
    assert govern.of(WORK, "cpu.max") == "100000 100000", "one that is not restrained is left as it is"


def test_for_want_of_memory_the_one_behind_is_frozen_by_its_machine_and_capped_meanwhile(govern: Govern) -> None:
    govern.pressed("memory", 14)
    assert govern.state(PLAY) == "paused"
    assert "pause" not in govern.bench.podman.verbs()
    assert govern.of(PLAY, "cpu.max") == "10000 100000"
    assert govern.engine.instances[PLAY].desired == "paused"
    assert govern.state(WORK) == "running"
    assert [line["cause"] for line in govern.log.of("restrained")] == ["memory"]
    step = next(step for step in govern.bench.journal.steps if step.machine == PLAY and step.dest == "pausing")
    assert "the governor: memory: p://work stood still" in step.why


def test_if_frozen_memory_is_still_missed_it_is_stopped(govern: Govern) -> None:
    govern.pressed("memory", 60)
    assert govern.state(PLAY) == "stopped"
    assert [line["dest"] for line in govern.log.of("restrained")] == ["frozen", "stopped"]
    assert govern.state(WORK) == "running"


def test_what_it_froze_runs_again_when_all_is_calm(govern: Govern) -> None:
    govern.pressed("memory", 14)
    govern.pressed("memory", 70, percent=0, uses=0)
    assert govern.state(PLAY) == "running"
    assert govern.of(PLAY, "cpu.max") == "10000 100000", "slowly"


def test_pressure_of_somebody_at_his_own_limit_is_nobody_elses_doing(govern: Govern) -> None:
    for count in range(40):
        govern.kernel.write(f"cgroup/{govern.groups[WORK]}/memory.events", f"low 0\nmax {count}\n")
        govern.pressed("memory", 2)
    assert govern.state(PLAY) == "running"
    assert govern.log.of("restrained") == []


def test_the_pressure_of_the_one_behind_is_not_looked_at(govern: Govern) -> None:
    for _ in range(60):
        for kind in ("cpu", "memory"):
            govern.kernel.pressure(govern.groups[PLAY], kind, 100)
            govern.kernel.pressure("", kind, 100)
        govern.kernel.uses(govern.groups[PLAY], 1.0)
        govern.bench.timers.advance(STEP_S)
    assert govern.keeper.actions == govern.keeper.actions.__class__(maxlen=50)


def test_whoever_comes_to_the_front_is_free_at_once(govern: Govern) -> None:
    govern.pressed("cpu", 34)
    assert govern.of(PLAY, "cpu.max") == "50000 100000"
    govern.front(PLAY)
    assert (govern.of(PLAY, "cpu.weight"), govern.of(PLAY, "cpu.max")) == ("100", "100000 100000")
    assert govern.log.of("released")[-1]["why"] == "it is in front"


def test_a_container_that_is_made_anew_begins_free_and_its_own_limits_are_read_again(govern: Govern) -> None:
    govern.pressed("cpu", 34)
    govern.engine.send(PLAY, E.STOP)
    govern.bench.timers.advance(5)
    govern.bench.send(E.START, PLAY)
    govern.groups[PLAY] = govern.kernel.persona(str(govern.bench.port.container(PLAY)))
    assert govern.keeper.show()["tenants"][-1]["rung"] == "free"
    govern.kernel.write(f"cgroup/{govern.groups[PLAY]}/cpu.max", "30000 100000\n")
    govern.pressed("cpu", 60)
    assert govern.of(PLAY, "cpu.max") in ("15000 100000", "10000 100000"), "half of its own, never below the floor"


def test_limits_that_cannot_be_written_are_said_and_nothing_else_happens(govern: Govern) -> None:
    (govern.kernel.top / "cgroup" / govern.groups[PLAY] / "cpu.max").unlink()
    govern.pressed("cpu", 14)
    assert "it has none to read" in govern.log.of("limits not written")[0]["why"]
    assert govern.state(PLAY) == "running"


def test_how_often_it_looks_depends_on_whether_there_is_a_reason(govern: Govern) -> None:
    assert govern.keeper._pace() in (EAGER_S, WATCHFUL_S)
    govern.pressed("cpu", 20, percent=0, uses=0)
    assert govern.keeper._pace() == WATCHFUL_S
    govern.pressed("cpu", 14)
    assert govern.keeper._pace() == EAGER_S
    for name in (WORK, PLAY):
        govern.bench.send(E.STOP, name, 5)
    govern.pressed("cpu", 60, percent=0)
    assert govern.keeper._pace() == IDLE_S


def test_somebody_who_starts_is_a_reason_to_look_soon(govern: Govern) -> None:
    for name in (WORK, PLAY):
        govern.bench.send(E.STOP, name, 5)
    govern.pressed("cpu", 60, percent=0)
    before = govern.keeper.seen
    govern.bench.send(E.START, PLAY)
    govern.bench.timers.advance(EAGER_S + 0.1)
    assert govern.keeper.seen is not before


def test_a_sensor_that_fell_silent_caps_everybody_but_the_one_in_front(govern: Govern) -> None:
    govern.thermometer.sensors = (Sensor("zone0", None, 90.0),)
    govern.pressed("cpu", 20, percent=0, uses=0)
    assert (govern.of(PLAY, "cpu.max"), govern.of(WORK, "cpu.max")) == ("50000 100000", "100000 100000")
    assert govern.log.of("restrained")[0]["cause"] == "sensor"


def test_what_it_shows_names_what_it_sees_whom_it_holds_and_why(govern: Govern) -> None:
    govern.thermometer.sensors = (Sensor("zone0", 50.0, 90.0),)
    govern.pressed("cpu", 14)
    shown = govern.keeper.show()
    assert shown["psi"] is True
    assert shown["available"] == 0.1
    assert {group["name"] for group in shown["protected"]} == {"init", "services/console", WORK}
    assert {t["name"]: (t["focused"], t["rung"]) for t in shown["tenants"]} == {WORK: (True, "free"), PLAY: (False, "half weight")}
    assert shown["actions"][0]["persona"] == PLAY
    assert shown["sensors"] == [{"name": "zone0", "celsius": 50.0, "trip": 90.0, "not_believed": None}]


def test_it_ends_with_the_spine(govern: Govern) -> None:
    govern.engine.send("boot:this", boot.E.POWEROFF)
    seen = govern.keeper.seen
    govern.pressed("cpu", 30)
    assert govern.keeper.seen is seen
    assert govern.thermometer.closed
    assert govern.of(PLAY, "cpu.weight") == "100"


def test_a_refusal_of_its_wish_is_said(govern: Govern) -> None:
    govern.keeper._answered(PLAY, ValueError("it is stuck"))
    govern.keeper._answered(PLAY, None)
    assert govern.log.of("the governor was refused") == [{"persona": PLAY, "why": "it is stuck"}]


def test_without_any_of_the_kernels_files_it_sees_nothing_and_does_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gauges, "PROC", str(tmp_path / "none"))
    monkeypatch.setattr(cgroup, "ROOT", str(tmp_path / "none"))
    bench = Bench(monkeypatch)
    ceilings = Ceilings()
    made: Any = (bench.engine, bench.timers, Log(), bench.boot, bench.port, Ready(lambda: None), Thermometer(), Reserve(Log(), ceilings), ceilings)
    keeper = Keeper(*made)
    keeper.begin()
    bench.timers.advance(100)
    shown = keeper.show()
    assert (shown["psi"], shown["available"], shown["tenants"]) == (False, None, [])
    assert shown["looks_every_s"] == IDLE_S


# ---- limits


def test_a_limit_of_the_spines_that_somebody_changed_by_hand_is_set_right_at_the_next_look(govern: Govern) -> None:
    limit = govern.keeper.limit
    assert limit is not None
    govern.kernel.write("cgroup/personas/memory.max", "max\n")
    govern.bench.timers.advance(WATCHFUL_S)
    assert govern.kernel.read("cgroup/personas/memory.max") == str(limit)
    line = {"file": "personas/memory.max", "found": "max", "kept": str(limit)}
    assert govern.log.of("limit changed by hand is set right") == [line]
    govern.bench.timers.advance(10 * WATCHFUL_S)
    assert len(govern.log.of("limit changed by hand is set right")) == 1


def test_a_personas_own_limit_that_somebody_changed_by_hand_is_left_and_shown_beside_its_manifests(govern: Govern) -> None:
    govern.kernel.write(f"cgroup/{govern.groups[PLAY]}/memory.max", "max\n")
    govern.bench.timers.advance(WATCHFUL_S)
    shown = {each["name"]: (each["limit"], each["manifest"]) for each in govern.keeper.show()["tenants"]}
    assert shown[PLAY][0] is None
    assert shown[PLAY][1] == 256 << 20
    assert govern.of(PLAY, "memory.max") == "max"


def test_a_limit_of_half_a_page_is_none_that_somebody_changed(govern: Govern) -> None:
    instance = govern.engine.instances[PLAY]
    instance.config = instance.config.replace(str(256 << 20), str((256 << 20) + 2048))
    govern.kernel.write(f"cgroup/{govern.groups[PLAY]}/memory.max", f"{256 << 20}\n")
    shown = {each["name"]: (each["limit"], each["manifest"]) for each in govern.keeper.show()["tenants"]}
    assert shown[PLAY] == (256 << 20, 256 << 20)


def test_who_meets_his_ceiling_is_in_the_log_and_in_the_picture(govern: Govern) -> None:
    govern.kernel.write("cgroup/services/console/pids.max", "847\n")
    govern.kernel.write("cgroup/services/console/pids.events", "max 12\n")
    govern.kernel.write("cgroup/services/console/memory.max", f"{64 << 20}\n")
    govern.kernel.write("cgroup/services/console/memory.events", "max 9\noom_kill 2\n")
    govern.bench.timers.advance(WATCHFUL_S)
    assert govern.log.of("limit of processes met") == [{"group": "services/console", "limit": 847}]
    assert govern.log.of("limit of memory met") == [{"group": "services/console", "killed": 2, "limit_mib": 64}]
    console = next(group for group in govern.keeper.show()["groups"] if group["name"] == "services/console")
    assert (console["pids_max"], console["refused"], console["killed"]) == (847, 12, 2)
