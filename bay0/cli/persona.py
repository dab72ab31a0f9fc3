"""`bay0 persona`, `focus`, `image` and `events`: what is sent, and what is made of the answer.

Their grammar is in `persona_words`, their texts are in `persona_text`. Each function takes the parsed words and returns the exit status.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from bay0.cli import client, inputs, logview, picture
from bay0.cli import persona_text as report
from bay0.cli.kit import DONE, NO_SPINE, REFUSED, UNSETTLED, emit, svg
from bay0.errors import Bay0Error, NoSpineError, RefusedError, UsageError
from bay0.state import paths

if TYPE_CHECKING:
    from bay0.manifest import Manifest
    from bay0.names import Name

SAMPLES = "/usr/share/spine-personas"
MANIFEST = "persona.toml"
MANIFEST_MAX = 64 << 10  # bytes; twice what PID 1 takes, for comments
WAIT_S = 900.0  # seconds; bay0 answers within its own bound, which a great patience makes long
LOAD_S = 3600.0  # seconds; an archive of some GiB on a slow disk
NAMES_S = 2.0  # seconds; whoever pressed Tab does not wait longer
CONTAINERS = {"CONTAINERS_CONF": "/run/containers/containers.conf", "CONTAINERS_STORAGE_CONF": "/run/containers/storage.conf"}
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
AMISS = {  # verb -> the states in which it has not done what was asked, though nothing is under way any more
    "start": ("failed", "stuck"),
    "stop": ("stuck",),
    "pause": ("stopped", "running", "failed", "stuck", "waiting"),
    "resume": ("stopped", "paused", "failed", "stuck", "waiting"),
    "reset": ("failed", "stuck"),
    "remove": ("failed", "stuck"),
}


def name_of(text: str) -> Name:
    """Return the name that `work` or `p://work` stands for. `BadNameError` for a bad one, `RefusedError` for a system tenant's."""
    from bay0 import names

    if text.startswith("sys://"):
        raise RefusedError(f"{text} is a system tenant, the spine's own: persona verbs leave it alone; `bay0 machines` shows it")
    return names.persona(text)


def _ask(method: str, options: argparse.Namespace, **params: Any) -> Any:
    return client.call(f"persona.{method}", name=name_of(options.persona).semantic, **params)


# ---- persona: create, list, show


def _source(given: str | None, file: str | None) -> tuple[str, str]:
    """Return the name that is meant and the manifest's path; `given` may be a name, a folder or a manifest."""
    if given is not None and "://" not in given and ("/" in given or given in (".", "..") or given.endswith(".toml")):
        if file is not None:
            raise UsageError(f"{given} is a path and --file gives another: with --file say only the name")
        path = os.path.join(given, MANIFEST) if os.path.isdir(given) else given
        return _folder(path), path
    if given is not None:
        return given, file or os.path.join(SAMPLES, name_of(given).label, MANIFEST)
    if file in (None, inputs.STDIN):
        raise UsageError("say which: `bay0 persona create work` takes a sample, `bay0 persona create personas/work` a folder of your own")
    return _folder(file), file


def _folder(path: str) -> str:
    return os.path.basename(os.path.dirname(os.path.abspath(path)))


def _samples() -> list[str]:
    try:
        return sorted(entry for entry in os.listdir(SAMPLES) if os.path.isfile(os.path.join(SAMPLES, entry, MANIFEST)))
    except OSError:
        return []


def _manifest(path: str) -> Manifest:
    from bay0 import manifest

    try:
        text = inputs.text(path, MANIFEST_MAX, "manifest")
    except OSError as error:
        say = f"no manifest at {path} ({error.strerror}). `bay0 persona create FOLDER` takes FOLDER/{MANIFEST}, --file any file"
        if path.startswith(SAMPLES):
            say += f"; samples in {SAMPLES}: {', '.join(_samples()) or 'none'}"
        raise RefusedError(say) from error
    return manifest.load(text, inputs.shown(path))


def create(options: argparse.Namespace) -> int:
    """Send a manifest under a name; both are checked here first, and by PID 1 again."""
    if options.image is not None:
        if options.file is not None or options.source is None:
            raise UsageError("--image stands in for a manifest: give it with a name and without --file")
        from bay0 import manifest

        name, wanted = name_of(options.source), manifest.load(f"image = {json.dumps(options.image, ensure_ascii=False)}\n", "--image")
    else:
        text, path = _source(options.source, options.file)
        name = name_of(text)
        wanted = _manifest(path)
    made = client.call("persona.create", name=name.semantic, manifest=wanted.to_wire())
    emit(options, made, f"{made['name']} is created and {made['state']}; {report.what_next(made)}")
    return DONE


def list_all(options: argparse.Namespace) -> int:
    """Show all personas."""
    if options.names:
        return _names()
    personas = client.call("persona.list")
    emit(options, personas, report.listing(personas, [] if personas else _samples(), SAMPLES))
    return DONE


