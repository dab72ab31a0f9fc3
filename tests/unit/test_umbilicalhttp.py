"""The umbilical's HTTP: strict, compared with h11; what is refused, and with which words; and every byte to the server is made anew."""

from __future__ import annotations

import contextlib
import itertools
import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from umbilicalkit import CHAT, head

from bay0.umbilical import body as umbilicaljson
from bay0.umbilical import http
from bay0.umbilical.http import AnswerReader, BadAnswerError, Refusal

BODY = b'{"messages":[{"role":"user","content":"hi"}]}'


def read(data: bytes) -> http.Head | None:
    """What we make of a client's bytes: a head, or None if more must come. `Refusal` as ever."""
    size = http.end_of_head(data)
    return http.parse_head(data[:size]) if size else None


def refused(data: bytes) -> tuple[int, str]:
    with pytest.raises(Refusal) as refusal:
        read(data)
    return refusal.value.status, refusal.value.code


# ---- what is accepted


def test_an_ordinary_request_is_read() -> None:
    assert read(head("Content-Length: 5", "User-Agent: curl/8", "Accept: */*")) == http.Head("POST", CHAT, 5, expects=False, old=False)
    assert read(b"GET /health HTTP/1.0\r\n\r\n") == http.Head("GET", "/health", 0, expects=False, old=True)
    assert read(head("content-length:  7 ", "EXPECT: 100-Continue")) == http.Head("POST", CHAT, 7, expects=True, old=False)


def test_a_head_that_is_not_whole_waits_for_more() -> None:
    whole = head("Content-Length: 5")
    for size in range(1, len(whole)):
        assert read(whole[:size]) is None


# ---- what is refused


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (head("Content-Length: 5", "Content-Length: 5"), (400, "bad_length")),
        (head("Content-Length: 5, 5"), (400, "bad_length")),
        (head("Content-Length: +5"), (400, "bad_length")),
        (head("Content-Length: 0x5"), (400, "bad_length")),
        (head("Content-Length: -1"), (400, "bad_length")),
        (head("Content-Length:"), (400, "bad_length")),
        (head("Content-Length: 99999999999999999999"), (400, "bad_length")),
        (head("Transfer-Encoding: chunked"), (501, "transfer_encoding")),
        (head("Transfer-Encoding: identity"), (501, "transfer_encoding")),
        (head("Content-Length: 5", "Transfer-Encoding: chunked"), (400, "transfer_encoding")),
        (head("Transfer-Encoding : chunked", "Content-Length: 5"), (400, "bad_header")),
        (head(), (411, "length_required")),
        (head("Content-Length: 5", "X: a\r\n folded"), (400, "bad_header")),
        (head("Content-Length: 5", "X: a\nY: b"), (400, "bad_header")),
        (head("Content-Length: 5", "X: a\rY: b"), (400, "bad_header")),
        (head("Content-Length: 5", "X: a\x00b"), (400, "bad_header")),
        (head("Content-Length: 5", "X: caf\xe9"), (400, "bad_header")),
        (head("Content-Length: 5", "X Y: z"), (400, "bad_header")),
        (head("Content-Length: 5", ": z"), (400, "bad_header")),
        (head("Content-Length: 5", "no colon"), (400, "bad_header")),
        (head("Content-Length: 5", host=None), (400, "bad_host")),
        (head("Content-Length: 5", "Host: other"), (400, "bad_host")),
        (head("Content-Length: 5", host="Host: a b"), (400, "bad_host")),
        (head("Content-Length: 5", "Expect: a miracle"), (417, "expectation_failed")),
        (head("Content-Length: 5", "Content-Encoding: gzip"), (415, "content_encoding")),
        (head("Content-Length: 5", *(f"X-{n}: 1" for n in range(63))), (431, "too_many_headers")),
        (head("Content-Length: 5", "X: " + "a" * http.HEAD_MAX), (431, "head_too_large")),
        (b"A" * (http.HEAD_MAX + 1), (431, "head_too_large")),
        (head("Content-Length: 5", request="GET /health HTTP/1.1"), (400, "unexpected_body")),
        (head(request="GET  /health HTTP/1.1"), (400, "bad_request")),
        (head(request="GET /health HTTP/1.1 "), (400, "bad_request")),
        (head(request="GET /health"), (400, "bad_request")),
        (head(request="get /health HTTP/1.1"), (400, "bad_request")),
        (head(request="GET /health HTTP/2.0"), (505, "http_version")),
        (b"\r\n" + head("Content-Length: 5"), (400, "bad_request")),
        (b"\x16\x03\x01\x02\x00\x01\x00", (400, "bad_request")),
        (head(request="GET /slots HTTP/1.1"), (404, "not_found")),
        (head(request="GET /v1/models?x=1 HTTP/1.1"), (404, "not_found")),
        (head(request="GET /v1/../slots HTTP/1.1"), (404, "not_found")),
        (head(request="GET //health HTTP/1.1"), (404, "not_found")),
        (head(request="GET http://ai/health HTTP/1.1"), (404, "not_found")),
        (head(request="CONNECT ai:80 HTTP/1.1"), (404, "not_found")),
        (head(request=f"GET {CHAT} HTTP/1.1"), (405, "method_not_allowed")),
        (head("Content-Length: 2", request="DELETE /v1/models HTTP/1.1"), (400, "unexpected_body")),
        (head(request="OPTIONS /v1/models HTTP/1.1"), (405, "method_not_allowed")),
    ],
)
def test_what_could_be_read_in_two_ways_or_is_not_offered_is_refused(data: bytes, wanted: tuple[int, str]) -> None:
    assert refused(data) == wanted


