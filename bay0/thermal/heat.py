"""Which thermometers can be believed, and whether it is hot. Pure; time comes with each reading.

A sensor that is gone, talks nonsense, or stays where it is while the load moves is not believed; one that is believed again has to behave for
a while first. If none is left that can be believed the machine is *blind*, which means a fixed cautious cap and never "no limit".
"""

from __future__ import annotations

from attrs import define, field

from bay0.effects.readings import Reading, Sensor

START_BELOW_TRIP = 5.0  # C; hot from here on
RELEASE_BELOW_TRIP = 10.0  # C; cool again
SANE = (-40.0, 150.0)  # C
STUCK_S = 300.0  # not a bit of movement for so long,
STUCK_LOAD = 0.3  # while the load moved by so much of the machine
BAD_S = 6.0  # three looks
GOOD_S = 60.0


@define(eq=False, repr=False)
class _Past:
    """What is known of one sensor."""

    value: float
    since: float  # it has had this value
    lowest: float  # load since then
    highest: float
    bad_since: float | None = None
    good_since: float | None = None
    believed: bool = True
    why: str = ""


@define(eq=False, repr=False)
class Heat:
    """Judges all sensors. `hottest`: the sensor nearest to its trip, among those that are believed."""

    hot: bool = False
    blind: bool = False
    hottest: Sensor | None = None
    distrusted: dict[str, str] = field(factory=dict)  # name -> why
    _past: dict[str, _Past] = field(factory=dict)

    def look(self, seen: Reading) -> None:
        """Take in one reading."""
        there = {sensor.name: sensor for sensor in seen.sensors}
        for name in {**self._past, **there}:
            self._judge(name, there.get(name), seen)
        good = [s for s in seen.sensors if self._past[s.name].believed and _fault(s) is None]
        self.distrusted = {name: past.why for name, past in self._past.items() if not past.believed}
        believed = any(past.believed for past in self._past.values())
        self.blind = not believed if self._past else not seen.virtual
        self.hottest = min(good, key=_room, default=None)
        if self.blind:
            self.hot = False  # the cautious cap is all there is to go by
        elif self.hottest is not None:
            self.hot = _room(self.hottest) <= START_BELOW_TRIP or (self.hot and _room(self.hottest) < RELEASE_BELOW_TRIP)

    def _judge(self, name: str, sensor: Sensor | None, seen: Reading) -> None:
        now, load = seen.at, seen.load if seen.load is not None else 0.0
        celsius = sensor.celsius if sensor is not None and sensor.celsius is not None else float("nan")
        past = self._past.get(name)
        if past is None:
            past = self._past[name] = _Past(celsius, now, load, load)
        if celsius != past.value:
            past.value, past.since, past.lowest, past.highest = celsius, now, load, load
        past.lowest, past.highest = min(past.lowest, load), max(past.highest, load)
        why = _fault(sensor)
        if why is None and now - past.since >= STUCK_S and past.highest - past.lowest >= STUCK_LOAD:
            why = f"stuck at {celsius:g} C for {now - past.since:.0f} s while the load went from {past.lowest:.0%} to {past.highest:.0%}"
            past.bad_since = now - BAD_S if past.bad_since is None else past.bad_since  # it was looked at for long enough
        if why is not None:
            past.good_since, past.bad_since = None, now if past.bad_since is None else past.bad_since
            if now - past.bad_since >= BAD_S:
                past.believed, past.why = False, why
        else:
            past.bad_since, past.good_since = None, now if past.good_since is None else past.good_since
            past.believed = past.believed or now - past.good_since >= GOOD_S


def _room(sensor: Sensor) -> float:
    """Return how many degrees are left to the trip."""
    return sensor.trip - (sensor.celsius or 0.0)


def _fault(sensor: Sensor | None) -> str | None:
    if sensor is None:
        return "it is gone"
    if sensor.celsius is None:
        return "it gives nothing"
    if not SANE[0] <= sensor.celsius <= SANE[1]:
        return f"it says {sensor.celsius:g} C"
    return None
