"""`bay0 governor` as text: what it sees, whom it holds, and why it acted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bay0.cli.text import age, columns, on_terminal, size

Facts = Mapping[str, Any]
ACTIONS_SHOWN = 10


def text(found: Facts, now_ms: int | None = None) -> str:
    """Return the whole picture."""
    rules = found["rules"]
    files = size(found["in_memory_files"])
    machine = ", ".join(f"{kind} {_some(pressure)}" for kind, pressure in found["machine"].items())
    lines = [
        (
            f"machine    memory {_share(found['available'])} available, {files} of files in it; "
            f"processors {_share(found['load'])} busy; waited of the last 10 s: {machine}"
        ),
        f"personas   may take {size(found['personas_limit'])} together" if found["personas_limit"] else "personas   have no limit together",
        *_limits(found),
        *_protected(found),
        *_heat(found),
        *_tenants(found),
        (
            f"rules      acts at cpu some > {rules['cpu_act_some']:g} % or memory full > {rules['memory_act_full']:g} % of the protected, once in "
            f"{rules['cool_down_s']:g} s; releases below {rules['release_below']:g} %; looks every {found['looks_every_s']:g} s"
        ),
        *_actions(found, now_ms),
    ]
    return "\n".join(on_terminal(line) for line in lines)


def _protected(found: Facts) -> list[str]:
    if not found["psi"]:
        return ["protected  unknown: the kernel gives no pressure information, boot with psi=1"]
    lines = []
    for group in found["protected"]:
        own = " (at its own memory limit)" if group["at_limit"] else ""
        own += f" (held up {group['throttled']:.0f} % by its own processor limit)" if group["throttled"] >= 1 else ""
        memory = f"memory {_some(group['memory'])}, all of it {_full(group['memory'])}"
        lines.append(f"protected  {group['name']}: cpu {_some(group['cpu'])}, {memory}{own}")
    return lines


def _limits(found: Facts) -> list[str]:
    """Who has met his ceiling, and whose limit is not what his manifest says; nothing of the others."""
    lines = []
    for each in found["groups"]:
        if each["refused"]:
            lines.append(f"limits     {each['name']}: {each['pids']} of {each['pids_max']} processes, more were refused {each['refused']} times")
        if each["killed"]:
            most = size(each["memory_max"] or 0)
            lines.append(f"limits     {each['name']}: {each['killed']} processes were ended at its {most}")
    changed = [each for each in found["tenants"] if each["manifest"] is not None and each["limit"] != each["manifest"]]
    return lines + [
        f"limits     {each['name']}: {memory(each['limit'])}, its manifest says {memory(each['manifest'])}: changed by hand" for each in changed
    ]


def memory(limit: int | None) -> str:
    """Return a limit of memory for people."""
    return "no limit of memory" if limit is None else f"{size(limit)}"


def _heat(found: Facts) -> list[str]:
    if not found["sensors"] and not found["blind"]:
        return ["heat       no sensor; a guest's heat is its host's business"]
    lines = []
    for sensor in found["sensors"]:
        value = "gives nothing" if sensor["celsius"] is None else f"{sensor['celsius']:g} C"
        doubt = f", not believed: {sensor['not_believed']}" if sensor["not_believed"] else ""
        lines.append(f"heat       {sensor['name']}: {value}, trip {sensor['trip']:g} C{doubt}")
    if found["blind"]:
        lines.append("heat       no temperature can be believed: a fixed cap for all but the one in front")
    if found["hot"]:
        lines.append("heat       HOT: those behind are throttled")
    return lines


def _tenants(found: Facts) -> list[str]:
    if not found["tenants"]:
        return ["governed   nobody runs"]
    return [
        f"governed   {'*' if t['focused'] else ' '} {t['name']}: {t['state']}, {t['rung']}" + (f" because of {t['cause']}" if t["cause"] else "")
        + f"; {t['cpu']:.2f} processors, {size(t['memory'])}"
        for t in found["tenants"]
    ]  # fmt: skip


def _actions(found: Facts, now_ms: int | None) -> list[str]:
    if not found["actions"]:
        return ["actions    none in this boot"]
    head = ("AGO", "WHO", "FROM", "TO", "CAUSE", "WHY")
    rows = [(age(a["at_ms"], now_ms), *(a[key] for key in ("persona", "source", "dest", "cause", "why"))) for a in found["actions"][-ACTIONS_SHOWN:]]
    return ["", *columns([head, *rows]).splitlines()]


def _some(pressure: Mapping[str, float] | None) -> str:
    return "unknown" if pressure is None else f"{pressure['some']:g} %"


def _full(pressure: Mapping[str, float] | None) -> str:
    return "unknown" if pressure is None else f"{pressure['full']:g} %"


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.0%}"
