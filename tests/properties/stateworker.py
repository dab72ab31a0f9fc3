"""The state worker's process in the simulated machine: its requests, and how it is killed amid one."""

from __future__ import annotations

import functools
import socket
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from attrs import define, field
from broken import hold
from disk import Files, WorkerDied
from work import Overdue

from bay0.state import worker

if TYPE_CHECKING:
    from world import World

ALL = 1_000_000  # seams


@define(eq=False)
class SimWorker:
    """The state worker's process: the real `worker.answer`, one request at a time, on the modelled disk."""

    world: World
    peer: socket.socket
    ended: Callable[[], None]
    inbox: deque[dict[str, Any]] = field(factory=deque)
    busy: dict[str, Any] | None = None
    working: bool = False
    occupied: bool = False  # the request is done and took some time: its answer comes then, if in time
    stuck: bool = False
    killed: bool = False
    alive: bool = True
    ops: list[str] = field(factory=list)

    def pump(self) -> None:
        while True:
            try:
                packet = self.peer.recv(worker.PACKET_MAX)
            except (BlockingIOError, OSError):
                break
            if not packet:
                break
            self.inbox.append(worker.json.loads(packet))
        if self.alive and not self.killed and not self.occupied and self.busy is None and self.inbox:
            self.busy = self.inbox.popleft()
            self.world.spine.reactor.call_later(self.world.disk.latency_s, self.proceed)

    def proceed(self) -> None:
        """Do the request, unless the disk hangs: then it is done when the disk is back."""
        if not self.alive or self.killed or self.busy is None:
            return
        self.stuck = self.world.disk.wedged
        if self.stuck:
            return
        reply = self._do()
        if reply is None:
            return
        self.busy, self.occupied = None, True
        if self.world.work.spent_s:
            self.world.spine.reactor.call_later(self.world.work.spent_s, functools.partial(self.reply, reply))
        else:
            self.reply(reply)

    def reply(self, reply: dict[str, Any]) -> None:
        if not self.alive or self.killed:
            return
        self.occupied = False
        try:
            self.peer.send(worker._encode(reply))
        except OSError:
            return
        self.pump()

    def _do(self) -> dict[str, Any] | None:
        world, self.working = self.world, True
        self.ops.append(self.busy["op"])
        world.checks.asked(self, self.busy["op"])
        world.work.begin(self._bound_left())
        try:
            return worker.answer(dict(self.busy))
        except Overdue:
            self.busy, self.occupied = None, True  # until it is killed
            return None
        except WorkerDied:
            if world.half_left is None:
                self.die(world.left_behind)
            return None
        finally:
            self.working = False
            hold(not world.disk.torn, world.disk.torn)

    def _bound_left(self) -> float:
        """Return for how long PID 1 still waits for the request under way."""
        current = self.world.spine.state.link._current
        call = current.calls.get(self.busy["id"]) if current is not None else None
        return float("inf") if call is None else max(0.0, call.timer.due - self.world.now)

    def drain(self) -> None:
        """Do all that was asked, at once."""
        while (
            self.alive
            and not self.killed
            and not self.world.disk.wedged
            and (self.busy is not None or self.inbox)
        ):
            self.busy = self.busy or self.inbox.popleft()
            self._do()
            self.busy = None

    def kill(self) -> None:
        """SIGKILL. In the middle of a request on a dead disk it ends only when the disk is back."""
        self.killed = True
        if not (self.stuck and self.world.disk.wedged):
            self.world.spine.reactor.call_later(0.002, self.end)

    def released(self) -> None:
        """The disk answers again."""
        if not self.stuck:
            return
        self.stuck = False
        if self.killed:
            self.world.spine.reactor.call_later(0.002, self.end)
        else:
            self.world.spine.reactor.call_later(0.0, self.proceed)

    def end(self) -> None:
        """End a killed one.

        What it was doing may have happened, up to `world.half_done` seams (None: all of it).
        """
        if not self.alive:
            return
        files = None
        if self.busy is not None and self.world.half_done != 0 and not self.world.disk.unplugged:
            files = self.finish_half()
        self.die(files)

    def finish_half(self) -> Files | None:
        """Run the request under way up to a seam, its answer never sent; return the files it leaves."""
        world = self.world
        world.half_left = ALL if world.half_done is None else world.half_done
        self._do()
        world.half_left = None
        files, world.left_behind = world.left_behind, None
        return files

    def die(self, files: Files | None = None) -> None:
        if not self.alive:
            return
        self.alive = False
        self.world.disk.lose_open_files(files)
        self.world.left_behind = None
        self.world.spine.reactor.call_soon(self.ended)  # SIGCHLD
