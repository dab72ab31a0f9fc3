#!/usr/bin/env python3
"""Measure a switch of the focus beside a raw pair of freeze and thaw by hand, and beside podman's, in a real spine.

Usage: scripts/bench/freezer.py [--counts 2,10,50] [--screen] [--resume FILE] [--write] [--json FILE] [-- QEMU ARGS]

For each count one boot with that many personas that run. Two of them burn all the processor they get; the
focus goes from one to the other and back. In the same boot two containers of nobody's, which burn as well,
are frozen and thawed alternately by hand: by writes to cgroup.freeze, each until cgroup.events agrees (a
shell's own words, no process is started), and by `podman pause` and `podman unpause`. Needs the built
image, no root. On a busy host: -- -icount shift=2, so that the guest's clock counts its instructions.

--screen: in a machine with a screen, and the two are the sample persona `counter`, whose windows are drawn
all the time: before the one behind is frozen, the other one is on the screen and a frame has come since. Then
what bay0 asks of sway for it is asked by hand, too: by swaymsg, less what swaymsg takes to start.
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

ROUNDS = 10  # of there and back
BY_PODMAN = 3  # the same, of podman's pairs
BOOT_S, ONE_S = 600, 30
BOTH = 2  # the one in front and the one behind
COUNTER, COUNTER_TAR = "localhost/counter:1", f"{TOP}/build/persona-counter.tar"  # scripts/mkcounter.sh
ASKED = 5  # times the same questions to sway, by hand
IMAGE, BUILT_IN = "localhost/alpine:3.23", "/usr/share/spine-images/alpine-3.23.tar"
BURN = ["/bin/sh", "-c", "while :; do :; done"]
MEASURE = r"""
set -e
cd /tmp
export CONTAINERS_CONF=/run/containers/containers.conf CONTAINERS_STORAGE_CONF=/run/containers/storage.conf
now() { date +%s%N; }
call() { bay0 rpc --window 1; }
line() { printf '{"jsonrpc":"2.0","id":1,"method":"%s","params":%s}\n' $1 $2; }
log() { cat /run/bay0/log.jsonl.1 /run/bay0/log.jsonl 2>/dev/null; }
calls() { log | grep 'command starts' | grep podman- | grep -vc podman-list || true; }  # a look now and then is nobody's
state() { line persona.show "{\"name\":\"p://n$1\"}" | call | grep -o '"state": *"[a-z]*"' | head -n 1; }
runs() { n=0; until state $1 | grep -q running; do sleep 1; n=$((n + 1)); [ $n -lt 120 ] || { state $1; exit 1; }; done; }
until bay0 persona list >/dev/null 2>&1; do sleep 1; done
[ WITH_SCREEN = no ] || { bay0 screen --wait 120 >/dev/null; bay0 image load /persist/images/persona-counter.tar >/dev/null; }
call <<'END' >/dev/null
CREATES
END
[ WITH_SCREEN = no ] || podman load -q -i BUILT_IN >/dev/null  # no persona brings it when both have windows
for n in $(seq COUNT | sort -rn); do line persona.start "{\"name\":\"p://n$n\"}" | call >/dev/null; runs $n; done
windows() { line screen '{}' | call | grep -o '"windows": *[1-9]' | grep -c .; }
[ WITH_SCREEN = no ] || until [ "$(windows)" = 2 ]; do sleep 1; done
focus() { line focus "{\"name\":\"p://n$1\"}"; }
for i in 1 2; do focus $i | call >/dev/null; done
for i in $(seq ROUNDS); do focus 1; focus 2; done >switches
for i in $(seq ROUNDS); do line focus.show '{}'; line focus.show '{}'; done >nothing
before=$(calls)
begin=$(now); call <nothing >/dev/null; base=$(now); call <switches >answers; switches=$(now)
echo "SWITCHES $((base - begin)) $((switches - base)) $(grep -c '"settled": *true' answers)"
echo "PODMAN $(($(calls) - before))"
for who in focus p://n1 p://n2; do
    echo "HISTORY $who $(line history "{\"machine\":\"$who\",\"limit\":200}" | call | tr -d '\n')"
