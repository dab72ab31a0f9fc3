"""What an address is made of, whoever says it: the DHCP client's words, or a configuration. Pure.

Theory of operation. The client (busybox udhcpc) runs as nobody and may apply nothing. Its script writes one
line for each event to a pipe, with the five values below and no other: no routes (option 121), no MTU, no
name. A DHCP server is anybody on the cable, so each value is read strictly here. An address, mask or lease
that makes no sense refuses the whole answer; a router or a name server that makes none is left out, and
said.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from attrs import frozen

from bay0.net import ipv4

LINE_MAX = 512  # bytes
SERVERS_MAX = 3  # name servers that are kept
LEASE_MIN_S = 30  # shorter ones would keep the spine busy
FOREVER = 0xFFFFFFFF  # seconds: RFC 2131, section 3.3, and the kernel's own word for it
LENGTH_MIN = 8  # of a subnet's prefix
GIVEN, TAKEN, NOTHING = ("bound", "renew"), ("deconfig", "nak"), ("leasefail",)
_LINE = re.compile(r"([a-z]+)((?: [a-z]+=[0-9.,]*)*)", re.ASCII)
_KEYS = {"ip", "subnet", "router", "dns", "lease"}
_SECONDS = re.compile("[1-9][0-9]{0,9}", re.ASCII)


@frozen
class Lease:
    """An address with all that belongs to it.

    `seconds` that it may be used, None: for good. `without`: what was left out, in words.
    """

    address: str
    length: int
    gateway: str = ""
    dns: tuple[str, ...] = ()
    seconds: int | None = None
    without: tuple[str, ...] = ()


@frozen
class Report:
    """An event of the client.

    `lease`: what it was given, if that is fit to be used; else `why`. `lost`: it has nothing any more.
    """

    lease: Lease | None = None
    why: str = ""
    lost: bool = False


def report(line: bytes) -> Report:
    """Read one line of the client's script."""
    if len(line) > LINE_MAX:
        return Report(why=f"a line of {len(line)} bytes")
    found = _LINE.fullmatch(line.decode("ascii", "replace"))
    if found is None:
        return Report(why="a line that makes no sense")
    pairs = [word.split("=") for word in found[2].split()]
    values = dict(pairs)
    if len(values) != len(pairs) or not values.keys() <= _KEYS:
        return Report(why="a line that says something twice, or what nobody asked for")
    if found[1] in GIVEN:
        lease = made(
            values.get("ip", ""),
            values.get("subnet", ""),
            values.get("router", ""),
            values.get("dns", ""),
            values.get("lease", ""),
        )
        return (
            Report(why=f"the DHCP server's answer is refused: {lease}")
            if isinstance(lease, str)
            else Report(lease)
        )
    if found[1] in TAKEN:
        return Report(
            why="the DHCP server has taken it back" if found[1] == "nak" else "the client begins anew",
            lost=True,
        )
    return Report(why="no DHCP server answers" if found[1] in NOTHING else "an event that is not known")


def made(ip: str, subnet: str, router: str, dns: str, seconds: str) -> Lease | str:
    """Return what a DHCP server gave, or why it is refused."""
    mask = ipv4.number(subnet)
    length = None if mask is None else next((n for n in range(ipv4.BITS + 1) if ipv4.mask(n) == mask), None)
    if length is None:
        return f"{subnet or 'nothing'} is no subnet mask"
    why = unfit(ip, length)
    if why:
        return why
    if not _SECONDS.fullmatch(seconds) or not LEASE_MIN_S <= int(seconds) <= FOREVER:
        return f"a lease of {seconds or 'no'} seconds; {LEASE_MIN_S} are the least"
    routers, servers = [word for word in router.split(",") if word], [word for word in dns.split(",") if word]
    gateways, no_gateway = _fit(routers, lambda word: no_router(word, ip, length))
    names, no_names = _fit(servers, lambda word: no_server(word, ip))
    life = None if int(seconds) == FOREVER else int(seconds)
    return Lease(
        ip,
        length,
        gateways[0] if gateways else "",
        tuple(names[:SERVERS_MAX]),
        life,
        (*no_gateway, *no_names),
    )


def _fit(words: Iterable[str], why_not: Callable[[str], str]) -> tuple[list[str], list[str]]:
    """Return those that may be used, and why the others may not."""
    judged = [(word, why_not(word)) for word in dict.fromkeys(words)]
    return [word for word, why in judged if not why], [why for _, why in judged if why]


def unfit(address: str, length: int) -> str:
    """Return why a card cannot have this address in a subnet of that length, or ""."""
    value = ipv4.number(address)
    if value is None:
        return f"{address or 'nothing'} is no address"
    if length < LENGTH_MIN:
        return f"a subnet of /{length}; /{LENGTH_MIN} is the largest"
    if ipv4.nobodys(value):
        return f"{address} is in {ipv4.nobodys(value)}, which no card has here"
    host = value & ~ipv4.mask(length)
    if length <= ipv4.BITS - 2 and host in (0, (1 << (ipv4.BITS - length)) - 1):
        return f"{address} is the first or the last address of its subnet /{length}, which no host has"
    return ""


def no_router(word: str, address: str, length: int) -> str:
    """Return why this cannot be the gateway of a card with that address, or ""."""
    value, own = ipv4.number(word), ipv4.number(address)
    if value is None or own is None:
        return f"the gateway {word} is no address"
    if value == own or ipv4.nobodys(value):
        return f"the gateway {word} is nobody's, or the card's own"
    return (
        ""
        if ipv4.within(value, f"{address}/{length}")
        else f"the gateway {word} is not in the subnet {address}/{length}"
    )


def no_server(word: str, address: str) -> str:
    """Return why personas cannot be sent to this name server, or ""."""
    value = ipv4.number(word)
    if value is None:
        return f"the name server {word} is no address"
    bad = word == address or ipv4.nobodys(value)
    return f"the name server {word} is nobody's, or the card's own" if bad else ""
