"""`bay0 persona set` and `edit`: changes to what a persona is made of."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from bay0.base.errors import ManifestError, RefusedError, UsageError
from bay0.cli import client
from bay0.cli import persona_text as report
from bay0.cli.kit import DONE, REFUSED, emit
from bay0.cli.persona import WAIT_S, ask, semantic
from bay0.cli.persona_toml import text_of
from bay0.personas import manifest, rules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from bay0.cli.grammar import Options

FAILED = "the kernel did not take it ({0}): it counts at its next start"
EDITOR = "vi"


# ---- set


def change(options: Options) -> int:
    """Change keys of a manifest: `memory=1G`, `environment.LANG=C`, `command=["sleep", "9"]`."""
    if not options.changes and not options.unset:
        raise UsageError("say what to change, as KEY=VALUE: " + ", ".join(manifest.NAMES))
    changes: dict[str, Any] = {}
    variables: dict[str, str | None] = {}
    for word in options.changes:
        key, equals, value = word.partition("=")
        if not equals:
            raise UsageError(f"{word!r} is not KEY=VALUE")
        if key.startswith("environment."):
            variables[key.partition(".")[2]] = value
        else:
            changes[_known(key)] = _value(key, value)
    for key in options.unset or ():
        if key.startswith("environment."):
            variables[key.partition(".")[2]] = None
        else:
            changes[_known(key)] = None
    digest: dict[str, str] = {}
    if variables:
        persona = ask("show", options)
        text_of(persona)
        told = changes.get("environment", persona["manifest"]["environment"]) or {}
        found = {**told, **variables}
        changes["environment"] = {name: value for name, value in found.items() if value is not None}
        digest = {"if_digest": persona["digest"]}
    return _send(options, changes=changes, **digest)


def _known(key: str) -> str:
    if key not in manifest.NAMES:
        raise RefusedError(f"nothing was changed: {key}: {rules.stranger(key, manifest.NAMES)}")
    return key


def _value(key: str, text: str) -> Any:
    """Return what a word stands for: a value as TOML writes it, or text without its quotes. The manifest's rules judge it."""
    import tomllib

    if key == "capabilities" and text[:1] != "[":
        return [name for name in text.replace(",", " ").split() if name]
    if key in rules.TEXTS:
        return text
    try:
        return tomllib.loads(f"value = {text}\n")["value"]
    except ValueError:
        return text


def _send(options: Options, **params: Any) -> int:
    name = semantic(options.persona)
    answer = client.named(name, "persona.list", "persona.configure", timeout_s=WAIT_S, name=name, **params)
    changed = answer["changed"]
    lines = [f"{key} counts {when}" for key, when in changed.items()] or ["it is so already: nothing was changed"]
    if answer["failed"]:
        print(f"bay0: {name}: {FAILED.format(answer['failed'])}", file=sys.stderr)
    emit(options, answer, "\n".join(f"{name}: {line}" for line in lines))
    return REFUSED if answer["failed"] else DONE


# ---- edit


HEAD = """\
# The manifest of {0}. Save and leave the editor to change it; leave it as it is to change nothing.
# What is not here has its default: {1}.
"""


def edit(options: Options) -> int:
    """Open the manifest in an editor, and send what was made of it. A text with mistakes can be edited again."""
    if not sys.stdin.isatty():
        raise RefusedError("an editor needs a terminal; `bay0 persona set` changes keys without one")
    persona = ask("show", options)
    before = text_of(persona)
    absent = [key for key in manifest.NAMES if f"\n{key} = " not in f"\n{before}" and f"[{key}]" not in before]
    head = HEAD.format(persona["name"], ", ".join(absent) or "nothing")
    wanted = _edited(head, before, report.label(persona["name"]))
    if wanted is None:
        print("it is as it was: nothing was changed")
        return DONE
    return _send(options, manifest=wanted, if_digest=persona["digest"])


def _edited(head: str, before: str, label: str, run: Callable[[list[str]], int] | None = None) -> Mapping[str, Any] | None:
    """Let a person edit a text until it is a manifest; None if it is as it was. `RefusedError` leaves the text where it says."""
    file, path = tempfile.mkstemp(prefix=f"{label}.", suffix=".toml")  # of root alone: there may be secrets in it
    with os.fdopen(file, "w", encoding="utf-8") as made:
        made.write(head + before)
    while True:
        status = (run or _run)([*_editor(), path])
        if status:
            raise RefusedError(f"the editor ended with status {status}; nothing was changed, the text is in {path}")
        with open(path, encoding="utf-8", errors="surrogateescape") as changed:
            text = changed.read()
        if text == head + before:
            os.unlink(path)
            return None
        try:
            found = manifest.load(text, path)
        except ManifestError as error:
            print(f"bay0: {error}\nEnter edits it again, Ctrl-C gives up: ", end="", file=sys.stderr, flush=True)
            if not sys.stdin.readline():
                raise RefusedError(f"nothing was changed, the text is in {path}") from None
            continue
        os.unlink(path)
        return found.to_wire()


def _editor() -> list[str]:
    """Return the editor's words: $VISUAL, $EDITOR, or vi."""
    return (os.environ.get("VISUAL") or os.environ.get("EDITOR") or EDITOR).split() or [EDITOR]


def _run(argv: list[str]) -> int:
    ours = {key: value for key, value in os.environ.items() if key != "LD_LIBRARY_PATH"}  # the frozen program's own
    try:
        return subprocess.run(argv, env=ours, check=False).returncode
    except OSError as error:
        raise RefusedError(f"the editor {argv[0]} cannot be run ({error.strerror}); set EDITOR, or `bay0 persona set`. Nothing was changed") from None
