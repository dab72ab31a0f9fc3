"""Verbs that move personas, one or several: by name, by pattern or all. Each one is named with what became of it.

The server is asked about each by itself, all at once over one connection, so one that is refused does not keep the others. A
pattern is of a shell's kind: `*` is any text, `?` one character. Who it means is settled before anything is asked.
"""

from __future__ import annotations

import sys

from bay0.base.errors import Bay0Error, NoSpineError, RefusedError, UsageError
from bay0.cli import client
from bay0.cli import persona_text as report
from bay0.cli.kit import DONE, REFUSED, UNSETTLED, emit
from bay0.cli.persona import WAIT_S, name_of, semantic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from bay0.cli.grammar import Options

    Result = Mapping[str, Any] | Bay0Error

AMISS = {  # verb -> the states in which it has not done what was asked, though nothing is under way any more
    "start": ("failed", "stuck"),
    "restart": ("failed", "stuck"),
    "stop": ("stuck",),
    "pause": ("stopped", "running", "failed", "stuck", "waiting"),
    "resume": ("stopped", "paused", "failed", "stuck", "waiting"),
    "reset": ("failed", "stuck"),
    "remove": ("failed", "stuck"),
}
ALIVE = ("starting", "running", "pausing", "paused", "resuming", "stopping", "converging", "stuck")
ALL = {  # verb -> the states of those whom `--all` means, and what is said if there is none
    "start": (("stopped", "failed", "waiting"), "nothing is stopped"),
    "restart": ((*ALIVE, "waiting"), "nothing runs"),
    "stop": ((*ALIVE, "waiting"), "nothing runs"),
    "pause": (("running",), "nothing runs"),
    "resume": (("paused",), "nothing is paused"),
}


def like(pattern: str, label: str) -> bool:
    """Tell whether a label is like a pattern of `*` and `?`."""
    at, sign, star, taken = 0, 0, -1, 0  # `star`: where the last one stands; it begins to take at `taken`
    while at < len(label):
        if pattern[sign : sign + 1] == "*":
            star, taken, sign = sign, at, sign + 1
        elif pattern[sign : sign + 1] in (label[at], "?"):
            at, sign = at + 1, sign + 1
        elif star >= 0:  # let it take one more
            taken += 1
            at, sign = taken, star + 1
        else:
            return False
    return not pattern[sign:].strip("*")


def is_pattern(word: str) -> bool:
    """Tell whether a word is a pattern: no name holds such a character."""
    return "*" in word or "?" in word


def chosen(words: Sequence[str], *, of_all: str = "") -> tuple[list[str], bool]:
    """Return the names that are meant, each once in the order given, and whether they may be several.

    `of_all`: the verb whose `--all` was given. `RefusedError` for a pattern that is like none.
    """
    if not of_all and not any(map(is_pattern, words)):
        return list(dict.fromkeys(map(semantic, words))), len(words) > 1
    personas = client.call("persona.list")
    if of_all:
        return [p["name"] for p in personas if p["state"] in ALL[of_all][0]], True
    names: dict[str, None] = {}
    for word in words:
        if not is_pattern(word):
            names[semantic(word)] = None
            continue
        found = [p["name"] for p in personas if like(word.removeprefix(report.SCHEME), report.label(p["name"]))]
        if not found:
            raise RefusedError(f"no persona is like {word!r}; `bay0 persona list` names those there are. Nothing was changed")
        names.update(dict.fromkeys(found))
    return list(names), True


def move(options: Options) -> int:
    """Start, restart, stop, pause, resume, reset or remove personas (`options.move` says which)."""
    verb, everybody = options.move, options.move in ALL and options.all
    if everybody == bool(options.personas):
        raise UsageError(f"say which one to {verb}" + (", or --all" if verb in ALL else ""))
    names, several = chosen(options.personas, of_all=verb if everybody else "")
    params: dict[str, Any] = {"wait": options.wait}
    if verb in ("reset", "remove"):
        params["home"] = options.home
        if options.home:
            _confirm(options, names)
    if not several:
        found = client.named(names[0], "persona.list", f"persona.{verb}", timeout_s=WAIT_S, name=names[0], **params)
        return _ended(options, found)
    if not names and not options.json:
        print(ALL[verb][1])
    asked = [{"name": name, **params} for name in names]
    return _ended_all(options, names, client.call_all(f"persona.{verb}", asked, timeout_s=WAIT_S) if names else [])


