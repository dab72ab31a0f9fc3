"""`bay0 net` and `bay0 persona net`: the network, and what of it a persona has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bay0.cli import client
from bay0.cli.grammar import Options
from bay0.cli.kit import DONE, REFUSED, UNSETTLED, emit
from bay0.cli.persona import ask
from bay0.cli.text import on_terminal, size

WAIT_S, LOOK_S = 30.0, 0.5
GOOD = {"up": ("up", "no_card", "no_link"), "down": ("off",)}


def status(options: Options) -> int:
    """Print the state, the card, the address and who has a cable; with --wait, once it is up."""
    found = _waited(options.wait) if options.wait else client.call("net.status", timeout_s=WAIT_S)
    emit(options, found, text(found))
    return REFUSED if options.wait and found["state"] != "up" else DONE


def _waited(seconds: float) -> Any:
    from time import monotonic, sleep

    end = monotonic() + seconds
    while True:
        found = client.call("net.status", timeout_s=WAIT_S)
        if found["state"] == "up" or monotonic() > end:
            return found
        sleep(LOOK_S)


def act(options: Options) -> int:
    """Bring it up or down (`options.move`)."""
    found = client.call(f"net.{options.move}", timeout_s=WAIT_S, wait=options.wait)
    emit(options, found, text(found))
    if found["state"] in GOOD[options.move]:
        return DONE
    return UNSETTLED if not found["settled"] else REFUSED


def configure(options: Options) -> int:
    """Change the configuration, key by key."""
    changes: dict[str, Any] = {}
    if options.dhcp:
        changes.update(address=None, gateway=None)
    for key in ("device", "address", "gateway"):
        value = getattr(options, key)
        if value is not None:
            changes[key] = value or None
    if options.dns is not None:
        changes["dns"] = [word for word in options.dns.split(",") if word] or None
    found = client.call("net.configure", timeout_s=WAIT_S, **changes)
    emit(options, found, text(found))
    return DONE if found["settled"] else UNSETTLED


def persona(options: Options) -> int:
    """Print a persona's cable, and what its filter has counted."""
    found = ask("net", options)
    emit(options, found, persona_text(found))
    return DONE


# ---- for people


def text(found: Mapping[str, Any]) -> str:
    """Return the network for people."""
    wish = "it comes up with each boot" if found["wanted"] else "no boot brings it up; `bay0 net up` does"
    lines = [f"network:   {found['state']}: {found['about']} ({wish})"]
    if found["why"]:
        lines.append(f"last:      {on_terminal(found['why'])}")
    card = found.get("card")
    if card:
        link = "has a link" if card["link"] else "no link"
        lines.append(
            f"card:      {on_terminal(card['device'])} ({on_terminal(card['bus'])}), {on_terminal(card['mac'])}, {link}"
        )
    if found.get("address"):
        left = found["lease_left_s"]
        how = "configured" if left is None else f"by DHCP, {left} s left"
        lines.append(f"address:   {found['address']}, {how}; gateway {found['gateway'] or 'none'}")
        lines.append(f"names:     {', '.join(found['dns']) or 'no name server'}")
    lines += [f"refused:   {on_terminal(each)}" for each in found.get("complaints", ())]
    kept = found["config"]
    lines.append(f"wanted:    {_wanted(kept)}")
    for helper in found.get("helpers", ()):
        pid = f", pid {helper['pid']}" if helper["pid"] else ""
        lines.append(f"helper:    {helper['name']} {helper['state']}{pid}")
    for each in found.get("cables", ()):
        lines.append(
            f"cable:     {each['persona']} at {each['address']}"
            + ("" if each["laid"] else ", not laid: no sys://net")
        )
    return "\n".join(lines)


def _wanted(kept: Mapping[str, Any]) -> str:
    words = [f"address {kept['address']}" if kept["address"] else "an address by DHCP"]
    words += [f"gateway {kept['gateway']}"] if kept["gateway"] else []
    words += [f"names from {', '.join(kept['dns'])}"] if kept["dns"] else []
    return ", ".join([*words, f"on {kept['device']}" if kept["device"] else "on the first card"])


def persona_text(found: Mapping[str, Any]) -> str:
    """Return a persona's network for people."""
    name = found["name"]
    if not found["network"]:
        return f'{name} has no network now: it does not run, or its manifest does not say network = "net"'
    cable = "a cable to sys://net" if found["laid"] else "no cable, since sys://net is down"
    lines = [f"persona:   {name}, {found['address']}, {cable}"]
    if found["why"]:
        lines.append(f"counters:  not read: {on_terminal(found['why'])}")
    lines += [
        f"{key + ':':10} {size(found[key]['bytes'])} in {found[key]['packets']} packets"
        for key in ("sent", "received")
        if found[key]
    ]
    lines += [
        f"rule:      {on_terminal(str(each['rule'])):14} {each['packets']} packets, {size(each['bytes'])}"
        for each in found["rules"]
    ]
    return "\n".join(lines)
