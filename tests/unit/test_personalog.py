"""`bay0 persona logs` and `bay0 events`: files that are read in the command's own process, while somebody else writes them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bay0.cli import client, logview
from bay0.cli import main as cli
from bay0.state import files, paths, personalog

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _logs_of_our_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    monkeypatch.setattr(paths, "LOGS", str(tmp_path / "logs"))


def written(tmp_path: Path, *records: str) -> Path:
    path = tmp_path / "logs" / "p__work.log"
    path.write_text("".join(f"{record}\n" for record in records))
    return path


AT = "2026-01-01T10:00:00.123456789+00:00"


def test_logs_are_what_was_written_and_need_no_spine(tmp_path: Path, capsys: Captured) -> None:
    written(tmp_path, f"{AT} stdout F one", f"{AT} stderr F two  words", f"{AT} stdout F ", f"{AT} stdout F  indented")
    assert cli.main(["persona", "logs", "work"]) == 0
    assert capsys.readouterr().out == "one\ntwo  words\n\n indented\n"
    assert cli.main(["persona", "logs", "work", "-n", "1"]) == 0
    assert capsys.readouterr().out == " indented\n"
    assert cli.main(["persona", "logs", "work", "-n", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0]) == {"at": AT, "stream": "stderr", "text": "two  words"}


def test_parts_of_a_line_become_one_line_and_the_streams_do_not_mix(tmp_path: Path) -> None:
    path = written(
        tmp_path, f"{AT} stdout P he", f"{AT} stderr P oh", f"{AT} stdout P ll", f"{AT} stderr F  no", f"{AT} stdout F o", f"{AT} stdout P $ "
    )
    assert [(e.stream, e.text) for e in personalog.stored(str(path))] == [("stderr", "oh no"), ("stdout", "hello"), ("stdout", "$ ")]


@pytest.mark.parametrize("record", ["", "garbage", f"{AT} stdout", f"{AT} stdin F x", f"{AT} stdout X x", "ä " * 4])
def test_a_torn_record_is_shown_as_it_is(tmp_path: Path, record: str) -> None:
    path = written(tmp_path, record, f"{AT} stdout F good")
    assert [e.text for e in personalog.stored(str(path))] == [record, "good"]


def test_a_record_without_its_end_and_bytes_that_are_no_text_are_shown_too(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_bytes(f"{AT} stdout F a".encode() + b"\xff\n" + f"{AT} stdout F half".encode())
    assert [e.text for e in personalog.stored(str(path))] == ["a\ufffd", "half"]


def test_a_line_that_never_ends_does_not_fill_our_memory(tmp_path: Path) -> None:
    part = "x" * 8000
    path = written(tmp_path, *[f"{AT} stdout P {part}"] * 100)
    found = list(personalog.stored(str(path)))
    assert sum(len(e.text) for e in found) == 800_000
    assert max(len(e.text) for e in found) < personalog.LINE_MAX + 8001


def test_on_a_terminal_colours_pass_and_what_would_act_is_shown(tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "\x1b[1;31mred\x1b[0m\ttab \x1b[2J\x1b]0;title\x07\x9b2J\r"
    written(tmp_path, f"{AT} stdout F {text}")
    assert cli.main(["persona", "logs", "work"]) == 0
    assert capsys.readouterr().out == f"{text}\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert cli.main(["persona", "logs", "work"]) == 0
    assert capsys.readouterr().out == "\x1b[1;31mred\x1b[0m\ttab \\x1b[2J\\x1b]0;title\\x07\\x9b2J\n"


class Scene:
    """Things that happen to a log while somebody follows it: one at each of the follower's pauses."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch, *acts: Callable[[], Any]) -> None:
        self.path, self.acts = path, list(acts)
        monkeypatch.setattr(personalog.time, "sleep", self.pause)

    def pause(self, _seconds: float) -> None:
        if not self.acts:
            raise KeyboardInterrupt
        self.acts.pop(0)()

    def followed(self, last: int = 0) -> list[str]:
        seen: list[str] = []
        with pytest.raises(KeyboardInterrupt):
            seen.extend(entry.text for entry in personalog.follow(str(self.path), last))
        return seen


def adds(path: Path, *records: str, end: str = "\n") -> Callable[[], Any]:
    def act() -> None:
        with open(path, "a", encoding="utf-8") as file:
            file.write("\n".join(records) + end)

    return act


def out(text: str, tag: str = "F") -> str:
    return f"{AT} stdout {tag} {text}"


def test_following_shows_the_last_lines_and_then_those_that_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, out("1"), out("2"), out("3"))
    scene = Scene(path, monkeypatch, adds(path, out("4"), out("5")), lambda: None, adds(path, out("6")))
    assert scene.followed(last=2) == ["2", "3", "4", "5", "6"]


def test_following_waits_for_a_log_that_is_not_there_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "logs" / "p__work.log"
    assert Scene(path, monkeypatch, lambda: None, adds(path, out("1"))).followed() == ["1"]


def test_following_goes_on_when_the_file_is_replaced_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, out("1"))

    def replaced() -> None:
        adds(path, out("2"))()
        os.replace(path, f"{path}.old")
        adds(path, out("3"))()

    scene = Scene(path, monkeypatch, replaced, lambda: os.unlink(path), adds(path, out("4")), lambda: None)
    assert scene.followed() == ["1", "2", "3", "4"]


