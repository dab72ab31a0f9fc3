#!/usr/bin/env python3
"""Usage: wayback.py FILE [--write].

Makes the table of ways back from a bad upgrade out of FILE, which tests/vm/test_vm_upgrade.py has written:

    SPINE_RECORD=FILE pytest -q -m vm tests/vm/test_vm_upgrade.py
    scripts/bench/wayback.py FILE --write        # rewrites its section of docs/BENCHMARKS.md

A way back that was gone twice is there as its slowest. Needs Python 3.11, nothing else.
"""

import argparse
import datetime as dt
import json
import sys

import section

ORDERED = "an ordered restart, from good to up again"  # what the others are compared with


def text(path: str) -> str:
    """Return the section."""
    found: dict[str, float] = {}
    with open(path, encoding="ascii") as file:
        for row in map(json.loads, file):
            found[row["what"]] = max(row["seconds"], found.get(row["what"], 0))
    unit = found.get(ORDERED)
    lines = [
        f"{dt.datetime.now(tz=dt.UTC).date()}.",
        "",
        "| the newer spine | seconds until the old one is up again | restarts |",
        "|---|---|---|",
    ]
    for what, seconds in sorted(found.items(), key=lambda each: each[1]):
        lines.append(f"| {what} | {seconds:.0f} | {f'{seconds / unit:.1f}' if unit else ''} |")
    return "\n".join(lines)


def main() -> int:
    """Print, or write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file")
    parser.add_argument("--write", action="store_true", help="rewrite the section of docs/BENCHMARKS.md")
    options = parser.parse_args()
    said = text(options.file)
    print(said)
    if options.write:
        section.write("wayback", said)
    return 0


if __name__ == "__main__":
    sys.exit(main())
