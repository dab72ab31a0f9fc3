"""Ctrl-C, a reader that has enough and closed descriptors: at whatever moment of a verb, no Python traceback and a status that says what it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

import pytest
from kit import BUILT_ROOT, not_built

# Runs bay0 as `python -m bay0` does, and sends itself the signal at the N-th thing that Python reports once bay0's own main() runs.
AT_THE_NTH = """
import os, runpy, signal, sys
number, at = int(sys.argv[1]), int(sys.argv[2])
signal.signal(signal.SIGINT, signal.default_int_handler)
seen = -1
def hook(event, args):
    global seen
    if seen < 0:
        seen += event == "import" and args[0] == "bay0.cli"
    elif event in ("import", "open", "compile", "exec", "socket.connect"):
        seen += 1
        if seen == at + 1:
            os.kill(os.getpid(), number)
sys.addaudithook(hook)
sys.argv[1:] = sys.argv[3:]
runpy.run_module("bay0", run_name="__main__", alter_sys=True)
"""
BUFFERED = {"PYTHONUNBUFFERED": ""}  # as the frozen program is
MOMENTS_OF_A_START = 60
MOMENTS = (*range(0, 40, 2), *range(40, 160, 24))


def started(at: int, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-c", AT_THE_NTH, str(int(signal.SIGINT)), str(at), *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)


def test_ctrl_c_at_any_moment_of_a_start_ends_a_verb_without_a_word() -> None:
    said = {at: started(at, "persona", "list") for at in MOMENTS}
    caught = [at for at, done in said.items() if done.returncode == -signal.SIGINT]
    assert {at: said[at].stderr for at in caught if said[at].stderr or said[at].stdout} == {}
    others = {done.returncode for at, done in said.items() if at not in caught}
    assert others <= {3}, "they came to their end before the moment came, and found no spine"
    assert len(caught) > len(MOMENTS) / 2, caught


def test_a_verb_that_was_started_with_interrupts_ignored_goes_on_ignoring_them() -> None:
    """As a shell script's `bay0 ... &` is: Ctrl-C is for what is in front."""
    code = "import os, signal; signal.signal(signal.SIGINT, signal.SIG_IGN); " + AT_THE_NTH.replace("signal.default_int_handler", "signal.SIG_IGN")
    done = subprocess.run([sys.executable, "-c", code, "2", "5", "persona", "list"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 3


def shell(command: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a bash command in which "$@" is bay0 with `words`."""
    argv = ["bash", "-c", command, "bash", sys.executable, "-m", "bay0", *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60, env={**os.environ, **BUFFERED})


SPEAKING: Sequence[tuple[str, ...]] = (("--help",), ("persona", "--help"), ("graph", "boot"), ("completion", "bash"), ("version",), ("--version",))


@pytest.mark.parametrize("words", SPEAKING)
def test_a_reader_that_has_enough_ends_a_verb_without_a_word(words: tuple[str, ...]) -> None:
    theirs, ours = os.pipe()
    os.close(theirs)
    argv = [sys.executable, "-m", "bay0", *words]
    done = subprocess.run(argv, stdout=ours, stderr=subprocess.PIPE, text=True, check=False, timeout=60, env={**os.environ, **BUFFERED})
    os.close(ours)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


@pytest.mark.parametrize("words", [("status",), ("nonsense",), ("graph", "nonsense")])
def test_nobody_who_reads_the_errors_changes_no_status(words: tuple[str, ...]) -> None:
    theirs, ours = os.pipe()
    os.close(theirs)
    done = subprocess.run([sys.executable, "-m", "bay0", *words], stdout=subprocess.PIPE, stderr=ours, check=False, timeout=60)
    os.close(ours)
    assert (done.returncode, done.stdout) == (3 if words == ("status",) else 2, b"")


@pytest.mark.parametrize("words", SPEAKING)
@pytest.mark.parametrize("where", [">&-", ">/dev/full"])
def test_output_that_cannot_be_written_is_said_once_and_is_a_failure(words: tuple[str, ...], where: str) -> None:
    done = shell(f'"$@" {where}', *words)
    assert done.returncode == 1
    assert done.stderr.startswith("bay0: the output could not be written: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("words", [("persona", "list"), ("nonsense",), ("status",)])
def test_with_stderr_closed_nothing_of_it_lands_in_the_output(words: tuple[str, ...]) -> None:
    done = shell('"$@" 2>&-', *words)
    assert done.returncode in (2, 3)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize("words", [("rpc",), ("rpc", "--each"), ("ask",), ("persona", "reset", "work", "--home"), ("status",)])
def test_with_stdin_closed_a_verb_says_what_it_wants(words: tuple[str, ...]) -> None:
    done = shell('"$@" <&-', *words)
    assert done.returncode in (1, 2, 3)
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith(("bay0: ", "usage: "))


NO_NULL = """import os, runpy, sys
os.devnull, sys.argv[0] = "/nonexistent", "bay0"
runpy.run_module("bay0", run_name="__main__")
"""


@pytest.mark.parametrize(
    ("streams", "words", "status", "said"),
    [
        ("<&-", ("version",), 0, ""),
        ("<&-", ("rpc",), 3, "bay0: "),
        (">&-", ("version",), 1, "bay0: the output could not be written: "),
        ("2>&-", ("nonsense",), 2, ""),
        ("<&- >&- 2>&-", ("version",), 1, ""),
        ("| head -c 0; exit ${PIPESTATUS[0]}", ("--help",), None, ""),
    ],
)
def test_without_dev_null_a_closed_stream_is_what_it_is_with_it(
    streams: str, words: tuple[str, ...], status: int | None, said: str
) -> None:
    argv = ["bash", "-c", f'"$@" {streams}', "bash", sys.executable, "-c", NO_NULL, *words]
    done = subprocess.run(
        argv,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, **BUFFERED, "BAY0_SOCKET": "/none"},
    )
    assert status is None or done.returncode == status, done.stderr
    assert done.stderr.startswith(said)
    assert "Traceback" not in done.stderr
    assert "\n" not in done.stderr[:-1]


# ---- the frozen program, from its first instruction


@pytest.fixture(scope="module")
def frozen() -> list[str]:
    """Give the words that run the built image's own `bay0`, in its own root."""
    if not (BUILT_ROOT / "usr/bin/bay0").exists():
        not_built("build/rootfs is not there")
    enter = 'mount --rbind /dev "$0/dev" && exec chroot "$0" /usr/bin/bay0 "$@"'
    return ["unshare", "--map-root-user", "--mount", "sh", "-c", enter, str(BUILT_ROOT)]


@pytest.mark.built
def test_the_frozen_program_ends_at_ctrl_c_without_a_word_from_its_first_instruction_on(frozen: list[str]) -> None:
    """Signals at many moments of as many starts. What is asserted holds at each moment, however fast the machine is."""
    began = time.monotonic()
    done = subprocess.run([*frozen, "persona", "list"], capture_output=True, check=False, timeout=60)
    whole = time.monotonic() - began
    assert done.returncode == 3, done.stderr
    caught = 0
    for step in range(MOMENTS_OF_A_START):
        process = subprocess.Popen([*frozen, "persona", "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        time.sleep(whole * step / MOMENTS_OF_A_START)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert b"Traceback" not in err and b"PYI-" not in err and b"Exception" not in err, (step, err)  # noqa: PT018
        assert process.returncode in (-signal.SIGINT, 3), (step, err)
        if process.returncode == -signal.SIGINT:
            caught += 1
    assert caught, "no signal arrived before the end"


@pytest.mark.built
@pytest.mark.parametrize("words", [("--help",), ("version",), ("graph", "boot")])
def test_a_reader_that_has_enough_ends_the_frozen_program_without_a_word(frozen: list[str], words: tuple[str, ...]) -> None:
    theirs, ours = os.pipe()
    os.close(theirs)
    done = subprocess.run([*frozen, *words], stdout=ours, stderr=subprocess.PIPE, check=False, timeout=60)
    os.close(ours)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")
