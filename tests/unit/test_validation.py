"""Running the checks: answered once and within the bound, one run at a time, each answer about what was found after its question."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kit import Log, Timers, served

from bay0.base.bounds import Bounds
from bay0.base.errors import RefusedError
from bay0.cli import main as cli
from bay0.cli import validate as validatecli
from bay0.cli.grammar import Options
from bay0.machines import boot
from bay0.pid1 import flow
from bay0.pid1.reactor import Reactor
from bay0.validate import verdict
from bay0.validate.look import Check, Look
from bay0.validate.run import ASKERS_MAX, Validation
from bay0.validate.verdict import COMPONENTS, GREEN, Finding, Level, red, yellow


class Bench:
    """A validation whose checks are played; `looks` counts them, `held` keeps a check from answering until it is released."""

    def __init__(self) -> None:
        self.timers, self.log = Timers(), Log()
        self.looks: dict[str, int] = {}
        self.findings: dict[str, Any] = {}
        self.held: set[str] = set()
        self.release: dict[str, list[flow.Resume]] = {}
        self.boot: Any = SimpleNamespace(now=boot.S.COMPLETE)
        self.parts: Any = SimpleNamespace(reactor=self.timers, bounds=Bounds())
        freezer: Any = None
        checks = [Check(name, self._look(name), "validate_freezer" if name == "freezer" else "validate_check") for name in COMPONENTS]
        self.validation = Validation(self.parts, self.log, self.boot, freezer, checks=checks)
        self.answers: list[Any] = []

    def _look(self, name: str) -> Callable[[Look], Any]:
        def held(look: Look) -> flow.Flow[Finding]:
            look.say(f"{name} waits")
            yield self.release.setdefault(name, []).append
            return self.findings.get(name, GREEN)

        def look(look: Look) -> Any:
            self.looks[name] = self.looks.get(name, 0) + 1
            found = self.findings.get(name, GREEN)
            if isinstance(found, Exception):
                raise found
            return held(look) if name in self.held else found

        return look

    def ask(self, seconds: float = 0.0, **params: Any) -> Any:
        """Ask, let time pass, return this asker's answer or None."""
        answers: list[Any] = []
        self.validation.ask(params, answers.append)
        self.answers.append(answers)
        self.timers.advance(seconds)
        assert len(answers) <= 1, "it answers once"
        return answers[0] if answers else None

    def go_on(self, name: str) -> None:
        self.held.discard(name)
        for resume in self.release.pop(name, []):
            resume(None)
        self.timers.advance()


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_all_checks_green_is_green(bench: Bench) -> None:
    found = bench.ask()
    assert found["verdict"] == "green"
    assert [row["name"] for row in found["checks"]] == list(COMPONENTS)
    assert bench.timers.waiting == 0, "no timer is left"
    assert bench.log.of("validated") == [{"verdict": "green", "checks": len(COMPONENTS), "took_ms": 0}]


def test_the_worst_finding_is_the_verdict_and_is_logged_with_its_reason(bench: Bench) -> None:
    bench.findings["umbilical"] = yellow("no AI tenant yet")
    assert bench.ask()["verdict"] == "yellow"
    bench.findings["psi"] = red("no pressure")
    found = bench.ask()
    assert found["verdict"] == "red"
    assert [row for row in found["checks"] if row["why"]] == [
        {"name": "umbilical", "component": "sys://ai", "level": "yellow", "why": "no AI tenant yet", "took_ms": 0},
        {"name": "psi", "component": "kernel", "level": "red", "why": "no pressure", "took_ms": 0},
    ]
    assert bench.log.of("validated")[-1]["psi"] == "no pressure"


def test_only_what_is_named_is_looked_at(bench: Bench) -> None:
    found = bench.ask(only=["clock", "psi"])
    assert [row["name"] for row in found["checks"]] == ["psi", "clock"]
    assert set(bench.looks) == {"psi", "clock"}


def test_a_check_that_does_not_exist_is_refused_and_the_others_named(bench: Bench) -> None:
    with pytest.raises(RefusedError, match="no check 'pisi'; there are freezer, umbilical"):
        bench.ask(only=["psi", "pisi"])
    assert bench.looks == {}


@pytest.mark.parametrize("name", ["freezer", "persist"])
def test_a_check_that_does_not_answer_is_red_at_its_own_bound_and_says_what_it_waits_for(bench: Bench, name: str) -> None:
    bench.held.add(name)
    bound = 25.0 if name == "freezer" else 5.0
    assert bench.ask(bound - 0.1) is None
    bench.timers.advance(0.2)
    found = next(row for row in bench.answers[0][0]["checks"] if row["name"] == name)
    assert (found["level"], found["why"]) == ("red", f"no answer in {bound:g} s while {name} waits")
    bench.go_on(name)
    assert len(bench.answers[0]) == 1, "a late finding is nobody's"
    assert bench.ask()["verdict"] == "green"


