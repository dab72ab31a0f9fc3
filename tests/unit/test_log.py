"""One line a step, to places that may be slow, full or gone; what is lost is counted and said."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import resource
import shutil
import threading
import tty
from pathlib import Path
from typing import Any

import pytest
from kit import in_child, no_descriptor_left, until

from bay0 import log
from bay0.base.logline import LEVELS, render


class Listing:
    """A console that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.dropped = 0

    def write(self, line: str) -> None:
        self.lines.append(line)


def sinks_in(path: Path, **more: Any) -> log.Sinks:
    return log.Sinks(console=Listing(), file=log.RunLog(str(path / "run" / "log.jsonl"), **more))  # type: ignore[arg-type]


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# ---- how a record looks


def test_a_record_is_one_line_with_the_kernels_time() -> None:
    assert (
        render({"t_ms": 3214, "level": "info", "event": "persist mounted", "device": "/dev/vda"})
        == "[       3.214] bay0: persist mounted (device=/dev/vda)"
    )


def test_a_step_says_from_where_to_where_and_why() -> None:
    step = {
        "t_ms": 10, "level": "info", "event": "step", "machine": "boot:1", "source": "new", "by": "begin", "dest": "mounting",
        "why": "the kernel handed over", "n": 1, "after_ms": 4, "kept": "volatile",
    }  # fmt: skip
    assert render(step) == "[       0.010] bay0: boot:1: new -> mounting: the kernel handed over (after_ms=4 kept=volatile)"


def test_warnings_and_errors_are_marked() -> None:
    assert "bay0: WARNING: persist timeout" in render({"level": "warning", "event": "persist timeout"})
    assert "bay0: ERROR: method failed" in render({"level": "error", "event": "method failed"})


def test_values_that_would_be_ambiguous_are_quoted() -> None:
    line = render({"event": "x", "why": "two words", "empty": "", "list": [1], "none": None, "lines": "a\nb"})
    assert line.endswith(r'(why="two words" empty="" list=[1] none=null lines="a\nb")')


# ---- levels and sinks


def test_every_record_is_in_the_file_and_the_console_shows_what_its_level_lets_through(tmp_path: Path) -> None:
    sinks = sinks_in(tmp_path)
    sinks.file.open()
    logger = log.make(sinks)
    logger.debug("small", n=1)
    logger.info("plain", n=2)
    logger.warning("odd", n=3)
    assert [record["event"] for record in records(tmp_path / "run" / "log.jsonl")] == ["small", "plain", "odd"]
    assert [line.split("] ")[1] for line in sinks.console.lines] == ["bay0: plain (n=2)", "bay0: WARNING: odd (n=3)"]


def test_steps_are_shown_even_when_a_shell_shares_the_console(tmp_path: Path) -> None:
    sinks = sinks_in(tmp_path)
    sinks.console_level = LEVELS["error"]
    logger = log.make(sinks)
    logger.warning("hidden")
    logger.info("step", machine="m", source="a", by="e", dest="b", why="w", n=1, after_ms=0, kept="durable")
    assert len(sinks.console.lines) == 1


def test_times_are_the_kernels_and_never_run_backwards(tmp_path: Path) -> None:
    sinks = sinks_in(tmp_path)
    sinks.file.open()
    logger = log.make(sinks)
    before = log.kernel_ms()
    for number in range(5):
        logger.info("tick", number=number)
    times = [record["t_ms"] for record in records(tmp_path / "run" / "log.jsonl")]
    assert times == sorted(times)
    assert before <= times[0] <= times[-1] <= log.kernel_ms()


# ---- the file under /run


def test_lines_before_the_file_is_there_are_not_lost(tmp_path: Path) -> None:
    sinks = sinks_in(tmp_path)
    logger = log.make(sinks)
    logger.info("early", n=1)
    sinks.file.open()
    logger.info("late", n=2)
    assert [record["event"] for record in records(tmp_path / "run" / "log.jsonl")] == ["early", "late"]


def test_early_lines_are_bounded(tmp_path: Path) -> None:
    file = log.RunLog(str(tmp_path / "log.jsonl"))
    for number in range(5000):
        file.write({"n": number})
    file.open()
    kept = [record["n"] for record in records(tmp_path / "log.jsonl")]
    assert len(kept) == 1000
    assert kept[-1] == 4999


def test_the_file_is_bounded_and_one_older_one_is_kept(tmp_path: Path) -> None:
    file = log.RunLog(str(tmp_path / "log.jsonl"), limit=4096)
    file.open()
    for number in range(1000):
        file.write({"n": number, "text": "x" * 50})
    assert sorted(os.listdir(tmp_path)) == ["log.jsonl", "log.jsonl.1"]
    assert all(os.path.getsize(tmp_path / name) <= 4096 for name in os.listdir(tmp_path))
    older, newer = records(tmp_path / "log.jsonl.1"), records(tmp_path / "log.jsonl")
    numbers = [record["n"] for record in older + newer]
    assert numbers == list(range(numbers[0], 1000)), "no line is lost or torn at the rotation"


