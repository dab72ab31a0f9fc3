"""What is asked of the compositor over Wayland.

A socket for each persona, the fence of a frame.

Protocols: security-context-v1 (wayland-protocols, staging) and wlr-screencopy-unstable-v1 (wlr-protocols).
Opcodes are in the order of their requests and events there.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from attrs import define

from bay0.screen import wire

if TYPE_CHECKING:
    from bay0.screen.wayland import Display

ENGINE = "bay0"
# requests
CREATE_LISTENER, SET_ENGINE, SET_APP_ID, SET_INSTANCE_ID, COMMIT, DESTROY = 1, 1, 2, 3, 4, 0
CAPTURE_REGION, COPY, FRAME_DESTROY = 1, 0, 1
CREATE_POOL, CREATE_BUFFER, POOL_DESTROY, BUFFER_DESTROY = 0, 0, 1, 0
# events
BUFFER, READY, FAILED = 0, 2, 3
BYTES_MAX = 1 << 16  # of a picture of one pixel, however it is scaled


def confine(display: Display, manager: int, listener: int, app_id: str, instance_id: str) -> int:
    """Have who connects to `listener` be a sandboxed client; return the descriptor whose closing ends that.

    `OSError`: none is free.

    `manager`: the bound wp_security_context_manager_v1.
    """
    theirs, ours = os.pipe2(os.O_CLOEXEC)
    try:
        context = display.new()
        display.request(manager, CREATE_LISTENER, wire.words(context), (listener, theirs))
        for opcode, text in ((SET_ENGINE, ENGINE), (SET_APP_ID, app_id), (SET_INSTANCE_ID, instance_id)):
            display.request(context, opcode, wire.string(text))
        display.request(context, COMMIT)
        display.request(context, DESTROY)
    except OSError:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    return ours


@define(eq=False, repr=False)
class Fence:
    """Copies a pixel of the output: it comes with a frame that was made after it was asked for.

    So what was hidden before is off the screen.
    """

    display: Display
    _manager: int = 0
    _shm: int = 0
    _output: tuple[int, int] = (0, 0)  # the registry's number of it, and ours

    def ask(self, done: Callable[[str], None]) -> None:
        """Call `done` with "", or with why no frame can be waited for. No bound: whoever asks has his own."""
        display = self.display
        names = [name for name, interface in display.offered.items() if interface == "wl_output"]
        if not names:
            done("")  # nothing is seen of anybody
            return
        if not self._manager:
            self._manager, self._shm = (
                display.bind("zwlr_screencopy_manager_v1", 1),
                display.bind("wl_shm", 1),
            )
        if self._output[0] != names[0]:
            self._output = names[0], display.bind("wl_output", 1)
        buffers: list[int] = []

        def heard(opcode: int, arguments: wire.Arguments) -> None:
            if opcode == BUFFER and not buffers:
                buffers.append(self._buffer(*(arguments.uint() for _ in range(4))))
                display.request(frame, COPY, wire.words(buffers[0]))
            elif opcode in (READY, FAILED):
                display.request(frame, FRAME_DESTROY)
                for buffer in buffers:
                    display.request(buffer, BUFFER_DESTROY)
                done("" if opcode == READY else "the output gives no frame")

        frame = display.new(heard)
        display.request(self._manager, CAPTURE_REGION, wire.words(frame, 0, self._output[1], 0, 0, 1, 1))

    def _buffer(self, form: int, width: int, height: int, stride: int) -> int:
        size = stride * height
        if not 0 < size <= BYTES_MAX:
            raise wire.WireError(f"a picture of one pixel that takes {size} bytes")
        fd = os.memfd_create("bay0-fence", os.MFD_CLOEXEC)
        try:
            os.ftruncate(fd, size)
            pool, buffer = self.display.new(), self.display.new()
            self.display.request(self._shm, CREATE_POOL, wire.words(pool, size), (fd,))
        finally:
            os.close(fd)
        self.display.request(pool, CREATE_BUFFER, wire.words(buffer, 0, width, height, stride, form))
        self.display.request(pool, POOL_DESTROY)
        return buffer


def end(fd: int) -> None:
    """Close what `confine` returned."""
    with contextlib.suppress(OSError):
        os.close(fd)
