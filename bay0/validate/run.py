"""Runs the checks of `bay0 --validate` in the reactor and answers whoever asked, once and within a bound.

One run at a time. Who asks while one is under way gets the next, which begins when that one has answered: so each answer is about what was found
after the question, and two runs never disturb each other. A check that misses its bound is red; what it still has under way ends by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import define, field

from bay0.base.errors import RefusedError
from bay0.machines import boot
from bay0.pid1 import flow
from bay0.validate.checks import CHECKS
from bay0.validate.look import Check, Kernel, Look, Parts
from bay0.validate.verdict import COMPONENTS, Finding, Level, red, worst

if TYPE_CHECKING:
    from bay0.control.server import Reply
    from bay0.machines.instance import Instance
    from bay0.pid1.reactor import Timer
    from bay0.validate.freezer import Freezer

ASKERS_MAX = 64
Asker = tuple[tuple[str, ...], "Reply"]


@define(eq=False, repr=False)
class _Run:
    """One run: what is looked at, what is busy with what, what was found. Times are monotonic seconds."""

    askers: Sequence[Asker]
    began: float
    doing: dict[str, str]
    found: dict[str, Finding] = field(factory=dict)
    took: dict[str, float] = field(factory=dict)
    timers: list[Timer] = field(factory=list)


@define(eq=False, repr=False)
class Validation:
    """`parts`: what the checks look at. `boot`: this boot's machine."""

    parts: Parts
    log: Any
    boot: Instance
    freezer: Freezer
    kernel: Kernel = field(factory=Kernel)
    checks: Sequence[Check] = CHECKS
    last: dict[str, tuple[Finding, float]] = field(factory=dict)  # check -> what it found last, and when
    _run: _Run | None = None
    _waiting: list[Asker] = field(factory=list)

    def ask(self, params: Mapping[str, Any], reply: Reply) -> None:
        """Answer with what all checks find, or those named in `only`. `RefusedError`: there is no such check, or the spine goes down."""
        only = params.get("only") or list(COMPONENTS)
        unknown = [name for name in only if name not in COMPONENTS]
        if unknown:
            raise RefusedError(f"no check {unknown[0]!r}; there are {', '.join(COMPONENTS)}")
        if self.boot.now in boot.LEAVES:
            raise RefusedError("the spine is going down; nothing is checked any more")
        if len(self._waiting) >= ASKERS_MAX:
            raise RefusedError(f"{ASKERS_MAX} wait for a validation already")
        self._waiting.append((tuple(only), reply))
        if self._run is None:
            self._begin()

    def progress(self, _params: Mapping[str, Any], reply: Reply) -> None:
        """Answer with what is being looked at now; null if nothing is."""
        run = self._run
        busy = {} if run is None else {name: doing for name, doing in run.doing.items() if name not in run.found}
        reply(run and {"doing": busy, "done": len(run.found), "of": len(run.doing), "for_s": self.parts.reactor.clock() - run.began})

    def found_last(self, _params: Mapping[str, Any], reply: Reply) -> None:
        """Answer with what each check found when it was last made in this boot; nothing is looked at."""
        now = self.parts.reactor.clock()
        known = [(name, *self.last[name]) for name in COMPONENTS if name in self.last]
        reply([{**_shown(name, finding), "ago_s": round(now - at, 1)} for name, finding, at in known])

    def _begin(self) -> None:
        if self._run is not None or not self._waiting:
            return
        askers, self._waiting = self._waiting, []
        wanted = {name for only, _ in askers for name in only}
        checks = [check for check in self.checks if check.name in wanted]
        run = self._run = _Run(askers, self.parts.reactor.clock(), {check.name: "" for check in checks})
        self._within(run, self.parts.bounds.validate, *checks)
        for check in checks:
            self._within(run, getattr(self.parts.bounds, check.bound), check)
            self.parts.reactor.call_soon(partial(self._start, run, check))  # each in a turn's own step

    def _within(self, run: _Run, seconds: float, *checks: Check) -> None:
        """See that each of `checks` has found something `seconds` from now."""

        def late() -> None:
            for check in checks:
                doing = run.doing[check.name]
                self._found(run, check, red(f"no answer in {seconds:g} s" + (f" while {doing}" if doing else "")))

        run.timers.append(self.parts.reactor.call_later(seconds, late))

    def _start(self, run: _Run, check: Check) -> None:
        look = Look(self.parts, self.kernel, self.freezer, partial(run.doing.__setitem__, check.name))
        flow.run(_guarded(check, look), partial(self._found, run, check))

    def _found(self, run: _Run, check: Check, finding: Finding) -> None:
        if run is not self._run or check.name in run.found:
            return  # late: it was answered for
        run.found[check.name] = finding
        self.last[check.name] = (finding, self.parts.reactor.clock())
        run.took[check.name] = self.parts.reactor.clock() - run.began
        if len(run.found) == len(run.doing):
            self._finish(run)

    def _finish(self, run: _Run) -> None:
        self._run = None
        for timer in run.timers:
            timer.cancel()
        took_ms = int((self.parts.reactor.clock() - run.began) * 1000)
        bad = {name: finding.why for name, finding in run.found.items() if finding.level is not Level.GREEN}
        verdict = worst(finding.level for finding in run.found.values())
        self.log.info("validated", verdict=verdict.value, checks=len(run.found), took_ms=took_ms, **bad)
        for only, reply in run.askers:
            shown = [name for name in COMPONENTS if name in only]
            levels = [run.found[name].level for name in shown]
            reply({"verdict": worst(levels).value, "took_ms": took_ms, "checks": [_row(run, name) for name in shown]})
        self.parts.reactor.call_soon(self._begin)


def _row(run: _Run, name: str) -> dict[str, Any]:
    return {**_shown(name, run.found[name]), "took_ms": int(run.took[name] * 1000)}


def _shown(name: str, finding: Finding) -> dict[str, Any]:
    return {"name": name, "component": COMPONENTS[name], "level": finding.level.value, "why": finding.why}


def _guarded(check: Check, look: Look) -> flow.Flow[Finding]:
    """Let a defect in a check be a finding: it must not end PID 1."""
    try:
        found = check.look(look)
        return found if isinstance(found, Finding) else (yield from found)
    except OSError as error:
        return red(f"cannot be looked at: {error}")
    except Exception as error:  # as the docstring says
        return red(f"the check itself failed: {type(error).__name__}: {error}")
