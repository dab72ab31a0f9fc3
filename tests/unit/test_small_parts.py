"""Bounds, errors, flows, the network's absence, modules and lazy imports."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from attrs import fields
from kit import Timers

from bay0 import net
from bay0.base import errors
from bay0.base.bounds import Bounds
from bay0.base.errors import Bay0Error, StorageError
from bay0.effects import modules
from bay0.machines import MACHINES
from bay0.pid1 import flow
from bay0.reconcile import plan as reconcile

# ---- bounds


def test_the_bound_of_a_boot_read_is_the_handoffs_200_ms() -> None:
    assert Bounds().read == 0.2


def test_patience_multiplies_every_bound() -> None:
    plain, patient = Bounds(), Bounds().scaled(5)
    for bound in fields(Bounds):
        assert getattr(patient, bound.name) == pytest.approx(5 * getattr(plain, bound.name)), bound.name


def test_the_bounds_of_opening_fit_into_the_deadline_of_the_state_that_owes_it() -> None:
    bounds = Bounds()
    opening = bounds.worker_start + bounds.find + bounds.mount + bounds.open + bounds.migrate + bounds.read + bounds.commit + bounds.flush
    specs = {spec.state.name: spec.deadline_s for spec in MACHINES["storage"].specs}
    assert opening < specs["OPENING"]
    assert bounds.commit + bounds.close < specs["CLOSING"]
    stages = {spec.state.name: spec.deadline_s for spec in MACHINES["boot"].specs}
    assert specs["OPENING"] < stages["ATTACHING"]
    assert specs["CLOSING"] < stages["LEAVING"]
    assert bounds.modprobe < stages["LOADING"]


def test_a_tenant_that_ignores_term_is_killed_before_its_stop_times_out() -> None:
    stop = next(spec for spec in MACHINES["tenant"].specs if spec.state.name == "STOPPING").deadline_s
    assert Bounds().term_grace + Bounds().kill_grace < stop


# ---- errors


def test_every_error_has_one_root_and_a_meaning() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert len(kinds) == 16
    for kind in kinds:
        assert issubclass(kind, Bay0Error)
        assert kind is Bay0Error or kind.__name__.endswith("Error")
        assert kind.__doc__


def test_a_storage_error_carries_the_code_the_storage_machine_acts_on() -> None:
    error = StorageError("full", "no space left")
    assert (error.code, str(error)) == ("full", "no space left")


# ---- flows


def test_a_flow_waits_without_blocking_and_ends_with_what_it_returned() -> None:
    waiting: list[Any] = []
    ends: list[str] = []

    def asking() -> Generator[Any, Any, str]:
        first = yield waiting.append
        second = yield waiting.append
        return f"{first} and {second}"

    flow.run(asking(), ends.append)
    waiting.pop()("one")
    assert ends == []
    waiting.pop()("two")
    assert ends == ["one and two"]


@pytest.mark.parametrize(("at", "heard"), [(1.0, "news"), (3.0, "late")])
def test_a_wait_that_is_bounded_hears_the_first_word_or_that_it_is_late_and_nothing_more(at: float, heard: str) -> None:
    timers, words = Timers(), list[str]()
    say = flow.once(words.append, timers, 2.0, "late")  # type: ignore[arg-type]
    timers.advance(at)
    say("news")
    timers.advance(5.0)
    say("more")
    assert words == [heard]


def test_a_flow_may_be_resumed_at_once() -> None:
    def now(resume: Any) -> None:
        resume(1)

    def adding() -> Generator[Any, Any, int]:
        total = 0
        for _ in range(100):
            total += yield now
        return total

    ends: list[int] = []
    flow.run(adding(), ends.append)
    assert ends == [100]


def test_a_flow_that_waits_for_nothing_ends_at_once() -> None:
    def nothing() -> Generator[Any, Any, int]:
        return 3
        yield

    ends: list[int] = []
    flow.run(nothing(), ends.append)
    assert ends == [3]


# ---- reconcile


def row(name: str, kind: str, state: str, seq: int = 4) -> dict[str, Any]:
    return {"name": name, "kind": kind, "state": state, "seq": seq}


def test_what_is_converged_already_owes_nothing() -> None:
    plan = reconcile.plan([row("a", "tenant", "stopped"), row("b", "tenant", "failed"), row("c", "boot", "ended")], MACHINES)
    assert plan.replays == ()


def test_every_other_stored_state_is_replayed() -> None:
    stored = [row(f"t-{state.value}", "tenant", state.value) for state in MACHINES["tenant"].states]
    replayed = {replay.stored["state"] for replay in reconcile.plan(stored, MACHINES).replays}
    assert replayed == {"starting", "running", "waiting", "stopping", "converging"}


def test_a_state_nobody_knows_is_replayed_and_a_kind_nobody_knows_is_left_alone() -> None:
    plan = reconcile.plan([row("a", "tenant", "levitating", 9), row("x", "compositor", "running")], MACHINES)
    assert [(r.name, r.stored["state"], r.stored["seq"]) for r in plan.replays] == [("a", "levitating", 9)]
    assert plan.unknown == ("x",)


# ---- no network


def interface(top: Path, name: str, flags: str) -> None:
    (top / name).mkdir(parents=True)
    (top / name / "flags").write_text(flags + "\n")


def test_only_the_loopback_is_no_violation(tmp_path: Path) -> None:
    interface(tmp_path / "net", "lo", "0x9")
    (tmp_path / "net" / "bonding_masters").write_text("")
    assert net.violations(str(tmp_path / "net"), str(tmp_path / "none")) == []


def test_an_interface_and_a_route_are_named(tmp_path: Path) -> None:
    interface(tmp_path / "net", "lo", "0x9")
    interface(tmp_path / "net", "eth0", "0x1003")
    interface(tmp_path / "net", "wlan0", "0x1002")
    (tmp_path / "route").write_text("Iface\tDestination\tGateway\neth0\t00000000\t0102A8C0\n")
    assert net.violations(str(tmp_path / "net"), str(tmp_path / "route")) == [
        "interface eth0 exists and is up",
        "interface wlan0 exists",
        "route through eth0",
    ]


def test_what_cannot_be_looked_at_is_said_and_is_not_taken_for_no_network(tmp_path: Path) -> None:
    interfaces, routes = tmp_path / "net", tmp_path / "proc" / "route"
    places = str(interfaces), str(routes)
    assert net.violations(*places) == []
    assert net.unread(*places) == [
        f"{interfaces}: No such file or directory",
        f"{routes}: No such file or directory",
    ]
    interface(interfaces, "lo", "0x9")
    routes.parent.mkdir()
    assert net.unread(*places) == [], "a kernel without IPv4 has no table of routes"
    routes.mkdir()
    assert net.unread(*places) == [f"{routes}: Is a directory"]


# ---- modules


def test_drivers_are_asked_for_by_what_the_devices_say_they_are_and_disks_come_last(tmp_path: Path) -> None:
    aliases = {
        "disk": "virtio:d00000002v00001AF4",
        "same-disk": "virtio:d00000002v00001AF4",
        "nvme": "pci:v0000144Dd0000A808sv0000144Dsd0000A801bc01sc08i02",
        "watchdog": "pci:v00008086d000025ABsv00001AF4sd00001100bc08sc80i00",
        "rng": "virtio:d00000004v00001AF4",
        "floppy": "acpi:PNP0700:",
        "nothing": "",
        "odd": "../../evil",
    }
    for name, alias in aliases.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "modalias").write_text(alias + "\n")
    asked = modules.wanted(modules.aliases(str(tmp_path / "*" / "modalias")))
    assert asked.first == (*modules.ALWAYS, aliases["watchdog"], aliases["rng"])
    assert asked.disks == (aliases["nvme"], aliases["disk"])


# ---- lazy


def test_a_module_that_is_put_off_is_loaded_at_its_first_use_and_not_before() -> None:
    code = """
