"""What the control socket offers about servers (`sys://ai`): one function a method. Loaded when the first of them is called.

As with personas: answered when the step is kept and, with `wait`, when the machine rests again, but never later than the bound for verbs; then the
answer says `settled: false` and the machine goes on by itself. A refusal has changed nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import asdict, define, field

from bay0.ai.config import changed, read_config
from bay0.base.errors import RefusedError
from bay0.containers import lookup
from bay0.machines.server import E, S
from bay0.umbilical.places import IMAGE

if TYPE_CHECKING:
    from bay0.ai.port import Servers
    from bay0.base.bounds import Bounds
    from bay0.control.outcomes import Outcomes
    from bay0.control.server import Reply
    from bay0.loading.late import Late
    from bay0.machines.engine import Engine
    from bay0.machines.instance import Instance, Step
    from bay0.pid1.reactor import Reactor
    from bay0.reconcile.replay import Replay
    from bay0.state.link import Answer
    from bay0.state.port import StatePort
    from bay0.umbilical.doors import Umbilical

Taken = Any  # Step, Exception or None


@define(eq=False, repr=False)
class TenantVerbs:
    """The methods. `boot`: this boot's machine."""

    engine: Engine
    reactor: Reactor
    bounds: Bounds
    state: StatePort
    boot: Instance
    servers: Late[Servers]
    umbilical: Late[Umbilical]
    replay: Replay
    outcomes: Outcomes
    _changing: deque[Callable[[], None]] = field(factory=deque)  # whose turn it is, and who waits for theirs

    # ---- looking

    def list(self, _params: Mapping[str, Any], reply: Reply) -> None:
        """Answer with every server."""
        reply([self._facts(instance) for instance in self.engine.of_kind("server")])

    def show(self, params: Mapping[str, Any], reply: Reply) -> None:
        """Answer with one: its facts, its envelope as the kernel has it now, its last steps, and what went through the umbilical."""
        instance = self._instance(params)
        port = self.servers()
        steps = [asdict(step) for step in self.outcomes.recent(instance.name)]
        shown = {
            **self._facts(instance),
            "envelope": [{**asdict(row), "ok": row.ok} for row in port.read_back(instance.name)],
            "steps": steps,
        }

        def counted(ok: bool, why: str, value: dict[str, Any]) -> None:  # noqa: FBT001 - as the umbilical calls it
            reply({**shown, "sessions": value if ok else {}, "sessions_why": "" if ok else why})

        umbilical = self.umbilical.made
        if umbilical is None:
            counted(True, "", {})
        else:
            umbilical.facts(counted)

    def _facts(self, instance: Instance) -> dict[str, Any]:
        port, config = self.servers(), read_config(instance.config)
        why = port.unavailable or (instance.committed.why if instance.committed is not None else "as an earlier boot left it")
        return {
            "name": instance.name,
            "state": instance.now.value,
            "desired": instance.desired,
            "attempts": instance.attempts,
            "seq": instance.seq,
            "since_ms": instance.entered_ms,
            "why": why,
            "remedy": port.remedy if instance.now in (S.STOPPED, S.FAILED) else "",
            "autostart": config.autostart if config is not None else False,
            "model": config.model if config is not None else None,
            "image": IMAGE,
            "container": port.container(instance.name),
            "first_token_s": port.first_token_s,
        }

    def _instance(self, params: Mapping[str, Any]) -> Instance:
        name = params["name"]
        if not isinstance(name, str):
            raise TypeError("name must be text such as sys://ai")
        instance = self.engine.instances.get(name)
        if instance is None or instance.definition.kind != "server":
            raise RefusedError(f"there is no server {name!r}; `bay0 tenant list` names those there are")
        self.replay.need_known()
        return instance

    # ---- acting

    def start(self, params: Mapping[str, Any], reply: Reply) -> None:
        """Start it, as often as that has failed."""
        lookup.need_up(self.boot)
        self._act(E.START, params, reply)

    def stop(self, params: Mapping[str, Any], reply: Reply) -> None:
        """Let the requests in flight end, then stop it."""
        self._instance(params)
        self.servers().no_start("it was asked to stop")
        self._act(E.STOP, params, reply)

    def restart(self, params: Mapping[str, Any], reply: Reply) -> None:
        """Stop it if it runs, then start it."""
        instance = self._instance(params)
        lookup.need_up(self.boot)
        runs = instance.now not in (S.STOPPED, S.FAILED, S.WAITING)
        self.servers().restart(runs=runs)
        self._act(E.STOP if runs else E.START, params, reply)

    def _act(self, event: E, params: Mapping[str, Any], reply: Reply) -> None:
        instance, wait = self._instance(params), bool(params.get("wait", True))

        def taken(result: Taken) -> None:
            if isinstance(result, Exception):
                reply(result)
            else:
                self._rested(instance, wait=wait, reply=reply)

        self.engine.send(instance.name, event, "", taken)

    def _rested(self, instance: Instance, *, wait: bool, reply: Reply) -> None:
        """Answer once it rests; a restart does so on its way."""

        def then(settled: bool) -> None:  # noqa: FBT001 - what was waited for
            if settled and wait and instance.pending is not None:
                self._rested(instance, wait=wait, reply=reply)
            else:
                reply({**self._facts(instance), "settled": settled})

        self.outcomes.when_rested(instance, wait=wait, then=then)

    def configure(self, params: Mapping[str, Any], reply: Reply) -> None:
        """Change what it is made of, for its next start. `model`: a path, or null for the image's own; `autostart`. Durable before the answer."""
        instance = self._instance(params)
        changes = {name: params[name] for name in ("autostart", "model") if name in params}
        if not isinstance(changes.get("autostart", False), bool):
            raise TypeError("autostart must be true or false")
        model = changes.get("model")
        if not (model is None or isinstance(model, str)):
            raise TypeError("model must be a path, or null")
        keep = partial(self._keep, instance, changes, reply)
        if model is None:
            keep()
        else:
            self._checked(model, keep, reply)

    def _checked(self, model: str, then: Callable[[], None], reply: Reply) -> None:
        def looked(answer: Answer) -> None:
            why = answer.why if not answer.ok else answer.value.get("why")
            if why:
                reply(RefusedError(f"{why}. Nothing was changed"))
            else:
                then()

        self.state.ask("ai_model", self.bounds.open, looked, path=model)

    def _keep(self, instance: Instance, changes: Mapping[str, Any], reply: Reply) -> None:
        """Keep these changes, one caller's after the other's: each is a change to what the last one left."""
        self._changing.append(partial(self._keep_now, instance, changes, reply))
        if len(self._changing) == 1:
            self._changing[0]()

    def _keep_now(self, instance: Instance, changes: Mapping[str, Any], reply: Reply) -> None:
        def taken(result: Step | Exception | None) -> None:
            answer = result if isinstance(result, Exception) else self._facts(instance)
            self._changing.popleft()
            if self._changing:
                self.reactor.call_soon(self._changing[0])  # not at once: hundreds that are refused would nest
            reply(answer)

        self.engine.send(instance.name, E.CONFIGURE, "", taken, config=changed(instance.config, changes))
