"""`bay0 upgrade`: what is asked of bay0, what is made of its answers, what is refused before anything is asked."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bay0.base.errors import RefusedError
from bay0.cli import client, upgrade
from bay0.cli import main as cli
from bay0.state import incoming

DIGEST = "sha256:" + "ab" * 32
OLD = {"version": "1.0", "build_id": "old", "built": "2026-11-30T21:17:03Z", "kernel": "6.18", "schema": 3, "size": 137 << 20}
NEW = {**OLD, "version": "2.0", "build_id": "new", "size": 138 << 20}
ENV = {"state": "ok", "revision": 1, "in_progress": False, "watchdog_s": 0}
STATUS: dict[str, Any] = {
    "state": "staged", "about": "it is in the other slot", "why": "it was written and read back", "attempts": 0, "progress": None,
    "image": {**NEW, "slot": "SLOTB", "digest": DIGEST, "verdict": None, "watchdog_s": None}, "runs": "SLOTA", "next": "SLOTA", "missing": "",
    "slots": {
        "SLOTA": {"env": ENV, "uki": OLD, "why": ""},
        "SLOTB": {"env": {**ENV, "state": "failed", "revision": 0, "in_progress": True}, "uki": NEW, "why": ""},
    },
}  # fmt: skip
Asked = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def spine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Asked]:
    """Answer each method with the next of its answers."""

    def answering(**answers: Any) -> Asked:
        asked: Asked = []

        def call(method: str, timeout_s: float = 0, **params: Any) -> Any:
            asked.append((method, params))
            found = answers[method.partition(".")[2]]
            found = found.pop(0) if isinstance(found, list) and len(found) > 1 else found[0] if isinstance(found, list) else found
            if isinstance(found, Exception):
                raise found
            return found

        monkeypatch.setattr(client, "call", call)
        monkeypatch.setattr(upgrade, "LOOK_S", 0.001)
        return asked

    return answering


def test_the_status_says_what_both_slots_hold_and_in_what_they_differ(spine: Callable[..., Asked], capsys: pytest.CaptureFixture[str]) -> None:
    spine(status=STATUS)
    assert cli.main(["upgrade", "status"]) == 0
    shown = capsys.readouterr().out
    assert "upgrade   staged: it is in the other slot" in shown
    assert "SLOTA     1.0, build old of 2026-11-30T21:17:03Z, kernel 6.18, 137 MiB (runs, starts next)" in shown
    assert "not offered to the loader" in shown
    assert "beside what runs it differs in version, build, size" in shown
    assert cli.main(["upgrade", "status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == STATUS


def test_a_disk_with_one_slot_says_what_is_missing(spine: Callable[..., Asked], capsys: pytest.CaptureFixture[str]) -> None:
    spine(status={**STATUS, "state": "idle", "image": None, "slots": {}, "missing": "the disk has no slots", "runs": None, "next": None})
    assert cli.main(["upgrade", "status"]) == 0
    assert "slots     the disk has no slots" in capsys.readouterr().out


@pytest.mark.parametrize(("ends", "status"), [("staged", 0), ("idle", 1)])
def test_stage_waits_until_it_was_read_back(
    spine: Callable[..., Asked], tmp_path: Path, capsys: pytest.CaptureFixture[str], ends: str, status: int
) -> None:
    (tmp_path / "new.efi").write_bytes(b"MZ")
    far = {"doing": "writing", "done": 1 << 20, "of": 2 << 20}
    at_work = [{**STATUS, "state": state, "progress": far} for state in ("staging", "wiping")]
    asked = spine(stage={**NEW, "state": "staging", "slot": "SLOTB", "digest": DIGEST}, status=[*at_work, {**STATUS, "state": ends}])
    assert cli.main(["upgrade", "stage", str(tmp_path / "new.efi"), "--digest", DIGEST]) == status
    assert asked[0] == ("upgrade.stage", {"path": str(tmp_path / "new.efi"), "digest": DIGEST})
    assert ("`bay0 upgrade try`" in capsys.readouterr().out) == (status == 0)


def test_what_bay0_refuses_is_said_and_is_status_1(spine: Callable[..., Asked], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "new.efi").write_bytes(b"MZ")
    spine(stage=RefusedError("it is refused; nothing was changed"))
    assert cli.main(["upgrade", "stage", str(tmp_path / "new.efi")]) == 1
    assert "nothing was changed" in capsys.readouterr().err
    assert cli.main(["upgrade", "stage", str(tmp_path / "none")]) == 1
    assert "no image at" in capsys.readouterr().err


def test_an_image_comes_through_stdin_only_with_its_digest(
    spine: Callable[..., Asked], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = spine(stage={**NEW, "state": "staging", "slot": "SLOTB", "digest": DIGEST}, status=STATUS)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"MZ" * 1000)))
    monkeypatch.setattr(incoming.receive, "__defaults__", (str(tmp_path),))
    assert cli.main(["upgrade", "stage", "-"]) == 2
    assert "--digest must say which" in capsys.readouterr().err
    assert asked == []
    assert cli.main(["upgrade", "stage", "-", "--digest", "sha256:12"]) == 2
    assert asked == []
    assert cli.main(["upgrade", "stage", "-", "--digest", DIGEST]) == 0
    method, params = asked[0]
    assert (method, params["digest"]) == ("upgrade.stage", DIGEST)
    assert Path(params["path"]).read_bytes() == b"MZ" * 1000


def test_try_says_whether_a_watchdog_guards_it(spine: Callable[..., Asked], capsys: pytest.CaptureFixture[str]) -> None:
    asked = spine(**{"try": {"state": "arming", "why": "asked to try", "watchdog_s": 150}, "status": {**STATUS, "state": "trying"}})
    assert cli.main(["upgrade", "try"]) == 0
    assert asked[0] == ("upgrade.try", {"no_watchdog": False})
    assert "a watchdog of 150 s" in capsys.readouterr().out
    spine(**{"try": {"state": "staged", "why": "there would be no way back", "watchdog_s": 0}})
    assert cli.main(["upgrade", "try", "--no-watchdog"]) == 1
    assert "no way back" in capsys.readouterr().out


@pytest.mark.parametrize(("verb", "ends"), [("cancel", "idle"), ("accept", "good"), ("rollback", "condemned")])
def test_the_other_verbs_wait_for_their_end_and_say_it(spine: Callable[..., Asked], verb: str, ends: str) -> None:
    at_work = {"state": "committing", "why": "somebody"}
    spine(**{verb: at_work, "status": {**STATUS, "state": ends, "why": "done"}})
    assert cli.main(["upgrade", verb]) == 0
    spine(**{verb: at_work, "status": {**STATUS, "state": "torn", "why": "it could not be wiped"}})
    assert cli.main(["upgrade", verb]) == 1
