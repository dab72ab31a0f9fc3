"""The verbs about the spine itself: what is sent, and what is made of the answer.

Each takes its options and returns the exit status.
"""

from __future__ import annotations

import sys

from bay0.base.errors import UsageError
from bay0.cli import client, report
from bay0.cli.kit import DONE, emit, svg

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bay0.cli.grammar import Options

OVERDUE = 124  # as timeout(1) has it
GRACES_S = 600.0  # beyond a command's own deadline; bay0 answers much sooner unless its patience is great
GROW_TIMEOUT_S = 3600.0


def status(options: Options) -> int:
    """Show the health of the spine."""
    found = client.call("status")
    emit(options, found, report.status(found))
    return DONE


def boot(options: Options) -> int:
    """Show, and draw, the steps of boots."""
    from bay0.cli import picture

    boots = client.call("boots", previous=options.previous)
    if options.svg:
        with open(options.svg, "w", encoding="utf-8") as file:
            file.write(picture.svg(boots["this"]))
    emit(options, boots, report.boots(boots) + (f"\ndrawn to {options.svg}" if options.svg else ""))
    return DONE


def log(options: Options) -> int:
    """Print the log, or the lines of it that are wanted."""
    from bay0.cli import logview, when
    from bay0.cli.persona_own import is_of

    if options.lines < 0:
        raise UsageError("-n takes 0 or more lines")
    kept = when.of_spine(options, is_of, lambda line: logview.form(line, as_json=False))
    start = when.started()
    stamp = (lambda t_ms: when.stamped(start + t_ms / 1000)) if options.wall else None
    return logview.show(options.lines, follow=options.follow, as_json=options.json, kept=kept, stamp=stamp)


def machines(options: Options) -> int:
    """List the machines."""
    found = client.call("machines")
    emit(options, found, report.machines(found))
    return DONE


def history(options: Options) -> int:
    """Print the journal of a machine."""
    from bay0.cli import picture

    rows = client.history(options.machine, options.lines)
    emit(
        options,
        rows,
        "\n".join(picture.table(rows)) if rows else f"the journal has nothing of {options.machine}",
    )
    return DONE


def run(options: Options) -> int:
    """Run a command in the spine; return its status."""
    if not options.command:
        raise UsageError("say which command: bay0 run [--deadline S] -- COMMAND [ARGUMENTS]")
    result = client.call(
        "run", timeout_s=options.deadline + GRACES_S, argv=options.command, deadline_s=options.deadline
    )
    if options.json:
        emit(options, result, "")
    else:
        sys.stdout.write(result["stdout"])
        sys.stderr.write(result["stderr"])
        if result["dropped"]:
            print(
                f"bay0: {result['dropped']} bytes of output were not kept; redirect it to a file to have it all",
                file=sys.stderr,
            )
        if result["ending"] != "exited":
            print(f"bay0: {result['ending']} after {result['took_s']:.1f} s", file=sys.stderr)
    left = int(result["status"])
    if result["ending"] in ("timed_out", "abandoned"):
        return OVERDUE
    return left if left >= 0 else 128 - left


def power(options: Options) -> int:
    """Turn the machine off, or boot it again (`options.how`)."""
    client.call("power", how=options.how, **({"force": True} if options.force else {}))
    said = "services are stopped, the disk is closed, then the power goes"
    if options.force:
        said = "everything is killed, what answers within 2 s is synced, then the power goes"
    emit(options, {"accepted": options.how, "force": options.force}, f"{options.how}: {said}")
    return DONE


def storage(options: Options) -> int:
    """Show the disk's health, or do something about it (`options.action`)."""
    if options.action == "retry":
        answer = client.call("storage.retry")
        emit(options, answer, "accepted: storage is tried again; `bay0 storage` shows how it went")
        return DONE
    if options.action == "grow":
        from bay0.cli.text import size

        grown = client.call("storage.grow", timeout_s=GROW_TIMEOUT_S)
        sizes = f"from {size(grown['from_bytes'])} to {size(grown['to_bytes'])}"
        emit(options, grown, f"the filesystem on {grown['device']} has grown {sizes}")
        return DONE
    found = client.call("status")
    emit(options, {**found["storage"], "dirty": found["dirty"]}, report.storage(found))
    return DONE


def graph(options: Options) -> int:
    """Draw a machine's table."""
    from bay0.machines import MACHINES, graph

    if options.machine not in MACHINES:
        from bay0.cli import near

        meant = near.words(options.machine, sorted(MACHINES))
        hint = f"; did you mean {meant[0]}?" if meant else ""
        raise UsageError(f"no machine {options.machine!r}; there are {', '.join(sorted(MACHINES))}{hint}")
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
    return DONE


def debug(_options: Options) -> int:
    """Have PID 1 fail."""
    client.call("debug.crash")
    print("accepted: PID 1 fails now; the console shows its last words")
    return DONE
