"""Which lines of the logs are wanted: by time, level, machine and text; bay0's own log and a persona's."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from bay0.cli import client, logview, when
from bay0.cli import main as cli
from bay0.state import paths

Captured = pytest.CaptureFixture[str]
START = 1_700_000_000.0  # 2023-11-14T22:13:20Z; when the kernel's clock was 0
NOW = START + 1000


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    monkeypatch.setattr(when.time, "time", lambda: NOW)
    monkeypatch.setattr(when.time, "clock_gettime", lambda _clock: 1000.0)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10m", NOW - 600), ("1.5h", NOW - 5400), ("2d", NOW - 172_800), ("30s", NOW - 30), ("573.2", START + 573.2), ("0", START),
        ("2023-11-14T22:20:00", START + 400), ("2023-11-14 22:20", START + 400), ("2023-11-14", START - 80_000),
    ],
)  # fmt: skip
def test_a_time_is_ago_on_the_kernels_clock_or_of_the_day(text: str, seconds: float) -> None:
    assert when.moment(text) == pytest.approx(seconds)


def test_a_time_of_day_is_of_today(monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.strftime
    monkeypatch.setattr(when.time, "strftime", lambda form, *of: real(form, *(of or (time.gmtime(NOW),))))
    assert when.moment("22:20") == START + 400
    assert when.moment("22:20:05") == START + 405


@pytest.mark.parametrize("text", ["", "soon", "-5", "25:00", "2023-13-01", "1e9", "10 m", "9" * 400 + "d"])
def test_what_is_no_time_is_wrong_usage(text: str, capsys: Captured) -> None:
    assert cli.main(["log", f"--since={text}"]) == 2
    assert "--since takes" in capsys.readouterr().err


def step(at_s: float, machine: str, dest: str) -> str:
    record = {"t_ms": round(at_s * 1000), "level": "info", "event": "step", "machine": machine, "source": "a", "by": "b", "dest": dest, "why": "w"}
    return json.dumps({**record, "n": 1, "after_ms": 2, "kept": "durable"})


LINES = [
    step(1, "boot:12345678", "mounting"),
    json.dumps({"t_ms": 2000, "level": "warning", "event": "persist timeout", "op": "find"}),
    step(10, "p://work", "starting"),
    json.dumps({"t_ms": 11_000, "level": "debug", "event": "event passed", "machine": "p://work"}),
    json.dumps({"t_ms": 12_000, "level": "error", "event": "its monitor is not known", "persona": "p://work"}),
    step(13, "p://play", "starting"),
    "torn {",
]


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "log.jsonl"
    path.write_text("".join(f"{line}\n" for line in LINES))
    monkeypatch.setitem(logview.show.__kwdefaults__, "path", str(path))
    return path


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        ([], [0, 1, 2, 3, 4, 5, 6]),
        (["--since", "10"], [2, 3, 4, 5]),
        (["--since", "10", "--until", "12"], [2, 3, 4]),
        (["--until", "2023-11-14T22:13:22"], [0, 1]),
        (["--level", "warning"], [1, 4]),
        (["--machine", "work"], [2, 3, 4]),
        (["--machine", "p://play"], [5]),
        (["--machine", "boot"], [0]),
        (["--grep", "start(ing|ed)"], [2, 5]),
        (["--grep", "WARNING: persist"], [1]),
        (["--machine", "work", "--level", "info", "-n", "1"], [4]),
        (["--since", "14"], []),
    ],
)
def test_the_lines_that_are_wanted_are_printed(log: Path, words: list[str], kept: list[int], capsys: Captured) -> None:
    assert cli.main(["log", "--json", *words]) == 0
    assert capsys.readouterr().out.splitlines() == [LINES[number] for number in kept]


def test_with_the_time_of_day_both_clocks_are_shown(log: Path, capsys: Captured) -> None:
    assert cli.main(["log", "--wall", "-n", "2"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "2023-11-14T22:13:33+0000 [      13.000] bay0: p://play: a -> starting: w (after_ms=2 kept=durable)", "torn {",
    ]  # fmt: skip


@pytest.mark.parametrize(("words", "said"), [(["--grep", "("], "regular expression"), (["--since", "10", "--until", "5"], "behind --until")])
def test_what_can_find_nothing_is_wrong_usage(log: Path, words: list[str], said: str, capsys: Captured) -> None:
    assert cli.main(["log", *words]) == 2
    assert said in capsys.readouterr().err


def test_a_personas_lines_are_chosen_by_what_conmon_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setattr(paths, "LOGS", str(tmp_path))
    monkeypatch.setattr(client, "call", lambda *_args, **_params: [])
    (tmp_path / "p__work.log").write_text(
        "2023-11-14T22:13:30.123456789+00:00 stdout F early bird\n"
        "2023-11-14T23:20:00.5+01:00 stderr F late owl\n"
        "torn\n"
        "2023-11-14T22:21:00.000000001+00:00 stdout F last owl\n"
    )

    def said(*words: str) -> list[str]:
        assert cli.main(["persona", "logs", "work", *words]) == 0
        return capsys.readouterr().out.splitlines()

    assert said() == ["early bird", "late owl", "torn", "last owl"]
    assert said("--since", "15", "--until", "405") == ["late owl"]
    assert said("--grep", "owl$", "-n", "1") == ["last owl"]
    assert said("--grep", "owl", "--wall") == [
        "2023-11-14T22:20:00+0000 [     400.500] late owl", "2023-11-14T22:21:00+0000 [     460.000] last owl",
    ]  # fmt: skip
    assert said("--wall", "--grep", "torn") == ["torn"]
    assert re.search("usage", capsys.readouterr().err) is None
