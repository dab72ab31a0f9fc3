"""PID 1's end of the umbilical, with the real engine, supervisor, spawner and forwarder; and with a forwarder that hangs or lies."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from kit import HandClock, Journal, Log, World, descriptors_kept, in_child
from umbilicalkit import CHAT, HERE, ask, chat, own_group

from bay0.base.errors import BadNameError, RefusedError
from bay0.effects.peers import answerer
from bay0.machines import MACHINES
from bay0.machines.engine import Engine
from bay0.machines.tenant import S
from bay0.tenants import port as service
from bay0.tenants.port import Services
from bay0.umbilical.channel import OUTBOX_MAX, Link
from bay0.umbilical.doors import Umbilical
from bay0.umbilical.places import UMBILICAL, UMBILICAL_GID

CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 1 << 18


@pytest.fixture
def run() -> Iterator[str]:
    directory = tempfile.mkdtemp(prefix="port-")
    os.chmod(directory, 0o755)
    yield f"{directory}/ai"
    shutil.rmtree(directory)


class Spine:
    """As much of PID 1 as the umbilical needs. For use inside `in_child`."""

    def __init__(self, run: str) -> None:
        service.BACK_OFF_S = (0.05, 0.1, 0.2)
        self.world = World()
        self.log: Log = self.world.log
        self.engine = Engine("b", self.world.reactor, lambda: 0, self.log)
        self.services = Services(self.engine, self.world.reactor, self.world.spawner, self.world.bounds, self.log)
        self.engine.keep_with(Journal())
        self.engine.serve("tenant", self.services)
        self.boot = self.engine.add("boot:this", MACHINES["boot"])
        self.run = run
        self.umbilical = Umbilical(
            self.engine, self.world.reactor, self.world.bounds, self.log, self.services, self.boot, lambda _name: 0, run=run,
            env={"PYTHONPATH": str(HERE.parent.parent)}, quota={"requests_a_minute": 6000, "accepts_a_second": 1000},
        )  # fmt: skip
        self.pool = ThreadPoolExecutor(8)

    def until(self, true: Callable[[], Any], what: str = "it") -> None:
        self.world.until(true, what)

    def there(self) -> int:
        self.until(lambda: self.umbilical.pid, "the forwarder says hello")
        return self.umbilical.pid

    def answer(self, question: Callable[[Any], None]) -> tuple[bool, str, dict[str, Any]]:
        answers: list[tuple[bool, str, dict[str, Any]]] = []
        question(lambda *answer: answers.append(answer))
        self.until(lambda: answers, "an answer")
        return answers[0]

    def ask(self, *words: Any) -> Any:
        """Be a client, while PID 1 turns."""
        future = self.pool.submit(ask, *words)
        self.until(future.done, "an answer")
        return future.result()

    def serve(self) -> None:
        """A stand-in for the AI's server."""
        os.makedirs(f"{self.run}/tenant", exist_ok=True)
        path = f"{self.run}/tenant/server.sock"
        subprocess.Popen([sys.executable, str(HERE / "stand_in.py"), path, f"{self.run}/asked"])
        self.until(lambda: os.path.exists(path), "the server")


