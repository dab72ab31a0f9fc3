"""Every machine there is, and what one entering a state tells another; docs and tests iterate over these."""

from enum import Enum

from attrs import frozen

from bay0.machines import boot, focus, inhibit, net, persona, screen, server, snapshot, storage, tenant, upgrade
from bay0.machines.table import MachineDef

MACHINES: dict[str, MachineDef] = {
    m.kind: m
    for m in (
        boot.BOOT, storage.STORAGE, tenant.TENANT, persona.PERSONA, server.SERVER, focus.FOCUS, inhibit.INHIBIT, screen.SCREEN,
        upgrade.UPGRADE, snapshot.SNAPSHOT, net.NET,
    )
}


@frozen(eq=False, repr=False)
class Ripple:
    """When a `kind` machine enters `state`, every live machine of kind `told` gets `event`."""

    kind: str
    state: Enum
    told: str
    event: Enum


RIPPLES = (
    Ripple("boot", boot.S.COMPLETE, "tenant", tenant.E.START),
    Ripple("storage", storage.S.DURABLE, "boot", boot.E.DURABLE),
    Ripple("storage", storage.S.DETACHED, "boot", boot.E.DIRTY),
    Ripple("storage", storage.S.WEDGED, "boot", boot.E.DIRTY),
    Ripple("storage", storage.S.FULL, "boot", boot.E.DIRTY),
    Ripple("storage", storage.S.READONLY, "boot", boot.E.DIRTY),
    Ripple("storage", storage.S.CLOSED, "boot", boot.E.CLOSED),
)
