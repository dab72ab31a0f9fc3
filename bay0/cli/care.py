"""The verbs for somebody who wonders what is the matter: `governor`, `turns`, `doctor`, `support`. All run in their own process."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from bay0.base.errors import RefusedError, UsageError
from bay0.cli import client
from bay0.cli.grammar import Options
from bay0.cli.kit import DONE, REFUSED, emit

LOG_LINES_MAX = 20_000
SLOW = ("freezer",)  # it makes a container
ASKED_MAX = 32  # machines whose journal is read


def governor(options: Options) -> int:
    """Print what the governor sees."""
    from bay0.cli import governor_text

    found = client.call("governor")
    emit(options, found, governor_text.text(found))
    return DONE


def turns(options: Options) -> int:
    """Print how long turns took."""
    from bay0.cli import report

    found = client.call("turns", since_ms=options.since)
    emit(options, found, report.turns(found))
    return DONE


def doctor(options: Options) -> int:
    """Print what is wrong."""
    from bay0.cli import doctor as rules

    found = _findings()
    emit(options, rules.wire(found), rules.text(found))
    return REFUSED if found else DONE


def support(options: Options) -> int:
    """Write the bundle."""
    from bay0.cli import doctor as rules
    from bay0.cli import support as bundles

    if options.file != "-" and os.path.lexists(options.file):
        raise UsageError(f"{options.file} is there already; it is not replaced")
    bundle = bundles.collect(lambda: rules.text(_findings()))
    data = bundle.archive()
    if options.file == "-":
        sys.stdout.buffer.write(data)
        return DONE
    bundles.write(options.file, data)
    print(f"{options.file}: {len(data) / 1024:.0f} KiB, {len(bundle.parts)} parts")
    for name, why in bundle.missing.items():
        print(f"without {name}: {why}")
    return DONE


def _findings() -> Sequence[Any]:
    """Gather everything the doctor looks at. What cannot be asked is a finding of its own where it matters, and left out elsewhere."""
    from bay0 import net
    from bay0.cli import doctor as rules

    status, network = client.call("status"), net.violations()
    personas = _maybe("persona.list") or ()
    unclear = [p["name"] for p in personas if p["state"] in ("failed", "stuck", "waiting") and p["why"] == rules.AS_BEFORE][:ASKED_MAX]
    journal = {name: rows for name in unclear if (rows := _maybe("history", machine=name, limit=1))}
    boots, governed = _maybe("boots", previous=0), _maybe("governor")
    servers = _maybe("tenant.list") or ()
    return rules.findings(
        status, personas=personas, servers=servers, boots=boots, governor=governed, log=_log(), network=network, journal=journal, checks=_checks(),
        memory_files=_memory_files(),
    )


def _memory_files() -> list[dict[str, Any]]:
    """Look at the filesystems in memory; what is mounted over one of them is somebody's own affair."""
    from bay0.effects.mounts import in_memory

    found = []
    for path in in_memory():
        room = os.statvfs(path)
        sizes = {"bytes": room.f_blocks * room.f_frsize, "bytes_free": room.f_bavail * room.f_frsize}
        found.append({"path": path, **sizes, "files": room.f_files, "files_free": room.f_favail})
    return found


def _checks() -> list[Any]:
    """Have validation look at all that takes a moment; what takes long is as it was found last in this boot."""
    from bay0.cli.validate import TIMEOUT_S
    from bay0.validate.verdict import COMPONENTS

    found = _maybe("validate", timeout_s=TIMEOUT_S, only=[name for name in COMPONENTS if name not in SLOW])
    return [*(found["checks"] if found else ()), *(each for each in _maybe("validate.last") or () if each["name"] in SLOW)]


def _maybe(method: str, **params: Any) -> Any:
    try:
        return client.call(method, **params)
    except RefusedError:
        return None


def _log() -> list[dict[str, Any]]:
    import json

    from bay0.base.logline import RUN_LOG
    from bay0.cli import logview

    found = []
    for line in list(logview.stored(RUN_LOG))[-LOG_LINES_MAX:]:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            found.append(record)
    return found
