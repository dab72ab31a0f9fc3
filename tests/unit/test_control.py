"""The control socket: every frame gets its answer, and no client can stall, swell or end PID 1."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from kit import Log, descriptors_kept, until

from bay0.base.errors import RefusedError
from bay0.boot.runfiles import RunFiles
from bay0.cli import rpc
from bay0.cli.nospine import on_spine, what_helps
from bay0.control import answers, wire
from bay0.control import server as control
from bay0.control.answers import Listing
from bay0.control.clients import LISTEN_MAX, UNDER_WAY_MAX
from bay0.control.server import CLIENTS_MAX, ControlServer
from bay0.control.wire import FRAME_MAX
from bay0.pid1.reactor import Reactor


class Client:
    """A client that does nothing by itself."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.peer.connect(server.path)
        self.peer.setblocking(False)
        self.inbox = b""

    def send(self, *requests: dict[str, Any]) -> Client:
        return self.send_bytes(b"".join(json.dumps({"jsonrpc": "2.0", **request}).encode() + b"\n" for request in requests))

    def send_bytes(self, data: bytes) -> Client:
        while data:
            try:
                data = data[self.peer.send(data) :]
            except BlockingIOError:
                self.server.turn()
        return self

    def look(self) -> list[dict[str, Any]]:
        """What has arrived so far."""
        while True:
            try:
                data = self.peer.recv(1 << 20)
            except BlockingIOError:
                break
            if not data:
                break
            self.inbox += data
        return [json.loads(line) for line in self.inbox.split(b"\n")[:-1]]

    def answers(self, count: int = 1) -> list[dict[str, Any]]:
        until(lambda: len(self.look()) >= count, f"{count} answers", step=self.server.turn)
        for _ in range(3):
            self.server.turn()
        assert len(self.look()) == count
        return self.look()

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self.inbox = b""
        return self.send({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).answers()[0]

    @property
    def cut_off(self) -> bool:
        try:
            while data := self.peer.recv(1 << 20):
                self.inbox += data
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True
        return True


class Server:
    """A server with a few methods, turned by hand."""

    def __init__(self, path: str, uids: frozenset[int]) -> None:
        self.path = path
        self.log = Log()
        self.reactor = Reactor()
        self.later: list[Callable[[Any], None]] = []
        self.control = ControlServer(self.reactor, self.log, {
            "echo": lambda params, reply: reply(dict(params)),
            "big": lambda params, reply: reply("x" * int(params["size"])),
            "later": lambda _params, reply: self.later.append(reply),
            "refuse": lambda _params, reply: reply(RefusedError("it is not the time")),
            "decline": self.decline, "wrong": self.wrong, "broken": self.broken,
        }, path=path, uids=uids)  # fmt: skip
        self.control.open()

    def decline(self, _params: Mapping[str, Any], _reply: Any) -> None:
        raise RefusedError("no")

    def wrong(self, params: Mapping[str, Any], reply: Any) -> None:
        reply(params["machine"])

    def broken(self, _params: Mapping[str, Any], _reply: Any) -> None:
        raise ZeroDivisionError("a defect")

    def turn(self) -> None:
        self.reactor.turn(0.01)

    def client(self) -> Client:
        made = Client(self)
        self.turn()
        return made


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(str(tmp_path / "run" / "control.sock"), frozenset({os.getuid()}))


# ---- framing


def test_a_request_is_answered_under_its_id(server: Server) -> None:
    answer = server.client().send({"jsonrpc": "2.0", "id": "a-7", "method": "echo", "params": {"x": 1}}).answers()[0]
    assert answer == {"jsonrpc": "2.0", "id": "a-7", "result": {"x": 1}}


def test_params_may_be_left_out(server: Server) -> None:
    assert server.client().send({"jsonrpc": "2.0", "id": 1, "method": "echo"}).answers()[0]["result"] == {}


def test_many_requests_in_one_packet_are_answered_in_order(server: Server) -> None:
    requests = [{"jsonrpc": "2.0", "id": number, "method": "echo", "params": {"n": number}} for number in range(200)]
    answers = server.client().send(*requests).answers(200)
    assert [answer["result"]["n"] for answer in answers] == list(range(200))


def test_a_request_may_arrive_byte_by_byte(server: Server) -> None:
    client = server.client()
    for byte in b'{"jsonrpc":"2.0","id":1,"method":"echo","params":{"x":"\xc3\xa4"}}\r\n':
        client.send_bytes(bytes([byte]))
        server.turn()
    assert client.answers()[0]["result"] == {"x": "ä"}


def test_empty_lines_are_skipped(server: Server) -> None:
    client = server.client().send_bytes(b"\n  \n\r\n")
    assert client.send({"id": 1, "method": "echo"}).answers()[0]["result"] == {}


def test_a_frame_of_64_kib_is_taken(server: Server) -> None:
    request = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "echo", "params": {"x": ""}}).encode()
    text = b"y" * (FRAME_MAX - len(request))
    answer = server.client().send_bytes(request.replace(b'""', b'"' + text + b'"') + b"\n").answers()[0]
    assert len(answer["result"]["x"]) == len(text)


