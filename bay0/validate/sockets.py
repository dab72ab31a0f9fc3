"""The checks of who answers on the AI's and the compositor's sockets: a file of that name proves nothing."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

from bay0.base.group import within
from bay0.effects.peers import Answerer, answerer
from bay0.machines import screen, server
from bay0.pid1 import flow
from bay0.screen.places import COMPOSITOR
from bay0.umbilical.places import IMAGE, UMBILICAL
from bay0.validate.look import Look, why_of
from bay0.validate.verdict import GREEN, Finding, green, red, yellow

if TYPE_CHECKING:
    from bay0.screen.port import Screen
    from bay0.state.link import Answer

NOT_INSTALLED = "not installed: no AI image is on this machine, and it needs none"
NOBODY = "nobody answers at"


def umbilical(look: Look) -> Finding | flow.Flow[Finding]:
    """See that bay0 or its forwarder listens at the AI's socket, and that the AI answers through it.

    Where nobody installed an AI there is nothing to be well; one that is installed and not started is yellow.
    """
    path = look.kernel.umbilical
    impostor = _listens(look, path) if os.path.lexists(path) else ""
    if impostor:
        return red(impostor)
    ai = look.parts.engine.instances.get(server.NAME)
    state = ai.now if ai is not None else server.S.STOPPED
    if ai is None or (state is server.S.STOPPED and ai.desired == "stopped"):
        return _no_ai(look)
    if state is server.S.FAILED:
        return red(f"sys://ai has failed: {why_of(ai)}")
    if state is not server.S.READY:
        return yellow(f"sys://ai is {state.value}: {why_of(ai)}")
    if not os.path.lexists(path):
        return red(f"sys://ai is ready, and there is no socket at {path}")
    return _ai_answers(look)


def _no_ai(look: Look) -> Finding | flow.Flow[Finding]:
    """Say why no AI runs.

    Installed is one whose image podman had when this boot looked, whose archive is on the disk, or that somebody
    has tried to start in this boot.
    """
    parts, ai = look.parts, look.parts.engine.instances.get(server.NAME)
    port = parts.servers.made
    why = port.unavailable if port is not None and port.unavailable else "it was not started"
    touched = ai is not None and ai.committed is not None
    if IMAGE in parts.mending.images or touched or not parts.state.healthy or not parts.replay.known:
        return yellow(f"no AI tenant: {why}")
    return _archive(look, why)


def _archive(look: Look, why: str) -> flow.Flow[Finding]:
    found: Answer = yield partial(look.parts.state.ask, "ai_archive", look.parts.bounds.open)
    if not found.ok:
        return yellow(f"no AI tenant; whether one is installed storage does not say: {found.why}")
    return green(NOT_INSTALLED) if found.value is None else yellow(f"no AI tenant: {why}")


def _listens(look: Look, path: str) -> str:
    """Say who it is that listens there, if it is neither PID 1 nor the forwarder it lent the socket to; a file of that name proves nothing."""
    found = _known(path)
    if isinstance(found, str):
        return found
    ours = found.pid == os.getpid() or look.parts.services.owns(UMBILICAL, found.pid, found.group)
    return "" if ours else f"an impostor answers at {path}: {_shown(found)}; it is neither bay0 nor its forwarder"


def _known(path: str) -> Answerer | str:
    """Return who listens there, or why that cannot be known."""
    try:
        found = answerer(path)
    except OSError as error:
        return f"{NOBODY} {path}: {error.strerror}"
    if not found.alive:
        return f"whoever listens at {path} cannot be known: its process (pid {found.pid}) is dead or of another pid namespace"
    return found


def _ai_answers(look: Look) -> flow.Flow[Finding]:
    """See that the AI's own socket is answered from its own cgroup, and that its health comes through the forwarder."""
    port, directory = look.parts.servers.made, look.kernel.tenant
    container = port.container(server.NAME) if port is not None else None
    group = f"/tenants/libpod-{container}"
    try:
        found = answerer(directory)
    except OSError as error:
        return red(f"the AI does not answer at {directory}: {error.strerror}")
    if not found.alive or not within(found.group, group):
        return red(f"an impostor answers at {directory}: {_shown(found)}; it is not in the AI's cgroup {group}")
    look.say("the forwarder asks the AI for its health")
    ok, why, _value = yield flow.answered(look.parts.umbilical().check)
    return GREEN if ok else red(f"the AI does not answer through the forwarder: {why}")


def _shown(found: Answerer) -> str:
    return f"pid {found.pid} ({found.name}), uid {found.uid}, cgroup {found.group}"


def compositor(look: Look) -> Finding | flow.Flow[Finding]:
    """See who answers on the compositor's sockets, if they are there, what is offered, and that a frame comes.

    A file of that name proves nothing. Without frames a persona could be frozen while it is on the screen.

    Green where there is no screen: nothing of one is used then.
    """
    live, part = look.parts.engine.instances.get(screen.NAME), look.parts.screen.made
    dark = live is None or part is None or live.now is screen.S.DARK
    on_its_way = not dark and live is not None and live.now is not screen.S.READY
    for path in look.kernel.compositor:
        found = _answers(look, COMPOSITOR, path) if os.path.lexists(path) else GREEN
        if found.why and not (on_its_way and found.why.startswith(NOBODY)):  # one that has ended leaves its sockets
            return Finding(found.level, f"not ready: {found.why}")
    if dark or live is None or part is None:
        return GREEN
    if on_its_way:
        return yellow(f"not ready: the screen is {live.now.value}: {why_of(live)}")
    missing = [path for path in look.kernel.compositor if not os.path.lexists(path)]
    if missing:
        return red(f"not ready: there is no socket at {missing[0]}")
    fault = part.find_fault()
    return red(f"the compositor is not as it must be: {fault}") if fault else _frame(look, part)


def _frame(look: Look, part: Screen) -> flow.Flow[Finding]:
    look.say("a frame of the screen is waited for")
    why = yield part.await_frame
    return red(f"the compositor makes no new picture: {why}") if why else GREEN


def _answers(look: Look, name: str, path: str) -> Finding:
    found = _known(path)
    if isinstance(found, str):
        return red(found)
    if look.parts.services.owns(name, found.pid, found.group):
        return GREEN
    return red(f"an impostor answers at {path}: {_shown(found)}; bay0 did not start it as {name}")
