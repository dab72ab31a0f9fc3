#!/usr/bin/env python3
"""Usage: cli.py [--rounds N] [--icount] [--write].

Measures how long a verb takes, in one boot of the built spine: against the frozen program that does nothing,
and against `podman version`. Each round runs every command once, so that what else the host does falls on all
of them. As root it also measures build/rootfs natively.

    scripts/bench/cli.py --rounds 15 --write            # rewrites its section of docs/BENCHMARKS.md

`--icount`: the guest's clock counts its instructions (a processor of 250 million a second), so that no load
of the host shows; it is slow. Needs Python 3.11 and the host tools of scripts/quickstart.sh.
"""

import argparse
import datetime as dt
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import section

BARE, PODMAN = "bay0 --start-only", "podman version"
VERBS = ("bay0 version", "bay0 status", "bay0 persona list", "bay0 focus")
OTHERS = ("/usr/bin/true", "/usr/lib/bay0/bay0 --start-only", BARE, PODMAN)
TIMES = 1.5  # what a verb may take of the bare start
BOUND_S = 1500
FROZEN = "/usr/lib/bay0/bay0"
ROOT = os.path.join(section.TOP, "build", "rootfs")

GUEST = """exec bash -s <<'EOF'
time_of() { before=$EPOCHREALTIME; "$@" >/dev/null 2>&1 </dev/null; status=$?; after=$EPOCHREALTIME
    echo "MS $(( ${after/./} - ${before/./} )) $status $*"; }
until bay0 status | grep -q "boot *complete"; do sleep 1; done; sleep 10
for round in $(seq 0 ROUNDS); do
COMMANDS
done
EOF
"""


class BenchError(Exception):
    """A boot gave no figures; the message has its last lines."""


def guest(rounds: int, *, icount: bool) -> dict[str, list[float]]:
    """Return command -> milliseconds of each round.

    The first round, which fills the page cache, is left out.
    """
    script = GUEST.replace("ROUNDS", str(rounds)).replace(
        "COMMANDS", "\n".join(f"time_of {each}" for each in (*OTHERS, *VERBS))
    )
    scripts = os.path.join(section.TOP, "scripts")
    with tempfile.TemporaryDirectory(prefix="bench-cli-") as folder:
        disk = os.path.join(folder, "persist.img")
        subprocess.run([f"{scripts}/mkpersist.sh", "--size", "1G", disk], capture_output=True, check=True, timeout=60)
        argv = [f"{scripts}/boot-qemu.sh", "--persist", disk, "--timeout", str(BOUND_S), "--exec", "-"]
        argv += ["--", "-icount", "shift=2"] if icount else []
        done = subprocess.run(argv, input=script, capture_output=True, text=True, check=False, timeout=BOUND_S + 60)
    found: dict[str, list[float]] = {}
    for line in done.stdout.splitlines():
        if line.startswith("MS "):
            _, micro, status, command = line.rstrip().split(" ", 3)
            if status != "0":
                raise BenchError(f"{command}: status {status}")
            found.setdefault(command, []).append(int(micro) / 1000)
    if {len(times) for times in found.values()} != {rounds + 1}:
        raise BenchError("\n".join([*done.stdout.splitlines()[-5:], *done.stderr.splitlines()[-5:]]))
    return {command: times[1:] for command, times in found.items()}


def native(rounds: int) -> dict[str, list[float]]:
    """Return command -> milliseconds of processor, of the same program natively, in its own root (needs root)."""
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        for words in ("--start-only", "version", "graph boot"):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(
                ["chroot", ROOT, FROZEN, *words.split()], stdout=subprocess.DEVNULL, check=True, timeout=60
            )
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            took = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            found.setdefault(f"bay0 {words}", []).append(took * 1000)
    return found


def text(found: dict[str, list[float]], here: dict[str, list[float]], how: str) -> str:
    """Return the section."""
    bare, podman = (statistics.median(found[command]) for command in (BARE, PODMAN))
    rounds = len(found[BARE])
    lines = [
        (f"{dt.datetime.now(tz=dt.UTC).date()}, {rounds} rounds in one boot, {how}; "
        f"the host's load {os.getloadavg()[0]:.1f}. Milliseconds."),
        "",
        "| command | least | median | of the bare start | of `podman version` |",
        "|---|---|---|---|---|",
    ]
    for command in (*OTHERS, *VERBS):
        middle = statistics.median(found[command])
        lines.append(
            f"| `{command}` | {min(found[command]):.0f} | {middle:.0f} | {middle / bare:.2f} | {middle / podman:.2f} |"
        )
    lines.append("")
    slow = [command for command in VERBS if statistics.median(found[command]) > TIMES * bare]
    late = [command for command in VERBS if statistics.median(found[command]) >= podman]
    for aim, missed in (
        (f"at most {TIMES} times the bare start", slow),
        ("faster than `podman version`", late),
    ):
        lines.append(
            f"- {'not reached' if missed else 'reached'}: each verb {aim}"
            + (f" but {', '.join(missed)}" if missed else "")
        )
    if here:
        shown = ", ".join(
            f"`{command}` {min(times):.1f} / {statistics.median(times):.1f}"
            for command, times in here.items()
        )
        lines.append(
            f"- natively, ms of processor, least / median of {len(next(iter(here.values())))}: {shown}"
        )
    return "\n".join(lines)


def main() -> int:
    """Measure, and print or write the section."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--rounds", type=int, default=15, help="how often each command is run (default 15)")
    options.add_argument("--icount", action="store_true", help="let the guest's clock count instructions")
    options.add_argument(
        "--write", action="store_true", help="rewrite the section `cli` of docs/BENCHMARKS.md"
    )
    chosen = options.parse_args()
    began = time.monotonic()
    try:
        found = guest(chosen.rounds, icount=chosen.icount)
    except BenchError as error:
        print(f"cli.py: {error}", file=sys.stderr)
        return 1
    here = native(chosen.rounds) if os.geteuid() == 0 and os.path.exists(ROOT + FROZEN) else {}
    said = text(found, here, "`-icount shift=2`" if chosen.icount else "by the guest's clock")
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)
    if chosen.write:
        section.write("cli", said)
    else:
        print(said)
    return 0


if __name__ == "__main__":
    sys.exit(main())
