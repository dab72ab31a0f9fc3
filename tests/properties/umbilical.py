"""The umbilical, modelled: what the ports of personas and of the server ask of it, and how that goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, field

from bay0.ai import envelope
from bay0.ai.kernelview import View

Done = Callable[[bool, str, dict[str, Any]], None]
WARM_S = 3.0


@define(eq=False)
class SimUmbilical:
    """`cold`: no first token is made. `deaf`: no request ends. Directories are not made: podman is modelled, too."""

    later: Callable[[float, Callable[[], None]], None]
    directory: str
    cold: bool = False
    deaf: bool = False
    told: list[tuple[str, str]] = field(factory=list)
    granted: dict[str, str] = field(factory=dict)

    def begin(self) -> None:
        pass

    def prepare_tenant(self) -> str:
        return self.directory

    def prepare(self, name: str) -> str:
        self.granted[name] = ""
        return self.directory

    def grant(self, name: str, _uid_base: int, group: str) -> None:
        self.granted[name] = group

    def revoke(self, name: str) -> None:
        self.granted.pop(name, None)

    def tenant(self, state: str, why: str = "", group: str = "", _retry_s: float = 5.0) -> None:
        self.told.append((state, group))

    def warm(self, done: Done) -> None:
        self.later(WARM_S, lambda: done(not self.cold, "no token" if self.cold else "", {"first_token_s": WARM_S}))

    def drain(self, done: Done) -> None:
        self.later(1.0, lambda: done(not self.deaf, "", {}))

    def check(self, done: Done) -> None:
        self.later(0.1, lambda: done(True, "", {}))

    def facts(self, done: Done) -> None:
        self.later(0.1, lambda: done(True, "", {}))


def view(servers: Any, directory: str, wrong: dict[str, str]) -> View:
    """What the kernel would say of a group: what was asked for, but for what is `wrong`."""
    asked = envelope.wanted(servers._wanted)
    group = directory[directory.index("/tenants") :]
    found = {**asked, "cgroup": group, "processor weight": "20", **wrong}
    return View(found, 7, 0)
