"""The freezer test over a podman that is played: each thing that may be wrong has its own reason, and nothing is left behind."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from kit import Log, Timers
from personakit import Podman, verdict

from bay0.base.bounds import Bounds
from bay0.pid1 import flow
from bay0.podman.calls import Outcome, Verdict
from bay0.reconcile.clearing import Clearing
from bay0.validate import freezer
from bay0.validate.freezer import PROBE, Freezer
from bay0.validate.verdict import GREEN, Finding, Level


class Bench:
    """The real flow and clearing; the kernel's files are played.

    `burns` says when the probe uses processor time, `lies` what the kernel does not do.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.timers, self.log = Timers(), Log()
        self.podman = Podman(self.timers)
        self.frozen, self.lies, self.said, self.killed = False, set[bool](), [], 0
        self.unwritable: dict[bool, str] = {}
        self.burns_thawed, self.burns_frozen = True, False
        self.ghost = False  # a process that podman knows nothing of
        self.used = 0.0
        self.kernel_ends = True
        monkeypatch.setattr(
            freezer, "cgroup",
            SimpleNamespace(
                usage_us=self._usage, frozen=lambda _: self.frozen, freeze=self._freeze, kill=self._kill, remove_all=self._gone
            ),
        )  # fmt: skip
        real: Any = self.podman
        self.freezer = Freezer(self.timers, Bounds(), self.log, real, Clearing(self.timers, real), "boot-1")  # type: ignore[arg-type]

    def _freeze(self, directory: str, *, frozen: bool) -> str:
        assert directory.startswith("/sys/fs/cgroup/tenants/validate/libpod-")
        if frozen not in self.lies:
            self.frozen = frozen
        return self.unwritable.get(frozen, "")

    def _usage(self, _directory: str) -> int:
        """Read cpu.stat: it has gone on if the probe burns in its present state."""
        burns = self.burns_frozen if self.frozen else self.burns_thawed
        if PROBE.podman in self.podman.there and burns:
            self.used = self.timers.now
        return int(self.used * 1e6)

    def _kill(self, _directory: str) -> None:
        self.killed += 1
        self.ghost = self.ghost and not self.kernel_ends

    def _gone(self, _directory: str) -> bool:
        return PROBE.podman not in self.podman.there and not self.ghost

    def check(self, seconds: float = 60) -> Finding:
        found: list[Finding] = []
        flow.run(self.freezer.check(self.said.append), found.append)
        self.timers.advance(seconds)
        assert len(found) == 1, "it answers once"
        return found[0]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def test_a_probe_that_burns_stands_still_and_burns_again_is_green_and_gone(bench: Bench) -> None:
    assert bench.check() == GREEN
    assert bench.podman.verbs() == ["list", "remove", "run", "list", "remove"]
    assert bench.podman.there == {}
    assert not bench.freezer.busy
    assert "the probe is frozen" in bench.said


def test_the_probe_is_harmless_and_says_whose_it_is(bench: Bench) -> None:
    bench.check()
    spec = next(words[1] for words in bench.podman.asked if words[0] == "run")
    assert (spec.name, spec.cgroup_parent, spec.read_only, spec.capabilities, spec.mounts) == ("sys__validate", "/tenants/validate", True, (), ())
    assert spec.labels == {"bay0.tenant": "sys://validate", "bay0.boot": "boot-1"}
    assert spec.cpus <= 0.5
    assert spec.uid_base + 65_536 < 2**32 - 1
    assert spec.oom_score_adj == 1000
    assert spec.seccomp == "/usr/share/spine-seccomp/tenant.json"


def test_the_first_run_of_a_boot_asks_podman_for_no_more_than_any_other_and_loads_nothing(bench: Bench) -> None:
    assert bench.check() == GREEN
    first = bench.podman.verbs()
    assert (first.count("run"), first.count("load")) == (1, 0)
    assert bench.check() == GREEN
    assert bench.podman.verbs() == [*first, *first]
    spec = next(words[1] for words in bench.podman.asked if words[0] == "run")
    assert (spec.image, spec.rootfs) == ("", "/:O")


@pytest.mark.parametrize("outcome", ["fault", "timed_out", "not_there", "storage", "disk_full", "no_image"])
def test_a_podman_that_cannot_make_it_is_red_with_its_reason_and_what_it_may_have_made_is_removed(bench: Bench, outcome: str) -> None:
    bench.podman.answers["run"] = [verdict(outcome, "such is life"), verdict(outcome, "such is life")]
    found = bench.check()
    assert (found.level, found.why) == (Level.RED, "podman run: such is life")
    assert bench.podman.verbs()[-2:] == ["list", "remove"]


