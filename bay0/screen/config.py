"""What the compositor is told, and its places on /run: made anew by PID 1 before each start, so that nothing of an earlier one counts."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence

from attrs import frozen

from bay0.effects import mounts
from bay0.screen.places import CTRL_ALT_DEL, Places
from bay0.screen.tree import DIALOG, WHITE, colour

FONT = "DejaVu Sans 10"
BACKGROUND, GROUND, INK, DIM = "#24313f", "#141b23", "#e8edf2", "#9fb0c0"
BAR_HEIGHT = 24  # pixels; it is above a window that has the full screen, and takes no input
PERSONA, NEXT = "nop bay0 persona", "nop bay0 next"  # what keys say
DIGITS = 9
MODE_OF_BAR = 0o640
ROWS_MAX = 4096  # bytes of one line of the bar: PIPE_BUF, which is written whole or not at all


def text(places: Places) -> str:
    """Return the compositor's configuration (sway(5)). No binding starts a program: a `nop` is heard by PID 1, over the IPC."""
    return f"""# Written by bay0 before each start of the compositor: changes are lost.
xwayland disable
font pango:{FONT}
default_border normal 2
focus_follows_mouse no
focus_on_window_activation none
floating_modifier none
seat * hide_cursor 10000
output * background {BACKGROUND} solid_color
no_focus [shell=".*"]
for_window [floating] mark --add {DIALOG}
for_window [shell=".*"] move scratchpad
gaps top {BAR_HEIGHT}
bindsym --locked Ctrl+Alt+Delete {CTRL_ALT_DEL}
{_keys()}
bar {{
    position top
    mode overlay
    height {BAR_HEIGHT}
    font pango:{FONT}
    tray_output none
    workspace_buttons no
    binding_mode_indicator no
    status_command exec cat {places.bar}
    status_padding 4
    colors {{
        background {GROUND}
        statusline {INK}
    }}
}}
"""


HEADER = '{"version":1}\n[\n'  # of the protocol that swaybar reads (swaybar-protocol(7)); "[" is never closed


@frozen
class Block:
    """A text in the bar, and its colours."""

    text: str
    ink: str
    ground: str = ""

    def behind(self) -> dict[str, str]:
        """Return what the bar's protocol says of the ground."""
        return {"background": self.ground} if self.ground else {}


def line(blocks: Sequence[Block]) -> str:
    """Return a line of the bar. Texts are shown as they are: no markup."""
    shown = [
        {"full_text": f" {each.text} ", "color": each.ink, "separator": False, "markup": "none", **each.behind()}
        for each in blocks
    ]
    return json.dumps(shown) + ",\n"


def _keys() -> str:
    """Return the keys of the switch. None starts a program."""
    return "\n".join((*(f"bindsym Mod4+{digit} {PERSONA} {digit}" for digit in range(1, DIGITS + 1)), f"bindsym Mod4+Tab {NEXT}"))


def in_front(persona: str | None, others: Sequence[str] = ()) -> list[Block]:
    """Return what the bar says: who is in front, in his colour, and which key brings whom there."""
    said = Block(persona, WHITE, colour(persona)) if persona else Block("no persona is in front", INK)
    keys = [Block(f"{number} {name}", INK if name == persona else DIM) for number, name in enumerate(others[:DIGITS], start=1)]
    return [Block("Alpine-Spline", DIM), said, *keys]


def prepare(places: Places) -> None:
    """Make the directories, the configuration and the bar's FIFO anew. `OSError` if one cannot be made."""
    os.makedirs(places.run, mode=0o755, exist_ok=True)
    if places.private:
        mounts.fresh_tmpfs(places.home, places.options)
    _remove(places.config)
    fd = os.open(places.config, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    with os.fdopen(fd, "w", encoding="ascii") as file:
        file.write(text(places))
    _remove(places.bar)
    os.mkfifo(places.bar, 0o600)
    os.chown(places.bar, -1, places.gid)
    os.chmod(places.bar, MODE_OF_BAR)


def open_bar(places: Places) -> int:
    """Open the bar's FIFO for writing: kept open, so that its reader never sees an end. `OSError` if it is not there."""
    return os.open(places.bar, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)


def write_bar(fd: int, text: str) -> bool:
    """Write whole lines; tell whether there was room. One who does not read misses a line, and nobody waits for him."""
    data = text.encode()
    if len(data) > ROWS_MAX:
        return False
    with contextlib.suppress(OSError):
        return os.write(fd, data) == len(data)
    return False


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
