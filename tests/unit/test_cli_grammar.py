"""How words are read by a grammar, and JSON without the package `json`."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bay0.cli import main, plainjson, verbs
from bay0.cli.grammar import HelpWanted, Misuse, Option, Options, Place, Verb, read, whole


def verb(*takes: Option | Place, **more: Any) -> Verb:
    return Verb("do it", "m:f", *takes, **more)


FULL = verb(
    Option("-f --follow", "go on"),
    Option("-n --lines", "how many", "N", default=0, convert=whole),
    Option("--wait", "wait", default=True, negatable=True),
    Option("--warm", "keep it warm"),
    Option("--only", "only these", "NAME", choices=("a", "b"), append=True),
    Option("--model", "one", "FILE"),
    Option("--default-model", "the other"),
    Place("name", "whose"),
    Place("rest", "the rest", many="*"),
    alone=("model", "default_model"),
)


def got(*words: str) -> Options:
    return read(("x",), FULL, words)[2]


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (
            ["w"],
            {"name": "w", "rest": [], "follow": False, "lines": 0, "wait": True, "only": None, "json": False},
        ),
        (["-f", "w", "-n", "5"], {"name": "w", "follow": True, "lines": 5}),
        (["-fn5", "w"], {"follow": True, "lines": 5}),
        (["-n=5", "w"], {"lines": 5}),
        (["--lines=5", "w", "a", "b"], {"lines": 5, "rest": ["a", "b"]}),
        (["--lines", "-3", "w"], {"lines": -3}),
        (["--li", "7", "w"], {"lines": 7}),
        (["w", "--no-wait"], {"wait": False}),
        (["w", "--no-wait", "--wait"], {"wait": True}),
        (["--only", "a", "--only=b", "w"], {"only": ["a", "b"]}),
        (["w", "--", "-f", "--", "--lines"], {"name": "w", "rest": ["-f", "--", "--lines"], "follow": False}),
        (["--", "-w"], {"name": "-w"}),
        (["-", "-1", "-.5"], {"name": "-", "rest": ["-1", "-.5"]}),
        (["--default-model", "w"], {"default_model": True, "model": None}),
        ([""], {"name": ""}),
    ],
)
def test_words_are_read_as_every_program_reads_them(words: list[str], values: dict[str, Any]) -> None:
    found = vars(got(*words))
    assert {key: found[key] for key in values} == values


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "NAME is missing"),
        (["w", "--nope"], "takes no --nope"),
        (["w", "-x"], "takes no -x"),
        (["w", "-fx"], "takes no -x"),
        (["w", "--wa"], "--wait or --warm"),
        (["w", "-n"], "-n takes a value: N"),
        (["w", "-n", "-f"], "-n takes a value: N"),
        (["w", "-n", "many"], "a whole number, not 'many'"),
        (["w", "--follow=yes"], "--follow takes no value"),
        (["w", "--only", "c"], "one of a, b"),
        (["w", "--model", "m", "--default-model"], "cannot stand together"),
    ],
)
def test_words_that_make_no_sense_are_refused_with_what_would(words: list[str], said: str) -> None:
    with pytest.raises(Misuse) as error:
        got(*words)
    assert said in str(error.value)
    assert error.value.verb is FULL


def test_one_word_too_many_is_refused() -> None:
    with pytest.raises(Misuse, match="takes no 'b'"):
        read((), verb(Place("name", "whose")), ["a", "b"])


def test_a_place_may_be_left_out_and_has_its_default() -> None:
    place = Place("action", "what", many="?", choices=("show", "grow"), default="show")
    assert read((), verb(place), [])[2].action == "show"
    assert read((), verb(place), ["grow"])[2].action == "grow"
    with pytest.raises(Misuse, match="one of show, grow"):
        read((), verb(place), ["shrink"])


def test_a_group_leads_to_its_verbs_by_name_and_alias() -> None:
    group = Verb("all", below={"list": FULL}, aliases={"ls": "list"})
    for word in ("list", "ls"):
        path, found, options = read(("x",), group, [word, "w"])
        assert (path, found, options.name) == (("x", "list"), FULL, "w")
    for words in ([], ["lost"]):
        with pytest.raises(Misuse):
            read(("x",), group, words)


@pytest.mark.parametrize("words", [["-h"], ["--help"], ["w", "--help"], ["-fh"]])
def test_help_is_wanted_wherever_it_is_asked_for(words: list[str]) -> None:
    with pytest.raises(HelpWanted):
        got(*words)


def test_every_verb_has_a_function_and_every_alias_a_verb() -> None:
    root = verbs.root()
    for path, found in root.walk():
        assert bool(found.call) is (found.below is None), path
        if found.call:
            assert callable(main.function(found.call)), path
        for alias, meant in found.aliases.items():
            assert alias not in (found.below or {}), f"{alias} is a verb and an alias"
            below = found
            for word in meant.split():
                below = (below.below or {})[word]


@pytest.mark.parametrize(
    ("words", "path"),
    [
        (["ls"], ("persona", "list")),
        (["ps", "--json"], ("persona", "list")),
        (["rm", "work"], ("persona", "remove")),
        (["enter", "work", "--", "ls", "-l"], ("persona", "shell")),
        (["halt"], ("poweroff",)),
        (["shutdown", "--force"], ("poweroff",)),
        (["persona", "rm", "work"], ("persona", "remove")),
        (["persona", "enter", "work"], ("persona", "shell")),
        (["image", "ls"], ("image", "list")),
        (["tenant", "ls"], ("tenant", "list")),
        (["nack", "ls"], ("nack", "list")),
        (["--validate", "--json"], ("validate",)),
        (["-V"], ("version",)),
        (["--version"], ("version",)),
    ],
)
def test_what_people_type_elsewhere_is_understood(words: list[str], path: tuple[str, ...]) -> None:
    assert verbs.parse(words)[0] == path


# ---- JSON

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)


@given(JSON)
def test_what_is_written_is_what_the_package_json_writes(value: Any) -> None:
    assert plainjson.dumps(value) == json.dumps(value)
    assert plainjson.dumps(value, indent=2) == json.dumps(value, indent=2)


@given(JSON)
def test_what_is_read_is_what_the_package_json_reads(value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False)
    assert plainjson.loads(text) == value
    if value == value and not any(0xD800 <= ord(char) < 0xE000 for char in text):  # noqa: PLR0124 - what is no number differs from itself
        assert plainjson.loads(f" \n{text}\r\n".encode()) == value


@pytest.mark.parametrize(
    "text", ["", " ", "{", "[1,]", "{} {}", "nul", "'a'", '"\n"', "[1] x", b"\xff", "\x00"]
)
def test_what_is_no_json_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError):
        plainjson.loads(text)


def test_numbers_without_a_value_are_as_the_package_json_has_them() -> None:
    for value in (math.inf, -math.inf, math.nan):
        assert plainjson.dumps(value) == json.dumps(value)
    assert math.isnan(plainjson.loads("NaN"))
    assert plainjson.loads("[-Infinity, Infinity]") == [-math.inf, math.inf]


def test_what_has_no_form_in_json_is_written_as_its_text() -> None:
    assert plainjson.dumps({"at": range(2)}) == json.dumps({"at": range(2)}, default=str)
