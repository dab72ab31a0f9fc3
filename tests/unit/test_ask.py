"""The script `ask` of the sample persona, against a server on a unix socket that says what the spine's forwarder says."""

from __future__ import annotations

import json
import os
import shutil
import socketserver
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from kit import not_built

ASK = Path(__file__).parents[2] / "personas/ask/ask"
BUSYBOX = sorted((Path(__file__).parents[2] / "build/cache").glob("alpine-*/root/bin/busybox"))
pytestmark = [pytest.mark.scripts, pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")]


class Spine(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Answers one request as it is told to, and keeps what was asked."""

    daemon_threads = True
    status, headers, lines, asked = 200, {}, [], None
    gate: threading.Event | None = None


class Handler(BaseHTTPRequestHandler):
    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_words: object) -> None:
        pass

    def do_POST(self) -> None:
        spine = self.server
        spine.asked = (self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(spine.status)
        for name, value in spine.headers.items():
            self.send_header(name, value)
        self.end_headers()
        for number, line in enumerate(spine.lines):
            if number and spine.gate:
                spine.gate.wait(30)
            self.wfile.write(line.encode() + b"\n\n")
            self.wfile.flush()


@pytest.fixture
def spine(tmp_path: Path) -> Iterator[Spine]:
    with Spine(str(tmp_path / "ai.sock"), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(params=["host", pytest.param("busybox", marks=pytest.mark.built)])
def tools(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Give a PATH with the host's sh, awk, sed and tr, or with Alpine's busybox, which runs them in the persona."""
    if request.param == "host":
        return os.environ["PATH"]
    if not BUSYBOX:
        not_built("Alpine is not unpacked in build/cache")
    tools = tmp_path / "bin"
    tools.mkdir()
    root = BUSYBOX[-1].parents[1]
    for name in ("sh", "awk", "sed", "tr", "cat", "head", "tail", "mktemp", "rm"):
        (tools / name).write_text(f'#!/bin/sh\nexec {root}/lib/ld-musl-x86_64.so.1 {root}/bin/busybox {name} "$@"\n')
        (tools / name).chmod(0o755)
    (tools / "curl").symlink_to(shutil.which("curl"))
    return str(tools)


def ask(spine: Spine, tools: str, *words: str, text: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": tools, "ASK_SOCKET": spine.server_address, "LANG": "C.UTF-8"} | environment
    return subprocess.run(["sh", ASK, *words], env=env, input=text, capture_output=True, text=True, check=False, timeout=60)


def event(content: str) -> str:
    return "data: " + json.dumps({"choices": [{"index": 0, "delta": {"content": content}}], "model": "x"}, ensure_ascii=False, separators=(",", ":"))


def test_the_answer_is_printed_as_it_is_meant(spine: Spine, tools: str) -> None:
    spine.lines = [event(""), event('He said "hi"'), event(" \\ and\n\tleft,"), event(" né 1} 日本"), "data: [DONE]"]
    said = ask(spine, tools, "What?")
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout == 'He said "hi" \\ and\n\tleft, né 1} 日本\n'


@pytest.mark.parametrize(
    "question", ["What is a spine?", 'a "quote", a \\ and a \\n', "two\nlines\tand a tab", "ünïcode 日本", "$(id) `id` %s '", "-n"]
)
def test_any_question_arrives_as_it_was_asked(spine: Spine, tools: str, question: str) -> None:
    spine.lines = [event("x"), "data: [DONE]"]
    assert ask(spine, tools, question, ASK_TOKENS="7").returncode == 0
    assert spine.asked == ("/v1/chat/completions", {"stream": True, "max_tokens": 7, "messages": [{"role": "user", "content": question}]})
    assert ask(spine, tools, text=question).returncode == 0
    assert spine.asked[1]["messages"][0]["content"] == question


def test_words_are_printed_when_they_come_and_not_at_the_end(spine: Spine, tools: str) -> None:
    if tools == os.environ["PATH"]:
        pytest.skip("mawk, the host's, waits for a full buffer; busybox, the persona's, does not")
    spine.lines, spine.gate = [event("first"), event(" second"), "data: [DONE]"], threading.Event()
    env = {"PATH": tools, "ASK_SOCKET": spine.server_address}
    with subprocess.Popen(["sh", ASK, "x"], env=env, stdout=subprocess.PIPE) as child:
        assert os.read(child.stdout.fileno(), 100) == b"first"
        spine.gate.set()
        assert child.stdout.read() == b" second\n"
        assert child.wait(30) == 0


@pytest.mark.parametrize(
    ("status", "headers", "message", "sentence"),
    [
        (503, {"Retry-After": "20"}, "the model is being loaded", "ask: the AI is not ready: the model is being loaded (try again in 20 s)\n"),
        (403, {}, "file descriptors are not taken", "ask: refused: file descriptors are not taken\n"),
        (429, {"Retry-After": "9"}, "30 requests a minute", "ask: too many requests: 30 requests a minute (try again in 9 s)\n"),
        (400, {}, "messages: must be there", "ask: HTTP status 400: messages: must be there\n"),
    ],
)
def test_a_refusal_is_one_clear_sentence(spine: Spine, tools: str, *, status: int, headers: dict[str, str], message: str, sentence: str) -> None:
    spine.status, spine.headers = status, headers
    spine.lines = [json.dumps({"error": {"message": message, "type": "x", "code": status}})]
    said = ask(spine, tools, "What?")
    assert (said.returncode, said.stdout, said.stderr) == (1, "", sentence)


def test_an_answer_that_breaks_off_is_not_taken_for_a_whole_one(spine: Spine, tools: str) -> None:
    spine.lines = [event("half an")]
    said = ask(spine, tools, "What?")
    assert (said.returncode, said.stdout) == (1, "half an\n")
    assert "cut off" in said.stderr


def test_nobody_at_the_socket_and_no_socket_are_told_apart(spine: Spine, tools: str, tmp_path: Path) -> None:
    assert "not granted AI (manifest: ai = true" in ask(spine, tools, "x", ASK_SOCKET=str(tmp_path / "none")).stderr
    (tmp_path / "dead").touch()
    started = time.monotonic()
    said = ask(spine, tools, "x", ASK_SOCKET=str(tmp_path / "dead"))
    assert (said.returncode, "nobody answers" in said.stderr) == (1, True)
    assert time.monotonic() - started < 30


def test_wrong_use_is_told_before_anything_is_sent(spine: Spine, tools: str) -> None:
    assert ask(spine, tools).returncode == 2
    assert ask(spine, tools, "x", ASK_TOKENS="many").returncode == 2
    assert "ASK_TOKENS=N" in ask(spine, tools, "--help").stdout
    assert spine.asked is None
