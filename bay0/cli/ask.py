"""`bay0 ask`: a question to the AI from the spine's console, by HTTP over its socket, in the command's own process."""

from __future__ import annotations

import http.client
import json
import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from bay0.base.errors import RefusedError, UsageError
from bay0.cli.grammar import Options
from bay0.cli.kit import DONE
from bay0.cli.text import on_terminal
from bay0.umbilical.places import CONSOLE

SILENCE_S = 300.0  # without a byte; a machine without KVM takes its time for a first token
TOKENS_MAX = 4096
QUESTION_MAX = 64 << 10  # characters
LINE_MAX = 1 << 20  # bytes of one event
WORDS = {
    403: "this process may not speak to it",
    404: "this version of the AI does not have that",
    413: "the question is too long",
    429: "too many questions; wait a minute",
    502: "the server ended in the middle of it",
    503: "it cannot answer now",
    504: "it took too long",
}
SHOW = "`bay0 tenant show ai` says more"


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("ai", timeout=SILENCE_S)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(SILENCE_S)
        self.sock.connect(self.path)


def ask(options: Options) -> int:
    """Ask, and print the answer."""
    if not 1 <= options.max_tokens <= TOKENS_MAX:
        raise UsageError(f"--max-tokens takes 1 to {TOKENS_MAX}")
    question = _question(options.question)
    if not question.strip():
        raise UsageError('say what to ask: bay0 ask "what is a state machine?"')
    if len(question) > QUESTION_MAX:
        raise UsageError(f"the question has more than {QUESTION_MAX} characters")
    began, first, texts = time.monotonic(), None, []
    result: dict[str, Any] = {"finish_reason": None}
    for event in _events(question, options.max_tokens):
        for choice in event.get("choices") or ():
            text = (choice.get("delta") or {}).get("content") or ""
            result["finish_reason"] = choice.get("finish_reason") or result["finish_reason"]
            if text:
                first = time.monotonic() - began if first is None else first
                texts.append(text)
                if not options.json:
                    print(_harmless(text), end="", flush=True)
        result["usage"] = event.get("usage") or result.get("usage")
    took = time.monotonic() - began
    if not options.json:
        print()
    else:
        whole = {"text": "".join(texts), **result, "first_token_s": first and round(first, 3), "took_s": round(took, 3)}
        print(json.dumps(whole, indent=2, ensure_ascii=False))
    if not texts:
        raise RefusedError(f"it gave an empty answer; {SHOW}")
    return DONE


def _question(words: Sequence[str]) -> str:
    try:
        question = " ".join(words) or ("" if sys.stdin.isatty() else sys.stdin.read(QUESTION_MAX + 1))
        question.encode()  # what was no text to begin with is half a character here
    except UnicodeError as error:
        raise UsageError("the question is not UTF-8 text") from error
    return question


def _harmless(text: str) -> str:
    """Return what a terminal will not obey; lines stay lines."""
    return "\n".join(on_terminal(line) for line in text.split("\n")) if sys.stdout.isatty() else text


def _events(question: str, tokens: int) -> Iterator[dict[str, Any]]:
    """Ask, and yield the events of the answer (server-sent events, one JSON object each)."""
    path = os.environ.get("BAY0_AI_SOCKET", CONSOLE)
    body = {"messages": [{"role": "user", "content": question}], "max_tokens": tokens, "stream": True}
    connection = _Connection(path)
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        if answer.status != http.client.OK:
            raise RefusedError(_refusal(answer.status, answer.getheader("Retry-After"), answer.read(LINE_MAX)))
        yield from _parsed(answer)
    except FileNotFoundError as error:
        raise RefusedError(f"there is no AI at {path}: it has not been started in this boot; {SHOW}") from error
    except PermissionError as error:
        raise RefusedError(f"{path}: only root may ask at the console") from error
    except TimeoutError as error:
        raise RefusedError(f"the AI said nothing for {SILENCE_S:g} s; {SHOW}") from error
    except (OSError, http.client.HTTPException) as error:
        raise RefusedError(f"the AI hung up ({type(error).__name__}: {error}); {SHOW}") from error
    finally:
        connection.close()


def _parsed(answer: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    done = False
    while line := answer.readline(LINE_MAX):
        data = line.strip().removeprefix(b"data:").strip() if line.startswith(b"data:") else b""
        if data == b"[DONE]":
            done = True
        elif data:
            try:
                event = json.loads(data)
            except ValueError as error:
                raise RefusedError(f"the AI sent something that makes no sense: {data[:80]!r}") from error
            if isinstance(event, dict) and event.get("error"):
                raise RefusedError(f"the AI failed in the middle of its answer: {_message(event) or 'no reason given'}")
            if isinstance(event, dict):
                yield event
    if not done:
        raise RefusedError(f"the answer was cut off; {SHOW}")


def _refusal(status: int, retry: str | None, body: bytes) -> str:
    """Say what a status means, in its own words too."""
    try:
        said = _message(json.loads(body))
    except ValueError:
        said = ""
    what = WORDS.get(status, f"it refused (HTTP {status})")
    again = f"; ask again in {retry} s" if retry and retry.isdigit() else ""
    return on_terminal(f"the AI did not answer: {what}" + (f": {said}" if said else "") + f"{again}; {SHOW}")


def _message(found: Any) -> str:
    error = found.get("error") if isinstance(found, dict) else None
    return str(error.get("message", "")) if isinstance(error, dict) else str(error or "")
