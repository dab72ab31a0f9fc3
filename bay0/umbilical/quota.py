"""What each persona may take of the AI, and whose turn it is. Pure; the time is passed in (monotonic seconds)."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from attrs import define, evolve, field, fields, frozen

TIMES = ("head_s", "body_s", "wait_s", "write_s", "stall_s", "seconds")  # a slow machine gets more of these


@frozen
class Quota:
    """The limits. Those without `all` in their name are for each door."""

    connections: int = 8  # as many again are told that these are too many; further ones wait in the listener
    connections_all: int = 256
    accepts_a_second: float = 20.0
    flights: int = 1  # requests under way in the server; further ones wait for their turn
    flights_all: int = 2
    requests_a_minute: float = 30.0
    request_bytes: int = 256 << 10
    request_bytes_all: int = 8 << 20  # of bodies that are held at the same time
    response_bytes: int = 4 << 20
    tokens: int = 512  # of an answer
    head_s: float = 10.0
    body_s: float = 30.0
    wait_s: float = 120.0  # for one's turn
    write_s: float = 30.0  # that a client does not read
    stall_s: float = 120.0  # that the server says nothing
    seconds: float = 300.0  # of a request in the server

    def changed(self, given: Mapping[str, Any], patience: float) -> Quota:
        """Return these limits with those of `given` that are known, the times multiplied by `patience`."""
        known = {each.name: type(getattr(self, each.name))(given[each.name]) for each in fields(Quota) if each.name in given}
        quota = evolve(self, **known)
        return evolve(quota, **{name: getattr(quota, name) * patience for name in TIMES})


@define(eq=False, repr=False)
class Bucket:
    """So many a second, and `burst` at once."""

    rate: float
    burst: float
    level: float = -1.0
    at: float = 0.0

    def take(self, now: float) -> float:
        """Take one and return 0, or return in how many seconds there will be one."""
        full = self.burst if self.level < 0 else min(self.burst, self.level + (now - self.at) * self.rate)
        self.at, self.level = now, full - 1 if full >= 1 else full
        return 0.0 if full >= 1 else (1 - full) / self.rate


@define(eq=False, repr=False)
class Account:
    """What came through one door. `open`: connections there now, `flying`: requests in the server now."""

    connections: int = 0
    requests: int = 0
    refused: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    open: int = 0
    flying: int = 0

    def facts(self) -> dict[str, int]:
        """Return it for people."""
        return {
            "connections": self.connections, "requests": self.requests, "refused": self.refused, "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out, "in_flight": self.flying, "open": self.open,
        }  # fmt: skip


@define(eq=False, repr=False)
class Turns:
    """Who waits for the server: round robin over doors, first come first served within one."""

    _waiting: dict[str, deque[Any]] = field(factory=dict)  # in the order of the next turns
    flying: int = 0

    def wait(self, name: str, who: Any) -> None:
        """Queue `who` of the door `name`."""
        self._waiting.setdefault(name, deque()).append(who)

    def leave(self, name: str, who: Any) -> None:
        """Forget `who`; harmless if it does not wait."""
        queue = self._waiting.get(name)
        if queue is not None and who in queue:
            queue.remove(who)
            if not queue:
                del self._waiting[name]

    def next(self, accounts: Mapping[str, Account], quota: Quota) -> Any | None:
        """Take whose turn it is, or None if nobody may go now."""
        if self.flying >= quota.flights_all:
            return None
        for name in list(self._waiting):
            if accounts[name].flying < quota.flights:
                queue = self._waiting.pop(name)
                who = queue.popleft()
                if queue:
                    self._waiting[name] = queue  # behind the others
                return who
        return None

    def everybody(self) -> list[Any]:
        """Return all that wait."""
        return [who for queue in self._waiting.values() for who in queue]
