"""The NACK registry: strict digests, on the disk before the answer, fail closed, forgotten only when asked."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_state_port import Bench

from bay0.base import digests
from bay0.base.errors import BadDigestError, RefusedError, StorageError
from bay0.boot import nack_methods as nackverbs
from bay0.cli import main as cli
from bay0.cli import nack as nackcli
from bay0.state import db, nack, registry, worker
from bay0.state.registry import read_nack_registry, write_nack_registry
from bay0.state.schema import database

ONE, TWO = (f"sha256:{digit * 64}" for digit in "12")
ROW = {"digest": ONE, "why": "it did not boot", "at": 1795000000, "boot_id": "b1"}


# ---- digests


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must begin with sha256:"),
        ("1" * 64, "must begin with sha256:"),
        ("SHA256:" + "1" * 64, "must begin with sha256:"),
        ("sha512:" + "1" * 128, "must begin with sha256:"),
        ("sha256:" + "1" * 63, "there are 63"),
        ("sha256:" + "1" * 65, "there are 65"),
        ("sha256:" + "A" * 64, "'A' is at place 1"),
        ("sha256:" + "1" * 63 + "g", "'g' is at place 64"),
        ("sha256:" + "1" * 64 + "\n", "there are 65"),
        (" sha256:" + "1" * 64, "must begin with sha256:"),
        ("sha256:" + "\u0661" * 64, "is at place 1"),
        (None, "a digest is a text"),
        (12, "a digest is a text"),
    ],
)
def test_what_is_not_exactly_a_digest_is_refused_with_the_reason(text: Any, said: str) -> None:
    with pytest.raises(BadDigestError) as refused:
        digests.parse(text)
    assert said in str(refused.value)


def test_a_digest_is_itself() -> None:
    assert digests.parse(ONE) == ONE


# ---- the database


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[str]:
    path = str(tmp_path / "state.db")
    db.open_database(path)
    db.migrate()
    yield path
    if not database.is_closed():
        database.close()


def test_a_nack_is_on_the_disk_when_it_is_answered(opened: str) -> None:
    levels: list[int] = []
    execute = database.execute_sql

    def watched(sql: str, params: Any = None) -> Any:
        if sql.startswith("INSERT"):
            levels.append(int(execute("PRAGMA synchronous").fetchone()[0]))
        return execute(sql, params)

    database.execute_sql = watched  # type: ignore[method-assign]
    try:
        assert nack.put(**ROW) is True
    finally:
        del database.execute_sql
    assert levels == [2], "FULL"
    assert database.pragma("synchronous") == 1, "and NORMAL again"
    assert nack.find(ONE) == ROW


def test_adding_twice_keeps_the_first_reason_and_removing_twice_is_harmless(opened: str) -> None:
    assert nack.put(**ROW) is True
    assert nack.put(**{**ROW, "why": "another"}) is False
    assert nack.find(ONE) == ROW
    assert nack.drop(ONE) is True
    assert nack.drop(ONE) is False
    assert nack.find(ONE) is None


def test_a_nack_outlives_every_pruning_and_the_boots_that_made_it(opened: str) -> None:
    nack.put(**ROW)
    for number in range(60):
        db.record_boot({"boot_id": f"boot-{number}", "version": "1", "kernel": "1", "started_wall": number})
    db.prune()
    assert nack.find(ONE) == ROW


def test_a_list_comes_in_pages(opened: str) -> None:
    for number in range(nack.PAGE + 5):
        nack.put(f"sha256:{number:064x}", "w" * registry.WHY_MAX, number, "b")
    first = nack.page()
    second = nack.page(first[-1]["digest"])
    assert [len(first), len(second), nack.page(second[-1]["digest"])] == [nack.PAGE, 5, []]
    assert len(json.dumps(first)) < 160 << 10


def test_a_page_fits_into_a_packet_whatever_the_reasons_are_written_in(opened: str) -> None:
    for number in range(nack.PAGE):
        nack.put(f"sha256:{number:064x}", "\U0001f4a5" * registry.WHY_MAX, number, "b" * 36)
    assert len(json.dumps(nack.page())) < 250 << 10


def test_without_a_database_nothing_is_known(tmp_path: Path) -> None:
    if not database.is_closed():
        database.close()
    for call in (lambda: nack.find(ONE), lambda: nack.page(), lambda: nack.put(**ROW), lambda: nack.drop(ONE)):
        with pytest.raises(StorageError, match="no database is open"):
            call()


def test_the_worker_believes_no_digest_either(opened: str) -> None:
    with pytest.raises(BadDigestError):
        nack.put(**{**ROW, "digest": "x"})


def test_a_database_of_version_2_gets_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "state.db")
    with monkeypatch.context() as patch:
        patch.setattr(db, "VERSION", 2)
        db.open_database(path)
        db.migrate()
        database.close()
    assert db.open_database(path) == 2
    assert db.migrate() == db.VERSION - 2
    assert nack.put(**ROW)
    database.close()
    with sqlite3.connect(path) as base:
        assert base.execute("SELECT digest, why FROM nack").fetchall() == [(ONE, ROW["why"])]


# ---- the typed calls


@pytest.fixture
def healthy() -> Bench:
    return Bench().attach()


def test_a_write_is_refused_before_it_is_sent_while_nothing_can_be_kept() -> None:
    bench = Bench()
    with pytest.raises(RefusedError, match="storage is detached; nothing was changed"):
        write_nack_registry(bench.port, bench.answers.append, ONE, why="bad")


@pytest.mark.parametrize("why", ["x" * 301, "two\nlines", "\x1b[31m"])
def test_a_reason_is_one_line(why: str, healthy: Bench) -> None:
    with pytest.raises(RefusedError, match="one line"):
        write_nack_registry(healthy.port, healthy.answers.append, ONE, why=why)


def test_the_answer_comes_after_the_workers(healthy: Bench) -> None:
    write_nack_registry(healthy.port, healthy.answers.append, ONE, why="bad")
    assert healthy.answers == []
    assert "nack_put" in healthy.serve(nack_put=True)
    assert healthy.answers == [True]
    asked = next(request for request in healthy.worker.seen if request["op"] == "nack_put")
    assert (asked["digest"], asked["why"], asked["boot_id"]) == (ONE, "bad", "b1")
    assert healthy.log.of("nack registry")


def test_a_write_without_an_answer_is_neither_a_yes_nor_a_no_and_wedges_storage(healthy: Bench) -> None:
    write_nack_registry(healthy.port, healthy.answers.append, ONE)
    healthy.clock.wait(healthy.bounds.commit + 0.1)
    assert "did not say whether" in str(healthy.answers[0])
    assert healthy.health.value == "wedged"


def test_a_write_whose_sync_failed_is_neither_a_yes_nor_a_no(healthy: Bench) -> None:
    write_nack_registry(healthy.port, healthy.answers.append, ONE)
    healthy.serve(failing={"nack_put": "unsure"})
    assert "did not say whether" in str(healthy.answers[0])


def test_a_write_that_the_disk_refuses_is_a_no_and_storage_hears_of_it(healthy: Bench) -> None:
    write_nack_registry(healthy.port, healthy.answers.append, ONE, nacked=False)
    healthy.serve(failing={"nack_drop": "full"})
    assert "did not take it" in str(healthy.answers[0])
    assert healthy.health.value == "full"


def test_a_question_is_answered_from_the_disk_or_not_at_all(healthy: Bench) -> None:
    read_nack_registry(healthy.port, healthy.answers.append, ONE)
    healthy.serve(nack_find=ROW)
    read_nack_registry(healthy.port, healthy.answers.append, TWO)
    healthy.serve(nack_find=None)
    assert healthy.answers == [[ROW], []]
    read_nack_registry(healthy.port, healthy.answers.append, TWO)
    healthy.serve(failing={"nack_find": "damaged"})
    assert "treat every digest as NACKed" in str(healthy.answers[2])


def test_without_a_worker_nobody_knows() -> None:
    bench = Bench()
    read_nack_registry(bench.port, bench.answers.append)
    read_nack_registry(bench.port, bench.answers.append, ONE)
    bench.clock.wait()
    assert all(isinstance(answer, RefusedError) for answer in bench.answers)
    assert len(bench.answers) == 2


def serve_pages(bench: Bench, *pages: list[dict[str, Any]]) -> list[str]:
    """Answer one request after the other; return what each wanted to go on from."""
    wanted = []
    for page in pages:
        bench.clock.wait()
        requests = [request for request in bench.worker.requests() if request["op"] == "nack_page"]
        wanted += [request["after"] for request in requests]
        bench.worker.answer(requests[0], page)
    bench.clock.wait()
    return wanted


def test_all_pages_are_read(healthy: Bench) -> None:
    read_nack_registry(healthy.port, healthy.answers.append)
    assert serve_pages(healthy, [ROW], [{**ROW, "digest": TWO}], []) == ["", ONE, TWO]
    assert [row["digest"] for row in healthy.answers[0]] == [ONE, TWO]


def test_a_page_fits_into_a_packet_whatever_the_reasons_are(opened: str) -> None:
    digests_ = [f"sha256:{number:064x}" for number in range(100)]
    for digest in digests_:
        nack.put(digest, "\U0001f600" * registry.WHY_MAX, 1, "b1")  # one such character is twelve bytes of JSON
    found: list[str] = []
    while rows := nack.page(found[-1] if found else ""):
        assert len(json.dumps({"id": 1 << 40, "ok": rows})) < worker.PACKET_MAX
        found += [row["digest"] for row in rows]
    assert found == digests_


# ---- verbs and command line


def test_the_verbs_answer_with_what_became_of_it(healthy: Bench) -> None:
    methods = nackverbs.methods(healthy.port)
    assert set(methods) == {"nack.add", "nack.remove", "nack.check", "nack.list"}
    methods["nack.add"]({"digest": ONE, "why": "bad"}, healthy.answers.append)
    healthy.serve(nack_put=False)
    methods["nack.remove"]({"digest": ONE}, healthy.answers.append)
    healthy.serve(nack_drop=True)
    methods["nack.check"]({"digest": ONE}, healthy.answers.append)
    healthy.serve(nack_find=ROW)
    assert healthy.answers == [
        {"digest": ONE, "nacked": True, "changed": False}, {"digest": ONE, "nacked": False, "changed": True}, {**ROW, "nacked": True}
    ]  # fmt: skip
    for method in ("nack.add", "nack.remove", "nack.check"):
        with pytest.raises(BadDigestError):
            methods[method]({"digest": "latest"}, healthy.answers.append)


def test_the_list_is_the_newest_first_and_bounded(healthy: Bench) -> None:
    rows = [{**ROW, "digest": f"sha256:{n:064x}", "at": n} for n in range(500)]
    nackverbs.methods(healthy.port)["nack.list"]({}, healthy.answers.append)
    serve_pages(healthy, rows, [])
    answer = healthy.answers[0].whole()
    assert answer["total"] == 500
    assert [row["at"] for row in answer["entries"]] == list(range(499, 499 - nackverbs.LISTED_MAX, -1))


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    answers: dict[str, Any] = {}
    monkeypatch.setattr(nackcli.client, "call", lambda method, **params: answers.setdefault("asked", []).append((method, params)) or answers[method])
    return answers


def test_a_check_is_a_yes_only_when_the_digest_is_known_to_be_clear(
    said: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said["nack.check"] = {"digest": ONE, "nacked": False}
    assert cli.main(["nack", "check", ONE]) == 0
    said["nack.check"] = {**ROW, "nacked": True}
    assert cli.main(["nack", "check", ONE]) == 1
    assert "2026-11-18" in capsys.readouterr().out

    def refused(*_: Any, **__: Any) -> None:
        raise RefusedError("the NACK registry cannot be read now")

    monkeypatch.setattr(nackcli.client, "call", refused)
    assert cli.main(["nack", "check", ONE]) == 1
    assert cli.main(["nack", "check", "latest"]) == 2, "before anybody is asked"


def test_add_list_and_remove_speak_plainly(said: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    said["nack.add"] = {"digest": ONE, "nacked": True, "changed": True}
    said["nack.remove"] = {"digest": ONE, "nacked": False, "changed": False}
    said["nack.list"] = {"total": 3, "entries": [ROW]}
    assert cli.main(["nack", "add", ONE, "--why", "it did not boot"]) == 0
    assert cli.main(["nack", "remove", ONE]) == 0
    assert cli.main(["nack", "list"]) == 0
    shown = capsys.readouterr().out
    assert "refused from now on\nwas not refused\n" in shown
    assert f"{ONE}  2026-11-18 11:06 UTC: it did not boot\n... and 2 older ones" in shown
    assert said["asked"][0] == ("nack.add", {"digest": ONE, "why": "it did not boot"})
    said["nack.list"] = {"total": 0, "entries": []}
    assert cli.main(["nack", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"total": 0, "entries": []}
