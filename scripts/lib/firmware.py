#!/usr/bin/env python3
"""What firmware do an image's kernel modules ask for, and is it there? The worker behind scripts/check-firmware.sh.

A module names its files in its .modinfo section (`modinfo -F firmware` shows the same); the kernel looks for them below /lib/firmware, first
in updates/RELEASE, updates, RELEASE, and also for NAME.zst and NAME.xz (kernel: Documentation/driver-api/firmware/fw_search_path.rst).
"""

from __future__ import annotations

import argparse
import fnmatch
import gzip
import json
import lzma
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any, NamedTuple

# what the handoff asks for, and which modules stand for it. Every other module is counted together.
GROUPS = {"i915": ("i915",), "amdgpu": ("amdgpu",), "iwlwifi": ("iwlwifi",)}
OTHERS = "other modules"  # which firmware an image carries for those is a matter of taste, so they are shown and do not count
VENDORS = {"intel": ("GenuineIntel.bin", "intel-ucode"), "amd": ("AuthenticAMD.bin", "amd-ucode")}
SUFFIX = re.compile(r"\.ko(\.gz|\.xz|\.zst)?$")
API = re.compile(r"^(.*-)(\d+)(\.ucode|\.pnvm)$")
MANY = 5  # names in a line
NOTHING = 3


class UnreadableError(Exception):
    """It cannot be looked into; the message says why."""


class Ask(NamedTuple):
    """One file that one module asks for."""

    module: str
    file: str
    there: bool
    note: str = ""


# ---- modules


def unpacked(path: str) -> bytes:
    """Return a module's bytes."""
    with open(path, "rb") as file:
        data = file.read()
    if path.endswith(".gz"):
        return gzip.decompress(data)
    if path.endswith(".xz"):
        return lzma.decompress(data)
    if path.endswith(".zst"):
        tool = shutil.which("zstd")
        if tool is None:
            raise UnreadableError(f"{path} is packed by zstd: install Debian's zstd")
        return subprocess.run([tool, "-dc"], input=data, capture_output=True, check=True, timeout=60).stdout
    return data


def modinfo(data: bytes) -> list[tuple[str, str]]:
    """Return the (key, value) pairs of a module's .modinfo: ELF, 64 bits, little endian. `UnreadableError`."""
    try:
        if data[:6] != b"\x7fELF\x02\x01":
            raise UnreadableError("no 64-bit ELF")
        (table,) = struct.unpack_from("<Q", data, 40)
        size, count, names = struct.unpack_from("<HHH", data, 58)
        sections = [struct.unpack_from("<IIQQQQ", data, table + number * size) for number in range(count)]
        strings = sections[names][4]
        for name, _, _, _, offset, length in sections:
            if data[strings + name :].startswith(b".modinfo\0"):
                words = data[offset : offset + length].split(b"\0")
                pairs = (word.decode("utf-8", "replace").partition("=") for word in words if word)
                return [(key, value) for key, _, value in pairs]
    except (struct.error, IndexError) as error:
        raise UnreadableError(f"a damaged ELF ({error})") from error
    return []


def modules(root: str, release: str) -> Iterator[tuple[str, str]]:
    """Yield name and path of every module of a kernel."""
    for folder, _, files in os.walk(f"{root}/lib/modules/{release}"):
        for file in files:
            if SUFFIX.search(file):
                yield SUFFIX.sub("", file).replace("-", "_"), f"{folder}/{file}"


# ---- firmware


class Firmware:
    """The files below /lib/firmware, by the names the kernel would find them under."""

    def __init__(self, root: str, release: str) -> None:
        top = f"{root}/lib/firmware"
        self.names: set[str] = set()
        for folder, _, files in os.walk(top, followlinks=True):
            for file in files:
                path = f"{folder}/{file}"
                name = os.path.relpath(path, top)
                if name != "README" and os.path.isfile(path) and os.path.getsize(path):
                    self.names.add(self._plain(name, release))

    @staticmethod
    def _plain(name: str, release: str) -> str:
        for start in (f"updates/{release}/", "updates/", f"{release}/"):
            name = name.removeprefix(start)
        return name.removesuffix(".zst").removesuffix(".xz")

    def look(self, module: str, file: str) -> Ask:
        """Tell whether a file is there, under its own name or one that its driver takes instead."""
        if file in self.names:
            return Ask(module, file, there=True)
        if any(letter in file for letter in "*?["):
            found = fnmatch.filter(self.names, file)
            return Ask(module, file, there=bool(found), note=f"{len(found)} files match" if found else "no file matches")
        wanted = API.match(file) if module == "iwlwifi" else None
        if wanted:  # the driver names its newest API and takes older ones
            older = [int(had[2]) for name in self.names if (had := API.match(name)) and had[1] == wanted[1] and int(had[2]) < int(wanted[2])]
            if older:
                return Ask(module, file, there=True, note=f"API {max(older)} instead of {wanted[2]}")
        return Ask(module, file, there=False)


