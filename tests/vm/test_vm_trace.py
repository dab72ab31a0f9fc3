"""Proof by trace: from its first system call to the power going, PID 1 names no path at or below /persist, and holds nothing open there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable

import harness
import pytest
from attrs import frozen

pytestmark = pytest.mark.vm

TRACE = "bay0.init=/usr/lib/bay0-exec/trace"
# These carry text, not paths: a log line may well speak of /persist.
TEXT = {
    "read", "write", "pread64", "pwrite64", "readv", "writev", "sendto", "sendmsg", "sendmmsg", "recvfrom", "recvmsg", "recvmmsg", "execve",
}  # fmt: skip
CALL = re.compile(r"^(?:\d+ +)?[\d.]+ (\w+)\((.*)")
QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
HELD = re.compile(r"\d+<(/[^<>]*)>")
# The trace leaves the guest while it grows; tail sits outside of what the spine stops, so that it lasts until the power goes.
STREAM = r"""
port=$(for n in /sys/class/virtio-ports/*/name; do [ "$(cat $n)" = test.trace ] && p=${n%/name} && echo /dev/${p##*/}; done)
setsid sh -c "trap '' HUP TERM; echo 0 >/sys/fs/cgroup/init/cgroup.procs; exec tail -n +1 -f /dev/bay0.strace >$port" >/dev/null 2>&1 &
"""


def below(path: str) -> bool:
    """Tell whether a path as PID 1 (whose folder is /) would give it is /persist or below."""
    return re.fullmatch(r"/*(\./+)*persist(/.*)?", path) is not None


def touches(line: str) -> bool:
    """Tell whether a line of strace -y is a system call on /persist: by a path argument, or by a descriptor held open."""
    call = CALL.match(line)
    if call is None:
        return False
    name, arguments = call.groups()
    if any(below(path) for path in HELD.findall(QUOTED.sub('""', arguments))):
        return True
    return name not in TEXT and any(below(path) for path in QUOTED.findall(arguments))


def offences(lines: Iterable[str]) -> list[str]:
    return [line for line in lines if touches(line)]


@frozen
class Trace:
    pid_1: list[str]
    worker: list[str]
    status: int
    console: str


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    folder = tmp_path_factory.mktemp("trace")
    disk = harness.make_disk(f"{folder}/persist.img")
    port = ["-chardev", f"file,id=trace,path={folder}/pid1", "-device", "virtserialport,chardev=trace,name=test.trace"]
    with harness.vm(disk, TRACE, port) as machine:
        machine.wait_console(harness.COMPLETE)
        assert machine.out("cat /proc/1/comm; readlink /proc/1/exe").splitlines()[-1] == "/usr/lib/bay0/bay0"
        machine.out(STREAM)
        worker = machine.out("cat /sys/fs/cgroup/services/state/cgroup.procs")
        machine.out(f"strace -ttt -y -s 256 -e trace=file,desc -o /tmp/worker -p {shlex.quote(worker)} >/dev/null 2>&1 & sleep 2")
        machine.out("bay0 status; bay0 boot; bay0 storage; bay0 log -n 3; bay0 machines; bay0 history sys://console; bay0 run -- true")
        harness.until(lambda: "/persist/" in machine.out("cat /tmp/worker"), 60, "the worker has been seen at work")
        seen = machine.out("cat /tmp/worker").splitlines()
        end = machine.quit()
    with open(f"{folder}/pid1", encoding="utf-8", errors="replace") as file:
        return Trace(file.read().splitlines(), seen, end.status, end.console)


def test_the_detector_knows_an_offence_when_it_sees_one():
    for line in (
        '1732.1 openat(AT_FDCWD</>, "/persist/spine/state.db", O_RDWR) = 5</persist/spine/state.db>',
        '1732.1 mount("/dev/vda", "/persist", "ext4", MS_NOATIME, "") = 0',
        '12 1732.1 newfstatat(AT_FDCWD</>, "//persist/", {...}, 0) = 0',
        '1732.1 stat("persist", 0x1) = 0',
        "1732.1 fdatasync(7</persist/spine/alive>) = 0",
        '1732.1 write(7</persist/spine/alive>, "x", 1) = 1',
    ):
        assert touches(line), line
    for line in (
        '1732.1 write(2</dev/console<char 5:1>>, "/persist is mounted, \\"/persist\\"", 20) = 20',
        '1732.1 read(5</proc/1/mountinfo>, "29 1 /persist rw", 100) = 16',
        '1732.1 openat(AT_FDCWD</>, "/usr/lib/persistence", O_RDONLY) = 3</usr/lib/persistence>',
        "1732.1 +++ exited with 0 +++",
    ):
        assert not touches(line), line


@pytest.mark.full  # a boot under strace; state/fence.py refuses such an access in every boot
def test_the_trace_runs_from_the_first_system_call_to_the_power(trace: Trace):
    assert trace.status == 0
    assert "execve(" in trace.pid_1[0]
    assert "/usr/lib/bay0/bay0" in trace.pid_1[0]
    text = "\n".join(trace.pid_1)
    for moment in ('mount("sysfs"', "/proc/cmdline", "control.sock", "init complete", "storage: closing -> closed", "leaving -> powering"):
        assert re.search(moment.replace("(", r"\(").replace("storage:", "storage:[0-9a-f]+:"), text), moment
    assert sum(CALL.match(line) is not None for line in trace.pid_1) > 1000


@pytest.mark.full
def test_the_worker_beside_it_is_caught_at_once_by_the_same_detector(trace: Trace):
    assert offences(trace.worker)


@pytest.mark.full
def test_pid_1_makes_no_file_operation_at_or_below_persist(trace: Trace):
    assert offences(trace.pid_1) == []
