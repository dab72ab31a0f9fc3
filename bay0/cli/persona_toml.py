"""What a persona is made of, as its answer has it, in TOML."""

from __future__ import annotations

from bay0.base.errors import RefusedError
from bay0.personas import manifest
from bay0.personas.tomltext import written

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


def text_of(persona: Mapping[str, Any]) -> str:
    """Return a persona's manifest as TOML. `RefusedError`: this program does not understand it."""
    if persona.get("manifest") is None:
        raise RefusedError(f"{persona['name']}: {persona.get('not_understood') or 'its manifest is not known'}")
    return written(manifest.from_wire(persona["manifest"]))
