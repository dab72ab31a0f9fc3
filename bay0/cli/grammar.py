"""The grammar of verbs as data, and how words are read by it.

argparse would do the same; importing it and what it imports takes as long as the interpreter's own start.
What is said of a mistake, and help, are in `helptext`, which is only loaded for them. A long option may be
shortened while one alone begins so; short ones may stand together (`-fn 5`); a value follows its option or
stands behind `=`; `--` ends the options.
"""

from __future__ import annotations

from bay0.base.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    Path = tuple[str, ...]


class Options:
    """What was read: an attribute for each option and each place of the verb.

    `call` is the verb's function as text, `module:name`.
    """

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


class Option:
    """An option.

    With a `metavar` it takes a value, else it is a switch; `negatable`: there is `--no-NAME` too.

    `convert` makes the value of its text and raises ValueError, whose message says what would be right.
    """

    __slots__ = ("append", "choices", "convert", "default", "dest", "flags", "help", "metavar", "negatable")

    def __init__(
        self,
        flags: str,
        about: str,
        metavar: str = "",
        *,
        default: Any = None,
        convert: Callable[[str], Any] | None = None,
        choices: Sequence[str] = (),
        append: bool = False,
        negatable: bool = False,
    ) -> None:
        self.flags = tuple(flags.split())
        self.dest = self.flags[-1].lstrip("-").replace("-", "_")
        self.help, self.metavar, self.convert, self.choices = about, metavar, convert, choices
        self.append, self.negatable = append, negatable
        self.default = default if metavar or negatable else bool(default)

    def words(self) -> tuple[str, ...]:
        """Return all spellings."""
        return (*self.flags, f"--no-{self.flags[-1][2:]}") if self.negatable else self.flags


class Place:
    """Where a word without a dash belongs. `many`: "" one, "?" one or none, "*" all that are left.

    `of` says what completes it: personas, images, machines, files or topics; "" is its choices or nothing.
    """

    __slots__ = ("choices", "default", "dest", "help", "many", "metavar", "of")

    def __init__(
        self,
        dest: str,
        about: str,
        metavar: str = "",
        *,
        many: str = "",
        choices: Sequence[str] = (),
        default: Any = None,
        of: str = "",
    ) -> None:
        self.dest, self.help, self.metavar = dest, about, metavar or dest.upper()
        self.many, self.choices, self.default, self.of = many, choices, default, of


