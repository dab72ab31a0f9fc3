"""`bay0 persona cp`: a file into a persona's home, or out of it, in this command's own process."""

from __future__ import annotations

import contextlib
import os
import sys

from bay0.base.errors import RefusedError, UsageError
from bay0.cli import client, inputs
from bay0.cli.kit import DONE, emit
from bay0.cli.persona import semantic
from bay0.cli.text import size as written

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from bay0.cli.grammar import Options

MODE = 0o644  # of what comes from stdin


def cp(options: Options) -> int:
    """Carry one file."""
    inward, outward = _of_a_persona(options.target), _of_a_persona(options.source)
    if inward is outward:
        raise UsageError("one of the two is NAME:PATH, in a persona's home, and the other a file here: `bay0 persona cp notes work:notes`")
    try:
        size = _bring(options.source, options.target) if inward else _fetch(options.source, options.target)
    except OSError as error:
        raise RefusedError(f"{error.filename or options.source}: {error.strerror}; nothing was copied") from error
    if options.target != inputs.STDIN:
        told = {"source": options.source, "target": options.target, "bytes": size}
        emit(options, told, f"{options.target}: {written(size)}")
    return DONE


def _of_a_persona(word: str) -> bool:
    """Tell whether a word is NAME:PATH; `./a:b` is a file here."""
    name, colon, _ = word.removeprefix("p://").partition(":")
    return bool(colon) and bool(name) and "/" not in name


def _place(word: str) -> tuple[str, str]:
    """Return what the home is called on the disk, and the path in it."""
    from bay0.base import names

    short, _, path = word.removeprefix("p://").partition(":")
    name = semantic(short)
    shown = client.named(name, "persona.list", "persona.show", name=name)
    home = (shown["manifest"] or {}).get("home", "")
    if not home:
        raise RefusedError(f"{name} has no home: what is in its container goes by `bay0 persona exec {short} -- cat PATH`")
    if path.startswith("/"):
        if path != home and not path.startswith(f"{home}/"):
            raise RefusedError(f"{path} is outside of its home, {home}: that goes by `bay0 persona exec {short} -- cat {path}`")
        path = path[len(home) :]
    return names.on_disk(name), path.lstrip("/") or "."


def _bring(source: str, target: str) -> int:
    from bay0.state import carry

    name, path = _place(target)
    if source == inputs.STDIN:
        return carry.bring(name, path, sys.stdin.buffer, "", MODE)
    with os.fdopen(inputs.regular(source, "file"), "rb") as file:
        return carry.bring(name, path, file, os.path.basename(source), os.fstat(file.fileno()).st_mode)


def _fetch(source: str, target: str) -> int:
    from bay0.state import carry

    name, path = _place(source)
    if target == inputs.STDIN:
        size = carry.fetch(name, path, sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return size
    if os.path.isdir(target):
        target = os.path.join(target, os.path.basename(path))
    with _beside(target) as file:
        return carry.fetch(name, path, file)


@contextlib.contextmanager
def _beside(target: str) -> Iterator[BinaryIO]:
    """Yield a new file that takes the place of `target` once it is whole."""
    path = f"{target}.{os.getpid()}.new"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            yield file
        os.rename(path, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise
