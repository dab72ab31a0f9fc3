"""What the control socket says about personas: answered within a bound, refused before anything changes, told only what is so."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from kit import Known, until
from personakit import IMAGE, PLAY, WORK, Bench, verdict

from bay0.base import uids
from bay0.base.bounds import Bounds
from bay0.base.errors import BadNameError, Bay0Error, ManifestError, RefusedError
from bay0.boot import trash
from bay0.boot.trash import Trash
from bay0.containers.images import ImageMethods
from bay0.control.answers import Listing
from bay0.control.outcomes import Outcomes
from bay0.focus.methods import FocusMethods
from bay0.machines import MACHINES
from bay0.machines.boot import S as Boot
from bay0.machines.engine import Acceptance
from bay0.machines.focus import NAME as FOCUS
from bay0.machines.persona import E, S
from bay0.personas import methods as personaverbs
from bay0.personas import waiting
from bay0.personas.methods import PersonaVerbs
from bay0.podman.calls import Outcome, Verdict
from bay0.reconcile.mending import Mending
from bay0.state.link import Answer
from bay0.umbilical.places import IMAGE as AI_IMAGE


class Desk:
    """The verbs over the shared bench; `ask` returns the answer, or raises what would become an error."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        bench.engine.add(FOCUS, MACHINES["focus"])
        self.replay: Any = Known()
        self.boot: Any = SimpleNamespace(now=Boot.COMPLETE)
        self.timers: Any = bench.timers
        self.state: Any = bench.state
        self.podman: Any = bench.podman
        self.trash = Trash(bench.engine, self.timers, Bounds(), bench.log, self.state, self.boot, lambda: False)
        self.outcomes = Outcomes(bench.engine, self.timers, Bounds())
        self.verbs = PersonaVerbs(
            bench.engine, self.timers, Bounds(), self.state, self.boot, bench.port, self.replay, self.outcomes, self.trash.sweep,
        )  # fmt: skip
        self.mending = Mending(self.timers, Bounds(), bench.log, self.podman, self.state, bench.port.life.lives, bench.audit.soon)
        self.mending.on_images(lambda images: self.images.append(images))
        self.images: list[frozenset[str]] = []
        self.methods = {
            **self.verbs.methods(),
            **FocusMethods(bench.engine, bench.focus, self.replay, self.outcomes).methods(),
            **ImageMethods(Bounds(), self.state, self.podman, self.mending, bench.port.built_in).methods(),
        }

    def call(self, method: str, **params: Any) -> list[Any]:
        """Call, and return the list in which the answer will be."""
        answers: list[Any] = []
        self.methods[method](params, lambda answer: answers.append(answer.whole() if isinstance(answer, Listing) else answer))
        return answers

    def ask(self, method: str, seconds: float = 20, **params: Any) -> Any:
        answers = self.call(method, **params)
        self.bench.timers.advance(seconds)
        (answer,) = answers
        if isinstance(answer, Exception):
            raise answer
        return answer

    def create(self, name: str = WORK, **keys: Any) -> Any:
        return self.ask("persona.create", 1, name=name, manifest={"image": IMAGE, **keys})


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


@pytest.fixture
def desk(bench: Bench) -> Desk:
    return Desk(bench)


def states(desk: Desk) -> dict[str, str]:
    return {each["name"]: each["state"] for each in desk.ask("persona.list")}


def test_nothing_is_started_while_the_spine_goes_down_and_what_runs_may_still_be_stopped(desk: Desk) -> None:
    desk.create()
    desk.create(PLAY)
    assert desk.ask("persona.start", name=WORK)["state"] == "running"
    desk.boot.now = Boot.STOPPING
    with pytest.raises(RefusedError, match="going down"):
        desk.ask("persona.start", name=PLAY)
    assert desk.bench.engine.instances[PLAY].now is S.STOPPED
    assert desk.ask("persona.stop", name=WORK)["state"] == "stopped"


