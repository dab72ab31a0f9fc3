"""A screen in the spine: the real seatd and sway on QEMU's graphics card, who answers for them, their deaths, and what is to be seen.

One boot. The processes are judged by what the kernel says of them, the picture by QEMU's own screendump.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from typing import Any

import harness
import pytest
from harness import Vm

sys.path.insert(0, os.path.join(harness.TOP, "scripts", "lib"))
sys.path.insert(0, os.path.join(harness.TOP, "tests", "shared"))
import counting
import screenshot

pytestmark = pytest.mark.vm

HOME = "/run/compositor/run"
COUNTER = os.path.join(harness.TOP, "build", "persona-counter.tar")  # scripts/mkcounter.sh
VERB_S = 120
COLOURS = {"play": (0x20, 0x30, 0xA0), "work": (0xA0, 0x30, 0x20)}  # of their windows; in the order of the keys 1 and 2
READY_S = 120  # of a start, before the machine's slowness
PROVED_S = 30  # the deadline of a proof, before bay0's patience
BACKGROUND, BAR = (0x24, 0x31, 0x3F), (0x14, 0x1B, 0x23)  # of the configuration that bay0 writes
TITLE_Y = 40  # a row of the picture: in a window's title, below the bar
ROGUE = (0x30, 0xA0, 0x20)  # the colour of one that asks for what is not its own
BURNS_US = 500_000  # of processor time in a second: more than that, of the one in front
# an impostor as one who is root could be: podman's API server listens where it is told to
IMPOSTOR = "(podman system service --time=0 unix://{0} >/dev/null 2>&1 & echo $! >/tmp/impostor); until [ -S {0} ]; do sleep 0.1; done"


@pytest.fixture(scope="module")
def spine(folder: str) -> Iterator[Vm]:
    disk, images = f"{folder}/persist.img", ("--image", COUNTER) if os.path.isfile(COUNTER) else ()
    harness.tool("bash", harness.MKPERSIST, "--size", "256M", *images, disk)
    with harness.vm(disk, options=("--screen",)) as machine:
        machine.wait_console(harness.COMPLETE)
        machine.wait_durable()
        yield machine


def screen(spine: Vm, wait: float = 0) -> dict[str, Any]:
    found: dict[str, Any] = spine.call("screen", wait + harness.CALL_S, wait=wait)
    return found


def ready(spine: Vm, other_than: int | None = None, bound_s: float = READY_S) -> dict[str, Any]:
    """Wait until a compositor is ready, another one than the process named."""

    def look() -> dict[str, Any] | None:
        found = screen(spine, 30)
        return found if found["state"] == "ready" and found["compositor"]["pid"] != other_than else None

    found: dict[str, Any] = harness.until(look, bound_s, "a screen that is ready")
    return found


def facts(spine: Vm, pid: int) -> dict[str, str]:
    lines = spine.out(f"cat /proc/{pid}/status").splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def picture(spine: Vm, folder: str) -> tuple[int, int, bytes]:
    path = f"{folder}/screen.ppm"
    spine.qmp("screendump", filename=path)
    with open(path, "rb") as file:
        return screenshot.pixels(file.read())


def pixel(shown: tuple[int, int, bytes], x: int, y: int) -> tuple[int, ...]:
    width, _height, body = shown
    at = 3 * (y * width + x)
    return tuple(body[at : at + 3])


def is_ours(shown: tuple[int, int, bytes]) -> bool:
    """Tell whether the picture is the compositor's: its bar at the top, its background below, and not the kernel's console."""
    width, height, _body = shown
    return pixel(shown, 3, 3) == BAR and {pixel(shown, x, y) for x in (5, width // 2, width - 5) for y in (height // 2, height - 5)} == {BACKGROUND}


def press(spine: Vm, *keys: str) -> None:
    spine.qmp("send-key", keys=[{"type": "qcode", "data": key} for key in keys])


def test_the_compositor_is_ready_with_just_what_it_may_offer_on_an_output_of_the_card(spine: Vm) -> None:
    found = ready(spine)
    assert (found["globals"], found["impostors"], found["console_taken"]) == (47, 0, True)
    assert [each["proved"] for each in found["sockets"]] == [True, True]
    assert [(each["name"], each["on"]) for each in found["outputs"]] == [("Virtual-1", True)]
    kinds = {each["name"]: each["kinds"] for each in found["inputs"]}
    assert "keyboard" in kinds["QEMU Virtio Keyboard"]
    assert kinds["QEMU Virtio Tablet"] == ["mouse"]


def test_the_compositor_has_no_rights_no_way_to_gain_any_and_a_limit_of_memory(spine: Vm) -> None:
    pid = ready(spine)["compositor"]["pid"]
    found = facts(spine, pid)
    assert (found["Name"], found["Uid"].split(), found["Gid"].split(), found["Groups"]) == ("sway", ["100"] * 4, ["100"] * 4, "")
    assert [found[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")] == ["0" * 16] * 5
    assert found["NoNewPrivs"] == "1"
    assert spine.out(f"cat /proc/{pid}/cgroup") == "0::/services/compositor"
    assert spine.out("cat /sys/fs/cgroup/services/compositor/memory.max") == str(256 << 20)
    names = spine.out(f"tr '\\0' '\\n' </proc/{pid}/environ | sed 's/=.*//' | sort").split()
    assert names == sorted({
        "PATH", "HOME", "LANG", "PWD", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "LIBSEAT_BACKEND", "SEATD_SOCK", "WLR_RENDERER",
        "WLR_LIBINPUT_NO_DEVICES", "SWAYSOCK",
    })  # fmt: skip
    assert "mesa" not in (maps := spine.out(f"cat /proc/{pid}/maps").lower())
    assert "wlroots" in maps


def test_the_compositor_sees_nothing_of_the_personas_disk_and_a_file_of_it_is_no_way_there(spine: Vm) -> None:
    pid = ready(spine)["compositor"]["pid"]
    assert spine.out("ls /persist")
    assert spine.out(f"ls -A /proc/{pid}/root/persist") == ""
    shown = spine.out(f"grep ' /persist' /proc/{pid}/mountinfo").splitlines()
    assert len(shown) == 1
    assert " - tmpfs " in shown[0]


def test_the_screen_shows_bar_and_background_and_not_the_kernels_console(spine: Vm, folder: str) -> None:
    ready(spine)
    harness.until(lambda: is_ours(picture(spine, folder)), READY_S, "bar and background on the screen")


def test_no_key_reaches_the_kernels_console(spine: Vm) -> None:
    """A passphrase that is typed into a window would be read there, too."""
    ready(spine)
    spine.out("timeout 100 cat /dev/tty1 >/tmp/keys 2>&1 & echo $! >/tmp/reader; until [ -e /proc/$(cat /tmp/reader)/fd/0 ]; do sleep 0.1; done")
    for key in ("s", "e", "c", "r", "e", "t", "ret"):
        press(spine, key)
    ready(spine)  # the keys have gone through the compositor's loop before it answers
    spine.out("sleep 2; kill $(cat /tmp/reader)")
    assert spine.out("cat /tmp/keys") == ""
    asked = spine.out("bay0 screen")
    assert "ready: both its sockets are answered by the process that was started" in asked


def test_validation_is_green_and_the_doctor_has_nothing_to_say_of_the_screen(spine: Vm) -> None:
    ready(spine)
    found = spine.call("validate", 60, only=["compositor"])
    assert (found["verdict"], found["checks"][0]["why"]) == ("green", "")
    assert "compositor" not in spine.sh("bay0 doctor").stdout


@pytest.mark.full  # the default tier kills it with windows on it, below
def test_a_compositor_that_is_killed_comes_back_by_itself_and_the_state_is_told(spine: Vm, folder: str) -> None:
    before, told = ready(spine)["compositor"]["pid"], len(spine.console)
    spine.out(f"kill -9 {before}")
    found = ready(spine, before)
    assert found["seat"]["state"] == "running"
    spine.wait_console("screen: ready -> absent: the compositor has ended: it ended: signal 9", after=told)
    harness.until(lambda: is_ours(picture(spine, folder)), READY_S, "the new one's bar, with its first line")


@pytest.mark.full
def test_a_compositor_that_hangs_is_begun_anew(spine: Vm) -> None:
    before, told = ready(spine)["compositor"]["pid"], len(spine.console)
    spine.out(f"kill -STOP {before}")
    ready(spine, before)
    spine.wait_console("screen: ready -> ending: it does not answer: no answer on its", after=told)
    assert spine.sh(f"test -d /proc/{before}").status != 0, "the one that hung is gone"


@pytest.mark.full
def test_both_come_back_when_the_seat_is_killed(spine: Vm) -> None:
    before, told = ready(spine), len(spine.console)
    spine.out(f"kill -9 {before['seat']['pid']}")
    found = ready(spine, before["compositor"]["pid"])
    assert found["seat"]["pid"] not in (None, before["seat"]["pid"])
    spine.wait_console("screen: [a-z]+ -> seating: seatd has ended", after=told)


@pytest.mark.full  # test_vm_validate.py has an impostor in the default tier
@pytest.mark.parametrize("name", ["wayland-1", "ipc"])
def test_an_impostor_at_a_socket_is_red_and_the_compositor_that_comes_next_has_it_back(spine: Vm, name: str) -> None:
    """He replaces the socket of one that is ready: whoever looks by the path finds him, bay0's own connections are to the other."""
    before, path = ready(spine)["compositor"]["pid"], f"{HOME}/{name}"
    spine.out(f"rm {path}; {IMPOSTOR.format(path)}")
    try:
        found = spine.call("validate", 60, only=["compositor"])
        assert found["verdict"] == "red"
        assert f"not ready: an impostor answers at {path}: pid {spine.out('cat /tmp/impostor')} (podman)" in found["checks"][0]["why"]
        spine.out(f"kill -9 {before}")
        ready(spine, before)
        assert spine.call("validate", 60, only=["compositor"])["verdict"] == "green", "its directory is a new one"
    finally:
        spine.out("kill -9 $(cat /tmp/impostor)")


