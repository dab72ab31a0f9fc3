"""Answers of the control socket as text for people: short, one fact a line, the way out beside the problem."""

from __future__ import annotations

import time

from bay0.cli.text import duration, size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

TURNS_SHOWN = 10
REMEDIES = {
    "detached": "a disk labelled SPINE-PERSIST that is plugged in is taken within 5 s; after mending one, `bay0 storage retry`",
    "wedged": "the disk does not answer; bay0 goes on from memory and comes back by itself when it does",
    "full": "make room: delete files below /persist/homes or /persist/images, `bay0 image remove NAME`; it is noticed within 5 s",
    "readonly": "mend the cause (see `bay0 log`), then `bay0 storage retry`",
    "closed": "the spine is going down",
}


def status(found: Mapping[str, Any]) -> str:
    """Return `bay0 status`."""
    pid1 = found["pid1"]
    watchdog = found["watchdog"]
    complete = found["complete_ms"]
    lines = [
        f"bay0 {found['version']}, boot {found['boot_id']}, up {duration(found['up_ms'] // 1000)}",
        f"boot      {found['boot']}" + (f" (init complete after {complete / 1000:.1f} s)" if complete is not None else ""),
        storage(found),
        f"PID 1     {size(pid1['rss_kib'] << 10)} RSS, {size(pid1['pss_kib'] << 10)} PSS, longest turn {pid1['longest_turn_ms']} ms",
        f"children  {pid1['reaped']} reaped, {pid1['orphans']} of them orphans, {pid1['commands_left_behind']} commands left behind",
        *speed(found.get("speed")),
        *podman(found.get("podman", {})),
        clock(found["continuity"]),
        _watchdog(watchdog),
        machines(found["machines"]),
    ]
    return "\n".join(lines)


def speed(found: Mapping[str, Any] | None) -> list[str]:
    """Return the line about how fast the machine is."""
    if found is None:
        return []
    line = f"speed     at boot it needed a patience of {found['boot_needs']}, it has {found['patience']:g}"
    if found["missed"]:
        line += f"; {found['missed']} bounds missed"
    if found["needs"] is not None:
        line += f", it needed {found['needs']} then" + (": that is slowness, and no disk" if found["needs"] > found["patience"] else "")
    return [line]


def podman(found: Mapping[str, Any]) -> list[str]:
    """Return the line about who waits for podman, if anybody does."""
    if not found.get("waiting") and not found.get("starts_waiting"):
        return []
    starts = f"; {found['starts_waiting']} starts wait for their turn, each takes some {found['start_s']} s" if found["starts_waiting"] else ""
    return [f"podman    {found['under_way']} calls under way, {found['waiting']} wait{starts}"]


def _watchdog(found: Mapping[str, Any]) -> str:
    if found["failing"]:
        return f"watchdog  FAILS: {found['failing']} (it was fed {found['fed']} times); a hang of PID 1 may stay"
    return f"watchdog  armed, {found['timeout_s']} s, fed {found['fed']} times" if found["armed"] else "watchdog  none"


def clock(found: Mapping[str, Any]) -> str:
    """Return the line about what one boot hands to the next."""
    seed = found["seed"] or {"mixed": False, "credited": False}
    said = "credited" if seed["credited"] else "mixed in, not credited" if seed["mixed"] else "none yet"
    moved = f", moved forward {found['moved_s']} s at this boot" if found["moved_s"] else ""
    sense = "" if found["sane"] else " (makes no sense)"
    return f"clock     {time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(found['now']))} UTC{sense}{moved}; seed {said}"


def storage(found: Mapping[str, Any]) -> str:
    """Return the storage line, and what to do if it is not durable."""
    health = found["storage"]
    line = f"storage   {health['state']}" + (f" on {health['device']}" if health["device"] else "")
    if health.get("room"):
        line += f", {room(health['room'])}"
    if health["in_memory"]:
        line += f", {health['in_memory']} steps only in memory"
    if found["dirty"]:
        line += f"\n          dirty: {found['dirty']}"
    if health["state"] in REMEDIES:
        line += f"\n          {REMEDIES[health['state']]}"
    return "\n          ".join([line, *beyond(health.get("room") or {})])


def beyond(found: Mapping[str, int]) -> list[str]:
    """Say how much larger the disk is than what is used of it, and what can be done about it."""
    lines = []
    if found.get("unused"):
        lines.append(f"the disk is {size(found['unused'])} larger than its filesystem: `bay0 storage grow`")
    if found.get("behind"):
        lines.append(f"{size(found['behind'])} of the disk lie behind its last partition: `bay0 storage grow`")
    return lines


def room(found: Mapping[str, int]) -> str:
    """Return how much of the disk may still be filled."""
    return f"{size(found['bytes_for_others'])} of {size(found['bytes'])} free"


def machines(found: Sequence[Mapping[str, Any]]) -> str:
    """Return one line a machine."""
    return "\n".join(f"{m['kind']:9} {m['name']:20} {m['state']}" + (f" (attempt {m['attempts']})" if m["attempts"] > 1 else "") for m in found)


def boots(found: Mapping[str, Any]) -> str:
    """Return `bay0 boot`: this one in full, earlier ones by their ends."""
    from bay0.cli import picture

    this = found["this"]
    lines = [f"boot {this['boot_id']}, bay0 {this['version']}, kernel {this['kernel']}", *picture.table(this["steps"])]
    if this["complete_ms"] is not None:
        total, part = this["complete_ms"] / 1000, (this["complete_ms"] - this["entered_ms"]) / 1000
        lines.append(f"init complete {total:.2f} s after the kernel started, bay0's part {part:.2f} s")
        lines.append("verdict: complete" + (f", but dirty: {this['dirty']}" if this["dirty"] else ", /persist durable"))
    else:
        lines.append("verdict: not complete yet")
    if found["unread"]:
        lines.append(f"earlier boots cannot be read now: {found['unread']}")
    for boot in found["previous"]:
        lines.append("")
        lines += [f"earlier boot {boot['boot_id']}, bay0 {boot['version']}, kernel {boot['kernel']}", *picture.table(boot["steps"])]
        if boot.get("end"):
            lines.append(f"its end: {boot['end'].removeprefix('an earlier boot ')}")
    return "\n".join(lines)


def turns(found: Mapping[str, Any]) -> str:
    """Return `bay0 turns`: the whole, then the span of each of the longest."""
    if not found["turns"]:
        return "no turn ended in that time"
    lines = [
        f"{found['turns']} turns in {(found['now_ms'] - found['from_ms']) / 1000:.0f} s, on average {found['mean_ms']} ms",
        f"longest {found['longest_ms']} ms in {found['longest'] or 'unknown'}",
        f"of that {found['longest_cpu_ms']} ms at work; it slept {found['longest_sleeps']} times",
        "",
        "      at s   turns   longest ms   at work ms   sleeps   in",
    ]
    worst = sorted(found["spans"], key=lambda span: span["longest_ms"], reverse=True)[:TURNS_SHOWN]
    lines += [
        f"{span['at_ms'] / 1000:10.0f} {span['turns']:7} {span['longest_ms']:12.1f} {span['longest_cpu_ms']:12.1f} {span['longest_sleeps']:8}   "
        f"{span['longest']}"
        for span in worst
    ]
    return "\n".join(lines)


def theory(kind: str) -> str:
    """Return the theory of operation of a machine: the docstring of its module."""
    import importlib

    text = importlib.import_module(f"bay0.machines.{kind}").__doc__ or ""
    return text.strip()
