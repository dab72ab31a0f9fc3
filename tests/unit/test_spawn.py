"""Real processes through the one spawner: every ending is told once, truly, and within its bound."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from kit import World, alive, descriptors_kept, in_child, until, zombies

from bay0.base.errors import SpawnError
from bay0.boot.methods import RUN_DEADLINE_MAX_S
from bay0.effects import cgroup, spawn
from bay0.effects.spawn import CAPTURE_LIMIT, ENVIRONMENT, Child, Ending, Result

PYTHON = sys.executable


def python(code: str) -> tuple[str, ...]:
    return (PYTHON, "-S", "-c", code)


@in_child
def test_every_group_that_is_made_has_its_ceilings_and_a_service_its_own_limits_above_them(tmp_path: Path) -> None:
    cgroup.ROOT = str(tmp_path)
    for path in ("cgroup.controllers", "cgroup.procs", "services/a/pids.max", "services/a/memory.max", "services/a/cgroup.procs"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    world = World()
    world.spawner.bound({"pids.max": "847", "memory.max": "1000", "not.there": "1"})
    ended: list[int] = []
    world.spawner.start("a", ["true"], ended.append, group="services/a", limits={"pids.max": "4"})
    world.until(lambda: ended, "its end")
    assert [(tmp_path / "services" / "a" / name).read_text() for name in ("pids.max", "memory.max")] == ["4", "1000"]
    assert not (tmp_path / "services" / "a" / "not.there").exists()


# ---- endings


@in_child
def test_every_exit_status_is_told_as_it_was() -> None:
    results = World().run_all([("sh", "-c", f"exit {status}") for status in range(256)])
    assert [(r.ending, r.status) for r in results] == [(Ending.EXITED, status) for status in range(256)]
    assert [r.ok for r in results] == [True] + [False] * 255


@in_child
def test_two_hundred_failing_children_at_once_do_not_become_exit_status_0() -> None:
    """The handoff's trap: next to another waiter, 200 of 200 were read as 0. Here each has a deadline, as there."""
    world = World()
    expected = [1 + number % 120 for number in range(200)]
    results = world.run_all([("sh", "-c", f"exit {status}") for status in expected], deadline_s=60)
    assert [r.status for r in results] == expected
    assert (world.spawner.running, world.spawner.abandoned, zombies()) == (0, 0, [])


@in_child
def test_a_command_that_is_killed_by_a_signal_says_which() -> None:
    world = World()
    for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV, signal.SIGPIPE):
        result = world.sh(f"kill -{int(number)} $$")
        assert (result.ending, result.status) == (Ending.SIGNALLED, -number)
        assert result.reason() == f"ended by signal {int(number)}"


@in_child
def test_a_missing_program_is_status_127_and_says_its_name() -> None:
    result = World().run("no-such-program-anywhere", "-x")
    assert (result.ending, result.status) == (Ending.EXITED, 127)
    assert "no-such-program-anywhere" in result.stderr
    assert "127" in result.reason()


