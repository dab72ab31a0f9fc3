"""Every stored state of every machine, times all that podman may have and say, times a crash at every seam of the recovery: walked, not sampled.

It always ends at rest in a bounded number of steps: a persona STOPPED, with no container and no process; and another boot does nothing more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import product

import pytest
from bench import AI, LIMIT_S, NAME, PODMAN_AI, PODMAN_NAME, Bench
from conftest import Size
from conftest import has as in_sample
from podman import AI_IMAGE, Container, Podman, Vice

import bay0.ai.port
from bay0.base import names
from bay0.machines import MACHINES
from bay0.machines.persona import S
from bay0.machines.server import S as ServerS
from bay0.machines.table import MachineDef
from bay0.reconcile.replay import Replay

UNKNOWN = "from_the_future"
STEPS_MAX = 4  # of one persona in one recovery: CONVERGE, FAULT, WAITED, GONE
Says = Callable[[Podman], None]
HAS = ("nothing", "created", "initialized", "running", "paused", "stopping", "stopped", "exited 0", "exited 1", "exited -1", "only its name")


def has(what: str, name: str) -> Says:
    """Let podman have a container called `name`, as an earlier boot left it."""

    def put(podman: Podman) -> None:
        if what == "nothing":
            return
        state, _, code = what.partition(" ")
        podman.containers[name] = Container(f"{9:064x}", name, state=state, exit_code=int(code or 0) if state == "exited" else 0)
        if what == "only its name":
            podman.containers[name].state, podman.containers[name].external = "created", True

    return put


def vice(verb: str, error: str, at: int = 0, end: str = "term", *, lasting: bool = False) -> Says:
    return lambda podman: podman.vices.append(Vice(verb, error, at, end, lasting=lasting))


def damaged(how: str, *more: Says) -> Says:
    def put(podman: Podman) -> None:
        podman.damage = how
        for each in more:
            each(podman)

    return put


def full(podman: Podman) -> None:
    podman.full = True


def with_others(podman: Podman) -> None:
    for count, name in enumerate(("p__nobody", "sys__ai", "web", "p__Bad", "p_x")):
        podman.containers[name] = Container(f"{50 + count:064x}", name, state="running")


ONCE: dict[str, Says] = {
    "is well": lambda _podman: None,
    "has others, too": with_others,
    "list fails": vice("ps", "internal"),
    "list makes no sense": vice("ps", "garbage"),
    "list says nothing": vice("ps", "silent"),
    "list hangs": vice("ps", "hang"),
    "list hangs in the kernel": vice("ps", "hang", 1, "never"),
    "rm fails": vice("rm", "internal"),
    "rm fails when half done": vice("rm", "conmon", 2),
    "rm is done, and said to have failed": vice("rm", "conmon", -1),
    "rm hangs": vice("rm", "hang"),
    "rm hangs when half done": vice("rm", "hang", 2, "kill"),
    "rm is done, and hangs": vice("rm", "hang", -1),
    "rm is done late": vice("rm", "hang", 1, "late"),
    "any call fails": vice("", "io"),
    "storage is damaged": damaged("mendable"),
    "storage is damaged beyond repair": damaged("beyond"),
    "storage is damaged and the check hangs": damaged("mendable", vice("system check", "hang")),
    "storage is damaged and its repair fails": damaged("mendable", vice("system check", "internal", 3)),
}
UNTIL_MENDED: dict[str, Says] = {
    "list always fails": vice("ps", "internal", lasting=True),
    "rm always fails": vice("rm", "internal", lasting=True),
    "rm always hangs": vice("rm", "hang", 0, "never", lasting=True),
    "every call hangs": vice("", "hang", lasting=True),
    "is not there": vice("", "absent", lasting=True),
    "is full": full,
}
SMALL = ("nothing", "running", "exited 1")
CONTAINED = {"persona": (NAME, PODMAN_NAME), "server": (AI, PODMAN_AI)}
# had no container: where a boot leads them without podman
MADE = {S.COPYING.value: S.ABSENT.value, **dict.fromkeys((S.PLACING.value, S.RESTORING.value, S.REPLACING.value), S.STOPPED.value)}
STATES = [*(("persona", state.value) for state in S), *(("server", state.value) for state in ServerS), *((kind, UNKNOWN) for kind in CONTAINED)]
OTHERS = [(kind, state) for kind, machine in MACHINES.items() if kind not in CONTAINED for state in (*(s.value for s in machine.states), UNKNOWN)]


Case = tuple[str, str, str, str]  # the machine's kind, its stored state, what podman has, what podman says


def prepare(bench: Bench, kind: str, state: str, what: str, says: str) -> None:
    bench.reset()
    name, podman_name = CONTAINED[kind]
    bench.store(kind, name, state)
    {**ONCE, **UNTIL_MENDED}[says](bench.podman)
    has(what, podman_name)(bench.podman)


def recover(bench: Bench, case: Case, crash_at: int | None = None) -> bool:
    """Boot; what lasts until somebody mends it is mended after LIMIT_S. Tell whether it did not crash."""
    begun, name = len(bench.steps), CONTAINED[case[0]][0]
    if not bench.boot(crash_at=crash_at):
        bench.cut()
        return False
    if not bench.rests():
        assert case[3] in UNTIL_MENDED, f"{case}: not at rest after {LIMIT_S:g} s: {bench.rows}"
        assert bench.state(name) in (S.CONVERGING.value, S.STUCK.value, case[1], MADE.get(case[1])), case
        bench.podman.mend()
        end = bench.now + LIMIT_S
        while bench.now < end and not bench.rests():
            bench.go_on(1)
    else:
        taken = [step for step in bench.steps[begun:] if step.machine == name]
        assert len(taken) <= STEPS_MAX or case[3] in UNTIL_MENDED, f"{case}: {len(taken)} steps"
    assert bench.rests(), f"{case}: does not rest, although podman is well: {bench.rows}"
    return True


def is_over(bench: Bench, case: Case) -> None:
    """Look whether all is as it should be, and whether another boot finds nothing to do."""
    name, ends = CONTAINED[case[0]][0], {S.ABSENT.value} if case[1] in (S.ABSENT.value, S.COPYING.value) else {S.STOPPED.value}
    assert bench.state(name) in ends, f"{case}: {bench.rows}"
    assert bench.wanted(name) == "stopped" or case[1] in (S.ABSENT.value, S.STOPPED.value), case
    ours = [name for name, found in bench.podman.containers.items() if names.from_podman(name) is not None and not found.external]
    assert not ours, f"{case}: {ours} are left"
    assert not bench.kernel.living(), case
    theirs = {name for name in bench.podman.containers if names.from_podman(name) is None}
    assert theirs == ({"web", "p__Bad", "p_x"} if case[3] == "has others, too" else set()), case
    bench.cut()
    before = len(bench.steps)
    bench.podman.calls.clear()
    assert bench.boot(), case
    assert len(bench.steps) == before, f"{case}: a second reconcile: {bench.steps[before:]}"
    fails = any(vice.verb in ("", "ps") for vice in bench.podman.vices)  # then it is not followed by the look at the images
    looked = ["ps"] if fails else ["ps", "images"]
    assert bench.podman.calls == looked, f"{case}: a second reconcile called podman: {bench.podman.calls}"


@pytest.mark.parametrize(("kind", "state"), STATES)
def test_whatever_was_stored_and_whatever_podman_says_a_boot_ends_stopped(kind: str, state: str, size: Size) -> None:
    """`ci` crashes in one of nine combinations, and not where podman stays broken until it is mended: that takes long. `nightly` crashes in all."""
    count: Counter[str] = Counter()
    with Bench() as bench:
        # from the state's own place on: what one state leaves out of the sample, another has, so that none is left out by all
        for number, (what, says) in enumerate(product(HAS, (*ONCE, *UNTIL_MENDED)), STATES.index((kind, state))):
            case = (kind, state, what, says)
            prepare(bench, *case)
            assert recover(bench, case)
            seams = bench.seams
            is_over(bench, case)
            count["cases"] += 1
            if size.whole or (says in ONCE and in_sample(number, size.cases)):
                count["crashes"] += crash_everywhere(bench, case, seams)
    print(f"{kind} stored {state}: {count['cases']} combinations with what podman has and says, {count['crashes']} crashes in them")


def crash_everywhere(bench: Bench, case: Case, seams: int) -> int:
    """Stop the recovery at each of its seams, then let it be; return how many there were."""
    for at in range(1, seams + 1):
        prepare(bench, *case)
        if recover(bench, case, at):
            return at - 1
        assert recover(bench, case)
        is_over(bench, case)
    return seams


@pytest.mark.parametrize("kind", sorted({kind for kind, _ in OTHERS}))
def test_every_other_machine_ends_converged_from_whatever_was_stored(kind: str) -> None:
    cases = crashes = 0
    converged = {spec.state.value for spec in MACHINES[kind].specs if spec.converged}
    with Bench() as bench:
        for state in (state for of, state in OTHERS if of == kind):
            at, survived = 0, False
            while not survived:  # the first walk does not crash
                bench.reset()
                bench.store(kind, "m", state)
                survived = bench.boot(crash_at=at or None) and at > 0
                bench.cut()
                assert bench.boot()
                assert bench.state("m") in converged, f"{kind} stored {state}, crash at seam {at}: {bench.rows}"
                before = len(bench.steps)
                assert bench.boot()
                assert len(bench.steps) == before, f"{kind} stored {state}: a second reconcile: {bench.steps[before:]}"
                at += 1
            cases, crashes = cases + 1, crashes + at - 2
    print(f"{kind}: {cases} stored states, {crashes} crashes")


@pytest.mark.parametrize("many", [10, 200])
def test_a_reconcile_is_no_more_work_for_each_persona_however_many_there_are(many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[object] = []
    spec = MachineDef.spec
    monkeypatch.setattr(MachineDef, "spec", lambda self, state: looks.append(state) or spec(self, state))  # type: ignore[func-returns-value]
    with Bench() as bench:
        for number in range(many):
            bench.store("persona", f"p://n{number}", "running")
        monkeypatch.setattr(Replay, "begin", _as_a_stage(Replay.begin))
        looks.clear()
        assert bench.boot(until=lambda: bench.replay.known and bench.replay._stage is None)
        assert {bench.state(f"p://n{number}") for number in range(many)} == {"stopped"}, "the stage ends when all have converged"
    assert len(looks) < 40 * many


def _as_a_stage(begin: Callable[[Replay], None]) -> Callable[[Replay], None]:
    def stage(self: Replay) -> None:
        self._stage = (self.boot, 0)
        begin(self)

    return stage


# ---- attempts


RUN_SEAMS = ("after autostart", *(f"podman run {moment}" for moment in range(5)), "podman run end", "before started", "after started")


NEW_HOME_SEAMS = tuple(f"podman {verb} {moment}" for verb in ("create", "init", "start") for moment in ("0", "end"))
STARTS = [(seam, retries) for seam in RUN_SEAMS for retries in (0, 1, 3)] + [(seam, 1) for seam in (*NEW_HOME_SEAMS, "before home_give")]


@pytest.mark.parametrize(("seam", "retries"), STARTS)
def test_a_persona_that_takes_the_machine_down_as_it_starts_is_given_up_after_its_attempts(seam: str, retries: int) -> None:
    with Bench() as bench:
        bench.new_homes = seam not in RUN_SEAMS
        bench.store("persona", NAME, "stopped", desired="stopped", autostart=True, restart="always", retries=retries)
        boots = 0
        while not bench.boot(crash_on=seam, complete=True):
            bench.cut(0.0 if boots % 2 else 1.0)
            boots += 1
            assert boots <= retries + 1, f"{boots} boots died of it, {retries + 1} attempts are allowed"
        assert boots == retries + 1
        assert (bench.state(), bench.wanted()) == ("failed", "stopped")
        bench.cut()
        assert bench.boot(crash_on=seam, complete=True), "a later boot tries again"
        assert bench.state() == "failed"


@pytest.mark.parametrize(
    ("restart", "status", "runs", "end"),
    [
        ("no", 0, 1, "stopped"), ("no", 1, 1, "failed"), ("on-failure", 0, 1, "stopped"), ("on-failure", 1, 3, "failed"),
        ("always", 0, 3, "failed"), ("always", 9, 3, "failed"),
    ],
)  # fmt: skip
def test_a_container_that_ends_at_once_is_tried_again_as_its_manifest_says_and_no_more(restart: str, status: int, runs: int, end: str) -> None:
    with Bench() as bench:
        bench.store("persona", NAME, "stopped", desired="stopped", autostart=True, restart=restart, retries=2)

        def over() -> bool:
            if bench.state() == "running":
                bench.podman.dies(PODMAN_NAME, status)
            return bench.rests() and bench.state() == end and bool(bench.steps)

        assert bench.boot(complete=True, until=over)
        bench.go_on(200)
        assert (bench.state(), bench.wanted()) == (end, "stopped")
        assert sum(call.startswith("run") for call in bench.podman.calls) == runs
        assert not bench.podman.containers


def test_a_container_that_ends_well_in_each_boot_is_started_in_each_boot() -> None:
    with Bench() as bench:
        bench.store("persona", NAME, "stopped", desired="stopped", autostart=True, retries=2)
        for _ in range(6):

            def over() -> bool:
                if bench.state() == "running":
                    bench.podman.dies(PODMAN_NAME, 0)
                return bench.rests() and bench.state() in ("stopped", "failed") and any(call.startswith("run") for call in bench.podman.calls)

            bench.podman.calls.clear()
            bench.boot(complete=True, until=over)
            assert bench.state() == "stopped"
            bench.cut()


# ---- the server


def autostarted(bench: Bench, **changes: object) -> None:
    bench.reset()
    bench.store("server", AI, "stopped", desired="stopped", **changes)


def test_a_server_starts_with_the_spine_and_serves(size: Size) -> None:
    with Bench() as bench:
        autostarted(bench)
        assert bench.boot(complete=True, until=lambda: bench.state(AI) == "ready" and bench.rests())
        assert bench.umbilical.told[-1] == ("ready", f"/tenants/libpod-{bench.servers.container(AI)}")
        assert [step.dest for step in bench.steps] == ["starting", "warming", "ready"]
        bench.go_on(100)
        assert bench.steps[-1].event == "calm"


@pytest.mark.parametrize("seam", [*RUN_SEAMS, "before warm", "after warm"])
def test_a_server_that_takes_the_machine_down_as_it_starts_is_given_up_after_its_attempts(seam: str) -> None:
    limit = bay0.ai.port.RETRIES + 1
    with Bench() as bench:
        autostarted(bench)
        boots = 0
        while not bench.boot(crash_on=seam, complete=True, until=lambda: bench.state(AI) in ("ready", "failed") and bench.rests()):
            bench.cut(0.0 if boots % 2 else 1.0)
            boots += 1
            assert boots <= limit, f"{boots} boots died of it, {limit} attempts are allowed"
        assert boots == limit
        assert (bench.state(AI), bench.wanted(AI)) == ("failed", "stopped")
        assert not bench.kernel.living()


@pytest.mark.parametrize(
    ("wrong", "runs", "says"),
    [
        ({"swap": "max"}, 1, "swap: wanted 0, found max"),
        ({"processor weight": "100"}, 1, "processor weight: wanted below 100, found 100"),
        ({"interfaces": "eth0 lo"}, 1, "interfaces: wanted lo, found eth0 lo"),
    ],
)
def test_a_server_whose_envelope_the_kernel_does_not_confirm_is_failed_at_once_and_never_spoken_to(
    wrong: dict[str, str], runs: int, says: str
) -> None:
    with Bench() as bench:
        autostarted(bench)
        bench.wrong = wrong
        assert bench.boot(complete=True, until=lambda: bench.rests() and bench.state(AI) == "failed")
        assert says in bench.steps[-1].why
        assert sum(call.startswith("run") for call in bench.podman.calls) == runs
        assert "warming" not in [state for state, _ in bench.umbilical.told]
        assert not bench.podman.containers
        assert not bench.kernel.living()


def test_a_server_without_image_and_archive_is_not_started_and_podman_is_not_asked_for_it() -> None:
    with Bench() as bench:
        autostarted(bench)
        bench.podman.images.discard(AI_IMAGE)
        bench.ai_archive = False
        bench.boot(complete=True)
        bench.go_on(5)
        assert (bench.state(AI), bench.podman.calls) == ("stopped", ["ps", "images"])
        assert "its image is not on this machine" in bench.servers.unavailable


def test_a_server_whose_image_only_its_archive_has_loads_it_by_itself() -> None:
    with Bench() as bench:
        autostarted(bench)
        bench.podman.images.discard(AI_IMAGE)
        assert bench.boot(complete=True, until=lambda: bench.state(AI) == "ready" and bench.rests())
        assert [call.split()[0] for call in bench.podman.calls] == ["ps", "images", "run", "load", "run"]


def test_a_server_that_makes_no_first_token_is_tried_again_and_then_given_up() -> None:
    with Bench() as bench:
        autostarted(bench)
        bench.cold = True
        assert bench.boot(complete=True, until=lambda: bench.state(AI) == "failed" and bench.rests())
        assert sum(step.dest == "starting" for step in bench.steps) == bay0.ai.port.RETRIES + 1
        assert not bench.podman.containers
