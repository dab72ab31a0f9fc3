"""The network namespace that the kernel booted with, in which nothing of the spine lives.

Theory of operation. The kernel makes every network card in the initial namespace, and a card whose
namespace ends comes back to it. So stage 0 has bay0 leave that namespace (`unshare -n`) before it starts:
there is then no moment at which a card is where the spine is. kthreadd (pid 2) lives there, and
`/proc/2/net` shows it (proc_pid_net(5)) without entering it and without the lock that rtnetlink takes.

Kernel threads live there, and the programs that the kernel starts by itself (modprobe: kernel/umh.c), which
are children of its threads. Nothing else may.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from attrs import frozen

from bay0.base.kernelfile import read_text

PROC = "/proc"
KTHREADD = 2
ALL_HOSTS = "010000E0"  # 224.0.0.1: each interface that is up has joined it (ip_mc_up of net/ipv4/igmp.c)
PARENT = 1  # field 4 of /proc/PID/stat, counted behind the program's name (proc_pid_stat(5))
DEPTH_MAX = 32  # of a program below the kernel thread that started it


@frozen
class Card:
    """An interface of the kernel's namespace; one that is down carries no packet."""

    name: str
    up: bool


def namespace(pid: int | str, proc: str = PROC) -> int:
    """Return the inode of the network namespace of `pid`. `OSError`: there is no such process."""
    return os.stat(f"{proc}/{pid}/ns/net").st_ino


def violations(proc: str = PROC) -> list[str]:
    """Return what is not as it must be in the kernel's namespace, in words; no process is looked at.

    `OSError`: it cannot be looked at.
    """
    if namespace("self", proc) == namespace(KTHREADD, proc):
        return ["bay0 lives where the kernel makes network cards: stage 0 did not leave that namespace"]
    return [
        *(f"interface {card.name} is up in the kernel's namespace" for card in cards(proc) if card.up),
        *(f"route through {name} in the kernel's namespace" for name in _first_words(proc, "route")),
    ]


def cards(proc: str = PROC) -> list[Card]:
    """Return the interfaces of the kernel's namespace but lo. `OSError`: they cannot be seen."""
    with open(f"{proc}/{KTHREADD}/net/dev", encoding="utf-8", errors="replace") as file:
        names = [line.partition(":")[0].strip() for line in file.readlines()[2:]]
    up = _joined(proc) | _addressed(proc)
    return [Card(name, name in up) for name in names if name != "lo"]


def _joined(proc: str) -> set[str]:
    """Return the interfaces that have joined the group of all hosts, as those that are up have."""
    found, name = set(), ""
    for line in _lines(proc, "igmp")[1:]:
        words = line.split()
        if not line.startswith("\t"):
            name = words[1].rstrip(":")
        elif words[0] == ALL_HOSTS:
            found.add(name)
    return found


def _addressed(proc: str) -> set[str]:
    """Return the interfaces that have an IPv6 address: one that is up has (net/ipv6/addrconf.c)."""
    return {line.split()[-1] for line in _lines(proc, "if_inet6")}


def _first_words(proc: str, name: str) -> list[str]:
    return [line.split()[0] for line in _lines(proc, name)[1:]]


def _lines(proc: str, name: str) -> list[str]:
    # a kernel without IPv6, or without multicast, has no such file
    return [line for line in read_text(f"{proc}/{KTHREADD}/net/{name}").splitlines() if line.strip()]


def strangers(pids: Iterable[int], proc: str = PROC) -> Iterator[str]:
    """Yield those of `pids` that live in the kernel's namespace and are not the kernel's, as "name (pid 7)"."""
    there = namespace(KTHREADD, proc)
    for pid in pids:
        try:
            inside = namespace(pid, proc) == there
        except OSError:
            continue  # it has ended, or is a zombie
        if inside and not _of_kernel(pid, proc):
            yield f"{read_text(f'{proc}/{pid}/comm').strip() or 'a process'} (pid {pid})"


def _of_kernel(pid: int, proc: str) -> bool:
    """Tell whether `pid` is a kernel thread, or a program that one has started; also if it has just ended."""
    for _ in range(DEPTH_MAX):
        if pid == KTHREADD:
            return True
        words = read_text(f"{proc}/{pid}/stat").rpartition(")")[2].split()
        if len(words) <= PARENT:
            return True
        pid = int(words[PARENT])
        if pid <= 1:
            return False
    return False
