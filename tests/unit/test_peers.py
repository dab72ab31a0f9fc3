"""Who answers on a unix socket: the kernel's word, also about those who are gone."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit import until

from bay0.effects import peers
from bay0.effects.peers import answerer

LISTEN = "import socket, sys, time; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(4); time.sleep(60)"
# its child holds the listener when it is dead itself
BEQUEATH = "import os, socket, sys, time; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(4); os.fork() or time.sleep(60)"


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "s")


@pytest.fixture
def listening(path: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", LISTEN, path]) as process:
        until(lambda: _accepts(path), "it listens")
        yield process
        process.kill()


def _accepts(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as peer:
        return peer.connect_ex(path) == 0


def test_the_process_that_listens_is_named(listening: subprocess.Popen[bytes], path: str) -> None:
    found = answerer(path)
    assert (found.pid, found.uid, found.alive) == (listening.pid, os.getuid(), True)
    assert found.name.startswith("python")
    assert found.group.startswith("/") or not os.path.exists("/sys/fs/cgroup/cgroup.procs")


def test_a_listener_that_died_is_not_mistaken_for_its_heir(path: str) -> None:
    process = subprocess.Popen([sys.executable, "-c", BEQUEATH, path], start_new_session=True)
    try:
        process.wait(20)
        found = answerer(path)
        assert (found.pid, found.alive) == (process.pid, False)
        assert (found.name, found.group) == ("", "")
    finally:
        os.killpg(process.pid, signal.SIGKILL)


def test_without_the_kernels_pidfd_the_process_is_looked_for(listening: subprocess.Popen[bytes], path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "SO_PEERPIDFD", 9999)  # as a kernel before 6.5 has it
    assert answerer(path).alive
    assert listening.poll() is None


def test_a_socket_that_nobody_listens_on_is_an_error(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    with pytest.raises(ConnectionRefusedError):
        answerer(path)


@pytest.mark.parametrize("kind", ["file", "link", "directory"])
def test_what_is_no_socket_is_not_connected_to(kind: str, listening: subprocess.Popen[bytes], path: str, tmp_path: Path) -> None:
    other = tmp_path / "other"
    {"file": other.touch, "link": lambda: other.symlink_to(path), "directory": other.mkdir}[kind]()
    with pytest.raises(OSError, match="it is no socket"):
        answerer(str(other))
    assert listening.poll() is None


def test_a_full_backlog_is_an_error_at_once_and_nothing_waits(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(path)
        deaf.listen(0)
        with pytest.raises(BlockingIOError):
            for _ in range(10):
                answerer(path)


def test_nothing_at_all_is_an_error(path: str) -> None:
    with pytest.raises(FileNotFoundError):
        answerer(path)
