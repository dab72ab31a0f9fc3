"""The kernel's half of a network, as a model: cards, namespaces, filters. It does what the scripts of `bay0/net/scripts.py` ask."""

from __future__ import annotations

import itertools
import json
import os
import re
from pathlib import Path
from typing import Any

from attrs import define, field

from bay0.effects.spawn import Ending, Result
from bay0.net import scripts
from bay0.net.scripts import MARK, SPACE

_CHAIN = re.compile(r"type (\w+) hook (\w+) priority (\w+); policy (\w+);")


@define(eq=False)
class Card:
    """A network card. `space`: the namespace that it is in; "" is the one where the kernel makes them."""

    device: str
    name: str
    index: int
    up: bool = False
    carrier: bool = True
    space: str = ""
    addresses: dict[str, str] = field(factory=dict)  # with its lifetime
    stuck: bool = False  # it cannot leave the namespace in which it was made, as one for Wi-Fi

    def shown(self) -> dict[str, Any]:
        flags = ["BROADCAST", *(["UP"] if self.up else ()), *(["LOWER_UP"] if self.up and self.carrier else ())]
        return {
            "ifname": self.name, "ifindex": self.index, "flags": flags, "link_type": "ether", "address": "52:54:00:00:00:01",
            "parentbus": "virtio", "parentdev": self.device,
        }  # fmt: skip


def listed(text: str) -> list[dict[str, Any]]:
    """Return what nft would list of a file for `nft -f`, which is ours and has one thing a line."""
    found: list[dict[str, Any]] = []
    table = chain = ""
    for line in text.splitlines():
        if line.startswith("table inet ") and line.endswith("{"):
            table = line.split()[2]
            found = [each for each in found if _table(each) != table]
            found.append({"table": {"family": "inet", "name": table}})
        elif line.startswith("chain "):
            chain = line.split()[1]
        elif match := _CHAIN.match(line):
            kind, hook, _, policy = match.groups()
            found.append({"chain": {"table": table, "name": chain, "type": kind, "hook": hook, "policy": policy}})
        elif ' comment "' in line:
            name = line.rpartition(' comment "')[2].rstrip('"')
            counted = [{"counter": {"packets": 0, "bytes": 0}}] if "counter" in line else []
            found.append({"rule": {"table": table, "chain": chain, "comment": name, "expr": counted}})
    return found


def _table(each: dict[str, Any]) -> str:
    (kind, facts), = each.items()
    return str(facts["name"] if kind == "table" else facts["table"])


