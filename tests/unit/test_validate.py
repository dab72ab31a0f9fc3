"""The checks of `bay0 --validate`: each is red for exactly the thing it is about, and says which."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from attrs import evolve
from kit import Bench as EngineBench
from kit import E, Journal, S, Timers, small
from parts import Ready
from personakit import WORK, verdict
from personakit import Bench as PersonaBench

from bay0.base.bounds import Bounds
from bay0.effects.peers import Answerer
from bay0.effects.shield import Watchdog
from bay0.machines import MACHINES, persona
from bay0.machines import screen as screens
from bay0.machines.server import S as ServerS
from bay0.pid1 import flow
from bay0.state.link import Answer
from bay0.validate import checks as validate
from bay0.validate import sockets
from bay0.validate.checks import CHECKS
from bay0.validate.look import Kernel, Look
from bay0.validate.network import A_MOMENT_S
from bay0.validate.verdict import COMPONENTS, GREEN, Finding, Level

MOUNTS = """21 1 0:19 / / ro,relatime - erofs /root.erofs ro,user_xattr
22 21 0:20 / /proc rw,nosuid - proc proc rw
23 21 0:21 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw
24 21 254:0 / /persist rw,nosuid,nodev - ext4 /dev/vda rw
25 24 0:40 / /persist/containers/storage/overlay/abc/merged rw - overlay overlay rw,lowerdir=x
"""
HOUR = 3600.0


def play_limbo(proc: Path) -> None:
    """Make a /proc in which PID 1 and kthreadd have a network namespace each."""
    for pid in ("1", "2"):
        (proc / pid / "ns").mkdir(parents=True)
        (proc / pid / "ns/net").touch()
        (proc / pid / "stat").write_text(f"{pid} (x) S 0 0\n")
    (proc / "self").symlink_to("1")
    (proc / "2/net").mkdir()
    (proc / "2/net/dev").write_text("\n\n    lo: 0 0\n")


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    """A kernel and an image as they should be."""
    for group in ("", *(f"/{name}" for name in validate.cgroup.PARENTS)):
        (tmp_path / f"cg{group}").mkdir()
        (tmp_path / f"cg{group}/cgroup.subtree_control").write_text("cpu io memory pids\n")
        (tmp_path / f"cg{group}/cgroup.freeze").write_text("0\n")
    (tmp_path / "pressure").mkdir()
    for name in validate.PRESSURES:
        (tmp_path / "pressure" / name).write_text("some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n")
    (tmp_path / "net" / "lo").mkdir(parents=True)
    (tmp_path / "route").write_text("Iface Destination Gateway\n")
    play_limbo(tmp_path / "proc")
    (tmp_path / "score").write_text("-1000\n")
    (tmp_path / "group").write_text("0::/init\n")
    (tmp_path / "mounts").write_text(MOUNTS)
    (tmp_path / "manifest").write_text(json.dumps({"source_date_epoch": int(time.time() - HOUR)}))
    places = {
        "pressure": "pressure", "oom_score_adj": "score", "group": "group", "mounts": "mounts", "cgroups": "cg", "interfaces": "net",
        "routes": "route", "proc": "proc", "manifest": "manifest", "umbilical": "ai.sock", "tenant": "server.sock",
    }  # fmt: skip
    compositor = (str(tmp_path / "wayland-1"), str(tmp_path / "ipc"))
    return Kernel(**{key: str(tmp_path / name) for key, name in places.items()}, compositor=compositor)


class State:
    """A state port that answers at once, or is not healthy."""

    def __init__(self) -> None:
        self.healthy, self.dirty, self.storage = True, None, SimpleNamespace(now=SimpleNamespace(value="durable"))
        self.answers: dict[str, Answer] = {}
        self.asked: list[tuple[str, float, dict[str, Any]]] = []

    def ask(self, op: str, bound_s: float, done: Callable[[Answer], None], **arguments: Any) -> None:
        self.asked.append((op, bound_s, arguments))
        done(self.answers.get(op, Answer(value=True)))


@pytest.fixture
def spine(tmp_path: Path) -> Any:
    (tmp_path / "watchdog").touch()
    watchdog, timers = Watchdog(str(tmp_path / "watchdog")), Timers(now=100.0)
    watchdog.open()
    watchdog.feed(98.0)
    return SimpleNamespace(
        bounds=Bounds(), state=State(), replay=SimpleNamespace(known=True), watchdog=watchdog, reactor=timers,
        mending=SimpleNamespace(images=frozenset()), servers=Ready(lambda: None),
        engine=SimpleNamespace(boot_id="boot-1", instances={}, clock_ms=lambda: int(timers.now * 1000), patience=1.0),
        services=SimpleNamespace(owns=lambda *_: False), screen=SimpleNamespace(made=None),
    )  # fmt: skip


def see(name: str, spine: Any, kernel: Kernel, freezer: Any = None) -> Finding:
    check = next(each for each in CHECKS if each.name == name)
    found = check.look(Look(spine, kernel, freezer, lambda _doing: None))
    if isinstance(found, Finding):
        return found
    ended: list[Finding] = []
    flow.run(found, ended.append)
    spine.reactor.advance(A_MOMENT_S)
    return ended[0]


def why(found: Finding, level: Level = Level.RED) -> str:
    assert found.level is level
    return found.why


def test_every_check_has_a_component_and_a_bound_and_stands_in_the_order_shown() -> None:
    assert [check.name for check in CHECKS] == list(COMPONENTS)
    assert all(getattr(Bounds(), check.bound) < Bounds().validate and check.component for check in CHECKS)


@pytest.mark.parametrize("name", [name for name in COMPONENTS if name not in ("freezer", "umbilical")])
def test_a_healthy_spine_is_green(name: str, spine: Any, kernel: Kernel) -> None:
    assert see(name, spine, kernel) == GREEN


# ---- the freezer, where it cannot be tried


def test_the_freezer_is_not_tried_without_the_disk_that_podman_needs(spine: Any, kernel: Kernel) -> None:
    spine.state.healthy, spine.state.storage.now.value, spine.state.dirty = False, "wedged", "probe gave no answer in 1 s"
    assert why(see("freezer", spine, kernel), Level.YELLOW) == (
        "cannot be checked, podman's storage is on /persist: storage is wedged (probe gave no answer in 1 s)"
    )


def test_the_freezer_is_not_tried_before_reconcile_knows_what_podman_holds(spine: Any, kernel: Kernel) -> None:
    spine.replay.known = False
    assert "not known in this boot yet" in why(see("freezer", spine, kernel), Level.YELLOW)


# ---- sockets


def listener(path: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.bind(path)
    made.listen(4)
    return made


def ai(spine: Any, state: ServerS, why: str = "because", desired: str = "running") -> None:
    """Let there be an AI whose server is this process."""
    spine.engine.instances["sys://ai"] = SimpleNamespace(now=state, desired=desired, committed=SimpleNamespace(why=why))
    made = SimpleNamespace(unavailable="", container=lambda _name: "7")
    spine.servers = Ready(lambda: made)


def checks(spine: Any, ok: bool, why: str = "") -> None:
    """Let the forwarder say so."""
    spine.umbilical = Ready(lambda: SimpleNamespace(check=lambda done: done(ok, why, {})))


def in_group(monkeypatch: pytest.MonkeyPatch, kernel: Kernel, group: str, alive: bool = True) -> None:
    """Let whoever answers at the AI's own socket be of that cgroup."""
    real = sockets.answerer

    def answerer(path: str) -> Any:
        return real(path) if path == kernel.umbilical else Answerer(9, 101_000, alive, group, "serve")

    monkeypatch.setattr(sockets, "answerer", answerer)


