"""Twelve ways out, tried from inside the AI tenant; frozen into an image for tests (mkescape.sh) and started by `podman exec`.

Usage: escape [NAME]...

One JSON line for each: {"probe": NAME, "refused": true, "how": "EPERM from mount(2)"}. "refused" is false if the attempt got anywhere.
`memory hog` comes last: the kernel may end more than the hog.
"""

import contextlib
import ctypes
import errno
import json
import mmap
import os
import signal
import socket
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Callable

LIBC = ctypes.CDLL(None, use_errno=True)
PLACE = "/run/ai"  # the only directory it may write to
SYS_KEYCTL, SYS_ADD_KEY, SYS_BPF = 250, 248, 321  # x86-64
CLONE_NEWUSER, CLONE_NEWNS = 0x10000000, 0x00020000
PTRACE_ATTACH = 16
HOST_ABSTRACT = "\0spine-escape-test"  # somebody on the spine listens there
FORKS = 4096
HOG, PIECE = 8 << 30, 64 << 20  # bytes
# x86-64 machine code in the smallest ELF file: exit(geteuid() != 0). Its place is too small for a program that somebody compiled.
IS_ROOT = bytes.fromhex("b86b0000000f0531ff85c0400f95c7b83c0000000f05")
ELF = (
    b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0x400078, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    + struct.pack("<IIQQQQQQ", 1, 5, 0, 0x400000, 0x400000, 120 + len(IS_ROOT), 120 + len(IS_ROOT), 4096) + IS_ROOT
)  # fmt: skip

Verdict = tuple[bool, str]


def name_of(number: int) -> str:
    return errno.errorcode.get(number, str(number))


def call(what: str, *arguments: object) -> Verdict:
    """Make a libc call that has to fail."""
    result = getattr(LIBC, what)(*arguments)
    return (True, f"{name_of(ctypes.get_errno())} from {what}") if result == -1 else (False, f"{what} returned {result}")


def fails(attempt: Callable[[], object], what: str) -> Verdict:
    try:
        attempt()
    except OSError as error:
        return True, f"{name_of(error.errno or 0)} from {what}"
    return False, f"{what} worked"


def every(*verdicts: Verdict) -> Verdict:
    return all(refused for refused, _ in verdicts), "; ".join(how for _, how in verdicts)


def setuid_helper() -> Verdict:
    """A program of root's with the setuid bit is impossible here; one of its own with the bit must give nothing either."""
    path = f"{PLACE}/helper"
    try:
        with open(path, "wb") as helper:
            helper.write(ELF)
        os.chmod(path, 0o6755)
        owned = fails(lambda: os.chown(path, 0, 0), "chown to root")
        try:
            status = subprocess.run([path], check=False, timeout=60).returncode
            ran = (status == 1, f"the helper ran with status {status}, 0 would be root")
        except PermissionError:
            ran = (True, "EACCES from executing it")
        return every(owned, ran, fails(lambda: os.setuid(0), "setuid(0)"))
    finally:
        if os.path.exists(path):
            os.unlink(path)


def mknod() -> Verdict:
    return every(
        fails(lambda: os.mknod(f"{PLACE}/disk", 0o600 | stat.S_IFBLK, os.makedev(254, 0)), "mknod of the disk"),
        fails(lambda: os.mknod(f"{PLACE}/mem", 0o600 | stat.S_IFCHR, os.makedev(1, 1)), "mknod of /dev/mem"),
    )


def raw_socket() -> Verdict:
    return every(
        fails(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP), "a raw socket"),
        fails(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW), "a packet socket"),
    )


def mount() -> Verdict:
    return every(
        call("mount", b"none", b"/tmp", b"tmpfs", 0, None), call("mount", b"/", PLACE.encode(), None, 4096, None),
        call("umount2", PLACE.encode(), 2),
    )  # fmt: skip


def unshare() -> Verdict:
    return every(call("unshare", CLONE_NEWUSER), call("unshare", CLONE_NEWNS))


