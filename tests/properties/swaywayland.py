"""sway's Wayland socket as bay0 uses it, from sway's side, on the wire. For compositor.py.

Contexts of personas' sockets (security-context-v1), copies of a frame (wlr-screencopy), clipboards (wlr-data-control).
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from typing import TYPE_CHECKING

from attrs import define, field
from broken import hold
from swayipc import CHUNK, Connection

from bay0.screen import registry, wire

if TYPE_CHECKING:
    from sway import Sway

FDS_MAX = 28
OFFER = 0xFF000000


@define(eq=False)
class Context:
    """A persona's socket that it listens at, until the other end of `close_fd` is closed."""

    listener: socket.socket
    close_fd: int
    persona: str = ""
    committed: bool = False

    @property
    def over(self) -> bool:
        poll = select.poll()
        poll.register(self.close_fd, select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> None:
        self.listener.close()
        os.close(self.close_fd)


@define(eq=False)
class Client(Connection):
    """bay0, once. `objects`: number -> interface."""

    objects: dict[int, str] = field(factory=lambda: {1: "wl_display"})
    contexts: dict[int, Context] = field(factory=dict)
    registries: list[int] = field(factory=list)


@define(eq=False)
class Wayland:
    """Its end of the Wayland socket, and the personas' sockets that it was given."""

    sway: Sway
    listener: socket.socket | None = None
    clients: list[Client] = field(factory=list)
    contexts: list[Context] = field(factory=list)
    peers: list[socket.socket] = field(factory=list)  # of personas' programs
    _dark: bool = False

    def close(self) -> None:
        for each in self.clients:
            self._drop(each)
        for context in self.contexts:
            context.close()
        for peer in self.peers:
            peer.close()
        self.peers.clear()
        self.clients.clear()
        self.contexts.clear()
        if self.listener is not None:
            self.listener.close()

    def _drop(self, client: Client) -> None:
        client.socket.close()
        for fd in client.fds:
            os.close(fd)
        client.fds.clear()
        for context in client.contexts.values():
            if not context.committed:
                context.close()
        client.contexts.clear()

    @property
    def offered(self) -> dict[int, str]:
        more = [self.sway.screen.offers] if self.sway.screen.offers else []
        there = dict(enumerate([*sorted(registry.ALLOWED), *more], start=1))
        return {
            number: name for number, name in there.items() if name != "wl_output" or not self.sway.screen.dark
        }

    def pump(self) -> None:
        with contextlib.suppress(OSError):
            while self.listener is not None:
                peer, _ = self.listener.accept()
                peer.setblocking(False)
                self.clients.append(Client(peer))
        if self._dark is not self.sway.screen.dark:
            self._output_changes()
        for each in list(self.clients):
            self._hear(each)
        for context in list(self.contexts):
            self._serve(context)

    def _output_changes(self) -> None:
        self._dark = self.sway.screen.dark
        number = 1 + sorted(registry.ALLOWED).index("wl_output")
        for client in self.clients:
            for each in client.registries:
                if self._dark:
                    self._event(client, each, 1, wire.words(number))
                else:
                    self._event(
                        client, each, 0, wire.words(number) + wire.string("wl_output") + wire.words(4)
                    )
        self.sway.changed()

    def _serve(self, context: Context) -> None:
        """Take who waits at a persona's socket; end the context once bay0 has."""
        if context.over:
            context.close()
            self.contexts.remove(context)
            return
        with contextlib.suppress(BlockingIOError):
            while True:
                peer, name = context.listener.accept()
                program = next((each for each in self.sway.screen.programs if each.name == name), None)
                if program is None:
                    peer.close()
                    continue
                self.peers.append(peer)
                self.sway.takes(program)

    # ---- what bay0 says

    def _hear(self, client: Client) -> None:
        if not client.open:
            self.clients.remove(client)
            self._drop(client)
            return
        try:
            data, fds, _, _ = socket.recv_fds(client.socket, CHUNK, FDS_MAX, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except OSError:
            data, fds = b"", []
        client.fds += fds
        if not data:
            self._drop(client)
            self.clients.remove(client)
            return
        client.held += data
        while len(client.held) >= wire.HEAD.size:
            target, both = wire.HEAD.unpack_from(client.held)
            size = both >> 16
            if len(client.held) < size:
                return
            body, client.held = client.held[wire.HEAD.size : size], client.held[size:]
            self.sway.later(
                lambda target=target, opcode=both & 0xFFFF, body=body: self._request(
                    client, target, opcode, body
                )
            )

    def _event(self, client: Client, sender: int, opcode: int, body: bytes = b"") -> None:
        client.send(self.sway, wire.request(sender, opcode, body))

    def _request(self, client: Client, target: int, opcode: int, body: bytes) -> None:
        if not client.open:
            return
        interface = client.objects.get(target)
        hold(interface is not None, f"bay0 asks object {target} for something, which it never made")
        act = getattr(self, f"_{interface}", None)
        if act is not None:
            act(client, target, opcode, wire.Arguments(body))

    def _wl_display(self, client: Client, _target: int, opcode: int, arguments: wire.Arguments) -> None:
        number = arguments.uint()
        if opcode == 0:
            self.sway.world.seam("sway sync")
            self._event(client, number, 0, wire.words(7))
            self._event(client, 1, 1, wire.words(number))
        else:
            client.objects[number] = "wl_registry"
            client.registries.append(number)
            for each, interface in self.offered.items():
                self._event(client, number, 0, wire.words(each) + wire.string(interface) + wire.words(9))

    def _wl_registry(self, client: Client, _target: int, _opcode: int, arguments: wire.Arguments) -> None:
        name, interface = arguments.uint(), arguments.string()
        arguments.uint()
        there = self.offered.get(name) == interface or interface == "wl_output"
        hold(there, f"bay0 binds {interface} by the number {name}, which is {self.offered.get(name)}")
        client.objects[arguments.uint()] = interface

    # ---- personas' sockets

    def _wp_security_context_manager_v1(
        self, client: Client, _target: int, opcode: int, arguments: wire.Arguments
    ) -> None:
        if opcode == 1:
            number = arguments.uint()
            hold(len(client.fds) >= 2, "a context without its two descriptors")
            listener, close_fd = client.fds[:2]
            del client.fds[:2]
            client.objects[number] = "context"
            client.contexts[number] = Context(socket.socket(fileno=listener), close_fd)

    def _context(self, client: Client, target: int, opcode: int, arguments: wire.Arguments) -> None:
        context = client.contexts[target]
        if opcode == 2:
            context.persona = arguments.string()
        elif opcode == 4:
            self.sway.world.seam("sway context")
            context.committed = True
            self.contexts.append(context)

    # ---- frames

    def _zwlr_screencopy_manager_v1(
        self, client: Client, _target: int, opcode: int, arguments: wire.Arguments
    ) -> None:
        if opcode == 1:
            number = arguments.uint()
            client.objects[number] = "frame"
            if self.sway.screen.dark:
                self._event(client, number, 3)
            else:
                self._event(client, number, 0, wire.words(0, 1, 1, 4))

    def _frame(self, client: Client, target: int, opcode: int, _arguments: wire.Arguments) -> None:
        def drawn() -> None:
            if client.open:
                self._event(client, target, 2, wire.words(0, 0, 0))

        if opcode == 0:
            self.sway.at_frame(drawn)

    def _wl_shm(self, client: Client, _target: int, opcode: int, arguments: wire.Arguments) -> None:
        if opcode == 0:
            client.objects[arguments.uint()] = "pool"
            os.close(client.fds.pop(0))

    def _pool(self, client: Client, _target: int, opcode: int, arguments: wire.Arguments) -> None:
        if opcode == 0:
            client.objects[arguments.uint()] = "buffer"

    # ---- clipboards

    def _zwlr_data_control_manager_v1(
        self, client: Client, _target: int, opcode: int, arguments: wire.Arguments
    ) -> None:
        number = arguments.uint()
        client.objects[number] = {0: "source", 1: "device"}[opcode]
        if opcode == 1 and self.sway.selection:
            offer = OFFER + number
            client.objects[offer] = "offer"
            self._event(client, number, 0, wire.words(offer))
            self._event(client, offer, 0, wire.string("text/plain"))
            for both in (1, 3):
                self._event(client, number, both, wire.words(offer))

    def _offer(self, client: Client, _target: int, opcode: int, _arguments: wire.Arguments) -> None:
        """Its owner writes its name, unless it stands still."""
        if opcode == 0 and client.fds:
            with socket.socket(fileno=client.fds.pop(0)) as writer, contextlib.suppress(OSError):
                owner = self.sway.screen.of(self.sway.selection)
                if owner is not None and not owner.stands:
                    writer.send(self.sway.selection.encode())

    def _device(self, _client: Client, _target: int, opcode: int, arguments: wire.Arguments) -> None:
        """bay0 empties both, or gives back what it has kept of the one whom it has just told sway to show."""
        if opcode in (0, 2):
            self.sway.selection = self.sway.told if arguments.uint() else ""
