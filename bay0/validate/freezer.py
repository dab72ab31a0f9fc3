"""The freezer test: a container burns CPU, is frozen and stands still, burns again, and is gone.

It is frozen as a persona is (containers/freezer.py): by one write, and the kernel's word; podman only makes it and removes it.
The probe is `sys://validate`, and there is one at a time. Its cgroup has a parent of its own, so whatever is found there is the probe's, also
what podman knows nothing of. What a run that died left is removed by the next boot's reconcile (it is under our names and nobody's), or before
the next probe is made. Source: handoff, "Validation command".
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import define

from bay0.base.names import Name
from bay0.base.uids import PROBE_UID
from bay0.containers.life import TENANT_FILTER
from bay0.effects import cgroup
from bay0.pid1 import flow
from bay0.podman.calls import RunSpec
from bay0.validate.verdict import GREEN, Finding, red

if TYPE_CHECKING:
    from bay0.base.bounds import Bounds
    from bay0.pid1.reactor import Reactor, Timer
    from bay0.podman.calls import Podman, Verdict
    from bay0.reconcile.clearing import Cleared, Clearing

PROBE = Name("tenant", "validate")
PARENT = "/tenants/validate"
DIRECTORY = f"{cgroup.ROOT}{PARENT}"
# the spine's own root below a writable layer (podman-run(1)): it is always there, and no image is to be loaded
ROOTFS = "/:O"
BURN = ("/bin/sh", "-c", "while :; do :; done")
LOG = "/run/bay0/validate.log"
MEMORY = 32 << 20  # bytes
CPUS = 0.25  # so that it takes nothing that anybody would miss
BURNT_US = 20_000  # of processor time: it burns
STILL_S, STILL_US = 0.5, 1_000  # for so long it may use no more than this, in microseconds: it stands still
LOOK_S = 0.05
AGAIN_S = 60.0  # until a probe that could not be removed is tried again
Say = Callable[[str], None]


@define(eq=False, repr=False)
class Freezer:
    """Makes the probe. `busy`: there may be one, and somebody looks after it."""

    reactor: Reactor
    bounds: Bounds
    log: Any
    podman: Podman
    clearing: Clearing
    boot_id: str
    busy: bool = False
    _retry: Timer | None = None

    def check(self, say: Say) -> flow.Flow[Finding]:
        """Try it, and remove the probe whatever came of it."""
        say("an earlier run's probe is being removed")
        if not (yield from self._until(lambda: not self.busy, self.bounds.podman_list)):
            return red("the probe of an earlier run is still being removed: podman does not answer")
        self.busy = True
        try:
            found = yield from self._attempt(say)
            say("the probe is removed")
            left = yield from self._remove()
        finally:
            self.busy = False
        if left:
            return red(f"{found.why}; the probe is left: {left}" if found.why else f"the probe is left: {left}")
        return found

    def _attempt(self, say: Say) -> flow.Flow[Finding]:
        say("an old probe is looked for")
        left = yield from self._remove()
        if left:
            return red(f"an old probe cannot be removed: {left}")
        say("podman makes the probe")
        ran: Verdict = yield partial(self.podman.run, self._spec())
        if not ran.ok:
            return red(f"podman run: {ran.why}")
        return (yield from self._freeze(f"{DIRECTORY}/libpod-{ran.value}", say))

    def _freeze(self, directory: str, say: Say) -> flow.Flow[Finding]:
        if not (yield from self._burns(directory)):
            return red("the probe runs, and its cgroup counts no processor time")
        say("the probe is frozen")
        why = cgroup.freeze(directory, frozen=True)
        if why:
            return red(f"cgroup.freeze cannot be written: {why}")
        if not (yield from self._until(lambda: cgroup.frozen(directory), self.bounds.validate_freeze)):
            return red("1 is written to cgroup.freeze, and the kernel does not say frozen 1")
        before = cgroup.usage_us(directory)
        yield self._pause(STILL_S)
        used = cgroup.usage_us(directory) - before
        if used > STILL_US:
            return red(f"frozen, and it used {used / 1000:.1f} ms of processor time in {STILL_S:g} s")
        say("the probe is thawed")
        why = cgroup.freeze(directory, frozen=False)
        if why:
            return red(f"cgroup.freeze cannot be written: {why}")
        return GREEN if (yield from self._burns(directory)) else red("thawed, and its cgroup counts no processor time")

    def _burns(self, directory: str) -> flow.Flow[bool]:
        before = cgroup.usage_us(directory)
        return (yield from self._until(lambda: cgroup.usage_us(directory) >= before + BURNT_US, self.bounds.validate_freeze))

    def _until(self, true: Callable[[], bool], seconds: float) -> flow.Flow[bool]:
        end = self.reactor.clock() + seconds
        while not true():
            if self.reactor.clock() > end:
                return False
            yield self._pause(LOOK_S)
        return True

    def _pause(self, seconds: float) -> flow.Waitable:
        def wait(resume: flow.Resume) -> None:
            self.reactor.call_later(seconds, lambda: resume(None))

        return wait

    def _spec(self) -> RunSpec:
        return RunSpec(
            name=PROBE.podman, image="", rootfs=ROOTFS, command=BURN, environment={},
            labels={"bay0.tenant": PROBE.semantic, "bay0.boot": self.boot_id},
            memory=MEMORY, cpus=CPUS, pids=8, capabilities=(), cgroup_parent=PARENT, uid_base=PROBE_UID, mounts=(), workdir="", hostname=PROBE.label,
            log_path=LOG, log_size=4096, oom_score_adj=1000, read_only=True, stop_s=0, seccomp=TENANT_FILTER,
        )  # fmt: skip

    # ---- nothing is left

    def _remove(self) -> flow.Flow[str]:
        """Remove the probe, if there is one, and end what podman does not know of; return why something is left, "" if nothing is."""
        cleared: Cleared = yield partial(self.clearing.clear, PROBE.podman)
        cgroup.kill(DIRECTORY)
        if self._retry is not None:
            self._retry.cancel()  # this is it: an old one must not hold up a later run
        if (yield from self._until(lambda: cgroup.remove_all(DIRECTORY), self.bounds.exit_status)) and cleared.gone:
            with contextlib.suppress(OSError):
                os.unlink(LOG)
            return ""
        self._retry = self.reactor.call_later(AGAIN_S, self._again)
        return "its processes do not end" if cleared.gone else cleared.why

    def _again(self) -> None:
        if self.busy:
            return  # a newer run removes it first
        self.busy = True

        def removed(left: str) -> None:
            self.busy = False
            (self.log.warning if left else self.log.info)("probe of an earlier validation " + ("not removed" if left else "removed"), why=left)

        flow.run(self._remove(), removed)