def keyctl() -> Verdict:
    return every(call("syscall", SYS_KEYCTL, 0, -3, 1), call("syscall", SYS_ADD_KEY, b"user", b"a", b"b", 1, -3), call("syscall", SYS_BPF, 0, 0, 0))


def fork_bomb() -> Verdict:
    """Fork until it is refused; well before FORKS. Each child waits to be ended."""
    children = []
    why = ""
    try:
        for _ in range(FORKS):
            child = os.fork()
            if child == 0:
                signal.pause()
                os._exit(0)
            children.append(child)
    except OSError as error:
        why = name_of(error.errno or 0)
    for child in children:
        os.kill(child, signal.SIGKILL)
    for child in children:
        os.waitpid(child, 0)
    return bool(why), f"{why or 'never'} after {len(children)} forks"


def write_root() -> Verdict:
    def write(path: str) -> Verdict:
        return fails(lambda: os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)), f"writing {path}")

    inside = ("/x", "/usr/lib/ai/x", "/model/default.gguf", "/etc/passwd")
    return every(*map(write, (*inside, "/proc/sys/kernel/core_pattern", "/sys/fs/cgroup/cgroup.procs")))


def connect_out() -> Verdict:
    def to(address: str) -> Verdict:
        with socket.socket() as peer:
            peer.settimeout(3)
            return fails(lambda: peer.connect((address, 80)), f"connecting to {address}")

    with open("/proc/net/route", encoding="ascii") as table:
        routes = len(table.read().splitlines()) - 1
    interfaces = [name for _, name in socket.if_nameindex()]
    alone = (routes <= 0 and interfaces == ["lo"], f"{max(0, routes)} routes, interfaces {', '.join(interfaces)}")
    return every(alone, *map(to, ("10.0.2.2", "192.0.2.1")))


def abstract_socket() -> Verdict:
    with socket.socket(socket.AF_UNIX) as peer:
        return fails(lambda: peer.connect(HOST_ABSTRACT), "connecting to the spine's abstract socket")


def ptrace() -> Verdict:
    """Nothing of the spine has a number here: attach to every pid that this namespace does not have, and see that it has few."""
    seen = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    strangers = [pid for pid in (2, 300, 400, 500) if pid not in seen]
    own = open("/proc/1/cmdline", "rb").read().split(b"\0")[0].decode()
    return every((own.endswith("serve"), f"pid 1 here is {own}"), *(call("ptrace", PTRACE_ATTACH, pid, 0, 0) for pid in strangers))


def memory_hog() -> Verdict:
    """A child takes memory until it is ended."""
    child = os.fork()
    if child == 0:
        blocks = []
        with contextlib.suppress(OSError, MemoryError):  # refused is as good as ended; the status says so
            while len(blocks) * PIECE < HOG:
                blocks.append(mmap.mmap(-1, PIECE))
                for at in range(0, PIECE, mmap.PAGESIZE):
                    blocks[-1][at] = 1
            os._exit(0)
        os._exit(errno.ENOMEM)
    end = time.monotonic() + 300
    while time.monotonic() < end:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            code = os.waitstatus_to_exitcode(status)
            return code != 0, f"ended by signal {-code}" if code < 0 else f"exit status {code}"
        time.sleep(0.2)
    os.kill(child, signal.SIGKILL)
    return False, "it was never ended"


PROBES = {
    "setuid helper": setuid_helper, "mknod": mknod, "raw socket": raw_socket, "mount": mount, "unshare": unshare, "keyctl": keyctl,
    "fork bomb": fork_bomb, "write to /": write_root, "connect out": connect_out, "abstract socket of the host": abstract_socket, "ptrace": ptrace,
    "memory hog": memory_hog,
}  # fmt: skip


def main() -> None:
    for name in sys.argv[1:] or PROBES:
        try:
            refused, how = PROBES[name]()
        except Exception as error:  # a probe that cannot be made proves nothing
            refused, how = False, f"the probe itself failed: {type(error).__name__}: {error}"
        print(json.dumps({"probe": name, "refused": refused, "how": how}), flush=True)


if __name__ == "__main__":
    main()
