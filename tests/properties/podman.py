"""podman 5.4.2, modelled behind the spawner: it gets the real adapter's argv and answers with podman's own texts and statuses.

What it knows (containers, images) is on the disk and outlives boots; processes and cgroups (kernel.py) do not. Each command is a sequence of moments
with modelled time between them, and every moment is a seam. A command that is stopped between two of them leaves what was done until then.

Vices. A `Vice` waits for a command and spoils it: it fails with one of podman's errors (before or after its work), prints nonsense, or hangs at one
of its moments until the spawner ends it: by TERM; by KILL, and then what it made may run on without podman's knowledge; or not at all, and then it
may go on and do its work much later. Storage can be damaged (mended by a repair, or only by being set aside) and full.
"""

from __future__ import annotations

import itertools
import json
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen
from broken import hold
from grants import Mounted

from bay0.effects.spawn import Ending, Result
from bay0.personas.port import GROUP
from bay0.screen.doors import IN_PERSONA as WAYLAND
from bay0.umbilical.places import IN_PERSONA

if TYPE_CHECKING:
    from world import World

IMAGE = "localhost/base:1"
ARCHIVE = "/usr/share/spine-images/base.tar"
AI_IMAGE, AI_ARCHIVE = "localhost/spine-ai:1", "/persist/images/spine-ai.tar"
TERM_GRACE_S, KILL_GRACE_S = 2.0, 1.0
FIRST_S, LIST_S, START_S, STEP_S = 1.2, 0.3, 0.6, 0.2
SAID_S, KNOWS_S = 0.05, 0.4  # from the death of a container to its monitor's word, and to podman's knowledge of it
FULL = "database or disk is full"
DAMAGES = {
    "mendable": 'configure storage: loading "/persist/spine/containers/storage/overlay-layers/layers.json": damage detected in local storage',
    "beyond": 'configure storage: loading "/persist/spine/containers/storage/overlay-images/images.json": unexpected end of JSON input',
    "layer": "faccessat /persist/spine/containers/storage/overlay/0123456789abcdef: no such file or directory",
}
ERRORS = {
    "internal": "creating something: internal libpod error",
    "conmon": "cannot remove container X as it could not be stopped: container ID conmon exited prematurely, exit code could not be retrieved: "
    "internal libpod error",
    "full": f"writing container state: {FULL}",
    "io": "reading database: disk I/O error",
    "storage": DAMAGES["beyond"],
    "runtime": 'default OCI runtime "crun" not found: invalid argument',
    "improper": "container X is in an improper state: container state improper",
}


@define(eq=False)
class Container:
    """What podman believes of a container. `blind`: it runs, and podman does not know. `excused`: nobody who should know made it."""

    id: str
    name: str
    labels: dict[str, str] = field(factory=dict)
    image: str = IMAGE
    state: str = "created"
    exit_code: int = 0
    home: str = ""
    blind: bool = False
    excused: bool = False
    external: bool = False  # only its name is taken: the list does not show it
    deaf: bool = False  # ignores TERM
    parent: str = "/personas"
    door: Mounted | None = None  # what it has at /run/ai
    sources: list[str] = field(factory=list)
    way: str = ""  # what is to be mounted there
    mounted: dict[str, str] = field(factory=dict)  # destination -> source


@frozen
class Vice:
    """Waits for a command called `verb` ("" = any). `error`: a key of ERRORS, "garbage", "silent" or "hang". `at`: the moment at which it strikes.

    `end`, of a hang: "term", "kill", "never" (nothing more happens), or "late": it does the rest `late_s` after it was given up. `about`: only
    commands that name this container.
    """

    verb: str
    error: str
    at: int = 0
    end: str = "term"
    late_s: float = 5.0
    lasting: bool = False
    about: str = ""

    def strikes(self, verb: str, named: list[str]) -> bool:
        return self.verb in ("", verb) and (not self.about or self.about in named)


