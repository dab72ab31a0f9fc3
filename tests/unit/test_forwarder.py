"""The real forwarder process between real clients and a stand-in for the AI's server: what goes through, what does not, and what each limit says."""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from kit import until
from umbilicalkit import CHAT, Rig, Said, Unix, ask, chat, head, own_group, raw, rig

from bay0.umbilical.places import UMBILICAL_UID

SOON_S = 1.0  # the contract: an error within a second
pytestmark = pytest.mark.skipif("0::" not in Path("/proc/self/cgroup").read_text(), reason="the classifier needs cgroup v2")


@pytest.fixture(scope="module")
def shared() -> Iterator[Rig]:
    """For tests that leave no trace."""
    with rig() as made:
        made.door()
        yield made


@pytest.fixture
def door(shared: Rig) -> str:
    return f"{shared.directory}/p__work.sock"


def within(seconds: float, call: Callable[[], Any]) -> Any:
    began = time.monotonic()
    value = call()
    assert time.monotonic() - began < seconds
    return value


def status_of(pid: int) -> dict[str, str]:
    return dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())


# ---- rights


def test_it_has_no_right_left_when_it_takes_its_first_client(shared: Rig) -> None:
    found = {key: value.split() for key, value in status_of(shared.pid).items()}
    if os.getuid() != 0:
        pytest.skip("only root can become somebody else: it keeps the uid that it has")
    assert found["Uid"] == found["Gid"] == [str(UMBILICAL_UID)] * 4
    assert found["Groups"] == []
    assert {found[name][0] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert found["NoNewPrivs"] == ["1"]
    limits = {line[:26].strip(): line[26:].split()[:2] for line in Path(f"/proc/{shared.pid}/limits").read_text().splitlines()[1:]}
    assert limits["Max processes"] == ["1", "1"]
    assert limits["Max file size"] == limits["Max core file size"] == ["0", "0"]


def test_it_loads_nothing_that_it_does_not_need(shared: Rig) -> None:
    maps = Path(f"/proc/{shared.pid}/maps").read_text()
    for library in ("_sqlite3", "_ssl", "_asyncio", "_hashlib"):
        assert library not in maps
    assert shared.resident_kb() < 32 << 10


# ---- what goes through


def test_a_question_is_answered_and_nothing_of_the_servers_own_head_is_shown(door: str) -> None:
    answer = ask(door, "POST", CHAT, chat("hello"))
    assert answer.status == 200
    assert "you said" in answer.json["choices"][0]["message"]["content"]
    models = ask(door, "GET", "/v1/models")
    assert models.json["data"][0]["id"] == "stand-in"
    assert set(models.headers) == {"content-type", "cache-control", "connection", "content-length"}


def test_an_answer_streams_piece_by_piece(door: str) -> None:
    connection = Unix(door)
    connection.request("POST", CHAT, json.dumps(chat("stream", 3, 0.4, stream=True)))
    answer = connection.getresponse()
    began, times = time.monotonic(), []
    while line := answer.readline():
        if line.startswith(b"data"):
            times.append(time.monotonic() - began)
    assert len(times) == 4
    assert times[2] - times[0] > 0.5, "they came one after the other, not all at the end"
    assert answer.getheader("transfer-encoding") == "chunked"
    connection.close()


def test_an_old_client_gets_no_chunks(door: str) -> None:
    body = json.dumps(chat("stream", 2, 0)).encode()
    answer = raw(door, b"POST %b HTTP/1.0\r\nContent-Length: %d\r\n\r\n%b" % (CHAT.encode(), len(body), body))
    assert "transfer-encoding" not in answer.headers
    assert answer.body == b'data: {"token":0}\n\ndata: {"token":1}\n\ndata: [DONE]\n\n'


def test_a_client_that_waits_for_100_is_told_to_go_on(door: str) -> None:
    body = json.dumps(chat("hello")).encode()
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(door)
        peer.sendall(head(f"Content-Length: {len(body)}", "Expect: 100-continue"))
        assert peer.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        peer.sendall(body)
        assert peer.recv(100).startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_client_that_says_no_more_after_its_request_still_gets_its_answer(door: str) -> None:
    body = json.dumps(chat("wait", 0.3)).encode()
    assert raw(door, head(f"Content-Length: {len(body)}") + body, half_close=True).status == 200


def test_a_request_that_comes_byte_by_byte_is_read(door: str) -> None:
    body = json.dumps(chat("hello")).encode()
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(door)
        for byte in head(f"Content-Length: {len(body)}") + body:
            peer.sendall(bytes([byte]))
        assert peer.recv(100).startswith(b"HTTP/1.1 200 OK\r\n")


def test_the_server_is_asked_without_a_cache_or_a_slot_and_with_a_head_of_our_own() -> None:
    with rig() as made:
        door = made.door()
        mine = {"X_Secret": "1", "Authorization": "Bearer me", "Cookie": "a=b"}
        assert ask(door, "POST", CHAT, chat("hello", cache_prompt=True, user="x"), **mine).status == 200
        assert ask(door, "POST", CHAT, chat("hello", id_slot=3)).code == "not_offered"
        (seen,) = [each for each in made.asked() if each["body"]]
        assert {name.lower() for name, _ in seen["headers"]} == {"host", "connection", "content-type", "content-length"}
        assert json.loads(seen["body"]) == {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 512, "cache_prompt": False}


def test_two_personas_never_see_each_others_sessions() -> None:
    """Many at once through two doors: each answer has only what its own side said, and each door counts only its own."""
    with rig(connections=40, flights=4, flights_all=4) as made:
        doors = {name: made.door(name) for name in ("p://work", "p://play")}
        secrets = [(name, f"{name}-secret-{n}") for n in range(12) for name in doors]
        with ThreadPoolExecutor(24) as pool:
            answers = list(pool.map(lambda each: (each, ask(doors[each[0]], "POST", CHAT, chat("hello", each[1]))), secrets))
        for (_, secret), answer in answers:
            text = answer.json["choices"][0]["message"]["content"]
            assert [other for _, other in secrets if re.search(f"{other}\\b", text)] == [secret]
        assert all(body["cache_prompt"] is False and "id_slot" not in body for body in made.bodies())
        facts = made.facts()
        assert [facts[name]["requests"] for name in doors] == [12, 12]


# ---- errors


def failing(answer: Said) -> tuple[int, str]:
    assert set(answer.json["error"]) == {"message", "type", "param", "code"}
    assert answer.headers["connection"] == "close"
    assert answer.headers["content-type"] == "application/json"
    return answer.status, answer.code


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (head("Content-Length: 3") + b"{}x", (400, "bad_json")),
        (head("Content-Length: 2") + b"{}x", (400, "one_request")),
        (head("Content-Length: 2") + b"{}", (400, "bad_value")),
        (head("Content-Length: 9999999"), (413, "too_large")),
        (head(), (411, "length_required")),
        (head("Transfer-Encoding: chunked"), (501, "transfer_encoding")),
        (head("X: " + "y" * 17000), (431, "head_too_large")),
        (head(request="GET /slots HTTP/1.1"), (404, "not_found")),
        (head(request="GET /metrics HTTP/1.1") + head(request="GET /health HTTP/1.1"), (404, "not_found")),
        (head(request="GET /health HTTP/1.1\nX: y"), (400, "bad_request")),
        (b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + bytes(200), (400, "bad_request")),
    ],
)
def test_a_bad_request_gets_one_clear_error(door: str, data: bytes, wanted: tuple[int, str]) -> None:
    assert failing(raw(door, data)) == wanted