def test_a_log_that_is_opened_again_goes_on_and_keeps_its_bound(tmp_path: Path) -> None:
    for _ in range(3):
        file = log.RunLog(str(tmp_path / "log.jsonl"), limit=300)
        file.open()
        file.write({"text": "x" * 180})
    assert os.path.getsize(tmp_path / "log.jsonl") <= 300
    assert os.path.exists(tmp_path / "log.jsonl.1")


def test_a_full_disk_under_run_does_not_raise_and_what_is_lost_is_counted() -> None:
    file = log.RunLog("/dev/full")
    file._fd = os.open("/dev/full", os.O_WRONLY)
    file.write({"n": 1})
    assert (file.lost, file.failing) == (1, "[Errno 28] No space left on device")


def everything_in(directory: Path) -> list[dict[str, Any]]:
    return records(directory / "log.jsonl.1") + records(directory / "log.jsonl")


@in_child
def test_a_rotation_without_a_free_descriptor_loses_no_line_and_comes_later(tmp_path: Path) -> None:
    file = log.RunLog(str(tmp_path / "log.jsonl"), limit=2000)
    file.open()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    for number in range(90):  # the bound is reached between the two
        with no_descriptor_left() if 50 <= number < 80 else contextlib.nullcontext():
            file.write({"event": "line", "n": number})
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == limits
    assert [record["n"] for record in everything_in(tmp_path)] == list(range(90))
    assert (file.lost, file.failing) == (0, "")
    assert sorted(os.listdir(tmp_path)) == ["log.jsonl", "log.jsonl.1"]


def test_a_file_that_cannot_be_begun_for_long_stays_bounded_and_says_how_many_lines_are_lost(tmp_path: Path) -> None:
    file = log.RunLog(str(tmp_path / "log.jsonl"), limit=2000)
    file.open()
    (tmp_path / "log.jsonl.new").mkdir()
    for number in range(300):
        file.write({"event": "line", "n": number})
    assert os.path.getsize(tmp_path / "log.jsonl") <= 4000
    assert "Is a directory" in file.failing
    kept = len(records(tmp_path / "log.jsonl"))
    assert file.lost == 300 - kept
    (tmp_path / "log.jsonl.new").rmdir()
    file.write({"event": "line", "n": 300})
    said, last = records(tmp_path / "log.jsonl")
    assert (said["event"], said["lines"], said["level"]) == ("run log lines lost", 300 - kept, "warning")
    assert "Is a directory" in said["why"]
    assert (last["n"], file.failing) == (300, "")


def test_the_console_says_that_the_log_cannot_be_written_and_that_it_is_written_again(tmp_path: Path) -> None:
    sinks = sinks_in(tmp_path, limit=300)
    sinks.console_level = LEVELS["error"]
    sinks.file.open()
    blocked = tmp_path / "run" / "log.jsonl.new"
    blocked.mkdir()
    logger = log.make(sinks)
    for number in range(10):
        logger.info("line", n=number)
    blocked.rmdir()
    logger.info("line", n=10)
    told = [line.partition("log.jsonl ")[2] for line in sinks.console.lines]
    assert [words[:20] for words in told] == ["cannot be written: n", "is written again"]


def test_a_log_that_was_removed_begins_anew_with_its_directory(tmp_path: Path) -> None:
    file = log.RunLog(str(tmp_path / "run" / "log.jsonl"))
    file.open()
    file.write({"n": 1})
    assert file.look() == []
    shutil.rmtree(tmp_path / "run")
    assert file.look() == ["somebody removed it"]
    file.write({"n": 2})
    assert [record["n"] for record in records(tmp_path / "run" / "log.jsonl")] == [2]
    assert file.look() == []


