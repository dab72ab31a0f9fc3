"""What the control socket offers: one function a method, thin over the engine and the state port."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import asdict, define

import bay0
from bay0 import log
from bay0.base.errors import RefusedError
from bay0.boot import leaving
from bay0.control.answers import Listing
from bay0.machines.instance import Instance, Step
from bay0.pid1 import flow
from bay0.state import growth
from bay0.state.link import Answer

if TYPE_CHECKING:
    from bay0.base.bounds import Bounds
    from bay0.boot.chronicle import Chronicle
    from bay0.control.server import Method, Reply
    from bay0.effects.spawn import Spawner
    from bay0.machines.engine import Engine
    from bay0.pid1.reactor import Reactor
    from bay0.state.port import StatePort

RUN_DEADLINE_MAX_S = 3600.0
HISTORY_MAX = 300
PREVIOUS_MAX = 5
NAME_SHOWN = 60


@define(eq=False, repr=False)
class Verbs:
    """The methods. `boot`: this boot's machine. `debug`: offer what is only for tests of bay0 itself.

    `sections`: what `status` shows, each part in its own words; those of "" stand on top.
    """

    engine: Engine
    reactor: Reactor
    bounds: Bounds
    state: StatePort
    spawner: Spawner
    boot: Instance
    chronicle: Chronicle
    debug: bool
    sections: Mapping[str, Sequence[Callable[[], Mapping[str, Any]]]]

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
            "storage.grow": lambda _params, reply: growth.grow(self.state, self.spawner.run, reply),
        }
        if self.debug:
            table["debug.crash"] = self.crash
        return table

    def status(self, _params: Mapping[str, Any], reply: Reply) -> None:
        """Answer with everything `bay0 status` shows; reads only memory and /proc/self."""
        around: dict[str, Any] = {"version": bay0.__version__, "boot_id": self.engine.boot_id, "up_ms": log.kernel_ms()}
        for name, parts in self.sections.items():
            found = {key: value for part in parts for key, value in part().items()}
            around.update({name: found} if name else found)
        reply(Listing(self._machines(), around, "machines"))

    def turns(self, params: Mapping[str, Any], reply: Reply) -> None:
        """Answer with how long PID 1's turns took since `since_ms` of the kernel's clock, at most the last quarter of an hour."""
        reply({"now_ms": log.kernel_ms(), **self.reactor.recent.since(float(params.get("since_ms", 0)) / 1000)})

    def _machines(self) -> Iterator[dict[str, Any]]:
        """Yield every live machine as it is when its turn comes."""
        instances = self.engine.instances
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
        told = self.chronicle
        this = {**self.state.boot, "dirty": self.state.dirty, "entered_ms": told.entered_ms, "complete_ms": told.complete_ms}
        this["steps"] = [asdict(step) for step in told.steps]

        def answered(earlier: list[dict[str, Any]] | Answer) -> None:
            found = [] if isinstance(earlier, Answer) else [each for each in earlier if each["boot_id"] != self.engine.boot_id]
            unread = earlier.why if isinstance(earlier, Answer) else None
            reply(Listing(found[:previous], {"this": this, "unread": unread}, "previous"))

        if previous:
            self.state.keep_out_a_crowd()
            flow.run(self._pages("history", previous + 1, lambda boot: boot["ordinal"]), answered)
        else:
            reply({"this": this, "previous": [], "unread": None})

    def history(self, params: Mapping[str, Any], reply: Reply) -> None:
        """Answer with the last journal rows of one machine, oldest first, from the disk; refused for a name that nobody has or had."""
        machine, limit = str(params["machine"]), max(1, min(int(params.get("limit", 50)), HISTORY_MAX))

        def answered(rows: list[dict[str, Any]] | Answer) -> None:
            if isinstance(rows, Answer):
                reply(RefusedError(f"the journal cannot be read now: {rows.why}"))
            elif rows or machine in self.engine.instances:
                reply(Listing(rows[::-1]))
            else:
                reply(RefusedError(f"no machine is or was called {machine[:NAME_SHOWN]!a}; `bay0 machines` lists those there are"))

        self.state.keep_out_a_crowd()
        flow.run(self._pages("journal", limit, lambda row: [row["boot_id"], row["n"]], machine=machine), answered)

    def _pages(
        self, op: str, limit: int, mark: Callable[[dict[str, Any]], Any], **which: Any
    ) -> flow.Flow[list[dict[str, Any]] | Answer]:
        """Ask the worker for `limit` rows, newest first, a packet at a time; the next page begins behind the `mark` of the last row."""
        rows: list[dict[str, Any]] = []
        while True:
            before = mark(rows[-1]) if rows else None
            ask = partial(self.state.ask, op, self.bounds.open, limit=limit - len(rows), before=before, **which)
            page: Answer = yield ask
            if not page.ok:
                return page
            found, more = page.value
            rows += found
            if not more:
                return rows

    def power(self, params: Mapping[str, Any], reply: Reply) -> None:
        """Begin an orderly stop, or with `force` end everything at once; answered as soon as the step is taken."""
        how, force = str(params.get("how")), params.get("force", False)
        if not isinstance(force, bool):
            raise RefusedError("force must be true or false")
        event = leaving.refuse_unknown_how(how, force=force)

        def taken(result: Step | Exception | None) -> None:
            reply(result if isinstance(result, Exception) else {"accepted": how})

        self.engine.send(self.boot.name, event, "", taken, how=how)

    def run(self, params: Mapping[str, Any], reply: Reply) -> None:
        """Run one command through the spawner; answered when it has ended, which is within its deadline and two graces."""
        argv = params["argv"]
        if not isinstance(argv, list) or not argv or not all(isinstance(word, str) and "\0" not in word for word in argv):
            raise ValueError("argv must be a list of at least one string")
        deadline = float(params.get("deadline_s", 30))
        if not 0 < deadline <= RUN_DEADLINE_MAX_S:
            raise ValueError(f"deadline_s must be above 0 and at most {RUN_DEADLINE_MAX_S:g}")
        name = re.sub(r"[^A-Za-z0-9._-]", "_", os.path.basename(argv[0]))[:40]
        self.spawner.run(
            name, argv, deadline, lambda result: reply({**asdict(result), "ending": result.ending.value, "ok": result.ok})
        )

    def retry(self, _params: Mapping[str, Any], reply: Reply) -> None:
        """Try storage again after a person has mended it."""
        self.state.retry("an operator asked", lambda result: reply(result if isinstance(result, Exception) else {"accepted": True}))

    def crash(self, _params: Mapping[str, Any], reply: Reply) -> None:
        """Fail on purpose in the reactor, to try `bay0.panic=`; only with `bay0.debug` on the kernel command line."""
        reply({"accepted": True})

        def fail() -> None:
            raise AssertionError("asked to crash by `bay0 debug crash`")

        self.reactor.call_later(0.2, fail)


def memory() -> dict[str, int]:
    """Return PID 1's pid, and its RSS and PSS in KiB (proc(5), smaps_rollup)."""
    found = {"pid": os.getpid(), "rss_kib": 0, "pss_kib": 0}
    try:
        with open("/proc/self/smaps_rollup", encoding="ascii") as rollup:
            for line in rollup:
                for key, prefix in (("rss_kib", "Rss:"), ("pss_kib", "Pss:")):
                    if line.startswith(prefix):
                        found[key] = int(line.split()[1])
    except OSError:
        pass
    return found
