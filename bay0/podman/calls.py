"""podman, driven by the spawner: each call is one command with a bound, judged strictly, and answered exactly once.

Calls wait in one queue. At most AT_ONCE are under way, those about the same container one after the other in the order they were asked for.
A listing, and work on images, is about no container and waits for none. A boot's first listing (it renews podman's database) and a check of the
storage (it would take a container half made for damage) run alone. A call's bound counts from its turn, not from when it was asked for; who asks
may be told of that (`Asker`), and one that is not wanted any more when its turn comes is not made.

A podman that is killed while it makes a container may leave one running that it knows nothing of (`ghosts`).
"""

from __future__ import annotations

import contextlib
import json
import os
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen

from bay0.base.uids import UIDS
from bay0.effects import cgroup
from bay0.effects.spawn import CAPTURE_LIMIT
from bay0.podman import argv as podman_argv
from bay0.podman.argv import CONF, STORAGE_CONF, RunSpec, StoragePaths, config_files, environment
from bay0.podman.words import Container, Image, Outcome, Verb, Verdict, judge

if TYPE_CHECKING:
    from bay0.base.bounds import Bounds
    from bay0.effects.spawn import Result, Spawner

__all__ = [
    "Container", "Image", "Outcome", "Podman", "RunSpec", "StoragePaths", "Verdict", "bound_monitors", "config_files", "environment",
    "exit_status", "expose_monitor", "ghosts", "monitor", "user_of", "write_config",
]  # fmt: skip

PROGRAM = "podman"
PROC = "/proc"
AT_ONCE = 2  # more gain nothing (measured: four runs at once took ten times as long as one alone), one would wait for one that hangs
WAITING_MAX = 2_000
LIST_CAPTURE = 4 << 20  # bytes; a container takes about 400 of them
STOPS_AT_ONCE = 4  # containers that one removal stops at a time: 3 for each processor and one more (libpod, parallel)
HANDLED = frozenset({Outcome.NO_IMAGE, Outcome.NAME_TAKEN, Outcome.WRONG_STATE, Outcome.NO_CONTAINER})  # the caller knows what to do
_GROUP = "libpod-"
MONITORS = os.path.basename(podman_argv.CONMON_GROUP)  # the cgroup of them all
# of all memory, and bytes: a monitor takes 1 MB, the podman that it starts at its end 50 MB for a moment
MONITORS_SHARE, MONITORS_LEAST = 0.25, 128 << 20
MONITORS_PIDS = 8192  # one for each of 2,000 personas, and the threads of the podmans that clean up
MONITOR_OOM_SCORE = 0  # as the spine's own commands and services: small as it is, it goes after all personas

Done = Callable[[Verdict], None]


def _nothing() -> None:
    """Be told, and do nothing about it."""


def _ignored(_why: str) -> None:
    """Be told why, and do nothing about it."""


@frozen(eq=False)
class Asker:
    """For whom a call is made. `waits`: it has to wait for its turn; `begins`: its turn has come after all. `wanted` is asked then."""

    wanted: Callable[[], bool]
    waits: Callable[[], None] = _nothing
    begins: Callable[[], None] = _nothing


ANYBODY = Asker(lambda: True)


@frozen(eq=False)
class _Call:
    verb: Verb
    argv: Sequence[str]
    deadline_s: float
    done: Done
    names: frozenset[str] = frozenset()
    alone: bool = False
    asker: Asker = ANYBODY
    act: Callable[[Callable[[Any], None]], None] | None = None  # instead of a command


