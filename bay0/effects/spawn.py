"""The one spawner. Every process of the spine starts here, as a *command* (`run`) or for a service (`start`).

posix_spawn(3) keeps the interpreter out of the child: no preexec_fn, no fork of a Python heap. A few words of sh, exec'd
first, reset the inherited oom_score_adj and join the child's own cgroup, so that a grandchild which leaves its process group is still
found. The environment is an allow-list: a frozen program's LD_LIBRARY_PATH must not reach podman (docs/ARCHITECTURE.md, facts).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen

from bay0.base.errors import SpawnError
from bay0.effects import cgroup
from bay0.effects.forked import KEPT_FD, RESET_SIGNALS, become
from bay0.pid1.reactor import READ

if TYPE_CHECKING:
    from bay0.base.bounds import Bounds
    from bay0.pid1.reactor import Reactor, Timer
    from bay0.pid1.reaper import Reaper

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT = {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8"}
CAPTURE_LIMIT = READ_CHUNK = 64 << 10  # bytes kept of each stream; the rest is read, counted and thrown away
RUNNING_MAX, ABANDONED_MAX = 256, 16  # each that runs holds two descriptors of ours
Files = Sequence[tuple[Any, ...]]  # file actions of os.posix_spawn
REFUSED = 126  # as the shell has it for what it will not run
READS_A_TURN = 8  # so that an endless writer cannot hold the reactor

# $0 is the cgroup directory or "-"; a failure to join is said and ends the child, because then nothing could end it later
_ENTER = 'echo 0 2>/dev/null >/proc/self/oom_score_adj; [ "$0" = - ] || echo 0 >"$0/cgroup.procs" || exit 125; exec "$@"'


class Ending(Enum):
    """How a command came to its end."""

    EXITED = "exited"
    SIGNALLED = "signalled"
    TIMED_OUT = "timed_out"
    ABANDONED = "abandoned"  # killed, and still not dead: stuck in the kernel


@frozen(eq=False, repr=False)
class Result:
    """What a command did. `status`: exit status, or minus the signal's number. Streams are capped at what the caller asked for."""

    ending: Ending
    status: int
    stdout: str
    stderr: str
    dropped: int
    took_s: float

    @property
    def ok(self) -> bool:
        """It exited by itself with status 0."""
        return self.ending is Ending.EXITED and self.status == 0

    def reason(self) -> str:
        """Say in a few words why it is not ok."""
        if self.ending is Ending.EXITED:
            last = (self.stderr.strip() or self.stdout.strip()).splitlines()[-1:] or ["no output"]
            return f"exit status {self.status}: {last[0][:200]}"
        if self.ending is Ending.SIGNALLED:
            return f"ended by signal {-self.status}"
        return f"{self.ending.value} after {self.took_s:.1f} s"


@define(eq=False, repr=False)
class Child:
    """A started process and its group."""

    pid: int
    name: str
    group: str | None
    ended: bool = False

    def signal(self, number: int) -> None:
        """Signal its process group and every process of its cgroup. It is reaped by us alone, so the pid cannot be somebody else's."""
        if not self.ended:
            with contextlib.suppress(OSError):
                os.killpg(self.pid, number)
        for pid in cgroup.pids(self.group) if self.group else ():
            with contextlib.suppress(OSError):
                os.kill(pid, number)

    def kill(self) -> None:
        """End everything of it, whatever it ignores."""
        self.signal(signal.SIGKILL)
        if self.group:
            cgroup.kill(self.group)

    @property
    def left(self) -> bool:
        """Tell whether any process of it is still there."""
        return not self.ended or (self.group is not None and cgroup.populated(self.group))


