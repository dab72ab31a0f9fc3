"""What a persona with a network has before it starts.

A namespace of its own with its filter in it, and an end of a cable.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from bay0.base import names
from bay0.base.errors import RefusedError
from bay0.pid1 import flow

if TYPE_CHECKING:
    from bay0.loading.late import Late
    from bay0.machines.instance import Instance
    from bay0.net.cables import Cables
    from bay0.personas.manifest import Manifest
    from bay0.pid1.reactor import Reactor


def attached(
    cables: Late[Cables], reactor: Reactor, instance: Instance, wanted: Manifest, slot: int
) -> flow.Flow[str]:
    """Make what its manifest says: "", or why it must not start."""
    if wanted.network == "none":
        return ""
    yield partial(cables.load, reactor.call_soon)
    from bay0.net import allow, rules  # noqa: PLC0415 - a boot without a network does not pay for it

    entries = [entry for entry in map(allow.read, wanted.allow) if isinstance(entry, allow.Allowed)]
    table = rules.persona(entries, lan=wanted.lan, dns=wanted.dns)
    space = names.parse(instance.name).podman
    try:
        attach = cables().attach
    except RefusedError as error:
        return f"its network could not be made: {error}"
    why: str = yield partial(attach, instance.name, space, slot, table)
    return why


def words(wanted: Manifest, space: str) -> dict[str, Any]:
    """Return what podman is told of it (RunSpec)."""
    if wanted.network == "none":
        return {}
    from bay0.net.ipv4 import GATEWAY  # noqa: PLC0415 - as above
    from bay0.net.scripts import NETNS  # noqa: PLC0415 - as above

    return {"netns": f"{NETNS}/{space}", "dns": GATEWAY if wanted.dns else ""}
