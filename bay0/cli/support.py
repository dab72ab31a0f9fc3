"""`bay0 support FILE`: what somebody who helps needs, in one archive, made in the command's own process.

No persona's data and no secret: neither homes nor what personas printed; values of environments are masked, in their manifests and wherever else they
turn up; of commands only the first words are kept. Bounded in time and size; what could not be had is named in the archive.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from attrs import define, field

from bay0.base.errors import Bay0Error, RefusedError
from bay0.base.logline import RUN_LOG
from bay0.cli import client

ASK_S = 10.0  # for each question to PID 1
ALL_S = 60.0
SECRETS_S = 30.0  # of them for asking each persona what its secrets are
PART_MAX = 1 << 20  # bytes of each part; of longer ones the end is kept
MACHINES_MAX = 64  # that are shown
ROWS = 50
MASK = "***"
SECRET_MIN = 6  # characters; shorter values are masked in manifests only, or every "true" would be
KMSG = "/dev/kmsg"
KMSG_RECORD, KMSG_MAX = 8192, 20_000
FILES = {
    "log.jsonl": RUN_LOG,
    "log.1.jsonl": RUN_LOG + ".1",
    "manifest.json": "/usr/lib/bay0/manifest.json",
    "cmdline.txt": "/proc/cmdline",
    "meminfo.txt": "/proc/meminfo",
    "mounts.txt": "/proc/self/mountinfo",
    "modules.txt": "/proc/modules",
    "pressure-cpu.txt": "/proc/pressure/cpu",
    "pressure-memory.txt": "/proc/pressure/memory",
    "pressure-io.txt": "/proc/pressure/io",
}


@define(eq=False, repr=False)
class Bundle:
    """Parts of the archive, as text, and what is missing from it."""

    secrets: list[str] = field(factory=list)
    parts: dict[str, str] = field(factory=dict)
    missing: dict[str, str] = field(factory=dict)
    unmasked: str = ""  # why not all secrets are known
    _began: float = field(factory=time.monotonic)

    def add(self, name: str, make: Callable[[], Any], *, quotes: bool = True) -> Any:
        """Make one part and return what was made; a failure is written down instead. `quotes`: a secret may be in it."""
        if quotes and self.unmasked:
            self.parts.pop(name, None)
            self.missing[name] = self.unmasked
            return None
        if time.monotonic() - self._began > ALL_S:
            self.missing[name] = f"no time was left: {ALL_S:g} s for all"
            return None
        try:
            made = make()
        except (OSError, Bay0Error, ValueError, KeyError, TypeError) as error:
            self.missing[name] = str(error) or type(error).__name__
            return None
        self.parts[name] = made if isinstance(made, str) else json.dumps(made, indent=1, default=str, ensure_ascii=False)
        return made

    def archive(self) -> bytes:
        """Return the bundle as a gzipped tar."""
        self.parts["contents.txt"] = self.contents()
        out, now = io.BytesIO(), int(time.time())
        with tarfile.open(fileobj=out, mode="w:gz", compresslevel=6) as tar:
            for name, part in self.parts.items():
                data = self.masked(part).encode("utf-8", "replace")[-PART_MAX:]
                entry = tarfile.TarInfo(f"bay0-support/{name}")
                entry.size, entry.mtime, entry.mode = len(data), now, 0o600
                tar.addfile(entry, io.BytesIO(data))
        return out.getvalue()

    def contents(self) -> str:
        """Return the list of parts, and of what is not there."""
        lines = ["bay0 support bundle. Environment values are masked; homes and output of personas are not in it.", "", *sorted(self.parts)]
        lines += ["", "not there:", *(f"{name}: {why}" for name, why in sorted(self.missing.items()))] if self.missing else []
        return "\n".join(lines) + "\n"

    def masked(self, text: str) -> str:
        """Return the text without any value that is secret, in one pass however many they are. The longest counts."""
        begins = _by_beginning(self.secrets)
        kept: list[str] = []
        start = at = 0
        while begins and at < len(text):
            forms = begins.get(text[at : at + SECRET_MIN], ())
            found = next((form for form in forms if text.startswith(form, at)), "")
            if found:
                kept += (text[start:at], MASK)
                start = at + len(found)
            at += len(found) or 1
        return "".join((*kept, text[start:]))


def _by_beginning(secrets: Iterable[str]) -> dict[str, list[str]]:
    """Return every form in which a secret may turn up, by its first characters, the longest first."""
    found: dict[str, set[str]] = {}
    for secret in secrets:
        for form in (secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]):
            found.setdefault(form[:SECRET_MIN], set()).add(form)
    return {begin: sorted(forms, key=len, reverse=True) for begin, forms in found.items()}


def mask_manifest(wire: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return a manifest without the values of its environment and without its command's arguments."""
    if wire is None:
        return None
    command = list(wire.get("command") or ())
    kept = [*command[:1], *([f"and {len(command) - 1} more"] if len(command) > 1 else [])]
    return {**wire, "environment": dict.fromkeys(wire.get("environment") or (), MASK), "command": kept}


