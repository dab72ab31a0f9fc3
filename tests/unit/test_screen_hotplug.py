"""Devices that come and go: heard from the kernel, compared, and told as udevd would. The listener is the real libudev."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from kit import Log, need_namespaces
from test_screen_inputs import KEYBOARD, VM_TABLET, device

from bay0.pid1.reactor import Reactor
from bay0.screen import uevent
from bay0.screen.hotplug import Hotplug

# libudev's own listener, as libinput (input) and wlroots (drm) make one; in a network namespace of its own, where we are root
LISTENER = """
import ctypes, json, select, sys
from bay0.pid1.reactor import Reactor
from bay0.screen.hotplug import Hotplug
from kit import Log
u = ctypes.CDLL("libudev.so.1")
for name in ("new", "monitor_new_from_netlink", "monitor_receive_device"):
    getattr(u, "udev_" + name).restype = ctypes.c_void_p
for name in ("devnode", "action", "sysname", "subsystem", "property_value"):
    getattr(u, "udev_device_get_" + name).restype = ctypes.c_char_p
monitor = ctypes.c_void_p(u.udev_monitor_new_from_netlink(ctypes.c_void_p(u.udev_new()), b"udev"))
u.udev_monitor_filter_add_match_subsystem_devtype(monitor, sys.argv[2].encode(), None)
if sys.argv[2] == "input":
    u.udev_monitor_filter_add_match_tag(monitor, b"seat")
else:
    u.udev_monitor_filter_add_match_subsystem_devtype(monitor, b"drm", b"drm_minor")
assert u.udev_monitor_enable_receiving(monitor) == 0
top = sys.argv[1]
plug = Hotplug(Reactor(), Log(), top + "/udev", lambda: None, top + "/input", top + "/drm")
plug.begin()
print("ready", flush=True)
for line in sys.stdin:
    plug.look()
    if line.strip() == "card":
        plug.hear({"SUBSYSTEM": "drm", "HOTPLUG": "1", "DEVPATH": "/devices/x/drm/card0"})
        plug.look()
    while select.select([u.udev_monitor_get_fd(monitor)], [], [], 0.5)[0]:
        found = ctypes.c_void_p(u.udev_monitor_receive_device(monitor))
        if not found:
            continue
        said = {name: (getattr(u, "udev_device_get_" + name)(found) or b"").decode() for name in ("devnode", "action", "sysname", "subsystem")}
        for key in ("ID_INPUT_KEYBOARD", "ID_SEAT", "HOTPLUG"):
            said[key] = (u.udev_device_get_property_value(found, key.encode()) or b"").decode()
        print(json.dumps({**said, "initialized": u.udev_device_get_is_initialized(found)}), flush=True)
    print("done", flush=True)
"""


class Listener:
    """A libudev that listens for one subsystem, beside a `Hotplug` that looks when it is told to."""

    def __init__(self, top: Path, subsystem: str) -> None:
        need_namespaces()
        words = ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-c", LISTENER, str(top), subsystem]
        path = ":".join(str(Path(__file__).parents[at]) for at in (2, 0))
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": path, "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def look(self, word: str = "") -> list[dict[str, Any]]:
        """Return what libudev heard while we looked."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        found = []
        while (line := self.process.stdout.readline().strip()) != "done":
            assert line, "the listener has ended"
            found.append(json.loads(line))
        return found

    def close(self) -> None:
        self.process.communicate("", timeout=60)


def card(directory: Path, status: str) -> None:
    (directory / "card0-Virtual-1").mkdir(parents=True, exist_ok=True)
    (directory / "card0").mkdir(exist_ok=True)
    (directory / "card0/dev").write_text("226:0\n")
    (directory / "card0-Virtual-1/status").write_text(f"{status}\n")


