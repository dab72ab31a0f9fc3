"""Watching cgroups: the kernel says when the last process of one has ended, or when it is frozen (cgroup-v2.rst, cgroup.events).

One inotify(7) descriptor for all. What was noticed is not trusted but looked up: a call means "look again", and looking is cheap.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

from attrs import define, field

from bay0.base.syscalls import IN_MODIFY, inotify_add, inotify_init, inotify_remove
from bay0.pid1.reactor import READ

if TYPE_CHECKING:
    from bay0.pid1.reactor import Reactor, Timer

LOOK_S = 1.0  # how often those are looked at that cannot be watched
_EVENT = struct.Struct("iIII")  # watch, mask, cookie, length of the name behind it
READ_SIZE = 64 << 10


@define(eq=False, repr=False)
class CgroupWatch:
    """Calls whoever asked when a cgroup's events change, or the cgroup is gone."""

    reactor: Reactor
    _fd: int = -1
    _calls: dict[int, Callable[[], None]] = field(factory=dict)
    _numbers: dict[str, int] = field(factory=dict)
    _unwatched: dict[str, Callable[[], None]] = field(factory=dict)
    _looking: Timer | None = None

    def add(self, directory: str, call: Callable[[], None]) -> bool:
        """Call `call` in a later turn whenever `directory`'s state may have changed; False if it is not there."""
        try:
            self._add(directory, call)
        except FileNotFoundError:
            return False
        except OSError:
            self._unwatched[directory] = call
            self._look_later()
        return True

    def _add(self, directory: str, call: Callable[[], None]) -> None:
        if self._fd < 0:
            self._fd = inotify_init()
            self.reactor.watch(self._fd, READ, self._ready)
        number = inotify_add(self._fd, f"{directory}/cgroup.events", IN_MODIFY)
        self._calls[number], self._numbers[directory] = call, number

    def _look_later(self) -> None:
        if self._looking is None or self._looking.call is None:
            self._looking = self.reactor.call_later(LOOK_S, self._look)

    def _look(self) -> None:
        """Have those looked at that the kernel cannot watch for us: no descriptor, or no watch, was left."""
        waiting, self._unwatched = self._unwatched, {}
        for directory, call in waiting.items():
            self.add(directory, call)
            self.reactor.call_soon(call)

    def remove(self, directory: str) -> None:
        """Watch it no longer; harmless if it is not watched."""
        self._unwatched.pop(directory, None)
        number = self._numbers.pop(directory, None)
        if number is not None:
            self._calls.pop(number, None)
            with contextlib.suppress(OSError):  # the kernel forgot it together with the cgroup
                inotify_remove(self._fd, number)

    def _ready(self, _ready: int) -> None:
        try:
            data = os.read(self._fd, READ_SIZE)
        except BlockingIOError:
            return
        noticed, at = set(), 0
        while at < len(data):
            number, _mask, _cookie, length = _EVENT.unpack_from(data, at)
            at += _EVENT.size + length
            noticed.add(number)
        if -1 in noticed:  # IN_Q_OVERFLOW: any of them may have been lost
            noticed = set(self._calls)
        for number in noticed:
            call = self._calls.get(number)
            if call is not None:
                self.reactor.call_soon(call)
