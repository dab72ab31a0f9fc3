"""The wiring: every part of PID 1 is made here, in order, and handed what it needs. There is no logic in this file.

The engine comes first and knows only tables. Each part takes what it works with by its constructor and subscribes to the
steps it wants to hear of (machines/bus.py); the table of ports below says which part does the effects of which kind of
machine. A part that a boot can do without is a `Late`: it is made when it is first called.

A new kind of machine is its table, its port, and a line in `ports`: docs/how-to/add-a-machine.md.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

import bay0
from bay0 import log
from bay0.base.bounds import Bounds
from bay0.boot import diskwatch
from bay0.boot import nack_methods as nackverbs
from bay0.boot import services as bootservices
from bay0.boot.autostart import Autostart
from bay0.boot.chronicle import Chronicle
from bay0.boot.continuity import Continuity, SavedClock
from bay0.boot.diskwatch import DiskWatch
from bay0.boot.leaving import Leaving
from bay0.boot.methods import Verbs, memory
from bay0.boot.powersignals import PowerSignals
from bay0.boot.pulse import Pulse
from bay0.boot.runfiles import RunFiles
from bay0.boot.speed import Speed
from bay0.boot.stages import BootStages
from bay0.boot.trash import Trash
from bay0.containers import images
from bay0.containers import life as containers
from bay0.containers.images import ImageMethods
from bay0.containers.life import Means, Places
from bay0.control.outcomes import Outcomes
from bay0.control.server import ControlServer
from bay0.effects import clock, power, shield
from bay0.effects.ceilings import Ceilings
from bay0.effects.spawn import Spawner
from bay0.effects.watch import CgroupWatch
from bay0.focus.methods import FocusMethods
from bay0.focus.switch import Focus
from bay0.init.lateport import LatePort
from bay0.loading.late import Late
from bay0.machines import MACHINES, RIPPLES
from bay0.machines.engine import EffectPort, Engine
from bay0.machines.instance import Instance
from bay0.net.watch import NetWatch
from bay0.personas import copyduties
from bay0.personas.methods import PersonaVerbs
from bay0.personas.port import Personas
from bay0.pid1.reactor import Reactor
from bay0.pid1.reaper import Reaper, Signals
from bay0.podman import calls as podman_effects
from bay0.reconcile.audit import Audit
from bay0.reconcile.clearing import Clearing
from bay0.reconcile.mending import Mending
from bay0.reconcile.replay import Replay
from bay0.screen.places import DOORS as SCREEN_DOORS
from bay0.screen.places import Places as ScreenPlaces
from bay0.screen.watch import ScreenWatch, cards
from bay0.state import paths
from bay0.state.launch import Launcher
from bay0.state.port import StatePort
from bay0.tenants.port import Services, ServiceSpec, console_tty
from bay0.thermal.governing import Governing
from bay0.upgrade.watch import UpgradeWatch

if TYPE_CHECKING:
    from bay0.ai.methods import TenantVerbs
    from bay0.ai.port import Servers
    from bay0.base.cmdline import Words
    from bay0.boot.sleep import Inhibit
    from bay0.effects.shield import Watchdog
    from bay0.net.cables import Cables
    from bay0.net.methods import NetMethods
    from bay0.net.port import Net
    from bay0.net.scripts import Scripts
    from bay0.personas.changing import Changing
    from bay0.personas.copies import Copies
    from bay0.personas.snapshots import Snapshots
    from bay0.screen.doors import Doors
    from bay0.screen.methods import ScreenMethods
    from bay0.screen.port import Screen
    from bay0.thermal.governor import Keeper
    from bay0.thermal.reserve import Reserve
    from bay0.thermal.sensors import Thermometer
    from bay0.umbilical.doors import Umbilical
    from bay0.upgrade.methods import UpgradeMethods
    from bay0.upgrade.port import Upgrade
    from bay0.validate.freezer import Freezer
    from bay0.validate.look import Parts
    from bay0.validate.run import Validation

ALONE = frozenset({"boots", "history", "nack.list", "image.list"})  # their answers come later and may be large


@frozen(eq=False, repr=False)
class Host:
    """What a spine takes from the machine it runs on. Tests hand in their own."""

    boot_id: str
    entered_ms: int = 0  # when its program began, on the kernel's clock
    bounds: Bounds = field(factory=Bounds)
    reactor: Callable[[], Reactor] = Reactor
    spawner: Callable[[Reactor, Reaper, Bounds, Any], Spawner] = Spawner
    control: Callable[..., ControlServer] = ControlServer
    watch: Callable[[Reactor], CgroupWatch] = CgroupWatch
    now: Callable[[], int] = clock.now
    forward: Callable[[int], int] = clock.forward
    kernel_ms: Callable[[], int] = log.kernel_ms
    built_in: Callable[[], Mapping[str, str]] = images.built_in
    services: Callable[[Words], dict[str, ServiceSpec]] = bootservices.wanted
    disks: Callable[[], diskwatch.Disks] = diskwatch.disks
    cards: Callable[[], list[str]] = cards
    doors: str = SCREEN_DOORS
    screen: ScreenPlaces = field(factory=ScreenPlaces)
    calls: power.Calls = field(factory=power.Calls)
    ports: Callable[[Engine, Reactor, Any], dict[str, EffectPort]] = lambda *_: {}  # of further kinds of machines


@frozen(eq=False, repr=False)
class Spine:
    """The parts, for those who drive them: `bay0.init`, and tests. No part knows it."""

    engine: Engine
    boot: Instance
    reactor: Reactor
    reaper: Reaper
    signals: Signals
    spawner: Spawner
    sinks: log.Sinks
    state: StatePort
    continuity: Continuity
    services: Services
    podman: podman_effects.Podman
    clearing: Clearing
    audit: Audit
    mending: Mending
    personas: Personas
    focus: Focus
    servers: Late[Servers]
    umbilical: Late[Umbilical]
    replay: Replay
    leaving: Leaving
    stages: BootStages
    trash: Trash
    outcomes: Outcomes
    chronicle: Chronicle
    governing: Governing
    inhibit: Late[Inhibit]
    control: ControlServer
    persona_verbs: PersonaVerbs
    tenant_verbs: Late[TenantVerbs]
    validation: Late[Validation]
    watchdog: Watchdog
    speed: Speed
    disk_watch: DiskWatch
    run_files: RunFiles
    power_signals: PowerSignals
    screen: Late[Screen]
    screen_watch: ScreenWatch
    upgrade: Late[Upgrade]
    upgrade_watch: UpgradeWatch


def build(words: Words, sinks: log.Sinks, logger: Any, watchdog: Watchdog, host: Host) -> Spine:  # noqa: PLR0915 - one list, which is read from top to bottom
    """Make and wire all parts. Nothing happens yet."""
    bounds = host.bounds.scaled(words.patience)
    reactor = host.reactor()
    engine = Engine(host.boot_id, reactor, host.kernel_ms, logger, words.patience)
    boot = engine.add(f"boot:{host.boot_id[:8]}", MACHINES["boot"])

    # processes, and what the disk keeps
    reaper = Reaper(logger, reactor.call_soon)
    spawner = host.spawner(reactor, reaper, bounds, logger)
    speed = Speed(engine, reactor, logger, words.patience)
    row = {"boot_id": host.boot_id, "version": bay0.__version__, "kernel": os.uname().release, "started_wall": int(time.time())}
    saved_clock = SavedClock(logger, row, clock.build_time(), host.now, host.forward)
    lose_disk = partial(containers.lose_disk, logger)
    state = StatePort(engine, reactor, bounds, logger, Launcher(spawner), row, saved_clock, words.persist, lose_disk)
    continuity = Continuity(engine, reactor, bounds, logger, state, boot, saved_clock, words.trust_seed)
    chronicle = Chronicle(engine, logger, sinks, state, boot, host.entered_ms, words.console)
    outcomes = Outcomes(engine, reactor, bounds)
    trash = Trash(engine, reactor, bounds, logger, state, boot, lambda: replay.known)

    # containers
    storage = podman_effects.StoragePaths(*(f"{paths.CONTAINERS}/{name}" for name in ("storage", "libpod", "volumes", "tmp")))
    environment = podman_effects.environment(storage)
    podman = podman_effects.Podman(spawner, bounds, logger, environment, overdue=speed.bound_missed)
    clearing = Clearing(reactor, podman)
    audit = Audit(engine, reactor, logger, state, podman, clearing, boot)
    places = Places(paths.HOMES, paths.LOGS, storage)
    means = Means(engine, reactor, bounds, logger, state, podman, host.watch(reactor), places, clearing, audit)
    servers: Late[Servers] = Late("ai.port:Servers", lambda new: new(means, boot, umbilical))
    umbilical: Late[Umbilical] = Late(
        "umbilical.doors:Umbilical",
        lambda new: new(engine, reactor, bounds, logger, services, boot, replay.stored_seq, servers().told, words.patience),
        (servers,),
    )
    doors: Late[Doors] = Late("screen.doors:Doors", lambda new: new(logger, host.doors))
    copies: Late[Copies] = Late("personas.copies:Copies", lambda new: new(means, personas.life, persona_verbs, spawner.run, trash.sweep))
    snapshots: Late[Snapshots] = Late("personas.snapshots:Snapshots", lambda new: new(means, copies()), (copies,))
    copyduties.forget_snapshots(engine, reactor)
    scripts: Late[Scripts] = Late("net.scripts:Scripts", lambda new: new(spawner.run, bounds))
    cables: Late[Cables] = Late("net.cables:Cables", lambda new: new(reactor, logger, scripts()), (scripts,))
    personas = Personas(means, boot, host.built_in, umbilical, reaper.own, doors=doors, copies=copies, cables=cables)
    mending = Mending(reactor, bounds, logger, podman, state, personas.life.lives, audit.soon)
    services = Services(engine, reactor, spawner, bounds, logger)
    focus = Focus(engine, reactor, logger, personas.runs_behind)

    # the boot from its first stage to its end
    control = host.control(reactor, logger, frame_s=bounds.frame, alone=ALONE)
    ceilings = Ceilings()
    manifests: Late[Any] = Late("personas.manifest:Manifest", lambda new: new)
    configure = partial(containers.configure, places, logger)
    replay = Replay(engine, reactor, bounds, logger, state, boot, clearing, audit, mending, configure, manifests)
    leaving = Leaving(engine, reactor, bounds, logger, sinks, spawner, state, services, host.calls)
    wanted = partial(host.services, words)
    stages = BootStages(
        engine, reactor, bounds, logger, sinks, spawner, state, services, watchdog, ceilings, replay, leaving, wanted, control.open,
        host.calls.sysrq.open,
    )  # fmt: skip
    Autostart(engine, reactor, logger, boot, replay, personas, servers, mending)
    disk_watch = DiskWatch(engine, reactor, state, boot, stages, host.disks)
    Pulse(reactor, logger, sinks, watchdog, boot)
    power_signals = PowerSignals(engine, reactor, logger, boot)

    # what a boot can do without
    screen: Late[Screen] = Late(
        "screen.port:Screen",
        lambda new: new(
            engine, reactor, bounds, logger, spawner, services, boot, replay.stored_seq, power_signals.ctrl_alt_del,
            doors(), host.screen, words.patience,
        ),
        (doors,),
    )
    screen_methods: Late[ScreenMethods] = Late(
        "screen.methods:ScreenMethods", lambda new: new(engine, reactor, screen()), (screen,)
    )
    screen_watch = ScreenWatch(engine, reactor, logger, boot, screen, screen_methods, words.screen, console_tty, host.cards)
    thermometer: Late[Thermometer] = Late("thermal.sensors:Thermometer", lambda new: new(reactor, spawner, logger))
    reserve: Late[Reserve] = Late("thermal.reserve:Reserve", lambda new: new(logger, ceilings))
    keeper: Late[Keeper] = Late(
        "thermal.governor:Keeper",
        lambda new: new(engine, reactor, logger, boot, personas, servers, thermometer(), reserve(), ceilings),
        (thermometer, reserve),
    )
    governing = Governing(engine, reactor, logger, boot, words.governor, keeper, reserve)
    inhibit: Late[Inhibit] = Late(
        "boot.sleep:Inhibit",
        lambda new: new(engine, reactor, bounds, logger, state, spawner, boot, watchdog, continuity, words.suspend),
    )
    freezer: Late[Freezer] = Late("validate.freezer:Freezer", lambda new: new(reactor, bounds, logger, podman, clearing, host.boot_id))
    looked_at: Late[Parts] = Late(
        "validate.look:Parts",
        lambda new: new(engine, reactor, bounds, state, services, watchdog, replay, mending, servers, umbilical, screen),
    )
    validation: Late[Validation] = Late(
        "validate.run:Validation", lambda new: new(looked_at(), logger, boot, freezer()), (looked_at, freezer)
    )
    tenant_verbs: Late[TenantVerbs] = Late(
        "ai.methods:TenantVerbs",
        lambda new: new(engine, reactor, bounds, state, boot, servers, umbilical, replay, outcomes),
        (servers,),
    )
    upgrade: Late[Upgrade] = Late(
        "upgrade.port:Upgrade", lambda new: new(engine, reactor, bounds, logger, state, spawner, validation, words.prove)
    )
    upgrade_methods: Late[UpgradeMethods] = Late(
        "upgrade.methods:UpgradeMethods",
        lambda new: new(
            engine, reactor, bounds, state, spawner, boot, replay, outcomes, watchdog, host.entered_ms / 1000, words.patience
        ),
    )
    net: Late[Net] = Late(
        "net.port:Net",
        lambda new: new(engine, reactor, bounds, logger, services, boot, replay.stored_seq, scripts(), cables()),
        (scripts, cables),
    )
    net_methods: Late[NetMethods] = Late(
        "net.methods:NetMethods", lambda new: new(engine, boot, replay, outcomes, net, cables)
    )
    NetWatch(engine, reactor, boot, replay)
    upgrade_watch = UpgradeWatch(engine, reactor, bounds, logger, boot, state, replay, spawner, words.prove)

    # which part does the effects of which kind
    engine.keep_with(state)
    ports: dict[str, EffectPort] = {
        "boot": stages, "storage": state, "tenant": services, "persona": personas, "focus": focus,
        "server": LatePort(servers, reactor, logger), "inhibit": LatePort(inhibit, reactor, logger),
        "screen": LatePort(screen, reactor, logger), "upgrade": LatePort(upgrade, reactor, logger),
        "snapshot": LatePort(snapshots, reactor, logger), "net": LatePort(net, reactor, logger),
        **host.ports(engine, reactor, logger),
    }  # fmt: skip
    for kind, port in ports.items():
        engine.serve(kind, port)
    engine.complete(MACHINES)
    engine.ripple(RIPPLES)

    # what the control socket offers, and what is looked after on /run
    sections = {
        "": (chronicle.describe,),
        "storage": (state.describe,),
        "pid1": (memory, reactor.describe, reaper.describe, spawner.describe, sinks.console.describe),
        "podman": (podman.describe, personas.describe),
        "speed": (speed.describe,),
        "continuity": (continuity.describe,),
        "watchdog": (partial(shield.describe, watchdog),),
    }
    mending.on_images(servers.ask("came"))
    persona_verbs = PersonaVerbs(engine, reactor, bounds, state, boot, personas, replay, outcomes, trash.sweep)
    control.offer(Verbs(engine, reactor, bounds, state, spawner, boot, chronicle, words.debug, sections).methods())
    control.offer(nackverbs.methods(state))
    control.offer(persona_verbs.methods(), manifests.modules)
    control.offer(
        {
            "persona.clone": copies.method("clone"), "persona.import": copies.method("bring"), "persona.copying": copies.method("progress"),
            "persona.give_up": copies.method("give_up"),
        },
        (*manifests.modules, *copies.modules),
    )
    control.offer(
        {f"persona.{verb}": snapshots.method(m) for verb, m in (("snapshots", "list_all"), *((m, m) for m in ("snapshot", "restore", "drop")))},
        (*manifests.modules, *snapshots.modules),
    )
    changing: Late[Changing] = Late(
        "personas.changing:Changing",
        lambda new: new(engine, bounds, logger, spawner.run, personas, replay, persona_verbs.facts, keeper.ask("limited")),
        (manifests,),
    )
    control.offer(FocusMethods(engine, focus, replay, outcomes).methods(), manifests.modules)
    control.offer(ImageMethods(bounds, state, podman, mending, host.built_in).methods())
    control.offer(governing.methods())
    control.offer({"screen": screen_watch.show})
    for part, methods in (
        (tenant_verbs, {f"tenant.{verb}": verb for verb in ("list", "show", "start", "stop", "restart", "configure")}),
        (changing, {"persona.configure": "configure"}),
        (net_methods, {**{f"net.{verb}": verb for verb in ("status", "up", "down", "configure")}, "persona.net": "persona"}),
        (validation, {"validate": "ask", "validate.last": "found_last", "validate.progress": "progress"}),
        (inhibit, {"suspend": "suspend", "inhibit": "show"}),
        (upgrade_methods, {f"upgrade.{verb.rstrip('_')}": verb for verb in ("status", "stage", "try_", "cancel", "rollback", "accept")}),
    ):
        control.offer({name: part.method(method) for name, method in methods.items()}, part.modules)
    run_files = RunFiles(reactor, logger)
    run_files.look_after("the run log", chronicle.look)
    run_files.look_after("the control socket", control.look)
    run_files.look_after("the doors to the AI", umbilical.ask("look"))
    run_files.look_after("the AI's socket", servers.ask("look"))

    return Spine(
        engine, boot, reactor, reaper, Signals(reactor), spawner, sinks, state, continuity, services, podman, clearing, audit,
        mending, personas, focus,
        servers, umbilical, replay, leaving, stages, trash, outcomes, chronicle, governing, inhibit, control, persona_verbs, tenant_verbs,
        validation, watchdog, speed, disk_watch, run_files, power_signals, screen, screen_watch, upgrade, upgrade_watch,
    )  # fmt: skip
