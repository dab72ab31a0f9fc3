"""A picture of what a compositor shows, by wlr-screencopy-unstable-v1 over its own socket; and a way to ask sway's IPC. They wait."""

from __future__ import annotations

import array
import mmap
import os
import socket
from typing import Any

from bay0.screen import ipc, wire
from bay0.screen.ipc import Ask

BOUND_S = 30.0
XRGB8888 = 1  # of wl_shm: blue, green, red, nothing
REGISTRY, SYNC, SHM, OUTPUT, MANAGER, FRAME, POOL, BUFFER = range(2, 10)
BUFFER_EVENT, FLAGS, READY, FAILED = range(4)  # events of a frame
Y_INVERT = 1


class _Client:
    def __init__(self, path: str) -> None:
        self.peer = socket.socket(socket.AF_UNIX)
        self.peer.settimeout(BOUND_S)
        self.peer.connect(path)
        self.reader = wire.Reader()
        self.heard: list[wire.Message] = []

    def send(self, target: int, opcode: int, body: bytes = b"", fd: int | None = None) -> None:
        more = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))] if fd is not None else []
        self.peer.sendmsg([wire.request(target, opcode, body)], more)

    def event(self) -> wire.Message:
        while not self.heard:
            data = self.peer.recv(1 << 16)
            if not data:
                raise OSError("the compositor hung up")
            self.heard += self.reader.feed(data)
        message = self.heard.pop(0)
        if (message.sender, message.opcode) == (wire.DISPLAY, 0):
            raise OSError(f"the compositor refused: {message.body!r}")
        return message

    def globals(self) -> dict[str, int]:
        found = {}
        self.send(wire.DISPLAY, 1, wire.words(REGISTRY))
        self.send(wire.DISPLAY, 0, wire.words(SYNC))
        while (message := self.event()).sender != SYNC:
            if (message.sender, message.opcode) == (REGISTRY, 0):
                arguments = wire.Arguments(message.body)
                number = arguments.uint()
                found[arguments.string()] = number
        return found


def picture(path: str) -> tuple[int, int, bytes]:
    """Return width, height and the bytes (three a pixel) of the one output of who listens at `path`. `OSError`: it does not show it."""
    client = _Client(path)
    with client.peer:
        there = client.globals()
        for name, number in (("wl_shm", SHM), ("wl_output", OUTPUT), ("zwlr_screencopy_manager_v1", MANAGER)):
            client.send(REGISTRY, 0, wire.words(there[name]) + wire.string(name) + wire.words(1, number))
        client.send(MANAGER, 0, wire.words(FRAME, 0, OUTPUT))
        layout = _await(client, BUFFER_EVENT)
        kind, width, height, stride = (layout.uint() for _ in range(4))
        if kind != XRGB8888:
            raise OSError(f"a picture of the format {kind:#x}")
        fd = os.memfd_create("picture")
        try:
            os.truncate(fd, stride * height)
            client.send(SHM, 0, wire.words(POOL, stride * height), fd)
            client.send(POOL, 0, wire.words(BUFFER, 0, width, height, stride, kind))
            client.send(FRAME, 0, wire.words(BUFFER))
            flags = _await(client, FLAGS).uint()
            _await(client, READY)
            with mmap.mmap(fd, stride * height) as held:
                rows = [held[stride * row : stride * row + 4 * width] for row in range(height)]
        finally:
            os.close(fd)
    if flags & Y_INVERT:
        rows.reverse()
    return width, height, b"".join(_rgb(row) for row in rows)


def _await(client: _Client, opcode: int) -> wire.Arguments:
    while (message := client.event()).sender != FRAME or message.opcode != opcode:
        if message.sender == FRAME and message.opcode == FAILED:
            raise OSError("the compositor could not copy its picture")
    return wire.Arguments(message.body)


def _rgb(row: bytes) -> bytes:
    made = bytearray(len(row) // 4 * 3)
    made[0::3], made[1::3], made[2::3] = row[2::4], row[1::4], row[0::4]
    return bytes(made)


def ask(path: str, kind: Ask, payload: str = "") -> Any:
    """Return sway's answer to one question on its IPC socket."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(BOUND_S)
        peer.connect(path)
        peer.sendall(ipc.frame(kind, payload))
        reader = ipc.Reader()
        while True:
            data = peer.recv(1 << 16)
            if not data:
                raise OSError("sway hung up")
            for frame in reader.feed(data):
                return frame.value()
