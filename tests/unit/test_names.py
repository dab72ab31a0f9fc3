"""Names: what is one, what is none and why, and that podman's spelling leads back to exactly one of ours."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable

import pytest
from attrs.exceptions import FrozenInstanceError
from bad_names import BAD

from bay0.base import names
from bay0.base.errors import BadNameError
from bay0.base.names import LABEL_MAX, Name

CASES = [(text, reason) for reason, texts in BAD.items() for text in texts]
LONGEST = "a" * LABEL_MAX


@pytest.mark.parametrize("label", ["a", "z", "work", "a1", "web-2", "a-b-c", "x9-9x", "sys", "p", LONGEST, "a-" * 15 + "ab"])
@pytest.mark.parametrize(("word", "kind"), [("p", "persona"), ("sys", "tenant")])
def test_a_good_name_is_taken_and_is_spelled_as_it_was(word: str, kind: str, label: str) -> None:
    name = names.parse(f"{word}://{label}")
    assert (name.kind, name.label) == (kind, label)
    assert (name.semantic, str(name), name.podman) == (f"{word}://{label}", f"{word}://{label}", f"{word}__{label}")
    assert names.from_podman(name.podman) == name


def test_there_are_at_least_300_bad_names_and_no_two_are_the_same() -> None:
    assert len(CASES) == len({text for text, _ in CASES})
    assert len(CASES) >= 300


@pytest.mark.parametrize(("text", "reason"), CASES, ids=[ascii(text[:40]) for text, _ in CASES])
def test_a_bad_name_is_refused_with_the_reason_and_gives_nothing(text: str, reason: str) -> None:
    returned = None
    with pytest.raises(BadNameError) as refusal:
        returned = names.parse(text)
    assert returned is None
    message = str(refusal.value)
    assert reason in message
    assert message.isascii()
    assert message.isprintable(), "a refusal goes to terminals and logs"
    assert len(message) < 700, "also that of a name of a megabyte"
    assert re.search(r"character \d+, ", message)
    assert "a-z, digits and single hyphens" in message, "a refusal says what is allowed"


@pytest.mark.parametrize(
    ("text", "position", "character"),
    [
        ("p://Work", 5, "W"),
        ("p://wo_rk", 7, "_"),
        ("sys://a i", 8, " "),
        ("p://a--b", 7, "-"),
        ("p://ab-", 7, "-"),
        ("p://" + "a" * 32 + "b", 37, "b"),
        ("p:/work", 4, "w"),
        ("p__work", 2, "_"),
        ("SYS://ai", 1, "S"),
        ("sYs://ai", 2, "Y"),
    ],
)
def test_a_refusal_names_the_first_bad_character_and_its_position(text: str, position: int, character: str) -> None:
    with pytest.raises(BadNameError, match=re.escape(f"character {position}, {character!r} (U+{ord(character):04X})")):
        names.parse(text)


@pytest.mark.parametrize(("text", "meant"), [("P://Work", "p://work"), ("p__work", "p://work"), ("sys__ai", "sys://ai"), ("work", "p://work"),
                                             ("p://my work", "p://my-work"), ("p://a_b", "p://a-b"), ("sys:ai", "sys://ai")])  # fmt: skip
def test_a_refusal_guesses_what_was_meant(text: str, meant: str) -> None:
    with pytest.raises(BadNameError, match=re.escape(f"Perhaps {meant}?")):
        names.parse(text)


@pytest.mark.parametrize("thing", [None, 7, b"p://work", ["p://work"], {"name": "p://work"}, True])
def test_what_is_no_text_is_refused_too(thing: object) -> None:
    for read in (names.parse, names.persona):
        with pytest.raises(BadNameError, match="a name is text"):
            read(thing)  # type: ignore[arg-type]


def test_a_persona_may_be_named_without_its_kind() -> None:
    assert names.persona("work") == names.persona("p://work") == Name("persona", "work")


@pytest.mark.parametrize(
    "text", ["sys://ai", "SYS://AI", "sys__ai", "sys:ai", "sys:///ai", "Sys://a_i", "p://Work", "p__work", "W ork", "ai-", "-", ""]
)
@pytest.mark.parametrize("read", [names.parse, names.persona])
def test_what_a_refusal_suggests_is_taken_and_is_not_what_was_refused(text: str, read: Callable[[str], Name]) -> None:
    try:
        read(text)
    except BadNameError as refusal:
        for meant in re.findall(r"Perhaps (\S+)\?", str(refusal)):
            assert meant != text
            read(meant)


def test_who_wants_a_persona_called_like_a_tenant_is_told_how() -> None:
    with pytest.raises(BadNameError, match=re.escape("Perhaps p://ai?")):
        names.persona("sys://ai")


def test_a_tenant_is_no_persona() -> None:
    with pytest.raises(BadNameError, match="a system tenant"):
        names.persona("sys://ai")


@pytest.mark.parametrize("text", ["Work", "sys__ai", "p__work", "", "a--b", "a" * 33, "work\n", "../x"])
def test_a_bad_short_name_of_a_persona_is_refused(text: str) -> None:
    with pytest.raises(BadNameError):
        names.persona(text)


@pytest.mark.parametrize("text", [
    "", "p", "work", "p://work", "sys://ai", "p_work", "p__", "sys__", "p___work", "p__work_", "p__Work", "P__work", "p__a--b", "p__a-", "p__-a",
    "p__9", "p__work\n", "\np__work", " p__work", "p__work ", "/p__work", "p__a/b", "p__a.b", "p__a__b", "xp__work", "sys__p__work", "syss__ai",
    "s__ai", "p__" + "a" * 33, "p__w\u043erk", "p__work\x00", "brave_turing", "0123456789ab", "p__\ud800",
])  # fmt: skip
def test_a_container_that_is_not_exactly_one_of_ours_is_nobodys(text: str) -> None:
    assert names.from_podman(text) is None


def test_a_persona_may_be_called_like_a_tenant_and_is_still_another_to_podman() -> None:
    assert names.parse("p://ai").podman != names.parse("sys://ai").podman
    assert names.parse("p://sys").podman == "p__sys"


def test_a_name_cannot_be_made_around_the_grammar_or_changed() -> None:
    for kind, label in (("persona", "a_b"), ("persona", ""), ("tenant", "a" * 33), ("person", "a"), ("persona", None), ("persona", "a\n")):
        with pytest.raises(BadNameError):
            Name(kind, label)  # type: ignore[arg-type]
    with pytest.raises(FrozenInstanceError):
        names.parse("p://work").label = "x"  # type: ignore[misc]


def test_names_are_keys() -> None:
    assert {names.parse("p://a"): 1}[names.persona("a")] == 1


def test_names_load_nothing_heavy() -> None:
    heavy = "{'cattrs', 'transitions', 'peewee', 'structlog'}"
    code = f"import sys; from bay0.base import names; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
