"""Which kernel modules this machine asks for: its devices name them (modalias), the spine adds the filesystems it lives on."""

from __future__ import annotations

import glob
import os

ALWAYS = ("ext4", "overlay", "fuse", "tun", "loop")
MODALIASES = "/sys/bus/*/devices/*/modalias"


def wanted(pattern: str = MODALIASES) -> list[str]:
    """Return the arguments for `modprobe -a`: our own modules, then each device's alias once, sorted."""
    aliases = set()
    for path in glob.iglob(pattern):
        try:
            with open(path, encoding="ascii", errors="replace") as file:
                alias = file.read().strip()
        except OSError:
            continue
        if alias and os.sep not in alias:
            aliases.add(alias)
    return [*ALWAYS, *sorted(aliases)]
