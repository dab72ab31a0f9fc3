"""The command line: every verb explains itself, every failure has its status and says what to do."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import xml.dom.minidom
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kit import served, until

import bay0
from bay0.base.errors import RefusedError
from bay0.cli import client, logview, verbs
from bay0.cli import main as cli
from bay0.machines import MACHINES

VERBS = (
    "status", "boot", "log", "machines", "history", "run", "poweroff", "reboot", "storage", "screen", "net", "graph", "rpc", "debug",
    "version", "persona",
    "focus", "image", "events", "completion", "nack", "governor", "doctor", "support", "validate", "suspend", "inhibit", "turns", "tenant", "ask",
    "help", "top", "upgrade",
)  # fmt: skip
STEP = {
    "boot_id": "0123456789abcdef", "n": 1, "machine": "boot:01234567", "kind": "boot", "seq": 1, "source": "new", "event": "begin",
    "dest": "mounting", "why": "the kernel handed over", "at_ms": 2500, "attempts": 0,
}  # fmt: skip
STEPS = [STEP, {**STEP, "n": 2, "seq": 2, "source": "mounting", "dest": "shielding", "why": "mounted proc/sys/dev", "at_ms": 2610}]
BOOT = {"boot_id": "0123456789abcdef", "version": "0.1.0", "kernel": "6.18.56-0-virt", "started_wall": 1}
STATUS = {
    "version": "0.1.0", "boot_id": "0123456789abcdef", "up_ms": 61500, "boot": "complete", "complete_ms": 3210, "dirty": None,
    "storage": {"state": "durable", "device": "/dev/vda", "in_memory": 0, "lost": 0, "workers_left_behind": 0},
    "pid1": {
        "pid": 1, "rss_kib": 20480, "pss_kib": 10240, "longest_turn_ms": 12.5, "turns": 99, "reaped": 7, "orphans": 2,
        "commands_running": 0, "commands_left_behind": 0, "console_lines_dropped": 0,
    },
    "continuity": {
        "now": 1795000000, "build": 1790000000, "saved": 1794999990, "moved_s": 12, "sane": True,
        "seed": {"found": "new", "mixed": True, "credited": False, "why": "nobody asked to trust it"},
    },
    "watchdog": {"armed": True, "timeout_s": 30, "fed": 12, "failing": ""},
    "machines": [{"name": "sys://console", "kind": "tenant", "state": "running", "seq": 3, "attempts": 2}],
}  # fmt: skip


def bay0_process(*words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "bay0", *words], capture_output=True, text=True, check=False, timeout=60, **more)


@pytest.fixture
def spine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """A control server that answers from a dictionary: method -> result, exception, or function of the params."""
    answers: dict[str, Any] = {
        "status": STATUS,
        "machines": STATUS["machines"],
        "boots": {"this": {**BOOT, "dirty": None, "entered_ms": 2300, "complete_ms": 3210, "steps": STEPS}, "previous": [], "unread": None},
    }
    path = str(tmp_path / "control.sock")

    def method(name: str) -> Callable[[Any, Any], None]:
        def answer(params: Any, reply: Any) -> None:
            found = answers[name]
            reply(found(params) if callable(found) else found)

        return answer

    names = ("status", "machines", "boots", "history", "run", "power", "storage.retry", "storage.grow", "debug.crash")
    monkeypatch.setenv("BAY0_SOCKET", path)
    with served(path, {name: method(name) for name in names}):
        yield answers


# ---- help and usage


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    status = cli.main([verb, "--help"])
    assert status == 0
    assert f"usage: bay0 {verb}" in capsys.readouterr().out


def test_every_verb_is_in_the_help_and_tested_here(capsys: pytest.CaptureFixture[str]) -> None:
    status = cli.main(["--help"])
    assert status == 0
    shown = capsys.readouterr().out
    assert set(verbs.WORDS) == set(VERBS)
    assert all(verb in shown for verb in VERBS)


@pytest.mark.parametrize(
    "words", [[], ["no-such-verb"], ["log", "--no-such-option"], ["boot", "--previous", "many"], ["storage", "mend"], ["graph"], ["debug"]]
)
def test_wrong_usage_is_status_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    status = cli.main(words)
    assert status == 2
    assert "usage: bay0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"), [(["graph", "compositor"], ", ".join(sorted(MACHINES))), (["run"], "say which command"), (["log", "-n", "-3"], "0 or more")]
)
def test_usage_that_makes_no_sense_is_status_2_and_says_what_would(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == cli.USAGE == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["status"], ["boot"], ["machines"], ["history", "x"], ["run", "true"], ["poweroff"], ["reboot"], ["storage"], ["debug", "crash"],
        ["governor"], ["turns"], ["doctor"], ["support", "/nowhere/x"],
    ],
)
def test_without_a_spine_the_status_is_3_and_the_way_out_is_named(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == cli.NO_SPINE == 3
    error = capsys.readouterr().err
    assert "no bay0 answers at" in error
    assert "scripts/quickstart.sh" in error


def test_without_a_spine_there_is_no_log(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(logview.show.__kwdefaults__, "path", str(tmp_path / "none"))
    assert cli.main(["log"]) == 3
    assert "scripts/quickstart.sh boots one" in capsys.readouterr().err


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["version"]) == 0
    assert capsys.readouterr().out == f"bay0 {bay0.__version__}\n"
    assert cli.main(["version", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bay0"] == bay0.__version__


def test_the_program_runs_as_a_module() -> None:
    assert bay0_process("--version").stdout == f"bay0 {bay0.__version__}\n"
    assert bay0_process("status").returncode == 3
    assert bay0_process("nonsense").returncode == 2


def test_a_reader_that_has_enough_is_no_error() -> None:
    """As in `bay0 graph boot --format page | head -1`."""
    script = f"{sys.executable} -m bay0 graph boot --format page | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == "# The boot machine\n"
    assert "Traceback" not in done.stderr
    assert done.stderr == ""


# ---- graphs


@pytest.mark.parametrize("kind", sorted(MACHINES))
@pytest.mark.parametrize(("form", "begins"), [("mermaid", "stateDiagram-v2"), ("dot", "digraph"), ("page", "# The ")])
def test_every_machine_can_be_drawn(kind: str, form: str, begins: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["graph", kind, "--format", form]) == 0
    drawn = capsys.readouterr().out
    assert drawn.startswith(begins)
    assert all(state.value in drawn for state in MACHINES[kind].states)


@pytest.mark.parametrize("kind", sorted(MACHINES))
@pytest.mark.host
@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz's dot is not installed")
def test_every_machine_can_be_drawn_as_svg(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["graph", kind, "--format", "svg"]) == 0
    assert xml.dom.minidom.parseString(capsys.readouterr().out).documentElement.tagName == "svg"


def test_without_graphviz_svg_names_the_way_out(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    assert cli.main(["graph", "boot", "--format", "svg"]) == 2
    assert "graphviz" in capsys.readouterr().err


def test_the_live_state_is_marked(spine: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["graph", "tenant", "--live"]) == 0
    assert "class running live" in capsys.readouterr().out


# ---- verbs that ask the spine


def test_status_is_for_people_and_for_programs(spine: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status"]) == 0
    text = capsys.readouterr().out
    assert "init complete after 3.2 s" in text
    assert "storage   durable on /dev/vda" in text
    assert "tenant    sys://console        running (attempt 2)" in text
    assert cli.main(["status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == STATUS


@pytest.mark.parametrize(
    ("state", "remedy"),
    [
        ("detached", "SPINE-PERSIST"), ("wedged", "comes back by itself"), ("full", "make room"), ("readonly", "bay0 storage retry"),
        ("closed", "going down"),
    ],
)
def test_a_storage_that_is_not_durable_says_what_to_do(spine: dict[str, Any], capsys: pytest.CaptureFixture[str], state: str, remedy: str) -> None:
    spine["status"] = {**STATUS, "dirty": "no disk", "storage": {**STATUS["storage"], "state": state, "in_memory": 4}}
    assert cli.main(["storage"]) == 0
    text = capsys.readouterr().out
    assert "4 steps only in memory" in text
    assert "dirty: no disk" in text
    assert remedy in text


def test_retrying_storage_is_accepted_or_refused_with_the_reason(spine: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    spine["storage.retry"] = {"accepted": True}
    assert cli.main(["storage", "retry"]) == 0
    spine["storage.retry"] = RefusedError("storage:1 is durable: storage is healthy")
    assert cli.main(["storage", "retry"]) == cli.REFUSED == 1
    assert "storage is healthy" in capsys.readouterr().err


def test_growing_storage_says_from_what_to_what(spine: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    spine["storage.grow"] = {"device": "/dev/vda", "from_bytes": 2 << 30, "to_bytes": 4 << 30}
    assert cli.main(["storage", "grow"]) == 0
    assert capsys.readouterr().out == "the filesystem on /dev/vda has grown from 2 GiB to 4 GiB\n"
    assert cli.main(["storage", "grow", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == spine["storage.grow"]
    spine["storage.grow"] = RefusedError("/dev/vda is used to its end: make the disk larger first; nothing was changed")
    assert cli.main(["storage", "grow"]) == cli.REFUSED
    assert "make the disk larger first" in capsys.readouterr().err


def test_a_boot_is_shown_with_its_steps_and_a_verdict(spine: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["boot"]) == 0
    text = capsys.readouterr().out
    assert "  2.500 s     110 ms  boot           mounting     the kernel handed over" in text
    assert "init complete 3.21 s after the kernel started, bay0's part 0.91 s" in text
    assert "verdict: complete, /persist durable" in text


def test_a_dirty_or_unfinished_boot_says_so(spine: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    this = spine["boots"]["this"]
    spine["boots"] = {
        "this": {**this, "dirty": "no disk"},
        "previous": [{**BOOT, "boot_id": "old", "end": "an earlier boot lost power", "steps": STEPS}],
        "unread": "there is no state worker",
    }
    cli.main(["boot"])
    text = capsys.readouterr().out
    assert "verdict: complete, but dirty: no disk" in text
    assert "earlier boots cannot be read now: there is no state worker" in text
    assert "earlier boot old, bay0 0.1.0" in text
    assert "its end: lost power" in text
    spine["boots"] = {"this": {**this, "complete_ms": None}, "previous": [], "unread": None}
    cli.main(["boot"])
    assert "verdict: not complete yet" in capsys.readouterr().out


def test_a_boot_can_be_drawn(spine: dict[str, Any], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["boot", "--svg", str(tmp_path / "boot.svg")]) == 0
    assert "drawn to" in capsys.readouterr().out
    assert xml.dom.minidom.parse(str(tmp_path / "boot.svg"))
    assert cli.main(["boot", "--svg", str(tmp_path / "none" / "boot.svg")]) == 1


def test_history_is_a_table_or_says_that_there_is_none(spine: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    spine["history"] = STEPS
    assert cli.main(["history", "boot:01234567"]) == 0
    assert "mounted proc/sys/dev" in capsys.readouterr().out
    spine["history"] = []
    assert cli.main(["history", "sys://console"]) == 0
    assert "the journal has nothing of sys://console" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("word", "meant"),
    [("wrok", "p://work"), ("work", "p://work"), ("console", "sys://console"), ("boot", "boot:0123"), ("zzz", None), ("focus", None)],
)
def test_a_name_without_a_history_is_refused_with_the_one_that_was_meant(
    spine: dict[str, Any], word: str, meant: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    spine["history"] = RefusedError("no machine is or was called so")
    spine["machines"] = [{"name": name} for name in ("p://work", "p://play", "sys://console", "boot:0123", "focus")]
    assert cli.main(["history", word]) == 1
    said = capsys.readouterr().err
    assert said.startswith("bay0: no machine is or was called so")
    assert (f"Did you mean {meant}?" in said) if meant else ("Did you mean" not in said)


@pytest.mark.parametrize(
    ("ending", "status", "ours"),
    [("exited", 0, 0), ("exited", 7, 7), ("exited", 255, 255), ("signalled", -9, 137), ("timed_out", -15, 124), ("abandoned", -9, 124)],
)
def test_the_status_of_run_is_the_commands(spine: dict[str, Any], capsys: pytest.CaptureFixture[str], ending: str, status: int, ours: int) -> None:
    spine["run"] = {"ending": ending, "status": status, "stdout": "out", "stderr": "err", "dropped": 0, "took_s": 1.5, "ok": status == 0}
    assert cli.main(["run", "--", "ls", "-l"]) == ours
    shown = capsys.readouterr()
    assert shown.out == "out"
    assert shown.err.startswith("err")
    assert (f"{ending} after 1.5 s" in shown.err) is (ending != "exited")


def test_run_passes_the_command_on_as_it_is(spine: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[Any] = []

    def run(params: Any) -> Any:
        asked.append(params)
        return {"ending": "exited", "status": 0, "stdout": "", "stderr": "", "dropped": 9, "took_s": 0.1, "ok": True}

    spine["run"] = run
    assert cli.main(["run", "--deadline", "2.5", "--", "sh", "-c", "a  b; --c", "ä"]) == 0
    assert asked == [{"argv": ["sh", "-c", "a  b; --c", "ä"], "deadline_s": 2.5}]
    assert "9 bytes of output were not kept" in capsys.readouterr().err


@pytest.mark.parametrize("how", ["poweroff", "reboot"])
def test_power_verbs_say_how(spine: dict[str, Any], how: str, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[Any] = []
    spine["power"] = lambda params: asked.append(params) or {"accepted": how}
    assert cli.main([how]) == 0
    assert asked == [{"how": how}]
    assert capsys.readouterr().out.startswith(how)


def test_rpc_sends_lines_and_prints_answers(spine: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [json.dumps({"jsonrpc": "2.0", "id": number, "method": "machines"}) for number in range(40)]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join([*lines, "", "not json"]).encode())))
    assert cli.main(["rpc"]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["id"] for answer in answers] == [*range(40), None]


def test_rpc_with_a_window_of_one_sends_each_request_after_the_last_ones_answer(
    spine: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [json.dumps({"jsonrpc": "2.0", "id": number, "method": "machines"}) for number in range(5)]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join(lines).encode())))
    assert cli.main(["rpc", "--window", "1"]) == 0
    assert [json.loads(line)["id"] for line in capsys.readouterr().out.splitlines()] == list(range(5))
    cli.main(["rpc", "--window", "0"])


def test_rpc_each_answers_a_request_before_it_reads_the_next(spine: dict[str, Any]) -> None:
    argv = [sys.executable, "-m", "bay0", "rpc", "--each"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ}) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number in range(3):
            process.stdin.write(json.dumps({"jsonrpc": "2.0", "id": number, "method": "machines"}) + "\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["id"] == number
        process.stdin.close()
        assert process.wait(30) == 0


def test_rpc_does_not_wait_for_the_answer_to_a_notification(
    spine: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = ({"method": "machines"}, {"id": 1, "method": "machines"}, {"method": "none"})
    text = b"".join(json.dumps({"jsonrpc": "2.0", **request}).encode() + b"\n" for request in requests)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    done: list[int] = []
    thread = threading.Thread(target=lambda: done.append(cli.main(["rpc"])), daemon=True)
    thread.start()
    until(lambda: done, "the end of rpc")
    assert done == [0]
    assert [json.loads(line)["id"] for line in capsys.readouterr().out.splitlines()] == [1]


def test_who_is_refused_a_place_is_told_so_even_if_its_request_comes_too_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """bay0 says why and closes; a request that is sent after that fails, and must not hide what was said."""
    path = str(tmp_path / "control.sock")
    monkeypatch.setenv("BAY0_SOCKET", path)
    refusal = {"jsonrpc": "2.0", "id": None, "error": {"code": -32000, "message": "all places are taken"}}
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen()
        for call in (lambda: client.call("status"), lambda: client.call_all("status", [{}, {}])):
            sent = client.send

            def late(peer: socket.socket, requests: Any, sent: Any = sent) -> None:
                with listener.accept()[0] as ours:
                    ours.send(json.dumps(refusal).encode() + b"\n")
                sent(peer, requests)

            monkeypatch.setattr(client, "send", late)
            with pytest.raises(RefusedError, match="all places are taken"):
                call()
            monkeypatch.setattr(client, "send", sent)


def test_rpc_says_when_the_spine_hangs_up(spine: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    text = b'{"id":1,"method":"machines","params":{"x":"' + b"y" * 70000 + b'"}}\n{"id":2,"method":"machines"}\n'
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    assert cli.main(["rpc"]) == 3
    shown = capsys.readouterr()
    assert "a frame is at most" in shown.out
    assert "closed the connection" in shown.err


# ---- the log


def record(number: int) -> str:
    return json.dumps({"t_ms": number, "level": "info", "event": "tick", "number": number}) + "\n"


def view(path: Path, capsys: pytest.CaptureFixture[str], last: int = 0, *, as_json: bool = False) -> list[str]:
    assert logview.show(last, follow=False, as_json=as_json, path=str(path)) == 0
    return capsys.readouterr().out.splitlines()


def test_the_log_is_the_older_file_and_the_current_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "log.jsonl"
    Path(f"{path}.1").write_text(record(1) + record(2))
    path.write_text(record(3))
    assert view(path, capsys) == [f"[       0.00{n}] bay0: tick (number={n})" for n in (1, 2, 3)]
    assert view(path, capsys, last=2) == [f"[       0.00{n}] bay0: tick (number={n})" for n in (2, 3)]
    assert view(path, capsys, as_json=True) == [record(n).strip() for n in (1, 2, 3)]


def test_a_torn_line_is_shown_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"t_ms": 5, "lev\n' + record(1))
    assert view(path, capsys)[0] == '{"t_ms": 5, "lev'


class Scene:
    """Things that happen to a log while somebody follows it: one at each of the follower's pauses."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch, *acts: Callable[[], Any]) -> None:
        self.path = path
        self.acts = list(acts)
        monkeypatch.setattr(logview.time, "sleep", self.pause)

    def pause(self, _seconds: float) -> None:
        if not self.acts:
            raise KeyboardInterrupt
        self.acts.pop(0)()

    def followed(self) -> list[str]:
        seen = []
        with pytest.raises(KeyboardInterrupt):
            for line in logview.follow(str(self.path)):
                seen.append(line)
        return seen


