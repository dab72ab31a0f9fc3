"""The kernel's texts, good and bad, and the files a limit is written to."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bay0.effects import gauges, readings
from bay0.effects.ceilings import Ceilings
from bay0.effects.gauges import Gauges, Limits
from bay0.thermal import reserve

PSI = "some avg10=12.50 avg60=1.00 avg300=0.10 total=5000000\nfull avg10=3.00 avg60=0.00 avg300=0.00 total=1000000\n"


def test_a_psi_file_is_read_and_the_window_since_the_last_look_is_counted() -> None:
    found = readings.psi(PSI)
    assert found is not None
    later = readings.psi(PSI.replace("total=5000000", "total=6000000").replace("total=1000000", "total=1500000"))
    assert later is not None
    pressure = later.since(found, 2.0)
    assert (pressure.some, pressure.full, pressure.some_now, pressure.full_now) == (12.5, 3.0, 50.0, 25.0)
    alone = found.since(None, 0)
    assert (alone.some_now, alone.full_now) == (12.5, 3.0)


def test_a_psi_file_without_a_full_line_has_none() -> None:
    found = readings.psi(PSI.splitlines()[0])
    assert found is not None
    assert (found.full, found.full_us) == (0.0, 0)


@pytest.mark.parametrize(
    "text",
    ["", "some", "some avg10=x total=1", "some avg10=nan avg60=0 total=1", "some avg10=101 total=1", "some avg10=1 total=-1", "full avg10=1 total=1"],
)
def test_nonsense_in_a_psi_file_is_no_pressure(text: str) -> None:
    assert readings.psi(text) is None


@given(st.text(max_size=200))
def test_no_text_makes_a_reader_fail(text: str) -> None:
    found = readings.psi(text)
    assert found is None or 0 <= found.some <= 100
    share = readings.meminfo(text)
    assert share is None or 0 <= share[1] <= share[0]
    readings.ticks(text)
    readings.pairs(text)


def test_memory_is_read_in_bytes() -> None:
    assert readings.meminfo("MemTotal:        1000 kB\nMemFree: 5 kB\nMemAvailable:     250 kB\n") == (1000 << 10, 250 << 10)
    assert readings.meminfo("MemTotal: 0 kB\nMemAvailable: 0 kB\n") is None
    assert readings.meminfo("MemTotal: 10 kB\n") is None


def test_load_is_what_was_not_idle_between_two_looks() -> None:
    first, second = readings.ticks("cpu  100 0 0 100 0 0 0 0 7 7\n"), readings.ticks("cpu  150 0 25 125 0 0 0 0 9 9\nintr 1\n")
    assert first is not None
    assert second is not None
    assert second.load_since(first) == 0.75
    assert second.load_since(None) is None
    assert second.load_since(second) is None
    assert readings.ticks("intr 5") is None


def test_use_is_counted_between_looks_and_own_throttling_beside_it(tmp_path: Path) -> None:
    look, stat = Gauges(), tmp_path / "cpu.stat"
    stat.write_text("usage_usec 1000000\nthrottled_usec 0\n")
    assert look.use(str(tmp_path), 10.0) == (0.0, 0.0)
    stat.write_text("usage_usec 2000000\nthrottled_usec 1000000\n")
    assert look.use(str(tmp_path), 12.0) == (0.5, 50.0)
    stat.unlink()
    assert look.use(str(tmp_path), 14.0) == (0.0, 0.0)


def test_what_is_gone_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauges.cgroup, "ROOT", str(tmp_path))
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        for kind in ("cpu", "memory"):
            (tmp_path / name / f"{kind}.pressure").write_text(PSI)
    look = Gauges()
    for name in ("one", "two"):
        look.group(name, str(tmp_path / name), 1.0, 0.0)
        look.use(str(tmp_path / name), 1.0)
    look.forget({str(tmp_path / "one")})
    assert all(str(tmp_path / "two") not in key for known in (look._psi, look._used, look._hits) for key in known)
    assert str(tmp_path / "one") in look._used


@pytest.mark.parametrize(
    ("own", "cap", "written"),
    [
        (Limits(100, 100000, 100000), 0.5, "50000 100000"),
        (Limits(100, 50000, 100000), 0.5, "25000 100000"),
        (Limits(100, 50000, 100000), 0.1, "10000 100000"),  # the floor is a tenth of a processor,
        (Limits(100, 5000, 100000), 0.1, "5000 100000"),  # or what it has, if that is less
        (Limits(100, 2000000, 1000000), 0.1, "200000 1000000"),
        (Limits(100, 50000, 100000), 1.0, "50000 100000"),
        (Limits(100, None, 100000), 1.0, "max 100000"),
    ],
)
def test_a_cap_is_a_share_of_its_own_limit_and_never_below_the_floor(tmp_path: Path, own: Limits, cap: float, written: str) -> None:
    assert gauges.restrain(str(tmp_path), own, 0.5, cap) == []
    assert (tmp_path / "cpu.max").read_text() == written
    assert (tmp_path / "cpu.weight").read_text() == "50"


def test_who_has_no_limit_gets_a_share_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauges.os, "cpu_count", lambda: 4)
    gauges.restrain(str(tmp_path), Limits(1, None, 100000), 0.5, 0.25)
    assert (tmp_path / "cpu.max").read_text() == "100000 100000"
    assert (tmp_path / "cpu.weight").read_text() == "1", "the kernel takes no less"


def test_limits_are_read_back_and_nonsense_is_none(tmp_path: Path) -> None:
    assert gauges.limits(str(tmp_path)) is None
    (tmp_path / "cpu.weight").write_text("79\n")
    (tmp_path / "cpu.max").write_text("max 100000\n")
    found = gauges.limits(str(tmp_path))
    assert found is not None
    assert (found.weight, found.quota, found.period) == (79, None, 100000)
    (tmp_path / "cpu.max").write_text("lots\n")
    assert gauges.limits(str(tmp_path)) is None


def test_a_group_that_is_gone_gives_a_reason_and_no_exception(tmp_path: Path) -> None:
    assert len(gauges.restrain(str(tmp_path / "gone"), Limits(100, None, 100000), 1, 1)) == 2


def test_a_kernel_without_psi_is_named_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauges, "PROC", str(tmp_path))
    assert "psi=1" in str(gauges.psi_missing())
    assert not gauges.is_guest()
    (tmp_path / "cpuinfo").write_text("flags\t\t: fpu hypervisor lahf_lm\n")
    assert gauges.is_guest()


MIB = 1 << 20


@pytest.mark.parametrize(
    "case",
    [(1024, 700, 0, 546), (512, 300, 0, 204), (16384, 15000, 0, 13976), (1024, 500, 200, 546), (256, 100, 0, 64)],
)
def test_personas_together_get_what_is_there_less_a_reserve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: tuple[int, int, int, int]
) -> None:
    total, available, held, limit = case
    monkeypatch.setattr(gauges.cgroup, "ROOT", str(tmp_path))
    monkeypatch.setattr(gauges, "PROC", str(tmp_path))
    (tmp_path / "meminfo").write_text(f"MemTotal: {total << 10} kB\nMemAvailable: {available << 10} kB\n")
    for name, file in (("personas", "memory.max"), ("init", "memory.min"), ("services", "memory.min")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).touch()
    (tmp_path / "personas" / "memory.current").write_text(f"{held * MIB}\n")
    found, failures = reserve.keep(Ceilings())
    assert found is not None
    assert (found // MIB, failures) == (limit, [])
    assert (tmp_path / "personas" / "memory.max").read_text() == str(found)
    assert (tmp_path / "init" / "memory.min").read_text() == str(48 * MIB)


def test_where_memory_is_unknown_or_nothing_can_be_written_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauges.cgroup, "ROOT", str(tmp_path / "none"))
    monkeypatch.setattr(gauges, "PROC", str(tmp_path))
    found, failures = reserve.keep(Ceilings())
    assert found is None
    assert len(failures) == 2
    (tmp_path / "meminfo").write_text("MemTotal: 1000 kB\nMemAvailable: 500 kB\n")
    assert reserve.keep(Ceilings())[0] is None


@pytest.mark.parametrize(
    ("after", "gets_on"),
    [
        (("usage_usec 1000", 4096), False),
        (("usage_usec 90000", 4096), False),  # of 10 s: as one that waits for questions
        (("usage_usec 300000", 4096), True),
        (("usage_usec 1000", 4096 + (2 << 20)), True),
        (("", "x"), False),
    ],
)
def test_a_group_gets_on_when_it_computes_or_its_memory_moves(tmp_path: Path, after: tuple[str, object], gets_on: bool) -> None:
    now = [0.0]

    def write(stat: str, memory: object) -> None:
        (tmp_path / "cpu.stat").write_text(f"{stat}\nuser_usec 0\n")
        (tmp_path / "memory.current").write_text(f"{memory}\n")

    write("usage_usec 1000", 4096)
    found = gauges.Progress(str(tmp_path), lambda: now[0])
    now[0] = 1.0
    found.still_s()
    since = 1.0 - found.still_s()
    write(*after)
    now[0] = 11.0
    assert found.still_s() == (0.0 if gets_on else 11.0 - since)
    now[0] = 21.0
    assert found.still_s() == (10.0 if gets_on else 21.0 - since)


def test_a_group_that_is_gone_gets_nowhere(tmp_path: Path) -> None:
    now = [0.0]
    found = gauges.Progress(f"{tmp_path}/none", lambda: now[0])
    now[0] = 30.0
    assert found.still_s() == 30.0


def test_what_files_in_memory_take_is_the_kernels_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauges, "PROC", str(tmp_path))
    assert gauges.shmem() == 0
    (tmp_path / "meminfo").write_text("MemTotal:         993960 kB\nShmem:            119792 kB\n")
    assert gauges.shmem() == 119792 << 10
