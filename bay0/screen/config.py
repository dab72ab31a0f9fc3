"""What the compositor is told, and its places on /run: made anew by PID 1 before each start, so that nothing of an earlier one counts."""

from __future__ import annotations

import contextlib
import json
import os

from bay0.effects import mounts
from bay0.screen.places import CTRL_ALT_DEL, Places

FONT = "DejaVu Sans 10"
BACKGROUND, GROUND, INK, DIM = "#24313f", "#141b23", "#e8edf2", "#9fb0c0"
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
bindsym --locked Ctrl+Alt+Delete {CTRL_ALT_DEL}
bar {{
    position top
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


def line(blocks: list[tuple[str, str]]) -> str:
    """Return a line of the bar: texts with their colours. They are shown as they are: no markup."""
    shown = [{"full_text": f" {text} ", "color": color, "separator": False, "markup": "none"} for text, color in blocks]
    return json.dumps(shown) + ",\n"


def in_front(persona: str | None) -> list[tuple[str, str]]:
    """Return what the bar says of who is in front."""
    return [("Alpine-Spline", DIM), (persona, INK) if persona else ("no persona is in front", INK)]


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
