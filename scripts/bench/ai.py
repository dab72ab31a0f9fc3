#!/usr/bin/env python3
"""Measure the AI tenant in a real spine: through the umbilical, and beside it the same server on its own socket, in turn, in one run.

Usage: scripts/bench/ai.py [--rounds N] [--tokens N] [--write] [--json FILE]

A spine boots with the AI's image on its disk (scripts/mkai.sh, scripts/mkask.sh first). Each round asks the same question, at temperature 0, twice:
by a granted persona's curl through bay0's socket, and by the same curl in a container that is given the server's own socket, which no persona is.
Without KVM a token takes about a second.
"""

import argparse
import datetime as dt
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from typing import Any

from section import TOP, SectionError, write

BOOT_S = 3000
DISK = "3G"
MEASURE = r"""
set -e
export CONTAINERS_CONF=/run/containers/containers.conf CONTAINERS_STORAGE_CONF=/run/containers/storage.conf
until bay0 tenant show ai --json | grep -q '"state": "ready"'; do sleep 1; done
bay0 tenant show ai --json | tr -d '\n' | sed 's/^/SHOW /'; echo
bay0 status --json | tr -d '\n' | sed 's/^/STATUS /'; echo
group=/sys/fs/cgroup/tenants/libpod-$(bay0 tenant show ai --json | sed -n 's/.*"container": "\([0-9a-f]*\)".*/\1/p')
bay0 image load /persist/images/persona-ask.tar >/dev/null
bay0 persona create ask >/dev/null
bay0 persona start ask >/dev/null
until bay0 persona show ask --json | grep -q '"state": "running"'; do sleep 1; done
podman run -d --name bench --network none --user 1000:1000 -v /run/bay0/ai/tenant:/run/ai localhost/ask:1 sleep infinity >/dev/null
ask() {
    curl="curl -sS -N -o /dev/null --max-time 600 -w 'CURL %{http_code} %{time_starttransfer} %{time_total}\n' -H 'Content-Type: application/json'"
    body='{"messages":[{"role":"user","content":"Tell me about the sea."}],'
    body="$body"'"max_tokens":'"$2"',"temperature":0,"cache_prompt":false,"stream":true}'
    printf "%s --unix-socket %s -d '%s' http://ai/v1/chat/completions" "$curl" "$1" "$body"
}
for i in $(seq ROUNDS); do
    for tokens in 1 TOKENS; do
        echo "THROUGH $tokens"; bay0 persona shell ask -- /bin/sh -c "$(ask /run/ai/ai.sock $tokens)"
        echo "RAW $tokens"; podman exec bench /bin/sh -c "$(ask /run/ai/server.sock $tokens)"
    done
done
echo "MEMORY $(cat $group/memory.current) $(cat $group/memory.peak) $(awk '/^anon / {print $2}' $group/memory.stat)"
echo "FORWARDER $(awk '/^VmRSS/ {print $2}' /proc/$(head -n 1 /sys/fs/cgroup/services/umbilical/cgroup.procs)/status)"
podman rm -f -t 0 bench >/dev/null
"""
ANSWER = re.compile(r"^(THROUGH|RAW) (\d+)\s+CURL (\d+) [\d.]+ ([\d.]+)", re.MULTILINE)


class BenchError(Exception):
    """The boot did not do what it should; the message ends with its output."""