def asks(root: str, release: str) -> tuple[list[Ask], dict[str, int], list[str]]:
    """Return what is asked for, how many files each module asks for, and the modules that could not be read."""
    firmware = Firmware(root, release)
    found: list[Ask] = []
    count: dict[str, int] = {}
    broken: list[str] = []
    for module, path in sorted(modules(root, release)):
        try:
            files = sorted({value for key, value in modinfo(unpacked(path)) if key == "firmware"})
        except (UnreadableError, OSError, EOFError, lzma.LZMAError, subprocess.SubprocessError) as error:
            broken.append(f"{module}: {error}")
            continue
        count[module] = len(files)
        found += [firmware.look(module, file) for file in files]
    return found, count, broken


# ---- the table


def row(name: str, present: int, missing: list[str], note: str = "") -> dict[str, Any]:
    """Return a line of the table for something that is asked for."""
    state = "missing" if missing else "present"
    return {"what": name, "state": state, "asked": present + len(missing), "present": present, "missing": missing, "note": note}


def no_row(name: str, note: str) -> dict[str, Any]:
    """Return a line of the table for something that this image cannot need."""
    return {"what": name, "state": "not applicable", "asked": 0, "present": 0, "missing": [], "note": note}


def group_rows(found: list[Ask], count: dict[str, int], accepted: list[str]) -> Iterator[dict[str, Any]]:
    """Yield a line for each group, then one for all other modules."""
    named = {module for members in GROUPS.values() for module in members}
    others = sorted({ask.module for ask in found} - named)
    for name, members in {**GROUPS, OTHERS: tuple(others)}.items():
        if not any(module in count for module in members):
            yield no_row(name, "no other module asks for any" if members == () else f"no module {', '.join(members)} in this image")
            continue
        mine = [ask for ask in found if ask.module in members]
        lost = [ask.file for ask in mine if not ask.there]
        missing = sorted({file for file in lost if not any(fnmatch.fnmatch(file, pattern) for pattern in accepted)})
        notes = [f"{len(set(lost)) - len(missing)} accepted as missing"] if len(set(lost)) > len(missing) else []
        older = sum(1 for ask in mine if ask.there and ask.note.startswith("API"))
        notes += [f"{older} by an older API"] if older else []
        if members == tuple(others):
            notes.append(f"asked for by {', '.join(others[:MANY])}{' ...' if len(others) > MANY else ''}")
        yield row(name, len({ask.file for ask in mine if ask.there}), missing, "; ".join(notes))


def microcode_rows(root: str, release: str, front: set[str]) -> Iterator[dict[str, Any]]:
    """Yield a line for each maker of processors: in front of the image, where the kernel takes it early, or below /lib/firmware."""
    for vendor, (early, late) in VENDORS.items():
        name = f"microcode {vendor}"
        folder = f"{root}/lib/firmware/{late}"
        files = len(os.listdir(folder)) if os.path.isdir(folder) else 0
        if release.endswith("-virt"):
            yield no_row(name, "a guest's processor takes its microcode from the host")
        elif f"kernel/x86/microcode/{early}" in front:
            yield row(name, 1, [], "in front of the image: loaded before anything else")
        elif files:
            yield row(name, files, [], f"in lib/firmware/{late}: loaded late, if somebody asks the kernel to")
        else:
            yield row(name, 0, [f"kernel/x86/microcode/{early} or lib/firmware/{late}/"], "package-efi.sh --microcode puts it in front")


