"""The scripts of `bay0/net/scripts.py` on a real kernel: run in namespaces of its own (`unshare`), prints what was found as JSON.

The world: `lan` is a network with a server at 192.168.77.1, which is reached over the "card" of sys://net; a and b are personas.
Whoever reaches a server is answered with its name.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

from bay0.net import allow, ipv4, rules
from bay0.net.cables import carried
from bay0.net.scripts import BRING_UP, CABLE, COUNT, LOWER, NAMESPACE, RAISE, SET, UNPIN

HOST, CARD, TRIES = "192.168.77.1", "192.168.77.50", 20
CLIENT = """
import socket, sys
kind, source, host, port = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
peer = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
peer.settimeout(1.5)
try:
    if source:
        peer.setsockopt(socket.SOL_IP, 15, 1)
        peer.bind((source, 0))
    peer.connect((host, port))
    peer.send(b"?")
    print(peer.recv(100).decode())
except TimeoutError:
    print("silence")
except OSError as error:
    print({113: "unreachable", 111: "refused", 101: "no route", 13: "no permission"}.get(error.errno, error))
"""
SERVER = """
import socket, sys, threading
name = sys.argv[1].encode()
def tcp(port):
    with socket.create_server(("0.0.0.0", port)) as listener:
        while True:
            peer, who = listener.accept()
            peer.recv(1); peer.send(name + b" to " + who[0].encode()); peer.close()
def udp(port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("0.0.0.0", port))
        while True:
            _, who = peer.recvfrom(100)
            peer.sendto(name, who)
for port in (53, 80, 8080): threading.Thread(target=tcp, args=(port,)).start()
threading.Thread(target=udp, args=(53,)).start()
"""


def sh(script: str, *words: str, text: str = "") -> str:
    done = subprocess.run(["sh", "-euc", script, "probe", *words], capture_output=True, text=True, input=text, check=False)
    if done.returncode:
        raise SystemExit(f"{script}\n{words}: status {done.returncode}: {done.stderr}")
    return done.stdout


def inside(space: str, *argv: str) -> str:
    found = subprocess.run(["nsenter", f"--net=/run/netns/{space}", *argv], capture_output=True, text=True, check=False)
    return found.stdout.strip() + found.stderr.strip()


def asks(space: str, host: str, port: int, kind: str = "tcp", source: str = "") -> str:
    return inside(space, sys.executable, "-c", CLIENT, kind, source, host, str(port))


def serve(space: str, name: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["nsenter", f"--net=/run/netns/{space}", sys.executable, "-c", SERVER, name])


def raised() -> str:
    tables = (rules.net(), rules.names(""))
    why = rules.missing(sh(RAISE, text="".join(each.text() for each in tables)), tables)
    sh("""ip -n lan link del lan0 2>/dev/null || :
