"""A disk with faults: an NBD server (the protocol's doc/proto.md, newstyle, one export) that holds, delays or fails chosen kinds of request.

nbdkit's pause filter stops everything at once; the matrix needs more: only reads, only flushes, from the first write on, one request a second.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

from attrs import define, field, frozen

READ, WRITE, DISCONNECT, FLUSH = 0, 1, 2, 3
DATA = frozenset({READ, WRITE, FLUSH})
_GO, _ABORT, _ACK, _INFO, _UNSUPPORTED = 7, 2, 1, 3, 0x80000001
_OPTION_MAGIC, _REPLY_MAGIC, _REQUEST_MAGIC, _ANSWER_MAGIC = 0x49484156454F5054, 0x3E889045565A9, 0x25609513, 0x67446698
_FLAGS = 1 | 4 | 8  # has flags, flush, FUA


@frozen
class Fault:
    """What happens to the requests of `kinds`. `pace_s`: one request at a time, this far apart. `flap_s`: on and off again."""

    kinds: frozenset[int] = DATA
    hold: bool = False
    error: int = 0
    delay_s: float = 0.0
    pace_s: float = 0.0
    flap_s: float = 0.0


HEALTHY = Fault(frozenset())


@define
class _Request:
    kind: int
    flags: int
    handle: int
    offset: int
    data: bytes
    length: int
    due: float = 0.0


@define(eq=False)
class Disk:
    """Serves one image to one client at a time, in a thread; requests are answered by a second one."""

    uri: str
    _image: int
    _size: int
    _listener: socket.socket
    _fault: Fault = HEALTHY
    _armed: tuple[Callable[[int], bool], Fault] | None = None
    _since: float = 0.0
    _queue: deque[_Request] = field(factory=deque)
    _turn: threading.Condition = field(factory=threading.Condition)
    _peer: socket.socket | None = None
    _open: bool = True

    def set(self, fault: Fault) -> None:
        """Let `fault` happen from now on, to requests that wait too."""
        with self._turn:
            self._fault, self._armed, self._since = fault, None, time.monotonic()
            for request in self._queue:
                request.due = 0.0
            self._turn.notify_all()

    def clear(self) -> None:
        """Be healthy; what was held is answered now."""
        self.set(HEALTHY)

    def arm(self, kind: int, fault: Fault) -> None:
        """Let `fault` happen from the first request of `kind` on."""
        with self._turn:
            self._armed = (lambda seen: seen == kind), fault

    def close(self) -> None:
        """Stop serving."""
        with self._turn:
            self._open = False
            self._turn.notify_all()
        for end in (self._listener, self._peer):
            if end is not None:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()

    # ---- the reading thread

    def serve(self) -> None:
        """Take one client after the other."""
        while self._open:
            try:
                self._peer, _ = self._listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError, EOFError), self._peer:
                if self._greet(self._peer):
                    self._requests(self._peer)
            with self._turn:
                self._queue.clear()

    def _greet(self, peer: socket.socket) -> bool:
        peer.sendall(b"NBDMAGIC" + struct.pack(">QH", _OPTION_MAGIC, 3))  # fixed newstyle, no zeroes
        _exactly(peer, 4)
        while True:
            _, option, length = struct.unpack(">QII", _exactly(peer, 16))
            _exactly(peer, length)
            if option == _GO:
                _reply(peer, option, _INFO, struct.pack(">HQH", 0, self._size, _FLAGS))
                _reply(peer, option, _ACK)
                return True
            _reply(peer, option, _ACK if option == _ABORT else _UNSUPPORTED)
            if option == _ABORT:
                return False

    def _requests(self, peer: socket.socket) -> None:
        while True:
            _, flags, kind, handle, offset, length = struct.unpack(">IHHQQI", _exactly(peer, 28))
            if kind == DISCONNECT:
                return
            data = _exactly(peer, length) if kind == WRITE else b""
            with self._turn:
                if self._armed is not None and self._armed[0](kind):
                    self._fault, self._armed, self._since = self._armed[1], None, time.monotonic()
                self._queue.append(_Request(kind, flags, handle, offset, data, length))
                self._turn.notify_all()

    # ---- the answering thread

    def answer(self) -> None:
        """Answer requests as the fault allows."""
        while True:
            with self._turn:
                if not self._open:
                    return
                request, wait = self._next()
                if request is None:
                    self._turn.wait(wait)
                    continue
                self._queue.remove(request)
                fault = self._fault if request.kind in self._fault.kinds else HEALTHY
            self._do(request, fault)
            if fault.pace_s:
                time.sleep(fault.pace_s)

    def _next(self) -> tuple[_Request | None, float | None]:
        """Return a request that may be answered now, or how long to wait for one."""
        now = time.monotonic()
        resting = self._fault.flap_s and int((now - self._since) / self._fault.flap_s) % 2
        soonest: float | None = self._fault.flap_s or None
        for request in self._queue:
            if request.kind not in self._fault.kinds or resting:
                return request, None
            if self._fault.hold:
                continue
            if request.due == 0.0:
                request.due = now + self._fault.delay_s
            if request.due <= now:
                return request, None
            soonest = min(soonest or request.due - now, request.due - now)
        return None, soonest

    def _do(self, request: _Request, fault: Fault) -> None:
        data, code = b"", fault.error
        if not code:
            if request.kind == READ:
                data = os.pread(self._image, request.length, request.offset)
            elif request.kind == WRITE:
                os.pwrite(self._image, request.data, request.offset)
            elif request.kind != FLUSH:
                code = errno.EINVAL
        peer = self._peer
        if peer is not None:
            with contextlib.suppress(OSError):
                peer.sendall(struct.pack(">IIQ", _ANSWER_MAGIC, code, request.handle) + data)


def _exactly(peer: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = peer.recv(count - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def _reply(peer: socket.socket, option: int, kind: int, data: bytes = b"") -> None:
    peer.sendall(struct.pack(">QIII", _REPLY_MAGIC, option, kind, len(data)) + data)


@contextlib.contextmanager
def disk(path: str) -> Iterator[Disk]:
    """Serve the image at `path`."""
    with tempfile.TemporaryDirectory(prefix="nbd") as work, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(f"{work}/s")
        listener.listen(1)
        image = os.open(path, os.O_RDWR)
        served = Disk(f"nbd:unix:{work}/s", image, os.fstat(image).st_size, listener)
        threads = [threading.Thread(target=target, daemon=True) for target in (served.serve, served.answer)]
        try:
            for thread in threads:
                thread.start()
            yield served
        finally:
            served.close()
            for thread in threads:
                thread.join(10)
            os.close(image)
