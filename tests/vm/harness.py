"""What a VM test needs: spines started by scripts/boot-qemu.sh, disks that can be paused, and looking into a disk afterwards.

Everything is a context manager, bounded, and ended by its pid. A guest is talked to through a virtio port of its own (agent.sh is the
other end), so that many cases share one boot and each of them sees exit status and output of what it ran.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import itertools
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
from attrs import define, field, frozen

TOP = os.environ.get("SPINE_DIR") or os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BOOT = os.path.join(TOP, "scripts", "boot-qemu.sh")
MKPERSIST = os.path.join(TOP, "scripts", "mkpersist.sh")
AGENT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "agent.sh")
IMAGES = (os.path.join(TOP, "vmlinuz"), os.path.join(TOP, "build", "spine.img"))
TOOLS = ("qemu-system-x86_64", "nbdkit", "debugfs", "e2fsck", "dumpe2fs")
ENVIRONMENT = {**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}
COMPLETE = r"bay0: init complete .*\n"
LIFE_S = 600  # of one VM, whatever happens
MORE = os.environ.get("SPINE_QEMU", "").split()  # further words for QEMU: `-icount shift=2` is a processor that no load of the host slows
ROOM_MB = 3000  # a module's disks, the AI's and its images among them
BOOT_S = 180  # to `init complete`: contract, not speed; a busy machine without KVM is slow
CALL_S = 90  # of one script in the guest
END_S = 90  # from a request to power off to QEMU's end
PODMAN = "CONTAINERS_CONF=/run/containers/containers.conf CONTAINERS_STORAGE_CONF=/run/containers/storage.conf podman"
# the manifest of a persona that does nothing, and ends at once
NAP = """image = "localhost/alpine:3.23"
command = ["/bin/sleep", "infinity"]
stop_s = 0
"""
DATABASE = "/spine/state.db"  # inside the persist disk
booted: list[str] = []  # the words of each VM this session started


class VmError(Exception):
    """A VM did not do what the harness needs of it; the message ends with its console."""


def missing() -> str | None:
    """Say what is missing for VM tests, or None."""
    for image in IMAGES:
        if not os.path.isfile(image):
            return f"{os.path.relpath(image, TOP)} is missing: build it with scripts/mkspine.sh"
    absent = [tool for tool in TOOLS if shutil.which(tool, path=ENVIRONMENT["PATH"]) is None]
    if absent:
        return f"host tools are missing: {', '.join(absent)}; scripts/test.sh installs them"
    place = tempfile.gettempdir()
    free = shutil.disk_usage(place).free >> 20
    return f"{free} MB are free in {place}, the disks of the VMs take up to {ROOM_MB}: make room there, or set TMPDIR" if free < ROOM_MB else None


@functools.cache
def patience() -> int:
    """Return the patience of this session's VMs: as boot-qemu.sh measures it, once, and without KVM never less than it always was."""
    if "-icount" in MORE:
        return 5
    measured = int(tool("bash", BOOT, "--measure").stdout)
    return measured if measured == 1 else max(5, measured)


def slow(seconds: float) -> float:
    """Return a bound for this machine: all are meant for a patience of 5, and a slower machine needs more."""
    return seconds * max(1.0, patience() / 5)


def until(look: Callable[[], Any], bound_s: float, what: str, every_s: float = 0.3) -> Any:
    """Return the first true value of `look` within `bound_s`, else fail with `what`."""
    end = time.monotonic() + slow(bound_s)
    while True:
        value = look()
        if value:
            return value
        if time.monotonic() > end:
            raise VmError(f"not within {slow(bound_s):g} s: {what}")
        time.sleep(every_s)


