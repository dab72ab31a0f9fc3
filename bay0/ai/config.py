"""What `sys://ai` is made of: its stored configuration, and the limits that follow from its model and the machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from attrs import asdict, evolve, frozen

MEMORY = 512 << 20  # bytes; the model of the image and its cache need half
# what helps where its model is the trouble
DEFAULT_MODEL = "`bay0 tenant configure ai --default-model` goes back to the model in its image; then `bay0 tenant start ai`"
CPU_SHARE = 0.75  # of all processors, whole ones if there are several: its server runs as many threads


@frozen
class Config:
    """What it is made of. `model`: a GGUF file below /persist, None for the image's own."""

    autostart: bool = True
    model: str | None = None

    def text(self) -> str:
        """Return it as the database keeps it."""
        return json.dumps(asdict(self), separators=(",", ":"))


def read_config(text: str) -> Config | None:
    """Return what `Config.text` made, the defaults for "", None for what this program does not understand."""
    try:
        found = json.loads(text) if text else {}
        config = Config(found.get("autostart", True), found.get("model"))
    except (ValueError, AttributeError, RecursionError):
        return None
    sane = isinstance(config.autostart, bool) and (config.model is None or isinstance(config.model, str))
    return config if sane else None


def changed(text: str, changes: Mapping[str, Any]) -> str:
    """Return a stored configuration with `changes`; what only a newer program knows of it stays."""
    try:
        stored = json.loads(text)
    except (ValueError, RecursionError):
        stored = {}
    config = evolve(read_config(text) or Config(), **changes)
    return json.dumps({**(stored if isinstance(stored, dict) else {}), **asdict(config)}, separators=(",", ":"))


def memory_for(model_bytes: int) -> int:
    """Return the memory limit with a model of that size: it is mapped, and its cache and buffers come on top."""
    return max(MEMORY, model_bytes + model_bytes // 4 + MEMORY // 2)


def cpus_of(processors: int) -> float:
    """Return the processor limit on a machine with so many."""
    return CPU_SHARE if processors == 1 else float(max(1, int(processors * CPU_SHARE)))
