"""Usage: umbilical.py [--requests N] [--megabytes N] [--tokens N] [--delay S].

What the umbilical costs: requests a second, bytes a second and the time to the first byte and between tokens, through the real forwarder
and on the server's raw socket, in turn in one run, natively. The server is the tests' stand-in, which does nothing but answer, so this is the
forwarder's worst case: a model takes a thousand times as long.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import sys
import time
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(TOP), str(TOP / "tests" / "unit")]

from umbilicalkit import chat, head, rig  # noqa: E402

ROUNDS = 5


def exchange(path: str, words: str, *, stream: bool = False) -> tuple[float, float, int, list[float]]:
    """Ask once; return seconds to the first byte and to the end, bytes, and when each piece came."""
    body = json.dumps(chat(words, stream=stream)).encode()
    began = time.perf_counter()
    size, times = 0, []
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(path)
        peer.sendall(head(f"Content-Length: {len(body)}", "Connection: close") + body)
        while data := peer.recv(1 << 18):
            size += len(data)
            times.append(time.perf_counter() - began)
    return times[0], times[-1], size, times


def main() -> None:
    """Measure both in turn, so that what the machine does meanwhile hits both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=200, help="in each round (default 200)")
    parser.add_argument("--megabytes", type=int, default=64, help="of one long answer in each round (default 64)")
    parser.add_argument("--tokens", type=int, default=100, help="of one streamed answer in each round (default 100)")
    parser.add_argument("--delay", type=float, default=0.01, help="seconds between its tokens (default 0.01)")
    options = parser.parse_args()
    quota = {"requests_a_minute": 10**9, "accepts_a_second": 10**6, "response_bytes": 1 << 32, "connections": 64}
    found: dict[str, dict[str, list[float]]] = {}
    with rig(**quota) as made:
        ways = {"raw": made.server_socket, "umbilical": made.door()}
        for _ in range(ROUNDS):
            for way, path in ways.items():
                mine = found.setdefault(way, {})
                began = time.perf_counter()
                firsts = [exchange(path, "hello")[0] for _ in range(options.requests)]
                mine.setdefault("requests/s", []).append(options.requests / (time.perf_counter() - began))
                mine.setdefault("first byte, ms", []).append(statistics.median(firsts) * 1000)
                _, took, size, _ = exchange(path, f"bigstream {options.megabytes * 16}", stream=True)
                mine.setdefault("MB/s", []).append(size / took / 1e6)
                _, took, _, _ = exchange(path, f"stream {options.tokens} {options.delay}", stream=True)
                mine.setdefault("tokens/s", []).append(options.tokens / took)
        print(f"forwarder: {made.resident_kb()} kB resident, {made.descriptors()} descriptors")
    for name in found["raw"]:
        raw, through = (statistics.median(found[way][name]) for way in ("raw", "umbilical"))
        print(f"{name:16} raw {raw:9.2f}   umbilical {through:9.2f}   ratio {through / raw:.3f}")


if __name__ == "__main__":
    main()
