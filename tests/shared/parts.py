"""Parts of bay0 that a test hands in where only their outside matters: an engine's news, a late part."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from types import SimpleNamespace
from typing import Any

from bay0.machines.bus import Bus


class Steps:
    """Stands for an engine of which only the news matters: `tell` it, and those who subscribed hear of it."""

    boot_id = "b"

    def __init__(self) -> None:
        self.bus, self.instances = Bus(), {}
        self.sent: list[tuple[str, Enum]] = []

    def on(self, kind: str, *states: Enum, call: Callable[..., None], of: Any = None) -> None:
        self.bus.subscribe(kind, tuple(state.value for state in states), call, of)

    def send(self, name: str, event: Enum, *_more: Any, **_context: Any) -> None:
        self.sent.append((name, event))

    def tell(self, kind: str, dest: Enum, of: Any = None, **more: Any) -> None:
        step: Any = SimpleNamespace(kind=kind, dest=dest.value, **{"event": "", "why": "", "at_ms": 0, "boot_id": "b", **more})
        with self.bus.step(of, step):
            pass


class Ready:
    """A `late.Late` whose part `make` returns; it is there, or `made` says None."""

    def __init__(self, make: Callable[[], Any], *, there: bool = True) -> None:
        self.make, self.there = make, there

    @property
    def made(self) -> Any:
        return self.make() if self.there else None

    def __call__(self) -> Any:
        self.there = True
        return self.make()

    def ask(self, name: str) -> Callable[..., Any]:
        return lambda *arguments: getattr(self.make(), name)(*arguments) if self.there else ()

    def load(self, later: Callable[[Callable[[], None]], object], done: Callable[[None], None]) -> None:
        later(lambda: done(None))
