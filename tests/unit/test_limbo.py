"""The namespace that the kernel booted with: what may be in it, and what is seen of it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from kit import need_namespaces

from bay0.effects import limbo
from bay0.effects.limbo import Card

DEV = """Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0          0
"""
IGMP = "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n"
JOINED = "{}\t{:10}:     1      V3\n\t\t\t\t010000E0     1 0:00000000\t\t0\n"
ROUTES = "Iface\tDestination\tGateway\n"


class Proc:
    """A /proc in a directory: `pid` has its program's name, its parent and its network namespace."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.process(2, "kthreadd", 0, "kernel")
        self.process(1, "init", 0, "spine")
        (top / "self").symlink_to("1")
        self.net("dev", DEV)
        self.net("igmp", IGMP)
        self.net("route", ROUTES)

    def process(self, pid: int, name: str, parent: int, namespace: str) -> None:
        (self.top / namespace).touch()
        made = self.top / str(pid)
        (made / "ns").mkdir(parents=True)
        (made / "ns/net").symlink_to(self.top / namespace)
        (made / "comm").write_text(name + "\n")
        (made / "stat").write_text(f"{pid} ({name}) S {parent} 0 0 0 -1\n")

    def net(self, name: str, text: str) -> None:
        (self.top / "2/net").mkdir(exist_ok=True)
        (self.top / "2/net" / name).write_text(text)

    def strangers(self) -> list[str]:
        pids = sorted(int(name) for name in os.listdir(self.top) if name.isdecimal())
        return list(limbo.strangers(pids, str(self.top)))


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    return Proc(tmp_path)


def test_a_kernel_without_a_card_is_as_it_must_be(proc: Proc) -> None:
    assert limbo.violations(str(proc.top)) == []
    assert limbo.cards(str(proc.top)) == []


def test_a_spine_that_did_not_leave_is_told(proc: Proc) -> None:
    (proc.top / "self").unlink()
    (proc.top / "self").symlink_to("2")
    assert limbo.violations(str(proc.top)) == [
        "bay0 lives where the kernel makes network cards: stage 0 did not leave that namespace"
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("igmp", IGMP + JOINED.format(1, "lo") + JOINED.format(2, "eth0")),
        ("if_inet6", "fe80000000000000505400fffe123456 02 40 20 80     eth0\n"),
    ],
)
def test_a_card_that_is_up_is_a_violation_and_one_that_is_down_is_not(proc: Proc, name: str, text: str) -> None:
    proc.net("dev", DEV + "  eth0:       0       0\n  eth1: 7 7\n")
    assert limbo.violations(str(proc.top)) == []
    proc.net(name, text)
    assert limbo.cards(str(proc.top)) == [Card("eth0", up=True), Card("eth1", up=False)]
    assert limbo.violations(str(proc.top)) == ["interface eth0 is up in the kernel's namespace"]


def test_a_route_is_a_violation(proc: Proc) -> None:
    proc.net("route", ROUTES + "eth0\t00000000\t0102A8C0\n")
    assert limbo.violations(str(proc.top)) == ["route through eth0 in the kernel's namespace"]


def test_what_cannot_be_seen_is_an_error_and_no_good_news(proc: Proc) -> None:
    (proc.top / "2/net/dev").unlink()
    with pytest.raises(OSError, match="dev"):
        limbo.violations(str(proc.top))


def test_kernel_threads_and_what_they_start_belong_there_and_nothing_else_does(proc: Proc) -> None:
    proc.process(30, "kworker/0:1", 2, "kernel")
    proc.process(31, "modprobe", 30, "kernel")
    proc.process(40, "podman", 1, "spine")
    proc.process(41, "sh", 1, "kernel")
    proc.process(42, "a) S 2 (b", 41, "kernel")
    assert proc.strangers() == ["sh (pid 41)", "a) S 2 (b (pid 42)"]


def test_a_process_that_ends_while_it_is_looked_at_is_left_out(proc: Proc) -> None:
    proc.process(41, "sh", 1, "kernel")
    (proc.top / "41/stat").unlink()
    assert [*limbo.strangers([41, 99], str(proc.top))] == []


@pytest.mark.host
def test_what_is_up_is_told_from_what_is_down_in_a_real_namespace(tmp_path: Path) -> None:
    need_namespaces()
    script = "ip link add d0 type veth peer name d1 && ip link set d0 up && echo made && read word"
    inside = subprocess.Popen(
        ["unshare", "--net", "--map-root-user", "sh", "-c", script],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with inside:
        assert inside.stdin is not None
        assert inside.stdout is not None
        assert inside.stdout.readline() == "made\n"
        (tmp_path / "2").symlink_to(f"/proc/{inside.pid}")
        (tmp_path / "self").symlink_to("/proc/self")
        assert sorted(limbo.cards(str(tmp_path)), key=lambda card: card.name) == [
            Card("d0", up=True),
            Card("d1", up=False),
        ]
        assert limbo.violations(str(tmp_path)) == ["interface d0 is up in the kernel's namespace"]
        assert list(limbo.strangers([inside.pid], "/proc")) == [], "it is in a namespace of its own"
        inside.stdin.write("end\n")
