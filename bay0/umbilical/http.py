"""HTTP/1 as far as the umbilical speaks it: a strict reader of heads, and writers that make every byte anew. Pure.

Nothing of a client's head is passed on, and its body only as JSON that was read and written again from an allow-list (umbilicaljson.py), so
that no two readers can disagree about where a request ends. Grammar: RFC 9110, RFC 9112; what those only tolerate is refused.
"""

from __future__ import annotations

import json
import re
from typing import Any

from attrs import define, field, frozen

HEAD_MAX = 16 << 10  # bytes
HEADERS_MAX = 64
CHAT, COMPLETIONS, MODELS, HEALTH = "/v1/chat/completions", "/v1/completions", "/v1/models", "/health"
PATHS = {CHAT: "POST", COMPLETIONS: "POST", MODELS: "GET", HEALTH: "GET"}
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
REASONS = {
    200: "OK", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed", 408: "Request Timeout",
    411: "Length Required", 413: "Content Too Large", 415: "Unsupported Media Type", 417: "Expectation Failed", 422: "Unprocessable Content",
    429: "Too Many Requests", 431: "Request Header Fields Too Large", 500: "Internal Server Error", 501: "Not Implemented", 502: "Bad Gateway",
    503: "Service Unavailable", 504: "Gateway Timeout", 505: "HTTP Version Not Supported",
}  # fmt: skip
KINDS = ("application/json", "text/event-stream", "text/plain")  # of an answer's body; another is called octets

_REQUEST = re.compile(rb"([A-Z]{1,20}) ([\x21-\x7e]{1,4096}) HTTP/([0-9])\.([0-9])")
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*)?")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}):[ \t]*([\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?)?[ \t]*")
_HOST = re.compile(r"[0-9A-Za-z._~%!$&'()*+,;=:\[\]-]{0,255}")
_LENGTH = re.compile(r"[0-9]{1,9}")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,7})[ \t]*(?:;[\t\x20-\x7e]*)?")


