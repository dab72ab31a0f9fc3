"""The command line's stdin, stdout and stderr, whatever its caller made of them: closed, full, a pipe without a reader."""

from __future__ import annotations

import errno
import posix as os  # the system calls alone: `os` takes longer to load than this package
import sys

from bay0.cli.kit import REFUSED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

UNWRITTEN = "the output could not be written"
_OF_WRITING = (
    errno.EBADF,
    errno.ENOSPC,
    errno.EIO,
    errno.EFBIG,
    errno.EDQUOT,
)  # write(2) of a name-less file
NO_READER = 128 + 13  # the status that a shell shows for a program that SIGPIPE (13 on every Linux) ended


def ensure() -> None:
    """Give 0, 1 and 2 something to be, or the next file that is opened would be one of them.

    A closed stdin ends at once; writing to a closed stdout is an error, as it is for every other program; a
    closed stderr takes all.
    """
    for fd, mode in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(fd)
        except OSError:
            _nothing(mode)  # the lowest number that is free, and those below are taken
    # Python has made no streams of what was closed, and print() takes stdout in the place of a missing stderr
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - until the end
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a word of the caller's that is no text is shown as its bytes
            stream.reconfigure(errors="backslashreplace")


def _nothing(mode: int) -> int:
    """Open what is empty and takes all that is written: /dev/null, or its like where there is none."""
    try:
        return os.open("/dev/null", mode)
    except OSError:
        if mode == os.O_WRONLY:
            return os.memfd_create("nothing")
        reads, writes = os.pipe()  # the lower number is the first one
        os.close(writes)
        return reads


def say(text: str) -> None:
    """Print a complaint; one that nobody reads changes nothing."""
    try:
        print(f"bay0: {harmless(text)}", file=sys.stderr, flush=True)
    except OSError:
        pass


def harmless(text: str) -> str:
    """Return lines in which there is nothing that a terminal would obey."""
    return "".join(char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in text)


def complain(error: OSError) -> int:
    """Say what the system refused, and return the exit status.

    Of output that cannot be written `finish` speaks.
    """
    try:
        sys.stdout.flush()
    except OSError:
        return REFUSED
    say(
        f"{UNWRITTEN}: {error.strerror}"
        if error.filename is None and error.errno in _OF_WRITING
        else str(error)
    )
    return REFUSED


def finish(status: int) -> int:
    """Write what is left, and return the exit status: `status`, unless it could not be written.

    The interpreter's end has nothing to stumble over.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        status = NO_READER
        drop(sys.stdout)
    except OSError as error:
        say(f"{UNWRITTEN}: {error.strerror}")
        status = REFUSED
        drop(sys.stdout)
    try:
        sys.stderr.flush()
    except OSError:
        drop(sys.stderr)
    return status


def drop(stream: TextIO) -> None:
    """Let what is left of `stream`, and all that is still written to it, go nowhere."""
    null = _nothing(os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)
