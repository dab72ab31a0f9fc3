"""PID 1, the state worker, or the command line? Then one call."""

import os
import sys


def main() -> int:
    """Choose by pid and first word. Imports are late: the worker alone loads peewee, PID 1 alone the engine."""
    if os.getpid() == 1:
        from bay0.init import init

        init()
    if sys.argv[1:2] == ["state-worker"]:
        from bay0.state.worker import main as worker

        return worker()
    from bay0.cli import main as cli

    return cli(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
