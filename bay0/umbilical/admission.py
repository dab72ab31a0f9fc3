"""Who may speak on the umbilical: which door, which uid, alive, which cgroup. Pure; the kernel's answers come from effects/peers.py.

Theory of operation. A persona is known by the door that was mounted into it, and by nothing that it says. The rest guards against whoever
reaches a door that is not his: SO_PEERCRED is what the kernel noted when connect(2) was called, so neither exec nor setuid nor a descriptor
that was handed on changes it; the pidfd tells whether that process still is who it was; its cgroup is one that bay0 gave to that container.
What a process does with its own connection, handing it to others included, is its own affair: the answer is to it.
"""

from __future__ import annotations

from attrs import frozen

from bay0.base.group import within
from bay0.effects.peers import Answerer

OVERFLOW = 65534  # the uid that stands for whoever has none in this user namespace
CONTAINERS = ("/personas/", "/tenants/")


@frozen
class Grant:
    """A door and who may speak there. `group` "" is the spine's own door: any cgroup but a container's."""

    name: str
    uid_base: int
    uids: int
    group: str


def refusal(grant: Grant, speaker: Answerer) -> str:
    """Say why who connected may not speak at this door; "" if he may."""
    if speaker.pid <= 0:
        return "its process is of another pid namespace"
    if not speaker.alive:
        return "the process that connected has ended"
    if speaker.uid == OVERFLOW:
        return f"uid {OVERFLOW} stands for nobody that can be known"
    if not grant.uid_base <= speaker.uid < grant.uid_base + grant.uids:
        return f"uid {speaker.uid} is not of {grant.name}"
    return _stray(grant.group, speaker.group)


def impostor(group: str, listener: Answerer) -> str:
    """Say why who listens is not the tenant whose cgroup is `group`; "" if it is."""
    if not group:
        return "bay0 has not said which cgroup the AI is in"
    if listener.pid <= 0:
        return "who listens is of another pid namespace"
    if not listener.alive:
        return "the process that listens has ended"
    return _stray(group, listener.group)


def _stray(wanted: str, found: str) -> str:
    if not found.startswith("/"):
        return "its cgroup cannot be read"
    if "/.." in f"{found}/":  # outside this cgroup namespace (cgroup_namespaces(7))
        return f"its cgroup {found} is none of ours"
    if not wanted:
        return f"its cgroup {found} is a container's" if f"{found}/".startswith(CONTAINERS) else ""
    return "" if within(found, wanted) else f"its cgroup is {found}, not {wanted}"
