"""The words of `bay0 persona`, `focus`, `image` and `events`: each verb with what it does and an example."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable
from typing import Any

from bay0.cli import persona as calls

Call = Callable[[argparse.Namespace], int]
WIDTH = 79  # columns of a serial console, less one
NAME_HELP = "its name: `work` is short for p://work"
BOUNDED = "The answer comes within a bound: status 4 and 'accepted' if it is still on its way then."
LOG = "On a terminal only its colours pass; other control characters are shown, not obeyed. --json gives one object a line."


def verb(verbs: Any, name: str, call: Call | None, text: str, example: str, *, more: str = "") -> argparse.ArgumentParser:
    """Add a verb that teaches: what it does (`text`, and `more` in its own --help) and an example."""
    found: argparse.ArgumentParser = verbs.add_parser(
        name,
        help=text,
        description=textwrap.fill(f"{text[:1].upper()}{text[1:]}." + (f" {more}" if more else ""), WIDTH),
        epilog="example:\n" + "\n".join(f"  {line}" for line in example.split("\n")),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.set_defaults(call=call, json=False)
    return found


def _json(found: argparse.ArgumentParser) -> argparse.ArgumentParser:
    found.add_argument("--json", action="store_true", help="print JSON for programs")
    return found


def lines(found: argparse.ArgumentParser, most: str, default: int = 0) -> None:
    """Let the user say how many of them he wants."""
    found.add_argument("-n", "--lines", type=int, default=default, metavar="N", help=most)


def _name(found: argparse.ArgumentParser, nargs: str | None = None, text: str = NAME_HELP) -> argparse.ArgumentParser:
    found.add_argument("persona", metavar="NAME", nargs=nargs, help=text)
    return found


def _wait(found: argparse.ArgumentParser) -> argparse.ArgumentParser:
    found.add_argument(
        "--wait", action=argparse.BooleanOptionalAction, default=True, help="wait until it is done (the default), or only until it is accepted"
    )
    return found


def register(verbs: Any) -> None:
    """Add all verbs to the command line's."""
    persona = verb(verbs, "persona", None, "make, run, watch and remove personas", "bay0 persona create work\nbay0 persona start work")
    words = persona.add_subparsers(dest="persona_verb", metavar="VERB", required=True)
    _data(words)
    _moves(words)
    _own_process(words)
    _others(verbs)


def _data(words: Any) -> None:
    found = _json(
        verb(
            words, "create", calls.create, "make a persona of a manifest; it is not started",
            "bay0 persona create work                    # the sample of that name\n"
            "bay0 persona create personas/work           # your folder with a persona.toml\n"
            "bay0 persona create play --file persona.toml\n"
            "bay0 persona create try --image localhost/shell:latest",
            more=f"A bare NAME without --file looks for {calls.SAMPLES}/NAME/{calls.MANIFEST}; a folder gives the persona its own name.",
        )
    )  # fmt: skip
    found.add_argument("source", metavar="NAME|FOLDER", nargs="?", help="its name, or a folder that is called so and holds its persona.toml")
    found.add_argument("--file", metavar="TOML", help="the manifest; - reads it from stdin")
    found.add_argument("--image", help="no manifest: this image, and the defaults for everything else")
    found = _json(
        verb(
            words,
            "list",
            calls.list_all,
            "list all personas; * marks the active one",
            "bay0 persona list",
            more="SINCE: how long it has been in its state.",
        )
    )
    found.add_argument("--names", action="store_true", help="only the short names, and no complaint without a spine (for shell completion)")
    _json(_name(verb(words, "show", calls.show, "show one persona, why it is in its state, and what can be done next", "bay0 persona show work")))
    found = _json(_name(verb(words, "history", calls.history, "print the journal of a persona, from the disk", "bay0 persona history work -n 20")))
    lines(found, "the last N rows (default 50, at most 300)", 50)
    found = _name(
        verb(
            words, "graph", calls.graph, "draw the state diagram of personas, from the table itself",
            "bay0 persona graph         # needs no spine\n"
            "bay0 persona graph work    # its state marked, its last steps as comments\n"
            "bay0 persona graph --all --format dot",
        ),
        "?", "mark this persona's state in it",
    )  # fmt: skip
    found.add_argument("--format", choices=("mermaid", "dot", "svg"), default="mermaid", help="svg needs Graphviz (default mermaid)")
    found.add_argument("--all", action="store_true", help="one picture with every persona's name at its state")


