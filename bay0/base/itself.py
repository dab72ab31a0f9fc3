"""How to start this program once more, as another process of the spine."""

from __future__ import annotations

import os
import sys


def argv(entry: str) -> tuple[str, ...]:
    """Return the words that start it at a hidden `entry`. Frozen without PyInstaller's hooks, it has no `sys.frozen`: its name tells."""
    interpreted = os.path.basename(sys.executable).startswith("python")
    return (sys.executable, "-m", "bay0", entry) if interpreted else (sys.executable, entry)