def tool(*argv: str, check: bool = True, bound_s: float = 120) -> subprocess.CompletedProcess[str]:
    """Run a host tool."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=bound_s, check=False, env=ENVIRONMENT, stdin=subprocess.DEVNULL)
    if check and done.returncode != 0:
        raise VmError(f"{' '.join(argv)}: status {done.returncode}: {done.stdout[-500:]}{done.stderr[-500:]}")
    return done


@frozen
class Result:
    """What a command did, in the guest or (with `console`) as a whole boot."""

    status: int
    stdout: str
    stderr: str = ""
    console: str = ""


@define(eq=False)
class Qmp:
    """QEMU's monitor for programs."""

    path: str

    def __call__(self, command: str, **arguments: Any) -> Any:
        """Run one command; each has a connection of its own."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
            peer.settimeout(30)
            peer.connect(self.path)
            with peer.makefile("rw", encoding="utf-8") as stream:
                stream.readline()  # the greeting
                for request in ({"execute": "qmp_capabilities"}, {"execute": command, "arguments": arguments}):
                    stream.write(json.dumps(request) + "\n")
                    stream.flush()
                    answer = self._answer(stream)
        if "error" in answer:
            raise VmError(f"{command}: {answer['error']['desc']}")
        return answer["return"]

    @staticmethod
    def _answer(stream: Any) -> dict[str, Any]:
        for line in stream:
            answer: dict[str, Any] = json.loads(line)
            if "event" not in answer:
                return answer
        raise VmError("QEMU closed its monitor")


@define(eq=False)
class Vm:
    """One running spine. Made by `vm(...)`."""

    work: str
    process: subprocess.Popen[bytes]
    qmp: Qmp
    _agent: socket.socket | None = None
    _inbox: bytes = b""
    _ids: Iterator[int] = field(factory=lambda: itertools.count(1))

    def read(self, name: str) -> str:
        """Return what is in a file of the work folder."""
        try:
            with open(f"{self.work}/{name}", encoding="utf-8", errors="replace") as file:
                return file.read().replace("\r", "")
        except FileNotFoundError:
            return ""

    @property
    def console(self) -> str:
        """All of the serial console so far."""
        return self.read("console")

    def wait_console(self, pattern: str, bound_s: float = BOOT_S, after: int = 0) -> re.Match[str]:
        """Wait until the console, from offset `after`, matches the regular expression `pattern`."""

        def look() -> re.Match[str] | None:
            found = re.compile(pattern, re.MULTILINE).search(self.console, after)
            if found is None and self.process.poll() is not None:
                raise VmError(self._tail(f"the VM ended before its console showed {pattern!r}"))
            return found

        try:
            return until(look, bound_s, f"console shows {pattern!r}")
        except VmError as error:
            raise VmError(self._tail(str(error))) from None

    def type(self, text: str) -> None:
        """Type on the serial console (only of a VM with `console=True`)."""
        if self.process.stdin is None:
            raise AssertionError("this VM's console cannot be typed on")
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def send(self, script: str) -> int:
        """Hand a script to the guest without waiting for its answer."""
        peer = self._connect()
        number = next(self._ids)
        peer.settimeout(CALL_S)
        peer.sendall(f"{number} {base64.b64encode(script.encode()).decode()}\n".encode())
        return number

    def sh(self, script: str, bound_s: float = CALL_S) -> Result:
        """Run a bash script in the guest, as root, and return what came of it."""
        number = self.send(script)
        end = time.monotonic() + slow(bound_s)
        while True:
            words = self._line(end, script).split(" ")
            if words[0] == str(number):
                out, err = (base64.b64decode(word[:-1]).decode("utf-8", "replace") for word in words[2:4])
                return Result(int(words[1]), out, err)

    def out(self, script: str, bound_s: float = CALL_S) -> str:
        """Run a script that must succeed and return its output, stripped."""
        done = self.sh(script, bound_s)
        if done.status != 0:
            raise VmError(self._tail(f"{script!r} in the guest: status {done.status}: {done.stderr[-800:]}"))
        return done.stdout.strip()

    def json(self, script: str, bound_s: float = CALL_S) -> Any:
        """Run a script that prints JSON."""
        return json.loads(self.out(script, bound_s))

    def ask(self, method: str, bound_s: float = CALL_S, **params: Any) -> dict[str, Any]:
        """Send one JSON-RPC request and return its answer: {"result"} or {"error"}. A hundredth of what a `bay0` process would take."""
        number = next(self._ids)
        request = json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        self._connect().sendall(f"{number} rpc {request}\n".encode())
        end = time.monotonic() + slow(bound_s)
        while True:
            word, _, rest = self._line(end, method).partition(" ")
            if word == str(number):
                answer: dict[str, Any] | None = json.loads(rest.removeprefix("rpc "))
                if answer is None:
                    raise VmError(self._tail(f"nobody answered {method}: {self.sh('cat /run/agent/rpc.err').stdout}"))
                return answer

    def call(self, method: str, bound_s: float = CALL_S, **params: Any) -> Any:
        """`ask` for what must succeed: its result."""
        answer = self.ask(method, bound_s, **params)
        if "error" in answer:
            raise VmError(self._tail(f"{method}: {answer['error']['message']}"))
        return answer["result"]

    def status(self) -> dict[str, Any]:
        """Return what `bay0 status --json` prints."""
        found: dict[str, Any] = self.call("status")
        return found

    def create(self, name: str, manifest: str) -> None:
        """Create a persona from the text of its manifest."""
        self.out(f"mkdir -p /tmp/{name}; cat >/tmp/{name}/persona.toml <<'END'\n{manifest}END\nbay0 persona create /tmp/{name}")

    def show(self, name: str) -> dict[str, Any]:
        """Return what `bay0 persona show NAME --json` prints."""
        found: dict[str, Any] = self.call("persona.show", name=f"p://{name}")
        return found

    def act(self, verb: str, name: str, bound_s: float = CALL_S, **params: Any) -> dict[str, Any]:
        """Do what `bay0 persona VERB NAME` does, and wait as it does; return what is so then."""
        found: dict[str, Any] = self.call(f"persona.{verb}", bound_s, name=f"p://{name}", **params)
        return found

    def rpc(self, requests: Sequence[Mapping[str, Any]], bound_s: float = CALL_S) -> dict[Any, Any]:
        """Send JSON-RPC requests by `bay0 rpc`; return id -> answer."""
        lines = "\n".join(json.dumps({"jsonrpc": "2.0", **request}) for request in requests)
        text = self.out(f"bay0 rpc <<'EOF'\n{lines}\nEOF", bound_s)
        return {answer["id"]: answer for answer in map(json.loads, text.splitlines())}

    def wait_storage(self, state: str, bound_s: float = 120) -> dict[str, Any]:
        """Wait until storage is in `state`; return the status that says so."""
        seen: list[Any] = []

        def look() -> dict[str, Any] | None:
            found = self.status()
            seen[:] = [found["storage"], found["dirty"]]
            return found if found["storage"]["state"] == state else None

        try:
            return until(look, bound_s, f"storage is {state}")
        except VmError as error:
            raise VmError(self._tail(f"{error}; it is {seen}")) from None

    def wait_durable(self, bound_s: float = 120) -> dict[str, Any]:
        """Wait until storage is durable and holds everything that had been kept in memory; return the status that says so."""
        self.wait_storage("durable", bound_s)
        return until(lambda: (found := self.status())["storage"]["in_memory"] == 0 and found, 30, "the memory journal is written out")

    def wait(self, bound_s: float = END_S) -> Result:
        """Wait until boot-qemu.sh has ended by itself."""
        try:
            status = self.process.wait(slow(bound_s))
        except subprocess.TimeoutExpired:
            raise VmError(self._tail(f"the VM did not end within {slow(bound_s):g} s")) from None
        return Result(status, self.read("stdout"), self.read("stderr"), self.console)

    def quit(self, status: int = 0, bound_s: float = END_S) -> Result:
        """Let the agent end with `status`, upon which the guest's exec service calls `bay0 poweroff`."""
        self._connect().sendall(f"quit {status}\n".encode())
        return self.wait(bound_s)

    def pull_the_plug(self) -> Result:
        """Kill QEMU at once."""
        self.kill_qemu()
        return self.wait()

    def kill_qemu(self) -> None:
        """SIGKILL QEMU by its pid, if that pid is still the one we started."""
        with contextlib.suppress(OSError, ValueError):
            pid = int(self.read("qemu.pid"))
            with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as words:
                if f"{self.work}/qemu.pid" in words.read().split("\0"):
                    os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """End whatever still runs."""
        if self._agent is not None:
            self._agent.close()
        if self.process.poll() is None:
            self.kill_qemu()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(15)
                self.process.kill()
                self.process.wait()
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()

    def _connect(self) -> socket.socket:
        if self._agent is None:
            until(lambda: os.path.exists(f"{self.work}/agent.sock") or self.process.poll() is not None, 30, "QEMU starts")
            peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                peer.connect(f"{self.work}/agent.sock")
            except OSError as error:
                peer.close()
                raise VmError(self._tail(f"no agent port: {error}")) from None
            self._agent = peer
        return self._agent

    def _line(self, end: float, script: str) -> str:
        peer = self._connect()
        while b"\n" not in self._inbox:
            peer.settimeout(max(0.01, end - time.monotonic()))
            try:
                data = peer.recv(1 << 16)
            except TimeoutError:
                raise VmError(self._tail(f"the guest gave no answer in time to {script!r}")) from None
            if not data:
                raise VmError(self._tail(f"the VM ended while it ran {script!r}"))
            self._inbox += data
        line, _, self._inbox = self._inbox.partition(b"\n")
        return line.decode()

    def _tail(self, what: str) -> str:
        return f"{what}\n--- console\n{self.console[-4000:]}\n--- stderr\n{self.read('stderr')[-1000:]}"


