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

from bay0.errors import StorageError
from bay0.state import db, worker
from bay0.state.schema import VERSION, database
from bay0.verbs import PREVIOUS_MAX

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

    def ask(self, op: str, **arguments: Any) -> dict[str, Any]:
        number = next(self.ids)
        self.ours.send(json.dumps({"id": number, "op": op, **arguments}).encode())
        answer = json.loads(self.ours.recv(256 << 10))
        assert answer.pop("id") == number
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
    assert peer.ok("open") == {"version": 0}
    assert peer.ok("migrate", boot=BOOT) == {"ran": VERSION, "version": VERSION}
    assert peer.ok("machines") == [[], False]
    assert peer.ok("open") == {"version": VERSION}
    assert os.stat(peer.top / "spine").st_mode & 0o777 == 0o700


def test_a_commit_can_be_read_back_and_sent_again(peer: Peer) -> None:
    peer.ready()
    assert peer.ok("commit", steps=[step(1), step(2)], full=False) == 2
    assert peer.ok("commit", steps=[step(1), step(2), step(3)], full=True) == 1
    assert [row["n"] for row in peer.ok("journal", machine="m", limit=10)] == [1, 2, 3]
    assert peer.ok("machines")[0][0]["seq"] == 3


def test_a_memory_journal_larger_than_a_packet_is_staged_and_flushed_in_one_transaction(peer: Peer) -> None:
    peer.ready()
    for start in range(0, 2000, 100):
        peer.ok("stage", steps=[step(n) for n in range(start, start + 100)])
    assert peer.ok("journal", machine="m", limit=10) == []
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
    boots = peer.ok("history", limit=5)
    assert [(boot["boot_id"], len(boot["steps"])) for boot in boots] == [("b2", 0), ("b1", 1)]


def test_as_many_boots_as_a_client_may_ask_for_fit_into_an_answer(peer: Peer) -> None:
    peer.ready()
    for number in range(12):
        peer.ok("migrate", boot={**BOOT, "boot_id": f"boot-{number}" + "x" * 28})
        steps = [
            step(n, kind="boot", boot_id=f"boot-{number}" + "x" * 28, why="the disk did not answer within its bound: commit gave no answer in 5 s")
            for n in range(100)
        ]
        peer.ok("commit", steps=steps, full=False)
    boots = peer.ok("history", limit=PREVIOUS_MAX + 1)
    assert len(boots) == PREVIOUS_MAX + 1
    assert all(boot["steps"][-1]["n"] == 99 for boot in boots), "the end of each is there"


def test_five_hundred_rows_of_a_journal_fit_into_an_answer_or_say_so(peer: Peer) -> None:
    peer.ready()
    for start in range(0, 500, 100):
        peer.ok("commit", steps=[step(n, why="it ended: exit status 1") for n in range(start, start + 100)], full=False)
    assert len(peer.ok("journal", machine="m", limit=500)) == 500
    peer.ok("commit", steps=[step(n, why="x" * 2000) for n in range(1000, 1050)], full=False)
    peer.ok("commit", steps=[step(n, why="x" * 2000) for n in range(1050, 1100)], full=False)
    assert peer.error("journal", machine="m", limit=500) == {"code": "fault", "message": "the answer is too large"}
    assert peer.ok("hello"), "and it goes on"


def test_a_probe_writes_and_syncs(peer: Peer) -> None:
    peer.ready()
    room, found = peer.ok("probe", text="b1 123"), os.statvfs(peer.top)
    assert (room["bytes"], room["files"]) == (found.f_blocks * found.f_frsize, found.f_files)
    assert 0 < room["bytes_for_others"] <= room["bytes_free"] <= room["bytes"]
    assert (peer.top / "spine" / "alive").read_text() == f"{'b1 123':<79}\n"
    peer.ok("probe", text="b1 9")
    assert (peer.top / "spine" / "alive").read_text() == f"{'b1 9':<79}\n"


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
    (peer.top / "spine").write_text("a file where the directory should be")
    answer = peer.error("open")
    assert answer["code"] == "fault"
    assert "File exists" in answer["message"]


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


def test_a_marker_that_cannot_be_written_is_an_error_with_its_reason(peer: Peer) -> None:
    peer.ready()
    marker = peer.top / "spine" / "validate.marker"
    marker.mkdir()
    assert "Is a directory" in peer.error("validate_marker", text="x")["message"]
    marker.rmdir()
    marker.symlink_to(peer.top / "elsewhere")
    assert "symbolic link" in peer.error("validate_marker", text="x")["message"]
    assert not (peer.top / "elsewhere").exists()


def test_a_line_is_appended_to_the_genesis_log_and_read_back(peer: Peer) -> None:
    peer.ready()
    peer.ok("genesis", lines=["one"])
    assert peer.ok("validate_log", line="b1 +5 ms: validate") is True
    assert (peer.top / "spine" / "genesis.log").read_text() == "one\nb1 +5 ms: validate\n"


def test_a_genesis_log_that_cannot_be_written_is_an_error_with_its_reason(peer: Peer) -> None:
    peer.ready()
    (peer.top / "spine" / "genesis.log").mkdir()
    assert "Is a directory" in peer.error("validate_log", line="x")["message"]


def test_a_whole_database_is_looked_through_in_its_time(peer: Peer) -> None:
    peer.ready()
    peer.ok("commit", steps=[step(n) for n in range(1, 100)], full=False)
    assert peer.ok("validate_database", seconds=20) is True
    assert peer.ok("validate_database", seconds=-1) is False, "no time, no verdict"
    assert peer.ok("validate_database", seconds=20) is True, "and the connection is as it was"
    assert len(peer.ok("journal", machine="m", limit=300)) == 99


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


def test_every_operation_takes_only_named_arguments_and_answers_with_json() -> None:
    assert set(worker.OPS) == {
        "hello", "find", "mount", "open", "migrate", "machines", "stage", "flush", "commit", "journal", "history", "probe", "genesis",
        "genesis_tail", "settle", "close", "containers_prepare", "containers_aside", "persona_prepare", "ai_archive", "ai_model",
        "home_give", "home_empty", "log_remove", "trash_sweep",
        "prefer", "time_load", "time_save", "seed_use", "seed_renew", "farewell", "nack_put", "nack_drop", "nack_find", "nack_page",
        "validate_marker", "validate_log", "validate_database",
    }  # fmt: skip
    assert default_socket_buffer() > worker.PACKET_MAX


def default_socket_buffer() -> int:
    one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, two:
        return one.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
