"""Snapshots: their places on the disk, their machines, and a persona that goes back to one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from copykit import Desk
from personakit import WORK, Bench

from bay0.base import names
from bay0.base.errors import BadNameError, RefusedError
from bay0.machines.persona import E, S
from bay0.machines.snapshot import S as SnapshotS
from bay0.state import copier, db, files, homes, staging
from bay0.state.link import Answer

ONE, TWO = f"{WORK}@1", f"{WORK}@2"

# ---- names


@pytest.mark.parametrize("number", [1, 3, 9_999_999])
def test_the_name_of_a_snapshot_is_read_as_it_is_written_and_is_nobody_elses_on_the_disk(number: int) -> None:
    name = names.snapshot(f"p://work@{number}")
    assert names.snapshot(name.semantic) == names.snapshot(f"work@{number}") == name
    assert (name.podman, names.on_disk(str(name))) == (f"p__work@{number}",) * 2
    assert names.from_podman(name.podman) is None, "no container is called so"


@pytest.mark.parametrize("text", ["work@", "work@0", "work@03", "work@-1", "work@1@2", "work@10000000", "@1", "sys://ai@1", "work@1/../x", "work"])
def test_what_is_no_name_of_a_snapshot_is_refused(text: str) -> None:
    with pytest.raises(BadNameError):
        names.snapshot(text)


# ---- on the disk


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for module in (staging, copier, homes):
        for name in ("HOMES", "SNAPSHOTS", "STAGING", "TRASH"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, str(tmp_path / name.lower()))
    (tmp_path / "homes/p__work").mkdir(parents=True)
    (tmp_path / "homes/p__work/notes").write_text("then")
    return tmp_path


def taken(disk: Path) -> None:
    """Take a snapshot of the home, then change that."""
    assert staging.begin("p__work@1", "p__work")
    copier.copy(copier.Job("p__work", "p__work@1", str(disk / "progress")))
    assert staging.place("p__work@1")
    (disk / "homes/p__work/notes").write_text("now")


def staged(disk: Path) -> None:
    taken(disk)
    assert staging.begin_again("p__work", "p__work@1", home=True)
    copier.copy(copier.Job("p__work@1", "p__work", str(disk / "progress")))


def notes(disk: Path) -> str:
    return (disk / "homes/p__work/notes").read_text()


def test_a_snapshot_lies_where_only_root_can_look_and_goes_into_the_trash(disk: Path) -> None:
    taken(disk)
    assert (disk / "snapshots/p__work@1/notes").read_text() == "then"
    assert (disk / "snapshots").stat().st_mode & 0o777 == 0o700
    assert staging.free_number("p__work", 1) == 2, "files that no machine knows are not written over"
    assert staging.delete("p__work@1")
    assert not staging.delete("p__work@1"), "an answer may have been lost"
    assert os.listdir(disk / "snapshots") == []
    assert any((disk / "trash").rglob("notes"))


def test_who_goes_back_has_the_home_of_then_and_the_one_of_now_is_in_the_trash(disk: Path) -> None:
    staged(disk)
    assert notes(disk) == "now"
    assert staging.replace("p__work")
    assert notes(disk) == "then"
    assert staging.replace("p__work"), "an answer may have been lost"
    assert notes(disk) == "then"
    assert os.listdir(disk / "staging") == []
    assert (disk / "snapshots/p__work@1/notes").read_text() == "then", "it can be gone back to again"


@pytest.mark.parametrize("there", [True, False], ids=["a home", "no home yet"])
@pytest.mark.parametrize("home", [True, False], ids=["of a home", "of none"])
@pytest.mark.parametrize("cut", range(1, 12))
def test_wherever_it_is_cut_it_is_done_by_doing_it_again(disk: Path, monkeypatch: pytest.MonkeyPatch, cut: int, home: bool, there: bool) -> None:
    """The power goes before one of the calls of the kernel that change something."""
    staged(disk)
    if not home:
        staging.begin_again("p__work", "p__work@1", home=False)
    if not there:
        os.rename(disk / "homes/p__work", disk / "away")
    left = [cut]

    def counted(call: Any) -> Any:
        def cuts(*words: Any, **more: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt
            return call(*words, **more)

        return cuts

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", counted(os.rename))
        patch.setattr(os, "mkdir", counted(os.mkdir))
        patch.setattr(os, "fsync", counted(os.fsync))
        try:
            staging.replace("p__work")
        except KeyboardInterrupt:
            assert left[0] == 0
    assert staging.replace("p__work")
    assert (notes(disk) if home else os.path.exists(disk / "homes/p__work")) == ("then" if home else False)
    assert os.listdir(disk / "staging") == []


def test_going_back_to_files_that_are_gone_is_refused_and_the_home_stays(disk: Path) -> None:
    with pytest.raises(FileNotFoundError, match="its files are not there any more"):
        staging.begin_again("p__work", "p__work@1", home=True)
    assert notes(disk) == "then"


def test_something_else_where_snapshots_belong_is_named_and_left(disk: Path) -> None:
    (disk / "snapshots").symlink_to("/etc")
    staging.begin("p__work@1", "p__work")
    copier.copy(copier.Job("p__work", "p__work@1", str(disk / "progress")))
    with pytest.raises(files.MisplacedError, match="a symbolic link, where a directory belongs"):
        staging.place("p__work@1")


def test_a_snapshot_that_is_deleted_has_no_row_any_more(tmp_path: Path) -> None:
    db.open_database(str(tmp_path / "state.db"))
    try:
        db.migrate()
        row = {"boot_id": "b", "machine": ONE, "kind": "snapshot", "why": "", "at_ms": 1, "attempts": 0, "desired": "stopped"}
        db.commit([{**row, "n": 1, "seq": 1, "source": "absent", "event": "take", "dest": "copying", "config": "{}"}])
        assert db.database.execute_sql("SELECT count(*) FROM machine").fetchone() == (1,)
        db.commit([{**row, "n": 2, "seq": 2, "source": "deleting", "event": "gone", "dest": "absent", "config": None}])
        assert db.database.execute_sql("SELECT count(*) FROM machine").fetchone() == (0,)
    finally:
        db.close()


# ---- PID 1's end


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    bench = Bench(monkeypatch)
    bench.state.answers["snapshot_number"] = Answer(value=1)
    bench.persona(WORK)
    return Desk(bench)


def kept(desk: Desk, **params: Any) -> Any:
    answers = desk.ask("snapshot", name=WORK, **params)
    desk.ends()
    assert not isinstance(answers[0], Exception), answers
    return answers[0]


def test_a_snapshot_is_kept_with_what_is_known_of_it(desk: Desk) -> None:
    answer = kept(desk, note="before the update")
    assert (answer["name"], answer["state"], answer["number"], answer["note"]) == (ONE, "kept", 1, "before the update")
    assert answer["copied"] == {"entries": 7, "bytes": 900, "frozen_s": None}
    (listed,) = desk.ask("list_all", name=WORK)[0].whole()
    assert (listed["taken"], listed["entries"], listed["bytes"], listed["home"]) == (1_800_000_000, 7, 900, True)
    assert desk.now(WORK) is S.STOPPED
    (job, _, _), = desk.jobs
    assert (job["source"], job["name"]) == ("p__work", "p__work@1")


def test_one_that_runs_is_frozen_while_it_is_copied_and_goes_on(desk: Desk) -> None:
    desk.bench.send(E.START, seconds=5)
    answers = desk.ask("snapshot", seconds=3, name=WORK)
    assert desk.now(WORK) is S.PAUSED
    desk.ends()
    assert desk.now(WORK) is S.RUNNING
    assert answers[0]["copied"]["frozen_s"] > 2


def test_a_snapshot_that_could_not_be_copied_is_not_there_and_its_number_is_free(desk: Desk) -> None:
    answers = desk.ask("snapshot", name=WORK)
    desk.ends(1, "", "no room: it takes 900 MiB, and 20 MiB are free on /persist\n")
    assert "there is no p://work@1: it was not copied: no room" in str(answers[0])
    assert desk.now(ONE) is None
    assert kept(desk)["name"] == ONE


def test_the_oldest_are_deleted_when_so_many_are_to_be_kept(desk: Desk) -> None:
    for _ in range(3):
        kept(desk)
    answer = kept(desk, keep=2)
    assert answer["dropped"] == [ONE, TWO]
    assert [each["name"] for each in desk.ask("list_all")[0].whole()] == [f"{WORK}@3", f"{WORK}@4"]
    assert [words for op, words in desk.bench.state.asked if op == "snapshot_delete"] == [{"name": "p__work@1"}, {"name": "p__work@2"}]


def test_what_lies_on_the_disk_and_is_known_to_no_machine_is_not_in_the_way(desk: Desk) -> None:
    desk.bench.state.answers["snapshot_number"] = Answer(value=8)
    assert kept(desk)["name"] == f"{WORK}@8"


@pytest.mark.parametrize("params", [{"note": "two\nlines"}, {"note": "x" * 201}, {"note": 7}, {"keep": -1}, {"keep": True}, {"keep": "2"}])
def test_a_note_is_a_line_and_how_many_to_keep_is_a_number(desk: Desk, params: dict[str, Any]) -> None:
    (answer,) = desk.ask("snapshot", name=WORK, **params)
    assert isinstance(answer, RefusedError | TypeError)
    assert desk.jobs == []


def test_there_is_a_bound_to_how_many_one_persona_has(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    kept(desk)
    monkeypatch.setattr("bay0.personas.snapshots.OF_ONE_MAX", 1)
    assert "there are 1 snapshots of p://work" in str(desk.ask("snapshot", name=WORK)[0])


def test_a_delete_is_done_when_the_disk_has_answered(desk: Desk) -> None:
    kept(desk)
    desk.bench.state.answers["snapshot_delete"] = Answer(code="timed_out", why="no answer")
    (answer,) = desk.ask("drop", name=ONE)
    assert answer["state"] == "deleting"
    assert desk.now(ONE) is SnapshotS.DELETING
    desk.bench.state.answers["snapshot_delete"] = Answer(value=True)
    desk.bench.timers.advance(3)
    assert desk.now(ONE) is None
    assert "there is no snapshot p://work@1" in str(desk.ask("drop", name=ONE)[0])


def test_who_goes_back_has_the_manifest_of_then_and_keeps_its_uid_range(desk: Desk) -> None:
    kept(desk)
    then = json.loads(desk.bench.engine.instances[WORK].config)
    changed = {**then, "manifest": {**then["manifest"], "memory": "1G"}}
    desk.bench.engine.send(WORK, E.CONFIGURE, config=json.dumps({**changed, "slot": 77}))
    answers = desk.ask("restore", name=WORK)
    assert desk.now(WORK) is S.RESTORING
    assert json.loads(desk.bench.engine.instances[WORK].config)["manifest"] == changed["manifest"], "as it is until all is copied"
    desk.ends()
    assert answers[0]["state"] == "stopped"
    now = json.loads(desk.bench.engine.instances[WORK].config)
    assert (now["manifest"], now["slot"]) == (then["manifest"], 77)
    assert ("staging_replace", {"name": "p__work"}) in desk.bench.state.asked
    assert ("staging_begin_again", {"name": "p__work", "source": "p__work@1", "home": True}) in desk.bench.state.asked


def test_who_could_not_go_back_is_as_it_was(desk: Desk) -> None:
    kept(desk)
    before = desk.bench.engine.instances[WORK].config
    answers = desk.ask("restore", name=WORK)
    desk.ends(1, "", "no room: it takes 900 MiB, and 20 MiB are free on /persist\n")
    assert desk.now(WORK) is S.STOPPED
    assert "p://work is stopped: it is as it was: no room" in str(answers[0])
    assert desk.bench.engine.instances[WORK].config == before
    assert not [op for op, _ in desk.bench.state.asked if op == "staging_replace"]


def test_a_stop_leaves_it_as_it_is(desk: Desk) -> None:
    kept(desk)
    answers = desk.ask("restore", name=WORK)
    desk.bench.send(E.STOP, seconds=1)
    assert desk.now(WORK) is S.STOPPED
    assert desk.ended != []
    assert "asked to leave it as it is" in str(answers[0])


def test_what_one_goes_back_to_is_deleted_meanwhile_and_it_is_as_it_was(desk: Desk) -> None:
    kept(desk)
    answers = desk.ask("restore", name=WORK)
    desk.ask("drop", name=ONE)
    desk.ends(-15, "")
    assert desk.now(WORK) is S.STOPPED
    assert "p://work@1 did not stand still" in str(answers[0])


def test_the_newest_is_meant_unless_another_is_said(desk: Desk) -> None:
    for _ in range(2):
        kept(desk)
    for params, source in (({}, "p__work@2"), ({"number": 1}, "p__work@1")):
        desk.ask("restore", name=WORK, **params)
        assert desk.jobs[-1][0]["source"] == source
        desk.ends()
    assert "there is no snapshot p://work@9" in str(desk.ask("restore", name=WORK, number=9)[0])


def test_one_that_runs_does_not_go_back_and_one_without_a_past_is_told_so(desk: Desk) -> None:
    assert "there is no snapshot of p://work" in str(desk.ask("restore", name=WORK)[0])
    kept(desk)
    desk.bench.send(E.START, seconds=5)
    assert "p://work is running: stop it first" in str(desk.ask("restore", name=WORK)[0])


def test_a_snapshot_of_one_that_never_ran_has_no_home_and_going_back_to_it_takes_the_home_away(desk: Desk) -> None:
    desk.bench.state.answers["staging_begin"] = Answer(value=False)
    answers = desk.ask("snapshot", name=WORK)
    assert (answers[0]["home"], desk.jobs) == (False, [])
    desk.bench.state.answers["staging_begin_again"] = Answer(value=False)
    answers = desk.ask("restore", name=WORK)
    assert answers[0]["state"] == "stopped"
    assert ("staging_begin_again", {"name": "p__work", "source": "p__work@1", "home": False}) in desk.bench.state.asked


def test_a_persona_is_made_of_a_snapshot(desk: Desk) -> None:
    kept(desk)
    answers = desk.clone(ONE)
    assert desk.jobs[-1][0]["source"] == "p__work@1"
    desk.ends()
    assert answers[0]["state"] == "stopped"
    configs = [json.loads(desk.bench.engine.instances[name].config) for name in (WORK, "p://new")]
    assert configs[0]["manifest"] == configs[1]["manifest"]
    assert configs[0]["slot"] != configs[1]["slot"]


def test_a_disk_that_is_lost_ends_what_is_copied_and_not_what_is_on_its_way_to_its_place(desk: Desk) -> None:
    desk.bench.state.answers["staging_place"] = Answer(code="timed_out", why="no answer")
    answers = desk.ask("snapshot", name=WORK)
    desk.ends()
    assert desk.now(ONE) is SnapshotS.PLACING
    storage = desk.bench.state.storage
    desk.copies._lost(storage, type("Step", (), {"why": "it is wedged"}))  # type: ignore[arg-type]
    desk.bench.timers.advance(2)
    assert desk.now(ONE) is SnapshotS.PLACING, "it may be there"
    desk.bench.state.answers["staging_place"] = Answer(value=True)
    desk.bench.timers.advance(3)
    assert answers[0]["state"] == "kept"


def test_a_copy_under_way_is_given_up_by_its_name(desk: Desk) -> None:
    told: list[Any] = []
    desk.copies.give_up({"name": ONE}, told.append)
    desk.ask("snapshot", name=WORK)
    desk.copies.give_up({"name": ONE}, told.append)
    desk.bench.timers.advance(1)
    assert told == [{"given_up": False}, {"given_up": True}]
    assert desk.now(ONE) is None
