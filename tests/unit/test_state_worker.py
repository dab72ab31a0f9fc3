"""The state worker in a process of its own: one JSON object a packet, every failure an answer, and it ends with its peer."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bay0.base.errors import StorageError
from bay0.boot.methods import PREVIOUS_MAX
from bay0.machines.engine import WHY_MAX
from bay0.state import db, worker
from bay0.state.schema import VERSION, database

# The worker with /persist in a directory of the test's, and the disk played: what mounts is noted, nothing is mounted.
START = """
import sys
from bay0.state import paths
top, fd = sys.argv[1], int(sys.argv[2])
root = paths.ROOT
for name, value in list(vars(paths).items()):
    if isinstance(value, str) and value.startswith(root):
        setattr(paths, name, top + value[len(root):])
from bay0.state import device, worker
device.find = lambda wanted: ["/dev/test", wanted]
device.mount_first = lambda devices: devices[0]
device.unmount = lambda: open(top + "/unmounted", "w").close()
worker.SOCKET_FD = fd
sys.exit(worker.main())
"""


class Peer:
    """PID 1's end."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ours.settimeout(20)
        self.process = subprocess.Popen([sys.executable, "-c", START, str(top), str(theirs.fileno())], pass_fds=[theirs.fileno()])
        theirs.close()
        self.ids = iter(range(1000000))
        self.said: list[dict[str, Any]] = []  # what was in the way on the disk

    def ask(self, op: str, **arguments: Any) -> dict[str, Any]:
        number = next(self.ids)
        self.ours.send(json.dumps({"id": number, "op": op, **arguments}).encode())
        answer = json.loads(self.ours.recv(256 << 10))
        assert answer.pop("id") == number
        self.said += answer.pop("misplaced", ())
        return dict(answer)

    def ok(self, op: str, **arguments: Any) -> Any:
        answer = self.ask(op, **arguments)
        assert "error" not in answer, answer
        return answer["ok"]

    def error(self, op: str, **arguments: Any) -> dict[str, str]:
        return dict(self.ask(op, **arguments)["error"])

    def ready(self) -> Peer:
        self.ok("open")
        self.ok("migrate", boot=BOOT)
        return self


BOOT = {"boot_id": "b1", "version": "0.1.0", "kernel": "6.18", "started_wall": 1}


def step(n: int, **more: Any) -> dict[str, Any]:
    row = {
        "boot_id": "b1", "n": n, "machine": "m", "kind": "tenant", "seq": n, "source": "stopped", "event": "start",
        "dest": "starting", "why": "asked", "at_ms": n, "attempts": 0, "desired": "stopped", "config": None,
    }  # fmt: skip
    return {**row, **more}


def pages(peer: Peer, op: str, limit: int, **which: Any) -> list[dict[str, Any]]:
    """Read `limit` rows as PID 1 does (verbs.py), newest first."""
    rows: list[dict[str, Any]] = []
    more, before = True, None
    while more:
        page, more = peer.ok(op, limit=limit - len(rows), before=before, **which)
        rows += page
        before = rows and (rows[-1]["ordinal"] if op == "history" else [rows[-1]["boot_id"], rows[-1]["n"]])
    return rows


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    made = Peer(tmp_path)
    yield made
    made.ours.close()
    try:
        made.process.wait(10)
    finally:
        made.process.kill()
        made.process.wait()


def test_it_says_who_it_is(peer: Peer) -> None:
    assert peer.ok("hello") == peer.process.pid


def test_it_opens_migrates_and_reads_a_new_database(peer: Peer) -> None:
    assert peer.ok("find", wanted="x") == ["/dev/test", "x"]
    assert peer.ok("mount", devices=["/dev/test"]) == "/dev/test"
    assert peer.ok("open") == {"version": 0, "checked": True}
    assert peer.ok("migrate", boot=BOOT) == {"ran": VERSION, "version": VERSION}
    assert peer.ok("machines") == [[], False]
    assert peer.ok("open") == {"version": VERSION, "checked": True}
    assert os.stat(peer.top / "spine").st_mode & 0o777 == 0o700