def secrets(personas: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the values that must not be in any part, the longest first."""
    values = {str(v) for p in personas for v in ((p.get("manifest") or {}).get("environment") or {}).values()}
    return sorted((value for value in values if len(value) >= SECRET_MIN), key=lambda value: (-len(value), value))


def mask_log(line: str) -> str:
    """Return a line of the log with only the first two words of any command."""
    try:
        record = json.loads(line)
    except ValueError:
        return ""  # torn: nobody can tell what it holds
    if isinstance(record, dict) and isinstance(record.get("argv"), str):
        words = record["argv"].split()
        record["argv"] = " ".join(words[:2]) + (" ..." if len(words) > 2 else "")  # noqa: PLR2004 - the program and its verb
    return json.dumps(record, ensure_ascii=False)


def tail(path: str, most: int = PART_MAX) -> str:
    """Return the end of a file, from the beginning of a line."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END) if os.path.isfile(path) and not path.startswith("/proc/") else 0
        file.seek(max(0, size - most))
        data = file.read(most)
    if size > most:
        data = data.partition(b"\n")[2]
    return data.decode("utf-8", "replace")


def dmesg(path: str = KMSG) -> str:
    """Return the kernel's messages, the last ones, without waiting for more (Documentation/ABI/testing/dev-kmsg)."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    lines: list[str] = []
    try:
        for _ in range(KMSG_MAX):
            try:
                record = os.read(fd, KMSG_RECORD)
            except BlockingIOError:
                break
            except BrokenPipeError:  # overwritten while we read
                continue
            if not record:
                break
            facts, _, message = record.decode("utf-8", "replace").partition(";")
            stamp = facts.split(",")[2] if facts.count(",") > 1 else "0"
            lines.append(f"[{int(stamp) / 1e6 if stamp.isdigit() else 0:12.6f}] {message.splitlines()[0] if message else ''}")
    finally:
        os.close(fd)
    return "\n".join(lines) + "\n"


def collect(doctor: Callable[[], str]) -> Bundle:
    """Ask PID 1 and the kernel for everything; `NoSpineError` only if there is no spine at all."""

    def ask(method: str, **params: Any) -> Any:
        return client.call(method, timeout_s=ASK_S, **params)

    bundle = Bundle()
    status = ask("status")
    listed = bundle.add("personas.json", lambda: ask("persona.list"))
    found = _all_shown(ask, listed or ())
    bundle.secrets = secrets(found)
    if left := len(listed or ()) - len(found):
        bundle.unmasked = f"it may quote a secret: {left} personas were not asked for theirs within {SECRETS_S:g} s"
    if listed is not None:
        some = [{**each, "manifest": mask_manifest(each.get("manifest"))} for each in found[:MACHINES_MAX]]
        bundle.add("personas.json", lambda: some)
    bundle.add("status.json", lambda: status)
    bundle.add("boots.json", lambda: ask("boots", previous=5))
    bundle.add("machines.json", lambda: ask("machines"))
    bundle.add("governor.json", lambda: ask("governor"))
    bundle.add("screen.json", lambda: ask("screen"))
    bundle.add("tenants.json", lambda: [ask("tenant.show", name=each["name"]) for each in ask("tenant.list")])
    bundle.add("images.json", lambda: ask("image.list"))
    bundle.add("doctor.txt", doctor)
    names = [machine["name"] for machine in status["machines"]][:MACHINES_MAX]
    bundle.add("journal.json", lambda: {name: ask("history", machine=name, limit=ROWS) for name in names})
    for name, path in FILES.items():
        if os.path.exists(path):
            log = name.endswith(".jsonl")
            bundle.add(name, partial(_log if log else tail, path), quotes=log)
    bundle.add("dmesg.txt", dmesg, quotes=False)
    return bundle


def _all_shown(ask: Callable[..., Any], listed: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Ask for each persona's manifest, as long as there is time."""
    end = time.monotonic() + SECRETS_S
    shown: list[dict[str, Any]] = []
    for each in listed:
        if time.monotonic() >= end:
            break
        shown.append(_shown(ask, each["name"]))
    return shown


def _shown(ask: Callable[..., Any], name: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = ask("persona.show", name=name)
    except RefusedError as error:  # removed meanwhile
        found = {"name": name, "why": str(error)}
    return found


def _log(path: str) -> str:
    return "".join(f"{masked}\n" for line in tail(path).splitlines() if (masked := mask_log(line)))


def write(path: str, data: bytes) -> None:
    """Write the archive, for nobody else to read; a file that is there is not replaced. `OSError`."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
