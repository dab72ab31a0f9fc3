"""The state worker goes first at the disk: its own priority, the disk's scheduler, its share as a cgroup; and how long answers took is known."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from kit import in_child
from test_state_port import Bench

from bay0.base import syscalls
from bay0.effects import cgroup, shield
from bay0.state import device


@in_child
def test_it_takes_the_highest_priority_that_it_may_have() -> None:
    shield.first_at_the_disk()
    assert syscalls.ioprio_get() in ((1, 4), (2, 0))
    if os.getuid() == 0:
        syscalls.ioprio_set(3, 7)
        assert syscalls.ioprio_get() == (3, 7)


def test_where_real_time_is_refused_it_is_the_first_of_the_others_and_no_priorities_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[tuple[int, int]] = []

    def refuse(number: int) -> None:
        def ioprio_set(kind: int, level: int) -> None:
            tried.append((kind, level))
            if kind <= number:
                raise OSError(errno.EPERM, "no")

        monkeypatch.setattr(shield, "ioprio_set", ioprio_set)
        shield.first_at_the_disk()

    refuse(1)
    refuse(2)
    assert tried == [(1, 4), (2, 0)] * 2
    monkeypatch.setattr(syscalls, "_IOPRIO", {})
    assert syscalls.ioprio_get() == (0, 0)
    with pytest.raises(OSError, match="not implemented"):
        syscalls.ioprio_set(1, 4)


@pytest.fixture
def sysfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A disk sda with a partition sda1, as sysfs has them."""
    disk = tmp_path / "devices" / "sda"
    (disk / "queue").mkdir(parents=True)
    (disk / "sda1").mkdir()
    (disk / "sda1" / "partition").write_text("1\n")
    block = tmp_path / "block"
    block.mkdir()
    (block / "sda").symlink_to(disk)
    (block / "sda1").symlink_to(disk / "sda1")
    monkeypatch.setattr(device, "SYS_BLOCK", str(block))
    return disk / "queue" / "scheduler"


@pytest.mark.parametrize("name", ["/dev/sda", "/dev/sda1"])
def test_the_scheduler_of_the_disk_is_one_that_knows_priorities(name: str, sysfs: Path) -> None:
    sysfs.write_text("[none] mq-deadline kyber bfq\n")
    assert device.prefer(name)["scheduler"] == "mq-deadline"
    assert sysfs.read_text() == "mq-deadline", "the choice was written"


@pytest.mark.parametrize(("offered", "current"), [("none [mq-deadline]\n", "mq-deadline"), ("[none] kyber\n", "none"), ("none\n", "none")])
def test_a_scheduler_that_is_right_or_not_there_is_left_alone(offered: str, current: str, sysfs: Path) -> None:
    sysfs.write_text(offered)
    assert device.prefer("/dev/sda")["scheduler"] == current
    assert sysfs.read_text() == offered


def test_a_disk_without_a_scheduler_is_no_error(sysfs: Path) -> None:
    assert device.prefer("/dev/sda")["scheduler"].startswith("unknown")
    assert device.prefer("/dev/no-such-disk")["scheduler"].startswith("unknown")


def test_a_share_is_written_where_the_kernel_has_one(tmp_path: Path) -> None:
    (tmp_path / "io.bfq.weight").write_text("default 100\n")
    cgroup.prefer(str(tmp_path), 3000)
    assert (tmp_path / "io.bfq.weight").read_text().startswith("1000"), "as much as that scheduler takes"
    assert not (tmp_path / "io.weight").exists()


def test_the_longest_answer_of_each_kind_is_remembered() -> None:
    bench = Bench().attach()
    for seconds in (0.2, 0.7, 0.3):
        bench.port.probe("x")
        bench.clock.wait(seconds)
        bench.serve()
    assert bench.port.link.longest_s["probe"] == pytest.approx(0.7)
