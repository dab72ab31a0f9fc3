#!/usr/bin/env python3
"""Print one sha256 over the content of a spine's root: how a running spine names its image.

Usage: rootdigest.py ROOT

The digest of an image cannot be inside that image. This is the digest of everything in it but the one file that holds it: for each
name below ROOT except usr/lib/bay0/manifest.json, in the order of their bytes, a line of type, permissions, name, and the sha256 of
the file's bytes or the link's target. Owners and times are left out: in the image all of them are the same. ROOT may be build/rootfs
or an image unpacked again (fsck.erofs --extract).
"""

import hashlib
import os
import stat
import sys
from collections.abc import Iterator

LEFT_OUT = b"usr/lib/bay0/manifest.json"


def lines(root: bytes) -> Iterator[bytes]:
    """Yield one line for each name below `root`, unsorted."""
    for folder, directories, files in os.walk(root):
        for name in directories + files:
            path = os.path.join(folder, name)
            short = os.path.relpath(path, root)
            if short == LEFT_OUT:
                continue
            mode = os.lstat(path).st_mode
            what = b""
            if stat.S_ISLNK(mode):
                mode, what = stat.S_IFLNK | 0o777, os.readlink(path)
            elif stat.S_ISREG(mode):
                with open(path, "rb") as file:
                    what = hashlib.file_digest(file, "sha256").hexdigest().encode()
            yield b"%s\0%o %s\n" % (short, mode, what)


def digest(root: str) -> str:
    """Return the digest of one root."""
    whole = hashlib.sha256()
    for line in sorted(lines(os.fsencode(root))):
        whole.update(line)
    return whole.hexdigest()


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-") or not os.path.isdir(sys.argv[1]):  # noqa: PLR2004
        raise SystemExit(__doc__)
    print(digest(sys.argv[1]))
