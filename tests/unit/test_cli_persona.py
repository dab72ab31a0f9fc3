"""`bay0 persona`, `focus`, `image`: what each sends, prints and returns. Logs and events are in test_personalog.py."""

from __future__ import annotations

import fnmatch
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import xml.dom.minidom
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit import Log

from bay0.base.errors import RefusedError
from bay0.cli import client, persona_copy, persona_many, persona_own, samples, verbs
from bay0.cli import kit as clikit
from bay0.cli import main as cli
from bay0.cli import persona_text as personareport
from bay0.cli.text import age
from bay0.control.server import ControlServer
from bay0.effects import shield
from bay0.machines import MACHINES
from bay0.personas import manifest
from bay0.pid1.reactor import Reactor
from bay0.state import paths, staging

MOVES = ("start", "stop", "restart", "pause", "resume", "reset", "remove")
PERSONA_VERBS = (
    *MOVES, "wait", "set", "edit", "create", "clone", "snapshot", "snapshots", "restore", "drop",
    "export", "import", "cp", "list", "show", "shell", "exec", "net", "stats", "logs", "history", "graph",
)  # fmt: skip
METHODS = (
    *(f"persona.{verb}" for verb in (*MOVES, "wait", "configure", "create", "clone", "copying", "give_up", "list", "show")),
    *(f"persona.{verb}" for verb in ("snapshot", "snapshots", "restore", "drop", "import")),
    "focus", "focus.show", "image.load", "image.list", "image.remove", "history",
)  # fmt: skip
STEP = {
    "boot_id": "0123456789abcdef", "n": 7, "machine": "p://work", "kind": "persona", "seq": 3, "source": "starting", "event": "started",
    "dest": "running", "why": "podman says it runs", "at_ms": 12345, "attempts": 1, "desired": "running",
}  # fmt: skip
STEPS = [{**STEP, "n": 6, "seq": 2, "source": "stopped", "event": "start", "dest": "starting", "why": "asked to start", "at_ms": 11000}, STEP]
WIRE = manifest.load('image = "localhost/shell:latest"\nhome = "/root"\n', "here").to_wire()
WORK = {
    "name": "p://work", "state": "running", "desired": "running", "attempts": 1, "seq": 3, "active": True, "since_ms": 12345,
    "image": "localhost/shell:latest", "autostart": False, "restart": "no", "behind": "freeze", "description": "A shell to work in",
    "why": "podman says it runs", "container": "0123456789abcdef0123",
}  # fmt: skip


class Spine:
    """A control server that remembers what was asked and answers from `answers`: a result, an exception, or a function of the params."""

    def __init__(self, path: str) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.answers: dict[str, Any] = {
            "persona.list": [WORK],
            "persona.show": {**WORK, "manifest": WIRE, "steps": STEPS},
            "history": STEPS,
        }
        self.reactor = Reactor()
        server = ControlServer(self.reactor, Log(), {name: self._method(name) for name in METHODS}, path=path, uids=frozenset({os.getuid()}))
        server.open()
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _method(self, name: str) -> Callable[[Any, Any], None]:
        def answer(params: Any, reply: Any) -> None:
            self.asked.append((name, dict(params)))
            found = self.answers[name]
            reply(found(params) if callable(found) else found)

        return answer

    def _serve(self) -> None:
        while not self.over.is_set():
            self.reactor.turn(0.02)

    def is_(self, state: str, **more: Any) -> None:
        self.answers["persona.show"] = {**self.answers["persona.show"], "state": state, **more}

    def ends(self, verb: str, state: str, *, settled: bool = True, why: str = "because") -> None:
        self.answers[f"persona.{verb}"] = {**WORK, "state": state, "why": why, "settled": settled}


@pytest.fixture
def spine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Spine]:
    played = Spine(str(tmp_path / "control.sock"))
    monkeypatch.setenv("BAY0_SOCKET", str(tmp_path / "control.sock"))
    yield played
    played.over.set()
    played.thread.join(10)


@pytest.fixture(autouse=True)
def _logs_of_our_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    monkeypatch.setattr(paths, "LOGS", str(tmp_path / "logs"))
    monkeypatch.setattr(samples, "PLACE", str(tmp_path / "samples"))


Captured = pytest.CaptureFixture[str]


# ---- help and usage


@pytest.mark.parametrize(
    "words",
    [
        *(["persona", verb] for verb in PERSONA_VERBS),
        ["image", "load"],
        ["image", "list"],
        ["image", "remove"],
        ["focus"],
        ["events"],
        ["persona"],
        ["image"],
    ],
    ids=" ".join,
)
def test_every_verb_explains_itself_with_an_example(words: list[str], capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    status = cli.main([*words, "--help"])
    assert status == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: bay0 {' '.join(words)} ")
    assert "example:\n  bay0 " in shown
    assert max(map(len, shown.splitlines())) <= 80


def verbs_of(*path: str) -> set[str]:
    verb = verbs.root()
    for word in path:
        verb = verb.below[word]
    return set(verb.below)


def test_every_persona_verb_is_tested_here() -> None:
    assert verbs_of("persona") == set(PERSONA_VERBS)
    assert verbs_of("image") == {"load", "list", "remove"}


def test_the_examples_of_the_help_can_be_parsed(capsys: Captured) -> None:
    for words in (["persona", verb] for verb in PERSONA_VERBS):
        cli.main([*words, "--help"])
        for line in capsys.readouterr().out.partition("example:\n")[2].splitlines():
            example = line.split("#")[0].split()
            if example:
                _, verb, _ = verbs.parse(example[1:])
                assert cli.function(verb.call)


@pytest.mark.parametrize(
    "words", [["persona"], ["persona", "mend"], ["persona", "start"], ["persona", "logs"], ["image"], ["image", "load"], ["completion", "csh"]]
)
def test_wrong_usage_is_status_2(words: list[str], capsys: Captured) -> None:
    status = cli.main(words)
    assert status == 2
    assert "usage: bay0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["persona", "create"], "say which"),
        (["persona", "create", "./work", "--file", "x.toml"], "--file"),
        (["persona", "create", "--image", "x"], "with a name"),
        (["persona", "create", "work", "--image", "x", "--file", "y"], "without --file"),
        (["persona", "stop"], "say which one"),
        (["persona", "stop", "work", "--all"], "say which one"),
        (["persona", "graph", "work", "--all"], "leave the name out"),
        (["persona", "logs", "work", "-n", "-1"], "0 or more"),
        (["events", "-n", "-1"], "0 or more"),
    ],
)
def test_usage_that_makes_no_sense_is_status_2_and_says_what_would(spine: Spine, words: list[str], said: str, capsys: Captured) -> None:
    assert cli.main(words) == clikit.USAGE == 2
    assert said in capsys.readouterr().err
    assert spine.asked == []


@pytest.mark.parametrize(
    "words",
    [
        ["persona", "list"],
        *(["persona", verb, "work"] for verb in (*MOVES, "show", "shell", "logs", "history")),
        ["focus"],
        ["focus", "work"],
        ["image", "list"],
    ],
    ids=" ".join,
)
def test_without_a_spine_the_status_is_3_and_the_way_out_is_named(words: list[str], capsys: Captured) -> None:
    assert cli.main(words) == clikit.NO_SPINE == 3
    assert "scripts/quickstart.sh" in capsys.readouterr().err


