"""What a check of `bay0 --validate` is, and what it is given to look at."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from attrs import frozen

from bay0 import net
from bay0.effects import cgroup, limbo
from bay0.screen.places import SOCKETS
from bay0.umbilical.places import CONSOLE, TENANT_SOCKET
from bay0.validate.verdict import COMPONENTS, Finding

if TYPE_CHECKING:
    from bay0.base.bounds import Bounds
    from bay0.effects.shield import Watchdog
    from bay0.loading.late import Late
    from bay0.machines.engine import Engine
    from bay0.machines.instance import Instance
    from bay0.pid1 import flow
    from bay0.pid1.reactor import Reactor
    from bay0.reconcile.mending import Mending
    from bay0.reconcile.replay import Replay
    from bay0.screen.port import Screen
    from bay0.state.port import StatePort
    from bay0.tenants.port import Services
    from bay0.umbilical.doors import Umbilical
    from bay0.validate.freezer import Freezer


@frozen
class Kernel:
    """Where the kernel says what, and where sockets would be."""

    pressure: str = "/proc/pressure"
    oom_score_adj: str = "/proc/self/oom_score_adj"
    group: str = "/proc/self/cgroup"
    mounts: str = "/proc/self/mountinfo"
    cgroups: str = cgroup.ROOT
    interfaces: str = net.SYS_NET
    routes: str = net.PROC_ROUTE
    proc: str = limbo.PROC
    manifest: str = "/usr/lib/bay0/manifest.json"
    umbilical: str = CONSOLE
    tenant: str = TENANT_SOCKET
    compositor: tuple[str, ...] = SOCKETS


@frozen(eq=False, repr=False)
class Parts:
    """What of the spine is looked at."""

    engine: Engine
    reactor: Reactor
    bounds: Bounds
    state: StatePort
    services: Services
    watchdog: Watchdog
    replay: Replay
    mending: Mending
    servers: Late[Any]  # ai.port.Ai
    umbilical: Late[Umbilical]
    screen: Late[Screen]


@frozen(eq=False, repr=False)
class Look:
    """What a check is given. `say`: what it is busy with, for those who wait."""

    parts: Parts
    kernel: Kernel
    freezer: Freezer
    say: Callable[[str], None]


@frozen(eq=False, repr=False)
class Check:
    """One check. `bound` is its bound's name in `Bounds`."""

    name: str
    look: Callable[[Look], Finding | flow.Flow[Finding]]
    bound: str = "validate_check"

    @property
    def component(self) -> str:
        """What its failure is about."""
        return COMPONENTS[self.name]


def why_of(instance: Instance) -> str:
    """Return why a machine is in its state."""
    return instance.committed.why if instance.committed is not None else "as an earlier boot left it"
