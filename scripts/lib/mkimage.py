#!/usr/bin/env python3
"""Make the base image of personas out of an unpacked Alpine root: a docker-archive whose bytes depend on its contents alone.

Usage: mkimage.py --name localhost/alpine:3.23 --epoch N --root DIR --out FILE.tar [--add DIR] [--with PACKAGE]...
       mkimage.py --packages

The root is a whole machine's (kernel, openrc, an account). What goes into the image is what Alpine's own container image is
made of: the files of PACKAGES as apk's database lists them, each with the owner, mode and SHA-1 written there, and busybox's
links. A file that is not as its package made it is refused. Setuid bits are dropped, times are N seconds after 1970, entries
are sorted. apk's scripts stay away: what they would do (busybox's links) is done here. --packages prints PACKAGES.
--with puts more of the root's packages, and --add a directory's files, into a second layer above the base image's own.
The format: archive.py.
"""

import argparse
import base64
import hashlib
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

from archive import Entry, archive, pack, tree

WORLD = ("alpine-baselayout", "alpine-keys", "alpine-release", "apk-tools", "busybox", "musl-utils")  # what the rest is here for
PACKAGES = (*WORLD, "alpine-baselayout-data", "busybox-binsh", "ca-certificates-bundle", "libapk", "libcrypto3", "libssl3",
            "musl", "scanelf", "ssl_client", "zlib")  # fmt: skip
DATABASE, APPLETS = "lib/apk/db/installed", "etc/busybox-paths.d/busybox"
# The machine changed these. They are put back as their package has them, which the SHA-1 proves.
ORIGINAL = {
    "etc/hostname": b"localhost\n",
    "etc/hosts": b"127.0.0.1\tlocalhost localhost.localdomain\n::1\t\tlocalhost localhost.localdomain\n",
    "etc/modules": b"af_packet\nipv6\n",
    "etc/mtab": b"../proc/mounts",
}
ACCOUNTS = ("etc/passwd", "etc/group", "etc/shadow")
FOREIGN_ACCOUNTS = (b"dhcpcd:", b"quicksand:")
UNCHECKED = {"etc/shadow"}  # root is locked in it, as in Alpine's container image; the package's has an empty password


def records(database: str) -> dict[str, str]:
    """Return apk's record of each package, by name (apk(5), "installed database": one letter, colon, value)."""
    found = (record.strip("\n") for record in database.split("\n\n"))
    return {line[2:]: record for record in found for line in record.split("\n") if line.startswith("P:")}


def read(root: Path, name: str) -> tuple[bytes, bytes]:
    """Return type and content of a file or link, as its package has it."""
    path = root / name
    kind = tarfile.SYMTYPE if path.is_symlink() else tarfile.REGTYPE
    if name in ORIGINAL:
        return kind, ORIGINAL[name]
    if kind == tarfile.SYMTYPE:
        return kind, os.readlink(path).encode()
    data = path.read_bytes()
    if name in ACCOUNTS:
        data = b"".join(line for line in data.splitlines(keepends=True) if not line.startswith(FOREIGN_ACCOUNTS))
    return kind, data


def owned(root: Path, record: str) -> Iterator[tuple[str, Entry]]:
    """Yield what one package owns. F names a directory, M its mode, R a file in it, a its mode, Z its checksum (last)."""
    directory, name, entry = "", "", Entry(tarfile.DIRTYPE, 0o755)
    for line in record.split("\n"):
        key, value = line[:1], line[2:]
        if key == "F":
            directory, entry = value, Entry(tarfile.DIRTYPE, 0o755)
            yield directory, entry
        elif key == "R":
            name = f"{directory}/{value}".lstrip("/")
            entry = Entry(*read_with_mode(root, name))
            yield name, entry
        elif key in ("M", "a"):
            uid, gid, mode = value.split(":")[:3]
            entry.uid, entry.gid, entry.mode = int(uid), int(gid), int(mode, 8) & 0o1777
        elif key == "Z" and name not in UNCHECKED:
            checksum = "Q1" + base64.b64encode(hashlib.sha1(entry.data, usedforsecurity=False).digest()).decode()
            if checksum != value:
                raise SystemExit(f"mkimage.py: /{name} is not as its package made it: apk's database says {value}, it is {checksum}")


def read_with_mode(root: Path, name: str) -> tuple[bytes, int, int, int, bytes]:
    """Return the fields of an entry that apk's database says nothing special about."""
    kind, data = read(root, name)
    return kind, 0o644 if kind == tarfile.REGTYPE else 0o777, 0, 0, data


def collect(root: Path, more: tuple[str, ...] = ()) -> dict[str, Entry]:
    """Return everything in the image, by name: PACKAGES and `more` of the root's packages."""
    known = records((root / DATABASE).read_text())
    packages, world = sorted({*PACKAGES, *more}), sorted({*WORLD, *more})
    missing = [name for name in packages if name not in known]
    if missing:
        raise SystemExit(f"mkimage.py: the Alpine root has no package {', '.join(missing)}")
    entries: dict[str, Entry] = {}
    for package in packages:
        for name, entry in owned(root, known[package]):
            # Many packages list a directory; the one that gives it a mode of its own counts.
            if name not in entries or entry.mode != 0o755:  # noqa: PLR2004 - the mode apk leaves out
                entries[name] = entry
    for name in entries[APPLETS].data.decode().split():
        entries.setdefault(name, Entry(tarfile.SYMTYPE, 0o777, data=b"/bin/busybox"))
    kept = "".join(known[name] + "\n\n" for name in packages)
    entries[DATABASE] = Entry(tarfile.REGTYPE, 0o644, data=kept.encode())
    entries["etc/apk/world"] = Entry(tarfile.REGTYPE, 0o644, data="".join(f"{name}\n" for name in world).encode())
    for name in ("etc/apk/repositories", "etc/apk/arch"):
        entries[name] = Entry(tarfile.REGTYPE, 0o644, data=(root / name).read_bytes())
    return entries


def main() -> None:
    """Write one image."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", action="store_true")
    parser.add_argument("--name")
    parser.add_argument("--epoch", type=int)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--add", type=Path)
    parser.add_argument("--with", dest="more", action="append", default=[])
    options = parser.parse_args()
    if options.packages:
        print("\n".join(sorted(PACKAGES)))
        return
    if None in (options.name, options.epoch, options.root, options.out):
        parser.error("--name, --epoch, --root and --out belong together")
    base = collect(options.root)
    layers = {"Alpine packages": pack(base, options.epoch)}
    if options.more or options.add:
        whole = collect(options.root, tuple(options.more)) | (tree(options.add) if options.add else {})
        added = {name: entry for name, entry in whole.items() if base.get(name) != entry}
        layers[" ".join([*options.more, "and files"] if options.add else options.more)] = pack(added, options.epoch)
    options.out.write_bytes(pack(archive(layers, options.name, options.epoch), options.epoch))


if __name__ == "__main__":
    main()
