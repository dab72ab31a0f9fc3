"""How `sys://net` is configured: which card, and a static address or DHCP. As the database keeps it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from attrs import asdict, frozen

from bay0.net import ipv4, lease
from bay0.net.lease import Lease

_DEVICE = re.compile("[A-Za-z0-9][A-Za-z0-9:._-]{0,63}", re.ASCII)
KEYS = ("device", "address", "gateway", "dns")


@frozen
class Config:
    """Which card, and which address.

    `device`: the kernel's name of it ("virtio3", "0000:00:03.0"), "" for the first. `address`: "192.0.2.5/24",
    "" for DHCP.
    `dns`: name servers; with DHCP they are used in place of what it says.
    """

    device: str = ""
    address: str = ""
    gateway: str = ""
    dns: tuple[str, ...] = ()

    def text(self) -> str:
        """Return it as the database keeps it."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @property
    def static(self) -> Lease | None:
        """Return the address that it names, None with DHCP."""
        found = ipv4.prefix(self.address) if self.address else None
        return None if found is None else Lease(ipv4.text(found[0]), found[1], self.gateway, self.dns)


def faults(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (key, what is wrong with it)."""
    for key in values:
        if key not in KEYS:
            yield str(key), f"there is no such key; there are {', '.join(KEYS)}"
    for key in ("device", "address", "gateway"):
        if not isinstance(values.get(key, ""), str):
            yield key, "this must be text"
            return
    dns = values.get("dns", ())
    if not isinstance(dns, list | tuple) or not all(isinstance(word, str) for word in dns):
        yield "dns", 'this must be a list of addresses, like ["192.0.2.1"]'
        return
    device, address, gateway = (str(values.get(key, "")) for key in ("device", "address", "gateway"))
    if device and not _DEVICE.fullmatch(device):
        yield "device", "a device is called as below /sys/bus/*/devices: virtio3, 0000:00:03.0"
    yield from _addresses(address, gateway, list(dns))


def _addresses(address: str, gateway: str, dns: list[str]) -> Iterator[tuple[str, str]]:
    found = ipv4.prefix(address) if address else None
    own = ipv4.text(found[0]) if found else ""
    if address and (found is None or "/" not in address):
        yield (
            "address",
            f'this must be an address and the length of its subnet, like "192.0.2.5/24", not {address!r}',
        )
    elif found:
        why = lease.unfit(own, found[1])
        if why:
            yield "address", why
    if gateway and not address:
        yield "gateway", "this goes with a static address; DHCP names its own"
    elif gateway and found:
        why = lease.no_router(gateway, own, found[1])
        if why:
            yield "gateway", why
    if len(dns) > lease.SERVERS_MAX:
        yield "dns", f"{len(dns)} name servers, and {lease.SERVERS_MAX} are the most"
    for word in dns:
        why = lease.no_server(word, own)
        if why:
            yield "dns", why


def read(text: str) -> Config:
    """Return what `Config.text` made.

    The defaults for what is not fit to be used, which only another program can have written.
    """
    try:
        found = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        found = {}
    kept = {key: found[key] for key in KEYS if key in found} if isinstance(found, dict) else {}
    if any(True for _ in faults(kept)):
        return Config()
    return Config(**{**kept, "dns": tuple(kept.get("dns", ()))})
