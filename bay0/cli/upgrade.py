"""`bay0 upgrade`: the other slot is written, tried once, and found good, or the machine goes back by itself."""

from __future__ import annotations

import os
import sys

from bay0.base.digests import parse
from bay0.base.errors import BadDigestError, NoSpineError, RefusedError, UsageError
from bay0.cli import client, inputs
from bay0.cli.kit import DONE, REFUSED, emit
from bay0.cli.text import size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from bay0.cli.grammar import Options

LOOK_S, WAIT_S, STAGE_S = 0.5, 1200.0, 3600.0
AT_WORK = ("staging", "arming", "judging", "rearming", "committing", "nacking", "returning", "wiping")


def status(options: Options) -> int:
    """Show the state, what is staged, and both slots."""
    found = client.call("upgrade.status", timeout_s=WAIT_S)
    emit(options, found, text(found))
    return DONE


def stage(options: Options) -> int:
    """Have an image written into the other slot, and wait until it was read back."""
    digest = _digest(options)
    if options.file == inputs.STDIN:
        if digest is None:
            raise UsageError("- reads the image from stdin, and then --digest must say which one it is: nobody can look at a stream twice")
        path = _received()
    else:
        path = os.path.abspath(options.file)
        if not os.path.isfile(path):
            raise RefusedError(f"no image at {path}; scripts/package-efi.sh makes one, and - takes one from stdin")
    begun = _followed("upgrade.stage", path=path, **({"digest": digest} if digest else {}))
    found = _settled()
    told = {**begun, "state": found["state"], "why": found["why"]}
    good = found["state"] == "staged"
    what = f"{begun['version']} (build {begun['build_id']}) is in {begun['slot']}, whole: `bay0 upgrade try` restarts into it"
    emit(options, told, what if good else f"not staged: {found['why']}")
    return DONE if good else REFUSED


def _digest(options: Options) -> str | None:
    try:
        return None if options.digest is None else parse(options.digest)
    except BadDigestError as error:
        raise UsageError(str(error)) from error


def _received() -> str:
    """Keep the image that comes through stdin."""
    from bay0.state import incoming

    if sys.stdin.isatty():
        raise UsageError("- reads the image from stdin, which is a terminal: put it into a pipe, `... | bay0 upgrade stage - --digest D`")
    path, _ = incoming.receive(sys.stdin.buffer, lambda done: _say(f"{size(done)} have come"), what="image")
    return path


def _say(line: str) -> None:
    """Say on a terminal how far it is."""
    if sys.stderr.isatty():
        print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)


def _followed(method: str, **params: Any) -> Any:
    """Call what may look at a whole file first, and say meanwhile how far it is."""
    import threading

    ended = threading.Event()

    def follow() -> None:
        while not ended.wait(LOOK_S):
            try:
                _progress(client.call("upgrade.status", quick=True))
            except (RefusedError, NoSpineError):
                return

    if sys.stderr.isatty():
        threading.Thread(target=follow, daemon=True).start()
    try:
        return client.call(method, timeout_s=STAGE_S, **params)
    finally:
        ended.set()
        _say("")


def _settled() -> Any:
    """Wait until the machine rests."""
    from time import monotonic, sleep

    end = monotonic() + STAGE_S
    while True:
        found = client.call("upgrade.status", quick=True)
        if found["state"] not in AT_WORK or monotonic() > end:
            _say("")
            return found
        _progress(found)
        sleep(LOOK_S)


def _progress(found: Mapping[str, Any]) -> None:
    far = found["progress"]
    if far:
        _say(f"{far['doing']}: {size(far['done'])} of {size(far['of'])}")


def attempt(options: Options) -> int:
    """Restart into what is staged."""
    found = client.call("upgrade.try", timeout_s=WAIT_S, no_watchdog=options.no_watchdog)
    if found["state"] in AT_WORK:
        found = {**found, **{key: value for key, value in _settled().items() if key in ("state", "why")}}
    good = found["state"] == "trying"
    guard = f"a watchdog of {found['watchdog_s']} s guards its start" if found["watchdog_s"] else "no watchdog guards its start"
    emit(options, found, f"armed, {guard}; the machine restarts" if good else f"not armed: {found['why']}")
    return DONE if good else REFUSED


def act(options: Options) -> int:
    """Cancel, accept or roll back (`options.how`)."""
    found = client.call(f"upgrade.{options.how}", timeout_s=WAIT_S)
    if found["state"] in AT_WORK:
        found = {key: value for key, value in _settled().items() if key in ("state", "why")}
    good = found["state"] in options.wanted
    emit(options, found, f"{found['state']}: {found['why']}")
    return DONE if good else REFUSED


def text(found: Mapping[str, Any]) -> str:
    """Return the status for people."""
    tries = f", try {found['attempts']}" if found["attempts"] else ""
    lines = [f"upgrade   {found['state']}{tries}: {found['about']}"]
    if found["why"]:
        lines.append(f"last      {found['why']}")
    if found["progress"]:
        lines.append(f"progress  {found['progress']['doing']}: {size(found['progress']['done'])} of {size(found['progress']['of'])}")
    image = found["image"]
    if image:
        lines.append(f"image     {_image(image)}, for {image['slot']}")
        lines.append(f"          {image['digest']}")
        if image.get("verdict"):
            lines.append(f"verdict   {image['verdict']}")
    if found["slots"] is None:
        return "\n".join([*lines, "slots     not looked at while something is written"])
    if found["missing"]:
        lines.append(f"slots     {found['missing']}")
    running = found["slots"].get(found["runs"], {}).get("uki")
    for name, slot in sorted(found["slots"].items()):
        words = [word for word, true in (("runs", name == found["runs"]), ("starts next", name == found["next"])) if true]
        lines.append(f"{name:9} {_image(slot['uki']) if slot['uki'] else slot['why']}" + (f" ({', '.join(words)})" if words else ""))
        env = slot["env"]
        if env:
            state = "not offered to the loader" if env["in_progress"] else f"{env['state']}, revision {env['revision']}"
            lines.append(f"          {state}" + (f", watchdog {env['watchdog_s']} s" if env["watchdog_s"] else ""))
        if running and slot["uki"] and name != found["runs"]:
            lines.append(f"          {_changed(running, slot['uki'])}")
    return "\n".join(lines)


def _image(image: Mapping[str, Any]) -> str:
    return f"{image['version']}, build {image['build_id']} of {image['built']}, kernel {image['kernel']}, {size(image['size'])}"


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    names = {"version": "version", "build_id": "build", "kernel": "kernel", "schema": "database version", "size": "size"}
    changed = [name for key, name in names.items() if old[key] != new[key]]
    return f"beside what runs it differs in {', '.join(changed)}" if changed else "the same as what runs"
