"""scripts/test.sh with a stand-in for tox: every part runs once, and none that fails is forgotten."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.scripts
TOP = Path(__file__).parents[2]
TOX = """#!/bin/sh
echo "$*" >>"$0.ran"
echo "the output of $3"
case ",$3," in *",$FAILS,"*) exit 3 ;; esac
"""


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """A checkout with tox's environment in it; no host tool is looked for."""
    (tmp_path / "scripts" / "lock").mkdir(parents=True)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    shutil.copytree(TOP / "scripts" / "lib", tmp_path / "scripts" / "lib")
    shutil.copy(TOP / "scripts" / "test.sh", tmp_path / "scripts")
    for place in ("scripts/lock", ".venv"):
        shutil.copy(TOP / "scripts" / "lock" / "tox.txt", tmp_path / place)
    (tmp_path / "scripts" / "lib" / "host-tools.sh").write_text("ensure_host_tools() { :; }\n")
    tox = tmp_path / ".venv" / "bin" / "tox"
    tox.write_text(TOX)
    tox.chmod(0o755)
    return tmp_path


def run(top: Path, *words: str, fails: str = "none") -> subprocess.CompletedProcess[str]:
    argv = ["bash", str(top / "scripts" / "test.sh"), *words]
    environment = {"PATH": "/usr/bin:/bin", "FAILS": fails}
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60, env=environment)


def parts(top: Path) -> list[str]:
    lines = (top / ".venv/bin/tox.ran").read_text().splitlines()
    return [part for line in lines for part in line.split()[2].split(",")]


def test_every_part_of_tox_ini_runs_once_and_its_output_is_shown(top: Path) -> None:
    done = run(top)
    assert done.returncode == 0, done.stderr
    listed = next(line for line in (TOP / "tox.ini").read_text().splitlines() if line.startswith("env_list"))
    assert sorted(parts(top)) == sorted(each.strip() for each in listed.partition("=")[2].split(","))
    assert done.stdout.count("the output of ") == 5


@pytest.mark.parametrize("part", ["lint", "scripts", "freeze", "shipped", "properties", "rebuild", "vm"])
def test_a_part_that_fails_is_the_status_and_the_others_run_all_the_same(top: Path, part: str) -> None:
    done = run(top, fails=part)
    assert done.returncode == 3
    assert len(parts(top)) == 9


def test_words_go_to_tox_as_they_are(top: Path) -> None:
    done = run(top, "-e", "unit", "--", "-k", "spawn")
    assert done.returncode == 0
    assert (top / ".venv/bin/tox.ran").read_text() == "run -e unit -- -k spawn\n"
