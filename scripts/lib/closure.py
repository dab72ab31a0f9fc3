#!/usr/bin/env python3
"""Copy the shared libraries that a directory's programs need out of a Debian tree.

Usage: closure.py FROM INTO

INTO is a root directory; every program and library in it is looked at, and what it needs and INTO does not have is copied from
FROM's /usr/lib/x86_64-linux-gnu to the same place, together with the loader (/lib64 is made a link as Debian has it). Fails if
FROM does not have it either.
"""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from check_rootfs import Elf, read_elf

LIBRARIES = Path("usr/lib/x86_64-linux-gnu")
LOADER = Path("lib64/ld-linux-x86-64.so.2")


def programs(top: Path) -> Iterator[tuple[Path, Elf]]:
    """Yield every program and library in a directory, in a fixed order."""
    for path in sorted(top.rglob("*")):
        if path.is_file() and not path.is_symlink() and (elf := read_elf(path)):
            yield path, elf


def fill(source: Path, target: Path) -> None:
    """Copy until nothing is missing. Raises SystemExit naming what is nowhere."""
    libraries = target / LIBRARIES
    libraries.mkdir(parents=True, exist_ok=True)
    waiting = list(programs(target))
    have = {path.name for path, _ in waiting} | {path.name for path in target.rglob("*.so*")}
    while waiting:
        path, elf = waiting.pop()
        for name in sorted(set(elf.needed) - have):
            found = source / LIBRARIES / name
            if not found.exists():
                raise SystemExit(f"closure.py: {path.relative_to(target)} needs {name}, and {source} has none")
            copy = libraries / name
            shutil.copyfile(found, copy)  # the file under the name it is asked for: no links, no second version
            copy.chmod(0o755)
            have.add(name)
            waiting.append((copy, read_elf(copy) or Elf()))
    loader = libraries / LOADER.name
    if not loader.exists():
        shutil.copyfile(source / LIBRARIES / LOADER.name, loader)
        loader.chmod(0o755)
    (target / LOADER.parent).mkdir(exist_ok=True)
    (target / LOADER).unlink(missing_ok=True)
    (target / LOADER).symlink_to(f"../{LIBRARIES / LOADER.name}")


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1].startswith("-"):  # noqa: PLR2004 - two arguments
        raise SystemExit(__doc__)
    fill(Path(sys.argv[1]), Path(sys.argv[2]))
