"""A manifest as TOML text: what `manifest.load` reads back as the same manifest."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from attrs import NOTHING, Factory, fields

if TYPE_CHECKING:
    from bay0.personas.manifest import Manifest

UNITS = ((1 << 40, "T"), (1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K"))


def written(manifest: Manifest) -> str:
    """Return TOML, a key a line, the environment last. A key that has its default is left out."""
    lines, tables = [], []
    for attribute in fields(type(manifest)):
        value = getattr(manifest, attribute.name)
        default: Any = attribute.default
        default = default.factory() if isinstance(default, Factory) else default  # type: ignore[arg-type]
        if default is not NOTHING and value == default:
            continue
        if isinstance(value, dict):
            tables += ["", f"[{attribute.name}]", *(f"{key} = {_text(text)}" for key, text in value.items())]
        else:
            lines.append(f"{attribute.name} = {_size(value) if attribute.name == 'memory' else _value(value)}")
    return "\n".join([*lines, *tables]) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, tuple):
        return f"[{', '.join(map(_text, value))}]"
    return json.dumps(value) if isinstance(value, bool) else f"{value!r}"


def _text(text: str) -> str:
    """Return a basic string: JSON's, but that TOML wants DEL escaped."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _size(value: int) -> str:
    return next((f'"{value // unit}{word}"' for unit, word in UNITS if value % unit == 0), str(value))
