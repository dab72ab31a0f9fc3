"""Which kernel modules this machine asks for: its devices name them (modalias), the spine adds the filesystems it lives on.

Drivers of disks come last and by themselves: loading one reads the disk's partition table, and that never ends on a dead disk.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator

from attrs import frozen

from bay0.base.kernelfile import read_text

# quota_v2: of a filesystem with quotas, which would else have the kernel run modprobe in the middle of the mount
# efivarfs: an upgrade asks the firmware whether it wants signatures
ALWAYS = ("ext4", "quota_v2", "overlay", "fuse", "tun", "loop", "efivarfs")
MODALIASES = "/sys/bus/*/devices/*/modalias"
UEVENTS = "/sys/kernel/uevent_seqnum"  # linux/kernel/ksysfs.c
# PCI class 01 and USB class 08 are mass storage; virtio 2 and 8 are block and SCSI (linux/virtio_ids.h)
# and these would carry the spine's network, which it must not have: PCI class 02, virtio 1, USB communication class
_NETWORK = re.compile(r"^pci:.*bc02|^virtio:d00000001|^usb:.*ic02")
# a controller that may have no drive behind it: looking for one, and for a disk in it, takes seconds and finds nothing
_FLOPPY = re.compile(r"^acpi:PNP0700|^platform:floppy")
_STORAGE = re.compile(r"^pci:.*bc01|^usb:.*ic08|^virtio:d0000000[28]|^scsi:|^mmc:")
# a controller whose disks show up only some time after its own driver runs: what they will ask for is asked for with it.
# PCI class 0c03 is a USB host, 0104, 0106 and 0107 are RAID, SATA and SAS; virtio 8 is SCSI
_BEHIND = ((re.compile(r"^pci:.*bc0Csc03"), ("usb_storage", "uas", "sd_mod")), (re.compile(r"^pci:.*bc01sc0[467]|^virtio:d00000008"), ("sd_mod",)))


@frozen(eq=False, repr=False)
class Wanted:
    """Arguments for two calls of `modprobe -a`."""

    first: tuple[str, ...]
    disks: tuple[str, ...]


def newest(path: str = UEVENTS) -> str:
    """Return the number of the kernel's last word on devices: while it is the same, there is no new one. "" where the kernel does not say."""
    return read_text(path)


def aliases(pattern: str = MODALIASES) -> Iterator[str]:
    """Read one device's alias at a time: a machine has a hundred, and a turn of PID 1 is too short for all of them."""
    for path in glob.iglob(pattern):
        try:
            with open(path, encoding="ascii", errors="replace") as file:
                yield file.read().strip()
        except OSError:
            continue


def network(found: Iterable[str]) -> list[str]:
    """Return the aliases of network cards: no boot loads their drivers, `sys://net` does when it is wanted."""
    return sorted({alias for alias in found if _NETWORK.search(alias) and os.sep not in alias})


def wanted(found: Iterable[str]) -> Wanted:
    """Return our own modules and each of the `aliases`, once and sorted; those of disks apart, network cards left out."""
    asked = {alias for alias in found if alias and os.sep not in alias and not _NETWORK.search(alias) and not _FLOPPY.search(alias)}
    disks = {alias for alias in asked if _STORAGE.search(alias)}
    behind = {name for pattern, names in _BEHIND if any(map(pattern.search, asked)) for name in names}
    return Wanted((*ALWAYS, *sorted(asked - disks)), (*sorted(disks), *sorted(behind)))