@in_child
def test_the_first_door_starts_the_forwarder_and_a_granted_persona_is_answered(run: str) -> None:
    spine = Spine(run)
    directory = spine.umbilical.prepare("p://work")
    assert directory == f"{run}/personas/p__work"
    assert spine.umbilical.prepare("p://work") == directory
    wanted = {"": 0o755, "/ai.sock": 0o600, "/personas": 0o755, "/personas/p__work": 0o755, "/personas/p__work/ai.sock": 0o666}
    assert {path: stat.S_IMODE(os.stat(f"{run}{path}").st_mode) for path in wanted} == wanted
    spine.there()
    assert spine.engine.instances[UMBILICAL].now is S.RUNNING
    spine.serve()
    spine.umbilical.tenant("ready", group=own_group())
    spine.umbilical.grant("p://work", 0, own_group())
    door = f"{directory}/ai.sock"
    assert spine.ask(door, "POST", CHAT, chat("hello")).status == 200
    assert spine.ask(f"{run}/ai.sock", "GET", "/health").status == 200
    ok, why, facts = spine.answer(spine.umbilical.facts)
    assert (ok, why, facts["p://work"]["requests"], facts["console"]["connections"]) == (True, "", 1, 1)
    assert spine.answer(spine.umbilical.check) == (True, "", {})
    ok, _, value = spine.answer(spine.umbilical.warm)
    assert ok
    assert value["first_token_s"] >= 0
    assert spine.answer(spine.umbilical.drain) == (True, "", {})
    assert spine.ask(door, "POST", CHAT, chat("hello")).code == "ai_draining"
    spine.until(lambda: len(spine.log.of("umbilical decision")) >= 3, "decisions are logged")
    line = spine.log.of("umbilical decision")[0]
    assert (line["name"], line["verdict"], line["status"], line["pid"]) == ("p://work", "served", 200, os.getpid())
    spine.umbilical.revoke("p://work")
    assert not os.path.exists(directory)
    spine.until(lambda: "p://work" not in spine.answer(spine.umbilical.facts)[2], "its door is closed")
    spine.umbilical.revoke("p://work")


@in_child
def test_a_door_that_was_prepared_lets_nobody_in_before_it_is_granted(run: str) -> None:
    spine = Spine(run)
    door = f"{spine.umbilical.prepare('p://work')}/ai.sock"
    spine.there()
    waits = spine.pool.submit(ask, door, "GET", "/health")
    assert "p://work" not in spine.answer(spine.umbilical.facts)[2]
    assert not waits.done()
    spine.umbilical.grant("p://work", 0, "/personas/libpod-aa")
    spine.until(waits.done, "it is told")
    assert waits.result().code == "not_you"


@in_child
def test_who_still_has_an_old_door_mounted_does_not_find_the_next_one(run: str) -> None:
    spine = Spine(run)
    mounted = os.open(spine.umbilical.prepare("p://work"), os.O_PATH)
    assert os.path.exists(f"/proc/self/fd/{mounted}/ai.sock")
    spine.umbilical.revoke("p://work")
    directory = spine.umbilical.prepare("p://work")
    assert os.listdir(directory) == ["ai.sock"]
    assert not os.path.exists(f"/proc/self/fd/{mounted}/ai.sock")


@in_child
def test_a_killed_forwarder_is_replaced_and_told_everything_again(run: str) -> None:
    spine = Spine(run)
    door = f"{spine.umbilical.prepare('p://work')}/ai.sock"
    spine.umbilical.grant("p://work", 0, own_group())
    spine.umbilical.tenant("ready", group=own_group())
    first = spine.there()
    assert spine.ask(door, "GET", "/health").status == 200
    os.kill(first, 9)
    spine.until(lambda: spine.umbilical.pid not in (0, first), "the next one")
    assert spine.ask(door, "GET", "/health").status == 200
    assert answerer(door).pid == spine.umbilical.pid


@in_child
def test_the_next_forwarder_knows_how_the_ai_is_before_it_has_a_door_at_which_somebody_waits(run: str) -> None:
    spine = Spine(run)
    spine.umbilical.prepare("p://work")
    spine.umbilical.grant("p://work", 0, own_group())
    spine.umbilical.tenant("ready", group=own_group())
    first, sent, send = spine.there(), [], Link.send

    def noted(link: Link, message: dict[str, Any], *rest: Any) -> Any:
        sent.append(message["op"])
        return send(link, message, *rest)

    Link.send = noted  # type: ignore[method-assign]
    os.kill(first, 9)
    spine.until(lambda: spine.umbilical.pid not in (0, first), "the next one")
    assert sent[:2] == ["setup", "tenant"]
    assert "grant" in sent[2:]


@in_child
def test_what_is_asked_while_no_forwarder_is_there_is_asked_of_the_next(run: str) -> None:
    spine = Spine(run)
    spine.umbilical.begin()
    assert spine.answer(spine.umbilical.facts)[0] is True
    first = spine.there()
    os.kill(first, 19)  # it hangs: stopped
    answers: list[Any] = []
    spine.umbilical.facts(lambda *answer: answers.append(answer))
    os.kill(first, 9)
    spine.until(lambda: answers, "an answer")
    assert answers[0][0] is True
    assert spine.umbilical.pid != first