def boot(disk: str, script: str) -> str:
    """Run a script in a spine with the AI; return its output."""
    argv = ["bash", f"{TOP}/scripts/boot-qemu.sh", "--persist", disk, "--mem", "2048", "--timeout", str(BOOT_S), "--log", f"{disk}.console"]
    argv += ["--append", "bay0.governor=off"]  # on one processor it would slow the AI for whoever asks it
    done = subprocess.run([*argv, "--exec", "-"], input=script, capture_output=True, text=True, timeout=BOOT_S + 60, check=False)
    if done.returncode != 0:
        raise BenchError(f"status {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def figures(output: str, tokens: int) -> dict[str, Any]:
    """Read a run's figures out of its output. Raises BenchError if an answer was none."""
    took: dict[tuple[str, int], list[float]] = {}
    for way, count, code, total in ANSWER.findall(output):
        if code != "200":
            raise BenchError(f"{way.lower()}: HTTP status {code}")
        took.setdefault((way, int(count)), []).append(float(total))
    found: dict[str, list[tuple[float, float]]] = {}  # seconds to the first token, tokens a second after it
    for way in ("THROUGH", "RAW"):
        found[way] = [(first, (tokens - 1) / (total - first)) for first, total in zip(took[way, 1], took[way, tokens], strict=True)]
    show = json.loads(re.search(r"^SHOW (.*)$", output, re.MULTILINE).group(1))  # type: ignore[union-attr]
    status = json.loads(re.search(r"^STATUS (.*)$", output, re.MULTILINE).group(1))  # type: ignore[union-attr]
    memory = [int(word) / (1 << 20) for word in re.search(r"^MEMORY (\d+) (\d+) (\d+)", output, re.MULTILINE).groups()]  # type: ignore[union-attr]
    ready_ms = next(step["at_ms"] for step in show["steps"] if step["dest"] == "ready")
    return {
        "through": found["THROUGH"],
        "raw": found["RAW"],
        "ready_s": (ready_ms - status["complete_ms"]) / 1000,
        "warm_s": show["first_token_s"],
        "memory_mib": dict(zip(("now", "peak", "own"), memory, strict=True)),
        "forwarder_mib": int(re.search(r"^FORWARDER (\d+)", output, re.MULTILINE).group(1)) / 1024,  # type: ignore[union-attr]
    }


def table(got: dict[str, Any], tokens: int) -> str:
    """Return the section of docs/BENCHMARKS.md."""
    first = {way: statistics.median(pair[0] for pair in got[way]) for way in ("through", "raw")}
    speed = {way: statistics.median(pair[1] for pair in got[way]) for way in ("through", "raw")}
    today = dt.datetime.now(tz=dt.UTC).date().isoformat()
    memory = got["memory_mib"]
    load = os.getloadavg()[0]
    lines = [
        f"{today}, {os.cpu_count()} cores, the host's load at the end {load:.1f}; {len(got['raw'])} rounds of {tokens} tokens, medians.",
        "",
        "| | through the umbilical | the server's own socket | ratio |",
        "|---|---|---|---|",
        f"| tokens a second | {speed['through']:.2f} | {speed['raw']:.2f} | **{speed['through'] / speed['raw']:.2f}** |",
        f"| seconds to the first token | {first['through']:.2f} | {first['raw']:.2f} | {first['through'] / first['raw']:.2f} |",
        "",
        f"- From `init complete` to READY, the load of the image from its archive in it: {got['ready_s']:.0f} s.",
        f"- The warm-up's first token: {got['warm_s']:.1f} s.",
        f"- Memory of the tenant: {memory['own']:.0f} MiB of its own, {memory['now']:.0f} with its page cache, {memory['peak']:.0f} at its peak.",
        f"- Memory of the forwarder: {got['forwarder_mib']:.0f} MiB RSS.",
    ]
    return "\n".join(lines)


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="default 3")
    parser.add_argument("--tokens", type=int, default=16, help="of each answer (default 16)")
    parser.add_argument("--write", action="store_true", help="rewrite the section of docs/BENCHMARKS.md")
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench.", dir=f"{TOP}/build") as work:
        disk = f"{work}/ai.img"
        images = [word for name in ("spine-ai", "persona-ask") for word in ("--image", f"{TOP}/build/{name}.tar")]
        subprocess.run(["bash", f"{TOP}/scripts/mkpersist.sh", "--size", DISK, *images, disk], check=True, capture_output=True)
        got = figures(boot(disk, MEASURE.replace("ROUNDS", str(chosen.rounds)).replace("TOKENS", str(chosen.tokens))), chosen.tokens)
    print(table(got, chosen.tokens))
    if chosen.json:
        with open(chosen.json, "w", encoding="utf-8") as file:
            json.dump(got, file, indent=1)
    if chosen.write:
        write("ai", table(got, chosen.tokens))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (BenchError, SectionError) as error:
        sys.exit(f"ai.py: {error}")
