"""What a persona's states owe, over a podman that is played: who is asked for what, in which order, and what is made of the answers."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from personakit import IMAGE, PLAY, WORK, Bench, verdict

from bay0.base.bounds import Bounds
from bay0.base.errors import RefusedError
from bay0.containers import life as containers
from bay0.machines import MACHINES
from bay0.machines.focus import NAME as FOCUS
from bay0.machines.focus import E as FocusEvent
from bay0.machines.focus import S as FocusState
from bay0.machines.focus import config as focus_config
from bay0.machines.instance import Instance
from bay0.machines.persona import E, S
from bay0.personas import port as personas
from bay0.podman.calls import Container, Outcome, Verdict
from bay0.state.link import Answer


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


# ---- a container is owed


def test_a_start_prepares_the_home_and_asks_podman_for_what_the_manifest_says(bench: Bench) -> None:
    bench.running(memory=64 << 20, cpus=0.5)
    assert bench.state.asked == [("persona_prepare", {"name": "p__work", "home": True})]
    (_, spec), = [words for words in bench.podman.asked if words[0] == "run"]
    assert (spec.name, spec.image, spec.memory, spec.cpus, spec.cgroup_parent) == ("p__work", IMAGE, 64 << 20, 0.5, "/personas")
    assert spec.mounts == (("/homes/p__work", "/home/me", "rw"),)
    assert spec.labels["bay0.persona"] == WORK
    assert spec.labels["bay0.boot"] == "boot-1"


def test_a_persona_makes_no_namespaces_unless_its_manifest_says_so(bench: Bench) -> None:
    bench.running()
    bench.running(PLAY, userns=True, user="me:staff")
    one, other = (words[1] for words in bench.podman.asked if words[0] == "run")
    assert (one.seccomp, one.user) == ("/usr/share/spine-seccomp/persona.json", "")
    assert (other.seccomp, other.user) == ("", "me:staff")


def test_an_image_of_the_spine_is_loaded_when_it_is_first_needed(bench: Bench) -> None:
    bench.podman.answers["run"] = [verdict("no_image")]
    bench.running()
    assert bench.podman.verbs() == ["run", "load", "run"]


def test_a_damaged_image_of_the_spine_is_removed_and_loaded_anew(bench: Bench) -> None:
    bench.podman.answers["run"] = [verdict("storage", "readlink /overlay/l: invalid argument")]
    bench.running()
    assert bench.podman.verbs() == ["run", "remove", "untag", "load", "run"]
    assert bench.log.of("a damaged image is removed, to be loaded anew")


def test_a_damaged_image_that_others_use_or_that_is_not_the_spines_is_left_and_what_helps_is_said(bench: Bench) -> None:
    bench.podman.answers["run"] = [verdict("storage", "readlink /overlay/l: invalid argument")]
    bench.podman.answers["untag"] = [verdict("refused", "image used by 01234")]
    bench.persona()
    assert bench.send(E.START) is S.FAILED
    assert f"invalid argument; its image may be damaged: stop who uses it, `bay0 image remove {IMAGE}`, and load it again" in bench.why()
    bench.persona(PLAY, image="localhost/mine:1")
    bench.podman.answers["run"] = [verdict("storage")]
    assert bench.send(E.START, PLAY) is S.FAILED
    assert bench.podman.verbs().count("untag") == 1, "the second one's was not tried"


def test_another_image_that_is_not_there_is_a_failure_with_its_reason(bench: Bench) -> None:
    bench.persona(image="localhost/mine:1")
    bench.podman.answers["run"] = [verdict("no_image", "localhost/mine:1: image not known")]
    assert bench.send(E.START) is S.FAILED
    assert "image not known" in bench.why()
    assert bench.podman.verbs() == ["run", "list", "remove"], "a run that failed may hold the name all the same"


def test_a_name_that_podman_holds_from_an_earlier_try_is_cleared_first(bench: Bench) -> None:
    bench.podman.answers["run"] = [verdict("name_taken")]
    bench.running()
    assert bench.podman.verbs() == ["run", "remove", "run"]


def test_a_home_that_cannot_be_prepared_starts_nothing(bench: Bench) -> None:
    bench.persona()
    bench.state.answers["persona_prepare"] = Answer(code="full", why="no space left")
    assert bench.send(E.START) is S.FAILED
    assert "no space left" in bench.why()
    assert "run" not in bench.podman.verbs()


# ---- a new home


def with_a_new_home(bench: Bench) -> Bench:
    bench.state.answers["persona_prepare"] = Answer(value=True)
    return bench


def test_a_new_home_is_given_to_the_user_of_the_program_before_the_program_begins(bench: Bench) -> None:
    with_a_new_home(bench).running()
    assert bench.podman.verbs() == ["create", "init", "start"]
    assert bench.state.asked[1] == ("home_give", {"name": "p__work", "uid": 1000, "gid": 1001})


def test_a_home_that_was_given_is_not_given_again(bench: Bench) -> None:
    with_a_new_home(bench).running()
    bench.send(E.STOP)
    bench.state.answers["persona_prepare"] = Answer(value=False)
    assert bench.send(E.START) is S.RUNNING
    assert (bench.podman.verbs()[-1], [op for op, _ in bench.state.asked].count("home_give")) == ("run", 1)


def test_a_home_that_cannot_be_given_lets_nothing_begin(bench: Bench) -> None:
    bench.state.answers["home_give"] = Answer(code="fault", why="it is a link")
    with_a_new_home(bench).persona()
    assert bench.send(E.START) is S.FAILED
    assert "its home could not be given to its user 1000: it is a link" in bench.journal.steps[-2].why
    assert "start" not in bench.podman.verbs()


def test_without_crun_s_word_who_it_will_be_a_new_home_is_given_to_nobody(bench: Bench) -> None:
    bench.user = None
    with_a_new_home(bench).persona()
    assert bench.send(E.START) is S.FAILED
    assert [op for op, _ in bench.state.asked] == ["persona_prepare"]


@pytest.mark.parametrize("verb", ["create", "init", "start"])
def test_each_step_to_a_new_home_that_fails_ends_with_nothing_left(bench: Bench, verb: str) -> None:
    bench.podman.answers[verb] = [verdict("fault", "podman's own reason")]
    with_a_new_home(bench).persona()
    assert bench.send(E.START) is S.FAILED
    assert "podman's own reason" in bench.journal.steps[-2].why
    assert bench.podman.there == {}


def test_an_image_of_the_spine_is_loaded_for_the_first_start_with_a_home_too(bench: Bench) -> None:
    bench.podman.answers["create"] = [verdict("no_image")]
    with_a_new_home(bench).running()
    assert bench.podman.verbs() == ["create", "load", "create", "init", "start"]


# ---- its monitor


def test_when_its_monitor_ends_a_persona_is_ended_and_says_why(bench: Bench) -> None:
    bench.running()
    (monitor,) = bench.owned
    bench.owned[monitor](9)
    assert bench.wait(3) is S.FAILED
    why = bench.journal.steps[-1].why
    assert "its monitor has ended" in why
    assert "conmon of container" in why
    assert "restart = no" in why


def test_when_its_monitor_ends_a_persona_that_is_to_be_restarted_is(bench: Bench) -> None:
    bench.running(restart="on-failure")
    (first,) = bench.owned
    bench.owned[first](9)
    assert bench.wait(8) is S.RUNNING
    assert len(bench.owned) == 2, "the new one has a monitor, which is watched too"


def test_a_monitor_that_is_gone_when_podman_says_it_runs_is_noticed(bench: Bench) -> None:
    bench.conmons.said[f"{1:064x}"] = 0
    bench.persona()
    assert bench.send(E.START) is S.FAILED
    assert "its monitor has ended" in bench.why()


def test_a_monitor_that_nothing_names_is_said_and_ends_nothing(bench: Bench) -> None:
    bench.conmons.said[f"{1:064x}"] = None
    bench.running()
    assert bench.wait(70) is S.RUNNING
    assert bench.log.of("its monitor is not known, and not watched")


def test_a_monitor_that_ends_after_its_container_changes_nothing(bench: Bench) -> None:
    path = bench.running()
    bench.group(path).populated = False
    (monitor,) = bench.owned
    bench.exits[path.rpartition("libpod-")[2]] = 0
    bench.owned[monitor](0)
    assert bench.wait(3) is S.STOPPED
    assert "status 0" in bench.why()


def test_a_monitor_of_one_that_was_stopped_and_started_again_is_not_mistaken(bench: Bench) -> None:
    bench.running()
    (old,) = bench.owned
    bench.send(E.STOP)
    assert bench.send(E.START) is S.RUNNING
    bench.owned[old](0)
    assert bench.wait(3) is S.RUNNING


def test_a_monitor_is_no_longer_exempt_from_the_oom_killer(bench: Bench) -> None:
    bench.running()
    assert bench.exposed == list(bench.owned)


def test_a_stop_while_podman_is_still_starting_it_waits_for_that_and_removes_it(bench: Bench) -> None:
    bench.persona()
    bench.podman.held.add("run")
    assert bench.send(E.START) is S.STARTING
    assert bench.send(E.STOP) is S.STOPPED  # the real adapter queues the removal behind the run: tests/unit/test_podman.py
    assert bench.podman.verbs()[-1] == "remove"
    bench.podman.waiting_calls.pop()()
    assert bench.wait(1) is S.STOPPED, "a late answer moves nothing"


def test_a_start_that_podman_does_not_answer_is_cleared_and_looked_for_again(bench: Bench) -> None:
    bench.persona()
    bench.podman.answers["run"] = [verdict("timed_out", "timed_out after 20.0 s")]
    assert bench.send(E.START) is S.FAILED
    before = bench.podman.verbs().count("list")
    bench.wait(25)
    assert bench.podman.verbs().count("list") == before + 1, "what it was asked may have happened after all"


def test_of_many_starts_two_have_their_turn_and_the_others_wait_in_their_order(bench: Bench) -> None:
    bench.podman.held.add("run")
    which = [f"p://n{number}" for number in range(5)]
    for name in which:
        bench.persona(name)
        bench.send(E.START, name, seconds=0.1)
    assert [spec.name for verb, spec in bench.podman.asked if verb == "run"] == ["p__n0", "p__n1"]
    bench.podman.held.clear()
    for go in bench.podman.waiting_calls:
        go()
    bench.timers.advance(3)
    assert [spec.name for verb, spec in bench.podman.asked if verb == "run"] == [f"p__n{number}" for number in range(5)]
    assert [bench.engine.instances[name].now for name in which] == [S.RUNNING] * 5


def test_a_stop_before_its_turn_cancels_a_start_without_podman_and_the_next_one_begins_anew(bench: Bench) -> None:
    bench.podman.held.add("run")
    for name in ("p://a", "p://b", WORK):
        bench.persona(name)
        bench.send(E.START, name, seconds=0.1)
    asked = list(bench.podman.asked)
    assert bench.send(E.STOP, seconds=0.1) is S.STOPPED
    assert bench.why().endswith("its start had not begun: podman was not called")
    assert bench.podman.asked == asked
    assert bench.send(E.START, seconds=0.1) is S.STARTING
    assert bench.port.line.waiting == 1


def test_an_image_that_two_need_is_loaded_once(bench: Bench) -> None:
    bench.podman.answers["run"] = [verdict("no_image"), verdict("no_image")]
    for name in (WORK, PLAY):
        bench.persona(name)
        bench.engine.send(name, E.START)
    bench.wait(3)
    assert bench.podman.verbs() == ["run", "run", "load", "run", "run"]


def test_a_start_that_is_overtaken_gives_its_turn_back(bench: Bench) -> None:
    bench.podman.held.add("run")
    which = ["p://a", "p://b", "p://c", "p://d"]
    for name in which:
        bench.persona(name)
        bench.send(E.START, name, seconds=0.1)
    for name in which[:2]:
        bench.engine.send(name, E.STOP)
    for go in bench.podman.waiting_calls[:2]:
        go()
    bench.timers.advance(0.1)
    assert [words[1].name for words in bench.podman.asked if words[0] == "run"] == ["p__a", "p__b", "p__c", "p__d"]


# ---- freeze and thaw


def test_a_pause_and_a_resume_are_two_writes_and_the_kernels_word_and_no_call_of_podman(bench: Bench) -> None:
    path, calls = bench.running(), len(bench.podman.asked)
    bench.freeze_lag_s = 0.5
    assert bench.send(E.PAUSE, seconds=0.4) is S.PAUSING
    assert bench.wait(0.2) is S.PAUSED
    assert bench.send(E.RESUME, seconds=0.4) is S.RESUMING
    assert bench.wait(0.2) is S.RUNNING
    assert (bench.written, len(bench.podman.asked)) == ([(path, True), (path, False)], calls)


def test_a_freeze_is_noticed_as_soon_as_the_kernel_says_so(bench: Bench) -> None:
    bench.running()
    assert bench.send(E.PAUSE, seconds=(bench.freeze_lag_s or 0) + 0.001) is S.PAUSED


def test_a_freeze_whose_notice_is_lost_is_seen_all_the_same(bench: Bench) -> None:
    bench.watched.pop(bench.running())
    assert bench.send(E.PAUSE, seconds=1) is S.PAUSED


def test_a_pause_that_the_kernel_never_confirms_ends_stopped(bench: Bench) -> None:
    bench.running()
    bench.freeze_lag_s = None
    assert bench.send(E.PAUSE, seconds=Bounds().freeze - 1) is S.PAUSING
    assert bench.wait(5) is S.FAILED
    assert "the kernel does not say frozen 1" in bench.why()
    assert bench.podman.there == {}


def test_a_write_that_fails_is_tried_again_and_then_an_outcome(bench: Bench) -> None:
    bench.running()
    bench.unwritable = "Too many open files"
    assert bench.send(E.PAUSE, seconds=3) is S.PAUSING
    bench.unwritable = ""
    assert bench.wait(1) is S.PAUSED
    bench.unwritable = "Input/output error"
    assert bench.send(E.RESUME, seconds=Bounds().freeze + 5) is S.FAILED
    assert "cgroup.freeze cannot be written: Input/output error" in bench.why()


def test_one_whose_processes_have_ended_is_not_frozen_but_gone(bench: Bench) -> None:
    path = bench.running()
    bench.unwritable = "No such file or directory"
    bench.group(path).populated = False
    bench.exits[path.rpartition("libpod-")[2]] = 0
    assert bench.send(E.PAUSE) is S.STOPPED
    assert bench.why().endswith("status 0")


def test_one_that_dies_while_it_is_frozen_is_noticed(bench: Bench) -> None:
    path = bench.running()
    bench.freeze_lag_s = None
    assert bench.send(E.PAUSE, seconds=1) is S.PAUSING
    bench.dies(path, 3)
    assert bench.wait(3) is S.FAILED
    assert "it ended by itself with status 3" in bench.why()


def test_one_that_somebody_else_froze_is_thawed_and_one_that_somebody_else_thawed_is_frozen_again(bench: Bench) -> None:
    path = bench.running()
    bench.freezes(path, frozen=True)  # by hand, or by a podman that was given up and came late
    assert bench.wait(1) is S.RUNNING
    assert bench.written == [(path, False)]
    bench.send(E.PAUSE)
    bench.freezes(path, frozen=False)
    assert bench.wait(1) is S.PAUSED
    assert bench.written[1:] == [(path, True), (path, True)]


def test_podman_is_told_of_one_that_it_may_call_paused_by_the_way(bench: Bench) -> None:
    """Or it would let nobody in, and end it without TERM."""
    path = bench.running()
    bench.podman.held.add("unpause")
    bench.freezes(path, frozen=True)
    assert bench.wait(1) is S.RUNNING
    assert bench.podman.asked[-1] == ("unpause", "p__work")
    assert bench.send(E.PAUSE) is S.PAUSED
    assert bench.send(E.RESUME) is S.RUNNING
    assert bench.podman.verbs().count("unpause") == 1, "once for each time that somebody did so"


def test_podman_is_told_again_if_it_did_not_hear(bench: Bench) -> None:
    path = bench.running()
    bench.podman.answers["unpause"] = [verdict("timed_out"), verdict("wrong_state")]
    bench.freezes(path, frozen=True)
    bench.wait(1)
    for _ in range(3):
        bench.send(E.PAUSE)
        bench.send(E.RESUME)
    assert bench.podman.verbs().count("unpause") == 2, "wrong_state: it does not call it paused"


def test_what_podman_calls_paused_is_found_by_the_look_that_comes_anyway(bench: Bench) -> None:
    """Somebody paused by podman what was paused already: the kernel has nothing to tell of that."""
    path = bench.running(stop_s=7)
    bench.send(E.PAUSE)
    bench.podman.there["p__work"] = ("paused", 0)
    listed = [Container(path.rpartition("libpod-")[2], ("p__work",), "paused", 0, 1, IMAGE, {})]
    bench.podman.answers["list"] = [Verdict(Outcome.OK, "", tuple(listed))]
    bench.audit.soon()
    bench.wait(25)
    assert bench.podman.verbs()[-1] == "list", "nothing is to be done while it is meant to be paused"
    assert bench.send(E.STOP) is S.STOPPED
    assert bench.podman.asked[-2:] == [("unpause", "p__work"), ("remove", ("p__work",), 7)]


def test_when_all_of_them_are_frozen_together_from_above_they_stand_still_and_none_is_ended(bench: Bench) -> None:
    path = bench.running()
    bench.frozen_above.add(path)  # `echo 1 >/sys/fs/cgroup/personas/cgroup.freeze`
    bench.watched[path]()
    assert bench.wait(5) is S.RUNNING
    bench.frozen_above.clear()
    bench.watched[path]()
    assert bench.wait(5) is S.RUNNING
    assert (bench.podman.verbs(), bench.written) == (["run"], [])


def test_a_resume_under_a_group_that_is_frozen_from_above_says_so_and_ends_nobody(bench: Bench) -> None:
    path = bench.running()
    assert bench.send(E.PAUSE) is S.PAUSED
    bench.group(path.rpartition("/")[0]).told = True
    bench.frozen_above.add(path)  # the thaw is written, and it stands still all the same
    assert bench.send(E.RESUME, seconds=20) is S.RUNNING
    assert "the group above it is frozen (1 in /sys/fs/cgroup/personas/cgroup.freeze)" in bench.why()
    assert "remove" not in bench.podman.verbs()


def test_a_group_above_that_is_frozen_while_it_thaws_is_no_failure_either(bench: Bench) -> None:
    path = bench.running()
    bench.send(E.PAUSE)
    bench.freeze_lag_s = 30
    assert bench.send(E.RESUME, seconds=1) is S.RESUMING
    bench.group(path.rpartition("/")[0]).told = True
    bench.frozen_above.add(path)
    assert bench.wait(1) is S.RUNNING
    assert "the group above it is frozen" in bench.why()


def test_a_start_under_a_group_that_is_frozen_from_above_says_so_and_does_not_wait_for_podman(bench: Bench) -> None:
    bench.group(f"{personas.cgroup.ROOT}/personas").told = True
    bench.persona()
    assert bench.send(E.START) is S.FAILED
    assert "nothing can begin: the group above is frozen" in bench.why()
    assert "run" not in bench.podman.verbs()


def test_one_that_was_frozen_while_it_was_started_is_thawed_when_it_runs(bench: Bench) -> None:
    bench.persona()
    bench.cgroups[bench.path(f"{1:064x}")] = SimpleNamespace(populated=True, told=True, frozen=True)
    assert bench.send(E.START, seconds=1) is S.RUNNING
    assert [step.dest for step in bench.journal.steps][-2:] == ["resuming", "running"]


def test_what_is_frozen_is_thawed_before_it_is_told_to_stop_and_podman_has_nothing_else_to_do(bench: Bench) -> None:
    path = bench.running(stop_s=7)
    bench.send(E.PAUSE)
    bench.podman.held.add("remove")
    assert bench.send(E.STOP) is S.STOPPING
    assert bench.podman.asked[1:] == [("remove", ("p__work",), 7)]
    assert not bench.group(path).frozen


def test_one_that_cannot_be_thawed_is_stopped_all_the_same_and_that_is_said(bench: Bench) -> None:
    bench.running()
    bench.send(E.PAUSE)
    bench.unwritable = "Input/output error"
    assert bench.send(E.STOP) is S.STOPPED
    (said,) = bench.log.of("not thawed: if it is frozen it cannot hear that it is to end")
    assert said["why"] == "Input/output error"


def test_what_is_about_to_be_frozen_is_thawed_before_it_is_told_to_stop(bench: Bench) -> None:
    path = bench.running()
    bench.freeze_lag_s = 1
    assert bench.send(E.PAUSE, seconds=0.5) is S.PAUSING
    bench.podman.held.add("remove")
    assert bench.send(E.STOP) is S.STOPPING
    assert (bench.group(path).told, bench.group(path).frozen) == (False, False)


# ---- its end


@pytest.mark.parametrize(("status", "state"), [(0, S.STOPPED), (3, S.FAILED), (137, S.FAILED)])
def test_a_container_that_ends_by_itself_is_cleared_and_its_status_said(bench: Bench, status: int, state: S) -> None:
    bench.dies(bench.running(), status)
    assert bench.wait(3) is state
    assert f"status {status}" in bench.why()
    assert bench.podman.there == {}


def test_the_status_is_podmans_if_conmon_left_no_word(bench: Bench) -> None:
    path = bench.running()
    bench.podman.there["p__work"] = ("exited", 0)
    bench.dies(path, None)
    assert bench.wait(5) is S.STOPPED


def test_an_end_that_nobody_saw_a_status_of_is_no_success(bench: Bench) -> None:
    bench.dies(bench.running(), None)
    assert bench.wait(5) is S.FAILED


def test_a_container_that_dies_before_it_was_watched_is_noticed(bench: Bench) -> None:
    bench.persona()
    bench.group(bench.path(f"{1:064x}")).populated = False
    bench.exits[f"{1:064x}"] = 0
    assert bench.send(E.START, seconds=5) is S.STOPPED


def test_one_that_is_to_be_restarted_is_after_a_pause_that_grows_until_its_attempts_are_used_up(bench: Bench) -> None:
    path, pauses = bench.running(restart="on-failure", retries=2), []
    for _ in range(2):
        bench.dies(path, 1)
        assert bench.wait(0.5) is S.WAITING
        began = bench.timers.now
        while bench.wait(0.25) is not S.RUNNING:
            assert bench.timers.now < began + 60
        pauses.append(bench.timers.now - began)
        path = bench.path(str(bench.port.container(WORK)))
    assert pauses[1] > pauses[0]
    bench.dies(path, 1)
    assert bench.wait(3) is S.FAILED
    assert [step.attempts for step in bench.journal.steps if step.dest == "starting"] == [1, 2, 3]


def test_one_that_lived_long_enough_has_its_attempts_forgotten(bench: Bench) -> None:
    path = bench.running(restart="always", retries=1)
    bench.wait(containers.CALM_S + 1)
    assert bench.engine.instances[WORK].attempts == 0
    bench.dies(path, 1)
    assert bench.wait(0.5) is S.WAITING


def test_a_stop_while_it_waits_to_be_started_again_is_a_stop(bench: Bench) -> None:
    bench.dies(bench.running(restart="always"), 1)
    assert bench.wait(0.5) is S.WAITING
    assert bench.send(E.STOP) is S.STOPPED
    assert bench.wait(300) is S.STOPPED


# ---- podman does not help


def test_what_podman_cannot_clear_is_killed_by_the_kernel_and_tried_again(bench: Bench) -> None:
    path = bench.running()
    bench.podman.answers["remove"] = [verdict("fault", "internal libpod error")] * 2
    assert bench.send(E.STOP, seconds=1) is S.STUCK
    assert bench.killed == [path]
    assert bench.engine.instances[WORK].desired == "stopped"
    assert bench.wait(10) is S.STOPPED


def test_what_podman_says_is_removed_and_still_runs_is_not_gone(bench: Bench) -> None:
    path = bench.running()
    bench.podman.on_end = lambda _container: None
    assert bench.send(E.STOP, seconds=6) is S.STUCK
    assert bench.killed[-1] == path
    bench.group(path).populated = False
    assert bench.wait(30) is S.STOPPED


def test_a_removal_that_failed_and_whose_container_is_gone_all_the_same_is_one_that_went_well(bench: Bench) -> None:
    bench.running()
    bench.podman.answers["remove"] = [verdict("timed_out")]
    bench.podman.there.clear()
    assert bench.send(E.STOP) is S.STOPPED


def test_many_are_cleared_by_two_calls(bench: Bench) -> None:
    for number in range(30):
        bench.running(f"p://n{number}")
    bench.podman.asked.clear()
    for number in range(30):
        bench.engine.send(f"p://n{number}", E.CONVERGE)
    bench.wait(1, "p://n0")
    assert bench.podman.verbs() == ["list", "remove"]
    assert {i.now for i in bench.engine.of_kind("persona")} == {S.STOPPED}


# ---- what should not be there


def test_a_container_that_appears_late_is_found_and_its_machine_converged(bench: Bench) -> None:
    bench.persona()
    bench.podman.there["p__work"] = ("running", 0)
    bench.podman.there["p__nobody"] = ("running", 0)
    bench.podman.there["web"] = ("running", 0)
    bench.port.audit._begin(bench.boot, None)  # type: ignore[arg-type]
    assert bench.wait(310) is S.STOPPED
    assert bench.podman.there == {"web": ("running", 0)}


def test_a_container_of_nobody_that_could_not_be_removed_is_tried_again_though_there_is_no_persona(bench: Bench) -> None:
    bench.podman.there["p__nobody"] = ("exited", 0)
    bench.podman.answers["remove"] = [verdict("fault")]
    bench.port.audit.sweep(["p__nobody"])
    bench.timers.advance(30)
    assert bench.podman.there == {}


# ---- autostart


def test_what_is_marked_so_is_started_once_it_is_at_rest(bench: Bench) -> None:
    bench.persona(WORK, autostart=True)
    bench.persona(PLAY)
    bench.engine.send(WORK, E.CONVERGE)  # a boot found a container of it
    bench.port.autostart()
    assert bench.wait(5) is S.RUNNING
    assert bench.wait(0, PLAY) is S.STOPPED
    assert bench.engine.instances[WORK].attempts == 1


def test_a_stop_while_it_waits_for_its_rest_is_a_stop(bench: Bench) -> None:
    bench.persona(WORK, autostart=True)
    bench.engine.send(WORK, E.CONVERGE)
    bench.port.autostart()
    bench.engine.send(WORK, E.STOP)
    assert bench.wait(5) is S.STOPPED
    assert bench.engine.instances[WORK].attempts == 0


def test_one_that_took_the_machine_down_too_often_is_not_started_again(bench: Bench) -> None:
    one = bench.persona(autostart=True, retries=2)
    one.attempts = 3
    bench.port.autostart()
    assert bench.wait(5) is S.FAILED
    assert "3 of 3 attempts" in bench.why()


# ---- the focus


def focus(bench: Bench, name: str) -> Instance:
    if FOCUS not in bench.engine.instances:
        bench.engine.add(FOCUS, MACHINES["focus"])
    bench.engine.send(FOCUS, FocusEvent.FOCUS, config=focus_config(name))
    return bench.engine.instances[FOCUS]


def test_the_switch_thaws_one_and_takes_the_others_off_the_screen_before_they_are_frozen(bench: Bench) -> None:
    one, two = bench.running(WORK), bench.running(PLAY)
    bench.send(E.PAUSE)
    bench.written.clear()
    switch, calls = focus(bench, WORK), len(bench.podman.asked)
    bench.wait(0.2)
    assert bench.written == [(one, False), (two, True)]
    assert len(bench.podman.asked) == calls, "podman has no part in it"
    assert switch.now is FocusState.SETTLED
    assert (bench.wait(0), bench.wait(0, PLAY)) == (S.RUNNING, S.PAUSED)
    assert bench.hidden == [WORK, PLAY], "at its own pause, and at this one"


def test_whoever_asks_for_a_freeze_it_waits_until_the_persona_is_off_the_screen(bench: Bench) -> None:
    bench.running(WORK)
    bench.hide_s = 0.5
    bench.send(E.PAUSE, seconds=0.4)
    assert (bench.hidden, bench.written) == ([WORK], [])
    assert bench.wait(0.3) is S.PAUSED
    assert [frozen for _, frozen in bench.written] == [True]


def test_one_that_is_resumed_while_it_is_being_hidden_is_not_frozen(bench: Bench) -> None:
    bench.running(WORK)
    bench.hide_s = 0.5
    bench.send(E.PAUSE, seconds=0.2)
    bench.send(E.RESUME, seconds=1.0)
    assert bench.wait(1.0) is S.RUNNING
    assert [frozen for _, frozen in bench.written] == [False]


def test_a_switch_ends_within_its_deadline_whatever_podman_does(bench: Bench) -> None:
    bench.running(WORK)
    bench.running(PLAY)
    bench.persona("p://late")
    bench.podman.held.add("run")
    bench.send(E.START, "p://late")
    switch = focus(bench, WORK)
    bench.wait(14)
    assert switch.now is FocusState.SWITCHING, "one behind is on its way"
    bench.wait(2)
    assert switch.now is FocusState.SETTLED
    assert bench.engine.instances[PLAY].desired == "paused", "what is wanted of it is kept"


def test_one_that_comes_to_run_during_a_switch_is_frozen_with_the_others(bench: Bench) -> None:
    bench.running(WORK)
    bench.persona(PLAY)
    bench.podman.held.add("run")
    assert bench.send(E.START, PLAY) is S.STARTING
    switch = focus(bench, WORK)
    bench.wait(1)
    bench.podman.held.clear()
    bench.podman.waiting_calls.pop()()
    bench.wait(0.2)
    assert (bench.wait(0, PLAY), switch.now) == (S.PAUSED, FocusState.SETTLED)


def test_one_whose_manifest_lets_it_run_behind_goes_on(bench: Bench) -> None:
    bench.running(WORK)
    bench.running(PLAY, behind="run")
    bench.running("p://other", environment={"X": '"behind":"run"'})
    switch = focus(bench, WORK)
    bench.wait(2)
    assert switch.now is FocusState.SETTLED
    assert [bench.wait(0, name) for name in (WORK, PLAY, "p://other")] == [S.RUNNING, S.RUNNING, S.PAUSED]
    assert bench.send(E.PAUSE, PLAY) is S.PAUSED, "who asks for it by name gets it"
    focus(bench, "p://other")
    bench.wait(2)
    assert bench.wait(0, PLAY) is S.PAUSED, "and no switch undoes that"


def test_one_that_is_just_being_paused_comes_to_the_front_all_the_same(bench: Bench) -> None:
    bench.running(WORK)
    bench.freeze_lag_s = 0.5
    assert bench.send(E.PAUSE, seconds=0.1) is S.PAUSING
    switch = focus(bench, WORK)
    bench.wait(3)
    assert (bench.wait(0), switch.now) == (S.RUNNING, FocusState.SETTLED)


def test_one_that_ends_is_not_in_front_any_more(bench: Bench) -> None:
    bench.running(WORK)
    switch = focus(bench, WORK)
    bench.wait(2)
    bench.send(E.STOP)
    assert switch.now is FocusState.NONE


# ---- a way to the AI


class Umbilical:
    """Remembers doors."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []
        self.broken = False

    def prepare(self, name: str) -> str:
        if self.broken:
            raise RefusedError("64 doors already")
        self.told.append(("prepare", name))
        return f"/run/bay0/ai/personas/{name}"

    def grant(self, name: str, uid_base: int, group: str) -> None:
        self.told.append(("grant", name, uid_base, group))

    def revoke(self, name: str) -> None:
        self.told.append(("revoke", name))