import sys
from bay0.loading import lazy
lazy.load("asyncio"); lazy.load("asyncio")
import asyncio
import asyncio as again
assert "asyncio.base_events" not in sys.modules
assert again.iscoroutinefunction(print) is False
assert "asyncio.base_events" in sys.modules
import asyncio as real
assert real.__file__
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_bare_package_loads_the_part_that_is_asked_for_and_the_rest_at_its_first_use() -> None:
    code = """
import sys
from bay0.loading import lazy
lazy.bare("structlog"); lazy.bare("structlog")
from structlog._native import make_filtering_bound_logger
assert "structlog.dev" not in sys.modules and "structlog.stdlib" not in sys.modules
import structlog
assert not hasattr(structlog, "__nothing__") and "structlog.dev" not in sys.modules
assert structlog.make_filtering_bound_logger is make_filtering_bound_logger
assert structlog.dev.ConsoleRenderer and structlog.get_logger
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_pid_1_puts_off_stays_off_while_it_is_wired_and_still_works_when_asked_for() -> None:
    code = """
import sys
from bay0.loading import lazy
for name in lazy.UNUSED_BY_PID1:
    lazy.load(name)
import bay0.init
from bay0 import log
from bay0.base import cmdline
from bay0.effects.shield import Watchdog
bay0.init.build(cmdline.Words(), log.Sinks(), log.make(log.Sinks()), Watchdog(), bay0.init.Host("b"))
loaded = [name for name in lazy.UNUSED_BY_PID1 if not isinstance(sys.modules[name], lazy._Later)]
assert not loaded, loaded
import attrs, inspect
assert attrs.validators.instance_of(int) and inspect.signature(print)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# ---- precompiled


