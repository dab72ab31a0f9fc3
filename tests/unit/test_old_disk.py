"""A disk as an earlier program left it, under this one: real worker, database, wiring and verbs.

What needs a kernel is in tests/vm.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import olddisk
import pytest
from bootkit import Machine
from kit import in_child

from bay0.base.names import parse
from bay0.control.answers import Listing
from bay0.init import Spine

# podman without images: what is to start with the spine cannot, and says so
PODMAN = """#!/bin/sh
case "$1" in ps | images) echo '{"end":true}' ;; *) echo "no image" >&2; exit 125 ;; esac
"""


def lay(name: str, persist: Path) -> None:
    """Write what was kept into a directory; owners are the VM's to look at."""
    for each, data in olddisk.members(olddisk.archive(name)):
        place = persist / each.name
        if each.isdir():
            place.mkdir()
        else:
            place.write_bytes(data)
        place.chmod(each.mode | 0o700)


def ask(machine: Machine, spine: Spine, method: str, params: dict[str, Any]) -> Any:
    found: list[Any] = []
    spine.control.methods[method](params, found.append)
    machine.turn_until(spine, lambda: found, method)
    answer = found[0].whole() if isinstance(found[0], Listing) else found[0]
    return json.loads(json.dumps(answer))  # as a client has it


def asked(machine: Machine, spine: Spine) -> dict[str, Any]:
    """Ask all once what the plug left has been settled."""
    machine.turn_until(
        spine, lambda: spine.engine.instances["p://left"].now.value == "stopped", "what ran is stopped"
    )
    machine.turn_until(
        spine,
        lambda: spine.engine.instances["p://daily"].now.value in ("waiting", "failed"),
        "its start was tried",
    )
    return {name: ask(machine, spine, method, params) for name, (method, params) in olddisk.QUESTIONS.items()}


@pytest.mark.parametrize("name", olddisk.names())
@in_child
def test_a_disk_of_an_earlier_program_whose_plug_was_pulled_says_the_same_under_this_one(
    name: str, tmp_path: Path
) -> None:
    machine = Machine(tmp_path)
    (tmp_path / "bin" / "podman").write_text(PODMAN)
    lay(name, tmp_path / "persist")
    spine = machine.complete(machine.boot())
    new = asked(machine, spine)
    olddisk.check(olddisk.answers(name), new)
    assert new["focus"] == {"active": None}, "who was in front has ended"
    homes = {parse(f"p://{each}").podman: file for each, file in (("daily", "letter"), ("notes", "list"))}
    assert {os.path.join(home, file) for home, file in homes.items()} == {
        str(path.relative_to(tmp_path / "persist" / "homes"))
        for path in (tmp_path / "persist" / "homes").rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("name", olddisk.names())
@pytest.mark.parametrize(
    ("question", "path", "value"),
    [
        ("personas", (0, "image"), "localhost/other:1"),
        ("show daily", ("manifest", "memory"), 1),
        ("show notes", ("manifest", "ai"), False),
        ("show notes", ("state",), "failed"),
        ("show left", ("seq",), 0),
        ("nacks", ("entries", 1, "why"), ""),
        ("history gone", (0, "why"), ""),
        ("history daily", (3, "dest"), "failed"),
        ("tenant", ("model",), None),
        ("tenants", (0, "autostart"), True),
        ("boots", ("previous", 0, "started_wall"), 0),
    ],
)
def test_the_comparison_sees_each_kind_of_loss(
    name: str, question: str, path: tuple[Any, ...], value: Any
) -> None:
    old = olddisk.answers(name)
    new = json.loads(json.dumps(old))
    new["boots"] = {"previous": [{**old["boots"]["this"], "ordinal": 2}, *new["boots"]["previous"]]}
    new["boots"]["previous"][0]["steps"] = sorted(
        old["boots"]["this"]["steps"], key=lambda step: int(step["n"])
    )
    for each in (new["show daily"], new["show left"], *new["personas"][1:3]):
        each["seq"] += 1
    olddisk.check(old, new)
    inner = new[question]
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(AssertionError):
        olddisk.check(old, new)
