"""`bay0 image`: the images that personas are made of."""

from __future__ import annotations

import os
import sys

from bay0.base.errors import RefusedError, UsageError
from bay0.cli import client, inputs
from bay0.cli import persona_text as report
from bay0.cli.kit import DONE, emit
from bay0.cli.persona import WAIT_S
from bay0.cli.persona_words import MANIFEST
from bay0.cli.text import size as written

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bay0.cli.grammar import Options


LOAD_S = 3600.0  # seconds; an archive of some GiB on a slow disk


def load(options: Options) -> int:
    """Bring an archive in; its path is made absolute, for PID 1 has another working directory."""
    if options.file == inputs.STDIN:
        path = _received()
    else:
        path = os.path.abspath(options.file)
        if not os.path.isfile(path):
            raise RefusedError(f"no archive at {path}; scripts/mkpersona.sh builds one, and - takes one from stdin")
    found = client.call("image.load", timeout_s=LOAD_S, path=path)
    emit(options, found, f"loaded {', '.join(found['loaded'])}; name it as `image` in a {MANIFEST}")
    return DONE


def _received() -> str:
    """Keep the archive that comes through stdin, and say on a terminal how far it is."""
    from bay0.state import incoming

    if sys.stdin.isatty():
        raise UsageError("- reads the archive from stdin, which is a terminal: put it into a pipe, `... | bay0 image load -`")
    client.call("image.list", timeout_s=WAIT_S)  # refuses what would be refused after the last byte
    terminal = sys.stderr.isatty()

    def say(size: int) -> None:
        if terminal:
            print(f"\r\033[K{written(size)} have come", end="", file=sys.stderr, flush=True)

    path, size = incoming.receive(sys.stdin.buffer, say)
    if terminal:
        print(f"\r\033[K{written(size)} have come; podman unpacks them", file=sys.stderr, flush=True)
    return path


def list_all(options: Options) -> int:
    """List the images."""
    found = client.call("image.list", timeout_s=WAIT_S)
    emit(options, found, report.images(found))
    return DONE


def remove(options: Options) -> int:
    """Remove an image."""
    found = client.named(options.image, "image.list", "image.remove", timeout_s=WAIT_S, name=options.image)
    emit(options, found, f"{found['removed']} is removed")
    return DONE
