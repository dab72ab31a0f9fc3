"""sway's process in a `World`: its windows, what it draws and when a frame comes, and what its configuration makes of a new window.

Its two ends are swayipc.py and swaywayland.py. A vice of `Screen` (compositor.py) has it hang, lie or hang up.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from attrs import define, field
from swayipc import Ipc
from swaywayland import Wayland

if TYPE_CHECKING:
    from compositor import Screen
    from processes import SimProcess
    from programs import Program
    from world import World

LISTENS_S, SERVES_S = 1.0, 2.0  # from its start
FRAME_S = 1 / 60
TRANSACTION_S = (
    0.2  # that sway waits for a client to take a new size (sway, desktop/transaction.c: txn_timeout_ms)
)
ANSWER_S = 0.002


@define(eq=False)
class Window:
    """One of a program. `workspace`: "": the scratchpad."""

    con: int
    program: Program
    workspace: str = ""
    floats: bool = True
    full: bool = False
    title: str = ""
    marks: list[str] = field(factory=list)


@define(eq=False)
class Sway:
    """One process of it. `scene`: the windows that it would draw; `picture`: those that the last frame shows."""

    screen: Screen
    process: SimProcess
    says: socket.socket
    windows: dict[int, Window] = field(factory=dict)
    current: str = "1"  # the workspace that is shown
    told: str = ""  # the one that bay0 told it to show last
    scene: frozenset[int] = frozenset()
    picture: frozenset[int] = frozenset()
    selection: str = ""  # whose text is on the clipboards; "": none is
    serves: bool = False
    bar: str = ""  # the last line that it was given
    ipc: Ipc = field(init=False)
    wayland: Wayland = field(init=False)
    _cons: int = 10
    _config: str = ""
    _pipe: int = -1
    _frame: bool = False
    _settling: float = 0.0  # a client's answer is awaited until then
    _at_frame: list[Callable[[], None]] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.ipc, self.wayland = Ipc(self), Wayland(self)

    @property
    def world(self) -> World:
        return self.screen.world

    @property
    def gone(self) -> bool:
        return self.process.ended

    def begin(self) -> None:
        """Its sockets are there a good while before it serves anybody."""
        if self.gone:
            return
        places = self.screen.places
        shutil.rmtree(places.home, ignore_errors=True)
        os.makedirs(places.home)
        with open(places.config, encoding="ascii") as file:
            self._config = file.read()
        self._pipe = os.open(places.bar, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with contextlib.suppress(OSError):
            self.says.send(b"sway begins\n")
        for kind, path, end in (("wayland", places.wayland, self.wayland), ("ipc", places.ipc, self.ipc)):
            if self.screen.impostor == kind:
                pid = self.screen.pid()
                self.screen.listen(path, pid, places.uid, lambda kind=kind: self.screen.impostor == kind)
            else:
                end.listener = self.screen.listen(path, self.process.pid, places.uid, lambda: not self.gone)
        self.world.later(SERVES_S - LISTENS_S, self._serve)

    def _serve(self) -> None:
        self.serves = True

    def pump(self) -> None:
        if self.gone:
            self.close()
        elif self.serves and not self.screen.silent and not self.screen.never:
            self._read_bar()
            self._see_ends()
            self.wayland.pump()
            self.ipc.pump()

    def _read_bar(self) -> None:
        with contextlib.suppress(OSError):
            lines = os.read(self._pipe, 1 << 16).decode().splitlines()
            self.bar = lines[-1] if lines else self.bar

    def _see_ends(self) -> None:
        """A client that has hung up has no windows."""
        for con in [con for con, each in self.windows.items() if each.program.served is not self]:
            self.closes(con)

    def later(self, call: Callable[[], None], seconds: float = 0.0) -> None:
        """Do it a moment later, unless it has ended by then; one that hangs, or is slow, does it later still."""

        def then() -> None:
            if self.gone:
                return
            if self.screen.silent:
                self.world.later(1.0, then)
            else:
                call()

        self.world.later(seconds or ANSWER_S + self.screen.late_s, then)

    def close(self) -> None:
        """Let the kernel close what it had."""
        self.ipc.close()
        self.wayland.close()
        self.says.close()
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1
        self.windows.clear()

    # ---- windows

    def takes(self, program: Program) -> None:
        """A client that has waited at a socket is served."""
        program.served = self
        for _ in range(program.wants):
            self.opens(program)

    def opens(self, program: Program) -> Window:
        """A client opens a window; the configuration says where it goes before its first frame."""
        self._cons += 1
        hidden = 'for_window [shell=".*"] move scratchpad' in self._config
        made = self.windows[self._cons] = Window(
            self._cons, program, "" if hidden else self.current, floats=hidden
        )
        if 'no_focus [shell=".*"]' not in self._config and made.workspace:
            self.current = made.workspace
        self.ipc.tell("new", made)
        if program.full:
            self.wants_full(made)
        self.changed()
        return made

    def closes(self, con: int) -> None:
        window = self.windows.pop(con, None)
        if window is not None:
            self.ipc.tell("close", window)
            self.changed()

    def wants_full(self, window: Window) -> None:
        """A client asks for full screen on the output: one in the scratchpad stays there, else it comes to what is shown."""
        window.full = True
        if window.workspace:
            window.workspace = self.current
        self.ipc.tell("fullscreen_mode", window)
        self.changed()

    def activates(self, window: Window) -> None:
        """A client activates its own window, which shows it if the configuration lets it."""
        if "focus_on_window_activation none" not in self._config and window.workspace:
            self.current = window.workspace
            self.changed()

    def puts(self, window: Window, workspace: str) -> None:
        """Somebody at its own socket moves a floating one: all that it says of it is that it had the focus."""
        window.workspace = workspace
        self.ipc.tell("focus", window)
        self.changed()

    def copies(self, program: Program) -> None:
        """A client whose window has the keyboard fills both clipboards."""
        if any(self.windows[con].program is program for con in self.picture if con in self.windows):
            self.selection = program.persona

    def visible(self, window: Window) -> bool:
        return not self.screen.dark and bool(window.workspace) and window.workspace == self.current

    def changed(self, resized: tuple[Window, ...] = ()) -> None:
        """Draw what is to be seen, once the clients that get a new size have taken it, or that takes too long."""
        if any(not each.program.acks or each.program.stands for each in resized if self.visible(each)):
            self._settling = self.world.now + TRANSACTION_S
            self.later(self.settle, TRANSACTION_S)
        elif self.world.now >= self._settling:
            self.settle()

    def settle(self) -> None:
        self._settling = 0.0
        self.scene = frozenset(con for con, each in self.windows.items() if self.visible(each))
        self.world.checks.screen.composed(self)
        self.at_frame(lambda: None)

    def at_frame(self, call: Callable[[], None]) -> None:
        """Call it with the next frame; there is none while the output is gone."""
        self._at_frame.append(call)
        if not self._frame:
            self._frame = True
            self.later(self._draw, FRAME_S)

    def _draw(self) -> None:
        self._frame = False
        if self.screen.dark:
            self.picture = frozenset()
            return
        self.picture = self.scene & frozenset(self.windows)
        self.world.checks.screen.drawn(self)
        calls, self._at_frame = self._at_frame, []
        for call in calls:
            call()
