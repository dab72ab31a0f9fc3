"""What libinput asks udev about an input device, said without udev.

One small file for each in /run/udev/data.

Read from the kernel's capability bits, not from a name (Linux, Documentation/input/event-codes.rst; the rules
are those of systemd's udev-builtin-input_id). libudev reads `I:` as "was seen by udev", without which
libinput passes a device over.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from attrs import frozen

from bay0.base.kernelfile import read_text

SYS = "/sys"
SYS_INPUT = f"{SYS}/class/input"
UDEV_DATA = "/run/udev/data"
DEVICES_MAX = 64
WORD_BITS = 64  # the kernel prints its longs, the highest first

EV_KEY, EV_REL, EV_ABS, EV_SW = 1, 2, 3, 5
KEYS_OF_A_KEYBOARD = 0xFFFFFFFE  # the first 31 of them, from Esc to S
BTN_MISC, BTN_MOUSE, BTN_JOYSTICK, BTN_GAMEPAD = 0x100, 0x110, 0x120, 0x130
BTN_TOOL_PEN, BTN_TOOL_FINGER, BTN_TOUCH, BTN_STYLUS = 0x140, 0x145, 0x14A, 0x14B
ABS_X, ABS_Y, REL_X, REL_Y = 0, 1, 0, 1
PROP_DIRECT, PROP_ACCELEROMETER = 1, 6


@frozen
class Device:
    """One of them.

    `number`: "13:64", as the kernel and the file's name have it; `path`: below /sys, never used again; `kinds`:
    as in ID_INPUT_KEYBOARD.
    """

    node: str
    path: str
    number: str
    name: str
    kinds: tuple[str, ...]


def bits(text: str) -> int:
    """Return the kernel's bit map ("7 ff0000 0") as one number; 0 for what is none."""
    try:
        words = [int(word, 16) for word in text.split()]
    except ValueError:
        return 0
    found = 0
    for word in words:
        found = found << WORD_BITS | word
    return found


def _has(of: int, *numbers: int) -> bool:
    return all(of >> number & 1 for number in numbers)


def kinds(ev: int, key: int, rel: int, absolute: int, properties: int) -> Iterator[str]:
    """Yield what a device with these bits is to libinput: keyboard, mouse ..."""
    if _has(ev, EV_KEY):
        if key & ((1 << BTN_MISC) - 1):
            yield "KEY"
        if key & KEYS_OF_A_KEYBOARD == KEYS_OF_A_KEYBOARD:
            yield "KEYBOARD"
    if _has(properties, PROP_ACCELEROMETER):
        yield "ACCELEROMETER"
    elif _has(ev, EV_ABS) and _has(absolute, ABS_X, ABS_Y):
        yield from _pointing(key, properties)
    elif _has(ev, EV_REL) and _has(rel, REL_X, REL_Y) and _has(key, BTN_MOUSE):
        yield "MOUSE"
    if _has(ev, EV_SW):
        yield "SWITCH"


def _pointing(key: int, properties: int) -> Iterator[str]:
    pen = _has(key, BTN_STYLUS) or _has(key, BTN_TOOL_PEN)
    direct = _has(properties, PROP_DIRECT)
    if pen:
        yield "TABLET"
    elif _has(key, BTN_TOOL_FINGER) and not direct:
        yield "TOUCHPAD"
    elif _has(key, BTN_MOUSE):
        yield "MOUSE"  # the pointer that a virtual machine gives
    elif _has(key, BTN_TOUCH) or direct:
        yield "TOUCHSCREEN"
    elif _has(key, BTN_JOYSTICK) or _has(key, BTN_GAMEPAD):
        yield "JOYSTICK"


def devices(directory: str = SYS_INPUT, known: Sequence[Device] = ()) -> list[Device]:
    """Return the machine's input devices, at most `DEVICES_MAX` of them. None of these reads can wait.

    One that is `known` is not read again.
    """
    try:
        names = sorted(
            name for name in os.listdir(directory) if name.startswith("event") and name[5:].isdecimal()
        )
    except OSError:
        return []
    before = {(each.node, each.path): each for each in known}
    found = []
    for name in names[:DEVICES_MAX]:
        path = os.path.realpath(f"{directory}/{name}").removeprefix(SYS)
        found.append(before.get((name, path)) or _device(directory, name, path))
    return found


def _device(directory: str, node: str, path: str) -> Device:
    of = f"{directory}/{node}/device"
    maps = [
        bits(read_text(f"{of}/{path}"))
        for path in (
            "capabilities/ev",
            "capabilities/key",
            "capabilities/rel",
            "capabilities/abs",
            "properties",
        )
    ]
    return Device(node, path, read_text(f"{directory}/{node}/dev"), read_text(f"{of}/name"), tuple(kinds(*maps)))


def properties(device: Device) -> list[str]:
    """Return what udev would say of a device, each as "KEY=VALUE"."""
    return ["ID_INPUT=1", *(f"ID_INPUT_{kind}=1" for kind in device.kinds), "ID_SEAT=seat0"]


def text(device: Device) -> str:
    """Return the file of a device. `V:1` is the format's version, G and E a tag and a property."""
    return "\n".join(("I:1", *(f"E:{each}" for each in properties(device)), "G:seat", "V:1", ""))


def tell(found: list[Device], directory: str = UDEV_DATA) -> None:
    """Write a file for each, and take away those of devices that are gone.

    `OSError` if that cannot be done.
    """
    os.makedirs(directory, exist_ok=True)
    wanted = {f"c{device.number}": text(device) for device in found if device.number}
    for name in os.listdir(directory):
        if name.startswith("c13:") and name not in wanted:
            os.unlink(f"{directory}/{name}")
    for name, content in wanted.items():
        with open(f"{directory}/{name}.new", "w", encoding="ascii") as file:
            file.write(content)
        os.rename(f"{directory}/{name}.new", f"{directory}/{name}")