@in_child
def test_a_forwarder_that_hangs_is_ended_and_replaced(run: str) -> None:
    spine = Spine(run)
    object.__setattr__(spine.umbilical.bounds, "umbilical", 0.5)
    spine.umbilical.begin()
    first = spine.there()
    os.kill(first, 19)
    ok, why, _ = spine.answer(spine.umbilical.facts)
    assert (ok, why) == (False, "facts was not done in 0.5 s")
    object.__setattr__(spine.umbilical.bounds, "umbilical", 5.0)
    spine.until(lambda: spine.umbilical.pid not in (0, first), "the next one")
    assert "gave no answer to facts" in spine.log.of("umbilical ended")[0]["why"]


@in_child
def test_a_persona_may_not_be_called_something_else_and_a_door_that_cannot_be_made_is_refused(run: str) -> None:
    spine = Spine(run)
    for name in ("WORK", "p__work", "p://../x", "sys://ai", ""):
        with pytest.raises(BadNameError):
            spine.umbilical.prepare(name)
    with pytest.raises(RefusedError, match="prepare it first"):
        spine.umbilical.grant("p://work", 0, "/personas/x")
    os.makedirs(run)
    Path(f"{run}/personas").write_text("in the way")
    with pytest.raises(RefusedError, match="cannot be made"):
        spine.umbilical.prepare("p://work")


@in_child
def test_the_tenants_directory_is_its_own_small_and_empty_each_time(run: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) or libc.mount(b"none", b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None):
        pytest.skip("no mount namespace of its own to be had here")
    spine = Spine(run)
    for _ in range(2):
        directory = spine.umbilical.prepare_tenant()
        found = os.stat(directory)
        assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (1000, UMBILICAL_GID, 0o2770)
        assert os.listdir(directory) == []
        with pytest.raises(OSError, match="No space left"):
            Path(f"{directory}/big").write_bytes(bytes(1 << 20))
        os.makedirs(f"{directory}/server.sock/in/the/way")
    assert sum(line.split()[4] == directory for line in Path("/proc/self/mountinfo").read_text().splitlines()) == 1
    libc.umount2(directory.encode(), 2)


# ---- the channel, with a forwarder played by hand


