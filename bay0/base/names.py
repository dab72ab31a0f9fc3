"""Names of personas and system tenants, and what podman calls their containers.

People, the command line, the database and the log see a `name`; podman sees a `podman-name`. RFC 5234, lower case only::

    name        = ( "p" / "sys" ) "://" label      ; p:// a persona, sys:// a system tenant
    podman-name = ( "p" / "sys" ) "__" label
    label       = lower *( [ "-" ] ( lower / DIGIT ) ) ; at most 32 characters
    lower       = %x61-7A                              ; a to z
    snapshot    = "p://" label "@" number               ; the home and the manifest of a persona as they were
    number      = %x31-39 *6DIGIT                       ; 1 to 9999999

A label holds no "_" and no ":", and the part before it is one of two words, so each podman-name is made by exactly one name:
`from_podman` is the inverse of `Name.podman`, and no persona can be called like a tenant.

A snapshot has no container; on the disk it is called like one, with the number (`p__work@3`), which no podman-name is.
Everything here is pure, and cheap enough for PID 1's every turn. Source: handoff, "Persona naming grammar".
"""

from __future__ import annotations

import re

from attrs import Attribute, field, frozen

from bay0.base.errors import BadNameError

LABEL_MAX = 32  # characters
WORDS = {"persona": "p", "tenant": "sys"}
KINDS = {word: kind for kind, word in WORDS.items()}
ALLOWED = f"Allowed after :// are a letter a-z, then letters a-z, digits and single hyphens between them, {LABEL_MAX} in all"
SHOWN_MAX = 80  # characters of a bad name that its refusal repeats
_CONTROL = frozenset(map(chr, (*range(0x20), *range(0x7F, 0xA0))))
_LABEL = re.compile("[a-z](?:-?[a-z0-9])*", re.ASCII)
_NAME = re.compile("(p|sys)://(.*)", re.DOTALL)
_NUMBER = re.compile("[1-9][0-9]{0,6}", re.ASCII)
_PODMAN = re.compile("(p|sys)__(.*)", re.DOTALL)


@frozen
class Name:
    """A good name. `kind` is "persona" or "tenant"; raises BadNameError for a label outside the grammar."""

    kind: str
    label: str = field()

    @label.validator
    def _check(self, _attribute: Attribute[str], label: str) -> None:
        if self.kind not in WORDS:
            raise BadNameError(f"{self.kind!a} is no kind of name: there are persona and tenant")
        if not isinstance(label, str):
            raise BadNameError(f"a label is text, not {type(label).__name__}. {ALLOWED}")
        if len(label) > LABEL_MAX or not _LABEL.fullmatch(label):
            start = f"{WORDS[self.kind]}://"
            index, why = _fault_of_label(label)
            raise _refusal(start + label, len(start) + index, why)

    @property
    def semantic(self) -> str:
        """What people, the database and the log use: `p://work`."""
        return f"{WORDS[self.kind]}://{self.label}"

    @property
    def podman(self) -> str:
        """What podman calls the container: `p__work`."""
        return f"{WORDS[self.kind]}__{self.label}"

    def __str__(self) -> str:
        return self.semantic


@frozen
class Snapshot:
    """A good name of a snapshot: whose it is, and its number."""

    of: Name
    number: int

    @property
    def semantic(self) -> str:
        """What people, the database and the log use: `p://work@3`."""
        return f"{self.of.semantic}@{self.number}"

    @property
    def podman(self) -> str:
        """What it is called on the disk: `p__work@3`."""
        return f"{self.of.podman}@{self.number}"

    def __str__(self) -> str:
        return self.semantic


def snapshot(text: str) -> Snapshot:
    """Read `p://LABEL@NUMBER`, or `LABEL@NUMBER` for short. Raises BadNameError."""
    whose, _, number = text.partition("@") if isinstance(text, str) else (text, "", "")
    of = persona(whose)
    if not _NUMBER.fullmatch(number):
        raise BadNameError(f"{text[:SHOWN_MAX]!a} is no snapshot: {of.semantic}@ is followed by a number, 1 to 9999999")
    return Snapshot(of, int(number))


def is_snapshot(text: str) -> bool:
    """Tell whether a snapshot is meant, be its name a good one or not."""
    return isinstance(text, str) and "@" in text


def on_disk(text: str) -> str:
    """Return what that which has a home, a persona or a snapshot of one, is called on the disk. Raises BadNameError."""
    return snapshot(text).podman if is_snapshot(text) else persona(text).podman


def parse(text: str) -> Name:
    """Read `p://LABEL` or `sys://LABEL`. Raises BadNameError, which says what is wrong where."""
    return _read(text)