class Refusal(Exception):  # noqa: N818 - it is an answer
    """A request is answered with an error, and the connection is closed."""

    def __init__(self, status: int, code: str, message: str, retry_s: float | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.retry_s = status, code, message, retry_s


class BadAnswerError(Exception):
    """The server's answer is not HTTP as it should be."""


@frozen
class Head:
    """A request's head. `length`: of the body, in bytes. `expects`: 100-continue is waited for. `old`: HTTP/1.0, which knows no chunks."""

    method: str
    path: str
    length: int
    expects: bool
    old: bool


def end_of_head(data: bytes | bytearray) -> int:
    """Return how many bytes the head in `data` has, 0 if it is not whole yet. `Refusal` 431 if it is too long, 400 if it cannot become one."""
    end = data.find(b"\r\n\r\n", 0, HEAD_MAX + 4)
    if (end < 0 and len(data) > HEAD_MAX) or end > HEAD_MAX - 4:
        raise Refusal(431, "head_too_large", f"a request's head may have {HEAD_MAX} bytes")
    if data[:1] and not 0x41 <= data[0] <= 0x5A:  # noqa: PLR2004 - A to Z: a TLS hello, an empty line, binary
        raise Refusal(400, "bad_request", "a request begins with its method, such as POST")
    return end + 4 if end >= 0 else 0


def parse_head(data: bytes) -> Head:
    """Read a whole head, the empty line included. `Refusal` says what is wrong."""
    lines = data.removesuffix(b"\r\n\r\n").split(b"\r\n")
    request = _REQUEST.fullmatch(lines[0])
    if request is None:
        raise Refusal(400, "bad_request", "the request line is not METHOD SP PATH SP HTTP/1.1")
    if request[3] != b"1":
        raise Refusal(505, "http_version", "HTTP/1.1 and HTTP/1.0 are spoken here")
    old = request[4] == b"0"
    fields = _fields(lines[1:])
    path, method = request[2].decode("ascii"), request[1].decode("ascii")
    _check_host(fields.get("host", []), old=old)
    length = _length(fields, method)
    expects = [value.lower() for value in fields.get("expect", [])]
    if expects and expects != ["100-continue"]:
        raise Refusal(417, "expectation_failed", "nothing can be expected but 100-continue")
    if any(value.lower() != "identity" for value in fields.get("content-encoding", [])):
        raise Refusal(415, "content_encoding", "send the body as it is, not compressed")
    if path not in PATHS:
        raise Refusal(404, "not_found", f"there is nothing here but {', '.join(PATHS)}")
    if method != PATHS[path]:
        raise Refusal(405, "method_not_allowed", f"{path} takes {PATHS[path]}")
    return Head(method, path, length, bool(expects) and not old, old)


def _fields(lines: list[bytes]) -> dict[str, list[str]]:
    if len(lines) > HEADERS_MAX:
        raise Refusal(431, "too_many_headers", f"a request may have {HEADERS_MAX} header lines")
    fields: dict[str, list[str]] = {}
    for line in lines:
        match = _FIELD.fullmatch(line)  # a folded line, a bare CR or LF, a NUL, a space before the colon: none of it matches
        if match is None:
            raise Refusal(400, "bad_header", "a header line is not NAME: VALUE in printable ASCII")
        fields.setdefault(match[1].decode("ascii").lower(), []).append((match[2] or b"").decode("ascii"))
    return fields


def _check_host(hosts: list[str], *, old: bool) -> None:
    if len(hosts) > 1 or (not hosts and not old):
        raise Refusal(400, "bad_host", "an HTTP/1.1 request has one Host header")
    if hosts and not _HOST.fullmatch(hosts[0]):
        raise Refusal(400, "bad_host", "the Host header is not a host")


def _length(fields: dict[str, list[str]], method: str) -> int:
    lengths = fields.get("content-length", [])
    if "transfer-encoding" in fields:  # two ways to say where a body ends are one too many
        raise Refusal(400 if lengths else 501, "transfer_encoding", "send the body with a Content-Length, not with Transfer-Encoding")
    if not lengths:
        if method == "POST":
            raise Refusal(411, "length_required", "say with Content-Length how long the body is")
        return 0
    if len(lengths) > 1 or not _LENGTH.fullmatch(lengths[0]):
        raise Refusal(400, "bad_length", "there is one Content-Length, and it is a number")
    if method != "POST" and int(lengths[0]):
        raise Refusal(400, "unexpected_body", "a body comes with POST only")
    return int(lengths[0])


def request(path: str, body: bytes | None = None) -> bytes:
    """Make the request that the server gets; `body` None is a GET."""
    lines = [f"{'GET' if body is None else 'POST'} {path} HTTP/1.1", "Host: ai", "Connection: close"]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + (body or b"")


def answer_head(status: int, kind: str, length: int | None, *, old: bool = False, more: tuple[str, ...] = ()) -> bytes:
    """Make an answer's head for a client; `length` None: in chunks, or for HTTP/1.0 until the connection closes."""
    kind = kind if kind in KINDS else "application/octet-stream"
    framing = f"Content-Length: {length}" if length is not None else "" if old else "Transfer-Encoding: chunked"
    lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}", f"Content-Type: {kind}", "Cache-Control: no-store", "Connection: close"]
    return "\r\n".join([*lines, *more, *([framing] if framing else []), "", ""]).encode("ascii")


def error_body(status: int, code: str, message: str) -> bytes:
    """Make an error as OpenAI's clients know it."""
    kinds = {403: "permission_error", 404: "not_found_error", 429: "rate_limit_error", 503: "unavailable_error"}
    kind = kinds.get(status, "invalid_request_error" if status < 500 else "server_error")  # noqa: PLR2004 - HTTP's own border
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}}).encode()


def error(refusal: Refusal) -> bytes:
    """Make the whole answer to a request that is refused."""
    body = error_body(refusal.status, refusal.code, refusal.message)
    more = (f"Retry-After: {max(1, round(refusal.retry_s))}",) if refusal.retry_s is not None else ()
    return answer_head(refusal.status, KINDS[0], len(body), more=more) + body


def chunk(data: bytes) -> bytes:
    """Frame a piece of a body; b"" makes the last one."""
    return b"%x\r\n%b\r\n" % (len(data), data)


