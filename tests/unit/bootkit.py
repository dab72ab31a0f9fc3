"""A machine for tests of whole boots: bay0 as an ordinary process, with its real wiring, reactor, worker, database, control socket and services.

What only a kernel can give is played: mounts, modules, cgroups, the power. /persist is a directory of the test's.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kit import until, zombies

from bay0 import init, log, net
from bay0.base import cmdline
from bay0.base.bounds import Bounds
from bay0.containers import life as containers
from bay0.effects import limbo, modules, mounts, power, shield, spawn
from bay0.effects.shield import Watchdog
from bay0.init.spine import Host, Spine, build
from bay0.machines.boot import E, S
from bay0.state import device, entropy, homes, paths, worker
from bay0.tenants.port import ServiceSpec

GENEROUS = Bounds(
    worker_start=20, find=20, mount=20, open=20, migrate=20, read=20, commit=20, flush=20, genesis=20, close=20, settle=20, term_grace=0.5,
)  # fmt: skip
THING = "sys://thing"


class Sysrq(power.Sysrq):
    """Keeps what the kernel would be told."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []

    def open(self) -> None:
        """Nothing to open."""

    def __call__(self, word: str) -> bool:
        self.words.append(word)
        return True


class Machine:
    """A machine that can be booted again and again; use it inside `in_child` only."""

    def __init__(self, top: Path, **bounds: float) -> None:
        self.top = top
        self.sysrq = Sysrq()
        self.bounds = Bounds(**{**{name: getattr(GENEROUS, name) for name in Bounds.__slots__ if name != "__weakref__"}, **bounds})
        (top / "run").mkdir()
        (top / "persist").mkdir()
        (top / "bin").mkdir()
        # modprobe as it is when a device needs no module; podman without any container, or the machine's own would be asked
        for name, script in (("modprobe", "exit 1"), ("podman", """echo '{"end":true}'""")):
            (top / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
            (top / "bin" / name).chmod(0o755)
        self._play_kernel()
        self._play_disk()

    def _play_kernel(self) -> None:
        spawn.ENVIRONMENT["PATH"] = f"{self.top}/bin:/usr/bin:/bin"
        mounts.mount_kernel_filesystems = list  # type: ignore[assignment]  # this process ends with the test
        modules.aliases = lambda: iter(())  # type: ignore[assignment]
        modules.wanted = lambda _found: modules.Wanted((), ())  # type: ignore[assignment]
        net.violations = limbo.violations = list  # type: ignore[assignment]
        shield.unkillable = shield.ctrl_alt_del_is_a_signal = lambda: None  # type: ignore[assignment]
        socket.sethostname = lambda _name: None  # type: ignore[assignment]
        containers.write_config = lambda _files: None

    def _play_disk(self) -> None:
        root = str(self.top / "persist")
        places = ("ROOT", "SPINE", "DATABASE", "GENESIS", "ALIVE", "TIME", "SEED", "MARKER", "HOMES", "LOGS", "CONTAINERS", "TRASH")
        for module in (paths, device, worker, homes):
            for name in places:
                if hasattr(module, name):
                    setattr(module, name, getattr(module, name).replace("/persist", root, 1))
        device.find = lambda wanted: [wanted or "/dev/vda"]  # type: ignore[assignment]
        device.mount_first = lambda devices: devices[0]  # type: ignore[assignment]
        entropy.RNG = os.devnull
        device.unmount = lambda: None  # type: ignore[assignment]

    def boot(self, words: str = "", boot_id: str = "11111111-aaaa", begin: bool = True, **host: Any) -> Spine:
        console = self.top / "console"
        console.touch()
        sinks = log.Sinks(console=log.Console(str(console)), file=log.RunLog(str(self.top / "run" / f"{boot_id[:4]}.jsonl")))
        host = {
            "bounds": self.bounds, "disks": lambda: frozenset({("vda", "1")}), "cards": list,
            "calls": power.Calls(self.power, self.sync, self.sysrq, lambda: True),
            "services": lambda _words: {THING: ServiceSpec(("sleep", "100"))}, **host,
        }  # fmt: skip
        watchdog = Watchdog(str(self.top / "no-watchdog"))
        spine = build(cmdline.parse(words), sinks, log.make(sinks), watchdog, Host(boot_id, **host))
        spine.control.path = str(self.top / "run" / f"{boot_id[:4]}.sock")
        spine.control.uids = frozenset({os.getuid()})
        init.take_signals(spine)
        if begin:
            spine.engine.send(spine.boot.name, E.BEGIN)
        return spine

    def power(self, how: str) -> int:
        """Runs in a fork, as the real one does, and like it does not come back."""
        with (self.top / "powered").open("a") as file:
            file.write(f"{how}\n")
        time.sleep(600)
        return 0

    @property
    def powered(self) -> list[str]:
        file = self.top / "powered"
        return file.read_text().split() if file.exists() else []

    def sync(self) -> int:
        """Runs in a fork."""
        (self.top / "synced").touch()
        return 0

    def turn_until(self, spine: Spine, true: Callable[[], Any], what: str = "the condition") -> None:
        until(
            true, f"{what} (boot {spine.boot.now}, storage {spine.state.storage.now})", 40.0, lambda: spine.reactor.turn(0.05)
        )

    def complete(self, spine: Spine) -> Spine:
        self.turn_until(spine, lambda: spine.boot.now is S.COMPLETE, "init complete")
        self.turn_until(spine, lambda: spine.engine.instances[THING].now.value == "running", "the tenant")
        return spine

    def leave(self, spine: Spine, how: str = "poweroff") -> None:
        spine.power_signals.stop(how, "the test is over")
        self.turn_until(spine, lambda: self.powered, "the power")

    def crash(self, spine: Spine) -> None:
        """Lose the power: nothing is closed; every process ends."""
        self.turn_until(spine, lambda: not spine.state.memory, "an empty memory journal")
        for child in (pid for pid in list(spine.reaper._owned)):
            os.kill(child, signal.SIGKILL)
        until(lambda: len(zombies()) >= len(spine.reaper._owned))
        spine.reaper._owned.clear()
        spine.reaper.drain()

    def stored(self) -> dict[str, str]:
        with contextlib.closing(sqlite3.connect(f"file:{self.top}/persist/spine/state.db?mode=ro", uri=True)) as base:
            return dict(base.execute("SELECT name, state FROM machine").fetchall())

    def logged(self, boot_id: str = "11111111-aaaa") -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.top / "run" / f"{boot_id[:4]}.jsonl").read_text().splitlines()]
