"""The sample personas with windows, `counter` and `terminal`: their images, and their programs on the screen of the image's own sway."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import tarfile
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from counting import Counter, counters
from kit import BUILT_ROOT, not_built
from screencopy import ask, picture
from swaykit import RealSway, the_images_sway
from test_screen_proof import until
from test_screen_windows import PLAY, WORK
from test_screen_windows import Desk as Doors

from bay0.screen import config
from bay0.screen.ipc import Ask
from bay0.screen.places import Places

TOP = Path(__file__).resolve().parents[2]
ARCHIVE_MAX = 30_000_000  # bytes
BOUND_S = 60.0
LONG = 50  # numbers that a counter goes on while another one is looked at
BLUE, RED = "1d4f73", "a03020"


# ---- the reader of the squares


def painted(count: int, side: int = 8) -> tuple[int, int, bytearray]:
    at, width, height = (3, 2), 200, 20
    rgb = bytearray(bytes.fromhex(BLUE) * (width * height))
    inks = ["ff00ff", *("ffffff" if count >> 15 - bit & 1 else "000000" for bit in range(16)), "00ffff"]
    for number, ink in enumerate(inks):
        for row in range(side):
            start = 3 * ((at[1] + row) * width + at[0] + number * (side + side // 4))
            rgb[start : start + 3 * side] = bytes.fromhex(ink) * side
    return width, height, rgb


@pytest.mark.parametrize("count", [0, 1, 0x8000, 0x5555, 0xFFFF])
def test_a_count_is_read_from_its_squares(count: int) -> None:
    width, height, rgb = painted(count)
    assert counters(width, height, bytes(rgb)) == [Counter(count, BLUE, 3, 2)]


def test_squares_that_are_not_whole_are_no_count() -> None:
    width, height, rgb = painted(5)
    assert counters(width, height, bytes(len(rgb))) == []
    middle = 3 * ((2 + 4) * width + 3 + 10 * 4 + 4)
    rgb[middle : middle + 3] = b"\x80\x80\x80"
    with pytest.raises(ValueError, match="square 4"):
        counters(width, height, bytes(rgb))
    width, height, rgb = painted(5)
    cut = b"".join(bytes(rgb[3 * width * row : 3 * width * row + 3 * 100]) for row in range(height))
    with pytest.raises(ValueError, match="beyond"):
        counters(100, height, cut)


# ---- the images


def unpacked(name: str, top: Path) -> dict[str, Any]:
    """Unpack an image's only layer into `top`; return the archive's description."""
    archive = TOP / f"build/persona-{name}.tar"
    if not archive.exists():
        not_built(f"needs build/persona-{name}.tar (scripts/mk{name}.sh)")
    with tarfile.open(archive) as tar:
        (described,) = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
        (layer,) = described["Layers"]
        with tarfile.open(fileobj=tar.extractfile(layer)) as files:
            described["members"] = files.getmembers()
            files.extractall(top, filter="fully_trusted")
        described["config"] = json.load(tar.extractfile(described["Config"]))["config"]  # type: ignore[arg-type]
    return described  # type: ignore[no-any-return]


@pytest.fixture
def place() -> Iterator[Path]:
    """One with a path that is short enough for a socket's name, and that another user may enter."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@pytest.mark.built
@pytest.mark.parametrize("name", ["counter", "terminal"])
def test_an_image_is_small_and_roots_and_its_manifest_names_it(place: Path, name: str) -> None:
    described = unpacked(name, place)
    assert (TOP / f"build/persona-{name}.tar").stat().st_size <= ARCHIVE_MAX
    assert [member.name for member in described["members"] if member.uid or member.gid or (member.mode & 0o7022 and not member.issym())] == []
    manifest = tomllib.loads((TOP / f"personas/{name}/persona.toml").read_text())
    assert ([manifest["image"]], manifest["command"][:1]) == (described["RepoTags"], described["config"]["Cmd"])


@pytest.mark.built
def test_the_counters_image_is_one_program(place: Path) -> None:
    described = unpacked("counter", place)
    assert [member.name for member in described["members"] if member.isreg()] == ["etc/passwd", "usr/bin/counter"]