def test_a_commit_can_be_read_back_and_sent_again(peer: Peer) -> None:
    peer.ready()
    assert peer.ok("commit", steps=[step(1), step(2)], full=False) == 2
    assert peer.ok("commit", steps=[step(1), step(2), step(3)], full=True) == 1
    assert [row["n"] for row in pages(peer, "journal", 10, machine="m")] == [3, 2, 1]
    assert peer.ok("machines")[0][0]["seq"] == 3


def test_a_memory_journal_larger_than_a_packet_is_staged_and_flushed_in_one_transaction(peer: Peer) -> None:
    peer.ready()
    for start in range(0, 2000, 100):
        peer.ok("stage", steps=[step(n) for n in range(start, start + 100)])
    assert peer.ok("journal", machine="m", limit=10) == [[], False]
    assert peer.ok("flush") == 2000
    assert peer.ok("flush") == 0, "what was written out is not kept"


def test_a_flush_that_fails_can_be_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: Any, **_more: Any) -> int:
        raise StorageError("full", "no space")

    monkeypatch.setattr(worker, "_staged", [])
    worker.answer({"id": 1, "op": "stage", "steps": [step(1)]})
    monkeypatch.setattr(db, "commit", full)
    assert worker.answer({"id": 2, "op": "flush"})["error"]["code"] == "full"
    monkeypatch.setattr(db, "commit", lambda steps, **_more: len(steps))
    worker.answer({"id": 3, "op": "stage", "steps": [step(1)]})
    assert worker.answer({"id": 4, "op": "flush"})["ok"] >= 1, "the port sends its memory anew; steps are known by their number"


def test_history_is_the_last_boots_with_their_steps(peer: Peer) -> None:
    peer.ready()
    peer.ok("commit", steps=[step(1, kind="boot"), step(2)], full=False)  # a tenant's would crowd the boot out
    peer.ok("migrate", boot={**BOOT, "boot_id": "b2"})
    boots = pages(peer, "history", 5)
    assert [(boot["boot_id"], len(boot["steps"])) for boot in boots] == [("b2", 0), ("b1", 1)]


def test_how_a_boot_ended_is_what_a_later_one_found(peer: Peer) -> None:
    peer.ready()
    peer.ok("commit", steps=[step(1, kind="boot", machine="boot:b1", why="it runs")], full=False)
    assert [boot["end"] for boot in pages(peer, "history", 5)] == [None], "it runs"
    peer.ok("migrate", boot={**BOOT, "boot_id": "b2"})
    peer.ok("commit", steps=[step(1, kind="boot", machine="boot:b1", boot_id="b2", why="it lost power")], full=False)
    assert [boot["end"] for boot in pages(peer, "history", 5)] == [None, "it lost power"]


def test_as_many_boots_as_a_client_may_ask_for_fit_into_an_answer(peer: Peer) -> None:
    peer.ready()
    for number in range(12):
        peer.ok("migrate", boot={**BOOT, "boot_id": f"boot-{number}" + "x" * 28})
        steps = [
            step(n, kind="boot", boot_id=f"boot-{number}" + "x" * 28, why="the disk did not answer within its bound: commit gave no answer in 5 s")
            for n in range(100)
        ]
        peer.ok("commit", steps=steps, full=False)
    boots = pages(peer, "history", PREVIOUS_MAX + 1)
    assert len(boots) == PREVIOUS_MAX + 1
    assert all(boot["steps"][-1]["n"] == 99 for boot in boots), "the end of each is there"


@pytest.mark.parametrize("why", ["it ended: exit status 1", "x" * WHY_MAX, "\U0001f600" * WHY_MAX])
def test_rows_of_a_journal_come_in_pages_that_fit_into_packets_whatever_the_reasons_are(peer: Peer, why: str) -> None:
    peer.ready()
    for boot_id in ("b1", "b2"):
        peer.ok("migrate", boot={**BOOT, "boot_id": boot_id})
        for start in range(0, 200, 10):
            peer.ok("commit", steps=[step(n, why=why, boot_id=boot_id) for n in range(start, start + 10)], full=False)
    peer.ok("commit", steps=[step(999, machine="another")], full=False)
    found = [(row["boot_id"], row["n"]) for row in pages(peer, "journal", 300, machine="m")]
    assert found == [(boot, n) for boot in ("b2", "b1") for n in reversed(range(200))][:300]