def test_the_whole_has_a_bound_whatever_the_bounds_of_its_parts(bench: Bench) -> None:
    bench.parts.bounds = Bounds(validate_freezer=500, validate_check=500)
    bench.held |= set(COMPONENTS)
    assert bench.ask(29.9) is None
    bench.timers.advance(0.2)
    assert {row["why"] for row in bench.answers[0][0]["checks"]} == {f"no answer in 30 s while {name} waits" for name in COMPONENTS}


def test_who_asks_meanwhile_gets_the_next_run_and_so_nothing_older_than_the_question(bench: Bench) -> None:
    bench.held.add("persist")
    assert bench.ask() is None
    assert bench.ask() is None
    assert bench.ask(only=["psi"]) is None
    assert bench.looks["persist"] == 1, "one run at a time"
    bench.findings["psi"] = red("broken meanwhile")
    bench.go_on("persist")
    first, second, third = (answers[0] for answers in bench.answers)
    assert (first["verdict"], second["verdict"], third["verdict"]) == ("green", "red", "red")
    assert len(third["checks"]) == 1
    assert bench.looks["persist"] == 2, "all who waited share one run"


def test_a_run_shared_with_others_says_to_each_only_what_he_asked_for(bench: Bench) -> None:
    bench.held.add("log")
    bench.ask(only=["log"])
    bench.ask(only=["psi"])
    bench.ask(only=["clock"])
    bench.findings["clock"] = red("1970")
    bench.go_on("log")
    assert [answers[0]["verdict"] for answers in bench.answers] == ["green", "green", "red"]


def test_nobody_waits_longer_than_for_two_runs(bench: Bench) -> None:
    bench.parts.bounds = Bounds(validate_freezer=500, validate_check=500)
    bench.held |= set(COMPONENTS)
    bench.ask()
    bench.ask(60.1)
    assert [len(answers) for answers in bench.answers] == [1, 1]


def test_too_many_askers_are_refused(bench: Bench) -> None:
    bench.held.add("log")
    for _ in range(ASKERS_MAX + 1):
        bench.ask()
    with pytest.raises(RefusedError, match="wait for a validation already"):
        bench.ask()


@pytest.mark.parametrize("state", boot.LEAVES)
def test_a_spine_that_goes_down_is_not_validated(bench: Bench, state: boot.S) -> None:
    bench.boot.now = state
    with pytest.raises(RefusedError, match="going down"):
        bench.ask()


@pytest.mark.parametrize(
    ("error", "said"), [(OSError(5, "Input/output error"), "cannot be looked at"), (KeyError("x"), "the check itself failed: KeyError")]
)
def test_a_defect_in_a_check_is_a_finding_and_does_not_end_pid_1(bench: Bench, error: Exception, said: str) -> None:
    bench.findings["root"] = error
    found = bench.ask()
    row = next(row for row in found["checks"] if row["name"] == "root")
    assert row["level"] == "red"
    assert said in row["why"]


def test_a_defect_behind_a_wait_is_a_finding_too(bench: Bench) -> None:
    def breaks(_look: Look) -> flow.Flow[Finding]:
        yield lambda resume: bench.timers.call_later(1, lambda: resume(None))
        raise ValueError("late")

    bench.validation.checks = [Check("psi", breaks)]
    assert "the check itself failed: ValueError: late" in bench.ask(2, only=["psi"])["checks"][0]["why"]


def test_progress_says_what_is_busy_with_what(bench: Bench) -> None:
    seen: list[Any] = []
    bench.validation.progress({}, seen.append)
    bench.held.add("freezer")
    bench.ask(3)
    bench.validation.progress({}, seen.append)
    assert seen == [None, {"doing": {"freezer": "freezer waits"}, "done": len(COMPONENTS) - 1, "of": len(COMPONENTS), "for_s": 3}]


# ---- words


def test_green_is_one_line() -> None:
    row = {"name": "psi", "component": "kernel", "level": "green", "why": "", "took_ms": 1}
    assert verdict.text({"verdict": "green", "took_ms": 1234, "checks": [row]}) == "GREEN: 1 checks, all green (1.2 s)"


def test_what_is_not_green_has_a_line_with_component_and_reason() -> None:
    rows = [
        {"name": "umbilical", "component": "sys://ai", "level": "yellow", "why": "no AI tenant yet", "took_ms": 1},
        {"name": "psi", "component": "kernel", "level": "red", "why": "none", "took_ms": 1},
        {"name": "log", "component": "genesis log", "level": "green", "why": "", "took_ms": 1},
    ]
    assert verdict.text({"verdict": "red", "took_ms": 500, "checks": rows}).splitlines() == [
        "RED: 2 of 3 checks not green (0.5 s)", "YELLOW umbilical (sys://ai): no AI tenant yet", "RED    psi (kernel): none",
    ]  # fmt: skip