@pytest.mark.parametrize("path", ["/slots", "/props", "/metrics", "/tokenize", "/lora", "/completion", "/infill", "/v1/embeddings", "/", "*"])
def test_no_other_path_of_the_server_can_be_reached(path: str) -> None:
    for method in ("GET", "POST", "PUT"):
        assert refused(head("Content-Length: 0", request=f"{method} {path} HTTP/1.1"))[0] == 404


def test_an_error_is_as_openais_clients_know_it_and_says_when_to_come_back() -> None:
    answer = http.error(Refusal(503, "ai_paused", "the AI is paused", 6.6))
    top, _, body = answer.partition(b"\r\n\r\n")
    assert b"Retry-After: 7" in top
    assert b"Connection: close" in top
    assert json.loads(body) == {"error": {"message": "the AI is paused", "type": "unavailable_error", "param": None, "code": "ai_paused"}}


# ---- h11 as the judge


LINES = st.one_of(
    st.sampled_from([
        b"Host: ai", b"Content-Length: 5", b"Content-Length: 0", b"Content-Length: 5, 5", b"Transfer-Encoding: chunked", b"Expect: 100-continue",
        b"Connection: keep-alive", b"Connection: Upgrade", b"Upgrade: h2c", b" folded", b"\tfolded", b"X: a\nContent-Length: 9", b"X:\x00", b"X : y",
        b"content-length:\t5", b"X: \xff", b"", b"\r", b"X: a\r", b"Content-Length:5\x0b", b"Content-Length: 05", b"Host:", b"X:",
    ]),
    st.binary(max_size=30),
)  # fmt: skip
FIRSTS = st.one_of(
    st.sampled_from([
        b"POST /v1/chat/completions HTTP/1.1", b"GET /health HTTP/1.1", b"POST /v1/completions HTTP/1.0", b"GET /v1/models HTTP/1.1",
        b"GET /health HTTP/1.1\x0b", b"GET /health\tHTTP/1.1", b"", b"POST /v1/chat/completions HTTP/1.1 ",
    ]),
    st.binary(max_size=40),
)  # fmt: skip


GOOD = [
    (b"POST /v1/chat/completions HTTP/1.1", b"Host: ai", b"Content-Length: 5"), (b"POST /v1/completions HTTP/1.0", b"Content-Length: 5"),
    (b"GET /health HTTP/1.1", b"Host: ai"), (b"GET /v1/models HTTP/1.1", b"Host: ai", b"Accept: */*"),
]  # fmt: skip


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    """A good head, with lines that may be bad put in, and sometimes another beginning or another end of lines."""
    end = draw(st.sampled_from([b"\r\n"] * 9 + [b"\n"]))
    first, *lines = draw(st.sampled_from(GOOD))
    first = draw(st.one_of(st.just(first), st.just(first), FIRSTS))
    for line in draw(st.lists(LINES, max_size=3)):
        lines.insert(draw(st.integers(0, len(lines))), line)
    data = end.join([first, *lines, b"", b""])
    return data + draw(st.sampled_from([b"", b"{}{}{", b"GET /slots HTTP/1.1\r\nHost: ai\r\n\r\n"]))