def test_boots_come_in_pages_that_fit_into_packets_whatever_the_reasons_are(peer: Peer) -> None:
    peer.ready()
    for number in range(8):
        peer.ok("migrate", boot={**BOOT, "boot_id": f"b{number}"})
        for start in range(0, 70, 10):
            steps = [step(n, kind="boot", boot_id=f"b{number}", why="\U0001f600" * WHY_MAX) for n in range(start, start + 10)]
            peer.ok("commit", steps=steps, full=False)
    boots = pages(peer, "history", PREVIOUS_MAX + 1)
    assert [boot["boot_id"] for boot in boots] == [f"b{number}" for number in range(7, 1, -1)]
    for boot in boots:
        numbers = [each["n"] for each in boot["steps"]]
        assert numbers == list(range(70 - len(numbers), 70)), "the end of each is there"
        assert len(numbers) > 5


def test_machines_that_another_has_written_are_read_or_named_and_never_the_reason_that_nothing_is_read(peer: Peer) -> None:
    peer.ready()
    peer.ok("commit", steps=[step(1, machine="p://work", kind="persona", config="{}")], full=True)
    peer.ok("close")
    odd: list[tuple[Any, ...]] = [
        ("p://huge", "persona", "stopped", 1, "stopped", 0, "b0", "x" * (1 << 20)),
        ("p://number", "persona", "stopped", "many", "stopped", 0, "b0", ""),
        ("p://bytes", "persona", b"\xff\xfe", 1, "stopped", 0, "b0", ""),
        ("p://blob", "persona", "stopped", 1, "stopped", 0, "b0", b"\0\xff"),
        ("n" * (1 << 20), "persona", "stopped", 1, "stopped", 0, "b0", ""),
        (b"\xff", "persona", "stopped", 1, "stopped", 0, "b0", ""),
    ]
    with sqlite3.connect(peer.top / "spine" / "state.db") as other:
        other.executemany("INSERT INTO machine (name, kind, state, seq, desired, attempts, boot_id, config) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", odd)
        other.execute("UPDATE machine SET desired = CAST(x'ff41' AS TEXT) WHERE name = 'p://work'")
    other.close()
    peer.ok("open")
    peer.ok("migrate", boot={**BOOT, "boot_id": "b2"})
    rows: dict[str, dict[str, Any]] = {}
    more = True
    while more:
        page, more = peer.ok("machines", after=max(rows, default=""))
        rows.update({row["name"]: row for row in page})
    assert {name: row["kind"] for name, row in rows.items()} == {
        "p://work": "persona", "p://huge": "persona", "p://number": "unreadable", "p://bytes": "unreadable", "p://blob": "unreadable",
    }  # fmt: skip
    assert (rows["p://huge"]["config"], rows["p://work"]["config"]) == ("", "{}")


def test_a_probe_writes_and_syncs(peer: Peer) -> None:
    peer.ready()
    room, found = peer.ok("probe", text="b1 123"), os.statvfs(peer.top)
    assert (room["bytes"], room["files"]) == (found.f_blocks * found.f_frsize, found.f_files)
    assert 0 < room["bytes_for_others"] <= room["bytes_free"] <= room["bytes"]
    assert (peer.top / "spine" / "alive").read_text() == f"{'b1 123':<79}\n"
    peer.ok("probe", text="b1 9")
    assert (peer.top / "spine" / "alive").read_text() == f"{'b1 9':<79}\n"


def test_how_much_room_there_is_is_told_without_a_database(peer: Peer) -> None:
    found = os.statvfs(peer.top)
    assert (peer.ok("room")["bytes"], peer.ok("room")["files"]) == (found.f_blocks * found.f_frsize, found.f_files)


