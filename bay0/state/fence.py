"""The run-time fence around /persist: an audit hook in PID 1 that refuses to open, list or change anything below it.

A file operation on a dead disk is unkillable (docs/ARCHITECTURE.md, facts), so in PID 1 it is a defect before it
hangs. Static checks find what is written down, this finds what is computed, as far as Python tells: of stat, access,
readlink and statvfs it tells no hook (tests/unit/test_fence.py has the list). The trace of a boot finds those too.
sys.addaudithook(3) hooks cannot be removed, so tests use it in a child.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from bay0.state.paths import ROOT

WATCHED = frozenset(
    {
        "open", "os.listdir", "os.scandir", "os.mkdir", "os.rmdir", "os.remove", "os.rename", "os.link", "os.symlink",
        "os.chmod", "os.chown", "os.truncate", "os.utime", "os.walk", "os.chdir", "os.getxattr", "os.setxattr", "os.listxattr",
        "os.removexattr", "sqlite3.connect",
    }
)  # fmt: skip


class PersistFenceError(BaseException):
    """PID 1 reached for /persist. Not an Exception: nothing may swallow it."""


def below_persist(path: object) -> bool:
    """Tell whether `path` is /persist or below it."""
    if not isinstance(path, str | bytes | os.PathLike):
        return False
    text = os.fsdecode(path)
    return text.startswith("/") and f"/{os.path.normpath(text).lstrip('/')}/".startswith(ROOT + "/")


_lifted = False


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event in WATCHED and not _lifted and any(below_persist(argument) for argument in arguments[:2]):
        raise PersistFenceError(f"{event} {arguments[0]!r} in PID 1: only the state worker may touch {ROOT}")


def forbid_persist() -> None:
    """Arm the fence for the rest of this process's life."""
    sys.addaudithook(_hook)


def lift() -> None:
    """Take the fence down in a child that was forked to be the state worker; an audit hook itself cannot be removed."""
    global _lifted  # noqa: PLW0603 - one fence a process, as the hook is
    _lifted = True
