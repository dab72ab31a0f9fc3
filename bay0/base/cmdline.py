"""The words of the kernel command line that mean something to bay0 (`bay0.WORD=VALUE`)."""

from __future__ import annotations

from attrs import field, frozen

PANIC_POLICIES = ("reboot", "halt", "shell")
PATIENCE_MAX = 100.0
PROVE_MIN, PROVE_MAX = 5.0, 900.0  # seconds; the upgrade machine's proof has a deadline of 1200


@frozen(repr=False)
class Words:
    """What the command line asked for; nonsense is kept in `complaints` and the default is used."""

    patience: float = 1.0
    persist: str | None = None
    panic: str = "reboot"
    debug: bool = False
    exec: bool = False
    trust_seed: bool = False
    console: str = "info"
    governor: bool = True
    suspend: bool = False
    screen: str = "auto"  # on, off, or: unless the console's shell is on it
    terminal: bool = True  # somebody's terminal is at the other end of a serial console
    prove: float = 300.0  # seconds that a newer spine is watched before it is the good one
    complaints: tuple[str, ...] = field(default=())


def parse(text: str) -> Words:
    """Read /proc/cmdline's text. Never raises: a machine must boot with a mistyped word."""
    found: dict[str, object] = {}
    complaints = []
    for word in text.split():
        if not word.startswith("bay0."):
            continue
        key, _, value = word[len("bay0.") :].partition("=")
        problem = _take(found, key, value)
        if problem:
            complaints.append(f"{word}: {problem}")
    return Words(**found, complaints=tuple(complaints))  # type: ignore[arg-type]


def _take(found: dict[str, object], key: str, value: str) -> str | None:
    if key == "patience":
        try:
            number = float(value)
        except ValueError:
            return "not a number"
        if not 1.0 <= number <= PATIENCE_MAX:
            return f"must be between 1 and {PATIENCE_MAX:g}"
        found["patience"] = number
    elif key == "prove":
        try:
            seconds = float(value)
        except ValueError:
            return "not a number"
        if not PROVE_MIN <= seconds <= PROVE_MAX:
            return f"must be between {PROVE_MIN:g} and {PROVE_MAX:g}"
        found["prove"] = seconds
    elif key == "persist":
        if value != "none" and not value.startswith("/dev/"):
            return "must be a device under /dev, or none"
        found["persist"] = value
    elif key == "panic":
        if value not in PANIC_POLICIES:
            return f"must be one of {', '.join(PANIC_POLICIES)}"
        found["panic"] = value
    elif key == "init":
        pass  # stage 0's word
    elif key in ("debug", "exec", "trust_seed"):
        if value not in ("", "1", "0"):
            return "must be 1 or 0"
        found[key] = value != "0"
    elif key == "console":
        if value not in ("debug", "info", "warning", "error"):
            return "must be debug, info, warning or error"
        found["console"] = value
    elif key == "screen":
        if value not in ("auto", "on", "off"):
            return "must be auto, on or off"
        found[key] = value
    elif key in ("governor", "suspend", "terminal"):
        if value not in ("on", "off"):
            return "must be on or off"
        found[key] = value == "on"
    else:
        known = "patience, persist, panic, debug, exec, trust_seed, console, governor, suspend, screen, terminal, prove"
        return f"no such word; known are {known}"
    return None
