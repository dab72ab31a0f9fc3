"""The personas' ways to the screen: a socket for each, which PID 1 holds, so that it outlives the compositor.

A persona has the directory mounted read-only; its socket is the same as long as the persona lives. Whoever
connects while there is no compositor waits in the backlog. Each compositor is given the sockets anew with a
security context, which takes from a client whatever looks, types, draws over or carries (registry.py). On a
machine without a screen nobody listens there: a program is told at once.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from attrs import define, field

from bay0.base import names
from bay0.base.errors import RefusedError
from bay0.base.group import within
from bay0.screen import context

if TYPE_CHECKING:
    from bay0.pid1 import flow
    from bay0.screen.wayland import Display

IN_PERSONA = "/run/wayland"
SOCKET = "wayland-0"
ENVIRONMENT = {  # inside the persona
    "XDG_RUNTIME_DIR": "/tmp",  # noqa: S108
    "WAYLAND_DISPLAY": f"{IN_PERSONA}/{SOCKET}",
}
DOORS_MAX = 64
BACKLOG = 32  # clients that wait in one socket
MANAGER = "wp_security_context_manager_v1"


@define(eq=False, repr=False)
class Door:
    """One socket. `group`: the cgroup ("/personas/libpod-ID") of who may have windows; "": nobody yet.

    `context`: closing it ends the compositor's listening; -1: it does not listen.
    """

    name: str
    path: str
    listener: socket.socket
    group: str = ""
    context: int = -1


@define(eq=False, repr=False)
class Doors:
    """All of them. `run`: where they are."""

    log: Any
    run: str
    doors: dict[str, Door] = field(init=False, factory=dict)
    _listens: bool = field(init=False, default=False)
    _display: Display | None = field(init=False, default=None)
    _manager: int = field(init=False, default=0)
    _hide: Callable[[str], flow.Flow[None]] | None = field(init=False, default=None)

    def prepare(self, name: str) -> str:
        """Make the door of the persona `name` and return the directory to be mounted into it.

        `RefusedError` if it cannot be made.
        """
        directory = f"{self.run}/personas/{names.persona(name).podman}"
        if name in self.doors:
            return directory
        if len(self.doors) >= DOORS_MAX:
            raise RefusedError(
                f"the screen has {DOORS_MAX} doors already; stop a persona that has `screen = true` first"
            )
        path = f"{directory}/{SOCKET}"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            for each in (self.run, os.path.dirname(directory), directory):
                os.makedirs(each, mode=0o755, exist_ok=True)
                os.chmod(each, 0o755)  # noqa: S103 - others pass
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            listener.bind(path)
            os.chmod(path, 0o666)  # noqa: S103 - whoever the persona's program is; nobody else has it mounted
            if self._listens:
                listener.listen(BACKLOG)
        except OSError as error:
            listener.close()
            _remove(path)
            raise RefusedError(f"the screen's socket {path} cannot be made: {error}") from error
        self.doors[name] = Door(name, path, listener)
        return directory

    def grant(self, name: str, group: str) -> None:
        """Let processes of the cgroup `group` have windows; harmless if there is no such door."""
        door = self.doors.get(name)
        if door is not None:
            door.group = group
            self._confine(door)

    def revoke(self, name: str) -> None:
        """Close the door of `name`; harmless if there is none. Its windows end with its processes."""
        door = self.doors.pop(name, None)
        if door is not None:
            door.listener.close()
            _end(door)
            _remove(door.path)

    def listen(self) -> None:
        """There is a screen: who connects from now on is served, or waits until he is."""
        if not self._listens:
            self._listens = True
            for door in self.doors.values():
                door.listener.listen(BACKLOG)

    def hides(self, hide: Callable[[str], flow.Flow[None]]) -> None:
        """Have `hide` take a persona off the screen before it is frozen, from now on."""
        self._hide = hide

    def hide(self, name: str) -> Iterable[flow.Waitable]:
        """Return what a freeze of the persona `name` waits for; nothing where there is no screen.

        Or where it has no way there.
        """
        return self._hide(name) if self._hide is not None and name in self.doors else ()

    def attach(self, display: Display) -> None:
        """Give all sockets to a compositor that has proved itself, those who wait in them included."""
        self.detach()
        self._display, self._manager = display, display.bind(MANAGER, 1)
        for door in self.doors.values():
            self._confine(door)

    def detach(self) -> None:
        """End all contexts: that compositor has ended, or is not believed any more."""
        self._display = None
        for door in self.doors.values():
            _end(door)

    def owner(self, group: str) -> str | None:
        """Return the persona whose container's cgroup this is, or is below."""
        for door in self.doors.values():
            if door.group and within(group, door.group):
                return door.name
        return None

    def unserved(self) -> list[str]:
        """Return the personas that may have windows, and whose socket no compositor serves."""
        return [door.name for door in self.doors.values() if door.group and door.context < 0]

    def _confine(self, door: Door) -> None:
        if self._display is None or not door.group:
            return
        _end(door)
        try:
            door.context = context.confine(
                self._display, self._manager, door.listener.fileno(), door.name, door.group.rpartition("-")[2]
            )
        except OSError as error:
            self.log.warning("a persona has no way to the screen", persona=door.name, why=str(error))


def _end(door: Door) -> None:
    if door.context >= 0:
        context.end(door.context)
        door.context = -1


def _remove(path: str) -> None:
    for remove, each in ((os.unlink, path), (os.rmdir, os.path.dirname(path))):
        with contextlib.suppress(OSError):
            remove(each)
