"""`bay0 doctor`: what is wrong, in words, and beside it the command that helps. Pure: everything it looks at is handed to it.

A finding is something a person may want to do something about. What mends itself is one only while it lasts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from attrs import asdict, frozen

from bay0.base.logline import LEVELS
from bay0.base.patience import remedy
from bay0.cli.governor_text import memory
from bay0.cli.persona_text import NOT_UNDERSTOOD, label
from bay0.cli.report import REMEDIES, beyond, room
from bay0.cli.text import age, on_terminal, size

Facts = Mapping[str, Any]
SLOW_TURN_MS = 5000.0  # of PID 1; its watchdog has 30 s, and a host without KVM makes one second of a tenth
HALF_STATE_MS = 300_000  # longer than any busy state's deadline, without patience
HALF_STATES = ("starting", "pausing", "resuming", "stopping", "converging")
TRIES_WORTH_A_WORD = 2
MEMORY_SOME = 10.0  # percent, as the governor warns
SCARCE = 0.05  # of a disk's bytes, or of its files
AS_BEFORE = "as an earlier boot left it"
ROOM = "make room: files in a persona's home, `bay0 persona reset NAME` for what lies beside it, `bay0 image remove NAME`"
STATES_THAT_HEAL = {"opening": "storage is being opened; look again in a moment", "reattaching": "the disk is back and is being opened"}

# what the log says once and nothing else remembers: event -> (component, sentence, what helps); {..} are the record's own keys
EVENTS = {
    "kernel command line word ignored": ("kernel", "a word of its command line makes no sense: {why}", "correct it; docs/ARCHITECTURE.md lists them"),
    "containers of somebody else left alone": ("podman", "containers that are not bay0's: {containers}", "`podman rm` them if you do not want them"),
    "machine of an unknown kind or name left alone": ("database", "{machine} was stored by another version", "boot the newer image"),
    "unknown state converged": ("database", "{machine} was stored in a state of another version: {state}", "`bay0 history {machine}`"),
    "podman is not configured": ("podman", "its configuration could not be written: {why}", "free memory, then `bay0 reboot`"),
    "podman's storage is damaged: it repairs itself": ("podman", "its storage was damaged: {why}", "`bay0 image list`: load again what is missing"),
    "podman's storage is beyond repair: set aside, images are to be loaded again": (
        "podman", "its storage was begun anew: {why}", "`bay0 image load FILE` for images of your own"
    ),
    "podman's directories could not be made": (
        "podman", "its directories could not be made: {why}", "mend that, then `bay0 reboot`"
    ),
    "set aside on /persist": (
        "storage", "{path} was {found}: it is now {now}, and a new one is made", "look at it, then delete it"
    ),
    "left alone on /persist": ("storage", "{path} is {found}, and is not used", "put a file there, or delete it"),
    "not written on /persist": ("storage", "{why}", "nothing is kept there until it is out of the way"),
    "umbilical failed": ("sys://umbilical", "the AI's forwarder could not begin: {why}", "`bay0 history sys://umbilical`, `bay0 log`"),
    "container not removed": ("podman", "{container} was not removed: {why}", "it is tried again; if it stays, `bay0 storage` and `bay0 log`"),
    "limits not written": ("governor", "{persona} is not restrained: {why}", "`bay0 governor`"),
    "nobody is governed": ("governor", "it is off: {why}", "boot without that word"),
    "memory is not reserved": ("governor", "personas have no limit together: {why}", "`bay0 governor`"),
    "limit of processes met": (
        "limits", "{group} had all the {limit} processes it may have, and could not start more",
        "whatever multiplies there must end: `echo 1 >/sys/fs/cgroup/{group}/cgroup.kill` ends all of it, a console comes back",
    ),
    "limit of memory met": (
        "limits", "{group} needed more than its {limit_mib} MiB: processes of it were ended", "`bay0 governor`; let it take less"
    ),
    "limit changed by hand is set right": (
        "limits", "{file} was {found}: it is the spine's own, and {kept} again", "a persona's limits are in its manifest"
    ),
    "the spine's own groups are not bounded": ("limits", "a fork bomb could end the spine: {why}", "`bay0 log`; reboot"),
    "made anew on /run": ("/run/bay0", "{what} was made anew: {why}", "`rm` nothing below /run/bay0: it is the spine's"),
    "not made anew on /run": ("/run/bay0", "{what} is gone and cannot be made anew: {why}", "look at what is in its place below /run/bay0"),
    "run log lines lost": ("log", "{lines} lines could not be written: {why}", "make room on /run: `df /run`"),
    "an impostor is refused: not ready": (
        "sys://compositor", "{answers} listened at {socket}, and is not what bay0 started", "end that process; `bay0 screen`"
    ),
    "the compositor does not answer": (
        "sys://compositor", "it hung and was begun anew: {why}", "the windows that were open are gone; `bay0 log` has what it said last"
    ),
    "gpu detach: it goes on without": (
        "screen", "{persona} was frozen though it may have been on the screen: the compositor was slow or hung", "`bay0 screen`; `bay0 log`"
    ),
    "a program is ended: too many windows": (
        "screen", "{persona}: a program that had more than {most} windows was killed (pid {pid})", "`bay0 persona logs`; a program gone wild?"
    ),
    "connections are cut off: too many": (
        "screen", "{persona} had {found} connections to the compositor, and {most} are left", "`bay0 persona logs`; a program gone wild?"
    ),
    "a connection is cut off: the process that opened it has ended": (
        "screen", "{persona}: a program that had a window by a connection of another one, which has ended (pid {pid})", "`bay0 log`"
    ),
    "a window is closed: its program is no persona's, or has ended": (
        "screen", "somebody else than a persona used its socket, or passed it on ({so_far} windows so far)", "`bay0 log`"
    ),
    "the clipboards may not be empty": (
        "screen", "what was copied may be seen by the next persona: {why}", "`bay0 screen`; a compositor that is slow or hung is begun anew"
    ),
    "what was copied is lost": (
        "screen", "{what} of {persona} could not be kept: no text, too long, or its program was too slow", "copy it again; `bay0 log`"
    ),
    "the clipboard is not given back": ("screen", "{persona} has not what it had copied: {why}", "`bay0 screen`; copy it again"),
    "a text is not given": ("screen", "what was copied could not be pasted: {why}", "`bay0 log`; paste it again"),
    "the kernel does not tell of devices that come and go": (
        "screen", "a keyboard that is plugged in is seen after some seconds only: {why}", "a defect: `bay0 support FILE`"
    ),
    "an input device cannot be told of": ("screen", "a keyboard or pointer may not work: {why}", "make room on /run: `df /run`"),
    "the compositor is not told of a device": ("screen", "{path} may not work: {why}", "`bay0 log`; unplug it and plug it in again"),
    "the kernel's console keeps the screen or the keys": (
        "screen", "what is typed also reaches the kernel's console: {why}", "type no passphrase on it; `bay0 log`"
    ),
    "an upgrade was taken back": (
        "upgrade", "version {version} was found bad, and is refused from now on: {why}", "`bay0 upgrade status`; `bay0 nack list`"
    ),
    "the try of an upgrade came back": (
        "upgrade", "version {version} is not the good one: {why}",
        "`bay0 upgrade status`: the next boot tries it again, `bay0 upgrade cancel` forgets it",
    ),
    "the upgrade is not well: the machine goes back": (
        "upgrade", "version {version} is not well: {why}", "it restarts into the one before"
    ),
    "method failed": ("bay0", "{method} failed inside PID 1: {why}", "a defect: `bay0 support FILE` collects what is needed to mend it"),
}  # fmt: skip
EACH_PATH = ("set aside on /persist", "left alone on /persist")  # a finding for each, not the last with a count
# what helps where validation finds something RED, by its checks (verdict.COMPONENTS)
CHECK_HELP = {
    "freezer": "do not trust pause and focus; `bay0 --validate` tries it again, `bay0 log` has podman's words",
    "umbilical": "`bay0 tenant show ai`, `bay0 tenant logs ai`; a socket of somebody else: end that process, remove the file",
    "compositor": "`bay0 screen`, `bay0 log`; a socket of somebody else: end that process, remove the file; "
    "no new picture: `kill` the compositor's pid, it is begun anew",
    "persist": "`bay0 storage`; remove what is in the place of its file",
    "log": "`bay0 storage`; remove what is in the place of its file",
    "database": "docs/OPERATIONS.md, *A damaged database*: set it aside, then reboot",
    "machines": "`bay0 log --json` tells the story; reboot",
    "pid1": "somebody changed it, or the boot could not: reboot",
    "cgroups": "limits do not hold: reboot",
    "psi": "boot with `psi=1`",
    "network": "take the card away, or the module that made it: `bay0 log`",
    "root": "unmount it",
    "watchdog": "a hang of PID 1 may stay: load its driver again, or reboot",
    "clock": "`date -s`; the machine's own clock, its battery",
}
# check -> the component under which the doctor has the same from elsewhere, and how validation's words begin then
SAID_BY_ITSELF = {
    "persist": ("storage", "degraded, nothing is kept"), "umbilical": ("sys://ai", "sys://ai has failed"),
    "network": ("network", "the spine must have no network"), "psi": ("pressure", "no pressure of"),
}  # fmt: skip
SAID_ELSEWHERE = ("step", "state db open/migrate failed")  # storage tells it


@frozen
class Finding:
    """`level` is error (something does not work) or warning (it works, but)."""

    component: str
    what: str
    help: str
    level: str = "warning"


def findings(
    status: Facts,
    *,
    personas: Sequence[Facts] = (),
    servers: Sequence[Facts] = (),
    boots: Facts | None = None,
    governor: Facts | None = None,
    log: Iterable[Facts] = (),
    network: Sequence[str] = (),
    journal: Mapping[str, Sequence[Facts]] | None = None,
    checks: Sequence[Facts] = (),
    memory_files: Sequence[Facts] = (),
) -> list[Finding]:
    """Return all findings, errors first.

    `journal`: last rows of machines whose reason this boot does not know; `checks`: validation's, those made now and
    those found earlier (`ago_s`); `memory_files`: filesystems in memory; the rest is as the methods answer.
    """
    found = [
        *_storage(status),
        *_boot(status, boots or {}),
        *_pid1(status),
        *_speed(status.get("speed")),
        *(Finding("network", f"the spine must have none: {each}", "find out which module brought it: `bay0 log`", "error") for each in network),
        *_tenants(status),
        *_screen(status),
        *_servers(status, servers),
        *_personas(status, personas, journal or {}),
        *_governor(governor),
        *_memory_files(memory_files),
        *_log(log),
    ]
    found += _checks(checks, {each.component for each in found if each.level == "error"})
    return sorted(found, key=lambda each: each.level != "error")


def _checks(checks: Sequence[Facts], said: Collection[str]) -> Iterator[Finding]:
    """Name whatever validation calls RED: it is the one source of what is well, and the doctor must not know better."""
    for each in checks:
        component, words = SAID_BY_ITSELF.get(each["name"], ("", ""))
        if each["level"] != "red" or (component in said and each["why"].startswith(words)):
            continue
        when = f" (found {each['ago_s']:.0f} s ago)" if "ago_s" in each else ""
        yield Finding(each["component"], on_terminal(each["why"]) + when, CHECK_HELP[each["name"]], "error")


def _storage(status: Facts) -> Iterator[Finding]:
    health = status["storage"]
    state, where = health["state"], f" on {health['device']}" if health.get("device") else ""
    if state in REMEDIES:
        why = f": {status['dirty']}" if status["dirty"] else ""
        yield Finding("storage", f"{state}{where}{why}. What changes now is only in memory", REMEDIES[state], "error")
    elif state in STATES_THAT_HEAL:
        yield Finding("storage", f"{state}{where}", STATES_THAT_HEAL[state])
    elif status["dirty"]:
        yield Finding("storage", f"dirty boot: {status['dirty']}", "`bay0 storage`")
    yield from _room(health.get("room"))
    if health["lost"]:
        yield Finding("storage", f"{health['lost']} steps did not fit into memory and are lost", "`bay0 boot` shows what is known", "error")
    if health["workers_left_behind"]:
        yield Finding("storage", "a state worker hangs in the kernel: its disk does not answer", "mend the disk's path; it comes back by itself")


def _room(found: Facts | None) -> Iterator[Finding]:
    for line in beyond(found or {}):
        what, _, help_ = line.partition(": ")
        yield Finding("storage", what, help_)
    if found and found["bytes_for_others"] < SCARCE * found["bytes"]:
        yield Finding("storage", f"nearly full: {room(found)}; the spine itself has {size(found['bytes_free'])}", ROOM)
    if found and found["files_free"] < SCARCE * found["files"]:
        yield Finding("storage", f"only {found['files_free']} of {found['files']} files can still be made", ROOM, "error")


def _boot(status: Facts, boots: Facts) -> Iterator[Finding]:
    if status["boot"] != "complete":
        yield Finding("boot", f"the boot is in `{status['boot']}`", "`bay0 boot`")
    for step in boots.get("this", {}).get("steps", ()):
        if step["kind"] == "boot" and step["event"] in ("fault", "timed_out"):
            yield Finding("boot", step["why"], "`bay0 boot`, then `bay0 log` around that time", "error")
    if boots.get("unread"):
        yield Finding("boot", f"earlier boots cannot be read: {boots['unread']}", "`bay0 storage`")


def _pid1(status: Facts) -> Iterator[Finding]:
    pid1 = status["pid1"]
    if pid1["longest_turn_ms"] > SLOW_TURN_MS:
        yield Finding("PID 1", f"it stood still for {pid1['longest_turn_ms']:.0f} ms once", "a busy host, or a defect: `bay0 support FILE`")
    if pid1["commands_left_behind"]:
        what = f"{pid1['commands_left_behind']} commands hang in the kernel and cannot be ended"
        yield Finding("commands", what, "mostly a dead disk: `bay0 storage`; `bay0 log` names them", "error")
    if pid1["console_lines_dropped"]:
        yield Finding("console", f"{pid1['console_lines_dropped']} lines were not shown: the terminal did not read", "`bay0 log` has them all")
    if not status["watchdog"]["armed"] and not status["watchdog"]["failing"]:  # what fails, validation names
        help_ = "QEMU: `-device i6300esb`, as boot-qemu.sh has it"
        yield Finding("watchdog", "there is no hardware watchdog: a hang of PID 1 is seen by nobody", help_)


def _speed(found: Facts | None) -> Iterator[Finding]:
    if found is None:
        return
    patience = found["patience"]
    if found["needs"] is not None and found["needs"] > patience:
        what = f"{found['missed']} bounds were missed, and this machine is slow: it needed a patience of {found['needs']} and has {patience:g}"
        yield Finding("speed", what, remedy(found["needs"]))


def _tenants(status: Facts) -> Iterator[Finding]:
    for machine in status["machines"]:
        if machine["kind"] != "tenant":
            continue
        help_ = f"`bay0 history {machine['name']}`, `bay0 log`"
        if machine["state"] == "failed":
            yield Finding(machine["name"], "it failed and is not tried again", help_, "error")
        elif machine["state"] == "waiting" and machine["attempts"] > TRIES_WORTH_A_WORD:
            yield Finding(machine["name"], f"it ended {machine['attempts']} times and is tried again", help_)


def _screen(status: Facts) -> Iterator[Finding]:
    for machine in status["machines"]:
        if machine["kind"] == "screen" and machine["state"] not in ("dark", "ready"):
            yield Finding("screen", f"it is `{machine['state']}`, not ready: nothing of it is used", "`bay0 screen` says why; `bay0 log`")


def _servers(status: Facts, servers: Sequence[Facts]) -> Iterator[Finding]:
    for each in servers:
        name, state, why = each["name"], each["state"], on_terminal(each["why"] or "")
        short = name.removeprefix("sys://")
        if state == "failed":
            remedy = f"{each['remedy']}; then " if each["remedy"] else ""
            yield Finding(name, f"failed: {why}", f"{remedy}`bay0 tenant start {short}` tries once more; `bay0 tenant show {short}`", "error")
        elif state == "stuck":
            yield Finding(name, f"stuck: {why}", "podman could not clear it, mostly for want of a disk: `bay0 storage`, `bay0 log`", "error")
        elif state == "waiting":
            yield Finding(name, f"it ended and is tried again (attempt {each['attempts']}): {why}", f"`bay0 tenant show {short}`, `bay0 log`")
        elif state in (*HALF_STATES, "warming", "draining") and status["up_ms"] - each["since_ms"] > HALF_STATE_MS:
            since = age(each["since_ms"], status["up_ms"])
            yield Finding(name, f"it has been `{state}` for {since}: {why}", f"`bay0 tenant show {short}`; `bay0 tenant restart {short}`", "error")


def _personas(status: Facts, personas: Sequence[Facts], journal: Mapping[str, Sequence[Facts]]) -> Iterator[Finding]:
    for persona in personas:
        name, state, short = persona["name"], persona["state"], label(persona["name"])
        why = on_terminal(persona["why"] or "")
        rows = journal.get(name)
        if why == AS_BEFORE and rows:
            why = on_terminal(rows[-1]["why"])
        if persona.get("not_understood"):
            strange = f"it cannot be started: {on_terminal(persona['not_understood'])}"
            yield Finding(name, strange, NOT_UNDERSTOOD.format(short), "error")
        if state == "failed":
            yield Finding(name, f"failed: {why}", f"`bay0 persona logs {short}`; `bay0 persona start {short}` tries once more", "error")
        elif state == "stuck":
            yield Finding(name, f"stuck: {why}", "podman could not clear it, mostly for want of a disk: `bay0 storage`, `bay0 log`", "error")
        elif state == "waiting":
            yield Finding(name, f"it ended and is tried again (attempt {persona['attempts']}): {why}", f"`bay0 persona logs {short}`")
        elif state in HALF_STATES and status["up_ms"] - persona["since_ms"] > HALF_STATE_MS:
            since = age(persona["since_ms"], status["up_ms"])
            yield Finding(name, f"it has been `{state}` for {since}: {why}", f"`bay0 persona show {short}`; `bay0 persona reset {short}`", "error")


def _governor(governor: Facts | None) -> Iterator[Finding]:
    if governor is None:
        return
    if not governor["psi"]:
        yield Finding("pressure", "the kernel gives no pressure information: nobody is governed by it", "boot with `psi=1`", "error")
    for group in governor["protected"]:
        waits = group["memory"]
        if waits and waits["some"] > MEMORY_SOME:
            what = f"{group['name']} waits for memory {waits['some']:g} % of the time"
            yield Finding("pressure", what, "`bay0 governor`; stop a persona: `bay0 persona list`")
    if governor["hot"]:
        yield Finding("heat", "the machine is near its trip", "`bay0 governor` shows the sensors")
    if governor["blind"]:
        yield Finding("heat", "no temperature can be believed: all but the one in front are capped", "`bay0 governor` says why")
    for tenant in governor["tenants"]:
        if tenant["manifest"] is not None and tenant["limit"] != tenant["manifest"]:
            what = f"{memory(tenant['limit'])}, and its manifest says {memory(tenant['manifest'])}: somebody changed it by hand"
            yield Finding(tenant["name"], what, "its next start sets it right")
        if tenant["rung"] != "free":
            what = f"restrained by the governor ({tenant['rung']}) because of {tenant['cause']}"
            free = "it comes back by itself" if tenant["name"].startswith("sys://") else f"`bay0 focus {label(tenant['name'])}` sets it free"
            yield Finding(tenant["name"], what, f"`bay0 governor` says why; {free}")


def _memory_files(places: Sequence[Facts]) -> Iterator[Finding]:
    for each in places:
        if each["bytes_free"] < SCARCE * each["bytes"] or each["files_free"] < SCARCE * each["files"]:
            what = f"{each['path']} is full: {size(each['bytes'] - each['bytes_free'])} of {size(each['bytes'])}, which is memory"
            yield Finding("memory", what, f"remove what you do not need below {each['path']}")


def _log(records: Iterable[Facts]) -> Iterator[Finding]:
    """Go through the log: what an event means, the last of a kind with its count; and errors that nobody explains."""
    kinds: dict[tuple[str, str], list[Facts]] = {}
    errors: list[Facts] = []
    died = ""
    for record in records:
        event = str(record.get("event", ""))
        if event == "step":
            if str(record.get("machine", "")).startswith("boot:") and record.get("dest") == "died":
                died = str(record.get("why"))
        elif event in EVENTS:
            path = str(record.get("path")) if event in EACH_PATH else ""
            kinds.setdefault((event, path), []).append(record)
        elif LEVELS.get(str(record.get("level")), 0) >= LEVELS["error"] and event not in SAID_ELSEWHERE:
            errors.append(record)
    if died:
        yield Finding("boot", f"the boot before this one did not leave as asked: {died}", "its personas were converged; `bay0 boot --previous 3`")
    for (event, _path), there in kinds.items():
        component, sentence, help_ = EVENTS[event]
        values = {key: on_terminal(str(value)) for key, value in there[-1].items()}
        times = f" ({len(there)} times, this is the last)" if len(there) > 1 else ""
        yield Finding(component, _fill(sentence, values) + times, _fill(help_, values))
    if errors:
        last = errors[-1]
        why = f": {on_terminal(str(last['why']))}" if last.get("why") else ""
        yield Finding("log", f"{len(errors)} lines of level error, the last is `{last['event']}`{why}", "`bay0 log`", "error")


class _Known(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return "?"


def _fill(sentence: str, values: Mapping[str, str]) -> str:
    return sentence.format_map(_Known(values))


def wire(found: Sequence[Finding]) -> list[dict[str, str]]:
    """Return findings for programs."""
    return [asdict(each) for each in found]


def text(found: Sequence[Finding]) -> str:
    """Return findings for people: what is wrong, and below it what helps."""
    if not found:
        return "nothing wrong found"
    lines = []
    for each in found:
        lines += [f"{'!' if each.level == 'error' else '-'} {each.component}: {each.what}", f"    {each.help}"]
    errors = sum(each.level == "error" for each in found)
    many = f"{len(found)} findings" if len(found) > 1 else "1 finding"
    return "\n".join([*lines, f"{many}, {errors} of them error{'' if errors == 1 else 's'} (!)"])
