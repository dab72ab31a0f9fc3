"""Temperatures, read by a process of their own: a thermal zone may ask firmware or a bus behind its file, and that may wait without a bound.

The reader is a fork of PID 1, like the state worker: asked at each look, it answers with a packet, which serves the next look. If it gives no answer
for 10 s the sensors count as silent, which is enough for a cautious cap. There is no reader where there is no thermal zone.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import define

from bay0.base.errors import SpawnError
from bay0.effects.forked import KEPT_FD
from bay0.effects.gauges import read
from bay0.effects.readings import Sensor
from bay0.pid1.reactor import READ

if TYPE_CHECKING:
    from bay0.effects.spawn import Child, Spawner
    from bay0.pid1.reactor import Reactor

ZONES = "/sys/class/thermal"
SILENT_S = 10.0
AGAIN_S = 30.0  # after a reader's end
ZONES_MAX = 32
PACKET_MAX = 16 << 10
NAME_MAX = 40
ASK = b"?"
TRIPS = ("passive", "hot", "critical")  # the first kind that has one
TRIPS_MAX = 16
SANE_TRIP = (40.0, 130.0)  # C
CRITICAL_MARGIN = 10.0  # C; a machine must not be run up to where it turns itself off
TRIP = 85.0  # C, where the firmware names none


def zones(base: str = ZONES) -> list[str]:
    """Return the thermal zones there are; a directory of the kernel's own memory."""
    try:
        found = [name for name in os.listdir(base) if name.startswith("thermal_zone")]
    except OSError:
        return []
    return sorted(found, key=lambda name: (len(name), name))[:ZONES_MAX]


def trip(zone: str) -> float:
    """Return where the kernel would begin to act on a zone, in Celsius."""
    found: dict[str, float] = {}
    for number in range(TRIPS_MAX):
        kind = read(f"{zone}/trip_point_{number}_type").strip()
        celsius = _celsius(read(f"{zone}/trip_point_{number}_temp"))
        if kind in TRIPS and celsius is not None and SANE_TRIP[0] <= celsius <= SANE_TRIP[1]:
            found[kind] = min(celsius, found.get(kind, celsius))
    if "critical" in found:
        found["critical"] -= CRITICAL_MARGIN
    return next((found[kind] for kind in TRIPS if kind in found), TRIP)


def name(zone: str) -> str:
    """Return what people know a zone by; its type is a constant of the driver's, so reading it waits for nothing."""
    return f"{os.path.basename(zone)} {read(f'{zone}/type').strip()}"[:NAME_MAX].strip()


def sample(base: str, known: dict[str, tuple[str, float]]) -> list[tuple[str, float | None, float]]:
    """Read every zone once; `known` keeps name and trip of those seen before."""
    found = []
    for zone in zones(base):
        if zone not in known:
            known[zone] = (name(f"{base}/{zone}"), trip(f"{base}/{zone}"))
        called, limit = known[zone]
        found.append((called, _celsius(read(f"{base}/{zone}/temp")), limit))
    return found


def serve(fd: int, base: str) -> int:
    """Be the reader: a sample for each question, until the other end is closed."""
    known: dict[str, tuple[str, float]] = {}
    with socket.socket(fileno=fd) as peer, contextlib.suppress(OSError):
        while peer.recv(len(ASK)):
            peer.send(json.dumps(sample(base, known)).encode())
    return 0


def _celsius(text: str) -> float | None:
    try:
        return int(text) / 1000
    except ValueError:
        return None


@define(eq=False, repr=False)
class Thermometer:
    """PID 1's end of the reader."""

    reactor: Reactor
    spawner: Spawner
    log: Any
    base: str = ZONES
    _child: Child | None = None
    _peer: socket.socket | None = None
    _last: tuple[Sensor, ...] = ()
    _asked: float | None = None  # and not answered since
    _again: float = float("-inf")

    def look(self) -> tuple[Sensor, ...]:
        """Return the sensors as last heard of; those of a reader that fell silent give nothing. Starts a reader where one is due."""
        now = self.reactor.clock()
        if self._child is None and now >= self._again and zones(self.base):
            self._start(now)
        self._ask(now)
        if self._asked is not None and now - self._asked > SILENT_S:
            return tuple(Sensor(sensor.name, None, sensor.trip) for sensor in self._last)
        return self._last

    def _ask(self, now: float) -> None:
        if self._peer is not None and self._asked is None:
            self._asked = now
            with contextlib.suppress(OSError):  # its end is on the way, and no answer is one too
                self._peer.send(ASK)

    def close(self) -> None:
        """End the reader."""
        self._again = float("inf")
        if self._child is not None:
            self._child.kill()
        self._hang_up()

    def _start(self, now: float) -> None:
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:  # no descriptor is left
            self.log.warning("no sensor reader", why=str(error))
            self._again = now + AGAIN_S
            return
        try:
            main: Callable[[], int] = partial(serve, KEPT_FD, self.base)
            self._child = self.spawner.fork("sensors", main, self._ended, group="services/sensors", keep=theirs.fileno())
        except SpawnError as error:
            self.log.warning("no sensor reader", why=str(error))
            self._again = now + AGAIN_S
            ours.close()
        else:
            self.log.info("sensor reader starts", zones=len(zones(self.base)))
            ours.setblocking(False)
            self._peer, self._asked = ours, None
            self._last = tuple(Sensor(name(f"{self.base}/{zone}"), None, TRIP) for zone in zones(self.base))  # until its first word
            self.reactor.watch(ours.fileno(), READ, self._ready)
        finally:
            theirs.close()

    def _ready(self, _ready: int) -> None:
        if self._peer is None:
            return
        try:
            packet = self._peer.recv(PACKET_MAX)
            found = tuple(Sensor(str(called), value, float(limit)) for called, value, limit in json.loads(packet)) if packet else None
        except BlockingIOError:
            return
        except (OSError, ValueError, TypeError, OverflowError, RecursionError):
            found = None
        if found is None:
            self._hang_up()
        else:
            self._last, self._asked = found, None

    def _ended(self, status: int) -> None:
        self._hang_up()
        self._child = None
        if self._again != float("inf"):
            self.log.warning("sensor reader ended", status=os.waitstatus_to_exitcode(status))
            self._again = self.reactor.clock() + AGAIN_S
            self._last = tuple(Sensor(sensor.name, None, sensor.trip) for sensor in self._last)

    def _hang_up(self) -> None:
        if self._peer is not None:
            self.reactor.unwatch(self._peer.fileno())
            self._peer.close()
            self._peer = None
