"""Personas that take all they can get of what has no limit of its own: the disk's bytes, its files, their log. The spine goes on.

One boot. What a persona may have of memory, processors and processes has limits: tests/vm/test_vm_persona.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import harness
import pytest
from harness import NAP, Vm

pytestmark = [pytest.mark.vm, pytest.mark.full]

VERB_S = 200
FILL_S = 500
LOUD = """image = "localhost/alpine:3.23"
command = ["/bin/sh", "-c", "yes 'I have much to say, and nobody will stop me from saying it' | head -c 60000000; exec sleep infinity"]
stop_s = 0
"""
LOG_MAX_KIB = 2 * 4 << 10  # 4 MiB, and what conmon writes before it looks
CONMON_MAX_KIB = 8 << 10
FULL = "nearly full: [0-9.]+ (bytes|[KM]iB) of [0-9.]+ [MG]iB free; the spine itself has [0-9.]+ [KMG]iB"  # what the doctor says
FEW = "only [0-9]+ of [0-9]+ files can still be made"


@pytest.fixture(scope="module")
def spine(folder: str) -> Iterator[Vm]:
    with harness.vm(harness.make_disk(f"{folder}/greedy.img", "512M"), life_s=1800) as machine:
        machine.wait_console(harness.COMPLETE)
        machine.wait_durable()
        machine.create("nap", NAP)
        machine.create("other", NAP)
        machine.out("bay0 persona start nap", VERB_S)
        yield machine


def all_is_kept(spine: Vm, digest: str) -> None:
    """The spine keeps what it promises, although there is no room for a persona's next byte or file."""
    assert spine.status()["storage"]["state"] == "durable"
    assert spine.call("nack.add", digest=f"sha256:{digest * 64}", why="while it is full")["nacked"]
    spine.out("bay0 validate --only persist --only log --only database", VERB_S)


def other_runs(spine: Vm) -> None:
    spine.out("bay0 persona start other && bay0 persona stop other", VERB_S)


def finding(spine: Vm, words: str) -> None:
    harness.until(lambda: re.search(words, spine.sh("bay0 doctor", VERB_S).stdout), 120, f"the doctor says {words!r}")


def emptied(spine: Vm) -> None:
    spine.out("bay0 persona reset nap", VERB_S)
    harness.until(lambda: not re.search(f"{FULL}|{FEW}", spine.sh("bay0 doctor", VERB_S).stdout), 120, "there is room again")
    spine.out("bay0 persona start nap", VERB_S)


def test_a_persona_that_fills_the_disk_stops_nobody(spine: Vm):
    done = spine.sh("bay0 persona shell nap -- dd if=/dev/zero of=/root/big bs=1M", FILL_S)
    assert "No space left on device" in done.stderr + done.stdout
    all_is_kept(spine, "1")
    other_runs(spine)
    finding(spine, FULL)
    emptied(spine)


def test_a_persona_that_makes_files_until_there_are_none_lets_nobody_start_and_that_is_said(spine: Vm):
    """The filesystem keeps bytes for root, and no files: what cannot be done is said, what was promised stays so."""
    script = "cd /root; i=0; while mkdir $i && (cd $i && seq 1 500 | xargs touch); do i=$((i + 1)); done 2>/dev/null; echo $i"
    spine.sh(f"bay0 persona shell nap -- /bin/sh -c '{script}'", FILL_S)
    refused = spine.sh("bay0 persona start other", VERB_S)
    assert (refused.status, "no space left on device" in refused.stderr) == (1, True)
    all_is_kept(spine, "2")
    finding(spine, FEW)
    emptied(spine)
    other_runs(spine)


def test_a_persona_that_writes_without_end_has_a_bounded_log_and_its_conmon_does_not_grow(spine: Vm):
    spine.create("loud", LOUD)
    found = spine.json("bay0 persona start loud --json", VERB_S)
    pid = spine.out(f"pgrep -o -f 'conmon .*{found['container']}'")
    harness.until(lambda: int(spine.out(f"awk '/^wchar/ {{ print $2 }}' /proc/{pid}/io")) > 60_000_000, FILL_S, "it has said it all", every_s=2)
    assert int(spine.out(f"awk '/^VmHWM/ {{ print $2 }}' /proc/{pid}/status")) < CONMON_MAX_KIB
    assert int(spine.out("du -k /persist/logs/p__loud.log | cut -f 1")) < LOG_MAX_KIB
    assert spine.status()["storage"]["state"] == "durable"