def _names() -> int:
    """Print bare labels for a shell that completes a word; no complaint may stand in its line."""
    try:
        personas = client.call("persona.list", timeout_s=NAMES_S)
    except NoSpineError:
        return NO_SPINE
    except Bay0Error:
        return REFUSED
    for persona in personas:
        print(report.label(persona["name"]))
    return DONE


def show(options: argparse.Namespace) -> int:
    """Show one persona."""
    persona = _ask("show", options)
    emit(options, persona, report.facts(persona))
    return DONE


# ---- persona: verbs that move one


def move(options: argparse.Namespace) -> int:
    """Start, stop, pause, resume, reset or remove one persona (`options.move` says which)."""
    params: dict[str, Any] = {"wait": options.wait}
    if options.move in ("reset", "remove"):
        if options.home:
            _confirm(options)
        params["home"] = options.home
    result = _ask(options.move, options, timeout_s=WAIT_S, **params)
    return _ended(options, result)


def _confirm(options: argparse.Namespace) -> None:
    """Ask before a home is emptied. `RefusedError` unless the persona's name is typed, or --yes was given."""
    name = name_of(options.persona)
    if options.yes:
        return
    if not sys.stdin.isatty():
        raise RefusedError(f"--home empties the home of {name.semantic} for good: say --yes too where nobody can be asked. Nothing was changed")
    print(f"Everything in the home of {name.semantic} will be gone.", file=sys.stderr)
    print("type the persona's name to empty its home: ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip() not in (name.label, name.semantic):
        raise RefusedError("that is not its name; nothing was changed")


def _status(options: argparse.Namespace, result: Mapping[str, Any]) -> int:
    if not result["settled"]:
        return UNSETTLED if options.wait else DONE
    return REFUSED if result["state"] in AMISS[options.move] else DONE


def _ended(options: argparse.Namespace, result: Mapping[str, Any]) -> int:
    status = _status(options, result)
    text = report.settled(options.move, result, waited=options.wait, amiss=status == REFUSED)
    if options.json or status != REFUSED:
        emit(options, result, text)
    else:
        print(f"bay0: {text}", file=sys.stderr)
    return status


def stop(options: argparse.Namespace) -> int:
    """Stop one persona, or all at once over one connection."""
    if options.all == (options.persona is not None):
        raise UsageError("say which one to stop, or --all")
    if not options.all:
        return move(options)
    names = [p["name"] for p in client.call("persona.list") if p["state"] not in ("absent", "stopped", "failed")]
    answers = client.call_all("persona.stop", [{"name": name, "wait": options.wait} for name in names], timeout_s=WAIT_S)
    if options.json:
        print(json.dumps([{"name": n, "error": str(a)} if isinstance(a, Bay0Error) else a for n, a in zip(names, answers, strict=True)], indent=2))
    elif not names:
        print("nothing runs")
    worst = DONE
    for name, answer in zip(names, answers, strict=True):
        if isinstance(answer, Bay0Error):
            print(f"bay0: {name}: {answer}", file=sys.stderr)
            status = REFUSED
        else:
            status = _status(options, answer)
            if not options.json:
                print(report.settled("stop", answer, waited=options.wait, amiss=status == REFUSED))
        worst = REFUSED if REFUSED in (worst, status) else max(worst, status)
    return worst


# ---- persona: in the command's own process


def shell(options: argparse.Namespace) -> int:
    """Become `podman exec`: the shell runs in this very process, PID 1 has no part in it."""
    persona = _ask("show", options)
    if persona["state"] != "running":
        raise RefusedError(f"{persona['name']} is {persona['state']}, and only a running one has a shell: {report.what_next(persona)}")
    name = name_of(options.persona)
    argv = ["podman", "exec", "-it" if sys.stdin.isatty() else "-i", name.podman, *(options.command or ["/bin/sh"])]
    sys.stdout.flush()
    try:
        os.execvpe(argv[0], argv, _environment())  # noqa: S606 - there is no shell, on purpose
    except FileNotFoundError as error:
        raise RefusedError("there is no podman here; `bay0 persona shell` works in the spine only") from error


def _environment() -> dict[str, str]:
    """Return what podman needs and nothing of ours: the program's own LD_LIBRARY_PATH would give it the wrong libraries."""
    ours = {key: os.environ[key] for key in ("TERM", "LANG") if key in os.environ}
    return {"PATH": PATH, "HOME": "/root", "TMPDIR": f"{paths.CONTAINERS}/tmp", **CONTAINERS, **ours}  # noqa: S108 - podman's own folder


def logs(options: argparse.Namespace) -> int:
    """Print what a persona wrote; also of one that is stopped."""
    return print_log(name_of(options.persona), options, lambda: report.what_next(_ask("show", options)))


def print_log(name: Name, options: argparse.Namespace, what_next: Callable[[], str]) -> int:
    """Print what the container of `name` wrote. If there is nothing, `what_next` refuses a name that nobody has, or says what can be done."""
    from bay0.state import personalog

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
    for entry in personalog.follow(path, options.lines) if options.follow else personalog.stored(path, options.lines):
        as_json = {"at": entry.at, "stream": entry.stream, "text": entry.text}
        print(json.dumps(as_json) if options.json else report.entry(entry, terminal=terminal), flush=options.follow)
    return DONE


def history(options: argparse.Namespace) -> int:
    """Print a persona's journal."""
    name = name_of(options.persona)
    rows = client.history(name.semantic, options.lines)
    emit(options, rows, "\n".join(picture.table(rows)) if rows else f"the journal has nothing of {name.semantic}")
    return DONE


def graph(options: argparse.Namespace) -> int:
    """Draw the persona table, a persona in it, or all of them."""
    from bay0.machines import MACHINES, graph  # late: no other verb pays for the tables

    if options.all and options.persona is not None:
        raise UsageError("--all draws everybody: leave the name out")
    table = MACHINES["persona"]
    persona = _ask("show", options) if options.persona is not None else None
    live = next((s for s in table.states if persona is not None and s.value == persona["state"]), None)
    form = "mermaid" if options.format == "mermaid" else "dot"
    text = graph.mermaid(table, live) if form == "mermaid" else graph.dot(table, live)
    if options.all:
        text = report.overview(text, client.call("persona.list"), form)
    sys.stdout.write(svg(text) if options.format == "svg" else text)
    if persona is not None:
        sys.stdout.write(report.below(persona, options.format))
    return DONE


# ---- focus, image, events


def focus(options: argparse.Namespace) -> int:
    """Make a persona the active one, or tell which is."""
    if options.persona is None:
        active = client.call("focus.show")
        emit(options, active, f"{active['active']} is active" if active["active"] else "no persona is active; `bay0 focus NAME` makes one so")
        return DONE
    found = client.call("focus", timeout_s=WAIT_S, name=name_of(options.persona).semantic, wait=options.wait)
    emit(options, found, report.focused(found))
    return DONE if found["settled"] or not options.wait else UNSETTLED


def image_load(options: argparse.Namespace) -> int:
    """Bring an archive in; its path is made absolute, for PID 1 has another working directory."""
    if options.file == inputs.STDIN:
        path = _received()
    else:
        path = os.path.abspath(options.file)
        if not os.path.isfile(path):
            raise RefusedError(f"no archive at {path}; scripts/mkpersona.sh builds one, and - takes one from stdin")
    found = client.call("image.load", timeout_s=LOAD_S, path=path)
    emit(options, found, f"loaded {', '.join(found['loaded'])}; name it as `image` in a {MANIFEST}")
    return DONE


def _received() -> str:
    """Keep the archive that comes through stdin, and say on a terminal how far it is."""
    from bay0.state import incoming

    if sys.stdin.isatty():
        raise UsageError("- reads the archive from stdin, which is a terminal: put it into a pipe, `... | bay0 image load -`")
    client.call("image.list", timeout_s=WAIT_S)  # refuses what would be refused after the last byte
    terminal = sys.stderr.isatty()

    def say(size: int) -> None:
        if terminal:
            print(f"\r\033[K{size >> 20} MiB have come", end="", file=sys.stderr, flush=True)

    path, size = incoming.receive(sys.stdin.buffer, say)
    if terminal:
        print(f"\r\033[K{size >> 20} MiB have come; podman unpacks them", file=sys.stderr, flush=True)
    return path


def image_list(options: argparse.Namespace) -> int:
    """List the images."""
    found = client.call("image.list", timeout_s=WAIT_S)
    emit(options, found, report.images(found))
    return DONE


def image_remove(options: argparse.Namespace) -> int:
    """Remove an image."""
    found = client.call("image.remove", timeout_s=WAIT_S, name=options.image)
    emit(options, found, f"{found['removed']} is removed")
    return DONE


def events(options: argparse.Namespace) -> int:
    """Print the steps in the log of this boot."""
    if options.lines < 0:
        raise UsageError("-n takes 0 or more lines")
    return logview.select(_is_step(options.machine), options.lines, follow=options.follow, as_json=options.json)


def _is_step(machine: str | None) -> Callable[[str], bool]:
    """Return the test of a log line: a step, of `machine` if given (its full name, a persona's short one, or `boot` and `storage`)."""

    def kept(line: str) -> bool:
        try:
            record = json.loads(line)
        except ValueError:
            return False
        if not isinstance(record, dict) or record.get("event") != "step":
            return False
        found = str(record.get("machine"))
        return machine is None or found in (machine, report.SCHEME + machine) or (found.startswith(f"{machine}:") and "://" not in found)

    return kept
