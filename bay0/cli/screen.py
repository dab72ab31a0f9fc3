"""`bay0 screen`: the screen, its seat and its compositor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bay0.cli import client
from bay0.cli.grammar import Options
from bay0.cli.kit import DONE, REFUSED, emit
from bay0.cli.text import on_terminal

ANSWER_S = 30.0  # beside what was asked to be waited for


def show(options: Options) -> int:
    """Print it; with --wait, once it is ready."""
    found = client.call("screen", timeout_s=options.wait + ANSWER_S, wait=options.wait)
    emit(options, found, text(found))
    return REFUSED if options.wait and found["state"] != "ready" else DONE


def text(found: Mapping[str, Any]) -> str:
    """Return the screen for people."""
    lines = [f"screen:      {found['state']}: {on_terminal(found['why'])}"]
    if found["compositor"] is None:
        return lines[0]
    lines += [_tenant("seat:", found["seat"]), _tenant("compositor:", found["compositor"])]
    for each in found["sockets"]:
        answers = (
            f"answered by pid {each['pid']}, the one that was started"
            if each["proved"]
            else "not proved: it is not used"
        )
        lines.append(f"socket:      {each['path']}, {answers}")
    if found["globals"] is not None:
        lines.append(
            f"offers:      {found['globals']} globals, all allowed, no dmabuf: only the compositor's own buffers are shown"
        )
    if found["impostors"]:
        lines.append(f"impostors:   {found['impostors']} were refused; `bay0 log` names them")
    lines += [f"output:      {_output(each)}" for each in found["outputs"]]
    if found["globals"] is not None and not found["outputs"]:
        lines.append("output:      none is connected")
    if found["globals"] is not None:
        lines.append(f"in front:    {on_terminal(found['front'] or 'no persona')}")
    lines += [f"persona:     {_persona(each)}" for each in found["personas"]]
    lines += [
        f"input:       {each['node']}  {on_terminal(each['name'])}: {_kinds(each['kinds'])}"
        for each in found["inputs"]
    ]
    return "\n".join(lines)


def _tenant(label: str, tenant: Mapping[str, Any]) -> str:
    more = [tenant["state"]]
    more += [f"pid {tenant['pid']}"] if tenant["pid"] is not None else []
    more += [on_terminal(tenant["version"])] if tenant.get("version") else []
    more += [f"attempt {tenant['attempts']}"] if tenant["attempts"] > 1 else []
    return f"{label:12} {tenant['name']}, {', '.join(more)}"


def _output(output: Mapping[str, Any]) -> str:
    shown = f"{output['width']}x{output['height']} at {output['refresh_hz']:g} Hz" if output["on"] else "off"
    model = " ".join(filter(None, (output["make"], output["model"])))
    return on_terminal(f"{output['name']}  {shown}" + (f"  ({model})" if model else ""))


def _persona(persona: Mapping[str, Any]) -> str:
    count = persona["windows"]
    windows = "no window" if not count else f"{count} window{'s' if count > 1 else ''}, {persona['visible'] or 'none'} of them seen"
    return on_terminal(f"{persona['name']}  {windows}, {persona['colour']}" + ("" if persona["socket"] else "; its socket is not served"))


def _kinds(kinds: list[str]) -> str:
    named = [kind for kind in kinds if kind != "key" or len(kinds) == 1]
    return ", ".join(named) or "nothing that is used"
