#!/usr/bin/env python3
"""How long `bay0 upgrade stage` takes beside `dd` of the same bytes, and what the loader adds to a boot.

Needs a built spine and the host tools. Each two by turns, `dd` and `stage` in one boot: seconds are those
of this machine at that load, the ratio is the figure. --write rewrites its section of docs/BENCHMARKS.md.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import efi
import section

SCRIPTS = Path(__file__).resolve().parents[1]
BOUND_S = 900
# in the guest; whoever reads the file on /persist first would pay for it, so it is read before each round
ROUNDS = """
set -e
until bay0 status --json | grep -q '"state": *"durable"'; do sleep 1; done
head -c {size} /dev/vdb >/persist/new.efi; sync
bytes() {{ head -c {size} "$1" | sha256sum; }}
now() {{ read -r up _ </proc/uptime; echo "$up"; }}
for round in $(seq {rounds}); do
    cat /persist/new.efi >/dev/null
    a=$(now); dd if=/persist/new.efi of=/dev/vda3 bs=1M conv=fsync 2>/dev/null
    b=$(now); dd if=/dev/vda3 iflag=direct bs=1M 2>/dev/null | head -c {size} | sha256sum >/dev/null
    c=$(now); bay0 upgrade stage /persist/new.efi >/dev/null
    d=$(now); bay0 upgrade cancel >/dev/null
    echo "round $a $b $c $d"
done
"""


def another(uki: str, path: str) -> int:
    """Write the same spine with another build id, as if it were a newer one; return its size."""
    data = Path(uki).read_bytes()
    (found,) = set(re.findall(rb"BUILD_ID=([0-9a-f]{32})\n", data))
    Path(path).write_bytes(data.replace(found, found[::-1]))
    return len(data)


def rounds(disk: str, second: str, size: int, count: int) -> list[tuple[float, float, float]]:
    """Return the seconds of each round: dd's write, its reading back, `stage`."""
    drive = ("-drive", f"file={second},format=raw,if=virtio,readonly=on")
    argv = [
        "bash",
        str(SCRIPTS / "boot-qemu.sh"),
        "--efi",
        disk,
        "--timeout",
        str(BOUND_S),
        "--exec",
        ROUNDS.format(size=size, rounds=count),
    ]
    done = subprocess.run(
        [*argv, "--", *drive], check=False, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    found = [
        tuple(map(float, line.split()[1:])) for line in done.stdout.splitlines() if line.startswith("round ")
    ]
    if done.returncode != 0 or len(found) != count:
        raise SystemExit(
            f"upgrade.py: status {done.returncode}, {len(found)} of {count} rounds: {done.stdout[-500:]}"
        )
    return [(b - a, c - b, d - c) for a, b, c, d in found]


def text(size: int, found: list[tuple[float, float, float]], loader: list[tuple[str, str]]) -> str:
    """Return the section."""
    today = dt.datetime.now(tz=dt.UTC).date()
    ratios = [stage / (write + read) for write, read, stage in found]
    lines = [
        f"{today}, {size / 1e6:.0f} MB, {len(found)} rounds in one boot, host's load {os.getloadavg()[0]:.0f}.", "",
        "| | `dd conv=fsync` | read back, `sha256sum` | `bay0 upgrade stage` | ratio |", "|---|---|---|---|---|",
        *(f"| round {n} | {write:.1f} s | {read:.1f} s | {stage:.1f} s | {ratio:.2f} |"
          for n, ((write, read, stage), ratio) in enumerate(zip(found, ratios, strict=True), 1)),
        f"| **median** | | | | **{statistics.median(ratios):.2f}** |", "", "| | |", "|---|---|",
        *(f"| {what} | {figure} |" for what, figure in loader),
    ]  # fmt: skip
    return "\n".join(lines)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--repeat", type=int, default=3, help="boots with the loader and without it, by turns (default 3)"
    )
    parser.add_argument("--write", action="store_true", help="rewrite the section of docs/BENCHMARKS.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="upgrade") as work:
        uki, second, disk, plain = (
            f"{work}/{name}" for name in ("spine.efi", "second", "disk.img", "plain.img")
        )
        words = f"bay0.patience={max(5, int(efi.patience()))} bay0.exec"
        efi.timed(SCRIPTS / "package-efi.sh", "--append", words, "--output", uki)
        efi.timed(SCRIPTS / "genesis-flash.sh", "--size", "1400M", "--slot", "256M", "--uki", uki, disk)
        found = rounds(disk, second, another(uki, second), options.rounds)
        os.unlink(second)
        efi.timed(
            SCRIPTS / "genesis-flash.sh",
            "--size",
            "1400M",
            "--esp",
            "256M",
            "--one-slot",
            "--uki",
            uki,
            plain,
        )
        loader = efi.compared(disk, plain, options.repeat) if options.repeat else []
        said = text(os.path.getsize(uki), found, loader)
    print(said)
    if options.write:
        section.write("upgrade", said)
    return 0


if __name__ == "__main__":
    sys.exit(main())
