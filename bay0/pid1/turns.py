"""How long PID 1's turns took lately, and what the longest one was about. Of a fixed size, so that watching costs no memory.

A turn is kept in the span of `SPAN_S` seconds in which it ended; spans without a turn do not exist. Two times are kept of each longest
turn: by the clock, and of processor time. The second is bay0's own work; the rest it waited. `sleeps` tells for what: each is a time the
kernel let it sleep until something came, which a turn must not wait for (starting a process counts one: until the child has its program).
None at all means that others had the processor.
"""

from __future__ import annotations

import resource
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from attrs import define, field

SPAN_S = 5.0
SPANS_MAX = 180  # at least a quarter of an hour


@define(eq=False, repr=False)
class Span:
    """Some seconds of turns. Times in seconds, `start_s` on the reactor's clock."""

    start_s: float
    turns: int = 0
    spent_s: float = 0.0
    longest_s: float = 0.0
    longest_cpu_s: float = 0.0
    most_cpu_s: float = 0.0
    longest_sleeps: int = 0
    longest: str = ""


def usage() -> tuple[float, int]:
    """Return what this thread has had of a processor, in seconds, and how often it slept (getrusage(2), ru_nvcsw)."""
    found = resource.getrusage(resource.RUSAGE_THREAD)
    return found.ru_utime + found.ru_stime, found.ru_nvcsw


@define(eq=False, repr=False)
class Turns:
    """The spans of the last quarter of an hour."""

    spans: deque[Span] = field(factory=lambda: deque(maxlen=SPANS_MAX))

    def took(self, ended_s: float, seconds: float, used: tuple[float, int], about: Callable[..., object] | None) -> None:
        """Count a turn, which `used` so much of `usage`; `about` is the call that took the most of it."""
        cpu_s, sleeps = used
        start = ended_s - ended_s % SPAN_S
        if not self.spans or self.spans[-1].start_s != start:
            self.spans.append(Span(start))
        span = self.spans[-1]
        span.turns += 1
        span.spent_s += seconds
        span.most_cpu_s = max(span.most_cpu_s, cpu_s)
        if seconds > span.longest_s:
            span.longest_s, span.longest_cpu_s, span.longest_sleeps = seconds, cpu_s, sleeps
            span.longest = "" if about is None else called(about)

    def since(self, start_s: float) -> dict[str, Any]:
        """Say what the turns that ended after `start_s` were like; those of up to `SPAN_S` before it are in it too."""
        spans = [span for span in self.spans if span.start_s + SPAN_S > start_s]
        if not spans:
            spans = [Span(start_s)]
        worst = max(spans, key=lambda span: span.longest_s)
        turns = sum(span.turns for span in spans)
        return {
            "turns": turns,
            "from_ms": int(spans[0].start_s * 1000),
            "mean_ms": _ms(sum(span.spent_s for span in spans) / max(turns, 1)),
            "longest_ms": _ms(worst.longest_s),
            "longest_cpu_ms": _ms(worst.longest_cpu_s),
            "most_cpu_ms": _ms(max(span.most_cpu_s for span in spans)),
            "longest_sleeps": worst.longest_sleeps,
            "longest": worst.longest,
            "spans": [
                {
                    "at_ms": int(span.start_s * 1000), "turns": span.turns, "longest_ms": _ms(span.longest_s),
                    "longest_cpu_ms": _ms(span.longest_cpu_s), "longest_sleeps": span.longest_sleeps, "longest": span.longest,
                }
                for span in spans
            ],
        }  # fmt: skip


def called(call: Callable[..., object]) -> str:
    """Return a name for a call that a reader of the source finds."""
    while isinstance(call, partial):
        call = call.func
    name = getattr(call, "__qualname__", type(call).__qualname__)
    return str(name).replace(".<locals>", "").removesuffix(".<lambda>")


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)
