"""A spine that hangs before bay0 runs is reset by a watchdog, and by the loader's rule the other slot is started.

Armed by the loader where its environment says so, else by stage 0.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import harness
import pytest
from test_vm_efi import SCRIPTS, SIZES, TEST_WORDS, starts

from bay0.state import bootenv
from bay0.state.bootenv import BootEnv, UState

pytestmark = [pytest.mark.vm, pytest.mark.full]

STAGE0 = SCRIPTS / "stage0/init"
HANGS = "stage0: hangs"
NO_ROOT = "panic=0 rdinit=/nothing init=/nothing root=/dev/nothing"  # a kernel that has nothing to start, and stays in its panic
STUCK = {"kernel": r"Kernel panic - not syncing", "stage 0": HANGS}
RESET_S = 240  # the longest of the watchdogs here counts 150 s


def hanging_image(folder: str) -> str:
    """Return the image with a stage 0 that stops before it mounts the root: a second archive replaces files of the first."""
    script = STAGE0.read_text().replace('try "mount the root image"', 'say "hangs"; $bb sleep 100000; try "mount the root image"')
    assert HANGS.split()[1] in script
    Path(folder, "init").write_text(script)
    harness.tool("python3", str(SCRIPTS / "lib/mkcpio.py"), f"{folder}/more.img", f"file:init:755:{folder}/init")
    image = f"{folder}/hangs.img"
    with open(image, "wb") as out:
        for part in (harness.IMAGES[1], f"{folder}/more.img"):
            data = Path(part).read_bytes()
            out.write(data + bytes(-len(data) % 512))
    return image


def test_without_a_loader_a_hang_in_stage_0_is_reset_by_the_watchdog_that_stage_0_armed(folder: str):
    with harness.vm(options=("--image", hanging_image(folder)), agent=False) as machine:
        machine.wait_console(HANGS)
        assert "stage0: watchdog armed, 150 s" in machine.console
        machine.wait(RESET_S)
        assert "bay0: starting" not in machine.console
        assert machine.console.rstrip().endswith(HANGS), "and nothing was said after it"


def test_with_another_init_stage_0_arms_nothing(folder: str):
    del folder
    with harness.vm(append="bay0.init=/bin/true", agent=False) as machine:
        machine.wait_console(r"starting /bin/true")
        assert "watchdog armed" not in machine.console


def packed(folder: str, name: str, image: str, manifest: str, *words: str) -> str:
    path = f"{folder}/{name}.efi"
    parts = ("--kernel", harness.IMAGES[0], "--image", image, "--manifest", manifest)
    harness.tool("bash", str(SCRIPTS / "package-efi.sh"), *parts, *words, "--output", path)
    return path


def environment(disk: str, slot: int, folder: str, env: BootEnv | None = None) -> BootEnv:
    """Return what a slot's BGENV.DAT says, after writing `env` to it."""
    at, path = f"{disk}@@{starts(disk)[1 + slot]}", f"{folder}/{bootenv.FILE}"
    if env is not None:
        Path(path).write_bytes(bootenv.encode(env))
        harness.tool("mcopy", "-D", "o", "-i", at, path, "::/")
    harness.tool("mcopy", "-D", "o", "-n", "-i", at, f"::/{bootenv.FILE}", path)
    return bootenv.parse(Path(path).read_bytes())


@pytest.mark.parametrize(("where", "watchdog_s"), [("kernel", 60), ("stage 0", 150), ("stage 0", 0)])
def test_a_candidate_that_hangs_before_bay0_is_failed_and_the_good_slot_comes_up_by_itself(where: str, watchdog_s: int, folder: str):
    manifest = str(Path(harness.IMAGES[1]).with_name("spine.manifest.json"))
    good = packed(folder, "good", harness.IMAGES[1], manifest, "--append", TEST_WORDS)
    image = hanging_image(folder)
    if where == "kernel":
        bad = packed(folder, "bad", f"{folder}/more.img", "none", "--cmdline", f"console=ttyS0,115200 {NO_ROOT}")
    else:
        bad = packed(folder, "bad", image, "none", "--append", TEST_WORDS)
    disk = f"{folder}/early.img"
    harness.tool("bash", str(SCRIPTS / "genesis-flash.sh"), *SIZES, "--uki", good, "--yes-destroy", disk, disk)
    harness.tool("mcopy", "-D", "o", "-i", f"{disk}@@{starts(disk)[2]}", bad, "::/spine.efi")
    armed = BootEnv(bootenv.kernel_of("SLOTB"), ustate=UState.INSTALLED, revision=2, watchdog_s=watchdog_s)
    assert environment(disk, 1, folder, armed) == armed
    with harness.vm(efi=("--efi", disk), console=True, qemu=("-action", "reboot=reset")) as machine:
        machine.wait_console(r"Starting C:SLOTB:spine.efi")
        machine.wait_console(STUCK[where])
        first = len(machine.console)
        machine.wait_console(r"Starting C:SLOTA:spine.efi", RESET_S, after=first)
        machine.wait_console(harness.COMPLETE, after=first)
        machine.wait_console(r"spine:/# ", 60, after=first)
        assert len(re.findall("Starting C:SLOTB", machine.console)) == 1, "it had one try"
        machine.type("bay0 poweroff\r")
        assert machine.wait().status == 0
    assert environment(disk, 0, folder) == BootEnv(bootenv.kernel_of("SLOTA"), ustate=UState.OK, revision=1)
    assert environment(disk, 1, folder) == armed._replace(ustate=UState.FAILED, revision=0)
    os.unlink(disk)
