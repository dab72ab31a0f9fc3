"""The checks of `bay0 --validate`, one function each (handoff, "Validation command"; run.py runs them).

A check only looks, or makes something of its own and takes it away again. It is given a `Look` and returns a `Finding`, at once or as a flow;
none of it blocks. What it cannot look at because of something else is yellow and says so: that something has a check of its own.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from bay0 import log
from bay0.effects import cgroup
from bay0.effects.shield import WATCHDOG_S
from bay0.machines import persona, server
from bay0.pid1 import flow
from bay0.state import paths
from bay0.validate.look import Check, Look, why_of
from bay0.validate.network import network
from bay0.validate.sockets import compositor, umbilical
from bay0.validate.verdict import GREEN, Finding, red, yellow

if TYPE_CHECKING:
    from bay0.state.link import Answer

QUICK_CHECK_SHARE = 0.3  # of a commit's bound, since a commit waits behind it in the worker
STALE_FEED_S = WATCHDOG_S / 2
LATE_S = 2.0  # past its deadline, before patience: its timer had its chance
YEARS_20_S = 20 * 365.25 * 86400
PRESSURES = ("cpu", "memory", "io")
WRITABLE = ("/dev", "/proc", "/sys", "/run", "/tmp", "/var", paths.ROOT)  # noqa: S108 - mount points; elsewhere nothing may be writable


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


# ---- podman; the sockets are in sockets.py


def freezer(look: Look) -> Finding | flow.Flow[Finding]:
    """Start, freeze, thaw and remove a real container."""
    unkept = _unkept(look)
    if unkept:
        return yellow(f"cannot be checked, podman's storage is on /persist: {unkept}")
    if not look.parts.replay.known:
        return yellow("cannot be checked: what podman holds is not known in this boot yet")
    return look.freezer.check(look.say)


# ---- what is on the disk, through the state worker


def _unkept(look: Look) -> str:
    """Say why nothing is kept now, or ""."""
    state = look.parts.state
    if state.healthy:
        return ""
    return f"storage is {state.storage.now.value}" + (f" ({state.dirty})" if state.dirty else "")


def persist(look: Look) -> Finding | flow.Flow[Finding]:
    """Write a marker, sync it, read it back."""
    unkept = _unkept(look)
    return red(f"degraded, nothing is kept: {unkept}") if unkept else _asked(look, "validate_marker", text=_stamp(look))


def genesis(look: Look) -> Finding | flow.Flow[Finding]:
    """Append a line to the genesis log and read it back."""
    unkept = _unkept(look)
    return yellow(f"cannot be checked: {unkept}") if unkept else _asked(look, "validate_log", line=f"{_stamp(look)}: validate")


def database(look: Look) -> Finding | flow.Flow[Finding]:
    """Let SQLite look for damage, for a moment."""
    unkept = _unkept(look)
    if unkept:
        return yellow(f"cannot be checked: {unkept}")
    seconds = look.parts.bounds.commit * QUICK_CHECK_SHARE
    return _asked(look, "validate_database", f"not looked through in {seconds:g} s, which is all that it may take while it is used", seconds=seconds)


def _stamp(look: Look) -> str:
    return f"{look.parts.engine.boot_id} +{log.kernel_ms()} ms"


def _asked(look: Look, op: str, otherwise: str = "what was written is not what is read back", **arguments: Any) -> flow.Flow[Finding]:
    """Ask the worker. A missed bound is a wedged disk, as it is to everybody else, and storage deals with it."""
    answer: Answer = yield partial(look.parts.state.ask, op, look.parts.bounds.open, **arguments)
    if not answer.ok:
        return red(answer.why)
    return GREEN if answer.value else (yellow if op == "validate_database" else red)(otherwise)


# ---- bay0 itself


def machines(look: Look) -> Finding:
    """Look for a machine that is in a half state for longer than it may be, or that podman cannot clear."""
    late = list(_late(look))
    return red("; ".join(late[:3]) + (f" and {len(late) - 3} more" if late[3:] else "")) if late else GREEN


def _late(look: Look) -> Iterator[str]:
    engine = look.parts.engine
    now = engine.clock_ms()
    for name, instance in sorted(engine.instances.items()):
        deadline = instance.definition.spec(instance.now).deadline_s
        slack_ms = LATE_S * 1000 * engine.patience
        if instance.pending is not None and now > instance.pending.at_ms + look.parts.bounds.flush * 1000 + slack_ms:
            yield f"{name} waits for a commit since {_since(now, instance.pending.at_ms)}"
        elif instance.now in (persona.S.STUCK, server.S.STUCK):
            yield f"{name} is stuck: {why_of(instance)}"
        elif deadline is not None and now > instance.entered_ms + deadline * 1000 * engine.patience + slack_ms:
            yield f"{name} is {instance.now.value} since {_since(now, instance.entered_ms)}, its deadline was {deadline * engine.patience:g} s"


def _since(now: int, then: int) -> str:
    return f"{(now - then) / 1000:.0f} s"


def pid1(look: Look) -> Finding:
    """See that PID 1 cannot be chosen by the OOM killer, and has a cgroup of its own."""
    score, group = _read(look.kernel.oom_score_adj).strip(), _read(look.kernel.group).strip()
    wrong = [f"oom_score_adj is {score}, not -1000"] if score != "-1000" else []
    wrong += [f"its cgroup is {group.removeprefix('0::')}, not /{cgroup.INIT}"] if group != f"0::/{cgroup.INIT}" else []
    return red("; ".join(wrong)) if wrong else GREEN


def watchdog(look: Look) -> Finding:
    """See that the hardware's watchdog is fed."""
    dog = look.parts.watchdog
    if dog.failing:
        return red(f"it cannot be fed: {dog.failing}")
    if not dog.armed:
        return yellow("there is none: nothing would end a hang")
    age = look.parts.reactor.clock() - dog.fed_at
    return red(f"it was fed {age:.0f} s ago, and bites after {WATCHDOG_S} s") if age > STALE_FEED_S else GREEN


