"""Where the keys of a TOML text stand, for messages: tomllib tells values, never lines.

A scan, not a parser: the text has been parsed already. Strings of several lines are skipped, dotted keys and table headers followed; a key
inside an inline table or a list is found at its parent's line.
"""

from __future__ import annotations

import re

DEEPEST = 4  # parts of a key that a message may name: a manifest's have two
_HEADER = re.compile(r"\s*\[\[?\s*([^\]]+?)\s*\]")
_KEY = re.compile(r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=""")
_STRING = re.compile("\"\"\"|'''")


def _plain(path: str) -> str:
    """Return a key as written without quotes and spaces around its dots."""
    return ".".join(part.strip().strip("\"'") for part in path.split("."))


def line_of_error(message: str, text: str) -> int:
    """Return the line that tomllib's message names, counted from 1; the last one for an error at the end."""
    match = re.search(r"at line (\d+)", message)
    return int(match[1]) if match else max(1, len(text.splitlines()))


class Lines:
    """`of(key)` is the line of a key, from 1."""

    def __init__(self, text: str) -> None:
        self._found: dict[str, int] = {}
        table, inside = "", ""
        for number, line in enumerate(text.split("\n"), start=1):
            if not inside:
                header, key = _HEADER.match(line), _KEY.match(line)
                if header:
                    table = _plain(header[1]) + "."
                    self._note(table[:-1], number)
                elif key:
                    self._note(table + _plain(key[1]), number)
            for mark in _STRING.findall(line):
                inside = "" if inside == mark else inside or mark

    def _note(self, path: str, number: int) -> None:
        parts = path.split(".", DEEPEST)[:DEEPEST]  # a key of thousands of parts would take a minute
        for end in range(1, len(parts) + 1):
            self._found.setdefault(".".join(parts[:end]), number)

    def of(self, key: str) -> int:
        """Return the line of a key such as `environment.PORT`: its own, else its parent's, else 1."""
        while key and _plain(key) not in self._found:
            key = key.rpartition(".")[0]
        return self._found.get(_plain(key), 1)
