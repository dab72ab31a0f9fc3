"""The command line in the hands of a stranger: each verb with its help, with nonsense, and without a spine. One clear word, never a traceback."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bay0.cli import logview
from bay0.cli import main as cli

NONSENSE = (
    "nonsense", "", "-1", "--nonsense", "\udcff", "é日本", "x" * 5000, "a\x1b[2Jb", "../../etc/passwd", "=", "sys://", "p://", "p://A", "\n", "a\0b",
    "0x1", "1e999", "nan", "99999999999999999999", "9" * 5000,
)  # fmt: skip


def leaves(parser: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    found = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not found:
        yield words, parser
    for name, below in found[0].choices.items() if found else ():
        yield from leaves(below, (*words, name))


def attempts(words: tuple[str, ...], parser: argparse.ArgumentParser) -> Iterator[tuple[str, ...]]:
    """Yield the verb by itself, and with nonsense in every place that takes a word."""
    needed = tuple(next(iter(action.choices)) if action.choices else "work" for action in parser._get_positional_actions() if action.nargs is None)
    yield words
    for word in NONSENSE:
        yield (*words, word)
        yield (*words, *needed, word)
        for action in parser._get_optional_actions():
            if action.nargs != 0:
                yield (*words, *needed, f"{action.option_strings[-1]}={word}")
            else:
                yield (*words, *needed, action.option_strings[-1], word)


LEAVES = dict(leaves(cli.parser()))


@pytest.mark.parametrize("words", LEAVES, ids=" ".join)
def test_a_verb_in_a_strangers_hands_says_one_clear_thing(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BAY0_SOCKET", str(tmp_path / "none"))
    monkeypatch.setattr(logview.select, "__kwdefaults__", {"path": str(tmp_path / "none")})
    monkeypatch.chdir(tmp_path)
    grammar, made = LEAVES[words], cli.parser()
    monkeypatch.setattr(cli, "parser", lambda: made)  # making it anew each time is most of the time
    for attempt in attempts(words, grammar):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
        try:
            status = cli.main(attempt)
        except SystemExit as end:
            status = int(end.code or 0)
        said = capsys.readouterr()
        assert status in (0, 1, 2, 3), attempt
        assert status == 0 or said.err.strip(), f"{attempt}: status {status} and not a word"
        assert "\x1b" not in said.out + said.err, f"{attempt}: what was given is shown as a terminal would obey it"
        if status == 2:  # wrong usage
            assert f"usage: bay0 {' '.join(words)}" in said.err or said.err.startswith("bay0: "), attempt
    assert list(tmp_path.iterdir()) == [], "nothing was written"


@pytest.mark.parametrize("words", LEAVES, ids=" ".join)
def test_each_verbs_help_says_what_it_does_and_what_it_takes(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([*words, "--help"])
    shown = capsys.readouterr().out
    assert end.value.code == 0
    assert f"usage: bay0 {' '.join(words)}" in shown
    for action in LEAVES[words]._actions:
        assert action.help, f"{' '.join(words)}: {action.dest} is not explained"