class Played:
    """A link and its far end."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.hellos: list[Any] = []
        self.words: list[Any] = []
        self.hung: list[str] = []
        self.link = Link(self.clock.reactor, self.hellos.append, self._word, self.hung.append)
        self.peer = self.link.lend(30)
        self.peer.settimeout(5)

    def _word(self, message: dict[str, Any]) -> None:
        if message["op"] != "decision":
            raise ValueError("no such word")
        self.words.append(message)

    def say(self, data: bytes | None = None, **message: Any) -> None:
        self.peer.send(data if data is not None else json.dumps(message).encode())
        self.clock.wait()

    def close(self) -> None:
        self.link.hang_up()
        self.peer.close()


@pytest.fixture
def played() -> Iterator[Played]:
    with descriptors_kept():
        made = Played()
        made.say(op="hello", pid=5, uid=990)
        yield made
        made.close()
        made.clock.reactor._selector.close()


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense", b"[]", b"{}", b'{"op":"warm","n":"x"}', b'{"op":"rule"}', b"\xff", b"[" * 60000, b'{"op":"decision"' + b" " * 70000 + b"}",
        b'{"op":"warm","n":1e999}', b'{"op":"warm","n":NaN}', b'{"op":"warm","n":' + b"9" * 5000 + b"}", b'"op"', b"1",
    ],
)  # fmt: skip
def test_a_forwarder_that_makes_no_sense_is_ended(played: Played, data: bytes) -> None:
    played.say(data)
    assert len(played.hung) == 1
    assert not played.link.there


def test_a_descriptor_from_the_forwarder_is_not_taken(played: Played) -> None:
    socket.send_fds(played.peer, [b'{"op":"decision"}'], [0, 1, 2])
    played.clock.wait()
    assert len(played.hung) == 1


def test_an_answer_counts_once_and_a_late_one_not_at_all(played: Played) -> None:
    answers: list[Any] = []
    played.link.ask("warm", 10, lambda *answer: answers.append(answer))
    question = json.loads(played.peer.recv(65536))
    assert (question["op"], question["within"]) == ("warm", 8.0)
    for _ in range(2):
        played.say(op="warm", n=question["n"], ok=True, why="a\x1b[31m", first_token_s=1)
    assert answers == [(True, "a?[31m", {"first_token_s": 1})]
    played.link.ask("warm", 10, lambda *answer: answers.append(answer))
    played.clock.wait(11)
    assert answers[1:] == [(False, "warm was not done in 10 s", {})]
    assert played.hung == ["it gave no answer to warm in 10 s"]


def test_a_question_that_may_take_its_time_ends_nobody(played: Played) -> None:
    answers: list[Any] = []
    played.link.ask("drain", 10, lambda *answer: answers.append(answer), hangs=False)
    played.clock.wait(11)
    assert (answers[0][0], played.hung) == (False, [])


def test_a_forwarder_that_never_says_hello_is_ended_and_one_that_did_is_not() -> None:
    with descriptors_kept():
        silent = Played()
        silent.clock.wait(31)
        assert (silent.hung, silent.link.there) == (["it has not said hello in 30 s"], False)
        silent.peer.close()
        silent.peer = silent.link.lend(30)
        silent.say(op="hello", pid=5, uid=990)
        silent.clock.wait(31)
        assert (len(silent.hung), silent.link.there) == (1, True)
        silent.close()
        silent.clock.reactor._selector.close()


def test_without_a_forwarder_a_question_is_answered_within_its_bound(played: Played) -> None:
    answers: list[Any] = []
    played.peer.close()
    played.clock.wait()
    assert not played.link.there
    played.link.ask("facts", 5, lambda *answer: answers.append(answer))
    played.clock.wait(6)
    assert answers == [(False, "the forwarder is not there", {})]
    assert played.hung == []


def test_a_forwarder_that_does_not_read_is_ended(played: Played) -> None:
    for _ in range(OUTBOX_MAX * 20):
        played.link.send({"op": "tenant", "why": "x" * 200})
        if played.hung:
            break
    assert played.hung == ["it does not read what it is told"]


def served(run: str) -> tuple[Spine, str]:
    """Return a spine with a forwarder and an AI that is ready, and the path of the door that p://work was granted."""
    spine = Spine(run)
    door = f"{spine.umbilical.prepare('p://work')}/ai.sock"
    spine.umbilical.grant("p://work", 0, own_group())
    spine.umbilical.tenant("ready", group=own_group())
    spine.there()
    return spine, door


@in_child
def test_doors_whose_sockets_somebody_removed_are_made_anew_and_answer(run: str) -> None:
    spine, door = served(run)
    assert spine.umbilical.look() == []
    mounted = os.open(os.path.dirname(door), os.O_PATH)
    for path in (door, f"{run}/ai.sock"):
        os.unlink(path)
    assert sorted(spine.umbilical.look()) == sorted([door, f"{run}/ai.sock"])
    assert spine.umbilical.look() == []
    assert spine.ask(f"/proc/self/fd/{mounted}/ai.sock", "GET", "/health").status == 200, "as its container sees it"
    assert spine.ask(f"{run}/ai.sock", "GET", "/health").status == 200
    assert {path: stat.S_IMODE(os.stat(path).st_mode) for path in (door, f"{run}/ai.sock")} == {door: 0o666, f"{run}/ai.sock": 0o600}


@in_child
def test_a_door_that_was_removed_with_its_directory_is_said_to_be_lost_once_and_comes_back_with_the_next_start(run: str) -> None:
    spine, door = served(run)
    shutil.rmtree(run)
    assert set(spine.umbilical.look()) == {f"{run}/ai.sock", f"{door} is lost until p://work is started again"}
    assert spine.umbilical.look() == []
    assert spine.ask(f"{run}/ai.sock", "GET", "/health").status == 200
    spine.umbilical.revoke("p://work")
    assert f"{spine.umbilical.prepare('p://work')}/ai.sock" == door
    spine.umbilical.grant("p://work", 0, own_group())
    assert spine.ask(door, "GET", "/health").status == 200