def look(root: str, front: set[str], accepted: list[str], *, everything: bool) -> dict[str, Any]:
    """Return all that is known of a root. `everything`: the other modules count too. `UnreadableError` if it has no kernel modules."""
    top = f"{root}/lib/modules"
    releases = sorted(os.listdir(top)) if os.path.isdir(top) else []
    if not releases:
        raise UnreadableError("there is no lib/modules in it: it is no spine's root")
    if len(releases) > 1:
        raise UnreadableError(f"it has modules of several kernels: {', '.join(releases)}")
    found, count, broken = asks(root, releases[0])
    rows = [*group_rows(found, count, accepted), *microcode_rows(root, releases[0], front)]
    wanted = [each for each in rows if each["state"] != "not applicable" and (everything or each["what"] != OTHERS)]
    missing = any(each["missing"] for each in wanted)
    verdict = "unreadable" if broken else "missing" if missing else "present" if wanted else "nothing to check"
    return {"kernel": releases[0], "modules": len(count), "verdict": verdict, "unreadable": broken, "rows": rows}


# ---- images


def cpio(data: bytes) -> tuple[dict[str, bytes], int]:
    """Return the members of an uncompressed newc archive, and where it ends."""
    members, at = {}, 0
    while data[at : at + 6] == b"070701":
        fields = [int(data[at + 6 + 8 * number : at + 14 + 8 * number], 16) for number in range(13)]
        size, named = fields[6], fields[11]
        name = data[at + 110 : at + 109 + named].decode("utf-8", "replace")
        body = (at + 110 + named + 3) & ~3
        if body + size > len(data):
            raise UnreadableError("it is cut short")
        at = (body + size + 3) & ~3
        if name == "TRAILER!!!":
            break
        members[name] = data[body : body + size]
    return members, at


def open_image(path: str, work: str) -> tuple[str, set[str]]:
    """Unpack the root of a spine.img; return where it is, and what lies in front of it for the kernel alone. `UnreadableError`."""
    with open(path, "rb") as file:
        data = file.read()
    front: set[str] = set()
    while data[:6] == b"070701":
        members, end = cpio(data)
        if "root.erofs" in members:
            with open(f"{work}/root.erofs", "wb") as out:
                out.write(members["root.erofs"])
            return extract(f"{work}/root.erofs", work), front
        front |= set(members)
        data = data[end:].lstrip(b"\0")
    raise UnreadableError("it is no spine.img: there is no root.erofs in it")


def extract(erofs: str, work: str) -> str:
    """Unpack an EROFS image. `UnreadableError`."""
    tool = shutil.which("fsck.erofs", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if tool is None:
        raise UnreadableError("fsck.erofs is missing: install Debian's erofs-utils")
    argv = [tool, f"--extract={work}/root", "--no-preserve", erofs]
    done = subprocess.run(argv, capture_output=True, text=True, errors="replace", timeout=300, check=False)
    if done.returncode:
        raise UnreadableError(f"fsck.erofs cannot unpack it: {(done.stderr or done.stdout).strip()[-300:]}")
    return f"{work}/root"


def show(found: dict[str, Any], *, everything: bool) -> None:
    """Print the table for people."""
    print(f"kernel {found['kernel']}, {found['modules']} modules")
    print(f"{'':16} {'state':15} {'asked':>5} {'there':>5}  ")
    for each in found["rows"]:
        numbers = ("-", "-") if each["state"] == "not applicable" else (each["asked"], each["present"])
        print(f"{each['what']:16} {each['state']:15} {numbers[0]:>5} {numbers[1]:>5}  {each['note']}".rstrip())
    for each in found["rows"]:
        for file in each["missing"] if everything or each["what"] != OTHERS else ():
            print(f"missing: {file} ({each['what']})")
    for line in found["unreadable"]:
        print(f"unreadable: {line}")
    print(
        {
            "present": "All firmware that counts is there.",
            "missing": "Some firmware is missing: those devices will not work, or not fully.",
            "unreadable": "Some modules cannot be read: nothing can be said of them.",
            "nothing to check": "Nothing was checked: an image for virtual machines has none of these modules. That says nothing of real hardware.",
        }[found["verdict"]]
    )


def main() -> int:
    """Look, print, and tell by the status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--accept", action="append", default=[])
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="firmware") as work:
            root, front = (options.path, set()) if os.path.isdir(options.path) else open_image(options.path, work)
            found = look(root, front, options.accept, everything=options.all)
    except (UnreadableError, OSError, ValueError) as error:
        print(f"check-firmware.sh: {options.path} cannot be checked: {error}.", file=sys.stderr)
        return 2
    if options.json:
        json.dump(found, sys.stdout, indent=1)
        print()
    else:
        show(found, everything=options.all)
    return {"present": 0, "nothing to check": NOTHING}.get(found["verdict"], 1)


if __name__ == "__main__":
    sys.exit(main())