def oracle(data: bytes) -> tuple[str, str, str, int, bool] | None:
    """What h11 makes of it: method, target, version, length of the body, whether it waits for 100."""
    h11 = pytest.importorskip("h11")
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    try:
        event = connection.next_event()
    except h11.RemoteProtocolError:
        return None
    if not isinstance(event, h11.Request):
        return None
    fields = dict(event.headers)
    assert b"transfer-encoding" not in fields, "two readers, two lengths"
    target, method, version = event.target.decode(), event.method.decode(), event.http_version.decode()
    return method, target, version, int(fields.get(b"content-length", b"0")), connection.they_are_waiting_for_100_continue


@settings(max_examples=1000)
@given(heads())
@example(head("Content-Length: 5"))
@example(head("Content-Length: 5", "Expect: 100-continue"))
@example(b"GET /health HTTP/1.0\r\n\r\n")
def test_whatever_we_accept_h11_accepts_and_reads_the_same(data: bytes) -> None:
    try:
        found = read(data)
    except Refusal:
        return
    if found is None:
        assert b"\r\n\r\n" not in data
        return
    version = "1.0" if found.old else "1.1"
    assert oracle(data) == (found.method, found.path, version, found.length, found.expects)


TEXTS = st.text(max_size=60)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
)
OTHERS = ("max_tokens", "max_completion_tokens", "cache_prompt", "user", "\r\n\r\nGET /slots")
KEYS = st.sampled_from([*umbilicaljson.OPTIONS, *umbilicaljson.REFUSED, *OTHERS])


@settings(max_examples=300)
@given(st.dictionaries(KEYS, JSON, max_size=5), st.one_of(TEXTS, st.just("a\r\n\r\nGET /slots HTTP/1.1\r\n\r\n"), JSON))
def test_what_is_forwarded_is_one_request_whatever_the_body_was(more: dict[str, Any], content: Any) -> None:
    h11 = pytest.importorskip("h11")
    given_body = json.dumps({"messages": [{"role": "user", "content": content}], **more}).encode()
    try:
        made = http.request(CHAT, umbilicaljson.rebuild(CHAT, given_body))
    except Refusal:
        return
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(made)
    request, events = connection.next_event(), []
    while (event := connection.next_event()) is not h11.PAUSED and event is not h11.NEED_DATA and not isinstance(event, h11.ConnectionClosed):
        events.append(event)
        if isinstance(event, h11.EndOfMessage):
            break
    assert (request.method, request.target) == (b"POST", CHAT.encode())
    assert isinstance(events[-1], h11.EndOfMessage)
    assert connection.trailing_data == (b"", False), "something is left that could be a second request"
    body = json.loads(b"".join(bytes(e.data) for e in events if isinstance(e, h11.Data)))
    assert body["cache_prompt"] is False
    assert set(body) <= {"messages", "max_tokens", "cache_prompt", *umbilicaljson.OPTIONS}
    assert 1 <= body["max_tokens"] <= umbilicaljson.TOKENS


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_bytes_that_are_no_request_make_nothing_but_a_refusal(data: bytes) -> None:
    with pytest.raises(Refusal):  # no bytes drawn blindly are a chat
        umbilicaljson.rebuild(CHAT, data)


# ---- JSON


def rebuilt(path: str = CHAT, **body: Any) -> dict[str, Any]:
    body = {"messages": [{"role": "user", "content": "hi"}], **body} if path == CHAT else body
    return dict(json.loads(umbilicaljson.rebuild(path, json.dumps(body).encode(), 100)))


def test_the_prompt_is_never_cached_and_no_slot_is_named() -> None:
    assert rebuilt(cache_prompt=True) == {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 100, "cache_prompt": False}
    for key in ("id_slot", "slot_id"):
        with pytest.raises(Refusal, match=f"{key} is not offered"):
            rebuilt(**{key: 1})
        assert key not in rebuilt(**{key: 0})


