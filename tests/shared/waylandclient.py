"""A client of a Wayland socket without a library: one window of one colour, which does what a persona's program may try.

As a program: `python waylandclient.py SOCKET RRGGBB WORD...`; the words are done in their order:
    map            show a window (xdg_toplevel)
    map-full       the same, asking for full screen on the first output before it is shown
    app-id=TEXT    before `map`: its app id; without it the window has none
    draw           draw anew whenever the compositor says so, from now on
    deaf           take no size that is proposed from now on
    full           ask for full screen on the first output
    spam           the same for ever, as fast as it is answered, and take it back between
    pass-on        be a child of the process that connected, which ends
    flood          ask without end, and read no answer; over once the connection is
    huge=N         draw N buffers of 16384 x 16384 pixels, one after the other
    windows=N      open N windows of a pixel each
    numbers        print NAME:NUMBER of each global, and `numbered`
    grab=N:NAME    bind the global NAME by its number N, offered or not; prints `grabbed NAME` or `refused NAME`
    clip=TEXT      offer this text as the clipboard (needs a key or button of the person: serial 0 is refused
    by some) wait           until a line comes on standard input
    go             on until the connection ends
It prints `globals NAMES`, `mapped`, `done`, each in a line, and `closed` once the compositor asks the window
to close.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
import time
from collections.abc import Callable, Sequence

SIZE = (64, 64)
HUGE = 16384  # pixels of a side


class Client:
    """One connection."""

    def __init__(self, path: str) -> None:
        self.peer = socket.socket(socket.AF_UNIX)
        self.peer.connect(path)
        self.next, self.held = 2, b""
        self.offered: dict[str, tuple[int, int]] = {}
        self.heard: dict[tuple[int, int], Callable[[bytes], None]] = {}
        self.mapped = self.closed = self.deaf = False
        self.size, self.draws = SIZE, False
        self.registry = self.new()
        self.heard[self.registry, 0] = self._global
        self.send(1, 1, self.registry)
        self.sync()

    def new(self) -> int:
        self.next += 1
        return self.next - 1

    def send(self, target: int, opcode: int, *words: int | str, fds: Sequence[int] = ()) -> None:
        body = b""
        for word in words:
            if isinstance(word, str):
                data = word.encode() + b"\0"
                body += struct.pack("=I", len(data)) + data + bytes(-len(data) % 4)
            else:
                body += struct.pack("=I", word & 0xFFFFFFFF)
        socket.send_fds(self.peer, [struct.pack("=II", target, (8 + len(body)) << 16 | opcode) + body], fds)

    def turn(self, bound_s: float | None = None) -> bool:
        """Hear what comes; False once the connection has ended, or nothing came."""
        if not select.select([self.peer], [], [], bound_s)[0]:
            return False
        data = self.peer.recv(65536)
        if not data:
            return False
        self.held += data
        while len(self.held) >= 8:
            sender, both = struct.unpack_from("=II", self.held)
            if len(self.held) < both >> 16:
                break
            body, self.held = self.held[8 : both >> 16], self.held[both >> 16 :]
            if (sender, both & 0xFFFF) == (1, 0):
                raise SystemExit(f"error of the protocol: {body!r}")
            self.heard.get((sender, both & 0xFFFF), lambda _body: None)(body)
        return True

    def sync(self) -> None:
        done: list[bytes] = []
        number = self.new()
        self.heard[number, 0] = done.append
        self.send(1, 0, number)
        while not done:
            if not self.turn():
                raise SystemExit("the connection has ended")

    def _global(self, body: bytes) -> None:
        number, length = struct.unpack_from("=II", body)
        interface = body[8 : 8 + length - 1].decode()
        self.offered.setdefault(interface, (number, struct.unpack("=I", body[-4:])[0]))

    def bind(self, interface: str, version: int) -> int:
        number, new = self.offered[interface][0], self.new()
        self.send(self.registry, 0, number, interface, version, new)
        return new

    # ---- a window

    def map(self, colour: int, app_id: str, full: bool) -> None:
        self.colour = colour
        self.compositor, self.shm, self.base = (
            self.bind("wl_compositor", 1),
            self.bind("wl_shm", 1),
            self.bind("xdg_wm_base", 1),
        )
        self.output = self.bind("wl_output", 1) if "wl_output" in self.offered else 0
        self.heard[self.base, 0] = lambda body: self.send(self.base, 3, *struct.unpack("=I", body))
        self.surface, self.xdg, self.top = self.new(), self.new(), self.new()
        self.send(self.compositor, 0, self.surface)
        self.send(self.base, 2, self.xdg, self.surface)
        self.heard[self.xdg, 0] = self._configured
        self.send(self.xdg, 1, self.top)
        self.heard[self.top, 0] = self._sized
        self.heard[self.top, 1] = self._close
        self.send(self.top, 2, f"window of {colour:06x}")
        if app_id:
            self.send(self.top, 3, app_id)
        if full:
            self.full()
        self.send(self.surface, 6)
        while not self.mapped:
            if not self.turn():
                raise SystemExit("the connection has ended")
        self.sync()

    def full(self) -> None:
        self.send(self.top, 11, self.output)

    def _close(self, _body: bytes) -> None:
        self.closed = True
        print("closed", flush=True)

    def _sized(self, body: bytes) -> None:
        width, height = struct.unpack_from("=II", body)
        self.size = (width or SIZE[0], height or SIZE[1])

    def _configured(self, body: bytes) -> None:
        if self.deaf:
            return
        self.send(self.xdg, 4, *struct.unpack("=I", body))
        self.paint()
        self.mapped = True

    def paint(self) -> None:
        width, height = self.size
        fd = os.memfd_create("buffer")
        os.write(fd, struct.pack("=I", 0xFF000000 | self.colour) * (width * height))
        pool, buffer = self.new(), self.new()
        self.send(self.shm, 0, pool, 4 * width * height, fds=[fd])
        self.send(pool, 0, buffer, 0, width, height, 4 * width, 1)
        self.send(pool, 1)
        os.close(fd)
        self.heard[buffer, 0] = lambda _body: self.send(buffer, 0)
        self.send(self.surface, 1, buffer, 0, 0)
        self.send(self.surface, 2, 0, 0, width, height)
        if self.draws:
            frame = self.new()
            self.heard[frame, 0] = lambda _body: self.paint()
            self.send(self.surface, 3, frame)
        self.send(self.surface, 6)

    # ---- what goes too far

    def flood(self) -> None:
        try:
            while True:
                self.peer.sendall(struct.pack("=III", 1, 12 << 16, self.new()))
        except OSError:
            return

    def huge(self, count: int) -> None:
        self.draws, self.size = False, (HUGE, HUGE)
        for _ in range(count):
            fd = os.memfd_create("buffer")
            os.truncate(fd, 4 * HUGE * HUGE)
            pool, buffer = self.new(), self.new()
            self.send(self.shm, 0, pool, 4 * HUGE * HUGE, fds=[fd])
            self.send(pool, 0, buffer, 0, HUGE, HUGE, 4 * HUGE, 1)
            os.close(fd)
            self.send(self.surface, 1, buffer, 0, 0)
            self.send(self.surface, 2, 0, 0, HUGE, HUGE)
            self.send(self.surface, 6)
            self.sync()

    def windows(self, count: int) -> None:
        compositor, base = self.bind("wl_compositor", 1), self.bind("xdg_wm_base", 1)
        for _ in range(count):
            surface, xdg, top = self.new(), self.new(), self.new()
            self.send(compositor, 0, surface)
            self.send(base, 2, xdg, surface)
            self.heard[xdg, 0] = lambda body, xdg=xdg, surface=surface: self._small(xdg, surface, body)  # type: ignore[misc]
            self.send(xdg, 1, top)
            self.send(surface, 6)
            while self.turn(0):  # or sway hangs up on one who does not read
                pass
        while self.turn():
            pass

    def _small(self, xdg: int, surface: int, body: bytes) -> None:
        """Show a window of one pixel."""
        self.send(xdg, 4, *struct.unpack("=I", body))
        if not hasattr(self, "pixel"):
            shm, pool, self.pixel = self.bind("wl_shm", 1), self.new(), self.new()
            fd = os.memfd_create("pixel")
            os.truncate(fd, 4)
            self.send(shm, 0, pool, 4, fds=[fd])
            self.send(pool, 0, self.pixel, 0, 1, 1, 4, 1)
            os.close(fd)
        self.send(surface, 1, self.pixel, 0, 0)
        self.send(surface, 6)

    def grab(self, number: int, interface: str) -> bool:
        """Bind a global by its number, whether it was offered or not; tell whether that went."""
        self.send(self.registry, 0, number, interface, 1, self.new())
        try:
            self.sync()
        except (SystemExit, OSError):
            return False
        return True

    # ---- the clipboard

    def clip(self, text: str) -> None:
        manager, seat = self.bind("wl_data_device_manager", 1), self.bind("wl_seat", 1)
        source, device = self.new(), self.new()
        self.send(manager, 0, source)
        self.send(source, 0, f"text/{text}")
        self.send(manager, 1, device, seat)
        self.send(device, 1, source, 0)

    def offer(self, kind: str) -> None:
        """Offer something of this type on both clipboards, as one may who is not a persona."""
        manager, seat = self.bind("zwlr_data_control_manager_v1", 2), self.bind("wl_seat", 1)
        device = self.new()
        self.send(manager, 1, device, seat)
        for opcode in (0, 2):
            source = self.new()
            self.send(manager, 0, source)
            self.send(source, 0, kind)
            self.send(device, opcode, source)
        self.sync()

    def turn_fds(self) -> list[int]:
        """Wait for what comes; return the descriptors that came with it: who wants what is offered. [] at the end."""
        while True:
            try:
                data, fds, _flags, _address = socket.recv_fds(self.peer, 65536, 28)
            except OSError:
                return []
            if fds or not data:
                return list(fds)

    def paste(self, meanwhile: Callable[[], None], bound_s: float = 10.0) -> dict[str, str]:
        """Return the text that is on each of both clipboards; `meanwhile` is called until it has come."""
        manager, seat, device = self.bind("zwlr_data_control_manager_v1", 2), self.bind("wl_seat", 1), self.new()
        there: dict[str, int] = {}
        for opcode, name in ((1, "clipboard"), (3, "primary selection")):
            self.heard[device, opcode] = lambda body, name=name: there.update({name: struct.unpack("=I", body)[0]})
        self.send(manager, 1, device, seat)
        self.sync()
        found = {}
        for name, offer in there.items():
            if not offer:
                continue
            read, write = os.pipe()
            self.send(offer, 0, "text/plain;charset=utf-8", fds=[write])
            os.close(write)
            text, end = b"", time.monotonic() + bound_s
            while time.monotonic() < end:
                meanwhile()
                if select.select([read], [], [], 0)[0]:
                    data = os.read(read, 65536)
                    if not data:
                        found[name] = text.decode()
                        break
                    text += data
            os.close(read)
        return found


def main(path: str, colour: str, *words: str) -> None:
    client, app_id = Client(path), ""
    print("globals", *sorted(client.offered), flush=True)
    for word in words:
        name, _, value = word.partition("=")
        if name == "app-id":
            app_id = value
        elif name in ("map", "map-full"):
            client.map(int(colour, 16), app_id, name == "map-full")
            print("mapped", flush=True)
        elif name == "draw":
            client.draws = True
            client.paint()
        elif name == "deaf":
            client.deaf = True
        elif name == "full":
            client.full()
            client.sync()
        elif name == "spam":
            while client.turn(0) or True:
                client.full()
                client.send(client.top, 12)
                client.full()
                client.sync()
        elif name == "pass-on":
            if os.fork():
                os._exit(0)
        elif name == "flood":
            client.flood()
        elif name == "huge":
            client.huge(int(value))
        elif name == "windows":
            client.windows(int(value))
        elif name == "numbers":
            print(*(f"{interface}:{number}" for interface, (number, _) in client.offered.items()), "numbered", flush=True)
        elif name == "grab":
            number, _, interface = value.partition(":")
            print("grabbed" if client.grab(int(number), interface) else "refused", interface, flush=True)
        elif name == "clip":
            client.clip(value)
            client.sync()
        elif name == "wait":
            while not select.select([sys.stdin], [], [], 0)[0]:
                select.select([sys.stdin, client.peer], [], [])
                client.turn(0)
            sys.stdin.readline()
        elif name == "go":
            while client.turn():
                pass
        print("done", word, flush=True)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    finally:
        print("ended", flush=True)