@pytest.mark.parametrize("ends", [b"\n", b""])
def test_a_longer_frame_is_refused_and_the_client_cut_off(server: Server, ends: bytes) -> None:
    client = server.client().send_bytes(b"z" * (FRAME_MAX + 1) + ends)
    assert client.answers()[0]["error"]["message"] == "a frame is at most 65536 bytes"
    until(lambda: client.cut_off, step=server.turn)


def test_a_client_that_is_being_cut_off_cannot_make_us_swell(server: Server) -> None:
    """Its answers are not read, so its end waits; meanwhile it must not be listened to any more."""
    client = server.client()
    for _ in range(7):
        client.send({"id": 1, "method": "big", "params": {"size": 100000}})
    client.send_bytes(b"z" * (FRAME_MAX + 1))
    for _ in range(20):
        server.turn()
    held = next(iter(server.control._clients), None)
    for _ in range(200):
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            client.peer.send(b"z" * 65536)
        server.turn()
    assert held is not None
    assert len(held.inbox) <= 2 * FRAME_MAX
    until(lambda: client.cut_off, step=server.turn)


@pytest.mark.parametrize("text", [b"not json", b"{", b'"\xff"', b"[" * 60000, b"nul\0"])
def test_what_is_no_json_is_answered_with_a_parse_error(server: Server, text: bytes) -> None:
    client = server.client().send_bytes(text + b"\n")
    answer = client.answers()[0]
    assert (answer["id"], answer["error"]["code"]) == (None, wire.PARSE)
    client.inbox = b""
    assert client.send({"id": 2, "method": "echo"}).answers()[0]["id"] == 2, "and it may go on"


REQUEST = {"jsonrpc": "2.0", "id": 1, "method": "echo"}


@pytest.mark.parametrize(
    "frame",
    [
        1, "text", None, {}, {"jsonrpc": "2.0", "id": 1}, {**REQUEST, "method": 5}, {"id": 1, "method": "echo"},
        {**REQUEST, "jsonrpc": "1.0"}, {**REQUEST, "jsonrpc": 2.0}, {**REQUEST, "jsonrpc": None}, {**REQUEST, "id": True},
        {**REQUEST, "id": "\ud800"}, {**REQUEST, "params": {"x": ["\udfff"]}},
    ],
)  # fmt: skip
def test_json_that_is_no_request_is_invalid(server: Server, frame: Any) -> None:
    answer = server.client().send_bytes(json.dumps(frame).encode() + b"\n").answers()[0]
    assert (answer["id"], answer["error"]["code"]) == (None, wire.INVALID)


@pytest.mark.parametrize("number", [{}, [1], [[[]]]])
def test_an_id_that_is_no_name_or_number_is_invalid(server: Server, number: Any) -> None:
    answer = server.client().send({"id": number, "method": "echo"}).answers()[0]
    assert (answer["id"], answer["error"]["code"]) == (None, wire.INVALID)


def test_an_id_nested_as_deep_as_json_allows_does_not_end_pid_1(server: Server) -> None:
    """It can be read; to write it back once failed in the reactor, that is, in PID 1."""
    for depth in (*range(900, 1000, 2), 5000, 20000):
        client = server.client()
        nested = b"[" * depth + b"]" * depth
        client.send_bytes(b'{"jsonrpc":"2.0","id":' + nested + b',"method":"none"}\n')
        client.send_bytes(b'{"jsonrpc":"2.0","id":1,"method":"echo","params":' + nested + b"}\n")
        assert [answer["id"] for answer in client.answers(2)] in ([None, 1], [None, None])
        client.peer.close()
        server.turn()


# ---- the examples of the JSON-RPC 2.0 specification (jsonrpc.org/specification, section 7)

