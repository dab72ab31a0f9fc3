#!/usr/bin/env python3
"""Measure a step (event to committed, by the real engine, port, worker and SQLite) beside a bare SQLite transaction of the same rows.

Usage: scripts/buildroot.sh run python scripts/bench/steps.py [--counts 10,100,1000] [--json FILE]

`alone`: one persona after the other, each step waits for the last one's commit. `together`: all personas converge at once, as a reconcile
does; steps that come while a commit is under way share the next one. podman is not part of it.
"""

import argparse
import json
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, TOP)

from bay0.base.bounds import Bounds  # noqa: E402 - the checkout's
from bay0.machines import MACHINES, persona, storage  # noqa: E402
from bay0.machines.engine import Engine  # noqa: E402
from bay0.pid1.reactor import Reactor  # noqa: E402
from bay0.state import device, schema, worker  # noqa: E402
from bay0.state.port import StatePort  # noqa: E402

BOOT = {"boot_id": "bench", "version": "0", "kernel": "0", "started_wall": 0}
CONFIG = "x" * 400  # bytes, as a sample persona's
ROUNDS = 200


class Silent:
    """A log that costs nothing."""

    def __getattr__(self, _level: str) -> Callable[..., None]:
        """Return a function that does nothing."""
        return lambda *_words, **_keys: None


class Worker:
    """The state worker in a fork, as the spine has it."""

    def __init__(self, theirs: Any, _ended: Any) -> None:
        """Start it with its socket as descriptor 3."""
        if os.fork() == 0:
            os.dup2(theirs.fileno(), worker.SOCKET_FD)
            os.closerange(worker.SOCKET_FD + 1, 256)
            try:
                worker.main()
            finally:
                os._exit(0)

    def kill(self) -> None:
        """Do nothing: it ends with its socket."""


class Clock:
    """A clock that nothing is kept of."""

    def found(self, _found: Any) -> None:
        """Do nothing with what the disk says."""

    def good(self) -> None:
        """Return that there is nothing to keep."""


class Bench:
    """A spine without a machine: storage durable in a folder, personas whose effects succeed at once."""

    def __init__(self, folder: str) -> None:
        """Open the database."""
        worker.DATABASE, worker.ALIVE, worker.GENESIS = f"{folder}/state.db", f"{folder}/alive", f"{folder}/genesis"
        device.find, device.mount_first = lambda _wanted: [folder], lambda devices: devices[0]
        device.prepare = device.unmount = lambda: None
        self.reactor = Reactor()
        self.engine = Engine("bench", self.reactor, lambda: int(time.monotonic() * 1000), Silent())
        self.port = StatePort(self.engine, self.reactor, Bounds(), Silent(), Worker, dict(BOOT), Clock())
        self.engine.keep_with(self.port)
        self.engine.serve("storage", self.port)
        self.engine.serve("persona", self)
        self.engine.send(self.port.storage.name, storage.E.ATTACH)
        self.until(lambda: self.port.healthy)

    def start(self, instance: Any, _effect: Any, token: int) -> None:
        """Be the personas' effect port."""
        self.reactor.call_soon(lambda: self.engine.outcome(instance.name, token, persona.E.GONE))

    def until(self, true: Callable[[], bool]) -> None:
        """Turn the reactor."""
        while not true():
            self.reactor.turn(0.05)

    def adopt(self, count: int) -> list[Any]:
        """Take over `count` personas that a boot found running."""
        row = {"state": "running", "seq": 3, "attempts": 0, "desired": "running", "config": CONFIG}
        return [self.engine.adopt(MACHINES["persona"], {**row, "name": f"p://n{n}"}) for n in range(count)]

    def alone_us(self, instances: list[Any]) -> float:
        """Return the median time of one step, in microseconds."""
        times = []
        for instance in (instances * ROUNDS)[:ROUNDS]:
            began = time.perf_counter()
            self.engine.send(instance.name, persona.E.CONVERGE)
            self.until(lambda one=instance: one.pending is None)
            times.append(time.perf_counter() - began)
            self.until(lambda one=instance: one.now is persona.S.STOPPED)
        return statistics.median(times) * 1e6

    def together_us(self, instances: list[Any]) -> float:
        """Return the time a step takes when all converge at once, in microseconds."""
        began = time.perf_counter()
        for instance in instances:
            self.engine.send(instance.name, persona.E.CONVERGE)
        self.until(lambda: all(instance.now is persona.S.STOPPED and not instance.pending for instance in instances))
        return (time.perf_counter() - began) / (2 * len(instances)) * 1e6


def bare_us(folder: str, count: int) -> float:
    """Return the median time of the same two rows in a transaction of bare SQLite, in microseconds: the peer."""
    link = sqlite3.connect(f"{folder}/bare.db", isolation_level=None)
    link.executescript("PRAGMA locking_mode=exclusive; PRAGMA journal_mode=wal; PRAGMA synchronous=normal")
    for statements in (schema._VERSION_1, schema._VERSION_2):  # noqa: SLF001 - the tables as they are
        for statement in statements:
            link.execute(statement)
    link.executemany("INSERT INTO machine VALUES (?, 'persona', 'running', 0, 'stopped', 0, 'b', ?)", [(f"p://n{n}", CONFIG) for n in range(count)])
    times = []
    for n in range(ROUNDS):
        name = f"p://n{n % count}"
        began = time.perf_counter()
        link.execute("BEGIN IMMEDIATE")
        link.execute("INSERT INTO journal VALUES ('b', ?, ?, 'persona', 1, 'a', 'e', 'd', 'why', 0, 0, 'stopped')", (n, name))
        link.execute("UPDATE machine SET state = 'd', seq = ? WHERE name = ?", (n, name))
        link.execute("COMMIT")
        times.append(time.perf_counter() - began)
    link.close()
    return statistics.median(times) * 1e6


def measure(count: int) -> dict[str, float]:
    """Measure with `count` personas."""
    with tempfile.TemporaryDirectory(prefix="bench.") as folder:
        bench = Bench(folder)
        instances = bench.adopt(count)
        together = bench.together_us(instances)
        return {"personas": count, "alone_us": bench.alone_us(instances), "together_us": together, "bare_us": bare_us(folder, count)}


def main() -> int:
    """Measure and print; each count in a process of its own, since peewee's database is one a process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", default="10,100,1000", help="numbers of personas (default 10,100,1000)")
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    chosen = parser.parse_args()
    rows = []
    for count in map(int, chosen.counts.split(",")):
        read, write = os.pipe()
        if os.fork() == 0:
            os.write(write, json.dumps(measure(count)).encode())
            os._exit(0)
        os.close(write)
        rows.append(json.loads(os.read(read, 4096)))
        os.wait()
    print("| personas | a step alone, µs | together, µs a step | bare SQLite, µs | alone / bare | together / bare |\n|---|---|---|---|---|---|")
    for row in rows:
        ratios = f"{row['alone_us'] / row['bare_us']:.1f} | {row['together_us'] / row['bare_us']:.1f}"
        print(f"| {row['personas']} | {row['alone_us']:.0f} | {row['together_us']:.0f} | {row['bare_us']:.0f} | {ratios} |")
    if chosen.json:
        with open(chosen.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
