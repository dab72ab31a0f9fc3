"""What a manifest's `allow` says: "203.0.113.0/24:443/tcp". Pure.

    entry    = ( address / address "/" length ) [ ":" port [ "-" port ] ] [ "/" ( "tcp" / "udp" ) ]

Without a port all of them, and ping; without a protocol tcp. No names: one that is looked up once is wrong
as soon as its addresses change, and one that cannot be looked up would decide what happens to all others.
"""

from __future__ import annotations

import re

from attrs import frozen

from bay0.net import ipv4

PORT_MAX = 65_535
_ENTRY = re.compile(r"([0-9.]+(?:/[0-9]+)?)(?::([0-9]{1,5})(?:-([0-9]{1,5}))?)?(?:/(tcp|udp))?", re.ASCII)


@frozen
class Allowed:
    """An entry. `protocol` "": all of them."""

    net: str
    ports: tuple[int, int] | None = None
    protocol: str = ""


def read(entry: str) -> Allowed | str:
    """Return what an entry allows, or what is wrong with it."""
    found = _ENTRY.fullmatch(entry)
    if found is None:
        names = (
            "names are not looked up; "
            if re.search("[a-zA-Z]", entry.removesuffix("/tcp").removesuffix("/udp"))
            else ""
        )
        return f'{entry!r} is no address or prefix with a port, like "203.0.113.0/24:443/tcp"; {names}`:PORT` and `/tcp` may be left out'
    where, low, high, protocol = found.groups()
    net = ipv4.prefix(where)
    if net is None:
        return f"{where!r} is no address or prefix"
    first = net[0] & ipv4.mask(net[1])
    if first != net[0]:
        return f"{where!r} has bits behind its length; say {ipv4.text(first)}/{net[1]}"
    if protocol and low is None:
        return f"{entry!r}: a protocol goes with a port, like {where}:443/{protocol}"
    if low is None:
        return Allowed(where)
    ports = (int(low), int(high or low))
    if not 1 <= ports[0] <= ports[1] <= PORT_MAX:
        return f"{entry!r}: ports are 1 to {PORT_MAX}, the lower one first"
    return Allowed(where, ports, protocol or "tcp")
