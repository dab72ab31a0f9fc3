"""Python's collector of cycles, kept away from what stays.

A full collection looks at every object there is: natively a fiftieth of a second with a thousand personas, emulated many times that, and it
comes in whatever turn happens to allocate next. Modules, machines and what a boot has adopted are never garbage: they are frozen
(`gc.freeze`, in Python's library reference).
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def staying() -> Iterator[None]:
    """Collect nothing meanwhile, and never look again at what was made until the end."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
