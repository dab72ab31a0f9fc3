"""Personas as text for people: tables in plain ASCII, the state's reason, and beside it what can be done next."""

from __future__ import annotations

from bay0.cli.text import age, columns, on_terminal, size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from bay0.state.personalog import Entry

    Persona = Mapping[str, Any]

NAMES_IN_A_PICTURE = 12  # at one state; a picture with a thousand names is none
SCHEME = "p://"

NEXT = {
    "absent": "there is nothing of it; `bay0 persona create {0}` makes it",
    "stopped": "`bay0 persona start {0}` starts it",
    "starting": "wait for it, or `bay0 persona stop {0}`",
    "running": "`bay0 persona shell {0}` opens a shell in it; pause, stop and `bay0 focus {0}` are possible too",
    "pausing": "wait for it; `bay0 persona show {0}` tells how it goes",
    "paused": "`bay0 persona resume {0}` lets it go on; `bay0 focus {0}` does so and pauses the others",
    "resuming": "wait for it; `bay0 persona show {0}` tells how it goes",
    "stopping": "wait for it; its grace ends with KILL",
    "converging": "bay0 makes sure that nothing of it is left, then it is stopped; `bay0 events -f` shows how it goes",
    "waiting": "the next try comes by itself; `bay0 persona logs {0}` shows what it said, `bay0 persona stop {0}` ends the tries",
    "restoring": "the home of a snapshot is being copied: wait for it, or `bay0 persona stop {0}` leaves it as it is",
    "replacing": "wait for it: its home is about to be that of the snapshot",
    "copying": "its home is being copied: wait for it, or `bay0 persona stop {0}` gives the copy up",
    "placing": "its copy is whole and about to be in its place: wait for it",
    "failed": (
        "`bay0 persona logs {0}` shows what it said; `bay0 persona start {0}` tries again, "
        "`bay0 persona reset {0}` also forgets its failures and its container"
    ),
    "stuck": "podman could not clear it; its processes are killed and bay0 tries again by itself. `bay0 log` shows what podman said",
}
BEHIND = {"freeze": "it stands still while another one is in front", "run": "it goes on while another one is in front"}
STRANGE = "(not understood: of another program)"
NOT_UNDERSTOOD = (
    "boot the newer image that wrote it; or `bay0 persona remove {0}`, which keeps its home, and create it again"
)


def label(name: str) -> str:
    """Return the short form of a persona's name: what the command line takes."""
    return name.removeprefix(SCHEME)


def what_next(persona: Persona) -> str:
    """Return what can be done with a persona in its state."""
    if persona.get("not_understood") and persona["state"] in ("stopped", "failed"):
        return NOT_UNDERSTOOD.format(label(persona["name"]))
    return NEXT.get(persona["state"], "`bay0 events -f` shows what happens to it").format(label(persona["name"]))


def none_yet(samples: Sequence[str], where: str) -> str:
    """Return `bay0 persona list` where there is none: how to make the first."""
    found = f"samples in {where}: {', '.join(samples)}" if samples else f"there are no samples in {where} on this machine"
    return f"no personas yet. `bay0 persona create NAME` makes one of a sample, `bay0 persona create FOLDER` of your own persona.toml ({found})"


def listing(personas: Sequence[Persona]) -> str:
    """Return `bay0 persona list`."""
    head = (" ", "NAME", "STATE", "DESIRED", "BEHIND", "SINCE", "IMAGE")
    rows = [
        ("*" if p["active"] else " ", p["name"], p["state"], p["desired"], p["behind"], age(p["since_ms"]), p["image"] or STRANGE)
        for p in personas
    ]
    return columns([head, *rows])


def facts(persona: Persona) -> str:
    """Return `bay0 persona show`: facts, then why it is in its state, what can be done, and its last steps."""
    manifest: Mapping[str, Any] = persona.get("manifest") or {}
    tried = f", attempt {persona['attempts']}" if persona["attempts"] else ""
    again = "never" if persona["restart"] == "no" else persona["restart"]
    lines = [
        f"{persona['name']} is {persona['state']}" + (", the active persona" if persona["active"] else ""),
        *([f"about      {persona['description']}"] if persona["description"] else []),
        *([f"stored     {persona['not_understood']}: it is not started"] if persona.get("not_understood") else []),
        f"desired    {persona['desired']}{tried}",
        f"since      {persona['since_ms'] / 1000:.3f} s on the kernel's clock, {age(persona['since_ms'])} ago",
        f"image      {persona['image']}",
        f"container  {persona['container'][:12] if persona['container'] else 'none'}",
        f"behind     {BEHIND[persona['behind']]}",
        f"restart    {again}" + (", starts with the spine" if persona["autostart"] else ""),
        *_limits(manifest),
        f"why        {persona['why'] or 'nothing has happened to it yet'}",
        f"next       {what_next(persona)}",
    ]
    from bay0.cli import picture

    steps = persona.get("steps") or ()
    return "\n".join(on_terminal(line) for line in [*lines, *(["", *picture.table(steps)] if steps else [])])


