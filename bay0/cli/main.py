"""The command line: thin clients of the control socket, and a few verbs that need no spine.

Exit status: 0 done; 1 refused or failed; 2 wrong usage; 3 no spine answers; 4 accepted, but not settled within its bound (bay0 goes on).
130: ended by Ctrl-C; 141: nobody reads its output any more.
`bay0 run` and `bay0 persona shell` give their command's own, `bay0 --validate` its verdict: 0 GREEN, 1 YELLOW, 2 RED.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, NoReturn

import bay0
from bay0 import wire
from bay0.cli import care, client, completion, inhibit, logview, nack, persona_words, picture, report, streams, tenant
from bay0.cli.kit import NO_SPINE, REFUSED, USAGE, emit, svg
from bay0.errors import Bay0Error, NoSpineError, UsageError
from bay0.verdict import COMPONENTS
from bay0.wire import FRAME_MAX

OVERDUE = 124  # as timeout(1) has it
DEADLINE_MAX_S = 3600.0
GRACES_S = 600.0  # beyond a command's own deadline; bay0 answers much sooner unless its patience is great
RPC_TIMEOUT_S = GROW_TIMEOUT_S = 3600.0
RPC_WINDOW = 16  # requests under way, so that neither side's buffer fills
RPC_WINDOW_MAX = 64
SHOWN_MAX = 1000  # characters of a complaint; the choices take most of it


def _version(options: argparse.Namespace) -> int:
    from bay0.cli import version

    facts = version.facts()
    emit(options, facts, version.text(facts))
    return 0


def _status(options: argparse.Namespace) -> int:
    status = client.call("status")
    emit(options, status, report.status(status))
    return 0


def _validate(options: argparse.Namespace) -> int:
    from bay0.cli import validate

    return validate.run(options)


def _boot(options: argparse.Namespace) -> int:
    boots = client.call("boots", previous=options.previous)
    if options.svg:
        with open(options.svg, "w", encoding="utf-8") as file:
            file.write(picture.svg(boots["this"]))
    emit(options, boots, report.boots(boots) + (f"\ndrawn to {options.svg}" if options.svg else ""))
    return 0


def _log(options: argparse.Namespace) -> int:
    if options.lines < 0:
        raise UsageError("-n takes 0 or more lines")
    return logview.show(options.lines, follow=options.follow, as_json=options.json)


def _machines(options: argparse.Namespace) -> int:
    machines = client.call("machines")
    emit(options, machines, report.machines(machines))
    return 0


def _history(options: argparse.Namespace) -> int:
    rows = client.history(options.machine, options.lines)
    emit(options, rows, "\n".join(picture.table(rows)) if rows else f"the journal has nothing of {options.machine}")
    return 0


def _run(options: argparse.Namespace) -> int:
    if not options.command:
        raise UsageError("say which command: bay0 run [--deadline S] -- COMMAND [ARGUMENTS]")
    result = client.call("run", timeout_s=options.deadline + GRACES_S, argv=options.command, deadline_s=options.deadline)
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        sys.stdout.write(result["stdout"])
        sys.stderr.write(result["stderr"])
        if result["dropped"]:
            print(f"bay0: {result['dropped']} bytes of output were not kept; redirect it to a file to have it all", file=sys.stderr)
        if result["ending"] != "exited":
            print(f"bay0: {result['ending']} after {result['took_s']:.1f} s", file=sys.stderr)
    status = int(result["status"])
    if result["ending"] in ("timed_out", "abandoned"):
        return OVERDUE
    return status if status >= 0 else 128 - status


def _power(options: argparse.Namespace) -> int:
    client.call("power", how=options.how, **({"force": True} if options.force else {}))
    said = "services are stopped, the disk is closed, then the power goes"
    if options.force:
        said = "everything is killed, what answers within 2 s is synced, then the power goes"
    emit(options, {"accepted": options.how, "force": options.force}, f"{options.how}: {said}")
    return 0


def _storage(options: argparse.Namespace) -> int:
    if options.action == "retry":
        answer = client.call("storage.retry")
        emit(options, answer, "accepted: storage is tried again; `bay0 storage` shows how it went")
        return 0
    if options.action == "grow":
        grown = client.call("storage.grow", timeout_s=GROW_TIMEOUT_S)
        sizes = f"from {grown['from_bytes'] >> 20} to {grown['to_bytes'] >> 20} MiB"
        emit(options, grown, f"the filesystem on {grown['device']} has grown {sizes}")
        return 0
    status = client.call("status")
    emit(options, {**status["storage"], "dirty": status["dirty"]}, report.storage(status))
    return 0


def _graph(options: argparse.Namespace) -> int:
    from bay0.machines import MACHINES, graph  # late: no other verb pays for the tables

    if options.machine not in MACHINES:
        raise UsageError(f"no machine {options.machine!r}; there are {', '.join(sorted(MACHINES))}")
    machine = MACHINES[options.machine]
    live = None
    if options.live:
        states = {m["state"] for m in client.call("machines") if m["kind"] == options.machine}
        live = next((s for s in machine.states if s.value in states), None)
    if options.format == "mermaid":
        sys.stdout.write(graph.mermaid(machine, live))
    elif options.format == "dot":
        sys.stdout.write(graph.dot(machine, live))
    elif options.format == "page":
        sys.stdout.write(graph.page(machine, report.theory(options.machine)))
    else:
        sys.stdout.write(svg(graph.dot(machine, live)))
    return 0


def _rpc(options: argparse.Namespace) -> int:
    """Send requests, one JSON object a line, from stdin; print the answers as they come."""
    if options.each:
        return _conversation()
    requests = _requests()
    with client.connect(timeout_s=RPC_TIMEOUT_S) as peer:
        answers = client.lines(peer)
        while window := list(islice(requests, options.window)):
            client.send(peer, window)
            for _ in filter(_is_answered, window):
                print(json.dumps(client.take(answers)), flush=True)
    return 0


def _conversation() -> int:
    """Answer each request before the next is read, until stdin ends."""
    with client.connect(timeout_s=RPC_TIMEOUT_S) as peer:
        answers = client.lines(peer)
        for line in _requests():
            client.send(peer, [line])
            if _is_answered(line):
                print(json.dumps(client.take(answers)), flush=True)
    return 0


def _requests() -> Iterator[bytes]:
    """Yield the lines of stdin as they come, without those that are empty. One that is too long for a frame is cut: bay0 refuses it and hangs up."""
    while line := sys.stdin.buffer.readline(2 * FRAME_MAX):
        if line.strip():
            yield line.rstrip(b"\r\n")


def _is_answered(line: bytes) -> bool:
    """Tell whether a request gets an answer: all do but notifications, which are whole requests without an id."""
    try:
        return "id" in wire.read(line)
    except wire.FrameError:
        return True


def _debug(_options: argparse.Namespace) -> int:
    client.call("debug.crash")
    print("accepted: PID 1 fails now; the console shows its last words")
    return 0


def _completion(options: argparse.Namespace) -> int:
    sys.stdout.write(completion.script(parser(), options.shell))
    return 0


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= DEADLINE_MAX_S:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most {DEADLINE_MAX_S:g} seconds")
    return value


def _window(text: str) -> int:
    value = int(text)
    if not 1 <= value <= RPC_WINDOW_MAX:
        raise argparse.ArgumentTypeError(f"must be 1 to {RPC_WINDOW_MAX}")
    return value


class _Grammar(argparse.ArgumentParser):
    """Of all verbs. Each complains of its own words, with its own usage, and shows nothing that a terminal would obey."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"this takes no {' '.join(unknown)}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        shown = streams.harmless(message).replace("\n", "\\n")
        super().error(shown if len(shown) <= SHOWN_MAX else f"{shown[:SHOWN_MAX]} ...")


