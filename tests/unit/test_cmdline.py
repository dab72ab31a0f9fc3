"""The words of the kernel command line: good ones are taken, bad ones are complained about, none stops a boot."""

from __future__ import annotations

import pytest

from bay0.base import cmdline
from bay0.base.cmdline import Words


def test_without_words_the_defaults_hold() -> None:
    assert cmdline.parse("") == Words(patience=1.0, persist=None, panic="reboot", debug=False, exec=False, console="info", complaints=())


def test_words_of_others_are_not_ours() -> None:
    assert cmdline.parse("quiet console=ttyS0,115200 psi=1 bay0x.panic=halt BAY0.panic=halt panic=10") == Words()


@pytest.mark.parametrize(
    ("word", "name", "value"),
    [
        ("bay0.patience=5", "patience", 5.0),
        ("bay0.patience=1.5", "patience", 1.5),
        ("bay0.persist=/dev/sda3", "persist", "/dev/sda3"),
        ("bay0.persist=none", "persist", "none"),
        ("bay0.panic=halt", "panic", "halt"),
        ("bay0.panic=shell", "panic", "shell"),
        ("bay0.debug", "debug", True),
        ("bay0.debug=1", "debug", True),
        ("bay0.debug=0", "debug", False),
        ("bay0.exec", "exec", True),
        ("bay0.console=debug", "console", "debug"),
        ("bay0.terminal=off", "terminal", False),
    ],
)
def test_a_good_word_is_taken(word: str, name: str, value: object) -> None:
    words = cmdline.parse(f"console=ttyS0 {word} quiet\n")
    assert getattr(words, name) == value
    assert words.complaints == ()


@pytest.mark.parametrize(
    ("word", "complaint"),
    [
        ("bay0.patience=fast", "not a number"),
        ("bay0.patience=", "not a number"),
        ("bay0.patience=0.5", "between 1 and 100"),
        ("bay0.patience=1e9", "between 1 and 100"),
        ("bay0.patience=nan", "between 1 and 100"),
        ("bay0.persist=sda", "a device under /dev"),
        ("bay0.persist=", "a device under /dev"),
        ("bay0.panic=explode", "one of reboot, halt, shell"),
        ("bay0.panic", "one of reboot, halt, shell"),
        ("bay0.console=loud", "debug, info, warning or error"),
        ("bay0.debug=perhaps", "1 or 0"),
        ("bay0.exec=yes", "1 or 0"),
        ("bay0.terminal=vt100", "on or off"),
        ("bay0.speed=9", "no such word"),
        ("bay0.", "no such word"),
    ],
)
def test_a_bad_word_is_named_with_the_reason_and_the_default_is_used(word: str, complaint: str) -> None:
    words = cmdline.parse(word)
    assert len(words.complaints) == 1
    assert words.complaints[0].startswith(f"{word}: ")
    assert complaint in words.complaints[0]
    assert Words(complaints=words.complaints) == words


def test_one_bad_word_does_not_spoil_the_others() -> None:
    words = cmdline.parse("bay0.patience=x bay0.panic=halt bay0.typo bay0.debug")
    assert (words.panic, words.debug, words.patience, len(words.complaints)) == ("halt", True, 1.0, 2)


def test_the_last_good_word_wins() -> None:
    words = cmdline.parse("bay0.panic=halt bay0.panic=shell bay0.panic=bad")
    assert words.panic == "shell"


def test_odd_bytes_are_survived() -> None:
    assert len(cmdline.parse("bay0.panic=\ufffd\x7f bay0.\x00=1").complaints) == 2


def test_the_governor_is_on_unless_a_word_turns_it_off() -> None:
    assert cmdline.parse("").governor
    assert cmdline.parse("bay0.governor=on").governor
    assert not cmdline.parse("bay0.governor=off").governor
    assert cmdline.parse("bay0.governor=maybe").complaints == ("bay0.governor=maybe: must be on or off",)
