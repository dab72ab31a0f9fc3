"""Tenants that are a process of the spine: kept alive with a back-off, ended when asked, whatever they ignore."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
from kit import Journal, World, alive, in_child, zombies

from bay0.effects import cgroup
from bay0.effects.spawn import Child
from bay0.machines import MACHINES
from bay0.machines.engine import Engine
from bay0.machines.instance import Instance
from bay0.machines.tenant import E, S
from bay0.tenants import port as service
from bay0.tenants.port import Services, ServiceSpec, console_tty

NAME = "sys://thing"


class Bench:
    """The real engine, spawner and reaper; the back-off is shortened. For use inside `in_child`."""

    def __init__(self, *argv: str, **spec: Any) -> None:
        service.BACK_OFF_S = (0.01, 0.02, 0.04, 0.08)
        self.world = World()
        self.log = self.world.log
        self.journal = Journal()
        self.engine = Engine("b", self.world.reactor, lambda: 0, self.log)
        self.services = Services(self.engine, self.world.reactor, self.world.spawner, self.world.bounds, self.log)
        self.engine.keep_with(self.journal)
        self.engine.serve("tenant", self.services)
        self.services.specs[NAME] = ServiceSpec(argv, **spec)
        self.tenant: Instance = self.engine.add(NAME, MACHINES["tenant"])

    def send(self, event: E) -> Bench:
        self.engine.send(NAME, event)
        return self

    def until(self, state: S) -> Bench:
        self.world.until(lambda: self.tenant.now is state, f"{state}, it is {self.tenant.now}")
        return self

    @property
    def pid(self) -> int:
        return int(self.log.of("service started")[-1]["pid"])

    def starts(self) -> int:
        return len(self.log.of("service started"))


@in_child
def test_a_tenant_owns_its_process_and_its_cgroup_and_nobody_elses() -> None:
    bench = Bench("sleep", "100")
    assert not bench.services.owns(NAME, os.getpid(), "/services/thing"), "nothing of it runs: whoever is there is an impostor"
    bench.send(E.START).until(S.RUNNING)
    assert bench.services.owns(NAME, bench.pid, "")
    assert bench.services.owns(NAME, os.getpid(), "/services/thing")
    assert bench.services.owns(NAME, os.getpid(), "/services/thing/inner")
    for group in ("", "/", "/services/thing-2", "/services/console", "/commands/3"):
        assert not bench.services.owns(NAME, os.getpid(), group)
    assert not bench.services.owns("sys://other", bench.pid, "/services/other")


@in_child
def test_a_service_is_started_and_runs() -> None:
    bench = Bench("sleep", "100").send(E.START).until(S.RUNNING)
    assert alive(bench.pid)
    assert [step.dest for step in bench.journal.steps] == ["starting", "running"]


@in_child
def test_a_service_that_ends_is_started_again() -> None:
    bench = Bench("sleep", "100").send(E.START).until(S.RUNNING)
    first = bench.pid
    os.kill(first, signal.SIGKILL)
    bench.until(S.WAITING).until(S.RUNNING)
    assert bench.pid != first
    assert bench.log.of("service ended")[0]["why"] == "signal 9"
    assert zombies() == []


@in_child
def test_a_service_that_dies_at_once_is_tried_ever_more_slowly_and_its_attempts_are_counted() -> None:
    bench = Bench("sh", "-c", "exit 3").send(E.START)
    bench.world.until(lambda: bench.starts() >= 7)
    attempts = [step.attempts for step in bench.journal.steps if step.dest == "starting"]
    assert attempts[:4] == [1, 2, 3, 4]
    assert bench.log.of("service ended")[0]["why"] == "exit status 3"


@in_child
def test_a_service_that_lived_long_starts_anew_without_a_penalty() -> None:
    service.CALM_S = 0.01
    bench = Bench("sleep", "100").send(E.START)
    for starts in (1, 2, 3):
        bench.world.until(lambda: bench.journal.steps[-1].event == "calm", "it is calm")
        assert bench.tenant.attempts == 0
        bench.services.kill(NAME)
        bench.world.until(lambda starts=starts: bench.starts() > starts, "the next start")
    assert {step.attempts for step in bench.journal.steps} == {0, 1}, "each start is the first one"


@in_child
def test_a_service_that_dies_at_once_is_given_up_after_its_tries_and_a_start_tries_again() -> None:
    bench = Bench("sh", "-c", "exit 3", tries=4).send(E.START).until(S.FAILED)
    assert bench.starts() == 4
    assert "4 attempts" in bench.journal.steps[-1].why
    bench.send(E.START).until(S.FAILED)
    assert bench.starts() == 8


@in_child
def test_the_console_is_never_given_up() -> None:
    bench = Bench("sh", "-c", "exit 3").send(E.START)
    bench.world.until(lambda: bench.starts() >= 12, "a twelfth start")
    assert "failed" not in {step.dest for step in bench.journal.steps}


@in_child
def test_a_service_that_cannot_be_started_at_all_is_tried_ever_more_slowly_too() -> None:
    """A terminal that is gone, say: each try must not cost the same short pause for ever."""
    bench = Bench("true", tty="/dev/no-such-terminal").send(E.START)
    bench.world.until(lambda: len([s for s in bench.journal.steps if s.dest == "starting"]) >= 5)
    attempts = [step.attempts for step in bench.journal.steps if step.dest == "starting"]
    assert attempts[:5] == [1, 2, 3, 4, 5]
    assert "could not be started" in next(step.why for step in bench.journal.steps if step.dest == "waiting")


@in_child
def test_a_missing_program_is_a_quick_death() -> None:
    bench = Bench("no-such-program").send(E.START).until(S.WAITING)
    assert bench.log.of("service ended")[0]["why"] == "exit status 127"


@in_child
def test_stopping_ends_it_and_it_stays_stopped() -> None:
    bench = Bench("sleep", "100").send(E.START).until(S.RUNNING).send(E.STOP).until(S.STOPPED)
    assert not alive(bench.pid)
    for _ in range(10):
        bench.world.reactor.turn(0.02)
    assert bench.tenant.now is S.STOPPED
    assert bench.starts() == 1


def deaf(tmp_path: Path) -> Bench:
    """A running service that ignores TERM and HUP, and has come so far as to do so."""
    bench = Bench("sh", "-c", f"trap '' TERM HUP; touch {tmp_path}/deaf; while :; do sleep 0.05; done").send(E.START).until(S.RUNNING)
    bench.world.until((tmp_path / "deaf").exists)
    return bench


@in_child
def test_a_service_that_ignores_term_and_hangup_is_killed(tmp_path: Path) -> None:
    bench = deaf(tmp_path)
    bench.send(E.STOP).until(S.STOPPED)
    assert not alive(bench.pid)
    assert bench.log.of("service ended")[0]["why"] == "signal 9"


@in_child
def test_stopping_what_waits_for_its_next_try_is_immediate() -> None:
    bench = Bench("false")
    service.BACK_OFF_S = (100.0,)
    bench.send(E.START).until(S.WAITING).send(E.STOP).until(S.STOPPED)
    assert bench.starts() == 1


@in_child
def test_what_runs_once_is_not_started_again() -> None:
    bench = Bench("true", once=True).send(E.START).until(S.STOPPED)
    assert bench.starts() == 1
    assert bench.journal.steps[-1].why == "asked to stop; nothing runs: it runs once"


@in_child
def test_what_this_boot_does_not_want_is_stopped_again_without_a_process() -> None:
    bench = Bench("true")
    bench.services.specs.clear()
    bench.send(E.START).until(S.STOPPED)
    assert bench.starts() == 0


@in_child
def test_converging_ends_whatever_runs(tmp_path: Path) -> None:
    bench = deaf(tmp_path)
    bench.send(E.CONVERGE).until(S.STOPPED)
    assert not alive(bench.pid)


@in_child
def test_converging_what_a_crash_left_running_finds_no_process_of_this_boot() -> None:
    bench = Bench("sleep", "100")
    bench.engine.forget(NAME)
    bench.tenant = bench.engine.adopt(
        MACHINES["tenant"], {"name": NAME, "state": "running", "seq": 5, "attempts": 0, "desired": "stopped", "config": ""}
    )
    bench.send(E.CONVERGE).until(S.STOPPED)
    assert bench.starts() == 0


@in_child
def test_the_kill_that_backs_up_a_stop_does_not_hit_the_next_process(tmp_path: Path) -> None:
    """It was stopped and started again within the grace; both processes are in the cgroup of the same name."""
    killed: list[int] = []
    cgroup.make = lambda _path: str(tmp_path)  # type: ignore[assignment]  # this process ends with the test
    cgroup.populated = lambda _directory: True  # type: ignore[assignment]
    Child.kill = lambda child: killed.append(child.pid)  # type: ignore[method-assign]
    bench = Bench("sleep", "100").send(E.START).until(S.RUNNING).send(E.STOP).until(S.STOPPED)
    killed.clear()
    bench.send(E.START).until(S.RUNNING)
    later: list[int] = []
    bench.world.reactor.call_later(bench.world.bounds.term_grace + 0.1, lambda: later.append(1))
    bench.world.until(lambda: later)
    assert killed == []


@in_child
def test_a_terminal_becomes_the_controlling_one_of_the_service() -> None:
    master, slave = pty.openpty()
    bench = (
        Bench("sh", "-c", "test -t 0 && test -t 1 && test -t 2 && echo yes >/dev/tty; exec sleep 100", tty=os.ttyname(slave))
        .send(E.START)
        .until(S.RUNNING)
    )
    seen = bytearray()
    os.set_blocking(master, False)

    def look() -> bool:
        with contextlib.suppress(BlockingIOError):
            seen.extend(os.read(master, 100))
        return b"yes" in seen

    bench.world.until(look)
    assert os.getsid(bench.pid) == bench.pid


@in_child
def test_a_service_has_its_own_words_in_the_environment(tmp_path: Path) -> None:
    bench = Bench("sh", "-c", f"echo $TERM-$HOME >{tmp_path}/out; exec sleep 100", env={"TERM": "vt220", "HOME": "/x"}).send(E.START)
    bench.world.until(lambda: (tmp_path / "out").exists() and (tmp_path / "out").read_text())
    assert (tmp_path / "out").read_text() == "vt220-/x\n"


@pytest.mark.parametrize(("active", "tty"), [("ttyS0\n", "/dev/ttyS0"), ("tty0 ttyS0\n", "/dev/ttyS0"), ("ttyS0 tty0\n", "/dev/tty0"), ("\n", None)])
def test_the_consoles_terminal_is_the_preferred_one(tmp_path: Path, active: str, tty: str | None) -> None:
    (tmp_path / "active").write_text(active)
    assert console_tty(str(tmp_path / "active")) == tty


def test_without_a_console_there_is_no_terminal(tmp_path: Path) -> None:
    assert console_tty(str(tmp_path / "none")) is None


# ---- what it is given


@in_child
def test_a_service_finds_what_it_was_lent_as_descriptor_3_and_a_new_one_at_each_start() -> None:
    ends: list[socket.socket] = []

    def lend() -> socket.socket:
        ours, theirs = socket.socketpair()
        ends.append(ours)
        return theirs

    bench = Bench("sh", "-c", "echo hello >&3; exec sleep 100", lend=lend).send(E.START).until(S.RUNNING)
    ends[0].settimeout(10)
    assert ends[0].recv(10) == b"hello\n"
    os.kill(bench.pid, signal.SIGKILL)
    bench.until(S.WAITING).until(S.RUNNING)
    ends[1].settimeout(10)
    assert ends[1].recv(10) == b"hello\n"
    assert ends[0].recv(10) == b"", "of the first nothing is left open on our side"


@in_child
def test_a_service_that_cannot_be_lent_its_socket_is_tried_again() -> None:
    tries: list[int] = []

    def lend() -> socket.socket:
        tries.append(1)
        if len(tries) < 3:
            raise OSError("no descriptor is left")
        return socket.socketpair()[1]

    Bench("sleep", "100", lend=lend).send(E.START).until(S.RUNNING)
    assert len(tries) == 3


@in_child
def test_a_service_gets_its_limits_before_it_starts_and_without_them_it_does_not(tmp_path: Path) -> None:
    cgroup.ROOT = str(tmp_path)
    group = tmp_path / "services" / "thing"
    group.mkdir(parents=True)
    for path in (tmp_path / "cgroup.controllers", tmp_path / "cgroup.procs", group / "memory.max"):
        path.touch()
    bench = Bench("sleep", "100", limits={"memory.max": "1000000", "pids.max": "4"}).send(E.START).until(S.WAITING)
    assert bench.log.of("service started") == []
    (group / "pids.max").touch()
    bench.until(S.RUNNING)
    assert [(group / name).read_text() for name in ("memory.max", "pids.max")] == ["1000000", "4"]


@in_child
def test_what_runs_once_and_is_killed_has_somebody_who_says_so_with_its_status(tmp_path: Path) -> None:
    said = ("sh", "-c", f'echo "$0 $1" >{tmp_path}/said', "killed")
    bench = Bench("sh", "-c", "kill -KILL $$", once=True, if_killed=said).send(E.START)
    bench.world.until(lambda: (tmp_path / "said").exists() and (tmp_path / "said").read_text(), "its word")
    assert (tmp_path / "said").read_text() == "killed 137\n"
    bench.until(S.STOPPED)


@in_child
@pytest.mark.parametrize("how", ["it ends by itself", "it is stopped"])
def test_what_ends_by_itself_or_by_our_stop_was_not_killed(tmp_path: Path, how: str) -> None:
    argv = ("sh", "-c", "exit 3") if how == "it ends by itself" else ("sleep", "100")
    bench = Bench(*argv, once=True, if_killed=("touch", f"{tmp_path}/said")).send(E.START)
    if how == "it is stopped":
        bench.until(S.RUNNING).send(E.STOP)
    bench.until(S.STOPPED)
    assert not (tmp_path / "said").exists()
    assert bench.log.of("command starts") == []


@in_child
def test_a_service_that_is_killed_for_hanging_is_started_again() -> None:
    bench = Bench("sleep", "100").send(E.START).until(S.RUNNING)
    first = bench.pid
    bench.services.kill(NAME)
    bench.services.kill("sys://other")
    bench.until(S.WAITING).until(S.RUNNING)
    assert bench.pid != first
