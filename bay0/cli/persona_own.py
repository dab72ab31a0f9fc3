"""Verbs of personas that work in the command's own process: `shell`, `exec`, `logs`, `history`, `graph`, and `events` of all machines."""

from __future__ import annotations

import json
import os
import sys

from bay0.base.errors import RefusedError, UsageError
from bay0.cli import client, logview, picture
from bay0.cli import persona_text as report
from bay0.cli.kit import DONE, emit, svg
from bay0.cli.persona import ask, name_of
from bay0.state import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from bay0.base.names import Name
    from bay0.cli.grammar import Options


CONTAINERS = {"CONTAINERS_CONF": "/run/containers/containers.conf", "CONTAINERS_STORAGE_CONF": "/run/containers/storage.conf"}
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def shell(options: Options) -> int:
    """Become `podman exec`: the shell runs in this very process, PID 1 has no part in it."""
    return _become(options, "shell", ["-it" if sys.stdin.isatty() else "-i"], options.command or ["/bin/sh"])


def run(options: Options) -> int:
    """Become `podman exec` of one command; its exit status is ours, and its streams are apart unless it has a terminal."""
    if not options.command:
        raise UsageError("say what to run, behind --: `bay0 persona exec work -- ls -l`")
    if options.tty and not sys.stdin.isatty():
        raise UsageError("--tty needs a terminal on stdin")
    for word in options.env or ():
        name, equals, _ = word.partition("=")
        if not equals or not name.isidentifier() or not name.isascii():  # podman would take a name alone from our own environment
            raise UsageError(f"--env takes NAME=VALUE, not {word!r}")
    if options.workdir is not None and not options.workdir.startswith("/"):
        raise UsageError(f"--workdir takes an absolute path inside it, not {options.workdir!r}")
    words = ["-it" if options.tty else "-i", *(f"--env={word}" for word in options.env or ())]
    words += [f"--{key}={value}" for key, value in (("user", options.user), ("workdir", options.workdir)) if value is not None]
    return _become(options, "exec", words, options.command)


def _become(options: Options, verb: str, words: list[str], command: list[str]) -> int:
    persona = ask("show", options)
    if persona["state"] != "running":
        what = "has a shell" if verb == "shell" else "runs a command"
        raise RefusedError(f"{persona['name']} is {persona['state']}, and only a running one {what}: {report.what_next(persona)}")
    argv = ["podman", "exec", *words, name_of(options.persona).podman, *command]
    sys.stdout.flush()
    try:
        os.execvpe(argv[0], argv, _environment())  # noqa: S606 - there is no shell, on purpose
    except FileNotFoundError as error:
        raise RefusedError("there is no podman here; a persona is entered in the spine only") from error


def _environment() -> dict[str, str]:
    """Return what podman needs and nothing of ours: the program's own LD_LIBRARY_PATH would give it the wrong libraries."""
    ours = {key: os.environ[key] for key in ("TERM", "LANG") if key in os.environ}
    return {"PATH": PATH, "HOME": "/root", "TMPDIR": f"{paths.CONTAINERS}/tmp", **CONTAINERS, **ours}  # noqa: S108 - podman's own folder


def logs(options: Options) -> int:
    """Print what a persona wrote; also of one that is stopped."""
    return print_log(name_of(options.persona), options, lambda: report.what_next(ask("show", options)))


def print_log(name: Name, options: Options, what_next: Callable[[], str]) -> int:
    """Print what the container of `name` wrote. If there is nothing, `what_next` refuses a name that nobody has, or says what can be done."""
    from bay0.cli import when
    from bay0.state import personalog

    in_time, matches = when.within(options), when.matcher(options.grep)
    if options.lines < 0:
        raise UsageError("-n takes 0 or more lines")
    path = personalog.path(name.podman)
    try:
        found = personalog.is_there(path)
    except OSError as error:
        raise RefusedError(f"the log of {name.semantic} cannot be read: {error}") from error
    if not found:
        way = what_next()
        if not options.follow:
            missing = f"no log of {name.semantic}: it was not started yet, or /persist is not there (`bay0 storage`); {way}"
            print(f"bay0: {missing}", file=sys.stderr)
            return DONE
    terminal = sys.stdout.isatty()
    timed = options.since is not None or options.until is not None

    def kept(entry: personalog.Entry) -> bool:
        return matches(entry.text) and (not timed or in_time(when.of_conmon(entry.at)))

    for entry in personalog.follow(path, options.lines, kept) if options.follow else personalog.stored(path, options.lines, kept):
        if options.json:
            print(json.dumps({"at": entry.at, "stream": entry.stream, "text": entry.text}), flush=options.follow)
            continue
        at = when.of_conmon(entry.at) if options.wall else None
        before = "" if at is None else f"{when.stamped(at)} [{at - when.started():12.3f}] "
        print(f"{before}{report.entry(entry, terminal=terminal)}", flush=options.follow)
    return DONE


def history(options: Options) -> int:
    """Print a persona's journal."""
    name = name_of(options.persona)
    rows = client.history(name.semantic, options.lines)
    emit(options, rows, "\n".join(picture.table(rows)) if rows else f"the journal has nothing of {name.semantic}")
    return DONE


def graph(options: Options) -> int:
    """Draw the persona table, a persona in it, or all of them."""
    from bay0.machines import MACHINES, graph  # late: no other verb pays for the tables

    if options.all and options.persona is not None:
        raise UsageError("--all draws everybody: leave the name out")
    table = MACHINES["persona"]
    persona = ask("show", options) if options.persona is not None else None
    live = next((s for s in table.states if persona is not None and s.value == persona["state"]), None)
    form = "mermaid" if options.format == "mermaid" else "dot"
    text = graph.mermaid(table, live) if form == "mermaid" else graph.dot(table, live)
    if options.all:
        text = report.overview(text, client.call("persona.list"), form)
    sys.stdout.write(svg(text) if options.format == "svg" else text)
    if persona is not None:
        sys.stdout.write(report.below(persona, options.format))
    return DONE


def events(options: Options) -> int:
    """Print the steps in the log of this boot.

    `RefusedError` for a machine that has none there and that bay0 does not know: a word that is mistyped.
    """
    if options.lines < 0:
        raise UsageError("-n takes 0 or more lines")
    kept, found = _is_step(options.machine), False

    def noted(line: str) -> bool:
        nonlocal found
        is_kept = kept(line)
        found = found or is_kept
        return is_kept

    status = logview.select(noted, options.lines, follow=options.follow, as_json=options.json)
    if options.machine is not None and not found:
        _need_known(options.machine)
    return status


def _need_known(machine: str) -> None:
    known = client.listed("machines")
    if known is None or any(is_of(machine, name) for name in known):
        return  # the log is there to be read without bay0, too
    from bay0.cli import near

    meant = near.name(machine, known)
    hint = f"Did you mean {meant}?" if meant else "`bay0 machines` lists them"
    raise RefusedError(f"no machine is called {machine}, nor was one in this boot. {hint}")


def is_of(machine: str, name: str) -> bool:
    """Tell whether `machine` means the one of that name: in full, a persona's short one, or `boot` and `storage`."""
    return name in (machine, report.SCHEME + machine) or (name.startswith(f"{machine}:") and "://" not in name)


def _is_step(machine: str | None) -> Callable[[str], bool]:
    """Return the test of a log line: a step, of `machine` if given."""

    def kept(line: str) -> bool:
        try:
            record = json.loads(line)
        except ValueError:
            return False
        if not isinstance(record, dict) or record.get("event") != "step":
            return False
        return machine is None or is_of(machine, str(record.get("machine")))

    return kept
