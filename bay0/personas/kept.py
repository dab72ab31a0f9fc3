"""What a snapshot's machine keeps of it: the manifest, a note, when it was taken, how much there is. Files are at its place on the disk."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from bay0.base import names
from bay0.base.errors import RefusedError
from bay0.machines import persona, snapshot
from bay0.personas import port as personas

if TYPE_CHECKING:
    from bay0.machines.engine import Engine
    from bay0.machines.instance import Instance
    from bay0.personas.manifest import Manifest
    from bay0.reconcile.replay import Replay
    from bay0.state.copying import Copied

EMPTY: dict[str, Any] = {"of": "", "note": "", "taken": 0, "home": False, "entries": 0, "bytes": 0}


def text(of: str, note: str, taken: int) -> str:
    """Return what is kept of a snapshot that is about to be taken. `of`: the configuration of its persona; `taken`: seconds since 1970."""
    return json.dumps({**EMPTY, "of": of, "note": note, "taken": taken}, separators=(",", ":"))


def read(instance: Instance) -> dict[str, Any]:
    """Return what is kept of a snapshot; of one that a newer program wrote as much as is understood."""
    try:
        found = json.loads(instance.config or "{}")
    except ValueError:
        found = {}
    return {**EMPTY, **found} if isinstance(found, dict) else dict(EMPTY)


def becomes(instance: Instance, source: Instance | None, copied: Copied) -> str | None:
    """Return what the machine for which a home was copied is made of from then on; None if that does not change.

    A snapshot knows how much there is; a persona that goes back to one has the manifest of then, and the uid range that it has.
    """
    if instance.definition.kind == "snapshot":
        return json.dumps({**read(instance), "home": copied.home, "entries": copied.entries, "bytes": copied.bytes}, separators=(",", ":"))
    config = personas.read_config(instance.config)
    if source is None or source.definition.kind != "snapshot" or instance.now is not persona.S.RESTORING or config is None:
        return None
    return personas.Config(manifest_of(source), config.slot).text()


def manifest_of(source: Instance) -> Manifest:
    """Return the manifest of a persona or of a snapshot. `RefusedError`: this program does not understand it."""
    stored = read(source)["of"] if source.definition.kind == "snapshot" else source.config
    config = personas.read_config(stored)
    if config is None:
        raise RefusedError(f"{source.name} is not copied: {personas.not_understood(stored)}. Nothing was changed")
    return config.manifest


def find(engine: Engine, replay: Replay, text: Any) -> Instance:
    """Return the snapshot that is meant. `RefusedError`: there is none, or what is stored is not known."""
    name = names.snapshot(text)
    replay.need_known()
    instance = engine.instances.get(name.semantic)
    if instance is None or instance.now is snapshot.S.ABSENT:
        raise RefusedError(f"there is no snapshot {name.semantic}; `bay0 persona snapshots {name.of.label}` names those there are")
    return instance


def facts(instance: Instance) -> dict[str, Any]:
    """Describe one, as `persona.snapshots` does."""
    name, found = names.snapshot(instance.name), read(instance)
    config = personas.read_config(found["of"])
    return {
        "name": instance.name,
        "persona": name.of.semantic,
        "number": name.number,
        "state": instance.now.value,
        "note": found["note"],
        "taken": found["taken"],
        "home": found["home"],
        "entries": found["entries"],
        "bytes": found["bytes"],
        "image": config.manifest.image if config is not None else None,
        "not_understood": personas.not_understood(found["of"]),
    }