def test_the_genesis_log_is_appended_and_read(peer: Peer) -> None:
    peer.ready()
    peer.ok("genesis", lines=["one", "two"])
    assert peer.ok("genesis_tail", count=1) == ["two"]


def test_closing_checkpoints_and_unmounts(peer: Peer) -> None:
    peer.ready()
    peer.ok("commit", steps=[step(1)], full=False)
    assert peer.ok("close") == {"checkpointed": True}
    assert (peer.top / "unmounted").exists()
    assert not (peer.top / "spine" / "state.db-wal").exists()


def test_a_database_that_cannot_be_closed_is_unmounted_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    unmounted: list[int] = []

    def damaged() -> bool:
        raise StorageError("damaged", "malformed")

    monkeypatch.setattr(db, "close", damaged)
    monkeypatch.setattr(worker.device, "unmount", lambda: unmounted.append(1))
    assert worker.answer({"id": 1, "op": "close"})["error"]["code"] == "damaged"
    assert unmounted == [1]


def test_a_newer_database_is_an_answer(peer: Peer) -> None:
    peer.ready()
    peer.ok("close")
    other = sqlite3.connect(peer.top / "spine" / "state.db")
    other.execute("PRAGMA user_version=99")
    other.commit()
    other.close()
    assert peer.error("open")["code"] == "newer"
    assert peer.ok("hello")


def test_a_damaged_database_is_an_answer(peer: Peer) -> None:
    (peer.top / "spine").mkdir()
    (peer.top / "spine" / "state.db").write_bytes(b"garbage" * 1000)
    assert peer.error("open")["code"] == "damaged"


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"op": "no_such_op"}, "KeyError"),
        ({"op": "journal", "machine": "m"}, "TypeError"),
        ({"op": "journal", "machine": "m", "limit": 1, "more": 2}, "TypeError"),
        ({"op": "commit", "steps": [{}], "full": False}, "KeyError"),
        ({}, "KeyError"),
    ],
)
def test_a_mistake_in_a_request_is_an_answer_too(request_: dict[str, Any], said: str, tmp_path: Path) -> None:
    database.init(str(tmp_path / "state.db"))
    answer = worker.answer({"id": 5, **request_})
    assert answer["id"] == 5
    assert answer["error"]["code"] == "fault"
    assert answer["error"]["message"].startswith(said)


def test_an_error_of_the_system_becomes_a_code(peer: Peer) -> None:
    answer = peer.error("persona_prepare", name="x" * 300, home=True)
    assert answer["code"] == "fault"
    assert "File name too long" in answer["message"]


def test_it_ends_when_pid_1s_end_of_the_socket_is_gone(peer: Peer) -> None:
    peer.ready()
    peer.ours.close()
    assert peer.process.wait(10) == 0


def test_it_survives_out_of_memory_longer_than_personas(peer: Peer) -> None:
    peer.ok("hello")
    if os.getuid() != 0:
        pytest.skip("only root may lower its oom_score_adj")
    score = Path(f"/proc/{peer.process.pid}/oom_score_adj").read_text()
    assert score in ("-900\n", "0\n"), "0 where the kernel does not let even root do it"


# ---- what `bay0 --validate` asks for


def test_the_marker_is_written_and_read_back_and_the_next_takes_its_place(peer: Peer) -> None:
    peer.ready()
    assert peer.ok("validate_marker", text="a longer line") is True
    assert peer.ok("validate_marker", text="b1 +5 ms") is True
    assert (peer.top / "spine" / "validate.marker").read_text() == "b1 +5 ms\n"


@pytest.mark.parametrize(("op", "arguments"), [("validate_marker", {"text": "x"}), ("validate_log", {"line": "x"})])
def test_what_cannot_be_written_is_an_error_with_its_reason(peer: Peer, op: str, arguments: dict[str, str]) -> None:
    (peer.top / "spine").symlink_to(peer.top / "elsewhere")
    assert "spine is a symbolic link" in peer.error(op, **arguments)["message"]
    assert not (peer.top / "elsewhere").exists()