def test_a_client_that_is_still_sending_can_read_why_it_was_refused(door: str) -> None:
    assert failing(raw(door, head("Content-Length: 900000") + b"x" * 500_000)) == (413, "too_large")


def test_a_second_request_behind_the_first_reaches_nobody() -> None:
    with rig() as made:
        door = made.door()
        body = json.dumps(chat("wait", 0.5)).encode()
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(door)
            peer.sendall(head(f"Content-Length: {len(body)}") + body)
            until(lambda: len(made.bodies()) == 1, "the first is asked")
            peer.sendall(head(request="GET /slots HTTP/1.1"))
            assert b"one_request" in peer.recv(4096)
        assert len(made.asked()) == 1


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("garbage", (502, "bad_answer")),
        ("smuggle", (502, "bad_answer")),
        ("descriptor", (502, "bad_answer")),
        ("status 302", (502, "bad_answer")),
        ("big 5000000", (502, "answer_too_long")),
    ],
)
def test_a_server_that_answers_badly_is_an_error_of_its_own(door: str, shared: Rig, words: str, wanted: tuple[int, str]) -> None:
    before = shared.descriptors()
    assert failing(ask(door, "POST", CHAT, chat(words))) == wanted
    until(lambda: shared.descriptors() <= before, "nothing is left open")


