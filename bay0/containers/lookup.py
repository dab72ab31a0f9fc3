"""What requests of the control socket about containers ask first: which persona is meant, and whether the spine still starts any."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bay0.base import names
from bay0.base.errors import RefusedError
from bay0.machines.boot import LEAVES
from bay0.machines.persona import S

if TYPE_CHECKING:
    from bay0.base.names import Name
    from bay0.machines.engine import Engine
    from bay0.machines.instance import Instance
    from bay0.reconcile.replay import Replay


def name(params: Mapping[str, Any]) -> Name:
    """Return the name in a request. `TypeError`, `BadNameError`, `KeyError`: there is none that makes sense."""
    found = params["name"]
    if not isinstance(found, str):
        raise TypeError("name must be text such as p://work")
    return names.persona(found)


def need_up(boot: Instance) -> None:
    """Refuse a start while the spine goes down: it would be waited for, and stopped again. `boot`: this boot's machine. `RefusedError`."""
    if boot.now in LEAVES:
        raise RefusedError("the spine is going down: nothing is started any more")


def persona(engine: Engine, replay: Replay, params: Mapping[str, Any]) -> Instance:
    """Return the persona that a request names. `RefusedError`: there is none, or what is stored is not known."""
    wanted = name(params)
    replay.need_known()
    instance = engine.instances.get(wanted.semantic)
    if instance is None or instance.now is S.ABSENT:
        raise RefusedError(f"there is no persona {wanted.semantic}; `bay0 persona list` names those there are")
    return instance
