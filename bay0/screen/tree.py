"""What sway's tree says of windows, and what is to be said to sway so that each is where it belongs. Pure.

A window that nobody has placed is in sway's scratchpad: the configuration sends it there as it is made,
before its first frame. So is every window of a persona that runs behind, because from there a client cannot
come to the front by asking for full screen on an output (sway 1.10.1, handle_request_fullscreen, leaves those
where they are). The windows of one that is frozen, or about to be, stay on the workspace that is called as
the persona; it is shown when the persona is in front.
"""

from __future__ import annotations

import colorsys
import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from attrs import frozen

SCRATCH = "__i3_scratch"
NOBODY = "nobody"  # the workspace that is shown when no persona is
DIALOG = "dialog"  # the mark of what was made to float
WHITE = "#ffffff"
DEPTH_MAX = 100
WINDOWS_MAX = 32  # of one persona


@frozen
class Window:
    """One of the tree. `pid`: of the process that made the connection, as the kernel told sway."""

    con: int
    pid: int
    workspace: str
    visible: bool
    floats: bool
    full: bool
    dialog: bool


def windows(tree: Mapping[str, Any]) -> list[Window]:
    """Return all windows. `KeyError`, `TypeError`, `ValueError`: it is no tree."""
    return list(_windows(tree, "", 0))


def _windows(node: Mapping[str, Any], workspace: str, depth: int) -> Iterator[Window]:
    if depth > DEPTH_MAX:
        raise ValueError("a tree that is too deep")
    if node["type"] == "workspace":
        workspace = str(node["name"])
    if "pid" in node:
        dialog, full = DIALOG in node["marks"], node["fullscreen_mode"] != 0
        yield Window(
            int(node["id"]),
            int(node["pid"]),
            workspace,
            bool(node["visible"]),
            node["type"] == "floating_con",
            full,
            dialog,
        )
    for each in (*node["nodes"], *node["floating_nodes"]):
        yield from _windows(each, workspace, depth + 1)


def current(tree: Mapping[str, Any]) -> dict[str, str]:
    """Return output -> the workspace that it shows."""
    outputs = [node for node in tree["nodes"] if node["type"] == "output" and node["name"] != "__i3"]
    return {
        str(node["name"]): str(node["current_workspace"])
        for node in outputs
        if node.get("current_workspace") is not None
    }


def colour(persona: str) -> str:
    """Return the persona's own colour, as "#rrggbb": dark enough for white letters."""
    hue = int.from_bytes(hashlib.sha256(persona.encode()).digest()[:2], "big") / 65536
    return "#" + "".join(f"{round(255 * part):02x}" for part in colorsys.hls_to_rgb(hue, 0.36, 0.62))


def show(persona: str | None, outputs: Collection[str] = ()) -> str:
    """Return the commands that show a persona's workspace, in its colour; None: that of nobody.

    With more `outputs` than one it is shown on the first of them always, or the old one would stay in sight
    on another.
    """
    paint = colour(persona) if persona else "#404040"
    colours = "; ".join(
        f"client.{which} {paint} {paint} {WHITE} {paint} {paint}"
        for which in ("focused", "focused_inactive", "unfocused")
    )
    there = f'; move workspace to output "{min(outputs)}"' if len(outputs) > 1 else ""
    return f'workspace --no-auto-back-and-forth "{persona or NOBODY}"{there}; {colours}'


def mend(
    found: Sequence[Window],
    front: str | None,
    owners: Mapping[int, str | None],
    stands: Callable[[str], bool],
    closing: Collection[int],
) -> list[str]:
    """Return the commands that put right what is not: none if all is.

    `show` must follow, since sway shows where it moved something.

    `front`: whose windows may be seen. `owners`: of windows; None: nobody's, it is closed. `stands`: a
    persona that is frozen or about to be.
    `closing`: windows that were asked to close.
    """
    commands: list[str] = []
    for window in found:
        whose = owners[window.con]
        hidden = window.workspace == SCRATCH
        if whose is None:
            commands += [] if hidden else [_hide(window)]
            commands += [] if window.con in closing else [f"[con_id={window.con}] kill"]
        elif whose == front:
            commands += _place(window, whose)
        elif not hidden and not (
            stands(whose) and window.workspace == whose
        ):  # that workspace is not shown, once `show` is done
            commands.append(_hide(window))
    return commands


def _hide(window: Window) -> str:
    return f"[con_id={window.con}] fullscreen disable; [con_id={window.con}] move scratchpad"


def _place(window: Window, whose: str) -> Iterator[str]:
    """Yield what puts it on its persona's workspace.

    One that asks for full screen in the scratchpad would bring sway 1.10.1 down if moved so.
    """
    if window.workspace == whose:
        return
    at, paint = f"[con_id={window.con}]", colour(whose)
    yield f'{at} fullscreen disable; {at} move container to workspace "{whose}"'
    if not window.dialog:
        yield f"{at} floating disable"
    title = f"<span background='{paint}' foreground='white'> {whose} </span> %title"
    yield f'{at} title_format "{title}"; {at} focus'
