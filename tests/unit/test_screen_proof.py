"""Ready by proof: who answers as the compositor, and what it says. A strict stand-in over real sockets, and the real sway of the image."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from swaykit import NOBODY, SWAY_ENV, RealSway, the_images_sway

from bay0.pid1.reactor import Reactor
from bay0.screen import ipc, registry, wire
from bay0.screen.ipc import Ask
from bay0.screen.proof import Proof
from bay0.screen.stream import OUTBOX_MAX
from bay0.screen.sway import Sway
from bay0.screen.wayland import Display

BOUND_S = 30.0


@pytest.fixture
def reactor() -> Reactor:
    return Reactor()


def until(reactor: Reactor, true: Callable[[], Any], bound_s: float = BOUND_S) -> None:
    end = time.monotonic() + bound_s
    while not true():
        assert time.monotonic() < end, "it did not happen"
        reactor.turn(0.05)


def turns(reactor: Reactor, count: int = 20) -> None:
    for _ in range(count):
        reactor.turn(0.01)


# ---- the two clients, against what makes no sense


@pytest.fixture
def display(reactor: Reactor) -> Iterator[tuple[Display, socket.socket, list[str]]]:
    lost: list[str] = []
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        found = Display(reactor, ours, lost.append)
        yield found, theirs, lost
        found.close()


def an_event(sender: int, opcode: int, *parts: bytes) -> bytes:
    return wire.request(sender, opcode, b"".join(parts))


def a_global(number: int, interface: str) -> bytes:
    return an_event(2, 0, wire.words(number), wire.string(interface), wire.words(1))


def test_a_registry_is_read_whole_before_it_is_said_to_be(reactor: Reactor, display: Any) -> None:
    found, theirs, lost = display
    done: list[str] = []
    found.look(BOUND_S, lambda: done.append("whole"))
    asked = theirs.recv(100)
    assert asked == wire.request(1, 1, wire.words(2)) + wire.request(1, 0, wire.words(3))
    theirs.send(a_global(7, "wl_shm") + a_global(8, "wl_seat"))
    turns(reactor)
    assert done == []
    theirs.send(an_event(2, 1, wire.words(8)) + an_event(3, 0, wire.words(1)) + an_event(1, 1, wire.words(3)))
    until(reactor, lambda: done)
    assert (found.offered, lost) == ({7: "wl_shm"}, [])


@pytest.mark.parametrize(
    "said",
    [
        struct.pack("=II", 2, 4 << 16), an_event(9, 0), an_event(2, 0, wire.words(1)), an_event(2, 9), a_global(1, "x") + b"\xff" * 64,
        an_event(2, 0, wire.words(1), wire.string("wl_shm"), wire.words(1, 1)), an_event(1, 0, wire.words(2, 1), wire.string("invalid object")),
        b"".join(a_global(number, "wl_output") for number in range(300)), an_event(1, 7),
    ],
    ids=["size", "nobody's object", "half an event", "no such event", "noise", "too long", "an error of the protocol", "too many", "of the display"],
)  # fmt: skip
def test_a_wayland_socket_that_talks_nonsense_is_hung_up_on(reactor: Reactor, display: Any, said: bytes) -> None:
    found, theirs, lost = display
    found.look(BOUND_S, lambda: pytest.fail("it is not whole"))
    theirs.recv(100)
    theirs.send(said)
    until(reactor, lambda: lost)
    turns(reactor)
    assert len(lost) == 1
    assert lost[0].startswith("what it says makes no sense")
    assert theirs.recv(1) == b"", "it was hung up on"


def test_a_wayland_socket_that_is_silent_is_lost_after_its_bound(reactor: Reactor, display: Any) -> None:
    found, _theirs, lost = display
    found.sync(0.05, lambda: pytest.fail("nobody answered"))
    until(reactor, lambda: lost)
    assert lost == ["no answer on its Wayland socket in 0.05 s"]


def test_one_that_hangs_up_or_does_not_read_is_lost_once(reactor: Reactor, display: Any) -> None:
    found, theirs, lost = display
    for _ in range(OUTBOX_MAX // 12 + 200_000 // 12):
        found.sync(BOUND_S, lambda: None)
    until(reactor, lambda: lost)
    theirs.close()
    turns(reactor)
    assert lost == ["it does not read what it is told"]


@pytest.fixture
def sway(reactor: Reactor) -> Iterator[tuple[Sway, socket.socket, list[str], list[Any]]]:
    lost: list[str] = []
    events: list[Any] = []
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        found = Sway(reactor, ours, lost.append, lambda kind, value: events.append((kind, value)))
        yield found, theirs, lost, events
        found.close()


def answer(kind: int, value: Any) -> bytes:
    data = json.dumps(value).encode()
    return ipc.HEAD.pack(ipc.MAGIC, len(data), kind) + data


def test_answers_come_in_the_order_of_the_questions_with_events_between(reactor: Reactor, sway: Any) -> None:
    found, theirs, lost, events = sway
    told: list[Any] = []
    found.ask(Ask.GET_VERSION, BOUND_S, told.append)
    found.subscribe(("binding",), BOUND_S, told.append)
    assert theirs.recv(200) == ipc.frame(Ask.GET_VERSION) + ipc.frame(Ask.SUBSCRIBE, '["binding"]')
    theirs.send(answer(Ask.GET_VERSION, 1) + answer(ipc.EVENT | ipc.Event.BINDING, {"x": 2}) + answer(Ask.SUBSCRIBE, 3))
    until(reactor, lambda: len(told) == 2)
    assert (told, events, lost) == ([1, 3], [(ipc.Event.BINDING, {"x": 2})], [])


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\n\r\n", answer(Ask.GET_TREE, {}), ipc.HEAD.pack(ipc.MAGIC, 1 << 24, Ask.GET_VERSION),
        ipc.HEAD.pack(ipc.MAGIC, 1, Ask.GET_VERSION) + b"{", answer(Ask.GET_VERSION, 1) * 2,
    ],
    ids=["another protocol", "another answer", "too large", "no JSON", "twice"],
)  # fmt: skip
def test_an_ipc_socket_that_talks_nonsense_is_hung_up_on(reactor: Reactor, sway: Any, said: bytes) -> None:
    found, theirs, lost, _events = sway
    found.ask(Ask.GET_VERSION, BOUND_S, lambda _value: None)
    theirs.recv(100)
    theirs.send(said)
    until(reactor, lambda: lost)
    turns(reactor)
    assert len(lost) == 1
    assert lost[0].startswith("what it says makes no sense")


def test_an_ipc_socket_that_is_silent_is_lost_after_its_bound(reactor: Reactor, sway: Any) -> None:
    found, _theirs, lost, _events = sway
    found.ask(Ask.GET_VERSION, 0.05, lambda _value: pytest.fail("nobody answered"))
    until(reactor, lambda: lost)
    assert lost == ["no answer on its IPC socket in 0.05 s"]


# ---- the proof


class Told:
    """What a proof tells, and the directory of both sockets."""

    def __init__(self, reactor: Reactor, top: Path, pid: int, uid: int) -> None:
        self.said: list[str] = []
        self.event: Callable[[int, Any], None] = lambda _kind, _value: None
        self.impostors: list[tuple[str, str]] = []
        self.wayland, self.ipc = str(top / "wayland-1"), str(top / "ipc")
        self.proof = Proof(
            reactor, pid, lambda: self.said.append("proved"), self.said.append, lambda path, who: self.impostors.append((path, who)),
            lambda kind, value: self.event(kind, value), uid=uid, wayland_path=self.wayland, ipc_path=self.ipc,
        )  # fmt: skip


@contextlib.contextmanager
def listening(path: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(16)
        listener.setblocking(False)
        yield listener


@pytest.mark.parametrize("which", ["wayland", "ipc"])
def test_an_impostor_at_a_socket_is_named_once_and_never_spoken_to(reactor: Reactor, tmp_path: Path, which: str) -> None:
    with subprocess.Popen(["sleep", "100"]) as compositor:
        told = Told(reactor, tmp_path, compositor.pid, os.getuid())
        path = getattr(told, which)
        with listening(path) as impostor:
            told.proof.begin()
            until(reactor, lambda: told.impostors)
            end = time.monotonic() + 0.5
            until(reactor, lambda: time.monotonic() > end)
            assert [each for each, _who in told.impostors] == [path]
            assert f"pid {os.getpid()} " in told.impostors[0][1]
            heard = []
            with contextlib.suppress(BlockingIOError):
                while True:
                    peer, _ = impostor.accept()
                    heard.append(peer.recv(100))
                    peer.close()
        assert len(heard) > 1, "it is tried again"
        assert set(heard) == {b""}, "not a byte was sent"
        assert told.said == []
        told.proof.close()
        compositor.kill()


def test_a_listener_that_died_and_left_its_socket_to_another_is_an_impostor(reactor: Reactor, tmp_path: Path) -> None:
    """SO_PEERCRED names who called listen(2), also when he is dead and somebody else has the socket."""
    told = Told(reactor, tmp_path, 0, os.getuid())
    with socket.socket(socket.AF_UNIX) as kept:
        kept.bind(told.wayland)
        child = os.fork()
        if child == 0:
            kept.listen(4)
            os._exit(0)
        os.waitpid(child, 0)
        told.proof.pid = child
        told.proof.begin()
        until(reactor, lambda: told.impostors)
    told.proof.close()
    assert told.said == []


# ---- the real one


@pytest.fixture
def sway_itself() -> Iterator[RealSway]:
    with the_images_sway() as found:
        yield found


def proved(reactor: Reactor, sway: RealSway) -> Told:
    told = Told(reactor, sway.run, sway.process.pid, sway.uid)
    told.proof.begin()
    until(reactor, lambda: told.said)
    assert told.said == ["proved"], sway.log.read_text()
    return told


@pytest.mark.built
def test_the_images_sway_proves_itself_with_just_what_is_allowed(reactor: Reactor, sway_itself: RealSway) -> None:
    told = proved(reactor, sway_itself)
    assert set(told.proof.globals) == registry.ALLOWED
    assert told.proof.version.startswith("1.10")
    assert [(each["name"], each["on"]) for each in told.proof.outputs] == [("HEADLESS-1", True)]
    told.proof.close()


@pytest.mark.built
def test_sway_that_is_another_process_than_the_one_started_is_an_impostor(reactor: Reactor, sway_itself: RealSway) -> None:
    told = Told(reactor, sway_itself.run, sway_itself.process.pid + 1, sway_itself.uid)
    told.proof.begin()
    until(reactor, lambda: len(told.impostors) == 2)
    assert told.said == []
    told.proof.close()


@pytest.mark.built
@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL], ids=["stopped", "killed"])
def test_sway_that_hangs_or_dies_after_its_proof_is_lost(reactor: Reactor, sway_itself: RealSway, number: int) -> None:
    told = proved(reactor, sway_itself)
    lost: list[str] = []
    told.proof.watch(BOUND_S, lost.append)
    turns(reactor)
    assert lost == []
    sway_itself.process.send_signal(number)
    told.proof.watch(1.0, lost.append)
    until(reactor, lambda: lost)
    assert len(lost) == 1
    assert ("no answer" in lost[0]) == (number == signal.SIGSTOP)
    told.proof.close()


@pytest.mark.built
def test_the_configuration_that_bay0_writes_is_one_that_sway_takes_and_starts_nothing(sway_itself: RealSway) -> None:
    from bay0.screen import config
    from bay0.screen.places import Places

    text = config.text(Places())
    told = sway_itself.run.parent / "bay0.config"
    told.write_text(text)
    arguments = list(sway_itself.process.args)[:4]  # type: ignore[arg-type]
    environment = {**SWAY_ENV, "HOME": str(sway_itself.run), "XDG_RUNTIME_DIR": str(sway_itself.run)}
    user = {"user": NOBODY, "group": NOBODY} if os.getuid() == 0 else {}
    done = subprocess.run(
        [*arguments, "--validate", "--config", str(told)], env=environment, capture_output=True, text=True, check=False, timeout=60, **user
    )  # type: ignore[call-overload]
    assert (done.returncode, [line for line in done.stderr.splitlines() if "Error" in line or "ERROR" in line]) == (0, [])
    commands = [line.split() for line in text.splitlines() if line.startswith("bindsym")]
    assert commands
    assert [words for words in commands if "nop" not in words] == [], "no key starts a program"