INVALID_ANSWER, PARSE_ANSWER = (None, wire.INVALID), (None, wire.PARSE)
ONE_IN_A_BATCH = '{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"}'
EXAMPLES: dict[str, tuple[str, Any]] = {
    # what we differ in: params are named, never an array, so a call by position is a well-formed request with params that will not do
    "positional parameters": ('{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}', (1, control.PARAMS)),
    "positional parameters, the other way round": ('{"jsonrpc": "2.0", "method": "subtract", "params": [23, 42], "id": 2}', (2, control.PARAMS)),
    "named parameters": ('{"jsonrpc": "2.0", "method": "subtract", "params": {"subtrahend": 23, "minuend": 42}, "id": 3}', (3, 19)),
    "named parameters, in another order": ('{"jsonrpc": "2.0", "method": "subtract", "params": {"minuend": 42, "subtrahend": 23}, "id": 4}', (4, 19)),
    "a notification": ('{"jsonrpc": "2.0", "method": "update", "params": [1,2,3,4,5]}', None),
    "a notification without params, of no method": ('{"jsonrpc": "2.0", "method": "foobar"}', None),
    "a method that is not there": ('{"jsonrpc": "2.0", "method": "foobar", "id": "1"}', ("1", control.NO_METHOD)),
    "invalid JSON": ('{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]', PARSE_ANSWER),
    "an invalid request": ('{"jsonrpc": "2.0", "method": 1, "params": "bar"}', INVALID_ANSWER),
    # what we refuse: a batch, whatever is in it, is one invalid request; requests one a line do the same
    "a batch of invalid JSON": ('[{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"}, {"jsonrpc": "2.0", "method"]', PARSE_ANSWER),
    "an empty batch": ("[]", INVALID_ANSWER),
    "a batch that is invalid": ("[1]", INVALID_ANSWER),
    "a batch of three that are invalid": ("[1,2,3]", INVALID_ANSWER),
    "a batch of requests": (f'[{ONE_IN_A_BATCH}, {{"jsonrpc": "2.0", "method": "get_data", "id": "9"}}]', INVALID_ANSWER),
    "a batch of notifications": ('[{"jsonrpc": "2.0", "method": "notify_sum", "params": [1,2,4]}]', INVALID_ANSWER),
    # what the specification has no example of
    "an id that is null": ('{"jsonrpc": "2.0", "method": "none", "id": null}', (None, control.NO_METHOD)),
    "an id that is NaN": ('{"jsonrpc": "2.0", "method": "none", "id": NaN}', PARSE_ANSWER),
    "an id that is Infinity": ('{"jsonrpc": "2.0", "method": "none", "id": -Infinity}', PARSE_ANSWER),
    "an id that would become Infinity": ('{"jsonrpc": "2.0", "method": "none", "id": 1e999}', INVALID_ANSWER),
    "an id with a fraction": ('{"jsonrpc": "2.0", "method": "none", "id": 1.5}', (1.5, control.NO_METHOD)),
    "an id of 4,000 digits": ('{"jsonrpc": "2.0", "method": "none", "id": ' + "9" * 4000 + "}", (10**4000 - 1, control.NO_METHOD)),
    "an id of 5,000 digits": ('{"jsonrpc": "2.0", "method": "none", "id": ' + "9" * 5000 + "}", PARSE_ANSWER),
    "params that are NaN": ('{"jsonrpc": "2.0", "method": "none", "params": {"x": NaN}, "id": 1}', PARSE_ANSWER),
    "a key twice": ('{"jsonrpc": "2.0", "method": "none", "method": "subtract", "id": 1}', INVALID_ANSWER),
    "a key twice in the params": ('{"jsonrpc": "2.0", "method": "none", "params": {"a": {"x": 1, "x": 1}}, "id": 1}', INVALID_ANSWER),
    "no version": ('{"method": "none", "id": 1}', INVALID_ANSWER),
    "a notification without a version": ('{"method": "none"}', INVALID_ANSWER),
    "a byte order mark": ('\ufeff{"jsonrpc": "2.0", "method": "none", "id": 1}', PARSE_ANSWER),
    "two in a line": (f"{ONE_IN_A_BATCH}{ONE_IN_A_BATCH}", PARSE_ANSWER),
}


def _no_constant(word: str) -> Any:
    raise AssertionError(f"{word} is no JSON")


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_of_the_specification_are_answered_as_it_says_or_as_we_document(server: Server, name: str) -> None:
    text, wanted = EXAMPLES[name]
    server.control.methods["subtract"] = lambda params, reply: reply(params["minuend"] - params["subtrahend"])
    client = server.client().send_bytes(text.encode() + b"\n").send({"id": "last", "method": "echo"})
    until(lambda: [answer["id"] for answer in client.look()][-1:] == ["last"], step=server.turn)
    answers = [json.loads(line, parse_constant=_no_constant) for line in client.inbox.splitlines()][:-1]
    if wanted is None:
        assert answers == []
    else:
        assert [(answer["id"], answer.get("result", answer.get("error", {}).get("code"))) for answer in answers] == [wanted]
        assert answers[0]["jsonrpc"] == "2.0"
        assert ("result" in answers[0]) != ("error" in answers[0])
    assert rpc._is_answered(text.encode()) is (wanted is not None), "`bay0 rpc` waits for as many answers as there will be"