def clock(look: Look) -> Finding:
    """See that the clock is not before the image was built, nor 20 years behind that."""
    try:
        built = float(json.loads(_read(look.kernel.manifest))["source_date_epoch"])
    except (OSError, ValueError, TypeError, KeyError):
        return yellow("when the image was built is not known: its manifest cannot be read")
    now = time.time()
    if built <= now <= built + YEARS_20_S:
        return GREEN
    return red(f"it says {_day(now)}, and the image was built on {_day(built)}")


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))


# ---- the kernel and the image


def cgroups(look: Look) -> Finding:
    """See that the controllers are handed to those that hold containers, services and commands, and that they can be frozen."""
    wrong = []
    for group in ("", *(f"/{parent}" for parent in cgroup.PARENTS)):
        directory = f"{look.kernel.cgroups}{group}"
        try:
            on = _read(f"{directory}/cgroup.subtree_control").split()
        except OSError as error:
            wrong.append(f"{group or '/'}: {error.strerror}")
            continue
        missing = [name for name in cgroup.CONTROLLERS if name not in on]
        wrong += [f"{group or '/'} does not hand on {', '.join(missing)}"] if missing else []
        wrong += [f"{group} cannot be frozen"] if group and not os.path.exists(f"{directory}/cgroup.freeze") else []
    return red("; ".join(wrong)) if wrong else GREEN


def psi(look: Look) -> Finding:
    """See that the kernel says how much is waited for."""
    missing = [name for name in PRESSURES if not _pressure(f"{look.kernel.pressure}/{name}")]
    return red(f"no pressure of {', '.join(missing)} in {look.kernel.pressure}: is psi=1 on the kernel command line?") if missing else GREEN


def _pressure(path: str) -> bool:
    try:
        return _read(path).startswith("some avg10=")
    except OSError:
        return False


def root(look: Look) -> Finding:
    """See that the root is read-only, and that nothing writable is mounted on it but where that belongs."""
    mounts = [line.split() for line in _read(look.kernel.mounts).splitlines()]
    wrong = [words[4] for words in mounts if _is_writable(words) and not f"{words[4]}/".startswith(tuple(f"{each}/" for each in WRITABLE))]
    if not any(words[4] == "/" for words in mounts):
        return yellow("the kernel lists no root")
    return red(f"writable: {', '.join(wrong[:5])}") if wrong else GREEN


def _is_writable(words: list[str]) -> bool:
    """Tell it from a line of mountinfo (proc(5)): neither the mount nor the filesystem is read-only."""
    return "ro" not in words[5].split(",") and "ro" not in words[-1].split(",")


CHECKS = (
    Check("freezer", freezer, "validate_freezer"),
    Check("umbilical", umbilical, "validate_umbilical"),
    Check("compositor", compositor),
    Check("persist", persist),
    Check("log", genesis),
    Check("database", database),
    Check("machines", machines),
    Check("pid1", pid1),
    Check("cgroups", cgroups),
    Check("psi", psi),
    Check("network", network),
    Check("root", root),
    Check("watchdog", watchdog),
    Check("clock", clock),
)
