"""What the umbilical's tests share: the real forwarder process, PID 1's end of its channel played by hand, and clients of all manners."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attrs import define, field
from kit import until

from bay0.umbilical.places import FORWARDER

HERE = Path(__file__).parent
CHAT = "/v1/chat/completions"
ANSWER_S = 20.0  # a bound of the tests, not a promise


def own_group() -> str:
    """The cgroup of this test, and of what it starts."""
    return Path("/proc/self/cgroup").read_text().strip().partition("0::")[2]


def chat(*words: Any, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": " ".join(map(str, words))}], **more}


class Unix(http.client.HTTPConnection):
    """An ordinary client of the standard library, over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("ai", timeout=ANSWER_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(ANSWER_S)
        self.sock.connect(self._path)


@define
class Said:
    """An answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json["error"]["code"])


def said(answer: http.client.HTTPResponse) -> Said:
    return Said(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())


def ask(path: str, method: str, target: str, body: Any = None, **headers: str) -> Said:
    connection = Unix(path)
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    try:
        with contextlib.suppress(BrokenPipeError):  # turned away before it could ask: the answer is there all the same
            connection.request(method, target, data, {k.replace("_", "-"): v for k, v in headers.items()})
        return said(connection.getresponse())
    finally:
        connection.close()


def raw(path: str, data: bytes, *, half_close: bool = False) -> Said:
    """Send bytes as they are and read an answer."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(ANSWER_S)
        peer.connect(path)
        with contextlib.suppress(BrokenPipeError):
            peer.sendall(data)
        if half_close:
            peer.shutdown(socket.SHUT_WR)
        answer = http.client.HTTPResponse(peer)
        answer.begin()
        return said(answer)


def head(*lines: str, request: str = f"POST {CHAT} HTTP/1.1", host: str | None = "Host: ai") -> bytes:
    return "\r\n".join([request, *([host] if host else []), *lines, "", ""]).encode("latin-1")


@define(eq=False)
class Started:
    """A process that was started with a descriptor as 3, which subprocess cannot do."""

    pid: int
    status: int | None = None

    def send_signal(self, number: int) -> None:
        if self.status is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, at_most_s: float = ANSWER_S) -> int:
        until(self._ended, "its end", at_most_s)
        assert self.status is not None
        return self.status

    def _ended(self) -> bool:
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = os.waitstatus_to_exitcode(status) if pid else None
        return self.status is not None


@define(eq=False)
class Rig:
    """A directory that everybody can pass, a stand-in for the server, and forwarders."""

    directory: str
    quota: dict[str, Any] = field(factory=dict)
    channel: socket.socket | None = None
    forwarder: Started | None = None
    server: subprocess.Popen[bytes] | None = None
    listeners: dict[str, tuple[socket.socket, dict[str, Any]]] = field(factory=dict)
    heard: list[dict[str, Any]] = field(factory=list)

    # ---- the server

    @property
    def server_socket(self) -> str:
        return f"{self.directory}/server.sock"

    def serve(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.server_socket)
        self.server = subprocess.Popen([sys.executable, str(HERE / "stand_in.py"), self.server_socket, f"{self.directory}/asked"])
        until(lambda: _accepts(self.server_socket), "the server listens")

    def asked(self) -> list[dict[str, Any]]:
        try:
            return [json.loads(line) for line in Path(f"{self.directory}/asked").read_text().splitlines()]
        except FileNotFoundError:
            return []

    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(each["body"]) for each in self.asked() if each["body"]]

    # ---- the forwarder

    def start(self, state: str = "ready") -> Rig:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(ANSWER_S)
        argv, env = [sys.executable, "-m", "bay0", FORWARDER], {**os.environ, "PYTHONPATH": str(HERE.parent.parent)}
        self.forwarder = Started(os.posix_spawn(argv[0], argv, env, file_actions=[(os.POSIX_SPAWN_DUP2, theirs.fileno(), 3)]))
        theirs.close()
        if self.channel is not None:
            self.channel.close()
        self.channel = ours
        hello = self.hear("hello")
        assert hello["pid"] == self.forwarder.pid
        self.tell(op="setup", patience=1.0, tenant_socket=self.server_socket, quota=self.quota)
        if state:
            self.tenant(state)
        for listener, message in self.listeners.values():
            self.tell(listener, **message)
        return self

    def tell(self, listener: socket.socket | None = None, **message: Any) -> None:
        assert self.channel is not None
        data = json.dumps(message).encode()
        socket.send_fds(self.channel, [data], [listener.fileno()] if listener is not None else [])

    def hear(self, op: str, **wanted: Any) -> dict[str, Any]:
        """Return the next message of that kind; what else comes is kept in `heard`."""
        assert self.channel is not None
        for message in list(self.heard):
            if message["op"] == op and all(message.get(k) == v for k, v in wanted.items()):
                self.heard.remove(message)
                return message
        while True:
            message = json.loads(self.channel.recv(64 << 10))
            if message["op"] == op and all(message.get(k) == v for k, v in wanted.items()):
                return message
            self.heard.append(message)

    def tenant(self, state: str, why: str = "", group: str | None = None) -> None:
        self.tell(op="tenant", state=state, why=why, group=own_group() if group is None else group, retry_s=7)

    def facts(self) -> dict[str, Any]:
        self.tell(op="facts", n=99)
        return dict(self.hear("facts", n=99)["names"])

    def door(self, name: str = "p://work", **changes: Any) -> str:
        """Open a door where this test may speak, and return its path."""
        path = f"{self.directory}/{name.replace('://', '__')}.sock"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        os.chmod(path, 0o666)
        listener.listen(32)
        grant = {"op": "grant", "name": name, "uid_base": os.getuid(), "uids": 65534 - os.getuid(), "group": own_group(), **changes}
        self.listeners[name] = (listener, grant)
        self.tell(listener, **grant)
        return path

    def kill_forwarder(self) -> None:
        assert self.forwarder is not None
        self.forwarder.kill()
        self.forwarder.wait()

    @property
    def pid(self) -> int:
        assert self.forwarder is not None
        return self.forwarder.pid

    def resident_kb(self) -> int:
        return next(int(line.split()[1]) for line in Path(f"/proc/{self.pid}/status").read_text().splitlines() if line.startswith("VmRSS"))

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def end(self) -> None:
        for process in (self.forwarder, self.server):
            if process is not None:
                process.send_signal(signal.SIGKILL)
                process.wait()
        for listener, _ in self.listeners.values():
            listener.close()
        if self.channel is not None:
            self.channel.close()
        shutil.rmtree(self.directory)


def _accepts(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as peer:
        return peer.connect_ex(path) == 0


@contextlib.contextmanager
def rig(state: str = "ready", **quota: Any) -> Iterator[Rig]:
    """A rig with its server and its forwarder."""
    directory = tempfile.mkdtemp(prefix="umbilical-")
    os.chmod(directory, 0o755)
    made = Rig(directory, {"requests_a_minute": 6000, "accepts_a_second": 1000, **quota})
    try:
        made.serve()
        yield made.start(state)
    finally:
        made.end()
