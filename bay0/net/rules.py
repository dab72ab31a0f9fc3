"""The packet filter, as text for nft(8) and as what the kernel must say it holds. Pure.

Each rule has a comment, which is its name: so that what is read back can be compared rule by rule, whatever
the version of nft makes of a rule's words, and so that counters can be shown. A file is one transaction of
the kernel's: whole or not at all.

A persona's own table stands in its namespace, over which it has no power; the one of sys://net in that.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from attrs import frozen

from bay0.net import ipv4
from bay0.net.allow import Allowed

CARD = "card"  # what the card is called in sys://net, whatever it was before
CONNECTIONS_MAX = 1024  # of one persona at a time, so that none fills the table of all
REFUSE = "counter reject with icmpx admin-prohibited"  # heard at once: EHOSTUNREACH
ESTABLISHED = ("going on", "ct state established,related accept")
SIZE_MAX = 1 << 20  # characters of a listing that are read


@frozen
class Chain:
    """A chain with a hook. `rules`: (name, words)."""

    name: str
    kind: str
    hook: str
    priority: str
    policy: str
    rules: tuple[tuple[str, str], ...]


@frozen
class Table:
    """All that a table holds."""

    name: str
    chains: tuple[Chain, ...]
    sets: str = ""

    def text(self) -> str:
        """Return it for `nft -f`; it takes the place of one of that name."""
        lines = [
            f"table inet {self.name}",
            f"delete table inet {self.name}",
            f"table inet {self.name} {{",
            self.sets,
        ]
        for chain in self.chains:
            lines += [
                f"chain {chain.name} {{",
                f"type {chain.kind} hook {chain.hook} priority {chain.priority}; policy {chain.policy};",
            ]
            lines += [f'{words} comment "{name}"' for name, words in chain.rules]
            lines.append("}")
        return "\n".join([*lines, "}", ""])


def persona(allow: Iterable[Allowed], *, lan: bool, dns: bool) -> Table:
    """Return what stands in a persona's namespace."""
    entries = tuple(allow)
    out = [("itself", 'oifname "lo" accept'), ESTABLISHED]
    if dns:
        out.append(
            ("names", f"ip daddr {ipv4.GATEWAY} meta l4proto {{ tcp, udp }} th dport 53 counter accept")
        )
    out += [(f"allowed {number}", _allowed(entry)) for number, entry in enumerate(entries, 1)]
    if not entries:
        # also with `lan`: what is nobody's on any network, the end of its own cable among it
        never = ipv4.PRIVATE if not lan else ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")
        out += [
            ("private", f"ip daddr {{ {', '.join(never)} }} {REFUSE}"),
            ("out", "meta nfproto ipv4 counter accept"),
        ]
    out.append(("refused", REFUSE))
    inwards = (("itself", 'iifname "lo" accept'), ESTABLISHED, ("from outside", "counter drop"))
    return Table(
        "bay0",
        (
            Chain("out", "filter", "output", "filter", "drop", tuple(out)),
            Chain("in", "filter", "input", "filter", "drop", inwards),
        ),
    )


def _allowed(entry: Allowed) -> str:
    if entry.ports is None:
        return f"ip daddr {entry.net} counter accept"
    low, high = entry.ports
    ports = str(low) if low == high else f"{low}-{high}"
    return f"ip daddr {entry.net} {entry.protocol} dport {ports} counter accept"


def net() -> Table:
    """Return what stands in sys://net: from a cable to the card and back, and nothing else."""
    sets = "set cables {\ntype ifname . ipv4_addr\n}\nset counts {\ntype ifname\nsize 65535\nflags dynamic\n}"
    out = f'iifname "v*" oifname "{CARD}"'
    return Table(
        "net",
        (
            Chain("raw", "filter", "prerouting", "raw", "accept", (
                ("no IPv6", "meta nfproto ipv6 counter drop"),
                ("spoofed", 'iifname "v*" iifname . ip saddr != @cables counter drop'),
            )),
            Chain("in", "filter", "input", "filter", "drop", (
                ("itself", 'iifname "lo" accept'), ESTABLISHED,
                ("not here", f'iifname "v*" {REFUSE}'), ("from outside", "counter drop"),
            )),
            Chain("through", "filter", "forward", "filter", "drop", (
                ESTABLISHED,
                ("too many", f"{out} ct state new add @counts {{ iifname ct count over {CONNECTIONS_MAX} }} {REFUSE}"),
                ("short enough", f"{out} tcp flags syn tcp option maxseg size set rt mtu"),
                ("out", f"{out} counter accept"), ("no way", REFUSE),
            )),
            Chain("post", "nat", "postrouting", "srcnat", "accept", (("one address", f'oifname "{CARD}" counter masquerade'),)),
        ),
        sets,
    )  # fmt: skip


def names(server: str) -> Table:
    """Return what leads a persona's questions to this name server; "" leads them nowhere."""
    asked = f'iifname "v*" ip daddr {ipv4.GATEWAY} meta l4proto {{ tcp, udp }} th dport 53'
    to = f"{asked} counter dnat ip to {server}"
    return Table(
        "names", (Chain("pre", "nat", "prerouting", "dstnat", "accept", (("names", to),) if server else ()),)
    )


# ---- what the kernel says


def missing(listing: str, tables: Iterable[Table]) -> str:
    """Return in what a listing (`nft -j list ruleset`) differs from these tables, or ""."""
    found = _objects(listing)
    if found is None:
        return "nft's listing cannot be read"
    wanted: set[tuple[Any, ...]] = {("table", "inet", table.name) for table in tables}
    wanted |= {
        ("chain", table.name, chain.name, chain.kind, chain.hook, chain.policy)
        for table in tables
        for chain in table.chains
    }
    there = {_key(kind, each) for kind, each in found if kind in ("table", "chain")}
    if wanted != there:
        return f"its tables and chains are others: {min(map(str, wanted ^ there))}"
    for table in tables:
        for chain in table.chains:
            place = (table.name, chain.name)
            there_too = [
                each
                for kind, each in found
                if kind == "rule" and (each.get("table"), each.get("chain")) == place
            ]
            if [each.get("comment") for each in there_too] != [name for name, _ in chain.rules]:
                return f"the rules of {table.name}, {chain.name} are others"
    return ""


def _key(kind: str, each: dict[str, Any]) -> tuple[Any, ...]:
    if kind == "table":
        return kind, each.get("family"), each.get("name")
    return kind, each.get("table"), each.get("name"), each.get("type"), each.get("hook"), each.get("policy")


def counters(listing: str) -> list[dict[str, Any]]:
    """Return what was counted: chain, rule, packets and bytes, in the order of the rules."""
    counted = []
    for kind, each in _objects(listing) or ():
        if kind != "rule" or not isinstance(each.get("expr"), list):
            continue
        counter = next(
            (
                words["counter"]
                for words in each["expr"]
                if isinstance(words, dict) and isinstance(words.get("counter"), dict)
            ),
            None,
        )
        if counter is not None:
            numbers = {key: counter.get(key, 0) for key in ("packets", "bytes")}
            counted.append({"chain": each.get("chain"), "rule": each.get("comment"), **numbers})
    return counted


def _objects(listing: str) -> list[tuple[str, dict[str, Any]]] | None:
    """Return what a listing names, kind and facts; None if it is not one."""
    if len(listing) > SIZE_MAX:
        return None
    try:
        found = json.loads(listing)["nftables"]
        return [(kind, each) for entry in found for kind, each in entry.items() if isinstance(each, dict)]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
