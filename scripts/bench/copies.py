#!/usr/bin/env python3
"""Usage: copies.py [--rounds N] [--files N] [--megabytes N] [--folder DIR] [--write].

Measures the copy of a home (bay0/state/copier.py, as the process that PID 1 starts) against `cp -a`, its export against `tar -c`
and its import against `tar -x`, both with --xattrs, each with a `sync` of the filesystem behind it, in turn in one run, natively: a
home of many small files, and one of a single large file. What the interpreter takes to start is in the figure, and so are the
checksums that tar does not make. The folder is to be on the kind of filesystem that /persist is, ext4.

    scripts/bench/copies.py --rounds 5 --write          # rewrites its section of docs/BENCHMARKS.md

It needs the test environment's Python, GNU cp and tar. Figures are medians; the ratio is the median of the rounds' ratios.
"""

import argparse
import datetime as dt
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import section

SMALL = 2000  # bytes of a small file
CODE = (
    "import sys; from bay0.state import copier, staging\n"
    "staging.HOMES, copier.STAGING = sys.argv[1], sys.argv[2]\n"
    "sys.exit(copier.main(sys.argv[3:]))"
)
EXPORT = (
    "import sys, os; from bay0.state import export; from bay0.state.tarstream import Writer\n"
    "home, file = os.open(sys.argv[1], os.O_RDONLY), open(sys.argv[2], 'wb')\n"
    "writer = Writer(file.write); made = export.Export(writer)\n"
    "made.about({'name': 'p://x'}, home); made.home(home); writer.end()\n"
    "file.flush(); os.fsync(file.fileno())"
)
IMPORT = "import sys; from bay0.state import unpack\nunpack.STAGING = sys.argv[1]\nsys.exit(unpack.main(sys.argv[2:]))"


class BenchError(Exception):
    """A copy did not go well."""


def many(home: str, files: int) -> None:
    """Make a home of small files, a hundred in a directory."""
    for number in range(files):
        folder = os.path.join(home, f"d{number // 100}")
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, f"f{number}"), "wb") as file:
            file.write(os.urandom(SMALL))


def large(home: str, megabytes: int) -> None:
    """Make a home of one large file."""
    os.makedirs(home)
    with open(os.path.join(home, "large"), "wb") as file:
        file.writelines(os.urandom(1 << 20) for _ in range(megabytes))


def seconds(argv: list[str]) -> float:
    """Return how long a command takes. `BenchError` if it fails."""
    began = time.monotonic()
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=section.TOP)
    if done.returncode:
        raise BenchError(f"{argv[0]}: {done.stderr.strip()[-300:]}")
    return time.monotonic() - began


def ours(folder: str, name: str) -> float:
    """Copy a home as PID 1 has it copied; what the state worker makes for it before is made here."""
    staging = os.path.join(folder, "staging")
    for part in ("home", "links"):
        os.makedirs(os.path.join(staging, "copy", part))
    job = {"source": name, "name": "copy", "progress": os.path.join(folder, "progress")}
    took = seconds([sys.executable, "-c", CODE, os.path.join(folder, "homes"), staging, json.dumps(job)])
    shutil.rmtree(staging)
    return took


def cp(folder: str, name: str) -> float:
    """Copy it with cp, and bring it to the disk."""
    target = os.path.join(folder, "copy")
    took = seconds(["sh", "-c", 'cp -a "$1" "$2" && sync -f "$2"', "sh", os.path.join(folder, "homes", name), target])
    shutil.rmtree(target)
    return took


def export(folder: str, name: str) -> float:
    """Write it into an archive, as `bay0 persona export` does."""
    return seconds([sys.executable, "-c", EXPORT, os.path.join(folder, "homes", name), os.path.join(folder, f"{name}.ours")])


def tar(folder: str, name: str) -> float:
    """Write it with tar, and bring that to the disk."""
    words = 'tar --xattrs --format=posix -S -cf "$3" -C "$1" "$2" && sync "$3"'
    return seconds(["sh", "-c", words, "sh", os.path.join(folder, "homes"), name, os.path.join(folder, f"{name}.tar")])


def bring(folder: str, name: str) -> float:
    """Make a home of the archive, as PID 1 has it made."""
    staging = os.path.join(folder, "staging")
    os.makedirs(os.path.join(staging, "copy", "home"))
    job = {"archive": os.path.join(folder, f"{name}.ours"), "name": "copy", "progress": os.path.join(folder, "progress")}
    took = seconds([sys.executable, "-c", IMPORT, staging, json.dumps(job)])
    shutil.rmtree(staging)
    return took


def untar(folder: str, name: str) -> float:
    """Read what tar wrote, and bring that to the disk."""
    target = os.path.join(folder, "copy")
    os.mkdir(target)
    took = seconds(["sh", "-c", 'tar --xattrs -xpf "$1" -C "$2" && sync -f "$2"', "sh", os.path.join(folder, f"{name}.tar"), target])
    shutil.rmtree(target)
    return took


JOBS = (("copied", "`cp -a`", cp, ours), ("exported", "`tar -c`", tar, export), ("imported", "`tar -x`", untar, bring))


def main() -> int:
    """Measure, print, and with --write keep."""
    parser = argparse.ArgumentParser(usage=str(__doc__))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--folder", default=tempfile.gettempdir())
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        many(os.path.join(folder, "homes", "many"), options.files)
        large(os.path.join(folder, "homes", "large"), options.megabytes)
        os.sync()
        for name, what in (("many", f"{options.files:,} files of 2 KB"), ("large", f"one file of {options.megabytes} MiB")):
            for job, beside, theirs_, ours_ in JOBS:
                rounds = [(theirs_(folder, name), ours_(folder, name)) for _ in range(options.rounds)]
                theirs, own = (statistics.median(each) for each in zip(*rounds, strict=True))
                ratio = statistics.median(b / a for a, b in rounds)
                rows.append(f"| {what} {job} | {beside} | {theirs:.2f} | {own:.2f} | {ratio:.2f} |")
    load = os.getloadavg()[0]
    text = "\n".join([
        f"{dt.datetime.now(dt.UTC):%Y-%m-%d}, {options.rounds} rounds; {os.cpu_count()} processors, natively; the host's load {load:.1f}.",
        "",
        "| a home of | beside | s | bay0, s | ratio |",
        "|---|---|---|---|---|",
        *rows,
    ])  # fmt: skip
    print(text)
    if options.write:
        section.write("copies", text)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (BenchError, section.SectionError) as error:
        sys.exit(str(error))
