"""Devices that come and go: what udevd would tell the compositor, told by PID 1.

libinput and wlroots learn of them from libudev alone, which hears messages on the group of udevd, and only
those of a sender who is root in the same network namespace. A message of the kernel's means "look again", as
does each beat: what was lost, or never told by a driver, is mended then. Looking is a comparison with what
the compositor was told last, by the path in sysfs, which no two devices have one after the other.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable
from typing import Any

from attrs import define, field

from bay0.base.kernelfile import read_text
from bay0.pid1.reactor import READ, Reactor
from bay0.screen import inputs, uevent

SYS_DRM = f"{inputs.SYS}/class/drm"
NETLINK_KOBJECT_UEVENT = 15  # linux/netlink.h
SIZE_MAX = 8192  # bytes of one message: twice what the kernel sends at most
MESSAGES_A_TURN = 64
SETTLE_S = 0.05  # from a message to the look: one device sends several
CARDS_MAX = 16


def connectors(directory: str = SYS_DRM) -> dict[str, str]:
    """Return "card0-HDMI-A-1" -> "connected", "disconnected" or "unknown". None of these reads can wait."""
    try:
        names = sorted(name for name in os.listdir(directory) if re.fullmatch(r"card\d+-.+", name))
    except OSError:
        return {}
    return {name: read_text(f"{directory}/{name}/status") for name in names}


@define(eq=False, repr=False)
class Hotplug:
    """`changed`: called when a look found something new. `udev`: where each device has its file."""

    reactor: Reactor
    log: Any
    udev: str
    changed: Callable[[], None]
    sys_input: str = inputs.SYS_INPUT
    sys_drm: str = SYS_DRM
    devices: list[inputs.Device] = field(init=False, factory=list)  # that the compositor knows
    connectors: dict[str, str] = field(init=False, factory=dict)
    _socket: socket.socket | None = field(init=False, default=None)
    _cards: set[str] = field(init=False, factory=set)  # of which the kernel says that an output has changed
    _due: bool = field(init=False, default=False)
    _number: int = field(init=False, default=0)  # of the last message

    def begin(self) -> None:
        """Write down what is there, for a compositor that starts, and hear of what comes. `OSError`: it cannot be written."""
        self.devices = inputs.devices(self.sys_input)
        self.connectors = connectors(self.sys_drm)
        inputs.tell(self.devices, self.udev)
        if self._socket is None:
            self._listen()

    def _listen(self) -> None:
        try:
            heard = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT
            )
        except OSError as error:
            self.log.warning("the kernel does not tell of devices that come and go", why=str(error))
            return
        try:
            heard.bind((0, uevent.KERNEL_GROUP))
        except OSError as error:
            heard.close()
            self.log.warning("the kernel does not tell of devices that come and go", why=str(error))
            return
        self._socket = heard
        self.reactor.watch(heard.fileno(), READ, self._ready)

    def close(self) -> None:
        """Hear no more; harmless when that is so."""
        if self._socket is not None:
            self.reactor.unwatch(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _ready(self, _ready: int) -> None:
        if self._socket is None:
            return
        for _ in range(MESSAGES_A_TURN):
            try:
                data, sender = self._socket.recvfrom(SIZE_MAX)
            except BlockingIOError:
                return
            except OSError:  # ENOBUFS: some are lost
                self._soon()
                return
            if sender[0] == 0:  # the kernel's own
                self.hear(uevent.parse(data))

    def hear(self, said: dict[str, str]) -> None:
        """Take what the kernel says of a device."""
        kind = said.get("SUBSYSTEM")
        if kind == "drm" and said.get("HOTPLUG") == "1":
            self._cards.add(os.path.basename(said.get("DEVPATH", "")))
        if kind in ("drm", "input"):
            self._soon()

    def _soon(self) -> None:
        if self._due:
            return
        self._due = True

        def due() -> None:
            self._due = False
            self.look()

        self.reactor.call_later(SETTLE_S, due)

    def look(self) -> None:
        """Compare what is there with what the compositor knows, and tell it of the difference."""
        found = inputs.devices(self.sys_input, self.devices)
        gone = [each for each in self.devices if each not in found]
        came = [each for each in found if each not in self.devices]
        outputs = connectors(self.sys_drm)
        differ = {name for name in {*outputs, *self.connectors} if outputs.get(name) != self.connectors.get(name)}
        cards = self._cards | {name.partition("-")[0] for name in differ}
        self.devices, self.connectors, self._cards = found, outputs, set()
        if not (gone or came or cards):
            return
        try:
            inputs.tell(found, self.udev)  # before the message: who hears it reads the file
        except OSError as error:
            self.log.warning("an input device cannot be told of", why=str(error))
        for each in gone:
            self._say_input("remove", each)
        for each in came:
            self._say_input("add", each)
        for card in sorted(cards)[:CARDS_MAX]:
            self._say_output(card)
        self.changed()

    def _say_input(self, action: str, device: inputs.Device) -> None:
        self.log.info("an input device", action=action, device=device.name, node=device.node)
        major, _, minor = device.number.partition(":")
        said = {"DEVPATH": device.path, "SUBSYSTEM": "input", "DEVNAME": f"/dev/input/{device.node}"}
        properties = dict(each.split("=", 1) for each in inputs.properties(device))
        self._send(action, {**said, "MAJOR": major, "MINOR": minor, **properties}, ("seat",))

    def _say_output(self, card: str) -> None:
        major, _, minor = read_text(f"{self.sys_drm}/{card}/dev").partition(":")
        if not minor:
            return  # the card itself is gone
        states = {name: state for name, state in self.connectors.items() if name.partition("-")[0] == card}
        self.log.info("an output may have changed", card=card, **states)
        path = os.path.realpath(f"{self.sys_drm}/{card}").removeprefix(inputs.SYS)
        said = {"DEVPATH": path, "SUBSYSTEM": "drm", "DEVTYPE": "drm_minor", "DEVNAME": f"/dev/dri/{card}"}
        self._send("change", {**said, "MAJOR": major, "MINOR": minor, "HOTPLUG": "1"})

    def _send(self, action: str, said: dict[str, str], tags: tuple[str, ...] = ()) -> None:
        if self._socket is None:
            return
        self._number += 1
        whole = {"ACTION": action, **said, "SEQNUM": str(self._number), "USEC_INITIALIZED": "1"}
        try:
            self._socket.sendto(uevent.message(whole, tags), (0, uevent.UDEV_GROUP))
        except ConnectionRefusedError:
            pass  # nobody listens yet
        except (OSError, ValueError) as error:
            self.log.warning("the compositor is not told of a device", action=action, path=said["DEVPATH"], why=str(error))