ip link add card netns net type veth peer name lan0 netns lan
ip -n lan addr add 192.168.77.1/24 dev lan0; ip -n lan link set lan0 up; ip -n lan route add 10.137.0.0/16 via 192.168.77.50""")
    sh(BRING_UP)
    return why


def applied(address: str, gateway: str, server: str, old: str = "", life: str = "forever") -> str:
    tables = (rules.net(), rules.names(server))
    return rules.missing(sh(SET, address, life, gateway, old, text=tables[1].text()), tables)


def persona(space: str, slot: int, *entries: str, lan: bool = False, dns: bool = True) -> str:
    table = rules.persona([allow.read(each) for each in entries], lan=lan, dns=dns)  # type: ignore[misc]
    return rules.missing(sh(NAMESPACE, space, text=table.text()), (table,))


def cable(space: str, slot: int) -> None:
    sh(CABLE, space, f"v{slot}", ipv4.of_slot(slot), ipv4.GATEWAY)


def counts(listing: str) -> dict[str, int]:
    return {each["rule"]: each["packets"] for each in rules.counters(listing)}


def waited(space: str, host: str, port: int) -> str:
    """Ask until a server that was just started answers."""
    for _ in range(TRIES):
        answer = asks(space, host, port)
        if answer != "refused":
            return answer
        time.sleep(0.2)
    return "refused"


def main() -> dict[str, Any]:
    found: dict[str, Any] = {}
    sh("ip link set lo up; ip netns add lan; ip -n lan link set lo up")
    servers = [serve("lan", "lan")]
    try:
        found.update(_life(servers))
    finally:
        for each in servers:
            each.kill()
            each.wait()
    return found


def _life(servers: list[subprocess.Popen[bytes]]) -> dict[str, Any]:
    """Who reaches whom."""
    found: dict[str, Any] = {"rules of the net": raised(), "rules with an address": applied(f"{CARD}/24", HOST, HOST)}
    found["rules of a"] = persona("p__a", 0, f"{HOST}:80", f"{HOST}:53/udp", "10.137.0.2", CARD, ipv4.GATEWAY)
    found["rules of b"] = persona("p__b", 1, lan=True)
    found["rules of c"] = persona("p__c", 2)
    found["rules of d"] = persona("p__d", 3, lan=True, dns=False)
    for slot, space in enumerate(("p__a", "p__b", "p__c", "p__d")):
        cable(space, slot)
    servers += [serve("p__b", "b"), serve("net", "net")]
    waited("p__b", "127.0.0.1", 80)
    waited("net", "127.0.0.1", 80)
    found["a, what is allowed"] = waited("p__a", HOST, 80)
    found["a, another port"] = asks("p__a", HOST, 8080)
    found["a, allowed for udp"] = asks("p__a", HOST, 53, "udp")
    found["a, the same port for tcp"] = asks("p__a", HOST, 53)
    found["a, b"] = asks("p__a", "10.137.0.2", 80)
    found["a, the card of sys://net"] = asks("p__a", CARD, 80)
    found["a, the end of its cable"] = asks("p__a", ipv4.GATEWAY, 80)
    found["a, 127.0.0.1"] = asks("p__a", "127.0.0.1", 80)
    found["a, names"] = [asks("p__a", ipv4.GATEWAY, 53, kind) for kind in ("udp", "tcp")]
    found["b, the LAN"] = asks("p__b", HOST, 8080)
    found["b, sys://net"] = asks("p__b", CARD, 80)
    found["c, the LAN"] = asks("p__c", HOST, 80)
    found["c, names"] = asks("p__c", ipv4.GATEWAY, 53, "udp")
    found["d, names"] = asks("p__d", ipv4.GATEWAY, 53, "udp")
    # root of the machine's own namespaces may forge, which a persona's may not: sys://net must see it all the same
    inside("p__b", "ip", "addr", "add", "10.137.0.1/32", "dev", "eth0")
    found["b, as a"] = asks("p__b", HOST, 80, source="10.137.0.1")
    found["b, as a stranger"] = asks("p__b", HOST, 80, source="192.168.77.9")
    found["from the LAN to a"] = asks("lan", "10.137.0.1", 80)
    found["from the LAN to b"] = asks("lan", "10.137.0.2", 80)
    found["from the LAN to sys://net"] = asks("lan", CARD, 80)
    found["IPv6 addresses"] = [inside(each, "ip", "-6", "-o", "addr") for each in ("net", "p__a", "p__b")]
    found["here"] = inside("net", "true") + sh("ip -o link").strip()
    found["counted in the net"] = counts(inside("net", "nft", "-j", "list", "ruleset"))
    text, _, listing = sh(COUNT, "p__a").partition("\n--\n")
    found["carried by a"] = carried(text)
    found["counted in a"] = counts(listing)
    _changes(found)
    return found


def _changes(found: dict[str, Any]) -> None:
    """What a network does while personas live on it."""
    sh("ip -n lan addr add 192.168.77.2/24 dev lan0")
    why = applied(f"{CARD}/24", HOST, "192.168.77.2")
    found["other names"] = [why, asks("p__a", ipv4.GATEWAY, 53)]
    found["no names"] = [applied(f"{CARD}/24", HOST, ""), asks("p__a", ipv4.GATEWAY, 53, "udp")]
    # another address: the old one goes
    why = applied("192.168.77.51/24", HOST, HOST, f"{CARD}/24")
    found["another address"] = [why, inside("net", "ip", "-4", "-o", "addr", "show", "dev", "card").split()[3]]
    found["a, from another address"] = asks("p__a", HOST, 80)
    # a lease that ends: the kernel takes address and way back by itself
    applied("192.168.77.51/24", HOST, HOST, life="2")
    for _ in range(TRIES):
        time.sleep(0.3)
        if not inside("net", "ip", "-4", "-o", "addr", "show", "dev", "card"):
            break
    found["a, when the lease is over"] = asks("p__a", HOST, 80)
    # the namespace is made anew, while a and b live
    found["rules of the next net"] = raised()
    applied(f"{CARD}/24", HOST, HOST)
    found["a, before its new cable"] = asks("p__a", HOST, 80)
    cable("p__a", 0)
    found["a, with its new cable"] = asks("p__a", HOST, 80)
    sh(LOWER)
    for _ in range(TRIES):
        time.sleep(0.2)
        if inside("p__a", "ip", "-o", "link").count("\n") == 0:
            break
    found["a, once it is down"] = asks("p__a", HOST, 80)
    sh(UNPIN, "p__a")
    found["pinned"] = sorted(os.listdir("/run/netns"))


if __name__ == "__main__":
    print(json.dumps(main()))
