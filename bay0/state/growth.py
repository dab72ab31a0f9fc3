"""`bay0 storage grow`, PID 1's end: whether there is anything to grow into, and the process that does it (resize.py)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from bay0.base import itself
from bay0.base.errors import RefusedError

if TYPE_CHECKING:
    from bay0.state.link import Answer
    from bay0.state.port import StatePort

PROCESS = "--grow-persist"  # the hidden entry of the program
Run = Callable[[str, tuple[str, ...], float, Callable[[Any], None]], object]  # the spawner's
Done = Callable[[Mapping[str, Any] | RefusedError], None]


def grow(port: StatePort, run: Run, done: Done) -> None:
    """Grow the filesystem, and the partition that it is in, if the disk is larger; `done` gets {"device", "from_bytes", "to_bytes"}, or the refusal.

    `RefusedError` at once while nothing can be kept, or while it is growing.
    """
    port.need_durable()
    if port.growing:
        raise RefusedError("it is being grown already; `bay0 storage` shows how far")
    port.keep_out_a_crowd()
    port.grows(True)

    def end(result: Mapping[str, Any] | RefusedError) -> None:
        port.grows(False)
        done(result)

    def measured(answer: Answer) -> None:
        if not answer.ok:
            end(RefusedError(f"the size of the disk cannot be read: {answer.why}; nothing was changed"))
            return
        why = why_not(answer.value)
        if why:
            end(RefusedError(f"{why}; nothing was changed"))
            return
        run("grow-persist", itself.argv(PROCESS), port.bounds.grow, lambda result: end(_outcome(port, result)))

    port.ask("extent", port.bounds.find, measured)


def why_not(extent: Mapping[str, Any]) -> str:
    """Return why a filesystem cannot be grown, "" if it can."""
    if extent["unused"] or extent["behind"]:
        return ""
    return f"{extent['device']} is used to its end: make the disk larger first"


def _outcome(port: StatePort, result: Any) -> Mapping[str, Any] | RefusedError:
    port.probe(f"{port.boot['boot_id']} grown")  # the next look at its size is this one's
    if not result.ok:
        why = result.stderr.strip() or result.reason()
        return RefusedError(f"the filesystem was not grown to its end: {why}; what was added stays, the same command goes on")
    found: Mapping[str, Any] = json.loads(result.stdout)
    port.log.info("persist grown", **found)
    return found