def test_the_worst_of_nothing_is_green() -> None:
    assert verdict.worst([]) is Level.GREEN
    assert verdict.worst([Level.RED, Level.YELLOW]) is Level.RED


# ---- the command line


@pytest.fixture
def spine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """A control server whose `validate` answers from a dictionary."""
    answers: dict[str, Any] = {"level": Level.GREEN, "asked": [], "error": None}
    reactor = Reactor()

    def validate(params: Any, reply: Any) -> None:
        answers["asked"].append(params["only"])
        level = answers["level"]
        rows = [{"name": "psi", "component": "kernel", "level": level.value, "why": "because" if level is not Level.GREEN else "", "took_ms": 1}]
        found = answers["error"] or {"verdict": level.value, "took_ms": 5, "checks": rows}
        reactor.call_later(answers.get("after_s", 0), lambda: reply(found))

    def progress(_params: Any, reply: Any) -> None:
        reply({"doing": {"freezer": "the probe is frozen"}, "done": 13, "of": 14, "for_s": 0.4})

    path = str(tmp_path / "control.sock")
    monkeypatch.setenv("BAY0_SOCKET", path)
    with served(path, {"validate": validate, "validate.progress": progress}, reactor):
        yield answers


@pytest.mark.parametrize(("level", "status"), [(Level.GREEN, 0), (Level.YELLOW, 1), (Level.RED, 2)])
@pytest.mark.parametrize("words", [["validate"], ["--validate"]])
def test_the_verdict_is_the_exit_status(
    words: list[str], level: Level, status: int, spine: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    spine["level"] = level
    assert cli.main(words) == status
    assert capsys.readouterr().out.startswith(level.value.upper())
    assert spine["asked"] == [list(COMPONENTS)]


def test_one_check_can_be_asked_for_and_the_answer_had_as_json(spine: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--validate", "--json", "--only", "psi", "--only", "log"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "green"
    assert spine["asked"] == [["psi", "log"]]


def test_a_check_that_nobody_knows_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    status = cli.main(["--validate", "--only", "pisi"])
    assert status == 2
    assert "freezer" in capsys.readouterr().err


def test_without_a_spine_there_is_no_verdict_and_it_says_what_was_not_checked_and_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BAY0_SOCKET", str(tmp_path / "none"))
    assert cli.main(["--validate"]) == 3
    error = capsys.readouterr().err
    assert f"no verdict; not checked: {', '.join(COMPONENTS)}" in error
    assert "looked at by PID 1 of a running spine" in error
    assert "scripts/quickstart.sh" in error
    assert cli.main(["validate", "--json", "--only", "psi"]) == 3
    said = json.loads(capsys.readouterr().out)
    assert (said["verdict"], said["unchecked"]) == (None, ["psi"])


def test_a_spine_that_refuses_gives_no_verdict_which_is_not_yellow(spine: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    spine["error"] = RefusedError("the spine is going down; nothing is checked any more")
    assert cli.main(["--validate"]) == 3
    assert "going down" in capsys.readouterr().err


def test_on_a_terminal_it_says_how_far_it_is_and_then_wipes_that(
    spine: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    spine["after_s"] = 1.0
    assert validatecli.run(Options(only=None, json=False)) == 0
    assert "13 of 14 done; freezer: the probe is frozen" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r\033[K")
    assert capsys.readouterr().out.startswith("GREEN")
    spine["error"] = RefusedError("no")
    assert validatecli.run(Options(only=None, json=False)) == 3


def test_a_reader_that_has_enough_does_not_change_the_verdict(spine: dict[str, Any]) -> None:
    spine["level"] = Level.RED
    script = f"{sys.executable} -m bay0 --validate | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (2, "")


def test_a_green_check_may_say_what_is_not_there_and_the_verdict_stays_green(bench: Bench) -> None:
    bench.findings["umbilical"] = verdict.green("not installed")
    found = bench.ask(1)
    assert found["verdict"] == "green"
    first, note = verdict.text(found).splitlines()
    assert first.startswith("GREEN: 14 checks, all green")
    assert note == "GREEN  umbilical (sys://ai): not installed"
    assert "umbilical" not in bench.log.of("validated")[0]


def test_what_each_check_found_last_is_kept_with_its_age_and_nothing_is_looked_at_for_it(bench: Bench) -> None:
    answers: list[Any] = []
    bench.validation.found_last({}, answers.append)
    assert answers == [[]]
    bench.findings["freezer"] = red("podman run: no")
    bench.ask(1, only=["freezer"])
    bench.ask(5, only=["clock"])
    bench.validation.found_last({}, answers.append)
    assert answers[1] == [
        {"name": "freezer", "component": "podman", "level": "red", "why": "podman run: no", "ago_s": 6.0},
        {"name": "clock", "component": "clock", "level": "green", "why": "", "ago_s": 5.0},
    ]
    assert bench.looks == {"freezer": 1, "clock": 1}