def test_an_answer_that_cannot_be_said_in_json_is_an_internal_error(server: Server) -> None:
    round_and_round: dict[str, Any] = {}
    round_and_round["x"] = round_and_round
    for number, result in enumerate((float("nan"), [float("inf")], round_and_round, {("a", "b"): 1})):
        server.control.methods["odd"] = lambda _params, reply, result=result: reply(result)
        answer = server.client().send({"id": number, "method": "odd"}).answers()[0]
        assert (answer["id"], answer["error"]["code"]) == (number, control.INTERNAL)


# ---- methods


def test_an_unknown_method_is_named(server: Server) -> None:
    error = server.client().call("reticulate")["error"]
    assert error == {"code": control.NO_METHOD, "message": "no method 'reticulate'"}


@pytest.mark.parametrize("params", [[], "x", 5, None])
def test_params_that_are_no_object_are_refused(server: Server, params: Any) -> None:
    answer = server.client().send({"id": 1, "method": "echo", "params": params}).answers()[0]
    assert answer["error"]["code"] == control.PARAMS


def test_a_method_may_answer_later_while_others_are_served(server: Server) -> None:
    slow, quick = server.client(), server.client()
    slow.send({"id": 1, "method": "later"})
    assert quick.call("echo")["result"] == {}
    assert slow.look() == []
    server.later.pop()("done")
    assert slow.answers()[0]["result"] == "done"


def test_who_asks_before_a_method_is_loaded_is_answered_in_the_order_of_asking(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "bay0.validate.verdict", raising=False)
    server.control.takes = {"echo": ("bay0.personas.tomllines", "bay0.validate.verdict")}
    first, second = server.client(), server.client()
    first.send({"id": 1, "method": "echo"}, {"id": 2, "method": "echo"}, {"id": 3, "method": "refuse"})
    second.send({"id": 4, "method": "echo"})
    assert [answer["id"] for answer in first.answers(3)] == [3, 1, 2], "what needs nothing does not wait"
    assert second.answers()[0]["id"] == 4
    assert "bay0.validate.verdict" in sys.modules


def test_a_method_whose_modules_cannot_be_loaded_is_asked_all_the_same(server: Server) -> None:
    server.control.takes = {"echo": ("bay0.not_there",)}
    client = server.client()
    assert client.call("echo")["result"] == {} == client.call("echo")["result"]


def test_an_answer_to_a_client_that_has_gone_is_dropped(server: Server) -> None:
    client = server.client().send({"id": 1, "method": "later"})
    until(lambda: server.later, step=server.turn)
    client.peer.close()
    server.turn()
    server.later.pop()("nobody hears this")
    assert server.client().call("echo")["result"] == {}


@pytest.mark.parametrize(
    ("method", "code", "message"),
    [
        ("refuse", control.DECLINED, "it is not the time"),
        ("decline", control.DECLINED, "no"),
        ("wrong", control.PARAMS, "KeyError: 'machine'"),
        ("broken", control.INTERNAL, "internal error; see `bay0 log`"),
    ],
)
def test_a_method_that_raises_is_answered_and_does_not_end_the_server(server: Server, method: str, code: int, message: str) -> None:
    client = server.client()
    assert client.call(method)["error"] == {"code": code, "message": message}
    assert client.call("echo")["result"] == {}
    assert ("method failed" in server.log.events()) is (method == "broken")


@pytest.mark.parametrize("method", ["echo", "refuse", "decline", "wrong", "broken", "no_such_method"])
def test_a_notification_is_never_answered(server: Server, method: str) -> None:
    client = server.client().send({"jsonrpc": "2.0", "method": method}, {"jsonrpc": "2.0", "id": 9, "method": "echo"})
    assert [answer["id"] for answer in client.answers()] == [9]


# ---- clients


def test_a_client_that_does_not_read_is_not_listened_to_and_others_are_served(server: Server) -> None:
    greedy, other = server.client(), server.client()
    for _ in range(40):
        with contextlib.suppress(BlockingIOError):
            greedy.peer.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "big", "params": {"size": 100_000}}).encode() + b"\n")
        server.turn()
    held = max(each.outbox.waiting for each in server.control._clients)
    assert 0 < held < LISTEN_MAX + 110_000
    assert other.call("echo")["result"] == {}
    assert len(greedy.answers(40)) == 40, "and when it reads it gets everything"


def test_a_client_that_does_not_read_what_it_asked_for_before_is_cut_off(server: Server) -> None:
    greedy, other = server.client(), server.client()
    greedy.send(*({"id": number, "method": "later"} for number in range(200)))
    until(lambda: len(server.later) == 200, step=server.turn)
    for reply in server.later:
        reply("x" * 50_000)
        held = max((each.outbox.waiting for each in server.control._clients), default=0)
        assert held <= control.BACKLOG_MAX + 51_000
    assert server.log.of("control client cut off") == [{"why": "it does not read its answers"}]
    assert other.call("echo")["result"] == {}
    assert len(server.control._clients) == 1


