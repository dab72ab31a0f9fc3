"""Help where people reach for it: `help`, topics, what was probably meant, and the usage of the verb in hand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from bay0.base.errors import RefusedError
from bay0.cli import client, main, near, topics, verbs
from bay0.cli.text import size

Captured = pytest.CaptureFixture[str]


def said(capsys: Captured, *words: str, status: int = 0) -> str:
    assert main.main(words) == status
    shown = capsys.readouterr()
    assert (shown.err if status == 0 else shown.out) == "", "it speaks on one of both"
    return shown.out or shown.err


@pytest.mark.parametrize("words", [("help",), ("--help",), ("-h",)])
def test_help_lists_every_verb_alias_and_topic(words: tuple[str, ...], capsys: Captured) -> None:
    shown = said(capsys, *words)
    for word in (*verbs.WORDS, *verbs.ALIASES, *topics.TOPICS):
        assert re.search(rf"\b{word}\b", shown), word


@pytest.mark.parametrize("path", [path for path, _ in verbs.root().walk() if path], ids=" ".join)
def test_help_of_a_verb_is_what_its_own_help_is(path: tuple[str, ...], capsys: Captured) -> None:
    asked = said(capsys, "help", *path)
    topic = topics.TOPICS.get(path[0], "") if len(path) == 1 else ""
    assert asked == said(capsys, *path, "--help").rstrip("\n") + (f"\n\n{topic}" if topic else "") + "\n"


def test_help_understands_aliases(capsys: Captured) -> None:
    assert (
        said(capsys, "help", "rm")
        == said(capsys, "help", "persona", "rm")
        == said(capsys, "help", "persona", "remove")
    )


@pytest.mark.parametrize("topic", topics.TOPICS)
def test_a_topic_fits_a_screen_and_its_commands_are_there(topic: str, capsys: Captured) -> None:
    text = topics.TOPICS[topic]
    assert topic in verbs.WORDS or said(capsys, "help", topic) == f"{text}\n"
    assert len(text.splitlines()) <= 24
    assert max(map(len, text.splitlines())) <= 120
    for line in re.findall(r"(?:^|, |also: )  ?bay0 ([a-zA-Z -]+)", text, re.MULTILINE):
        words = line.split("  ")[0].split()
        try:
            verbs.parse([*words, "--help"])
        except verbs.HelpWanted:
            continue
        pytest.fail(f"{topic}: bay0 {line}")


@pytest.mark.parametrize(
    ("words", "meant", "usage"),
    [
        (["stat"], "did you mean `bay0 status`", "usage: bay0 VERB ..."),
        (
            ["start", "work"],
            "did you mean `bay0 persona start` or `bay0 tenant start`",
            "usage: bay0 VERB ...",
        ),
        (["--verion"], "did you mean `bay0 --version`", "usage: bay0 VERB ..."),
        (["persona", "strat", "work"], "did you mean start?", "usage: bay0 persona VERB ..."),
        (["persona", "lst"], "did you mean list or ls?", "usage: bay0 persona VERB ..."),
        (
            ["persona", "start", "work", "--no-wiat"],
            "did you mean --no-wait",
            "usage: bay0 persona start [--json]",
        ),
        (["persona", "show"], "NAME is missing", "usage: bay0 persona show [--json]"),
        (["storage", "gorw"], "did you mean grow?", "usage: bay0 storage [--json] [show|retry|grow]"),
        (["completion", "bsh"], "did you mean bash", "usage: bay0 completion bash|zsh|fish"),
        (["graph", "persna"], "did you mean persona?", "usage: bay0 graph"),
        (["graph", "boot", "--format", "mermiad"], "did you mean mermaid?", "usage: bay0 graph"),
        (["validate", "--only", "freezr"], "did you mean freezer?", "usage: bay0 validate"),
        (["tenant", "show", "aii"], "did you mean ai?", "usage: bay0 tenant show"),
        (["help", "peronas"], "did you mean personas", "usage: bay0 help"),
        (["run"], "say which command", "usage: bay0 run [--json] [--deadline S] [COMMAND ...]"),
        (["log", "-n", "-1"], "0 or more", "usage: bay0 log"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_words_are_told_what_was_probably_meant_and_that_verbs_usage(
    words: list[str], meant: str, usage: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    shown = said(capsys, *words, status=2)
    assert shown.startswith("bay0: ")
    assert meant in shown
    assert f"\n{usage}" in shown


def test_words_that_are_like_none_get_no_advice(capsys: Captured) -> None:
    assert "did you mean" not in said(capsys, "zzzzqqq", status=2)


def test_help_is_as_wide_as_the_terminal_within_reason(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    for columns, most in (("60", 60), ("80", 80), ("400", 100)):
        monkeypatch.setenv("COLUMNS", columns)
        lines = said(capsys, "persona", "remove", "--help").splitlines()
        assert most - 25 < max(map(len, lines)) <= most


# ---- names


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Nobody but p://work and p://play is there; each call is noted."""
    asked: list[str] = []

    def call(method: str, timeout_s: float = 0.0, **params: Any) -> Any:
        asked.append(method)
        if method in ("persona.list", "machines"):
            return [{"name": "p://work"}, {"name": "p://play"}, {"name": "boot:1234"}]
        raise RefusedError(f"refused: {params['name'] if 'name' in params else params['machine']}")

    monkeypatch.setattr(client, "call", call)
    return asked


