#!/usr/bin/env python3
"""Put image archives onto a persist disk that is there already, for mkpersist.sh --add. No root: debugfs writes into the file.

Usage: addimages.py [--force] DISK ARCHIVE...

The disk is locked as QEMU locks it, so that neither begins while the other has it. Status 1, and one line, if nothing was put onto it.
"""

import fcntl
import glob
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

LABEL = "SPINE-PERSIST"
LOOPS = "/sys/block/loop*/loop/backing_file"
CLEAN, MENDED = 0, 1  # e2fsck(8)


def die(text: str) -> NoReturn:
    """End with one line."""
    sys.exit(f"mkpersist.sh: {text}")


def tool(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a tool of e2fsprogs; Ctrl-C does not end it in the middle of a write."""
    return subprocess.run(words, capture_output=True, text=True, check=False, start_new_session=True, env={**os.environ, "LC_ALL": "C"})


def locked(disk: str) -> int:
    """Return a descriptor that has the disk to itself. A lock of QEMU's is on bytes of the same file."""
    try:
        fd = os.open(disk, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        die(f"{disk} cannot be opened for writing: {error.strerror}.")
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        die(f"{disk} is no image file. On a disk that a spine runs from: `bay0 image load -` there.")
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        die(f"{disk} is in use: is a spine running on it? Turn it off first, or use `bay0 image load -` there.")
    for loop in glob.glob(LOOPS):
        if Path(loop).read_text().strip() == os.path.realpath(disk):
            die(f"{disk} is in use: {loop.split('/')[3]} is attached to it. Unmount and detach it first.")
    return fd


def facts(disk: str) -> dict[str, str]:
    """Return what the superblock says, as dumpe2fs names it."""
    lines = tool("dumpe2fs", "-h", disk).stdout.splitlines()
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def repair(disk: str) -> None:
    """Replay the journal of a spine that was not turned off: what is written beside it would be undone by the next mount."""
    known = facts(disk)
    if known.get("Filesystem state") == "clean" and "needs_recovery" not in known.get("Filesystem features", ""):
        return
    done = tool("e2fsck", "-p", disk)
    if done.returncode not in (CLEAN, MENDED):
        die(f"e2fsck does not mend {disk} by itself (status {done.returncode}): run e2fsck -f {disk} first.")


def there(disk: str, path: str) -> bool:
    """Tell whether the disk has `path`."""
    return "Inode:" in tool("debugfs", "-R", f"stat {path}", disk).stdout


def room(disk: str) -> int:
    """Return how many bytes are free for root."""
    known = facts(disk)
    return int(known["Free blocks"]) * int(known["Block size"])


def check_room(disk: str, archives: list[str]) -> None:
    """Refuse what does not fit, with what the filesystem itself needs for it."""
    size = sum(os.path.getsize(archive) for archive in archives)
    wanted, free = size + size // 64 + (1 << 20), room(disk)
    if free < wanted:
        die(f"{', '.join(archives)}: does not fit, it needs {wanted >> 20} MiB and {free >> 20} are free on {disk}. Nothing was changed.")


def add(disk: str, archive: str) -> None:
    """Write one archive, root's and readable, and read it back."""
    path = f"/images/{os.path.basename(archive)}"
    if there(disk, path):
        tool("debugfs", "-w", "-R", f"rm {path}", disk)
    if not there(disk, "/images"):
        tool("debugfs", "-w", "-R", "mkdir /images", disk)
    fields = [f"set_inode_field {name} {key} {value}" for name, mode in (("/images", "040755"), (path, "0100644"))
              for key, value in (("uid", 0), ("gid", 0), ("mode", mode))]  # fmt: skip
    script = "\n".join([f'write "{archive}" {path}', *fields, ""])
    subprocess.run(
        ["debugfs", "-w", "-f", "-", disk], input=script, capture_output=True, text=True, check=False, start_new_session=True,
        env={**os.environ, "LC_ALL": "C"},
    )  # fmt: skip
    with subprocess.Popen(["debugfs", "-R", f"cat {path}", disk], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as reading:
        same = subprocess.run(["cmp", "-s", "-", archive], stdin=reading.stdout, check=False).returncode == 0
    if not same:
        tool("debugfs", "-w", "-R", f"rm {path}", disk)
        die(f"{archive} could not be written to {disk}; it is not on it.")


def main(disk: str, archives: list[str], *, force: bool) -> None:
    """Check everything, then write."""
    fd = locked(disk)
    if facts(disk).get("Filesystem volume name") != LABEL:
        die(f"{disk} is no persist disk: it has no ext4 labelled {LABEL} at its beginning. Nothing was changed.")
    check_room(disk, archives)
    repair(disk)
    for archive in archives:
        path = f"/images/{os.path.basename(archive)}"
        if not force and there(disk, path):
            die(f"{path} is on {disk} already: --force replaces it, or rename the archive. Nothing was changed.")
    for archive in archives:
        add(disk, archive)
    # debugfs does not count for the owners what it writes (ext4's quota feature), and e2fsck then does
    if tool("e2fsck", "-fp", disk).returncode not in (CLEAN, MENDED) or tool("e2fsck", "-fn", disk).returncode != CLEAN:
        die(f"e2fsck finds {disk} damaged after the write: run e2fsck -f {disk}.")
    os.close(fd)


if __name__ == "__main__":
    words = sys.argv[1:]
    with_force = words[:1] == ["--force"]
    if with_force:
        del words[0]
    main(words[0], [os.path.abspath(word) for word in words[1:]], force=with_force)
