"""The kernel's own filesystems. None of them can wait for a disk."""

from __future__ import annotations

import os

from attrs import frozen

from bay0.syscalls import MNT_DETACH, MS_NODEV, MS_NOEXEC, MS_NOSUID, mount, umount

SAFE = MS_NOSUID | MS_NODEV | MS_NOEXEC


@frozen(eq=False, repr=False)
class Mount:
    """One line of the plan. `options` as for mount(8) -o."""

    kind: str
    target: str
    flags: int
    options: str = ""


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
            mount(item.kind, item.target, item.kind, item.flags, item.options)
        except OSError as error:
            failed.append(f"{item.target}: {error.strerror}")
    for directory in ("/var/tmp", "/var/lib", "/var/log", "/run/lock"):  # noqa: S108 - made here, on tmpfs
        try:
            os.makedirs(directory, exist_ok=True)
        except OSError as error:
            failed.append(f"{directory}: {error.strerror}")
    return failed


def fresh_tmpfs(directory: str, options: str) -> None:
    """Make `directory` an empty filesystem in memory, whatever was mounted there before (who still uses that keeps it). `OSError` if that fails."""
    os.makedirs(directory, exist_ok=True)
    while os.path.ismount(directory):
        umount(directory, MNT_DETACH)
    mount("tmpfs", directory, "tmpfs", SAFE, options)
