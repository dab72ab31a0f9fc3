"""Seat and compositor in a `World`: seatd and sway as PID 1 can tell them, with their vices, and who listens where.

Real: bay0/screen/ (its machine's effects, proof, doors, windows, clipboards, keys, bar), the configuration that it writes,
all sockets, both protocols on them, the supervisor's `Services`. Modelled: the two processes (sway's is in sway.py), whose a
pid is, and programs of personas (programs.py).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from attrs import define, field
from programs import Directory, Program, group_of
from sway import LISTENS_S, Sway

from bay0.base import names
from bay0.effects import peers, whose
from bay0.screen import hotplug, inputs, lines
from bay0.screen.doors import IN_PERSONA
from bay0.screen.places import COMPOSITOR, SEAT, Places

if TYPE_CHECKING:
    from podman import Container
    from processes import SimProcess
    from world import World

SEATS_S = 0.3  # from its start
FIRST_PID = 1000
STRANGER = "/elsewhere"
KILLED = 9


@define(eq=False)
class Listener:
    """Who listens at a path."""

    socket: socket.socket
    pid: int
    uid: int
    lives: Callable[[], bool]


@define(eq=False)
class Screen:
    """The machine's. `there`: it has a card. Its vices, until they are mended:

    `silent`: sway does nothing more. `late_s`: so much later it answers. `cuts`: so many answers are half said, and then it hangs up.
    `lies`: "visible": it says that every window is seen; "hidden": that none is; "deaf": it says yes, and shows what it
    likes. `offers`: a global more than it may. `never`: it starts and serves nobody. `impostor`: somebody else listens first, at sway's
    Wayland socket ("wayland"), its IPC socket ("ipc") or seatd's ("seat"). `dark`: the output is unplugged.
    """

    world: World
    there: bool = False
    silent: bool = False
    late_s: float = 0.0
    cuts: int = 0
    lies: str = ""
    offers: str = ""
    never: bool = False
    impostor: str = ""
    dark: bool = False
    sway: Sway | None = None
    programs: list[Program] = field(factory=list)
    listeners: dict[str, Listener] = field(factory=dict)
    told_impostor: bytes = b""  # what bay0 has said to one
    sick_at: float = float("-inf")  # when something was last wrong with it
    _pids: int = FIRST_PID

    @property
    def folder(self) -> str:
        return os.path.join(self.world.folder, "screen")

    @property
    def doors(self) -> str:
        return os.path.join(self.world.folder, "doors")

    @property
    def places(self) -> Places:
        here = self.folder
        return Places(
            run=here, seatd=f"{here}/seatd", uid=os.getuid(), gid=os.getgid(), private=False, udev=f"{here}/udev", terminal=f"{here}/none"
        )  # fmt: skip

    def install(self, setattr_: Any) -> None:
        """Put the model in the place of the kernel's word on processes."""
        setattr_(peers, "identify", self._identify)
        setattr_(whose, "process", self._process)
        setattr_(whose, "end", self._end)
        setattr_(whose, "keep_pids_apart", lambda: None)
        setattr_(inputs, "devices", lambda *_: [])
        setattr_(hotplug, "connectors", lambda *_: {})
        setattr_(hotplug.Hotplug, "_listen", lambda _self: None)
        setattr_(lines.Lines, "bound", lambda _self, _compositor: None)
        setattr_(lines.Lines, "cut", lambda _self, _compositor, pid: self._cut(pid))

    @property
    def sick(self) -> bool:
        """Something is wrong with the compositor, and what it shows or says may be anything."""
        return bool(
            self.silent
            or self.late_s
            or self.cuts
            or self.lies
            or self.offers
            or self.never
            or self.impostor
            or self.dark
        )

    def mend(self) -> None:
        self.silent = self.never = self.dark = False
        self.late_s, self.cuts, self.lies, self.offers, self.impostor = 0.0, 0, "", "", ""
        for each in self.programs:
            each.stubborn, each.acks = False, True
        if self.sway is not None:
            self.sway.settle()

    # ---- the kernel's word

    def pid(self) -> int:
        self._pids += 1
        return self._pids

    def _identify(self, peer: socket.socket) -> peers.Answerer:
        found = self.listeners.get(peer.getpeername())
        if found is None:
            return peers.Answerer(0, 0, alive=False)
        return peers.Answerer(found.pid, found.uid, found.lives(), "/elsewhere", "program")

    def _process(self, pid: int) -> tuple[str, str] | None:
        found = next((each for each in self.programs if each.pid == pid and each.lives), None)
        return (found.group, str(pid)) if found is not None else None

    def _cut(self, pid: int) -> None:
        """bay0 shuts down the connections that a process has opened which has ended."""
        for each in self.programs:
            if each.pid == pid and not each.lives:
                self.world.soon(each.close)

    def _end(self, pid: int, _started: str) -> bool:
        found = next((each for each in self.programs if each.pid == pid and each.lives), None)
        if found is not None:
            found.end()
        return found is not None

    def listen(self, path: str, pid: int, uid: int, lives: Callable[[], bool]) -> socket.socket:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        made = socket.socket(socket.AF_UNIX)
        made.setblocking(False)
        made.bind(path)
        made.listen(64)
        self.listeners[path] = Listener(made, pid, uid, lives)
        return made

    # ---- processes

    def process_starts(self, process: SimProcess, keep: int) -> bool:
        """Take a process of this part; tell whether it is one."""
        if process.name not in (SEAT, COMPOSITOR):
            return False
        process.pid = self.pid()
        if process.name == SEAT:
            self.world.later(SEATS_S, lambda: self._seat(process))
        else:
            if self.sway is not None:
                self.sway.close()
            self.sway = Sway(self, process, socket.socket(fileno=os.dup(keep)))
            self.world.later(LISTENS_S, self.sway.begin)
        return True

    def _seat(self, process: SimProcess) -> None:
        if process.ended:
            return
        if self.impostor == "seat":
            self.listen(self.places.seatd, self.pid(), 0, lambda: self.impostor == "seat")
            self.world.later(SEATS_S, lambda: self._seat(process))
        else:
            self.listen(self.places.seatd, process.pid, 0, lambda: not process.ended)

    def dies(self, name: str = COMPOSITOR) -> None:
        """Somebody kills the compositor, or the seat."""
        self.sick_at = self.world.now
        for process in [each for each in self.world.processes if each.name == name]:
            self.world._guard(lambda process=process: process.end(KILLED))

    def begins(self, made: Container, sources: dict[str, str]) -> None:
        """A container's processes begin: with a way to the screen, one is a program with a window."""
        persona = names.from_podman(made.name)
        if persona is not None and IN_PERSONA in sources:
            directory = Directory(sources[IN_PERSONA])
            self.programs.append(Program(self, persona.semantic, self.pid(), group_of(made), made, directory))

    def of(self, persona: str) -> Program | None:
        """The program of a persona's container that is there now."""
        return next((each for each in self.programs if each.persona == persona and each.lives), None)

    def stranger(self, persona: str) -> Program:
        """A process of no persona that has the socket of one; as root could, or who was given it."""
        found = self.of(persona)
        assert found is not None
        self.programs.append(Program(self, "", self.pid(), STRANGER, None, found.directory))
        return self.programs[-1]

    # ---- time

    def pump(self) -> None:
        if not self.there:
            return
        if self.sick:
            self.sick_at = self.world.now
        for path in [path for path, each in self.listeners.items() if not each.lives()]:
            self.listeners.pop(path).socket.close()
        for each in self.programs:
            if each.hung_up:
                each.close()
            each.pump()
        if self.sway is not None:
            self.sway.pump()
        if self.impostor:
            self._hear_impostor()

    def _hear_impostor(self) -> None:
        path = {"wayland": self.places.wayland, "ipc": self.places.ipc, "seat": self.places.seatd}[
            self.impostor
        ]
        found = self.listeners.get(path)
        while found is not None:
            try:
                peer, _ = found.socket.accept()
            except OSError:
                return
            with peer, contextlib.suppress(OSError):
                peer.setblocking(False)
                self.told_impostor += peer.recv(4096)

    def power_cut(self) -> None:
        """Nothing of it outlives a boot."""
        spine = self.world.spine
        if spine is not None and spine.screen.made is not None:
            spine.screen.made._hang_up()
            spine.screen.made._bar.close()
            for ear in spine.screen.made._ears.values():
                ear.close()
        if spine is not None and spine.personas.doors.made is not None:
            for name in list(spine.personas.doors.made.doors):
                spine.personas.doors.made.revoke(name)
        if self.sway is not None:
            self.sway.close()
            self.sway = None
        for each in self.programs:
            each.close()
        self.programs.clear()
        for found in self.listeners.values():
            found.socket.close()
        self.listeners.clear()
        for each in (self.folder, self.doors):
            shutil.rmtree(each, ignore_errors=True)