@pytest.mark.parametrize("size", [control.BACKLOG_MAX - 100, 3 << 20])
def test_one_answer_is_never_too_large_for_a_client_that_reads(server: Server, size: int) -> None:
    assert len(server.client().call("big", size=size)["result"]) == size


def listed(server: Server, items: int, size: int = 3500) -> list[int]:
    """Offer a method with a listing, and return which items have been made so far."""
    made: list[int] = []

    def item(number: int) -> str:
        made.append(number)
        return f"{number:<{size}}"

    server.control.methods["list"] = lambda _params, reply: reply(Listing(item(number) for number in range(items)))
    return made


def test_a_listing_of_any_length_reaches_a_client_that_reads_and_never_waits_whole(server: Server) -> None:
    made = listed(server, 3000)
    client, most = server.client(), 0
    client.send({"id": 7, "method": "list"}, {"id": 8, "method": "echo"})
    while len(found := client.look()) < 2:
        server.turn()
        most = max(most, *(each.outbox.waiting for each in server.control._clients))
    assert [int(item) for item in found[0]["result"]] == list(range(3000))
    assert [answer["id"] for answer in found] == [7, 8]
    assert len(client.inbox) > 2 * control.BACKLOGS_MAX
    assert most <= 2 * answers.AHEAD + 3600
    assert made == list(range(3000))


def test_a_listing_is_made_only_as_far_as_it_is_taken_and_no_turn_makes_much_of_it(server: Server) -> None:
    made = listed(server, 3000)
    client = server.client().send({"id": 7, "method": "list"})
    turns = []
    for _ in range(50):
        before = len(made)
        server.turn()
        turns.append(len(made) - before)
    assert 0 < len(made) < 300, "what the socket holds, and a little"
    client.look()
    server.turn()
    assert max(turns) <= 2 * answers.AHEAD // 3500 + 2
    client.peer.close()
    until(lambda: not server.control._clients, step=server.turn)
    assert len(made) < 600


@pytest.mark.parametrize("around", [{}, {"a": 1, "b": [2]}])
@pytest.mark.parametrize("items", [0, 1, 3])
def test_a_listing_is_the_json_that_it_stands_for(server: Server, around: dict[str, Any], items: int) -> None:
    rows = [{"n": number, "text": 'ä"\\'} for number in range(items)]
    server.control.methods["list"] = lambda _params, reply: reply(Listing(iter(rows)))
    server.control.methods["within"] = lambda _params, reply: reply(Listing(iter(rows), around, "rows"))
    client = server.client()
    assert client.call("list")["result"] == rows
    assert client.call("within")["result"] == {**around, "rows": rows}
    assert list(client.call("within")["result"]) == [*around, "rows"]


