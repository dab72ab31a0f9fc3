"""How boot-qemu.sh finds the patience that fits a machine: the arithmetic, the firmware's bytes, and QEMU itself where it is installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.scripts
SCRIPTS = Path(__file__).parents[2] / "scripts"
BOOT, SPEED = SCRIPTS / "boot-qemu.sh", SCRIPTS / "lib" / "speed.sh"


def bash(script: str, path: str = "") -> subprocess.CompletedProcess[str]:
    environment = os.environ | ({"PATH": f"{path}:{os.environ['PATH']}"} if path else {})
    return subprocess.run(
        ["bash", "-c", f"set -euo pipefail; . {SPEED}; {script}"], capture_output=True, text=True, check=False, timeout=120, env=environment
    )


@pytest.mark.parametrize(
    ("times", "patience"), [("* 0", 1), ("/ 5", 1), ("/ 5 + 1", 2), ("* 1", 5), ("* 1 + 1", 6), ("* 3", 15), ("* 20", 100), ("* 1000", 100)]
)
def test_patience_follows_from_how_long_the_work_takes_from_1_to_100(times: str, patience: int) -> None:
    """So many `times` what it takes where 5 is right; a little more is rounded up."""
    found = bash(f"patience_for $((PATIENCE_5_US {times}))")
    assert (found.stdout.strip(), found.stderr) == (str(patience), "")


@pytest.mark.skipif(not (shutil.which("as") and shutil.which("objcopy")), reason="binutils are not installed")
def test_the_firmware_s_bytes_are_what_its_listing_says(tmp_path: Path) -> None:
    text = SPEED.read_text(encoding="utf-8")
    listing = re.search(r"`as --32`:\n#\n((?:#  .*\n)+)", text)
    assert listing is not None
    (tmp_path / "code.s").write_text(".code16\n" + re.sub(r"^#", "", listing[1], flags=re.MULTILINE), encoding="ascii")
    for command in (["as", "--32", "code.s", "-o", "code.o"], ["objcopy", "-O", "binary", "-j", ".text", "code.o", "code"]):
        subprocess.run(command, cwd=tmp_path, check=True, timeout=60)
    shown = bash("printf '%b' \"$SPEED_CODE\" | od -An -v -tx1")
    assert bytes.fromhex(shown.stdout) == (tmp_path / "code").read_bytes()


@pytest.mark.parametrize(("accel", "patience"), [("tcg", "5"), ("kvm", "1")])
def test_where_qemu_does_not_do_the_work_it_is_what_it_always_was(tmp_path: Path, accel: str, patience: str) -> None:
    broken = tmp_path / "qemu-system-x86_64"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    found = bash(f"measured_patience {accel}", str(tmp_path))
    assert (found.stdout.strip(), found.returncode) == (patience, 0)


@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed")
def test_this_machine_has_a_patience_and_nothing_is_left_behind(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", str(BOOT), "--measure", "--accel", "tcg"], capture_output=True, text=True, check=False, timeout=120,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert 1 <= int(done.stdout) <= 100
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("patience", ["0", "101", "-1", "5.5", "much", "007"])
def test_a_patience_that_makes_no_sense_is_refused(patience: str) -> None:
    done = subprocess.run(["bash", str(BOOT), "--patience", patience], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert f"--patience takes a whole number from 1 to 100, not '{patience}'" in done.stderr
