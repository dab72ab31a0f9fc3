"""`sys://net` with a card, in one boot: who of the personas reaches what, and what is to be seen on the cable.

QEMU's network is restricted (nothing of it leaves this process), but for two servers that are a script each.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import harness
import pytest
from harness import Vm

pytestmark = pytest.mark.vm

HOST, CARD, MAC = "10.0.2.100", "10.0.2.15", "52:54:00:12:34:99"
ANSWER = "hello from outside"
SERVER = f"""#!/bin/sh
read -r line
printf 'HTTP/1.0 200 OK\\r\\n\\r\\n{ANSWER}\\n'
"""
UP_S = 60
VERB_S = 120
NAP = harness.NAP
ALLOWED = f'{NAP}network = "net"\nallow = ["{HOST}:8080"]\n'
LAN = f'{NAP}network = "net"\nlan = true\n'
PUBLIC = f'{NAP}network = "net"\n'
UNREACHABLE = "Host is unreachable"


@pytest.fixture(scope="module")
def spine(folder: str) -> Iterator[Vm]:
    """Boot with a card that nobody uses yet; what passes its cable is kept in a file."""
    disk = harness.make_disk(f"{folder}/net.img", "1G")
    server = Path(folder, "server")
    server.write_text(SERVER, encoding="utf-8")
    server.chmod(0o755)
    ways = ",".join(f"guestfwd=tcp:{HOST}:{port}-cmd:{server}" for port in (8080, 9090))
    qemu = (
        "-netdev", f"user,id=out,restrict=on,{ways}", "-device", f"virtio-net-pci,netdev=out,mac={MAC}",
        "-object", f"filter-dump,id=kept,netdev=out,file={folder}/cable.pcap",
    )  # fmt: skip
    with harness.vm(disk, qemu=qemu) as machine:
        machine.wait_console(harness.COMPLETE)
        machine.wait_durable()
        yield machine


def net(spine: Vm) -> dict[str, Any]:
    found: dict[str, Any] = spine.call("net.status")
    return found


def wait_up(spine: Vm) -> None:
    harness.until(lambda: net(spine)["state"] == "up", UP_S, "the network is up")


@pytest.fixture(scope="module")
def personas(spine: Vm) -> Vm:
    """The network is up, and four personas run: one that may reach one port, one the LAN, one the world, one nothing."""
    spine.call("net.up", VERB_S)
    wait_up(spine)
    for name, text in (("allowed", ALLOWED), ("lan", LAN), ("public", PUBLIC), ("alone", NAP)):
        spine.create(name, text)
        spine.act("start", name, VERB_S)
        harness.until(lambda name=name: spine.show(name)["state"] == "running", VERB_S, f"{name} runs")  # type: ignore[misc]
    return spine


def fetch(spine: Vm, name: str, where: str) -> str:
    """Return what the persona gets from there, or what it is told."""
    found = spine.sh(f"bay0 persona exec {name} -- wget -qO- -T 5 http://{where}/", VERB_S)
    return (found.stdout or found.stderr).strip()


def packets(path: str) -> list[bytes]:
    """Return the frames of a file as filter-dump writes it (pcap-savefile(5))."""
    data = Path(path).read_bytes()
    order = "<" if data[:4] == b"\xd4\xc3\xb2\xa1" else ">"
    at, found = 24, []
    while at + 16 <= len(data):
        size = struct.unpack_from(f"{order}I", data, at + 8)[0]
        found.append(data[at + 16 : at + 16 + size])
        at += 16 + size
    return found


def test_until_it_is_wanted_the_card_is_nobodys(spine: Vm) -> None:
    assert net(spine)["state"] == "off"
    assert spine.out("ls /sys/class/net") == "lo"
    assert spine.out("ls /run/netns 2>/dev/null || true") == ""


def test_the_card_gets_an_address_and_the_spine_has_none(personas: Vm) -> None:
    found = net(personas)
    assert found["address"] == f"{CARD}/24"
    assert found["card"]["mac"] == MAC
    assert 0 < found["lease_left_s"] <= 86400
    assert personas.out("ls /sys/class/net") == "lo"
    assert personas.out("tail -n +2 /proc/net/route") == ""
    finding = personas.call("validate", only=["network"])["checks"][0]
    assert (finding["level"], finding["why"]) == ("green", "")


def test_who_asks_for_the_address_is_nobody_and_sees_no_disk(personas: Vm) -> None:
    status = personas.out("cat /proc/$(pgrep -x udhcpc)/status")
    assert "Uid:\t65534\t65534\t65534\t65534" in status
    assert "CapEff:\t0000000000002400" in status, "packets of its own, and port 68"
    assert "CapBnd:\t0000000000002400" in status
    assert "NoNewPrivs:\t1" in status
    assert personas.sh("ls /proc/$(pgrep -x udhcpc)/root/persist/spine").status != 0
    assert personas.out("ls /proc/$(pgrep -x udhcpc)/root/run") == ""


@pytest.mark.parametrize(
    ("name", "where", "answer"),
    [
        ("allowed", f"{HOST}:8080", ANSWER),
        ("allowed", f"{HOST}:9090", UNREACHABLE),
        ("allowed", f"{CARD}:22", UNREACHABLE),
        ("lan", f"{HOST}:9090", ANSWER),
        ("lan", f"{CARD}:22", UNREACHABLE),
        ("lan", "169.254.1.1:22", UNREACHABLE),
        ("lan", "10.137.0.3:8080", UNREACHABLE),
        ("public", f"{HOST}:8080", UNREACHABLE),
        ("alone", f"{HOST}:8080", "Network unreachable"),
    ],
)
def test_who_reaches_what(personas: Vm, name: str, where: str, answer: str) -> None:
    if name == "lan" and where.startswith("10.137"):  # somebody listens there
        personas.out("bay0 persona exec public -- sh -c 'nc -l -p 8080 >/dev/null 2>&1 &'", VERB_S)
    assert answer in fetch(personas, name, where)


def test_one_without_a_network_has_lo_alone(personas: Vm) -> None:
    assert personas.out("bay0 persona exec alone -- ls /proc/sys/net/ipv4/conf").split() == ["all", "default", "lo"]


def test_a_persona_has_one_cable_one_address_and_the_constant_name_server(personas: Vm) -> None:
    seen = personas.out("bay0 persona exec allowed -- sh -c 'ip -o addr; cat /etc/resolv.conf'", VERB_S)
    assert "eth0    inet 10.137.0.1/32" in seen
    assert "inet6" not in seen
    assert "nameserver 169.254.1.1" in seen
    assert seen.count("nameserver") == 1
    changed = "ip link set eth0 down; ip route add 1.2.3.0/24 dev eth0; ip addr add 10.137.0.9/32 dev eth0"
    refused = personas.sh(f"bay0 persona exec allowed -- sh -c '{changed}'", VERB_S)
    assert refused.stderr.count("Operation not permitted") == 3, refused.stderr


def test_what_was_let_through_and_refused_is_counted(personas: Vm) -> None:
    found = json.loads(personas.out("bay0 persona net allowed --json"))
    counted = {rule["rule"]: rule["packets"] for rule in found["rules"]}
    assert counted["allowed 1"] >= 1
    assert counted["refused"] >= 2
    assert found["received"]["bytes"] > 0
    shown = personas.out("bay0 persona net alone")
    assert "has no network now" in shown


def test_the_way_outlives_the_client_and_the_network_comes_back_to_who_runs(personas: Vm) -> None:
    container = personas.show("allowed")["container"]
    personas.out("kill -9 $(pgrep -x udhcpc)")
    assert fetch(personas, "allowed", f"{HOST}:8080") == ANSWER
    assert net(personas)["state"] == "up"
    assert personas.call("net.down", VERB_S)["state"] == "off"
    assert "unreachable" in fetch(personas, "allowed", f"{HOST}:8080")
    personas.call("net.up", VERB_S)
    wait_up(personas)
    assert fetch(personas, "allowed", f"{HOST}:8080") == ANSWER
    assert personas.show("allowed")["container"] == container


def test_an_end_leaves_no_namespace(personas: Vm) -> None:
    personas.act("stop", "lan", VERB_S)
    harness.until(lambda: "p__lan" not in personas.out("ls /run/netns"), UP_S, "its namespace goes")


def test_nothing_else_was_ever_on_the_cable(personas: Vm, folder: str) -> None:
    """Of what the card has sent: ARP, DHCP, and what was asked of the two servers."""
    assert os.path.getsize(f"{folder}/cable.pcap") > 24
    ours, strange = bytes.fromhex(MAC.replace(":", "")), []
    servers = {bytes([10, 0, 2, 100]) + struct.pack(">H", port) for port in (8080, 9090)}
    for frame in packets(f"{folder}/cable.pcap"):
        if frame[6:12] != ours or frame[12:14] == b"\x08\x06":
            continue
        dhcp = frame[12:14] == b"\x08\x00" and frame[23] == 17 and frame[34:38] == struct.pack(">HH", 68, 67)
        asked = frame[12:14] == b"\x08\x00" and frame[23] == 6 and frame[30:34] + frame[36:38] in servers
        if not (dhcp or asked):
            strange.append(frame[:64].hex())
    assert strange == []
