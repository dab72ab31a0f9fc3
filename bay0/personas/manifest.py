"""A persona's manifest: what its container is made of, how much it may use, and when it is started again.

A person writes `persona.toml`; `load` reads it and reports all mistakes of the file at once, each with its line. What travels over the
control socket and lies in the database is the wire form, a dict of JSON values; `from_wire` reads that in PID 1, without tomllib or cattrs.
Both go through the same rules, `bay0/personas/rules.py`, which its construction applies, so no Manifest exists that breaks one.

personas/README.md has the table of keys.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from attrs import Attribute, asdict, field, fields, frozen

from bay0.base.errors import ManifestError
from bay0.personas import rules

WIRE_MAX = 32 << 10  # bytes of canonical JSON: half of a frame of the control socket
DIGEST_LENGTH = 16  # hex digits


class _KeyError(ManifestError):
    """Mistakes at one key; `faults` are pairs of the exact key (`environment.PORT`) and what is wrong there."""

    def __init__(self, faults: list[tuple[str, str]]) -> None:
        super().__init__("\n".join(f"{key}: {problem}" for key, problem in faults))
        self.faults = faults


CONVERTER = "converter"  # ours, because attrs reads the signature of its own with `inspect`, which PID 1 would load for nothing else


def _key(default: Any = None, *, converter: Callable[[Any], Any] | None = None) -> Any:
    return field(default=default, metadata={CONVERTER: converter})


@frozen
class Manifest:
    """One persona. Construction raises ManifestError for the first key that breaks a rule."""

    image: str  # a local image, localhost/NAME:TAG
    command: tuple[str, ...] = _key((), converter=rules.as_tuple)  # () = what the image says
    environment: dict[str, str] = field(factory=dict, metadata={CONVERTER: rules.as_dict})
    home: str = _key("")  # where in the container its directory on /persist is; "" = none
    memory: int = _key(256 << 20, converter=rules.as_bytes)  # bytes
    cpus: float = _key(1.0, converter=rules.as_float)  # processors
    pids: int = _key(256)  # processes and threads
    network: str = _key("none")  # none | net: a cable to sys://net
    allow: tuple[str, ...] = _key((), converter=rules.as_tuple)  # where to, and nowhere else; () = every public address
    lan: bool = _key(default=False)  # private addresses too
    dns: bool = _key(default=True)  # may ask for names
    nf_tables_risk: bool = _key(default=False)  # user namespaces and a network together
    user: str = _key("")  # of its first process, and of a new home; "" = what the image says
    capabilities: tuple[str, ...] = _key((), converter=rules.as_capabilities)  # sorted, upper case, without CAP_
    userns: bool = _key(default=False)  # may make user namespaces, and with them every other kind
    ai: bool = _key(default=False)  # a way to sys://ai, at /run/ai/ai.sock
    screen: bool = _key(default=False)  # windows: a Wayland socket at /run/wayland/wayland-0
    behind: str = _key("freeze")  # freeze | run: what it does while another one is in front
    autostart: bool = _key(default=False)
    restart: str = _key("no")  # no | on-failure | always
    retries: int = _key(3)  # attempts in a row before it has failed
    stop_s: float = _key(5.0, converter=rules.as_float)  # seconds from TERM to KILL
    description: str = _key("")

    def __attrs_post_init__(self) -> None:
        for attribute in fields(Manifest):
            object.__setattr__(self, attribute.name, _read(attribute, getattr(self, attribute.name)))
        faults = list(rules.together(asdict(self)))
        if faults:
            raise _KeyError(faults)
        size = len(_canonical(self))
        if size > WIRE_MAX:
            raise _KeyError([("command", f"the whole manifest takes {size} bytes as JSON, and {WIRE_MAX} is the most")])

    def to_wire(self) -> dict[str, Any]:
        """Return JSON values from which `from_wire` makes an equal manifest."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def to_stored(self) -> dict[str, Any]:
        """Return the same without later keys that say nothing: an older program understands the rest."""
        return {name: value for name, value in self.to_wire().items() if name not in LATER or value != LATER[name]}


_BARE = re.compile("[A-Za-z0-9_-]{1,60}", re.ASCII)
NAMES = tuple(attribute.name for attribute in fields(Manifest))


