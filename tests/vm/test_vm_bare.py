"""A spine without a disk and with a command line full of mistakes, started as a user starts one."""

from __future__ import annotations

import json
import re

import harness
import pytest
from harness import Result

pytestmark = pytest.mark.vm


@pytest.fixture(scope="module")
def no_disk() -> Result:
    words = "bay0.patience=much bay0.panic=maybe bay0.colour=blue bay0.persist=vda"
    return harness.run("bay0 status --json && sleep 12 && bay0 storage >&2 && exit 42", append=words)  # 12: twice its look for a new disk


def test_the_status_of_exec_is_the_commands_and_its_output_is_ours(no_disk: Result):
    assert no_disk.status == 42
    assert "storage   detached" in no_disk.stdout


def test_without_a_disk_the_boot_is_dirty_completes_and_says_so_in_one_clear_line(no_disk: Result):
    status = json.JSONDecoder().raw_decode(no_disk.stdout)[0]
    assert (status["boot"], status["storage"]["state"]) == ("complete", "detached")
    assert "no disk labelled SPINE-PERSIST" in status["dirty"]
    assert len(re.findall(r"init complete .*dirty=.*no disk labelled SPINE-PERSIST", no_disk.console)) == 1
    assert len(re.findall(r"dirty boot: nothing will be kept", no_disk.console)) == 1
    assert no_disk.console.count("persist mount attempt") == 1  # nothing new has appeared, so nothing is tried again
    boot = no_disk.console.partition("init complete")[0]
    assert boot.count("WARNING") == boot.count("WARNING: kernel command line word ignored")


@pytest.mark.full
def test_an_exec_whose_shell_is_killed_ends_with_a_status_all_the_same() -> None:
    done = harness.run("echo began; kill -KILL $PPID; sleep 1000", "none", bound_s=300)
    assert (done.status, "began" in done.stdout) == (137, True), done.stderr
    assert "was killed in the guest" in done.stderr


def test_without_a_terminal_at_the_other_end_the_console_is_not_asked_for_its_size(no_disk: Result):
    assert "\x1b" not in no_disk.console


def test_bad_words_of_the_command_line_are_complained_about_and_ignored(no_disk: Result):
    complaints = ("bay0.patience=much: not a number", "bay0.panic=maybe: must be one of", "bay0.colour=blue: no such", "bay0.persist=vda: must be")
    for word in complaints:
        assert re.search(rf'WARNING: kernel command line word ignored .*"{re.escape(word)}', no_disk.console), word
    assert no_disk.console.count("command line word ignored") == 4
