"""The sensor reader: a real process over a folder that looks like /sys/class/thermal."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from kit import World, children, in_child, no_descriptor_left

from bay0.thermal import sensors
from bay0.thermal.sensors import Thermometer, trip


def zone(top: Path, number: int, celsius: str, trips: dict[str, str] | None = None, kind: str = "x86_pkg_temp") -> Path:
    folder = top / f"thermal_zone{number}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "type").write_text(f"{kind}\n")
    (folder / "temp").write_text(f"{celsius}\n")
    for at, (name, value) in enumerate((trips or {}).items()):
        (folder / f"trip_point_{at}_type").write_text(f"{name}\n")
        (folder / f"trip_point_{at}_temp").write_text(f"{value}\n")
    return folder


@pytest.mark.parametrize(
    ("trips", "celsius"),
    [
        ({"critical": "100000", "passive": "90000"}, 90.0),
        ({"critical": "100000", "hot": "95000"}, 95.0),
        ({"critical": "100000"}, 90.0),
        ({}, sensors.TRIP),
        ({"passive": "0", "critical": "-274000", "active": "50000"}, sensors.TRIP),
        ({"passive": "rubbish"}, sensors.TRIP),
    ],
)
def test_the_trip_is_where_the_kernel_itself_begins_and_nonsense_is_a_cautious_default(tmp_path: Path, trips: dict[str, str], celsius: float) -> None:
    assert trip(str(zone(tmp_path, 0, "50000", trips))) == celsius


@in_child
def test_temperatures_come_from_a_process_of_their_own(tmp_path: Path) -> None:
    zone(tmp_path, 0, "41500", {"passive": "90000"})
    zone(tmp_path, 10, "nothing", kind="acpitz")
    world = World()
    meter = Thermometer(world.reactor, world.spawner, world.log, str(tmp_path))
    assert [(s.name, s.celsius) for s in meter.look()] == [("thermal_zone0 x86_pkg_temp", None), ("thermal_zone10 acpitz", None)]
    world.until(lambda: meter.look()[0].celsius == 41.5, "the first packet")
    assert [(s.celsius, s.trip) for s in meter.look()] == [(41.5, 90.0), (None, 85.0)]
    (tmp_path / "thermal_zone0" / "temp").write_text("55000\n")
    world.until(lambda: meter.look()[0].celsius == 55.0, "the next one")
    meter.close()
    world.until(lambda: not children(), "its end")
    assert meter.look() is not None
    assert not children(), "no new one after that"


@in_child
def test_a_reader_that_hangs_makes_its_sensors_silent(tmp_path: Path) -> None:
    zone(tmp_path, 0, "41500")
    world = World()
    meter = Thermometer(world.reactor, world.spawner, world.log, str(tmp_path))
    meter.look()
    world.until(lambda: meter.look()[0].celsius == 41.5)
    os.kill(children()[0], signal.SIGSTOP)
    for _ in range(5):  # what it was asked before
        world.reactor.turn(0.05)
    assert meter.look()[0].celsius == 41.5, "not yet silent"
    now = world.reactor.clock()
    world.reactor.clock = lambda: now + sensors.SILENT_S + 1
    assert [(s.name, s.celsius) for s in meter.look()] == [("thermal_zone0 x86_pkg_temp", None)]
    assert len(children()) == 1, "no second one beside it"


@in_child
def test_a_reader_that_dies_is_replaced_after_a_while(tmp_path: Path) -> None:
    zone(tmp_path, 0, "41500")
    world = World()
    meter = Thermometer(world.reactor, world.spawner, world.log, str(tmp_path))
    meter.look()
    world.until(lambda: meter.look()[0].celsius == 41.5)
    os.kill(children()[0], signal.SIGKILL)
    world.until(lambda: meter._child is None, "its end")
    assert meter.look()[0].celsius is None
    assert meter._child is None, "not at once"
    meter._again = 0.0
    meter.look()
    world.until(lambda: meter.look()[0].celsius == 41.5)
    assert world.log.events().count("sensor reader ended") == 1


@in_child
def test_without_a_thermal_zone_there_is_no_reader(tmp_path: Path) -> None:
    world = World()
    meter = Thermometer(world.reactor, world.spawner, world.log, str(tmp_path / "none"))
    assert meter.look() == ()
    assert children() == []


@in_child
def test_the_reader_ends_with_whoever_started_it(tmp_path: Path) -> None:
    zone(tmp_path, 0, "41500")
    world = World()
    meter = Thermometer(world.reactor, world.spawner, world.log, str(tmp_path))
    meter.look()
    world.until(lambda: meter.look()[0].celsius == 41.5)
    meter._hang_up()
    world.until(lambda: not children(), "its end")


@in_child
def test_without_a_descriptor_there_is_no_reader_and_it_is_tried_again(tmp_path: Path) -> None:
    zone(tmp_path, 0, "41500")
    world = World()
    meter = Thermometer(world.reactor, world.spawner, world.log, str(tmp_path))
    with no_descriptor_left():
        assert meter._start(0.0) is None
    assert "Too many open files" in world.log.of("no sensor reader")[0]["why"]
    meter._again = 0.0
    world.until(lambda: meter.look() and meter.look()[0].celsius == 41.5, "the first packet")
    meter.close()
    world.until(lambda: not children(), "its end")
