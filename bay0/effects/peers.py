"""Who is at the other end of a unix socket: ask the kernel (unix(7), SO_PEERCRED). Never waits.

SO_PEERCRED names who called listen(2), or connect(2), also when that process has died and a child still holds the socket; its pid may be
somebody else's by now. A pidfd (SO_PEERPIDFD, Linux 6.5) tells.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
import struct

from attrs import frozen

from bay0.base.kernelfile import read_text

SO_PEERPIDFD = 77  # include/uapi/asm-generic/socket.h
_CREDENTIALS = struct.Struct("3i")


@frozen
class Answerer:
    """The process that listens, or that connected. `group`: its cgroup from the root on ("" if unknown), `name` as in /proc.

    pid 0 is one of another pid namespace.
    """

    pid: int
    uid: int
    alive: bool
    group: str = ""
    name: str = ""


def answerer(path: str) -> Answerer:
    """Connect to the socket at `path` and return who listens there. `OSError`: it is no socket, or nobody takes the connection."""
    with connect(path) as peer:
        return identify(peer)


def connect(path: str) -> socket.socket:
    """Connect to the socket at `path` without waiting: at once or not at all, EAGAIN when its backlog is full.

    `OSError`: it is no socket (a link could lead to anybody's), or nobody takes the connection. What was looked at is what is connected to.
    """
    inode = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        if not stat.S_ISSOCK(os.fstat(inode).st_mode):
            raise OSError(errno.ENOTSOCK, "it is no socket", path)
        peer.connect(f"/proc/self/fd/{inode}")
    except BaseException:
        peer.close()
        raise
    finally:
        os.close(inode)
    return peer


def identify(peer: socket.socket) -> Answerer:
    """Return who is at the other end of `peer`. It lived before its cgroup was read and after, so that is not about whoever has its pid now."""
    pid, uid, _gid = _CREDENTIALS.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    if pid <= 0:
        return Answerer(pid, uid, alive=False)
    try:
        fd = peer.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD)
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT or not os.path.exists(f"/proc/{pid}"):
            return Answerer(pid, uid, alive=False)
        return Answerer(pid, uid, True, group_of(pid), read_text(f"/proc/{pid}/comm"))
    try:
        found = Answerer(pid, uid, True, group_of(pid), read_text(f"/proc/{pid}/comm"))
        return found if _lives(fd) else Answerer(pid, uid, alive=False)
    finally:
        os.close(fd)


def group_of(pid: int) -> str:
    """Return the cgroup of a process, from the root on; "" if there is no such process (proc_pid_cgroup(5))."""
    return read_text(f"/proc/{pid}/cgroup").partition("0::")[2]


def _lives(pidfd: int) -> bool:
    """Tell it: a pidfd can be read once its process has ended."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return not poll.poll(0)
