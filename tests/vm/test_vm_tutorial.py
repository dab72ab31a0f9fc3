"""docs/tutorial.md, as a new user follows it: each command on the console's prompt is run, in order, over a pulled plug."""

from __future__ import annotations

import os
import re
from pathlib import Path

import harness
import pytest
from harness import Vm

pytestmark = [pytest.mark.vm, pytest.mark.full]

TUTORIAL = Path(harness.TOP, "docs", "tutorial.md")
PLUG = "echo b >/proc/sysrq-trigger"
VERB_S = 240
DIARY = "bay0 persona exec work -- cat /home/work/diary"


def commands() -> list[str]:
    return re.findall(r"^spine:/# (.+)$", TUTORIAL.read_text(encoding="utf-8"), re.MULTILINE)


def follow(machine: Vm, words: list[str]) -> dict[str, str]:
    """Run the commands, each of which must succeed, or find something; return what each said, at its last time."""
    machine.wait_console(harness.COMPLETE)
    machine.wait_durable()
    said = {}
    for each in words:
        done = machine.sh(each, VERB_S)
        assert done.status == 0 or (each, done.status) == ("bay0 doctor", 1), f"{each}: {done}"
        said[each] = done.stdout.strip()
    return said


def test_each_command_of_the_tutorial_does_what_the_tutorial_says(folder: str) -> None:
    *words, last = commands()
    assert last == "bay0 poweroff"
    at = words.index(PLUG)
    disk = harness.make_disk(os.path.join(folder, "tutorial.img"), "2G")
    with harness.vm(disk) as machine:
        said = follow(machine, words[:at])
        assert said["bay0 --validate"].startswith("GREEN")
        assert "p://work is running" in said["bay0 persona show work"]
        machine.pull_the_plug()
    with harness.vm(disk) as machine:
        said = follow(machine, words[at + 1 :])
        assert "its end: lost power or crashed" in said["bay0 boot"]
        assert said[DIARY] == "dear diary", "its copy's was removed, and not this one"
        assert 'description = "my diary"' in said["bay0 persona show --manifest work"]
        assert "power" in said["bay0 doctor"], said["bay0 doctor"]
        states = dict(re.findall(r"p://(\w+)\s+(\w+)", said["bay0 persona list"]))
        assert states == {"work": "paused", "try": "running"}, "the other one is in front now"
        assert machine.quit().status == 0
    harness.check_clean(disk)
