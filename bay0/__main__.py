"""PID 1 or the command line? Then one call."""

import os
import sys
import time


def main() -> int:
    """Choose by pid. Imports are late: the command line does not pay for the engine."""
    if os.getpid() == 1:
        entered = time.monotonic()
        from bay0.init import init

        init(entered)
    from bay0.cli import main as cli

    return cli(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