def _confirm(options: Options, names: Sequence[str]) -> None:
    """Ask before homes are emptied. `RefusedError` unless each persona's name is typed, or --yes was given."""
    if options.yes:
        return
    whose = ", ".join(names)
    if not sys.stdin.isatty():
        raise RefusedError(f"--home empties the home of {whose} for good: say --yes too where nobody can be asked. Nothing was changed")
    for name in map(name_of, names):
        print(f"Everything in the home of {name.semantic} will be gone.", file=sys.stderr)
        print("type the persona's name to empty its home: ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip() not in (name.label, name.semantic):
            raise RefusedError("that is not its name; nothing was changed")


def _status(options: Options, result: Mapping[str, Any]) -> int:
    if not result["settled"]:
        return UNSETTLED if options.wait else DONE
    return REFUSED if result["state"] in AMISS[options.move] else DONE


def _ended(options: Options, result: Mapping[str, Any]) -> int:
    status = _status(options, result)
    text = report.settled(options.move, result, waited=options.wait, amiss=status == REFUSED)
    if options.json or status != REFUSED:
        emit(options, result, text)
    else:
        print(f"bay0: {text}", file=sys.stderr)
    return status


def _ended_all(options: Options, names: Sequence[str], results: Sequence[Result]) -> int:
    """Name each with its result; the status is that of the worst: refused, then still on its way."""
    if options.json:
        emit(options, [{"name": n, "error": str(r)} if isinstance(r, Bay0Error) else r for n, r in zip(names, results, strict=True)], "")
    known = _known() if any(isinstance(result, RefusedError) for result in results) else []
    worst = DONE
    for name, result in zip(names, results, strict=True):
        if isinstance(result, Bay0Error):
            status, text = REFUSED, f"{name}: {result}{_meant(name, known)}"
        else:
            status = _status(options, result)
            text = report.settled(options.move, result, waited=options.wait, amiss=status == REFUSED)
        if status == REFUSED and (not options.json or isinstance(result, Bay0Error)):
            print(f"bay0: {text}", file=sys.stderr)
        elif not options.json:
            print(text)
        worst = REFUSED if REFUSED in (worst, status) else max(worst, status)
    return worst


def _known() -> list[str]:
    try:
        return [each["name"] for each in client.call("persona.list")]
    except (RefusedError, NoSpineError):
        return []


def _meant(name: str, known: Sequence[str]) -> str:
    from bay0.cli import near

    meant = near.name(name, known) if known and name not in known else None
    return f". Did you mean {meant}?" if meant else ""


# ---- waiting


def wait(options: Options) -> int:
    """Wait until personas are what is asked for; status 4 if the time is over first, 1 if one cannot come there any more."""
    if not options.personas:
        raise UsageError("say which one to wait for")
    names, several = chosen(options.personas)
    goal = getattr(options, "for")
    params = {"for": goal, "seconds": options.timeout}
    patience_s = options.timeout + client.TIMEOUT_S
    if not several:
        results: list[Any] = [client.named(names[0], "persona.list", "persona.wait", timeout_s=patience_s, name=names[0], **params)]
    else:
        results = client.call_all("persona.wait", [{"name": name, **params} for name in names], timeout_s=patience_s)
    shown = [{"name": n, "error": str(r)} if isinstance(r, Bay0Error) else r for n, r in zip(names, results, strict=True)]
    if options.json:
        emit(options, shown if several else shown[0], "")
    worst = DONE
    for name, result in zip(names, results, strict=True):
        if isinstance(result, Bay0Error):
            status, text = REFUSED, f"{name}: {result}"
        elif result["reached"]:
            status, text = DONE, f"{name} is {result['state']}"
        elif result["ended"]:
            status, text = REFUSED, f"{name} is {result['state']} and not {goal}: {result['why']}; {report.what_next(result)}"
        else:
            status, text = UNSETTLED, f"{name} is still {result['state']} after {options.timeout:g} s, not {goal}"
        if status == DONE and not options.json:
            print(text)
        elif status != DONE and (not options.json or isinstance(result, Bay0Error)):
            print(f"bay0: {text}", file=sys.stderr)
        worst = REFUSED if REFUSED in (worst, status) else max(worst, status)
    return worst