def test_a_clone_says_what_was_copied_for_people_and_for_programs(spine: Spine, capsys: Captured) -> None:
    copied = {"entries": 7, "bytes": 4096, "frozen_s": 1.25}
    spine.answers["persona.clone"] = {**WORK, "name": "p://try", "state": "stopped", "copied": copied}
    assert cli.main(["persona", "clone", "work", "try"]) == 0
    assert spine.asked == [("persona.clone", {"source": "p://work", "name": "p://try"})]
    shown = capsys.readouterr().out
    assert "p://try is made and stopped: 7 entries, 4 KiB; who was copied stood still for 1.2 s" in shown
    assert "`bay0 persona start try`" in shown
    assert cli.main(["persona", "copy", "work", "try", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["copied"] == copied


KEPT = {
    "name": "p://work@3", "persona": "p://work", "number": 3, "state": "kept", "note": "before \x1b[2Jit", "taken": 1_800_000_000, "home": True,
    "entries": 7, "bytes": 4096, "image": "localhost/alpine:3.23", "not_understood": "",
}  # fmt: skip
COPIED = {"entries": 7, "bytes": 4096, "frozen_s": None}


def test_a_snapshot_says_its_name_what_was_deleted_for_it_and_the_way_back(spine: Spine, capsys: Captured) -> None:
    spine.answers["persona.snapshot"] = {**KEPT, "copied": COPIED, "dropped": ["p://work@1"]}
    assert cli.main(["persona", "snapshot", "work", "--note", "before it", "--keep", "2"]) == 0
    assert spine.asked == [("persona.snapshot", {"name": "p://work", "note": "before it", "keep": 2})]
    told = "p://work@3 is kept: 7 entries, 4 KiB; deleted: work@1; `bay0 persona restore work@3` goes back to it"
    assert capsys.readouterr().out.strip() == told


def test_snapshots_are_listed_and_a_note_does_nothing_to_the_terminal(spine: Spine, capsys: Captured) -> None:
    spine.answers["persona.snapshots"] = [KEPT]
    assert cli.main(["persona", "snapshots", "work"]) == 0
    shown = capsys.readouterr().out
    assert shown.splitlines()[1].split()[0] == "work@3"
    assert "\x1b" not in shown
    assert "4 KiB" in shown
    spine.answers["persona.snapshots"] = []
    assert cli.main(["persona", "snapshots"]) == 0
    assert "no snapshots; `bay0 persona snapshot NAME` takes one" in capsys.readouterr().out
    assert spine.asked == [("persona.snapshots", {"name": "p://work"}), ("persona.snapshots", {})]


@pytest.mark.parametrize(("word", "params"), [("work@3", {"name": "p://work", "number": 3}), ("work", {"name": "p://work"})])
def test_going_back_is_asked_for_by_the_name_and_never_without_a_yes(
    word: str, params: dict[str, Any], spine: Spine, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    spine.answers["persona.restore"] = {**WORK, "copied": COPIED}
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert cli.main(["persona", "restore", word]) == clikit.REFUSED
    assert "say --yes where nobody can be asked. Nothing was changed" in capsys.readouterr().err
    assert spine.asked == []
    assert cli.main(["persona", "restore", word, "--yes"]) == 0
    assert spine.asked == [("persona.restore", params)]
    assert "p://work is back: 7 entries, 4 KiB" in capsys.readouterr().out


def test_a_clone_is_made_of_a_snapshot_too(spine: Spine) -> None:
    spine.answers["persona.clone"] = {**WORK, "name": "p://try", "copied": COPIED}
    assert cli.main(["persona", "clone", "work@3", "try"]) == 0
    assert spine.asked == [("persona.clone", {"source": "p://work@3", "name": "p://try"})]


def test_one_is_created_from_a_template(spine: Spine, capsys: Captured) -> None:
    spine.answers["persona.clone"] = {**WORK, "name": "p://try", "state": "stopped", "copied": COPIED}
    assert cli.main(["persona", "create", "try", "--from", "work@3"]) == 0
    assert spine.asked == [("persona.clone", {"source": "p://work@3", "name": "p://try"})]
    assert "p://try is made and stopped" in capsys.readouterr().out
    for words in (["--from", "work"], ["try", "--from", "work", "--image", "x"], ["try", "--from", "work", "--file", "-"]):
        assert cli.main(["persona", "create", *words]) == clikit.USAGE
        assert "--from stands in for a manifest" in capsys.readouterr().err


def test_each_snapshot_that_is_deleted_is_named(spine: Spine, capsys: Captured) -> None:
    spine.answers["persona.drop"] = KEPT
    assert cli.main(["persona", "drop", "work@3", "p://work@3"]) == 0
    assert [params for _, params in spine.asked] == [{"name": "p://work@3"}] * 2
    assert capsys.readouterr().out.splitlines() == ["p://work@3 is deleted"] * 2
    assert cli.main(["persona", "drop"]) == clikit.REFUSED
    assert cli.main(["persona", "drop", "work"]) == clikit.REFUSED
    assert "is followed by a number" in capsys.readouterr().err


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The homes are here; `work` has one."""
    for name in ("HOMES", "SNAPSHOTS"):
        monkeypatch.setattr(staging, name, str(tmp_path / name.lower()))
    monkeypatch.setattr(shield, "last_at_the_disk", lambda: None)
    (tmp_path / "homes/p__work").mkdir(parents=True)
    (tmp_path / "homes/p__work/notes").write_text("mine")
    return tmp_path


def test_one_that_rests_is_exported_as_it_is_and_an_import_takes_it(spine: Spine, home: Path, capsys: Captured) -> None:
    spine.is_("stopped")
    file = str(home / "work.tar")
    assert cli.main(["persona", "export", "work", file]) == 0
    assert f"{file}: p://work, 1 entries, 4 bytes; `bay0 persona import` reads it" in capsys.readouterr().out
    assert [method for method, _ in spine.asked] == ["persona.show", "persona.show"], "it is looked at again before the checksum"
    listed = subprocess.run(["tar", "-tf", file], check=True, capture_output=True, text=True).stdout.split()
    assert listed == ["persona.json", "home", "home/notes", "checksum"]
    spine.answers["persona.import"] = {**WORK, "name": "p://try", "state": "stopped", "copied": COPIED}
    spine.answers["image.list"] = [{"name": "localhost/other:1"}]
    assert cli.main(["persona", "import", file, "--as", "try"]) == 0
    shown = capsys.readouterr().out
    assert "p://try is made and stopped: 7 entries" in shown
    assert "its image localhost/shell:latest is not here" in shown
    asked = {"name": "p://try", "archive": file, "manifest": WIRE, "accept": False}
    assert ("persona.import", asked) in spine.asked
    assert cli.main(["persona", "import", file, "--accept"]) == 0
    assert ("persona.import", {**asked, "name": "p://work", "accept": True}) in spine.asked


def test_one_that_is_started_meanwhile_leaves_no_archive(spine: Spine, home: Path, capsys: Captured) -> None:
    shown = [{**spine.answers["persona.show"], "state": state, "seq": seq} for state, seq in (("stopped", 3), ("running", 5))]
    spine.answers["persona.show"] = lambda _params: shown.pop(0)
    assert cli.main(["persona", "export", "work", str(home / "work.tar")]) == clikit.REFUSED
    assert "p://work did not stand still: it is running" in capsys.readouterr().err
    assert not (home / "work.tar").exists()


def test_of_one_that_runs_a_snapshot_is_exported_and_deleted_again(spine: Spine, home: Path, capsysbinary: Any) -> None:
    os.rename(home / "homes", home / "snapshots")
    os.rename(home / "snapshots/p__work", home / "snapshots/p__work@3")
    spine.answers["persona.snapshot"] = {**KEPT, "copied": COPIED, "dropped": []}
    spine.answers["persona.snapshots"] = {**KEPT, "manifest": WIRE}
    spine.answers["persona.drop"] = KEPT
    assert cli.main(["persona", "export", "work", "-"]) == 0
    with tarfile.open(fileobj=io.BytesIO(capsysbinary.readouterr().out)) as archive:
        assert archive.getnames() == ["persona.json", "home", "home/notes", "checksum"]
        about = archive.extractfile("persona.json")
        assert about is not None
        assert json.load(about)["name"] == "p://work"
    assert [method for method, _ in spine.asked] == ["persona.show", "persona.snapshot", "persona.snapshots", "persona.drop"]


def test_an_export_writes_over_nothing(spine: Spine, home: Path, capsys: Captured) -> None:
    spine.is_("stopped")
    (home / "work.tar").write_text("precious")
    (home / "link.tar").symlink_to(home / "elsewhere")
    for name in ("work.tar", "link.tar"):
        assert cli.main(["persona", "export", "work", str(home / name)]) == clikit.REFUSED
        assert "File exists; nothing was written" in capsys.readouterr().err
    assert (home / "work.tar").read_text() == "precious"
    assert not (home / "elsewhere").exists()


@pytest.mark.parametrize("path", ["notes", "/home/work/notes", "p://work:notes"])
def test_a_file_is_copied_out_of_a_home_and_into_it(path: str, spine: Spine, home: Path, capsysbinary: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    spine.answers["persona.show"] = {**spine.answers["persona.show"], "manifest": {**WIRE, "home": "/home/work"}}
    there = path if ":" in path else f"work:{path}"
    assert cli.main(["persona", "cp", there, "-"]) == 0
    assert capsysbinary.readouterr().out == b"mine"
    (home / "here").write_text("from here")
    assert cli.main(["persona", "cp", str(home / "here"), there]) == 0
    assert (home / "homes/p__work/notes").read_text() == "from here"
    assert cli.main(["persona", "cp", str(home / "here"), "work:"]) == 0
    assert (home / "homes/p__work/here").read_text() == "from here"
    assert cli.main(["persona", "cp", there, str(home)]) == 0
    assert (home / "notes").read_text() == "from here"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"piped")))
    assert cli.main(["persona", "cp", "-", there]) == 0
    assert (home / "homes/p__work/notes").read_text() == "piped"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a", "b"], (clikit.USAGE, "one of the two is NAME:PATH")), (["work:a", "play:b"], (clikit.USAGE, "one of the two is NAME:PATH")),
        (["./work:a", "b"], (clikit.USAGE, "one of the two")), (["work:/etc/passwd", "-"], (clikit.REFUSED, "outside of its home, /home/work")),
        (["work:/home/workers/x", "-"], (clikit.REFUSED, "outside of its home")), (["work:none", "-"], (clikit.REFUSED, "No such file")),
        (["/dev/zero", "work:a"], (clikit.REFUSED, "is a device")), (["missing", "work:a"], (clikit.REFUSED, "No such file")),
    ],
)  # fmt: skip
def test_what_cannot_be_copied_is_said_and_nothing_is(
    words: list[str], said: tuple[int, str], spine: Spine, home: Path, capsys: Captured
) -> None:
    status, why = said
    spine.answers["persona.show"] = {**spine.answers["persona.show"], "manifest": {**WIRE, "home": "/home/work"}}
    assert cli.main(["persona", "cp", *words]) == status
    assert why in capsys.readouterr().err
    assert os.listdir(home / "homes/p__work") == ["notes"]


def test_what_is_no_archive_is_told_so_before_anything_is_asked(spine: Spine, home: Path, capsys: Captured) -> None:
    (home / "none.tar").write_bytes(b"hello" * 300)
    os.mkfifo(home / "pipe")
    for path, why in (("none.tar", "this is no header of tar"), ("pipe", "is a pipe, and a"), ("missing", "No such file")):
        assert cli.main(["persona", "import", str(home / path)]) == clikit.REFUSED
        assert why in capsys.readouterr().err
    assert spine.asked == []


def test_a_clone_of_who_is_not_there_is_refused_with_the_nearest_name(spine: Spine, capsys: Captured) -> None:
    spine.answers["persona.clone"] = RefusedError("there is no persona p://wrok")
    spine.answers["persona.list"] = [WORK]
    assert cli.main(["persona", "clone", "wrok", "try"]) == clikit.REFUSED
    assert "Did you mean p://work?" in capsys.readouterr().err


def test_how_far_a_copy_is_is_said_in_a_line(spine: Spine) -> None:
    spine.answers["persona.copying"] = {"bytes": 1 << 20, "of_bytes": 3 << 20, "entries": 4, "of_entries": 9}
    assert persona_copy._far("p://try").startswith("copying: 1 MiB of 3 MiB, 4 of 9 entries; Ctrl-C")
    spine.answers["persona.copying"] = {}
    assert "looking how much there is" in persona_copy._far("p://try")


def test_who_it_runs_as_and_that_it_may_make_namespaces_is_shown_where_its_manifest_says_so(spine: Spine, capsys: Captured) -> None:
    spine.answers["persona.show"] = {**WORK, "manifest": {**WIRE, "user": "me:staff", "userns": True}, "steps": []}
    assert cli.main(["persona", "show", "work"]) == 0
    shown = capsys.readouterr().out
    assert ("user       me:staff" in shown, "userns     it may" in shown) == (True, True)


def test_one_that_this_program_does_not_understand_is_in_the_list_and_says_what_can_be_done(spine: Spine, capsys: Captured) -> None:
    newer = {**WORK, "name": "p://newer", "state": "stopped", "active": False, "image": None, "not_understood": "of another program, at: quota"}
    spine.answers["persona.list"] = [WORK, newer]
    assert cli.main(["persona", "list"]) == 0
    assert "p://newer  stopped" in (listed := capsys.readouterr().out)
    assert "not understood" in listed
    spine.answers["persona.show"] = {**newer, "manifest": None, "steps": []}
    assert cli.main(["persona", "show", "newer"]) == 0
    shown = capsys.readouterr().out
    assert "of another program, at: quota" in shown
    assert "boot the newer image that wrote it; or `bay0 persona remove newer`" in shown


@pytest.mark.parametrize("verb", [*MOVES, "show", "shell", "logs", "history", "graph", "create"])
@pytest.mark.parametrize("name", ["sys://console", "Work", "p__work", "a/../b", "p://work-", ""])
def test_a_bad_name_or_a_tenants_is_refused_before_anything_is_sent(spine: Spine, verb: str, name: str, capsys: Captured) -> None:
    assert cli.main(["persona", verb, name]) == 1
    assert spine.asked == []
    said = capsys.readouterr().err
    assert said.startswith("bay0: ")
    assert ("is a system tenant" in said) is (name == "sys://console")


# ---- create


def folder(tmp_path: Path, name: str, text: str = 'image = "localhost/shell:latest"\n') -> Path:
    path = tmp_path / name
    path.mkdir(parents=True)
    (path / "persona.toml").write_text(text)
    return path


def created(spine: Spine) -> None:
    spine.answers["persona.create"] = lambda params: {**WORK, "name": params["name"], "state": "stopped", "active": False}


@pytest.mark.parametrize("how", ["sample", "full name", "folder", "slash", "file", "name and file", "inside", "manifest"])
def test_create_finds_name_and_manifest_in_what_is_given(
    spine: Spine, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    created(spine)
    path = folder(tmp_path, "samples/work" if how in ("sample", "full name") else "mine/work")
    monkeypatch.chdir(path if how == "inside" else tmp_path)
    given = {
        "sample": ["work"],
        "full name": ["p://work"],
        "folder": ["mine/work"],
        "slash": ["mine/work/"],
        "file": ["--file", "mine/work/persona.toml"],
        "name and file": ["work", "--file", str(path / "persona.toml")],
        "inside": ["."],
        "manifest": ["mine/work/persona.toml"],
    }[how]
    assert cli.main(["persona", "create", *given]) == 0
    assert spine.asked == [("persona.create", {"name": "p://work", "manifest": {**WIRE, "home": ""}})]
    assert capsys.readouterr().out == "p://work is created and stopped; `bay0 persona start work` starts it\n"


def test_create_takes_an_image_in_place_of_a_manifest(spine: Spine) -> None:
    created(spine)
    assert cli.main(["persona", "create", "try", "--image", "localhost/other:1"]) == 0
    assert spine.asked == [("persona.create", {"name": "p://try", "manifest": {**WIRE, "home": "", "image": "localhost/other:1"}})]


def test_create_names_all_mistakes_of_a_manifest_and_sends_nothing(spine: Spine, tmp_path: Path, capsys: Captured) -> None:
    path = folder(tmp_path, "work", 'image = "localhost/x:latest"\nmemorry = "64M"\ncpus = -1\n')
    assert cli.main(["persona", "create", str(path)]) == 1
    said = capsys.readouterr().err
    assert f"{path}/persona.toml:2: memorry" in said
    assert f"{path}/persona.toml:3: cpus" in said
    assert spine.asked == []


def test_create_says_where_it_looked_and_which_samples_there_are(spine: Spine, tmp_path: Path, capsys: Captured) -> None:
    folder(tmp_path, "samples/shell")
    assert cli.main(["persona", "create", "work"]) == 1
    said = capsys.readouterr().err
    assert str(tmp_path / "samples" / "work" / "persona.toml") in said
    assert "samples in" in said
    assert "shell" in said
    assert "bay0 persona create FOLDER" in said
    assert spine.asked == []


def test_a_sample_that_is_not_there_is_answered_with_the_nearest(capsys: Captured) -> None:
    os.makedirs(f"{samples.PLACE}/work")
    Path(samples.PLACE, "work", "persona.toml").write_text('image = "x"\n')
    assert cli.main(["persona", "create", "wrok"]) == 1
    assert "Did you mean work?" in capsys.readouterr().err
    assert cli.main(["persona", "create", "zzzz"]) == 1
    assert "Did you mean" not in capsys.readouterr().err


@pytest.mark.parametrize("what", ["folder without a manifest", "not text"])
def test_create_refuses_what_it_cannot_read(spine: Spine, what: str, tmp_path: Path, capsys: Captured) -> None:
    path = folder(tmp_path, "work")
    if what == "not text":
        (path / "persona.toml").write_bytes(b"\xff\xfe")
    else:
        (path / "persona.toml").unlink()
    assert cli.main(["persona", "create", str(path)]) == 1
    assert f"{path}/persona.toml" in capsys.readouterr().err
    assert spine.asked == []


def test_the_samples_of_the_project_can_be_created(spine: Spine) -> None:
    created(spine)
    shipped = sorted(Path(cli.__file__).parent.parent.glob("personas/*/persona.toml"))
    for path in shipped:
        assert cli.main(["persona", "create", str(path.parent)]) == 0
    assert [params["name"] for _method, params in spine.asked] == [f"p://{path.parent.name}" for path in shipped]


# ---- list and show


def test_list_is_a_table_that_marks_the_active_one(spine: Spine, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "clock_gettime_ns", lambda _clock: (12345 + 250_000) * 1_000_000)
    longer = {**WORK, "name": "p://a-much-longer-name", "state": "stopped", "active": False, "behind": "run"}
    spine.answers["persona.list"] = [WORK, longer]
    assert cli.main(["persona", "list"]) == 0
    shown = capsys.readouterr().out
    assert [re.split(" {2,}", line.strip()) for line in shown.splitlines()] == [
        ["NAME", "STATE", "DESIRED", "BEHIND", "SINCE", "IMAGE"],
        ["*", "p://work", "running", "running", "freeze", "4 min 10 s", "localhost/shell:latest"],
        ["p://a-much-longer-name", "stopped", "running", "run", "4 min 10 s", "localhost/shell:latest"],
    ]
    assert len({line.index(word) for line, word in zip(shown.splitlines(), ("STATE", "running", "stopped"), strict=True)}) == 1
    assert shown.isascii()


def test_list_is_json_for_programs_and_labels_for_completion(spine: Spine, capsys: Captured) -> None:
    assert cli.main(["persona", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [WORK]
    assert cli.main(["persona", "list", "--names"]) == 0
    assert capsys.readouterr().out == "work\n"


def test_without_personas_list_says_how_to_make_one(spine: Spine, tmp_path: Path, capsys: Captured) -> None:
    folder(tmp_path, "samples/shell")
    spine.answers["persona.list"] = []
    assert cli.main(["persona", "list"]) == 0
    assert "bay0 persona create NAME" in (shown := capsys.readouterr().out)
    assert "samples in" in shown
    assert "shell" in shown


def test_names_for_completion_are_silent_without_a_spine_and_when_refused(capsys: Captured) -> None:
    assert cli.main(["persona", "list", "--names"]) == 3
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59, "59 s"), (60, "1 min"), (3599, "59 min 59 s"), (3 * 3600 + 300, "3 h 5 min"), (2 * 86400 + 4 * 3600, "2 d 4 h"), (-5, "0 s")],
)
def test_an_age_has_two_figures_at_most(seconds: int, text: str) -> None:
    assert age(1000, 1000 + seconds * 1000) == text


def test_show_tells_facts_the_reason_the_way_on_and_the_last_steps(spine: Spine, capsys: Captured) -> None:
    assert cli.main(["persona", "show", "work"]) == 0
    shown = capsys.readouterr().out
    assert spine.asked == [("persona.show", {"name": "p://work"})]
    for part in (
        "p://work is running, the active persona", "A shell to work in", "256 MiB, 1 CPUs, 256 processes", "home       /root",
        "why        podman says it runs", "bay0 persona shell work", "attempt 1", "asked to start", "12.345 s",
    ):  # fmt: skip
        assert part in shown
    assert cli.main(["persona", "show", "work", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == STEPS


@pytest.mark.parametrize("state", [s.value for s in MACHINES["persona"].states])
def test_every_state_has_a_way_on(spine: Spine, state: str, capsys: Captured) -> None:
    spine.is_(state, container=None, steps=[], why="")
    assert cli.main(["persona", "show", "work"]) == 0
    assert state in personareport.NEXT
    assert "next       " in (shown := capsys.readouterr().out)
    assert "{0}" not in shown


def test_what_a_persona_could_smuggle_into_a_reason_does_not_reach_the_terminal(spine: Spine, capsys: Captured) -> None:
    spine.is_("failed", why="crun said \x1b]0;title\x07\x1b[2J")
    assert cli.main(["persona", "show", "work"]) == 0
    assert "\\x1b]0;title\\x07\\x1b[2J" in capsys.readouterr().out


# ---- start, stop, pause, resume, reset, remove


@pytest.mark.parametrize(
    ("verb", "state"), [("start", "running"), ("stop", "stopped"), ("pause", "paused"), ("resume", "running"), ("reset", "stopped")]
)
def test_a_move_that_is_done_is_status_0(spine: Spine, verb: str, state: str, capsys: Captured) -> None:
    spine.ends(verb, state)
    assert cli.main(["persona", verb, "work"]) == 0
    home = {"home": False} if verb == "reset" else {}
    assert spine.asked == [(f"persona.{verb}", {"name": "p://work", "wait": True, **home})]
    assert capsys.readouterr().out == f"p://work is {state}: because\n"
    assert cli.main(["persona", verb, "p://work", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["settled"] is True


def test_a_removed_persona_is_said_to_be_removed(spine: Spine, capsys: Captured) -> None:
    spine.ends("remove", "absent")
    assert cli.main(["persona", "remove", "work"]) == 0
    assert spine.asked == [("persona.remove", {"name": "p://work", "wait": True, "home": False})]
    assert capsys.readouterr().out == "p://work is removed\n"


@pytest.mark.parametrize("verb", MOVES)
def test_a_move_that_is_not_settled_is_status_4_or_0_if_nobody_waits(spine: Spine, verb: str, capsys: Captured) -> None:
    spine.ends(verb, "converging", settled=False)
    assert cli.main(["persona", verb, "work"]) == clikit.UNSETTLED == 4
    assert capsys.readouterr().out == "accepted, p://work is still converging; `bay0 persona show work` tells how it goes\n"
    assert cli.main(["persona", verb, "work", "--no-wait"]) == 0
    assert capsys.readouterr().out == "accepted, p://work is converging; `bay0 persona show work` tells how it goes\n"
    assert [params["wait"] for _method, params in spine.asked] == [True, False]
    assert cli.main(["persona", verb, "work", "--json"]) == 4
    assert json.loads(capsys.readouterr().out)["settled"] is False


@pytest.mark.parametrize(
    ("verb", "state"),
    [("start", "failed"), ("pause", "stopped"), ("pause", "failed"), ("resume", "stopped"), ("reset", "failed"), ("resume", "failed")],
)
def test_a_move_that_ended_elsewhere_is_status_1_with_the_reason_and_the_way_on(spine: Spine, verb: str, state: str, capsys: Captured) -> None:
    spine.ends(verb, state, why="no such image")
    assert cli.main(["persona", verb, "work"]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"bay0: p://work is {state}: no such image; `bay0 persona ")


def test_what_ended_by_itself_at_once_did_start(spine: Spine) -> None:
    spine.ends("start", "stopped", why="it ended by itself with status 0")
    assert cli.main(["persona", "start", "work"]) == 0


def test_a_refusal_is_status_1_with_what_bay0_said(spine: Spine, capsys: Captured) -> None:
    spine.answers["persona.start"] = RefusedError("p://work is paused: it is paused: resume it")
    assert cli.main(["persona", "start", "work"]) == 1
    assert capsys.readouterr().err == "bay0: p://work is paused: it is paused: resume it\n"


def test_stop_all_stops_whatever_is_not_stopped_at_once(spine: Spine, capsys: Captured) -> None:
    states = {"p://a": "running", "p://b": "stopped", "p://c": "paused", "p://d": "failed", "p://e": "waiting"}
    spine.answers["persona.list"] = [{**WORK, "name": name, "state": state} for name, state in states.items()]

    def stop(params: Any) -> Any:
        if params["name"] == "p://c":
            return RefusedError("the disk did not take it")
        return {**WORK, "name": params["name"], "state": "stopped", "why": "asked to stop", "settled": params["name"] == "p://a"}

    spine.answers["persona.stop"] = stop
    assert cli.main(["persona", "stop", "--all"]) == 1
    assert [params for method, params in spine.asked if method == "persona.stop"] == [{"name": n, "wait": True} for n in ("p://a", "p://c", "p://e")]
    shown = capsys.readouterr()
    assert "p://a is stopped" in shown.out
    assert "accepted, p://e" in shown.out
    assert "p://c: the disk did not take it" in shown.err


@pytest.mark.parametrize(("settled", "status"), [(True, 0), (False, 4)])
def test_stop_all_answers_for_the_worst_of_them(spine: Spine, settled: bool, status: int, capsys: Captured) -> None:
    spine.ends("stop", "stopped", settled=settled)
    assert cli.main(["persona", "stop", "--all", "--json"]) == status
    assert [each["settled"] for each in json.loads(capsys.readouterr().out)] == [settled]
    assert cli.main(["persona", "stop", "--all", "--no-wait"]) == 0


def test_stop_all_of_nothing_is_done(spine: Spine, capsys: Captured) -> None:
    spine.answers["persona.list"] = []
    assert cli.main(["persona", "stop", "--all"]) == 0
    assert capsys.readouterr().out == "nothing runs\n"


# ---- several at once, and by pattern


@pytest.fixture
def crowd(spine: Spine) -> Spine:
    states = {"play": "paused", "test-a": "running", "test-b": "stopped", "work": "running"}
    spine.answers["persona.list"] = [{**WORK, "name": f"p://{name}", "state": state} for name, state in states.items()]

    def move(params: Any) -> Any:
        if params["name"] == "p://test-b":
            return RefusedError("p://test-b is stopped: start it first")
        if params["name"] == "p://wrok":
            return RefusedError("there is no persona p://wrok")
        return {**WORK, "name": params["name"], "state": "running", "why": "because", "settled": True}

    for verb in (*MOVES, "wait"):
        spine.answers[f"persona.{verb}"] = move
    return spine


def moved(spine: Spine, verb: str) -> list[str]:
    return [params["name"].removeprefix("p://") for method, params in spine.asked if method == f"persona.{verb}"]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["work", "play"], ["work", "play"]),
        (["work", "p://work", "play"], ["work", "play"]),
        (["test-?"], ["test-a", "test-b"]),
        (["p://test-*"], ["test-a", "test-b"]),
        (["work", "*"], ["work", "play", "test-a", "test-b"]),
        (["*a*"], ["play", "test-a"]),
        (["????"], ["play", "work"]),
        (["--all"], ["test-b"]),
    ],
)
def test_whoever_a_name_or_a_pattern_means_is_moved_once_in_the_order_given(crowd: Spine, words: list[str], names: list[str]) -> None:
    cli.main(["persona", "start", *words])
    assert sorted(moved(crowd, "start")) == sorted(names)
    assert persona_many.chosen([w for w in words if w != "--all"], of_all="start" if words == ["--all"] else "")[0] == [f"p://{n}" for n in names]


def test_of_several_each_is_named_with_its_result_and_one_that_fails_keeps_no_other(crowd: Spine, capsys: Captured) -> None:
    assert cli.main(["persona", "start", "work", "test-b", "wrok", "play"]) == 1
    shown = capsys.readouterr()
    assert shown.out == "p://work is running: because\np://play is running: because\n"
    assert shown.err == (
        "bay0: p://test-b: p://test-b is stopped: start it first\n"
        "bay0: p://wrok: there is no persona p://wrok. Did you mean p://work?\n"
    )
    assert cli.main(["persona", "start", "work", "test-b", "--json"]) == 1
    assert [each.get("error", each.get("state")) for each in json.loads(capsys.readouterr().out)] == [
        "running", "p://test-b is stopped: start it first",
    ]  # fmt: skip
    assert cli.main(["persona", "start", "work", "play"]) == 0


def test_a_pattern_that_is_like_none_changes_nothing(crowd: Spine, capsys: Captured) -> None:
    assert cli.main(["persona", "stop", "work", "tset-*"]) == 1
    assert "no persona is like 'tset-*'" in capsys.readouterr().err
    assert moved(crowd, "stop") == []


@pytest.mark.parametrize(
    ("verb", "names"),
    [("start", ["test-b"]), ("stop", ["play", "test-a", "work"]), ("restart", ["play", "test-a", "work"]), ("pause", ["test-a", "work"]),
     ("resume", ["play"])],
)  # fmt: skip
def test_all_are_those_for_whom_the_verb_has_something_to_do(crowd: Spine, verb: str, names: list[str], capsys: Captured) -> None:
    cli.main(["persona", verb, "--all"])
    assert sorted(moved(crowd, verb)) == names
    assert cli.main(["persona", verb, "--all", "work"]) == 2
    crowd.answers["persona.list"] = []
    capsys.readouterr()
    assert cli.main(["persona", verb, "--all"]) == 0
    assert capsys.readouterr().out in ("nothing is stopped\n", "nothing runs\n", "nothing is paused\n")
    assert cli.main(["persona", verb, "--all", "--json"]) == 0
    assert capsys.readouterr().out == "[]\n"


def test_each_home_of_several_is_asked_for(crowd: Spine, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal("work\nno\n"))
    assert cli.main(["persona", "reset", "--home", "work", "play"]) == 1
    assert moved(crowd, "reset") == []
    monkeypatch.setattr(sys, "stdin", Terminal("work\nplay\n"))
    assert cli.main(["persona", "reset", "--home", "work", "play"]) == 0
    assert sorted(moved(crowd, "reset")) == ["play", "work"]


@given(st.text("ab-", max_size=8), st.text("ab-*?", max_size=8))
def test_a_pattern_means_what_it_means_to_a_shell(label: str, pattern: str) -> None:
    assert persona_many.like(pattern, label) is fnmatch.fnmatchcase(label, pattern)


# ---- what it is made of is changed


@pytest.fixture
def changed(spine: Spine) -> Spine:
    spine.answers["persona.show"] = {**WORK, "manifest": {**WIRE, "environment": {"A": "1", "B": "2"}}, "digest": "d1", "steps": []}
    spine.answers["persona.configure"] = lambda params: {**WORK, "changed": {"memory": "now", "user": "at its next start"}, "failed": ""}
    return spine


@pytest.mark.parametrize(
    ("words", "sent"),
    [
        (["memory=1G", "cpus=2", "pids=9"], {"memory": "1G", "cpus": 2, "pids": 9}),
        (["ai=true", "stop_s=0.5"], {"ai": True, "stop_s": 0.5}),
        (["restart=always", "description=a = b"], {"restart": "always", "description": "a = b"}),
        (['command=["sh", "-c", "x=1"]', "capabilities=chown,KILL"], {"command": ["sh", "-c", "x=1"], "capabilities": ["chown", "KILL"]}),
        (["user=1000", "--unset", "home"], {"user": "1000", "home": None}),
    ],
)
def test_set_sends_what_the_words_stand_for(changed: Spine, words: list[str], sent: dict[str, Any], capsys: Captured) -> None:
    assert cli.main(["persona", "set", "work", *words]) == 0
    assert changed.asked == [("persona.configure", {"name": "p://work", "changes": sent})]
    assert capsys.readouterr().out == "p://work: memory counts now\np://work: user counts at its next start\n"


def test_set_of_a_variable_leaves_the_others_and_is_about_the_manifest_that_was_seen(changed: Spine) -> None:
    assert cli.main(["persona", "set", "work", "environment.C=3=4", "--unset", "environment.A"]) == 0
    assert changed.asked[-1] == (
        "persona.configure", {"name": "p://work", "changes": {"environment": {"B": "2", "C": "3=4"}}, "if_digest": "d1"},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [([], 2, "say what to change"), (["memory"], 2, "is not KEY=VALUE"), (["memroy=1G"], 1, "did you mean `memory`?")],
)
def test_set_that_makes_no_sense_asks_for_nothing(changed: Spine, words: list[str], status: int, said: str, capsys: Captured) -> None:
    assert cli.main(["persona", "set", "work", *words]) == status
    assert said in capsys.readouterr().err
    assert changed.asked == []


def test_what_the_kernel_did_not_take_is_status_1(changed: Spine, capsys: Captured) -> None:
    changed.answers["persona.configure"] = {**WORK, "changed": {"cpus": "at its next start"}, "failed": "Device or resource busy"}
    assert cli.main(["persona", "set", "work", "cpus=2"]) == 1
    shown = capsys.readouterr()
    assert "the kernel did not take it (Device or resource busy)" in shown.err
    assert "cpus counts at its next start" in shown.out


def test_show_has_the_manifest_as_toml_that_create_takes(changed: Spine, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli.main(["persona", "show", "work", "--manifest"]) == 0
    text = capsys.readouterr().out
    assert text == 'image = "localhost/shell:latest"\nhome = "/root"\n\n[environment]\nA = "1"\nB = "2"\n'
    changed.answers["persona.create"] = {**WORK, "state": "stopped"}
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert cli.main(["persona", "create", "other", "--file", "-"]) == 0
    assert changed.asked[-1] == ("persona.create", {"name": "p://other", "manifest": changed.answers["persona.show"]["manifest"]})
    assert cli.main(["persona", "show", "work", "--manifest", "--json"]) == 0


def editor(tmp_path: Path, *scripts: str) -> list[str]:
    """Return an editor that does one of `scripts` after the other, each time it is called; "$1" is the file."""
    for number, script in enumerate(scripts):
        (tmp_path / f"do{number}").write_text(script)
    path = tmp_path / "editor"
    path.write_text(f"#!/bin/sh\nn=$(cat {tmp_path}/n 2>/dev/null || echo 0); echo $((n + 1)) >{tmp_path}/n\n. {tmp_path}/do$n\n")
    path.chmod(0o755)
    return [str(path)]


def test_edit_sends_what_was_made_of_the_text(changed: Spine, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal("\n"))
    seen = tmp_path / "seen"
    (command,) = editor(
        tmp_path, f'cp "$1" {seen}; echo "cpus = lots" >"$1"',
        f"""stat -c %a "$1" >{seen}.mode; printf 'image = "localhost/x:1"\\ncpus = 2\\n' >"$1\"""",
    )  # fmt: skip
    monkeypatch.setenv("EDITOR", command)
    monkeypatch.delenv("VISUAL", raising=False)
    assert cli.main(["persona", "edit", "work"]) == 0
    assert seen.read_text().startswith("# The manifest of p://work.")
    assert "memory, cpus" in seen.read_text().splitlines()[1], "what has its default is named"
    method, params = changed.asked[-1]
    assert (method, params["if_digest"]) == ("persona.configure", "d1")
    assert (params["manifest"]["image"], params["manifest"]["cpus"]) == ("localhost/x:1", 2.0)
    assert ":1: syntax: this is not TOML" in capsys.readouterr().err
    assert Path(f"{seen}.mode").read_text() == "600\n"


def test_edit_that_changes_nothing_or_is_given_up_sends_nothing(
    changed: Spine, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert cli.main(["persona", "edit", "work"]) == 1
    assert "needs a terminal" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", Terminal(""))
    for command, status, said in (("true", 0, "as it was"), ("false", 1, "ended with status 1"), ("/no/editor", 1, "cannot be run")):
        monkeypatch.setenv("VISUAL", command)
        assert cli.main(["persona", "edit", "work"]) == status
        shown = capsys.readouterr()
        assert said in shown.out + shown.err
    monkeypatch.setenv("VISUAL", editor(tmp_path, 'echo "cpus = lots" >"$1"')[0])
    assert cli.main(["persona", "edit", "work"]) == 1
    (left,) = re.findall(r"the text is in (\S+)", capsys.readouterr().err)
    assert Path(left).read_text() == "cpus = lots\n"
    assert {method for method, _ in changed.asked} == {"persona.show"}


# ---- waiting


@pytest.mark.parametrize(
    ("answer", "status", "said"),
    [
        ({"reached": True, "ended": False}, 0, "p://work is running\n"),
        ({"reached": False, "ended": False, "state": "starting"}, 4, "bay0: p://work is still starting after 7 s, not running\n"),
        ({"reached": False, "ended": True, "state": "failed", "why": "no image"}, 1, "bay0: p://work is failed and not running: no image; "),
    ],
)
def test_a_wait_says_what_came_of_it(spine: Spine, answer: dict[str, Any], status: int, said: str, capsys: Captured) -> None:
    spine.answers["persona.wait"] = {**WORK, **answer}
    assert cli.main(["persona", "wait", "work", "--timeout", "7"]) == status
    shown = capsys.readouterr()
    assert (shown.out + shown.err).startswith(said)
    assert spine.asked == [("persona.wait", {"name": "p://work", "for": "running", "seconds": 7.0})]
    assert cli.main(["persona", "wait", "work", "--json"]) == status
    assert json.loads(capsys.readouterr().out)["reached"] is answer["reached"]


def test_a_wait_for_several_is_over_when_the_last_of_them_is_there(spine: Spine, capsys: Captured) -> None:
    spine.answers["persona.wait"] = lambda params: (
        RefusedError("there is no persona") if params["name"] == "p://c" else
        {**WORK, "name": params["name"], "state": "stopped", "reached": params["name"] == "p://a", "ended": False}
    )  # fmt: skip
    assert cli.main(["persona", "wait", "a", "b", "--for", "stopped"]) == 4
    assert cli.main(["persona", "wait", "a", "b", "c", "--for", "stopped"]) == 1
    assert cli.main(["persona", "wait", "a", "--for", "stopped"]) == 0
    assert cli.main(["persona", "wait"]) == 2
    assert cli.main(["persona", "wait", "a", "--timeout", "-1"]) == 2
    assert cli.main(["persona", "wait", "a", "--timeout", "nan"]) == 2
    assert cli.main(["persona", "wait", "a", "--for", "dead"]) == 2


def test_many_calls_at_once_are_answered_in_the_order_of_the_asking(spine: Spine) -> None:
    spine.answers["persona.stop"] = lambda params: {**params, "why": "w" * 2000}
    many = [{"name": f"p://n{number}"} for number in range(2000)]
    assert [each["name"] for each in client.call_all("persona.stop", many)] == [each["name"] for each in many]


# ---- a home is emptied only on purpose


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("verb", ["reset", "remove"])
def test_without_a_terminal_a_home_is_not_emptied_unless_yes_is_said(
    spine: Spine, verb: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("work\n"))
    spine.ends(verb, "stopped")
    assert cli.main(["persona", verb, "work", "--home"]) == 1
    assert "--yes" in capsys.readouterr().err
    assert spine.asked == []
    assert cli.main(["persona", verb, "work", "--home", "--yes"]) == 0
    assert spine.asked == [(f"persona.{verb}", {"name": "p://work", "wait": True, "home": True})]


@pytest.mark.parametrize(("typed", "status"), [("work\n", 0), ("p://work\n", 0), ("yes\n", 1), ("\n", 1), ("", 1), ("Work\n", 1)])
def test_on_a_terminal_a_home_is_emptied_when_its_name_is_typed(
    spine: Spine, typed: str, status: int, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(typed))
    spine.ends("reset", "stopped")
    assert cli.main(["persona", "reset", "work", "--home"]) == status
    said = capsys.readouterr().err
    assert "type the persona's name to empty its home" in said
    assert len(spine.asked) == (1 if status == 0 else 0)
    assert ("nothing was changed" in said) is (status == 1)


# ---- shell


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str], dict[str, str]]]:
    calls: list[tuple[str, list[str], dict[str, str]]] = []

    def become(file: str, argv: list[str], environment: dict[str, str]) -> None:
        calls.append((file, argv, environment))
        raise SystemExit(0)

    monkeypatch.setattr(os, "execvpe", become)
    return calls


