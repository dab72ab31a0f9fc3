"""Put off a module that a library imports at its top but that we never use.

importlib.util.LazyLoader does not serve: on CPython 3.11 a second `import` statement loads what it had put off.
Whatever is put off still works for whoever asks for it; that is only slower, and takes memory.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

# attrs makes a class of every validator it offers and reads signatures with `inspect`; traceback and transitions are thorough too.
# The second line is peewee's: the state worker is a fork of PID 1 and inherits what was put off.
UNUSED_BY_PID1 = (
    "inspect", "ast", "tokenize", "textwrap", "copy",
    "calendar", "hashlib", "uuid", "locale",
    "attr.validators", "attr.converters", "attr.filters", "attrs.validators", "attrs.converters", "attrs.filters", "attrs.setters",
)  # fmt: skip


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


class _Bare(ModuleType):
    """A package whose own top has not run; it does when somebody asks for a name that no submodule brought."""

    def __getattr__(self, attribute: str) -> Any:
        spec = self.__spec__
        if attribute.startswith("__") or spec is None or spec.loader is None:
            raise AttributeError(attribute)
        self.__class__ = ModuleType  # type: ignore[assignment]  # so that it does so once
        spec.loader.exec_module(self)
        return getattr(self, attribute)


def bare(package: str) -> None:
    """Let `import package.part` load that part alone, not all that the package's top imports; harmless if it is loaded already."""
    if package in sys.modules:
        return
    spec = importlib.util.find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        return  # the import statement will say what is wrong
    module = _Bare(package)
    module.__spec__, module.__path__, module.__file__ = spec, spec.submodule_search_locations, spec.origin
    sys.modules[package] = module