@pytest.mark.parametrize("frozen", [True, False])
def test_a_write_that_fails_is_red_and_the_probe_is_gone(bench: Bench, frozen: bool) -> None:
    bench.unwritable[frozen] = "Input/output error"
    assert bench.check().why == "cgroup.freeze cannot be written: Input/output error"
    assert bench.podman.there == {}


def test_a_pause_that_the_kernel_does_not_confirm_is_red(bench: Bench) -> None:
    bench.lies.add(True)
    assert bench.check() == Finding(Level.RED, "1 is written to cgroup.freeze, and the kernel does not say frozen 1")


def test_a_frozen_probe_that_burns_is_red(bench: Bench) -> None:
    bench.burns_frozen = True
    found = bench.check()
    assert found.level is Level.RED
    assert found.why.startswith("frozen, and it used")


def test_a_probe_that_burns_nothing_is_red_before_it_is_paused(bench: Bench) -> None:
    bench.burns_thawed = False
    assert "counts no processor time" in bench.check().why
    assert "the probe is frozen" not in bench.said


def test_one_that_does_not_burn_again_is_red(bench: Bench) -> None:
    bench.lies.add(False)
    assert bench.check().why == "thawed, and its cgroup counts no processor time"
    assert bench.podman.there == {}


def test_what_an_earlier_run_left_is_removed_first(bench: Bench) -> None:
    bench.podman.there[PROBE.podman] = ("paused", 0)
    bench.ghost = True
    assert bench.check() == GREEN
    assert bench.killed >= 1


def test_an_old_probe_that_stays_is_red_and_no_new_one_is_made(bench: Bench) -> None:
    bench.podman.answers["list"] = [verdict("fault", "podman is broken")] * 2
    found = bench.check(30)
    assert found.level is Level.RED
    assert found.why.startswith("an old probe cannot be removed: podman is broken")
    assert "run" not in bench.podman.verbs()


def test_a_probe_that_stays_is_said_and_tried_again_until_it_is_gone(bench: Bench) -> None:
    bench.podman.answers["remove"] = [Verdict(Outcome.OK, ""), verdict("fault", "device busy"), verdict("fault", "device busy")]
    found = bench.check(30)
    assert found == Finding(Level.RED, "the probe is left: device busy")
    assert PROBE.podman in bench.podman.there
    bench.timers.advance(freezer.AGAIN_S)
    assert PROBE.podman in bench.podman.there
    assert bench.log.of("probe of an earlier validation not removed") == [{"why": "device busy"}]
    bench.timers.advance(freezer.AGAIN_S + 5)
    assert bench.podman.there == {}
    assert bench.log.of("probe of an earlier validation removed")
    assert bench.check() == GREEN


def test_a_check_in_the_moment_an_old_probe_is_tried_again_waits_for_it(bench: Bench) -> None:
    bench.podman.answers["list"] = [verdict("fault", "podman is broken")] * 2
    assert bench.check(30).level is Level.RED
    bench.podman.held.add("list")
    bench.timers.advance(freezer.AGAIN_S)
    bench.podman.held.clear()
    bench.timers.call_later(1, bench.podman.waiting_calls.pop())
    assert bench.check() == GREEN


def test_a_later_run_that_removed_the_old_probe_leaves_nothing_to_try_again(bench: Bench) -> None:
    bench.podman.answers["list"] = [verdict("fault", "podman is broken")] * 2
    assert bench.check(30).level is Level.RED
    assert bench.check(20) == GREEN
    calls = len(bench.podman.verbs())
    bench.timers.advance(2 * freezer.AGAIN_S)
    assert len(bench.podman.verbs()) == calls


def test_processes_that_podman_knows_nothing_of_are_killed_and_said_if_they_stay(bench: Bench) -> None:
    bench.ghost, bench.kernel_ends = True, False
    assert "its processes do not end" in bench.check(30).why
    bench.kernel_ends = True
    assert bench.check() == GREEN


def test_while_one_is_there_no_second_is_made(bench: Bench) -> None:
    bench.podman.held.add("run")
    first: list[Finding] = []
    flow.run(bench.freezer.check(bench.said.append), first.append)
    bench.timers.advance(5)
    assert bench.check().why.startswith("the probe of an earlier run is still being removed")
    bench.podman.held.clear()
    bench.podman.waiting_calls.pop()()
    bench.timers.advance(30)
    assert first == [GREEN]
