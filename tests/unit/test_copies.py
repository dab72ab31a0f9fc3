"""Copies of personas: the process that makes one, its place on the disk, and what PID 1 does about it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from copykit import NEW, Desk
from personakit import PLAY, WORK, Bench

from bay0.base.bounds import Bounds
from bay0.base.errors import RefusedError
from bay0.cli import persona_copy
from bay0.machines.persona import E, S
from bay0.personas import copies
from bay0.state import copier, copying, files, homes, staging
from bay0.state.link import MISPLACED, Answer

# ---- its place on the disk


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for module in (staging, copier, homes):
        for name in ("HOMES", "STAGING", "TRASH"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, str(tmp_path / name.lower()))
    home = tmp_path / "homes/p__work"
    home.mkdir(parents=True)
    (home / "notes").write_text("mine")
    (home / "again").hardlink_to(home / "notes")
    return tmp_path


def job(disk: Path) -> copier.Job:
    return copier.Job("p__work", "p__new", str(disk / "progress"))


def test_a_copy_lies_beside_its_place_until_one_rename_puts_it_there(disk: Path) -> None:
    assert staging.begin("p__new", "p__work")
    made = copier.copy(job(disk))
    assert (made.entries, made.bytes) == (2, 4)
    assert not (disk / "homes/p__new").exists()
    assert staging.place("p__new")
    assert (disk / "homes/p__new/notes").read_text() == "mine"
    assert (disk / "homes/p__new/again").stat().st_nlink == 2, "and nothing else holds it"
    assert staging.place("p__new"), "a crash may have come between the rename and its answer"
    assert os.listdir(disk / "staging") == []


def test_of_who_has_no_home_yet_there_is_nothing_to_copy(disk: Path) -> None:
    assert not staging.begin("p__new", "p__idle")
    assert not (disk / "staging").exists()
    assert staging.place("p__new")
    assert not (disk / "homes/p__new").exists()


def test_a_home_that_is_there_is_never_replaced(disk: Path) -> None:
    (disk / "homes/p__new").mkdir()
    (disk / "homes/p__new/precious").touch()
    assert not staging.is_free("p__new")
    staging.begin("p__new", "p__work")
    copier.copy(job(disk))
    with pytest.raises(files.MisplacedError, match="a home that is kept"):
        staging.place("p__new")
    assert os.listdir(disk / "homes/p__new") == ["precious"]


def test_what_a_copy_that_was_given_up_left_goes_into_the_trash_and_what_is_wanted_stays(disk: Path) -> None:
    for name in ("p__new", "p__other"):
        staging.begin(name, "p__work")
    (disk / "staging/p__new/home/half").touch()
    assert staging.clear(["p__other"]) == ["p__new"]
    assert os.listdir(disk / "staging") == ["p__other"]
    assert len(os.listdir(disk / "trash")) == 1
    staging.begin("p__other", "p__work")
    assert len(os.listdir(disk / "trash")) == 2, "what an earlier try left is not built upon"


def test_there_is_room_before_anything_is_written(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    staging.begin("p__new", "p__work")
    monkeypatch.setattr(copier, "_free", lambda _place: (1 << 20, 1 << 20))
    with pytest.raises(RefusedError, match="no room: it takes 64 MiB, and 1 MiB are free"):
        copier.copy(job(disk))
    monkeypatch.setattr(copier, "_free", lambda _place: (1 << 40, 100))
    with pytest.raises(RefusedError, match="it has 2 entries, and 100 more files are possible"):
        copier.copy(job(disk))
    assert os.listdir(disk / "staging/p__new/home") == []


def test_a_copy_ends_when_others_have_taken_the_room_and_says_how_far_it_is_until_then(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    staging.begin("p__new", "p__work")
    monkeypatch.setattr(copier, "LOOK_S", 0.0)
    room = [(1 << 40, 1 << 20), (1 << 40, 1 << 20), (1 << 20, 1 << 20)]
    monkeypatch.setattr(copier, "_free", lambda _place: room.pop(0))
    with pytest.raises(RefusedError, match="less than 64 MiB are free on /persist by now"):
        copier.copy(job(disk))
    assert json.loads((disk / "progress").read_text())["of_entries"] == 2


def test_the_process_itself_copies_and_says_what_or_why_not(disk: Path) -> None:
    """As PID 1 starts it, but for the paths."""
    code = (
        "import sys; from bay0.state import copier, staging\n"
        f"staging.HOMES, copier.STAGING = {str(disk / 'homes')!r}, {str(disk / 'staging')!r}\n"
        "sys.exit(copier.main(sys.argv[1:]))"
    )
    words = json.dumps({"source": "p__work", "name": "p__new", "progress": str(disk / "progress")})

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", code, words], capture_output=True, text=True, check=False)

    staging.begin("p__new", "p__work")
    assert json.loads(run().stdout) == {"entries": 2, "bytes": 4}
    assert not (disk / "progress").exists()
    os.symlink("/etc", disk / "homes/p__link")
    again = run()
    assert (again.returncode, again.stdout) == (1, "")
    assert "File exists" in again.stderr, "it never writes over what is there"


# ---- PID 1's end


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    bench = Bench(monkeypatch)
    bench.persona(WORK)
    return Desk(bench)


def test_a_stopped_persona_is_copied_and_the_copy_is_one_of_its_own(desk: Desk) -> None:
    answers = desk.clone()
    assert desk.now(NEW) is S.COPYING
    (wanted, deadline_s, _), = desk.jobs
    assert (wanted["source"], wanted["name"], deadline_s) == ("p__work", "p__new", Bounds().copy)
    desk.ends()
    assert desk.now(NEW) is S.STOPPED
    assert answers[0]["copied"] == {"entries": 7, "bytes": 900, "frozen_s": None}
    assert "p://new is made and stopped: 7 entries, 900 bytes" in persona_copy.told(answers[0])
    configs = [json.loads(desk.bench.engine.instances[name].config) for name in (WORK, NEW)]
    assert configs[0]["manifest"] == configs[1]["manifest"]
    assert configs[0]["slot"] != configs[1]["slot"]


def test_one_that_runs_is_frozen_for_as_long_as_it_is_copied_and_goes_on(desk: Desk) -> None:
    desk.bench.send(E.START, seconds=5)
    answers = desk.clone(seconds=3)
    assert desk.now(WORK) is S.PAUSED
    desk.ends()
    desk.bench.timers.advance(1)
    assert desk.now(WORK) is S.RUNNING
    assert 2 < answers[0]["copied"]["frozen_s"] < 4
    assert "stood still for" in persona_copy.told(answers[0])


def test_a_copy_that_is_given_up_while_it_is_being_frozen_lets_it_go_on(desk: Desk) -> None:
    desk.bench.send(E.START, seconds=5)
    desk.bench.freeze_lag_s = None
    desk.clone(seconds=0.5)
    assert desk.now(WORK) is S.PAUSING
    desk.bench.engine.send(NEW, E.STOP)
    desk.bench.timers.advance(3)
    assert desk.now(WORK) is S.RUNNING
    assert desk.jobs == []


def test_a_change_of_what_it_is_made_of_is_no_end_of_its_copy_and_it_goes_on_after_it(desk: Desk) -> None:
    desk.bench.send(E.START, seconds=5)
    answers = desk.clone(seconds=3)
    desk.bench.send(E.CONFIGURE, seconds=1)
    assert desk.ended == []
    desk.ends()
    desk.bench.timers.advance(1)
    assert (desk.now(WORK), answers[0]["state"]) == (S.RUNNING, "stopped")


def test_one_that_another_one_came_before_meanwhile_stays_frozen(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.bench.send(E.START, seconds=5)
    front = [WORK]
    monkeypatch.setattr(copies.focus, "active", lambda _focus: front[0])
    desk.clone(seconds=3)
    front[0] = PLAY
    desk.ends()
    assert desk.now(NEW) is S.STOPPED
    assert desk.now(WORK) is S.PAUSED


def test_one_that_is_thawed_meanwhile_is_not_frozen_again_and_its_copy_is_given_up(desk: Desk) -> None:
    desk.bench.send(E.START, seconds=5)
    answers = desk.clone(seconds=3)
    desk.bench.send(E.RESUME, seconds=2)
    assert desk.ended != []
    desk.ends(-15, "")
    assert desk.now(WORK) is S.RUNNING
    assert "p://work did not stand still" in str(answers[0])
    assert "Nothing was changed" in str(answers[0])
    assert desk.now(NEW) is None


def test_a_start_of_who_is_copied_ends_the_copy_even_if_the_process_knows_nothing_of_it(desk: Desk) -> None:
    answers = desk.clone()
    desk.bench.send(E.START, seconds=5)
    desk.ends()
    assert desk.now(WORK) is S.RUNNING
    assert desk.now(NEW) is None
    assert "did not stand still" in str(answers[0])
    assert ("staging_drop", {"name": "p__new"}) in desk.bench.state.asked


def test_why_the_process_failed_is_told_and_the_name_is_free_again(desk: Desk) -> None:
    answers = desk.clone()
    desk.ends(1, "", "no room: it takes 900 MiB, and 20 MiB are free on /persist\n")
    assert "there is no p://new: it was not copied: no room: it takes 900 MiB" in str(answers[0])
    again = desk.clone()
    desk.ends()
    assert again[0]["state"] == "stopped"


def test_a_stop_gives_the_copy_up(desk: Desk) -> None:
    answers = desk.clone()
    desk.bench.engine.send(NEW, E.STOP)
    desk.bench.timers.advance(1)
    assert desk.ended != []
    assert desk.now(NEW) is None
    assert "asked to give the copy up" in str(answers[0])


@pytest.mark.parametrize(
    ("source", "name", "why"),
    [
        ("p://nobody", NEW, "there is no persona p://nobody"),
        (WORK, WORK, "it exists already"),
    ],
)
def test_what_cannot_be_copied_is_refused_and_nothing_is_started(desk: Desk, source: str, name: str, why: str) -> None:
    answers = desk.clone(source, name)
    assert why in str(answers[0])
    assert desk.jobs == []


def test_that_a_persona_has_the_name_is_said_and_not_that_its_home_is_in_the_way(desk: Desk) -> None:
    desk.bench.state.answers["home_is_free"] = Answer(value=False)
    assert "it exists already; take another name" in str(desk.clone(WORK, WORK)[0])


def test_a_home_that_is_kept_under_the_new_name_is_in_the_way_and_it_is_said_what_helps(desk: Desk) -> None:
    desk.bench.state.answers["home_is_free"] = Answer(value=False)
    answers = desk.clone()
    assert "a home of p://new is kept on the disk" in str(answers[0])
    assert "`bay0 persona remove new --home`" in str(answers[0])
    assert desk.now(NEW) is None


def test_one_that_is_on_its_way_is_not_copied(desk: Desk) -> None:
    desk.bench.podman.held.add("run")
    desk.bench.send(E.START, seconds=1)
    assert "p://work is starting; ask again when it rests" in str(desk.clone()[0])


def test_a_home_of_somebody_else_in_its_place_takes_the_copy_back_and_stays(desk: Desk) -> None:
    desk.bench.state.answers["staging_place"] = Answer(code=MISPLACED, why="/persist/homes/p__new is a home that is kept")
    answers = desk.clone()
    desk.ends()
    assert "a home that is kept" in str(answers[0])
    assert desk.now(NEW) is None


def test_an_answer_of_the_disk_that_is_lost_is_asked_for_again_until_it_is_known(desk: Desk) -> None:
    desk.bench.state.answers["staging_place"] = Answer(code="timed_out", why="no answer")
    answers = desk.clone()
    desk.ends()
    desk.bench.timers.advance(10)
    assert (desk.now(NEW), answers) == (S.PLACING, [])
    desk.bench.state.answers["staging_place"] = Answer(value=True)
    desk.bench.timers.advance(3)
    assert answers[0]["state"] == "stopped"


def test_how_far_it_is_is_read_from_what_the_process_wrote(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "PROGRESS", str(tmp_path / "copy-{}"))
    told: list[Any] = []
    desk.copies.progress({"name": NEW}, told.append)
    desk.clone()
    desk.copies.progress({"name": NEW}, told.append)
    copier.write(str(tmp_path / "copy-p__new"), {"entries": 1})
    desk.copies.progress({"name": NEW}, told.append)
    (tmp_path / "copy-p__new").write_text("{")
    desk.copies.progress({"name": NEW}, told.append)
    assert told == [{}, {}, {"entries": 1}, {}]


def test_the_trash_is_told_whose_copy_is_still_wanted(desk: Desk) -> None:
    desk.bench.persona(PLAY)
    desk.clone()
    desk.trash.sweep()
    assert ("staging_clear", {"wanted": ["p__new"]}) in desk.bench.state.asked
