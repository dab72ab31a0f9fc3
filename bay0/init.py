"""bay0.init(): PID 1, told top to bottom.

 1. descriptors 0-2 exist, signals cannot raise, the first log line is on the console
 2. the parts are made and wired: reactor, reaper, spawner, state port, services, engine
 3. the boot machine gets BEGIN; from there the table decides (machines/boot.py):
    mount kernel filesystems, shield PID 1, load modules, attach storage, reconcile, serve, init complete
 4. the reactor turns until the power goes; after each turn the watchdog is fed and the console pushed
 5. whatever escapes from the reactor ends in the last resort: said, synced within a bound, reboot, halt or shell
"""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import define, field

import bay0
from bay0 import cmdline, fence, garbage, late, log, nackverbs
from bay0.bounds import Bounds
from bay0.containers import Places
from bay0.continuity import Continuity
from bay0.control import ControlServer
from bay0.duties import BootStages
from bay0.effectports import Duties, Lately
from bay0.effects import cgroup, clock, power, shield
from bay0.effects import podman as podman_effects
from bay0.effects.service import Services, ServiceSpec, console_tty
from bay0.effects.shield import Watchdog
from bay0.effects.spawn import Spawner
from bay0.effects.watch import CgroupWatch
from bay0.focus import Focus
from bay0.logline import LEVELS
from bay0.machines import MACHINES, RIPPLES, boot, storage
from bay0.machines.engine import Engine, Instance, Step
from bay0.machines.table import TIMED_OUT
from bay0.personas import Personas
from bay0.personaverbs import PersonaVerbs
from bay0.pid1 import Reaper, Signals, ignore_python_sigint
from bay0.reactor import Reactor
from bay0.runfiles import LOOK_EVERY_S, RunFiles
from bay0.speed import Speed
from bay0.state import paths
from bay0.state.port import StatePort
from bay0.verbs import Verbs

if TYPE_CHECKING:
    from bay0.governor import Keeper
    from bay0.servers import Servers
    from bay0.tenantverbs import TenantVerbs
    from bay0.umbilicalport import Umbilical

CMDLINE = "/proc/cmdline"
BOOT_ID = "/proc/sys/kernel/random/boot_id"
HELD_S, TWICE_S = 0.4, 3.0  # between two presses of Ctrl-Alt-Del; a keyboard repeats a key that is held after 0.25 s, and then faster
PROBE_EVERY_S = 10.0
GOVERN_AGAIN_S = 30.0
GOVERN_AFTER_S = 5.0  # a boot does not pay for the governor
PART_S = 0.1  # between two modules that nobody waits for
TENANT_VERBS = ("list", "show", "start", "stop", "restart", "configure")
# what methods take that a boot does not load, by how their names begin
TAKES = {"tenant.": late.TENANT_VERBS, "validate": late.VALIDATION, "suspend": late.INHIBIT, "inhibit": late.INHIBIT, "persona.": late.MANIFESTS}
ALONE = frozenset({"boots", "history", "nack.list", "image.list"})  # their answers come later and may be large
GUEST_EXEC = "/usr/lib/bay0-exec/run"
SYS_BLOCK = "/sys/class/block"
BUILT_IN_IMAGES = "/usr/share/spine-images"

BANNER = r"""
   /\
  /  \/\     Alpine-Spline {version}
 /   /  \    kernel {kernel}
/   /    \   PID 1 is bay0
"""


