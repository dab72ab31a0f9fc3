"""A client of the control socket, and which one gives way when all places are taken."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable

from attrs import define, field

from bay0.control.answers import Outbox

LISTEN_MAX = 256 << 10  # bytes waiting for a client: what it asks next has to wait until it has taken some
CLIENTS_MAX = 32
UNDER_WAY_MAX = 256  # requests of one client; more wait in its socket
STILL = 0.2  # of a frame's bound: who has taken nothing of its answer for so long is not spared any more
FRAMES_AT_ONCE = 32  # of one client, so that its flood leaves some of a turn to the others


@define(eq=False, repr=False)
class Client:
    """One connection: what it sent, what waits for it, and when it last did something."""

    peer: socket.socket
    inbox: bytearray = field(factory=bytearray)
    outbox: Outbox = field(factory=Outbox)
    open: bool = True
    closing: bool = False
    busy: bool = False  # whole frames wait in its inbox: nothing more is read from it
    queued: bool = False  # it is in the server's queue
    owed: int = 0  # answers
    active: float = 0.0  # when it last sent or took something
    half: float | None = None  # since when there is half a frame
    still: float = 0.0  # if something waits for it: since when it takes nothing
    alone: bool = False  # a request is under way that no other of it may run beside

    @property
    def last(self) -> float:
        """When it last did something; if something waits for it, only taking that counts."""
        return self.still if self.outbox else self.active

    @property
    def heard(self) -> bool:
        """What it asks next is looked at."""
        return not (self.closing or self.alone or self.owed >= UNDER_WAY_MAX or self.outbox.waiting >= LISTEN_MAX)


def floods(client: Client) -> bool:
    """Tell whether more of its frames wait than are handled at once."""
    return client.inbox.count(b"\n") > FRAMES_AT_ONCE


def who_gives_way(clients: Iterable[Client], now: float, frame_s: float) -> Client | None:
    """Return who gives way to one more: who has done nothing for longest, or else who floods.

    Not who waits for an answer, and not who is taking one, as long as those take no more than half of the places.
    """
    taking = sorted((client for client in clients if client.outbox), key=lambda client: now - client.last)
    spared = {client for client in taking[: CLIENTS_MAX // 2] if now - client.last < STILL * frame_s}
    found = [each for each in clients if not each.owed and each not in spared and (not each.queued or floods(each))]
    return min(found, key=lambda client: (client.queued, client.last), default=None)


def peer_uid(peer: socket.socket) -> int:
    """Return the effective uid of the process that called connect(2) (unix(7), SO_PEERCRED)."""
    _pid, uid, _gid = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return int(uid)
