#!/usr/bin/env python3
"""Pack directories into an image: a docker-archive whose bytes depend on their names, contents and x bits alone.

Usage: packtree.py --name localhost/NAME:TAG --epoch N --config JSON --out FILE.tar COMMENT=DIR...

One layer for each DIR, the lowest first; all of it is root's. --config is the image's configuration as the OCI calls it (User,
Entrypoint, Env ...). Times are N seconds after 1970.
"""

import argparse
import json
from pathlib import Path

from archive import archive, pack, tree


def main() -> None:
    """Write one image."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, kind in (("--name", str), ("--epoch", int), ("--config", json.loads), ("--out", Path)):
        parser.add_argument(name, type=kind, required=True)
    parser.add_argument("layers", nargs="+", metavar="COMMENT=DIR")
    options = parser.parse_args()
    layers = {}
    for word in options.layers:
        comment, _, directory = word.partition("=")
        if not Path(directory).is_dir():
            parser.error(f"{word}: there is no directory {directory!r}")
        layers[comment] = pack(tree(Path(directory)), options.epoch)
    options.out.write_bytes(pack(archive(layers, options.name, options.epoch, options.config, "packtree.py"), options.epoch))


if __name__ == "__main__":
    main()
