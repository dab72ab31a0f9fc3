"""Who answers on a unix socket: connect, and ask the kernel (unix(7), SO_PEERCRED). Never waits.

SO_PEERCRED names who called listen(2), also when that process has died and a child still holds the socket; its pid may be somebody else's by
now. A pidfd (SO_PEERPIDFD, Linux 6.5) tells.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import stat
import struct

from attrs import frozen

SO_PEERPIDFD = 77  # include/uapi/asm-generic/socket.h
_CREDENTIALS = struct.Struct("3i")


@frozen
class Answerer:
    """The process that listens. `group`: its cgroup from the root on ("" if unknown), `name` as in /proc; pid 0 is one of another pid namespace."""

    pid: int
    uid: int
    alive: bool
    group: str = ""
    name: str = ""


def answerer(path: str) -> Answerer:
    """Connect to the socket at `path` and return who listens there. `OSError`: it is no socket, or nobody takes the connection."""
    if not stat.S_ISSOCK(os.lstat(path).st_mode):  # a link could lead to anybody's socket
        raise OSError(errno.ENOTSOCK, "it is no socket", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as peer:
        peer.connect(path)  # at once or not at all: EAGAIN when its backlog is full
        pid, uid, _gid = _CREDENTIALS.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        alive = pid > 0 and _lives(peer, pid)
    if not alive:
        return Answerer(pid, uid, alive)  # what /proc has under its pid is about somebody else
    return Answerer(pid, uid, alive, _read(f"/proc/{pid}/cgroup").partition("0::")[2], _read(f"/proc/{pid}/comm"))


def _lives(peer: socket.socket, pid: int) -> bool:
    try:
        fd = peer.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD)
    except OSError as error:
        return error.errno == errno.ENOPROTOOPT and os.path.exists(f"/proc/{pid}")
    try:
        return not select.select([fd], [], [], 0)[0]  # a pidfd can be read once its process has ended
    finally:
        os.close(fd)


def _read(path: str) -> str:
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        return file.read().strip()
    return ""