def test_the_servers_own_errors_go_through(door: str) -> None:
    assert ask(door, "POST", CHAT, chat("status 422")).status == 422
    assert ask(door, "POST", CHAT, chat("more")).body == b"{}", "what follows the answer is dropped"


def test_a_stream_that_is_too_long_ends_with_an_error_and_without_its_last_chunk(door: str) -> None:
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(door)
        body = json.dumps(chat("bigstream", 200)).encode()
        peer.sendall(head(f"Content-Length: {len(body)}") + body)
        data = b""
        while piece := peer.recv(1 << 20):
            data += piece
    assert b"answer_too_long" in data[-400:]
    assert not data.endswith(b"0\r\n\r\n")
    assert len(data) < 5 << 20


# ---- how the AI is


@pytest.mark.parametrize("state", ["stopped", "starting", "warming", "pausing", "paused", "draining", "stopping", "failed"])
def test_an_ai_that_takes_no_requests_says_so_at_once(state: str, shared: Rig, door: str) -> None:
    shared.tenant(state, "a persona needs the memory")
    try:
        answer = within(SOON_S, lambda: ask(door, "POST", CHAT, chat("hello")))
        assert failing(answer) == (503, f"ai_{state}")
        assert answer.json["error"]["message"] == f"the AI is {state}: a persona needs the memory"
        assert answer.headers["retry-after"] == "7"
        assert within(SOON_S, lambda: ask(door, "GET", "/health")).status == 503
    finally:
        shared.tenant("ready")
    assert ask(door, "GET", "/health").json == {"status": "ok"}


def test_before_bay0_has_spoken_the_ai_is_stopped() -> None:
    with rig(state="") as made:
        door = made.door()
        assert ask(door, "POST", CHAT, chat("hello")).code == "ai_stopped"


@pytest.mark.parametrize("words", ["wait 30", "stream 100 0.2"])
def test_a_pause_ends_what_is_under_way_and_what_waits(words: str) -> None:
    with rig() as made:
        door = made.door()
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(stream_to_the_end, door, words)
            until(lambda: len(made.bodies()) == 1, "one is under way")
            second = pool.submit(ask, door, "POST", CHAT, chat("hello"))
            until(lambda: made.facts()["p://work"]["open"] == 2, "one waits")
            made.tenant("paused", "memory")
            assert within(SOON_S, second.result).code == "ai_paused"
            ended = within(SOON_S, first.result)
            assert b"ai_paused" in ended
            assert not ended.endswith(b"0\r\n\r\n")


def stream_to_the_end(door: str, words: str) -> bytes:
    body = json.dumps(chat(words, stream=True)).encode()
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(20)
        peer.connect(door)
        peer.sendall(head(f"Content-Length: {len(body)}") + body)
        data = b""
        while piece := peer.recv(1 << 16):
            data += piece
        return data


