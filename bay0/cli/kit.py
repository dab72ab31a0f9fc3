"""What every verb shares: exit statuses, output for people or programs, pictures through Graphviz."""

from __future__ import annotations

from bay0.base.errors import RefusedError, UsageError
from bay0.cli import plainjson

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from bay0.cli.grammar import Options

DONE, REFUSED, USAGE, NO_SPINE, UNSETTLED = 0, 1, 2, 3, 4
DOT_TIMEOUT_S = 30


def emit(options: Options, value: Any, text: str) -> None:
    """Print `value` as JSON if --json was given, else `text`."""
    print(plainjson.dumps(value, indent=2) if options.json else text)


def svg(text: str) -> str:
    """Draw Graphviz text with the machine's own `dot`.

    `UsageError` if it has none, `RefusedError` if it fails or takes `DOT_TIMEOUT_S`.
    """
    import shutil
    import subprocess

    if shutil.which("dot") is None:
        raise UsageError(
            "svg needs Graphviz's `dot`; install the package graphviz on your own machine, or take --format mermaid"
        )
    try:
        return subprocess.run(
            ["dot", "-Tsvg"], input=text, capture_output=True, text=True, timeout=DOT_TIMEOUT_S, check=True
        ).stdout
    except subprocess.SubprocessError as error:
        raise RefusedError(f"no picture: {error}") from error
