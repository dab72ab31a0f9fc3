"""`bay0 persona export` and `import`: a persona as an archive, written by this process, read by PID 1's.

What is written must not change meanwhile. One that rests is gone through as it is, and looked at again before the checksum is written; of one
that runs a snapshot is taken for it, and deleted again, so that it stands still no longer than a copy takes, however slow the pipe is.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time

from bay0.base.errors import Bay0Error, RefusedError, UsageError
from bay0.cli import client, inputs
from bay0.cli.kit import DONE, emit
from bay0.cli.persona import semantic
from bay0.cli.persona_copy import COPY_S, how_much, source_of, watched
from bay0.cli.persona_text import label, what_next
from bay0.cli.text import size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any, BinaryIO

    from bay0.cli.grammar import Options
    from bay0.state.export import Export

NOTE = "for an export"
RESTS = ("stopped", "failed", "paused")
SAY_S = 0.5  # between two words of how far it is


# ---- out


def export(options: Options) -> int:
    """Write one into a file or to stdout."""
    source = source_of(options.source)
    if options.file == inputs.STDIN and sys.stdout.isatty():
        raise UsageError("- writes the archive to stdout, which is a terminal: give a file, or a pipe")
    with _standing(source) as (name, about, unchanged), _target(options.file) as out:
        made = _written(name, about, unchanged, out)
    told = {"name": source, "file": options.file, "entries": made.entries, "bytes": made.bytes, "left_out": made.left_out}
    if options.file == inputs.STDIN:
        return DONE
    sockets = f"; {made.left_out} sockets are left out" if made.left_out else ""
    emit(options, told, f"{options.file}: {source}, {made.entries} entries, {size(made.bytes)}{sockets}; `bay0 persona import` reads it")
    return DONE


@contextlib.contextmanager
def _standing(source: str) -> Iterator[tuple[str, dict[str, Any], Callable[[], None]]]:
    """Yield what is to be written as it is called on the disk, what it is of, and a call that raises if it has changed."""
    from bay0.base import names

    if names.is_snapshot(source):
        yield _snapshot(source)
        return
    shown = client.named(source, "persona.list", "persona.show", name=source)
    if shown["manifest"] is None:
        raise RefusedError(f"{source} is not exported: {shown['not_understood']}")
    if shown["state"] in RESTS:
        yield names.on_disk(source), _about(source, shown["manifest"], int(time.time())), lambda: _unchanged(shown)
        return
    taken = client.named(source, "persona.list", "persona.snapshot", timeout_s=COPY_S, name=source, note=NOTE)
    try:
        yield _snapshot(taken["name"])
    finally:
        client.call("persona.drop", name=taken["name"])


def _snapshot(name: str) -> tuple[str, dict[str, Any], Callable[[], None]]:
    from bay0.base import names

    of = names.snapshot(name)
    found = client.call("persona.snapshots", name=of.of.semantic, number=of.number)
    if found["state"] != "kept":
        raise RefusedError(f"{name} is {found['state']}; ask again when it rests")
    return of.podman, _about(of.of.semantic, found["manifest"], found["taken"]), lambda: None


def _about(name: str, manifest: Mapping[str, Any], taken: int) -> dict[str, Any]:
    import bay0

    return {"name": name, "manifest": manifest, "taken": taken, "version": bay0.__version__}


def _unchanged(shown: Mapping[str, Any]) -> None:
    now = client.call("persona.show", name=shown["name"])
    if (now["seq"], now["state"]) != (shown["seq"], shown["state"]):
        raise RefusedError(f"{shown['name']} did not stand still: it is {now['state']}. The archive is not whole, and no import takes it")


@contextlib.contextmanager
def _target(path: str) -> Iterator[BinaryIO]:
    """Yield where the archive goes. A file must be new, and is deleted again if anything goes wrong."""
    if path == inputs.STDIN:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise RefusedError(f"{path}: {error.strerror}; nothing was written") from error
    try:
        with os.fdopen(fd, "wb") as file:
            yield file
            file.flush()
            os.fsync(fd)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise


def _written(name: str, about: dict[str, Any], unchanged: Callable[[], None], out: BinaryIO) -> Export:
    from bay0.state import export as state
    from bay0.state import tree
    from bay0.state.tarstream import Writer

    tree.prepare()
    writer = Writer(out.write)
    made = state.Export(writer, _say_far())
    home = state.open_home(name)
    try:
        made.about(about, home)
        if home is not None:
            made.home(home)
        unchanged()
        writer.end()
    except OSError as error:
        raise RefusedError(f"not exported: {error.strerror or error}") from error
    finally:
        _clear()
        if home is not None:
            os.close(home)
    return made


def _say_far() -> Callable[[Export], None]:
    """Return what keeps a line on a terminal that says how far it is."""
    if not sys.stderr.isatty():
        return lambda _made: None
    due = [0.0]

    def say(made: Export) -> None:
        now = time.monotonic()
        if now >= due[0]:
            due[0] = now + SAY_S
            far = f"exporting: {size(made.bytes)} of {size(made.wanted.bytes)}, {made.entries} of {made.wanted.entries} entries"
            print(f"\r\033[K{far}", end="", file=sys.stderr, flush=True)

    return say


def _clear() -> None:
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)


# ---- in


def bring(options: Options) -> int:
    """Make a persona of an archive."""
    path = _received() if options.file == inputs.STDIN else os.path.abspath(options.file)
    about = _read(path, inputs.shown(options.file))
    name = semantic(getattr(options, "as") or str(about.get("name", "")))
    manifest = about.get("manifest")
    params = {"name": name, "archive": path, "manifest": manifest, "accept": options.accept}
    made = watched(lambda: name, lambda: client.call("persona.import", timeout_s=COPY_S, **params))
    emit(options, made, f"{made['name']} is made and {made['state']}: {how_much(made['copied'])}{_image(made)}; {what_next(made)}")
    return DONE


def _read(path: str, shown: str) -> dict[str, Any]:
    """Return what an archive is of; only its beginning is read here."""
    from bay0.state import unpack
    from bay0.state.tarstream import Reader

    try:
        with os.fdopen(inputs.regular(path, "persona's archive"), "rb") as file:
            return unpack.about(Reader(file.read))
    except OSError as error:
        raise RefusedError(f"no archive at {shown}: {error.strerror}. Nothing was changed") from error


def _received() -> str:
    """Keep what comes through stdin on the disk, since it is looked at first; at most half of what is free."""
    from bay0.state import incoming

    if sys.stdin.isatty():
        raise UsageError("- reads the archive from stdin, which is a terminal: put it into a pipe, `... | bay0 persona import -`")

    def say(done: int) -> None:
        if sys.stderr.isatty():
            print(f"\r\033[K{size(done)} have come", end="", file=sys.stderr, flush=True)

    path, _ = incoming.receive(sys.stdin.buffer, say)
    _clear()
    return path


def _image(made: Mapping[str, Any]) -> str:
    """Say that its image is to be loaded yet, if that is plain."""
    try:
        there = [image["name"] for image in client.call("image.list")]
    except Bay0Error:
        return ""
    if not there or made["image"] in there:
        return ""
    return f"; its image {made['image']} is not here: `bay0 image load` before {label(made['name'])} is started"
