"""What a manifest asks for beyond its own four walls: what one who imports it has to accept."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bay0.personas.manifest import Manifest


def asked(manifest: Manifest) -> list[str]:
    """Return each, in words; a new key of a manifest that gives anything belongs here (a test names every key)."""
    found = {
        f"network = {manifest.network}": manifest.network != "none",
        f"the capabilities {', '.join(manifest.capabilities)}": bool(manifest.capabilities),
        "a way to the AI": manifest.ai,
        "windows on the screen": manifest.screen,
        "namespaces of its own": manifest.userns,
        "a start with the machine": manifest.autostart,
        "running on behind others": manifest.behind == "run",
    }
    return [words for words, wanted in found.items() if wanted]
