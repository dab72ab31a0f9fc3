"""Usage: precompile.py MODULE... PATH. Writes what attrs compiles while each MODULE is imported, for bay0/loading/precompiled.py.

What a MODULE written as -MODULE compiles is left out: another file has it.
Some of its text depends on the interpreter's hash seed (the salt of __hash__): what two seeds do not agree on is left out, so
that the same sources give the same bytes.
"""

import marshal
import os
import subprocess
import sys

RECORD = "import marshal, sys; from bay0.loading import precompiled; marshal.dump(precompiled.record(sys.argv[1]), sys.stdout.buffer)"


def recorded(module: str, seed: int) -> dict[tuple[str, str], object]:
    """Record in a fresh interpreter."""
    made = subprocess.run([sys.executable, "-c", RECORD, module], env={**os.environ, "PYTHONHASHSEED": str(seed)}, stdout=subprocess.PIPE, check=True)
    return marshal.loads(made.stdout)  # noqa: S302 - we have just written it


if __name__ == "__main__":
    same, elsewhere = {}, set()
    for module in sys.argv[1:-1]:
        if module.startswith("-"):
            elsewhere |= recorded(module[1:], 1).keys()
            continue
        first, second = recorded(module, 1), recorded(module, 2)
        same |= {key: code for key, code in first.items() if key in second}
    with open(sys.argv[-1], "wb") as file:
        marshal.dump({key: code for key, code in same.items() if key not in elsewhere}, file)