def read_text(path: str) -> str:
    """Return a small kernel file's text, or "" if it is not there."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def _disks() -> frozenset[tuple[str, str]]:
    """Return the block devices that may hold something: the name, and the number that the kernel gives to no other (`diskseq`, sysfs-block).

    One that is unplugged and another that is plugged in between two looks may have the same name.
    """
    try:
        names = [name for name in os.listdir(SYS_BLOCK) if not name.startswith(("loop", "ram", "zram"))]
    except OSError:
        return frozenset()
    return frozenset((name, read_text(f"{SYS_BLOCK}/{name}/diskseq")) for name in names)


@define(eq=False, repr=False)
class Spine:
    """All parts of a running PID 1, wired once in `build`."""

    words: cmdline.Words
    bounds: Bounds
    boot_id: str
    sinks: log.Sinks
    log: Any
    reactor: Reactor
    reaper: Reaper
    signals: Signals
    spawner: Spawner
    state: StatePort
    services: Services
    podman: podman_effects.Podman
    personas: Personas
    focus: Focus
    stages: BootStages
    engine: Engine
    boot: Instance
    watchdog: Watchdog
    control: ControlServer
    continuity: Continuity
    ports: Duties
    speed: Speed
    entered_ms: int = 0
    persona_verbs: PersonaVerbs | None = None
    governor: Keeper | None = None
    servers: Servers | None = None  # these two are made when somebody needs them
    umbilical: Umbilical | None = None
    tenant_verbs: TenantVerbs | None = None
    steps: list[Step] = field(factory=list)
    complete_ms: int | None = None
    _tried: frozenset[tuple[str, str]] = frozenset()
    _pressed_at: float | None = None

    def run(self) -> None:
        """Begin the boot and turn."""
        self.engine.send(self.boot.name, boot.E.BEGIN)
        self.reactor.call_later(PROBE_EVERY_S, self._probe)
        self.reactor.call_later(LOOK_EVERY_S, self._look_for_disk)
        self.run_files().begin()
        self.reactor.run()

    def after_turn(self) -> None:
        """Feed the watchdog and push what the console did not take."""
        if self.boot.now not in (boot.S.POWERING, boot.S.FORCING):  # from here on the watchdog is the last word
            self._feed()
        self.sinks.console.push()

    def _feed(self) -> None:
        if self.watchdog.feed(self.reactor.clock()):
            if self.watchdog.failing:
                self.log.warning("watchdog fails", device=self.watchdog.path, why=self.watchdog.failing)
            else:
                self.log.info("watchdog is fed again", device=self.watchdog.path)

    def watch_steps(self, instance: Instance, step: Step) -> None:
        """Follow the engine: remember this boot's steps, finish the boot, reconcile when a disk comes late."""
        if instance is self.boot or instance is self.state.storage:
            self.steps.append(step)
            del self.steps[200:-100]  # the first of a boot and the last of a flapping disk
        if instance is self.state.storage and instance.now in (storage.S.DETACHED, storage.S.WEDGED, storage.S.FULL, storage.S.READONLY):
            self.state.dirty = step.why
        if step.event == TIMED_OUT.lower() or (instance is self.state.storage and instance.now is storage.S.WEDGED):
            self.speed.bound_missed(f"{instance.name}: {step.why}")
        self.stages.look_stopped()
        self.stages.look_converged()
        self.personas.stepped(instance, step)
        self.focus.stepped(instance, step)
        if self.servers is not None:
            if self.boot.now in boot.LEAVES:
                self.servers.no_start("the spine is going down")
            self.servers.stepped(instance, step)
        if self.umbilical is not None:
            self.umbilical.stepped(instance, leaving=self.boot.now in boot.LEAVES)
        if self.governor is not None:
            self.governor.stepped(instance, step)
            if self.boot.now in boot.LEAVES:
                self.governor.close()
        if self.persona_verbs is not None:
            self.persona_verbs.stepped(instance, step)
        if instance.definition.kind in ("boot", "storage") and instance not in (self.boot, self.state.storage):
            self.reactor.call_soon(partial(self.engine.forget, instance.name))  # an earlier boot's: converged, and in the journal
        if instance is self.state.storage and instance.now in (storage.S.OPENING, storage.S.REATTACHING):
            self._tried = _disks()
        if instance is self.state.storage and instance.now is storage.S.DURABLE:
            self._durable(step)
        if instance is self.boot and instance.now is boot.S.COMPLETE:
            self._complete(step)

    def _durable(self, step: Step) -> None:
        self.state.dirty = None
        if self.boot.now not in (boot.S.ATTACHING, *boot.LEAVES):
            self.stages.reconcile_now()  # the disk came too late for its stage
        self.continuity.durable()
        if self.boot.now is boot.S.COMPLETE:
            self.personas.sweep_trash()  # a worker that was replaced may have left some
        self.state.append_genesis([f"{self.boot_id} +{step.at_ms} ms: /persist is durable on {self.state.device}"])

    def _complete(self, step: Step) -> None:
        self.complete_ms = step.at_ms
        self.log.info("init complete", after_ms=step.at_ms, dirty=self.state.dirty or "no")
        self.state.append_genesis([f"{self.boot_id} +{step.at_ms} ms: init complete"])
        self.sinks.console_level = max(LEVELS[self.words.console], LEVELS["warning"] if self.words.console == "info" else 0)
        self.stages.completed()
        self.continuity.completed()
        self.personas.sweep_trash()  # of an earlier boot
        self.personas.audit.begin()
        self.reactor.call_later(GOVERN_AFTER_S, self._govern)
        if not self.words.governor:
            self.log.warning("nobody is governed", why="bay0.governor=off on the kernel command line")

    def _govern(self) -> None:
        """Load the governor, a module a turn since each takes its time on a slow machine, and let it begin."""
        if self.boot.now is boot.S.COMPLETE:
            names, loaded = (late.GOVERNOR, self._governs) if self.words.governor else (late.RESERVE, self._reserve)
            late.one_by_one(names, partial(self.reactor.call_later, PART_S), loaded)

    def _reserve(self, _loaded: None) -> None:
        """Keep the spine's share of memory where nobody is governed, too: without it a persona that takes all evicts PID 1's own program."""
        try:
            from bay0.effects import reserve  # noqa: PLC0415 - it is loaded now
        except (ImportError, OSError) as error:
            self._govern_later(error)
            return
        reserve.kept(self.log, self.stages.ceilings)

    def _govern_later(self, error: Exception) -> None:
        """Try again when it could not be loaded, for want of a descriptor for example: that must not end PID 1."""
        self.log.error("governor not loaded", why=f"{type(error).__name__}: {error}")
        self.reactor.call_later(GOVERN_AGAIN_S, self._govern)

    def _governs(self, _loaded: None) -> None:
        if self.boot.now is not boot.S.COMPLETE:
            return
        try:
            from bay0 import governor  # noqa: PLC0415 - it is loaded now
        except (ImportError, OSError) as error:
            self._govern_later(error)
            return
        self.governor = governor.make(self)
        self.log.info("governor begins")
        self.reactor.call_soon(self.governor.begin)

    def _probe(self) -> None:
        self.state.probe(f"{self.boot_id} {log.kernel_ms()}")
        self.reactor.call_later(PROBE_EVERY_S, self._probe)

    def _look_for_disk(self) -> None:
        """Notice a disk that came after the last attempt began, seen in sysfs, which never waits for it.

        Or room on one that was full.
        """
        health = self.state.storage
        if health is not None and health.now is storage.S.DETACHED and self.boot.now is boot.S.COMPLETE:
            disks = _disks()
            came, self._tried = disks - self._tried, disks
            if came:
                self.engine.send(health.name, storage.E.RETRY, f"{', '.join(sorted(name for name, _number in came))} appeared")
            elif self.state.worth_retrying():
                self.engine.send(health.name, storage.E.RETRY, "it may answer again")
            else:
                self.stages.load_new()
        elif health is not None and health.now in (storage.S.FULL, storage.S.READONLY) and self.state.worth_retrying():
            self.engine.send(health.name, storage.E.RETRY, "it may be writable again")
        else:
            self.state.look_for_room(self._room_made)
        self.reactor.call_later(LOOK_EVERY_S, self._look_for_disk)

    def run_files(self) -> RunFiles:
        """Return what looks at PID 1's files on /run."""
        looks: dict[str, Callable[[], Iterable[str]]] = {
            "the run log": lambda: () if self.boot.now in (boot.S.NEW, boot.S.MOUNTING) else self.sinks.file.look(),  # there is no /run yet
            "the control socket": self.control.look,
            "the doors to the AI": lambda: () if self.umbilical is None or self.boot.now in boot.LEAVES else self.umbilical.look(),
            "the AI's socket": lambda: () if self.servers is None else self.servers.look(),
        }
        return RunFiles(self.reactor, self.log, looks)

    def _room_made(self) -> None:
        if self.state.storage is not None:
            self.engine.send(self.state.storage.name, storage.E.RETRY, "there is more room on it")

    def need_servers(self) -> Servers:
        """Return the effect port of servers; a boot that has none loads nothing for them.

        `RefusedError`: it cannot be loaded now.
        """
        if self.servers is None:
            with late.needed("sys://ai"):
                from bay0.servers import make  # noqa: PLC0415 - late: see above
            self.servers = make(self)
        return self.servers

    def need_umbilical(self) -> Umbilical:
        """Return PID 1's end of the umbilical; nothing of it is there before somebody needs it.

        `RefusedError`: it cannot be loaded now.
        """
        if self.umbilical is None:
            with late.needed("the way to the AI"):
                from bay0.umbilicalport import Umbilical  # noqa: PLC0415 - late: see above
            self.umbilical = Umbilical(self.reactor, self.bounds, self.log, self.services, self.engine, self.stages.stored_seq, self.words.patience)
            self.umbilical.stepped(self.boot, leaving=self.boot.now in boot.LEAVES)  # it may be made for a start that nobody has ended yet
            self.need_servers().announce_all()
        return self.umbilical

    def tenant_verb(self, verb: str, params: Mapping[str, Any], reply: Callable[[Any], None]) -> None:
        """Answer a method of `bay0 tenant`; what it takes is loaded with the first one."""
        if self.tenant_verbs is None:
            with late.needed("the verbs of `bay0 tenant`"):
                from bay0.tenantverbs import TenantVerbs  # noqa: PLC0415 - late: see above
            self.tenant_verbs = TenantVerbs(self)
        getattr(self.tenant_verbs, verb)(params, reply)

    def lose_disk(self) -> None:
        """End all that still runs on a filesystem that the kernel has given up, so that it can be mounted anew. Their machines see them end."""
        self.log.warning("personas killed", why="the filesystem they run on is dead")
        self.personas.kill_all()

    def ctrl_alt_del(self) -> None:
        """Reboot; at a second press, by force. A key that is held down repeats itself and is one press."""
        now, before = self.reactor.clock(), self._pressed_at
        self._pressed_at = now
        if before is not None and HELD_S <= now - before <= TWICE_S:
            self.engine.send(self.boot.name, boot.E.FORCE, "Ctrl-Alt-Del twice", how="reboot")
            return
        self.log.warning("Ctrl-Alt-Del: the machine restarts", by_force=f"press it again within {TWICE_S:g} s")
        self.stop("reboot", "SIGINT (Ctrl-Alt-Del)")

    def stop(self, how: str, why: str) -> None:
        """Begin an orderly stop, as a signal asks for it."""
        event = boot.E.POWEROFF if how == "poweroff" else boot.E.REBOOT
        self.engine.send(self.boot.name, event, why, how=how)


