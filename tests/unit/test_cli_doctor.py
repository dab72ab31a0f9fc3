"""What the doctor finds, and what it says about it; what a bundle holds, and what it does not."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bay0.base.errors import NoSpineError, RefusedError, UsageError
from bay0.cli import care as carecli
from bay0.cli import client, doctor, report, support
from bay0.cli import governor_text as governorreport
from bay0.cli import main as cli
from bay0.cli.doctor import Finding, findings
from bay0.validate.verdict import COMPONENTS

STATUS: dict[str, Any] = {
    "version": "0.1.0", "boot_id": "0123", "up_ms": 4_000_000, "boot": "complete", "complete_ms": 3210, "dirty": None,
    "storage": {"state": "durable", "device": "/dev/vda", "in_memory": 0, "lost": 0, "workers_left_behind": 0},
    "pid1": {"longest_turn_ms": 12.5, "commands_left_behind": 0, "console_lines_dropped": 0},
    "watchdog": {"armed": True, "timeout_s": 30, "fed": 12, "failing": ""},
    "machines": [{"name": "sys://console", "kind": "tenant", "state": "running", "attempts": 1}],
}  # fmt: skip
PERSONA: dict[str, Any] = {"name": "p://work", "state": "running", "why": "podman says it runs", "attempts": 1, "since_ms": 3_999_000}
GOVERNOR: dict[str, Any] = {
    "psi": True, "looks_every_s": 30.0, "available": 0.5, "load": 0.1, "personas_limit": 512 << 20, "hot": False, "blind": False, "virtual": True,
    "machine": {"cpu": {"some": 1.5, "full": 0, "some_now": 0, "full_now": 0}, "memory": None, "io": None},
    "protected": [{"name": "init", "cpu": None, "memory": {"some": 0.0, "full": 0.0}, "throttled": 0.0, "at_limit": False}],
    "sensors": [], "tenants": [], "actions": [], "groups": [], "in_memory_files": 12 << 20,
    "rules": {"cool_down_s": 15.0, "memory_warn_some": 10.0, "memory_act_full": 5.0, "cpu_act_some": 25.0, "release_below": 2.5},
}  # fmt: skip
ACTION = {"at_ms": 1_000, "persona": "p://play", "source": "free", "dest": "half weight", "cause": "cpu", "why": "p://work waited"}
HELD = {"name": "p://play", "state": "running", "focused": False, "cpu": 0.5, "memory": 64 << 20, "rung": "half weight", "cause": "cpu",
        "limit": 256 << 20, "manifest": 256 << 20}  # fmt: skip


def status(**parts: Any) -> dict[str, Any]:
    """A healthy status with these differences, one level down where a part is a dictionary."""
    return {key: {**value, **parts[key]} if isinstance(value, dict) and key in parts else parts.get(key, value) for key, value in STATUS.items()}


def only(found: list[Finding]) -> Finding:
    assert len(found) == 1, [each.what for each in found]
    return found[0]


ROOM = {"bytes": 1000 << 20, "bytes_free": 510 << 20, "bytes_for_others": 500 << 20, "files": 1000, "files_free": 900}


@pytest.mark.parametrize(
    ("less", "level", "said"),
    [
        ({"bytes_for_others": 40 << 20, "bytes_free": 50 << 20}, "warning", "nearly full: 40 MiB of 1000 MiB free; the spine itself has 50 MiB"),
        ({"files_free": 49}, "error", "only 49 of 1000 files can still be made"),
    ],
)
def test_a_disk_without_room_is_a_finding_before_anything_fails(less: dict[str, int], level: str, said: str) -> None:
    assert findings(status(storage={"room": ROOM})) == []
    found = only(findings(status(storage={"room": {**ROOM, **less}})))
    assert (found.level, found.what) == (level, said)


def test_a_healthy_spine_has_no_findings() -> None:
    assert findings(STATUS, personas=[PERSONA], governor=GOVERNOR, log=[{"event": "starting", "level": "info"}]) == []
    assert doctor.text([]) == "nothing wrong found"


@pytest.mark.parametrize("state", sorted(report.REMEDIES))
def test_a_disk_that_keeps_nothing_is_an_error_with_its_remedy(state: str) -> None:
    found = only(findings(status(storage={"state": state}, dirty="the disk did not answer")))
    assert (found.component, found.level, found.help) == ("storage", "error", report.REMEDIES[state])
    assert "the disk did not answer" in found.what


@pytest.mark.parametrize(
    ("differs", "component", "says"),
    [
        ({"storage": {"state": "opening"}}, "storage", "opening"),
        ({"dirty": "it was late"}, "storage", "dirty boot: it was late"),
        ({"storage": {"lost": 3}}, "storage", "3 steps did not fit"),
        ({"storage": {"workers_left_behind": 1}}, "storage", "hangs in the kernel"),
        ({"boot": "reconciling"}, "boot", "`reconciling`"),
        ({"pid1": {"longest_turn_ms": 9000.0}}, "PID 1", "9000 ms"),
        ({"pid1": {"commands_left_behind": 2}}, "commands", "2 commands hang"),
        ({"pid1": {"console_lines_dropped": 7}}, "console", "7 lines"),
        ({"watchdog": {"armed": False}}, "watchdog", "no hardware watchdog"),
        ({"machines": [{"name": "sys://console", "kind": "tenant", "state": "failed", "attempts": 9}]}, "sys://console", "failed"),
        ({"machines": [{"name": "sys://console", "kind": "tenant", "state": "waiting", "attempts": 3}]}, "sys://console", "3 times"),
        ({"machines": [{"name": "screen", "kind": "screen", "state": "proving", "attempts": 0}]}, "screen", "`proving`, not ready"),
    ],
)
def test_each_trouble_of_the_spine_is_a_finding_with_a_way_out(differs: dict[str, Any], component: str, says: str) -> None:
    found = only(findings(status(**differs)))
    assert found.component == component
    assert says in found.what
    assert found.help


@pytest.mark.parametrize(
    ("differs", "level", "says", "helps"),
    [
        ({"state": "failed", "why": "no such image"}, "error", "failed: no such image", "bay0 persona logs work"),
        ({"state": "stuck", "why": "podman gave no answer"}, "error", "stuck: podman", "bay0 storage"),
        ({"state": "stopped", "not_understood": "its stored manifest is of another program, at: quota"}, "error", "at: quota", "persona remove work"),
        ({"state": "waiting", "why": "it ended", "attempts": 2}, "warning", "attempt 2", "bay0 persona logs work"),
        ({"state": "starting", "since_ms": 1_000_000}, "error", "`starting` for 50 min", "bay0 persona show work"),
    ],
)
def test_each_trouble_of_a_persona_is_a_finding_with_its_reason(differs: dict[str, Any], level: str, says: str, helps: str) -> None:
    found = only(findings(STATUS, personas=[{**PERSONA, **differs}]))
    assert (found.component, found.level) == ("p://work", level)
    assert says in found.what
    assert helps in found.help


@pytest.mark.parametrize("state", ["stopped", "running", "paused", "starting", "converging"])
def test_a_persona_that_rests_or_has_just_begun_to_move_is_none(state: str) -> None:
    assert findings(STATUS, personas=[{**PERSONA, "state": state}]) == []


def check(name: str, why: str, level: str = "red", **more: Any) -> dict[str, Any]:
    return {"name": name, "component": COMPONENTS[name], "level": level, "why": why, **more}


@pytest.mark.parametrize("name", sorted(COMPONENTS))
def test_whatever_validation_calls_red_the_doctor_names_with_what_helps(name: str) -> None:
    found = only(findings(STATUS, checks=[check(name, "it is \x1b[2J broken")]))
    assert (found.component, found.level, bool(found.help)) == (COMPONENTS[name], "error", True)
    assert "broken" in found.what
    assert "\x1b" not in found.what


def test_what_takes_long_is_named_as_it_was_found_last(tmp_path: Path) -> None:
    assert only(findings(STATUS, checks=[check("freezer", "podman run: no", ago_s=12.4)])).what == "podman run: no (found 12 s ago)"


@pytest.mark.parametrize("level", ["green", "yellow"])
def test_what_validation_does_not_call_red_is_left_to_the_doctors_own_eyes(level: str) -> None:
    assert findings(STATUS, checks=[check(name, "not installed", level) for name in COMPONENTS]) == []


@pytest.mark.parametrize(
    ("own", "name", "same", "other"),
    [
        ({"status": {"storage": {"state": "wedged"}}}, "persist", "degraded, nothing is kept: storage is wedged", "Is a directory"),
        ({"servers": {"state": "failed"}}, "umbilical", "sys://ai has failed: no image", "an impostor answers"),
        ({"network": ["eth0"]}, "network", "the spine must have no network: eth0", "cannot be looked at"),
        ({"governor": {"psi": False}}, "psi", "no pressure of cpu", "cannot be looked at"),
    ],
)
def test_what_the_doctor_says_by_itself_is_not_said_twice_and_what_is_new_is_said(own: dict[str, Any], name: str, same: str, other: str) -> None:
    def found(why: str) -> list[Finding]:
        return findings(
            status(**own.get("status", {})), servers=[{**AI, **own["servers"]}] if "servers" in own else (), network=own.get("network", ()),
            governor={**GOVERNOR, **own["governor"]} if "governor" in own else None, checks=[check(name, why)],
        )  # fmt: skip

    only(found(same))
    assert [other in each.what for each in found(other)].count(True) == 1
    assert len(found(other)) == 2


def test_a_watchdog_that_fails_is_named_once() -> None:
    failing = status(watchdog={"armed": False, "failing": "No such device"})
    assert only(findings(failing, checks=[check("watchdog", "it cannot be fed: No such device")])).level == "error"


def test_a_reason_of_an_earlier_boot_is_taken_from_the_journal() -> None:
    persona = {**PERSONA, "state": "failed", "why": doctor.AS_BEFORE}
    rows = {"p://work": [{"why": "first"}, {"why": "its attempts are used up"}]}
    assert "its attempts are used up" in only(findings(STATUS, personas=[persona], journal=rows)).what
    assert doctor.AS_BEFORE in only(findings(STATUS, personas=[persona])).what


@pytest.mark.parametrize("state", ["dark", "ready"])
def test_a_screen_that_is_ready_or_not_there_is_no_finding(state: str) -> None:
    assert findings(status(machines=[{"name": "screen", "kind": "screen", "state": state, "attempts": 0}])) == []


def test_a_network_is_an_error() -> None:
    found = only(findings(STATUS, network=["interface eth0 exists and is up"]))
    assert (found.level, "eth0" in found.what) == ("error", True)


def test_a_stage_that_failed_and_a_boot_that_died_are_said() -> None:
    late = {"kind": "boot", "event": "timed_out", "why": "loading took too long, the boot goes on without it"}
    steps = [late, {"kind": "storage", "event": "fault", "why": ""}]
    assert "loading took too long" in only(findings(STATUS, boots={"this": {"steps": steps}, "unread": None})).what
    died = [{"event": "step", "machine": "boot:1111", "dest": "died", "why": "an earlier boot died in attaching", "level": "info"}]
    assert "died in attaching" in only(findings(STATUS, log=died)).what


@pytest.mark.parametrize(
    ("differs", "component", "says"),
    [
        ({"psi": False}, "pressure", "no pressure information"),
        ({"hot": True}, "heat", "near its trip"),
        ({"blind": True}, "heat", "no temperature"),
        ({"tenants": [HELD]}, "p://play", "half weight"),
        ({"protected": [{"name": "init", "memory": {"some": 12.0, "full": 0.0}}]}, "pressure", "init waits for memory 12 %"),
    ],
)
def test_what_the_governor_sees_and_does_is_a_finding(differs: dict[str, Any], component: str, says: str) -> None:
    found = only(findings(STATUS, governor={**GOVERNOR, **differs}))
    assert found.component == component
    assert says in found.what


@pytest.mark.parametrize("event", sorted(doctor.EVENTS))
def test_what_only_the_log_remembers_is_a_finding_once_with_its_count(event: str) -> None:
    keys: tuple[str, ...] = ("what", "lines", "group", "limit", "limit_mib", "file", "found", "kept", "path", "now")
    keys += ("why", "containers", "machine", "state", "container", "persona", "method", "socket", "answers", "most", "pid", "so_far", "version")
    record = {"event": event, "level": "error", **dict.fromkeys(keys, "the \x1b[2J cause")}
    found = only(findings(STATUS, log=[record, record]))
    assert "(2 times" in found.what
    assert "\x1b" not in found.what + found.help
    assert "?" not in found.what, "every key of the sentence is the record's"


def test_each_path_on_the_disk_that_something_was_in_the_way_of_is_named() -> None:
    def aside(path: object) -> dict[str, Any]:
        return {"event": "set aside on /persist", "level": "warning", "path": path, "found": "a FIFO", "now": f"{path}.set-aside"}

    names = [f"/persist/spine/{name}" for name in ("time", "seed", "genesis.log")]
    found = findings(STATUS, log=[aside(name) for name in [*names, names[0], []]])  # the last is no record of ours
    assert [[name for name in names if name in each.what] for each in found[:3]] == [[name] for name in names]
    assert "(2 times" in found[0].what


MET = {"name": "services/console", "pids": 847, "pids_max": 847, "memory": 1, "memory_max": 1 << 30, "refused": 12, "killed": 0}
OTHER = {**HELD, "rung": "free", "cause": None, "limit": None, "manifest": 256 << 20}


def test_a_personas_limit_that_somebody_changed_by_hand_is_said_and_left(spine: Spine) -> None:
    found = only(findings(STATUS, governor={**GOVERNOR, "tenants": [OTHER]}))
    assert found.what == "no limit of memory, and its manifest says 256 MiB: somebody changed it by hand"


def test_the_governors_picture_shows_who_met_his_ceiling_and_whose_limit_was_changed() -> None:
    text = governorreport.text({**GOVERNOR, "groups": [MET, {**MET, "name": "commands", "refused": 0, "killed": 3}], "tenants": [OTHER]})
    for words in (
        "services/console: 847 of 847 processes, more were refused 12 times", "commands: 3 processes were ended at its 1 GiB",
        "p://play: no limit of memory, its manifest says 256 MiB: changed by hand", "12 MiB of files in it",
    ):  # fmt: skip
        assert words in text, words


@pytest.mark.parametrize("less", [{"bytes_free": 1 << 20}, {"files_free": 10}])
def test_a_full_filesystem_in_memory_is_a_finding(less: dict[str, int]) -> None:
    room = {"path": "/tmp", "bytes": 100 << 20, "bytes_free": 90 << 20, "files": 1000, "files_free": 900}
    assert findings(STATUS, memory_files=[room]) == []
    found = only(findings(STATUS, memory_files=[{**room, **less}]))
    assert (found.component, "/tmp is full" in found.what, "/tmp" in found.help) == ("memory", True, True)


def test_errors_that_nobody_explains_are_counted_and_the_last_is_shown() -> None:
    found = only(findings(STATUS, log=[{"event": "a", "level": "error"}, {"event": "b", "level": "critical", "why": "because"}]))
    assert "2 lines of level error, the last is `b`: because" in found.what


def test_errors_come_first_and_the_text_has_a_way_out_below_each() -> None:
    found = findings(status(watchdog={"armed": False}, storage={"lost": 1}))
    assert [each.level for each in found] == ["error", "warning"]
    lines = doctor.text(found).splitlines()
    assert lines[0].startswith("! storage: ")
    assert lines[1].startswith("    ")
    assert lines[-1] == "2 findings, 1 of them error (!)"
    assert {tuple(each) for each in doctor.wire(found)} == {("component", "what", "help", "level")}


@given(st.lists(st.dictionaries(st.sampled_from(["event", "level", "why", "machine", "dest"]), st.none() | st.text() | st.integers())))
def test_no_log_makes_the_doctor_fail(log: list[dict[str, Any]]) -> None:
    doctor.text(findings(STATUS, log=log))


# ---- the governor as text


def test_the_governors_picture_names_whom_it_holds_and_why() -> None:
    good = {"name": "zone0", "celsius": 50.0, "trip": 90.0, "not_believed": None}
    sensors = [good, {"name": "zone1", "celsius": None, "trip": 90.0, "not_believed": "it is gone"}]
    text = governorreport.text({**GOVERNOR, "tenants": [HELD], "actions": [ACTION], "sensors": sensors}, now_ms=61_000)
    held = "p://play: running, half weight because of cpu"
    for words in (held, "zone0: 50 C", "not believed: it is gone", "1 min", "p://work waited", "512 MiB together"):
        assert words in text, words


def test_the_governors_picture_is_whole_when_there_is_nothing_to_see() -> None:
    nothing = {**GOVERNOR, "psi": False, "available": None, "load": None, "personas_limit": None, "machine": {"cpu": None}, "blind": True}
    text = governorreport.text(nothing)
    for words in ("unknown", "psi=1", "no limit", "no temperature", "nobody runs", "none in this boot"):
        assert words in text, words


# ---- the verbs


AI = {"name": "sys://ai", "state": "ready", "why": "it made its first token", "attempts": 0, "since_ms": 0, "remedy": ""}


@pytest.mark.parametrize(
    ("keys", "what", "help_", "level"),
    [
        ({"state": "failed", "why": "no image", "remedy": "load it"}, "failed: no image", "load it; then `bay0 tenant start ai`", "error"),
        ({"state": "stuck"}, "stuck: ", "`bay0 storage`", "error"),
        ({"state": "waiting", "attempts": 3}, "tried again (attempt 3)", "`bay0 tenant show ai`", "warning"),
        ({"state": "warming"}, "it has been `warming` for 10 min", "`bay0 tenant restart ai`", "error"),
    ],
)
def test_an_ai_that_is_not_well_is_a_finding_with_what_helps(keys: dict[str, Any], what: str, help_: str, level: str) -> None:
    (found,) = doctor.findings({**STATUS, "up_ms": 600_000}, servers=[{**AI, **keys}])
    assert (what in found.what, help_ in found.help, found.level, found.component) == (True, True, level, "sys://ai")


@pytest.mark.parametrize("state", ["ready", "paused", "stopped"])
def test_an_ai_that_serves_or_rests_is_none(state: str) -> None:
    assert doctor.findings({**STATUS, "up_ms": 600_000}, servers=[{**AI, "state": state}]) == []


class Spine:
    """Answers like PID 1."""

    def __init__(self, **answers: Any) -> None:
        self.answers = {
            "screen": {"state": "dark"},
            "status": STATUS, "persona.list": [PERSONA], "tenant.list": [AI], "tenant.show": AI,
            "governor": GOVERNOR, "boots": {"this": {"steps": []}, "previous": [], "unread": None},
            "validate": {"checks": []}, "validate.last": [],
            "machines": STATUS["machines"], "image.list": RefusedError("images are on /persist"), "history": [{"why": "kept"}], **answers,
        }  # fmt: skip
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, method: str, timeout_s: float = 60.0, **params: Any) -> Any:
        self.asked.append((method, params))
        found = self.answers[method]
        if isinstance(found, Exception):
            raise found
        return found(params) if callable(found) else found


@pytest.fixture
def spine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Spine:
    made = Spine()
    monkeypatch.setattr(client, "call", made)
    monkeypatch.setattr("bay0.net.violations", list)
    log = tmp_path / "log.jsonl"
    log.write_text('{"event": "starting", "level": "info", "t_ms": 1}\n{torn\n"text"\n')
    monkeypatch.setattr("bay0.base.logline.RUN_LOG", str(log))
    monkeypatch.setattr(support, "FILES", {"log.jsonl": str(log), "cmdline.txt": "/proc/cmdline", "not-there.txt": str(tmp_path / "none")})
    return made


def test_the_doctor_ends_with_0_when_there_is_nothing_and_with_1_when_there_is(spine: Spine, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    assert capsys.readouterr().out == "nothing wrong found\n"
    spine.answers["persona.list"] = [{**PERSONA, "state": "failed", "why": doctor.AS_BEFORE}]
    assert cli.main(["doctor", "--json"]) == 1
    assert "failed: kept" in json.loads(capsys.readouterr().out)[0]["what"]
    assert ("history", {"machine": "p://work", "limit": 1}) in spine.asked


def test_the_doctor_has_validation_look_at_all_that_takes_a_moment_and_asks_what_it_found_of_the_rest(
    spine: Spine, capsys: pytest.CaptureFixture[str]
) -> None:
    spine.answers["validate"] = {"checks": [check("clock", "it says 1970-01-01")]}
    spine.answers["validate.last"] = [check("freezer", "podman run: no", ago_s=5.0), check("clock", "stale", ago_s=9.0)]
    assert cli.main(["doctor", "--json"]) == 1
    assert [each["what"] for each in json.loads(capsys.readouterr().out)] == ["it says 1970-01-01", "podman run: no (found 5 s ago)"]
    assert ("validate", {"only": [name for name in COMPONENTS if name != "freezer"]}) in spine.asked


def test_the_doctor_makes_do_with_what_is_answered(spine: Spine, capsys: pytest.CaptureFixture[str]) -> None:
    for method in ("persona.list", "tenant.list", "governor", "boots", "validate", "validate.last"):
        spine.answers[method] = RefusedError("not now")
    assert cli.main(["doctor"]) == 0
    assert capsys.readouterr().out == "nothing wrong found\n"


def test_the_governors_verb_prints_its_picture_or_json(spine: Spine, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["governor"]) == 0
    assert "nobody runs" in capsys.readouterr().out
    assert cli.main(["governor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["psi"] is True


# ---- the bundle

SECRET = 'correct-horse"battery'
WIRE = {"image": "localhost/x:1", "command": ["/bin/serve", "--token", SECRET], "environment": {"TOKEN": SECRET, "A": "b"}, "memory": 1}


def parts(data: bytes) -> dict[str, str]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {m.name.removeprefix("bay0-support/"): (tar.extractfile(m) or io.BytesIO()).read().decode() for m in tar.getmembers()}


def test_a_bundle_has_everything_but_secrets(spine: Spine, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spine.answers["persona.show"] = {**PERSONA, "manifest": WIRE, "steps": [{"why": f"podman said {SECRET}"}]}
    spine.answers["history"] = [{"why": f"it printed {SECRET}"}]
    with open(support.FILES["log.jsonl"], "a", encoding="utf-8") as log:
        log.write(json.dumps({"event": "command starts", "argv": f"podman run --env=TOKEN={SECRET} x", "level": "info"}) + "\n")
        log.write(json.dumps({"event": "command starts", "argv": "mytool login hunter2", "level": "info"}) + "\n")
    file = tmp_path / "support.tar.gz"
    assert cli.main(["support", str(file)]) == 0
    assert file.stat().st_mode & 0o777 == 0o600
    found = parts(file.read_bytes())
    wanted = {f"{name}.json" for name in ("status", "personas", "tenants", "boots", "machines", "governor", "screen", "journal")}
    assert wanted | {"contents.txt", "doctor.txt", "log.jsonl", "cmdline.txt"} <= set(found)
    assert not [name for name, text in found.items() if "horse" in text or "hunter2" in text]
    manifest = json.loads(found["personas.json"])[0]["manifest"]
    assert manifest["environment"] == {"TOKEN": "***", "A": "***"}
    assert manifest["command"] == ["/bin/serve", "and 2 more"]
    assert "images are on /persist" in found["contents.txt"], "what could not be had is named"
    assert "without images.json: images are on /persist" in capsys.readouterr().out


def many(spine: Spine, count: int) -> list[str]:
    """Let there be so many personas, each with a secret of its own, all of them in the log and in a reason."""
    secrets = [f"secret-of-number-{number}-" for number in range(count)]
    spine.answers["persona.list"] = [{**PERSONA, "name": f"p://n{number}"} for number in range(count)]
    spine.answers["persona.show"] = lambda params: {
        **PERSONA,
        "name": params["name"],
        "manifest": {**WIRE, "environment": {"TOKEN": secrets[int(params["name"].removeprefix("p://n"))]}},
    }
    spine.answers["history"] = [{"why": f"podman said {secret}"} for secret in secrets]
    with open(support.FILES["log.jsonl"], "a", encoding="utf-8") as log:
        log.writelines(json.dumps({"event": "said", "why": secret, "level": "info"}) + "\n" for secret in secrets)
    return secrets


def test_the_secrets_of_all_personas_are_masked_however_many_there_are(spine: Spine) -> None:
    many(spine, 300)
    found = parts(support.collect(lambda: "it said secret-of-number-299-").archive())
    assert [name for name, text in found.items() if "secret-of" in text] == []
    assert found["log.jsonl"].count("***") == 300
    assert found["doctor.txt"] == "it said ***"
    assert len(json.loads(found["personas.json"])) == support.MACHINES_MAX, "so many are shown"


def test_a_bundle_without_all_secrets_has_nothing_that_could_quote_one(
    spine: Spine, monkeypatch: pytest.MonkeyPatch
) -> None:
    many(spine, 300)
    monkeypatch.setattr(support, "SECRETS_S", 0.0)
    bundle = support.collect(lambda: "it said secret-of-number-299-")
    found = parts(bundle.archive())
    assert [name for name, text in found.items() if "secret-of" in text] == []
    assert "cmdline.txt" in found, "what is the kernel's is there"
    assert "300 personas" in bundle.missing["log.jsonl"]


def test_a_secret_that_begins_like_another_or_lies_in_it_is_masked_whole() -> None:
    bundle = support.Bundle(secrets=["abcdef", "abcdefgh", "abcdefg-and-more", 'quo"te\\d', "d\u00fcrftig"])
    for text, masked in [
        ("abcdefgh", "***"),
        ("abcdefg", "***g"),
        ("xabcdefabcdefghx", "x******x"),
        ("abcdefg-and-mor", "***g-and-mor"),
        (json.dumps('a quo"te\\d word'), '"a *** word"'),
        (json.dumps("d\u00fcrftig"), '"***"'),
        ("abcde", "abcde"),
        ("", ""),
    ]:
        assert bundle.masked(text) == masked


def test_a_bundle_is_not_written_over_a_file(spine: Spine, tmp_path: Path) -> None:
    file = tmp_path / "mine"
    file.write_text("precious")
    assert cli.main(["support", str(file)]) == cli.USAGE
    assert file.read_text() == "precious"
    assert spine.asked == []
    with pytest.raises(FileExistsError):
        support.write(str(file), b"")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError):
        carecli.support(type("Options", (), {"file": str(link)})())


def test_a_bundle_goes_to_stdout_if_asked(spine: Spine, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    spine.answers["persona.show"] = PERSONA
    out = io.BytesIO()
    monkeypatch.setattr("sys.stdout", type("Out", (), {"buffer": out, "flush": lambda _self: None})())
    assert cli.main(["support", "-"]) == 0
    assert "status.json" in parts(out.getvalue())


def test_without_a_spine_there_is_no_bundle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(client, "call", Spine(status=NoSpineError("nobody answers")))
    assert cli.main(["support", str(tmp_path / "x")]) == cli.NO_SPINE
    assert not os.path.exists(tmp_path / "x")


def test_a_bundle_is_bounded_in_size_and_time(spine: Spine, monkeypatch: pytest.MonkeyPatch) -> None:
    spine.answers["persona.show"] = PERSONA
    with open(support.FILES["log.jsonl"], "a", encoding="utf-8") as log:
        log.writelines(json.dumps({"event": "x" * 80, "n": number, "level": "info"}) + "\n" for number in range(20_000))
    found = parts(support.collect(lambda: "").archive())
    assert len(found["log.jsonl"]) <= support.PART_MAX
    assert found["log.jsonl"].splitlines()[-1].endswith('"n": 19999, "level": "info"}'), "the end is kept"
    monkeypatch.setattr(support, "ALL_S", -1.0)
    bundle = support.collect(lambda: "")
    assert set(bundle.parts) == set()
    assert "no time was left" in bundle.missing["boots.json"]


def test_the_kernels_messages_are_read_without_waiting_for_more(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.write(write, b"6,339,5140900,-;NET: Registered PF_INET\n SUBSYSTEM=net\n")
    assert support.dmesg(f"/proc/self/fd/{read}") == "[    5.140900] NET: Registered PF_INET\n"
    os.close(write)
    os.close(read)
    (tmp_path / "odd").write_bytes(b"no semicolon")
    assert support.dmesg(str(tmp_path / "odd")) == "[    0.000000] \n"


def test_a_log_line_that_is_torn_is_left_out_because_nobody_knows_what_is_in_it() -> None:
    assert support.mask_log('{"argv": "secret') == ""
    assert json.loads(support.mask_log('{"argv": "ls -l /x y"}'))["argv"] == "ls -l ..."
    assert support.mask_log("[1]") == "[1]"
