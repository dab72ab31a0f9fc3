"""Podman makes a container, and has the image for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import define, evolve, field

from bay0.pid1 import flow
from bay0.podman.calls import Outcome

if TYPE_CHECKING:
    from bay0.machines.instance import Instance
    from bay0.podman.calls import Asker, Podman, RunSpec, Verdict

Run = Callable[["Instance", "RunSpec"], flow.Flow["Verdict"]]


@define(eq=False, repr=False)
class Making:
    """Makes containers of one kind. `asker` tells for whom podman is called: what a machine owes now."""

    podman: Podman
    log: Any
    asker: Callable[[Instance], Asker]
    _loading: dict[str, list[flow.Resume]] = field(init=False, factory=dict)  # archive -> flows that wait for it

    def made(self, instance: Instance, spec: RunSpec, run: Run | None = None) -> flow.Flow[Verdict]:
        """Have podman make and start a container, by `run` (default: `self.run`).

        One of an earlier try that we were not told of holds its name, and is removed first.
        """
        run = run or self.run
        ran = yield from run(instance, spec)
        if ran.outcome is Outcome.NAME_TAKEN:
            yield partial(self.podman.remove, [spec.name], 0, asker=self.asker(instance))
            ran = yield from run(instance, spec)
        return ran

    def run(self, instance: Instance, spec: RunSpec) -> flow.Flow[Verdict]:
        """Have podman make and start a container in one call."""
        ran: Verdict = yield partial(self.podman.run, spec, asker=self.asker(instance))
        return ran

    def image_loaded(self, archive: str, resume: flow.Resume) -> None:
        """Load an archive, or wait for the one that is doing so."""
        waiting = self._loading.setdefault(archive, [])
        waiting.append(resume)
        if len(waiting) == 1:
            self.podman.image_load(archive, partial(self._image_is_loaded, archive))

    def _image_is_loaded(self, archive: str, loaded: Verdict) -> None:
        for resume in self._loading.pop(archive):
            resume(loaded)

    def discarded(self, spec: RunSpec, ran: Verdict) -> flow.Flow[Verdict]:
        """Remove an image with damaged layers, to be loaded anew; podman's own check may not see the damage.

        (A link file that a crash left empty is such a damage.) Return what came of it: there is no image, or still the
        damage, since others use it.
        """
        self.log.warning("a damaged image is removed, to be loaded anew", image=spec.image, why=ran.why)
        yield partial(self.podman.remove, [spec.name], 0)
        removed: Verdict = yield partial(self.podman.image_remove, spec.image)
        gone = removed.ok or removed.outcome is Outcome.NO_IMAGE
        return evolve(ran, outcome=Outcome.NO_IMAGE) if gone else ran