def test_a_start_whose_turn_would_not_come_in_its_bound_is_refused_with_how_long_it_would_take(desk: Desk) -> None:
    desk.create()
    line = desk.bench.port.line
    line.pace_s = 30.0
    for number in range(100):
        line.stand(str(number), lambda: True, lambda _turn: None)
    with pytest.raises(RefusedError, match=r"98 starts wait for their turn.*in 24 minutes, and a start may wait 10\. Nothing was changed"):
        desk.ask("persona.start", name=WORK)
    assert states(desk) == {WORK: "stopped"}
    line.pace_s = 5.0
    desk.call("persona.start", name=WORK, wait=False)
    desk.bench.timers.advance(1)
    assert states(desk) == {WORK: "starting"}
# ---- what was removed is no more, and what is not understood keeps what it has


NEWER = '{"manifest":{"image":"localhost/alpine:3.23","quota":1073741824},"slot":%d}'


def stored(desk: Desk, name: str, config: str) -> None:
    """Take over a persona as a boot finds it in the database."""
    desk.bench.engine.adopt(MACHINES["persona"], {"name": name, "state": "stopped", "seq": 4, "attempts": 0, "desired": "stopped", "config": config})


def slots(desk: Desk) -> dict[str, int | None]:
    return {i.name: uids.slot_of(i.config) for i in desk.bench.engine.of_kind("persona")}


