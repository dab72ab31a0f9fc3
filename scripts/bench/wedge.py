#!/usr/bin/env python3
"""Usage: wedge.py FILE [--write].

Makes the table of wedge cases out of FILE, which the matrix of tests/vm/test_vm_matrix.py has written:

    SPINE_QEMU="-icount shift=2" SPINE_RECORD=FILE pytest -q -s tests/vm/test_vm_matrix.py
    scripts/bench/wedge.py FILE --write                            # rewrites its section of docs/BENCHMARKS.md

With `-m "not full"` it is the sample; every case takes about an hour without KVM. `-icount` makes the times those of a processor of 250 million
instructions a second, whatever else the host does; without it they are by the wall's clock.
A case that ran twice is there as it ran last. Needs Python 3.11, nothing else.
"""

import argparse
import datetime as dt
import json
import sys

import section

MOMENTS = ("before the mount", "during the mount", "in reconcile", "in use", "persona starts", "persona stops", "powers off")
WANTED_MS = 50.0
LOADS = ("_load_next",)  # modules that a boot does not pay for


def cases(path: str) -> list[dict]:
    """Read the record: one row a case, in the order of modes as they first came, then of moments."""
    found: dict[tuple[str, str], dict] = {}
    with open(path, encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            found[row["mode"], row["moment"]] = row
    modes = list(dict.fromkeys(mode for mode, _ in found))
    return sorted(found.values(), key=lambda row: (modes.index(row["mode"]), MOMENTS.index(row["moment"])))


def line(row: dict) -> str:
    """Return one case of the table."""
    if row["moment"] == "powers off":
        return f"| {row['mode']} | {row['moment']} |  |  |  |  |  |  |  | gone after {row['gone_s']:.0f} s |"
    return (
        f"| {row['mode']} | {row['moment']} | {row['longest_ms']:.0f} | {row['longest_cpu_ms']:.0f} | {row['sleeps']} | `{row['about']}` | "
        f"{row['mean_ms']:.0f} | {row['rss_kib']:+d} | {row['left']} | {', '.join(row['seen'])} |"
    )


def text(rows: list[dict]) -> str:
    """Return the section."""
    live = [row for row in rows if row["moment"] != "powers off"]
    work = [each[1] for row in live for each in row["slow"] if each[-1] not in LOADS] or [0.0]
    reached = sum(row["longest_ms"] <= WANTED_MS for row in live)
    head = [
        f"{dt.datetime.now(tz=dt.UTC).date()}, {len(rows)} cases of {len({row['mode'] for row in rows})} modes.",
        "",
        "| mode | moment | longest turn, ms | of it at work | sleeps | in | mean turn, ms | RSS, KiB | left behind | storage |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    foot = [
        "",
        f"- longest turn at most {WANTED_MS:.0f} ms by the clock: {reached} of {len(live)} cases",
        f"- most work in one of the turns that took longest, late modules left out: {max(work):.0f} ms",
        f"- left behind, at most: {max((row['left'] for row in live), default=0)}",
        f"- PID 1's RSS grew by at most {max((row['rss_kib'] for row in live), default=0)} KiB in a case",
    ]
    return "\n".join([*head, *map(line, rows), *foot])


def main() -> int:
    """Print or write the section."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("file", help="what SPINE_RECORD named")
    options.add_argument("--write", action="store_true", help="rewrite the section `wedge` of docs/BENCHMARKS.md")
    chosen = options.parse_args()
    found = text(cases(chosen.file))
    if chosen.write:
        section.write("wedge", found)
    else:
        print(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
