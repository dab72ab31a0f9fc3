"""Ceilings over the spine's own groups: sized from the machine, kept as they were written, and told of when they are met."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import evolve

from bay0.effects import ceilings, cgroup, mounts
from bay0.effects.ceilings import Ceilings, Group, Met, bounded, look_at, of_all, of_one

GIB = 1 << 30


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 1 GiB that can have 6,781 threads, as Alpine's kernel has it."""
    (tmp_path / "threads-max").write_text("6781\n")
    (tmp_path / "pid_max").write_text("32768\n")
    monkeypatch.setattr(ceilings, "PROC_KERNEL", str(tmp_path))
    monkeypatch.setattr(mounts, "memory", lambda: GIB)
    monkeypatch.setattr(cgroup, "ROOT", str(tmp_path / "cgroup"))
    for group in ("services", "commands", "services/console", "services/state"):
        for name, text in (
            ("pids.max", "max\n"), ("memory.max", "max\n"), ("pids.current", "3\n"), ("memory.current", "4096\n"),
            ("pids.events", "max 0\n"), ("memory.events", "low 0\nmax 0\noom 0\noom_kill 0\n"),
        ):  # fmt: skip
            file = tmp_path / "cgroup" / group / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
    return tmp_path


def test_one_may_have_less_than_all_and_all_leave_some_to_the_machine(machine: Path) -> None:
    one, every = of_one(), of_all()
    assert one == {"pids.max": "847", "memory.max": str(GIB * 3 // 4)}
    assert every == {
        f"{group}/{name}": value for group in ("services", "commands") for name, value in (("pids.max", "1695"), ("memory.max", "912680550"))
    }
    together = sum(int(value) for path, value in every.items() if path.endswith("pids.max"))
    assert together < 6781, "a process for PID 1 is left when both are full"
    assert 2 * int(one["pids.max"]) <= int(every["services/pids.max"]), "one that is full leaves its siblings as much"


def test_a_small_machine_has_enough_for_a_shell_and_podman_and_an_unknown_one_no_limit_of_processes(machine: Path) -> None:
    (machine / "threads-max").write_text("600\n")
    assert of_one()["pids.max"] == "128"
    (machine / "pid_max").unlink()
    assert set(of_one()) == {"memory.max"}


def test_what_cannot_be_written_is_said_and_the_rest_is_written(machine: Path) -> None:
    (machine / "cgroup" / "services" / "pids.max").unlink()
    failed = Ceilings().write(of_all())
    assert list(failed) == ["services/pids.max"]
    assert (machine / "cgroup" / "commands" / "pids.max").read_text().strip() == "1695"
    assert not (machine / "cgroup" / "services" / "pids.max").exists(), "a file that is made is no limit"


def test_a_limit_that_somebody_changed_by_hand_is_set_right_and_said_once(machine: Path) -> None:
    kept = Ceilings()
    assert kept.write({"services/memory.max": "912680550", "services/pids.max": "1695"}) == {}
    assert list(kept.look()) == []
    (machine / "cgroup" / "services" / "memory.max").write_text("max\n")
    assert list(kept.look()) == [("services/memory.max", "max", "912680550")]
    assert (machine / "cgroup" / "services" / "memory.max").read_text() == "912680550"
    assert list(kept.look()) == []


def test_a_group_is_read_with_its_counts_and_one_that_is_gone_has_none(machine: Path) -> None:
    (machine / "cgroup" / "services" / "console" / "pids.events").write_text("max 7\n")
    assert look_at("services/console") == Group("services/console", 3, None, 4096, None, 7, 0)
    assert look_at("services/none") == Group("services/none", 0, None, 0, None, 0, 0)
    assert [each.name for each in bounded()] == ["services/console", "services/state", "services", "commands"]


CONSOLE = Group("services/console", 847, 847, 0, GIB, 0, 0)
SERVICES = Group("services", 900, 1695, 0, GIB, 0, 0)
COMMANDS = Group("commands", 0, 1695, 0, GIB, 0, 0)


def told(met: Met, *now: Group) -> list[tuple[str, str]]:
    return [(kind, group.name) for kind, group in met.look(list(now))]


def test_who_meets_a_ceiling_is_told_once_until_it_has_let_go(machine: Path) -> None:
    met = Met()
    assert told(met, CONSOLE, SERVICES, COMMANDS) == []
    # the kernel counts in every group above, too
    assert told(met, evolve(CONSOLE, refused=5), evolve(SERVICES, refused=5), COMMANDS) == [("pids", "services/console")]
    assert told(met, evolve(CONSOLE, refused=9), evolve(SERVICES, refused=9), COMMANDS) == [], "it goes on"
    assert told(met, evolve(CONSOLE, refused=9), evolve(SERVICES, refused=9), COMMANDS) == []
    assert told(met, evolve(CONSOLE, refused=10), evolve(SERVICES, refused=10), COMMANDS) == [("pids", "services/console")]


def test_a_command_is_told_of_by_the_group_of_all_and_memory_apart_from_processes(machine: Path) -> None:
    met = Met()
    assert told(met, CONSOLE, SERVICES, evolve(COMMANDS, refused=1)) == [("pids", "commands")]
    assert told(met, CONSOLE, SERVICES, evolve(COMMANDS, refused=1, killed=1)) == [("memory", "commands")]
    assert told(met, CONSOLE, evolve(SERVICES, killed=1), COMMANDS) == [("memory", "services")], "one that is gone, or all together"
