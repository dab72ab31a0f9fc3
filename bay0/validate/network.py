"""The check that the spine has no network, and lives where none can appear."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

from bay0 import net
from bay0.effects import limbo
from bay0.validate.verdict import GREEN, Finding, green, red, yellow

if TYPE_CHECKING:
    from bay0.pid1 import flow
    from bay0.validate.look import Look

A_TURN = 64  # processes looked at in one turn of the reactor
SHOWN = 3
A_MOMENT_S = 2.0  # a command of bay0's own that moves a card from there has ended by then


def network(look: Look) -> flow.Flow[Finding]:
    """See that there is no way out but lo, and that only the kernel lives where it makes network cards."""
    kernel = look.kernel
    try:
        found = net.violations(kernel.interfaces, kernel.routes) + limbo.violations(kernel.proc)
        if found:
            return red(f"the spine must have no network: {'; '.join(found)}")
        unread = net.unread(kernel.interfaces, kernel.routes)
        if unread:
            return yellow(f"whether there is a network cannot be seen: {'; '.join(unread)}")
        inside = yield from _strangers(look)
        if inside:
            return red(f"in the kernel's network namespace: {', '.join(inside[:SHOWN])}")
        idle = ", ".join(card.name for card in limbo.cards(kernel.proc))
    except OSError as error:
        return yellow(f"the kernel's network namespace cannot be seen: {error.filename}: {error.strerror}")
    return green(f"a network card that nothing uses, and that is down: {idle}") if idle else GREEN


def _strangers(look: Look) -> flow.Flow[list[str]]:
    def next_turn(resume: flow.Resume) -> Any:
        look.parts.reactor.call_soon(partial(resume, None))

    proc = look.kernel.proc
    pids = sorted(int(name) for name in os.listdir(proc) if name.isdecimal())
    found: list[int] = []
    for at in range(0, len(pids), A_TURN):
        found += [pid for pid in pids[at : at + A_TURN] if any(limbo.strangers([pid], proc))]
        yield next_turn
    if found:
        yield lambda resume: look.parts.reactor.call_later(A_MOMENT_S, partial(resume, None))
    return list(limbo.strangers(found, proc))