@define(eq=False, repr=False)
class Spawner:
    """Starts processes; needs the reactor for time and pipes, the reaper for their ends."""

    reactor: Reactor
    reaper: Reaper
    bounds: Bounds
    log: Any
    running: int = 0
    abandoned: int = 0
    closed: bool = False
    _ceilings: dict[str, str] = field(init=False, factory=dict)  # limits of every group that is made here
    _serial: Any = field(factory=lambda: itertools.count(1))

    def describe(self) -> dict[str, Any]:
        """Return what `bay0 status` shows of it."""
        return {"commands_running": self.running, "commands_left_behind": self.abandoned}

    def bound(self, limits: Mapping[str, str]) -> None:
        """Limit every group that is made from now on ("pids.max" -> "256"), where its own limits say nothing else."""
        self._ceilings.update(limits)

    def start(
        self,
        name: str,
        argv: Sequence[str],
        on_exit: Callable[[int], None],
        *,
        group: str,
        env: Mapping[str, str] | None = None,
        files: Files = (),
        keep: int | None = None,
        limits: Mapping[str, str] | None = None,
    ) -> Child:
        """Start `argv` in the cgroup `group`; `on_exit(wait status)` comes from the reaper. `SpawnError` if it cannot start.

        `files` are extra posix_spawn file actions, applied after stdin, stdout and stderr were set to /dev/null; `keep` is a descriptor that
        it finds as 3; `limits` are written to files of its cgroup, and one that cannot be is an error.
        """
        null = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
        kept = [] if keep is None else [(os.POSIX_SPAWN_DUP2, keep, KEPT_FD)]
        try:
            directory = cgroup.make(group)
            if directory is not None:
                self._bound(directory, limits or {})
            command = ["/bin/sh", "-c", _ENTER, directory or "-", *argv]
            pid = os.posix_spawn(
                command[0], command, {**ENVIRONMENT, **(env or {})}, file_actions=[*null, *files, *kept],
                setsid=True, setsigmask=(), setsigdef=RESET_SIGNALS,
            )  # fmt: skip
        except (OSError, ValueError) as error:  # ValueError: a NUL, or what is no text
            raise SpawnError(f"{name}: {argv[0]} could not be started: {error}") from error
        child = Child(pid, name, directory)

        def ended(status: int) -> None:
            child.ended = True
            on_exit(status)

        self.reaper.own(pid, ended)
        return child

    def _bound(self, directory: str, limits: Mapping[str, str]) -> None:
        for name in self._ceilings.keys() - limits.keys():
            with contextlib.suppress(OSError):
                cgroup.limit(directory, {name: self._ceilings[name]})
        cgroup.limit(directory, limits)

    def fork(self, name: str, main: Callable[[], int], on_exit: Callable[[int], None], *, group: str, keep: int) -> Child:
        """Start `main` in a fork of this program, with the descriptor `keep` as 3 and nothing else of ours.

        For the state worker alone: a fork shares our pages and starts in milliseconds, where a second interpreter takes
        seconds on a slow machine. What a fork would wrongly inherit is undone in `_become` (docs/ARCHITECTURE.md, storage health).
        """
        try:
            directory = cgroup.make(group)
            pid = os.fork()
        except OSError as error:
            raise SpawnError(f"{name}: could not be forked: {error}") from error
        if pid == 0:
            become(main, directory, keep)
        child = Child(pid, name, directory)

        def ended(status: int) -> None:
            child.ended = True
            on_exit(status)

        self.reaper.own(pid, ended)
        return child

    def run(
        self,
        name: str,
        argv: Sequence[str],
        deadline_s: float,
        done: Callable[[Result], None],
        env: Mapping[str, str] | None = None,
        *,
        capture: int = CAPTURE_LIMIT,
        files: Files = (),
    ) -> Callable[[], None]:
        """Run a command: TERM at `deadline_s`, KILL of all of it a grace later; `done(Result)` always comes, once.

        `capture` bytes of each stream are kept; `files`: more file actions. What is returned ends it early.
        """
        refusal = self._refusal()
        if refusal:
            self.log.warning("command refused", command=name, why=refusal)
            self.reactor.call_soon(lambda: done(Result(Ending.EXITED, REFUSED, "", refusal, 0, 0.0)))
            return lambda: None
        group = f"commands/{next(self._serial)}"
        self.log.info("command starts", command=name, argv=" ".join(argv)[:80], deadline_s=deadline_s)
        command = _Command(self, name, deadline_s, done, self.reactor.clock(), capture)
        command.begin(argv, group, env, files)
        return command.end_early

    def _refusal(self) -> str:
        if self.closed:
            return "the spine is going down"
        if self.running >= RUNNING_MAX:
            return f"{self.running} commands run already"
        return f"{self.abandoned} commands hang in the kernel; is a disk dead?" if self.abandoned >= ABANDONED_MAX else ""

    def close(self) -> None:
        """Start no command any more, and end those that run with all they left: they would keep the disk busy."""
        self.closed = True
        if cgroup.available():
            cgroup.kill(f"{cgroup.ROOT}/commands")


def _pipe() -> tuple[int, int]:
    """Return a pipe that we read without blocking and the child writes as it is used to."""
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    os.set_blocking(write, True)
    return read, write


