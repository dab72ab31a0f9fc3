"""What of a screen is in the built image, and what is not: sway runs without Mesa and LLVM, which would be 99 MB more."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit import BUILT_ROOT, not_built

from bay0.screen import places

TOP = Path(__file__).resolve().parents[2]
IMAGE = TOP / "build/spine.img"
IMAGE_MAX = 139_000_000  # bytes
PROGRAMS = ("usr/bin/sway", "usr/bin/swaybar", "usr/bin/swaybg", "usr/bin/swaymsg", "usr/sbin/seatd")
NEEDED = (
    "usr/share/X11/xkb/rules/evdev", "usr/share/X11/xkb/symbols/us", "usr/share/libinput", "usr/share/fonts/truetype/dejavu/DejaVuSans.ttf",
    "usr/share/fonts/truetype/dejavu/DejaVuSansMono.ttf", "etc/fonts/fonts.conf", "usr/lib/locale/C.utf8/LC_CTYPE", "usr/bin/setpriv",
    "usr/bin/unshare", "usr/lib/bay0-screen/compositor",
)  # fmt: skip
ABSENT = ("libLLVM", "libgallium", "libEGL_mesa", "dri_gbm", "swrast", "libz3", "Xwayland", "swaynag", "seatd-launch")
MODULES = ("drm", "virtio-gpu", "evdev", "virtio_input", "hid-generic", "usbhid")
sys.path.insert(0, str(TOP / "scripts/lib"))


@pytest.fixture(autouse=True)
def _built() -> None:
    if not (BUILT_ROOT / "usr/bin/podman").exists() or not IMAGE.is_file():
        not_built("no image is built")


def closure(names: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield every library that these programs need, with the path where it is found, "" if nowhere."""
    from check_rootfs import SYSTEM_PATH, Root, read_elf

    root, seen, todo = Root(BUILT_ROOT), set(), list(names)
    while todo:
        path = root.resolve(todo.pop())
        elf = read_elf(path) if path is not None else None
        for library in elf.needed if elf is not None else ():
            if library in seen:
                continue
            seen.add(library)
            found = next((f"{place}/{library}" for place in SYSTEM_PATH if root.resolve(f"{place}/{library}")), "")
            yield library, found
            if found:
                todo.append(found)


@pytest.mark.built
def test_every_library_that_seat_and_compositor_need_is_in_the_image_and_none_of_mesa() -> None:
    found = dict(closure(PROGRAMS))
    assert [name for name, place in found.items() if not place] == []
    assert {"libwlroots-0.18.so", "libinput.so.10", "libgbm.so.1", "libEGL.so.1", "libvulkan.so.1"} <= found.keys(), "sway is linked with loaders"
    assert [name for name in found if name.startswith(("libLLVM", "libgallium", "libEGL_mesa"))] == []


@pytest.mark.built
def test_what_seat_and_compositor_read_is_there() -> None:
    assert [name for name in (*PROGRAMS, *NEEDED) if not (BUILT_ROOT / name).exists()] == []
    modules = {path.stem for path in (BUILT_ROOT / "usr/lib/modules").rglob("*.ko")}
    builtin = "".join(path.read_text() for path in (BUILT_ROOT / "usr/lib/modules").glob("*/modules.builtin"))
    assert [name for name in MODULES if name not in modules and f"/{name}.ko" not in builtin] == []


@pytest.mark.built
def test_nothing_of_mesa_llvm_or_x_servers_is_anywhere_in_the_image() -> None:
    assert [str(path.relative_to(BUILT_ROOT)) for path in BUILT_ROOT.rglob("*") if path.name.startswith(ABSENT)] == []


@pytest.mark.built
def test_the_image_with_a_screen_is_small_enough() -> None:
    assert IMAGE.stat().st_size <= IMAGE_MAX


@pytest.mark.built
def test_the_compositors_user_is_the_one_that_the_image_knows() -> None:
    lines = [line.split(":") for line in (BUILT_ROOT / "etc/passwd").read_text().splitlines()]
    assert [(int(uid), int(gid)) for name, _, uid, gid, *_ in lines if name == places.USER] == [(places.UID, places.GID)]


@pytest.mark.built
def test_the_words_of_the_wrapping_shell_are_words_of_the_images_shell() -> None:
    shell = [str(BUILT_ROOT / "lib64/ld-linux-x86-64.so.2"), "--library-path", str(BUILT_ROOT / "usr/lib/x86_64-linux-gnu")]
    for words in (("-c", places.SEAT_ARGV[2]), (str(BUILT_ROOT / places.COMPOSITOR_ARGV[2].lstrip("/")),)):
        done = subprocess.run([*shell, str(BUILT_ROOT / "bin/sh"), "-n", *words], capture_output=True, text=True, check=False, timeout=30)
        assert (done.returncode, done.stderr) == (0, "")