def _limits(manifest: Mapping[str, Any]) -> list[str]:
    if not manifest:
        return []
    return [
        f"limits     {size(manifest['memory'])}, {manifest['cpus']:g} CPUs, {manifest['pids']} processes",
        f"home       {manifest['home'] or 'none: everything in it goes with its container'}",
        *([f"user       {manifest['user']}"] if manifest.get("user") else []),
        *(["screen     it may have windows"] if manifest.get("screen") else []),
        *(["userns     it may make namespaces of its own"] if manifest.get("userns") else []),
    ]


def settled(verb: str, persona: Persona, *, waited: bool, amiss: bool) -> str:
    """Return what a verb came to: done, ended elsewhere (`amiss`), or accepted and on its way."""
    name, state = persona["name"], persona["state"]
    why = f": {persona['why']}" if persona["why"] else ""
    if not persona["settled"]:
        return f"accepted, {name} is {'still ' if waited else ''}{state}; `bay0 persona show {label(name)}` tells how it goes"
    if amiss:
        return f"{name} is {state}{why}; {what_next(persona)}"
    return f"{name} is removed" if verb == "remove" else f"{name} is {state}{why}"


def focused(found: Mapping[str, Any]) -> str:
    """Return `bay0 focus NAME`."""
    line = f"{found['active']} is active"
    if found["left"]:
        line += f"; still on their way: {', '.join(found['left'])}. `bay0 persona list` tells how it goes"
    return line


def images(found: Sequence[Mapping[str, Any]]) -> str:
    """Return `bay0 image list`."""
    if not found:
        return "no images: scripts/mkpersona.sh builds an archive, `bay0 image load FILE` brings it in"
    return columns([("NAME", "ID", "SIZE", ""), *map(_image, found)])


def _image(image: Mapping[str, Any]) -> tuple[str, str, str, str]:
    if image["id"] is None:
        return image["name"], "-", "-", "built in, loaded when first needed"
    return image["name"], image["id"][:12], size(image["size"]), "built in" if image["built_in"] else ""


def entry(line: Entry, *, terminal: bool) -> str:
    """Return a line of `bay0 persona logs`."""
    return on_terminal(line.text.removesuffix("\r")) if terminal else line.text


# ---- pictures


def _comments(persona: Persona) -> Iterable[str]:
    from bay0.cli import picture

    yield f"{persona['name']} is {persona['state']}: {persona['why'] or 'nothing has happened to it yet'}"
    yield from picture.table(persona.get("steps") or ())


def below(persona: Persona, form: str) -> str:
    """Return a persona's last transitions as comments that may stand below its picture in the language of `form`."""
    lines = ["".join(c if c.isprintable() else " " for c in line).rstrip() for line in _comments(persona)]
    if form == "svg":
        import re

        return "".join(f"<!-- {re.sub('-(?=-)', '- ', line)} -->\n" for line in lines)  # XML 1.0, section 2.5
    if form == "dot":
        return "".join(f"// {line}\n" for line in lines)
    return "".join(f"%% {line.replace('{', '(').replace('}', ')')}\n" for line in lines)  # Mermaid trips over braces in comments


def by_state(personas: Sequence[Persona]) -> dict[str, list[str]]:
    """Return state -> short names of who is in it; a crowd is cut off with its number."""
    found: dict[str, list[str]] = {}
    for persona in personas:
        found.setdefault(persona["state"], []).append(label(persona["name"]))
    for names in found.values():
        if len(names) > NAMES_IN_A_PICTURE:
            names[NAMES_IN_A_PICTURE:] = [f"and {len(names) - NAMES_IN_A_PICTURE} more"]
    return found


def overview(drawn: str, personas: Sequence[Persona], form: str) -> str:
    """Return the picture `drawn` of the table with every persona named at its state."""
    crowd = by_state(personas)
    if form == "mermaid":
        notes = [f"    note right of {state}\n        {', '.join(names)}\n    end note\n    class {state} live" for state, names in crowd.items()]
        return drawn + "".join(f"{note}\n" for note in notes)
    lines = [f'    "{s}" [label="{s}\\n{", ".join(names)}", color="#c0392b", penwidth=4];' for s, names in crowd.items()]
    return drawn.rstrip().removesuffix("}") + "".join(f"{line}\n" for line in lines) + "}\n"
