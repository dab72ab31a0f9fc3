"""The AI's effect port over a podman, an umbilical and a kernel that are played: the real engine and table; the clock is moved by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from attrs import define, field
from kit import Timers
from personakit import Bench as PersonaBench

from bay0.ai import envelope
from bay0.ai import port as servers
from bay0.ai.kernelview import View
from bay0.ai.port import NAME, Servers
from bay0.base.errors import RefusedError
from bay0.effects import gauges
from bay0.machines import MACHINES
from bay0.machines.server import E, S
from bay0.state.link import Answer


@define(eq=False)
class Umbilical:
    """Remembers what it was told; what it is asked waits until `answer`."""

    timers: Timers
    told: list[tuple[str, str, str]] = field(factory=list)
    asked: list[tuple[str, Any]] = field(factory=list)
    began: int = 0
    broken: str = ""
    sessions: dict[str, Any] = field(factory=dict)

    def begin(self) -> None:
        if self.broken:
            raise RefusedError(self.broken)
        self.began += 1

    def prepare_tenant(self) -> str:
        return "/run/bay0/ai/tenant"

    def tenant(self, state: str, why: str = "", group: str = "", _retry_s: float = 5.0) -> None:
        self.told.append((state, why, group))

    def facts(self, done: Any) -> None:
        done(True, "", self.sessions)

    def warm(self, done: Any) -> None:
        self.asked.append(("warm", done))

    def drain(self, done: Any) -> None:
        self.asked.append(("drain", done))

    def answer(self, what: str, ok: bool = True, why: str = "", **value: Any) -> None:
        name, done = self.asked.pop(0)
        assert name == what
        done(ok, why, value)

    def states(self) -> list[str]:
        return [state for state, _, _ in self.told]


class Bench(PersonaBench):
    """The shared bench with a server instead of personas."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(monkeypatch)
        self.ops = self.state.answers
        self.ops.update(ai_archive=Answer(value=None), ai_model=Answer(value={"size": 1 << 30}))
        self.umbilical = Umbilical(self.timers)
        self.servers = Servers(self.means, self.boot, self.ways)
        self.engine.serve("server", self.servers)
        self.monitors: list[Any] = []
        self.servers.ends = SimpleNamespace(watch=lambda pid, call: self.monitors.append((pid, call)), forget=self.monitors.clear)  # type: ignore[assignment]
        self.wrong: dict[str, str] = {}
        monkeypatch.setattr(servers.kernelview, "look", self._look)
        self.gets_on = True  # its server computes
        self._really = gauges.read
        monkeypatch.setattr(gauges, "read", self._read)
        self.ai = self.engine.add(NAME, MACHINES["server"])

    def _look(self, directory: str) -> View:
        asked = envelope.wanted(self.servers._wanted)  # type: ignore[arg-type]
        group = directory[directory.index("/tenants") :]
        return View({**asked, "cgroup": group, "processor weight": "20", **self.wrong}, 7, 6)

    def _read(self, path: str, *size: int) -> str:
        computes = f"usage_usec {int(self.timers.now * 1e5)}\n" if path.endswith("cpu.stat") and self.gets_on else ""
        return self._really(path, *size) or computes

    @staticmethod
    def path(container: str) -> str:
        return f"{servers.cgroup.ROOT}/tenants/libpod-{container}"

    def go(self, event: E, seconds: float = 2) -> S:
        self.engine.send(NAME, event)
        return self.now(seconds)

    def now(self, seconds: float = 0) -> S:
        self.timers.advance(seconds)
        return self.ai.now  # type: ignore[return-value]

    def ready(self) -> str:
        """Make it serve; return its cgroup."""
        assert self.go(E.START) is S.WARMING
        self.umbilical.answer("warm", first_token_s=1.5)
        assert self.now(0.1) is S.READY
        return self.path(str(self.servers.container(NAME)))

    def spec(self) -> Any:
        return next(words[1] for words in self.podman.asked if words[0] == "run")