done
if [ WITH_SCREEN = yes ]; then
    for each in sway seatd; do
        pid=$(grep -lx $each /proc/[0-9]*/comm | head -n 1 | cut -d/ -f3)
        echo "RSS $each $(sed -n 's/^VmRSS:[^0-9]*\([0-9]*\) kB/\1/p' /proc/$pid/status)"
    done
    export SWAYSOCK=/run/compositor/run/ipc
    colours="client.focused #112233 #112233 #ffffff #112233 #112233; client.unfocused #112233 #112233 #ffffff #112233 #112233"
    ask() { swaymsg -q "workspace --no-auto-back-and-forth \"$1\"; $colours"; swaymsg -r -t get_tree >/dev/null; }
    begin=$(now); for n in $(seq ASKED); do swaymsg -v; swaymsg -v; swaymsg -v; swaymsg -v; done >/dev/null; base=$(now)
    for n in $(seq ASKED); do ask nobody; ask p://n2; done; end=$(now)
    echo "IPC $((base - begin)) $((end - base))"
fi
for n in 1 2; do line persona.stop "{\"name\":\"p://n$n\"}"; done | call >/dev/null

for n in 1 2; do
    podman run -d --name hand$n --cgroup-parent /personas --network none IMAGE sh -c 'while :; do :; done' >id$n
    eval "G$n=/sys/fs/cgroup/personas/libpod-$(cat id$n)"
done
is() { while read key value; do case $key in frozen) [ $value = $2 ]; return;; esac; done <$1/cgroup.events; return 1; }
put() { echo $2 >$1/cgroup.freeze; until is $1 $2; do :; done; }
put $G2 1
pairs() { for i in $(seq ROUNDS); do put $G2 0; put $G1 1; put $G1 0; put $G2 1; done; }
pairs; begin=$(now); pairs; raw=$(now)
put $G2 0
podman pause hand2 >/dev/null
there() { podman unpause hand2; podman pause hand1; podman unpause hand1; podman pause hand2; }
hand=$(now); for i in $(seq BY_PODMAN); do there >/dev/null; done; end=$(now)
echo "HAND $((raw - begin)) $((end - hand))"
podman rm -f --time 0 hand1 hand2 >/dev/null
"""


class BenchError(Exception):
    """A boot did not do what it should; the message ends with its output."""


def boot(disk: str, script: str, count: int, options: list[str], more: list[str]) -> str:
    """Run a script in a spine; return its output."""
    bound_s = BOOT_S + ONE_S * count
    argv = ["bash", f"{TOP}/scripts/boot-qemu.sh", "--persist", disk, "--mem", str(1024 + 8 * count)]
    argv += [*options, "--timeout", str(bound_s), "--log", f"{disk}.console", "--exec", "-", *(["--", *more] if more else [])]
    done = subprocess.run(
        argv, input=script, capture_output=True, text=True, timeout=bound_s + 60, check=False
    )
    if done.returncode != 0:
        raise BenchError(f"status {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def creates(count: int, *, screen: bool) -> str:
    """Return the requests that make the personas: two burn, the others sleep."""
    lines = []
    for n in range(1, count + 1):
        command = BURN if n <= BOTH else ["/bin/sleep", "infinity"]
        wanted = {"image": IMAGE, "command": command, "memory": 32 << 20, "stop_s": 0}
        if screen and n <= BOTH:
            words = ["counter", "--every", "0", "--colour", ("2030a0", "a03020")[n - 1]]
            wanted |= {"image": COUNTER, "command": words, "screen": True, "memory": 64 << 20}
        params = {"name": f"p://n{n}", "manifest": wanted}
        lines.append(json.dumps({"jsonrpc": "2.0", "id": n, "method": "persona.create", "params": params}))
    return "\n".join(lines)


def figures(count: int, output: str) -> dict[str, Any]:
    """Read a run's figures out of its output."""
    numbers = {}
    for word in ("SWITCHES", "PODMAN", "HAND"):
        found = re.search(rf"^{word} ([0-9 ]+)$", output, re.MULTILINE)
        if found is None:
            raise BenchError(f"no {word} in: {output[-2000:]}")
        numbers[word] = list(map(int, found[1].split()))
    asked = re.search(r"^IPC ([0-9]+) ([0-9]+)$", output, re.MULTILINE)
    ipc_ms = (int(asked[2]) - int(asked[1])) / 1e6 / (2 * ASKED) if asked else 0.0
    rss = {name: int(kib) for name, kib in re.findall(r"^RSS (\S+) ([0-9]+)$", output, re.MULTILINE)}
    base, switches, settled = numbers["SWITCHES"]
    raw, hand = numbers["HAND"]
    histories = dict(re.findall(r"^HISTORY (\S+) (.*)$", output, re.MULTILINE))
    halves = durations({name: json.loads(text)["result"] for name, text in histories.items()})
    promises, freezes = zip(*halves, strict=True)
    took = [promise + freeze for promise, freeze in halves]
    return {
        "personas": count, "switches": len(took), "settled": settled, "podman_calls": numbers["PODMAN"][0],
        "switch_ms": statistics.median(took), "longest_ms": max(took), "promise_ms": statistics.median(promises),
        "freeze_ms": statistics.median(freezes), "answer_ms": (switches - base) / 1e6 / (2 * ROUNDS),
        "raw_ms": raw / 1e6 / (2 * ROUNDS), "ipc_ms": ipc_ms, "rss_kib": rss, "podman_ms": hand / 1e6 / (2 * BY_PODMAN),
    }  # fmt: skip


