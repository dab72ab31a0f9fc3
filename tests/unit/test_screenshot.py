"""scripts/lib/screenshot.py against a QMP socket, and the words of boot-qemu.sh that go with it."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import pytest

pytestmark = pytest.mark.scripts

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
PPM = b"P6\n2 2\n255\n" + bytes(range(12))


class Qemu(threading.Thread):
    """Answers like QEMU's monitor, an event between; `refuses`: with an error to the dump."""

    def __init__(self, path: str, refuses: str = "", picture: bytes = PPM) -> None:
        super().__init__(daemon=True)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(1)
        self.refuses, self.picture = refuses, picture

    def run(self) -> None:
        peer, _ = self.listener.accept()
        with peer, peer.makefile("rw") as stream:
            stream.write('{"QMP": {"version": {}, "capabilities": []}}\n')
            stream.flush()
            for line in stream:
                request = json.loads(line)
                answer = {"return": {}}
                if request["execute"] == "screendump":
                    if self.refuses:
                        answer = {"error": {"class": "GenericError", "desc": self.refuses}}
                    else:
                        Path(request["arguments"]["filename"]).write_bytes(self.picture)
                stream.write(json.dumps({"event": "RESUME"}) + "\n" + json.dumps(answer) + "\n")
                stream.flush()


def take(tmp_path: Path, name: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, str(SCRIPTS / "lib/screenshot.py"), str(tmp_path / "qmp"), str(tmp_path / name)]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)


def read_png(data: bytes) -> tuple[int, int, bytes]:
    """A reader of its own: chunks, their checksums, rows without a filter."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, chunks = 8, {}
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + 8 + size]
        assert struct.unpack_from(">I", data, at + 8 + size)[0] == zlib.crc32(kind + body)
        chunks[kind] = body
        at += 12 + size
    width, height, bits, colour = struct.unpack_from(">IIBB", chunks[b"IHDR"])
    assert (bits, colour) == (8, 2)
    rows = zlib.decompress(chunks[b"IDAT"])
    stride = 3 * width + 1
    return width, height, b"".join(rows[row * stride + 1 : (row + 1) * stride] for row in range(height))


def test_a_picture_is_png_or_ppm_by_its_name(tmp_path: Path) -> None:
    for name in ("screen.png", "screen.ppm"):
        (tmp_path / "qmp").unlink(missing_ok=True)
        Qemu(str(tmp_path / "qmp")).start()
        done = take(tmp_path, name)
        assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "screen.ppm").read_bytes() == PPM
    assert read_png((tmp_path / "screen.png").read_bytes()) == (2, 2, bytes(range(12)))


@pytest.mark.parametrize(
    ("refuses", "picture", "said"),
    [("no such screen", PPM, "no such screen"), ("", b"P5\n2 2\n255\n", "no PPM"), ("", PPM[:-1], "not whole"), ("", b"", "no PPM")],
    ids=["refused", "another format", "cut", "nothing"],
)  # fmt: skip
def test_where_there_is_no_picture_it_says_why_and_leaves_no_file(tmp_path: Path, refuses: str, picture: bytes, said: str) -> None:
    Qemu(str(tmp_path / "qmp"), refuses, picture).start()
    done = take(tmp_path, "screen.png")
    assert done.returncode == 1
    assert said in done.stderr
    assert not (tmp_path / "screen.png").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--screenshot", "x.jpg"], "ends in .png or .ppm"), (["--screenshot", "x.png", "--gui"], "leave out --gui"),
        (["--gui", "--exec", "true"], "--exec runs without a window"), (["--screenshot"], "--screenshot"),
    ],
)  # fmt: skip
def test_words_for_a_screen_that_make_no_sense_are_refused_before_anything_starts(words: list[str], said: str) -> None:
    done = subprocess.run(
        ["bash", str(SCRIPTS / "boot-qemu.sh"), *words], capture_output=True, text=True, check=False, timeout=60, env={**os.environ, "SPINE": ""}
    )  # fmt: skip
    assert done.returncode == 2
    assert said in done.stderr


QEMU = """#!/bin/sh
case "$*" in
    "-display help") printf 'Available display backend types:\\nnone\\n%s\\n' "$KINDS" ;;
    -help) echo "-vnc <display>  shorthand" ;;
    *) for word; do echo "$word"; done >"$WORDS" ;;
esac
"""


def qemu_words(tmp_path: Path, *options: str, kinds: str = "", **environment: str) -> list[str]:
    """What boot-qemu.sh asks of QEMU with these options; `kinds`: the windows that this QEMU can draw."""
    (tmp_path / "bin").mkdir(exist_ok=True)
    (tmp_path / "bin/qemu-system-x86_64").write_text(QEMU)
    (tmp_path / "bin/qemu-system-x86_64").chmod(0o755)
    (tmp_path / "file").touch()
    base = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "WAYLAND_DISPLAY")}
    words = ["--kernel", str(tmp_path / "file"), "--image", str(tmp_path / "file"), "--persist", "none", "--patience", "1", "--accel", "tcg"]
    done = subprocess.run(
        ["bash", str(SCRIPTS / "boot-qemu.sh"), *words, *options], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60,
        env={**base, "PATH": f"{tmp_path}/bin:{base['PATH']}", "KINDS": kinds, "WORDS": str(tmp_path / "words"), **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [*(tmp_path / "words").read_text().splitlines(), *done.stderr.splitlines()]


def test_without_a_word_for_it_the_machine_has_no_screen(tmp_path: Path) -> None:
    words = qemu_words(tmp_path)
    assert "virtio-vga" not in words
    assert words[words.index("-display") + 1] == "none"


def test_a_screen_is_a_card_a_keyboard_and_a_pointer_without_a_window(tmp_path: Path) -> None:
    words = qemu_words(tmp_path, "--screen")
    assert {"virtio-vga", "virtio-keyboard-pci", "virtio-tablet-pci"} <= set(words)
    assert words[words.index("-display") + 1] == "none"


def test_a_window_is_drawn_where_there_is_a_display_and_a_qemu_that_can(tmp_path: Path) -> None:
    words = qemu_words(tmp_path, "--gui", kinds="sdl", DISPLAY=":0")
    assert "virtio-vga" in words
    assert words[words.index("-display") + 1] == "sdl"


@pytest.mark.parametrize(("kinds", "display"), [("gtk", ""), ("", ":0")], ids=["no display", "no window"])
def test_without_a_window_it_is_vnc_on_a_socket_and_it_says_how_to_look(tmp_path: Path, kinds: str, display: str) -> None:
    words = qemu_words(tmp_path, "--gui", kinds=kinds, **({"DISPLAY": display} if display else {}))
    path = str(SCRIPTS.parent / "build/screen.vnc")
    assert words[words.index("-display") + 1] == f"vnc=unix:{path}"
    assert any(f"vncviewer {path}" in line for line in words), "it says how to look"