def test_a_drain_refuses_new_requests_and_answers_when_the_last_one_is_done() -> None:
    with rig(flights=2) as made:
        door = made.door()
        with ThreadPoolExecutor(2) as pool:
            under_way = pool.submit(ask, door, "POST", CHAT, chat("wait", 1.0))
            until(lambda: len(made.bodies()) == 1, "one is under way")
            made.tell(op="drain", n=7)
            until(lambda: ask(door, "POST", CHAT, chat("hello")).status == 503, "new ones are refused")
            assert not [m for m in made.heard if m["op"] == "drained"]
            made.hear("drained", n=7)
            assert under_way.result().status == 200
        assert ask(door, "POST", CHAT, chat("hello")).code == "ai_draining"
        made.tell(op="drain", n=8)
        made.hear("drained", n=8)
        made.tenant("ready")
        assert ask(door, "POST", CHAT, chat("hello")).status == 200


def test_an_ai_that_was_drained_and_is_stopped_is_not_said_to_be_draining() -> None:
    with rig() as made:
        door = made.door()
        made.tell(op="drain", n=7)
        made.hear("drained", n=7)
        made.tenant("stopped", "asked to stop")
        made.facts()  # it has taken the word
        answer = ask(door, "POST", CHAT, chat("hello"))
        assert failing(answer) == (503, "ai_stopped")
        assert answer.json["error"]["message"] == "the AI is stopped: asked to stop"


# ---- quotas


def test_more_requests_a_minute_than_allowed_are_told_when_to_come_back() -> None:
    with rig(requests_a_minute=3) as made:
        door, other = made.door(), made.door("p://play")
        answers = [ask(door, "POST", CHAT, chat("hello")) for _ in range(4)]
        assert [answer.status for answer in answers] == [200, 200, 200, 429]
        assert failing(answers[-1]) == (429, "too_many_requests")
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 20
        assert ask(other, "POST", CHAT, chat("hello")).status == 200, "it is not the other's quota"


def test_more_connections_than_allowed_are_told_so_and_the_others_are_let_in() -> None:
    with rig(connections=3) as made:
        door, other = made.door(), made.door("p://play")
        idle = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        for peer in idle:
            peer.connect(door)
        until(lambda: made.facts()["p://work"]["open"] == 3, "they are in")
        assert failing(ask(door, "GET", "/health")) == (429, "too_many_connections")
        assert ask(other, "GET", "/health").status == 200
        for peer in idle:
            peer.close()
        until(lambda: ask(door, "GET", "/health").status == 200, "there is room again")


def test_one_request_at_a_time_and_the_others_wait_for_their_turn() -> None:
    with rig() as made:
        door = made.door()
        with ThreadPoolExecutor(4) as pool:
            running = [pool.submit(ask, door, "POST", CHAT, chat("wait", 0.3)) for _ in range(4)]
            most = 0
            while not all(each.done() for each in running):
                most = max(most, made.facts()["p://work"]["in_flight"])
            assert [each.result().status for each in running] == [200] * 4
        assert most == 1


def test_a_persona_with_many_requests_does_not_keep_another_waiting() -> None:
    with rig(connections=20, flights_all=1) as made:
        busy, calm = made.door("p://busy"), made.door("p://calm")
        with ThreadPoolExecutor(12) as pool:
            many = [pool.submit(ask, busy, "POST", CHAT, chat("wait", 0.3)) for _ in range(10)]
            until(lambda: made.facts()["p://busy"]["open"] == 10, "they queue")
            assert ask(calm, "POST", CHAT, chat("hello")).status == 200
            done = sum(each.done() for each in many)
            assert done <= 3, "it was its turn after one of them, not after all"
            assert all(each.result().status == 200 for each in many)


def test_who_waits_too_long_for_a_turn_is_told_so() -> None:
    with rig(wait_s=0.3, flights_all=1) as made:
        busy, calm = made.door("p://busy"), made.door("p://calm")
        with ThreadPoolExecutor(1) as pool:
            pool.submit(ask, busy, "POST", CHAT, chat("wait", 3))
            until(lambda: len(made.bodies()) == 1, "one is under way")
            assert failing(ask(calm, "POST", CHAT, chat("hello"))) == (503, "busy")


