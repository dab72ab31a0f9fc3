"""The rules of a manifest's keys: converters, and one function for each key that yields what is wrong with a value.

A rule gets (key, converted value) and yields (exact key, problem); nothing or an empty problem means that all is well. A converter leaves
what it cannot convert as it is, for the rule to name. Pure, and without imports that PID 1 would not have anyway.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from bay0.net import allow

MISSING = "it is missing, and every persona has one"
MIB = 1 << 20
UNITS = {"": 1, "K": 1 << 10, "M": MIB, "G": 1 << 30, "T": 1 << 40}
WORDS_MAX, VARIABLES_MAX, DESCRIPTION_MAX, PATH_MAX, IMAGE_MAX, SHOWN_MAX = 256, 256, 200, 255, 255, 60
ALLOW_MAX = 64
USER_MAX = 65_535  # a persona's range has so many ids

_COMPONENT = "[a-z0-9]+(?:(?:[.]|__?|-+)[a-z0-9]+)*"
_IMAGE = re.compile(f"localhost(?:/{_COMPONENT})+:[a-z0-9_][a-z0-9._-]{{0,127}}", re.ASCII)
_VARIABLE = re.compile("[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_PATH = re.compile("(?:/[A-Za-z0-9._@+-]+)+", re.ASCII)
_OWNER = "[a-z_][a-z0-9_-]{0,31}|[0-9]{1,5}"
_USER = re.compile(f"({_OWNER})(?::({_OWNER}))?", re.ASCII)
_SIZE = re.compile("([0-9]{1,15})([KMGT]?)", re.ASCII)

NO_HOME = {"/usr", "/usr/bin", "/usr/lib", "/usr/sbin", "/var"}  # hiding them takes the image's own files away
NO_HOME_BELOW = ("/proc", "/sys", "/dev", "/run", "/var/run", "/etc", "/bin", "/sbin", "/lib", "/lib64", "/boot")

_BYPASS = "it lets a persona past its own limits or into other containers' business"
GRANTED = {
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "IPC_LOCK", "IPC_OWNER", "KILL", "LEASE", "NET_BIND_SERVICE", "NET_BROADCAST",
    "NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT", "SYS_NICE",
}  # fmt: skip
# capabilities(7), Linux 6.18: with GRANTED, all that there are
REFUSED = {
    "SYS_ADMIN": "it is root on the spine by another name: mounts, namespaces and much more",
    "SYS_MODULE": "it loads code into the kernel",
    "SYS_RAWIO": "it reaches disks and memory past the kernel",
    "SYS_PTRACE": "it reads and steers processes outside its own",
    "SYS_BOOT": "it can reboot the machine",
    "SYS_TIME": "the clock belongs to the spine",
    "WAKE_ALARM": "waking the machine belongs to the spine",
    "BLOCK_SUSPEND": "suspending the machine belongs to the spine",
    "NET_ADMIN": "its network belongs to the spine, which keeps its filter there",
    "MAC_ADMIN": "it changes the kernel's access policy",
    "MAC_OVERRIDE": "it passes by the kernel's access policy",
    "BPF": "it loads programs into the kernel",
    "PERFMON": "it observes the whole machine",
    "CHECKPOINT_RESTORE": "it forges process ids",
    "DAC_READ_SEARCH": "it opens files outside the container by their handles",
    "MKNOD": "it makes device nodes",
    "SYSLOG": "it reads and clears the kernel's log",
    "AUDIT_CONTROL": "auditing belongs to the spine",
    "AUDIT_READ": "auditing belongs to the spine",
    "LINUX_IMMUTABLE": "it makes files that `reset --home` could not remove",
    "SYS_PACCT": "process accounting belongs to the spine",
    "SYS_RESOURCE": _BYPASS,
    "SYS_TTY_CONFIG": "it takes the console away from the spine",
}

Faults = Iterator[tuple[str, str]]
Rule = Callable[[str, Any], Faults]


# ---- words for people


def kind_of(value: Any) -> str:
    """Say what a TOML or JSON value is."""
    kinds: tuple[tuple[Any, str], ...] = (
        (bool, "true or false"),
        (int, "a whole number"),
        (float, "a number with a point"),
        (str, "text"),
        ((list, tuple), "a list"),
        (dict, "a table"),
    )
    return next((word for kind, word in kinds if isinstance(value, kind)), "nothing" if value is None else "a date or time")


def shown(value: Any) -> str:
    """Return a value for a message: short, and nothing in it that a terminal would obey."""
    text = repr(value) if isinstance(value, str) else kind_of(value)
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}..."


def stranger(key: Any, known: Iterable[str]) -> str:
    """Refuse a key that manifests do not have, with the one that was probably meant."""
    import difflib  # noqa: PLC0415 - only for this sentence

    near = difflib.get_close_matches(str(key).lower().replace("-", "_"), known, 1)
    return "a manifest has no such key; " + (f"did you mean `{near[0]}`?" if near else f"there are {', '.join(known)}")


# ---- converters: they never raise


def as_tuple(value: Any) -> Any:
    """Make a list a tuple."""
    return tuple(value) if isinstance(value, list) else value


def as_dict(value: Any) -> Any:
    """Copy a table, so that nobody else holds it, in the order of its keys."""
    return dict(sorted(value.items())) if isinstance(value, dict) and all(isinstance(key, str) for key in value) else value


def as_float(value: Any) -> Any:
    """Make a whole number a float: 1 and 1.0 are the same manifest. A huge one stays for the rule to refuse."""
    return float(value) if type(value) is int and abs(value) < 1 << 53 else value


def as_bytes(value: Any) -> Any:
    """Read "256M" (powers of 1024); a whole number is bytes already."""
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    return int(match[1]) * UNITS[match[2]] if match else value


def as_capabilities(value: Any) -> Any:
    """Sort names, in upper case and without CAP_, each once."""
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        return as_tuple(value)
    return tuple(sorted({name.upper().removeprefix("CAP_") if name.isascii() else name for name in value}))


# ---- rules


def _text(key: str, value: Any) -> Faults:
    """Text that can be an argument of a process: execve(2) ends it at a NUL, and a lone surrogate has no bytes."""
    if not isinstance(value, str):
        yield key, f"this must be text in quotes, not {kind_of(value)}"
    elif "\0" in value:
        yield key, "text here cannot hold a NUL"
    elif any("\ud800" <= char <= "\udfff" for char in value):
        yield key, "text here cannot hold half a character (a surrogate)"


def _number(low: float, high: float, unit: str, *, whole: bool = False, show: Callable[[float], str] = "{:g}".format) -> Rule:
    """Make a rule for a number from `low` to `high`."""

    def rule(key: str, value: Any) -> Faults:
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
            yield key, f"this must be {'a whole number' if whole else 'a number'} of {unit}, not {kind_of(value)}"
        elif not low <= value <= high:
            yield key, f"this must be from {show(low)} to {show(high)} {unit}"

    return rule


def _memory(key: str, value: Any) -> Faults:
    low, high = 16 * MIB, 1 << 40
    if isinstance(value, bool) or not isinstance(value, int):
        yield key, f'this must be a size like "256M" (K, M, G or T), not {shown(value)}'
    elif not low <= value <= high:
        yield key, f"this must be from 16M to 1T, and {value} bytes are not"


def _one_of(*words: str, why: str = "") -> Rule:
    """Make a rule for one of a few words."""

    def rule(key: str, value: Any) -> Faults:
        if value not in words:
            quoted = " or ".join(f'"{word}"' for word in words)
            yield key, f"this must be {quoted}, not {shown(value)}{why}"

    return rule


def _switch(key: str, value: Any) -> Faults:
    if not isinstance(value, bool):
        yield key, f"this must be true or false, without quotes, not {kind_of(value)}"


def _image(key: str, value: Any) -> Faults:
    faults = list(_text(key, value))
    yield from faults
    if faults or (len(value) <= IMAGE_MAX and _IMAGE.fullmatch(value)):
        return
    if value.lower() != value:
        yield key, "an image's name is in lower case"
    elif not value.startswith("localhost/"):
        yield key, "an image's name starts with localhost/: nothing is ever pulled, `bay0 image list` shows what is there"
    elif "@" in value:
        yield key, "an image is named by a tag, localhost/NAME:TAG, not by a digest"
    elif ":" not in value:
        yield key, "an image's name ends in a tag, localhost/NAME:TAG"
    else:
        yield key, f"this must be localhost/NAME:TAG, of a-z, 0-9 and . _ - between them, {IMAGE_MAX} characters at most"


def _command(key: str, value: Any) -> Faults:
    if not isinstance(value, tuple):
        yield key, f'this must be a list of words, like ["/bin/sh", "-c", "..."], not {kind_of(value)}'
        return
    if len(value) > WORDS_MAX:
        yield key, f"{len(value)} words, and {WORDS_MAX} are the most"
    for number, word in enumerate(value, start=1):
        for _, problem in _text(key, word):
            yield key, f"word {number}: {problem}"
    if value and value[0] == "":
        yield key, "its first word is the program and cannot be empty"


def _environment(key: str, value: Any) -> Faults:
    if not isinstance(value, dict):
        yield key, f"this must be a table of names and texts, not {kind_of(value)}"
        return
    if len(value) > VARIABLES_MAX:
        yield key, f"{len(value)} variables, and {VARIABLES_MAX} are the most"
    for name, text in value.items():
        if not isinstance(name, str) or not _VARIABLE.fullmatch(name):
            yield f"{key}.{shown(name)}", "a variable's name is of letters, digits and _, and starts with no digit"
        else:
            yield from _text(f"{key}.{name}", text)


def _home(key: str, value: Any) -> Faults:
    faults = list(_text(key, value))
    yield from faults
    if faults or value == "":
        return
    if not value.startswith("/") or value == "/":
        yield key, "this must be an absolute path below /, like /home/work"
    elif any(part in (".", "..", "") for part in value[1:].split("/")):
        yield key, "this path must be written without //, /./, /../ and a / at its end"
    elif len(value) > PATH_MAX or not _PATH.fullmatch(value):
        yield key, f"this path may hold letters, digits and . _ @ + -, {PATH_MAX} characters at most"
    elif value in NO_HOME or any(value == place or value.startswith(f"{place}/") for place in NO_HOME_BELOW):
        yield key, f"{shown(value)} belongs to the kernel or the image; take a place like /home/work"


def _user(key: str, value: Any) -> Faults:
    faults = list(_text(key, value))
    yield from faults
    if faults or value == "":
        return
    match = _USER.fullmatch(value)
    if match is None:
        yield key, 'this must be a user of the image, like "name" or "1000", or user and group, like "name:group"'
    elif any(part is not None and part.isdigit() and int(part) > USER_MAX for part in match.groups()):
        yield key, f"a persona has the ids 0 to {USER_MAX}"


def _capabilities(key: str, value: Any) -> Faults:
    if not isinstance(value, tuple) or not all(isinstance(name, str) for name in value):
        yield key, f'this must be a list of names, like ["CHOWN"], not {kind_of(value) if not isinstance(value, tuple) else "of other things"}'
        return
    for name in value:
        if name in REFUSED:
            yield key, f"{name} is not given to personas: {REFUSED[name]}"
        elif name not in GRANTED:
            yield key, f"Linux has no capability {shown(name)}; see capabilities(7), and name each by itself"


def _description(key: str, value: Any) -> Faults:
    faults = list(_text(key, value))
    yield from faults
    if not faults and not value.isprintable():
        yield key, "this is one line without control characters"
    elif not faults and len(value) > DESCRIPTION_MAX:
        yield key, f"{len(value)} characters, and {DESCRIPTION_MAX} are the most"


def _allow(key: str, value: Any) -> Faults:
    if not isinstance(value, tuple) or not all(isinstance(entry, str) for entry in value):
        found = kind_of(value) if not isinstance(value, tuple) else "of other things"
        yield key, f'this must be a list of texts, like ["203.0.113.0/24:443/tcp"], not {found}'
        return
    if len(value) > ALLOW_MAX:
        yield key, f"{len(value)} entries, and {ALLOW_MAX} are the most"
    for number, entry in enumerate(value, start=1):
        read = allow.read(entry[:SHOWN_MAX])
        if isinstance(read, str):
            yield key, f"entry {number}: {read}"


def together(values: Mapping[str, Any]) -> Faults:
    """Yield what is wrong with keys that are right each by itself."""
    if values["network"] == "none":
        for key in ("allow", "lan", "nf_tables_risk"):
            if values[key]:
                yield key, 'this is about a network: say network = "net" as well'
        if not values["dns"]:
            yield "dns", 'this is about a network: say network = "net" as well'
    elif values["userns"] and not values["nf_tables_risk"]:
        yield "userns", (
            "with a network of its own a persona that makes namespaces speaks to the kernel's packet filter (nf_tables), "
            "which has had many holes; say nf_tables_risk = true if that is acceptable, or leave one of the two out"
        )
    if values["allow"] and values["lan"]:
        yield "lan", "with `allow` only what that names is reached: name the LAN's addresses there, and leave `lan` out"


TEXTS = ("image", "home", "memory", "network", "user", "behind", "restart", "description")  # keys whose value may be any text
RULES: dict[str, Rule] = {
    "image": _image,
    "command": _command,
    "environment": _environment,
    "home": _home,
    "memory": _memory,
    "cpus": _number(0.01, 256, "processors"),
    "pids": _number(1, 100_000, "processes", whole=True),
    "network": _one_of("none", "net"),
    "allow": _allow,
    "lan": _switch,
    "dns": _switch,
    "nf_tables_risk": _switch,
    "user": _user,
    "capabilities": _capabilities,
    "userns": _switch,
    "ai": _switch,
    "screen": _switch,
    "autostart": _switch,
    "behind": _one_of("freeze", "run"),
    "restart": _one_of("no", "on-failure", "always"),
    "retries": _number(0, 100, "attempts", whole=True),
    "stop_s": _number(0, 60, "seconds"),
    "description": _description,
}
