#!/usr/bin/env python3
"""What a spine says of itself in /etc/os-release, and its UKI in .osrel: which build it is, and which state database it can read.

    identity.py --version V --source S --flavor F --epoch SECONDS --inputs DIGEST --packages TSV TEMPLATE

The template filled in, on stdout. BUILD_ID is a digest over what was built from: the same inputs give the same, at any time on any host.
"""

from __future__ import annotations

import argparse
import ast
import datetime as dt
import hashlib
import sys
from pathlib import Path

BUILD_ID_DIGITS = 32
SCHEMA_FILE = Path(__file__).resolve().parents[2] / "bay0/state/schema.py"


def schema_version(source: str) -> int:
    """Return how many migrations bay0/state/schema.py has. It is read, not run: a host that builds has no peewee."""
    for node in ast.parse(source).body:
        targets = [node.target] if isinstance(node, ast.AnnAssign) else node.targets if isinstance(node, ast.Assign) else []
        if any(isinstance(target, ast.Name) and target.id == "MIGRATIONS" for target in targets) and isinstance(node.value, ast.Tuple):
            return len(node.value.elts)
    raise ValueError("bay0/state/schema.py has no tuple MIGRATIONS")


def build_id(options: argparse.Namespace) -> str:
    """Return the digest over everything that decides the image's bytes."""
    packages = hashlib.sha256(options.packages.read_bytes()).hexdigest()
    words = (options.inputs, options.source, options.flavor, str(options.epoch), packages)
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:BUILD_ID_DIGITS]


def main(arguments: list[str]) -> int:
    """Print the template with its words filled in; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--version", "--source", "--flavor", "--inputs"):
        parser.add_argument(name, required=True)
    parser.add_argument("--epoch", type=int, required=True)
    parser.add_argument("--packages", type=Path, required=True)
    parser.add_argument("template", type=Path)
    options = parser.parse_args(arguments)
    built = dt.datetime.fromtimestamp(options.epoch, dt.UTC)
    text = options.template.read_text(encoding="utf-8")
    for word, value in {
        "BAY0_VERSION": options.version, "SOURCE": options.source, "FLAVOR": options.flavor, "BUILD_ID": build_id(options),
        "SCHEMA": str(schema_version(SCHEMA_FILE.read_text(encoding="utf-8"))), "BUILT": f"{built:%Y-%m-%dT%H:%M:%SZ}",
    }.items():  # fmt: skip
        text = text.replace(f"@{word}@", value)
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
