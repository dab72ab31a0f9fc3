"""How fast a machine is said to be: at boot, and when a bound was missed. The clock is moved by hand, and by the work itself."""

from __future__ import annotations

from typing import Any

import pytest
from kit import Log, Timers
from parts import Steps

from bay0.boot.speed import AGAIN_S, EVERY_S, LOADED_MS, SLICE_S, SLICES, Speed, work
from bay0.cli import doctor, report

SLOW = "bounds are missed because this machine is slow, not by a disk"
WELL = "a bound was missed, and not by slowness"


def speed(times: float, patience: float = 5.0) -> tuple[Speed, Timers, Log]:
    """One whose fixed work takes so many times what it takes where a patience of 1 is right."""
    timers, log = Timers(), Log()
    here: Any = timers

    def slow() -> None:
        timers.now += SLICE_S * times

    return Speed(Steps(), here, log, patience, slow), timers, log  # type: ignore[arg-type]


def judged(found: Speed, timers: Timers, what: str = "p://work: no outcome in 375 s") -> float | None:
    found.bound_missed(what)
    timers.advance(SLICES * (EVERY_S + 1))
    return found.needs


def test_at_boot_the_time_of_loading_says_how_much_patience_is_needed() -> None:
    found, _, log = speed(1)
    found.booted(LOADED_MS * 5)
    assert found.describe() == {"boot_needs": 5.0, "needs": None, "patience": 5.0, "missed": 0}
    assert log.of("speed")


def test_a_bound_that_a_slow_machine_missed_is_told_from_one_that_a_disk_missed() -> None:
    found, timers, log = speed(12.3)
    assert judged(found, timers) == pytest.approx(12.3)
    assert (len(log.of(SLOW)), len(log.of(WELL))) == (1, 0)
    found, timers, log = speed(4.0)
    assert judged(found, timers) == pytest.approx(4.0)
    assert (len(log.of(SLOW)), len(log.of(WELL))) == (0, 1)


def test_a_hundred_missed_bounds_are_counted_and_looked_into_once_a_minute() -> None:
    found, timers, log = speed(12)
    for _ in range(100):
        found.bound_missed("podman list")
    timers.advance(10)
    assert (found.missed, len(log.of(SLOW))) == (100, 1)
    found.bound_missed("podman list")
    timers.advance(AGAIN_S)
    assert len(log.of(SLOW)) == 1
    found.bound_missed("podman list")
    timers.advance(10)
    assert len(log.of(SLOW)) == 2


def test_the_work_is_in_slices_that_leave_the_turns_between_them_to_others() -> None:
    found, timers, _ = speed(1)
    found.bound_missed("podman list")
    assert timers.waiting == 1
    assert isinstance(work(), int)


def test_status_and_doctor_say_it() -> None:
    found, timers, _ = speed(12)
    found.booted(LOADED_MS * 5)
    assert report.speed(found.describe()) == ["speed     at boot it needed a patience of 5.0, it has 5"]
    judged(found, timers)
    (line,) = report.speed(found.describe())
    assert line.endswith("1 bounds missed, it needed 12.0 then: that is slowness, and no disk")
    (finding,) = doctor._speed(found.describe())
    assert "it needed a patience of 12.0 and has 5" in finding.what
    assert "bay0.patience=12" in finding.help
    assert not list(doctor._speed(None))
    slow, _, _ = speed(1)
    slow.booted(LOADED_MS * 20)
    assert not list(doctor._speed(slow.describe())), "one look at boot is no finding while every bound is kept"
