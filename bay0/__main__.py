"""PID 1 or the command line? Then one call."""

import _signal as signals  # type: ignore[import-not-found]  # built into the interpreter: nothing is read before Ctrl-C is harmless
import posix  # `os` without its classes: see bay0/cli/main.py
import sys
import time

PANIC_SYNC_S = 3.0


def main() -> int:
    """Choose by pid. Imports are late: the command line does not pay for the engine."""
    _end_silently()
    if sys.argv[1:] == ["--load-only"]:  # hidden: what PID 1 costs at least, for scripts/bench/boot.py
        _load_pid1()
        _say("bay0: loaded")
        return 0
    if posix.getpid() == 1:
        _be_pid1(time.monotonic())
    if sys.argv[1:2] == ["--as"]:  # /usr/bin/bay0, a script of one line, whose name the kernel puts behind it
        del sys.argv[1:3]
    if sys.argv[1:] == ["--umbilical-forwarder"]:
        return _be_forwarder()
    if sys.argv[1:] == ["--grow-persist"]:  # hidden, as it is no verb: `bay0 storage grow` has PID 1 start it, under a deadline
        from bay0.state.resize import main as grow

        return grow()
    if sys.argv[1:2] == ["--copy-home"]:  # hidden, as above: a process of PID 1's that makes the copies
        from bay0.state.copier import main as copy

        return copy(sys.argv[2:])
    if sys.argv[1:2] == ["--unpack-home"]:  # hidden, as above: what is made of an archive
        from bay0.state.unpack import main as unpack

        return unpack(sys.argv[2:])
    if sys.argv[1:2] == ["--slots"]:  # hidden: PID 1 starts it, for an upgrade
        from bay0.state.slotwork import main as slots

        return slots(sys.argv[2:])
    if sys.argv[1:] == ["--start-only"]:  # hidden: what any verb costs at least, for scripts/bench/cli.py
        return 0
    from bay0.cli.main import main as cli

    return cli(sys.argv[1:])


def _end_silently() -> None:
    """Let Ctrl-C end this program as it ends any other, not by a Python exception wherever it happens to be. The kernel spares PID 1.

    /usr/bin/bay0 holds Ctrl-C back until now, because the interpreter's own start would print a traceback.
    """
    if signals.getsignal(signals.SIGINT) is not signals.SIG_IGN:  # as a shell's background job has it, and should keep it
        signals.signal(signals.SIGINT, signals.SIG_DFL)
    signals.pthread_sigmask(signals.SIG_UNBLOCK, (signals.SIGINT,))


def _be_pid1(entered: float) -> None:
    """Start PID 1; even a program that cannot be loaded ends in the last resort, not in a kernel panic."""
    try:
        _load_pid1()
        from bay0.init import init
    except BaseException as error:
        from bay0.effects import power

        power.last_resort(error, "reboot", _say, PANIC_SYNC_S)
    else:
        init(entered)


def _load_pid1() -> None:
    """Import what a boot imports."""
    from bay0.loading import garbage, lazy, precompiled

    with garbage.staying():  # looking through what imports make, again and again, is a tenth of the start-up
        for name in lazy.UNUSED_BY_PID1:
            lazy.load(name)
        with precompiled.used():
            from bay0 import init  # noqa: F401 - all that matters is that it is loaded


def _be_forwarder() -> int:
    """Be the umbilical's forwarder, a service process of PID 1: hidden, because only PID 1 has the socket that it wants as descriptor 3."""
    from bay0.loading import garbage, lazy, precompiled

    with garbage.staying():
        for name in lazy.UNUSED_BY_PID1:
            lazy.load(name)
        with precompiled.used(precompiled.FORWARDER):
            from bay0.umbilical import forwarder
    return forwarder.main()


def _say(line: str) -> None:
    import contextlib

    with contextlib.suppress(OSError), open("/dev/console", "w", encoding="utf-8") as console:
        console.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
