"""Cgroups by their names, from the root on ("/personas/libpod-ID"), as /proc/PID/cgroup has them (cgroups(7))."""

from __future__ import annotations


def within(group: str, other: str) -> bool:
    """Tell whether the cgroup `group` is `other` or one below it."""
    return group == other or group.startswith(f"{other}/")