def durations(steps: dict[str, list[dict[str, Any]]]) -> list[tuple[float, float]]:
    """Return what each switch took, in ms: until its promise was kept, and from there to the kernel's word of both.

    A step has the moment at which its event was taken: a thaw is asked for when the promise is kept.
    """
    rows = [row for name in ("p://n1", "p://n2") for row in steps[name]]
    done = sorted(row["at_ms"] for row in rows if row["event"] in ("paused", "resumed"))
    thaws = sorted(row["at_ms"] for row in rows if row["event"] == "resume")
    asked = sorted(row["at_ms"] for row in steps["focus"] if row["event"] == "focus")[2:]  # the first two freeze the others
    found = []
    for at, then in zip(asked, [*asked[1:], float("inf")], strict=True):
        words, kept = [each for each in done if at <= each < then], [each for each in thaws if at <= each < then]
        if len(words) != BOTH or len(kept) != 1:
            raise BenchError(f"a switch at {at} ms had {len(words)} of the kernel's words")
        found.append((float(kept[0] - at), float(words[-1] - kept[0])))
    return found


def measure(count: int, more: list[str], *, screen: bool) -> dict[str, Any]:
    """Measure with `count` personas."""
    os.makedirs(f"{TOP}/build", exist_ok=True)
    script = MEASURE
    words = {"ROUNDS": ROUNDS, "BY_PODMAN": BY_PODMAN, "COUNT": count, "CREATES": creates(count, screen=screen), "IMAGE": IMAGE, "BUILT_IN": BUILT_IN}
    words |= {"ASKED": ASKED, "WITH_SCREEN": "yes" if screen else "no"}
    for word, meant in words.items():
        script = script.replace(word, str(meant))
    with tempfile.TemporaryDirectory(prefix="bench.", dir=f"{TOP}/build") as work:
        disk = f"{work}/persist.img"
        with_image = ["--image", COUNTER_TAR] if screen else []
        subprocess.run(
            ["bash", f"{TOP}/scripts/mkpersist.sh", "--size", "2G", *with_image, disk], check=True, capture_output=True
        )
        return figures(count, boot(disk, script, count, ["--screen"] if screen else [], more))