class Verb:
    """One verb: what it does (`about`, and `more` in its own help), its function, and what it takes.

    A group has verbs `below` it instead.

    `sets`: attributes that its function finds in the options. `alone`: of these options only one may be
    given. `aliases` of a group: further words for the verbs below it.
    """

    __slots__ = ("about", "aliases", "alone", "below", "call", "example", "more", "options", "places", "sets")

    def __init__(
        self,
        about: str,
        call: str = "",
        *takes: Option | Place,
        more: str = "",
        example: str = "",
        sets: Mapping[str, Any] | None = None,
        alone: tuple[str, ...] = (),
        below: Mapping[str, Verb] | None = None,
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        self.about, self.call, self.more, self.example = about, call, more, example
        self.options = [HELP, *(each for each in takes if isinstance(each, Option))]
        self.places = [each for each in takes if isinstance(each, Place)]
        self.sets, self.alone, self.below, self.aliases = sets or {}, alone, below, aliases or {}

    def walk(self, path: Path = ()) -> Iterator[tuple[Path, Verb]]:
        """Yield this verb and all below it, each with the words that lead to it."""
        yield path, self
        for word, verb in (self.below or {}).items():
            yield from verb.walk((*path, word))


class Misuse(UsageError):  # noqa: N818 - it is no defect
    """Words that the grammar does not have.

    `path` and `verb`: whose usage is shown. `word`: the one that is wrong, `known`: what it may have meant.
    """

    def __init__(
        self, message: str, path: Path, verb: Verb, word: str = "", known: Sequence[str] = ()
    ) -> None:
        super().__init__(message)
        self.path, self.verb, self.word, self.known = path, verb, word, known


class HelpWanted(Exception):  # noqa: N818 - as above
    """Somebody asks for the help of a verb."""

    def __init__(self, path: Path, verb: Verb) -> None:
        super().__init__()
        self.path, self.verb = path, verb


HELP = Option("-h --help", "show this help and exit")
JSON = Option("--json", "print JSON for programs")


def whole(text: str) -> int:
    """Return a whole number."""
    try:
        return int(text)
    except ValueError:
        raise ValueError("a whole number") from None


def moment(text: str) -> float:
    """Return a time of a log, in seconds since the epoch (`when.moment`)."""
    from bay0.cli import when  # only for one that is given

    return when.moment(text)


LOG_TIMES = (  # of what has lines with times
    Option("--since", "not before: 10m ago, 573.2 on the kernel's clock, 14:30, 2026-11-30T14:30", "TIME", convert=moment),
    Option("--until", "not after", "TIME", convert=moment),
    Option("--grep", "only lines in which this regular expression is found", "REGEX"),
    Option("--wall", "with the time of day beside the kernel's clock"),
)


def read(path: Path, verb: Verb, words: Sequence[str]) -> tuple[Path, Verb, Options]:
    """Read `words` as what follows `path`, whose grammar is `verb`.

    Return the verb that is meant, with its options. `Misuse`, `HelpWanted`.
    """
    words = list(words)
    while verb.below is not None:
        word = words.pop(0) if words else ""
        if word in ("-h", "--help"):
            raise HelpWanted(path, verb)
        word = verb.aliases.get(word, word)
        if word not in verb.below:
            known = (*verb.below, *verb.aliases)
            said = (
                f"{' '.join(path)} has no verb {word!r}"
                if word
                else f"say what to do: {', '.join(verb.below)}"
            )
            raise Misuse(said, path, verb, word, known)
        path, verb = (*path, word), verb.below[word]
    return path, verb, _Reader(path, verb).read(words)


class _Reader:
    def __init__(self, path: Path, verb: Verb) -> None:
        self.path, self.verb = path, verb
        self.known = {word: option for option in verb.options for word in option.words()}
        self.given: set[str] = set()
        self.values: dict[str, Any] = {
            "json": False,
            **{o.dest: o.default for o in verb.options},
            **verb.sets,
        }

    def read(self, words: list[str]) -> Options:
        words.reverse()  # the next one is at the end
        loose: list[str] = []
        while words:
            word = words.pop()
            if word == "--":
                loose += reversed(words)
                break
            if word[:1] != "-" or len(word) == 1 or word[1].isdigit() or word[1] == ".":
                loose.append(word)
            elif word[1] == "-":
                self._long(word, words)
            else:
                self._short(word, words)
        self._place(loose)
        del self.values["help"]
        return Options(**self.values)

    def _wrong(self, message: str, word: str = "", known: Sequence[str] = ()) -> Misuse:
        return Misuse(message, self.path, self.verb, word, known)

    def _long(self, word: str, words: list[str]) -> None:
        name, equals, value = word.partition("=")
        begin = [name] if name in self.known else [each for each in self.known if each.startswith(name)]
        if len({self.known[each].dest for each in begin}) > 1:
            raise self._wrong(f"{name} may be {' or '.join(begin)}")
        if not begin:
            raise self._wrong(f"it takes no {name}", name, tuple(self.known))
        option = self.known[begin[0]]
        if option.metavar:
            self._take(option, begin[0], value if equals else self._value(option, begin[0], words))
        elif equals:
            raise self._wrong(f"{begin[0]} takes no value")
        else:
            self._switch(option, on=begin[0] in option.flags)

    def _short(self, word: str, words: list[str]) -> None:
        for at, letter in enumerate(word[1:], start=2):
            option = self.known.get(f"-{letter}")
            if option is None:
                shown = word if at == 2 else f"-{letter}"  # noqa: PLR2004 - the first letter
                raise self._wrong(f"it takes no {shown}", f"-{word}", tuple(self.known))
            if option.metavar:
                rest = word[at:].removeprefix("=")
                self._take(option, f"-{letter}", rest or self._value(option, f"-{letter}", words))
                return
            self._switch(option, on=True)

    def _switch(self, option: Option, *, on: bool) -> None:
        if option is HELP:
            raise HelpWanted(self.path, self.verb)
        self._mark(option)
        self.values[option.dest] = on

    def _mark(self, option: Option) -> None:
        self.given.add(option.dest)
        if option.dest in self.verb.alone and len(self.given & set(self.verb.alone)) > 1:
            both = " and ".join(f"--{each.replace('_', '-')}" for each in self.verb.alone)
            raise self._wrong(f"{both} cannot stand together")

    def _value(self, option: Option, name: str, words: list[str]) -> str:
        if not words or (words[-1][:1] == "-" and len(words[-1]) > 1 and not words[-1][1].isdigit()):
            raise self._wrong(f"{name} takes a value: {option.metavar}")
        return words.pop()

    def _take(self, option: Option, name: str, text: str) -> None:
        self._mark(option)
        if option.choices and text not in option.choices:
            raise self._wrong(
                f"{name} takes one of {', '.join(option.choices)}, not {text!r}", text, option.choices
            )
        try:
            value = text if option.convert is None else option.convert(text)
        except ValueError as error:
            raise self._wrong(f"{name} takes {error}, not {text!r}") from None
        self.values[option.dest] = [*(self.values[option.dest] or ()), value] if option.append else value

    def _place(self, loose: list[str]) -> None:
        for place in self.verb.places:
            if place.many == "*":
                self.values[place.dest], loose = loose, []
            elif loose:
                word = loose.pop(0)
                if place.choices and word not in place.choices:
                    raise self._wrong(
                        f"{place.metavar} is one of {', '.join(place.choices)}, not {word!r}",
                        word,
                        place.choices,
                    )
                self.values[place.dest] = word
            elif place.many == "?":
                self.values[place.dest] = place.default
            else:
                raise self._wrong(f"{place.metavar} is missing: {place.help}")
        if loose:
            raise self._wrong(
                f"it takes no {loose[0]!r}",
                loose[0],
                tuple(word for place in self.verb.places for word in place.choices),
            )
