"""What the compositor is told, and its places on /run.

Made anew by PID 1 before each start, so that nothing of an earlier one counts.
"""

from __future__ import annotations

import contextlib
import os

from bay0.effects import mounts
from bay0.screen.bar import DIGITS, INK
from bay0.screen.places import CTRL_ALT_DEL, Places
from bay0.screen.tree import DIALOG

FONT = "DejaVu Sans 10"
BACKGROUND, GROUND = "#24313f", "#141b23"
BAR_HEIGHT = 24  # pixels; it is above a window that has the full screen, and takes no input
PERSONA, NEXT = "nop bay0 persona", "nop bay0 next"  # what keys say
MODE_OF_BAR = 0o640

def text(places: Places) -> str:
    """Return the compositor's configuration (sway(5)).

    No binding starts a program: a `nop` is heard by PID 1, over the IPC.
    """
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


def _keys() -> str:
    """Return the keys of the switch. None starts a program."""
    digits = (f"bindsym Mod4+{digit} {PERSONA} {digit}" for digit in range(1, DIGITS + 1))
    return "\n".join((*digits, f"bindsym Mod4+Tab {NEXT}"))


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


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
