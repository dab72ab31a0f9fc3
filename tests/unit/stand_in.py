"""A small HTTP server on a unix socket that stands where the AI's does: python stand_in.py SOCKET LOG. What the last message says, it does.

It is the forwarder's peer in tests, not what is tested; the real server is asked in the VM. Each request it gets is a line of LOG.
"""

from __future__ import annotations

import json
import os
import socket
import socketserver
import sys
import time
from http.server import BaseHTTPRequestHandler
from typing import Any

SOCKET, LOG = sys.argv[1:3]
SAVED: dict[str, Any] = {"healthy": True}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_words: Any) -> None:
        pass

    def address_string(self) -> str:
        return "-"

    def _noted(self) -> dict[str, Any]:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with open(LOG, "a", encoding="utf-8") as log:
            log.write(json.dumps({"line": self.requestline, "headers": self.headers.items(), "body": body.decode()}) + "\n")
        return json.loads(body) if body else {}

    def _plain(self, status: int, body: bytes, kind: str = "application/json", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self._noted()
        if self.path == "/health":
            ready = not os.path.exists(f"{LOG}.sick")
            self._plain(200 if ready else 503, b'{"status":"ok"}' if ready else b'{"error":"loading"}')
        elif self.path == "/v1/models":
            self._plain(200, b'{"object":"list","data":[{"id":"stand-in"}]}', Server="a secret of the server", Set_Cookie="slot=1")
        else:
            self._plain(200, b'{"slots":"a secret of the server"}')

    def do_POST(self) -> None:
        asked = self._noted()
        words = (asked["messages"][-1]["content"] if "messages" in asked else asked["prompt"]).split()
        verb, rest = words[0], words[1:]
        getattr(self, f"_{verb}", self._echo)(asked, rest)
        self.close_connection = True

    def _echo(self, asked: dict[str, Any], _rest: list[str]) -> None:
        if asked.get("stream"):
            self._stream(asked, ["3", "0"])
        else:
            answer = {"choices": [{"message": {"role": "assistant", "content": "you said: " + json.dumps(asked)}}], "usage": {"completion_tokens": 1}}
            self._plain(200, json.dumps(answer).encode())

    def _stream(self, _asked: dict[str, Any], rest: list[str]) -> None:
        self._begin_stream()
        for number in range(int(rest[0])):
            self._event(f'data: {{"token":{number}}}\n\n'.encode())
            time.sleep(float(rest[1]))
        self._event(b"data: [DONE]\n\n")
        self._event(b"")

    def _begin_stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _event(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _wait(self, asked: dict[str, Any], rest: list[str]) -> None:
        time.sleep(float(rest[0]))
        self._echo(asked, rest)

    def _big(self, _asked: dict[str, Any], rest: list[str]) -> None:
        self._plain(200, b'"' + b"x" * int(rest[0]) + b'"')

    def _bigstream(self, _asked: dict[str, Any], rest: list[str]) -> None:
        self._begin_stream()
        for _ in range(int(rest[0])):
            self._event(b"data: " + b"y" * 65000 + b"\n\n")
        self._event(b"")

    def _status(self, _asked: dict[str, Any], rest: list[str]) -> None:
        self._plain(int(rest[0]), b'{"error":{"message":"as the server has it","code":1}}')

    def _garbage(self, _asked: dict[str, Any], _rest: list[str]) -> None:
        self.wfile.write(b"SSH-2.0-no\r\n\r\n")

    def _smuggle(self, _asked: dict[str, Any], _rest: list[str]) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}")

    def _more(self, _asked: dict[str, Any], _rest: list[str]) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret")

    def _die(self, _asked: dict[str, Any], _rest: list[str]) -> None:
        os._exit(1)

    def _cut(self, _asked: dict[str, Any], _rest: list[str]) -> None:
        self._begin_stream()
        self._event(b'data: {"token":0}\n\n')
        self.connection.shutdown(socket.SHUT_RDWR)

    def _descriptor(self, _asked: dict[str, Any], _rest: list[str]) -> None:
        socket.send_fds(self.connection, [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"], [0])


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 64

    def get_request(self) -> tuple[Any, Any]:
        peer, _ = super().get_request()
        return peer, ("", 0)

    def handle_error(self, *_about: Any) -> None:  # type: ignore[override]
        pass  # a client that hangs up is what some tests are about


if __name__ == "__main__":
    os.umask(0)
    with Server(SOCKET, Handler) as server:
        server.serve_forever(0.05)
