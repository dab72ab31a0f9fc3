"""What the control socket offers: one function a method, thin over the engine and the state port."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import asdict, define

import bay0
from bay0 import duties, flow, log
from bay0.answers import Listing
from bay0.effects import shield
from bay0.errors import RefusedError
from bay0.machines.engine import Instance, Step
from bay0.machines.storage import E as StorageEvent
from bay0.state import growth
from bay0.state.link import Answer

if TYPE_CHECKING:
    from bay0.control import Method, Reply
    from bay0.inhibit import Inhibit
    from bay0.init import Spine
    from bay0.validation import Validation

RUN_DEADLINE_MAX_S = 3600.0
HISTORY_MAX = 300
PREVIOUS_MAX = 5
NAME_SHOWN = 60


@define(eq=False, repr=False)
class Verbs:
    """The methods, bound to a running spine."""

    spine: Spine
    _validator: Validation | None = None
    _inhibitor: Inhibit | None = None

    def methods(self) -> dict[str, Method]:
        """Return method name -> function."""
        table: dict[str, Method] = {
            "status": self.status,
            "turns": self.turns,
            "boots": self.boots,
            "machines": self.machines,
            "history": self.history,
            "power": self.power,
            "run": self.run,
            "storage.retry": self.retry,
            "storage.grow": lambda _params, reply: growth.grow(self.spine.state, self.spine.spawner.run, reply),
            "governor": self.governor,
            "suspend": lambda params, reply: self._inhibit().suspend(params, reply),
            "inhibit": lambda params, reply: self._inhibit().show(params, reply),
            "validate": self.validate,
            "validate.last": lambda params, reply: self._validation().found_last(params, reply),
            "validate.progress": lambda params, reply: self._validation().progress(params, reply),
        }
        if self.spine.words.debug:
            table["debug.crash"] = self.crash
        return table

    def status(self, _params: Mapping[str, Any], reply: Reply) -> None:
        """Answer with everything `bay0 status` shows; reads only memory and /proc/self."""
        spine = self.spine
        memory = _memory()
        around = (
            {
                "version": bay0.__version__,
                "boot_id": spine.boot_id,
                "up_ms": log.kernel_ms(),
                "boot": spine.boot.now.value,
                "complete_ms": spine.complete_ms,
                "dirty": spine.state.dirty,
                "storage": {
                    "state": spine.state.storage.now.value if spine.state.storage else None,
                    "device": spine.state.device,
                    "in_memory": len(spine.state.memory),
                    "lost": spine.state.lost,
                    "room": spine.state.room if spine.state.healthy or spine.state.full else None,
                    "workers_left_behind": spine.state.link.left_behind,
                    "longest_ms": {op: round(s * 1000, 1) for op, s in spine.state.link.longest_s.items()},
                },
                "pid1": {
                    "pid": os.getpid(),
                    **memory,
                    "longest_turn_ms": round(spine.reactor.longest_turn_s * 1000, 1),
                    "turns": spine.reactor.turns,
                    "reaped": spine.reaper.reaped,
                    "orphans": spine.reaper.orphans,
                    "commands_running": spine.spawner.running,
                    "commands_left_behind": spine.spawner.abandoned,
                    "console_lines_dropped": spine.sinks.console.dropped,
                },
                "podman": {
                    "under_way": spine.podman.under_way,
                    "waiting": spine.podman.waiting,
                    "starts_waiting": spine.personas.line.waiting,
                    "start_s": round(spine.personas.line.pace_s, 1),
                },
                "speed": spine.speed.describe(),
                "continuity": spine.continuity.describe(),
                "watchdog": shield.describe(spine.watchdog),
            }
        )
        reply(Listing(self._machines(), around, "machines"))

    def turns(self, params: Mapping[str, Any], reply: Reply) -> None:
        """Answer with how long PID 1's turns took since `since_ms` of the kernel's clock, at most the last quarter of an hour."""
        reply({"now_ms": log.kernel_ms(), **self.spine.reactor.recent.since(float(params.get("since_ms", 0)) / 1000)})

    def _machines(self) -> Iterator[dict[str, Any]]:
        """Yield every live machine as it is when its turn comes."""
        instances = self.spine.engine.instances
        return (self._machine(instances[name]) for name in sorted(instances) if name in instances)

    def _machine(self, instance: Instance) -> dict[str, Any]:
        return {
            "name": instance.name, "kind": instance.definition.kind, "state": instance.now.value, "seq": instance.seq,
            "attempts": instance.attempts,
        }  # fmt: skip

    def machines(self, _params: Mapping[str, Any], reply: Reply) -> None:
        """Answer with all live machines."""
        reply(Listing(self._machines()))

    def boots(self, params: Mapping[str, Any], reply: Reply) -> None:
        """Answer with this boot from memory and, if the disk can be read, `previous` earlier ones (at most `PREVIOUS_MAX`)."""
        previous = max(0, min(int(params.get("previous", 3)), PREVIOUS_MAX))
        spine = self.spine
        this = {**spine.state.boot, "dirty": spine.state.dirty, "entered_ms": spine.entered_ms, "complete_ms": spine.complete_ms}
        this["steps"] = [asdict(s) for s in spine.steps]

        def answered(earlier: list[dict[str, Any]] | Answer) -> None:
            found = [] if isinstance(earlier, Answer) else [each for each in earlier if each["boot_id"] != spine.boot_id]
            unread = earlier.why if isinstance(earlier, Answer) else None
            reply(Listing(found[:previous], {"this": this, "unread": unread}, "previous"))

        if previous:
            spine.state.keep_out_a_crowd()
            flow.run(self._pages("history", previous + 1, lambda boot: boot["ordinal"]), answered)
        else:
            reply({"this": this, "previous": [], "unread": None})

    def history(self, params: Mapping[str, Any], reply: Reply) -> None:
        """Answer with the last journal rows of one machine, oldest first, from the disk; refused for a name that nobody has or had."""
        machine, limit = str(params["machine"]), max(1, min(int(params.get("limit", 50)), HISTORY_MAX))

        def answered(rows: list[dict[str, Any]] | Answer) -> None:
            if isinstance(rows, Answer):
                reply(RefusedError(f"the journal cannot be read now: {rows.why}"))
            elif rows or machine in self.spine.engine.instances:
                reply(Listing(rows[::-1]))
            else:
                reply(RefusedError(f"no machine is or was called {machine[:NAME_SHOWN]!a}; `bay0 machines` lists those there are"))

        self.spine.state.keep_out_a_crowd()
        flow.run(self._pages("journal", limit, lambda row: [row["boot_id"], row["n"]], machine=machine), answered)

    def _pages(
        self, op: str, limit: int, mark: Callable[[dict[str, Any]], Any], **which: Any
    ) -> flow.Flow[list[dict[str, Any]] | Answer]:
        """Ask the worker for `limit` rows, newest first, a packet at a time; the next page begins behind the `mark` of the last row."""
        rows: list[dict[str, Any]] = []
        while True:
            before = mark(rows[-1]) if rows else None
            ask = partial(self.spine.state.ask, op, self.spine.bounds.open, limit=limit - len(rows), before=before, **which)
            page: Answer = yield ask
            if not page.ok:
                return page
            found, more = page.value
            rows += found
            if not more:
                return rows

    def governor(self, _params: Mapping[str, Any], reply: Reply) -> None:
        """Answer with what the governor sees, whom it restrains and why."""
        if self.spine.governor is None:
            on = self.spine.words.governor
            raise RefusedError("the governor begins a few seconds after init is complete" if on else "bay0.governor=off on the kernel command line")
        reply(self.spine.governor.show())

    def power(self, params: Mapping[str, Any], reply: Reply) -> None:
        """Begin an orderly stop, or with `force` end everything at once; answered as soon as the step is taken."""
        how, force = str(params.get("how")), params.get("force", False)
        if not isinstance(force, bool):
            raise RefusedError("force must be true or false")
        event = duties.refuse_unknown_how(how, force=force)

        def taken(result: Step | Exception | None) -> None:
            reply(result if isinstance(result, Exception) else {"accepted": how})

        self.spine.engine.send(self.spine.boot.name, event, "", taken, how=how)

    def run(self, params: Mapping[str, Any], reply: Reply) -> None:
        """Run one command through the spawner; answered when it has ended, which is within its deadline and two graces."""
        argv = params["argv"]
        if not isinstance(argv, list) or not argv or not all(isinstance(word, str) and "\0" not in word for word in argv):
            raise ValueError("argv must be a list of at least one string")
        deadline = float(params.get("deadline_s", 30))
        if not 0 < deadline <= RUN_DEADLINE_MAX_S:
            raise ValueError(f"deadline_s must be above 0 and at most {RUN_DEADLINE_MAX_S:g}")
        name = re.sub(r"[^A-Za-z0-9._-]", "_", os.path.basename(argv[0]))[:40]
        self.spine.spawner.run(
            name, argv, deadline, lambda result: reply({**asdict(result), "ending": result.ending.value, "ok": result.ok})
        )

    def retry(self, _params: Mapping[str, Any], reply: Reply) -> None:
        """Try storage again after a person has mended it."""
        spine = self.spine
        if spine.state.storage is None:
            raise RefusedError("storage is not set up yet")
        spine.engine.send(
            spine.state.storage.name, StorageEvent.RETRY, "an operator asked",
            lambda result: reply(result if isinstance(result, Exception) else {"accepted": True}),
        )  # fmt: skip

    def validate(self, params: Mapping[str, Any], reply: Reply) -> None:
        """Look at the spine's health; answered once, when all checks have found something or their bound is over."""
        self._validation().ask(params, reply)

    def _validation(self) -> Validation:
        if self._validator is None:
            from bay0.validation import Validation  # noqa: PLC0415 - late: a boot does not pay for it

            self._validator = Validation(self.spine)
        return self._validator

    def _inhibit(self) -> Inhibit:
        if self._inhibitor is None:
            from bay0 import inhibit  # noqa: PLC0415 - late, as above

            self._inhibitor = inhibit.make(self.spine)
        return self._inhibitor

    def crash(self, _params: Mapping[str, Any], reply: Reply) -> None:
        """Fail on purpose in the reactor, to try `bay0.panic=`; only with `bay0.debug` on the kernel command line."""
        reply({"accepted": True})

        def fail() -> None:
            raise AssertionError("asked to crash by `bay0 debug crash`")

        self.spine.reactor.call_later(0.2, fail)


def _memory() -> dict[str, int]:
    """Return RSS and PSS of PID 1 in KiB (proc(5), smaps_rollup)."""
    found = {"rss_kib": 0, "pss_kib": 0}
    try:
        with open("/proc/self/smaps_rollup", encoding="ascii") as rollup:
            for line in rollup:
                for key, prefix in (("rss_kib", "Rss:"), ("pss_kib", "Pss:")):
                    if line.startswith(prefix):
                        found[key] = int(line.split()[1])
    except OSError:
        pass
    return found