def persona(text: str) -> Name:
    """Read the name of a persona, `p://work` or `work` for short. Raises BadNameError, also for a tenant's name."""
    if isinstance(text, str) and _LABEL.fullmatch(text):
        return Name("persona", text)
    return _read(text, "p")


def _read(text: str, only: str = "") -> Name:
    """Read a name; `only`: of this kind, which is then also what a refusal suggests."""
    if not isinstance(text, str):
        raise BadNameError(f"a name is text, not {type(text).__name__}. {ALLOWED}")
    match = _NAME.fullmatch(text)
    if match is None:
        raise _refusal(text, *_fault_of_start(text), only)
    if only and match[1] != only:
        raise _refusal(text, 0, "sys:// is a system tenant, and only a persona, p://, will do here", only)
    if len(match[2]) > LABEL_MAX or not _LABEL.fullmatch(match[2]):
        index, why = _fault_of_label(match[2])
        raise _refusal(text, len(text) - len(match[2]) + index, why, only)
    return Name(KINDS[match[1]], match[2])


def from_podman(text: str) -> Name | None:
    """Return the name whose container podman calls `text`; None for every container that is not ours."""
    match = _PODMAN.fullmatch(text)
    if match is None or len(match[2]) > LABEL_MAX or not _LABEL.fullmatch(match[2]):
        return None
    return Name(KINDS[match[1]], match[2])


def _refusal(text: str, index: int, why: str, only: str = "") -> BadNameError:
    """Say what is wrong, in ASCII only: a bad name may hold what a terminal obeys or draws as something else.

    `only`: the one kind of name that would do.
    """
    shown = ascii(text) if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]!a}..."
    where = f"character {index + 1}"
    where += f", {text[index]!a} (U+{ord(text[index]):04X})" if index < len(text) else ", where it ends"
    return BadNameError(f"{shown} is not a name: {where}: {why}. {_better(text, only)}{ALLOWED}")


def _fault_of_start(text: str) -> tuple[int, str]:
    """Return where and why a text begins neither with p:// nor with sys://."""
    if not text:
        return 0, "it is empty"
    if re.match("(p|sys)__", text):
        return text.index("_"), "this is how podman spells it; write :// in place of __"
    if _LABEL.fullmatch(text):
        return 0, "it has no kind; it starts with p:// for a persona or sys:// for a system tenant"
    start = "sys://" if text[0] == "s" else "p://"
    index = next((i for i, wanted in enumerate(start) if i >= len(text) or text[i] != wanted), 0)
    why = _class_of(text[index]) if index < len(text) else ""
    return index, f"it must start with p:// for a persona or sys:// for a system tenant{why and ', and ' + why}"


def _fault_of_label(label: str) -> tuple[int, str]:
    """Return index and reason of the first character that does not belong into a label that is known to be bad."""
    if not label:
        return 0, "nothing follows ://"
    for index, char in enumerate(label):
        if index == LABEL_MAX:
            return index, f"a label has at most {LABEL_MAX} characters, this one has {len(label)}"
        if char == "-" and index and label[index - 1] == "-":
            return index, "hyphens stand alone, not in twos"
        if index == 0 and char in "-0123456789":
            return index, "a label starts with a letter a-z"
        if char not in "abcdefghijklmnopqrstuvwxyz0123456789-":
            return index, _class_of(char) or "this character is not allowed"
    return len(label) - 1, "a label does not end with a hyphen"


def _class_of(char: str) -> str:
    """Say what kind of stranger a character is; empty for one that may stand in a label."""
    if char in _CONTROL:
        return "control characters, NUL and line ends included, are not allowed"
    if "\ud800" <= char <= "\udfff":
        return "it is half a character (a surrogate, or a byte that is not UTF-8)"
    if not char.isascii():
        return "only ASCII is allowed, and this only may look like it"
    if char == " ":
        return "spaces are not allowed"
    if char.isupper():
        return "capital letters are not allowed"
    if char == "_":
        return "underscores are podman's; use a hyphen"
    if char in "/.\\":
        return "a name is not a path"
    if char == "%":
        return "nothing is percent-encoded"
    if char == ":":
        return "a colon stands only in ://"
    return "" if char.isalnum() or char == "-" else "punctuation is not allowed, but for single hyphens"


def _better(text: str, only: str = "") -> str:
    """Return a guess at what was meant, as a sentence; empty without a good one. It is never what was just refused."""
    match = re.fullmatch("(?:(p|sys)(?::/*|__))?([a-z0-9_. -]{1,32})", text[: SHOWN_MAX + 1].strip().lower(), re.ASCII)
    label = re.sub("[-_. ]+", "-", match[2]).strip("-") if match else ""
    better = f"{only or match[1] or 'p'}://{label}" if match and _LABEL.fullmatch(label) else text
    return f"Perhaps {better}? " if better != text else ""