def test_a_line_is_appended_to_the_genesis_log_and_read_back(peer: Peer) -> None:
    peer.ready()
    peer.ok("genesis", lines=["one"])
    assert peer.ok("validate_log", line="b1 +5 ms: validate") is True
    assert (peer.top / "spine" / "genesis.log").read_text() == "one\nb1 +5 ms: validate\n"


def test_a_whole_database_is_looked_through_in_its_time(peer: Peer) -> None:
    peer.ready()
    peer.ok("commit", steps=[step(n) for n in range(1, 100)], full=False)
    assert peer.ok("validate_database", seconds=20) is True
    assert peer.ok("validate_database", seconds=-1) is False, "no time, no verdict"
    assert peer.ok("validate_database", seconds=20) is True, "and the connection is as it was"
    assert len(pages(peer, "journal", 300, machine="m")) == 99


def test_damage_that_came_while_it_was_open_is_seen_although_its_cache_is_warm(peer: Peer) -> None:
    peer.ready()
    peer.ok("commit", steps=[step(n) for n in range(1, 200)], full=False)
    assert peer.ok("validate_database", seconds=20) is True
    for name in ("state.db", "state.db-wal"):  # it writes to one and reads from both
        path = peer.top / "spine" / name
        data = path.read_bytes()
        path.write_bytes(data[:4096] + b"\xa5" * (len(data) - 4096))
    error = peer.error("validate_database", seconds=20)
    assert error["code"] == "damaged"
    assert "state.db is damaged" in error["message"]


def test_the_log_of_a_removed_persona_that_a_crash_left_goes_with_the_next_sweep_and_no_other(
    peer: Peer,
) -> None:
    peer.ready()
    persona = {"kind": "persona", "dest": "stopped"}
    peer.ok(
        "commit",
        steps=[step(1, machine="p://gone", **persona), step(2, machine="p://here", **persona)],
        full=True,
    )
    peer.ok(
        "commit",
        steps=[
            step(3, machine="p://gone", kind="persona", dest="absent"),
            step(4, machine="p://back", **persona),
        ],
        full=True,
    )
    peer.ok(
        "commit",
        steps=[
            step(5, machine="p://back", kind="persona", dest="absent"),
            step(6, machine="p://back", **persona),
        ],
        full=True,
    )
    peer.ok("containers_prepare")
    logs = peer.top / "logs"
    kept = {"p__here.log", "p__back.log", "p__unknown.log", "sys__ai.log", "p__gone.txt", "notes"}
    for name in (*kept, "p__gone.log", "p__gone.log.tmp"):
        (logs / name).write_text("what it said")
    while peer.ok("trash_sweep"):
        pass
    assert set(os.listdir(logs)) == kept
    assert peer.ok("trash_left") == []
    (logs / "p__gone.log").mkdir()
    while peer.ok("trash_sweep"):
        pass
    assert peer.ok("trash_left") == [f"{logs}/p__gone.log: Is a directory"]


def test_every_operation_takes_only_named_arguments_and_answers_with_json() -> None:
    assert set(worker.OPS) == {
        "hello", "find", "mount", "open", "migrate", "machines", "stage", "flush", "commit", "journal", "history", "probe", "room", "extent",
        "genesis", "genesis_tail", "settle", "close", "containers_prepare", "containers_aside", "persona_prepare", "ai_archive", "ai_model",
        "image_archive", "home_empty", "home_give", "log_remove", "trash_sweep", "trash_left",
        "home_is_free", "staging_begin", "staging_begin_again", "staging_begin_anew", "staging_place", "staging_replace",
        "staging_drop", "staging_clear",
        "snapshot_number", "snapshot_delete",
        "prefer", "time_load", "time_save", "seed_use", "seed_renew", "farewell", "nack_put", "nack_drop", "nack_find", "nack_page",
        "validate_marker", "validate_log", "validate_database",
    }  # fmt: skip
    assert default_socket_buffer() > worker.PACKET_MAX


def default_socket_buffer() -> int:
    one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, two:
        return one.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
