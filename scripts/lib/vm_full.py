"""Runs test files one after the other with pytest, and keeps what each gave.

So a run of hours can be stopped and gone on with. The other half of scripts/vm-full.sh, whose --help tells
the options. A line of the kept file is a JSON object: `file` (path), `verdict` (passed, failed, late, empty),
`cases`, `failed` (names), `skipped`, `seconds`, `commit` (with a `+` if the checkout had changes), `seed`,
`date` (UTC, when the file began). Lines are only added. The last one of a file, commit and seed counts.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from typing import Any

TOP = pathlib.Path(__file__).resolve().parents[2]
GRACE_S = 120  # from SIGINT to SIGKILL: pytest ends its VMs and says what it has
Line = dict[str, Any]


def main(argv: list[str] | None = None) -> int:
    """Run what is left; return 0 if each file's last verdict is `passed`, 1 if not, 130 if stopped."""
    options = _options(argv)
    # What a shell starts behind itself ignores SIGINT, and so would pytest, which is ended by it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    commit, seed = commit_now(), os.environ.get("SPINE_SEED", "1")
    files = [os.path.relpath(path, TOP) for path in options.files] or sorted(
        str(path.relative_to(TOP)) for path in (TOP / "tests" / "vm").glob("test_vm_*.py")
    )
    if not options.report:
        try:
            _run(options, files, commit, seed)
        except KeyboardInterrupt:
            print(
                f"stopped; --resume {options.resume} goes on with the file that was running", file=sys.stderr
            )
            return 130
    found = verdicts(options.resume, None if options.any_commit or options.report else commit, seed)
    print(table(files, found))
    return 0 if all(found.get(name, {}).get("verdict") == "passed" for name in files) else 1


def _run(options: argparse.Namespace, files: list[str], commit: str, seed: str) -> None:
    before = verdicts(options.resume, None if options.any_commit else commit, seed)
    left = [
        name
        for name in files
        if name not in before or (options.failed and before[name]["verdict"] != "passed")
    ]
    say(
        f"{len(left)} of {len(files)} files are to be run (commit {commit[:12]}, seed {seed}); "
        f"verdicts go to {options.resume}"
    )
    for number, name in enumerate(left, start=1):
        say(f"{number}/{len(left)}: {name}")
        line = run_file(options.python, name, options.bound) | {"commit": commit, "seed": seed}
        keep(options.resume, line)
        say(f"{number}/{len(left)}: {name}: {line['verdict']}, {line['cases']} cases in {line['seconds']} s")


