"""PID 1's end of the umbilical: it owns the listening sockets and one channel to the forwarder, and no byte of a session passes through it.

A forwarder that dies loses no socket: PID 1 holds the listeners, clients wait in their backlog, and the next forwarder is told everything again.
What the forwarder says is judged like any stranger's word: each message is bounded and checked, and one that makes no sense ends it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import sys
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import define, field

from bay0 import names
from bay0.effects.service import ServiceSpec
from bay0.errors import BadNameError, RefusedError
from bay0.machines import MACHINES, tenant
from bay0.reactor import READ, WRITE
from bay0.umbilicalplaces import (
    CONSOLE_NAME,
    FORWARDER,
    RUN,
    SOCKET,
    TENANT_USER,
    UMBILICAL,
    UMBILICAL_GID,
)

if TYPE_CHECKING:
    from bay0.bounds import Bounds
    from bay0.effects.service import Services
    from bay0.machines.engine import Engine
    from bay0.reactor import Reactor, Timer

MESSAGE_MAX = 64 << 10  # bytes
MESSAGES_A_TURN = 16
OUTBOX_MAX = 512  # messages; a forwarder that does not read hangs
DOORS_MAX = 64
BACKLOG = 32  # clients that wait in one listener
UIDS = 65536  # of a container
BEAT_S = 10.0
DECISIONS_A_SECOND, DECISIONS_AT_ONCE = 5.0, 50.0  # logged; the rest is counted
MEMORY_MAX, PIDS_MAX = 96 << 20, 4  # of the forwarder's cgroup; it is one thread
TEXT_MAX = 200

Done = Callable[[bool, str, dict[str, Any]], None]


@define(eq=False, repr=False)
class _Door:
    """One listening socket. `group` None: nobody may speak there yet."""

    name: str
    path: str
    listener: socket.socket
    uid_base: int = 0
    uids: int = UIDS
    group: str | None = None


@define(eq=False, repr=False)
class _Request:
    message: dict[str, Any]
    done: Done
    timer: Timer
    sent: bool = False


@define(eq=False, repr=False)
class Umbilical:
    """Doors, the channel, and the forwarder's specification. `run`: the directory of all of it.

    `stored_seq`: the number of a machine's last stored step (BootStages.stored_seq).
    """

    reactor: Reactor
    bounds: Bounds
    log: Any
    services: Services
    engine: Engine
    stored_seq: Callable[[str], int]
    patience: float = 1.0
    run: str = RUN
    argv: tuple[str, ...] = ()
    env: dict[str, str] = field(factory=dict)
    quota: dict[str, Any] = field(factory=dict)
    pid: int = 0  # of the forwarder that said hello; 0: none is there
    facts_seen: dict[str, Any] = field(factory=dict)  # what the last heartbeat brought

    def begin(self) -> None:
        """Open the console's door and start the forwarder, unless that was done; `RefusedError` if a socket cannot be made."""
        raise NotImplementedError

    def prepare_tenant(self) -> str:
        """Make the directory where the AI's server will listen, and return it; `RefusedError` if that cannot be done."""
        raise NotImplementedError

    def prepare(self, name: str) -> str:
        """Make and open the door of the persona `name`, begin if need be, and return the directory to be mounted into it; nobody may speak yet.

        Harmless when it is open. `RefusedError` if it cannot be made.
        """
        raise NotImplementedError

    def grant(self, name: str, uid_base: int, group: str) -> None:
        """Let processes of the cgroup `group` ("/personas/libpod-ID") with uids from `uid_base` on speak at the door of `name`."""
        raise NotImplementedError

    def revoke(self, name: str) -> None:
        """Close the door of `name`, and every session that came through it; harmless if there is none."""
        raise NotImplementedError

    def tenant(self, state: str, why: str = "", group: str = "", retry_s: float = 5.0) -> None:
        """Tell the state of sys://ai and the cgroup its server must be in. Sessions run on only in ready, warming and draining."""
        raise NotImplementedError

    def warm(self, done: Done) -> None:
        """Wait for the server's health, then for one token. value: {"first_token_s"}; bound: bounds.umbilical_warm."""
        raise NotImplementedError

    def drain(self, done: Done) -> None:
        """Refuse new requests, and answer when none is in flight; bound: bounds.umbilical_drain. Over with the next `tenant("ready")`."""
        raise NotImplementedError

    def check(self, done: Done) -> None:
        """See that the tenant's own server listens and is healthy; bound: bounds.umbilical."""
        raise NotImplementedError

    def facts(self, done: Done) -> None:
        """Count. value: {name: {"connections", "requests", "refused", "bytes_in", "bytes_out", "in_flight", "open"}}; bound: bounds.umbilical."""
        raise NotImplementedError

    def close(self) -> None:
        """Close every door: the spine is going down."""
        raise NotImplementedError
