"""The verb `validate`, also as `bay0 --validate`: ask PID 1, show how far it is, say what is not well, in the exit status too."""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

from bay0.base.errors import Bay0Error, NoSpineError
from bay0.cli import client, streams
from bay0.cli.grammar import Options
from bay0.cli.kit import NO_SPINE, emit
from bay0.validate import verdict
from bay0.validate.verdict import COMPONENTS, STATUS, Level

TIMEOUT_S = 900.0  # bay0 answers within two runs of 30 s, times its patience
LOOK_S = 0.3
BUSY_MAX = 60  # characters of what is busy


def run(options: Options) -> int:
    """Validate. Exit status: 0 GREEN, 1 YELLOW, 2 RED; 3: nothing could be checked, there is no verdict."""
    only = options.only or list(COMPONENTS)
    try:
        result = _ask(only) if sys.stderr.isatty() else client.call("validate", timeout_s=TIMEOUT_S, only=only)
    except Bay0Error as error:
        return _unchecked(options, only, error)
    try:
        emit(options, result, verdict.text(result))
        sys.stdout.flush()
    except BrokenPipeError:  # a reader that has enough does not change the verdict
        streams.drop(sys.stdout)
    return STATUS[Level(result["verdict"])]


def _unchecked(options: Options, only: list[str], error: Bay0Error) -> int:
    why = str(error)
    if isinstance(error, NoSpineError):
        why = f"all of it is looked at by PID 1 of a running spine. {why}"
    if options.json:
        print(json.dumps({"verdict": None, "unchecked": only, "why": why}, indent=2))
    print(f"bay0: no verdict; not checked: {', '.join(only)}: {why}", file=sys.stderr)
    return NO_SPINE


def _ask(only: list[str]) -> Any:
    """Ask, and meanwhile keep a line on the terminal that says what is busy."""
    answer: list[Any] = []

    def call() -> None:
        try:
            answer.append(client.call("validate", timeout_s=TIMEOUT_S, only=only))
        except (Bay0Error, OSError) as error:
            answer.append(error)

    asking = threading.Thread(target=call, daemon=True)
    began = time.monotonic()
    asking.start()
    while asking.is_alive():
        asking.join(LOOK_S)
        print(f"\r\033[K{_progress(time.monotonic() - began)}", end="", file=sys.stderr, flush=True)
    print("\r\033[K", end="", file=sys.stderr, flush=True)
    if isinstance(answer[0], Exception):
        raise answer[0]
    return answer[0]


def _progress(seconds: float) -> str:
    try:
        found = client.call("validate.progress", timeout_s=LOOK_S * 10)
    except (Bay0Error, OSError):
        found = None
    if not found:
        return f"checking ... {seconds:.0f} s"
    busy = ", ".join(f"{name}: {doing}" if doing else name for name, doing in found["doing"].items())
    return f"checking: {found['done']} of {found['of']} done; {busy[:BUSY_MAX]} ... {seconds:.0f} s"