def test_a_slow_head_and_a_slow_body_are_closed() -> None:
    with rig(head_s=0.5, body_s=0.5) as made:
        door = made.door()
        for start, wanted in ((b"POST /v1", "head_timeout"), (head("Content-Length: 9") + b"{", "body_timeout")):
            assert failing(raw(door, start)) == (408, wanted)


def test_drops_of_a_head_do_not_extend_its_time() -> None:
    with rig(head_s=1.0) as made, socket.socket(socket.AF_UNIX) as peer:
        peer.connect(made.door())
        peer.settimeout(0.1)
        began, answer = time.monotonic(), b""
        while not answer:
            try:
                peer.sendall(b"G")
                answer = peer.recv(1000)
            except TimeoutError:
                assert time.monotonic() - began < 10
        assert b"408" in answer


def test_a_client_that_does_not_read_is_cut_off_and_the_server_let_go() -> None:
    with rig(write_s=0.5, response_bytes=64 << 20) as made, socket.socket(socket.AF_UNIX) as peer:
        door = made.door()
        peer.connect(door)
        body = json.dumps(chat("bigstream", 900)).encode()
        peer.sendall(head(f"Content-Length: {len(body)}") + body)
        until(lambda: made.facts()["p://work"]["in_flight"] == 1, "it is under way")
        until(lambda: made.facts()["p://work"]["open"] == 0, "it is cut off")
        assert made.resident_kb() < 32 << 10, "what nobody reads is not read either"
        assert "read nothing" in made.hear("decision")["why"]


def test_a_server_that_says_nothing_and_one_that_takes_too_long_are_given_up() -> None:
    with rig(stall_s=0.5, seconds=1.5) as made:
        door = made.door()
        assert failing(ask(door, "POST", CHAT, chat("wait", 30))) == (504, "stalled")
        assert b"too_long" in stream_to_the_end(door, "stream 100 0.2")


def test_a_client_that_hangs_up_frees_the_server() -> None:
    with rig() as made:
        door = made.door()
        connection = Unix(door)
        connection.request("POST", CHAT, json.dumps(chat("stream", 100, 0.1)))
        connection.getresponse().readline()
        connection.close()
        until(lambda: made.facts()["p://work"]["in_flight"] == 0, "its request is over")


def test_a_passed_descriptor_ends_the_session_and_is_not_taken(shared: Rig, door: str) -> None:
    before = shared.descriptors()
    for start in (b"POST", head("Content-Length: 9"), b"G"):
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(door)
            socket.send_fds(peer, [start], [0, 1, 2] * 30)
            assert b"file descriptors are not taken" in peer.recv(4096)
    until(lambda: shared.descriptors() <= before, "none of them was taken")


# ---- who speaks


def test_whoever_is_not_of_the_doors_cgroup_or_uids_is_told_so() -> None:
    with rig() as made:
        elsewhere = made.door("p://elsewhere", group="/personas/libpod-aa")
        assert failing(ask(elsewhere, "GET", "/health")) == (403, "not_you")
        decision = made.hear("decision", name="p://elsewhere")
        assert decision["why"].endswith(f"its cgroup is {own_group()}, not /personas/libpod-aa")
        assert decision["pid"] == os.getpid()
        others = made.door("p://others", uid_base=70000, uids=65536)
        assert failing(ask(others, "GET", "/health")) == (403, "not_you")
        assert made.facts()["p://others"]["refused"] == 1


def test_a_server_that_is_not_in_the_tenants_cgroup_gets_nothing() -> None:
    with rig() as made:
        door = made.door()
        made.tenant("ready", group="/tenants/libpod-aa")
        assert failing(ask(door, "POST", CHAT, chat("a secret"))) == (502, "impostor")
        made.tenant("ready", group="")
        until(lambda: "not said which cgroup" in ask(door, "POST", CHAT, chat("a secret")).json["error"]["message"], "it is not trusted")
        made.tell(op="check", n=3, within=5)
        assert made.hear("checked", n=3)["ok"] is False
        assert made.asked() == []