def test_only_personas_that_are_there_count_towards_the_most_there_may_be(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(personaverbs, "PERSONAS_MAX", 2)
    for number in range(5):
        desk.create(f"p://job{number}")
        desk.ask("persona.remove", name=f"p://job{number}")
    assert list(desk.bench.engine.of_kind("persona")) == []
    desk.create()
    desk.create(PLAY)
    with pytest.raises(RefusedError, match="2 personas already"):
        desk.create("p://third")


def test_a_create_that_is_refused_leaves_nothing_that_counts(desk: Desk) -> None:
    desk.bench.journal.verdict = Acceptance.REFUSED
    with pytest.raises(RefusedError):
        desk.create()
    assert WORK not in desk.bench.engine.instances


def test_a_create_right_behind_a_remove_makes_one_that_stays(desk: Desk) -> None:
    desk.create()
    desk.call("persona.remove", name=WORK)
    again = desk.call("persona.create", name=WORK, manifest={"image": IMAGE})
    desk.bench.wait(5)
    assert (again[0]["state"], states(desk)) == ("stopped", {WORK: "stopped"})


def test_of_a_removed_persona_nothing_stays_in_memory_and_its_log_goes(desk: Desk) -> None:
    desk.create()
    assert desk.ask("persona.start", name=WORK)["state"] == "running"
    desk.ask("persona.stop", name=WORK)
    removed = desk.ask("persona.remove", name=WORK)
    assert (removed["state"], removed["why"]) == ("absent", "asked to remove it")
    assert (WORK in desk.bench.engine.instances, desk.outcomes.recent(WORK)) == (False, ())
    assert ("log_remove", {"name": "p__work"}) in desk.bench.state.asked


def test_the_home_of_one_that_is_there_anew_is_not_emptied_for_the_one_that_was_removed(desk: Desk) -> None:
    desk.create()
    removed = desk.call("persona.remove", name=WORK, home=True)
    desk.call("persona.create", name=WORK, manifest={"image": IMAGE})
    desk.call("persona.start", name=WORK, wait=False)
    desk.bench.wait(20)
    about = [op for op, _arguments in desk.bench.state.asked if op in ("home_empty", "persona_prepare")]
    assert (removed[0]["settled"], about) == (True, ["home_empty", "persona_prepare"])


def test_a_uid_range_is_given_once_also_where_the_one_who_has_it_is_of_a_newer_program(desk: Desk) -> None:
    stored(desk, "p://newer", NEWER % 0)
    desk.create()
    assert slots(desk) == {"p://newer": 0, WORK: 1}


def test_a_uid_range_that_waits_behind_another_step_is_not_given_to_the_next_one(desk: Desk) -> None:
    desk.create()
    desk.bench.journal.hold = True
    desk.call("persona.remove", name=WORK)
    for name in (WORK, PLAY):
        desk.call("persona.create", name=name, manifest={"image": IMAGE})
    while desk.bench.journal.held:
        desk.bench.journal.answer()
    assert sorted(slots(desk)) == [PLAY, WORK]
    assert len(set(slots(desk).values())) == 2


def test_a_uid_range_of_a_machine_that_this_program_cannot_even_name_is_not_given(desk: Desk) -> None:
    desk.replay.slots_left_alone = frozenset({0, 1})
    desk.create()
    assert slots(desk) == {WORK: 2}


def test_where_a_uid_range_cannot_be_read_none_is_given_until_that_persona_is_removed(desk: Desk) -> None:
    stored(desk, "p://torn", '{"manifest":{"image":"localh')
    with pytest.raises(RefusedError, match=r"p://torn.*given twice"):
        desk.create()
    desk.ask("persona.remove", name="p://torn")
    desk.create()
    assert slots(desk) == {WORK: 0}


def test_one_of_a_newer_program_is_shown_is_not_started_and_keeps_what_it_is_made_of(desk: Desk) -> None:
    stored(desk, "p://newer", NEWER % 7)
    (found,) = desk.ask("persona.list")
    assert (found["state"], found["not_understood"]) == ("stopped", "its stored manifest is of another program, at: quota")
    with pytest.raises(RefusedError, match=r"p://newer is not started: .*quota; boot the newer program that wrote it, or remove it"):
        desk.ask("persona.start", name="p://newer")
    assert desk.bench.journal.steps == []
    desk.ask("persona.reset", name="p://newer")
    assert desk.bench.engine.instances["p://newer"].config == NEWER % 7
    desk.ask("persona.remove", name="p://newer")
    assert states(desk) == {}


def test_two_that_have_one_uid_range_are_not_started(desk: Desk) -> None:
    """As an older program may have left them."""
    for name in (WORK, PLAY):
        stored(desk, name, '{"manifest":{"image":"localhost/alpine:3.23"},"slot":3}')
    for name, other in ((WORK, PLAY), (PLAY, WORK)):
        with pytest.raises(RefusedError, match=f"its uid range is that of {other} too"):
            desk.ask("persona.start", name=name)
    desk.ask("persona.remove", name=PLAY)
    assert desk.ask("persona.start", name=WORK)["state"] == "running"


# ---- creating and looking


def test_a_created_persona_is_listed_as_it_is(desk: Desk) -> None:
    desk.create(description="for work")
    (found,) = desk.ask("persona.list")
    assert (found["name"], found["state"], found["desired"], found["image"], found["description"]) == (WORK, "stopped", "stopped", IMAGE, "for work")
    shown = desk.ask("persona.show", name=WORK)
    assert shown["manifest"]["image"] == IMAGE
    assert [(step["source"], step["dest"]) for step in shown["steps"]] == [("absent", "stopped")]


@pytest.mark.parametrize(
    ("params", "error"),
    [
        ({"name": "Work", "manifest": {"image": IMAGE}}, BadNameError),
        ({"name": "sys://ai", "manifest": {"image": IMAGE}}, BadNameError),
        ({"name": "p__work", "manifest": {"image": IMAGE}}, BadNameError),
        ({"name": 7, "manifest": {"image": IMAGE}}, TypeError),
        ({"name": WORK, "manifest": {"image": IMAGE, "memory": 5}}, ManifestError),
        ({"name": WORK, "manifest": {"image": "docker.io/alpine"}}, ManifestError),
        ({"name": WORK, "manifest": {}}, Exception),
        ({"name": WORK}, KeyError),
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_is_created(desk: Desk, params: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        desk.ask("persona.create", **params)
    assert desk.ask("persona.list") == []
    assert desk.bench.journal.steps == []


def test_a_name_is_given_once_until_it_is_removed(desk: Desk) -> None:
    desk.create()
    with pytest.raises(RefusedError, match="exists already"):
        desk.create()
    desk.ask("persona.remove", name=WORK)
    assert states(desk) == {}
    desk.create()
    assert states(desk) == {WORK: "stopped"}


def test_nothing_is_created_before_what_is_stored_is_known(desk: Desk) -> None:
    desk.replay.known = False
    with pytest.raises(RefusedError, match="not known"):
        desk.ask("persona.list")
    with pytest.raises(RefusedError, match="not known"):
        desk.create()


def test_a_disk_that_keeps_no_promise_creates_and_starts_nothing(desk: Desk) -> None:
    desk.create()
    desk.bench.journal.refusal = "storage is wedged"
    for method, params in (("create", {"name": PLAY, "manifest": {"image": IMAGE}}), ("start", {"name": WORK}), ("reset", {"name": WORK})):
        with pytest.raises(RefusedError, match="storage is wedged; nothing was changed"):
            desk.ask(f"persona.{method}", **params)
    assert states(desk) == {WORK: "stopped"}


def test_each_persona_has_a_uid_range_of_its_own_and_a_removed_ones_is_given_again(desk: Desk) -> None:
    from bay0.personas.port import read_config

    def slots() -> dict[str, int]:
        live = [i for i in desk.bench.engine.of_kind("persona") if i.now is not S.ABSENT]
        return {i.name: read_config(i.config).slot for i in live}  # type: ignore[union-attr]

    for name in ("p://a", "p://b", "p://c"):
        desk.create(name)
    assert sorted(slots().values()) == [0, 1, 2]
    desk.ask("persona.remove", name="p://b")
    desk.create("p://d")
    assert slots() == {"p://a": 0, "p://c": 2, "p://d": 1}


def test_two_that_are_created_at_once_do_not_share_a_range(bench: Bench, desk: Desk) -> None:
    bench.journal.hold = True
    answers = [desk.call("persona.create", name=name, manifest={"image": IMAGE}) for name in (WORK, PLAY)]
    for _ in answers:
        bench.journal.answer()
    from bay0.personas.port import read_config

    assert {read_config(i.config).slot for i in bench.engine.of_kind("persona")} == {0, 1}  # type: ignore[union-attr]


def test_what_is_stored_and_not_understood_is_shown_and_can_be_removed(bench: Bench, desk: Desk) -> None:
    desk.create()
    bench.engine.instances[WORK].config = "{}"
    (found,) = desk.ask("persona.list")
    assert "nothing stored of it can be read" in found["not_understood"]
    assert desk.ask("persona.show", name=WORK)["manifest"] is None
    with pytest.raises(RefusedError, match="nothing stored of it can be read"):
        desk.ask("persona.start", name=WORK)
    desk.ask("persona.remove", name=WORK)
    assert states(desk) == {}


# ---- acting and waiting


def test_a_verb_is_answered_when_its_outcome_is_seen(desk: Desk) -> None:
    desk.create()
    answers = desk.call("persona.start", name=WORK)
    assert answers == []
    desk.bench.timers.advance(2)
    assert (answers[0]["state"], answers[0]["settled"]) == ("running", True)


def test_a_restart_is_answered_once_it_runs_again_in_a_new_container(desk: Desk) -> None:
    desk.create()
    first = desk.ask("persona.start", name=WORK)["container"]
    answer = desk.ask("persona.restart", name=WORK)
    assert (answer["state"], answer["settled"], answer["attempts"]) == ("running", True, 1)
    assert answer["container"] != first
    events = [step.event for step in desk.bench.journal.steps if step.machine == WORK]
    assert events == ["create", "start", "started", "stop", "gone", "start", "started"]


@pytest.mark.parametrize("verb", ["pause", "stop"])
def test_a_restart_starts_what_is_paused_or_stopped(desk: Desk, verb: str) -> None:
    desk.create()
    desk.ask("persona.start", name=WORK)
    desk.bench.timers.advance(1)
    desk.ask(f"persona.{verb}", name=WORK)
    assert desk.ask("persona.restart", name=WORK)["state"] == "running"


@pytest.mark.parametrize("verb", ["stop", "reset"])
def test_a_stop_that_comes_while_it_is_restarted_is_the_last_word(desk: Desk, verb: str) -> None:
    desk.create()
    desk.ask("persona.start", name=WORK)
    desk.bench.podman.held.add("remove")
    answers = desk.call("persona.restart", name=WORK)
    desk.bench.timers.advance(1)
    assert desk.bench.engine.instances[WORK].now is S.STOPPING
    desk.call(f"persona.{verb}", name=WORK)
    desk.bench.podman.held.clear()
    desk.bench.timers.advance(1)
    while desk.bench.podman.waiting_calls:
        desk.bench.podman.waiting_calls.pop(0)()
    desk.bench.timers.advance(2)
    assert states(desk) == {WORK: "stopped"}
    assert [(a["state"], a["settled"]) for a in answers] == [("stopped", True)]


def test_a_restart_that_the_stop_overtook_starts_it_all_the_same(desk: Desk) -> None:
    desk.create()
    desk.ask("persona.start", name=WORK)
    desk.bench.timers.advance(1)
    first, answers = desk.call("persona.stop", name=WORK), desk.call("persona.restart", name=WORK)
    desk.bench.timers.advance(20)
    assert (first[0]["settled"], answers[0]["state"], answers[0]["settled"]) == (True, "running", True)


@pytest.mark.parametrize("state", [S.COPYING, S.PLACING, S.RESTORING, S.REPLACING])
def test_one_that_is_still_being_made_is_not_restarted_which_would_give_the_copy_up(desk: Desk, state: S) -> None:
    desk.create()
    desk.bench.engine.instances[WORK].state = state
    steps = len(desk.bench.journal.steps)
    with pytest.raises(RefusedError, match="still being made"):
        desk.ask("persona.restart", name=WORK)
    assert len(desk.bench.journal.steps) == steps


def test_nothing_is_started_again_once_the_spine_goes_down(desk: Desk) -> None:
    desk.create()
    desk.ask("persona.start", name=WORK)
    desk.bench.podman.held.add("remove")
    desk.call("persona.restart", name=WORK)
    desk.bench.timers.advance(1)
    desk.verbs.restarts._leaves(desk.boot, desk.bench.journal.steps[-1])
    desk.bench.podman.held.clear()
    while desk.bench.podman.waiting_calls:
        desk.bench.podman.waiting_calls.pop(0)()
    desk.bench.timers.advance(10)
    assert states(desk) == {WORK: "stopped"}
    desk.boot.now = Boot.STOPPING
    desk.bench.engine.instances[WORK].state = S.RUNNING
    with pytest.raises(RefusedError, match="going down"):
        desk.ask("persona.restart", name=WORK)


# ---- waiting for a state


def test_who_waits_is_told_once_it_runs_and_not_before(desk: Desk) -> None:
    desk.create()
    answers = desk.call("persona.wait", name=WORK, seconds=30)
    desk.bench.timers.advance(10)
    assert answers == []
    desk.call("persona.start", name=WORK)
    desk.bench.timers.advance(5)
    assert [(a["reached"], a["ended"], a["state"]) for a in answers] == [(True, False, "running")]
    assert desk.ask("persona.wait", name=WORK)["reached"]
    assert desk.verbs.waiting._waiters == {}


def test_who_waits_in_vain_is_told_when_his_time_is_over_and_only_then(desk: Desk) -> None:
    desk.create()
    answers = desk.call("persona.wait", name=WORK, seconds=30)
    desk.bench.timers.advance(29.9)
    assert answers == []
    desk.bench.timers.advance(0.2)
    assert [(a["reached"], a["ended"]) for a in answers] == [(False, False)]
    assert [a["reached"] for a in desk.call("persona.wait", name=WORK, seconds=0)] == [False], "a wait of no time is a look"


def test_who_waits_for_one_that_fails_or_is_removed_does_not_wait_any_longer(desk: Desk) -> None:
    desk.create()
    answers = desk.call("persona.wait", name=WORK, seconds=600)
    desk.bench.podman.answers["run"] = [verdict("fault")]
    desk.call("persona.start", name=WORK)
    desk.bench.timers.advance(20)
    assert [(a["reached"], a["ended"], a["state"]) for a in answers] == [(False, True, "failed")]
    assert desk.ask("persona.wait", name=WORK, **{"for": "stopped"})["reached"]
    desk.create(PLAY)
    answers = desk.call("persona.wait", name=PLAY, seconds=600)
    desk.ask("persona.remove", name=PLAY)
    assert [(a["reached"], a["ended"], a["state"]) for a in answers] == [(False, True, "absent")]


@pytest.mark.parametrize(
    ("params", "error"),
    [({"for": "dead"}, ValueError), ({"for": 1}, ValueError), ({"seconds": True}, TypeError), ({"seconds": "9"}, TypeError),
     ({"seconds": -1}, ValueError), ({"seconds": 3601}, ValueError), ({"seconds": float("nan")}, ValueError)],
)  # fmt: skip
def test_a_wait_that_makes_no_sense_is_refused(desk: Desk, params: dict[str, Any], error: type[Exception]) -> None:
    desk.create()
    with pytest.raises(error):
        desk.call("persona.wait", name=WORK, **params)


def test_a_crowd_that_waits_has_a_bound(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "WAITERS_MAX", 2)
    desk.create()
    for _ in range(2):
        desk.call("persona.wait", name=WORK)
    with pytest.raises(RefusedError, match="2 requests wait"):
        desk.ask("persona.wait", name=WORK)


def test_without_waiting_it_is_answered_when_its_step_is_kept(desk: Desk) -> None:
    desk.create()
    (answer,) = desk.call("persona.start", name=WORK, wait=False)
    assert (answer["state"], answer["settled"]) == ("starting", False)


def test_a_podman_that_hangs_does_not_hold_the_answer(desk: Desk) -> None:
    desk.create()
    desk.bench.podman.held.add("run")
    answers = desk.call("persona.start", name=WORK)
    desk.bench.timers.advance(Bounds().verb - 0.1)
    assert answers == []
    desk.bench.timers.advance(0.2)
    assert (answers[0]["state"], answers[0]["settled"]) == ("starting", False)
    desk.bench.timers.advance(300)
    assert len(answers) == 1, "it is answered once"


def test_what_is_so_already_is_no_error(desk: Desk) -> None:
    desk.create()
    assert desk.ask("persona.stop", name=WORK)["state"] == "stopped"
    desk.ask("persona.start", name=WORK)
    assert desk.ask("persona.start", name=WORK)["state"] == "running"


@pytest.mark.parametrize(("verb", "why"), [("pause", "start it first"), ("resume", "start it first")])
def test_what_cannot_be_is_refused_with_the_way_out(desk: Desk, verb: str, why: str) -> None:
    desk.create()
    with pytest.raises(RefusedError, match=why):
        desk.ask(f"persona.{verb}", name=WORK)


def test_a_running_persona_is_not_removed(desk: Desk) -> None:
    desk.create()
    desk.ask("persona.start", name=WORK)
    with pytest.raises(RefusedError, match="stop it first"):
        desk.ask("persona.remove", name=WORK)


def test_one_that_nobody_knows_is_said_to_be_unknown(desk: Desk) -> None:
    for verb in ("show", "start", "stop", "restart", "wait", "pause", "resume", "reset", "remove"):
        with pytest.raises(RefusedError, match="there is no persona p://nobody"):
            desk.ask(f"persona.{verb}", name="p://nobody")


def test_a_commit_that_gave_no_answer_is_said_and_converged(bench: Bench, desk: Desk) -> None:
    desk.create()
    bench.journal.hold = True
    answers = desk.call("persona.start", name=WORK)
    bench.journal.hold = False
    bench.journal.answer(Acceptance.UNKNOWN)
    assert isinstance(answers[0], RefusedError)
    bench.timers.advance(5)
    assert bench.podman.there == {}


# ---- a home is emptied only by asking


def test_a_reset_does_not_touch_the_home(desk: Desk) -> None:
    desk.create(home="/home/me")
    desk.ask("persona.start", name=WORK)
    assert desk.ask("persona.reset", name=WORK)["state"] == "stopped"
    assert "home_empty" not in [op for op, _ in desk.bench.state.asked]


@pytest.mark.parametrize("verb", ["reset", "remove"])
def test_it_is_emptied_when_asked_once_nothing_runs_any_more(desk: Desk, verb: str) -> None:
    desk.create(home="/home/me")
    assert desk.ask(f"persona.{verb}", name=WORK, home=True)["settled"]
    assert ("home_empty", {"name": "p__work"}) in desk.bench.state.asked
    assert desk.bench.state.asked[-1][0] == "trash_sweep"


def test_however_many_homes_are_emptied_one_sweep_is_under_way(desk: Desk) -> None:
    """Each takes 0.3 s of the worker's time: twenty side by side, and commits would miss their bound."""
    desk.create(home="/home/me")
    for _ in range(5):
        desk.ask("persona.reset", name=WORK, home=True)
    desk.bench.state.asked.clear()
    desk.bench.wait(10)
    assert 10 < [op for op, _ in desk.bench.state.asked].count("trash_sweep") <= 10 / trash.AGAIN_S


def test_what_of_it_could_not_be_deleted_is_said_once_the_sweep_is_over(desk: Desk) -> None:
    left = ["/persist/spine/trash/p__work.1/file: Operation not permitted"]
    desk.bench.state.answers.update(trash_sweep=Answer(value=False), trash_left=Answer(value=left))
    desk.create(home="/home/me")
    desk.ask("persona.reset", name=WORK, home=True)
    desk.bench.wait(1)
    assert [said["left"] for said in desk.bench.log.of("taken away and not deleted")] == [left]


def test_it_is_not_emptied_while_its_container_may_still_run(desk: Desk) -> None:
    desk.create(home="/home/me")
    desk.ask("persona.start", name=WORK)
    desk.bench.podman.held.add("remove")
    with pytest.raises(RefusedError, match="was not emptied"):
        desk.ask("persona.reset", name=WORK, home=True)
    assert "home_empty" not in [op for op, _ in desk.bench.state.asked]


def test_a_disk_that_could_not_empty_it_is_not_called_a_success(desk: Desk) -> None:
    desk.create(home="/home/me")
    desk.bench.state.answer = Answer(code="timed_out", why="home_empty gave no answer in 2 s")
    with pytest.raises(RefusedError, match="was not emptied: home_empty gave no answer"):
        desk.ask("persona.reset", name=WORK, home=True)


# ---- the focus and images


def test_only_what_runs_comes_to_the_front(desk: Desk) -> None:
    desk.create()
    with pytest.raises(RefusedError, match="start it first"):
        desk.ask("focus", name=WORK)
    desk.ask("persona.start", name=WORK)
    assert desk.ask("focus", name=WORK) == {"active": WORK, "settled": True, "left": []}
    assert desk.ask("focus.show") == {"active": WORK}
    assert desk.ask("persona.show", name=WORK)["active"]


def test_a_focus_answers_within_its_bound_and_names_who_is_still_on_the_way(desk: Desk) -> None:
    for name in (WORK, PLAY):
        desk.create(name)
        desk.ask("persona.start", name=name)
    desk.bench.freeze_lag_s = None
    answers = desk.call("focus", name=WORK)
    desk.bench.timers.advance(Bounds().verb + 0.1)
    assert answers == [{"active": WORK, "settled": False, "left": [PLAY]}]


def test_the_focus_is_a_promise_that_is_refused_while_the_disk_cannot_keep_it(desk: Desk) -> None:
    desk.create()
    desk.ask("persona.start", name=WORK)
    desk.bench.journal.refusal = "storage is wedged"
    with pytest.raises(RefusedError, match="storage is wedged"):
        desk.ask("focus", name=WORK)


@pytest.mark.parametrize("path", ["", "relative.tar", "/a\0b", 7, None])
def test_an_archive_is_named_by_its_whole_path(desk: Desk, path: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        desk.ask("image.load", path=path)
    assert desk.bench.podman.asked == []


def test_an_archive_on_the_disk_is_looked_at_before_podman_opens_it(desk: Desk) -> None:
    state, podman = desk.bench.state, desk.bench.podman
    state.answers["image_archive"] = Answer(value="/persist/images/x.tar is a FIFO, where a file belongs: move it away")
    with pytest.raises(RefusedError, match="is a FIFO"):
        desk.ask("image.load", path="/persist/images/x.tar")
    state.answers["image_archive"] = Answer(code="timed_out", why="image_archive gave no answer in 1 s")
    with pytest.raises(RefusedError, match="no answer"):
        desk.ask("image.load", path="/persist/images/../images/x.tar")
    assert podman.verbs() == []
    state.answers["image_archive"] = Answer(value="")
    for path in ("/persist/images/x.tar", "/tmp/x.tar"):
        desk.ask("image.load", path=path)
    assert podman.asked == [("load", "/persist/images/x.tar"), ("load", "/tmp/x.tar")]
    assert [arguments for op, arguments in state.asked if op == "image_archive"][-1] == {"path": "/persist/images/x.tar"}


def test_what_is_loaded_and_removed_counts_as_there_and_gone_at_once(desk: Desk) -> None:
    """`--validate` tells by it whether an AI is installed."""
    mending = desk.mending
    for name in (IMAGE, AI_IMAGE):
        desk.bench.podman.answers["load"] = [Verdict(Outcome.OK, "", (name,))]
        desk.ask("image.load", path="/tmp/x.tar")
        assert name in mending.images
    assert desk.images == [{IMAGE}, {AI_IMAGE}]
    desk.bench.podman.answers["untag"] = [verdict("fault")]
    with pytest.raises(RefusedError):
        desk.ask("image.remove", name=IMAGE)
    assert IMAGE in mending.images
    desk.ask("image.remove", name=IMAGE)
    assert mending.images == {AI_IMAGE}


def test_images_need_the_disk(desk: Desk) -> None:
    desk.bench.state.healthy = False
    for method, params in (("image.load", {"path": "/x.tar"}), ("image.list", {}), ("image.remove", {"name": IMAGE})):
        with pytest.raises(Bay0Error, match="not durable"):
            desk.ask(method, **params)


def test_a_verb_sends_the_event_of_its_name(desk: Desk) -> None:
    assert {m.removeprefix("persona.") for m in desk.methods if m.startswith("persona.")} >= {"start", "stop", "pause", "resume", "reset", "remove"}
    desk.create()
    desk.ask("persona.start", name=WORK)
    assert desk.bench.journal.steps[-2].event == E.START.value


def test_a_stop_that_comes_while_it_is_cleared_before_its_start_with_the_boot_is_a_stop(desk: Desk) -> None:
    desk.create(autostart=True)
    desk.bench.engine.send(WORK, E.CONVERGE)
    desk.bench.port.autostart()
    desk.bench.journal.hold = True
    until(lambda: bool(desk.bench.journal.held), step=lambda: desk.bench.timers.advance(0.01))
    answers: list[Any] = []
    desk.verbs.act(E.STOP, {"name": WORK}, answers.append)  # it is ignored when its turn comes: nothing runs by then
    desk.bench.journal.hold = False
    desk.bench.journal.answer()
    desk.bench.timers.advance(5)
    assert desk.bench.engine.instances[WORK].now is S.STOPPED
