"""What the control socket offers about the network. Loaded when the first of them is called.

As with personas: answered when the step is kept and, with `wait`, when the machine rests again, but never
later than the bound for verbs; then the answer says `settled: false` and the machine goes on by itself. A
refusal has changed nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attrs import asdict, define

from bay0.base.errors import RefusedError
from bay0.containers import lookup
from bay0.machines.net import NAME, E
from bay0.net import config

if TYPE_CHECKING:
    from bay0.control.outcomes import Outcomes
    from bay0.control.server import Reply
    from bay0.loading.late import Late
    from bay0.machines.engine import Engine
    from bay0.machines.instance import Instance, Step
    from bay0.net.cables import Cables
    from bay0.net.port import Net
    from bay0.reconcile.replay import Replay


@define(eq=False, repr=False)
class NetMethods:
    """The methods. `boot`: this boot's machine."""

    engine: Engine
    boot: Instance
    replay: Replay
    outcomes: Outcomes
    net: Late[Net]
    cables: Late[Cables]

    def status(self, params: Mapping[str, Any], reply: Reply) -> None:
        """Answer with the state, the card, the address and the cables; with `wait` once it rests."""
        net = self._instance()
        self.outcomes.when_rested(
            net, wait=bool(params.get("wait")), then=lambda _settled: reply(self._facts(net))
        )

    def up(self, params: Mapping[str, Any], reply: Reply) -> None:
        """Bring it up, and have it up with each boot from now on."""
        lookup.need_up(self.boot)
        self._act(E.RAISE, params, reply)

    def down(self, params: Mapping[str, Any], reply: Reply) -> None:
        """Take it down, and leave it down: no persona has a way out then."""
        self._act(E.LOWER, params, reply)

    def configure(self, params: Mapping[str, Any], reply: Reply) -> None:
        """Change how it is configured (bay0/net/config.py has the keys.

        Null is the default again), at once if it is up.
        """
        net = self._instance()
        changes = {key: value for key, value in params.items() if key != "wait"}
        wire = {**asdict(config.read(net.config)), **changes}
        if changes.get("address", "") is None:
            wire["gateway"] = changes.get("gateway")  # of the address that goes
        wanted = {key: value for key, value in wire.items() if value is not None}
        wrong = [f"{key}: {why}" for key, why in config.faults(wanted)]
        if wrong:
            raise RefusedError(f"{'; '.join(wrong)}. Nothing was changed")
        made = config.Config(**{**wanted, "dns": tuple(wanted.get("dns", ()))})
        self._act(E.CONFIGURE, params, reply, made.text())

    def persona(self, params: Mapping[str, Any], reply: Reply) -> None:
        """Answer with a persona's cable, what it has carried, and what its filter has counted."""
        instance = lookup.persona(self.engine, self.replay, params)

        def counted(found: dict[str, Any] | None) -> None:
            reply({"name": instance.name, "network": found is not None, **(found or {})})

        if self.cables.made is None:
            counted(None)
        else:
            self.cables().count(instance.name, counted)

    def _instance(self) -> Instance:
        self.replay.need_known()
        if NAME not in self.engine.instances:
            raise RefusedError("the boot is not that far yet")
        return self.engine.instances[NAME]

    def _facts(self, net: Instance) -> dict[str, Any]:
        steps = self.outcomes.recent(NAME)
        told = self.net.made.describe() if self.net.made is not None else {}
        return {
            "state": net.now.value,
            "about": net.definition.spec(net.now).about,
            "why": steps[-1].why if steps else "",
            "wanted": net.desired == "running",
            "config": asdict(config.read(net.config)),
            **told,
        }

    def _act(self, event: E, params: Mapping[str, Any], reply: Reply, text: str | None = None) -> None:
        net, wait = self._instance(), bool(params.get("wait", True))

        def taken(result: Step | Exception | None) -> None:
            if isinstance(result, Exception):
                reply(result)
            else:
                self.outcomes.when_rested(
                    net, wait=wait, then=lambda settled: reply({**self._facts(net), "settled": settled})
                )

        self.engine.send(NAME, event, "", taken, config=text)