@define(eq=False)
class NetKernel:
    """`pins`: the directory with a file for each pinned namespace. `fails`: script -> why it fails, once it has begun."""

    pins: Path
    cards: list[Card] = field(factory=list)
    rules: dict[str, list[dict[str, Any]]] = field(factory=dict)  # of each namespace
    cables: dict[str, tuple[str, str]] = field(factory=dict)  # the namespace at the far end -> end in sys://net, address
    routes: dict[str, str] = field(factory=dict)
    fails: dict[str, str] = field(factory=dict)
    loses: str = ""  # a rule that is not there when the kernel is asked
    calls: list[str] = field(factory=list)
    drivers: list[Card] = field(factory=list)  # that come with their driver
    _index: Any = field(factory=lambda: itertools.count(2))

    def plug(self, device: str, name: str = "eth0", *, carrier: bool = True) -> Card:
        card = Card(device, name, next(self._index), carrier=carrier)
        self.cards.append(card)
        return card

    def inside(self) -> Card | None:
        return next((card for card in self.cards if card.space == SPACE), None)

    def there(self, space: str) -> bool:
        return (self.pins / space).exists()

    def remove(self, space: str) -> None:
        """A namespace ends: its card comes back to where cards are made, its cables are gone."""
        (self.pins / space).unlink(missing_ok=True)
        self.rules.pop(space, None)
        self.cables.pop(space, None)
        for card in self.cards:
            if card.space == space:
                card.space, card.up, card.name, card.addresses = "", False, f"dev{card.index}", {}
        if space == SPACE:
            self.cables.clear()
            self.routes.clear()

    def run(self, name: str, argv: list[str], files: Any) -> Result:
        self.calls.append(name)
        if name == "modprobe-cards":
            self.cards += self.drivers
            self.drivers = []
        if not argv[0].endswith("/sh"):
            return self._result("")
        text = os.pread(files[0][1], 1 << 20, 0).decode() if files else ""
        if name in self.fails:
            return Result(Ending.EXITED, 1, "", self.fails[name], 0, 0.0)
        script, words = argv[2], argv[4:]
        does = {
            scripts.RAISE: self._raise, scripts.LOWER: self._lower, scripts.LOOK: self._look, scripts.MOVE: self._move,
            scripts.RETURN: self._return, scripts.BRING_UP: self._up, scripts.SET: self._set, scripts.UNSET: self._unset,
            scripts.NAMESPACE: self._namespace, scripts.CABLE: self._cable, scripts.UNPIN: self._unpin, scripts.COUNT: self._count,
        }[script]  # fmt: skip
        return does(text, *words)

    @staticmethod
    def _result(stdout: str, why: str = "") -> Result:
        return Result(Ending.EXITED, 1 if why else 0, stdout, why, 0, 0.0)

    def _pin(self, space: str) -> None:
        self.remove(space)
        (self.pins / f"{space}.new").write_text("")  # a new inode
        (self.pins / f"{space}.new").rename(self.pins / space)

    def _listing(self, space: str) -> str:
        kept = [each for each in self.rules.get(space, ()) if each.get("rule", {}).get("comment") != self.loses]
        return json.dumps({"nftables": [{"metainfo": {}}, *kept]})

    def _filter(self, space: str, text: str) -> None:
        new = listed(text)
        tables = {_table(each) for each in new}
        self.rules[space] = [*(each for each in self.rules.get(space, ()) if _table(each) not in tables), *new]

    def _raise(self, text: str) -> Result:
        self._pin(SPACE)
        self._filter(SPACE, text)
        return self._result(self._listing(SPACE))

    def _lower(self, _text: str) -> Result:
        self.remove(SPACE)
        return self._result("")

    def _look(self, _text: str) -> Result:
        if not self.there(SPACE):
            return self._result("", "no such namespace")
        inside, outside = self.inside(), [card.shown() for card in self.cards if card.space == ""]
        return self._result("\n".join([json.dumps([inside.shown()]) if inside else "", MARK, json.dumps(outside)]))

    def _move(self, _text: str, name: str) -> Result:
        card = next((each for each in self.cards if each.space == "" and each.name == name), None)
        if card is None or card.stuck or self.inside() is not None:
            return self._result("", "no such device")
        card.space, card.name, card.up = SPACE, "card", False
        return self._result("")

    def _return(self, _text: str, name: str) -> Result:
        card = self.inside()
        if card is None:
            return self._result("", "no such device")
        card.space, card.name, card.up, card.addresses = "", name, False, {}
        return self._result("")

    def _up(self, _text: str) -> Result:
        card = self.inside()
        if card is None:
            return self._result("", "no such device")
        card.up = True
        return self._result(json.dumps([card.shown()]))

    def _set(self, text: str, address: str, life: str, gateway: str, old: str) -> Result:
        card = self.inside()
        if card is None:
            return self._result("", "no such device")
        card.addresses.pop(old, None)
        card.addresses[address] = life
        self.routes = {"default": gateway} if gateway else {}
        self._filter(SPACE, text)
        return self._result(self._listing(SPACE))

    def _unset(self, _text: str) -> Result:
        card = self.inside()
        if card is not None:
            card.addresses.clear()
        return self._result("")

    def _namespace(self, text: str, space: str) -> Result:
        self._pin(space)
        self._filter(space, text)
        return self._result(self._listing(space))

    def _cable(self, _text: str, space: str, end: str, address: str, _gateway: str) -> Result:
        if not (self.there(SPACE) and self.there(space)):
            return self._result("", "no such namespace")
        self.cables = {far: near for far, near in self.cables.items() if near[0] != end}
        self.cables[space] = (end, address)
        return self._result("")

    def _unpin(self, _text: str, space: str) -> Result:
        if not self.there(space):
            return self._result("", "no such namespace")
        (self.pins / space).unlink()  # who lives in it keeps it
        return self._result("")

    def _count(self, _text: str, space: str) -> Result:
        stats = [{"stats64": {way: {"bytes": 7, "packets": 1} for way in ("rx", "tx")}}]
        return self._result("\n".join([json.dumps(stats), MARK, self._listing(space)]))