@pytest.mark.parametrize(("terminal", "flag"), [(True, "-it"), (False, "-i")])
def test_a_shell_becomes_podman_exec_with_a_small_environment(
    spine: Spine, terminal: bool, flag: str, executed: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal() if terminal else io.StringIO())
    monkeypatch.setattr(os, "environ", {"TERM": "vt220", "LANG": "C.UTF-8", "LD_LIBRARY_PATH": "/x", "BAY0_SOCKET": os.environ["BAY0_SOCKET"]})
    with pytest.raises(SystemExit):
        cli.main(["persona", "shell", "work"])
    file, argv, environment = executed[0]
    assert file == "podman"
    assert argv == ["podman", "exec", flag, "p__work", "/bin/sh"]
    assert environment == {
        "TERM": "vt220", "LANG": "C.UTF-8", "HOME": "/root", "PATH": persona_own.PATH, "TMPDIR": f"{paths.CONTAINERS}/tmp",
        "CONTAINERS_CONF": "/run/containers/containers.conf", "CONTAINERS_STORAGE_CONF": "/run/containers/storage.conf",
    }  # fmt: skip


@pytest.mark.parametrize("command", [["ls", "-l"], ["sh", "-c", "a  b; --c"], ["grep", "--", "-x"], ["--json"]])
def test_a_command_reaches_the_persona_as_it_was_typed(spine: Spine, command: list[str], executed: list[Any]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["persona", "shell", "work", "--", *command])
    assert executed[0][1][4:] == command


