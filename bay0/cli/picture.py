"""A boot as a picture (SVG) and as a table: the steps, how long each took, what was kept."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

Steps = Iterable[Mapping[str, Any]]
ROW, LEFT, WIDTH, TOP = 26, 200, 640, 56
TICKS_MAX = 20
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, section 2.2
COLOURS = {"boot": "#3b6ea5", "storage": "#b58900", "upgrade": "#6a51a3"}


def spans(steps: Steps) -> list[dict[str, Any]]:
    """Turn steps, oldest first, into spans: each state from its entry to the next step of the same machine in the same boot.

    Milliseconds since that boot's kernel started.
    """
    found: list[dict[str, Any]] = []
    open_spans: dict[tuple[str, str], dict[str, Any]] = {}
    for step in steps:
        before = open_spans.get((step["boot_id"], step["machine"]))
        if before is not None:
            before["end_ms"] = step["at_ms"]
        span = {
            "machine": _name(step), "kind": step["kind"], "state": step["dest"],
            "start_ms": step["at_ms"], "end_ms": None, "why": step["why"],
        }  # fmt: skip
        found.append(span)
        open_spans[step["boot_id"], step["machine"]] = span
    return found


def _name(step: Mapping[str, Any]) -> str:
    """Return `boot` and `storage` for the step's own boot's, else the machine's full name."""
    own = f"{step['kind']}:{step['boot_id'][:8]}"
    return str(step["kind"] if step["machine"] == own else step["machine"])


def table(steps: Steps) -> list[str]:
    """Return one line a span: when it began, how long it took, which machine, which state, why."""
    lines = [f"{'at':>9}  {'took':>9}  {'machine':14} {'state':12} why"]
    for span in spans(steps):
        took = "" if span["end_ms"] is None else f"{span['end_ms'] - span['start_ms']} ms"
        lines.append(f"{span['start_ms'] / 1000:7.3f} s  {took:>9}  {span['machine']:14} {span['state']:12} {span['why']}")
    return lines


def _text(text: str) -> str:
    """Escape for XML, which has no place at all for some characters; a reason may hold what a command wrote."""
    return escape(_NO_XML.sub("\ufffd", text))


def _tick(last_ms: int) -> int:
    """Return the seconds between two lines of the scale: 1, 2, 5, 10 ... so that there are few."""
    tick = 1
    while last_ms / 1000 / tick > TICKS_MAX:
        tick = tick * 5 // 2 if str(tick)[0] == "2" else tick * 2
    return tick


def svg(boot: Mapping[str, Any]) -> str:
    """Draw a boot as a Gantt chart. Spans that are still open end with the last step."""
    rows = [s for s in spans(boot["steps"]) if s["end_ms"] is not None or s["kind"] == "boot"]
    last = max([s["end_ms"] or s["start_ms"] for s in rows], default=1)
    scale = WIDTH / max(last, 1)
    height = TOP + ROW * (len(rows) + 1)
    title = f"boot {boot['boot_id']}, bay0 {boot['version']}, kernel {boot['kernel']}"
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 120}" height="{height}" font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="12" y="24" font-size="16">{_text(title)}</text>',
    ]
    for second in range(0, int(last / 1000) + 1, _tick(last)):
        x = LEFT + second * 1000 * scale
        out.append(f'<line x1="{x:.1f}" y1="{TOP - 12}" x2="{x:.1f}" y2="{height - 10}" stroke="#ddd"/>')
        out.append(f'<text x="{x + 2:.1f}" y="{TOP - 4}" fill="#666">{second} s</text>')
    for number, span in enumerate(rows):
        y = TOP + number * ROW
        end = span["end_ms"] if span["end_ms"] is not None else last
        wide = max(2.0, (end - span["start_ms"]) * scale)
        x = LEFT + span["start_ms"] * scale
        colour = COLOURS.get(span["kind"], "#777")
        out.append(f'<text x="12" y="{y + 17}">{_text(span["machine"])} {_text(span["state"])}</text>')
        out.append(f'<rect x="{x:.1f}" y="{y + 4}" width="{wide:.1f}" height="{ROW - 8}" fill="{colour}"><title>{_text(span["why"])}</title></rect>')
        out.append(f'<text x="{x + wide + 4:.1f}" y="{y + 17}" fill="#333">{end - span["start_ms"]} ms</text>')
    return "\n".join([*out, "</svg>"]) + "\n"
