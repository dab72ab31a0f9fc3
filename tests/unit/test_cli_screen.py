"""What `bay0 screen` says of windows."""

from __future__ import annotations

from typing import Any

from bay0.cli import screen

READY: dict[str, Any] = {
    "state": "ready", "why": "proved", "seat": {"name": "sys://seat", "state": "running", "pid": 5, "attempts": 1},
    "compositor": {"name": "sys://compositor", "state": "running", "pid": 6, "attempts": 1, "version": "1.10.1"}, "sockets": [], "globals": 47,
    "outputs": [], "inputs": [], "impostors": 0, "front": "p://work", "console_taken": True,
    "personas": [
        {"name": "p://play", "windows": 0, "visible": 0, "in_front": False, "colour": "#236895", "socket": False},
        {"name": "p://work", "windows": 2, "visible": 1, "in_front": True, "colour": "#956c23", "socket": True},
    ],
}  # fmt: skip


def test_windows_are_told_by_persona_and_who_is_in_front() -> None:
    lines = screen.text(READY).splitlines()
    assert "in front:    p://work" in lines
    assert "persona:     p://play  no window, #236895; its socket is not served" in lines
    assert "persona:     p://work  2 windows, 1 of them seen, #956c23" in lines


def test_nobody_in_front_and_a_screen_that_is_not_ready() -> None:
    assert "in front:    no persona" in screen.text({**READY, "front": None, "personas": []}).splitlines()
    assert "in front" not in screen.text({**READY, "globals": None, "front": None, "personas": []})


def test_a_name_that_a_terminal_would_obey_is_not_printed_as_it_is() -> None:
    row = {**READY["personas"][0], "name": "p://\x1b[2J"}
    assert "\x1b" not in screen.text({**READY, "personas": [row]})
