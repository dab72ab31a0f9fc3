"""Record a disk as a program leaves it when its plug is pulled, and what it answered before.

    PYTHONPATH=tests/shared python tests/vm/old_disk.py NAME   # by the image in build/

Kept of the disk is what bay0 itself writes (/persist/spine, with the database and its write-ahead log),
homes and a model's file. What podman keeps is left out: it is made anew. Two boots, the first ends in
order, the second does not.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sys
import tarfile
import tempfile
from typing import Any

import harness
import olddisk
from harness import Vm

KEPT = ("spine", "homes", "models")
LEFT_OUT = ("spine/trash/",)
EPOCH = 1_767_225_600  # of all files in the archive
SETTLE_S = 180
BAD, WORSE, GONE = (f"sha256:{digit * 64}" for digit in "bcd")
MODEL = "/persist/models/own.gguf"
MANIFESTS = {
    "daily": """image = "localhost/alpine:3.23"
command = ["/bin/sh", "-c", "trap 'exit 0' TERM; sleep infinity & wait"]
home = "/home/daily"
memory = "64M"
autostart = true
restart = "on-failure"
retries = 5
description = "starts with the spine"
[environment]
GREETING = "grüß \\"Gott\\""
EMPTY = ""
""",
    "notes": """image = "localhost/alpine:3.23"
command = ["/bin/sleep", "infinity"]
home = "/srv/notes"
memory = 33554432
cpus = 0.25
pids = 32
stop_s = 0.5
user = "1234:1234"
capabilities = ["CHOWN"]
userns = true
ai = true
""",
    "left": """image = "localhost/alpine:3.23"
command = ["/bin/sleep", "infinity"]
stop_s = 0
""",
    "gone": """image = "localhost/alpine:3.23"
home = "/home/gone"
""",
    "bare": """image = "localhost/nowhere:1"
""",
}


def first_boot(machine: Vm) -> None:
    """Create the personas and their homes, and end in order."""
    for name, manifest in MANIFESTS.items():
        machine.create(name, manifest)
    for name in ("daily", "notes"):
        machine.act("start", name, SETTLE_S)
        machine.act("stop", name, SETTLE_S)
    machine.out(
        "echo precious >/persist/homes/p__daily/letter; echo 'buy milk' >/persist/homes/p__notes/list"
    )
    machine.out(
        f"mkdir -p /persist/models; printf 'GGUF\\3\\0\\0\\0' >{MODEL}; "
        f"truncate -s 65536 {MODEL}; chmod 644 {MODEL}"
    )
    machine.call("tenant.configure", name="sys://ai", model=MODEL, autostart=False)
    machine.call("nack.add", digest=BAD, why="it did not boot")
    assert machine.quit(bound_s=SETTLE_S).status == 0


def second_boot(machine: Vm) -> None:
    """Change something of everything, with `daily` and `left` running and the focus on one of them."""
    harness.until(
        lambda: machine.show("daily")["state"] == "running", SETTLE_S, "what is to start with the spine runs"
    )
    machine.act("start", "left", SETTLE_S)
    machine.act("remove", "gone", SETTLE_S, home=True)
    machine.call("nack.add", digest=WORSE, why='says "no"')
    machine.call("nack.add", digest=GONE, why="")
    machine.call("nack.remove", digest=GONE)
    machine.out("bay0 focus daily", SETTLE_S)
    harness.until(
        lambda: machine.show("left")["state"] == "paused", SETTLE_S, "the one that is not in front is paused"
    )


def answers(machine: Vm) -> dict[str, Any]:
    """Ask everything."""
    return {name: machine.call(method, **params) for name, (method, params) in olddisk.QUESTIONS.items()}


def keep(disk: str, to: str) -> None:
    """Pack what is kept of a disk that no VM uses, with owners and modes, into the archive `to`."""
    harness.tool("e2fsck", "-fy", disk, check=False)  # it replays the filesystem's journal, as a mount would
    with tempfile.TemporaryDirectory() as work, tarfile.open(to, "w:gz") as archive:
        for top in KEPT:
            harness.tool("debugfs", "-R", f"rdump /{top} {work}", disk)

        def plain(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
            member.mtime, member.uname, member.gname = EPOCH, "", ""
            return (
                None
                if f"{member.name}/".startswith(LEFT_OUT) and f"{member.name}/" not in LEFT_OUT
                else member
            )

        for top in KEPT:
            archive.add(f"{work}/{top}", top, filter=plain)


def lay(archive: str, disk: str) -> None:
    """Put what was kept onto a new disk, each with its owner and mode."""
    commands = io.StringIO()
    with tempfile.TemporaryDirectory() as work:
        for number, (each, data) in enumerate(olddisk.members(archive)):
            if each.isdir():
                commands.write(f"mkdir /{each.name}\n")
            else:
                with open(f"{work}/{number}", "wb") as file:
                    file.write(data)
                commands.write(f"write {work}/{number} /{each.name}\n")
            kind = 0o040000 if each.isdir() else 0o100000
            for name, value in (
                ("mode", oct(kind | each.mode).replace("0o", "0")),
                ("uid", each.uid),
                ("gid", each.gid),
            ):
                commands.write(f"set_inode_field /{each.name} {name} {value}\n")
        harness.prepare(disk, commands.getvalue())


def record(name: str) -> None:
    """Make the disk and write down the answers."""
    place = os.path.join(olddisk.DISKS, name)
    os.makedirs(place)
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: os.path.exists(f"{place}/answers.json") or shutil.rmtree(place))
        work = stack.enter_context(tempfile.TemporaryDirectory())
        disk = harness.make_disk(f"{work}/persist.img", "2G")
        for number, boot in enumerate((first_boot, second_boot)):
            with harness.vm(disk) as machine:
                machine.wait_console(harness.COMPLETE)
                machine.wait_durable()
                boot(machine)
                if number:
                    said = answers(machine)
                    machine.out("sync")
                    machine.pull_the_plug()
        keep(disk, f"{place}/disk.tar.gz")
        with open(f"{place}/answers.json", "w", encoding="utf-8") as file:
            json.dump(said, file, indent=1, sort_keys=True, ensure_ascii=False)
            file.write("\n")


if __name__ == "__main__":
    record(sys.argv[1])