def test_a_log_that_could_not_be_opened_is_opened_later_and_has_the_early_lines(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    file = log.RunLog(str(tmp_path / "run" / "log.jsonl"))
    with pytest.raises(OSError, match="File exists"):
        file.open()
    file.write({"n": 1})
    with pytest.raises(OSError, match="File exists"):
        file.look()
    (tmp_path / "run").unlink()
    assert file.look() == ["it could not be opened before"]
    assert [record["n"] for record in records(tmp_path / "run" / "log.jsonl")] == [1]


def test_the_log_follows_no_link_and_waits_for_no_reader(tmp_path: Path) -> None:
    file = log.RunLog(str(tmp_path / "log.jsonl"))
    os.symlink(tmp_path / "elsewhere", tmp_path / "log.jsonl")
    with pytest.raises(OSError, match="symbolic"):
        file.open()
    (tmp_path / "log.jsonl").unlink()
    os.mkfifo(tmp_path / "log.jsonl")
    with pytest.raises(OSError, match="No such device or address"):
        file.open()
    assert not (tmp_path / "elsewhere").exists()


def test_odd_values_do_not_raise(tmp_path: Path) -> None:
    sinks = sinks_in(tmp_path)
    sinks.file.open()
    logger = log.make(sinks)
    logger.info("odd", path=Path("/x"), raw=b"\xff", lone="\udc80", nul="\0", error=OSError(5, "io"))
    assert records(tmp_path / "run" / "log.jsonl")[0]["path"] == "/x"


# ---- the console


def reader_of(fd: int, into: bytearray) -> threading.Thread:
    def read() -> None:
        while True:
            try:
                data = os.read(fd, 65536)
            except OSError:
                return
            if not data:
                return
            into.extend(data)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread


def test_the_console_gets_lines_whose_carriage_returns_are_left_to_the_terminal(tmp_path: Path) -> None:
    fifo = tmp_path / "console"
    os.mkfifo(fifo)
    read = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    console = log.Console(str(fifo))
    console.write("one")
    console.write("two\nthree")
    assert os.read(read, 1000) == b"one\ntwo\nthree\n"


def test_a_terminal_that_nobody_reads_never_blocks_and_what_is_lost_is_counted_and_said(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    tty.setraw(slave)
    sinks = log.Sinks(console=log.Console(os.ttyname(slave)), file=log.RunLog(str(tmp_path / "log.jsonl")))
    logger = log.make(sinks)
    for number in range(5000):
        logger.info("flood", number=number, text="x" * 80)
    lost = sinks.console.dropped
    assert lost > 0
    assert len(sinks.console._ring) <= log.CONSOLE_RING
    seen = bytearray()
    thread = reader_of(master, seen)
    until(lambda: not sinks.console._ring and not sinks.console._begun, "an empty ring", step=sinks.console.push)
    logger.info("afterwards")
    until(lambda: b"afterwards" in seen, step=sinks.console.push)
    text = seen.decode()
    assert f"bay0: {sinks.console.dropped} console lines lost while the terminal did not read" in text or "console lines lost" in text
    assert text.rindex("console lines lost") < text.index("afterwards")
    sinks.console.close()
    os.close(slave)
    thread.join(10)
    os.close(master)
    assert not thread.is_alive(), "a thread that lives on would make every later fork doubtful"
    shown = text.count("flood (")
    assert shown + sinks.console.dropped >= 5000, "every line was shown or counted"


def test_no_terminal_at_all_is_survived(tmp_path: Path) -> None:
    console = log.Console(str(tmp_path / "nothing"))
    for number in range(1000):
        console.write(str(number))
    assert console.dropped == 1000 - log.CONSOLE_RING


def test_a_terminal_that_comes_late_gets_what_the_ring_kept(tmp_path: Path) -> None:
    fifo = tmp_path / "console"
    console = log.Console(str(fifo))
    console.write("early")
    os.mkfifo(fifo)
    read = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    console.push()
    assert os.read(read, 100) == b"early\n"


def test_a_terminal_that_goes_away_is_opened_again(tmp_path: Path) -> None:
    fifo = tmp_path / "console"
    os.mkfifo(fifo)
    read = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    console = log.Console(str(fifo))
    console.write("one")
    os.close(read)
    console.write("two")  # EPIPE: the line waits
    read = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    console.write("three")
    assert os.read(read, 100) == b"two\nthree\n"


def test_a_line_that_is_cut_by_a_full_terminal_is_finished_later(tmp_path: Path) -> None:
    fifo = tmp_path / "console"
    os.mkfifo(fifo)
    read = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    console = log.Console(str(fifo))
    line = "y" * 50000
    for _ in range(3):
        console.write(line)
    seen = bytearray()
    while console._ring or console._begun:
        seen += os.read(read, 1 << 20)
        console.push()
    seen += os.read(read, 1 << 20)
    assert seen.decode() == f"{line}\n" * 3


@pytest.mark.parametrize("full", [True, False])
def test_a_ring_that_overflows_drops_whole_lines(tmp_path: Path, full: bool) -> None:
    """The rest of a line that was cut must still come before the next one, or two lines become one."""
    fifo = tmp_path / "console"
    os.mkfifo(fifo)
    read = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    console = log.Console(str(fifo))
    lines = [f"{number:04}" + "z" * 5996 for number in range(600 if full else 30)]
    for line in lines:
        console.write(line)
    seen = bytearray()
    while console._ring or console._begun:
        seen += os.read(read, 1 << 20)
        console.push()
    seen += os.read(read, 1 << 20)
    shown = seen.decode().split("\n")[:-1]
    assert set(shown) <= set(lines)
    assert len(shown) + console.dropped == len(lines)
