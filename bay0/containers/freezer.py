"""Freeze and thaw of a container's processes: one write to the kernel, and the kernel's own word that it is done.

Theory of operation. `cgroup.freeze` of the container's group is written, which takes no time and needs no disk; it is done when
`cgroup.events` says `frozen 1` or `frozen 0` (kernel: Documentation/admin-guide/cgroup-v2.rst), which the watch that every container
has anyway tells. podman is not called: its own pair of pause and unpause takes seconds on a slow machine, and a switch is to be seen.
Android's freezer for cached apps works so. podman goes on saying "running" of what we froze, and that does no harm: `podman exec` is
refused by crun, which looks at the group, and an end begins with a thaw (life.py).

What podman itself froze, by somebody's hand, it calls "paused" until it is told otherwise, and ends by KILL without TERM. So it is told,
later and by the way, once such a one runs again.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from attrs import frozen

from bay0.base import names
from bay0.effects import cgroup
from bay0.pid1 import flow
from bay0.podman.calls import Asker, Outcome

if TYPE_CHECKING:
    from bay0.containers.life import Live, Means, Outcome_
    from bay0.machines.container import Words
    from bay0.podman.calls import Verdict

LOOK_S = 0.25  # between two looks, should the kernel's notice be lost; and between two tries of a write that failed
SAYS = "as cgroup.events says"
ABOVE = "it is thawed, but stands still with all others: the group above it is frozen (1 in /sys/fs/cgroup{}/cgroup.freeze)"
NOT_DONE = "{:g} s after it was written to cgroup.freeze the kernel does not say frozen {}: a process may wait for a disk"
NOT_WRITTEN = "cgroup.freeze cannot be written: {}"
SET_RIGHT = (Outcome.OK, Outcome.WRONG_STATE, Outcome.NO_CONTAINER)  # podman does not call it paused any more, or never did


@frozen(eq=False, repr=False)
class Freezer:
    """Freezes and thaws the containers of one kind, which are in the cgroup `group`."""

    means: Means
    words: Words
    group: str

    def change(self, name: str, live: Live, *, frozen: bool) -> flow.Flow[Outcome_]:
        """Freeze the container of the machine `name`, or thaw it; return how that went, within the bound `freeze`."""
        e, reactor = self.words.events, self.means.reactor
        end, written, why = reactor.clock() + self.means.bounds.freeze, False, ""
        while cgroup.populated(live.directory):
            yield flow.at_once  # one that was overtaken writes nothing any more
            if not written:  # for want of a descriptor, for example: it goes well a moment later
                why = cgroup.freeze(live.directory, frozen=frozen)
                written = not why
            if written and cgroup.frozen(live.directory) is frozen:
                if not frozen:
                    self.tell_podman(name, live)
                return (e.PAUSED if frozen else e.RESUMED), SAYS
            if written and not frozen and self.above() and not cgroup.told_to_freeze(live.directory):
                return e.RESUMED, ABOVE.format(self.group)
            if reactor.clock() > end:
                return e.FAULT, NOT_DONE.format(self.means.bounds.freeze, int(frozen)) if written else NOT_WRITTEN.format(why)
            yield partial(self._news, live)
        return e.ENDED, f"container {live.container[:12]} has no process left"

    def above(self) -> bool:
        """Tell whether all of them stand still together, which is somebody's purpose and not ours to undo."""
        return cgroup.told_to_freeze(f"{cgroup.ROOT}{self.group}")

    def _news(self, live: Live, resume: flow.Resume) -> None:
        """Wait until the kernel says that something has changed, or for a while."""
        live.changed = partial(flow.once(resume, self.means.reactor, LOOK_S), None)

    # ---- what podman believes

    def tell_podman(self, name: str, live: Live) -> None:
        """Have podman know that it runs, if podman may call it paused. Nobody waits for that."""
        if not live.paused_by_podman:
            return
        live.paused_by_podman = False

        def told(verdict: Verdict) -> None:
            live.paused_by_podman = verdict.outcome not in SET_RIGHT
            self.means.audit.soon_after(verdict)

        runs = Asker(lambda: cgroup.populated(live.directory) and not cgroup.told_to_freeze(live.directory))
        self.means.podman.unpause(names.parse(name).podman, told, asker=runs)
