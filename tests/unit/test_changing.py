"""A persona is changed while it stands still or runs: kept first, then what the kernel can change at once, and said when each counts."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kit import Known
from personakit import IMAGE, PLAY, WORK, Bench

from bay0.base.bounds import Bounds
from bay0.base.errors import Bay0Error, ManifestError, RefusedError
from bay0.effects import cgroup
from bay0.machines.engine import Acceptance
from bay0.machines.persona import E, S
from bay0.personas import port as personas
from bay0.personas.changing import NOW, START, SWITCH, WRITE, Changing, used
from bay0.personas.manifest import Manifest, digest, from_wire

MIB = 1 << 20


class Table:
    """The method over the shared bench; the command that writes limits is played."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.ran: list[tuple[str, ...]] = []
        self.limited: list[tuple[str, str, float]] = []
        self.result: Any = SimpleNamespace(ok=True, stderr="", reason=lambda: "")
        replay: Any = Known()
        log: Any = bench.log
        self.changing = Changing(
            bench.engine, Bounds(), log, self._run, bench.port, replay, lambda i: {"name": i.name, "state": i.now.value},
            lambda *words: self.limited.append(words),
        )  # fmt: skip

    def _run(self, _name: str, argv: tuple[str, ...], _bound_s: float, done: Callable[[Any], None]) -> None:
        self.ran.append(argv)
        self.bench.timers.call_later(0.1, lambda: done(self.result))

    def ask(self, name: str = WORK, **params: Any) -> Any:
        answers: list[Any] = []
        self.changing.configure({"name": name, **params}, answers.append)
        self.bench.timers.advance(2)
        (answer,) = answers
        if isinstance(answer, Exception):
            raise answer
        return answer

    def change(self, **changes: Any) -> Any:
        return self.ask(changes=changes)

    def manifest(self, name: str = WORK) -> Manifest:
        config = personas.read_config(self.bench.engine.instances[name].config)
        assert config is not None
        return config.manifest


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bench:
    monkeypatch.setattr(cgroup, "ROOT", str(tmp_path))
    return Bench(monkeypatch)


@pytest.fixture
def table(bench: Bench) -> Table:
    bench.persona(WORK, home="")
    return Table(bench)


def uses(table: Table, tmp_path: Path, mib: int, cache: int = 0) -> Path:
    """Let the container use so many MiB, `cache` of them files that can be given back; return its group."""
    group = tmp_path / "personas" / f"libpod-{table.bench.port.container(WORK)}"
    group.mkdir(parents=True)
    (group / "memory.current").write_text(f"{mib * MIB}\n")
    (group / "memory.stat").write_text(f"anon {(mib - cache) * MIB}\nfile {cache * MIB}\ninactive_file {cache * MIB}\nactive_file 0\n")
    return group


def test_of_one_that_is_stopped_everything_counts_from_its_next_start(table: Table) -> None:
    slot = personas.slot_of(table.bench.engine.instances[WORK].config)
    answer = table.change(memory="1G", cpus=2, command=["sleep", "9"])
    assert answer == {"name": WORK, "state": "stopped", "changed": {"command": START, "memory": START, "cpus": START}, "failed": ""}
    assert table.manifest() == Manifest(image=IMAGE, memory=1 << 30, cpus=2.0, command=("sleep", "9"))
    assert table.ran == []
    assert personas.slot_of(table.bench.engine.instances[WORK].config) == slot
    step = table.bench.journal.steps[-1]
    assert (step.source, step.event, step.dest, step.why) == (
        "stopped", "configure", "stopped", "asked to change what it is made of: command, memory, cpus",
    )  # fmt: skip


def test_of_one_that_runs_the_kernel_changes_what_it_can_at_once(table: Table) -> None:
    table.bench.send(E.START)
    container = table.bench.port.container(WORK)
    answer = table.change(memory="1G", cpus=1.5, pids=99, behind="run", restart="always", user="me")
    assert answer["changed"] == {"memory": NOW, "cpus": NOW, "pids": NOW, "user": START, "behind": SWITCH, "restart": NOW}
    directory = f"{cgroup.ROOT}/personas/libpod-{container}"
    assert table.ran == [
        ("/bin/sh", "-c", WRITE, "limits", directory, "cpu.max", "150000 100000", "pids.max", "99", "memory.max", str(1 << 30))
    ]
    assert table.limited == [(WORK, container, 1.5)]
    assert table.bench.engine.instances[WORK].now is S.RUNNING
    assert table.bench.port.container(WORK) == container, "it goes on"
    table.change(description="a word")
    assert len(table.ran) == 1, "what the kernel has no part in starts no command"


def test_what_is_kept_and_not_taken_by_the_kernel_is_said(table: Table) -> None:
    table.bench.send(E.START)
    table.result = SimpleNamespace(ok=False, stderr="sh: write error: Device or resource busy\n", reason=lambda: "")
    answer = table.change(cpus=2, restart="always")
    assert answer["changed"] == {"cpus": START, "restart": NOW}
    assert answer["failed"] == "sh: write error: Device or resource busy"
    assert table.limited == []
    assert table.manifest().cpus == 2.0