def test_a_link_where_the_server_should_listen_is_not_followed() -> None:
    with rig() as made:
        door = made.door()
        os.rename(made.server_socket, f"{made.directory}/real.sock")
        os.symlink(f"{made.directory}/real.sock", made.server_socket)
        assert failing(ask(door, "POST", CHAT, chat("a secret"))) == (502, "no_server")
        os.unlink(made.server_socket)
        assert failing(ask(door, "POST", CHAT, chat("a secret"))) == (502, "no_server")
        assert made.asked() == []


def test_clients_are_told_by_the_kernel_that_the_forwarder_listens(shared: Rig, door: str) -> None:
    from bay0.effects.peers import answerer

    found = answerer(door)
    assert (found.pid, found.alive) == (shared.pid, True)


def test_a_revoked_door_closes_its_sessions_and_no_others() -> None:
    with rig() as made:
        door, other = made.door(), made.door("p://play")
        with ThreadPoolExecutor(2) as pool:
            cut = pool.submit(stream_to_the_end, door, "stream 100 0.1")
            kept = pool.submit(ask, other, "POST", CHAT, chat("wait", 1.0))
            until(lambda: len(made.bodies()) == 2, "both are under way")
            listener, _ = made.listeners.pop("p://work")
            listener.close()
            made.tell(op="revoke", name="p://work")
            assert not within(SOON_S, cut.result).endswith(b"0\r\n\r\n")
            with pytest.raises(ConnectionRefusedError):
                ask(door, "GET", "/health")
            assert kept.result().status == 200
        assert "p://work" not in made.facts()


# ---- deaths


@pytest.mark.parametrize("words", ["stream 100 0.1", "wait 30"])
def test_a_killed_forwarder_is_an_error_within_a_second_and_the_next_serves_the_same_door(words: str) -> None:
    with rig() as made:
        door = made.door()
        with ThreadPoolExecutor(2) as pool:
            cut = pool.submit(stream_to_the_end, door, words)
            until(lambda: len(made.bodies()) == 1, "it is under way")
            made.kill_forwarder()
            try:
                ended = within(SOON_S, cut.result)
            except ConnectionResetError:
                ended = b""
            assert not ended.endswith(b"0\r\n\r\n")
            waits = pool.submit(ask, door, "POST", CHAT, chat("hello"))
            made.start()
            assert waits.result().status == 200, "it waited in the listener"


@pytest.mark.parametrize("words", ["stream 100 0.1", "wait 30", "cut", "die"])
def test_a_server_that_dies_in_the_middle_is_an_error_within_a_second(words: str) -> None:
    with rig() as made:
        door = made.door()
        assert made.server is not None
        with ThreadPoolExecutor(1) as pool:
            cut = pool.submit(stream_to_the_end, door, words)
            until(lambda: len(made.bodies()) == 1, "it is under way")
            made.server.kill()
            ended = within(SOON_S, cut.result)
        made.server.wait()
        assert b"server_gone" in ended
        assert not ended.endswith(b"0\r\n\r\n")
        assert failing(ask(door, "POST", CHAT, chat("hello"))) == (502, "no_server")
        made.serve()
        assert ask(door, "POST", CHAT, chat("hello")).status == 200


def test_without_bay0_it_ends() -> None:
    with rig() as made:
        assert made.channel is not None
        assert made.forwarder is not None
        made.channel.close()
        assert made.forwarder.wait(10) == 0
        made.channel = None


# ---- bay0's own questions


def test_a_warm_up_waits_for_health_and_then_measures_a_token() -> None:
    with rig("warming") as made:
        Path(f"{made.directory}/asked.sick").touch()
        made.tell(op="warm", n=1, within=20)
        until(lambda: len(made.asked()) >= 2, "it asks again")
        assert not made.bodies()
        os.unlink(f"{made.directory}/asked.sick")
        found = made.hear("warm", n=1)
        assert found["ok"] is True
        assert 0 <= found["first_token_s"] < 20
        (body,) = made.bodies()
        assert (body["max_tokens"], body["cache_prompt"]) == (1, False)


