"""`bay0 tenant`: the spine's own servers, of which there is one, the AI. Thin over the control socket; its texts are here too."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from bay0.base.errors import UsageError
from bay0.cli import client, persona_own, picture
from bay0.cli.grammar import Options
from bay0.cli.kit import DONE, REFUSED, UNSETTLED, emit
from bay0.cli.text import age, columns, on_terminal

WAIT_S = 900.0  # seconds; bay0 answers within its own bound, which a great patience makes long
SCHEME = "sys://"
AMISS = {"start": ("failed", "stuck", "stopped"), "stop": ("stuck",), "restart": ("failed", "stuck", "stopped")}
NEXT = {
    "stopped": "`bay0 tenant start {0}` starts it",
    "starting": "wait for it; `bay0 events -f --machine sys://{0}` shows how it goes",
    "warming": "wait for it: its model loads, and makes a first token",
    "ready": '`bay0 ask "..."` asks it; a persona with `ai = true` in its manifest finds it at /run/ai/ai.sock',
    "pausing": "the governor freezes it for want of processors; it comes back by itself (`bay0 governor`)",
    "paused": "the governor holds it for want of processors; it comes back by itself (`bay0 governor`)",
    "resuming": "wait for it",
    "draining": "requests in flight may end, then it stops",
    "stopping": "wait for it",
    "converging": "bay0 makes sure that nothing of it is left",
    "waiting": "the next try comes by itself; `bay0 history sys://{0}` shows the last ones",
    "failed": "`bay0 tenant logs {0}` shows what its server said; `bay0 tenant start {0}` tries once more",
    "stuck": "podman could not clear it; its processes are killed and bay0 tries again by itself. `bay0 log` shows what podman said",
}


def what_next(tenant: Mapping[str, Any]) -> str:
    """Return what can be done with one in its state."""
    if tenant["state"] == "stopped" and tenant["desired"] == "running":
        return "the governor took it; it comes back when there is room (`bay0 governor`)"
    said = NEXT.get(tenant["state"], "`bay0 events -f` shows what happens to it").format(label(tenant["name"]))
    return f"{tenant['remedy']}; then {said}" if tenant.get("remedy") else said


def label(name: str) -> str:
    """Return the short form of its name."""
    return name.removeprefix(SCHEME)


def full_name(text: str) -> str:
    """Return the name that `ai` stands for."""
    return text if "://" in text else SCHEME + text


# ---- verbs


def list_all(options: Options) -> int:
    """Show all servers."""
    found = client.call("tenant.list")
    emit(options, found, listing(found))
    return DONE


def show(options: Options) -> int:
    """Show one, with both sides of its envelope."""
    found = client.call("tenant.show", name=full_name(options.tenant))
    emit(options, found, facts(found))
    return DONE


def move(options: Options) -> int:
    """Start, stop or restart (`options.move` says which)."""
    found = client.call(f"tenant.{options.move}", timeout_s=WAIT_S, name=full_name(options.tenant), wait=options.wait)
    amiss = found["settled"] and found["state"] in AMISS[options.move]
    text = f"{found['name']} is {found['state']}" + (f": {found['why']}" if amiss or found["state"] != "ready" else "") + f"; {what_next(found)}"
    if not found["settled"]:
        text = f"accepted: {text}"
    if amiss and not options.json:
        print(f"bay0: {on_terminal(text)}", file=sys.stderr)
    else:
        emit(options, found, on_terminal(text))
    return REFUSED if amiss else DONE if found["settled"] or not options.wait else UNSETTLED


def configure(options: Options) -> int:
    """Change what it is made of."""
    params: dict[str, Any] = {}
    if options.model is not None:
        params["model"] = os.path.abspath(options.model)
    if options.default_model:
        params["model"] = None
    if options.autostart is not None:
        params["autostart"] = options.autostart
    if not params:
        raise UsageError("say what to change: --model FILE, --default-model, --autostart or --no-autostart")
    found = client.call("tenant.configure", name=full_name(options.tenant), **params)
    runs = found["state"] in ("ready", "paused")
    later = f"; it counts from its next start: `bay0 tenant restart {label(found['name'])}`" if runs and "model" in params else ""
    emit(options, found, on_terminal(f"{found['name']}: {_model(found)}, {_start(found)}{later}"))
    return DONE


def logs(options: Options) -> int:
    """Print what one wrote; also of one that is stopped."""
    from bay0.base import names  # late: no other verb here needs them

    name = full_name(options.tenant)
    return persona_own.print_log(names.parse(name), options, lambda: what_next(client.call("tenant.show", name=name)))


# ---- texts


def _model(tenant: Mapping[str, Any]) -> str:
    return f"model {tenant['model']}" if tenant["model"] else "the model in its image"


def _start(tenant: Mapping[str, Any]) -> str:
    return "starts with the spine" if tenant["autostart"] else "starts when asked to"


def listing(tenants: Sequence[Mapping[str, Any]]) -> str:
    """Return `bay0 tenant list`."""
    if not tenants:
        return "this boot has no servers (yet)"
    head = ("NAME", "STATE", "DESIRED", "SINCE", "MODEL", "WHY")
    rows = [(t["name"], t["state"], t["desired"], age(t["since_ms"]), t["model"] or "the image's", t["why"]) for t in tenants]
    return on_terminal(columns([head, *rows]).replace("\n", "\x00")).replace("\\x00", "\n")


def facts(tenant: Mapping[str, Any]) -> str:
    """Return `bay0 tenant show`."""
    tried = f", attempt {tenant['attempts']}" if tenant["attempts"] else ""
    token = f"made after {tenant['first_token_s']:.1f} s" if tenant["first_token_s"] is not None else "none in this boot"
    lines = [
        f"{tenant['name']} is {tenant['state']}",
        f"desired    {tenant['desired']}{tried}",
        f"since      {tenant['since_ms'] / 1000:.3f} s on the kernel's clock, {age(tenant['since_ms'])} ago",
        f"image      {tenant['image']}",
        f"model      {tenant['model'] or 'the one in its image'}",
        f"boot       {_start(tenant)}",
        f"container  {tenant['container'][:12] if tenant['container'] else 'none'}",
        f"token      the first was {token}",
        f"why        {tenant['why']}",
        f"next       {what_next(tenant)}",
        *_envelope(tenant["envelope"]),
        *_sessions(tenant),
        *(["", *picture.table(tenant["steps"])] if tenant["steps"] else []),
    ]
    return "\n".join(on_terminal(line) for line in lines)


def _envelope(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    if not rows:
        return ["envelope   not read in this boot: it has not run"]
    head = ("", "PROPERTY", "WANTED", "FOUND")
    table = columns([head, *(("=" if r["ok"] else "!", r["name"], r["wanted"], r["found"]) for r in rows)])
    good = sum(bool(row["ok"]) for row in rows)
    return [f"envelope   {good} of {len(rows)} properties are as wanted, read from the kernel", "", *table.splitlines(), ""]


def _sessions(tenant: Mapping[str, Any]) -> list[str]:
    if not tenant["sessions"]:
        return [f"sessions   {tenant['sessions_why'] or 'none yet'}"]
    head = ("WHO", "CONNECTIONS", "REQUESTS", "REFUSED", "BYTES IN", "BYTES OUT", "IN FLIGHT")
    keys = ("connections", "requests", "refused", "bytes_in", "bytes_out", "in_flight")
    return columns([head, *((who, *(str(count.get(key, 0)) for key in keys)) for who, count in sorted(tenant["sessions"].items()))]).splitlines()