def parser() -> argparse.ArgumentParser:
    """Return the whole grammar of the command line."""
    top = _Grammar(
        prog="bay0",
        description="Talk to bay0, PID 1 of an Alpine-Spline machine. Every verb has --help; most have --json.",
        epilog="Start with `bay0 status`, `bay0 boot` and `bay0 persona list`. Without a spine, `bay0 graph boot` draws the boot's own table.",
    )
    top.add_argument("--version", action="version", version=f"bay0 {bay0.__version__}")
    top.add_argument("--validate", action="store_true", help="the same as the verb validate")
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True)

    def add(name: str, call: Any, text: str, *, json_flag: bool = True, more: str = "") -> argparse.ArgumentParser:
        verb = verbs.add_parser(name, help=text, description=f"{text}. {more}" if more else text)
        verb.set_defaults(call=call, json=False)
        if json_flag:
            verb.add_argument("--json", action="store_true", help="print JSON for programs")
        return verb

    add("status", _status, "show what the spine is and how it feels")
    verb = add("validate", _validate, "check the spine's health: GREEN, YELLOW or RED, and what is not well; exit status 0, 1 or 2")
    verb.add_argument("--only", action="append", choices=tuple(COMPONENTS), metavar="NAME", help=f"only this one: {', '.join(COMPONENTS)}")
    verb = add("boot", _boot, "show the steps of this boot and earlier ones, and how long each took")
    verb.add_argument("--previous", type=int, default=3, metavar="N", help="earlier boots to show, 0 to 5 (default 3)")
    verb.add_argument("--svg", metavar="FILE", help="also draw this boot as an SVG picture")
    verb = add("log", _log, "print the log of this boot")
    verb.add_argument("-f", "--follow", action="store_true", help="go on as lines come; Ctrl-C ends it")
    verb.add_argument("-n", "--lines", type=int, default=0, metavar="N", help="only the last N lines (default: all there is)")
    add("machines", _machines, "list every live state machine")
    verb = add("history", _history, "print the journal of one machine")
    verb.add_argument("machine", help="its name, as `bay0 machines` lists it")
    verb.add_argument("-n", "--lines", type=int, default=50, metavar="N", help="the last N rows (default 50, at most 300)")
    verb = add("run", _run, "run one command in the spine, under a deadline; its exit status is ours, 124 if time ran out")
    verb.add_argument("--deadline", type=_seconds, default=30.0, metavar="S", help="seconds until TERM, then KILL (default 30)")
    verb.add_argument("command", nargs="*", help="the command, after --")
    for how in ("poweroff", "reboot"):
        verb = add(
            how, _power, f"{how} in order: services stopped, disk closed",
            more="If that hangs, --force is the way out, as is Ctrl-Alt-Del twice within 3 s.",
        )  # fmt: skip
        verb.set_defaults(how=how)
        verb.add_argument("--force", action="store_true", help="kill everything without asking, sync what answers within 2 s, then cut the power")
    verb = add("storage", _storage, "show the health of /persist, try again after it was mended, or grow it to the size of its disk")
    verb.add_argument(
        "action", nargs="?", choices=("show", "retry", "grow"), default="show",
        help="show (default); retry: open it again; grow: a disk that was made larger is used to its end, while all goes on",
    )  # fmt: skip
    verb = add("graph", _graph, "draw the state diagram of a machine from its table", json_flag=False)
    verb.add_argument("machine", help="its kind, such as boot, storage, tenant or persona; a wrong one lists them all")
    verb.add_argument(
        "--format", choices=("mermaid", "dot", "svg", "page"), default="mermaid",
        help="page: as in docs/machines; svg needs Graphviz (default mermaid)",
    )  # fmt: skip
    verb.add_argument("--live", action="store_true", help="mark the state it is in now (needs a spine)")
    verb = add("rpc", _rpc, "send JSON-RPC 2.0 requests from stdin, one a line, and print the answers", json_flag=False)
    verb.add_argument(
        "--window", type=_window, default=RPC_WINDOW, metavar="N",
        help=f"send N requests before their answers are awaited (default {RPC_WINDOW}); 1: one after the other",
    )  # fmt: skip
    verb.add_argument("--each", action="store_true", help="answer each request before the next is read: for a program at the other end of a pipe")
    verb = add("debug", _debug, "fail on purpose, to try bay0.panic= (needs bay0.debug on the kernel command line)", json_flag=False)
    verb.add_argument("what", choices=("crash",), help="PID 1 fails as a defect would make it fail")
    persona_words.register(verbs)
    tenant.register(verbs)
    nack.register(verbs)
    inhibit.register(verbs)
    care.register(verbs)
    verb = add("completion", _completion, "print a completion script for a shell, such as: . <(bay0 completion bash)", json_flag=False)
    verb.add_argument("shell", choices=completion.SHELLS, help="the shell that is to complete bay0's words")
    add("version", _version, "print the version, and which image this is: its content, locks, kernel and build time")
    return top


