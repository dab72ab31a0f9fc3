"""PID 1's end of the umbilical: it owns the listening sockets and one channel to the forwarder, and no byte of a session passes through it.

A forwarder that dies loses no socket: PID 1 holds the listeners, clients wait in their backlog, and the next forwarder is told everything again.
What the forwarder says is judged like any stranger's word: each message is bounded and checked, and one that makes no sense ends it.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import define, field

from bay0.base import inode, itself, names
from bay0.base.errors import RefusedError
from bay0.base.uids import UIDS
from bay0.effects import mounts
from bay0.machines import MACHINES, tenant
from bay0.machines.boot import LEAVES
from bay0.tenants.port import ServiceSpec
from bay0.umbilical.channel import Done, Link, plain
from bay0.umbilical.places import (
    CONSOLE_NAME,
    FORWARDER,
    RUN,
    SOCKET,
    TENANT_SOCKET,
    TENANT_USER,
    UMBILICAL,
    UMBILICAL_GID,
)
from bay0.umbilical.quota import Bucket

if TYPE_CHECKING:
    from bay0.base.bounds import Bounds
    from bay0.machines.engine import Engine
    from bay0.machines.instance import Instance, Step
    from bay0.pid1.reactor import Reactor, Timer
    from bay0.tenants.port import Services

DOORS_MAX = 64
BACKLOG = 32  # clients that wait in one listener
BEAT_S = 10.0
DECISIONS_A_SECOND, DECISIONS_AT_ONCE = 5.0, 50.0  # logged; the rest is counted
MEMORY_MAX, PIDS_MAX = 96 << 20, 4  # of the forwarder's cgroup; it is one thread
TEXT_MAX = 200
TRIES = 20  # of the forwarder, in a row: some eight minutes; the next start of the AI, or of a persona with a way to it, tries again


def _no_ai() -> dict[str, Any]:
    return {"state": "stopped"}


def _told(state: str, why: str = "", group: str = "", retry_s: float = 5.0) -> dict[str, Any]:
    return {"op": "tenant", "state": state, "why": why[:TEXT_MAX], "group": group, "retry_s": retry_s}


@define(eq=False, repr=False)
class _Door:
    """One listening socket. `group` None: nobody may speak there yet."""

    name: str
    path: str
    listener: socket.socket
    place: tuple[inode.File | None, inode.File | None]  # its directory and its socket, as they were made
    uid_base: int = 0
    uids: int = UIDS
    group: str | None = None
    lost: bool = False  # removed, with the directory that a container has mounted


@define(eq=False, repr=False)
class Umbilical:
    """Doors, the channel, and the forwarder's specification. `run`: the directory of all of it.

    `boot`: this boot's machine. `ai`: says the tenant's state to an umbilical that is new, see `tenant`.
    `stored_seq`: the number of a machine's last stored step (Replay.stored_seq).
    """

    engine: Engine
    reactor: Reactor
    bounds: Bounds
    log: Any
    services: Services
    boot: Instance
    stored_seq: Callable[[str], int]
    ai: Callable[[], dict[str, Any]] = _no_ai
    patience: float = 1.0
    run: str = RUN
    argv: tuple[str, ...] = ()
    env: dict[str, str] = field(factory=dict)
    quota: dict[str, Any] = field(factory=dict)
    pid: int = 0  # of the forwarder that said hello; 0: none is there
    facts_seen: dict[str, Any] = field(factory=dict)  # what the last heartbeat brought
    _doors: dict[str, _Door] = field(factory=dict)
    _link: Link = field(init=False)
    _tenant: dict[str, Any] = field(init=False)
    _beating: Timer | None = None
    _logged: Bucket = field(factory=lambda: Bucket(DECISIONS_A_SECOND, DECISIONS_AT_ONCE))
    _unlogged: int = 0

    def __attrs_post_init__(self) -> None:
        self._link = Link(self.reactor, self._hello, self._word, self._hangs)
        self._tenant = _told(**self.ai())
        self.engine.on("tenant", tenant.S.STOPPED, call=self._stopped)

    def begin(self) -> None:
        """Open the console's door and start the forwarder, unless that was done; `RefusedError` if a socket cannot be made."""
        if CONSOLE_NAME not in self._doors:
            self._make(CONSOLE_NAME, self.run, 0o600)
            self.grant(CONSOLE_NAME, 0, "", uids=1)
        if UMBILICAL not in self.services.specs:
            argv = self.argv or itself.argv(FORWARDER)
            lend = partial(self._link.lend, self.bounds.umbilical_hello)
            limits = {"memory.max": str(MEMORY_MAX), "pids.max": str(PIDS_MAX)}
            self.services.specs[UMBILICAL] = ServiceSpec(argv, self.env, tries=TRIES, lend=lend, limits=limits)
        if UMBILICAL not in self.engine.instances:
            self.engine.add(UMBILICAL, MACHINES["tenant"], seq=self.stored_seq(UMBILICAL))
        self._want()
        if self._beating is None:
            self._beating = self.reactor.call_later(BEAT_S * self.patience, self._beat)

    def _want(self) -> None:
        if self.boot.now not in LEAVES:  # or the spine would wait for it to end again
            self.engine.send(UMBILICAL, tenant.E.START, "the AI is wanted")

    def _stopped(self, instance: Instance, _step: Step) -> None:
        """Start a forwarder again that is wanted and has been stopped.

        An earlier boot had one, too; what is left of its machine was perhaps on its way to rest when this boot wanted it,
        and heard nothing.
        """
        if instance.name == UMBILICAL and UMBILICAL in self.services.specs:
            self._want()

    def prepare_tenant(self) -> str:
        """Make the directory where the AI's server will listen, empty, and return it; `RefusedError` if that cannot be done.

        A small filesystem of its own: the tenant writes there, and must not fill /run. Call it before each start of the container.
        """
        directory = f"{self.run}/tenant"
        try:
            _make_directory(self.run)
            mounts.fresh_tmpfs(directory, f"size=64k,nr_inodes=16,mode=2770,uid={TENANT_USER},gid={UMBILICAL_GID}")
        except OSError as error:
            raise RefusedError(f"the AI's directory {directory} cannot be made: {error}") from error
        return directory

    def prepare(self, name: str) -> str:
        """Make and open the door of the persona `name`, begin if need be, and return the directory to be mounted into it; nobody may speak yet.

        Harmless when it is open. `RefusedError` if it cannot be made, `BadNameError` if that is no persona's name.
        """
        persona = names.persona(name)
        name, directory = persona.semantic, f"{self.run}/personas/{persona.podman}"
        self.begin()
        if name not in self._doors:
            if len(self._doors) >= DOORS_MAX:
                raise RefusedError(f"the AI has {DOORS_MAX} doors already; stop a persona that has `ai = true` first")
            self._make(name, directory, 0o666)
        return directory

    def _make(self, name: str, directory: str, mode: int) -> None:
        path = f"{directory}/{SOCKET}"
        listener = None
        try:
            for each in (self.run, os.path.dirname(directory), directory):
                if each.startswith(self.run):
                    _make_directory(each)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            listener.bind(path)
            os.chmod(path, mode)
            listener.listen(BACKLOG)
        except OSError as error:
            if listener is not None:
                listener.close()
            _remove(path)
            raise RefusedError(f"the AI's socket {path} cannot be made: {error}") from error
        self._doors[name] = _Door(name, path, listener, _place(path))

    def look(self) -> list[str]:
        """Make doors anew whose sockets somebody removed, and say which. `RefusedError` if one cannot be made.

        Those whose directory is gone, too, are only said to be lost: it is what a container has mounted, and a new one
        would not be seen there before its next start.
        """
        said: list[str] = []
        if self.boot.now in LEAVES:
            return said
        for door in [each for each in self._doors.values() if not each.lost and _place(each.path) != each.place]:
            if door.name != CONSOLE_NAME and _place(door.path)[0] != door.place[0]:
                door.lost = True
                said.append(f"{door.path} is lost until {door.name} is started again")
                continue
            self._make(door.name, os.path.dirname(door.path), 0o600 if door.name == CONSOLE_NAME else 0o666)
            new = self._doors[door.name]
            new.uid_base, new.uids, new.group = door.uid_base, door.uids, door.group
            door.listener.close()
            self._tell_door(new)
            said.append(door.path)
        return said

    def grant(self, name: str, uid_base: int, group: str, *, uids: int = UIDS) -> None:
        """Let processes of the cgroup `group` ("/personas/libpod-ID") with uids from `uid_base` on speak at the door of `name`.

        `RefusedError` if there is no such door.
        """
        door = self._doors.get(name)
        if door is None:
            raise RefusedError(f"{name} has no door to the AI: prepare it first")
        door.uid_base, door.uids, door.group = uid_base, uids, group
        self._tell_door(door)

    def revoke(self, name: str) -> None:
        """Close the door of `name`, and every session that came through it; harmless if there is none."""
        door = self._doors.pop(name, None)
        if door is None:
            return
        door.listener.close()
        _remove(door.path)
        self._link.send({"op": "revoke", "name": name})

    def tenant(self, state: str, why: str = "", group: str = "", retry_s: float = 5.0) -> None:
        """Tell the state of sys://ai and the cgroup its server must be in. Sessions run on only in ready, warming and draining."""
        self._tenant = _told(state, why, group, retry_s)
        self._link.send(self._tenant)

    def warm(self, done: Done) -> None:
        """Wait for the server's health, then for one token. value: {"first_token_s"}; bound: bounds.umbilical_warm.

        Say `tenant("warming", group=...)` first: without the group nobody is believed to be the server.
        """
        self._link.ask("warm", self.bounds.umbilical_warm, done)

    def drain(self, done: Done) -> None:
        """Refuse new requests, and answer when none is in flight; bound: bounds.umbilical_drain. Over with the next `tenant("ready")`."""
        self._link.ask("drain", self.bounds.umbilical_drain, done, hangs=False)

    def check(self, done: Done) -> None:
        """See that the tenant's own server listens and is healthy; bound: bounds.umbilical."""
        self._link.ask("check", self.bounds.umbilical, done)

    def facts(self, done: Done) -> None:
        """Count. value: {name: {"connections", "requests", "refused", "bytes_in", "bytes_out", "in_flight", "open"}}; bound: bounds.umbilical."""
        self._link.ask("facts", self.bounds.umbilical, lambda ok, why, value: done(ok, why, value.get("names", {})))

    # ---- the forwarder

    def _tell_door(self, door: _Door) -> None:
        if door.group is None:
            return
        message = {"op": "grant", "name": door.name, "uid_base": door.uid_base, "uids": door.uids, "group": door.group}
        self._link.send(message, lambda: door.listener.fileno() if self._doors.get(door.name) is door else None)

    def _hello(self, message: dict[str, Any]) -> None:
        self.pid = int(message["pid"])
        self.log.info("umbilical is there", pid=self.pid, uid=int(message["uid"]))
        setup = {"patience": self.patience, "tenant_socket": f"{self.run}/tenant/{os.path.basename(TENANT_SOCKET)}", "quota": self.quota}
        self._link.send({"op": "setup", **setup})
        self._link.send(self._tenant)  # before the doors, behind which somebody may be waiting
        for door in self._doors.values():
            self._tell_door(door)

    def _hangs(self, why: str) -> None:
        self.log.warning("umbilical ended", why=plain(why))
        self.pid = 0
        self.services.kill(UMBILICAL)

    def _word(self, message: dict[str, Any]) -> None:
        if message["op"] == "failed":
            self.log.error("umbilical failed", why=plain(message["why"]))
        elif message["op"] == "decision":
            self._decided(message)
        else:
            raise ValueError(f"no such word: {plain(message['op'], 20)}")

    def _decided(self, message: dict[str, Any]) -> None:
        if self._logged.take(self.reactor.clock()):
            self._unlogged += 1
            return
        numbers = {key: int(message[key]) for key in ("pid", "uid", "status", "bytes_in", "bytes_out", "took_ms")}
        unsaid, self._unlogged = self._unlogged + int(message["unsaid"]), 0
        more = {"not_logged": unsaid} if unsaid else {}
        say = self.log.info if message["verdict"] in ("served", "gone") else self.log.warning
        texts = {key: plain(message[key], most) for key, most in (("name", 60), ("verdict", 20), ("why", TEXT_MAX), ("comm", 32))}
        say("umbilical decision", **texts, **numbers, **more)

    def _beat(self) -> None:
        """Ask for facts now and then: a forwarder that does not answer hangs, and is ended by the link."""
        self._beating = self.reactor.call_later(BEAT_S * self.patience, self._beat)
        if self._link.there:
            self.facts(self._beaten)

    def _beaten(self, ok: bool, _why: str, value: dict[str, Any]) -> None:  # noqa: FBT001 - as all answers come
        if ok:
            self.facts_seen = value


def _place(path: str) -> tuple[inode.File | None, inode.File | None]:
    return inode.which(os.path.dirname(path)), inode.which(path)


def _remove(path: str) -> None:
    """Remove a door's socket, and its directory if it is empty then: who still has that mounted must not find the next door in it."""
    for remove, each in ((os.unlink, path), (os.rmdir, os.path.dirname(path))):
        with contextlib.suppress(OSError):
            remove(each)


def _make_directory(path: str) -> None:
    """Make a directory of root's that others may pass; an existing one is set right."""
    os.makedirs(path, mode=0o755, exist_ok=True)
    os.chmod(path, 0o755)  # noqa: S103 - others pass
    os.chown(path, 0, 0)
