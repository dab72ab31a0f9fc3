"""`bay0 ask` against a real HTTP server on a unix socket: the answer as it comes, and a sentence for each way in which there is none."""

from __future__ import annotations

import json
import os
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from bay0.cli import main as cli


class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    status: int = 200
    body: bytes = b""
    headers: dict[str, str]
    asked: list[dict[str, Any]]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self.server.asked.append({"path": self.path, **json.loads(self.rfile.read(length))})
        self.send_response(self.server.status)
        for key, value in self.server.headers.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *_: Any) -> None:
        pass

    def address_string(self) -> str:
        return "unix"


def event(**keys: Any) -> bytes:
    return b"data: " + json.dumps(keys).encode() + b"\n\n"


def delta(text: str, finish: str | None = None) -> bytes:
    return event(choices=[{"delta": {"content": text}, "finish_reason": finish}])


DONE = b"data: [DONE]\n\n"


@pytest.fixture
def ai(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    path = str(tmp_path / "ai.sock")
    with Server(path, Handler) as server:
        server.asked, server.headers = [], {}
        monkeypatch.setenv("BAY0_AI_SOCKET", path)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(10)


def test_an_answer_is_printed_as_it_comes(ai: Server, capsys: pytest.CaptureFixture[str]) -> None:
    ai.body = delta("Hel") + b": a comment\n\n" + delta("lo\n") + delta("you", "stop") + DONE
    assert cli.main(["ask", "say", "hello", "--max-tokens", "7"]) == 0
    assert capsys.readouterr().out == "Hello\nyou\n"
    (asked,) = ai.asked
    assert (asked["path"], asked["max_tokens"], asked["stream"]) == ("/v1/chat/completions", 7, True)
    assert asked["messages"] == [{"role": "user", "content": "say hello"}]


def test_json_is_one_object_when_the_answer_is_whole(ai: Server, capsys: pytest.CaptureFixture[str]) -> None:
    ai.body = delta("Hi") + delta("", "length") + event(choices=[], usage={"completion_tokens": 1}) + DONE
    assert cli.main(["ask", "--json", "hello"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["text"], found["finish_reason"], found["usage"]) == ("Hi", "length", {"completion_tokens": 1})
    assert found["first_token_s"] <= found["took_s"]


def test_what_a_terminal_would_obey_is_shown(ai: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    ai.body = delta("\x1b]0;title\x07\nnext") + DONE
    assert cli.main(["ask", "hello"]) == 0
    assert capsys.readouterr().out == "\\x1b]0;title\\x07\nnext\n"


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (400, "HTTP 400"), (403, "may not speak"), (404, "does not have that"), (413, "too long"), (429, "too many questions"),
        (502, "in the middle"), (503, "cannot answer now"), (504, "took too long"), (500, "HTTP 500"),
    ],
)  # fmt: skip
def test_each_refusal_says_what_it_means_and_what_was_said(ai: Server, capsys: pytest.CaptureFixture[str], status: int, said: str) -> None:
    ai.status, ai.headers = status, {"Retry-After": "5"}
    ai.body = json.dumps({"error": {"message": "the AI is paused", "type": "x", "code": "y"}}).encode()
    assert cli.main(["ask", "hello"]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert said in shown.err
    assert "the AI is paused" in shown.err
    assert "ask again in 5 s" in shown.err
    assert "bay0 tenant show ai" in shown.err


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (delta("Hel"), "cut off"), (b"", "cut off"), (DONE, "an empty answer"), (b"data: {nonsense\n\n", "makes no sense"),
        (delta("H") + event(error={"message": "the server ended"}), "in the middle of its answer: the server ended"),
    ],
)  # fmt: skip
def test_an_answer_that_is_none_is_a_failure(ai: Server, capsys: pytest.CaptureFixture[str], body: bytes, said: str) -> None:
    ai.body = body
    assert cli.main(["ask", "hello"]) == 1
    assert said in capsys.readouterr().err


def test_without_a_socket_or_a_listener_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("BAY0_AI_SOCKET", str(tmp_path / "none"))
    assert cli.main(["ask", "hello"]) == 1
    assert "there is no AI at" in capsys.readouterr().err
    (tmp_path / "none").touch()
    assert cli.main(["ask", "hello"]) == 1
    assert "the AI hung up" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["ask"], ["ask", "x", "--max-tokens", "0"], ["ask", "x" * (1 << 17)]])
def test_a_question_that_is_none_is_wrong_usage(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", open(os.devnull, encoding="ascii"))
    assert cli.main(words) == 2
    assert capsys.readouterr().err.startswith("bay0: ")