def append(path: Path, text: str) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(text)


def rotate(path: Path) -> None:
    os.replace(path, f"{path}.1")


def test_following_shows_lines_as_they_come_and_nothing_from_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(record(1))
    scene = Scene(path, monkeypatch, lambda: append(path, record(2)), lambda: None, lambda: append(path, record(3) + record(4)))
    assert scene.followed() == [record(2), record(3), record(4)]


def test_following_goes_on_across_a_rotation_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text("")

    def rotation() -> None:
        append(path, record(2))
        rotate(path)
        append(path, record(3))

    scene = Scene(path, monkeypatch, lambda: append(path, record(1)), rotation, lambda: append(path, record(4)))
    assert scene.followed() == [record(1), record(2), record(3), record(4)]


def test_following_survives_the_moment_between_the_two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text("")
    scene = Scene(path, monkeypatch, lambda: rotate(path), lambda: append(path, record(1)), lambda: None)
    assert scene.followed() == [record(1)]


def test_a_line_that_was_half_written_before_a_rotation_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text("")
    whole = record(1)

    def rest_and_rotate() -> None:
        append(path, whole[10:])
        rotate(path)
        append(path, record(2))

    scene = Scene(path, monkeypatch, lambda: append(path, whole[:10]), rest_and_rotate, lambda: None)
    assert scene.followed() == [whole, record(2)]


def test_odd_line_separators_inside_a_record_do_not_cut_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text("")
    odd = json.dumps({"event": "x", "why": "a\u2028b\x85c"}, ensure_ascii=False) + "\n"

    def write_and_rotate() -> None:
        append(path, odd)
        rotate(path)
        append(path, "")

    assert Scene(path, monkeypatch, write_and_rotate, lambda: None).followed() == [odd]


def test_ctrl_c_ends_following_with_status_130(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(record(1))
    Scene(path, monkeypatch, lambda: append(path, record(2)))
    monkeypatch.setitem(logview.show.__kwdefaults__, "path", str(path))
    assert cli.main(["log", "-f"]) == 130
    assert len(capsys.readouterr().out.splitlines()) == 2
