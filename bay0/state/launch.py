"""The state worker's process: a fork of PID 1 that loads the other half of the state bridge, and never PID 1's own.

Its imports (peewee, SQLite) happen there. It goes first at the disk.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from attrs import frozen

from bay0.effects import cgroup, shield
from bay0.effects.spawn import Spawner
from bay0.loading import garbage
from bay0.state import fence

GROUP = "services/state"


@frozen(eq=False, repr=False)
class Launcher:
    """Starts workers: a `link.Launch`."""

    spawner: Spawner

    def __call__(self, theirs: socket.socket, ended: Callable[[], None]) -> Any:
        """Fork one that speaks on `theirs`; `ended` is called when it has ended. `SpawnError`."""
        return self.spawner.fork("state-worker", main, lambda _status: ended(), group=GROUP, keep=theirs.fileno())


def main() -> int:
    """Be the worker."""
    cgroup.prefer(f"{cgroup.ROOT}/{GROUP}", cgroup.SERVICES_WEIGHT)
    shield.first_at_the_disk()
    with garbage.staying():
        from bay0.state import worker  # noqa: PLC0415 - see the docstring

    fence.lift()
    return worker.main()
