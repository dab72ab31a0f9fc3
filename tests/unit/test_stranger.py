"""The command line in the hands of a stranger: each verb with its help, with nonsense, and without a spine. One clear word, never a traceback."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bay0.cli import logview, verbs
from bay0.cli import main as cli
from bay0.cli.grammar import Verb

NONSENSE = (
    "nonsense", "", "-1", "--nonsense", "\udcff", "é日本", "x" * 5000, "a\x1b[2Jb", "../../etc/passwd", "=", "sys://", "p://", "p://A", "\n", "a\0b",
    "0x1", "1e999", "nan", "99999999999999999999", "9" * 5000,
)  # fmt: skip


def attempts(words: tuple[str, ...], verb: Verb) -> Iterator[tuple[str, ...]]:
    """Yield the verb by itself, and with nonsense in every place that takes a word."""
    needed = tuple(place.choices[0] if place.choices else "work" for place in verb.places if not place.many)
    yield words
    for word in NONSENSE:
        yield (*words, word)
        yield (*words, *needed, word)
        for option in verb.options:
            if option.metavar:
                yield (*words, *needed, f"{option.flags[-1]}={word}")
            else:
                yield (*words, *needed, option.flags[-1], word)


LEAVES = {path: verb for path, verb in verbs.root().walk() if verb.below is None}


@pytest.mark.parametrize("words", LEAVES, ids=" ".join)
def test_a_verb_in_a_strangers_hands_says_one_clear_thing(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BAY0_SOCKET", str(tmp_path / "none"))
    monkeypatch.setitem(logview.select.__kwdefaults__, "path", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)
    for attempt in attempts(words, LEAVES[words]):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
        status = cli.main(attempt)
        said = capsys.readouterr()
        assert status in (0, 1, 2, 3), attempt
        assert status == 0 or said.err.strip(), f"{attempt}: status {status} and not a word"
        assert "\x1b" not in said.out + said.err, f"{attempt}: what was given is shown as a terminal would obey it"
        if status == 2:  # wrong usage
            assert f"usage: bay0 {' '.join(words)}" in said.err or said.err.startswith("bay0: "), attempt
    assert list(tmp_path.iterdir()) == [], "nothing was written"


@pytest.mark.parametrize("words", LEAVES, ids=" ".join)
def test_each_verbs_help_says_what_it_does_and_what_it_takes(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    status = cli.main([*words, "--help"])
    shown = capsys.readouterr().out
    assert status == 0
    assert f"usage: bay0 {' '.join(words)}" in shown
    for what in (*LEAVES[words].options, *LEAVES[words].places):
        assert what.help, f"{' '.join(words)}: {what.dest} is not explained"