def build(words: cmdline.Words, sinks: log.Sinks, logger: Any, watchdog: Watchdog) -> Spine:
    """Make and wire all parts. Nothing happens yet."""
    bounds = Bounds().scaled(words.patience)
    boot_id = read_text(BOOT_ID) or f"unknown-{time.monotonic_ns()}"
    reactor = Reactor()
    reaper = Reaper(logger, reactor.call_soon)
    spawner = Spawner(reactor, reaper, bounds, logger)

    def launch(theirs: socket.socket, ended: Any) -> Any:
        return spawner.fork("state-worker", _state_worker, lambda _status: ended(), group="services/state", keep=theirs.fileno())

    row = {"boot_id": boot_id, "version": bay0.__version__, "kernel": os.uname().release, "started_wall": int(time.time())}
    state = StatePort(reactor, bounds, logger, launch, row, wanted_device=words.persist)
    continuity = Continuity(reactor, bounds, logger, state, clock.build_time(), words.trust_seed)
    continuity.begin()
    services = Services(reactor, spawner, bounds, logger)
    control = ControlServer(reactor, logger, {}, frame_s=bounds.frame, alone=ALONE)
    storage_paths = podman_effects.StoragePaths(*(f"{paths.CONTAINERS}/{name}" for name in ("storage", "libpod", "volumes", "tmp")))
    podman = podman_effects.Podman(spawner, bounds, logger, podman_effects.environment(storage_paths))
    places = Places(homes=paths.HOMES, logs=paths.LOGS, storage=storage_paths)
    personas = Personas(reactor, bounds, logger, state, podman, CgroupWatch(reactor), places, boot_id, _built_in)
    switch = Focus(reactor, logger)
    stages = BootStages(reactor, bounds, logger, sinks, spawner, state, services, personas, watchdog, partial(_wanted, words), control.open)
    ports = Duties({"boot": stages, "storage": state, "tenant": services, "persona": personas, "focus": switch})
    engine = Engine(boot_id, state, ports, reactor, log.kernel_ms, logger, RIPPLES, words.patience)
    state.engine = services.engine = stages.engine = personas.engine = personas.audit.engine = switch.engine = engine
    state.storage = engine.add(f"storage:{boot_id[:8]}", MACHINES["storage"])
    instance = engine.add(f"boot:{boot_id[:8]}", MACHINES["boot"])
    spine = Spine(
        words, bounds, boot_id, sinks, logger, reactor, reaper, Signals(reactor), spawner, state, services, podman, personas,
        switch, stages, engine, instance, watchdog, control, continuity, ports, Speed(reactor, logger, words.patience),
    )  # fmt: skip
    podman.damaged, podman.overdue = personas.mending.noticed, spine.speed.bound_missed
    ports.ports["server"] = Lately(spine.need_servers, reactor, logger)
    personas.own = reaper.own
    stages.servers, personas.umbilical = spine.need_servers, spine.need_umbilical
    spine.persona_verbs = PersonaVerbs(spine)
    control.methods.update({**Verbs(spine).methods(), **spine.persona_verbs.methods(), **nackverbs.methods(state)})
    control.methods.update({f"tenant.{verb}": partial(spine.tenant_verb, verb) for verb in TENANT_VERBS})
    control.takes.update({name: modules for name in control.methods for prefix, modules in TAKES.items() if name.startswith(prefix)})
    state.held = spine.lose_disk
    engine.watchers.append(spine.watch_steps)
    reactor.after_turn.append(spine.after_turn)
    return spine