def run_file(python: str, name: str, bound_s: float) -> Line:
    """Run the VM cases of one file; its output is pytest's own."""
    began, date = time.monotonic(), dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    with tempfile.TemporaryDirectory(prefix="vm-full-") as folder:
        results = os.path.join(folder, "junit.xml")
        argv = [python, "-m", "pytest", "-q", "-m", "vm", f"--junitxml={results}", name]
        # Under this name, what a case needs and does not find is a failure, not a skip (tests/vm/harness.py).
        environment = os.environ | {
            "TOX_ENV_NAME": "vm-full",
            "PYTHONPATH": str(TOP),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        process = subprocess.Popen(
            argv, cwd=TOP, env=environment, stdin=subprocess.DEVNULL, start_new_session=True
        )
        late = False
        try:
            process.wait(bound_s)
        except subprocess.TimeoutExpired:
            late = True
            end(process)
        except KeyboardInterrupt:
            end(process)
            raise
        cases = count(results)
    verdict = (
        "late"
        if late
        else "passed"
        if process.returncode == 0
        else "empty"
        if cases["cases"] == 0
        else "failed"
    )
    return {
        "file": name,
        "verdict": verdict,
        **cases,
        "seconds": round(time.monotonic() - began, 1),
        "date": date,
    }


def end(process: subprocess.Popen[bytes]) -> None:
    """End pytest as Ctrl-C does, so that it ends its VMs; then by force, with what is left of its session."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(GRACE_S)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def count(results: str) -> Line:
    """Read pytest's own count: `cases`, `failed` and `skipped`; zeros if it wrote none."""
    try:
        cases = list(ET.parse(results).iter("testcase"))  # noqa: S314 - pytest has just written it
    except (OSError, ET.ParseError):
        cases = []
    failed = [
        case.get("name", "?")
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    ]
    return {
        "cases": len(cases),
        "failed": failed,
        "skipped": sum(case.find("skipped") is not None for case in cases),
    }


def keep(path: str, line: Line) -> None:
    """Add a line, on the disk before the next file begins."""
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with open(path, "a", encoding="utf-8") as kept:
        kept.write(json.dumps(line) + "\n")
        kept.flush()
        os.fsync(kept.fileno())


def verdicts(path: str, commit: str | None, seed: str) -> dict[str, Line]:
    """Return the last line of each file, of this seed and (unless None) this commit.

    A line cut short by a crash is no verdict.
    """
    found: dict[str, Line] = {}
    try:
        lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return found
    for text in lines:
        try:
            line = json.loads(text)
            if line["seed"] == seed and commit in (None, line["commit"]):
                found[line["file"]] = line
        except (ValueError, KeyError, TypeError):
            continue
    return found


def table(files: list[str], found: dict[str, Line]) -> str:
    """Draw what each file gave, in Markdown; a file without a verdict is in it too."""
    rows = [("file", "verdict", "cases", "seconds", "commit", "seed", "date")]
    for name in files:
        line = found.get(name)
        rows.append((name, *_row(line)) if line else (name, "not run", "", "", "", "", ""))
    wide = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    drawn = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, wide, strict=True)) + " |"
        for row in rows
    ]
    drawn.insert(1, "|" + "|".join("-" * (width + 2) for width in wide) + "|")
    done = [found[name] for name in files if name in found]
    hours, minutes = divmod(round(sum(line["seconds"] for line in done) / 60), 60)
    cases = sum(line["cases"] for line in done)
    passed = sum(line["verdict"] == "passed" for line in done)
    drawn += [
        "",
        f"{passed} of {len(files)} files passed, {cases} cases, {hours} h {minutes} min.",
    ]
    drawn += [f"- {line['file']}: failed: {case}" for line in done for case in line["failed"]]
    return "\n".join(drawn)


def _row(line: Line) -> tuple[str, ...]:
    skipped = f" ({line['skipped']} skipped)" if line["skipped"] else ""
    short = line["commit"].removesuffix("+")[:12] + ("+" if line["commit"].endswith("+") else "")
    return (
        line["verdict"],
        f"{line['cases']}{skipped}",
        str(line["seconds"]),
        short,
        line["seed"],
        line["date"],
    )


def commit_now() -> str:
    """Return the checkout's commit, with a `+` if a file that git knows was changed since."""
    head = _git("rev-parse", "HEAD").strip() or "unknown"
    return head + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")


def _git(*words: str) -> str:
    return subprocess.run(["git", "-C", str(TOP), *words], capture_output=True, text=True, check=False).stdout


def say(text: str) -> None:
    """Print where the run is."""
    print(f"[{dt.datetime.now(dt.UTC):%H:%M:%S}] {text}", file=sys.stderr, flush=True)


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="vm-full.sh",
        usage="scripts/vm-full.sh [OPTIONS] [TEST_FILE...]",
        add_help=False,
        allow_abbrev=False,
    )
    parser.add_argument("--resume", default=str(TOP / "build" / "vm-full.jsonl"))
    parser.add_argument("--failed", action="store_true")
    parser.add_argument("--any-commit", action="store_true")
    parser.add_argument("--bound", type=float, default=7200)
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("files", nargs="*")
    options = parser.parse_args(argv)
    missing = [name for name in options.files if not os.path.isfile(name)]
    if missing:
        parser.error(f"there is no such file: {', '.join(missing)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