@pytest.mark.full
def test_an_impostor_who_is_there_before_the_compositor_listens_is_named_and_never_used(spine: Vm) -> None:
    """He takes the place while the new compositor is being loaded, and holds the lock that makes it take another name."""
    before = ready(spine)["compositor"]["pid"]
    path = f"{HOME}/wayland-1"
    told = f"an impostor is refused.*{path}"
    spine.out(
        f"kill -9 {before}; until [ ! -e {path} ] && [ -d {HOME} ]; do sleep 0.05; done; exec 8>{path}.lock; flock 8; "
        f"{IMPOSTOR.format(path)}; until bay0 log | grep -q '{told}'; do sleep 1; done; exec 8>&-"
    )
    assert screen(spine)["state"] == "proving"
    found = ready(spine, before, PROVED_S * harness.patience() + READY_S)
    assert found["impostors"] >= 1
    spine.out("kill -9 $(cat /tmp/impostor) || true")


# ---- windows of personas


@pytest.fixture(scope="module")
def desks(spine: Vm) -> Vm:
    """Two personas with a window each, whose programs count as fast as the processor lets them."""
    if spine.sh("test -f /persist/images/persona-counter.tar").status != 0:
        harness.skip_or_fail("no image of the sample persona `counter` was there for the disk: scripts/mkcounter.sh")
    ready(spine)
    spine.out("bay0 image load /persist/images/persona-counter.tar", VERB_S)
    for name, colour in COLOURS.items():
        words = ", ".join(f'"{word}"' for word in ("counter", "--every", "0", "--colour", "{:02x}{:02x}{:02x}".format(*colour)))
        spine.create(name, f'image = "localhost/counter:1"\ncommand = [{words}]\nscreen = true\nmemory = "64M"\npids = 8\n')
        spine.act("start", name, VERB_S)
    harness.until(lambda: all(each["windows"] == 1 for each in screen(spine)["personas"]), READY_S, "a window of each")
    return spine


