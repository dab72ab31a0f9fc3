"""`bay0 net` and `bay0 persona net`: what is asked of bay0, and what is made of its answers."""

from __future__ import annotations

from typing import Any

import pytest

from bay0.cli import client
from bay0.cli import main as cli
from bay0.cli import net as netcli

OFF: dict[str, Any] = {
    "state": "off", "about": "nothing of a network is there", "why": "", "wanted": False, "settled": True,
    "config": {"device": "", "address": "", "gateway": "", "dns": []},
}  # fmt: skip
UP: dict[str, Any] = {
    **OFF, "state": "up", "about": "the card has an address", "why": "the address is applied", "wanted": True,
    "card": {"device": "virtio2", "bus": "virtio", "mac": "52:54:00:12:34:56", "link": True},
    "address": "10.0.2.15/24", "gateway": None, "dns": [], "lease_left_s": 86000,
    "complaints": ["the name server 127.0.0.1 is nobody's\x1b[2J"],
    "helpers": [{"name": "sys://dhcp", "state": "running", "pid": 77}, {"name": "sys://link", "state": "waiting", "pid": None}],
    "cables": [{"persona": "p://work", "address": "10.137.0.1", "end": "v0", "laid": True},
               {"persona": "p://play", "address": "10.137.0.2", "end": "v1", "laid": False}],
}  # fmt: skip
Asked = list[tuple[str, dict[str, Any]]]
Captured = pytest.CaptureFixture[str]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Have `answers` answer, one after the other."""
    found: Asked = []

    def call(method: str, timeout_s: float = 0, **params: Any) -> Any:
        found.append((method, params))
        return answers.pop(0) if len(answers) > 1 else answers[0]

    monkeypatch.setattr(client, "call", call)
    monkeypatch.setattr(netcli, "LOOK_S", 0.001)
    return found


answers: list[Any] = []


def test_the_status_of_a_network_that_is_up_says_all_of_it(asked: Asked, capsys: Captured) -> None:
    answers[:] = [UP]
    assert cli.main(["net", "status"]) == 0
    shown = capsys.readouterr().out
    assert "network:   up: the card has an address (it comes up with each boot)" in shown
    assert "card:      virtio2 (virtio), 52:54:00:12:34:56, has a link" in shown
    assert "address:   10.0.2.15/24, by DHCP, 86000 s left; gateway none" in shown
    assert "names:     no name server" in shown
    assert "helper:    sys://dhcp running, pid 77" in shown
    assert "cable:     p://work at 10.137.0.1\n" in shown
    assert "cable:     p://play at 10.137.0.2, not laid" in shown
    assert "\x1b[2J" not in shown, "a stranger's words obey nothing on a terminal"
    assert asked == [("net.status", {})]


def test_one_that_is_off_says_what_brings_it_up(asked: Asked, capsys: Captured) -> None:
    answers[:] = [OFF]
    assert cli.main(["net", "status"]) == 0
    assert "`bay0 net up` does" in capsys.readouterr().out


def test_waiting_ends_when_it_is_up_and_says_by_its_status_if_it_is_not(asked: Asked, capsys: Captured) -> None:
    answers[:] = [OFF, OFF, UP]
    assert cli.main(["net", "status", "--wait", "10"]) == 0
    assert len(asked) == 3
    answers[:] = [OFF]
    assert cli.main(["net", "status", "--wait", "1"]) == 1
    assert cli.main(["net", "status", "--wait", "soon"]) == 2
    assert "whole seconds" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("move", "answer", "status"),
    [
        ("up", UP, 0),
        ("up", {**OFF, "state": "no_card"}, 0),
        ("up", {**OFF, "state": "asking", "settled": False}, 4),
        ("up", {**OFF, "state": "failed"}, 1),
        ("down", OFF, 0),
        ("down", {**OFF, "state": "failed"}, 1),
    ],
)
def test_up_and_down_end_with_what_became_of_it(asked: Asked, move: str, answer: dict[str, Any], status: int) -> None:
    answers[:] = [answer]
    assert cli.main(["net", move]) == status
    assert asked == [(f"net.{move}", {"wait": True})]


@pytest.mark.parametrize(
    ("words", "sent"),
    [
        (["--address", "192.0.2.5/24", "--gateway", "192.0.2.1"], {"address": "192.0.2.5/24", "gateway": "192.0.2.1"}),
        (["--dhcp"], {"address": None, "gateway": None}),
        (["--dns", "192.0.2.1,192.0.2.2"], {"dns": ["192.0.2.1", "192.0.2.2"]}),
        (["--dns", "", "--device", ""], {"dns": None, "device": None}),
    ],
)
def test_only_what_is_said_is_changed(asked: Asked, words: list[str], sent: dict[str, Any]) -> None:
    answers[:] = [UP]
    assert cli.main(["net", "configure", *words]) == 0
    assert asked == [("net.configure", sent)]


def test_a_personas_network_is_shown_with_what_was_counted(asked: Asked, capsys: Captured) -> None:
    answers[:] = [
        {
            "name": "p://work", "network": True, "address": "10.137.0.1", "gateway": "169.254.1.1", "laid": True, "why": "",
            "sent": {"bytes": 2048, "packets": 8}, "received": None,
            "rules": [{"chain": "out", "rule": "refused", "packets": 4, "bytes": 288}],
        }
    ]  # fmt: skip
    assert cli.main(["persona", "net", "work"]) == 0
    shown = capsys.readouterr().out
    assert "persona:   p://work, 10.137.0.1, a cable to sys://net" in shown
    assert "8 packets" in shown
    assert "rule:      refused" in shown
    assert asked == [("persona.net", {"name": "p://work"})]
    answers[:] = [{"name": "p://work", "network": False}]
    assert cli.main(["persona", "net", "work"]) == 0
    assert "has no network now" in capsys.readouterr().out


def test_json_is_the_answer_itself(asked: Asked, capsys: Captured) -> None:
    answers[:] = [OFF]
    assert cli.main(["net", "status", "--json"]) == 0
    assert '"state": "off"' in capsys.readouterr().out
