#!/usr/bin/env python3
"""Check a spine's root directory without running anything in it.

Usage: check_rootfs.py ROOTFS

Prints one FAIL line for each thing that is wrong; status 1 if there was any.
Links are followed as a chroot would follow them.
"""

import os
import re
import stat
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

DIRECTORIES = ("dev", "proc", "sys", "run", "persist", "tmp", "var", "usr/lib/firmware", "usr/lib/modules")
FILES = (
    "etc/passwd", "etc/group", "etc/shadow", "etc/nsswitch.conf", "etc/hosts", "etc/hostname", "etc/os-release",
    "etc/subuid", "etc/subgid", "etc/containers/policy.json", "usr/lib/bay0-exec/run", "usr/lib/bay0/manifest.json",
    "usr/lib/stage0/busybox",
    "usr/share/spine-images/alpine-3.23.tar", "usr/share/spine-images/index.json", "usr/share/spine-personas/work/persona.toml",
    "usr/share/spine-seccomp/persona.json", "usr/share/spine-seccomp/tenant.json",
)  # fmt: skip
PROGRAMS = ("sbin/init", "usr/lib/bay0/bay0", "usr/bin/env", "usr/bin/vi", "usr/sbin/hwclock", "bin/sh", "bin/bash", "usr/bin/podman",
            "usr/bin/crun", "usr/bin/conmon", "usr/bin/fuse-overlayfs", "usr/bin/slirp4netns", "usr/sbin/modprobe", "usr/bin/choom")  # fmt: skip
SCRIPTS = ("usr/bin/bay0", "usr/bin/resize")
# What the first exec needs outside of the frozen program, by the image's variant (etc/os-release).
LIBRARIES = {
    "registry": ("usr/lib/x86_64-linux-gnu/libz.so.1", "usr/lib/x86_64-linux-gnu/libc.so.6"),
    "alpine": ("usr/lib/libz.so.1", "usr/lib/ld-musl-x86_64.so.1"),
}
SETUID_ALLOWED = {"usr/bin/newuidmap", "usr/bin/newgidmap"}
# Links whose targets exist only on a running spine.
RUNTIME_TARGETS = ("/proc", "/run", "/tmp")  # noqa: S108 - names in an image, nothing is opened
SYSTEM_PATH = ("/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib", "/usr/lib", "/lib64", "/usr/lib64")
MUSL_PATH = ("/lib", "/usr/local/lib", "/usr/lib")
MUSL_NAMES = ("libc.musl-x86_64.so.1", "libc.so")

PT_DYNAMIC, PT_INTERP, PT_LOAD = 2, 3, 1
CLASS_64, PROGRAM, LIBRARY = 2, 2, 3  # kernel modules are of a third type, 1
DT_NEEDED, DT_STRTAB, DT_RPATH, DT_RUNPATH = 1, 5, 15, 29


@dataclass
class Elf:
    """What the dynamic loader would read of a program or library."""

    interpreter: str = ""
    needed: list[str] = field(default_factory=list)
    runpath: list[str] = field(default_factory=list)


def read_elf(path: Path) -> Elf | None:
    """Return what the loader reads of a 64-bit ELF program or library; None for anything else."""
    with path.open("rb") as file:
        if file.read(4) != b"\x7fELF":
            return None
        data = b"\x7fELF" + file.read()
    kind = struct.unpack_from("<H", data, 16)[0]
    if data[4] != CLASS_64 or kind not in (PROGRAM, LIBRARY):
        return None
    phoff, phentsize, phnum = struct.unpack_from("<Q14xHH", data, 32)[0], *struct.unpack_from("<HH", data, 54)
    headers = [struct.unpack_from("<IIQQQQ", data, phoff + i * phentsize) for i in range(phnum)]
    elf = Elf()
    for type_, _flags, offset, _vaddr, _paddr, size in headers:
        if type_ == PT_INTERP:
            elf.interpreter = data[offset : offset + size].rstrip(b"\0").decode()
        elif type_ == PT_DYNAMIC:
            _read_dynamic(elf, data, headers, offset, size)
    return elf


def _read_dynamic(elf: Elf, data: bytes, headers: list[tuple[int, ...]], offset: int, size: int) -> None:
    tags = [struct.unpack_from("<QQ", data, offset + i) for i in range(0, size, 16)]
    strtab = next(value for tag, value in tags if tag == DT_STRTAB)
    base = next(o + strtab - v for t, _f, o, v, _p, s in headers if t == PT_LOAD and v <= strtab < v + s)

    def text(at: int) -> str:
        return data[base + at : data.index(b"\0", base + at)].decode()

    for tag, value in tags:
        if tag == 0:
            return
        if tag == DT_NEEDED:
            elf.needed.append(text(value))
        elif tag in (DT_RPATH, DT_RUNPATH):
            elf.runpath += text(value).split(":")