def _extras(work: str) -> list[str]:
    return [
        "-pidfile", f"{work}/qemu.pid",
        "-qmp", f"unix:{work}/qmp.sock,server=on,wait=off",
    ]  # fmt: skip


@contextlib.contextmanager
def vm(
    persist: str = "none",
    append: str = "",
    qemu: Sequence[str] = (),
    *,
    console: bool = False,
    agent: bool = True,
    life_s: int = LIFE_S,
    efi: Sequence[str] | None = None,
    options: Sequence[str] = (),
) -> Iterator[Vm]:
    """Start a spine in the background. `console`: without --exec, its serial console on pipes. `agent`: False gives no command at all.

    `efi`: boot a disk by firmware with these options instead of kernel, image and persist disk. `options`: more of boot-qemu.sh.
    """
    with tempfile.TemporaryDirectory(prefix="vm") as work:
        direct = ("--kernel", IMAGES[0], "--image", IMAGES[1], "--persist", persist)
        argv = [BOOT, *(direct if efi is None else efi), "--timeout", str(int(slow(life_s)))]
        if efi is None:
            argv += ["--patience", str(patience())]
        if append:
            argv += ["--append", append]
        argv += options
        extras = [*_extras(work), *qemu, *MORE]
        if not console:
            with open(AGENT, encoding="utf-8") as file:
                argv += ["--log", f"{work}/console", "--exec", file.read() if agent else ":"]
            extras += [
                "-chardev", f"socket,id=agent,path={work}/agent.sock,server=on,wait=off",
                "-device", "virtserialport,chardev=agent,name=test.agent",
            ]  # fmt: skip
        booted.append(f"--persist {os.path.basename(persist)} {append}" if efi is None else " ".join(efi))
        with open(f"{work}/console" if console else f"{work}/stdout", "wb") as out, open(f"{work}/stderr", "wb") as err:
            process = subprocess.Popen(
                ["bash", *argv, "--", *extras], stdin=subprocess.PIPE if console else subprocess.DEVNULL, stdout=out, stderr=err, env=ENVIRONMENT
            )
        machine = Vm(work, process, Qmp(f"{work}/qmp.sock"))
        try:
            yield machine
        finally:
            machine.close()


