"""What `ip -j -d link show` says of interfaces, read strictly. Pure.

`parentdev` is the kernel's name of the device behind an interface (IFLA_PARENT_DEV_NAME, Linux 5.14): what
a card is known by.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from attrs import frozen

BUSES_FIRST = ("pci", "virtio", "usb")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}", re.ASCII)
_DEVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9:._-]{0,63}", re.ASCII)


@frozen
class Link:
    """An interface.

    `device`: what is behind it; `up`: it was brought up; `carrier`: something is at the other end.
    """

    name: str
    index: int
    device: str
    bus: str
    mac: str
    up: bool
    carrier: bool


def read(text: str) -> tuple[Link, ...]:
    """Return the cards in a listing: interfaces that a device is behind. () if it makes no sense."""
    try:
        found = json.loads(text) if text.strip() else []
    except (ValueError, RecursionError):
        return ()
    links = map(_link, found if isinstance(found, list) else ())
    return tuple(link for link in links if link is not None)


def _link(each: Any) -> Link | None:
    if not isinstance(each, dict) or not isinstance(each.get("ifindex"), int):
        return None
    name, device, flags = each.get("ifname"), each.get("parentdev"), each.get("flags")
    if not (
        isinstance(name, str)
        and _NAME.fullmatch(name)
        and isinstance(device, str)
        and _DEVICE.fullmatch(device)
    ):
        return None
    if each.get("link_type") != "ether" or not isinstance(flags, list):
        return None
    up = "UP" in flags
    return Link(
        name,
        each["ifindex"],
        device,
        str(each.get("parentbus", "")),
        str(each.get("address", "")),
        up,
        up and "LOWER_UP" in flags,
    )


def ordered(links: Iterable[Link], device: str) -> tuple[Link, ...]:
    """Return the cards to try: the one of that device, or without one all of them by bus and device."""
    there = sorted(links, key=lambda link: (link.bus not in BUSES_FIRST, link.bus, link.device))
    return tuple(link for link in there if device in ("", link.device))
