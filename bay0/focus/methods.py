"""What the control socket offers about the focus."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attrs import define

from bay0.base.errors import RefusedError
from bay0.containers import lookup
from bay0.focus.switch import ALIVE
from bay0.machines import focus as focus_table
from bay0.machines.instance import Step

if TYPE_CHECKING:
    from bay0.control.outcomes import Outcomes
    from bay0.control.server import Method, Reply
    from bay0.focus.switch import Focus
    from bay0.machines.engine import Engine
    from bay0.reconcile.replay import Replay

Taken = Step | Exception | None


@define(eq=False, repr=False)
class FocusMethods:
    """The methods."""

    engine: Engine
    switch: Focus
    replay: Replay
    outcomes: Outcomes

    def methods(self) -> dict[str, Method]:
        """Return method name -> function."""
        return {"focus": self.focus, "focus.show": self.focus_show}

    def focus(self, params: Mapping[str, Any], reply: Reply) -> None:
        """Bring one to the front; durable before the answer."""
        instance, wait = lookup.persona(self.engine, self.replay, params), bool(params.get("wait", True))
        if instance.now not in ALIVE:
            raise RefusedError(f"{instance.name} is {instance.now.value}: start it first")
        switch = self.engine.instances[focus_table.NAME]

        def answer(settled: bool) -> None:  # noqa: FBT001 - what was waited for
            left = self.switch.left(instance.name)
            reply({"active": focus_table.active(switch), "settled": settled and not left, "left": left})

        def taken(result: Taken) -> None:
            if isinstance(result, Exception):
                reply(result)
            else:
                self.outcomes.when_rested(switch, wait=wait, then=answer)

        self.engine.send(focus_table.NAME, focus_table.E.FOCUS, instance.name, taken, config=focus_table.config(instance.name))

    def focus_show(self, _params: Mapping[str, Any], reply: Reply) -> None:
        """Answer with who is in front."""
        reply({"active": focus_table.active(self.engine.instances[focus_table.NAME])})
