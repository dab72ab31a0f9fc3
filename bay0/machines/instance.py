"""One live machine, the events on their way to it, and the steps it takes. The engine alone changes them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen

if TYPE_CHECKING:
    from bay0.machines.table import MachineDef

Reply = Callable[["Step | Exception | None"], None]


@frozen(eq=False, repr=False)
class Step:
    """One committed move of one machine; what a journal row holds. `at_ms`: milliseconds since the kernel started.

    `config` is not part of the journal: if it is there, the step also sets what the machine is made of (JSON text).
    """

    boot_id: str
    n: int
    machine: str
    kind: str
    seq: int
    source: str
    event: str
    dest: str
    why: str
    at_ms: int
    attempts: int = 0
    desired: str = "stopped"
    config: str | None = None


@define(eq=False, repr=False, slots=False)
class Instance:
    """One live machine. `state` belongs to `transitions`; everything else to the engine."""

    name: str
    definition: MachineDef
    state: Enum
    seq: int = 0
    attempts: int = 0
    desired: str = "stopped"
    config: str = ""
    context: dict[str, Any] = field(factory=dict)
    queue: deque[Order] = field(factory=deque)
    pending: Step | None = None
    committed: Step | None = None
    deadline: Any = None
    entered_ms: int = 0

    @property
    def now(self) -> Enum:
        """The state in memory."""
        return self.state


@define
class Order:
    """An event on its way to a machine."""

    event: Enum
    why: str = ""
    reply: Reply | None = None
    token: int | None = None
    config: str | None = None
    context: dict[str, Any] = field(factory=dict)
