"""Which verbs there are, and which module holds the grammar of each: only that of the verb in hand is loaded."""

from __future__ import annotations

from bay0.cli.grammar import HelpWanted, Misuse, Options, Verb, read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# what a verb is for -> verb -> the module of its grammar; in the order of the help
GROUPS = {
    "how is it": {
        "status": "spine_words", "validate": "care_words", "doctor": "care_words", "boot": "spine_words", "log": "spine_words",
        "events": "persona_words", "machines": "spine_words", "history": "spine_words", "governor": "care_words",
        "top": "persona_words", "turns": "care_words", "support": "care_words", "version": "spine_words",
    },
    "personas and their images": {"persona": "persona_words", "focus": "persona_words", "image": "persona_words"},
    "the AI": {"ask": "tenant_words", "tenant": "tenant_words"},
    "the machine": {
        "poweroff": "spine_words", "reboot": "spine_words", "suspend": "spine_words", "inhibit": "spine_words",
        "upgrade": "spine_words", "storage": "spine_words", "net": "net_words", "screen": "spine_words", "nack": "spine_words", "run": "spine_words",
    },
    "for programs and the curious": {
        "graph": "spine_words", "rpc": "spine_words", "completion": "spine_words", "debug": "spine_words", "help": "spine_words",
    },
}  # fmt: skip
WORDS = {word: module for verbs in GROUPS.values() for word, module in verbs.items()}
ALIASES = {  # what people type elsewhere -> what it is called here
    "ls": ("persona", "list"),
    "ps": ("persona", "list"),
    "rm": ("persona", "remove"),
    "enter": ("persona", "shell"),
    "halt": ("poweroff",),
    "shutdown": ("poweroff",),
}
INSTEAD = {
    "-V": ("version", "--short"),
    "--version": ("version", "--short"),
    "--validate": ("validate",),
    "--help": ("help",),
    "-h": ("help",),
}
ABOUT = "Talk to bay0, PID 1 of an Alpine-Spline machine. Every verb has --help; most have --json."
MORE = (
    "Start with `bay0 status`, `bay0 boot` and `bay0 persona list`. "
    "Without a spine, `bay0 graph boot` draws the boot's own table."
)


def verb(word: str) -> Verb:
    """Return the grammar of one verb. `KeyError` if there is none of that name."""
    module = __import__(f"bay0.cli.{WORDS[word]}", fromlist=("VERBS",))
    found: Verb = module.VERBS[word]
    return found


def root() -> Verb:
    """Return the whole grammar, as a group of all verbs."""
    aliases = {word: " ".join(path) for word, path in ALIASES.items()}
    return Verb(ABOUT, more=MORE, below={word: verb(word) for word in WORDS}, aliases=aliases)


def parse(words: Sequence[str]) -> tuple[tuple[str, ...], Verb, Options]:
    """Return the verb that is meant, the words that lead to it, and its options.

    `Misuse` says what is wrong, `HelpWanted` what is asked for.
    """
    words = list(words)
    first = words[0] if words else ""
    words[:1] = INSTEAD.get(first) or ALIASES.get(first) or (first,)
    if not first:
        raise Misuse("say what to do", (), root())
    if words[0] not in WORDS:
        known = [*WORDS, *ALIASES, *(flag for flag in INSTEAD if flag.startswith("--"))]
        raise Misuse(f"there is no verb {first!r}", (), root(), first, known)
    if words == ["help"]:
        raise HelpWanted((), root())
    return read((words[0],), verb(words[0]), words[1:])
