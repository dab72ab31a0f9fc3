"""Every command that a message or a document recommends is there: bay0's verbs in its grammar, all else in the image."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit import BUILT_ROOT, not_built

from bay0.cli import verbs
from bay0.cli.grammar import Verb

TOP = Path(__file__).parents[2]
DOCUMENTS = (
    "README.md", "personas/README.md", "services/ai/README.md", "docs/OPERATIONS.md", "docs/tutorial.md", "docs/THREATMODEL.md",
    "scripts/rootfs/etc/motd",
)  # fmt: skip
PLACES = ("usr/bin", "usr/sbin")
# what is quoted like a command and is for another place, or is none
ELSEWHERE = {
    "bash .ci/run": "the project's own host", "curl": "a persona's image may have it", "dot": "for a person's own machine, and said so",
    "mcopy": "the host", "openssl": "the host", "pip": "the host", "pytest": "the host", "python3": "the host", "truncate": "the host",
    "tox": "the host", "git": "the host", "qemu-img": "the host", "sgdisk": "another machine, and said so", "idle": "a state of the upgrade",
    "halt": "a word of bay0.panic=", "reboot": "a word of bay0.panic=", "reset": "a persona's verb", "stop": "a persona's verb",
    "time": "words of the log", "watchdog": "a word of validate", "ask": "a program of the persona `ask`",
}  # fmt: skip


def spoken() -> Iterator[tuple[str, str]]:
    """Yield (where, text): the texts that bay0 may print, and the documents."""
    for path in sorted((TOP / "bay0").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                yield path.name, "".join(part.value if isinstance(part, ast.Constant) else "NAME" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings:
                yield path.name, node.value
    for name in DOCUMENTS:
        yield name, (TOP / name).read_text(encoding="utf-8")


def commands() -> Iterator[tuple[str, str]]:
    """Yield (where, command) for all that stands between backquotes on one line."""
    for where, text in spoken():
        for found in re.findall(r"`([^`\n]+)`", text):
            for part in re.split(r"; | && | \| ", found):
                if part.strip():
                    yield where, part.strip()


def below(verb: Verb) -> dict[str, Verb]:
    """Return the verbs of a group, also under their aliases."""
    known = dict(verb.below or {})
    for alias, meant in verb.aliases.items():
        found = verb
        for word in meant.split():
            found = found.below[word]
        known[alias] = found
    return known


def test_every_verb_that_is_recommended_is_in_the_grammar() -> None:
    unknown = []
    looked = 0
    grammar = verbs.root()
    for where, command in commands():
        words = command.split()
        if words[0] != "bay0" or len(words) < 2 or not words[1][0].isalpha() or words[1].isupper():
            continue
        looked += 1
        verb = grammar
        for word in words[1:]:
            known = below(verb)
            if not known:
                break
            each = word.replace("\\|", "|").split("|")
            if any(one not in known for one in each):
                unknown.append((where, command))
                break
            verb = known[each[0]]
        options = {word for option in verb.options for word in option.words()} | (set(verbs.INSTEAD) if verb is grammar else set())
        before = command.partition(" -- ")[0]
        wrong = [option for option in re.findall(r"(?<!\S)\[?(--?[a-z][a-z-]*)", before) if option not in options]
        if wrong:
            unknown.append((where, command))
    assert unknown == []
    assert looked > 100, "the texts are not found any more"


@pytest.mark.built
def test_every_other_command_that_is_recommended_is_in_the_image() -> None:
    if not BUILT_ROOT.exists():
        not_built("build/rootfs is not there")
    busybox = BUILT_ROOT / "usr/lib/stage0/busybox"
    loader = BUILT_ROOT / "usr/lib/ld-musl-x86_64.so.1"
    applets = set(subprocess.run([loader, busybox, "--list"], capture_output=True, text=True, check=True).stdout.split())
    missing = {}
    looked = set()
    for where, command in commands():
        words = command.split()
        name = words[0]
        option_follows = len(words) > 1 and re.match("--?[a-z]", words[1]) is not None
        is_command = name in applets or shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is not None or option_follows
        if not re.fullmatch(r"[a-z][a-z0-9_.+-]*", name) or not is_command or name in ELSEWHERE or command in ELSEWHERE:
            continue
        if name == "bay0" or name.endswith(".sh"):  # the other test's; the host's scripts
            continue
        looked.add(name)
        if not any(os.path.lexists(BUILT_ROOT / place / name) for place in PLACES):
            missing[name] = where
    assert missing == {}, str(missing)
    assert {"date", "dmesg", "e2fsck", "hwclock"} <= looked, "the texts are not found any more"
