"""Ways to the AI in a `World`: the doors' sockets, what containers have mounted, the forwarder.

Real: bay0/umbilical/doors.py, bay0/umbilical/channel.py, the supervisor's `Services`; the sockets, the directories and the channel are real, too,
directory that stands for /run and is gone with the power. Modelled: the forwarder's process, as far as PID 1 can tell, and the AI's server behind it.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import shutil
import socket
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen
from broken import hold
from umbilical import WARM_S

import bay0.umbilical.doors
from bay0.base import names
from bay0.loading.late import Late
from bay0.umbilical.forwarder import MESSAGE_MAX, RUNNING
from bay0.umbilical.places import CONSOLE_NAME, SOCKET

if TYPE_CHECKING:
    from processes import SimProcess
    from world import World

HELLO_S, DRAIN_S, SAY_S, LOOK_S = 0.05, 1.0, 0.1, 1.0
LOADS_S = 0.2  # what the way takes, on a slow machine
WAYS = ("closed", "deaf")  # what can be wrong with them
KILLED, LEFT = 9, 256  # wait statuses


class Listener(socket.socket):
    """A socket that PID 1 makes. `path`: where it is, as the kernel knows it; `inode`: which one it is."""

    path = ""
    inode = 0
    grants: Grants

    def bind(self, address: Any) -> None:
        if self.grants.closed:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().bind(address)
        self.path, self.inode = address, os.fstat(self.fileno()).st_ino


class Mounted:
    """The directory that a container has at /run/ai: that one, whatever stands at its path later."""

    def __init__(self, source: str) -> None:
        self.fd = os.open(source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def __del__(self) -> None:
        os.close(self.fd)

    def connect(self) -> socket.socket:
        """Connect as a process inside does; `OSError` if nobody listens there."""
        client = socket.socket(socket.AF_UNIX)
        client.setblocking(False)  # a full backlog is an error, not a wait
        try:
            client.connect(f"/proc/self/fd/{self.fd}/{SOCKET}")
        except OSError:
            client.close()
            raise
        return client


@frozen
class Given:
    """A door as the forwarder has it. `inode`: of its socket."""

    listener: socket.socket
    inode: int
    uid_base: int
    uids: int
    group: str


@define(eq=False)
class Grants:
    """Every listening socket of this boot, and the forwarder. Vices: `closed`: no socket can be made; `deaf`: no forwarder reads or speaks."""

    world: World
    closed: bool = False
    deaf: bool = False
    listeners: list[Listener] = field(factory=list)
    forwarder: Forwarder | None = None

    @property
    def run(self) -> str:
        return os.path.join(self.world.folder, "run")

    def directory(self, name: str) -> str:
        """Where a persona's door belongs."""
        return f"{self.run}/personas/{names.parse(name).podman}"

    def install(self, setattr_: Any) -> None:
        port = bay0.umbilical.doors
        setattr_(port, "Umbilical", functools.partial(port.Umbilical, run=self.run))
        setattr_(port, "socket", SimpleNamespace(**{**vars(socket), "socket": self._socket}))
        setattr_(port, "mounts", SimpleNamespace(fresh_tmpfs=self._tmpfs))
        setattr_(Late, "load", lambda part, later, done: self._load(part, later, functools.partial(done, None)))
        if os.geteuid():  # who is not root can give nothing to root
            setattr_(port, "_make_directory", lambda path: os.makedirs(path, exist_ok=True))

    def _load(self, part: Late[Any], later: Callable[[Any], Any], loaded: Callable[[], None]) -> None:
        if part.target.startswith("umbilical.doors:") and part.made is None:  # each boot is a new program
            self.world.later(LOADS_S, loaded)
        else:
            later(loaded)

    def _socket(self, *kind: Any) -> Listener:
        made = Listener(*kind)
        made.grants = self
        self.listeners.append(made)
        return made

    def _tmpfs(self, directory: str, _options: str) -> None:
        if self.closed:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        shutil.rmtree(directory, ignore_errors=True)
        os.makedirs(directory)

    def open(self) -> list[Listener]:
        """Return what listens: what PID 1 has made and not closed."""
        self.listeners[:] = [each for each in self.listeners if each.fileno() >= 0]
        return [each for each in self.listeners if each.path]

    # ---- the forwarder

    def process_starts(self, process: SimProcess, keep: int) -> None:
        self.forwarder = Forwarder(self, process, socket.socket(fileno=os.dup(keep)))
        self.world.later(HELLO_S, self.forwarder.begin)

    def pump(self) -> None:
        if self.forwarder is not None:
            self.forwarder.pump()

    def dies(self) -> None:
        """Somebody kills the forwarder."""
        if self.forwarder is not None and not self.forwarder.process.ended:
            self.world._guard(lambda: self.forwarder.process.end(KILLED))

    def lies(self) -> None:
        """What it says makes no sense."""
        if self.forwarder is not None:
            self.forwarder.say(op="decision", name="p://work")

    def power_cut(self) -> None:
        """Nothing that listens, and nothing on /run, outlives a boot."""
        for each in self.listeners:
            each.close()
        self.listeners.clear()
        if self.forwarder is not None:
            self.forwarder.close()
            self.forwarder = None
        umbilical = self.world.spine.umbilical.made if self.world.spine is not None else None
        if umbilical is not None and umbilical._link._channel is not None:
            umbilical._link._channel.close()
        for each in self.world.podman.containers.values():
            each.door = None
        shutil.rmtree(self.run, ignore_errors=True)