@pytest.mark.parametrize(
    ("state", "way"), [("stopped", "bay0 persona start work"), ("paused", "bay0 persona resume work"), ("failed", "bay0 persona logs work")]
)
def test_there_is_no_shell_in_what_does_not_run_but_a_way_to_one(spine: Spine, state: str, way: str, executed: list[Any], capsys: Captured) -> None:
    spine.is_(state)
    assert cli.main(["persona", "shell", "work"]) == 1
    assert way in capsys.readouterr().err
    assert executed == []


def test_a_shell_without_podman_says_so(spine: Spine, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setattr(persona_own, "PATH", "/nowhere")
    assert cli.main(["persona", "shell", "work"]) == 1
    assert "no podman here" in capsys.readouterr().err


# ---- exec


@pytest.mark.parametrize(
    ("words", "argv"),
    [
        (["--", "ls", "-l"], ["-i", "p__work", "ls", "-l"]),
        (["ls"], ["-i", "p__work", "ls"]),
        (["--env", "A=1=2", "--env", "B=", "--", "env"], ["-i", "--env=A=1=2", "--env=B=", "p__work", "env"]),
        (["--user", "me:staff", "--workdir", "/tmp", "--", "pwd"], ["-i", "--user=me:staff", "--workdir=/tmp", "p__work", "pwd"]),
        (["--user=--privileged", "--", "id"], ["-i", "--user=--privileged", "p__work", "id"]),
    ],
)
def test_exec_is_one_command_with_its_own_streams(spine: Spine, words: list[str], argv: list[str], executed: list[Any]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["persona", "exec", "work", *words])
    assert executed[0][1] == ["podman", "exec", *argv]


def test_exec_has_a_terminal_only_when_it_is_asked_for_and_there_is_one(
    spine: Spine, executed: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert cli.main(["persona", "exec", "work", "--tty", "--", "sh"]) == 2
    monkeypatch.setattr(sys, "stdin", Terminal())
    for words, flag in ((["--tty"], "-it"), ([], "-i")):
        with pytest.raises(SystemExit):
            cli.main(["persona", "exec", "work", *words, "--", "sh"])
        assert executed[-1][1][2] == flag


@pytest.mark.parametrize(
    ("words", "said"),
    [([], "say what to run"), (["--env", "A", "--", "env"], "NAME=VALUE"), (["--env", "1=2", "--", "env"], "NAME=VALUE"),
     (["--env", "=2", "--", "env"], "NAME=VALUE"), (["--workdir", "tmp", "--", "ls"], "absolute path")],
)  # fmt: skip
def test_exec_that_makes_no_sense_is_status_2_and_asks_for_nothing(
    spine: Spine, words: list[str], said: str, executed: list[Any], capsys: Captured
) -> None:
    assert cli.main(["persona", "exec", "work", *words]) == 2
    assert said in capsys.readouterr().err
    assert (spine.asked, executed) == ([], [])


def test_exec_in_what_does_not_run_is_refused_with_the_way_on(spine: Spine, executed: list[Any], capsys: Captured) -> None:
    spine.is_("paused")
    assert cli.main(["persona", "exec", "work", "--", "ls"]) == 1
    assert "only a running one runs a command: `bay0 persona resume work`" in capsys.readouterr().err
    assert executed == []


# ---- logs


def test_a_persona_without_a_log_is_no_failure_and_one_that_is_not_there_is(spine: Spine, capsys: Captured) -> None:
    spine.is_("stopped")
    assert cli.main(["persona", "logs", "work"]) == 0
    said = capsys.readouterr().err
    assert "no log of p://work" in said
    assert "`bay0 persona start work`" in said
    spine.answers["persona.show"] = RefusedError("there is no persona p://work")
    assert cli.main(["persona", "logs", "work", "-f"]) == 1
    assert "there is no persona" in capsys.readouterr().err


# ---- history and graph


def test_history_is_the_journal_of_the_full_name(spine: Spine, capsys: Captured) -> None:
    assert cli.main(["persona", "history", "work", "-n", "9"]) == 0
    assert spine.asked == [("history", {"machine": "p://work", "limit": 9})]
    assert "podman says it runs" in capsys.readouterr().out
    spine.answers["history"] = []
    assert cli.main(["persona", "history", "work"]) == 0
    assert "nothing of p://work" in capsys.readouterr().out


@pytest.mark.parametrize(("form", "begins"), [("mermaid", "stateDiagram-v2"), ("dot", "digraph")])
def test_the_bare_table_can_be_drawn_without_a_spine(form: str, begins: str, capsys: Captured) -> None:
    assert cli.main(["persona", "graph", "--format", form]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(begins)
    assert all(state.value in shown for state in MACHINES["persona"].states)


def test_with_a_name_the_live_state_is_marked_and_the_last_steps_stand_below(spine: Spine, capsys: Captured) -> None:
    spine.is_("running", why="a {brace}\nand -- dashes")
    assert cli.main(["persona", "graph", "work"]) == 0
    shown = capsys.readouterr().out
    assert "class running live" in shown
    below = shown.partition("class running live\n")[2].splitlines()
    assert below
    assert all(line.startswith("%% ") for line in below)
    assert "{" not in "".join(below)
    assert "asked to start" in shown


@pytest.mark.host
@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz's dot is not installed")
@pytest.mark.parametrize("words", [["work"], ["--all"], []])
def test_what_is_drawn_is_what_graphviz_and_xml_readers_take(spine: Spine, words: list[str], capsys: Captured) -> None:
    spine.is_("running", why="a --- dash \x1b[0m --")
    assert cli.main(["persona", "graph", *words, "--format", "dot"]) == 0
    subprocess.run(["dot", "-Tsvg"], input=capsys.readouterr().out, text=True, check=True, capture_output=True, timeout=60)
    assert cli.main(["persona", "graph", *words, "--format", "svg"]) == 0
    drawn = capsys.readouterr().out
    assert xml.dom.minidom.parseString(drawn).documentElement.tagName == "svg"
    assert ("asked to start" in drawn) is (words == ["work"])


@pytest.mark.parametrize("form", ["mermaid", "dot"])
def test_the_overview_names_everybody_at_its_state_and_cuts_off_a_crowd(spine: Spine, form: str, capsys: Captured) -> None:
    crowd = [{**WORK, "name": f"p://n{number}", "state": "paused"} for number in range(100)]
    spine.answers["persona.list"] = [WORK, {**WORK, "name": "p://play"}, *crowd]
    assert cli.main(["persona", "graph", "--all", "--format", form]) == 0
    shown = capsys.readouterr().out
    assert "work, play" in shown
    assert "n0, n1, " in shown
    assert "and 88 more" in shown
    assert shown.count("stateDiagram-v2" if form == "mermaid" else "digraph") == 1


# ---- focus, image


def test_focus_makes_one_active_or_tells_which_is(spine: Spine, capsys: Captured) -> None:
    spine.answers["focus"] = {"active": "p://work", "settled": True, "left": []}
    assert cli.main(["focus", "work"]) == 0
    assert capsys.readouterr().out == "p://work is active\n"
    spine.answers["focus"] = {"active": "p://work", "settled": False, "left": ["p://play"]}
    assert cli.main(["focus", "work"]) == 4
    assert "still on their way: p://play" in capsys.readouterr().out
    assert cli.main(["focus", "work", "--no-wait"]) == 0
    assert [params for _method, params in spine.asked] == [{"name": "p://work", "wait": wait} for wait in (True, True, False)]
    assert cli.main(["focus", "sys://console"]) == 1
    capsys.readouterr()
    spine.answers["focus.show"] = {"active": None}
    assert cli.main(["focus"]) == 0
    assert "no persona is active; `bay0 focus NAME`" in capsys.readouterr().out
    spine.answers["focus.show"] = {"active": "p://work"}
    assert cli.main(["focus", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"active": "p://work"}


def test_an_image_is_loaded_by_its_absolute_path(spine: Spine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["image", "load", "shell.tar"]) == 1
    assert "no archive at" in capsys.readouterr().err
    (tmp_path / "shell.tar").write_text("")
    spine.answers["image.load"] = {"loaded": ["localhost/shell:latest"]}
    assert cli.main(["image", "load", "shell.tar"]) == 0
    assert spine.asked == [("image.load", {"path": str(tmp_path / "shell.tar")})]
    assert "loaded localhost/shell:latest" in capsys.readouterr().out


def test_images_are_listed_and_removed(spine: Spine, capsys: Captured) -> None:
    spine.answers["image.list"] = [
        {"name": "localhost/shell:latest", "id": "f" * 64, "size": 8 << 20, "built_in": True},
        {"name": "localhost/later:latest", "id": None, "size": None, "built_in": True},
    ]
    assert cli.main(["image", "list"]) == 0
    shown = capsys.readouterr().out
    assert f"localhost/shell:latest  {'f' * 12}  8 MiB  built in" in shown
    assert "loaded when first needed" in shown
    spine.answers["image.list"] = []
    assert cli.main(["image", "list"]) == 0
    assert "bay0 image load FILE" in capsys.readouterr().out
    spine.answers["image.remove"] = {"removed": "localhost/shell:latest"}
    assert cli.main(["image", "remove", "localhost/shell:latest"]) == 0
    assert spine.asked[-1] == ("image.remove", {"name": "localhost/shell:latest"})