# keys that came later, and what they say by default: that leaves no trace, so that old digests stay as they were
LATER = {
    "ai": False, "allow": [], "behind": "freeze", "dns": True, "lan": False, "nf_tables_risk": False, "screen": False, "user": "",
    "userns": False,
}  # fmt: skip


def _canonical(manifest: Manifest) -> bytes:
    return json.dumps(manifest.to_stored(), sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def digest(manifest: Manifest) -> str:
    """Return 16 hex digits that are the same for equal manifests, whatever the order of their keys: a container's configuration hash."""
    return hashlib.sha256(_canonical(manifest)).hexdigest()[:DIGEST_LENGTH]


def from_wire(wire: Any) -> Manifest:
    """Read the wire form. Raises ManifestError with all mistakes, one a line."""
    if not isinstance(wire, dict):
        raise ManifestError(f"a manifest is a table of keys, not {rules.kind_of(wire)}")
    faults = [_stranger(key) for key in wire if key not in NAMES]
    if "image" not in wire:
        faults.append(("image", rules.MISSING))
    values = {}
    for attribute in fields(Manifest):
        if attribute.name in wire:
            try:
                values[attribute.name] = _read(attribute, wire[attribute.name])
            except _KeyError as error:
                faults += error.faults
    if faults:
        raise _KeyError(faults)
    return Manifest(**values)


def _stranger(key: Any) -> tuple[str, str]:
    return (key if isinstance(key, str) and _BARE.fullmatch(key) else rules.shown(key)), rules.stranger(key, NAMES)


def _read(attribute: Attribute[Any], value: Any) -> Any:
    """Convert one key's value and apply the key's rule; raises _KeyError."""
    convert = attribute.metadata.get(CONVERTER)
    converted = value if convert is None else convert(value)
    faults = [(key, problem) for key, problem in rules.RULES[attribute.name](attribute.name, converted) if problem]
    if faults:
        raise _KeyError(faults)
    return converted


def load(text: str, source: str) -> Manifest:
    """Read TOML. Raises ManifestError with all mistakes of the file, each as `source:line: key: what is wrong`, in the order of lines."""
    import tomllib  # noqa: PLC0415 - PID 1 never reads TOML

    from bay0.personas.tomllines import Lines, line_of_error  # noqa: PLC0415 - neither

    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError also by itself: a number of thousands of digits
        raise ManifestError(f"{source}:{line_of_error(str(error), text)}: syntax: this is not TOML: {error}") from None
    lines = Lines(text)
    try:
        return _structure(table)
    except _KeyError as error:
        found = sorted((lines.of(key), key, problem) for key, problem in error.faults)
        raise ManifestError("\n".join(f"{source}:{line}: {key}: {problem}" for line, key, problem in found)) from None


def _hook(attribute: Attribute[Any]) -> Callable[[Any, Any], Any]:
    return lambda value, _type: _read(attribute, value)


def _structure(table: dict[str, Any]) -> Manifest:
    """Let cattrs make a Manifest; raises _KeyError with what it collected."""
    from cattrs import ClassValidationError, Converter  # noqa: PLC0415 - takes 100 ms, and PID 1 does without
    from cattrs.gen import make_dict_structure_fn, override  # noqa: PLC0415 - the same

    converter = Converter(detailed_validation=True)
    # A key's hook converts and checks, so that cattrs collects broken rules together with wrong types and unknown keys.
    hooks: dict[str, Any] = {attribute.name: override(struct_hook=_hook(attribute)) for attribute in fields(Manifest)}
    structure = make_dict_structure_fn(Manifest, converter, _cattrs_forbid_extra_keys=True, **hooks)
    converter.register_structure_hook(Manifest, structure)
    try:
        return converter.structure(table, Manifest)
    except ClassValidationError as group:
        raise _KeyError([fault for error in group.exceptions for fault in _faults_of(error)]) from None


def _faults_of(error: Exception) -> Iterator[tuple[str, str]]:
    """Yield the mistakes that one of cattrs' collected exceptions stands for."""
    if isinstance(error, _KeyError):
        yield from error.faults
    elif isinstance(error, KeyError):
        yield str(error.args[0]), rules.MISSING
    else:  # cattrs.ForbiddenExtraKeysError
        for key in getattr(error, "extra_fields", ()):
            yield _stranger(key)