@in_child
def test_a_file_that_is_no_program_is_status_126(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("not a program")
    assert World().run(str(plain)).status == 126


@in_child
def test_a_command_line_the_kernel_does_not_take_is_status_127() -> None:
    with descriptors_kept_in(World()) as world:
        result = world.run("echo", "x" * (4 << 20))
        assert (result.ending, result.status, result.stdout) == (Ending.EXITED, 127, "")
        assert "could not be started" in result.stderr


@in_child
def test_a_command_with_an_impossible_argument_is_refused_and_leaks_nothing() -> None:
    with descriptors_kept_in(World()) as world:
        for bad in ("nul\0inside", "lone \ud800 surrogate"):
            result = world.run("echo", bad)
            assert (result.ending, result.status) == (Ending.EXITED, 127)


@in_child
def test_without_descriptors_left_a_command_fails_and_leaks_nothing() -> None:
    with descriptors_kept_in(World()) as world:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        used = len(os.listdir("/proc/self/fd")) - 1
        for spare in range(5):
            resource.setrlimit(resource.RLIMIT_NOFILE, (used + spare, hard))
            results: list[Result] = []
            world.spawner.run("true", ["true"], 5, results.append)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            world.until(lambda results=results: results)
            assert results[0].status in (0, 127)
        assert world.run("true").ok


@in_child
def test_a_cgroup_that_cannot_be_made_is_a_failed_command_not_a_failed_pid_1(tmp_path: Path) -> None:
    def no_room(_path: str) -> str:
        raise OSError(28, "No space left on device")

    with descriptors_kept_in(World()) as world:
        cgroup.make = no_room  # type: ignore[assignment]  # this process ends with the test
        assert world.run("true").status == 127
        with pytest.raises(SpawnError):
            world.spawner.start("service", ["true"], lambda _: None, group="services/x")
        with pytest.raises(SpawnError):
            world.spawner.fork("worker", lambda: 0, lambda _: None, group="services/state", keep=2)


@in_child
def test_a_cgroup_that_cannot_be_joined_ends_the_command_before_it_begins(tmp_path: Path) -> None:
    root = tmp_path / "cgroup"
    root.mkdir()
    for name in ("cgroup.controllers", "cgroup.procs"):
        (root / name).write_text("")
    cgroup.ROOT = str(root)
    real = cgroup.make
    cgroup.make = lambda path: ((made := real(path)) and os.mkdir(f"{made}/cgroup.procs")) or made  # type: ignore[assignment]
    result = World().run("touch", str(tmp_path / "ran"))
    assert result.status == 125
    assert not (tmp_path / "ran").exists()


def descriptors_kept_in(world: World) -> Any:
    """Check for leaked descriptors around a world, after a first command has opened what stays open."""

    @contextlib.contextmanager
    def kept() -> Any:
        world.run("true")
        with descriptors_kept():
            yield world

    return kept()


# ---- deadlines


@in_child
def test_a_command_that_takes_too_long_is_ended_and_says_so() -> None:
    world = World()
    result = world.run("sleep", "100", deadline_s=0.2)
    assert (result.ending, result.status) == (Ending.TIMED_OUT, -signal.SIGTERM)
    assert result.reason().startswith("timed_out after 0.")
    assert world.log.of("command overdue") == [{"command": "sleep", "deadline_s": 0.2}]


@in_child
def test_a_command_that_ignores_term_is_killed_after_the_grace() -> None:
    world = World()
    result = world.sh("trap '' TERM; sleep 100 & wait; wait; sleep 100", deadline_s=0.2)
    assert (result.ending, result.status) == (Ending.TIMED_OUT, -signal.SIGKILL)
    assert result.took_s >= 0.2 + world.bounds.term_grace
    assert world.spawner.abandoned == 0


@in_child
def test_a_command_that_tidies_up_on_term_is_given_the_time() -> None:
    result = World().sh("trap 'echo tidied; exit 7' TERM; while :; do sleep 0.02; done", deadline_s=0.3)
    assert (result.ending, result.status, result.stdout) == (Ending.TIMED_OUT, 7, "tidied\n")


@in_child
def test_a_grandchild_that_keeps_the_pipe_open_does_not_hold_the_answer() -> None:
    world = World()
    result = world.sh("sleep 300 & exit 5")
    assert (result.ending, result.status) == (Ending.EXITED, 5)
    assert result.took_s < 10
    assert (world.spawner.running, world.spawner.abandoned) == (0, 0)


@in_child
def test_whoever_is_in_the_commands_cgroup_is_ended_with_it(tmp_path: Path) -> None:
    """A grandchild may leave the process group; the cgroup still knows it. Plain files stand in for the hierarchy here."""
    world = World()
    stray = os.posix_spawn("/bin/sleep", ["sleep", "300"], {}, setsid=True)
    (tmp_path / "cgroup.procs").write_text(f"0\n{stray}\n")
    (tmp_path / "cgroup.kill").write_text("")
    child = Child(stray, "x", str(tmp_path), ended=True)
    child.kill()
    world.until(lambda: not alive(stray))
    assert (tmp_path / "cgroup.kill").read_text() == "1"


@in_child
def test_killing_the_holders_of_the_pipe_is_counted_as_one_end_only(tmp_path: Path) -> None:
    """The pipes may end while they are being dropped: that once counted a command as un-abandoned."""
    world = World()
    note = tmp_path / "pid"

    def kill_and_wait(_child: Child) -> None:
        pid = int(note.read_text())
        os.kill(pid, signal.SIGKILL)
        until(lambda: not alive(pid))

    Child.kill = kill_and_wait  # type: ignore[method-assign]  # this process ends with the test
    result = world.sh(f"sleep 300 & echo $! >{note}; exit 5")
    assert result.status == 5
    assert world.spawner.abandoned == 0


@in_child
def test_a_process_that_does_not_die_is_given_up_counted_and_taken_back_when_it_ends() -> None:
    """As one that hangs in the kernel on a dead disk. Here the reaper looks away until told otherwise."""
    world = World()
    drain, world.signals.on[signal.SIGCHLD] = world.signals.on[signal.SIGCHLD], lambda: None
    result = world.run("sleep", "100", deadline_s=0.1)
    assert result.ending is Ending.ABANDONED
    assert not result.ok
    assert (world.spawner.running, world.spawner.abandoned) == (0, 1)
    world.signals.on[signal.SIGCHLD] = drain
    drain()
    assert world.spawner.abandoned == 0
    assert zombies() == []


# ---- output


@in_child
def test_both_streams_are_captured_and_kept_apart() -> None:
    result = World().sh("echo out; echo err >&2; printf more")
    assert (result.stdout, result.stderr, result.dropped) == ("out\nmore", "err\n", 0)


@in_child
def test_the_reason_of_a_failure_is_its_last_line() -> None:
    result = World().sh("echo first >&2; echo second >&2; exit 2")
    assert result.reason() == "exit status 2: second"
    assert World().sh("echo only; exit 2").reason() == "exit status 2: only"
    assert World().sh("exit 2").reason() == "exit status 2: no output"


@in_child
def test_two_hundred_megabytes_of_output_stay_bounded_in_memory() -> None:
    world = World()
    world.run("true")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    size = 200 << 20
    result = world.sh(f"head -c {size} /dev/zero", deadline_s=50)
    assert result.ok
    assert len(result.stdout) == CAPTURE_LIMIT
    assert result.dropped == size - CAPTURE_LIMIT
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8 << 10, "KiB"


@in_child
def test_endless_output_ends_with_its_deadline_and_does_not_hold_the_reactor() -> None:
    world = World()
    ticks: list[float] = []

    def tick() -> None:
        ticks.append(world.reactor.clock())
        world.reactor.call_later(0.02, tick)

    tick()
    result = world.sh("exec cat /dev/zero", deadline_s=0.6)
    assert result.ending is Ending.TIMED_OUT
    assert len(result.stdout) == CAPTURE_LIMIT
    assert result.dropped > 0
    assert len(ticks) >= 5, "timers went on"


@in_child
def test_bytes_that_are_not_utf_8_are_replaced() -> None:
    assert World().sh(r"printf 'a\377\376b\303'").stdout == "a��b�"


@in_child
def test_a_slow_drip_is_captured_whole() -> None:
    result = World().sh("for i in 1 2 3 4 5; do printf $i; sleep 0.03; done")
    assert result.stdout == "12345"


@in_child
def test_output_after_the_streams_are_closed_is_no_problem() -> None:
    result = World().sh("exec >&- 2>&-; sleep 0.1; exit 4")
    assert (result.ending, result.status, result.stdout) == (Ending.EXITED, 4, "")


# ---- what a child finds


@in_child
def test_the_environment_is_the_allow_list_and_nothing_else() -> None:
    os.environ.update({"LD_LIBRARY_PATH": "/frozen", "_PYI_ARCHIVE_FILE": "x", "SECRET": "1", "TERM": "odd"})
    world = World()
    listed = dict(line.split("=", 1) for line in world.run("env", "-0", env=None).stdout.rstrip("\0").split("\0"))
    for added_by_sh in ("PWD", "OLDPWD", "_", "SHLVL"):
        listed.pop(added_by_sh, None)
    assert listed == ENVIRONMENT


@in_child
def test_a_caller_may_add_to_the_environment() -> None:
    assert World().run("printenv", "MORE", env={"MORE": "a b=c"}).stdout == "a b=c\n"


@in_child
def test_stdin_is_empty_and_only_three_descriptors_are_inherited() -> None:
    for name in os.listdir("/proc/self/fd"):  # what pytest's own caller left inheritable is not ours to judge
        if int(name) > 2 and os.path.exists(f"/proc/self/fd/{name}"):
            os.set_inheritable(int(name), False)
    held = [socket.socketpair(), os.pipe(), os.open("/dev/null", os.O_RDWR)]
    world = World()
    assert world.run("cat").stdout == ""
    listing = world.sh("ls -l /proc/self/fd").stdout
    numbers = {line.split(" -> ")[0].split()[-1] for line in listing.splitlines() if " -> " in line}
    assert numbers <= {"0", "1", "2", "3"}, listing  # 3 is ls's own view of the directory
    assert held


@in_child
def test_signal_mask_and_dispositions_are_reset() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    world = World()
    status = dict(line.split(":\t") for line in world.run("cat", "/proc/self/status").stdout.splitlines() if line.startswith("Sig") and "\t" in line)
    assert int(status["SigBlk"], 16) == 0
    assert int(status["SigIgn"], 16) & ~(0x3 << 31) == 0, "but for the two that the C library keeps for itself"


@in_child
def test_the_oom_score_of_pid_1_is_not_inherited() -> None:
    with open("/proc/self/oom_score_adj", "r+", encoding="ascii") as score:
        score.write("500")
    if os.getuid() != 0:
        pytest.skip("only root may lower a score again")
    assert World().run("cat", "/proc/self/oom_score_adj").stdout == "0\n"


@in_child
def test_where_the_oom_score_cannot_be_reset_nothing_is_said_about_it() -> None:
    spawn._ENTER = spawn._ENTER.replace("/proc/self/oom_score_adj", "/nowhere/oom_score_adj")
    result = World().sh("echo fine")
    assert (result.status, result.stdout, result.stderr) == (0, "fine\n", "")


@in_child
def test_a_child_leads_a_session_of_its_own() -> None:
    pid, session = World().sh("echo $$; cut -d' ' -f6 /proc/$$/stat").stdout.split()
    assert pid == session


@in_child
def test_a_line_is_logged_before_and_after_each_command() -> None:
    world = World()
    world.sh("exit 3")
    assert world.log.events() == ["command starts", "command ended"]
    ended = world.log.of("command ended")[0]
    assert (ended["command"], ended["ending"], ended["status"]) == ("sh", "exited", 3)


@in_child
def test_no_descriptor_is_left_behind() -> None:
    with descriptors_kept_in(World()) as world:
        world.run_all([("true",)] * 20)
        world.sh("sleep 300 & exit 1")
        world.run("sleep", "100", deadline_s=0.1)


# ---- services and the fork


@in_child
def test_a_service_is_started_and_its_end_is_told() -> None:
    world = World()
    ends: list[int] = []
    child = world.spawner.start("x", ["sh", "-c", "exit 6"], ends.append, group="services/x")
    assert child.left
    world.until(lambda: ends)
    assert os.waitstatus_to_exitcode(ends[0]) == 6
    assert child.ended
    assert not child.left


@in_child
def test_an_ended_child_is_not_signalled_because_its_pid_may_be_somebody_elses() -> None:
    world = World()
    ends: list[int] = []
    child = world.spawner.start("x", ["true"], ends.append, group="services/x")
    world.until(lambda: ends)
    calls: list[Any] = []
    os.killpg = lambda *args: calls.append(args)  # type: ignore[assignment]
    child.kill()
    assert calls == []


def forked(world: World, inside: Any, env: dict[str, str] | None = None) -> Any:
    """What `inside()` returns in a fork, as JSON through the one descriptor it keeps."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ends: list[int] = []

    def main() -> int:
        with socket.socket(fileno=3) as peer:
            peer.send(json.dumps(inside()).encode())
        return 7

    os.environ.update(env or {})
    world.spawner.fork("worker", main, ends.append, group="services/state", keep=theirs.fileno())
    theirs.close()
    world.until(lambda: ends)
    assert os.waitstatus_to_exitcode(ends[0]) == 7
    ours.setblocking(False)
    return json.loads(ours.recv(65536))


@in_child
def test_the_forked_worker_has_one_descriptor_of_ours_and_three_null_devices() -> None:
    world = World()
    os.pipe()

    def inside() -> dict[str, str]:
        found = {}
        for name in range(100):
            try:
                found[str(name)] = os.readlink(f"/proc/self/fd/{name}").split(":")[0]
            except OSError:
                continue
        return found

    assert forked(world, inside) == {"0": "/dev/null", "1": "/dev/null", "2": "/dev/null", "3": "socket"}


@in_child
def test_the_forked_worker_has_a_session_default_signals_and_no_wake_up_pipe() -> None:
    world = World()
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)

    def inside() -> list[Any]:
        handled = [int(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGPIPE) if signal.getsignal(n) is not signal.SIG_DFL]
        return [os.getsid(0) == os.getpid(), handled, signal.set_wakeup_fd(-1)]

    assert forked(world, inside) == [True, [], -1]


@in_child
def test_a_forked_worker_that_fails_does_not_go_on_as_pid_1() -> None:
    world = World()
    ends: list[int] = []

    def main() -> int:
        raise RuntimeError("a defect")

    world.spawner.fork("worker", main, ends.append, group="services/state", keep=2)
    world.until(lambda: ends)
    assert os.waitstatus_to_exitcode(ends[0]) == 70


def test_the_longest_deadline_a_client_may_ask_for_is_bounded() -> None:
    assert RUN_DEADLINE_MAX_S == 3600


@pytest.mark.parametrize(
    ("ending", "status", "ok"),
    [
        (Ending.EXITED, 0, True),
        (Ending.EXITED, 1, False),
        (Ending.TIMED_OUT, 0, False),
        (Ending.ABANDONED, -9, False),
        (Ending.SIGNALLED, -15, False),
    ],
)
def test_only_an_exit_by_itself_with_status_0_is_ok(ending: Ending, status: int, ok: bool) -> None:
    assert Result(ending, status, "", "", 0, 1.0).ok is ok
