"""Help and complaints, made of the grammar: how a verb is used, what it takes, what was probably meant."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

from bay0.cli import near, streams, verbs
from bay0.cli.grammar import Misuse, Option, Place, Verb

if TYPE_CHECKING:
    from bay0.cli.grammar import Path

WIDTH_MAX = 100  # columns; longer lines are hard to read
SHOWN_MAX = 1000  # characters of a complaint
CHOICES_SHOWN = 4  # as many as a line takes
LEFT = 24  # columns of what is explained


def _width() -> int:
    try:
        columns = int(os.environ.get("COLUMNS") or os.get_terminal_size().columns)
    except (OSError, ValueError):
        columns = 80
    return max(60, min(columns, WIDTH_MAX)) - 1


def usage(path: Path, verb: Verb) -> str:
    """Return how a verb is used: one line, or a few that are indented."""
    head = " ".join(("usage: bay0", *path))
    if verb.below is not None:
        return f"{head} VERB ..."
    alone = " | ".join(_spelled(option) for option in verb.options if option.dest in verb.alone)
    options = [f"[{_spelled(option)}]" for option in verb.options if option.dest not in (*verb.alone, "help")]
    words = [*options, *([f"[{alone}]"] if alone else []), *map(_placed, verb.places)]
    lines, room = [head], _width()
    for word in words:
        if len(lines[-1]) + 1 + len(word) > room:
            lines.append(" " * len("usage: bay0"))
        lines[-1] += f" {word}"
    return "\n".join([f"{lines[0]} " if len(lines) == 1 and not words else lines[0], *lines[1:]])


def _spelled(option: Option) -> str:
    first = option.flags[0]
    return (
        f"{first} {option.metavar}"
        if option.metavar
        else " | ".join((first, *option.words()[len(option.flags) :]))
    )


def _placed(place: Place) -> str:
    """Return a place as usage has it."""
    shown = "|".join(place.choices) if 0 < len(place.choices) <= CHOICES_SHOWN else place.metavar
    return {"": shown, "?": f"[{shown}]", "*": f"[{shown} ...]"}[place.many]


def full(path: Path, verb: Verb) -> str:
    """Return a verb's whole help; for the empty path that of the program."""
    return "\n".join(_lines(path, verb))


def _lines(path: Path, verb: Verb) -> Iterator[str]:
    yield usage(path, verb)
    yield ""
    about = f"{verb.about[:1].upper()}{verb.about[1:]}" + ("" if verb.about.endswith(".") else ".")
    yield from textwrap.wrap(f"{about} {verb.more}" if path else about, _width())
    if not path:
        yield from _all_verbs(verb)
        return
    if verb.below:
        yield from (
            "",
            "verbs:",
            *_explained((_with_aliases(word, verb), below.about) for word, below in verb.below.items()),
        )
        yield from ("", f"`bay0 help {' '.join(path)} VERB` explains one of them.")
    if verb.places:
        yield from ("", "what it takes:", *_explained((place.metavar, _help(place)) for place in verb.places))
    yield from ("", "options:", *_explained((_flags(option), _help(option)) for option in verb.options))
    if others := [word for word, meant in verbs.ALIASES.items() if meant == path]:
        yield from ("", f"short: {', '.join(f'`bay0 {word}`' for word in others)}")
    if verb.example:
        yield from ("", "example:", *(f"  {line}" for line in verb.example.split("\n")))


def _all_verbs(root: Verb) -> Iterator[str]:
    below = root.below or {}
    for title, words in verbs.GROUPS.items():
        yield from ("", f"{title}:", *_explained((word, below[word].about) for word in words))
    aliases = ", ".join(f"{word} ({meant})" for word, meant in root.aliases.items())
    yield from ("", *textwrap.wrap(f"also: {aliases}", _width()))
    topics = "personas, storage, ai, boot, json, status"
    yield from textwrap.wrap(
        f"`bay0 help VERB` explains a verb. There is more about: {topics} (`bay0 help ai`).", _width()
    )
    yield from textwrap.wrap(root.more, _width())


def _with_aliases(word: str, group: Verb) -> str:
    others = [alias for alias, meant in group.aliases.items() if meant == word]
    return ", ".join((word, *others))


def _help(what: Option | Place) -> str:
    few = 0 < len(what.choices) <= CHOICES_SHOWN
    return what.help + (f" ({', '.join(what.choices)})" if few else "")


def _flags(option: Option) -> str:
    return ", ".join(option.words()) + (f" {option.metavar}" if option.metavar else "")


def _explained(rows: Iterator[tuple[str, str]] | Iterator[tuple[str, ...]]) -> Iterator[str]:
    for left, right in rows:
        lines = textwrap.wrap(right, max(20, _width() - LEFT))
        if len(left) + 4 > LEFT:
            yield f"  {left}"
        else:
            yield f"  {left:{LEFT - 2}}" + lines.pop(0)
        yield from (" " * LEFT + line for line in lines)


# ---- what was wrong


def complaint(error: Misuse) -> str:
    """Return what is wrong with the words, what was probably meant, and how the verb is used."""
    said = streams.harmless(str(error)).replace("\n", "\\n")
    said = said if len(said) <= SHOWN_MAX else f"{said[:SHOWN_MAX]} ..."
    meant = _meant(error)
    hint = f": did you mean {' or '.join(meant)}?" if meant else ""
    where = " ".join(("bay0 help", *error.path))
    return f"{said}{hint}\n{usage(error.path, error.verb).rstrip()}\n`{where}` says more"


def _meant(error: Misuse) -> list[str]:
    found = near.words(error.word, error.known)
    if error.path:
        return found
    elsewhere = [
        f"`bay0 {' '.join(path)}`"
        for path, _ in error.verb.walk()
        if len(path) > 1 and path[-1] == error.word
    ]
    return [*elsewhere, *(f"`bay0 {word}`" for word in found)][: near.SHOWN_MAX]