def test_what_an_answer_may_have_is_capped_and_what_is_known_goes_through() -> None:
    assert rebuilt(max_tokens=10**9)["max_tokens"] == 100
    assert rebuilt(max_completion_tokens=7, max_tokens=9)["max_tokens"] == 7
    kept = {"temperature": 0.5, "top_p": 1, "top_k": 40, "min_p": 0.1, "seed": 7, "stream": True, "stop": ["\n"], "model": "default", "n": 1}
    assert rebuilt(**kept, user="u", store=True, metadata={}).items() >= kept.items()
    assert not {"user", "store", "metadata"} & set(rebuilt(user="u", store=True, metadata={"a": 1}))
    assert rebuilt("/v1/completions", prompt="once")["prompt"] == "once"


def test_parts_of_text_become_one_text_and_a_developer_is_the_system() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert rebuilt(messages=[{"role": "developer", "content": parts, "name": "x"}])["messages"] == [{"role": "system", "content": "ab"}]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"messages": []}, "messages must be"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "with a role"),
        ({"messages": [{"role": "user", "content": None}]}, "content must be"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc/shadow"}}]}]}, "content must be"),
        ({"messages": [{"role": "user", "content": "x"}] * 257}, "messages must be"),
        ({"tools": [{}]}, "tools is not offered"),
        ({"grammar": "root ::= x"}, "grammar is not offered"),
        ({"response_format": {"type": "json_schema"}}, "a schema is not offered"),
        ({"n": 2}, "n must be"),
        ({"temperature": "hot"}, "temperature must be a number"),
        ({"temperature": True}, "temperature must be a number"),
        ({"stream": 1}, "stream must be true or false"),
        ({"stop": [""]}, "stop must be"),
        ({"max_tokens": 0}, "max_tokens must be"),
        ({"logit_bias": {"x": 1}}, "logit_bias must be"),
        ({"model": "../../etc\n"}, "model must be"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "half a surrogate"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_its_key(body: dict[str, Any], words: str) -> None:
    with pytest.raises(Refusal, match=words) as refusal:
        rebuilt(**body)
    assert refusal.value.status == 400


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"nonsense", b'{"a":NaN}', b'{"a":1e999,"messages":Infinity}', b"\xff\xfe", b"[" * 200000, b'{"a":' + b"9" * 5000 + b"}"]
)
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(Refusal) as refusal:
        umbilicaljson.rebuild(CHAT, body)
    assert refusal.value.status == 400


# ---- answers


def fed(*pieces: bytes) -> tuple[AnswerReader, bytes]:
    reader, body = AnswerReader(), b""
    for piece in pieces:
        body += reader.feed(piece)
    return reader, body


CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; a=b\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nT: 1\r\n\r\n"
SIZED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\nhello world"
CLOSED = b"HTTP/1.0 200 OK\r\n\r\nhello world"


@settings(max_examples=200)
@given(st.sampled_from([CHUNKED, SIZED, CLOSED]), st.lists(st.integers(0, 150), max_size=8))
def test_an_answer_reads_the_same_however_it_is_cut(answer: bytes, cuts: list[int]) -> None:
    at = sorted({0, *(cut for cut in cuts if cut < len(answer)), len(answer)})
    reader, body = fed(*(answer[a:b] for a, b in itertools.pairwise(at)))
    reader.ended()
    assert (reader.status, body, reader.done) == (200, b"hello world", True)


@settings(max_examples=300)
@given(st.sampled_from([CHUNKED, SIZED]), st.integers(0, 150))
def test_an_answer_that_was_cut_short_is_never_taken_for_a_whole_one(answer: bytes, cut: int) -> None:
    reader, _ = fed(answer[: min(cut, len(answer) - 1)])
    with pytest.raises(BadAnswerError):
        reader.ended()


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\nb\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabXX",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * (http.HEAD_MAX + 1),
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * http.HEAD_MAX,
    ],
)
def test_an_answer_that_could_be_read_in_two_ways_is_no_answer(answer: bytes) -> None:
    with pytest.raises(BadAnswerError):
        fed(answer)


def test_what_follows_an_answer_is_nobodys() -> None:
    assert fed(SIZED, b"HTTP/1.1 200 OK\r\n\r\nmore")[1] == b"hello world"


@settings(max_examples=300)
@given(st.lists(st.binary(max_size=20) | st.sampled_from([b"HTTP/1.1 200 OK\r\n", b"Content-Length: 3\r\n", b"\r\n", b"3\r\nabc\r\n"]), max_size=8))
def test_no_answer_makes_the_reader_stumble(pieces: list[bytes]) -> None:
    with contextlib.suppress(BadAnswerError):
        fed(*pieces)[0].ended()
