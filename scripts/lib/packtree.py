#!/usr/bin/env python3
"""Pack directories into an image: a docker-archive whose bytes depend on their names, contents and x bits alone.

Usage: packtree.py --name localhost/NAME:TAG --epoch N --config JSON --out FILE.tar COMMENT=DIR...
       packtree.py --on BASE.tar --epoch N --out FILE.tar COMMENT=DIR...

One layer for each DIR, the lowest first; all of it is root's. --config is the image's configuration as the OCI calls it (User,
Entrypoint, Env ...); --on takes name, configuration and lower layers from an archive of this form. Times are N seconds after 1970.
"""

import argparse
import json
import tarfile
from pathlib import Path
from typing import Any

from archive import archive, pack, tree


def base(path: Path) -> tuple[str, dict[str, Any], dict[str, bytes]]:
    """Return name, configuration and layers (by what they hold) of an archive that this script made."""
    with tarfile.open(path) as tar:

        def member(name: str) -> bytes:
            found = tar.extractfile(name)
            if found is None:
                raise SystemExit(f"packtree.py: {path} has no {name}")
            return found.read()

        manifest = json.loads(member("manifest.json"))[0]
        described = json.loads(member(manifest["Config"]))
        comments = [step["comment"] for step in described["history"]]
        layers = dict(zip(comments, map(member, manifest["Layers"]), strict=True))
    return manifest["RepoTags"][0], described["config"], layers


def main() -> None:
    """Write one image."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name")
    parser.add_argument("--config", type=json.loads)
    parser.add_argument("--on", type=Path)
    for name, kind in (("--epoch", int), ("--out", Path)):
        parser.add_argument(name, type=kind, required=True)
    parser.add_argument("layers", nargs="+", metavar="COMMENT=DIR")
    options = parser.parse_args()
    if (options.on is None) is (None in (options.name, options.config)):
        parser.error("either --on, or --name and --config")
    name, config, layers = base(options.on) if options.on else (options.name, options.config, {})
    for word in options.layers:
        comment, _, directory = word.partition("=")
        if not Path(directory).is_dir():
            parser.error(f"{word}: there is no directory {directory!r}")
        layers[comment] = pack(tree(Path(directory)), options.epoch)
    options.out.write_bytes(pack(archive(layers, name, options.epoch, config, "packtree.py"), options.epoch))


if __name__ == "__main__":
    main()
