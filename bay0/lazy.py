"""Put off a module that a library imports at its top but that we never use.

importlib.util.LazyLoader does not serve: on CPython 3.11 a second `import` statement loads what it had put off.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


class _Later(ModuleType):
    """Stands in `sys.modules` until somebody asks for an attribute, then is the real module to whoever holds it."""

    def __getattr__(self, attribute: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), attribute)


def load(name: str) -> None:
    """Make `import name` free until the first attribute of it is asked for; harmless if it is loaded already."""
    if name not in sys.modules:
        sys.modules[name] = _Later(name)
