#!/usr/bin/env python3
"""Write the manifest of a spine image, or compare two.

Usage: manifest.py --source S --flavor F --bay0 V --kernel R --epoch N --packages TSV
                   --build-packages TSV --wheels LOCK --lock-hash H --builder IMAGE
                   --content DIGEST --os-release FILE [--unverified] [--artifact NAME=PATH]...
       manifest.py --drift OLD NEW
"""

import argparse
import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any

SCHEMA = 1
NO_FIRMWARE = {"firmware": "the VM flavour carries none; virtual devices need none"}


def image_packages(tsv: Path) -> list[dict[str, str]]:
    """Rows of kind, name, version, architecture, digest. Alpine's own digests are not sha256."""
    rows = [line.split("\t") for line in tsv.read_text().splitlines()]
    return [
        {"kind": kind, "name": name, "version": version, "arch": arch}
        | ({"apk_checksum": digest[4:]} if digest.startswith("apk:") else {"sha256": digest})
        for kind, name, version, arch, digest in rows
    ]


def locked_wheels(lock: Path) -> list[dict[str, str]]:
    """Return the wheels the freeze may draw from, as a lock file pins them."""
    found = re.findall(r"^(\S+)==(\S+) \\\n\s+--hash=sha256:(\w{64})", lock.read_text(), re.MULTILINE)
    return [{"kind": "wheel", "name": name, "version": version, "sha256": sha} for name, version, sha in found]


def build_tools(tsv: Path) -> dict[str, str]:
    """Name to version of the build root's Debian packages."""
    return {name: version for name, version, _arch in (line.split("\t") for line in tsv.read_text().splitlines())}


def artifact(path: Path) -> dict[str, Any]:
    """Return size and digest of a finished file."""
    with path.open("rb") as data:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(data, "sha256").hexdigest()}


def build(options: argparse.Namespace) -> dict[str, Any]:
    """Return the whole manifest."""
    packages = image_packages(options.packages)
    manifest: dict[str, Any] = {
        "schema": SCHEMA,
        "source": options.source,
        "flavor": options.flavor,
        "content_sha256": options.content,
        "lock_sha256": options.lock_hash,
        "lock_verified": not options.unverified,
        "packages_sha256": hashlib.sha256(options.packages.read_bytes()).hexdigest(),
        "bay0": options.bay0,
        "os_release": options.os_release.read_text(encoding="utf-8"),
        "kernel_release": options.kernel,
        "source_date_epoch": options.epoch,
        "packages": packages,
        "wheels": locked_wheels(options.wheels),
        "build_root": build_tools(options.build_packages),
        "not_included": ({} if options.flavor == "metal" else NO_FIRMWARE),
    }
    if options.source == "alpine":
        manifest["builder_image"] = options.builder
    if options.artifact:
        manifest["artifacts"] = {name: artifact(Path(path)) for name, path in (pair.split("=", 1) for pair in options.artifact)}
    return manifest


def versions(manifest: dict[str, Any]) -> dict[str, str]:
    """Everything that has a version, by kind and name."""
    found = {f"{p['kind']} {p['name']}": p["version"] for p in manifest["packages"] + manifest["wheels"]}
    return found | {f"build root {name}": version for name, version in manifest["build_root"].items()}


def drift(old: dict[str, str], new: dict[str, str]) -> list[str]:
    """One line for each thing that came, went or moved."""
    changed = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    return [f"{name}: {old.get(name, 'absent')} -> {new.get(name, 'gone')}" for name in changed]


def main(arguments: list[str]) -> int:
    """Write a manifest or compare two; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drift", nargs=2, type=Path, metavar=("OLD", "NEW"))
    for name in ("--source", "--flavor", "--bay0", "--kernel", "--lock-hash", "--builder", "--content"):
        parser.add_argument(name)
    parser.add_argument("--epoch", type=int)
    for name in ("--packages", "--build-packages", "--wheels", "--os-release"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--unverified", action="store_true")
    parser.add_argument("--artifact", action="append", default=[], metavar="NAME=PATH")
    options = parser.parse_args(arguments)
    if options.drift:
        old, new = (versions(json.loads(path.read_text())) for path in options.drift)
        changes = drift(old, new)
        print(f"        package drift since the last manifest: {len(changes) or 'none'}")
        for line in changes:
            print(f"          {line}")
    else:
        json.dump(build(options), sys.stdout, indent=2, sort_keys=True)
        print()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
