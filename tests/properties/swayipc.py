"""sway's IPC as bay0 uses it, from sway's side: frames on a real socket, the tree, the commands. For compositor.py."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
from typing import TYPE_CHECKING, Any

from attrs import define, field
from broken import hold

from bay0.screen.ipc import EVENT, HEAD, MAGIC, Ask, Event
from bay0.screen.tree import SCRATCH

if TYPE_CHECKING:
    from sway import Sway, Window

OUTPUT = "Virtual-1"
CHUNK = 1 << 16


@define(eq=False)
class Connection:
    """One client of either socket. What it says is answered in its order."""

    socket: socket.socket
    held: bytes = b""
    said: list[bytes] = field(factory=list)
    fds: list[int] = field(factory=list)

    def send(self, sway: Sway, data: bytes) -> None:
        """Say it; or half of it, and hang up."""
        screen = sway.screen
        with contextlib.suppress(OSError):
            if screen.cuts > 0:
                screen.cuts -= 1
                self.socket.send(data[: max(1, len(data) // 2)])
                self.socket.close()
            else:
                self.socket.send(data)

    @property
    def open(self) -> bool:
        return self.socket.fileno() >= 0


@define(eq=False)
class Ipc:
    """Its end of the IPC socket."""

    sway: Sway
    listener: socket.socket | None = None
    connections: list[Connection] = field(factory=list)
    subscribers: list[Connection] = field(factory=list)
    fallen: int = 0  # commands that it could not do

    def close(self) -> None:
        for each in self.connections:
            each.socket.close()
        self.connections.clear()
        self.subscribers.clear()
        if self.listener is not None:
            self.listener.close()

    def pump(self) -> None:
        with contextlib.suppress(OSError):
            while self.listener is not None:
                peer, _ = self.listener.accept()
                peer.setblocking(False)
                self.connections.append(Connection(peer))
        for each in list(self.connections):
            self._hear(each)

    def _hear(self, link: Connection) -> None:
        if not link.open:
            return
        try:
            data = link.socket.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            link.socket.close()
            self.connections.remove(link)
            return
        link.held += data
        while len(link.held) >= HEAD.size:
            magic, size, kind = HEAD.unpack_from(link.held)
            hold(magic == MAGIC, f"bay0 says to sway what is no frame: {link.held[:20]!r}")
            if len(link.held) < HEAD.size + size:
                return
            payload = link.held[HEAD.size : HEAD.size + size].decode()
            link.held = link.held[HEAD.size + size :]
            self.sway.later(lambda kind=kind, payload=payload: self._answer(link, kind, payload))

    def _answer(self, link: Connection, kind: int, payload: str) -> None:
        if not link.open:
            return
        answers = {
            Ask.GET_VERSION: lambda: {"human_readable": "1.10.1"},
            Ask.GET_OUTPUTS: self._outputs,
            Ask.GET_TREE: self._tree,
            Ask.SUBSCRIBE: lambda: self._subscribe(link),
            Ask.RUN_COMMAND: lambda: self._run(payload),
        }
        self.sway.world.seam(f"sway {Ask(kind).name}")
        self._send(link, kind, answers[Ask(kind)]())

    def _send(self, link: Connection, kind: int, value: Any) -> None:
        data = json.dumps(value).encode()
        link.send(self.sway, struct.pack("=6sII", MAGIC, len(data), kind) + data)

    def _subscribe(self, link: Connection) -> dict[str, bool]:
        self.subscribers.append(link)
        return {"success": True}

    def tell(self, change: str, window: Window) -> None:
        self._tell(
            Event.WINDOW, {"change": change, "container": {"id": window.con, "pid": window.program.pid}}
        )

    def press(self, command: str) -> None:
        """A key that is bound to this."""
        self._tell(Event.BINDING, {"change": "run", "binding": {"command": command}})

    def _tell(self, kind: Event, value: Any) -> None:
        for each in self.subscribers:
            if each.open:
                self._send(each, EVENT | kind, value)

    # ---- the tree

    def _outputs(self) -> list[dict[str, Any]]:
        if self.sway.screen.dark:
            return []
        mode = {"width": 1024, "height": 768, "refresh": 60000}
        return [{"name": OUTPUT, "active": True, "power": True, "current_mode": mode}]

    def _tree(self) -> dict[str, Any]:
        sway = self.sway
        scratch = [self._window(each) for each in sway.windows.values() if not each.workspace]
        hidden = {
            "type": "output",
            "name": "__i3",
            "nodes": [_workspace(SCRATCH, [], scratch)],
            "floating_nodes": [],
        }
        outputs = [hidden]
        if not sway.screen.dark:
            shown = "somewhere" if sway.screen.lies == "deaf" else sway.current
            names = sorted({each.workspace for each in sway.windows.values() if each.workspace} | {shown})
            spaces = [
                _workspace(name, [self._window(w) for w in sway.windows.values() if w.workspace == name], [])
                for name in names
            ]
            outputs.append(
                {
                    "type": "output",
                    "name": OUTPUT,
                    "current_workspace": shown,
                    "nodes": spaces,
                    "floating_nodes": [],
                }
            )
        return {"type": "root", "name": "root", "nodes": outputs, "floating_nodes": []}

    def _window(self, window: Window) -> dict[str, Any]:
        lies = self.sway.screen.lies
        visible = lies == "visible" or (lies != "hidden" and self.sway.visible(window))
        return {
            "type": "floating_con" if window.floats else "con", "id": window.con, "pid": window.program.pid, "visible": visible,
            "fullscreen_mode": int(window.full), "marks": window.marks, "nodes": [], "floating_nodes": [],
        }  # fmt: skip

    # ---- commands

    def _run(self, payload: str) -> list[dict[str, bool]]:
        """Do all of a message, and draw once."""
        sway, before = self.sway, self.sway.current
        moved: list[Window] = []
        deaf = sway.screen.lies == "deaf"
        results = [{"success": deaf or self._command(each, moved)} for each in payload.split("; ")]
        self.fallen += sum(not each["success"] for each in results)
        if sway.current != before:
            sway.world.checks.screen.switched(sway)
        sway.changed(tuple(moved))
        return results

    def _command(self, text: str, moved: list[Window]) -> bool:
        sway = self.sway
        if text.startswith("client."):
            return True
        shown = re.fullmatch(r'workspace --no-auto-back-and-forth "([^"]+)"', text)
        if shown is not None:
            sway.current = sway.told = shown[1]
            return True
        about = re.fullmatch(r"\[con_id=(\d+)\] (.*)", text)
        hold(about is not None, f"bay0 tells sway to {text}, which it does not understand")
        window = sway.windows.get(int(about[1]))  # type: ignore[index]
        if window is None:
            return False
        return self._about(window, about[2], moved)  # type: ignore[index]

    def _about(self, window: Window, what: str, moved: list[Window]) -> bool:
        sway = self.sway
        to = re.fullmatch(r'move container to workspace "([^"]+)"', what)
        if to is not None:
            hold(
                not window.full or window.workspace,
                "sway 1.10.1 dies of this: a window of the scratchpad that asks for full screen is moved",
            )
            window.workspace = to[1]
            moved.append(window)
        elif what == "move scratchpad":
            window.workspace, window.floats = "", True
        elif what == "fullscreen disable":
            window.full = False
        elif what == "floating disable":
            window.floats = False
            moved.append(window)
        elif what == "focus":
            sway.current = window.workspace or sway.current
        elif what == "kill":
            sway.later(lambda: self._asked_to_close(window))
        elif what.startswith("title_format "):
            window.title = what
        else:
            hold(False, f"bay0 tells sway to {what} a window, which it does not understand")
        return True

    def _asked_to_close(self, window: Window) -> None:
        if not window.program.stubborn and not window.program.stands:
            self.sway.closes(window.con)


def _workspace(name: str, nodes: list[Any], floating: list[Any]) -> dict[str, Any]:
    return {"type": "workspace", "name": name, "nodes": nodes, "floating_nodes": floating}
