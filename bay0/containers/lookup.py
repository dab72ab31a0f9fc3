"""Which persona a request of the control socket is about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bay0.base import names
from bay0.base.errors import RefusedError
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


def persona(engine: Engine, replay: Replay, params: Mapping[str, Any]) -> Instance:
    """Return the persona that a request names. `RefusedError`: there is none, or what is stored is not known."""
    wanted = name(params)
    replay.need_known()
    instance = engine.instances.get(wanted.semantic)
    if instance is None or instance.now is S.ABSENT:
        raise RefusedError(f"there is no persona {wanted.semantic}; `bay0 persona list` names those there are")
    return instance
