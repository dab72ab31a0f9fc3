"""The AI's envelope: twenty properties, each wrong in turn; and what is read from a real kernel."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bay0.ai import kernelview
from bay0.ai.envelope import Envelope, compare, mismatch, wanted

WANTED = Envelope("/tenants/libpod-7", 100_000, 65_536, 1000, 512 << 20, 1.5, 100, 64, 800)
GOOD = {**wanted(WANTED), "processor weight": "20"}
WRONG = {
    "net namespace": "the spine's", "interfaces": "eth0 lo", "routes": "eth0", "pid namespace": "the spine's", "ipc namespace": "the spine's",
    "mount namespace": "the spine's", "uid map": "0 0 4294967295", "gid map": "0 0 4294967295", "user": "uid 100000, gid 100000",
    "capabilities": "CapBnd 800405fb", "no new privileges": "0", "seccomp": "0", "root": "rw", "cgroup": "/", "memory": "max", "swap": "max",
    "processors": "max 100000", "processor weight": "100", "processes": "max", "oom score": "0 and 800",
}  # fmt: skip


def test_there_are_twenty_properties_and_all_are_as_wanted() -> None:
    rows = compare(WANTED, GOOD)
    assert len(rows) == len(WRONG) == 20
    assert mismatch(rows) == ""
    assert dict(GOOD)["processors"] == "150000 100000"


@pytest.mark.parametrize("name", WRONG)
def test_each_property_that_is_not_as_wanted_is_named_with_both_sides(name: str) -> None:
    rows = compare(WANTED, {**GOOD, name: WRONG[name]})
    assert [row.name for row in rows if not row.ok] == [name]
    assert mismatch(rows) == f"{name}: wanted {wanted(WANTED)[name]}, found {WRONG[name]}"


@pytest.mark.parametrize("name", WRONG)
def test_a_property_that_could_not_be_read_does_not_match(name: str) -> None:
    found = {key: value for key, value in GOOD.items() if key != name}
    assert mismatch(compare(WANTED, found)).endswith("found not read")


@pytest.mark.parametrize("found", ["0", "-5", "100", "101", "", "max", "\u0663"])
def test_a_weight_is_a_number_from_1_to_below_that_of_personas(found: str) -> None:
    assert mismatch(compare(WANTED, {**GOOD, "processor weight": found}))


# ---- reading


def group(tmp_path: Path, *pids: int) -> str:
    directory = tmp_path / "tenants" / "libpod-7"
    directory.mkdir(parents=True)
    (directory / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))
    for name, text in (("memory.max", "1024"), ("memory.swap.max", "0"), ("cpu.max", "max 100000"), ("cpu.weight", "20"), ("pids.max", "64")):
        (directory / name).write_text(f"{text}\n")
    (tmp_path / "tenants" / "cpu.weight").write_text("30\n")
    return str(directory)


def test_every_property_is_read_of_a_process_that_has_no_envelope(tmp_path: Path) -> None:
    found = kernelview.look(group(tmp_path, os.getpid()))
    assert set(found.found) == set(wanted(WANTED))
    assert (found.first, found.monitor) == (os.getpid(), os.getppid())
    assert found.found["net namespace"] == found.found["pid namespace"] == "the spine's"
    assert found.found["user"] == f"uid {os.getuid()}, gid {os.getgid()}"
    assert (found.found["memory"], found.found["processes"]) == ("1024", "64")
    assert found.found["processor weight"] == "30", "the larger of its own and of the group above it, which counts against personas"


def test_where_the_processes_of_a_group_disagree_all_values_are_shown(tmp_path: Path) -> None:
    code = "import sys; open('/proc/self/oom_score_adj','w').write('777'); print('up', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        child.stdout.readline()
        found = kernelview.look(group(tmp_path, os.getpid(), child.pid)).found
        child.communicate()
    mine = Path("/proc/self/oom_score_adj").read_text().strip()
    assert found["oom score"] == " and ".join(sorted({"777", mine}))


def test_an_empty_group_is_an_error_and_so_is_one_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ProcessLookupError):
        kernelview.look(group(tmp_path))
    with pytest.raises(ProcessLookupError):
        kernelview.look(str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("mountinfo", "said"),
    [
        ("1 0 0:1 / / ro,nosuid - overlay overlay rw\n", "ro"), ("1 0 0:1 / / rw - overlay overlay rw\n", "rw"), ("", "not mounted"),
        ("1 0 0:1 / / rw - overlay o rw\n2 1 0:2 / / ro - overlay o rw\n", "ro"), ("1 0 0:1 / /run ro - tmpfs t rw\n", "not mounted"),
    ],
)  # fmt: skip
def test_the_root_is_read_only_if_the_last_mount_there_is(mountinfo: str, said: str) -> None:
    assert kernelview.root(mountinfo) == said


def test_routes_through_lo_are_none() -> None:
    head = "Iface\tDestination\tGateway\n"
    ipv6 = "00000000000000000000000000000001 80 0 00 0 00 0 0 0 00000000     lo\n"
    assert kernelview.routes(head, ipv6) == []
    assert kernelview.routes(f"{head}eth0\t0\t0\n", f"{ipv6}0 0 0 0 0 0 0 0 0 wlan0\n") == ["eth0", "wlan0"]