def _argv(words: list[str]) -> tuple[str, dict[str, list[str]], list[str]]:
    """Return podman's verb, its options (`--key=value`) and what stands behind them."""
    verb, rest = words[1], words[2:]
    if verb in ("image", "system"):
        verb, rest = f"{verb} {rest[0]}", rest[1:]
    options: dict[str, list[str]] = {}
    while rest and rest[0] != "--":
        assert rest[0].startswith("--"), words
        key, _, value = rest.pop(0).partition("=")
        options.setdefault(key[2:], []).append(value)
    return verb, options, rest[1:]


def options_of(words: list[str]) -> dict[str, list[str]]:
    return _argv(words)[1]


@define(eq=False)
class Command:
    """One podman process."""

    podman: Podman
    verb: str
    flow: Iterator[float]
    deadline_s: float
    done: Callable[[Result], None]
    vice: Vice | None
    began: float
    moment: int = 0
    told: bool = False  # the spawner has answered for it
    dead: bool = False
    made: Container | None = None

    def go(self) -> None:
        """Live through the next moment."""
        world = self.podman.world
        if self.dead:
            return
        world.seam(f"podman {self.verb} {self.moment}")
        if world.disk.wedged:
            self.podman.asleep.append(self)
            if not self.told:
                self.hang("sleep")
            return
        if self.vice is not None and self.vice.at == self.moment and self.spoil(self.vice):
            return
        self.moment += 1
        try:
            wait = next(self.flow)
        except StopIteration as end:
            code, out, err = end.value
            self.end_well(code, out, err)
            return
        world.later(wait, self.go)

    def end_well(self, code: int, out: str, err: str) -> None:
        self.dead = True
        if self.vice is not None and self.vice.at < 0:  # it does its work, and says something else, or nothing
            self.podman.count[f"{self.vice.error}, though done"] += 1
            if self.vice.error == "hang":
                self.hang("never" if self.vice.end == "late" else self.vice.end)
                return
            code, out, err = self.podman.words_of(self.vice, self.verb)
        self.podman.world.seam(f"podman {self.verb} end")
        self.tell(Ending.EXITED, code, out, err)

    def tell(self, ending: Ending, status: int, out: str = "", err: str = "") -> None:
        if not self.told:
            self.told = True
            self.podman.under_way.remove(self)
            self.done(Result(ending, status, out, err, 0, self.podman.world.now - self.began))

    def spoil(self, vice: Vice) -> bool:
        self.podman.count[f"{vice.error} {vice.end if vice.error == 'hang' else ''}".strip()] += 1
        if vice.error == "hang":
            self.hang(vice.end)
            return True
        self.dead = True
        self.tell(Ending.EXITED, *self.podman.words_of(vice, self.verb))
        return True

    def hang(self, how: str) -> None:
        left = max(0.0, self.began + self.deadline_s - self.podman.world.now)
        grace = {"term": 0.1, "kill": TERM_GRACE_S}.get(how, TERM_GRACE_S + KILL_GRACE_S)
        self.podman.world.later(left + grace, lambda: self.given_up(how))

    def given_up(self, how: str) -> None:
        """The spawner's deadline is over."""
        if self.told:
            return
        if how == "kill" and self.made is not None and self.podman.world.kernel.lives(self.made.id):
            self.made.blind = True
        if how in ("term", "kill", "never"):
            self.dead = True
        if how == "late" and self.vice is not None:
            late, self.vice = self.vice, None
            if self.made is not None:
                self.made.excused = True
            self.podman.late.append(self)
            self.podman.world.later(late.late_s, self.wake)
        self.tell(Ending.TIMED_OUT if how in ("term", "kill") else Ending.ABANDONED, 1 if how == "term" else -9)

    def wake(self) -> None:
        if self in self.podman.late:
            self.podman.late.remove(self)
            self.podman.count["woke late"] += 1
            self.go()

    def kill(self) -> None:
        """SIGKILL, by the end of the spine."""
        if not self.dead:
            self.dead = True
            if self.made is not None and self.podman.world.kernel.lives(self.made.id):
                self.made.blind = True
        self.podman.world.soon(lambda: self.tell(Ending.SIGNALLED, -9))


