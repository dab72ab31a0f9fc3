"""What of a request's JSON reaches the server: known keys with known kinds of values, written anew. Pure.

A key that would change what the answer means and is not offered is refused by name; one that means nothing here (`user`, `metadata`) is left
out. Nothing names a slot of the server, and `cache_prompt` is false: what one persona said is not kept for the next.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from bay0.umbilical.http import CHAT, Refusal, read_json

MESSAGES_MAX, STOPS_MAX, STOP_MAX, BIASES_MAX = 256, 8, 128, 256
TOKENS = 512  # of an answer, if the quota says nothing else
ROLES = ("system", "developer", "user", "assistant")
REFUSED = (
    "tools", "tool_choice", "functions", "function_call", "parallel_tool_calls", "grammar", "json_schema", "logprobs", "top_logprobs", "n_probs",
    "audio", "modalities", "suffix", "echo", "best_of", "lora", "id_slot", "slot_id", "input_prefix", "input_suffix", "images",
)  # fmt: skip
_MODEL = re.compile(r"[0-9A-Za-z._:/@+-]{1,128}")
_TOKEN = re.compile(r"[0-9]{1,7}")


def rebuild(path: str, body: bytes, tokens: int = TOKENS) -> bytes:
    """Return the body that the server gets for a POST to `path`. `Refusal` 400 says which key is wrong."""
    given = read_json(body)
    if not isinstance(given, dict):
        raise Refusal(400, "bad_json", "the body is a JSON object")
    given = {key: value for key, value in given.items() if value is not None}
    for key in REFUSED:
        if given.get(key):
            raise Refusal(400, "not_offered", f"{key} is not offered here")
    made: dict[str, Any] = {"messages": _messages(given)} if path == CHAT else {"prompt": _prompt(given)}
    for key, take in OPTIONS.items():
        if key in given:
            made[key] = take(key, given[key])
    made["max_tokens"] = min([tokens, *(_tokens(key, given[key]) for key in ("max_tokens", "max_completion_tokens") if key in given)])
    made["cache_prompt"] = False
    try:
        return json.dumps(made, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8")
    except ValueError:  # half a surrogate pair, which is no text
        raise Refusal(400, "bad_text", "a text holds half a surrogate pair") from None


def _wrong(key: str, wanted: str) -> Refusal:
    return Refusal(400, "bad_value", f"{key} must be {wanted}")


def _messages(given: dict[str, Any]) -> list[dict[str, str]]:
    messages = given.get("messages")
    if not isinstance(messages, list) or not 0 < len(messages) <= MESSAGES_MAX:
        raise _wrong("messages", f"a list of 1 to {MESSAGES_MAX} objects")
    return [_message(message) for message in messages]


def _message(message: Any) -> dict[str, str]:
    if not isinstance(message, dict) or message.get("role") not in ROLES:
        raise _wrong("messages", f"objects with a role ({', '.join(ROLES)}) and a content")
    if message.get("tool_calls"):
        raise Refusal(400, "not_offered", "tool_calls is not offered here")
    role = "system" if message["role"] == "developer" else message["role"]
    return {"role": role, "content": _content(message.get("content"))}


def _content(content: Any) -> str:
    """Take text alone: a server that is asked for a picture may fetch it from a file."""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(p, dict) and p.get("type") == "text" and isinstance(p.get("text"), str) for p in content):
        return "".join(part["text"] for part in content)
    raise _wrong("content", "a text, or a list of parts of type text")


def _prompt(given: dict[str, Any]) -> str:
    if not isinstance(given.get("prompt"), str):
        raise _wrong("prompt", "a text")
    return str(given["prompt"])


Take = Callable[[str, Any], Any]


def _number(low: float, high: float) -> Take:
    def take(key: str, value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise _wrong(key, f"a number from {low:g} to {high:g}")
        return value

    return take


def _integer(low: int, high: int) -> Take:
    def take(key: str, value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise _wrong(key, f"a whole number from {low} to {high}")
        return value

    return take


def _bool(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong(key, "true or false")
    return value


def _model(key: str, value: Any) -> str:
    if not isinstance(value, str) or not _MODEL.fullmatch(value):
        raise _wrong(key, "a name of up to 128 letters, digits and ._:/@+-")
    return value


def _stop(key: str, value: Any) -> list[str]:
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or len(stops) > STOPS_MAX or not all(isinstance(s, str) and 0 < len(s) <= STOP_MAX for s in stops):
        raise _wrong(key, f"a text, or up to {STOPS_MAX} of them, of up to {STOP_MAX} characters each")
    return stops


def _stream_options(key: str, value: Any) -> dict[str, bool]:
    if not isinstance(value, dict) or not isinstance(value.get("include_usage", False), bool):
        raise _wrong(key, '{"include_usage": true or false}')
    return {"include_usage": value.get("include_usage", False)}


def _logit_bias(key: str, value: Any) -> dict[str, float]:
    take = _number(-100, 100)
    if not isinstance(value, dict) or len(value) > BIASES_MAX or not all(_TOKEN.fullmatch(token) for token in value):
        raise _wrong(key, f"an object of up to {BIASES_MAX} token numbers with their biases")
    return {token: take(key, bias) for token, bias in value.items()}


def _response_format(key: str, value: Any) -> dict[str, str]:
    """Take no schema: it becomes a grammar in the server, and one can be made that takes for ever."""
    if not isinstance(value, dict) or value.get("type") not in ("text", "json_object"):
        raise _wrong(key, '{"type": "text"} or {"type": "json_object"}; a schema is not offered')
    return {"type": value["type"]}


_tokens = _integer(1, 1 << 31)
OPTIONS: dict[str, Take] = {
    "model": _model, "stream": _bool, "stream_options": _stream_options, "stop": _stop, "logit_bias": _logit_bias,
    "response_format": _response_format,
    "temperature": _number(0, 2), "top_p": _number(0, 1), "min_p": _number(0, 1), "top_k": _integer(0, 1000), "seed": _integer(0, (1 << 32) - 1),
    "presence_penalty": _number(-2, 2), "frequency_penalty": _number(-2, 2), "repeat_penalty": _number(0, 2), "n": _integer(1, 1),
}  # fmt: skip