@define(eq=False, repr=False)
class Podman:
    """The only one who calls podman. `environment`: see `podman_argv.environment`."""

    spawner: Spawner
    bounds: Bounds
    log: Any
    environment: Mapping[str, str] = field(factory=lambda: {"CONTAINERS_CONF": CONF, "CONTAINERS_STORAGE_CONF": STORAGE_CONF})
    program: str = PROGRAM
    overdue: Callable[[str], None] = _ignored  # told which call missed its bound
    _damaged: list[Callable[[str], None]] = field(init=False, factory=list)
    _waiting: deque[_Call] = field(factory=deque)
    _under_way: set[_Call] = field(factory=set)

    def describe(self) -> dict[str, Any]:
        """Return what `bay0 status` shows of its queue."""
        return {"under_way": self.under_way, "waiting": self.waiting}

    def on_damage(self, call: Callable[[str], None]) -> None:
        """Call `call` with the reason when a call finds podman's storage damaged."""
        self._damaged.append(call)

    @property
    def waiting(self) -> int:
        """How many calls have not had their turn yet."""
        return len(self._waiting)

    @property
    def under_way(self) -> int:
        """How many calls podman is busy with."""
        return len(self._under_way)

    # ---- containers

    def list(self, done: Done, *, first: bool = False) -> None:
        """List all containers, everybody's: a tuple of `Container`. `first`: the first call of a boot, which may take long."""
        deadline_s = self.bounds.podman_first if first else self.bounds.podman_list
        self._ask(_Call(Verb.LIST, podman_argv.list_all(), deadline_s, done, alone=first))

    def run(self, spec: RunSpec, done: Done, *, asker: Asker = ANYBODY) -> None:
        """Make a container and start it: its id. After anything but OK something of it may be there, even running."""
        self._ask(_Call(Verb.RUN, podman_argv.run(spec), self.bounds.podman_run, done, frozenset((spec.name,)), asker=asker))

    def create(self, spec: RunSpec, done: Done, *, asker: Asker = ANYBODY) -> None:
        """Make a container and start nothing of it: its id. `init`, then `start` do what is left."""
        self._ask(_Call(Verb.CREATE, podman_argv.create(spec), self.bounds.podman_run, done, frozenset((spec.name,)), asker=asker))

    def init(self, name: str, done: Done, *, asker: Asker = ANYBODY) -> None:
        """Prepare what was created: whom it will be is known now (`user_of`)."""
        self._ask(_Call(Verb.INIT, podman_argv.init(name), self.bounds.podman_run, done, frozenset((name,)), asker=asker))

    def start(self, name: str, done: Done, *, asker: Asker = ANYBODY) -> None:
        """Let what was prepared begin."""
        self._ask(_Call(Verb.START, podman_argv.start(name), self.bounds.podman_run, done, frozenset((name,)), asker=asker))

    def unpause(self, name: str, done: Done, *, asker: Asker = ANYBODY) -> None:
        """Thaw a container that podman calls paused, and have podman call it running. WRONG_STATE: it did not call it paused."""
        self._ask(_Call(Verb.UNPAUSE, podman_argv.unpause(name), self.bounds.podman_quick, done, frozenset((name,)), asker=asker))

    def remove(self, names: Sequence[str], stop_s: float, done: Done, *, asker: Asker = ANYBODY) -> None:
        """End and remove containers, whatever state they are in; absent ones are no error. TERM, then KILL after `stop_s` seconds."""
        rounds = -(-len(names) // STOPS_AT_ONCE)
        deadline_s = self.bounds.podman_remove + stop_s * rounds + self.bounds.podman_each * len(names)
        self._ask(_Call(Verb.REMOVE, podman_argv.remove(names, stop_s), deadline_s, done, frozenset(names), asker=asker))

    # ---- images and storage

    def image_load(self, path: str, done: Done) -> None:
        """Load an archive: the names in it."""
        self._ask(_Call(Verb.LOAD, podman_argv.image_load(path), self.bounds.podman_load, done))

    def image_list(self, done: Done) -> None:
        """List all images: a tuple of `Image`, one for each name."""
        self._ask(_Call(Verb.IMAGES, podman_argv.image_list(), self.bounds.podman_list, done))

    def image_remove(self, name: str, done: Done) -> None:
        """Remove an image, or one of its names."""
        self._ask(_Call(Verb.UNTAG, podman_argv.image_remove(name), self.bounds.podman_quick, done))

    def check(self, done: Done, *, repair: bool = False, force: bool = True) -> None:
        """Look for damage in podman's storage. `repair`: if there is any, delete what is damaged; what was deleted is told as lines.

        Without `force` no container is deleted.

        Never repaired without a look first: on a full disk podman takes everything for damaged, and would delete it.
        """

        def checked(verdict: Verdict) -> None:
            if repair and verdict.outcome is Outcome.STORAGE:
                self._ask(_Call(Verb.REPAIR, podman_argv.check(repair=True, force=force), self.bounds.podman_check, done, alone=True))
            else:
                done(verdict)

        self._ask(_Call(Verb.CHECK, podman_argv.check(repair=False), self.bounds.podman_check, checked, alone=True))

    def while_it_rests(self, act: Callable[[Callable[[Any], None]], None], done: Callable[[Any], None]) -> None:
        """Have `act` do something to podman's files while no call is under way: none starts before it has answered.

        `done` is told its answer. `act` must answer within a bound of its own.
        """
        self._ask(_Call(Verb.REPAIR, (), 0, done, alone=True, act=act))

    # ---- the queue

    def _ask(self, call: _Call) -> None:
        if len(self._waiting) >= WAITING_MAX:
            verdict = Verdict(Outcome.FAULT, f"{WAITING_MAX} calls wait for podman already")
            self.spawner.reactor.call_soon(partial(call.done, verdict))
            return
        self._waiting.append(call)
        self._start_some()
        if call not in self._under_way:
            call.asker.waits()

    def _start_some(self) -> None:
        """Start what may start, in the order it was asked for; nothing passes a call that concerns the same container, or wants to be alone."""
        taken = {name for call in self._under_way for name in call.names}
        held: deque[_Call] = deque()
        while self._waiting and len(self._under_way) < AT_ONCE and not any(call.alone for call in self._under_way):
            call = self._waiting.popleft()
            if not call.asker.wanted():
                self.spawner.reactor.call_soon(partial(call.done, Verdict(Outcome.WITHDRAWN, "it was not wanted any more when its turn came")))
                continue
            if call.alone and (held or self._under_way):
                held.append(call)
                break
            if taken.isdisjoint(call.names):
                self._start(call)
            else:
                held.append(call)
            taken |= call.names
        self._waiting.extendleft(reversed(held))

    def _start(self, call: _Call) -> None:
        self._under_way.add(call)
        call.asker.begins()
        if call.act is not None:
            call.act(partial(self._done_without, call))
            return
        argv = [self.program, *call.argv]
        capture = LIST_CAPTURE if call.verb in (Verb.LIST, Verb.IMAGES) else CAPTURE_LIMIT

        def ended(result: Result) -> None:  # what cannot be started ends at once, in the middle of _start_some
            self.spawner.reactor.call_soon(partial(self._ended, call, result))

        self.spawner.run(f"podman-{call.verb.value}", argv, call.deadline_s, ended, env=self.environment, capture=capture)

    def _done_without(self, call: _Call, answer: Any) -> None:
        self._under_way.discard(call)
        self._start_some()
        call.done(answer)

    def _ended(self, call: _Call, result: Result) -> None:
        self._under_way.discard(call)
        verdict = judge(result, call.verb, call.names)
        if not verdict.ok:
            about = " ".join(sorted(call.names))[:200]
            say = self.log.info if verdict.outcome in HANDLED else self.log.warning
            say("podman: not done", verb=call.verb.value, about=about, outcome=verdict.outcome.value, why=verdict.why)
        if verdict.outcome is Outcome.STORAGE and call.verb not in (Verb.CHECK, Verb.REPAIR):
            for told in self._damaged:
                told(verdict.why)
        if verdict.outcome in (Outcome.TIMED_OUT, Outcome.ABANDONED):
            self.overdue(f"podman {call.verb.value}: {verdict.why}")
        self._start_some()
        call.done(verdict)


# ---- files of /run and of the cgroup hierarchy


def exit_status(container: str) -> int | None:
    """Return what conmon wrote down as a container's exit status, milliseconds after its end; None if it has not, or podman took it away.

    podman itself says "exited" only once its own cleanup has run, which may be a second later.
    """
    try:
        with open(f"{podman_argv.EXITS}/{container}", encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def monitor(container: str) -> int | None:
    """Return the pid of a container's monitor, its conmon; 0 if that has ended, None if nothing says who it is.

    It is PID 1's child, left to it by podman: nobody else has its number before it is reaped.
    """
    try:
        with open(f"{podman_argv.RUNROOT}/overlay-containers/{container}/userdata/conmon.pid", encoding="ascii") as file:
            pid = int(file.read())
    except (OSError, ValueError):
        return None
    try:
        with open(f"{PROC}/{pid}/cgroup", encoding="ascii") as file:
            return pid if file.read().strip() == f"0::/{MONITORS}" else 0
    except OSError:
        return 0


def user_of(container: str) -> tuple[int, int] | None:
    """Return the uid and gid that a prepared container's program will have, as inside; None if nothing says so.

    What a manifest or an image says may be a name. Which number that is, podman has looked up in the image.
    """
    try:
        with open(f"{podman_argv.RUNTIME}/{container}/config.json", encoding="utf-8") as file:
            user = json.load(file)["process"]["user"]
        found = int(user["uid"]), int(user["gid"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if all(0 <= each < UIDS for each in found) else None


def bound_monitors() -> str:
    """Limit all monitors together, and what they start (podman cleans up); return why that failed, or ""."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    memory = max(MONITORS_LEAST, int(total * MONITORS_SHARE))
    limits = {"memory.max": str(memory), "pids.max": str(MONITORS_PIDS)}
    try:
        directory = cgroup.make(MONITORS)
        if directory is not None:
            cgroup.limit(directory, limits)
    except OSError as error:
        return str(error)
    return ""


def expose_monitor(pid: int) -> None:
    """Let the OOM killer see a monitor: it has made itself exempt, and one that grows would be ended last."""
    with contextlib.suppress(OSError), open(f"{PROC}/{pid}/oom_score_adj", "w", encoding="ascii") as score:
        score.write(str(MONITOR_OOM_SCORE))


def write_config(files: Mapping[str, str]) -> None:
    """Write podman's configuration, each file at once or not at all. `OSError`: /run is not as it should be."""
    for path, text in files.items():
        os.makedirs(os.path.dirname(path), exist_ok=True)
        part = f"{path}.part"
        with open(part, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(part, 0o755 if text.startswith("#!") else 0o644)
        os.rename(part, path)


def ghosts(known: Collection[str], parent: str) -> list[str]:
    """Return the cgroups of containers below `parent` ("/personas") whose id is not `known`: end them with `cgroup.kill`, then remove them.

    A container's cgroup is made after podman knows it and may outlive podman's knowledge: list the containers after nothing is being made,
    or hand in also the ids of what is under way.
    """
    directory = f"{cgroup.ROOT}{parent}"
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    return [f"{directory}/{name}" for name in sorted(names) if name.startswith(_GROUP) and name.removeprefix(_GROUP) not in known]
