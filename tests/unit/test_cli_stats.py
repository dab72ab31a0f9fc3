"""`bay0 persona stats` and `bay0 top`: from files like the kernel's to rates, tables and JSON; PID 1 is asked only who there is."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from bay0.base.errors import RefusedError
from bay0.cli import client, stats, use
from bay0.cli import main as cli

MIB = 1 << 20
PSI = "some avg10={some} avg60=0.00 avg300=0.00 total=9\nfull avg10=99.00 avg60=0.00 avg300=0.00 total=9\n"
PERSONAS = [
    {"name": "p://idle", "state": "paused", "container": "c2"},
    {"name": "p://off", "state": "stopped", "container": None},
    {"name": "p://work", "state": "running", "container": "c1"},
]
Captured = pytest.CaptureFixture[str]


def group(top: Path, name: str, *, cpu_us: int = 0, moved: int = 0, memory: int = 100 * MIB) -> None:
    """Write the files of a group as the kernel shows them."""
    files = {
        "cpu.stat": f"usage_usec {cpu_us}\nuser_usec 1\nnr_throttled 3\nthrottled_usec {cpu_us // 10}\n",
        "memory.current": f"{memory}\n", "memory.max": f"{256 * MIB}\n", "memory.events": "low 0\nmax 7\noom_kill 2\n",
        "memory.stat": f"anon {60 * MIB}\nfile {40 * MIB}\ninactive_file {30 * MIB}\nactive_file {8 * MIB}\nslab_reclaimable {2 * MIB}\n",
        "io.stat": f"253:0 rbytes={moved} wbytes={2 * moved} rios=1 wios=1 dbytes=0 dios=0\n8:0 rbytes=1 wbytes=0 rios=1 wios=0\n7:0 \n",
        "pids.current": "5\n", "pids.max": "64\n", "cpu.pressure": PSI.format(some="12.34"), "memory.pressure": PSI.format(some="1.00"),
        "io.pressure": PSI.format(some="0.40"),
    }
    folder = top / name
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in files.items():
        (folder / file).write_text(text)


class Machine:
    """A tree of groups, and a clock: each wait lets `work` use half a processor and write 4 MiB a second."""

    def __init__(self, top: Path) -> None:
        self.top, self.waited, self.over = top, 0.0, 1
        for name in ("personas/libpod-c1", "personas/libpod-c2", "init", "services", "commands", "tenants", "personas"):
            group(top, name)

    def sleep(self, seconds: float) -> None:
        self.waited += seconds
        self.over -= 1
        if self.over < 0:
            raise KeyboardInterrupt
        group(self.top, "personas/libpod-c1", cpu_us=round(self.waited * 5e5), moved=round(self.waited * 2 * MIB))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path)
    monkeypatch.setattr(use, "ROOT", str(tmp_path))
    monkeypatch.setattr(stats, "sleep", made.sleep)
    monkeypatch.setattr(stats, "monotonic", lambda: made.waited)
    asked: list[str] = []

    def call(method: str, timeout_s: float = 0, **params: Any) -> Any:
        asked.append(method)
        if method == "persona.list":
            return PERSONAS
        raise RefusedError(f"there is no persona {params['name']}")

    monkeypatch.setattr(client, "call", call)
    made.asked = asked  # type: ignore[attr-defined]
    return made


def rows(capsys: Captured) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in json.loads(capsys.readouterr().out)}


def test_a_sample_is_what_the_files_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(use, "ROOT", str(tmp_path))
    group(tmp_path, "g", cpu_us=70, moved=10)
    assert use.sample("g", 5) == {
        "at_us": 5, "cpu_us": 70, "throttled_us": 7, "memory_bytes": 100 * MIB, "used_bytes": 60 * MIB, "memory_max_bytes": 256 * MIB,
        "oom_kills": 2, "pids": 5, "pids_max": 64, "read_bytes": 11, "written_bytes": 20,
        "pressure_percent": {"cpu": 12.34, "memory": 1.0, "io": 0.4},
    }  # fmt: skip


def test_of_files_that_are_missing_unlimited_or_nonsense_a_sample_is_made_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(use, "ROOT", str(tmp_path))
    nothing = use.sample("gone", 0)
    assert (nothing["cpu_us"], nothing["memory_bytes"], nothing["memory_max_bytes"], nothing["pids_max"]) == (0, 0, None, None)
    group(tmp_path, "g")
    for file, text in {"memory.max": "max\n", "pids.max": "max\n", "cpu.stat": "\n\x00 usage", "io.stat": "8:0 rbytes= wbytes=x\n"}.items():
        (tmp_path / "g" / file).write_text(text)
    found = use.sample("g", 0)
    assert (found["memory_max_bytes"], found["pids_max"], found["cpu_us"], found["read_bytes"]) == (None, None, 0, 0)


def test_a_share_is_of_the_time_between_two_looks(machine: Machine, capsys: Captured) -> None:
    assert cli.main(["persona", "stats", "--json"]) == 0
    found = rows(capsys)
    assert sorted(found) == ["p://idle", "p://work"], "without a name those that have a container"
    assert found["p://work"]["cpu_percent"] == 50.0
    assert found["p://work"]["throttled_percent"] == 5.0
    assert (found["p://work"]["read_bytes_s"], found["p://work"]["written_bytes_s"]) == (2 * MIB, 4 * MIB)
    assert found["p://idle"]["cpu_percent"] == 0
    assert machine.waited == stats.ONCE_S
    assert set(machine.asked) == {"persona.list"}  # type: ignore[attr-defined]


def test_people_see_units_and_dashes(machine: Machine, capsys: Captured) -> None:
    assert cli.main(["persona", "stats", "work", "off"]) == 0
    _head, work, off = (line.split("  ") for line in capsys.readouterr().out.splitlines())
    assert [cell.strip() for cell in work if cell.strip()] == [
        "work", "running", "50.0 %", "60 MiB", "256 MiB", "5/64", "2 MiB", "4 MiB", "12 %", "1 %", "0 %",
    ]  # fmt: skip
    assert [cell.strip() for cell in off if cell.strip()] == ["off", "stopped", *["-"] * (len(stats.HEAD) - 2)]


def test_a_container_that_is_new_has_no_share_yet(machine: Machine, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    listings = [[{**PERSONAS[2], "container": "c0"}], [PERSONAS[2]]]
    monkeypatch.setattr(client, "call", lambda *_args, **_params: listings.pop(0))
    assert cli.main(["persona", "stats", "--json"]) == 0
    assert rows(capsys)["p://work"]["cpu_percent"] is None


def test_watching_goes_on_until_ctrl_c_one_object_a_line(machine: Machine, capsys: Captured) -> None:
    machine.over = 3
    assert cli.main(["persona", "stats", "w*", "--watch", "--json"]) == 130
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [[row["cpu_percent"] for row in line] for line in lines] == [[50.0]] * 3
    assert machine.waited == 4 * stats.WATCH_S


def test_top_has_everything_and_who_uses_most_stands_first(machine: Machine, capsys: Captured) -> None:
    assert cli.main(["top", "--json"]) == 0
    names = list(rows(capsys))
    assert names[:2] == ["p://work", "p://idle"]
    assert set(names[2:]) == set(stats.SPINE.values())
    machine.over = 1
    assert cli.main(["top"]) == 0, "where nobody watches it looks once"
    assert "\x1b" not in capsys.readouterr().out


def test_a_name_that_nobody_has_is_refused_with_the_nearest(machine: Machine, capsys: Captured) -> None:
    assert cli.main(["persona", "stats", "wrok"]) == 1
    assert "Did you mean p://work?" in capsys.readouterr().err


def test_a_hundred_are_looked_at_in_a_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(use, "ROOT", str(tmp_path))
    for number in range(100):
        group(tmp_path, f"personas/libpod-{number}")
    begun = time.process_time()
    samples = [use.sample(f"personas/libpod-{number}", 0) for number in range(100)]
    assert len(samples) == 100
    assert time.process_time() - begun < 10, "a generous bound; it takes some 50 ms"
