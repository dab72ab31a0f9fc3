"""Who reaches whom, on a real kernel: the scripts and filters of sys://net in namespaces of their own (netprobe.py)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
TOP = HERE.parents[1]
# in a user namespace, so that it needs no root; with a /run of its own, in which `ip netns` pins
INSIDE = ("unshare", "--user", "--map-root-user", "--net", "--mount", "--fork", "sh", "-c", 'mount -t tmpfs none /run && exec "$@"', "probe")
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(not all(shutil.which(tool, path=PATH) for tool in ("nft", "ip", "unshare")), reason="nft or ip is not installed"),
]


@cache
def found() -> dict[str, Any]:
    """Run the probe once in each process of the tests."""
    done = subprocess.run(
        [*INSIDE, sys.executable, str(HERE / "netprobe.py")],
        env={**os.environ, "PYTHONPATH": str(TOP), "PATH": PATH}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    made: dict[str, Any] = json.loads(done.stdout)
    return made


@pytest.mark.parametrize(
    ("what", "answer"),
    [
        ("a, what is allowed", "lan to 192.168.77.50"),
        ("a, another port", "unreachable"),
        ("a, allowed for udp", "lan"),
        ("a, the same port for tcp", "unreachable"),
        ("a, b", "unreachable"),
        ("a, the card of sys://net", "unreachable"),
        ("a, the end of its cable", "unreachable"),
        ("a, 127.0.0.1", "refused"),
        ("a, names", ["lan", "lan to 192.168.77.50"]),
        ("b, the LAN", "lan to 192.168.77.50"),
        ("b, sys://net", "unreachable"),
        ("c, the LAN", "unreachable"),
        ("c, names", "lan"),
        ("d, names", "[Errno 1] Operation not permitted"),
        ("b, as a", "silence"),
        ("from the LAN to a", "unreachable"),
        ("from the LAN to b", "unreachable"),
        ("from the LAN to sys://net", "silence"),
        ("IPv6 addresses", ["", "", ""]),
    ],
)
def test_who_reaches_whom(what: str, answer: Any) -> None:
    assert found()[what] == answer


@pytest.mark.parametrize(
    "what", ["rules of the net", "rules with an address", "rules of a", "rules of b", "rules of c", "rules of d", "rules of the next net"]
)
def test_the_kernel_holds_each_filter_as_it_was_written(what: str) -> None:
    assert found()[what] == ""


def test_what_is_refused_and_let_through_is_counted() -> None:
    net, a = found()["counted in the net"], found()["counted in a"]
    assert net["spoofed"] >= 1, "a persona with another's address"
    assert net["not here"] >= 3, "ports of sys://net"
    assert net["no way"] >= 3, "from one cable to another, and from outside"
    assert a["refused"] == 2, "another port, and tcp where only udp is allowed"
    assert a["allowed 1"] >= 1
    carried = found()["carried by a"]
    assert carried["sent"]["bytes"] > 0
    assert carried["received"]["packets"] > 0


def test_a_changed_network_is_followed_without_the_persona() -> None:
    assert found()["other names"] == ["", "lan to 192.168.77.50"]
    assert found()["no names"] == ["", "unreachable"]
    assert found()["another address"] == ["", "192.168.77.51/24"], "the old one has gone, and not the new one with it"
    assert found()["a, from another address"] == "lan to 192.168.77.51"


def test_a_lease_that_is_over_is_taken_back_by_the_kernel() -> None:
    assert found()["a, when the lease is over"] == "no route"


def test_a_namespace_that_is_made_anew_has_the_old_persona_on_a_new_cable() -> None:
    assert found()["a, before its new cable"] == "no route"
    assert found()["a, with its new cable"] == "lan to 192.168.77.50"
    assert found()["a, once it is down"] == "no route"


def test_no_interface_was_ever_where_the_scripts_run() -> None:
    assert found()["here"].startswith("1: lo:")
    assert "\n" not in found()["here"]
    assert "p__a" not in found()["pinned"]