@define(eq=False, repr=False)
class AnswerReader:
    """Reads the server's answer piece by piece. `feed` and `ended` raise `BadAnswerError`."""

    status: int = 0
    kind: str = ""
    length: int | None = None  # of the body, if the head says it
    done: bool = False
    _chunked: bool = False
    _left: int = 0  # of the body, or of the chunk being read
    _trailer: bool = False
    _inbox: bytearray = field(factory=bytearray)

    def feed(self, data: bytes) -> bytes:
        """Take what came, and return what of the body is known now."""
        self._inbox += data
        while not self.status:
            if not self._read_head():
                return b""
        return self._body()

    def ended(self) -> None:
        """Take the end of the connection: good if the body ends with it, or has ended."""
        if not self.status or (not self.done and (self._chunked or self.length is not None)):
            raise BadAnswerError("it closed the connection in the middle of its answer")
        self.done = True

    def _read_head(self) -> bool:
        end = self._inbox.find(b"\r\n\r\n", 0, HEAD_MAX)
        if end < 0:
            if len(self._inbox) > HEAD_MAX:
                raise BadAnswerError(f"its head is longer than {HEAD_MAX} bytes")
            return False
        lines = bytes(self._inbox[:end]).split(b"\r\n")
        del self._inbox[: end + 4]
        status = _STATUS.fullmatch(lines[0])
        try:
            fields = _fields(lines[1:])
        except Refusal as refusal:
            raise BadAnswerError(refusal.message) from None
        if status is None:
            raise BadAnswerError("it does not begin with a status line")
        if int(status[1]) == 100:  # noqa: PLR2004 - Continue: the answer itself follows
            return True
        self._framing(fields)
        self.kind = fields.get("content-type", [""])[0].partition(";")[0].strip().lower()
        self.status = int(status[1])
        return True

    def _framing(self, fields: dict[str, list[str]]) -> None:
        lengths, codings = fields.get("content-length", []), fields.get("transfer-encoding", [])
        if codings and (lengths or [c.lower() for c in codings] != ["chunked"]):
            raise BadAnswerError("how its body ends is not clear")
        if len(lengths) > 1 or (lengths and not _LENGTH.fullmatch(lengths[0])):
            raise BadAnswerError("its Content-Length is no number")
        self._chunked = bool(codings)
        if lengths:
            self.length = self._left = int(lengths[0])
            self.done = self.length == 0

    def _body(self) -> bytes:
        if self.done:
            return b""
        if not self._chunked:
            data = bytes(self._inbox if self.length is None else self._inbox[: self._left])
            self._inbox.clear()  # more than it announced is nobody's
            self._left -= len(data)
            self.done = self.length is not None and self._left == 0
            return data
        pieces = []
        while not self.done and (piece := self._chunk()) is not None:
            pieces.append(piece)
        return b"".join(pieces)

    def _chunk(self) -> bytes | None:
        """Return a piece of the chunk being read, b"" at a border, None when more must come first."""
        if self._left > 2:  # noqa: PLR2004 - what is left includes the chunk's CR LF
            piece = bytes(self._inbox[: self._left - 2])
            del self._inbox[: len(piece)]
            self._left -= len(piece)
            return piece or None
        if self._left:
            if len(self._inbox) < self._left:
                return None
            if self._inbox[: self._left] != b"\r\n"[-self._left :]:
                raise BadAnswerError("a chunk does not end where it said")
            del self._inbox[: self._left]
            self._left = 0
        return self._chunk_head()

    def _chunk_head(self) -> bytes | None:
        end = self._inbox.find(b"\r\n", 0, HEAD_MAX)
        if end < 0:
            if len(self._inbox) > HEAD_MAX:
                raise BadAnswerError("a chunk's head is too long")
            return None
        line = bytes(self._inbox[:end])
        del self._inbox[: end + 2]
        if self._trailer:  # header lines after the last chunk, until an empty one: nobody gets them
            self.done = not line
            return b""
        size = _CHUNK.fullmatch(line)
        if size is None:
            raise BadAnswerError("a chunk does not begin with its size")
        self._left = int(size[1], 16) + 2
        if self._left == 2:  # noqa: PLR2004 - the last one
            self._left, self._trailer = 0, True
        return b""


def read_json(data: bytes) -> Any:
    """Read JSON, and nothing that only Python takes for it. `Refusal` 400."""
    try:
        return json.loads(data.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as failure:
        raise Refusal(400, "bad_json", f"the body is not JSON: {str(failure)[:100]}") from None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