def _moves(words: Any) -> None:
    for name, text, more in (
        ("start", "start a persona", f"Status 1 if it ended in failed; the reason is printed. {BOUNDED}"),
        ("pause", "freeze a persona: it keeps its memory and gets no processor", BOUNDED),
        ("resume", "let a paused persona go on", BOUNDED),
    ):
        _move(words, name, text, f"bay0 persona {name} work\nbay0 persona {name} work --no-wait", more)
    found = verb(
        words, "stop", calls.stop, "stop a persona: TERM, its grace, then KILL", "bay0 persona stop work\nbay0 persona stop --all", more=BOUNDED
    )
    _json(_wait(_name(found, "?"))).set_defaults(move="stop")
    found.add_argument("--all", action="store_true", help="every persona that is not stopped")
    for name, text, more in (
        (
            "reset", "stop a persona, forget its failures and its container; the next start gets a fresh one",
            f"Its home is kept unless --home is given. {BOUNDED}",
        ),
        ("remove", "forget a stopped persona", "Its home stays on the disk, for another persona of that name, unless --home is given."),
    ):  # fmt: skip
        found = _move(words, name, text, f"bay0 persona {name} work\nbay0 persona {name} work --home", more)
        found.add_argument("--home", action="store_true", help="also empty its home, after asking for its name")
        found.add_argument("--yes", action="store_true", help="do not ask (for scripts)")


def _move(words: Any, name: str, text: str, example: str, more: str) -> argparse.ArgumentParser:
    found = _json(_wait(_name(verb(words, name, calls.move, text, example, more=more))))
    found.set_defaults(move=name)
    return found


def _own_process(words: Any) -> None:
    found = _name(
        verb(
            words, "shell", calls.shell, "run a shell, or another command, in a running persona",
            "bay0 persona shell work\nbay0 persona shell work -- ls -l /",
            more="It runs in this command's own process, by `podman exec`; the exit status is the command's.",
        )
    )  # fmt: skip
    found.add_argument("command", metavar="CMD", nargs="*", help="the command and its arguments, after -- (default /bin/sh)")
    found = verb(words, "logs", calls.logs, "print what a persona wrote, also when it is stopped", "bay0 persona logs work -n 20 -f", more=LOG)
    log(_json(_name(found)))


def log(found: argparse.ArgumentParser) -> None:
    """Let the user say what he wants of a container's log."""
    found.add_argument("-f", "--follow", action="store_true", help="go on as lines come; Ctrl-C ends it")
    lines(found, "only the last N lines (default: all there is)")


def _others(verbs: Any) -> None:
    _json(
        _wait(
            _name(
                verb(
                    verbs, "focus", calls.focus, "make a persona the active one: it goes on, the others are paused; without a name tell which it is",
                    "bay0 focus work\nbay0 focus", more=BOUNDED,
                ),
                "?",
            )
        )
    )  # fmt: skip
    image = verb(verbs, "image", None, "list, load and remove the images personas are made of", "bay0 image list")
    words = image.add_subparsers(dest="image_verb", metavar="VERB", required=True)
    found = _json(
        verb(
            words, "load", calls.image_load, "bring in an archive made by scripts/mkpersona.sh or `podman save`",
            "bay0 image load /persist/images/shell.tar\nxz -dc shell.tar.xz | bay0 image load -",
            more="From the host, onto a disk that is there: scripts/mkpersist.sh --add shell.tar persist.img, while no spine runs on it.",
        )
    )  # fmt: skip
    found.add_argument("file", metavar="FILE", help="the archive; - reads it from stdin, at most half of what is free on /persist")
    _json(verb(words, "list", calls.image_list, "list the images; those built in survive everything", "bay0 image list"))
    found = _json(verb(words, "remove", calls.image_remove, "remove an image", "bay0 image remove localhost/shell:latest"))
    found.add_argument("image", metavar="NAME", help="its name, as `bay0 image list` shows it")
    found = _json(
        verb(
            verbs,
            "events",
            calls.events,
            "print the steps of all machines, from the log of this boot",
            "bay0 events -f --machine work",
            more="--json gives one object a line.",
        )
    )
    found.add_argument("-f", "--follow", action="store_true", help="go on as they come; Ctrl-C ends it")
    found.add_argument("--machine", metavar="NAME", help="only of this one: work, p://work, sys://console, boot, storage")
    lines(found, "only the last N steps (default: all there are)")
