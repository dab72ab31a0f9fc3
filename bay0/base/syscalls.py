"""The few system calls that Python does not offer, through the C library that is loaded already (glibc or musl)."""

from __future__ import annotations

import ctypes
import errno
import os
from functools import cache

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 0x1, 0x2, 0x4, 0x8, 0x20
MNT_DETACH = 2
RB_AUTOBOOT, RB_HALT, RB_POWER_OFF, RB_DISABLE_CAD = 0x01234567, 0xCDEF0123, 0x4321FEDC, 0


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    """mount(2). `OSError` with the errno on failure. May block for ever on a dead disk: never call it in PID 1 for one."""
    _check(
        _libc().mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode()), target
    )


def umount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    _check(_libc().umount2(target.encode(), flags), target)


def syncfs(fd: int) -> None:
    """syncfs(2): bring everything of the filesystem that `fd` is on to the platter. Takes as long as the disk does."""
    _check(_libc().syncfs(ctypes.c_int(fd)), "syncfs")


def reboot(how: int) -> None:
    """reboot(2). It does not sync; it returns only on failure (`OSError`) or for RB_DISABLE_CAD."""
    _check(_libc().reboot(ctypes.c_int(how)), "reboot")


IOPRIO_WHO_PROCESS, IOPRIO_CLASS_SHIFT = 1, 13  # linux/ioprio.h
_IOPRIO = {"x86_64": (251, 252), "aarch64": (30, 31)}  # the numbers of ioprio_set and ioprio_get, which no C library wraps


def ioprio_set(kind: int, level: int) -> None:
    """ioprio_set(2) for ourselves: `kind` 1 real-time, 2 best-effort, 3 idle; `level` 0 (first) to 7. `OSError` if it is refused or unknown here."""
    number = _IOPRIO.get(os.uname().machine)
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), "ioprio_set")
    value = kind << IOPRIO_CLASS_SHIFT | level
    _check(_libc().syscall(ctypes.c_long(number[0]), IOPRIO_WHO_PROCESS, 0, value), "ioprio_set")


def ioprio_get() -> tuple[int, int]:
    """ioprio_get(2) of ourselves: class and level; class 0 means that nobody has set one."""
    number = _IOPRIO.get(os.uname().machine)
    value = -1 if number is None else int(_libc().syscall(ctypes.c_long(number[1]), IOPRIO_WHO_PROCESS, 0))
    return (0, 0) if value < 0 else (value >> IOPRIO_CLASS_SHIFT, value & 7)


IN_MODIFY, IN_IGNORED, IN_CLOEXEC, IN_NONBLOCK = 0x2, 0x8000, 0o2000000, 0o4000


def inotify_init() -> int:
    """inotify_init1(2): return a descriptor that is closed on exec and does not block."""
    fd = int(_libc().inotify_init1(IN_CLOEXEC | IN_NONBLOCK))
    _check(0 if fd >= 0 else -1, "inotify")
    return fd


def inotify_add(fd: int, path: str, mask: int) -> int:
    """inotify_add_watch(2): return the watch's number."""
    watch = int(_libc().inotify_add_watch(fd, path.encode(), mask))
    _check(0 if watch >= 0 else -1, path)
    return watch


def inotify_remove(fd: int, watch: int) -> None:
    """inotify_rm_watch(2)."""
    _check(_libc().inotify_rm_watch(fd, watch), "inotify_rm_watch")


PR_SET_NO_NEW_PRIVS, PR_CAPBSET_DROP, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 38, 24, 47, 4  # linux/prctl.h


def prctl(option: int, first: int = 0, second: int = 0) -> None:
    """prctl(2) with up to two arguments; the kernel wants the others to be 0."""
    words = [ctypes.c_ulong(word) for word in (first, second, 0, 0)]
    _check(_libc().prctl(ctypes.c_int(option), *words), "prctl")


_PIDFD_GETFD = 438  # of every machine (linux/asm-generic/unistd.h)


def pidfd_getfd(pidfd: int, fd: int) -> int:
    """pidfd_getfd(2): return a copy of the descriptor `fd` of another process, closed on exec."""
    copy = int(_libc().syscall(ctypes.c_long(_PIDFD_GETFD), pidfd, fd, 0))
    _check(0 if copy >= 0 else -1, "pidfd_getfd")
    return copy


_OPENAT2 = 437  # of every machine, as above
RESOLVE_NO_MAGICLINKS, RESOLVE_IN_ROOT = 0x02, 0x10  # linux/openat2.h


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_in_root(root: int, path: str, flags: int) -> int:
    """openat2(2): open what is there already, as if the directory `root` were the root of all; links and `..` lead no further than that.

    The kernel asks for another try (EAGAIN) if something on the way was moved meanwhile.
    """
    if "\0" in path:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)
    how = _OpenHow(flags, 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    words = (ctypes.c_long(_OPENAT2), ctypes.c_int(root), os.fsencode(path), ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how)))
    fd = int(_libc().syscall(*words))
    _check(0 if fd >= 0 else -1, path)
    return fd
