"""`bay0 tenant`: the spine's own servers, of which there is one, the AI. Thin over the control socket; its texts are here too."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from bay0.cli import client, persona, picture
from bay0.cli.kit import DONE, REFUSED, UNSETTLED, emit
from bay0.cli.persona_words import BOUNDED, LOG, log, verb
from bay0.cli.text import age, columns, on_terminal
from bay0.errors import UsageError

WAIT_S = 900.0  # seconds; bay0 answers within its own bound, which a great patience makes long
NAMES = ("ai", "sys://ai")
SCHEME = "sys://"
TOKENS = 256  # of an answer
MIB = 1 << 20
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


def list_all(options: argparse.Namespace) -> int:
    """Show all servers."""
    found = client.call("tenant.list")
    emit(options, found, listing(found))
    return DONE


def show(options: argparse.Namespace) -> int:
    """Show one, with both sides of its envelope."""
    found = client.call("tenant.show", name=full_name(options.tenant))
    emit(options, found, facts(found))
    return DONE


def move(options: argparse.Namespace) -> int:
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


def configure(options: argparse.Namespace) -> int:
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


def logs(options: argparse.Namespace) -> int:
    """Print what one wrote; also of one that is stopped."""
    from bay0 import names  # late: no other verb here needs them

    name = full_name(options.tenant)
    return persona.print_log(names.parse(name), options, lambda: what_next(client.call("tenant.show", name=name)))


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


# ---- grammar


def _ask(options: argparse.Namespace) -> int:
    from bay0.cli import ask  # late: HTTP takes a while to load

    return ask.ask(options)


def register(verbs: Any) -> None:
    """Add the verbs to the command line's."""
    _tenant(verbs)
    found = verb(
        verbs, "ask", _ask, "ask the AI something; the answer comes as it is made",
        'bay0 ask "what is a state machine?"\nbay0 ask --max-tokens 20 <question.txt',
        more="The AI runs on this machine, without any network (`bay0 tenant show ai`). --json prints one object when the answer is whole.",
    )  # fmt: skip
    found.add_argument("--json", action="store_true", help="print JSON for programs")
    found.add_argument("--max-tokens", type=int, default=TOKENS, metavar="N", help=f"tokens of the answer (default {TOKENS})")
    found.add_argument("question", nargs="*", help="the question; without one it is read from stdin")


def _tenant(verbs: Any) -> None:
    top = verb(verbs, "tenant", None, "show, start, stop and configure the spine's servers: the AI", "bay0 tenant show ai")
    words = top.add_subparsers(dest="tenant_verb", metavar="VERB", required=True)

    def add(name: str, call: Any, text: str, example: str, more: str = "", *, named: bool = True) -> argparse.ArgumentParser:
        found = verb(words, name, call, text, example, more=more)
        found.add_argument("--json", action="store_true", help="print JSON for programs")
        if named:
            found.add_argument("tenant", metavar="NAME", choices=NAMES, help="its name: `ai` is short for sys://ai")
        return found

    add("list", list_all, "list the servers", "bay0 tenant list", named=False)
    add(
        "show", show, "show one: its state and why, its envelope as wanted and as the kernel has it, and who spoke with it", "bay0 tenant show ai",
        "A ! marks a property of the envelope that is not as wanted.",
    )  # fmt: skip
    log(add("logs", logs, "print what its server wrote, also when it is stopped", "bay0 tenant logs ai -n 20 -f", LOG))
    for name, text, more in (
        ("start", "start it, and load its image first if need be", f"Status 1 if it ended in failed; the reason is printed. {BOUNDED}"),
        ("stop", "let the requests in flight end, then stop it", BOUNDED),
        ("restart", "stop it if it runs, then start it, with what `configure` has changed", BOUNDED),
    ):
        found = add(name, move, text, f"bay0 tenant {name} ai\nbay0 tenant {name} ai --no-wait", more)
        found.add_argument(
            "--wait", action=argparse.BooleanOptionalAction, default=True, help="wait until it is done (the default), or only until it is accepted"
        )
        found.set_defaults(move=name)
    found = add(
        "configure", configure, "choose its model, and whether it starts with the spine; for its next start",
        "bay0 tenant configure ai --model /persist/models/big.gguf\nbay0 tenant configure ai --default-model --no-autostart",
        "A model is a GGUF file below /persist that everybody may read; it is looked at now and at each start.",
    )  # fmt: skip
    model = found.add_mutually_exclusive_group()
    model.add_argument("--model", metavar="FILE", help="a GGUF file of your own, below /persist")
    model.add_argument("--default-model", action="store_true", help="the model in its image")
    found.add_argument("--autostart", action=argparse.BooleanOptionalAction, default=None, help="start it with the spine, or only when asked to")