def used_us(spine: Vm, name: str) -> int:
    group = f"/sys/fs/cgroup/personas/libpod-{spine.show(name)['container']}"
    return int(spine.out(f"sed -n 's/^usage_usec //p' {group}/cpu.stat"))


def in_front(spine: Vm, folder: str, name: str) -> None:
    """Wait until the window of `name` is on the screen, as QEMU sees it, and say that bay0 knows it."""
    shown = {"p://" + each: each == name for each in COLOURS}
    harness.until(lambda: {each["name"]: bool(each["visible"]) for each in screen(spine)["personas"]} == shown, READY_S, f"{name} in front")

    def look() -> bool:
        found = picture(spine, folder)
        return {pixel(found, x, found[1] - 12) for x in (12, found[0] // 2, found[0] - 12)} == {COLOURS[name]}

    harness.until(look, READY_S, f"the colour of {name}")


def stands(spine: Vm, name: str) -> None:
    """See that a persona that is behind is frozen, and uses nothing in the second after."""
    harness.until(lambda: spine.show(name)["state"] == "paused", READY_S, f"{name} is paused")
    before = used_us(spine, name)
    spine.out("sleep 1")
    assert used_us(spine, name) - before == 0


def test_a_window_is_not_seen_before_its_persona_is_in_front(desks: Vm, folder: str) -> None:
    assert screen(desks)["front"] is None
    assert is_ours(picture(desks, folder))


def test_a_switch_shows_one_persona_and_freezes_the_other(desks: Vm, folder: str) -> None:
    for name, behind in (("play", "work"), ("work", "play")):
        assert desks.json(f"bay0 focus {name} --json", VERB_S)["left"] == []
        in_front(desks, folder, name)
        stands(desks, behind)
        used = used_us(desks, name)
        desks.out("sleep 1")
        assert used_us(desks, name) > used, "its window goes on"
    assert "gpu detach" in (told := desks.out("bay0 log"))
    assert "it goes on without" not in told


def test_a_key_switches(desks: Vm, folder: str) -> None:
    desks.call("focus", VERB_S, name="p://work")
    in_front(desks, folder, "work")
    press(desks, "meta_l", "1")
    in_front(desks, folder, "play")
    stands(desks, "work")
    press(desks, "meta_l", "tab")
    in_front(desks, folder, "work")
    stands(desks, "play")


def counts(spine: Vm, folder: str) -> dict[str, int]:
    """Return the counts in one picture of the screen, by the persona whose colour the window has."""
    names = {"{:02x}{:02x}{:02x}".format(*colour): name for name, colour in COLOURS.items()}
    return {names[each.colour]: each.count for each in counting.counters(*picture(spine, folder))}


def in_a_second(spine: Vm) -> dict[str, int]:
    """Return the processor time that each persona takes in the second from now on, in µs."""
    groups = {name: spine.show(name)["container"] for name in COLOURS}
    look = "; ".join(f"grep usage_usec /sys/fs/cgroup/personas/libpod-{group}/cpu.stat" for group in groups.values())
    used = [int(line.split()[1]) for line in spine.out(f"{look}; sleep 1; {look}").splitlines()]
    return {name: used[len(groups) + at] - used[at] for at, name in enumerate(groups)}


def one_more(spine: Vm, folder: str, name: str, behind: str, than: int | None) -> int:
    """Wait until the count of `name` is another one than `than`; return it. Nothing is to be seen of the one `behind` meanwhile."""

    def look() -> list[int]:
        found = counts(spine, folder)
        assert behind not in found, f"a picture of {behind}, which is behind"
        return [found[name]] if found.get(name, than) != than else []

    shown: list[int] = harness.until(look, READY_S, f"the count of {name} goes on from {than}")
    return shown[0]


def burns(spine: Vm, name: str) -> None:
    """Wait for a second, up to now, in which `name` takes more than half of the processor."""
    harness.until(lambda: in_a_second(spine)[name] > BURNS_US, READY_S, f"{name} burns", 0)


def switch(spine: Vm, folder: str, name: str, behind: str, than: int | None) -> int:
    """After a switch was asked for: see that `name` counts on from `than`, and that `behind` stands; return the last count seen."""
    harness.until(lambda: name in counts(spine, folder), READY_S, f"{name} on the screen", 0)
    shown = one_more(spine, folder, name, behind, than)
    harness.until(lambda: spine.show(behind)["state"] == "paused", READY_S, f"{behind} is paused", 0)
    assert in_a_second(spine)[behind] == 0
    return one_more(spine, folder, name, behind, shown)


@pytest.mark.parametrize("switches", [6, pytest.param(20, marks=pytest.mark.full)])
def test_each_switch_stops_the_one_behind_and_the_one_in_front_counts_on(desks: Vm, folder: str, switches: int) -> None:
    """By key and by command in turn. What burned until then takes nothing from then on, and no picture shows it again."""
    name, behind = "play", "work"
    desks.call("focus", VERB_S, name="p://play")
    in_front(desks, folder, name)
    last: dict[str, int | None] = {"work": None, "play": one_more(desks, folder, name, behind, None)}
    for number in range(switches):
        burns(desks, name)
        name, behind = behind, name
        if number % 2:
            desks.out(f"bay0 focus {name}", VERB_S)
        else:
            press(desks, "meta_l", str(1 + list(COLOURS).index(name)))
        last[name] = switch(desks, folder, name, behind, last[name])


def test_one_that_is_paused_in_front_is_off_the_screen_and_comes_back(desks: Vm, folder: str) -> None:
    desks.call("focus", VERB_S, name="p://work")
    in_front(desks, folder, "work")
    assert desks.act("pause", "work", VERB_S)["state"] == "paused"
    stands(desks, "work")
    harness.until(lambda: is_ours(picture(desks, folder)), READY_S, "an empty screen")
    desks.act("resume", "work", VERB_S)
    in_front(desks, folder, "work")


def test_a_keyboard_that_is_plugged_in_types_and_one_that_is_unplugged_is_gone(desks: Vm, folder: str) -> None:
    """Without a restart of the compositor. QEMU sends keys to the keyboard that came last, and the kernel's node of it says that it does."""
    desks.call("focus", VERB_S, name="p://work")
    in_front(desks, folder, "work")
    before, pid = nodes(desks), ready(desks)["compositor"]["pid"]
    desks.qmp("device_add", driver="virtio-keyboard-pci", id="another")
    (node,) = harness.until(lambda: nodes(desks) - before, READY_S, "bay0 knows of the keyboard")
    reads = f"timeout 300 head -c 24 /dev/input/{node} >/tmp/key"  # one struct input_event
    desks.out(f"{reads} 2>/dev/null & until [ -e /proc/$!/fd/1 ]; do sleep 0.1; done; sleep 0.5")
    press(desks, "f")
    harness.until(lambda: is_full(picture(desks, folder), "work"), READY_S, "the program of the one in front has heard the key")
    assert desks.out("stat -c %s /tmp/key") == "24", "the key came from the new keyboard"
    desks.qmp("device_del", id="another")
    harness.until(lambda: nodes(desks) == before, READY_S, "bay0 knows that it is gone")
    press(desks, "f")
    harness.until(lambda: not is_full(picture(desks, folder), "work"), READY_S, "a key of the old one is heard again")
    in_front(desks, folder, "work")
    assert ready(desks)["compositor"]["pid"] == pid


def is_full(shown: tuple[int, int, bytes], name: str) -> bool:
    """Tell whether the window of `name` has the screen, without a title, below the bar."""
    return pixel(shown, 5, TITLE_Y) == COLOURS[name]


def nodes(spine: Vm) -> set[str]:
    return {each["node"] for each in screen(spine)["inputs"]}


def test_an_output_goes_away_and_comes_back_and_the_personas_live_on(desks: Vm, folder: str) -> None:
    desks.call("focus", VERB_S, name="p://work")
    in_front(desks, folder, "work")
    pid, status = ready(desks)["compositor"]["pid"], "/sys/class/drm/card0-Virtual-1/status"
    desks.out(f"echo off >{status}")
    harness.until(lambda: not screen(desks)["outputs"], READY_S, "no output is left")
    assert "none is connected" in desks.out("bay0 screen")
    assert desks.show("work")["state"] == "running"
    desks.call("focus", VERB_S, name="p://play")
    stands(desks, "work")
    desks.out(f"echo detect >{status}")
    harness.until(lambda: [each["name"] for each in screen(desks)["outputs"] if each["on"]] == ["Virtual-1"], READY_S, "the output is back")
    in_front(desks, folder, "play")
    assert [(each["name"], each["windows"]) for each in screen(desks)["personas"]] == [("p://play", 1), ("p://work", 1)]
    assert ready(desks)["compositor"]["pid"] == pid


@pytest.fixture
def rogue(desks: Vm) -> Iterator[str]:
    """A persona with a window that goes on while it is behind; its cgroup."""
    colour = "{:02x}{:02x}{:02x}".format(*ROGUE)
    manifest = f'image = "localhost/counter:1"\ncommand = ["counter", "--colour", "{colour}"]\nscreen = true\nbehind = "run"\npids = 8\n'
    desks.create("rogue", manifest)
    desks.act("start", "rogue", VERB_S)
    harness.until(lambda: windows_of(desks, "rogue") == 1, READY_S, "its window")
    yield f"/sys/fs/cgroup/personas/libpod-{desks.show('rogue')['container']}"
    desks.act("stop", "rogue", VERB_S)
    desks.act("remove", "rogue", VERB_S)


def windows_of(spine: Vm, name: str) -> int:
    return sum(each["windows"] for each in screen(spine)["personas"] if each["name"] == f"p://{name}")


def unseen(spine: Vm, folder: str) -> None:
    """See that picture after picture has the one in front, and nothing of what asks for the screen behind it."""
    for _ in range(10):
        found = picture(spine, folder)
        row = 3 * found[0]
        rows = [found[2][y * row : y * row + row] for y in range(0, found[1], 8)]
        assert not any(bytes(ROGUE) * 8 in each for each in rows)
        assert pixel(found, 12, found[1] - 12) == COLOURS["work"]
    assert [each["visible"] for each in screen(spine)["personas"] if each["name"] == "p://rogue"] == [0]


def test_a_window_behind_that_asks_for_the_screen_or_outlives_its_process_is_never_seen(desks: Vm, folder: str, rogue: str) -> None:
    """It goes on behind. It asks for full screen on the output and for the keys; then so does one whose connection is an ended process's."""
    desks.call("focus", VERB_S, name="p://work")
    harness.until(lambda: counts_work(picture(desks, folder)), READY_S, "work on the screen")
    desks.out(f"kill -USR1 $(cat {rogue}/cgroup.procs)")
    unseen(desks, folder)
    pid = desks.out(f"cat {rogue}/cgroup.procs")
    way = "XDG_RUNTIME_DIR=/tmp WAYLAND_DISPLAY=/run/bay0/screen/personas/p__rogue/wayland-0"
    words = f"exec /proc/{pid}/root/usr/bin/counter --colour {'{:02x}{:02x}{:02x}'.format(*ROGUE)}"
    desks.out(f"{way} sh -c 'echo $$ >{rogue}/cgroup.procs; echo $$ >/tmp/second; {words}' >/dev/null 2>&1 &")
    harness.until(lambda: windows_of(desks, "rogue") == 2, READY_S, "a window of the second process")
    desks.out("kill -USR2 $(cat /tmp/second)")
    harness.until(lambda: desks.sh("test -d /proc/$(cat /tmp/second)").status != 0, READY_S, "it has ended")
    desks.out(f"for each in $(cat {rogue}/cgroup.procs); do kill -USR1 $each; done")
    unseen(desks, folder)
    for name in ("play", "work"):  # news, upon which bay0 looks at all windows
        desks.call("focus", VERB_S, name=f"p://{name}")
    harness.until(lambda: counts_work(picture(desks, folder)), READY_S, "work on the screen again")
    harness.until(lambda: "a connection is cut off" in desks.out("bay0 log"), READY_S, "who speaks over it is cut off")
    unseen(desks, folder)
    assert desks.show("rogue")["state"] == "running"


def counts_work(shown: tuple[int, int, bytes]) -> bool:
    return pixel(shown, 12, shown[1] - 12) == COLOURS["work"]


@pytest.mark.full
def test_the_socket_of_another_persona_is_not_to_be_seen_and_its_window_would_be_closed(desks: Vm, folder: str) -> None:
    desks.call("focus", VERB_S, name="p://work")
    in_front(desks, folder, "work")
    pid = desks.out(f"head -n 1 /sys/fs/cgroup/personas/libpod-{desks.show('play')['container']}/cgroup.procs")
    assert desks.out(f"ls /proc/{pid}/root/run /proc/{pid}/root/run/wayland | grep -v proc").split().count("wayland-0") == 1
    assert desks.sh(f"touch /proc/{pid}/root/run/wayland/x").status != 0
    assert desks.sh(f"ls /proc/{pid}/root/run/bay0").status != 0
    work = "XDG_RUNTIME_DIR=/tmp WAYLAND_DISPLAY=/run/bay0/screen/personas/p__work/wayland-0"
    assert desks.sh(f"{work} timeout 100 /proc/{pid}/root/usr/bin/counter", VERB_S).status == 0, "its window was closed: it is no process of work"
    assert "a window is closed: its program is no persona's" in desks.out("bay0 log")
    in_front(desks, folder, "work")


def test_the_sockets_of_personas_work_again_after_the_compositor_was_killed(desks: Vm, folder: str) -> None:
    desks.call("focus", VERB_S, name="p://work")
    in_front(desks, folder, "work")
    before, told = ready(desks)["compositor"]["pid"], len(desks.console)
    socket = "/run/bay0/screen/personas/p__work/wayland-0"
    inode = desks.out(f"stat -c %i {socket}")
    desks.out(f"kill -9 {before}")
    assert ready(desks, before)["seat"]["state"] == "running"
    desks.wait_console("screen: ready -> absent: the compositor has ended: it ended: signal 9", after=told)
    harness.until(lambda: screen(desks)["personas"][1]["windows"] == 1, READY_S, "its window, made anew")
    in_front(desks, folder, "work")
    assert desks.out(f"stat -c %i {socket}") == inode


@pytest.mark.full
def test_a_compositor_that_hangs_holds_up_no_freeze(desks: Vm, folder: str) -> None:
    desks.call("focus", VERB_S, name="p://work")
    in_front(desks, folder, "work")
    before = ready(desks)["compositor"]["pid"]
    desks.out(f"kill -STOP {before}")
    assert desks.act("pause", "work", VERB_S)["state"] == "paused"
    ready(desks, before)
    desks.act("resume", "work", VERB_S)
    in_front(desks, folder, "work")


def test_ctrl_alt_del_is_heard_through_the_compositor_which_is_stopped_before_its_seat(spine: Vm) -> None:
    """The kernel, which had its keys taken, does not hear it. A restart ends QEMU here."""
    ready(spine)
    press(spine, "ctrl", "alt", "delete")
    spine.wait_console("Ctrl-Alt-Del: the machine restarts")
    spine.wait()
    told = spine.console
    compositor = re.search("sys://compositor: stopping -> stopped", told)
    seat = re.search("sys://seat: running -> stopping", told)
    assert compositor is not None
    assert seat is not None
    assert compositor.start() < seat.start()
    assert "sys://seat: stopping -> stopped" in told
    assert "the disk is closed" in told
