"""How a log record looks to people, and where the log of this boot lies. Shared by PID 1 and `bay0 log`; imports next to nothing."""

from __future__ import annotations

import json
from typing import Any

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
RUN_LOG = "/run/bay0/log.jsonl"


def render(record: dict[str, Any]) -> str:
    """Return the console's form of a record: `[    3.214] bay0: event key=value`."""
    rest = {k: v for k, v in record.items() if k not in ("event", "level", "t_ms")}
    level = record.get("level", "info")
    mark = "" if LEVELS.get(level, 20) < LEVELS["warning"] else f"{level.upper()}: "
    if record["event"] == "step":
        text = "{machine}: {source} -> {dest}: {why}".format(**record)
        rest = {"after_ms": record["after_ms"], "kept": record["kept"]}
    else:
        text = record["event"]
    pairs = " ".join(f"{key}={_plain(value)}" for key, value in rest.items())
    return f"[{record.get('t_ms', 0) / 1000:12.3f}] bay0: {mark}{text}" + (f" ({pairs})" if pairs else "")


def _plain(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return json.dumps(text) if not text or any(c in text for c in ' ="\n') else text