@pytest.mark.built
@pytest.mark.parametrize("name", ["counter", "terminal"])
def test_an_image_made_again_has_the_same_bytes(place: Path, name: str) -> None:
    if os.getuid():
        pytest.skip("needs root, for a chroot")
    unpacked(name, place / "old")
    done = subprocess.run([TOP / f"scripts/mk{name}.sh", "-o", place / "new.tar"], capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    assert (place / "new.tar").read_bytes() == (TOP / f"build/persona-{name}.tar").read_bytes()


# ---- the counter on a screen


class Desk:
    """A screen of the image's sway, and programs with windows on it."""

    def __init__(self, top: Path) -> None:
        self.started: list[subprocess.Popen[str]] = []
        self.sway = RealSway(top, "default_border none\noutput * resolution 1024x768\n")

    @property
    def socket(self) -> str:
        return str(self.sway.run / "wayland-1")

    def tell(self, command: str) -> None:
        assert all(each["success"] for each in ask(str(self.sway.run / "ipc"), Ask.RUN_COMMAND, command)), command

    def start(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        environment = {"PATH": "/bin", "XDG_RUNTIME_DIR": str(self.sway.run), "WAYLAND_DISPLAY": "wayland-1"} | options.pop("env", {})
        child = subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True, **options)
        self.started.append(child)
        return child

    def until(self, true: Callable[[], Any], what: str) -> Any:
        """Return what `true` gives once it is something; a picture that cannot be had yet is none."""
        end = time.monotonic() + BOUND_S
        while time.monotonic() < end:
            with contextlib.suppress(OSError, KeyError):
                if found := true():
                    return found
            time.sleep(0.02)
        raise AssertionError(f"{what} did not happen; sway says: {self.sway.log.read_text()[-1000:]}")

    def counts(self) -> dict[str, int]:
        """Return each counter that is to be seen, by its colour."""
        return {each.colour: each.count for each in counters(*picture(self.socket))}

    def at_least(self, colour: str, count: int) -> dict[str, int]:
        found: dict[str, int] = {}

        def there() -> bool:
            found.clear()
            found.update(self.counts())
            return found[colour] >= count

        self.until(there, f"a count of {count} in {colour}")
        return found

    def end(self) -> None:
        for child in self.started:
            child.send_signal(signal.SIGCONT)
            child.kill()
            child.communicate()
        self.sway.end()


@pytest.fixture
def desk(place: Path) -> Iterator[Desk]:
    if not (BUILT_ROOT / "usr/bin/sway").is_file():
        not_built("no image with sway is built")
    made = Desk(place)
    try:
        made.until(lambda: picture(made.socket), "a screen")
        yield made
    finally:
        made.end()


@pytest.fixture
def counter(place: Path) -> str:
    unpacked("counter", place / "image")
    return str(place / "image/usr/bin/counter")


@pytest.mark.built
def test_the_counter_goes_on_and_its_count_can_be_read_from_the_screen(desk: Desk, counter: str) -> None:
    desk.start(counter, "--colour", RED, "--every", "20", "--from", "65500")
    desk.until(lambda: 65500 <= desk.counts()[RED] < 65536, "a first number")
    desk.until(lambda: desk.counts()[RED] < 65500, "16 bits that begin anew")
    width, height, rgb = picture(desk.socket)
    (seen,) = counters(width, height, rgb)
    assert rgb[: 3 * width * seen.y].count(b"\xff\xff\xff" * 20) > 20, "the number itself, above the squares"
    assert (width, height) == (1024, 768)


@pytest.mark.built
@pytest.mark.parametrize("count", [0x1234, 0x18001, 4294967295])
def test_the_squares_are_the_low_bits_of_the_count(desk: Desk, counter: str, count: int) -> None:
    desk.start(counter, "--colour", RED, "--every", "60000", "--from", str(count))
    assert desk.until(desk.counts, "a window") == {RED: count & 0xFFFF}


@pytest.mark.built
def test_the_counter_paints_at_every_size_that_it_is_given(desk: Desk, counter: str) -> None:
    desk.start(counter, "--colour", RED, "--every", "20")
    desk.at_least(RED, 1)
    for width, height in ((1920, 1080), (640, 480), (200, 150)):
        desk.tell(f"output * resolution {width}x{height}")
        desk.until(lambda size=(width, height): picture(desk.socket)[:2] == size, "another resolution")  # type: ignore[misc]
        before = desk.until(lambda: desk.counts()[RED], "a count")
        desk.at_least(RED, before + 5)


@pytest.mark.built
def test_the_counter_stands_still_while_it_is_stopped_and_makes_up_for_nothing(desk: Desk, counter: str) -> None:
    stopped = desk.start(counter, "--colour", RED, "--every", "20")
    desk.start(counter, "--colour", BLUE, "--every", "20")
    desk.at_least(RED, 3)
    before = desk.at_least(BLUE, 3)
    stopped.send_signal(signal.SIGSTOP)
    held = desk.at_least(BLUE, before[BLUE] + LONG // 2)[RED]
    during = desk.at_least(BLUE, before[BLUE] + LONG)
    assert during[RED] == held
    stopped.send_signal(signal.SIGCONT)
    after = desk.at_least(RED, held + 5)
    assert after[BLUE] - after[RED] >= before[BLUE] - before[RED] + LONG // 2


@pytest.mark.built
def test_the_counter_goes_on_unseen(desk: Desk, counter: str) -> None:
    desk.start(counter, "--colour", RED, "--every", "20")
    before = desk.at_least(RED, 1)[RED]
    desk.tell("workspace other")
    desk.start(counter, "--colour", BLUE, "--every", "20")
    assert RED not in desk.at_least(BLUE, LONG)
    desk.tell("workspace 1")
    shown = desk.until(lambda: desk.counts()[RED], "its window again")  # perhaps the last picture from before
    fresh = desk.until(lambda: desk.counts()[RED] != shown and desk.counts()[RED], "its next picture")
    assert fresh >= before + LONG // 2


@pytest.mark.built
def test_the_counter_makes_its_window_anew_with_the_next_compositor_and_goes_on(desk: Desk, counter: str) -> None:
    desk.start(counter, "--colour", RED, "--every", "20", "--from", "30000")
    before = desk.at_least(RED, 30010)[RED]
    desk.sway.anew()
    desk.at_least(RED, before + 1)


@pytest.mark.built
def test_a_counter_that_is_told_to_asks_for_the_whole_screen_and_one_goes_on_in_a_child(desk: Desk, counter: str) -> None:
    """What a program may try; what bay0 makes of it is tested with bay0."""
    child = desk.start(counter, "--colour", RED, "--every", "20")
    desk.start(counter, "--colour", BLUE, "--every", "20")
    desk.until(lambda: desk.counts().keys() == {RED, BLUE}, "both")
    child.send_signal(signal.SIGUSR1)
    desk.until(lambda: desk.counts().keys() == {RED}, "one of them alone")
    child.send_signal(signal.SIGUSR2)
    assert child.wait(BOUND_S) == 0
    before = desk.at_least(RED, 1)[RED]
    desk.at_least(RED, before + 5)
    desk.tell("kill")
    desk.until(lambda: desk.counts().keys() == {BLUE}, "its window is closed")


def hears_term(pid: int) -> bool:
    """Tell whether a process asked for TERM: otherwise the kernel keeps it from the first one of a container."""
    caught = re.search(r"^SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return caught is not None and bool(int(caught[1], 16) >> signal.SIGTERM - 1 & 1)


@pytest.mark.built
def test_a_counter_whose_window_is_closed_or_that_is_told_to_end_ends_well(desk: Desk, counter: str) -> None:
    closed = desk.start(counter)
    desk.until(desk.counts, "a window")
    desk.tell("kill")
    assert (closed.wait(BOUND_S), closed.stderr.read()) == (0, "")  # type: ignore[union-attr]
    told = desk.start(counter)
    desk.until(desk.counts, "a window")
    desk.until(lambda: hears_term(told.pid), "it asks for TERM")
    told.terminate()
    assert (told.wait(BOUND_S), told.stderr.read()) == (0, "")  # type: ignore[union-attr]


@pytest.mark.built
@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ([], 1, "no window was granted (manifest: screen = true"), (["--every", "60001"], 2, "--every takes a number up to 60000, not '60001'"),
        (["--every"], 2, "--every takes"), (["--from", "-1"], 2, "--from takes"), (["--colour", "red"], 2, "in hexadecimal"),
        (["--colour", "ff00ff"], 2, "ends of the squares"), (["--what", "x"], 2, "counter --help"), (["--title"], 2, "counter --help"),
    ],
)  # fmt: skip
def test_a_counter_that_cannot_begin_says_why(counter: str, words: list[str], status: int, said: str) -> None:
    done = subprocess.run([counter, *words], env={"XDG_RUNTIME_DIR": "/nowhere"}, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (status, "")
    assert said in done.stderr
    assert "--every MS" in subprocess.run([counter, "--help"], env={}, capture_output=True, text=True, check=True, timeout=60).stdout


class Doored(Doors):
    screen = ""


@pytest.fixture
def doored(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Doored]:
    """Two personas' sockets, and the part of PID 1 that places windows."""
    with the_images_sway() as sway:
        (sway.run.parent / "config").write_text(config.text(Places(run=str(place))))
        sway.anew()
        made = Doored(place, sway, monkeypatch)
        made.screen = str(sway.run / "wayland-1")
        try:
            yield made
        finally:
            made.close()


@pytest.mark.built
def test_two_counters_behind_the_doors_of_two_personas_are_shown_one_at_a_time(doored: Doored, counter: str) -> None:
    """With no more of the compositor than a persona is offered, in the places where PID 1 puts windows, with its configuration."""
    desk = doored

    def seen() -> dict[str, int]:
        desk.reactor.turn(0.02)
        return {each.colour: each.count for each in counters(*picture(desk.screen))}

    for name, colour in ((WORK, RED), (PLAY, BLUE)):
        words = ("sh", "-c", 'read go; exec "$@"', "sh", counter, "--colour", colour, "--every", "20")  # its group is told before it begins
        child = subprocess.Popen(words, env={"PATH": "/bin", "WAYLAND_DISPLAY": desk.path(name)}, stdin=subprocess.PIPE, text=True)
        desk.groups[child.pid] = desk.group(name)
        desk.clients.append(child)
        child.stdin.write("\n")  # type: ignore[union-attr]
        child.stdin.flush()  # type: ignore[union-attr]
    until(desk.reactor, lambda: len(desk.shown()) == 2)
    assert seen() == {}
    for name, colour in ((WORK, RED), (PLAY, BLUE), (WORK, RED)):
        desk.bring(name)
        until(desk.reactor, lambda colour=colour: list(seen()) == [colour])  # type: ignore[misc]
        before = seen()[colour]
        until(desk.reactor, lambda colour=colour, before=before: seen()[colour] > before)  # type: ignore[misc]


# ---- the terminal on a screen


def windows(desk: Desk) -> list[str]:
    def below(node: dict[str, Any]) -> Iterator[str]:
        if node.get("app_id"):
            yield node["app_id"]
        for child in node["nodes"] + node["floating_nodes"]:
            yield from below(child)

    return list(below(ask(str(desk.sway.run / "ipc"), Ask.GET_TREE)))


def shells(parent: int) -> list[int]:
    """Return the login shells below a process."""
    found = []
    for child in map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split()):
        found += [child] if Path(f"/proc/{child}/cmdline").read_bytes() == b"/bin/sh\0-l\0" else shells(child)
    return found


@pytest.fixture
def terminal(place: Path) -> Iterator[tuple[Desk, subprocess.Popen[str]]]:
    """The image's `foot`, as the image says, in its own root; the screen's sockets are within that root."""
    if os.getuid():
        pytest.skip("needs root, for a chroot")
    root = place / "root"
    described = unpacked("terminal", root)
    environment = dict(word.split("=", 1) for word in described["config"]["Env"])
    made = Desk(root / "run")
    try:
        made.until(lambda: picture(made.socket), "a screen")
        environment |= {"XDG_RUNTIME_DIR": "/run/run", "HOME": "/root", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        inside = 'mount --rbind /dev "$1/dev"; exec chroot "$@"'  # in a mount namespace of its own: nothing stays mounted
        words = ("unshare", "--mount", "--propagation", "private", "sh", "-euc", inside, "sh")
        yield made, made.start(*words, str(root), *described["config"]["Cmd"], env=environment)
    finally:
        made.end()


@pytest.mark.built
def test_the_terminal_shows_a_shell_that_waits_for_words(terminal: tuple[Desk, subprocess.Popen[str]]) -> None:
    desk, child = terminal
    desk.until(lambda: windows(desk) == ["foot"], "a window")
    desk.until(lambda: shells(child.pid), "a login shell")

    def ink() -> bool:
        width, _height, rgb = picture(desk.socket)
        upper, ground = rgb[: 3 * width * 200], rgb[-3:]
        return len({upper[at : at + 3] for at in range(0, len(upper), 3)}) > 8 and upper.count(ground) > width

    desk.until(ink, "letters with soft edges on the terminal's ground")


@pytest.mark.built
def test_a_terminal_that_is_left_has_ended_well_whatever_its_last_command_did(terminal: tuple[Desk, subprocess.Popen[str]]) -> None:
    desk, child = terminal
    (shell,) = desk.until(lambda: shells(child.pid), "a login shell")
    os.kill(shell, signal.SIGKILL)
    assert child.wait(BOUND_S) == 0


@pytest.mark.built
def test_a_terminal_that_is_told_to_end_ends(terminal: tuple[Desk, subprocess.Popen[str]]) -> None:
    desk, child = terminal
    desk.until(lambda: shells(child.pid), "a login shell")
    desk.until(lambda: hears_term(child.pid), "it asks for TERM")
    child.terminate()
    assert child.wait(BOUND_S) >= 0, "not by the signal itself"


@pytest.mark.built
def test_a_terminal_whose_compositor_is_gone_has_failed_so_that_it_is_started_again(terminal: tuple[Desk, subprocess.Popen[str]]) -> None:
    desk, child = terminal
    desk.until(lambda: shells(child.pid), "a login shell")
    desk.sway.end()
    assert child.wait(BOUND_S) == 230
