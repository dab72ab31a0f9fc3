"""The size of a terminal on a serial line: asked for, bounded, and a sane one where nothing answers."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import subprocess
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.scripts  # the script is for the image's bash and stty; the frozen program has no part in it
RESIZE = Path(__file__).parents[2] / "scripts/rootfs/usr/bin/resize"
ASKED = b"\x1b[6n"


class Terminal:
    """A pseudo-terminal whose other end answers as a terminal would."""

    def __init__(self, answer: bytes) -> None:
        self.ours, self.theirs = os.openpty()
        self.answer = answer
        self.answers = b"R" in answer
        self.seen = b""
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._play, daemon=True)
        self.thread.start()

    def _play(self) -> None:
        answered = False
        while not self.over.is_set():
            if select.select([self.ours], [], [], 0.02)[0]:
                self.seen += os.read(self.ours, 1000)
            if ASKED in self.seen and not answered:
                answered = True
                os.write(self.ours, self.answer)

    @property
    def size(self) -> tuple[int, int]:
        rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(self.theirs, termios.TIOCGWINSZ, b"\0" * 8))
        return rows, columns

    @size.setter
    def size(self, size: tuple[int, int]) -> None:
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))

    def resize(self, *words: str, term: str = "vt220") -> int:
        before = termios.tcgetattr(self.theirs)
        patience = "60" if self.answers else "0.2"  # so that no verdict depends on how fast this machine is
        done = subprocess.run(
            ["bash", RESIZE, *words], stdin=self.theirs, stdout=self.theirs, stderr=self.theirs, check=False, timeout=90,
            env={**os.environ, "RESIZE_WAIT_S": patience, "TERM": term},
        )  # fmt: skip
        assert termios.tcgetattr(self.theirs) == before, "the terminal is as it was"
        return done.returncode

    def close(self) -> None:
        self.over.set()
        self.thread.join()
        os.close(self.ours)
        os.close(self.theirs)


@pytest.fixture
def terminal(request: pytest.FixtureRequest) -> Iterator[Terminal]:
    made = Terminal(request.param)
    yield made
    made.close()


@pytest.mark.parametrize("terminal", [b"\x1b[40;100R"], indirect=True)
def test_a_terminal_that_answers_gives_the_kernel_its_size(terminal: Terminal) -> None:
    assert terminal.size == (0, 0)
    assert terminal.resize("--unknown") == 0
    assert terminal.size == (40, 100)


@pytest.mark.parametrize("terminal", [b"ls\r\x1b[50;132R"], indirect=True)
def test_what_was_typed_meanwhile_does_not_disturb_it(terminal: Terminal) -> None:
    terminal.size = (24, 80)
    assert terminal.resize() == 0
    assert terminal.size == (50, 132)


@pytest.mark.parametrize("terminal", [b"", b"R", b"\x1b[0;0R", b"\x1b[9999;1R", b"\x1b[;R", b"\x1b[40;100"], indirect=True)
@pytest.mark.parametrize("size", [(0, 0), (30, 90)])
def test_one_that_does_not_answer_or_answers_nonsense_is_80_by_24_or_stays_as_it_is(terminal: Terminal, size: tuple[int, int]) -> None:
    terminal.size = size
    assert terminal.resize() == 0
    assert terminal.size == (size if size != (0, 0) else (24, 80))


@pytest.mark.parametrize("terminal", [b"\x1b[40;100R"], indirect=True)
def test_one_whose_size_is_known_is_not_asked(terminal: Terminal) -> None:
    terminal.size = (25, 81)
    assert terminal.resize("--unknown") == 0
    assert (terminal.size, terminal.seen) == ((25, 81), b"")


@pytest.mark.parametrize("terminal", [b"\x1b[40;100R"], indirect=True)
@pytest.mark.parametrize("typed", [b"ls", b"ls\n"])
def test_what_was_typed_before_is_left_for_the_shell_and_nothing_is_asked(terminal: Terminal, typed: bytes) -> None:
    os.write(terminal.ours, typed)
    assert terminal.resize("--unknown") == 0
    assert terminal.size == (24, 80)
    assert ASKED not in terminal.seen
    before = termios.tcgetattr(terminal.theirs)
    before[3] &= ~termios.ICANON
    termios.tcsetattr(terminal.theirs, termios.TCSANOW, before)
    assert os.read(terminal.theirs, 100) == typed


@pytest.mark.parametrize("terminal", [b"\x1b[40;100R"], indirect=True)
def test_a_dumb_one_is_asked_only_if_somebody_wants_it_so(terminal: Terminal) -> None:
    assert terminal.resize("--unknown", term="dumb") == 0
    assert (terminal.size, terminal.seen) == ((24, 80), b"")
    assert terminal.resize(term="dumb") == 0
    assert terminal.size == (40, 100)


def test_without_a_terminal_it_says_so() -> None:
    done = subprocess.run(["bash", RESIZE], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stderr) == (1, "resize: this is no terminal\n")


@pytest.mark.parametrize(
    ("terminal_there", "options", "asked"),
    [(True, [], True), (False, [], False), (True, ["--exec", "true"], False)],
)
def test_the_spine_is_told_when_no_terminal_is_at_the_other_end_of_its_console(
    terminal_there: bool, options: list[str], asked: bool, tmp_path: Path
) -> None:
    (tmp_path / "qemu-system-x86_64").write_text(f'#!/bin/sh\necho "$*" >{tmp_path}/words\n')
    (tmp_path / "qemu-system-x86_64").chmod(0o755)
    (tmp_path / "image").touch()
    argv = [
        "bash",
        str(RESIZE.parents[3] / "boot-qemu.sh"),
        "--persist",
        "none",
        "--accel",
        "tcg",
        "--patience",
        "5",
        "--log",
        str(tmp_path / "log"),
    ]
    argv += ["--kernel", str(tmp_path / "image"), "--image", str(tmp_path / "image"), *options]
    ours, theirs = os.openpty()
    stream = theirs if terminal_there else subprocess.DEVNULL
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run(
        argv, stdin=stream, stdout=stream, stderr=subprocess.DEVNULL, check=False, timeout=60, env=environment
    )
    os.close(ours)
    os.close(theirs)
    assert ("bay0.terminal=off" not in (tmp_path / "words").read_text()) == asked
