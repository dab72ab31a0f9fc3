"""Disks as earlier programs left them (tests/data/disks/), and what a later program must answer of them.

Each is the archive of what bay0 keeps on /persist, taken when the plug had been pulled, and the answers
of just before. `check` compares. A key of an old answer is either in SAME_... or in CHANGES_...: one that
is in neither fails, so that nothing is left out by accident. A later program may answer with keys that
the old one did not have.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Mapping, Sequence
from typing import Any

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DISKS = os.path.join(TOP, "data", "disks")
PERSONAS = ("daily", "notes", "left", "bare")  # those that are there at the end; `gone` was removed
RESTED = ("p://bare", "p://notes")  # stopped when the plug was pulled: nothing of them may have changed
# what is asked, by the name under which the answer is kept
QUESTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "personas": ("persona.list", {}),
    **{f"show {name}": ("persona.show", {"name": f"p://{name}"}) for name in PERSONAS},
    "nacks": ("nack.list", {}),
    "focus": ("focus.show", {}),
    "history daily": ("history", {"machine": "p://daily"}),
    "history gone": ("history", {"machine": "p://gone"}),
    "history focus": ("history", {"machine": "focus"}),
    "tenants": ("tenant.list", {}),
    "tenant": ("tenant.show", {"name": "sys://ai"}),
    "boots": ("boots", {"previous": 5}),
}
SAME_PERSONA = {"autostart", "description", "image", "manifest", "name", "not_understood", "restart"}
# of one that ran: the crash ended it, and this boot says so
CHANGES_PERSONA = {"active", "attempts", "container", "desired", "seq", "since_ms", "state", "steps", "why"}
CHANGES_RESTED = {"container", "since_ms", "steps", "why"}
SAME_STEP = {
    "at_ms",
    "attempts",
    "boot_id",
    "desired",
    "dest",
    "event",
    "kind",
    "machine",
    "n",
    "seq",
    "source",
    "why",
}
CHANGES_STEP = {"config"}  # of a boot's own steps in memory; the journal keeps none
SAME_NACK = {"at", "boot_id", "digest", "why"}
SAME_TENANT = {"attempts", "autostart", "desired", "image", "model", "name", "seq", "state"}
CHANGES_TENANT = {
    "container",
    "envelope",
    "first_token_s",
    "remedy",
    "sessions",
    "sessions_why",
    "since_ms",
    "steps",
    "why",
}
SAME_BOOT = {"boot_id", "kernel", "ordinal", "started_wall", "version"}
CHANGES_BOOT = {"complete_ms", "dirty", "entered_ms", "steps"}  # its steps are compared one by one


def names() -> list[str]:
    """Return the disks there are."""
    return sorted(os.listdir(DISKS))


def archive(name: str) -> str:
    """Return the path of what was kept of a disk."""
    return os.path.join(DISKS, name, "disk.tar.gz")


def answers(name: str) -> dict[str, Any]:
    """Return what its program had answered."""
    with open(os.path.join(DISKS, name, "answers.json"), encoding="utf-8") as file:
        found: dict[str, Any] = json.load(file)
    return found


def members(path: str) -> list[tuple[tarfile.TarInfo, bytes]]:
    """Return what is in an archive, parents first."""
    with tarfile.open(path) as found:
        return [
            (each, stream.read() if (stream := found.extractfile(each)) is not None else b"")
            for each in found
        ]


def same(
    old: Mapping[str, Any], new: Mapping[str, Any], equal: set[str], changes: set[str] = frozenset()
) -> None:  # type: ignore[assignment]
    """Compare the keys `equal`; those in `changes` may be anything, and there is no third kind."""
    unknown = set(old) - equal - changes
    assert not unknown, f"{unknown}: say whether a later program must answer the same"
    for key in equal & (set(old) - changes):
        assert new[key] == old[key], f"{old.get('name', '')} {key}: {new[key]!r}, and it was {old[key]!r}"


def check(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Compare all answers."""
    assert set(old) == set(new) == set(QUESTIONS)
    _personas(old, new)
    assert new["nacks"]["total"] == old["nacks"]["total"]
    for before, after in zip(old["nacks"]["entries"], new["nacks"]["entries"], strict=True):
        same(before, after, SAME_NACK)
    for name in ("daily", "focus"):  # what this boot did to them stands behind
        steps(old[f"history {name}"], new[f"history {name}"][: len(old[f"history {name}"])])
    steps(old["history gone"], new["history gone"])
    for before, after in zip([*old["tenants"], old["tenant"]], [*new["tenants"], new["tenant"]], strict=True):
        same(before, after, SAME_TENANT, CHANGES_TENANT)
    _boots(old["boots"], new["boots"])


def _personas(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    assert [each["name"] for each in new["personas"]] == [each["name"] for each in old["personas"]], (
        "one is lost, or one is too many"
    )
    pairs = [
        *zip(old["personas"], new["personas"], strict=True),
        *((old[f"show {name}"], new[f"show {name}"]) for name in PERSONAS),
    ]
    for before, after in pairs:
        told, tells = {**before, "manifest": 0}, {**after, "manifest": 0}  # a later one may have more keys: below
        if before["name"] in RESTED:
            same(told, tells, SAME_PERSONA | CHANGES_PERSONA - CHANGES_RESTED, CHANGES_RESTED)
        else:
            same(told, tells, SAME_PERSONA, CHANGES_PERSONA)
            assert after["seq"] > before["seq"], (
                f"{before['name']} ran when the plug was pulled, and nothing was done about it"
            )
        if "manifest" in before:
            for key, value in before["manifest"].items():
                assert after["manifest"][key] == value, f"{before['name']}: {key} of its manifest"


def steps(old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> None:
    """Compare rows of the journal."""
    for before, after in zip(old, new, strict=True):
        same(before, after, SAME_STEP, CHANGES_STEP)


def _boots(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    pulled, *earlier = new["previous"]
    same(old["this"], pulled, SAME_BOOT, CHANGES_BOOT)
    own = sorted(old["this"]["steps"], key=lambda step: int(step["n"]))
    of_others = {step["machine"] for step in pulled["steps"]} - {
        step["machine"] for step in own
    }  # what it ended for the boot before
    steps(own, [step for step in pulled["steps"] if step["machine"] not in of_others])
    for before, after in zip(old["previous"], earlier, strict=True):
        same(before, after, SAME_BOOT, CHANGES_BOOT)
        steps(before["steps"], after["steps"])
