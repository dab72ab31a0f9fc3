#!/usr/bin/env python3
"""The slots of a disk that boots by itself, for genesis-flash.sh and boot-qemu.sh.

    slots.py fat [--revision N] [--state ok|failed] [--watchdog S] --uki F --bytes N --at N SLOT FILE
                          make FILE the whole of SLOT: a FAT32 of N bytes that is to lie AT so many bytes from
                          the disk's start, with the UKI, the label and the environment (slotfat.py: as an
                          upgrade makes it)
    slots.py booted DISK  print "OFFSET PATH": the FAT (bytes from the disk's start) and the file in it that
                          is started next: by the loader, or by the firmware where there is none

Of a disk with two slots that is the file that the valid environment with the highest revision names; of a disk
with one, the ESP's own.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import target

from bay0.base.errors import BootEnvError, SlotError
from bay0.state import bootenv, slotfat

ESP_NAME, ONE_SLOT = "SPINE-ESP", "/EFI/BOOT/BOOTX64.EFI"
STATES = {"ok": bootenv.UState.OK, "failed": bootenv.UState.FAILED}


def write(options: argparse.Namespace) -> None:
    """Make a slot. The same UKI in the same place gives the same bytes. `SlotError` if it does not fit, `OSError`."""
    state, slot, plan = STATES[options.state], options.slot, slotfat.layout(options.bytes)
    env = bootenv.BootEnv(
        bootenv.kernel_of(slot), ustate=state, watchdog_s=options.watchdog, revision=options.revision
    )
    with open(options.uki, "rb") as uki, open(options.file, "wb") as out:
        sums = hashlib.file_digest(uki, "sha256").digest()
        size = uki.seek(0, os.SEEK_END)
        uki.seek(0)
        serial = int.from_bytes(sums[:4], "big") ^ bootenv.SLOTS.index(slot)
        out.write(slotfat.front(slot, plan, env, size, hidden=options.at // slotfat.SECTOR, serial=serial))
        shutil.copyfileobj(uki, out)
        out.truncate(options.bytes)


def read(disk: str, offset: int, path: str) -> bytes:
    """Return a file of a FAT in `disk`; nothing if it is not there."""
    environment = os.environ | {"MTOOLS_SKIP_CHECK": "1", "MTOOLSRC": "/dev/null"}
    argv = ["mcopy", "-i", f"{disk}@@{offset}", f"::{path}", "-"]
    return subprocess.run(argv, capture_output=True, check=False, env=environment).stdout


def environment(data: bytes) -> bootenv.BootEnv | None:
    """Return a valid environment."""
    try:
        return bootenv.parse(data)
    except BootEnvError:
        return None


def booted(disk: str) -> tuple[int, str] | None:
    """Return where the file is that is started next, None if there is none."""
    starts = {part["name"]: part["start"] for part in target.partitions(disk)}
    slots = [name for name in bootenv.SLOTS if name in starts]
    if not slots:
        return (starts[ESP_NAME], ONE_SLOT) if ESP_NAME in starts else None
    envs = [environment(read(disk, starts[name], bootenv.FILE)) for name in slots]
    found = bootenv.newest(envs)
    named = None if found is None else envs[found]
    if named is None:
        return None
    kind, slot, path = (*named.kernel.split(":", 2), "", "")[:3]
    return (starts[slot], f"/{path}") if kind == "C" and slot in starts else None


def main() -> int:
    """Do as the command line says; 1 if there is nothing to be said."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    fat = commands.add_parser("fat")
    fat.add_argument("--revision", type=int, default=0)
    fat.add_argument("--state", choices=STATES, default="failed")
    fat.add_argument("--watchdog", type=int, default=0)
    fat.add_argument("--uki", required=True)
    fat.add_argument("--bytes", type=int, required=True)
    fat.add_argument("--at", type=int, required=True)
    fat.add_argument("slot", choices=bootenv.SLOTS)
    fat.add_argument("file")
    commands.add_parser("booted").add_argument("disk")
    options = parser.parse_args()
    if options.command == "fat":
        try:
            write(options)
        except SlotError as error:
            print(f"slots: {error}.", file=sys.stderr)
            return 1
        return 0
    found = booted(options.disk)
    if found is None:
        return 1
    print(*found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