def kept(path: str | None) -> dict[int, dict[str, Any]]:
    """Return the figures of boots that were measured before, by their number of personas."""
    if path is None or not os.path.exists(path):
        return {}
    with open(path, encoding="utf-8") as file:
        return {row["personas"]: row for row in json.load(file)}


def keep(path: str | None, rows: list[dict[str, Any]]) -> None:
    """Write them where the next run finds them."""
    if path is not None:
        with open(path, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)


def hand(row: dict[str, Any]) -> float:
    """Return what a switch takes by hand, in ms."""
    return float(row["raw_ms"] + row["ipc_ms"])


def memory(kib: dict[str, int]) -> str:
    """Return the memory of seat and compositor for the table."""
    return ", ".join(f"{kib[name] / 1024:.1f}" for name in ("sway", "seatd") if name in kib) or "no screen"


def table(rows: list[dict[str, Any]], more: list[str]) -> str:
    """Return the section of docs/BENCHMARKS.md."""
    heads = (
        "personas", "switches", "podman calls in them", "request to both done, ms", "of it the promise", "and thaw and freeze",
        "the longest, ms", "request to its answer, ms", "a raw pair by hand, ms", "sway asked by hand, ms", "podman's pair, ms",
        "switch / by hand", "thaw and freeze / by hand", "podman / switch", "RSS of sway, seatd, MB",
    )  # fmt: skip
    today, load = dt.datetime.now(tz=dt.UTC).date().isoformat(), os.getloadavg()[0]
    words = f", QEMU with `{' '.join(more)}`" if more else ""
    lines = [f"{today}, {os.cpu_count()} cores, the host's load at the end {load:.1f}{words}; one boot for each row.", ""]
    lines += ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    lines += [
        f"| {row['personas']} | {row['switches']} | {row['podman_calls']} | {row['switch_ms']:.0f} | {row['promise_ms']:.0f} "
        f"| {row['freeze_ms']:.0f} | {row['longest_ms']:.0f} | {row['answer_ms']:.0f} | {row['raw_ms']:.1f} | {row['ipc_ms']:.1f} "
        f"| {row['podman_ms']:.0f} | {row['switch_ms'] / hand(row):.1f} | {row['freeze_ms'] / hand(row):.1f} "
        f"| {row['podman_ms'] / row['switch_ms']:.0f} | {memory(row['rss_kib'])} |"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> int:
    """Measure, print, write."""
    words, more = sys.argv[1:], []
    if "--" in words:
        words, more = words[: words.index("--")], words[words.index("--") + 1 :]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", default="2,10,50", help="numbers of personas (default 2,10,50)")
    parser.add_argument("--screen", action="store_true", help="with a screen, on which the two are seen in turn")
    parser.add_argument("--resume", metavar="FILE", help="keep the figures of each boot there, and go on with what is missing")
    parser.add_argument("--write", action="store_true", help="rewrite the section of docs/BENCHMARKS.md")
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    chosen = parser.parse_args(words)
    rows, known = [], kept(chosen.resume)
    for count in map(int, chosen.counts.split(",")):
        print(f"freezer.py: {count} personas ...", file=sys.stderr)
        if count not in known:
            known[count] = measure(count, more, screen=chosen.screen)
            keep(chosen.resume, [known[each] for each in sorted(known)])
        rows.append(known[count])
        print(table(rows, more), file=sys.stderr)
    print(table(rows, more))
    keep(chosen.json, rows)
    if chosen.write:
        write("freezer-screen" if chosen.screen else "freezer", table(rows, more))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (BenchError, SectionError) as error:
        sys.exit(f"freezer.py: {error}")