class Root:
    """A directory seen as if it were /."""

    def __init__(self, top: Path) -> None:
        self.top = top

    def resolve(self, path: str, depth: int = 40) -> Path | None:
        """Return the file behind an absolute path, links followed inside the root; None if there is none."""
        here = self.top
        parts = [part for part in path.split("/") if part not in ("", ".")]
        while parts:
            part = parts.pop(0)
            if part == "..":
                here = here.parent if here != self.top else here
                continue
            here = here / part
            if here.is_symlink():
                depth -= 1
                if depth < 0:
                    return None
                target = os.readlink(here)
                parts = [p for p in target.split("/") if p not in ("", ".")] + parts
                here = self.top if target.startswith("/") else here.parent
        return here if here.exists() else None

    def files(self) -> Iterator[tuple[str, Path]]:
        """Yield every file and link, with its name relative to the root, in a fixed order."""
        for directory, names, files in os.walk(self.top):
            names.sort()
            for name in sorted(files + [n for n in names if (Path(directory) / n).is_symlink()]):
                path = Path(directory) / name
                yield str(path.relative_to(self.top)), path


def unresolved(root: Root, name: str, elf: Elf) -> Iterator[str]:
    """Libraries and interpreter that this file needs and the image does not have."""
    if elf.interpreter and root.resolve(elf.interpreter) is None:
        yield f"its loader {elf.interpreter}"
    origin = "/" + os.path.dirname(name)
    search = [p.replace("${ORIGIN}", origin).replace("$ORIGIN", origin) for p in elf.runpath]
    if name.startswith("usr/lib/bay0/"):
        search.append("/usr/lib/bay0/_internal")  # PyInstaller's bootloader sets LD_LIBRARY_PATH to it
    system = MUSL_PATH if MUSL_NAMES[0] in elf.needed else SYSTEM_PATH
    for library in elf.needed:
        if library in MUSL_NAMES and "musl" in (elf.interpreter or name):
            continue  # musl's loader is the library
        if all(root.resolve(f"{place}/{library}") is None for place in (*search, *system)):
            yield library


def check_programs(root: Root) -> Iterator[str]:
    """Yield what is wrong with the libraries of every ELF file."""
    for name, path in root.files():
        if path.is_symlink() or not path.is_file():
            continue
        elf = read_elf(path)
        if elf is not None:
            for missing in unresolved(root, name, elf):
                yield f"/{name} needs {missing}, which is not in the image"


def variant(root: Root) -> str:
    """Return where the image's packages are from: registry or alpine."""
    release = root.top / "etc/os-release"
    found = re.search(r"^VARIANT_ID=(\w+)", release.read_text(), re.MULTILINE) if release.is_file() else None
    return found[1] if found and found[1] in LIBRARIES else "registry"


def check_skeleton(root: Root) -> Iterator[str]:
    """Yield what the handoff asks for and is not there."""
    for name in DIRECTORIES:
        if not (root.resolve(name) or Path("/nonexistent")).is_dir():
            yield f"the directory /{name} is missing"
    for name in (*FILES, *LIBRARIES[variant(root)]):
        if not (root.resolve(name) or Path("/nonexistent")).is_file():
            yield f"the file /{name} is missing"
    for name in PROGRAMS:
        program = root.resolve(name)
        if program is None or not os.access(program, os.X_OK) or read_elf(program) is None:
            yield f"/{name} does not lead to a program"
    for name in SCRIPTS:
        script = root.resolve(name)
        if script is None or not os.access(script, os.X_OK) or not script.read_bytes().startswith((b"#!/bin/", b"#!/usr/bin/env -S ")):
            yield f"/{name} is no script that can be run"
    if (root.resolve("usr/bin/env") or Path()).name == "busybox":
        yield "/usr/bin/env is busybox's, which has no --block-signal, and /usr/bin/bay0 needs that"
    if not any((root.top / "usr/lib/modules").glob("*/modules.dep.bin")):
        yield "the kernel modules have no index (depmod)"


def check_hygiene(root: Root) -> Iterator[str]:
    """Yield what is there and must not be."""
    for place in ("persist", "tmp", "run", "proc", "sys", "dev"):
        for leftover in sorted((root.top / place).iterdir()):
            yield f"/{place} must be empty and holds {leftover.name}"
    for name, path in root.files():
        mode = path.lstat().st_mode
        if stat.S_ISREG(mode) and mode & (stat.S_ISUID | stat.S_ISGID) and name not in SETUID_ALLOWED:
            yield f"/{name} is setuid or setgid and need not be"
        if stat.S_ISLNK(mode) and not os.readlink(path).startswith(RUNTIME_TARGETS) and not root.resolve(name):
            yield f"/{name} is a link to {os.readlink(path)}, which is not in the image"


def main(arguments: list[str]) -> int:
    """Check one root; return the exit status."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print(__doc__)
        return 0 if arguments[:1] in (["-h"], ["--help"]) else 2
    root = Root(Path(arguments[0]).resolve())
    failures = [*check_skeleton(root), *check_hygiene(root), *check_programs(root)]
    for failure in failures:
        print(f"        FAIL {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