@pytest.mark.parametrize(("unavailable", "said"), [("", "it was not started"), ("its image is not here", "its image is not here")])
def test_without_an_ai_tenant_the_umbilical_is_yellow_and_says_why(spine: Any, kernel: Kernel, unavailable: str, said: str) -> None:
    assert see("umbilical", spine, kernel) == Finding(Level.YELLOW, "no AI tenant: it was not started")
    ai(spine, ServerS.STOPPED, desired="stopped")
    spine.servers.made.unavailable = unavailable
    assert see("umbilical", spine, kernel) == Finding(Level.YELLOW, f"no AI tenant: {said}")


def test_a_machine_on_which_nobody_installed_an_ai_is_green_and_says_so(spine: Any, kernel: Kernel) -> None:
    spine.state.answers["ai_archive"] = Answer(value=None)
    for _ in range(2):  # before its port is there, and after that found nothing
        assert see("umbilical", spine, kernel) == Finding(Level.GREEN, sockets.NOT_INSTALLED)
        ai(spine, ServerS.STOPPED, desired="stopped")
        spine.engine.instances["sys://ai"].committed = None
        spine.servers.made.unavailable = "its image is not on this machine"


@pytest.mark.parametrize(
    "how",
    ["podman has its image", "its archive is on the disk", "somebody tried to start it", "nobody knows", "no answer", "no disk"],
)
def test_an_ai_that_is_or_may_be_installed_and_does_not_run_is_yellow(spine: Any, kernel: Kernel, how: str) -> None:
    ai(spine, ServerS.STOPPED, desired="stopped")
    spine.state.answers["ai_archive"] = Answer(value=None)
    if how == "podman has its image":
        spine.mending.images = frozenset({sockets.IMAGE})
    if how == "its archive is on the disk":
        spine.state.answers["ai_archive"] = Answer(value="/persist/images/spine-ai.tar")
    if how != "somebody tried to start it":
        spine.engine.instances["sys://ai"].committed = None
    spine.replay.known = how != "nobody knows"
    if how == "no answer":
        spine.state.answers["ai_archive"] = Answer(code="timeout", why="it hangs")
    spine.state.healthy = how != "no disk"
    assert "no AI tenant" in why(see("umbilical", spine, kernel), Level.YELLOW)


