"""Archives of images on /persist, and a model of one's own for the AI tenant. Runs in the state worker."""

from __future__ import annotations

import os
import stat
import struct
from typing import Any

from bay0.state import files, paths

MAGIC = b"GGUF"  # then the version as a 32-bit number (ggml: docs/gguf.md)
VERSIONS = range(2, 4)
MODEL_MIN, MODEL_MAX = 64 << 10, 64 << 30  # bytes
PATH_MAX = 1024  # characters
_HEAD = struct.Struct("<4sI")
_NOT_BELOW = {paths.SPINE: "is bay0's own", paths.CONTAINERS: "is podman's", paths.HOMES: "is a persona's, which could change it under the server"}


def archive(path: str = paths.AI_ARCHIVE) -> str | None:
    """Return the path of the image's archive if it is there; what is no file is said and not used."""
    try:
        files.check(path)
        found = files.look(path)
    except files.MisplacedError as error:
        files.leave(error)
        return None
    return path if found is not None and found.st_size > 0 else None


def not_loadable(path: str) -> str:
    """Say why the archive at `path` cannot be loaded, "" if it can: podman would wait for a FIFO to its bound."""
    try:
        os.close(files.open_file(path))
    except files.MisplacedError as error:
        return f"{error.path} is {error.found}: name an archive that is a regular file, by its own path"
    except OSError as error:
        return f"{path}: {error.strerror}"
    return ""


def model(path: str) -> dict[str, Any]:
    """Look at a model file: {"size": bytes}, or {"why": what is wrong with it}."""
    wrong = _place(path)
    if wrong:
        return {"why": f"{path}: {wrong}"}
    try:
        fd = files.open_file(path)
    except files.MisplacedError as error:
        return {"why": f"{path}: it is no regular file, but {error.found}"}
    except OSError as error:
        return {"why": f"{path}: {error.strerror}"}
    try:
        found, head = os.fstat(fd), os.pread(fd, _HEAD.size, 0)
    finally:
        os.close(fd)
    wrong = _content(found, head)
    return {"why": f"{path}: {wrong}"} if wrong else {"size": found.st_size}


def _place(path: str) -> str:
    """Say what is wrong with where it is."""
    if len(path) > PATH_MAX or not path.isprintable() or not path.startswith(f"{paths.ROOT}/"):
        return f"a model is a file below {paths.ROOT}"
    if os.path.realpath(path) != path:
        return "this way to it has links or dots in it; name it as it is"
    return next((f"what is below {place} {whose}" for place, whose in _NOT_BELOW.items() if path.startswith(f"{place}/")), "")


def _content(found: os.stat_result, head: bytes) -> str:
    if not MODEL_MIN <= found.st_size <= MODEL_MAX:
        return f"{found.st_size} bytes; a model has from {MODEL_MIN} to {MODEL_MAX}"
    if len(head) < _HEAD.size or _HEAD.unpack(head)[0] != MAGIC:
        return "it is no GGUF file: its first four bytes are not GGUF"
    if _HEAD.unpack(head)[1] not in VERSIONS:
        return f"GGUF version {_HEAD.unpack(head)[1]}, and {VERSIONS[0]} to {VERSIONS[-1]} are known"
    if not found.st_mode & stat.S_IROTH:
        return "the server's user may not read it: chmod a+r"
    return ""
