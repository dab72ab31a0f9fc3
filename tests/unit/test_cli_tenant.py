"""`bay0 tenant`, from the control socket's methods to what a person reads: the real verbs over the shared bench."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kit import Known
from parts import Ready
from serverkit import Bench

from bay0.ai.config import Config, read_config
from bay0.ai.methods import TenantVerbs
from bay0.ai.port import NAME
from bay0.base.bounds import Bounds
from bay0.base.errors import RefusedError
from bay0.cli import client
from bay0.cli import main as cli
from bay0.control.outcomes import Outcomes
from bay0.machines import boot
from bay0.machines.server import E, S
from bay0.state import paths
from bay0.state.link import Answer
from bay0.umbilical.places import IMAGE

SESSIONS = {"p://work": {"connections": 2, "requests": 5, "refused": 1, "bytes_in": 70, "bytes_out": 900, "in_flight": 0}}


class Desk:
    """Stands in for the control socket: a call is answered after some time by hand."""

    def __init__(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bench = bench
        bench.umbilical.sessions = SESSIONS
        self.replay: Any = Known()
        self.boot: Any = SimpleNamespace(now=boot.S.COMPLETE)
        self.servers: Any = Ready(lambda: bench.servers)
        timers: Any = bench.timers
        state: Any = bench.state
        outcomes = Outcomes(bench.engine, timers, Bounds())
        self.verbs = TenantVerbs(
            bench.engine, timers, Bounds(), state, self.boot, self.servers, bench.ways, self.replay, outcomes,
        )  # fmt: skip
        self.meanwhile: list[Any] = []  # what the forwarder answers while a verb waits
        monkeypatch.setattr(client, "call", self.call)

    def call(self, method: str, timeout_s: float = 60, **params: Any) -> Any:
        answers: list[Any] = []
        getattr(self.verbs, method.removeprefix("tenant."))(params, answers.append)
        for each in self.meanwhile:
            self.bench.timers.advance(2)
            each()
        self.bench.timers.advance(20)
        (answer,) = answers
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    bench = Bench(monkeypatch)
    return Desk(bench, monkeypatch)


def said(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> str:
    assert cli.main(["tenant", *words]) == status
    shown = capsys.readouterr()
    return shown.out + shown.err


def warm(desk: Desk) -> Any:
    return lambda: desk.bench.umbilical.answer("warm", first_token_s=1.5)


def test_a_start_waits_until_it_is_ready(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.meanwhile = [warm(desk)]
    assert "sys://ai is ready; `bay0 ask" in said(capsys, "start", "ai")
    assert desk.bench.ai.desired == "running"


def test_a_start_that_takes_longer_is_accepted_with_status_4(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "start", "ai", status=4).startswith("accepted: sys://ai is warming")


def test_a_start_that_fails_says_why_and_what_helps(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.bench.wrong = {"swap": "max"}
    shown = said(capsys, "start", "sys://ai", status=1)
    assert "swap: wanted 0, found max" in shown


def test_it_is_shown_with_both_sides_of_its_envelope_and_who_spoke_with_it(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.bench.ready()
    shown = said(capsys, "show", "ai")
    assert "envelope   20 of 20 properties are as wanted" in shown
    assert "=  swap               0" in shown
    assert "p://work  2            5         1" in shown
    desk.bench.wrong = {"swap": "max"}
    shown = said(capsys, "show", "ai")
    assert "19 of 20" in shown
    assert "!  swap" in shown
    found = json.loads(said(capsys, "show", "ai", "--json"))
    assert [row["name"] for row in found["envelope"] if not row["ok"]] == ["swap"]
    assert found["sessions"] == SESSIONS


def test_one_that_cannot_start_says_why_and_how_it_could(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.bench.servers.autostart(())
    desk.bench.timers.advance(1)
    shown = said(capsys, "show", "ai")
    assert "why        its image is not on this machine" in shown
    assert "mkpersist.sh" in shown
    assert "its image is not on this machine" in said(capsys, "list")


def test_a_stop_drains_and_a_restart_starts_again(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.bench.ready()
    desk.meanwhile = [lambda: desk.bench.umbilical.answer("drain"), warm(desk)]
    assert "sys://ai is ready" in said(capsys, "restart", "ai")
    assert desk.bench.podman.made == 2
    desk.meanwhile = [lambda: desk.bench.umbilical.answer("drain")]
    assert "sys://ai is stopped" in said(capsys, "stop", "ai")


def test_a_stop_before_it_has_started_with_the_spine_is_a_stop(desk: Desk) -> None:
    desk.call("stop", name=NAME)
    desk.bench.servers.autostart({IMAGE})
    desk.bench.timers.advance(3)
    assert desk.bench.ai.now is S.STOPPED
    assert desk.bench.servers.unavailable == "it was asked to stop"


def test_a_stop_while_an_earlier_boots_is_cleared_is_a_stop(desk: Desk) -> None:
    desk.bench.podman.held.add("remove")
    desk.bench.podman.there["sys__ai"] = ("exited", 0)
    desk.bench.engine.send(NAME, E.CONVERGE)
    desk.bench.servers.autostart({IMAGE})
    desk.call("stop", name=NAME, wait=False)
    desk.bench.podman.held.clear()
    desk.bench.podman.waiting_calls.pop()()
    desk.bench.timers.advance(3)
    assert desk.bench.ai.now is S.STOPPED


def test_a_restart_that_the_end_of_the_spine_overtakes_starts_nothing(desk: Desk) -> None:
    desk.bench.ready()
    desk.verbs.restart({"name": NAME, "wait": False}, [].append)
    desk.bench.servers.no_start("the spine is going down")
    desk.bench.timers.advance(1)
    desk.bench.umbilical.answer("drain")
    desk.bench.timers.advance(3)
    assert desk.bench.ai.now is S.STOPPED


def test_a_restart_is_refused_once_the_spine_goes_down(desk: Desk) -> None:
    desk.bench.ready()
    desk.boot.now = boot.S.STOPPING
    with pytest.raises(RefusedError, match="the spine is going down"):
        desk.call("restart", name=NAME)
    assert desk.bench.ai.now is S.READY


def test_a_start_is_refused_once_the_spine_goes_down(desk: Desk) -> None:
    desk.boot.now = boot.S.STOPPING
    with pytest.raises(RefusedError, match="the spine is going down"):
        desk.call("start", name=NAME)
    assert desk.bench.ai.now is S.STOPPED


def test_what_is_configured_is_kept_and_counts_from_its_next_start(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.bench.ready()
    shown = said(capsys, "configure", "ai", "--model", "/persist/models/m.gguf", "--no-autostart")
    assert "model /persist/models/m.gguf, starts when asked to; it counts from its next start" in shown
    assert read_config(desk.bench.ai.config) == Config(False, "/persist/models/m.gguf")
    said(capsys, "configure", "ai", "--default-model", "--autostart")
    assert read_config(desk.bench.ai.config) == Config()
    assert desk.bench.ai.now is S.READY


def test_two_who_configure_it_at_once_do_not_undo_each_other(desk: Desk) -> None:
    answers: list[Any] = []
    desk.verbs.configure({"name": NAME, "model": "/persist/models/m.gguf"}, answers.append)  # the disk is asked about it first
    desk.verbs.configure({"name": NAME, "autostart": False}, answers.append)
    desk.bench.timers.advance(1)
    assert read_config(desk.bench.ai.config) == Config(False, "/persist/models/m.gguf")
    assert [(told["autostart"], told["model"]) for told in answers] == [(False, None), (False, "/persist/models/m.gguf")]


def test_a_model_that_is_none_is_refused_and_nothing_changes(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.bench.ops["ai_model"] = Answer(value={"why": "/persist/x: it is no GGUF file"})
    assert "it is no GGUF file. Nothing was changed" in said(capsys, "configure", "ai", "--model", "/persist/x", status=1)
    assert desk.bench.ai.config == ""


def test_it_is_not_configured_on_its_way(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.bench.go(E.START)
    assert "ask again when it is ready or stopped" in said(capsys, "configure", "ai", "--no-autostart", status=1)


def test_nothing_to_configure_is_wrong_usage(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    assert "say what to change" in said(capsys, "configure", "ai", status=2)


@pytest.mark.parametrize("name", ["sys://console", "p://work", "ai"])
def test_there_is_no_other_server(desk: Desk, name: str) -> None:
    with pytest.raises(RefusedError, match="no server"):
        desk.call("tenant.show", name=name)


def test_before_the_disk_is_known_nothing_is_said_of_it(desk: Desk) -> None:
    desk.replay.known = False
    with pytest.raises(RefusedError, match="not known in this boot"):
        desk.call("tenant.start", name=NAME)


def test_its_log_is_printed_as_a_personas_is_and_there_may_be_none(
    desk: Desk, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(paths, "LOGS", str(tmp_path))
    assert "no log of sys://ai: it was not started yet, or" in said(capsys, "logs", "ai")
    (tmp_path / "sys__ai.log").write_text("2026-11-25T10:00:00Z stdout F one\n2026-11-25T10:00:01Z stderr F two\x1b[2J\n")
    assert said(capsys, "logs", "ai", "-n", "1") == "two\x1b[2J\n"
    first, second = said(capsys, "logs", "sys://ai", "--json").splitlines()
    assert (json.loads(first)["text"], json.loads(second)["stream"]) == ("one", "stderr")


def test_hundreds_who_configure_at_once_are_each_told_and_nobody_is_nested_in_another(desk: Desk) -> None:
    desk.bench.journal.hold = True
    answers: list[Any] = []
    desk.verbs.configure({"name": NAME, "autostart": False}, answers.append)
    desk.verbs.start({"name": NAME, "wait": False}, lambda _answer: None)
    for _ in range(250):  # each is refused at once when its turn comes: it is on its way by then
        desk.verbs.configure({"name": NAME, "autostart": True}, answers.append)
    desk.bench.journal.hold = False
    while desk.bench.journal.held:
        desk.bench.journal.answer()
    desk.bench.timers.advance(30)
    assert [isinstance(answer, RefusedError) for answer in answers] == [False] + [True] * 250
