#!/usr/bin/env python3
"""How long packing, flashing and a boot by firmware take, and how large all is. Needs a built spine and the host tools of scripts/test.sh.

Figures, not tests. Prints one Markdown table, for docs/OPERATIONS.md.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[1]
MARKS = {"firmware finds the disk": "BdsDxe: loading Boot0001", "UKI loaded, started": "BdsDxe: starting Boot0001", "stage 0": "stage0:",
         "bay0": "bay0: starting", "init complete": "bay0: init complete"}  # fmt: skip
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


def boot(disk: str, *options: str) -> dict[str, float]:
    """Boot a disk and end it at `init complete`; return the seconds to each mark since QEMU's start."""
    argv = ["bash", str(SCRIPTS / "boot-qemu.sh"), "--efi", disk, "--timeout", str(BOUND_S), *options]
    seen: dict[str, float] = {}
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        if process.stdout is None:
            raise AssertionError("asked for a pipe")
        begin = time.monotonic()
        for line in process.stdout:
            for mark, text in MARKS.items():
                if text.encode() in line:
                    seen.setdefault(mark, time.monotonic() - begin)
            if len(seen) == len(MARKS):
                break
        os.killpg(process.pid, signal.SIGTERM)  # a session of our own: boot-qemu.sh, timeout and QEMU, nobody else
    if len(seen) < len(MARKS):
        raise SystemExit(f"efi.py: the boot showed only {', '.join(seen) or 'nothing'}.")
    return seen


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="4G", help="of the disk image")
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
        if options.secure_boot:
            key, known = f"{work}/key", "/usr/share/ovmf/PkKek-1-snakeoil"
            subprocess.run(["openssl", "rsa", "-in", f"{known}.key", "-passin", "pass:snakeoil", "-out", key], check=True, stderr=subprocess.PIPE)
            rows.append(("package-efi.sh --key", f"{timed(*pack, '--key', key, '--cert', f'{known}.pem'):.1f} s"))
        spent = timed(SCRIPTS / "genesis-flash.sh", "--size", options.size, "--uki", uki, disk)
        rows.append((f"genesis-flash.sh --size {options.size}", f"{spent:.1f} s, {os.stat(disk).st_blocks * 512 / 1e6:.0f} MB on the host's disk"))
        kinds = {"virtio": (), "USB": ("--bus", "usb"), "SATA": ("--bus", "sata"), "NVMe": ("--bus", "nvme")}
        for name, words in ({**kinds, "virtio, Secure Boot": ("--secure-boot", "snakeoil")} if options.secure_boot else kinds).items():
            seen = boot(disk, *words)
            rows.append((f"boot from {name}", ", ".join(f"{mark} {at:.1f}" for mark, at in seen.items()) + " s"))
    print("| | |\n|---|---|")
    for what, figure in rows:
        print(f"| {what} | {figure} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
