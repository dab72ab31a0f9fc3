"""The sample personas that are on the spine."""

from __future__ import annotations

import os

from bay0.cli.persona_words import MANIFEST, SAMPLES

PLACE = SAMPLES


def names() -> tuple[list[str], str]:
    """Return the names of the samples on this machine, and where they are."""
    try:
        return sorted(
            entry for entry in os.listdir(PLACE) if os.path.isfile(os.path.join(PLACE, entry, MANIFEST))
        ), PLACE
    except OSError:
        return [], PLACE