def _parse(words: Sequence[str]) -> argparse.Namespace:
    """Parse; a command after `--` stays as it is (before Python 3.13 argparse drops a second `--` from it)."""
    if list(words[:1]) == ["--validate"]:
        words = ["validate", *words[1:]]
    if "--" not in words or not (list(words[:1]) == ["run"] or list(words[:2]) == ["persona", "shell"]):
        return parser().parse_args(words)
    at = list(words).index("--")
    options = parser().parse_args(words[:at])
    options.command += words[at + 1 :]
    return options


def main(words: Sequence[str]) -> int:
    """Run one verb and return the exit status."""
    streams.ensure()
    try:
        status = _verb(words)
    except SystemExit as end:  # argparse has printed help, or how it is used
        raise SystemExit(streams.finish(int(end.code or 0))) from None
    return streams.finish(status)


def _verb(words: Sequence[str]) -> int:
    options = _parse(words)
    try:
        status: int = options.call(options)
    except UsageError as error:
        streams.say(str(error))
        return USAGE
    except NoSpineError as error:
        streams.say(str(error))
        return NO_SPINE
    except Bay0Error as error:
        streams.say(str(error))
        return REFUSED
    except BrokenPipeError:  # whoever read our output has enough
        return streams.NO_READER
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        return streams.complain(error)
    return status
