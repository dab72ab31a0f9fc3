#!/usr/bin/env python3
"""How long packing, flashing and a boot by firmware take, and how large all is. Needs a built spine and the host tools of scripts/test.sh.

Figures, not tests. Prints one Markdown table, for docs/OPERATIONS.md.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[1]
FOUND, STARTED, LOADED = "firmware finds the disk", "loader started", "UKI loaded, started"
LATER = {"stage 0": "stage0:", "bay0": "bay0: starting", "init complete": "bay0: init complete"}
MARKS = {FOUND: "BdsDxe: loading Boot0001", STARTED: "BdsDxe: starting Boot0001", LOADED: "Starting C:SLOTA:spine.efi", **LATER}
PLAIN = {FOUND: "BdsDxe: loading Boot0001", LOADED: "BdsDxe: starting Boot0001", **LATER}  # of a disk without slots
BOUND_S = 300


def patience() -> str:
    """Return the patience that fits this machine now, as boot-qemu.sh measures it."""
    argv = ["bash", str(SCRIPTS / "boot-qemu.sh"), "--measure"]
    done = subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip()


def timed(*argv: str | Path) -> float:
    """Run a script that must succeed; return its seconds."""
    begin = time.monotonic()
    subprocess.run(["bash", *map(str, argv)], check=True, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    return time.monotonic() - begin


def boot(disk: str, *options: str, marks: dict[str, str] = MARKS) -> dict[str, float]:
    """Boot a disk and end it at `init complete`; return the seconds to each mark since QEMU's start."""
    argv = ["bash", str(SCRIPTS / "boot-qemu.sh"), "--efi", disk, "--timeout", str(BOUND_S), *options]
    seen: dict[str, float] = {}
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        if process.stdout is None:
            raise AssertionError("asked for a pipe")
        begin = time.monotonic()
        for line in process.stdout:
            for mark, text in marks.items():
                if text.encode() in line:
                    seen.setdefault(mark, time.monotonic() - begin)
            if len(seen) == len(marks):
                break
        os.killpg(process.pid, signal.SIGTERM)  # a session of our own: boot-qemu.sh, timeout and QEMU, nobody else
    if len(seen) < len(marks):
        raise SystemExit(f"efi.py: the boot showed only {', '.join(seen) or 'nothing'}.")
    return seen


def compared(slots: str, plain: str, repeat: int) -> list[tuple[str, str]]:
    """Boot by turns a disk with the loader and one without; return the medians of both, and what the loader adds."""
    with_loader, without = [], []
    for _ in range(repeat):
        with_loader.append(boot(slots))
        without.append(boot(plain, marks=PLAIN))
    rows, median = [], {}
    for name, seen, marks in (("with the loader", with_loader, MARKS), ("without", without, PLAIN)):
        median[name] = {mark: statistics.median(each[mark] for each in seen) for mark in marks}
        rows.append((f"{name}, median of {repeat}", ", ".join(f"{mark} {at:.1f}" for mark, at in median[name].items()) + " s"))
    # from the firmware's find on: what comes before is the same program, and differs by the host's load alone
    added = [(each[LOADED] - each[FOUND]) - (other[LOADED] - other[FOUND]) for each, other in zip(with_loader, without, strict=True)]
    rows.append(("the loader adds, until the UKI is started", f"{statistics.median(added):+.1f} s ({min(added):+.1f} to {max(added):+.1f})"))
    return rows


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="4G", help="of the disk image")
    parser.add_argument("--repeat", type=int, default=3, help="boots with the loader and without it, by turns (default 3)")
    parser.add_argument("--bus", action="append", help="boot from these only: virtio, USB, SATA, NVMe; may be repeated (default: all)")
    parser.add_argument("--secure-boot", action="store_true", help="boot with Secure Boot enforced and Debian's test keys as well")
    options = parser.parse_args()
    rows: list[tuple[str, str]] = []
    with tempfile.TemporaryDirectory(prefix="efi") as work:
        uki, disk = f"{work}/spine.efi", f"{work}/disk.img"
        measured = patience()
        rows.append(("patience", measured))
        words = ("--append", f"bay0.patience={measured}", "--output", uki)
        pack: list[str | Path] = [SCRIPTS / "package-efi.sh", *words]
        rows.append(("package-efi.sh", f"{timed(*pack):.1f} s, {os.path.getsize(uki) / 1e6:.0f} MB"))
        signing: tuple[str, ...] = ()
        if options.secure_boot:
            key, known = f"{work}/key", "/usr/share/ovmf/PkKek-1-snakeoil"
            subprocess.run(["openssl", "rsa", "-in", f"{known}.key", "-passin", "pass:snakeoil", "-out", key], check=True, stderr=subprocess.PIPE)
            signing = ("--key", key, "--cert", f"{known}.pem")
            rows.append(("package-efi.sh --key", f"{timed(*pack, *signing):.1f} s"))
        spent = timed(SCRIPTS / "genesis-flash.sh", "--size", options.size, *signing, "--uki", uki, disk)
        rows.append((f"genesis-flash.sh --size {options.size}", f"{spent:.1f} s, {os.stat(disk).st_blocks * 512 / 1e6:.0f} MB on the host's disk"))
        kinds = {"virtio": (), "USB": ("--bus", "usb"), "SATA": ("--bus", "sata"), "NVMe": ("--bus", "nvme")}
        kinds = {name: words for name, words in kinds.items() if name in (options.bus or kinds)}
        for name, more in ({**kinds, "virtio, Secure Boot": ("--secure-boot", "snakeoil")} if options.secure_boot else kinds).items():
            seen = boot(disk, *more)
            rows.append((f"boot from {name}", ", ".join(f"{mark} {at:.1f}" for mark, at in seen.items()) + " s"))
        if options.repeat:
            plain = f"{work}/plain.img"
            timed(SCRIPTS / "genesis-flash.sh", "--size", options.size, "--one-slot", "--uki", uki, plain)
            rows += compared(disk, plain, options.repeat)
    print("| | |\n|---|---|")
    for what, figure in rows:
        print(f"| {what} | {figure} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
