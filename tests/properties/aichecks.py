"""The invariants of `sys://ai`, from outside: its steps, its container, what was configured. checks.py calls them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import define, field
from broken import hold

from bay0.ai.config import read_config
from bay0.ai.port import RETRIES
from bay0.base import names
from bay0.containers.life import TENANTS
from bay0.machines import boot
from bay0.machines.server import HAS_CONTAINER, NAME, E, S
from bay0.machines.table import Tries

if TYPE_CHECKING:
    from people import Asked
    from world import World

    from bay0.machines.instance import Instance, Step
    from bay0.machines.table import Row

FIELDS = {"autostart": True, "model": None}  # what it is made of, and what it is if nobody said so
UNTIL_STARTED = (S.STOPPED, S.CONVERGING, S.STUCK, S.FAILED)  # a boot that has not started it has it in one of these
CONTAINER = names.parse(NAME).podman
LIMIT = RETRIES + 1


@define(eq=False)
class AiChecks:
    """All that is to be held of it. `may_be`: what each field of its configuration may be, of what operators asked and were told."""

    world: World
    may_be: dict[str, list[Any]] = field(factory=lambda: {name: [value] for name, value in FIELDS.items()})
    started: bool = False  # in this boot
    stopped: bool = False  # an operator was told so, and nobody has asked for it since
    starts: int = 0  # asked for in this boot, and not begun yet
    restarts: int = 0  # ... and not ended by a start yet
    tries: int = 0  # as the database has it
    known: Instance | None = None  # whose attempts are compared with the database's
    at_boot: list[Any] = field(factory=list)

    def booted(self) -> None:
        self.started = self.stopped = False
        self.starts = self.restarts = 0
        self.known = None
        self.at_boot = list(self.may_be["autostart"])

    # ---- its steps

    def proposed(self, instance: Instance, step: Step, row: Row) -> None:
        before = instance.attempts
        if self.known is not instance and self.world.spine.replay.known:
            self.known, before = instance, self.tries
        if step.dest == S.STARTING.value:
            self._starts(step, row, before)
        elif row.tries is Tries.KEEP:
            hold(step.attempts == before, f"{step.event} of {NAME} makes {before} attempts {step.attempts}")
        hold(step.event != E.RETRY.value or instance.desired != "stopped", f"{NAME} is tried again, and wanted {instance.desired}")
        if step.dest == S.FAILED.value:
            hold(step.desired == "stopped", f"{NAME} has failed and is wanted {step.desired}")

    def _starts(self, step: Step, row: Row, before: int) -> None:
        world, asked = self.world, step.event == E.START.value
        wanted = 1 if asked else before + 1
        hold(step.attempts == wanted, f"{NAME} is started for the {wanted}. time, its step says {step.attempts}")
        hold(asked or step.attempts <= LIMIT, f"{NAME} is started for the {step.attempts}. time, and {LIMIT} are allowed")
        hold(row.promised, f"{NAME} is started without a promise")
        hold(step.desired == "running", f"{NAME} is started and wanted {step.desired}")
        hold(not asked or self.starts or self.restarts, f"nobody has asked for it, and {NAME} is started")
        hold(self.starts or world.state_of_boot not in boot.LEAVES, f"{NAME} is started ({step.event}) while the spine goes down")
        hold(asked or not self.stopped, f"an operator was told that {NAME} is being stopped, and it is started by {step.event}")
        if step.event == E.AUTOSTART.value:
            hold(world.state_of_boot is boot.S.COMPLETE, f"{NAME} starts with the spine before init is complete")
            hold(True in (*self.at_boot, *self.may_be["autostart"]), f"{NAME} starts with the spine, and is configured not to")

    def accepted(self, step: Step) -> None:
        if step.dest == S.STARTING.value:
            self.started = True
            self.stopped = False
            if step.event == E.START.value:
                self.starts, self.restarts = (self.starts - 1, self.restarts) if self.starts else (0, 0)

    def asked_to_start(self) -> None:
        self.starts, self.stopped = self.starts + 1, False

    # ---- what operators are told

    def asked_for(self, asked: Asked) -> None:
        if asked.method == "tenant.configure":
            for name in FIELDS.keys() & asked.params.keys():
                self.may_be[name].append(asked.params[name])
        elif asked.method == "tenant.start":
            self.asked_to_start()
        elif asked.method == "tenant.restart":
            self.restarts, self.stopped = self.restarts + 1, False

    def answered(self, asked: Asked, told: dict[str, Any]) -> None:
        if asked.method == "tenant.stop":
            begins = ("tenant.start", "tenant.restart")
            others = [each for each in self.world.asked if each is not asked and not each.answers and each.method in begins]
            if not others:
                self.stopped, self.starts, self.restarts = True, 0, 0
        for name in FIELDS.keys() & told.keys():
            hold(told[name] in self.may_be[name], f"{NAME} is said to have {name} = {told[name]}; what was asked for is one of {self.may_be[name]}")
        if asked.method != "tenant.configure":
            return
        for name in FIELDS.keys() & asked.params.keys():
            others = [each for each in self.world.asked if each is not asked and not each.answers and name in each.params]
            hold(others or told[name] == asked.params[name], f"{name} = {asked.params[name]} was asked for, and {told[name]} answered")
            if not others:  # else the last of them decides
                self.may_be[name] = [told[name]]

    # ---- what is there

    def turned(self) -> None:
        instance = self.world.spine.engine.instances.get(NAME)
        if instance is not None and not self.started and not instance.pending and self.world.spine.replay.known:
            hold(instance.now in UNTIL_STARTED, f"nobody has started {NAME} in this boot, and it is {instance.now.value}")
        kernel, podman = self.world.kernel, self.world.podman
        seen = [c for c in podman.containers.values() if c.parent == TENANTS and not c.blind and kernel.lives(c.id)]
        hold(len(seen) <= 1, f"{len(seen)} containers of {NAME} run")
        if instance is None or instance.pending or instance.now not in (S.STOPPED, S.FAILED):
            return
        found = podman.containers.get(CONTAINER)
        excused = found is None or found.excused or found.external or not self.world.spine.replay.known
        hold(excused, f"{NAME} is {instance.now.value} and has a container, {found and found.state}")

    def settled(self, instance: Instance) -> str | None:
        """Return what its container has to be, in podman's words."""
        config = read_config(instance.config)
        hold(config is not None, f"{NAME} has a configuration that makes no sense: {instance.config}")
        self._configured(instance.config)
        over = instance.now not in HAS_CONTAINER or not self.stopped
        hold(over, f"an operator was told that {NAME} is being stopped, and it is {instance.now.value}")
        wanted = {S.READY: "running", S.PAUSED: "paused"}.get(instance.now)
        hold(wanted is None or instance.desired == wanted, f"{NAME} is {instance.now.value} and wanted {instance.desired}")
        return wanted

    def after_cut(self, row: dict[str, Any] | None) -> None:
        """What a database holds of it."""
        self.tries = 0 if row is None else row["attempts"]
        self._configured("" if row is None else row["config"])

    def _configured(self, text: str) -> None:
        config = read_config(text)
        if config is not None:
            for name, values in self.may_be.items():
                found = getattr(config, name)
                hold(found in values, f"{NAME} was configured with {name} = {values}, and has {found}")
