"""bay0.init(): PID 1, told top to bottom.

 1. descriptors 0-2 exist, signals cannot raise, the first log line is on the console
 2. the parts are made and wired (spine.py): engine, reactor, reaper, spawner, state port, containers, services
 3. the boot machine gets BEGIN; from there the table decides (machines/boot.py):
    mount kernel filesystems, shield PID 1, load modules, attach storage, reconcile, serve, init complete
 4. the reactor turns until the power goes; after each turn the watchdog is fed and the console pushed
 5. whatever escapes from the reactor ends in the last resort: said, synced within a bound, reboot, halt or shell
"""

from __future__ import annotations

import os
import signal
import time

import bay0
from bay0 import log
from bay0.base import cmdline
from bay0.base.bounds import Bounds
from bay0.base.kernelfile import read_text
from bay0.base.logline import LEVELS
from bay0.effects import power
from bay0.effects.shield import HANDED_ON, Watchdog
from bay0.init.spine import Host, Spine, build
from bay0.machines import boot
from bay0.pid1.reaper import ignore_python_sigint
from bay0.state import fence

CMDLINE = "/proc/cmdline"
BOOT_ID = "/proc/sys/kernel/random/boot_id"

BANNER = r"""
   /\
  /  \/\     Alpine-Spline {version}
 /   /  \    kernel {kernel}
/   /    \   PID 1 is bay0
"""


def run(spine: Spine) -> None:
    """Begin the boot and turn."""
    spine.engine.send(spine.boot.name, boot.E.BEGIN)
    spine.disk_watch.begin()
    spine.run_files.begin()
    spine.reactor.run()


def take_signals(spine: Spine) -> None:
    """Turn the signals that mean something into calls."""
    spine.signals.on[signal.SIGCHLD] = spine.reaper.drain
    spine.power_signals.subscribe(spine.signals)
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
        watchdog.take_over(os.environ.pop(HANDED_ON, None))
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
        host = Host(read_text(BOOT_ID) or f"unknown-{time.monotonic_ns()}", int(entered * 1000))
        spine = build(words, sinks, logger, watchdog, host)
        spine.speed.booted(loaded_ms)
        take_signals(spine)
        run(spine)
        raise AssertionError("the reactor of PID 1 has stopped")
    except BaseException as error:  # PID 1 must not end: its exit panics the kernel
        if words.panic != "reboot":
            watchdog.disarm()  # or it would end the halt, or the shell, after 30 s
        power.last_resort(error, words.panic, sinks.console.write, bounds.panic_sync)