def _state_worker() -> int:
    """Be the state worker, in a fork. Its imports (peewee, SQLite) happen there, never in PID 1; it goes first at the disk."""
    cgroup.prefer(f"{cgroup.ROOT}/services/state", cgroup.SERVICES_WEIGHT)
    shield.first_at_the_disk()
    with garbage.staying():
        from bay0.state import worker  # noqa: PLC0415 - see the docstring

    fence.lift()
    return worker.main()


def _wanted(words: cmdline.Words) -> dict[str, ServiceSpec]:
    """Return the tenants of this boot that are plain processes. Called when /sys is there to name the console."""
    wanted = {}
    tty = console_tty()
    if tty is not None:
        serial = "vt220" if words.terminal else "dumb"
        term = "linux" if tty.startswith("/dev/tty") and tty[8:].isdigit() else serial
        wanted["sys://console"] = ServiceSpec(("/bin/bash", "-l"), {"TERM": term, "HOME": "/root"}, tty=tty)
    if words.exec:
        wanted["sys://exec"] = ServiceSpec((GUEST_EXEC,), once=True, if_killed=(GUEST_EXEC, "killed"))
    return wanted


def _built_in() -> dict[str, str]:
    """Return the images that are part of the spine: name -> archive, to be loaded when one is first needed."""
    try:
        with open(f"{BUILT_IN_IMAGES}/index.json", encoding="utf-8") as file:
            return {name: f"{BUILT_IN_IMAGES}/{archive}" for name, archive in json.load(file).items()}
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}