@define(eq=False)
class Podman:
    """The program and what it knows."""

    world: World
    store: str  # its directory; if somebody takes that away, it knows nothing
    exits: str  # where monitors write how containers ended
    containers: dict[str, Container] = field(factory=dict)
    images: set[str] = field(factory=lambda: {IMAGE, AI_IMAGE})
    damage: str | None = None
    full: bool = False
    vices: list[Vice] = field(factory=list)
    lingering: set[str] = field(factory=set)  # names of containers that do not die of TERM
    under_way: list[Command] = field(factory=list)
    late: list[Command] = field(factory=list)
    asleep: list[Command] = field(factory=list)
    calls: list[str] = field(factory=list)
    before: tuple[float, dict[str, dict[str, Any]]] | None = None  # what was written last, and may be lost in a power cut
    fresh: bool = True  # no call was made in this boot
    count: Any = None
    ids: Iterator[int] = field(factory=lambda: itertools.count(1))
    load_s: float = START_S  # an image's loading
    step_s: float = STEP_S  # a half of a thaw
    heard: dict[str, bool] = field(factory=dict)  # who was told to end last, and whether they could hear it

    def __attrs_post_init__(self) -> None:
        self.count = Counter()

    # ---- as the spawner sees it

    def run(self, argv: list[str], deadline_s: float, done: Callable[[Result], None]) -> None:
        verb, options, names = _argv(list(argv))
        self.calls.append(f"{verb} {' '.join(names)}".strip())
        vice = next((v for v in self.vices if v.strikes(verb, [*names, *options.get("name", ())])), None)
        if vice is not None and not vice.lasting:
            self.vices.remove(vice)
        command = Command(self, verb, iter(()), deadline_s, done, vice, self.world.now)
        command.flow = self._flow(command, verb, options, names)
        self.under_way.append(command)
        self.count["calls"] += 1
        self.world.soon(command.go)

    def close(self) -> None:
        """Every command is killed: the spine is going down."""
        for command in list(self.under_way):
            command.kill()
        self.late.clear()

    def words_of(self, vice: Vice, verb: str) -> tuple[int, str, str]:
        if vice.error == "garbage":
            return 0, '{"id":7}\n[[[\n', ""
        if vice.error == "silent" and verb == "rm":  # which would say that nothing was there: podman does not lie
            return 1, "", ""
        if vice.error == "silent":
            return 0, "", ""
        if vice.error == "absent":
            return 127, "", "/bin/sh: exec: podman: not found"
        return 125, "", f"Error: {ERRORS[vice.error]}\n"

    # ---- power and the disk

    def power_cut(self, kept: float) -> None:
        """What runs ends; podman's last write may be lost."""
        for each in (*self.under_way, *self.late, *self.asleep):
            each.dead = True
        self.under_way.clear()
        self.late.clear()
        self.asleep.clear()
        if kept == 0.0 and self.before is not None and self.world.now - self.before[0] < 1.0:
            was = self.before[1]
            self.containers = {name: Container(**keys) for name, keys in was.items()}
            for each in self.containers.values():
                each.excused = True
            self.count["lost writes"] += 1
        self.before, self.fresh = None, True

    def released(self) -> None:
        """The disk answers again: what slept on it and was killed meanwhile ends now, the rest goes on."""
        asleep, self.asleep = self.asleep, []
        for each in asleep:
            if each.told:
                each.dead = True
            else:
                self.world.soon(each.go)

    def _look_at_disk(self) -> None:
        """Begin anew if the directory was taken away; after a boot see what of it is still true."""
        mark = os.path.join(self.store, "storage", "db.sql")
        if not os.path.exists(mark):
            os.makedirs(os.path.dirname(mark), exist_ok=True)
            with open(mark, "w", encoding="ascii"):
                pass
            self.count["set aside"] += bool(self.containers or self.damage)
            for each in self.containers.values():
                self.world.kernel.end(each.id, 137)
            self.containers.clear()
            self.world.checks.note_foreign()
            self.images.clear()
            self.damage = None
        if self.fresh:
            self.fresh = False
            for each in self.containers.values():
                each.blind = False
                if each.state not in ("created", "exited"):
                    each.state, each.exit_code = "exited", 0

    def _write(self) -> None:
        keep = ("id", "name", "labels", "image", "state", "exit_code", "home", "blind", "excused", "external", "deaf", "parent")
        self.before = (self.world.now, {name: {k: getattr(c, k) for k in keep} for name, c in self.containers.items()})

    # ---- the commands: moments, seconds between them, and at last (status, stdout, stderr)

    def _flow(self, command: Command, verb: str, options: dict[str, list[str]], names: list[str]) -> Any:
        yield FIRST_S if self.fresh else LIST_S / 2
        if self.world.disk.unplugged or not self.world.disk.present:
            return _error("reading database: disk I/O error")
        self._look_at_disk()
        if self.damage in ("mendable", "beyond") and verb != "system check":
            return _error(DAMAGES[self.damage])
        flows: dict[str, Any] = {
            "ps": self._ps, "run": self._run, "create": self._create, "init": self._init, "start": self._start,
            "unpause": self._unpause, "rm": self._rm, "load": self._load,
            "images": self._images, "image rm": self._untag, "system check": self._check,
        }  # fmt: skip
        return (yield from flows[verb](command, options, names))

    @property
    def _full(self) -> bool:
        return self.full or self.world.disk.full

    def _ps(self, _command: Command, _options: Any, _names: Any) -> Any:
        yield LIST_S / 2
        rows = [
            {
                "id": c.id, "names": [c.name], "state": c.state, "exitcode": c.exit_code, "pid": 7 if self.world.kernel.lives(c.id) else 0,
                "image": c.image, "labels": c.labels,
            }
            for c in self.containers.values() if not c.external
        ]  # fmt: skip
        return 0, "".join(f"{json.dumps(row)}\n" for row in rows) + '{"end":true}\n', ""

    def _run(self, command: Command, options: dict[str, list[str]], names: list[str]) -> Any:
        code, out, err = yield from self._create(command, options, names)
        if code:
            return code, out, err
        found = command.made
        yield STEP_S
        wrong = self._prepare(found)
        if wrong:
            return wrong
        yield START_S
        if found.state == "created":
            found.state = "running"
        return 0, out, ""

    def _create(self, command: Command, options: dict[str, list[str]], names: list[str]) -> Any:
        name, image = options["name"][0], names[0]
        if name in self.containers:
            return _error(
                f'creating container storage: the container name "{name}" is already in use by {self.containers[name].id}. You have to remove that '
                "container to be able to reuse that name: that name is already in use, or use --replace to instruct Podman to do so."
            )
        if image not in self.images:
            return _error(f"{image}: image not known")
        if self.damage == "layer":
            return _error(DAMAGES["layer"])
        mounts = [dict(part.partition("=")[::2] for part in mount.split(",")) for mount in options.get("mount", ())]
        sources = [mount["source"] for mount in mounts]
        for source in sources:
            if not os.path.exists(source):
                return _error(f"statfs {source}: no such file or directory")
        if self._full:
            return _error(f"creating container storage: {FULL}")
        yield START_S
        if name in self.containers:
            return _error(f'the container name "{name}" is already in use: that name is already in use')
        labels = dict(each.split("=", 1) for each in options.get("label", ()))
        self._write()
        mounted = {mount["destination"]: mount["source"] for mount in mounts}
        way = mounted.get(IN_PERSONA, "")
        home = [source for at, source in mounted.items() if at not in (IN_PERSONA, WAYLAND)]
        made = command.made = self._make(name, labels, image, home[0] if home else "")
        made.parent = options["cgroup-parent"][0]
        made.excused = command.told
        made.sources, made.way, made.mounted = sources, way if made.parent == GROUP else "", mounted
        return 0, f"{made.id}\n", ""

    def _prepare(self, made: Container) -> tuple[int, str, str] | None:
        """Let the runtime make its processes; return the error, if there is one."""
        if self.containers.get(made.name) is not made:
            return _error("no such container")
        if not all(os.path.exists(source) for source in made.sources):  # taken away since: it slept, and was given up long ago
            return _error("crun: mount: No such file or directory: OCI runtime attempted to invoke a command that was not found")
        made.door = Mounted(made.way) if made.way else None
        self._begin(made)
        return None

    def _init(self, command: Command, _options: Any, names: list[str]) -> Any:
        yield STEP_S
        found = self.containers.get(names[0])
        if found is None or found.external:
            return _error(f'no container with name or ID "{names[0]}" found: no such container')
        if found.state != "created" or self.world.kernel.lives(found.id):
            return _error(f"container {found.id} has already been created in runtime: container state improper")
        command.made = found
        wrong = self._prepare(found)
        if wrong:
            return wrong
        found.excused = found.excused or command.told
        yield START_S / 2
        if found.state == "created":
            found.state = "initialized"
        return 0, f"{names[0]}\n", ""

    def _start(self, command: Command, _options: Any, names: list[str]) -> Any:
        yield STEP_S
        found = self.containers.get(names[0])
        if found is None or found.external:
            return _error(f'no container with name or ID "{names[0]}" found: no such container')
        if found.state != "initialized":
            return _error(f"container {found.id} must be in Created or Stopped state to be started: container state improper")
        command.made = found
        yield START_S / 2
        if found.state == "initialized":
            found.state = "running"
        if found.parent == GROUP:
            self.world.homes.used(found.home)
        return 0, f"{names[0]}\n", ""

    def _make(self, name: str, labels: dict[str, str], image: str, home: str) -> Container:
        made = self.containers[name] = Container(f"{next(self.ids):064x}", name, labels, image, home=home, deaf=name in self.lingering)
        return made

    def _begin(self, made: Container) -> None:
        def ended(status: int) -> None:
            self.world.later(SAID_S, lambda: self._says(made, status))
            self.world.later(KNOWS_S, lambda: self._knows(made, status))

        self.world.kernel.begin(made.id, ended, made.parent)
        self.world.screen.begins(made, made.mounted)
        if made.parent == GROUP and not (made.home and os.stat(made.home).st_mode & stat.S_ISVTX):
            self.world.homes.used(made.home)

    def _says(self, made: Container, status: int) -> None:
        """Its monitor writes down how it ended."""
        with open(os.path.join(self.exits, made.id), "w", encoding="ascii") as file:
            file.write(str(status))

    def _knows(self, made: Container, status: int) -> None:
        made.state, made.exit_code, made.blind = "exited", status, False

    def _unpause(self, _command: Command, _options: Any, names: list[str]) -> Any:
        yield self.step_s
        found = self.containers.get(names[0])
        if found is None or found.external:
            return _error(f'no container with name or ID "{names[0]}" found: no such container')
        if found.state != "paused":
            return _error(f'"{found.id}" is not paused, can\'t unpause: container state improper')
        self.world.kernel.freeze(self.world.kernel.directory(found.id), frozen=False)
        yield self.step_s
        if found.state == "paused":
            found.state = "running"
        return 0, f"{names[0]}\n", ""

    def _rm(self, _command: Command, options: dict[str, list[str]], names: list[str]) -> Any:
        kernel, removed = self.world.kernel, []
        for name in names:
            yield STEP_S
            found = self.containers.get(name)
            if found is None:
                continue
            if self._full:
                return _error(f"writing container {found.id} state: {FULL}")
            if kernel.lives(found.id) and not found.blind:
                group = kernel.group(found.id)
                called, found.state = found.state, "stopping"  # what it calls paused it kills
                polite = options["time"][0] != "0"
                left = polite and group.asked_frozen and group.by_bay0 and not group.refused
                hold(not left, f"{name} is told to end, and bay0 itself keeps it frozen: it cannot hear that")
                hears = not found.deaf and not self.world.kernel.stands_still(group) and called != "paused"
                self.heard[name] = hears
                yield 0.1 if hears else float(options["time"][0])
                monitored = group.on_end is not None
                kernel.end(found.id, 0 if hears else 137)
                if not monitored:
                    found.state, found.exit_code = "exited", -1
                    return 125, "", f"Error: {ERRORS['conmon']}\n"
                yield STEP_S
            if self.containers.get(name) is found:
                self._write()
                del self.containers[name]  # of one that runs unknown to it, podman ends nothing
                removed.append(name)
        return 0, "".join(f"{name}\n" for name in removed), ""

    def _load(self, _command: Command, options: dict[str, list[str]], _names: Any) -> Any:
        yield self.load_s
        loaded = {ARCHIVE: IMAGE, AI_ARCHIVE: AI_IMAGE}.get(options["input"][0])
        if loaded is None:
            return _error(f"faccessat {options['input'][0]}: no such file or directory")
        if not os.path.isdir(os.path.join(self.store, "tmp")):
            return _error(f"creating temporary directory: mkdir {self.store}/tmp/container_images_1: no such file or directory")
        if self._full:
            return _error(f"writing blob: {FULL}")
        self.images.add(loaded)
        return 0, f"Loaded image: {loaded}\n", ""

    def _images(self, _command: Command, _options: Any, _names: Any) -> Any:
        yield LIST_S
        rows = [{"id": f"{7:064x}", "names": [name], "size": 4096} for name in sorted(self.images)]
        return 0, "".join(f"{json.dumps(row)}\n" for row in rows) + '{"end":true}\n', ""

    def _untag(self, _command: Command, _options: Any, names: list[str]) -> Any:
        yield STEP_S
        users = [c for c in self.containers.values() if c.image == names[0]]
        if users:
            return 2, "", f"Error: image used by {users[0].id}: image is in use by a container: consider listing external containers\n"
        if names[0] not in self.images:
            return 1, "", f"Error: {names[0]}: image not known\n"
        self.images.discard(names[0])
        return 0, f"Untagged: {names[0]}\n", ""

    def _check(self, _command: Command, options: dict[str, list[str]], _names: Any) -> Any:
        yield START_S
        if self._full:
            return 125, "mkdir merged.1: no space left on device\n", "Error: damage detected in local storage\n"
        if self.damage == "beyond":
            return _error(DAMAGES["beyond"])
        if self.damage is None:
            return 0, "", ""
        if "repair" not in options:
            return _error("damage detected in local storage")
        yield START_S
        self.damage = None
        self.images.clear()
        return 0, f"Deleted image {7:064x}\n", ""

    # ---- by hand, and by themselves

    def by_hand(self, name: str, *, runs: bool) -> None:
        """Somebody calls podman himself; nothing comes of it without its disk."""
        disk = self.world.disk
        if disk.unplugged or disk.wedged or not (disk.present and disk.mounted):
            return
        self._look_at_disk()  # podman leaves its database there: the next boot sees that it was used
        if name not in self.containers and self.damage is None:
            made = self._make(name, {"by": "hand"}, IMAGE, "")
            made.excused = True
            if runs:
                self._begin(made)
                made.state = "running"
            else:
                made.state, made.exit_code = "exited", 0

    def dies(self, name: str, status: int) -> None:
        """Its first process ends by itself."""
        found = self.containers.get(name)
        group = self.world.kernel.group(found.id) if found is not None else None
        if found is not None and group is not None and not self.world.kernel.stands_still(group):
            self.world.kernel.end(found.id, status)

    def paused_by_hand(self, name: str, *, paused: bool) -> None:
        """Somebody calls `podman pause`, or `unpause`, himself."""
        found = self.containers.get(name)
        if found is not None and self.world.kernel.lives(found.id) and found.state == ("running" if paused else "paused"):
            found.state = "paused" if paused else "running"
            self.world.kernel.freeze(self.world.kernel.directory(found.id), frozen=paused)

    def vanishes(self, name: str) -> None:
        """Somebody removes it by hand."""
        found = self.containers.pop(name, None)
        if found is not None:
            self.world.kernel.end(found.id, 137)

    def monitor_dies(self, name: str) -> None:
        """Its conmon is killed: podman will not hear of its end."""
        found = self.containers.get(name)
        group = self.world.kernel.group(found.id) if found is not None else None
        if group is not None:
            self.world.kernel.end_monitor(group)
        if group is not None and found is not None and found.parent != GROUP:
            self.world.ai.monitor_died()

    def mend(self) -> None:
        self.vices.clear()
        self.lingering.clear()
        self.full, self.damage = False, None
        for each in self.containers.values():
            each.deaf = False

    def theirs(self, ours: Callable[[str], bool]) -> dict[str, str]:
        return {name: c.id for name, c in self.containers.items() if not ours(name)}


def _error(text: str) -> tuple[int, str, str]:
    return 125, "", f"Error: {text}\n"
