"""`bay0 nack`: the command line's half. `check` is made for scripts: its status is 0 only if the digest is known to be clear."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from typing import Any

from bay0.cli import client
from bay0.cli.kit import DONE, REFUSED, emit
from bay0.digests import parse
from bay0.errors import BadDigestError, UsageError


def register(verbs: Any) -> None:
    """Add the verb and its four actions to the command line's grammar."""
    text = "keep digests that must not be installed again: add, list, remove, check"
    actions = verbs.add_parser("nack", help=text, description=text).add_subparsers(dest="action", metavar="ACTION", required=True)

    def add(name: str, call: Any, about: str, *, digest: bool = True) -> argparse.ArgumentParser:
        action: argparse.ArgumentParser = actions.add_parser(name, help=about, description=about)
        action.set_defaults(call=call)
        action.add_argument("--json", action="store_true", help="print JSON for programs")
        if digest:
            action.add_argument("digest", help="sha256: and 64 hex digits")
        return action

    action = add("add", _add, "refuse this digest from now on; on the disk before the answer")
    action.add_argument("--why", default="", metavar="TEXT", help="what was wrong with it, for whoever asks later")
    add("list", _list, "print what is refused, the newest first", digest=False)
    add("remove", _remove, "allow this digest again; nothing else ever does")
    add("check", _check, "exit with 0 if this digest may be installed, 1 if it is refused or nobody knows")


def _digest(options: argparse.Namespace) -> str:
    try:
        return parse(options.digest)
    except BadDigestError as error:
        raise UsageError(str(error)) from error


def _add(options: argparse.Namespace) -> int:
    done = client.call("nack.add", digest=_digest(options), why=options.why)
    emit(options, done, "refused from now on" if done["changed"] else "was refused already; its first reason is kept")
    return DONE


def _remove(options: argparse.Namespace) -> int:
    done = client.call("nack.remove", digest=_digest(options))
    emit(options, done, "allowed again" if done["changed"] else "was not refused")
    return DONE


def _check(options: argparse.Namespace) -> int:
    found = client.call("nack.check", digest=_digest(options))
    emit(options, found, f"refused since {line(found)}" if found["nacked"] else "not refused")
    return REFUSED if found["nacked"] else DONE


def _list(options: argparse.Namespace) -> int:
    found = client.call("nack.list")
    rows = [f"{row['digest']}  {line(row)}" for row in found["entries"]]
    if len(rows) < found["total"]:
        rows.append(f"... and {found['total'] - len(rows)} older ones")
    emit(options, found, "\n".join(rows) or "nothing is refused")
    return DONE


def line(row: Mapping[str, Any]) -> str:
    """Return when and why, for people."""
    return f"{time.strftime('%Y-%m-%d %H:%M', time.gmtime(row['at']))} UTC: {row['why'] or 'no reason was given'}"