def _take_signals(spine: Spine) -> None:
    on = spine.signals.on
    on[signal.SIGCHLD] = spine.reaper.drain
    on[signal.SIGTERM] = lambda: spine.stop("poweroff", "SIGTERM")
    on[signal.SIGPWR] = lambda: spine.stop("poweroff", "SIGPWR")
    on[signal.SIGINT] = spine.ctrl_alt_del
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        on[number] = partial(spine.log.info, "signal noted, nothing to do", signal=number.name)
    spine.signals.install()


def _ensure_descriptors() -> None:
    """Give 0, 1 and 2 something harmless when the kernel found no console, or a pipe would get their numbers."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:  # noqa: PLR2004 - stderr
        pass
    os.close(fd)


def init(entered: float) -> None:
    """Be PID 1, which `entered` its program at that monotonic time. Returns never: the power goes, or the last resort decides."""
    words = cmdline.Words()
    sinks = log.Sinks()
    bounds = Bounds()
    watchdog = Watchdog()
    try:
        _ensure_descriptors()
        ignore_python_sigint()
        words = cmdline.parse(read_text(CMDLINE))
        sinks.console_level = LEVELS[words.console]
        bounds = bounds.scaled(words.patience)
        logger = log.make(sinks)
        loaded_ms = int((time.monotonic() - entered) * 1000)
        for line in BANNER.format(version=bay0.__version__, kernel=os.uname().release).splitlines():
            sinks.console.write(line)
        logger.info("starting", version=bay0.__version__, kernel=os.uname().release, patience=words.patience, loaded_ms=loaded_ms)
        for complaint in words.complaints:
            logger.warning("kernel command line word ignored", why=complaint)
        fence.forbid_persist()
        spine = build(words, sinks, logger, watchdog)
        spine.entered_ms = int(entered * 1000)
        spine.speed.booted(loaded_ms)
        _take_signals(spine)
        spine.run()
        raise AssertionError("the reactor of PID 1 has stopped")
    except BaseException as error:  # PID 1 must not end: its exit panics the kernel
        if words.panic != "reboot":
            watchdog.disarm()  # or it would end the halt, or the shell, after 30 s
        power.last_resort(error, words.panic, sinks.console.write, bounds.panic_sync)