@pytest.mark.parametrize("state", [ServerS.STARTING, ServerS.WARMING, ServerS.PAUSED, ServerS.WAITING, ServerS.STOPPED])
def test_an_ai_on_its_way_or_held_by_the_governor_is_yellow(spine: Any, kernel: Kernel, state: ServerS) -> None:
    ai(spine, state, "its model loads")
    assert why(see("umbilical", spine, kernel), Level.YELLOW) == f"sys://ai is {state.value}: its model loads"


def test_an_ai_that_has_failed_is_red_with_its_reason(spine: Any, kernel: Kernel) -> None:
    ai(spine, ServerS.FAILED, "seccomp: wanted 2, found 0")
    assert why(see("umbilical", spine, kernel)) == "sys://ai has failed: seccomp: wanted 2, found 0"


def test_a_ready_ai_without_a_socket_is_red(spine: Any, kernel: Kernel) -> None:
    ai(spine, ServerS.READY)
    assert "sys://ai is ready, and there is no socket" in why(see("umbilical", spine, kernel))


def test_it_is_green_if_bay0_listens_and_the_ai_answers_from_its_cgroup_and_through_the_forwarder(
    spine: Any, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    ai(spine, ServerS.READY)
    checks(spine, ok=True)
    in_group(monkeypatch, kernel, "/tenants/libpod-7/container")
    with listener(kernel.umbilical):
        assert see("umbilical", spine, kernel) == GREEN


def test_the_forwarder_that_bay0_lent_its_socket_to_is_believed_too(spine: Any, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    ai(spine, ServerS.READY)
    checks(spine, ok=True)
    in_group(monkeypatch, kernel, "/tenants/libpod-7")
    mine = os.getpid()
    monkeypatch.setattr(sockets.os, "getpid", lambda: 1)
    spine.services.owns = lambda name, pid, _group: (name, pid) == ("sys://umbilical", mine)
    with listener(kernel.umbilical):
        assert see("umbilical", spine, kernel) == GREEN


@pytest.mark.parametrize(("group", "alive"), [("/tenants/libpod-70", True), ("/personas/libpod-7", True), ("/", True), ("/tenants/libpod-7", False)])
def test_an_impostor_at_the_ais_own_socket_is_red_and_named(
    spine: Any, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, group: str, alive: bool
) -> None:
    ai(spine, ServerS.READY)
    checks(spine, ok=True)
    in_group(monkeypatch, kernel, group, alive)
    with listener(kernel.umbilical):
        assert f"an impostor answers at {kernel.tenant}: pid 9 (serve)" in why(see("umbilical", spine, kernel))


def test_an_ai_that_does_not_answer_is_red_with_what_the_forwarder_says(spine: Any, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    ai(spine, ServerS.READY)
    with listener(kernel.umbilical):
        assert "the AI does not answer at" in why(see("umbilical", spine, kernel))
        in_group(monkeypatch, kernel, "/tenants/libpod-7")
        checks(spine, ok=False, why="no answer in 5 s")
        assert "through the forwarder: no answer in 5 s" in why(see("umbilical", spine, kernel))


@pytest.mark.parametrize("state", [None, ServerS.READY, ServerS.STOPPED])
def test_an_impostor_on_the_umbilical_is_red_and_named_whatever_the_ai_does(
    spine: Any, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, state: ServerS | None
) -> None:
    if state is not None:
        ai(spine, state)
    monkeypatch.setattr(sockets.os, "getpid", lambda: 1)
    with listener(kernel.umbilical):
        said = why(see("umbilical", spine, kernel))
    assert f"an impostor answers at {kernel.umbilical}: pid " in said
    assert "it is neither bay0 nor its forwarder" in said


def test_a_socket_that_nobody_listens_on_is_red(spine: Any, kernel: Kernel) -> None:
    listener(kernel.umbilical).close()
    assert "nobody answers" in why(see("umbilical", spine, kernel))
    Path(kernel.compositor[0]).touch()
    assert "not ready: nobody answers" in why(see("compositor", spine, kernel))


@pytest.mark.parametrize("which", [0, 1], ids=["wayland", "ipc"])
def test_a_file_where_a_socket_of_the_compositor_would_be_proves_nothing(spine: Any, kernel: Kernel, which: int) -> None:
    with listener(kernel.compositor[which]):
        assert "not ready: an impostor answers" in why(see("compositor", spine, kernel))


def screen(spine: Any, state: screens.S, fault: str = "", frame: str = "") -> None:
    spine.engine.instances[screens.NAME] = SimpleNamespace(now=state, committed=SimpleNamespace(why="for a reason"))
    spine.screen.made = SimpleNamespace(find_fault=lambda: fault, await_frame=lambda resume: resume(frame))


def test_a_machine_without_a_screen_is_green(spine: Any, kernel: Kernel) -> None:
    assert see("compositor", spine, kernel) == GREEN
    screen(spine, screens.S.DARK)
    assert see("compositor", spine, kernel) == GREEN


@pytest.mark.parametrize("state", [s for s in screens.S if s not in (screens.S.DARK, screens.S.READY)])
def test_a_compositor_that_has_not_proved_itself_is_not_ready(spine: Any, kernel: Kernel, state: screens.S) -> None:
    screen(spine, state)
    assert why(see("compositor", spine, kernel), Level.YELLOW) == f"not ready: the screen is {state.value}: for a reason"


def test_a_compositor_that_was_ready_and_whose_socket_is_gone_is_red(spine: Any, kernel: Kernel) -> None:
    screen(spine, screens.S.READY)
    assert "there is no socket" in why(see("compositor", spine, kernel))


def test_a_compositor_that_offers_what_it_must_not_is_red(spine: Any, kernel: Kernel) -> None:
    screen(spine, screens.S.READY, "it offers zwp_linux_dmabuf_v1")
    spine.services.owns = lambda *_: True
    with listener(kernel.compositor[0]), listener(kernel.compositor[1]):
        assert "zwp_linux_dmabuf_v1" in why(see("compositor", spine, kernel))


def test_a_compositor_that_makes_no_frame_is_red_and_one_that_does_is_green(spine: Any, kernel: Kernel) -> None:
    spine.services.owns = lambda *_: True
    with listener(kernel.compositor[0]), listener(kernel.compositor[1]):
        screen(spine, screens.S.READY)
        assert see("compositor", spine, kernel) == GREEN
        screen(spine, screens.S.READY, frame="no frame came in time")
        assert why(see("compositor", spine, kernel)) == "the compositor makes no new picture: no frame came in time"


# ---- the disk


def test_persist_and_log_say_what_they_write_and_when(spine: Any, kernel: Kernel) -> None:
    see("persist", spine, kernel)
    see("log", spine, kernel)
    see("database", spine, kernel)
    (marker, _, said), (line, _, appended), (whole, _, bound) = spine.state.asked
    assert (marker, line, whole) == ("validate_marker", "validate_log", "validate_database")
    assert said["text"].startswith("boot-1 +")
    assert appended["line"].endswith(" ms: validate")
    assert 0 < bound["seconds"] < Bounds().commit / 2, "a commit behind it must not miss its own bound"


@pytest.mark.parametrize(("name", "op"), [("persist", "validate_marker"), ("log", "validate_log"), ("database", "validate_database")])
def test_what_the_worker_cannot_do_is_red_with_its_reason(name: str, op: str, spine: Any, kernel: Kernel) -> None:
    spine.state.answers[op] = Answer(code="fault", why="Is a directory")
    assert why(see(name, spine, kernel)) == "Is a directory"


@pytest.mark.parametrize(("name", "op"), [("persist", "validate_marker"), ("log", "validate_log")])
def test_what_does_not_come_back_as_written_is_red(name: str, op: str, spine: Any, kernel: Kernel) -> None:
    spine.state.answers[op] = Answer(value=False)
    assert why(see(name, spine, kernel)) == "what was written is not what is read back"


def test_a_database_that_takes_too_long_to_look_through_is_yellow(spine: Any, kernel: Kernel) -> None:
    spine.state.answers["validate_database"] = Answer(value=False)
    assert "not looked through in 0.3 s" in why(see("database", spine, kernel), Level.YELLOW)


def test_a_disk_that_keeps_nothing_is_reported_as_degraded_and_what_needs_it_cannot_be_checked(spine: Any, kernel: Kernel) -> None:
    spine.state.healthy, spine.state.storage.now.value = False, "detached"
    assert why(see("persist", spine, kernel)) == "degraded, nothing is kept: storage is detached"
    for name in ("log", "database", "freezer"):
        assert "cannot be checked" in why(see(name, spine, kernel), Level.YELLOW)
    assert spine.state.asked == [], "nothing is asked of a worker that may hang"


# ---- bay0 itself


def test_a_machine_that_is_busy_within_its_deadline_is_no_finding_and_past_it_is(spine: Any, kernel: Kernel) -> None:
    bench = EngineBench()
    bench.engine.add("thing", small())
    bench.engine.send("thing", E.WORK)
    spine.engine = bench.engine
    assert bench.engine.instances["thing"].now is S.WORKING
    bench.engine.instances["thing"].deadline.cancel()  # the timer that should have come, and did not
    bench.timers.advance(10)
    assert see("machines", spine, kernel) == GREEN
    bench.timers.advance(4)
    assert why(see("machines", spine, kernel)) == "thing is working since 14 s, its deadline was 10 s"


def test_patience_moves_the_deadline(spine: Any, kernel: Kernel) -> None:
    bench = EngineBench()
    bench.engine.patience = 3.0
    bench.engine.add("thing", small())
    bench.engine.send("thing", E.WORK)
    bench.engine.instances["thing"].deadline.cancel()
    spine.engine = bench.engine
    bench.timers.advance(30)
    assert see("machines", spine, kernel) == GREEN
    bench.timers.advance(10)
    assert see("machines", spine, kernel).level is Level.RED


def test_a_commit_that_never_ends_is_a_finding(spine: Any, kernel: Kernel) -> None:
    bench = EngineBench(journal=Journal(hold=True))
    bench.engine.add("thing", small())
    bench.engine.send("thing", E.WORK)
    spine.engine = bench.engine
    assert see("machines", spine, kernel) == GREEN
    bench.timers.advance(30)
    assert "thing waits for a commit since 30 s" in why(see("machines", spine, kernel))


def test_a_persona_that_podman_cannot_clear_is_a_finding(spine: Any, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = PersonaBench(monkeypatch)
    bench.running()
    bench.podman.answers.update(remove=[verdict("fault", "podman is broken")] * 9, list=[verdict("fault", "podman is broken")] * 9)
    bench.send(persona.E.STOP, seconds=2)
    assert bench.engine.instances[WORK].now is persona.S.STUCK
    spine.engine = bench.engine
    assert f"{WORK} is stuck:" in why(see("machines", spine, kernel))


def test_of_many_machines_three_are_named(spine: Any, kernel: Kernel) -> None:
    stuck = {"definition": MACHINES["persona"], "now": persona.S.STUCK, "pending": None, "entered_ms": 0}
    step = SimpleNamespace(why="podman is broken")
    spine.engine.instances = {f"p://n{n}": SimpleNamespace(**stuck, committed=step) for n in range(9)}
    said = why(see("machines", spine, kernel))
    assert said.count("podman is broken") == 3
    assert said.endswith("and 6 more")


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [("oom_score_adj", "0\n", "oom_score_adj is 0, not -1000"), ("group", "0::/\n", "its cgroup is /, not /init")],
)
def test_pid_1_without_its_shield_is_red(file: str, text: str, said: str, spine: Any, kernel: Kernel) -> None:
    Path(getattr(kernel, file)).write_text(text)
    assert why(see("pid1", spine, kernel)) == said


def test_no_watchdog_is_yellow_and_one_that_is_not_fed_red(spine: Any, kernel: Kernel) -> None:
    spine.reactor.advance(validate.STALE_FEED_S + 1)
    assert "it was fed 18 s ago" in why(see("watchdog", spine, kernel))
    spine.watchdog.failing = "No such device"
    assert why(see("watchdog", spine, kernel)) == "it cannot be fed: No such device"
    spine.watchdog = Watchdog("/nowhere")
    assert "there is none" in why(see("watchdog", spine, kernel), Level.YELLOW)


def test_a_clock_before_the_image_or_far_behind_it_is_red(spine: Any, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    for wrong in (0.0, now - 2 * HOUR, now + 21 * 365 * 24 * HOUR):
        monkeypatch.setattr(validate.time, "time", lambda wrong=wrong: wrong)
        assert "and the image was built on" in why(see("clock", spine, kernel))


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"source_date_epoch": null}', "\0"])
def test_an_image_that_does_not_say_when_it_was_built_is_yellow(text: str, spine: Any, kernel: Kernel) -> None:
    Path(kernel.manifest).write_text(text)
    assert "is not known" in why(see("clock", spine, kernel), Level.YELLOW)


# ---- the kernel and the image


def test_a_controller_that_is_off_is_red_and_named(spine: Any, kernel: Kernel) -> None:
    Path(f"{kernel.cgroups}/personas/cgroup.subtree_control").write_text("cpu memory\n")
    assert why(see("cgroups", spine, kernel)) == "/personas does not hand on io, pids"


def test_a_group_that_is_missing_or_cannot_be_frozen_is_red(spine: Any, kernel: Kernel) -> None:
    Path(f"{kernel.cgroups}/tenants/cgroup.freeze").unlink()
    Path(f"{kernel.cgroups}/services/cgroup.subtree_control").unlink()
    assert why(see("cgroups", spine, kernel)) == "/services: No such file or directory; /tenants cannot be frozen"


def test_a_kernel_without_psi_is_red_with_the_way_out(spine: Any, kernel: Kernel) -> None:
    Path(f"{kernel.pressure}/memory").unlink()
    assert why(see("psi", spine, kernel)) == f"no pressure of memory in {kernel.pressure}: is psi=1 on the kernel command line?"
    Path(f"{kernel.pressure}/cpu").write_text("")
    assert "cpu, memory" in why(see("psi", spine, kernel))


def test_any_interface_but_lo_is_red(spine: Any, kernel: Kernel) -> None:
    Path(f"{kernel.interfaces}/dummy0").mkdir()
    Path(f"{kernel.interfaces}/dummy0/flags").write_text("0x82\n")
    assert why(see("network", spine, kernel)) == "the spine must have no network: interface dummy0 exists"


def test_a_card_where_the_kernel_makes_them_is_said_while_it_is_down_and_red_when_it_is_up(
    spine: Any, kernel: Kernel
) -> None:
    there = Path(kernel.proc) / "2/net"
    (there / "dev").write_text("\n\n    lo: 0 0\n  eth0: 0 0\n")
    idle = "a network card that nothing uses, and that is down: eth0"
    assert see("network", spine, kernel) == Finding(Level.GREEN, idle)
    (there / "if_inet6").write_text("fe80000000000000505400fffe123456 02 40 20 80     eth0\n")
    up = "the spine must have no network: interface eth0 is up in the kernel's namespace"
    assert why(see("network", spine, kernel)) == up


def test_a_process_where_the_kernel_makes_cards_is_red_and_named(spine: Any, kernel: Kernel) -> None:
    for pid in range(100, 400):  # more than a turn looks at
        made = Path(kernel.proc) / str(pid)
        (made / "ns").mkdir(parents=True)
        (made / "ns/net").symlink_to(Path(kernel.proc) / ("2" if pid == 399 else "1") / "ns/net")
        (made / "comm").write_text("sh\n")
        (made / "stat").write_text(f"{pid} (sh) S 1 0\n")
    assert why(see("network", spine, kernel)) == "in the kernel's network namespace: sh (pid 399)"


def test_a_command_that_is_there_for_a_moment_to_move_a_card_is_fine(spine: Any, kernel: Kernel) -> None:
    made = Path(kernel.proc) / "399"
    (made / "ns").mkdir(parents=True)
    (made / "ns/net").symlink_to(Path(kernel.proc) / "2/ns/net")
    (made / "comm").write_text("ip\n")
    (made / "stat").write_text("399 (ip) S 1 0\n")
    spine.reactor.call_later(A_MOMENT_S / 2, (made / "ns/net").unlink)
    assert see("network", spine, kernel).level is Level.GREEN


def test_a_kernels_namespace_that_cannot_be_seen_is_yellow(spine: Any, kernel: Kernel) -> None:
    (Path(kernel.proc) / "2/net/dev").unlink()
    said = f"the kernel's network namespace cannot be seen: {kernel.proc}/2/net/dev: No such file or directory"
    assert why(see("network", spine, kernel), Level.YELLOW) == said


def test_a_network_that_cannot_be_looked_for_is_yellow_and_not_green(spine: Any, kernel: Kernel) -> None:
    Path(f"{kernel.interfaces}/lo").rmdir()
    Path(kernel.interfaces).rmdir()
    said = f"whether there is a network cannot be seen: {kernel.interfaces}: No such file or directory"
    assert why(see("network", spine, kernel), Level.YELLOW) == said


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("21 1 0:19 / / rw,relatime - ext4 /dev/vdb rw", "writable: /"),
        ("30 21 0:50 / /usr/bin rw - tmpfs none rw", "writable: /usr/bin"),
        ("30 21 0:50 / /persistence rw - tmpfs none rw", "writable: /persistence"),
    ],
)
def test_a_writable_root_or_a_hole_in_it_is_red(line: str, said: str, spine: Any, kernel: Kernel) -> None:
    Path(kernel.mounts).write_text(MOUNTS + line + "\n")
    assert why(see("root", spine, kernel)) == said


@pytest.mark.parametrize(
    "line", ["30 21 0:50 / /usr/bin ro - tmpfs none rw", "30 21 0:50 / /usr/bin rw - squashfs none ro", "30 21 0:5 / /run/x rw - tmpfs n rw"]
)
def test_what_is_read_only_either_way_or_where_it_may_be_written_is_no_hole(line: str, spine: Any, kernel: Kernel) -> None:
    Path(kernel.mounts).write_text(MOUNTS + line + "\n")
    assert see("root", spine, kernel) == GREEN


def test_a_kernel_that_lists_no_root_is_not_believed(spine: Any, kernel: Kernel) -> None:
    Path(kernel.mounts).write_text("")
    assert see("root", spine, kernel).level is Level.YELLOW


def test_the_real_paths_are_the_kernels_own() -> None:
    assert evolve(Kernel()).pressure == "/proc/pressure"
    assert os.path.exists(Kernel().mounts)