def test_what_is_written_between_our_reading_and_the_replacement_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, out("1"))
    reader = personalog.Reader(str(path))
    assert list(reader.records()) == [out("1")]

    open_file = files.open_file

    def at_the_worst_moment(name: str) -> int:
        monkeypatch.setattr(files, "open_file", open_file)
        adds(path, out("2"))()
        os.replace(path, f"{path}.old")
        adds(path, out("3"))()
        return open_file(name)

    monkeypatch.setattr(files, "open_file", at_the_worst_moment)
    assert list(reader.records()) == [out("2"), out("3")]


@pytest.mark.parametrize("words", [[], ["-f"]])
@pytest.mark.parametrize("thing", ["FIFO", "directory", "link", "link to nothing"])
def test_what_is_no_log_is_named_and_neither_waited_for_nor_read(tmp_path: Path, capsys: Captured, thing: str, words: list[str]) -> None:
    path = tmp_path / "logs" / "p__work.log"
    (tmp_path / "secret").write_text(f"{AT} stdout F secret\n")
    make: dict[str, Callable[[], object]] = {
        "FIFO": lambda: os.mkfifo(path),
        "directory": path.mkdir,
        "link": lambda: path.symlink_to(tmp_path / "secret"),
        "link to nothing": lambda: path.symlink_to(tmp_path / "nothing"),
    }
    make[thing]()
    assert cli.main(["persona", "logs", "work", *words]) == cli.REFUSED
    out, err = capsys.readouterr()
    assert out == ""
    assert f"the log of p://work cannot be read: {path} is a {'symbolic link' if 'link' in thing else thing}" in err


def test_following_goes_on_when_the_file_is_cut_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, out("a first line"), out("another"))

    def cut() -> None:
        os.truncate(path, 0)
        adds(path, out("new"))()

    assert Scene(path, monkeypatch, cut, adds(path, out("newer"))).followed() == ["a first line", "another", "new", "newer"]


def test_following_joins_a_record_and_a_line_that_come_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path)
    scene = Scene(path, monkeypatch, adds(path, out("on")[:30], end=""), adds(path, out("on", "P")[30:]), adds(path, out("e")))
    assert scene.followed() == ["one"]


def test_following_shows_a_prompt_when_nothing_comes_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, out("login: ", "P"))
    nothing = [lambda: None] * (personalog.PROMPT_POLLS + 3)
    assert Scene(path, monkeypatch, *nothing).followed() == ["login: "]


def test_logs_f_prints_as_it_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    path = written(tmp_path, out("1"), out("2"))
    Scene(path, monkeypatch, adds(path, out("3")))
    assert cli.main(["persona", "logs", "work", "-f", "-n", "1"]) == 130
    assert capsys.readouterr().out == "2\n3\n"


# ---- events


def event(machine: str, dest: str) -> str:
    return json.dumps({
        "t_ms": 5, "level": "info", "event": "step", "machine": machine, "source": "a", "by": "e", "dest": dest, "why": "w", "n": 1, "after_ms": 2,
        "kept": "durable",
    }) + "\n"  # fmt: skip


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "log.jsonl"
    other = json.dumps({"t_ms": 1, "level": "info", "event": "starting"}) + "\n"
    path.write_text(
        event("boot:01234567", "x1") + other + event("p://work", "x2") + '{"torn\n' + event("p://workshop", "x3") + event("sys://console", "x4")
    )
    monkeypatch.setitem(logview.select.__kwdefaults__, "path", str(path))
    return path


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ([], ["x1", "x2", "x3", "x4"]),
        (["-n", "2"], ["x3", "x4"]),
        (["--machine", "work"], ["x2"]),
        (["--machine", "p://work"], ["x2"]),
        (["--machine", "boot"], ["x1"]),
        (["--machine", "sys://console"], ["x4"]),
        (["--machine", "p"], []),
    ],
)
def test_events_are_the_steps_in_the_log_of_all_machines_or_one(log: Path, words: list[str], shown: list[str], capsys: Captured) -> None:
    assert cli.main(["events", *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("-> ")[1].split(":")[0] for line in lines] == shown
    assert cli.main(["events", *words, "--json"]) == 0
    assert [json.loads(line)["dest"] for line in capsys.readouterr().out.splitlines()] == shown


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("wrok", "no machine is called wrok, nor was one in this boot. Did you mean p://work?"),
        ("console", "Did you mean sys://console?"),
        ("zebra", "`bay0 machines` lists them"),
        ("idle", ""),
    ],
)
def test_events_of_a_machine_that_there_is_not_say_which_was_meant(
    log: Path, word: str, said: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = [{"name": name} for name in ("p://work", "p://idle", "sys://console")]
    monkeypatch.setattr(client, "call", {"machines": there}.__getitem__)
    assert cli.main(["events", "--machine", word]) == (1 if said else 0)
    told = capsys.readouterr()
    assert said in told.err
    assert told.out == ""


def test_events_f_goes_on_with_the_steps_that_come(log: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    acts = [lambda: adds(log, event("p://work", "x5").strip(), event("p://play", "x6").strip())()]

    def pause(_seconds: float) -> None:
        if not acts:
            raise KeyboardInterrupt
        acts.pop()()

    monkeypatch.setattr(logview.time, "sleep", pause)
    assert cli.main(["events", "-f", "--machine", "work", "-n", "1"]) == 130
    assert [line.split("-> ")[1].split(":")[0] for line in capsys.readouterr().out.splitlines()] == ["x2", "x5"]


def test_without_a_spine_there_are_no_events(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Captured) -> None:
    monkeypatch.setitem(logview.select.__kwdefaults__, "path", str(tmp_path / "none"))
    assert cli.main(["events"]) == 3
    assert "scripts/quickstart.sh boots one" in capsys.readouterr().err