@define(eq=False, repr=False)
class _Command:
    """One running command: three things must end (process, two pipes), and three timers make sure they do."""

    spawner: Spawner
    name: str
    deadline_s: float
    done: Callable[[Result], None]
    started: float
    capture: int
    child: Child | None = None
    status: int | None = None
    timed_out: bool = False
    dropped: int = 0
    finished: bool = False
    left_behind: bool = False
    _timer: Timer | None = None
    _pipes: dict[int, bytearray] = field(factory=dict)
    _texts: list[bytearray] = field(factory=list)

    def begin(self, argv: Sequence[str], group: str, env: Mapping[str, str] | None, more: Files) -> None:
        ends: list[tuple[int, int]] = []
        try:
            for _ in range(2):
                ends.append(_pipe())  # noqa: PERF401 - if the second fails, the first must be known, to be closed
            files = [(os.POSIX_SPAWN_DUP2, write, fd) for (_, write), fd in zip(ends, (1, 2), strict=True)]
            self.child = self.spawner.start(self.name, argv, self._exited, group=group, env=env, files=[*files, *more])
        except (OSError, SpawnError) as error:  # OSError: no descriptor is left for a pipe
            for end in itertools.chain.from_iterable(ends):
                os.close(end)
            self._finish(Ending.EXITED, 127, str(error))
            return
        self.spawner.running += 1
        for read, write in ends:
            os.close(write)
            self._pipes[read] = bytearray()
            self._texts.append(self._pipes[read])
            self.spawner.reactor.watch(read, READ, lambda _ready, fd=read: self._readable(fd))  # type: ignore[misc]
        self._timer = self.spawner.reactor.call_later(self.deadline_s, self._overdue)

    def _readable(self, fd: int) -> None:
        for _ in range(READS_A_TURN):
            try:
                data = os.read(fd, READ_CHUNK)
            except BlockingIOError:
                return
            if not data:
                self._close(fd)
                self._look()
                return
            text = self._pipes[fd]
            room = max(0, self.capture - len(text))
            text += data[:room]
            self.dropped += len(data) - min(room, len(data))

    def _close(self, fd: int) -> None:
        if self._pipes.pop(fd, None) is not None:
            self.spawner.reactor.unwatch(fd)
            os.close(fd)

    def _exited(self, status: int) -> None:
        self.status = os.waitstatus_to_exitcode(status)
        self._rearm(self.spawner.bounds.pipe_grace, self._drop_pipes)  # a grandchild may hold them
        self._look()

    def _look(self) -> None:
        if self.status is not None and not self._pipes:
            self._ended(self.status)

    def _overdue(self) -> None:
        self.spawner.log.warning("command overdue", command=self.name, deadline_s=self.deadline_s)
        self.end_early()

    def end_early(self) -> None:
        if self.child is not None and not (self.timed_out or self.finished or self.status is not None):
            self.timed_out = True
            self.child.signal(signal.SIGTERM)
            self._rearm(self.spawner.bounds.term_grace, self._kill)

    def _kill(self) -> None:
        if self.child is not None:
            self.child.kill()
        self._rearm(self.spawner.bounds.kill_grace, self._abandon)

    def _drop_pipes(self) -> None:
        if self.child is not None:
            self.child.kill()
        for fd in list(self._pipes):
            self._readable(fd)
            self._close(fd)
        self._look()

    def _abandon(self) -> None:
        self.left_behind = True
        self.spawner.abandoned += 1
        for fd in list(self._pipes):
            self._close(fd)
        self._finish(Ending.ABANDONED, -signal.SIGKILL, "")

    def _rearm(self, seconds: float, call: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.spawner.reactor.call_later(seconds, call)

    def _ended(self, status: int) -> None:
        if self.child is not None and self.child.left:
            self.child.kill()  # a command leaves nothing behind
        if self.left_behind:  # it was abandoned, and has ended after all
            self.left_behind = False
            self.spawner.abandoned -= 1
            if self.child is not None:
                self._sweep_group(self.child)
        ending = Ending.TIMED_OUT if self.timed_out else Ending.EXITED if status >= 0 else Ending.SIGNALLED
        self._finish(ending, status, "")

    def _finish(self, ending: Ending, status: int, error: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self.finished:
            return
        self.finished = True
        if self.child is not None:
            self.spawner.running -= 1
            self._sweep_group(self.child)
        texts = [t.decode("utf-8", "replace") for t in self._texts] or ["", ""]
        took = self.spawner.reactor.clock() - self.started
        result = Result(ending, status, texts[0], texts[1] + error, self.dropped, took)
        self.spawner.log.info("command ended", command=self.name, ending=ending.value, status=status, took_ms=int(took * 1000))
        self.done(result)

    def _sweep_group(self, child: Child, tries: int = 20) -> None:
        if child.group is not None and not cgroup.remove(child.group) and tries:
            self.spawner.reactor.call_later(0.1, lambda: self._sweep_group(child, tries - 1))
