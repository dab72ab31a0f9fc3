"""The programs under scripts/bench/ that need no VM still measure: a refactoring breaks them unseen."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.scripts

BENCH = Path(__file__).resolve().parents[2] / "scripts" / "bench"
BOUND_S = 120


@pytest.mark.parametrize(
    ("words", "figure"),
    [
        (["steps.py", "--counts", "2"], "| 2 | "),
        (["umbilical.py", "--requests", "2", "--megabytes", "1", "--tokens", "2"], "requests/s"),
        (["copies.py", "--rounds", "1", "--files", "50", "--megabytes", "1"], "| 50 files of 2 KB copied | "),
    ],
    ids=["steps", "umbilical", "copies"],
)
def test_a_bench_without_a_vm_gives_its_figures(words: list[str], figure: str) -> None:
    argv = [sys.executable, str(BENCH / words[0]), *words[1:]]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=BOUND_S)
    assert done.returncode == 0, done.stderr[-800:]
    assert figure in done.stdout


@pytest.mark.parametrize("name", sorted(path.name for path in BENCH.glob("*.py")))
def test_every_bench_can_be_loaded(name: str) -> None:
    script = f"import sys; sys.path.insert(0, {str(BENCH)!r}); import {name.removesuffix('.py')}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=BOUND_S)
    assert done.returncode == 0, done.stderr[-800:]