def test_a_warm_up_that_fails_says_why() -> None:
    with rig("warming") as made:
        Path(f"{made.directory}/asked.sick").touch()
        made.tell(op="warm", n=1, within=1)
        assert "status 503" in made.hear("warm", n=1)["why"]
        made.tell(op="check", n=2, within=5)
        assert made.hear("checked", n=2)["ok"] is False
        os.unlink(f"{made.directory}/asked.sick")
        made.tell(op="check", n=3, within=5)
        assert made.hear("checked", n=3)["ok"] is True
        os.unlink(made.server_socket)
        made.tell(op="warm", n=4, within=1)
        assert "cannot be reached" in made.hear("warm", n=4)["why"]


def test_decisions_name_who_and_why_and_never_what_was_said() -> None:
    with rig() as made:
        door = made.door()
        ask(door, "POST", CHAT, chat("a very secret thing"))
        ask(door, "GET", "/slots")
        served, refused = made.hear("decision"), made.hear("decision")
        assert (served["verdict"], served["status"], served["pid"]) == ("served", 200, os.getpid())
        assert (refused["verdict"], refused["status"]) == ("refused", 404)
        assert served["bytes_in"] > 100
        assert served["bytes_out"] > 100
        assert "secret" not in json.dumps([served, refused, made.heard])


# ---- hostility


def test_a_hundred_hostile_clients_make_it_neither_grow_nor_leak_nor_deaf() -> None:
    with rig(head_s=1.0, body_s=1.0, accepts_a_second=500) as made:
        door, other = made.door(), made.door("p://play")
        hostile(door, 100, 0.5)  # so that every kind of error has been made once
        until(lambda: made.facts()["p://work"]["open"] == 0, "they are gone")
        before, open_before, worst = made.resident_kb(), made.descriptors(), 0.0
        attackers = [threading.Thread(target=hostile, args=(door, 100, 5.0))]
        attackers[0].start()
        while attackers[0].is_alive():
            began = time.monotonic()
            assert ask(other, "POST", CHAT, chat("hello")).status == 200
            worst = max(worst, time.monotonic() - began)
        attackers[0].join()
        until(lambda: made.facts()["p://work"]["open"] == 0, "they are gone")
        print(f"100 hostile clients: {made.facts()['p://work']}, RSS {before} -> {made.resident_kb()} kB; the other waited {worst:.3f} s at most")
        assert made.descriptors() <= open_before
        assert made.resident_kb() - before < 2 << 10
        assert worst < 5.0


def hostile(door: str, clients: int, seconds: float) -> None:
    """So many at once: silent, slow, lying, cut off, with descriptors, with garbage, flooding."""
    end = time.monotonic() + seconds
    manners = [
        b"", b"G", b"POST /v1/chat", head("Content-Length: 200000") + b'{"messages":' + b"[" * 9000, head("Content-Length: 20") + b"{}",
        b"\x00" * 5000,
        head("Transfer-Encoding: chunked") + b"5\r\nhello\r\n", head("X: " + "a" * 20000), head(request="GET /slots HTTP/1.1") * 50,
        head("Content-Length: 20000") + b"[" * 20000, b"A" * 300_000,
    ]  # fmt: skip

    def one(number: int) -> None:
        turn = number
        while time.monotonic() < end:
            turn += 1
            with socket.socket(socket.AF_UNIX) as peer:
                peer.settimeout(0.2)
                try:
                    peer.connect(door)
                    data = manners[turn % len(manners)]
                    if turn % 7 == 0:
                        socket.send_fds(peer, [data or b"x"], [0, 1])
                    elif data:
                        peer.sendall(data)
                    if turn % 3:
                        peer.recv(1 << 16)
                except OSError:
                    time.sleep(0.01)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
