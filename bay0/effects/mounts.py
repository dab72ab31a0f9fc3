"""The kernel's own filesystems. None of them can wait for a disk.

Those in memory may each take half of it by default, so two of them all of it, and the OOM killer ends verbs, shell and
state worker. Here all of them together have half: /dev, /dev/shm, /run, /tmp, /var. A file has its inode in memory, too,
about 1 KiB outside of its filesystem's size: hence a bound on their number.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from attrs import frozen

from bay0.base.syscalls import MNT_DETACH, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_REMOUNT, mount, umount

SAFE = MS_NOSUID | MS_NODEV | MS_NOEXEC


@frozen(eq=False, repr=False)
class Mount:
    """One line of the plan. `options` as for mount(8) -o."""

    kind: str
    target: str
    flags: int
    options: str = ""


# percent of all memory; one file for each 8 KiB of it
SIZES = {"/dev": 5, "/dev/shm": 10, "/run": 15, "/tmp": 15, "/var": 5}  # noqa: S108 - mount points
BYTES_A_FILE = 8192


def size_of(target: str, memory: int) -> str:
    """Return the options that bound a filesystem in memory (tmpfs(5)) on such a machine; "" for others."""
    room = memory * SIZES.get(target, 0) // 100
    return f"size={room},nr_inodes={max(LEAST_FILES, room // BYTES_A_FILE)}" if room else ""


LEAST_FILES = 4096
PLAN = (
    Mount("proc", "/proc", SAFE),
    Mount("sysfs", "/sys", SAFE),
    Mount("devtmpfs", "/dev", MS_NOSUID, "mode=0755"),
    Mount("devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "mode=0620,gid=5,ptmxmode=0666"),
    Mount("tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV, "mode=1777"),  # noqa: S108 - the kernel's path, not a temporary file
    Mount("tmpfs", "/run", MS_NOSUID | MS_NODEV, "mode=0755"),
    Mount("tmpfs", "/tmp", MS_NOSUID | MS_NODEV, "mode=1777"),  # noqa: S108 - as above
    Mount("tmpfs", "/var", MS_NOSUID | MS_NODEV, "mode=0755"),
    Mount("cgroup2", "/sys/fs/cgroup", SAFE, "nsdelegate"),
)


# devtmpfs has the kernel's devices alone (linux/Documentation/admin-guide/devices.rst, "Compulsory links")
STREAMS = {"/dev/fd": "/proc/self/fd"} | {
    f"/dev/std{name}": f"/proc/self/fd/{number}" for number, name in enumerate(("in", "out", "err"))
}


def mounted() -> set[str]:
    """Return the mount points of this namespace (/proc/self/mountinfo, field 5); empty while /proc is not there."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as info:
            return {line.split(" ")[4] for line in info}
    except OSError:
        return set()


def mount_kernel_filesystems() -> list[str]:
    """Mount what of `PLAN` is missing; return what failed, in words. Stage 0 may have moved some in already."""
    failed = []
    for item in PLAN:
        if item.target in mounted():
            continue
        try:
            if item.target.startswith("/dev/"):
                os.makedirs(item.target, exist_ok=True)
            options = ",".join(filter(None, (item.options, size_of(item.target, memory()))))
            mount(item.kind, item.target, item.kind, item.flags, options)
        except OSError as error:
            failed.append(f"{item.target}: {error.strerror}")
    failed += _bound_dev() + link_streams()
    for directory in ("/var/tmp", "/var/lib", "/var/log", "/run/lock"):  # noqa: S108 - made here, on tmpfs
        try:
            os.makedirs(directory, exist_ok=True)
        except OSError as error:
            failed.append(f"{directory}: {error.strerror}")
    return failed


def _bound_dev() -> list[str]:
    """Bound /dev, which is there since stage 0: devtmpfs takes its size when it is mounted anew."""
    try:
        mount("devtmpfs", "/dev", "devtmpfs", MS_REMOUNT | MS_NOSUID, size_of("/dev", memory()))
    except OSError as error:
        return [f"/dev: {error.strerror}"]
    return []


def link_streams(links: Mapping[str, str] = STREAMS) -> list[str]:
    """Make the names by which programs open their own descriptors, bash's `<(...)` among them; return what failed, in words."""
    failed = []
    for path, target in links.items():
        try:
            os.symlink(target, path)
        except FileExistsError:
            continue
        except OSError as error:
            failed.append(f"{path}: {error.strerror}")
    return failed


def memory() -> int:
    """Return the bytes of memory that the kernel has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def in_memory(info: str = "/proc/self/mountinfo") -> list[str]:
    """Return those of `SIZES` that are still filesystems in memory (mountinfo: the last mount of a path counts)."""
    kinds = {}
    with open(info, encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            words = line.split(" ")
            kinds[words[4]] = words[words.index("-") + 1]
    return [path for path in SIZES if kinds.get(path) in ("tmpfs", "devtmpfs")]


def fresh_tmpfs(directory: str, options: str) -> None:
    """Make `directory` an empty filesystem in memory, whatever was mounted there before (who still uses that keeps it). `OSError` if that fails."""
    os.makedirs(directory, exist_ok=True)
    while os.path.ismount(directory):
        umount(directory, MNT_DETACH)
    mount("tmpfs", directory, "tmpfs", SAFE, options)