def test_a_limit_below_what_it_uses_is_refused_and_one_below_its_cache_is_not(table: Table, tmp_path: Path) -> None:
    table.bench.send(E.START)
    group = uses(table, tmp_path, 200, cache=50)
    assert used(str(group)) == 150 * MIB
    with pytest.raises(RefusedError, match=r"uses 150 MiB now.*128 MiB are asked for.*Nothing was changed"):
        table.change(memory="128M")
    assert (table.manifest().memory, table.ran) == (256 * MIB, [])
    assert table.change(memory="160M")["changed"] == {"memory": NOW}


def test_what_is_so_already_changes_nothing(table: Table) -> None:
    steps = len(table.bench.journal.steps)
    assert table.change(memory="256M", cpus=1)["changed"] == {}
    assert len(table.bench.journal.steps) == steps


@pytest.mark.parametrize(
    ("params", "error"),
    [({}, TypeError), ({"changes": {}, "manifest": {"image": IMAGE}}, TypeError), ({"changes": []}, TypeError),
     ({"changes": {"memory": "1"}}, ManifestError), ({"changes": {"mem": "1G"}}, ManifestError), ({"changes": {"image": None}}, ManifestError),
     ({"manifest": {"cpus": 1}}, ManifestError), ({"changes": {"cpus": 2}, "if_digest": "0"}, RefusedError)],
)  # fmt: skip
def test_what_makes_no_sense_changes_nothing(table: Table, params: dict[str, Any], error: type[Exception]) -> None:
    before = table.bench.engine.instances[WORK].config
    with pytest.raises(error):
        table.ask(**params)
    assert table.bench.engine.instances[WORK].config == before


def test_null_is_the_default_and_a_whole_manifest_replaces_the_other(table: Table) -> None:
    table.change(memory="1G", environment={"A": "1"})
    table.change(memory=None)
    assert table.manifest() == Manifest(image=IMAGE, environment={"A": "1"})
    table.ask(manifest={"image": "localhost/other:1"}, if_digest=digest(table.manifest()))
    assert table.manifest() == from_wire({"image": "localhost/other:1"})


def test_one_change_at_a_time_and_none_while_it_is_on_its_way(table: Table) -> None:
    table.bench.journal.hold = True
    answers: list[Any] = []
    table.changing.configure({"name": WORK, "changes": {"cpus": 2}}, answers.append)
    with pytest.raises(RefusedError, match="changed by somebody else"):
        table.changing.configure({"name": WORK, "changes": {"pids": 9}}, answers.append)
    table.bench.journal.hold = False
    table.bench.journal.answer()
    assert (table.manifest().cpus, table.manifest().pids) == (2.0, 256)
    table.bench.podman.held.add("run")
    table.bench.send(E.START)
    with pytest.raises(RefusedError, match="it is on its way"):
        table.change(pids=9)


def test_a_change_is_a_promise(table: Table) -> None:
    table.bench.journal.hold = True
    answers: list[Any] = []
    table.changing.configure({"name": WORK, "changes": {"cpus": 2}}, answers.append)
    assert answers == [], "it is not told before it is kept"
    table.bench.journal.answer(Acceptance.REFUSED)
    assert isinstance(answers[0], RefusedError)
    assert table.manifest().cpus == 1.0


def test_of_a_persona_that_is_not_there_or_not_understood_nothing_is_changed(table: Table) -> None:
    with pytest.raises(Bay0Error, match="there is no persona"):
        table.ask(PLAY, changes={"cpus": 2})
    table.bench.engine.instances[WORK].config = '{"manifest":{"image":"localhost/a:1","quota":1},"slot":0}'
    with pytest.raises(RefusedError, match="another program"):
        table.change(cpus=2)


def test_the_command_writes_each_limit_and_stops_at_the_first_that_is_not_taken(tmp_path: Path) -> None:
    def run(*argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)

    for file in ("cpu.max", "pids.max"):
        (tmp_path / file).write_text("max\n")
    done = run("/bin/sh", "-c", WRITE, "limits", str(tmp_path), "cpu.max", "150000 100000", "pids.max", "9")
    assert done.returncode == 0
    assert ((tmp_path / "cpu.max").read_text(), (tmp_path / "pids.max").read_text()) == ("150000 100000\n", "9\n")
    done = run("/bin/sh", "-c", WRITE, "limits", str(tmp_path / "gone"), "cpu.max", "1 1")
    assert done.returncode != 0
    assert "gone" in done.stderr
    done = run("/bin/sh", "-c", WRITE, "limits", str(tmp_path), "no/such", "1", "pids.max", "7")
    assert done.returncode == 1
    assert (tmp_path / "pids.max").read_text() == "9\n"
