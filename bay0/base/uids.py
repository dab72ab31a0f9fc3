"""Who owns which uids outside: each container has a range of its own, by its slot.

Source: user_namespaces(7). 0 to 32,000 are the slots of personas; behind them come the validation's probe and the AI.
"""

from __future__ import annotations

import json
from functools import lru_cache

UID_BASE = 100_000  # the first uid of slot 0
UIDS = 65_536  # in the range of one container
SLOTS_MAX = 32_000
KEPT = 2048  # texts whose slot is remembered: a list of all personas must not hold up the reactor each time


def first_uid(slot: int) -> int:
    """Return the uid that root inside the container of that slot is outside."""
    return UID_BASE + slot * UIDS


PROBE_UID = first_uid(SLOTS_MAX)
AI_UID = first_uid(SLOTS_MAX + 1)


@lru_cache(maxsize=KEPT)
def slot_of(text: str) -> int | None:
    """Return the slot in a stored configuration, whatever else is in it; None if there is none to be read."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    slot = found.get("slot") if isinstance(found, dict) else None
    return slot if type(slot) is int and 0 <= slot < SLOTS_MAX else None