def test_what_attrs_compiled_once_is_not_compiled_again_and_what_is_unknown_still_is(tmp_path: Path) -> None:
    record = "import marshal, sys; from bay0.loading import precompiled as made; "
    record += "marshal.dump(made.record('bay0.pid1.reactor'), open(sys.argv[1], 'wb'))"
    code = """
import builtins, sys
compiled, real = [], builtins.compile
builtins.compile = lambda source, name, *rest, **more: compiled.append(str(name)) or real(source, name, *rest, **more)
from bay0.loading import precompiled
with precompiled.used(sys.argv[1]):
    from attrs import define
    from bay0.pid1.reactor import Reactor
    assert not [name for name in compiled if "bay0.pid1.reactor" in name], compiled
    @define
    class Unknown:
        number: int
assert [name for name in compiled if "Unknown" in name]
assert Unknown(1) == Unknown(1) and Unknown(1) != Unknown(2)
called = []
reactor = Reactor()
reactor.call_soon(lambda: called.append(1))
assert eval(compile("1 + 1", "x", "eval")) == 2 and compiled[-1] == "x"
"""
    path = str(tmp_path / "code.bin")
    for script in (record, code):
        done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("content", [None, b"", b"nonsense", b"N"])
def test_without_a_usable_file_of_code_attrs_compiles_as_ever(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "code.bin"
    if content is not None:
        path.write_bytes(content)
    code = """
import sys
from bay0.loading import precompiled
with precompiled.used(sys.argv[1]):
    from bay0.pid1.reactor import Reactor
Reactor()
"""
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_boot_without_an_ai_loads_nothing_for_one() -> None:
    code = """
import sys
import bay0.init
from bay0 import log
from bay0.base import cmdline
from bay0.effects.shield import Watchdog
spine = bay0.init.build(cmdline.Words(), log.Sinks(), log.make(log.Sinks()), Watchdog(), bay0.init.Host("b"))
late = ("bay0.ai.port", "bay0.ai.envelope", "bay0.ai.kernelview",
    "bay0.effects.pidfd", "bay0.ai.methods", "bay0.umbilical.doors", "bay0.umbilical.forwarder")
assert not [name for name in late if name in sys.modules], [name for name in late if name in sys.modules]
spine.umbilical().tenant("stopped", "", "")
assert {"bay0.ai.port", "bay0.umbilical.doors"} <= set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