@pytest.fixture
def umbilical(bench: Bench) -> Umbilical:
    made = Umbilical()
    bench.umbilical = made
    return made


def test_a_persona_that_was_granted_ai_gets_a_directory_read_only_and_may_speak_once_it_runs(bench: Bench, umbilical: Umbilical) -> None:
    path = bench.running(ai=True)
    (_, spec), = [words for words in bench.podman.asked if words[0] == "run"]
    assert (f"/run/bay0/ai/personas/{WORK}", "/run/ai", "ro") in spec.mounts
    assert umbilical.told == [("prepare", WORK), ("grant", WORK, spec.uid_base, path[path.index("/personas") :])]


@pytest.mark.parametrize("end", ["stops", "dies"])
def test_its_way_to_the_ai_ends_with_it(bench: Bench, umbilical: Umbilical, end: str) -> None:
    path = bench.running(ai=True)
    if end == "dies":
        bench.dies(path, 1)
        bench.wait(3)
    else:
        bench.send(E.STOP)
    assert umbilical.told[-1] == ("revoke", WORK)


def test_a_start_that_fails_leaves_no_way_to_the_ai(bench: Bench, umbilical: Umbilical) -> None:
    bench.podman.answers["run"] = [verdict("fault")]
    bench.persona(ai=True)
    bench.send(E.START)
    assert umbilical.told == [("prepare", WORK), ("revoke", WORK)]


def test_without_a_door_to_the_ai_a_persona_that_wants_one_does_not_start(bench: Bench, umbilical: Umbilical) -> None:
    umbilical.broken = True
    bench.persona(ai=True)
    bench.send(E.START)
    assert "its doors could not be prepared: 64 doors already" in bench.journal.steps[-2].why
    assert "run" not in bench.podman.verbs()


def test_a_persona_without_ai_has_no_part_in_it(bench: Bench, umbilical: Umbilical) -> None:
    bench.running()
    (_, spec), = [words for words in bench.podman.asked if words[0] == "run"]
    bench.send(E.STOP)
    assert (umbilical.told, [mount for mount in spec.mounts if "/run" in mount[1]]) == ([], [])
