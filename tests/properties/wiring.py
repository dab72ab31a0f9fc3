"""How the real spine is wired to the simulated machine: what is handed in, and what is set in modules."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from attrs import frozen
from clock import SimReactor, SimSelector
from disk import Calls
from kernel import SimWatch
from people import SimControl
from podman import ARCHIVE, IMAGE
from processes import SimSpawner, SimSysrq
from work import Calls as Charged
from work import Time

import bay0.containers.life
import bay0.log
import bay0.personas.port
from bay0.base import cmdline
from bay0.boot import stages
from bay0.boot.diskwatch import disks
from bay0.effects import power
from bay0.effects.modules import Wanted
from bay0.init.spine import Host
from bay0.podman import argv as podman_argv
from bay0.state import db, homes, paths, worker
from bay0.state.schema import MIGRATIONS, VERSION, database
from bay0.tenants.port import ServiceSpec

if TYPE_CHECKING:
    from world import World

PRUNE_EVERY = 3  # commits; in life it is hundreds
LOG_LONG = 800_000  # bytes; in life it is megabytes
CONSOLE, EXEC = "sys://console", "sys://exec"
WORKER_OPS = (
    "probe", "genesis", "containers_prepare", "containers_aside", "persona_prepare", "home_give",
    "log_remove", "home_empty", "trash_sweep", "time_save", "seed_use", "seed_renew", "farewell", "settle",
    "home_is_free", "staging_begin", "staging_place", "staging_drop", "staging_clear",
)  # fmt: skip


@frozen(eq=False)
class Wiring:
    """Joins one world to the modules of bay0."""

    world: World

    def install(self) -> None:
        if not database.is_closed():
            database.close()
        setattr_ = self.world.patch.setattr
        self.world.disk.install(self.world.patch)
        for name in ("find", "mount_first", "prefer", "prepare", "room", "unmount"):
            setattr_(worker.device, name, getattr(self.world.disk, name))
        setattr_(worker, "PRUNE_EVERY", PRUNE_EVERY)
        for module in (db, worker):
            setattr_(module, "VERSION", VERSION)
        setattr_(db, "MIGRATIONS", MIGRATIONS)
        setattr_(db, "LOG_LONG", LOG_LONG)
        setattr_(db, "os", Calls(self.world.disk))
        setattr_(worker, "DATABASE", self.world.disk.path)
        setattr_(worker, "ALIVE", os.path.join(self.world.disk.folder, "alive"))
        setattr_(worker, "GENESIS", os.path.join(self.world.disk.folder, "genesis.log"))
        for name in ("TIME", "SEED"):
            setattr_(worker, name, os.path.join(self.world.disk.folder, name.lower()))
        setattr_(worker.entropy, "RNG", os.devnull)
        setattr_(worker.entropy, "fresh", lambda: b"%32d" % self.world.boots)
        for op in WORKER_OPS:
            self.world.patch.setitem(worker.OPS, op, self._guarded(worker.OPS[op]))
        for name in ("HOMES", "LOGS", "CONTAINERS", "TRASH"):
            for module in (homes, paths):
                setattr_(module, name, os.path.join(self.world.disk.folder, name.lower()))
        setattr_(homes, "os", Charged(self.world.work))
        setattr_(homes, "time", Time(self.world.work))
        os.makedirs(self.world.podman.exits)
        setattr_(podman_argv, "EXITS", self.world.podman.exits)
        setattr_(bay0.containers.life, "write_config", lambda _files: None)
        setattr_(bay0.personas.port, "user_of", lambda _container: (os.getuid(), os.getgid()))
        self.world.kernel.install(self.world.patch)
        self.world.ai.install(
            setattr_, lambda op, act: self.world.patch.setitem(worker.OPS, op, self._guarded(act))
        )
        self.world.grants.install(setattr_)
        self.world.copies.install(setattr_)
        self.world.screen.install(setattr_)
        setattr_(bay0.log, "kernel_ms", lambda: int(self.world.now * 1000))
        setattr_(stages.mounts, "mount_kernel_filesystems", lambda: self._stage("mount"))
        setattr_(stages.cgroup, "shield_pid1", lambda: self._stage("shield"))
        setattr_(stages.shield, "unkillable", lambda: None)
        setattr_(stages.shield, "ctrl_alt_del_is_a_signal", lambda: None)
        setattr_(stages.net, "violations", list)
        setattr_(stages.limbo, "violations", list)
        setattr_(stages.modules, "aliases", lambda: iter(()))
        setattr_(stages.modules, "wanted", lambda _found: Wanted((), ()))
        setattr_(stages, "socket", SimpleNamespace(sethostname=lambda _name: None))

    def host(self) -> Host:
        """What the spine takes from this machine."""
        return Host(
            self.world.boot_id,
            reactor=lambda: SimReactor(
                clock=lambda: self.world.now, selector=SimSelector(self.world), turn_s=self.world.turn_s
            ),
            spawner=lambda *_: SimSpawner(self.world),  # type: ignore[arg-type,return-value]
            control=lambda *_, **_k: SimControl(),  # type: ignore[arg-type,return-value]
            watch=lambda _reactor: SimWatch(self.world.kernel),  # type: ignore[arg-type,return-value]
            now=self._wall,
            forward=self._forward,
            kernel_ms=lambda: int(self.world.now * 1000),
            built_in=lambda: {IMAGE: ARCHIVE},
            services=self._wanted,
            disks=lambda: disks(self.world.blocks),
            cards=lambda: ["card0"] if self.world.screen.there else [],
            doors=self.world.screen.doors,
            screen=self.world.screen.places,
            ports=self.world.more_ports,
            calls=power.Calls(self.world._reboot, lambda: 0, SimSysrq(self.world._reboot), lambda: True),
        )

    def _guarded(self, op: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(**arguments: Any) -> Any:
            self.world.disk.plain_write()
            answer = op(**arguments)
            self.world.seam("after write")
            return answer

        return guarded

    def _stage(self, name: str) -> list[str]:
        self.world.seam(f"stage {name}")
        return [f"{name} fails"] if self.world.stage_fault == name else []

    def _wall(self) -> int:
        """The machine's clock: its battery is empty, so each boot begins in 1970."""
        return int(self.world.now - self.world.began + self.world.clock_moved)

    def _forward(self, floor: int) -> int:
        moved = max(0, floor - self._wall())
        self.world.clock_moved += moved
        return moved

    def _wanted(self, words: cmdline.Words) -> dict[str, ServiceSpec]:
        wanted = {CONSOLE: ServiceSpec(("/bin/sh",))}
        if words.exec:
            wanted[EXEC] = ServiceSpec(("/bin/true",), once=True)
        return wanted
