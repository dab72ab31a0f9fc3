"""What both ends of the control socket agree on: where it is, how long a frame may be, and what is a JSON-RPC 2.0 request."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

SOCKET = "/run/bay0/control.sock"
FRAME_MAX = 64 << 10  # bytes in one request
PARSE, INVALID = -32700, -32600  # codes of JSON-RPC 2.0, section 5.1
NO_JSON = "not JSON: send one JSON-RPC 2.0 object a line"
BATCH = "batches are not taken: send one request a line, each is answered as soon as it is done"


class FrameError(ValueError):
    """A frame that is no request. `code` is what JSON-RPC 2.0 calls that."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def read(line: bytes) -> dict[str, Any]:
    """Return the request in a line; one without "id" is a notification. `FrameError` for everything else.

    Stricter than Python's reader: UTF-8 only, no NaN, no Infinity (nor a number that would become one), no key twice, no half character. What
    passes can be written back, as an id is, and every other reader of JSON sees the same in it.
    """
    try:
        frame = json.loads(line.decode(), object_pairs_hook=_once, parse_constant=_no_constant, parse_float=_finite)
        if b"\\ud" in line.lower():
            json.dumps(frame, ensure_ascii=False).encode()
    except FrameError:
        raise
    except UnicodeEncodeError as half:
        raise FrameError(INVALID, "text holds half a character (a lone surrogate)") from half
    except (ValueError, RecursionError) as error:
        raise FrameError(PARSE, NO_JSON) from error
    fault = _fault(frame)
    if fault:
        raise FrameError(INVALID, fault)
    return frame  # type: ignore[no-any-return]


def _fault(frame: Any) -> str:
    if isinstance(frame, list):
        return BATCH
    if not isinstance(frame, dict):
        return "not a JSON-RPC 2.0 request: it is no object"
    if frame.get("jsonrpc") != "2.0":
        return 'not a JSON-RPC 2.0 request: "jsonrpc" must be "2.0"'
    if not isinstance(frame.get("method"), str):
        return 'not a JSON-RPC 2.0 request: "method" must be text'
    number = frame.get("id")  # it is sent back, so a nested one must not come in
    if isinstance(number, bool) or not isinstance(number, str | int | float | None):
        return 'not a JSON-RPC 2.0 request: "id" must be text, a number or null'
    return ""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise FrameError(INVALID, "an object holds a key twice: which of the two is meant cannot be known")
    return found


def _no_constant(word: str) -> NoReturn:
    raise ValueError(word)


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise FrameError(INVALID, "a number is too large")
    return number
