"""What may be staged, and what became of a try: decisions about what was seen, and nothing else.

What was seen is what a look at the slots answers (state/slotwork.py): {"slots": {name: {"env", "uki", "room", "why"}}, "next", "build_id",
"schema"}, of a file also "file", "digest" and "secure_boot".
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from bay0.machines.upgrade import TRIES, E

MACHINES = {"x86_64": "x86-64", "aarch64": "arm64"}  # uname(2) -> what a UKI calls it
MIB = 1 << 20
ONE_SLOT = (
    "the disk of /persist has no slots SLOTA and SLOTB: an upgrade needs a disk made by scripts/genesis-flash.sh without "
    "--one-slot; this one keeps booting what it has"
)
WATCHDOG_S, WATCHDOG_MAX_S = 150.0, 600.0  # the loader's, before the kernel; seconds


def config_of(text: str) -> dict[str, Any]:
    """Return what a machine's stored configuration says; nothing if it says nothing that makes sense."""
    try:
        found = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return {}
    whole = isinstance(found, dict) and all(isinstance(found.get(key), str) for key in ("slot", "digest", "build_id"))
    return found if whole else {}


def running(seen: Mapping[str, Any]) -> str | None:
    """Return the slot that runs: the one that starts next, if its image is of the build that runs. None: it is another one."""
    name = seen["next"]
    image = seen["slots"][name]["uki"] if name in seen["slots"] else None
    return str(name) if image is not None and image["build_id"] == seen["build_id"] != "" else None


def other(names: Iterable[str], name: str) -> str | None:
    """Return the slot beside this one."""
    return next((each for each in names if each != name), None)


def why_not_staged(seen: Mapping[str, Any], machine: str) -> str:
    """Return why a file must not be staged, "" if it may. `machine`: as uname(2) has it."""
    slots, image = seen["slots"], seen["file"]
    if len(slots) < 2:  # noqa: PLR2004 - there are two, or none
        return ONE_SLOT
    runs = running(seen)
    if runs is None:
        return (
            f"this spine (build {seen['build_id'] or 'unknown'}) is not what {seen['next'] or 'any slot of this disk'} holds: it was booted "
            "from elsewhere, and which slot may be written is not known. Boot from this disk first"
        )
    spare = slots[other(slots, runs)]
    if image["architecture"] != MACHINES.get(machine, machine):
        return f"it is for {image['architecture']}, and this machine is {MACHINES.get(machine, machine)}"
    if image["size"] > spare["room"]:
        return f"it has {image['size'] / MIB:.1f} MiB, and the slot room for {spare['room'] / MIB:.1f}: flash a disk with larger slots (--slot)"
    if image["schema"] < seen["schema"]:
        return f"it reads databases up to version {image['schema']}, and the one on this disk has {seen['schema']}: it would not boot with its memory"
    if image["build_id"] == seen["build_id"]:
        return f"it is the build that runs ({seen['build_id']}): there is nothing to try"
    if seen["secure_boot"] is None:
        return "whether the firmware wants a signature (Secure Boot) cannot be read: a file that it refuses would cost a boot"
    if seen["secure_boot"] and not image["signed"]:
        return "it is not signed, and Secure Boot is on: the firmware would refuse it. Sign it with package-efi.sh --key --cert"
    return ""


def staged(seen: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is kept of an image that is to be staged."""
    image = seen["file"]
    keys = ("version", "build_id", "built", "kernel", "schema", "size")
    return {"slot": other(seen["slots"], str(running(seen))), "digest": seen["digest"], **{key: image[key] for key in keys}}


def became(kept: Mapping[str, Any], seen: Mapping[str, Any], attempts: int) -> tuple[E, str]:
    """Return what a try came to, by the environment of its slot, and why. `attempts`: tries begun so far."""
    name = kept.get("slot")
    slot = seen["slots"].get(name)
    if slot is None:
        return E.FAULT, f"the disk of /persist has no {name} now"
    env, runs = slot["env"], seen["build_id"] == kept["build_id"]
    if slot["uki"] is None:
        return E.DAMAGED, slot["why"]
    if env is None:  # torn while it was armed, or committed: it does not count to the loader
        return (E.AGAIN, "its environment is torn, and it runs") if runs else (E.NOT_BEGUN, f"its environment does not count: {slot['why']}")
    state = env["state"]
    if env["in_progress"]:
        return E.NOT_BEGUN, "it was not armed"
    if state == "failed":
        if attempts < TRIES:
            return E.AGAIN, f"try {attempts} of {TRIES} came back: a hang, a panic or a power cut"
        return E.REJECT, f"{attempts} tries came back without a verdict: a hang, a panic or a power cut each time"
    if state == "testing" and runs and seen["next"] == name:
        return E.PROVE, f"try {attempts} of {TRIES}"
    if state == "ok" and runs and seen["next"] == name:
        return E.COMMITTED, "its environment says so"
    return E.BYPASSED, f"{name} is {state}, and build {seen['build_id'] or 'unknown'} runs: the loader of this disk was not asked"


def failed(names: Iterable[str], states: Mapping[str, str]) -> list[str]:
    """Return which of these machines have failed. `states`: of all that there are."""
    return [name for name in names if states.get(name) == "failed"]


def watchdog_s(entered_s: float, patience: float) -> int:
    """Return how long the loader's watchdog gives a candidate until bay0 feeds it: three times what this spine took, within bounds."""
    return int(min(WATCHDOG_MAX_S, max(WATCHDOG_S, 60 * patience, 3 * entered_s)))
