"""What an input device is, by the kernel's bits, and the file in which libinput reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bay0.screen import inputs

# capabilities of real devices as the kernel prints them: ev, key, rel, abs, properties
KEYBOARD = ("120013", "402000000 3803078f800d001 feffffdfffefffff fffffffffffffffe", "0", "0", "0")  # AT Translated Set 2
BUTTON = ("3", "10000000000000 0", "0", "0", "0")  # a power button
MOUSE = ("7", "1f0000 0 0 0 0", "103", "0", "0")  # ImExPS/2
VM_TABLET = ("f", "1f0000 0 0 0 0", "100", "3", "0")  # QEMU Virtio Tablet
TOUCHPAD = ("b", "e520 10000 0 0 0 0", "0", "660800011000003", "5")
TOUCHSCREEN = ("b", "400 0 0 0 0 0", "0", "260800000000003", "2")
PEN = ("b", "c03 0 0 0 0 0", "0", "1000d000003", "2")
LID = ("21", "0", "0", "0", "0")
ACCELEROMETER = ("9", "0", "0", "7", "40")
GAMEPAD = ("20000b", "7cdb000000000000 0 0 0 0", "0", "3003f", "0")


@pytest.mark.parametrize(
    ("bits", "kinds"),
    [
        (KEYBOARD, ("KEY", "KEYBOARD")), (BUTTON, ("KEY",)), (MOUSE, ("MOUSE",)), (VM_TABLET, ("MOUSE",)), (TOUCHPAD, ("TOUCHPAD",)),
        (TOUCHSCREEN, ("TOUCHSCREEN",)), (PEN, ("TABLET",)), (LID, ("SWITCH",)), (ACCELEROMETER, ("ACCELEROMETER",)), (GAMEPAD, ("JOYSTICK",)),
    ],
    ids=["keyboard", "power button", "mouse", "a virtual machine's pointer", "touchpad", "touch screen", "pen", "lid", "accelerometer", "gamepad"],
)  # fmt: skip
def test_a_device_is_what_its_capability_bits_say(bits: tuple[str, ...], kinds: tuple[str, ...]) -> None:
    assert tuple(inputs.kinds(*map(inputs.bits, bits))) == kinds


@pytest.mark.parametrize("text", ["", "zz", "7 yy"])
def test_bits_that_are_none_are_no_bits(text: str) -> None:
    assert inputs.bits(text) == 0


def device(directory: Path, node: str, number: str, name: str, bits: tuple[str, ...]) -> None:
    capabilities = directory / node / "device/capabilities"
    capabilities.mkdir(parents=True)
    for file, text in zip(("ev", "key", "rel", "abs"), bits, strict=False):
        (capabilities / file).write_text(f"{text}\n")
    (directory / node / "device/properties").write_text(f"{bits[4]}\n")
    (directory / node / "device/name").write_text(f"{name}\n")
    (directory / node / "dev").write_text(f"{number}\n")


def test_each_device_has_a_file_that_says_what_it_is_and_one_that_is_gone_has_none(tmp_path: Path) -> None:
    sys_input, data = tmp_path / "input", tmp_path / "udev"
    device(sys_input, "event0", "13:64", "AT keyboard", KEYBOARD)
    device(sys_input, "event1", "13:65", "QEMU Virtio Tablet", VM_TABLET)
    (sys_input / "mouse0").mkdir()
    data.mkdir()
    (data / "c13:99").write_text("of a device that is gone")
    (data / "b8:0").write_text("not ours")
    found = inputs.devices(str(sys_input))
    inputs.tell(found, str(data))
    assert [(each.node, each.name, each.kinds) for each in found] == [
        ("event0", "AT keyboard", ("KEY", "KEYBOARD")), ("event1", "QEMU Virtio Tablet", ("MOUSE",))
    ]  # fmt: skip
    assert sorted(path.name for path in data.iterdir()) == ["b8:0", "c13:64", "c13:65"]
    assert (data / "c13:64").read_text().splitlines() == [
        "I:1", "E:ID_INPUT=1", "E:ID_INPUT_KEY=1", "E:ID_INPUT_KEYBOARD=1", "E:ID_SEAT=seat0", "G:seat", "V:1"
    ]  # fmt: skip


def test_a_machine_without_input_devices_has_none(tmp_path: Path) -> None:
    assert inputs.devices(str(tmp_path / "nowhere")) == []
