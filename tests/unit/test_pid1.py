"""What only PID 1 does: one owner of all waits, and signals that never raise."""

from __future__ import annotations

import ctypes
import os
import signal
import time

from kit import Log, World, alive, in_child, until, zombies

from bay0.pid1.reactor import Reactor
from bay0.pid1.reaper import HANDLED, Reaper, Signals, ignore_python_sigint


def fork_exit(status: int) -> int:
    pid = os.fork()
    if pid == 0:
        os._exit(status)
    return pid


@in_child
def test_one_drain_reaps_everything_that_has_ended() -> None:
    """SIGCHLD coalesces: one signal may stand for many children."""
    reaper = Reaper(Log())
    statuses: dict[int, int] = {}
    expected = {}
    for number in range(100):
        pid = fork_exit(number)
        expected[pid] = number
        reaper.own(pid, lambda status, pid=pid: statuses.__setitem__(pid, os.waitstatus_to_exitcode(status)))
    until(lambda: len(zombies()) == 100)
    reaper.drain()
    assert statuses == expected
    assert (reaper.reaped, reaper.orphans, zombies()) == (100, 0, [])


@in_child
def test_a_flood_of_ends_leaves_turns_to_others_and_nothing_behind() -> None:
    reactor = Reactor()
    reaper = Reaper(Log(), reactor.call_soon, clock=reactor.clock)
    told: list[tuple[int, int]] = []
    for _ in range(20):
        reaper.own(fork_exit(0), lambda status: (told.append((reactor.turns, status)), time.sleep(0.006)))
    until(lambda: len(zombies()) == 20)
    for _ in range(3):  # as three signals would
        reactor.call_soon(reaper.drain)
    until(lambda: len(told) == 20, step=lambda: reactor.turn(0))
    turns = [turn for turn, _status in told]
    assert max(turns.count(turn) for turn in turns) == 2, "two of them take more than TURN_S"
    reactor.turn(0)
    assert zombies() == []


@in_child
def test_children_of_nobody_are_reaped_and_counted_as_orphans() -> None:
    log = Log()
    reaper = Reaper(log)
    for _ in range(20):
        middle = os.fork()
        if middle == 0:
            fork_exit(3)
            os._exit(0)
        reaper.own(middle, lambda _status: None)
    until(lambda: reaper.reaped == 40, step=lambda: (reaper.drain(), time.sleep(0.005)))
    assert reaper.orphans == 20
    assert [line["status"] for line in log.of("orphan reaped")] == [3] * 20
    assert zombies() == []


@in_child
def test_an_owner_is_told_once_and_a_reused_pid_is_an_orphan() -> None:
    reaper = Reaper(Log())
    told: list[int] = []
    reaper.own(fork_exit(7), told.append)
    until(lambda: told, step=reaper.drain)
    assert [os.waitstatus_to_exitcode(status) for status in told] == [7]
    fork_exit(0)
    until(lambda: reaper.orphans == 1, step=reaper.drain)
    assert len(told) == 1


@in_child
def test_draining_with_no_children_at_all_is_harmless() -> None:
    reaper = Reaper(Log())
    reaper.drain()
    assert reaper.reaped == 0


@in_child
def test_a_child_that_still_runs_is_not_waited_for() -> None:
    reaper = Reaper(Log())
    pid = os.fork()
    if pid == 0:
        time.sleep(60)
    reaper.drain()
    assert alive(pid)
    assert reaper.reaped == 0


@in_child
def test_signals_become_calls_in_the_reactor() -> None:
    reactor = Reactor()
    signals = Signals(reactor)
    seen: list[int] = []
    for number in HANDLED:
        signals.on[number] = lambda number=number: seen.append(number)
    signals.install()
    for number in HANDLED:
        os.kill(os.getpid(), number)
    until(lambda: set(seen) == set(HANDLED), step=lambda: reactor.turn(0.05))


@in_child
def test_no_signal_raises_or_ends_the_process() -> None:
    reactor = Reactor()
    signals = Signals(reactor)
    signals.install()
    for _ in range(3):
        for number in HANDLED:
            os.kill(os.getpid(), number)
        reactor.turn(0.01)
    assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler


@in_child
def test_a_signal_wakes_a_poll_that_waits_without_limit() -> None:
    reactor = Reactor()
    signals = Signals(reactor)
    signals.on[signal.SIGUSR1] = reactor.stop
    signals.install()
    if (pid := os.fork()) == 0:
        time.sleep(0.1)
        os.kill(os.getppid(), signal.SIGUSR1)
        os._exit(0)
    reactor.run()
    os.waitpid(pid, 0)


@in_child
def test_a_flood_of_signals_still_looks_for_ended_children() -> None:
    """The wake-up pipe may be full and SIGCHLD's byte lost: any signal makes the reaper look."""
    world = World()
    ended: list[int] = []
    pid = fork_exit(9)
    world.reaper.own(pid, ended.append)
    for _ in range(200000):
        os.kill(os.getpid(), signal.SIGUSR2)
    world.until(lambda: ended)
    assert os.waitstatus_to_exitcode(ended[0]) == 9


@in_child
def test_before_the_reactor_is_there_ctrl_alt_del_does_not_raise() -> None:
    ignore_python_sigint()
    for number in HANDLED:
        os.kill(os.getpid(), number)
    assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL, "ended children stay zombies until the reaper comes"


@in_child
def test_orphans_and_owned_commands_do_not_disturb_each_other() -> None:
    """The handoff's trap: a second waiter turns failing children into exit status 0."""
    world = World()
    libc = ctypes.CDLL(None)
    assert libc.getpid() == os.getpid()
    storm = [("sh", "-c", "for i in 1 2 3 4 5; do (sh -c 'exit 9' &) ; done; exit 3") for _ in range(40)]
    results = world.run_all(storm)
    assert [r.status for r in results] == [3] * 40
    world.until(lambda: world.reaper.orphans == 200, "all orphans reaped")
    assert zombies() == []