@pytest.mark.host
def test_libudev_hears_of_a_keyboard_that_comes_and_goes(tmp_path: Path) -> None:
    device(tmp_path / "input", "event0", "13:64", "AT keyboard", KEYBOARD)
    listener = Listener(tmp_path, "input")
    assert listener.look() == []
    device(tmp_path / "input", "event1", "13:65", "another keyboard", KEYBOARD)
    told = {
        "devnode": "/dev/input/event1", "action": "add", "sysname": "event1", "subsystem": "input", "ID_INPUT_KEYBOARD": "1",
        "ID_SEAT": "seat0", "HOTPLUG": "", "initialized": 1,
    }  # fmt: skip
    assert listener.look() == [told]
    assert (tmp_path / "udev/c13:65").is_file()
    shutil.rmtree(tmp_path / "input/event1")
    assert listener.look() == [{**told, "action": "remove"}]
    assert not (tmp_path / "udev/c13:65").exists()
    listener.close()


@pytest.mark.host
def test_libudev_hears_of_an_output_that_comes_and_goes_and_of_one_of_which_the_kernel_says_so(tmp_path: Path) -> None:
    card(tmp_path / "drm", "connected")
    listener = Listener(tmp_path, "drm")
    assert listener.look() == []
    told = [("change", "/dev/dri/card0", "1")]
    for status in ("disconnected", "connected"):
        card(tmp_path / "drm", status)
        assert [(each["action"], each["devnode"], each["HOTPLUG"]) for each in listener.look()] == told
    assert [(each["action"], each["devnode"], each["HOTPLUG"]) for each in listener.look("card")] == told
    listener.close()


def plug(top: Path) -> tuple[Hotplug, list[None]]:
    changed: list[None] = []
    found = Hotplug(Reactor(), Log(), str(top / "udev"), lambda: changed.append(None), str(top / "input"), str(top / "drm"))
    found.begin()
    found.close()
    return found, changed


def test_another_device_under_the_name_of_one_that_is_gone_is_another(tmp_path: Path) -> None:
    """It was unplugged and plugged in between two looks: its path in sysfs is not the old one."""
    device(tmp_path / "devices/input4", "event0", "13:64", "old", KEYBOARD)
    (tmp_path / "input").mkdir()
    link = tmp_path / "input/event0"
    link.symlink_to(tmp_path / "devices/input4/event0")
    found, changed = plug(tmp_path)
    found.look()
    assert changed == []
    device(tmp_path / "devices/input5", "event0", "13:64", "new", VM_TABLET)
    link.unlink()
    link.symlink_to(tmp_path / "devices/input5/event0")
    found.look()
    assert ([each.name for each in found.devices], len(changed)) == (["new"], 1)
    assert [(line["action"], line["device"]) for line in found.log.of("an input device")] == [("remove", "old"), ("add", "new")]


def test_a_message_of_the_kernels_is_a_reason_to_look_and_one_of_another_subsystem_is_none(tmp_path: Path) -> None:
    found, changed = plug(tmp_path)
    device(tmp_path / "input", "event0", "13:64", "keyboard", KEYBOARD)
    found.hear(uevent.parse(b"add@/devices/x\0ACTION=add\0SUBSYSTEM=block\0"))
    found.hear(uevent.parse(b"no message"))
    found.reactor.call_later(0.2, lambda: None)
    assert found.devices == []
    found.hear(uevent.parse(b"add@/devices/x/input4/event0\0ACTION=add\0SUBSYSTEM=input\0"))
    found.hear(uevent.parse(b"add@/devices/x/input4/event0\0ACTION=add\0SUBSYSTEM=input\0"))
    while not changed:
        found.reactor.turn()
    assert [each.name for each in found.devices] == ["keyboard"]


def test_the_hash_is_murmurhash2() -> None:
    assert (uevent.murmur2(b""), uevent.murmur2(b"abc")) == (0, 0x13577C9B)


def test_a_property_with_a_nul_is_not_sent() -> None:
    with pytest.raises(ValueError, match="NUL"):
        uevent.message({"SUBSYSTEM": "input", "NAME": "a\0b"})
