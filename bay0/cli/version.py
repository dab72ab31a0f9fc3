"""What `bay0 version` says of the image it runs from: facts out of the manifest inside the image, and what is running."""

from __future__ import annotations

import posix
import sys
import time

import bay0
from bay0.cli import plainjson
from bay0.cli.kit import DONE, emit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from bay0.cli.grammar import Options

MANIFEST = "/usr/lib/bay0/manifest.json"
KEYS = (
    "content_sha256",
    "source",
    "flavor",
    "kernel_release",
    "lock_sha256",
    "lock_verified",
    "packages_sha256",
    "builder_image",
)


def _is_there(path: str) -> bool:
    try:
        posix.stat(path)
    except OSError:
        return False
    return True


def libc() -> str:
    """Return which C library this program is linked with: "musl", or confstr(3)'s words as "glibc 2.41", or "unknown"."""
    try:
        return posix.confstr("CS_GNU_LIBC_VERSION") or "musl"
    except (OSError, ValueError):
        return "musl" if _is_there("/lib/ld-musl-x86_64.so.1") else "unknown"


def image(path: str = MANIFEST) -> dict[str, Any] | None:
    """Return what the image's manifest says of it; None where there is none or it cannot be read: this is no spine.

    `content_sha256` is the digest of everything in the root but the manifest (scripts/lib/rootdigest.py): no
    image can hold its own. The manifest beside the image has the same value next to the digests of spine.img
    and vmlinuz. `built` is SOURCE_DATE_EPOCH, which is the time of the commit unless the builder said
    otherwise: a build that noted the clock could not be repeated.
    """
    try:
        with open(path, encoding="utf-8") as file:
            manifest = plainjson.loads(file.read())
        built = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(manifest["source_date_epoch"]))
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return None
    return {key: manifest[key] for key in KEYS if key in manifest} | {"built": built}


def facts(path: str = MANIFEST) -> dict[str, Any]:
    """Return the whole answer, in the form of --json.

    `kernel` is the one that runs, `image.kernel_release` the one the image has modules for.
    """
    return {
        "bay0": bay0.__version__,
        "python": sys.version.split()[0],
        "libc": libc(),
        "kernel": posix.uname().release,
        "image": image(path),
    }


def text(said: dict[str, Any]) -> str:
    """Return it for people: the version alone where there is no image."""
    first = f"bay0 {said['bay0']}"
    found = said["image"]
    if found is None:
        return first
    rows = {
        "image": f"content sha256:{found.get('content_sha256', 'unknown')}",
        "built": f"{found['built']} from {found.get('source', 'unknown')}, flavor {found.get('flavor', 'unknown')}",
        "locks": f"sha256:{found.get('lock_sha256', 'unknown')}"
        + ("" if found.get("lock_verified", True) else " (UNVERIFIED)"),
        "packages": f"sha256:{found.get('packages_sha256', 'unknown')}",
        "kernel": said["kernel"]
        + (
            ""
            if said["kernel"] == found.get("kernel_release")
            else f" (the image is for {found.get('kernel_release')})"
        ),
        "python": f"{said['python']}, {said['libc']}",
    }
    return "\n".join([first, *(f"  {key:9} {value}" for key, value in rows.items())])


def run(options: Options) -> int:
    """Print it; with `options.short` the version alone."""
    found = {"bay0": bay0.__version__} if options.short else facts()
    emit(options, found, f"bay0 {bay0.__version__}" if options.short else text(found))
    return DONE
