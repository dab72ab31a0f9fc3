"""Small files of the kernel's, such as those below /proc and /sys."""

from __future__ import annotations


def read_text(path: str) -> str:
    """Return such a file's text without its last newline, or "" if it is not there."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""
