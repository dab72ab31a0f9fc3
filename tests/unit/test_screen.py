"""Seat and compositor as machines: a real spine, the image's own sway with its headless backend, and a listener in seatd's place."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bootkit import Machine
from kit import BUILT_ROOT, Log, Timers, in_child, not_built

from bay0.base.errors import RefusedError
from bay0.machines import boot, tenant
from bay0.machines.screen import NAME, S
from bay0.screen import bar as bars
from bay0.screen import config, port
from bay0.screen.places import COMPOSITOR, SEAT, Places
from bay0.screen.watch import CONSOLE, LOOK_EVERY_S, NONE, OFF, ScreenWatch
from bay0.tenants import port as services
from bay0.tenants.port import ServiceSpec

NOBODY = 65534
# listens where seatd would, and does nothing else
SEATD = "import socket,sys,time; s=socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(9); time.sleep(1e6)"
# forks: the child has both sockets, so that who answers is not who was started
IMPOSTOR = """
import os, socket, sys, time
if os.fork():
    time.sleep(1e6)
for name in ("wayland-1", "ipc"):
    globals()[name] = s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1] + "/" + name); s.listen(9)
time.sleep(1e6)
"""
_SAYS = 'exec "$@" >&3 2>&3 3>&-'


def words(*argv: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", _SAYS, "sh", *argv)


class Screened:
    """A machine with a screen, booted. For use inside `in_child`."""

    def __init__(self, top: Path, compositor: tuple[str, ...] | None = None, seat: tuple[str, ...] | None = None) -> None:
        services.BACK_OFF_S = (0.05, 0.05, 0.1)
        port.BEAT_S = 0.3
        self.machine = Machine(top, compositor=3.0)
        self.uid = NOBODY if os.getuid() == 0 else os.getuid()
        run = top / "screen"
        (run / "run").mkdir(parents=True)
        os.chown(run / "run", self.uid, -1)
        os.chmod(run / "run", 0o700)
        libraries = BUILT_ROOT / "usr/lib/x86_64-linux-gnu"
        lower = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups") if os.getuid() == 0 else ()
        sway = (
            "/bin/sh", "-c", f'rm -rf "$HOME"/*; {_SAYS}', "sh", *lower, str(BUILT_ROOT / "lib64/ld-linux-x86-64.so.2"), "--library-path",
            str(libraries), str(BUILT_ROOT / "usr/bin/sway"), "--config", str(run / "config"),
        )  # fmt: skip
        more = {
            "WLR_BACKENDS": "headless", "LIBSEAT_BACKEND": "noop", "XKB_CONFIG_ROOT": str(BUILT_ROOT / "usr/share/X11/xkb")
        }  # fmt: skip
        self.places = Places(
            run=str(run), seatd=str(top / "seatd.sock"), seat_uid=os.getuid(), uid=self.uid, gid=os.getgid(),
            seat_argv=seat or words(sys.executable, "-c", SEATD, str(top / "seatd.sock")), compositor_argv=compositor or sway,
            terminal=str(top / "no-terminal"), udev=str(top / "udev"), more=more, private=False,
        )  # fmt: skip
        self.spine = self.machine.boot("bay0.screen=on", cards=lambda: ["card0"], screen=self.places)

    @property
    def state(self) -> S | None:
        live = self.spine.engine.instances.get(NAME)
        return live.now if live is not None else None  # type: ignore[return-value]

    def pid(self, name: str) -> int | None:
        return self.spine.services.pid(name)

    def until(self, true: Any, what: str) -> None:
        self.machine.turn_until(self.spine, true, f"{what}; the screen is {self.state}")

    def until_ready(self, other_than: int | None = None) -> int:
        self.until(lambda: self.state is S.READY and self.pid(COMPOSITOR) not in (None, other_than), "a screen that is ready")
        pid = self.pid(COMPOSITOR)
        assert pid is not None
        return pid

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in Path(self.spine.sinks.file.path).read_text().splitlines()]

    def events(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.log() if line["event"] == event]

    def describe(self) -> dict[str, Any]:
        told: list[Any] = []
        self.spine.control.methods["screen"]({}, told.append)
        self.until(lambda: told, "an answer")
        return told[0]  # type: ignore[no-any-return]


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """One that another user may enter, by a path that is short enough for a socket's name."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@pytest.fixture(autouse=True)
def _built(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("built") and not (BUILT_ROOT / "usr/bin/sway").is_file():
        not_built("no image with sway is built")


@pytest.mark.built
@in_child
def test_a_screen_is_ready_once_the_compositor_that_was_started_answers(tmp_path: Path) -> None:
    screen = Screened(tmp_path)
    pid = screen.until_ready()
    found = screen.describe()
    assert (found["state"], found["compositor"]["pid"], found["seat"]["state"]) == ("ready", pid, "running")
    assert [(each["path"], each["proved"], each["pid"]) for each in found["sockets"]] == [
        (screen.places.wayland, True, pid), (screen.places.ipc, True, pid)
    ]  # fmt: skip
    assert found["globals"] == 47
    assert [(each["name"], each["on"]) for each in found["outputs"]] == [("HEADLESS-1", True)]
    assert os.stat(screen.places.config).st_uid == os.getuid()


@pytest.mark.built
@in_child
def test_a_compositor_that_dies_or_hangs_is_begun_anew_and_so_are_both_when_the_seat_dies(tmp_path: Path) -> None:
    screen = Screened(tmp_path)
    first = screen.until_ready()
    os.kill(first, signal.SIGKILL)
    second = screen.until_ready(first)
    os.kill(second, signal.SIGSTOP)
    third = screen.until_ready(second)
    (said,) = [line["why"] for line in screen.events("the compositor does not answer")]
    assert re.fullmatch("no answer on its (Wayland|IPC) socket in 3 s", said)
    seat = screen.pid(SEAT)
    assert seat is not None
    os.kill(seat, signal.SIGKILL)
    screen.until_ready(third)
    assert screen.pid(SEAT) not in (None, seat)
    steps = [line["by"] for line in screen.events("step") if line["machine"] == NAME]
    assert {"gone", "silent", "unseated"} <= set(steps)


@pytest.mark.built
@in_child
def test_the_compositor_is_stopped_before_its_seat(tmp_path: Path) -> None:
    screen = Screened(tmp_path)
    screen.until_ready()
    screen.spine.engine.send(screen.spine.boot.name, boot.E.POWEROFF, "asked", how="poweroff")
    screen.until(lambda: screen.machine.powered, "power")
    ended = [line["service"] for line in screen.events("service ended") if line["service"] in (SEAT, COMPOSITOR)]
    assert ended == [COMPOSITOR, SEAT]
    steps = [(line["machine"], line["dest"]) for line in screen.events("step")]
    assert steps.index((COMPOSITOR, "stopped")) < steps.index((SEAT, "stopping"))
    assert screen.state is S.DARK


@pytest.mark.built
@in_child
def test_the_boot_after_a_crash_has_a_screen_again_and_one_without_a_card_has_none(tmp_path: Path) -> None:
    screen = Screened(tmp_path)
    first = screen.until_ready()
    screen.until(lambda: screen.spine.state.healthy and not screen.spine.state.memory, "the step is on the disk")
    screen.machine.crash(screen.spine)
    assert screen.machine.stored()[NAME] == "ready"
    screen.spine = screen.machine.boot("bay0.screen=on", "22222222-bbbb", cards=lambda: ["card0"], screen=screen.places)
    assert screen.until_ready() != first
    steps = [(line["machine"], line["source"], line["dest"]) for line in screen.events("step")]
    assert (NAME, "ready", "dark") in steps, "what an earlier boot left is converged before"
    screen.machine.crash(screen.spine)
    dark = screen.machine.boot("bay0.screen=on", "33333333-cccc", screen=screen.places)
    screen.machine.turn_until(dark, lambda: dark.boot.now is boot.S.COMPLETE and dark.replay.known)
    screen.machine.turn_until(dark, lambda: all(live.now is S.DARK for live in dark.engine.of_kind("screen")), "a screen that is dark")
    assert dark.screen.made is None


@in_child
def test_a_tenant_that_another_needs_is_stopped_after_it_however_long_that_takes(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    slow = ServiceSpec(("/bin/sh", "-c", "trap 'sleep 0.3; exit' TERM HUP; while :; do sleep 0.05; done"), needs=("sys://base",))
    spine = machine.boot(services=lambda _words: {"sys://base": ServiceSpec(("sleep", "100")), "sys://upper": slow})
    running = tenant.S.RUNNING
    both = lambda: [live.now for live in spine.engine.of_kind("tenant")]
    machine.turn_until(spine, lambda: both() == [running] * 2, "both run")
    spine.engine.send(spine.boot.name, boot.E.POWEROFF, "asked", how="poweroff")
    machine.turn_until(spine, lambda: machine.powered, "power")
    lines = [json.loads(line) for line in Path(spine.sinks.file.path).read_text().splitlines()]
    assert [line["service"] for line in lines if line["event"] == "service ended"] == ["sys://upper", "sys://base"]


@in_child
def test_who_answers_for_the_compositor_and_is_not_it_is_refused_and_the_screen_is_not_ready(tmp_path: Path) -> None:
    run = tmp_path / "screen/run"
    screen = Screened(tmp_path, words(sys.executable, "-c", IMPOSTOR, str(run)))
    screen.until(lambda: len(screen.events("an impostor is refused: not ready")) == 2, "both impostors named")
    found = screen.describe()
    assert (found["state"], found["impostors"], found["globals"]) == ("proving", 2, None)
    assert [each["proved"] for each in found["sockets"]] == [False, False]


@in_child
def test_a_seat_that_somebody_else_answers_for_is_not_used(tmp_path: Path) -> None:
    """The process that was started as seatd sleeps; another one listens in its place."""
    seat = words("/bin/sh", "-c", f"{sys.executable} -c '{SEATD}' {tmp_path}/seatd.sock & exec sleep 1000")
    screen = Screened(tmp_path, ("/bin/sleep", "1000"), seat=seat)
    screen.until(lambda: screen.events("an impostor is refused: not ready"), "the impostor named")
    assert (screen.state, screen.pid(COMPOSITOR)) == (S.SEATING, None)
    assert len(screen.events("an impostor is refused: not ready")) == 1, "said once"


@in_child
def test_a_machine_without_a_screen_loads_nothing_of_it(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    spine = machine.boot()
    machine.turn_until(spine, lambda: spine.boot.now is boot.S.COMPLETE)
    told: list[Any] = []
    spine.control.methods["screen"]({"wait": 60}, told.append)
    assert told[0]["state"] == "dark", "it is answered at once"
    assert told[0]["why"] == NONE
    assert spine.screen.made is None
    assert not {SEAT, COMPOSITOR, NAME} & spine.engine.instances.keys()


@in_child
def test_a_machine_without_a_screen_is_described_by_the_same_keys_as_one_with_a_screen(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    spine = machine.boot()
    machine.turn_until(spine, lambda: spine.boot.now is boot.S.COMPLETE)
    told: list[dict[str, Any]] = []
    spine.control.methods["screen"]({}, told.append)
    assert told[0].keys() == spine.screen_watch.methods().describe().keys()


class Deaf:
    """An engine that tells nobody anything."""

    def on(self, *_: Any, **__: Any) -> None:
        pass


@pytest.mark.parametrize(
    ("word", "tty", "why"),
    [("off", None, OFF), ("auto", "/dev/tty1", CONSOLE), ("auto", "/dev/ttyS0", ""), ("on", "/dev/tty1", ""), ("auto", None, "")],
)  # fmt: skip
def test_a_screen_is_left_to_the_consoles_shell_that_is_on_it_unless_asked(word: str, tty: str | None, why: str) -> None:
    watch = ScreenWatch(Deaf(), None, None, None, None, None, word, lambda: tty, lambda: ["card0"])  # type: ignore[arg-type]
    assert watch.why_not() == why


def test_a_screen_whose_part_of_the_program_cannot_be_loaded_now_is_tried_again_and_asked_for_in_vain_meanwhile() -> None:
    """No descriptor may be free for a moment: that must not end PID 1."""
    timers, begun, told, broken = Timers(), [], [], [True]
    part = SimpleNamespace(begin=lambda: begun.append(1), show=lambda _wait, reply: reply("shown"))

    class Part:
        def load(self, later: Any, done: Any) -> None:
            later(lambda: done(None))

        def __call__(self) -> Any:
            if broken[0]:
                raise RefusedError("no descriptor is left")
            return part

    instance = SimpleNamespace(now=boot.S.COMPLETE)
    watch = ScreenWatch(Deaf(), timers, Log(), instance, Part(), Part(), "on", lambda: None, lambda: ["card0"])  # type: ignore[arg-type]
    watch._look()
    watch.show({"wait": 5}, told.append)
    timers.advance(1.0)
    assert begun == []
    assert isinstance(told[0], RefusedError)
    broken[0] = False
    timers.advance(LOOK_EVERY_S)
    assert begun == [1]


# ---- the bar


def test_the_bar_is_told_in_lines_that_are_json_and_no_markup() -> None:
    assert json.loads(bars.HEADER.splitlines()[0]) == {"version": 1}
    line = bars.line(bars.in_front("p://<b>work</b>"))
    assert line.endswith(",\n")
    blocks = json.loads(line[:-2])
    assert blocks[-1]["full_text"].strip() == "p://<b>work</b>"
    assert {each["markup"] for each in blocks} == {"none"}
    assert json.loads(bars.line(bars.in_front(None))[:-2])[-1]["full_text"].strip() == "no persona is in front"


def test_a_bar_that_nobody_reads_costs_a_line_and_never_a_wait(tmp_path: Path) -> None:
    places = Places(run=str(tmp_path), gid=os.getgid(), private=False)
    config.prepare(places)
    bar, written = bars.Bar(), 0
    bar.begin(places)
    while bar.write(bars.line(bars.in_front("p://work"))):
        written += 1
        assert written < 100_000
    assert written
    assert not bar.write("x" * (bars.ROWS_MAX + 1))
    bar.close()
    bar.say("p://work", ())  # harmless


def test_what_is_in_the_place_of_configuration_or_bar_is_replaced_and_not_followed(tmp_path: Path) -> None:
    places = Places(run=str(tmp_path / "run"), gid=os.getgid(), private=False)
    (tmp_path / "run").mkdir()
    (tmp_path / "precious").write_text("kept")
    for path in (places.config, places.bar):
        os.symlink(tmp_path / "precious", path)
    config.prepare(places)
    assert (tmp_path / "precious").read_text() == "kept"
    assert not os.path.islink(places.config)
    assert "xwayland disable" in Path(places.config).read_text()


def test_tenants_that_others_need_are_known() -> None:
    found = services.Services(None, None, None, None, None)  # type: ignore[arg-type]
    found.specs = {SEAT: ServiceSpec(("x",)), COMPOSITOR: ServiceSpec(("y",), needs=(SEAT,))}
    assert (found.users(SEAT), found.users(COMPOSITOR)) == ([COMPOSITOR], [])
