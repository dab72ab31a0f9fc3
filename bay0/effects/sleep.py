"""The kernel's sleep states (admin-guide/pm/sleep-states.rst): one word in /sys/power/state, and the write returns when the machine is awake."""

STATE = "/sys/power/state"
WORD = "mem"
ARGV = ("/bin/sh", "-c", f"echo {WORD} >{STATE}")


def states(path: str = STATE) -> tuple[str, ...]:
    """Return the words that this kernel takes; none where it cannot sleep."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return tuple(file.read().split())
    except OSError:
        return ()
