"""One worker that answers, at most one that was given up, and a new one only after the real end of the old one."""

from __future__ import annotations

import os
import signal
import socket
from typing import Any

import pytest
from kit import HandClock, Launcher, Log, World, alive, in_child

from bay0.base.errors import SpawnError
from bay0.state.link import BACK_OFF_S, CALM_S, GONE, PACKET_MAX, TIMED_OUT, Answer, WorkerLink


class Bench:
    """A link with a played worker and a clock by hand."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.launcher = Launcher()
        self.news: list[str] = []
        self.answers: list[Answer] = []
        self.link = WorkerLink(
            self.clock.reactor, Log(), self.launcher,
            on_missed=lambda why: self.news.append(f"missed: {why}"),
            on_fault=lambda why: self.news.append(f"fault: {why}"),
            on_dead=lambda: self.news.append("dead"),
        )  # fmt: skip

    def ask(self, op: str = "hello", bound_s: float = 1.0, **arguments: Any) -> dict[str, Any]:
        self.link.ask(op, bound_s, self.answers.append, **arguments)
        return self.launcher.last.requests()[-1]


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.link.start()
    return made


def test_an_answer_comes_to_whoever_asked(bench: Bench) -> None:
    first, second = bench.ask("machines"), bench.ask("probe", text="x")
    assert (first["op"], second["op"], second["text"]) == ("machines", "probe", "x")
    bench.launcher.last.answer(second, True)
    bench.launcher.last.answer(first, [1, 2])
    bench.clock.wait()
    assert [answer.value for answer in bench.answers] == [True, [1, 2]]
    assert all(answer.ok for answer in bench.answers)


def test_an_error_is_an_answer_with_a_code(bench: Bench) -> None:
    bench.launcher.last.fail(bench.ask(), "full", "no space left")
    bench.clock.wait()
    assert bench.answers == [Answer(code="full", why="no space left")]
    assert not bench.answers[0].ok
    assert bench.news == []


@pytest.mark.parametrize(
    "packet",
    [
        b"nonsense", b"\xff", b"[]", b"1", b"{}", b'{"id":0}', b'{"id":"x","ok":1}', b'{"id":0,"error":{}}', b'{"id":0,"error":"full"}', b"[" * 60000,
        b'{"id":NaN,"ok":1}', b'{"id":1e999,"ok":1}',
    ],
)  # fmt: skip
def test_a_worker_that_makes_no_sense_is_given_up_and_does_not_end_pid_1(bench: Bench, packet: bytes) -> None:
    bench.ask("commit")
    bench.launcher.last.peer.send(packet)
    bench.clock.wait()
    assert [answer.code for answer in bench.answers] == [GONE]
    assert bench.launcher.last.killed == 1
    assert bench.news[0].startswith("fault: the state worker says what makes no sense")
    bench.launcher.last.die()
    bench.clock.wait(BACK_OFF_S[0] + 0.01)
    assert bench.news[-1] == "dead", "and the next one may start"


def test_without_a_worker_a_request_is_answered_gone_but_not_at_once() -> None:
    bench = Bench()
    bench.link.ask("hello", 1.0, bench.answers.append)
    assert bench.answers == []
    bench.clock.wait()
    assert [answer.code for answer in bench.answers] == [GONE]


def test_a_missed_bound_gives_the_worker_up_and_answers_everything_open(bench: Bench) -> None:
    bench.ask("commit", 1.0)
    bench.ask("journal", 5.0)
    bench.clock.wait(1.1)
    assert [answer.code for answer in bench.answers] == [TIMED_OUT, TIMED_OUT]
    assert bench.news == ["missed: commit gave no answer in 1 s"]
    assert bench.launcher.last.killed == 1
    assert (bench.link.there, bench.link.left_behind) == (False, 1)


def test_answers_that_are_there_are_heard_before_a_bound_is_called_missed(bench: Bench) -> None:
    requests = [bench.ask("commit"), bench.ask("probe"), bench.ask("history")]
    for request in requests:
        bench.launcher.last.answer(request, request["op"])
    bench.clock.now += 1.1  # our own turns were late, not the worker
    bench.clock.wait()
    assert [answer.value for answer in bench.answers] == ["commit", "probe", "history"]
    assert bench.news == []
    assert bench.link.there


def test_a_worker_that_was_given_up_is_dead_only_when_it_has_really_ended(bench: Bench) -> None:
    bench.ask()
    bench.clock.wait(1.1)
    bench.clock.wait(1000)
    assert "dead" not in bench.news, "SIGKILL does not end a process that hangs in the kernel"
    assert bench.link.left_behind == 1
    bench.launcher.last.die()
    assert bench.link.left_behind == 0
    bench.clock.wait(BACK_OFF_S[0] + 0.01)
    assert bench.news[-1] == "dead"


def test_a_late_answer_is_dropped(bench: Bench) -> None:
    request = bench.ask()
    worker = bench.launcher.last
    bench.clock.wait(1.1)
    with pytest.raises(BrokenPipeError):
        worker.answer(request)
    bench.clock.wait()
    assert len(bench.answers) == 1


def test_an_answer_to_a_question_nobody_asked_is_dropped(bench: Bench) -> None:
    bench.launcher.last.answer({"id": 99}, "surprise")
    bench.clock.wait()
    assert bench.answers == []


def test_every_request_is_answered_once(bench: Bench) -> None:
    request = bench.ask()
    bench.launcher.last.answer(request, 1)
    bench.launcher.last.answer(request, 2)
    bench.clock.wait()
    bench.clock.wait(5)
    assert [answer.value for answer in bench.answers] == [1]
    assert bench.news == []


def test_a_worker_that_dies_by_itself_is_a_fault_and_then_dead(bench: Bench) -> None:
    bench.ask("commit", 5.0)
    bench.launcher.last.die()
    assert [answer.code for answer in bench.answers] == [GONE]
    assert bench.news == ["fault: the state worker died"]
    bench.clock.wait(BACK_OFF_S[0] + 0.01)
    assert bench.news[-1] == "dead"
    bench.clock.wait(100)
    assert bench.news.count("dead") == 1


def test_the_last_answer_of_a_dying_worker_is_heard(bench: Bench) -> None:
    bench.launcher.last.answer(bench.ask("close", 5.0), {"checkpointed": True})
    bench.launcher.last.die()
    assert bench.answers[0].ok


def test_all_last_answers_of_a_dying_worker_are_heard(bench: Bench) -> None:
    requests = [bench.ask("commit", 5.0) for _ in range(5)]
    for request in requests:
        bench.launcher.last.answer(request, 1)
    bench.launcher.last.die()
    assert [answer.ok for answer in bench.answers] == [True] * 5


def test_a_dying_worker_that_is_given_up_for_its_last_answer_is_not_waited_for(bench: Bench) -> None:
    """It answers "fault", whoever asked gives it up, and its process has ended already."""
    bench.link.ask("commit", 5.0, lambda answer: bench.link.abandon(answer.why))
    bench.launcher.last.fail(bench.launcher.last.requests()[0], "fault", "disk I/O error")
    bench.launcher.last.die()
    assert (bench.link.there, bench.link.left_behind) == (False, 0)
    bench.clock.wait(BACK_OFF_S[0] + 0.01)
    assert bench.news[-1] == "dead"
    resumed: list[Answer] = []
    bench.link.ended()(resumed.append)
    assert resumed


def test_the_end_of_the_socket_alone_is_not_the_end_of_the_process(bench: Bench) -> None:
    bench.ask("commit", 5.0)
    bench.launcher.last.peer.close()
    bench.clock.wait()
    assert bench.answers == []
    bench.clock.wait(5.1)
    assert [answer.code for answer in bench.answers] == [TIMED_OUT]


def test_workers_that_keep_dying_are_replaced_ever_more_slowly() -> None:
    bench = Bench()
    pauses = []
    for _ in range(len(BACK_OFF_S) + 2):
        bench.link.start()
        bench.launcher.last.die()
        before, count = bench.clock.now, bench.news.count("dead")
        while bench.news.count("dead") == count:
            bench.clock.wait(0.05)
        pauses.append(bench.clock.now - before)
    expected = [*BACK_OFF_S, BACK_OFF_S[-1], BACK_OFF_S[-1]]
    assert pauses == pytest.approx(expected, abs=0.11)


def test_after_a_calm_time_the_back_off_starts_anew() -> None:
    bench = Bench()
    for _ in range(4):
        bench.link.start()
        bench.launcher.last.die()
        bench.clock.wait(BACK_OFF_S[-1])
    bench.clock.wait(CALM_S)
    bench.link.start()
    bench.launcher.last.die()
    bench.news.clear()
    bench.clock.wait(BACK_OFF_S[0] + 0.01)
    assert bench.news == ["dead"]


def test_replacing_waits_for_the_end_of_the_old_worker(bench: Bench) -> None:
    resumed: list[Answer] = []
    bench.link.ended()(resumed.append)
    assert bench.launcher.last.killed == 1
    bench.clock.wait(100)
    assert resumed == []
    bench.launcher.last.die()
    assert len(resumed) == 1
    bench.clock.wait(100)
    assert "dead" not in bench.news, "whoever waited goes on; nobody else is told"


def test_replacing_nothing_goes_on_at_once() -> None:
    bench = Bench()
    resumed: list[Answer] = []
    bench.link.ended()(resumed.append)
    assert len(resumed) == 1


def test_a_worker_that_cannot_be_started_leaves_nothing_open() -> None:
    bench = Bench()
    bench.launcher.failing = 1
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(SpawnError):
        bench.link.start()
    assert set(os.listdir("/proc/self/fd")) <= before
    assert not bench.link.there


def test_a_worker_that_does_not_read_misses_its_bound_and_does_not_block_us(bench: Bench) -> None:
    for _ in range(1000):
        bench.link.ask("genesis", 1.0, bench.answers.append, lines=["x" * 10000])
    bench.clock.wait(1.1)
    assert len(bench.answers) == 1000
    assert bench.link.left_behind == 1


def test_a_burst_of_requests_is_answered_though_the_socket_holds_far_fewer(bench: Bench) -> None:
    """A boot that reconciles a thousand machines commits them in one turn; a healthy disk must not look wedged for it."""
    for number in range(1000):
        bench.link.ask("commit", 1.0, bench.answers.append, steps=[number], text="x" * 300)
    for _ in range(100):
        for request in bench.launcher.last.requests():
            bench.launcher.last.answer(request, request["steps"][0])
            bench.clock.wait()
        bench.clock.wait()
    bench.clock.wait(1.1)
    assert [answer.value for answer in bench.answers] == list(range(1000))
    assert bench.news == []
    assert bench.clock.reactor._selector.select(0) == [], "nothing is ready: it is not watched for writing any more"


def test_a_request_that_fits_into_no_packet_is_refused_and_the_worker_is_kept(bench: Bench) -> None:
    bench.link.ask("genesis", 1.0, bench.answers.append, lines=["x" * PACKET_MAX])
    bench.clock.wait(1.1)
    assert [answer.code for answer in bench.answers] == ["fault"]
    assert "too large" in bench.answers[0].why
    assert (bench.link.there, bench.news) == (True, [])


@in_child
def test_a_real_worker_that_stops_answering_is_killed_and_its_end_is_the_gate() -> None:
    """A stopped process is as deaf as one on a dead disk; SIGKILL ends this one."""
    world = World()
    news: list[str] = []
    pids: list[int] = []

    def stop_at_the_second_request() -> int:
        with socket.socket(fileno=3) as peer:
            peer.recv(1000)
            peer.send(b'{"id": 0, "ok": "hello"}')
            peer.recv(1000)
            os.kill(os.getpid(), signal.SIGSTOP)
        return 0

    def launch(theirs: socket.socket, ended: Any) -> Any:
        child = world.spawner.fork("worker", stop_at_the_second_request, lambda _status: ended(), group="x", keep=theirs.fileno())
        pids.append(child.pid)
        return child

    link = WorkerLink(
        world.reactor, world.log, launch, on_missed=lambda _why: news.append("missed"), on_fault=news.append, on_dead=lambda: news.append("dead")
    )
    link.start()
    answers: list[Answer] = []
    link.ask("hello", 10.0, answers.append)
    world.until(lambda: answers)
    assert answers[0].value == "hello"
    link.ask("commit", 0.3, answers.append)
    world.until(lambda: len(answers) == 2)
    assert answers[1].code == TIMED_OUT
    world.until(lambda: "dead" in news)
    assert news == ["missed", "dead"]
    assert not alive(pids[0])
    assert link.left_behind == 0