def test_a_defect_in_the_middle_of_a_listing_ends_its_client_and_nobody_else(server: Server) -> None:
    server.control.methods["list"] = lambda _params, reply: reply(Listing(1 // (3 - number) for number in range(9)))
    client, other = server.client(), server.client()
    client.send({"id": 1, "method": "list"})
    until(lambda: client.cut_off, step=server.turn)
    assert server.log.of("answer not finished")[0]["why"].startswith("ZeroDivisionError")
    assert other.call("echo")["result"] == {}


def test_what_is_large_and_comes_later_is_done_one_at_a_time_for_each_client(server: Server) -> None:
    server.control.alone = frozenset({"later"})
    client, other = server.client(), server.client()
    client.send(*({"id": number, "method": "later"} for number in range(3)), {"id": 3, "method": "echo"})
    other.send({"id": 9, "method": "later"})
    for wanted in (2, 1, 1):
        until(lambda wanted=wanted: len(server.later) == wanted, step=server.turn)
        for _ in range(5):
            server.turn()
        assert len(server.later) == wanted
        for reply in [server.later.pop() for _ in range(len(server.later))]:
            reply("x")
    assert [answer["id"] for answer in client.answers(4)] == [0, 1, 2, 3]
    assert other.answers()[0]["id"] == 9


def test_a_slow_reader_gets_everything_in_the_end(server: Server) -> None:
    client = server.client()
    client.send(*({"id": number, "method": "big", "params": {"size": 80000}} for number in range(10)))
    for _ in range(10):
        server.turn()
    assert [answer["id"] for answer in client.answers(10)] == list(range(10))


def test_one_clients_flood_leaves_turns_to_the_others(server: Server) -> None:
    flood, other = server.client(), server.client()
    frame = b'{"jsonrpc":"2.0","method":"echo"}\n'
    flood.peer.send(frame * (60000 // len(frame)))
    other.send({"id": 1, "method": "echo"})
    turns = 0
    while not other.look():
        server.turn()
        turns += 1
    assert turns <= 4
    assert server.control.served < 60000 // len(frame), "the flood is not through yet"
    until(lambda: server.control.served == 60000 // len(frame) + 1, step=server.turn)


def test_when_all_places_are_taken_who_was_idle_for_longest_gives_way(server: Server) -> None:
    clients = [server.client() for _ in range(CLIENTS_MAX)]
    assert clients[0].call("echo")["result"] == {}
    late = server.client()
    assert late.call("echo")["result"] == {}
    until(lambda: clients[1].cut_off, step=server.turn)
    assert [client.cut_off for client in clients[2:]] == [False] * (CLIENTS_MAX - 2)
    assert clients[0].call("echo")["result"] == {}, "it had asked something"
    assert server.log.of("control client cut off") == [{"why": "it was idle and its place was needed"}]


def test_a_client_whose_request_is_under_way_never_gives_way_and_who_comes_too_much_is_told(server: Server) -> None:
    clients = [server.client().send({"id": number, "method": "later"}) for number in range(CLIENTS_MAX)]
    until(lambda: len(server.later) == CLIENTS_MAX, step=server.turn)
    late = server.client()
    assert late.answers()[0]["error"]["message"] == control.FULL
    until(lambda: late.cut_off, step=server.turn)
    assert server.log.of("control client refused")[0]["clients"] == CLIENTS_MAX
    server.later[0]("done")
    assert clients[0].answers()[0]["result"] == "done"
    assert server.client().call("echo")["result"] == {}


def test_a_flood_of_clients_is_one_line_of_the_log(server: Server) -> None:
    clients = [server.client() for _ in range(3 * CLIENTS_MAX)]
    assert sum(client.cut_off for client in clients) == 2 * CLIENTS_MAX
    assert len(server.log.of("control client cut off")) == 1


def test_half_a_frame_must_become_a_whole_one_in_time_and_a_byte_now_and_then_does_not_help(server: Server) -> None:
    server.control.frame_s = 1.5
    silent, dripping, other = server.client().send_bytes(b'{"id"'), server.client(), server.client()
    waiting = server.client().send({"id": 1, "method": "later"})

    def drip() -> None:
        with contextlib.suppress(OSError):
            dripping.peer.send(b" ")
        server.turn()

    until(lambda: silent.cut_off and dripping.cut_off, step=drip)
    assert (other.cut_off, waiting.cut_off) == (False, False), "they owe nothing"
    server.later[0]("done")
    assert waiting.answers()[0]["result"] == "done"


def test_who_asks_too_much_at_once_is_not_listened_to_until_something_is_answered(server: Server) -> None:
    client = server.client()
    client.send(*({"id": number, "method": "later"} for number in range(UNDER_WAY_MAX + 5)))
    until(lambda: len(server.later) == UNDER_WAY_MAX, step=server.turn)
    for _ in range(50):
        server.turn()
    assert len(server.later) == UNDER_WAY_MAX
    for reply in list(server.later):
        reply("done")
    until(lambda: len(server.later) == UNDER_WAY_MAX + 5, step=server.turn)
    for reply in server.later[UNDER_WAY_MAX :]:
        reply("done")
    assert len(client.answers(UNDER_WAY_MAX + 5)) == UNDER_WAY_MAX + 5


def test_what_waits_for_all_clients_is_bounded_together_and_who_reads_is_spared(server: Server) -> None:
    reader = server.client()
    crowd = [server.client() for _ in range(CLIENTS_MAX - 1)]
    for client in crowd:
        client.send(*({"id": number, "method": "later"} for number in range(4)))
    until(lambda: len(server.later) == 4 * len(crowd), step=server.turn)
    reader.send({"id": 1, "method": "later"})
    until(lambda: len(server.later) == 4 * len(crowd) + 1, step=server.turn)
    last = server.later.pop()
    for reply in server.later:
        reply("x" * 150_000)
        assert sum(each.outbox.waiting for each in server.control._clients) <= control.BACKLOGS_MAX
    assert server.log.of("control client cut off")[0]["why"] == "it does not read its answers, and all wait for too much"
    last("x" * 900_000)
    assert len(reader.answers()[0]["result"]) == 900_000


# What is promised to a client that comes when all places are taken: it is served, or told that all are held by requests that are under way.


def test_who_comes_when_nobody_reads_is_served_in_place_of_who_has_stood_still_for_longest(server: Server) -> None:
    listed(server, 3000)
    crowd = []
    for _ in range(CLIENTS_MAX):
        crowd.append(server.client().send({"id": 1, "method": "list"}))
        until(lambda: sum(bool(each.outbox) for each in server.control._clients) == len(crowd), step=server.turn)
    assert server.client().call("echo")["result"] == {}
    assert server.log.of("control client cut off") == [{"why": "it does not read its answers and its place was needed"}]
    until(lambda: crowd[0].cut_off, step=server.turn)
    assert server.log.of("control client refused") == []


def test_who_reads_a_long_answer_keeps_its_place_while_idle_clients_come_and_go(server: Server) -> None:
    made = listed(server, 3000)
    server.control.frame_s = 1000  # however slow we are, it does not count as standing still
    reader = server.client().send({"id": 1, "method": "list"})
    until(lambda: made, step=server.turn)
    for _ in range(2 * CLIENTS_MAX):
        server.client()
    assert len(reader.answers()[0]["result"]) == 3000


def test_who_comes_while_we_have_not_got_round_to_those_that_are_there_waits_and_is_served(server: Server) -> None:
    """A slow machine is nobody's fault: it must not look as if all places were held by requests that are under way."""

    def heavy(_params: Mapping[str, Any], reply: Callable[[Any], None]) -> None:
        time.sleep(2 * control.TURN_S)  # so there is one of them in a turn
        server.later.append(reply)

    server.control.methods["heavy"] = heavy
    crowd = [server.client() for _ in range(CLIENTS_MAX)]
    for client in crowd[:-1]:
        client.send({"id": 7, "method": "heavy"})
    server.turn()
    crowd[-1].send({"id": 8, "method": "echo"})
    server.turn()
    late = Client(server).send({"id": 9, "method": "echo"})
    assert late.answers()[0]["result"] == {}
    assert crowd[-1].answers()[0]["result"] == {}
    assert server.log.of("control client refused") == []
    assert server.log.of("control client cut off") == [{"why": "it was idle and its place was needed"}]


def test_one_answer_is_given_once(server: Server) -> None:
    client = server.client().send({"id": 1, "method": "later"})
    until(lambda: server.later, step=server.turn)
    server.later[0]("one")
    server.later[0]("two")
    assert client.answers()[0]["result"] == "one"
    assert [each.owed for each in server.control._clients] == [0]


def test_a_client_that_closes_its_writing_end_is_gone_after_its_answer(server: Server) -> None:
    client = server.client().send({"id": 1, "method": "echo"})
    client.peer.shutdown(socket.SHUT_WR)
    assert client.answers()[0]["result"] == {}


def test_only_the_right_user_is_served(tmp_path: Path) -> None:
    server = Server(str(tmp_path / "c.sock"), frozenset({os.getuid() + 1}))
    client = server.client()
    until(lambda: client.cut_off, step=server.turn)
    assert server.log.of("control client refused")[0]["uid"] == os.getuid()


def test_the_socket_is_for_its_owner_and_replaces_a_dead_ones(tmp_path: Path) -> None:
    path = tmp_path / "run" / "control.sock"
    for _ in range(2):
        server = Server(str(path), frozenset({os.getuid()}))
        assert os.stat(path).st_mode & 0o777 == 0o600
        assert server.client().call("echo")["result"] == {}


def test_a_client_that_hangs_up_in_the_middle_leaves_nothing(server: Server) -> None:
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(50):
        client = server.client().send_bytes(b'{"id": 1, "meth')
        client.peer.close()
        server.turn()
    until(lambda: not server.control._clients, step=server.turn)
    assert set(os.listdir("/proc/self/fd")) <= before


def test_a_crowd_takes_a_part_of_a_turn_and_each_has_its_turn_before_one_has_two(server: Server) -> None:
    served: list[tuple[int, int]] = []  # the turn and the client

    def heavy(params: Mapping[str, Any], reply: Callable[[Any], None]) -> None:
        time.sleep(0.006)  # two of them are more than TURN_S
        served.append((server.reactor.turns, params["who"]))
        reply(None)

    server.control.methods["heavy"] = heavy
    crowd = [server.client() for _ in range(12)]
    for who, client in enumerate(crowd):
        client.send(*({"id": number, "method": "heavy", "params": {"who": who}} for number in range(3)))
    until(lambda: len(served) == 36, step=server.turn)
    turns = [turn for turn, _ in served]
    assert max(turns.count(turn) for turn in turns) <= 2
    order = [who for _, who in served]
    assert max(order.index(who) for who in range(12)) < 24, "the last one is served before others have had all their frames"


def test_whoever_waits_to_be_served_is_not_idle_and_keeps_his_place(server: Server) -> None:
    server.control.methods["heavy"] = lambda _params, reply: (time.sleep(0.006), reply("served"))[1]
    crowd = [server.client() for _ in range(CLIENTS_MAX)]
    for client in crowd:
        client.send({"id": 7, "method": "heavy"})
    server.turn()  # all are read
    for _ in range(10):
        Client(server)
        server.turn()
    until(lambda: all(client.look() for client in crowd), step=server.turn)


def test_requests_that_waited_for_a_module_have_a_part_of_a_turn_too(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "bay0.validate.verdict", raising=False)
    served: list[tuple[int, int]] = []

    def work(params: Mapping[str, Any], reply: Callable[[Any], None]) -> None:
        time.sleep(0.004)
        served.append((server.reactor.turns, params["n"]))
        reply(None)

    server.control.methods["work"] = work
    server.control.takes = {"work": ("bay0.personas.tomllines", "bay0.no_such_module", "bay0.validate.verdict")}
    server.client().send(*({"id": n, "method": "work", "params": {"n": n}} for n in range(60)))
    until(lambda: len(served) == 60, step=server.turn)
    turns = [turn for turn, _ in served]
    assert max(turns.count(turn) for turn in turns) <= 4
    assert [n for _, n in served] == list(range(60))


def test_a_module_that_is_broken_in_any_way_is_for_the_method_to_tell(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "broken_module.py").write_text("raise EOFError('marshal data too short')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    server.control.takes = {"echo": ("broken_module",)}
    assert server.client().call("echo")["result"] == {}


def test_half_a_frame_behind_all_that_may_be_under_way_is_ours_to_wait_for(server: Server) -> None:
    server.control.frame_s = 0.1
    client = server.client()
    client.send(*({"id": number, "method": "later"} for number in range(UNDER_WAY_MAX))).send_bytes(b'{"jsonrpc": "2.0", "id": 1, "met')
    until(lambda: len(server.later) == UNDER_WAY_MAX, step=server.turn)
    client.send_bytes(b'hod": "later"}\n')
    end = time.monotonic() + 2 * control.LOOK_S
    until(lambda: time.monotonic() > end, step=server.turn)
    assert not client.cut_off


# ---- a socket that is gone


def test_a_socket_that_was_removed_with_its_directory_is_made_anew_and_who_is_connected_stays(server: Server) -> None:
    there = server.client()
    assert server.control.look() == []
    shutil.rmtree(os.path.dirname(server.path))
    assert server.control.look() == ["somebody removed it"]
    assert server.client().call("echo", x=1)["result"] == {"x": 1}
    assert there.call("echo", x=2)["result"] == {"x": 2}
    assert os.stat(server.path).st_mode & 0o777 == 0o600
    assert server.control.look() == []


def test_a_socket_in_whose_place_is_something_else_is_made_anew(server: Server) -> None:
    os.rename(server.path, f"{server.path}.old")
    Path(server.path).write_text("not a socket")
    assert server.control.look() == ["somebody removed it"]
    assert server.client().call("echo", x=1)["result"] == {"x": 1}


def test_a_socket_that_cannot_be_made_anew_is_said_and_tried_again(server: Server) -> None:
    shutil.rmtree(os.path.dirname(server.path))
    Path(os.path.dirname(server.path)).write_text("in the way")
    files = RunFiles(server.reactor, server.log)
    files.look_after("the control socket", server.control.look)
    with descriptors_kept():
        for _ in range(3):
            files.look()
    assert [keys["what"] for keys in server.log.of("not made anew on /run")] == ["the control socket"], "said once, not at each look"
    os.unlink(os.path.dirname(server.path))
    files.look()
    assert server.log.of("made anew on /run") == [{"what": "the control socket", "why": "somebody removed it"}]
    assert server.client().call("echo", x=1)["result"] == {"x": 1}


def test_a_socket_that_could_not_be_opened_at_first_is_opened_later(tmp_path: Path) -> None:
    made = ControlServer(Reactor(), Log(), {}, path=str(tmp_path / "run" / "control.sock"))
    assert made.look() == [], "nobody wants it yet"
    (tmp_path / "run").touch()
    with pytest.raises(OSError, match="File exists"):
        made.open()
    (tmp_path / "run").unlink()
    assert made.look() == ["it could not be opened before"]
    assert os.path.exists(made.path)


def test_what_helps_where_nobody_answers_depends_on_where_that_is(tmp_path: Path) -> None:
    os.symlink("/usr/lib/bay0/bay0", tmp_path / "exe")
    assert on_spine(str(tmp_path / "exe"))
    os.symlink("/usr/lib/systemd/systemd", tmp_path / "other")
    assert not on_spine(str(tmp_path / "other"))
    assert not on_spine(str(tmp_path / "none"))
    there, elsewhere = what_helps(here=True), what_helps(here=False)
    assert "kill -TERM 1" in there
    assert "Ctrl-Alt-Del" in there
    assert "quickstart" not in there
    assert "scripts/quickstart.sh" in elsewhere