@pytest.mark.parametrize(
    "words",
    [
        "persona start wrok",
        "persona show wrok",
        "persona stop wrok",
        "rm wrok",
        "enter wrok",
        "focus wrok",
        "history wrok",
    ],
)
def test_a_name_that_nobody_has_is_answered_with_the_nearest(
    words: str, refusing: list[str], capsys: Captured
) -> None:
    assert "Did you mean p://work?" in said(capsys, *words.split(), status=1)


@pytest.mark.parametrize("words", ["persona start work", "persona show zzzzzz"])
def test_a_name_that_is_there_or_like_none_is_refused_without_advice(
    words: str, refusing: list[str], capsys: Captured
) -> None:
    assert "Did you mean" not in said(capsys, *words.split(), status=1)


def test_what_is_done_at_once_asks_for_no_list(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(
        client, "call", lambda method, **_params: asked.append(method) or {"name": "p://work"}
    )
    client.named("p://work", "persona.list", "persona.show", name="p://work")
    assert asked == ["persona.show"]


def test_near_words_begin_or_look_alike() -> None:
    assert near.words("gov", ["governor", "graph"]) == ["governor"]
    assert near.words("", ["governor"]) == []
    assert (
        near.name("sys://ia", ["sys://ai", "p://ia2"]) == "p://ia2"
        or near.name("sys://ia", ["sys://ai"]) == "sys://ai"
    )


# ---- words for people


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"), (1023, "1023 bytes"), (1024, "1 KiB"), (1536, "1.5 KiB"), (3 << 29, "1.5 GiB"), (200 << 20, "200 MiB"),
        (10 << 40, "10 TiB"), (5 << 50, "5120 TiB"), ((100 << 20) - (40 << 10), "100 MiB"), (1000 << 20, "1000 MiB"),
    ],
)  # fmt: skip
def test_a_size_is_written_as_people_write_it(count: int, text: str) -> None:
    assert size(count) == text


def test_every_verb_that_the_comparison_with_other_tools_names_is_there() -> None:
    page = (Path(__file__).parents[2] / "docs" / "compared.md").read_text(encoding="utf-8")
    named = {tuple(found.split()) for found in re.findall(r"`bay0 ([a-z -]+)`", page)}
    assert len(named) > 20
    for words in sorted(named):
        with pytest.raises(verbs.HelpWanted):
            verbs.parse([*words, "--help"])