@define(eq=False)
class Forwarder:
    """One process of it: what it was told, and its answers. What PID 1 may not say to one is held here."""

    grants: Grants
    process: SimProcess
    channel: socket.socket
    there: bool = False  # it has said hello
    doors: dict[str, Given] = field(factory=dict)
    setup: dict[str, Any] = field(factory=dict)
    tenant: dict[str, Any] = field(factory=dict)
    unsaid: list[bytes] = field(factory=list)
    leaving: bool = False

    def __attrs_post_init__(self) -> None:
        self.channel.setblocking(False)

    @property
    def gone(self) -> bool:
        return self.process.ended or self.leaving or self.channel.fileno() < 0

    def begin(self) -> None:
        if self.gone:
            return
        if self.grants.world.ai.away:
            self._leave(LEFT)
        elif self.grants.deaf:
            self.grants.world.later(LOOK_S, self.begin)
        else:
            self.there = True
            self.say(op="hello", pid=4000 + self.grants.world.boots, uid=990)

    def close(self) -> None:
        """Let the kernel close what it had."""
        self.channel.close()
        for door in self.doors.values():
            door.listener.close()
        self.doors.clear()

    def _leave(self, status: int) -> None:
        self.leaving = True
        self.close()
        self.grants.world.later(0.001, functools.partial(self.process.end, status))

    def say(self, **message: Any) -> None:
        self.unsaid.append(json.dumps(message).encode())
        self._say()

    def _say(self) -> None:
        while self.unsaid and not self.gone and self.there and not self.grants.deaf:
            try:
                self.channel.send(self.unsaid.pop(0))
            except OSError:
                self._leave(0)  # PID 1 has hung up

    # ---- what it hears

    def pump(self) -> None:
        if self.process.ended:
            self.close()
        self._say()
        while not self.gone and self.there and not self.grants.deaf:
            try:
                data, fds, _, _ = socket.recv_fds(self.channel, MESSAGE_MAX, 1, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return
            except ConnectionResetError:  # PID 1 has hung up, and not heard all
                data, fds = b"", []
            if not data:
                self._leave(0)
                return
            self._hear(json.loads(data), socket.socket(fileno=fds[0]) if fds else None)

    def _hear(self, message: dict[str, Any], listener: socket.socket | None) -> None:
        op = message["op"]
        hold(op == "setup" or self.setup, f"the forwarder is told {op} before it is set up")
        hold((listener is not None) is (op == "grant"), f"the forwarder is told {op}, and the descriptor that comes with it is {listener}")
        if op == "grant":
            self._grant(message, listener)
        elif op == "revoke":
            self._revoke(message["name"])
        elif op in ("setup", "tenant"):
            setattr(self, op, message)
        else:
            getattr(self, f"_{op}")(message["n"], message["within"])

    def _grant(self, message: dict[str, Any], listener: Any) -> None:
        name = message["name"]
        hold(self.tenant, f"the forwarder has the door of {name} before it knows how the AI is")
        belongs = self.grants.run if name == CONSOLE_NAME else self.grants.directory(name)
        path = listener.getsockname()
        hold(path == f"{belongs}/{SOCKET}", f"the forwarder is given {path} as the door of {name}")
        hold(listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN), f"the forwarder is given a door of {name} where nobody listens")
        self._revoke(name)
        self.doors[name] = Given(listener, os.fstat(listener.fileno()).st_ino, message["uid_base"], message["uids"], message["group"])

    def _revoke(self, name: str) -> None:
        door = self.doors.pop(name, None)
        if door is not None:
            door.listener.close()

    # ---- what it is asked

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        self.grants.world.later(seconds, lambda: None if self.gone else call())

    def _warm(self, number: int, within: float) -> None:
        ai, end = self.grants.world.ai, self.grants.world.now + within

        def look() -> None:
            if self.tenant["state"] not in RUNNING:
                self.say(op="warm", n=number, ok=False, why=f"the AI is {self.tenant['state']}")
            elif ai.cold:
                self.say(op="warm", n=number, ok=False, why="no token")
            elif ai.lives:
                self.say(op="warm", n=number, ok=True, why="", first_token_s=WARM_S)
            elif self.grants.world.now > end:
                self.say(op="warm", n=number, ok=False, why=f"not ready within {within:g} s")
            else:
                self._later(LOOK_S, look)

        self._later(WARM_S, look)

    def _drain(self, number: int, _within: float) -> None:
        def look() -> None:
            if self.grants.world.ai.mute:
                self._later(LOOK_S, look)
            else:
                self.say(op="drained", n=number)

        self._later(DRAIN_S, look)

    def _check(self, number: int, _within: float) -> None:
        self._later(SAY_S, lambda: self.say(op="checked", n=number, ok=self.grants.world.ai.lives, why=""))

    def _facts(self, number: int, _within: float) -> None:
        self._later(SAY_S, lambda: self.say(op="facts", n=number, names={name: {} for name in self.doors}))

    def hears(self, name: str) -> bool:
        """Tell whether somebody waits at this door, and let him in."""
        door = self.doors.get(name)
        if door is None:
            return False
        door.listener.setblocking(False)
        try:
            peer, _ = door.listener.accept()
        except BlockingIOError:
            return False
        peer.close()
        return True
