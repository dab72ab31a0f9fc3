"""The log of a persona, as conmon writes it (k8s-file), read by the command line in its own process; it outlives the container.

One record a line: ``TIMESTAMP stdout|stderr F|P TEXT``. P is a part of a line that conmon's buffer could not hold, or one without
its end yet; F ends the line. (Kubernetes, design proposal "CRI: container stdout/stderr logs"; conmon, src/ctr_logging.c.)
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import BinaryIO

from attrs import define, field, frozen

from bay0.state import files, paths

POLL_S = 0.25
PROMPT_POLLS = 4  # polls without news until a line that has no end yet, such as a prompt, is shown as it is
LINE_MAX = 64 << 10  # characters; a program that never ends its line must not fill our memory
STREAMS = ("stdout", "stderr")


@frozen
class Entry:
    """One line of a persona. `at` is what conmon's clock said; `stream` is stdout, stderr, or "" for a record that is torn."""

    at: str
    stream: str
    text: str


def path(podman_name: str) -> str:
    """Return the file that holds the log of the container called `podman_name` (p__LABEL)."""
    return f"{paths.LOGS}/{podman_name}.log"


def is_there(file: str) -> bool:
    """Tell whether a persona has written. `MisplacedError` if something else is where its log belongs."""
    files.check(file)
    return files.look(file) is not None


@define(eq=False, repr=False)
class Joiner:
    """Makes entries of records, a line of several parts into one. The two streams do not disturb each other."""

    _parts: dict[str, tuple[str, list[str]]] = field(factory=dict)

    def feed(self, record: str) -> Iterator[Entry]:
        """Yield what `record` completes. A torn record comes out as it is."""
        at, stream, tag, text = [*record.split(" ", 3), "", "", ""][:4]
        if stream not in STREAMS or tag.split(":")[0] not in ("F", "P"):
            yield Entry("", "", record)
            return
        since, parts = self._parts.pop(stream, (at, []))
        parts.append(text)
        if tag.startswith("P") and sum(map(len, parts)) < LINE_MAX:
            self._parts[stream] = (since, parts)
        else:
            yield Entry(since, stream, "".join(parts))

    def rest(self) -> Iterator[Entry]:
        """Yield the lines that have begun and not ended, such as a prompt; forgets them."""
        begun, self._parts = self._parts, {}
        for stream, (at, parts) in begun.items():
            yield Entry(at, stream, "".join(parts))


@define(eq=False, repr=False)
class Reader:
    """Reads a file that grows, is cut short, or is replaced by a new one under its name. `OSError` if it cannot be read."""

    path: str
    _file: BinaryIO | None = None
    _begun: bytes = b""

    def records(self) -> Iterator[str]:
        """Yield the whole records that have come since the last call. `FileNotFoundError` if there has never been a file."""
        if self._file is None:
            self._file = open(files.open_file(self.path), "rb")  # noqa: SIM115 - it is kept until it is replaced
        yield from self._read(self._file)
        try:
            now = open(files.open_file(self.path), "rb")  # noqa: SIM115 - as above
        except FileNotFoundError:  # the moment between the old file and the new one
            return
        if not os.path.sameopenfile(now.fileno(), self._file.fileno()):
            yield from self._read(self._file)  # what came between our reading and the change
            self._file.close()
            self._file = now
        else:
            now.close()
            if os.fstat(self._file.fileno()).st_size >= self._file.tell():
                return
            self._file.seek(0)
        yield from self.end()
        yield from self._read(self._file)

    def end(self) -> Iterator[str]:
        """Yield the record that has no end yet; it is forgotten."""
        if self._begun:
            yield self._begun.decode("utf-8", "replace")
        self._begun = b""

    def _read(self, file: BinaryIO) -> Iterator[str]:
        for line in file:
            self._begun += line
            if self._begun.endswith(b"\n"):
                yield self._begun[:-1].decode("utf-8", "replace")
                self._begun = b""


def _all(_entry: Entry) -> bool:
    return True


def stored(file: str, last: int = 0, wanted: Callable[[Entry], bool] = _all) -> Iterator[Entry]:
    """Yield the last `last` lines there are of those `wanted` (0: all). `FileNotFoundError` if the persona has never written."""
    reader, joiner = Reader(file), Joiner()
    kept = deque((e for r in reader.records() for e in joiner.feed(r) if wanted(e)), maxlen=last or None)
    for record in reader.end():
        kept.extend(filter(wanted, joiner.feed(record)))
    kept.extend(filter(wanted, joiner.rest()))
    yield from kept


def follow(file: str, last: int = 0, wanted: Callable[[Entry], bool] = _all) -> Iterator[Entry]:
    """Yield the last `last` lines of those `wanted` (0: all), then those that come, for ever; waits for a file that is not there yet."""
    reader, joiner = Reader(file), Joiner()
    first, quiet = True, 0
    while True:
        try:
            found = (e for r in reader.records() for e in joiner.feed(r) if wanted(e))
            entries = deque(found, maxlen=(last or None) if first else None)
            first = False
        except FileNotFoundError:
            entries = deque()
        quiet = 0 if entries else quiet + 1
        if quiet == PROMPT_POLLS:
            entries.extend(filter(wanted, joiner.rest()))
        yield from entries
        time.sleep(POLL_S)
