"""What people do to the simulated machine: verbs of the control socket, podman by hand, an orderly stop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ai import AI
from attrs import define, field
from checks import Checks
from copies import COPY
from kernel import Kernel
from podman import IMAGE, Podman

from bay0.base import names
from bay0.base.errors import Bay0Error
from bay0.control.answers import Listing
from bay0.effects import cgroup
from bay0.machines import boot, persona

WORK, PLAY, IDLE = PERSONAS = ("p://work", "p://play", "p://idle")
MANIFESTS: dict[str, dict[str, Any]] = {
    WORK: {
        "image": IMAGE,
        "home": "/home/work",
        "restart": "on-failure",
        "retries": 2,
        "stop_s": 1,
        "ai": True,
    },
    PLAY: {
        "image": IMAGE,
        "home": "/root",
        "restart": "always",
        "retries": 1,
        "stop_s": 3,
        "autostart": True,
        "ai": True,
    },
    IDLE: {"image": IMAGE},
}


@define(eq=False)
class SimControl:
    """The control socket without its socket."""

    methods: dict[str, Any] = field(factory=dict)
    takes: dict[str, Any] = field(factory=dict)  # everything is loaded here
    is_open: bool = False

    def offer(self, methods: dict[str, Any], _takes: Any = ()) -> None:
        self.methods.update(methods)

    def open(self) -> None:
        self.is_open = True

    def look(self) -> list[str]:
        return []


@define(eq=False)
class Asked:
    """One call of a method, and its answers: there must be one."""

    method: str
    params: dict[str, Any]
    at: float
    boot_id: str
    answers: list[Any] = field(factory=list)
    before: bool | None = None  # what was known of a digest when it was asked about

    @property
    def refused(self) -> bool:
        return bool(self.answers) and isinstance(self.answers[0], Exception)


class People:
    """The part of `World` that acts as a person does."""

    on: bool
    now: float
    boot_id: str
    spine: Any
    asked: list[Asked]
    checks: Checks
    podman: Podman
    kernel: Kernel
    run: Callable[[float], None]
    _guard: Callable[[Callable[[], None]], None]

    def call(self, method: str, **params: Any) -> Asked:
        """Call a method of the control socket, if it is open; what is answered is remembered."""
        asked = Asked(method, params, self.now, self.boot_id)
        if self.on and self.spine.control.is_open:
            self.asked.append(asked)
            self._guard(lambda: self._ask(asked))
        return asked

    def _ask(self, asked: Asked) -> None:
        def reply(result: Any) -> None:
            result = result.whole() if isinstance(result, Listing) else result
            asked.answers.append(result)
            self.checks.answered(asked, result)

        self.checks.asked_for(asked)
        try:
            self.spine.control.methods[asked.method](asked.params, reply)
        except Bay0Error as refusal:
            reply(refusal)

    def nack(self, number: int, *, nacked: bool = True) -> Asked:
        """An operator refuses a digest, or allows it again."""
        return self.call("nack.add" if nacked else "nack.remove", digest=f"sha256:{number:064x}")

    def be(self, name: str, **changes: Any) -> None:
        """See to it that a persona is there."""
        if self.on and self.state_of(name) in (None, persona.S.ABSENT):
            asked = self.call("persona.create", name=name, manifest={**MANIFESTS[name], **changes})
            for _ in range(40):
                if not asked.answers:
                    self.run(0.05)

    def start(self, name: str) -> Asked:
        """An operator starts a persona that is there or is made for it."""
        self.be(name)
        return self.verb("start", name)

    def begin_with(self, name: str, **changes: Any) -> Asked:
        """An operator edits a manifest: stops the persona, removes it, makes it with `changes`, starts it."""
        self.verb("stop", name)
        for _ in range(40):
            if self.on and self.state_of(name) not in (None, persona.S.ABSENT):
                self.run(0.1)
                self.verb("remove", name)
        self.be(name, **changes)
        return self.verb("start", name)

    def verb(self, verb: str, name: str, **params: Any) -> Asked:
        return self.call(f"persona.{verb}", name=name, **{"wait": False, **params})

    def clone(self, source: str, name: str = COPY) -> Asked:
        return self.call("persona.clone", source=source, name=name)

    def snapshot(self, name: str, **params: Any) -> Asked:
        return self.call("persona.snapshot", name=name, **params)

    def bring(self, archive: str, manifest: dict[str, Any], name: str = COPY) -> Asked:
        return self.call("persona.import", name=name, archive=archive, manifest=manifest, accept=True)

    def change(self, name: str, **changes: Any) -> Asked:
        """An operator changes keys of a persona's manifest."""
        return self.call("persona.configure", name=name, changes=changes)

    def ask_ai(self, verb: str, **params: Any) -> Asked:
        return self.call(
            f"tenant.{verb}", name=AI, **({} if verb == "configure" else {"wait": False}), **params
        )

    def frozen(self, container: str) -> bool:
        """What the kernel says."""
        found = self.podman.containers.get(container)
        return found is not None and cgroup.frozen(self.kernel.directory(found.id))

    def by_hand(self, name: str, *, runs: bool) -> None:
        """An operator makes a container with podman directly.

        Under one of our names it is looked for only where there are personas.
        One whose creation was refused is none: it has taken no step.
        """
        if self.on and (
            names.from_podman(name) is None or any(i.seq for i in self.spine.engine.of_kind("persona"))
        ):
            self.podman.by_hand(name, runs=runs)
            self.checks.note_foreign()

    def state_of(self, name: str) -> Any:
        instance = self.spine.engine.instances.get(name) if self.on else None
        return None if instance is None else instance.now

    def send(self, name: str, event: Any) -> None:
        if name in self.spine.engine.instances:
            self._guard(lambda: self.spine.engine.send(name, event, "an operator asked"))

    def stop(self, how: str = "poweroff") -> None:
        """Ask for an end: `poweroff`, `reboot`, or `force`."""
        if how == "force":
            self._guard(
                lambda: self.spine.engine.send(self.spine.boot.name, boot.E.FORCE, "asked", how="reboot")
            )
        else:
            self._guard(lambda: self.spine.power_signals.stop(how, "asked"))