def run(command: str, persist: str = "none", append: str = "", qemu: Sequence[str] = (), bound_s: int = 300) -> Result:
    """Boot, run one command by --exec, power off: as a user would."""
    booted.append(f"--persist {os.path.basename(persist)} --exec ... {append}")
    with tempfile.TemporaryDirectory(prefix="vm") as work:
        argv = ["bash", BOOT, "--kernel", IMAGES[0], "--image", IMAGES[1], "--persist", persist, "--log", f"{work}/console"]
        argv += ["--timeout", str(int(slow(bound_s))), "--patience", str(patience()), *(("--append", append) if append else ())]
        done = tool(*argv, "--exec", command, *(("--", *qemu) if qemu else ()), check=False, bound_s=slow(bound_s) + 30)
        with open(f"{work}/console", encoding="utf-8", errors="replace") as file:
            return Result(done.returncode, done.stdout, done.stderr, file.read().replace("\r", ""))


# ---- disks


def make_disk(path: str, size: str = "64M") -> str:
    """Make a persist disk with the project's own script."""
    tool("bash", MKPERSIST, "--size", size, path)
    return path


def check_clean(path: str) -> None:
    """Assert that the filesystem is whole, was unmounted in order, and needs no replay."""
    header = tool("dumpe2fs", "-h", path).stdout
    assert re.search(r"^Filesystem state: +clean$", header, re.MULTILINE), header
    assert "needs_recovery" not in header
    checked = tool("e2fsck", "-fn", path, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def fetch(path: str, inner: str, to: str) -> bool:
    """Copy a file out of a disk image that no VM uses; tell whether it was there."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(to)
    tool("debugfs", "-R", f"dump {inner} {to}", path)
    return os.path.exists(to)


def put(path: str, local: str, inner: str) -> None:
    """Copy a file into a disk image, into the spine's own folder."""
    folder = os.path.dirname(inner)
    if "Type: directory" not in tool("debugfs", "-R", f"stat {folder}", path).stdout:  # else its inode would be made and lost
        tool("debugfs", "-w", "-R", f"mkdir {folder}", path)
    tool("debugfs", "-w", "-R", f"rm {inner}", path)
    done = tool("debugfs", "-w", "-R", f"write {local} {inner}", path)
    assert "Allocated inode" in done.stdout + done.stderr, done.stdout + done.stderr
    count_owners(path)


def prepare(path: str, commands: str) -> None:
    """Put things into a disk image that no VM uses, by debugfs's own commands: FIFOs, links, devices."""
    with open(f"{path}.commands", "w", encoding="utf-8") as file:
        file.write(commands)
    tool("debugfs", "-w", "-f", file.name, path)
    os.unlink(file.name)
    count_owners(path)


def count_owners(path: str) -> None:
    """Let e2fsck count for their owners the files that debugfs wrote (ext4's quota feature); not where that would replay a journal."""
    if "needs_recovery" not in tool("dumpe2fs", "-h", path).stdout:
        done = tool("e2fsck", "-fp", path, check=False)
        assert done.returncode in {0, 1}, done.stdout  # CLEAN, MENDED: what it cannot mend by itself it would leave marked as damaged


def size_of(path: str, inner: str) -> int | None:
    """Return the size of a file in a disk image, None if it is not there."""
    found = re.search(r"Size: (\d+)", tool("debugfs", "-R", f"stat {inner}", path).stdout)
    return int(found[1]) if found else None


@frozen
class Stored:
    """What a disk's database says."""

    integrity: str
    version: int
    boots: list[str]  # boot ids, oldest first
    machines: dict[str, str]  # name -> state
    steps: list[dict[str, Any]]

    def boot(self, boot_id: str) -> list[str]:
        """Return the states that a boot went through, as its own boot machine committed them."""
        return [row["dest"] for row in self.steps if row["boot_id"] == boot_id and row["machine"] == f"boot:{boot_id[:8]}"]

    def check_numbers(self) -> None:
        """Assert that no step of any boot is missing: its numbers are 1, 2, 3 ..."""
        for boot_id in self.boots:
            numbers = [row["n"] for row in self.steps if row["boot_id"] == boot_id]
            assert numbers == list(range(1, len(numbers) + 1)), boot_id


def stored(path: str) -> Stored:
    """Read the state database of a disk that no VM uses. A write-ahead log that is not empty is read with it."""
    with tempfile.TemporaryDirectory(prefix="vm") as work:
        if not fetch(path, DATABASE, f"{work}/state.db"):
            raise VmError(f"{path} holds no database")
        if size_of(path, DATABASE + "-wal"):
            fetch(path, DATABASE + "-wal", f"{work}/state.db-wal")
        with contextlib.closing(sqlite3.connect(f"{work}/state.db")) as base:
            base.row_factory = sqlite3.Row
            return Stored(
                integrity=base.execute("PRAGMA integrity_check").fetchone()[0],
                version=base.execute("PRAGMA user_version").fetchone()[0],
                boots=[row["boot_id"] for row in base.execute("SELECT boot_id FROM boot ORDER BY ordinal")],
                machines={row["name"]: row["state"] for row in base.execute("SELECT name, state FROM machine")},
                steps=[dict(row) for row in base.execute("SELECT * FROM journal ORDER BY boot_id, n")],
            )


def check_checkpointed(path: str) -> None:
    """Assert that the database stands alone: no write-ahead log is left, or an empty one."""
    assert not size_of(path, DATABASE + "-wal")


@define(eq=False)
class PausedDisk:
    """An nbdkit export that can stop answering. Give `uri` to `vm(persist=...)`."""

    uri: str
    _control: str

    def pause(self) -> None:
        """Let no request through; returns when those in flight are done."""
        self._say(b"p")

    def resume(self) -> None:
        """Answer again, the held requests first."""
        self._say(b"r")

    def _say(self, letter: bytes) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
            peer.settimeout(30)
            peer.connect(self._control)
            peer.sendall(letter)
            assert peer.recv(1) == letter.upper()


@contextlib.contextmanager
def pausable(path: str) -> Iterator[PausedDisk]:
    """Serve a disk image by nbdkit with its pause filter."""
    with tempfile.TemporaryDirectory(prefix="nbd") as work:
        argv = ["nbdkit", "--foreground", "--unix", f"{work}/s", "--filter=pause", "file", path, f"pause-control={work}/c"]
        with open(f"{work}/log", "wb") as log:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=ENVIRONMENT)
        try:
            until(lambda: all(os.path.exists(f"{work}/{name}") for name in "sc"), 30, "nbdkit serves", every_s=0.05)
            yield PausedDisk(f"nbd:unix:{work}/s", f"{work}/c")
        finally:
            process.kill()  # it holds no state of ours: each request has been written to the file
            process.wait()


def skip_or_fail(why: str) -> None:
    """A developer without an image is told; under tox or CI that is a failure."""
    if os.environ.get("TOX_ENV_NAME") or os.environ.get("CI"):
        pytest.fail(why, pytrace=False)
    pytest.skip(why)
