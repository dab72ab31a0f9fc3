"""`bay0 nack`: the command line's half. `check` is made for scripts: its status is 0 only if the digest is known to be clear."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from bay0.base.digests import parse
from bay0.base.errors import BadDigestError, UsageError
from bay0.cli import client
from bay0.cli.grammar import Options
from bay0.cli.kit import DONE, REFUSED, emit


def _digest(options: Options) -> str:
    try:
        return parse(options.digest)
    except BadDigestError as error:
        raise UsageError(str(error)) from error


def add(options: Options) -> int:
    """Refuse a digest from now on."""
    done = client.call("nack.add", digest=_digest(options), why=options.why)
    emit(options, done, "refused from now on" if done["changed"] else "was refused already; its first reason is kept")
    return DONE


def remove(options: Options) -> int:
    """Allow a digest again."""
    done = client.call("nack.remove", digest=_digest(options))
    emit(options, done, "allowed again" if done["changed"] else "was not refused")
    return DONE


def check(options: Options) -> int:
    """Tell in the exit status whether a digest is allowed."""
    found = client.call("nack.check", digest=_digest(options))
    emit(options, found, f"refused since {line(found)}" if found["nacked"] else "not refused")
    return REFUSED if found["nacked"] else DONE


def list_all(options: Options) -> int:
    """Print what is refused."""
    found = client.call("nack.list")
    rows = [f"{row['digest']}  {line(row)}" for row in found["entries"]]
    if len(rows) < found["total"]:
        rows.append(f"... and {found['total'] - len(rows)} older ones")
    emit(options, found, "\n".join(rows) or "nothing is refused")
    return DONE


def line(row: Mapping[str, Any]) -> str:
    """Return when and why, for people."""
    return f"{time.strftime('%Y-%m-%d %H:%M', time.gmtime(row['at']))} UTC: {row['why'] or 'no reason was given'}"
