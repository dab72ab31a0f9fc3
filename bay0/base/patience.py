"""What helps where bounds are missed because the machine is slow."""

from __future__ import annotations

import math


def remedy(needs: float) -> str:
    """Return what helps a machine that needs so much."""
    return f"less work beside it, or bay0.patience={min(100, math.ceil(needs))} on the kernel command line (boot-qemu.sh --patience N)"
