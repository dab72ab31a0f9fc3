"""What the AI's busy states owe: its container in its envelope, its first token, its ends, and its start with the spine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from personakit import verdict
from serverkit import Bench

from bay0.ai import port as servers
from bay0.ai.config import Config, changed, cpus_of, memory_for, read_config
from bay0.ai.port import HOPELESS, IMAGE, NAME, RETRIES
from bay0.base.bounds import Bounds
from bay0.base.uids import AI_UID
from bay0.machines.server import E, S
from bay0.state.link import Answer

ARCHIVE = "/persist/images/spine-ai.tar"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


# ---- a start


def test_it_runs_in_its_envelope_and_below_every_persona(bench: Bench) -> None:
    bench.ready()
    spec = bench.spec()
    assert (spec.name, spec.image, spec.command, spec.read_only, spec.capabilities) == ("sys__ai", IMAGE, (), True, ())
    assert (spec.cgroup_parent, spec.uid_base, spec.user, spec.oom_score_adj) == ("/tenants", AI_UID, "1000:1000", 1000)
    assert spec.mounts == [("/run/bay0/ai/tenant", "/run/ai", "rw")]
    assert spec.cpu_shares < 1024
    assert spec.environment == {}


def test_the_umbilical_hears_of_every_state_and_where_its_processes_are(bench: Bench) -> None:
    group = bench.ready().removeprefix(servers.cgroup.ROOT)
    assert bench.umbilical.states() == ["starting", "warming", "ready"]
    assert [where for _, _, where in bench.umbilical.told] == ["", group, group]


def test_its_first_token_is_waited_for_and_told(bench: Bench) -> None:
    bench.ready()
    assert bench.servers.first_token_s == 1.5
    assert "first token after 1.5 s" in bench.why()


def test_without_its_image_it_is_loaded_from_the_archive_on_the_disk(bench: Bench) -> None:
    bench.podman.answers["run"] = [verdict("no_image")]
    bench.ops["ai_archive"] = Answer(value=ARCHIVE)
    assert bench.go(E.START) is S.WARMING
    assert ("load", ARCHIVE) in bench.podman.asked


@pytest.mark.parametrize(("archive", "verbs"), [(ARCHIVE, ["run", "remove", "untag", "load", "run"]), (None, ["run"])])
def test_a_damaged_image_is_loaded_anew_but_only_if_there_is_an_archive(bench: Bench, archive: str | None, verbs: list[str]) -> None:
    bench.podman.answers["run"] = [verdict("storage")]
    bench.ops["ai_archive"] = Answer(value=archive)
    assert bench.go(E.START) is S.WARMING, "a second try, without an archive"
    assert bench.podman.verbs()[: len(verbs)] == verbs
    assert ("untag" in bench.podman.verbs()) is (archive is not None)


def test_without_image_and_archive_it_has_failed_at_once_and_says_what_helps(bench: Bench) -> None:
    bench.podman.answers["run"] = [verdict("no_image")]
    assert bench.go(E.START, 5) is S.FAILED
    assert "its image is not on this machine" in bench.why()
    assert "mkpersist.sh" in bench.servers.remedy
    assert bench.podman.verbs().count("run") == 1


def test_an_archive_that_cannot_be_loaded_is_named_with_podmans_words(bench: Bench) -> None:
    bench.podman.answers["run"], bench.podman.answers["load"] = [verdict("no_image")], [verdict("fault", "unexpected EOF")]
    bench.ops["ai_archive"] = Answer(value=ARCHIVE)
    assert bench.go(E.START, 5) is S.FAILED
    assert f"could not be loaded from {ARCHIVE}: unexpected EOF" in bench.why()


def test_an_own_model_is_looked_at_mounted_read_only_and_makes_the_limit_larger(bench: Bench) -> None:
    bench.engine.send(NAME, E.CONFIGURE, config=Config(model="/persist/models/m.gguf").text())
    bench.ready()
    spec = bench.spec()
    assert ("/persist/models/m.gguf", "/model/own.gguf", "ro") in spec.mounts
    assert spec.environment == {"SPINE_AI_MODEL": "/model/own.gguf"}
    assert spec.memory == memory_for(1 << 30) > 1 << 30


def test_a_model_that_is_none_fails_it_at_once_and_podman_is_not_asked_to_run(bench: Bench) -> None:
    bench.engine.send(NAME, E.CONFIGURE, config=Config(model="/persist/m").text())
    bench.ops["ai_model"] = Answer(value={"why": "/persist/m: it is no GGUF file"})
    assert bench.go(E.START, 5) is S.FAILED
    assert "it is no GGUF file" in bench.why()
    assert "--default-model" in bench.servers.remedy
    assert "run" not in bench.podman.verbs()


def test_a_configuration_that_makes_no_sense_fails_it(bench: Bench) -> None:
    bench.engine.send(NAME, E.CONFIGURE, config="{")
    assert bench.go(E.START, 5) is S.FAILED
    assert "makes no sense" in bench.why()


def test_what_only_a_newer_program_knows_of_it_outlives_a_change_of_its_configuration() -> None:
    made = changed('{"autostart":true,"model":null,"threads":3}', {"model": "/persist/m"})
    assert json.loads(made) == {"autostart": True, "model": "/persist/m", "threads": 3}
    assert read_config(changed("{", {"autostart": False})) == Config(autostart=False)


def test_sockets_that_cannot_be_made_are_a_reason_to_try_again(bench: Bench) -> None:
    bench.umbilical.broken = "no space left"
    assert bench.go(E.START, 1) is S.WAITING
    assert "no space left" in bench.why()


# ---- its envelope


@pytest.mark.parametrize("name", ["swap", "seccomp", "net namespace", "oom score"])
def test_an_envelope_that_the_kernel_does_not_confirm_ends_it_before_it_is_spoken_to(bench: Bench, name: str) -> None:
    bench.wrong = {name: "something else"}
    assert bench.go(E.START, 10) is S.FAILED
    assert f"{name}: wanted" in bench.why()
    assert "found something else" in bench.why()
    assert bench.killed
    assert "warming" not in bench.umbilical.states()
    assert bench.podman.verbs().count("run") == 1


def test_a_first_process_that_is_not_yet_what_it_shall_be_is_waited_for(bench: Bench) -> None:
    bench.wrong = {"seccomp": "0"}
    assert bench.go(E.START, 1) is S.STARTING
    bench.wrong = {}
    assert bench.now(1) is S.WARMING


def test_what_is_shown_is_read_again(bench: Bench) -> None:
    bench.ready()
    bench.wrong = {"memory": "max"}
    assert [row.name for row in bench.servers.read_back(NAME) if not row.ok] == ["memory"]


# ---- its ends


def test_a_server_that_dies_is_tried_again_after_a_pause_that_grows_and_then_given_up(bench: Bench) -> None:
    path = bench.ready()
    bench.dies(path, 1)
    assert bench.now(1) is S.WAITING
    for _ in range(RETRIES - 1):
        while bench.ai.now is not S.WARMING:
            bench.timers.advance(1)
        bench.umbilical.asked.clear()
        bench.dies(bench.path(str(bench.servers.container(NAME))), 1)
        bench.timers.advance(2)
    bench.now(120)
    assert bench.ai.attempts == RETRIES + 1
    bench.dies(bench.path(str(bench.servers.container(NAME))), 1)
    assert bench.now(5) is S.FAILED
    assert f"{RETRIES + 1} attempts of {RETRIES + 1}" in bench.why()


@pytest.mark.parametrize("status", HOPELESS)
def test_what_its_server_says_is_hopeless_is_not_tried_again(bench: Bench, status: int) -> None:
    assert bench.go(E.START) is S.WARMING
    bench.dies(bench.path(str(bench.servers.container(NAME))), status)
    assert bench.now(5) is S.FAILED
    assert HOPELESS[status] in bench.why()


def test_a_socket_that_somebody_removed_is_an_end_and_the_ai_starts_again(bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "server.sock"
    monkeypatch.setattr(servers, "TENANT_SOCKET", str(path))
    bench.ready()
    assert bench.servers.look() == [], "it has not been seen there yet"
    path.touch()
    assert bench.servers.look() == []
    path.unlink()
    assert bench.servers.look() == ["somebody removed it: the AI is started again"]
    assert bench.now() is S.CONVERGING
    assert bench.servers.look() == []
    assert bench.now(30) is S.WARMING


def test_a_killed_monitor_is_an_end_too(bench: Bench) -> None:
    bench.ready()
    ((pid, call),) = bench.monitors
    call()
    assert (pid, bench.now(0.05)) == (6, S.CONVERGING)
    assert bench.now(2) is S.WAITING
    assert "conmon, pid 6" in bench.journal.steps[-2].why


def test_having_served_for_a_while_forgets_its_attempts(bench: Bench) -> None:
    bench.ready()
    bench.now(61)
    assert (bench.ai.now, bench.ai.attempts) == (S.READY, 0)


def test_without_a_first_token_it_is_tried_again(bench: Bench) -> None:
    assert bench.go(E.START) is S.WARMING
    bench.umbilical.answer("warm", ok=False, why="no answer in 120 s")
    assert bench.now(1) is S.WAITING
    assert "no answer in 120 s" in bench.why()


def test_a_warm_up_lasts_as_long_as_its_server_gets_on(bench: Bench) -> None:
    """Ten times the time for which it may stand still: a large model on a slow machine."""
    assert bench.go(E.START) is S.WARMING
    assert bench.now(Bounds().umbilical_still * 10) is S.WARMING
    bench.umbilical.answer("warm", first_token_s=1.5)
    assert bench.now(1) is S.READY


def test_a_server_that_stands_still_while_it_warms_up_is_not_waited_for_and_its_late_word_is_none(bench: Bench) -> None:
    bench.gets_on = False
    assert bench.go(E.START) is S.WARMING
    bench.now(Bounds().umbilical_still + 10)
    assert any("it used no processor and its memory stayed as it was" in step.why for step in bench.journal.steps)
    moves = len(bench.journal.steps)
    bench.umbilical.answer("warm", first_token_s=1.5)
    assert not [step for step in bench.journal.steps[moves:] if step.dest == "ready"]


def test_asked_to_stop_it_drains_first(bench: Bench) -> None:
    bench.ready()
    assert bench.go(E.STOP) is S.DRAINING
    assert "remove" not in bench.podman.verbs()
    bench.umbilical.answer("drain")
    assert bench.now(2) is S.STOPPED
    assert bench.ai.desired == "stopped"


def test_requests_that_do_not_end_do_not_keep_it(bench: Bench) -> None:
    bench.ready()
    bench.go(E.STOP)
    bench.umbilical.answer("drain", ok=False, why="2 are in flight")
    assert bench.now(2) is S.STOPPED


@pytest.mark.parametrize("removed", ["ok", "fault"])
def test_yielding_it_is_stopped_at_once_and_stays_wanted(bench: Bench, removed: str) -> None:
    bench.ready()
    if removed != "ok":
        bench.podman.answers["remove"] = [verdict(removed)]
    bench.go(E.YIELD)
    assert bench.now(10) is S.STOPPED
    assert (bench.ai.desired, bench.umbilical.asked) == ("running", [])
    assert bench.go(E.START) is S.WARMING


def test_frozen_it_says_so_and_comes_back_ready(bench: Bench) -> None:
    path, calls = bench.ready(), len(bench.podman.asked)
    assert bench.go(E.PAUSE) is S.PAUSED
    assert bench.umbilical.states()[-1] == "paused"
    assert bench.go(E.RESUME) is S.READY
    assert (bench.written, len(bench.podman.asked)) == ([(path, True), (path, False)], calls)


def test_one_that_somebody_else_froze_is_thawed_and_those_who_ask_are_told_meanwhile(bench: Bench) -> None:
    path = bench.ready()
    bench.freezes(path, frozen=True)
    bench.timers.advance(bench.freeze_lag_s or 0)
    assert bench.now(0.01) is S.RESUMING
    assert bench.umbilical.states()[-1] == "resuming"
    assert bench.now(1) is S.READY


def test_a_restart_is_a_stop_and_a_start(bench: Bench) -> None:
    bench.ready()
    bench.servers.restart(runs=True)
    bench.go(E.STOP)
    bench.umbilical.answer("drain")
    assert bench.now(3) is S.WARMING
    assert bench.podman.made == 2


# ---- with the spine


def test_with_the_spine_it_starts_if_its_image_is_there(bench: Bench) -> None:
    bench.servers.autostart({IMAGE})
    assert bench.now(2) is S.WARMING
    assert ("ai_archive", {}) not in bench.state.asked


def test_with_the_spine_it_starts_if_only_its_archive_is_there(bench: Bench) -> None:
    bench.ops["ai_archive"] = Answer(value=ARCHIVE)
    bench.servers.autostart(())
    assert bench.now(2) is S.WARMING


def test_without_image_and_archive_it_stays_stopped_and_podman_is_not_asked(bench: Bench) -> None:
    bench.servers.autostart(())
    assert bench.now(5) is S.STOPPED
    assert (bench.podman.asked, bench.journal.steps) == ([], [])
    assert bench.servers.unavailable == "its image is not on this machine"
    assert bench.umbilical.told == [("stopped", "its image is not on this machine", "")]


def test_an_image_that_is_loaded_later_is_known_and_the_ai_says_what_starts_it(bench: Bench) -> None:
    bench.servers.came(frozenset({IMAGE}))
    assert bench.servers.unavailable == "", "nobody has looked yet"
    bench.servers.autostart(())
    bench.now(5)
    bench.servers.came(frozenset({IMAGE}))
    assert bench.servers.unavailable == "its image was loaded after this boot had looked for it"
    assert bench.servers.remedy == "`bay0 tenant start ai`"
    assert bench.umbilical.told[-1][1] == bench.servers.unavailable
    assert (bench.now(5), bench.podman.asked) == (S.STOPPED, []), "nobody asked for it"


def test_it_does_not_start_with_the_spine_if_it_is_not_to(bench: Bench) -> None:
    bench.engine.send(NAME, E.CONFIGURE, config=Config(autostart=False).text())
    bench.servers.autostart({IMAGE})
    assert bench.now(5) is S.STOPPED
    assert "configured not to start" in bench.servers.unavailable


def test_it_waits_for_an_earlier_boots_to_be_cleared(bench: Bench) -> None:
    bench.podman.held.add("remove")
    bench.podman.there["sys__ai"] = ("exited", 0)
    bench.engine.send(NAME, E.CONVERGE)
    bench.servers.autostart({IMAGE})
    assert bench.now(5) is S.CONVERGING
    bench.podman.held.clear()
    bench.podman.waiting_calls.pop()()
    assert bench.now(3) is S.WARMING


def test_what_took_earlier_boots_down_is_not_tried_once_more(bench: Bench) -> None:
    bench.ai.attempts = RETRIES + 1
    bench.servers.autostart({IMAGE})
    assert bench.now(5) is S.FAILED
    assert "used up in earlier boots" in bench.why()


@pytest.mark.parametrize(
    ("text", "config"),
    [
        ("", Config()), ("{}", Config()), ('{"autostart":false,"model":"/persist/m"}', Config(False, "/persist/m")),
        ("[]", None), ('{"model": 7}', None), ('{"autostart": "yes"}', None), ("{", None),
    ],
)  # fmt: skip
def test_a_stored_configuration_is_read_or_refused(text: str, config: Config | None) -> None:
    assert read_config(text) == config


def test_what_it_may_take_of_a_machine() -> None:
    assert [cpus_of(n) for n in (1, 2, 4, 8)] == [0.75, 1.0, 3.0, 6.0]
    assert memory_for(0) == memory_for(100 << 20) == 512 << 20
