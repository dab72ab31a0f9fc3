"""scripts/vm-full.sh, on stand-ins for the files of tests/vm: what it keeps, where it goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.scripts
SCRIPT = Path(__file__).parents[2] / "scripts" / "vm-full.sh"
RUNS = (
    "import pathlib, pytest\nruns = pathlib.Path(__file__).with_suffix('.runs')\nruns.open('a').write('x')\n"
)
CASES = {
    "test_vm_good.py": """
@pytest.mark.vm
def test_a(): pass
@pytest.mark.vm
def test_b(): pass
def test_no_vm(): assert False
""",
    "test_vm_bad.py": """
@pytest.mark.vm
def test_a(): pass
@pytest.mark.vm
def test_it_fails(): assert runs.with_suffix(".mended").exists()
""",
    "test_vm_slow.py": """
import time
@pytest.mark.vm
def test_slow(): time.sleep(3600 if runs.with_suffix(".slow").exists() else 0)
""",
    "test_vm_none.py": "def test_no_vm(): pass\n",
}


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    for name, text in CASES.items():
        (tmp_path / name).write_text(RUNS + text)
    return tmp_path


def command(bench: Path, *words: str) -> list[str]:
    return ["bash", str(SCRIPT), "--python", sys.executable, "--resume", str(bench / "kept.jsonl"), *words]


def vm_full(
    bench: Path, *words: str, files: tuple[str, ...] = tuple(CASES), seed: str = "1"
) -> subprocess.CompletedProcess[str]:
    argv = command(bench, *words, *(str(bench / name) for name in files))
    return subprocess.run(
        argv, capture_output=True, text=True, check=False, timeout=120, env=os.environ | {"SPINE_SEED": seed}
    )


def kept(bench: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (bench / "kept.jsonl").read_text().splitlines()]


def runs(bench: Path) -> dict[str, int]:
    return {path.stem: len(path.read_text()) for path in bench.glob("*.runs")}


def test_each_file_has_a_line_with_its_verdict_and_where_it_is_from(bench: Path) -> None:
    done = vm_full(bench)
    assert done.returncode == 1, done.stderr
    lines = {os.path.basename(str(line["file"])): line for line in kept(bench)}
    assert {name: (line["verdict"], line["cases"], line["failed"]) for name, line in lines.items()} == {
        "test_vm_good.py": ("passed", 2, []), "test_vm_bad.py": ("failed", 2, ["test_it_fails"]),
        "test_vm_slow.py": ("passed", 1, []), "test_vm_none.py": ("empty", 0, []),
    }  # fmt: skip
    git = ["git", "-C", str(SCRIPT.parent), "rev-parse", "HEAD"]
    head = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
    for line in lines.values():
        assert (str(line["commit"]).removesuffix("+"), line["seed"]) == (head, "1")
        assert float(str(line["seconds"])) > 0
        assert time.strptime(str(line["date"]), "%Y-%m-%dT%H:%M:%SZ")


def test_what_has_a_verdict_is_not_run_again_and_what_failed_only_if_asked(bench: Path) -> None:
    first = ("test_vm_good.py", "test_vm_bad.py")
    vm_full(bench, files=first)
    with (bench / "kept.jsonl").open("a") as torn:
        torn.write('{"file": "cut off by a cra\n')
    done = vm_full(bench, files=(*first, "test_vm_slow.py"))
    assert done.returncode == 1
    assert runs(bench) == {"test_vm_good": 1, "test_vm_bad": 1, "test_vm_slow": 1}
    (bench / "test_vm_bad.mended").touch()
    done = vm_full(bench, "--failed", files=(*first, "test_vm_slow.py"))
    assert (done.returncode, runs(bench)) == (0, {"test_vm_good": 1, "test_vm_bad": 2, "test_vm_slow": 1})


def test_a_verdict_of_another_commit_counts_only_if_asked_and_one_of_another_seed_never(bench: Path) -> None:
    good = ("test_vm_good.py",)
    vm_full(bench, files=good)
    other = kept(bench)[0] | {"commit": "0123456789abcdef" * 2 + "01234567"}
    (bench / "kept.jsonl").write_text(json.dumps(other) + "\n")
    assert "01234567" in vm_full(bench, "--any-commit", files=good).stdout
    assert runs(bench) == {"test_vm_good": 1}
    vm_full(bench, files=good)
    assert runs(bench) == {"test_vm_good": 2}
    vm_full(bench, "--any-commit", files=good, seed="2")
    assert (runs(bench), [line["seed"] for line in kept(bench)]) == ({"test_vm_good": 3}, ["1", "1", "2"])


def test_a_file_that_takes_too_long_is_ended_and_the_next_one_has_its_turn(bench: Path) -> None:
    (bench / "test_vm_slow.slow").touch()
    (bench / "test_vm_also.py").write_text((bench / "test_vm_slow.py").read_text())
    (bench / "test_vm_also.slow").touch()
    done = vm_full(bench, "--bound", "3", files=("test_vm_slow.py", "test_vm_also.py"))
    assert done.returncode == 1
    assert [line["verdict"] for line in kept(bench)] == ["late", "late"]


def test_a_run_that_is_stopped_goes_on_with_the_file_that_was_running(bench: Path) -> None:
    (bench / "test_vm_slow.slow").touch()
    files = [str(bench / name) for name in ("test_vm_good.py", "test_vm_slow.py")]
    process = subprocess.Popen(
        command(bench, *files), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    end = time.monotonic() + 60
    while not (bench / "test_vm_slow.runs").exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert (process.returncode, [line["verdict"] for line in kept(bench)]) == (130, ["passed"]), said
    (bench / "test_vm_slow.slow").unlink()
    done = vm_full(bench, files=("test_vm_good.py", "test_vm_slow.py"))
    assert (done.returncode, runs(bench)) == (0, {"test_vm_good": 1, "test_vm_slow": 2})


def test_a_report_runs_nothing_and_names_what_is_missing_and_what_failed(bench: Path) -> None:
    vm_full(bench, files=("test_vm_bad.py",))
    done = vm_full(bench, "--report", files=("test_vm_good.py", "test_vm_bad.py"))
    assert (done.returncode, runs(bench)) == (1, {"test_vm_bad": 1})
    rows = [
        [cell.strip() for cell in row.strip("|").split("|")]
        for row in done.stdout.splitlines()
        if row.startswith("|")
    ]
    assert rows[0] == ["file", "verdict", "cases", "seconds", "commit", "seed", "date"]
    assert [(os.path.basename(row[0]), row[1], row[2]) for row in rows[2:]] == [
        ("test_vm_good.py", "not run", ""),
        ("test_vm_bad.py", "failed", "2"),
    ]
    assert "0 of 2 files passed" in done.stdout
    assert "failed: test_it_fails" in done.stdout


@pytest.mark.parametrize("words", [["--no-such"], ["no_such_file.py"], ["--bound", "x"], ["--resume"]])
def test_a_mistake_is_named_and_nothing_runs(bench: Path, words: list[str]) -> None:
    done = subprocess.run(command(bench, *words), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert words[0] in done.stderr
    assert not (bench / "kept.jsonl").exists()
