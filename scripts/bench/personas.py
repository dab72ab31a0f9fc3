#!/usr/bin/env python3
"""Measure a boot's reconcile of many personas beside the podman calls in it, and the verbs beside podman by hand, in a real spine.

Usage: scripts/bench/personas.py [--counts 10,100,1000] [--write] [--json FILE]
       scripts/bench/personas.py --at-once 10,50,150 [--resume FILE] [--write] [--json FILE]

For each count a disk is filled with that many personas, all of them stored as running, as a power cut leaves them; a boot reconciles them.
Then one persona is paused and resumed through bay0, and a container of nobody's by `podman` itself. Needs the built image and debugfs, no root.

With --at-once only this: that many personas on a fresh disk are asked to start in one moment, and to
stop, by `bay0 rpc --window 64`; in another boot podman alone makes as many containers with the same
limits, two at a time, and removes them by one call each. That takes long with many; --resume keeps the
figures of each boot in FILE, and boots that are in it are not made again.
"""

import argparse
import datetime as dt
import functools
import json
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
from typing import Any

from section import TOP, SectionError, write

ROUNDS = 8
BOOT_S = 900
ONE_S = 40  # more, for each persona of --at-once: three starts and three stops of a slow machine
DISK = "4G"
WORK = {"image": "localhost/alpine:3.23", "command": ["/bin/sleep", "infinity"], "stop_s": 0}
ONE = "p://n0"
MEASURE = r"""
set -e
cd /tmp
call() { bay0 rpc --window 1 >/dev/null; }
now() { date +%s%N; }
line() { printf '{"jsonrpc":"2.0","id":1,"method":"%s","params":{"name":"p://n0"}}\n' "$1"; }
export CONTAINERS_CONF=/run/containers/containers.conf CONTAINERS_STORAGE_CONF=/run/containers/storage.conf
until bay0 persona show n0 --json | grep -q '"state": "stopped"'; do sleep 1; done
cat /run/bay0/log.jsonl.1 /run/bay0/log.jsonl 2>/dev/null >boot.jsonl || true
line persona.start | call
for i in $(seq ROUNDS); do line persona.pause; line persona.resume; done >verbs
for i in $(seq ROUNDS); do line persona.show; line persona.show; done >nothing
begin=$(now); call <nothing; base=$(now); call <verbs; verbs=$(now)
podman run -d --name hand --network none localhost/alpine:3.23 sleep infinity >/dev/null  # nobody's: what is bay0's it thaws itself
podman pause hand >/dev/null; podman unpause hand >/dev/null
hand=$(now)
for i in $(seq ROUNDS); do podman pause hand >/dev/null; podman unpause hand >/dev/null; done
end=$(now)
podman rm -f --time 0 hand >/dev/null
echo "TIMES $((base - begin)) $((verbs - base)) $((end - hand))"
grep -E '"podman-|"source": ?"reconciling"' boot.jsonl | cut -c1-400
bay0 status --json | tr -d '\n' | sed 's/^/STATUS /'
echo
"""


AT_ONCE = r"""
set -e
cd /tmp
verb() { for i in $(seq COUNT); do
    printf '{"jsonrpc":"2.0","id":%d,"method":"persona.%s","params":{"name":"p://n%d","wait":false}}\n' $i $1 $i; done; }
for i in $(seq COUNT); do
    printf '{"jsonrpc":"2.0","id":%d,"method":"persona.create","params":{"name":"p://n%d","manifest":MANIFEST}}\n' $i $i
done | bay0 rpc --window 64 >/dev/null
steps() { cat /run/bay0/log.jsonl.1 /run/bay0/log.jsonl 2>/dev/null | grep '"event": *"step"' | grep '"machine": *"p://n'; }
until_all() { until [ $(steps | grep -v '"by": *"calm"' | grep -c "\"dest\": *\"$1\"") -ge $2 ]; do sleep 2; done; }
verb start >starts; verb stop >stops
bay0 rpc --window 64 <starts >/dev/null
until_all running COUNT
bay0 rpc --window 64 <stops >/dev/null
until_all stopped $((2 * COUNT))  # they were stopped when they had been created
bay0 rpc --window 64 <starts >/dev/null
until_all running $((COUNT + 1))
bay0 rpc --window 64 <stops >/dev/null
until_all stopped $((3 * COUNT))
cat /run/bay0/log.jsonl.1 /run/bay0/log.jsonl 2>/dev/null | grep -E '"machine": *"p://n|"podman-' | cut -c1-400
"""
BY_HAND = r"""
set -e
export CONTAINERS_CONF=/run/containers/containers.conf CONTAINERS_STORAGE_CONF=/run/containers/storage.conf
bay0 persona create work >/dev/null; bay0 persona start work >/dev/null; bay0 persona stop work >/dev/null  # its image is loaded
bay0 persona remove work >/dev/null
now() { date +%s%N; }
begin=$(now)
seq COUNT | xargs -P 2 -I{} podman run -d --name h{} --network none --memory 64m --pids-limit 64 --cap-drop all --cgroup-parent /personas \
    localhost/alpine:3.23 sleep infinity >/dev/null
made=$(now)
seq COUNT | xargs -P 2 -I{} podman rm -f --time 0 h{} >/dev/null
echo "HAND $(($made - $begin)) $(($(now) - $made))"
"""


class BenchError(Exception):
    """A boot did not do what it should; the message ends with its output."""


def boot(disk: str, script: str, memory: int = 1536, bound_s: int = BOOT_S) -> str:
    """Run a script in a spine; return its output."""
    argv = ["bash", f"{TOP}/scripts/boot-qemu.sh", "--persist", disk, "--mem", str(memory)]
    argv += ["--timeout", str(bound_s), "--log", f"{disk}.console", "--exec", "-"]
    done = subprocess.run(
        argv, input=script, capture_output=True, text=True, timeout=bound_s + 60, check=False
    )
    if done.returncode != 0:
        raise BenchError(f"status {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def fill(disk: str, count: int) -> None:
    """Create `count` personas; the first is started once, so that podman has its image."""
    subprocess.run(["bash", f"{TOP}/scripts/mkpersist.sh", "--size", DISK, disk], check=True, capture_output=True)
    requests = [
        json.dumps({"jsonrpc": "2.0", "id": n, "method": "persona.create", "params": {"name": f"p://n{n}", "manifest": WORK}}) for n in range(count)
    ]
    boot(disk, f"bay0 rpc >/dev/null <<'END'\n{chr(10).join(requests)}\nEND\nbay0 persona start n0 && bay0 persona stop n0\n")


def cut_power(disk: str, work: str) -> None:
    """Let the database say that all of them run."""
    copy = f"{work}/state.db"
    subprocess.run(["debugfs", "-R", f"dump /spine/state.db {copy}", disk], check=True, capture_output=True)
    link = sqlite3.connect(copy)
    link.execute("UPDATE machine SET state = 'running', desired = 'running' WHERE kind = 'persona'")
    link.commit()
    link.execute("PRAGMA journal_mode=delete")
    link.close()
    script = f"{work}/debugfs"
    with open(script, "w", encoding="ascii") as file:
        file.write(f"rm /spine/state.db\nwrite {copy} /spine/state.db\nset_inode_field /spine/state.db mode 0100600\n")
    subprocess.run(["debugfs", "-w", "-f", script, disk], check=True, capture_output=True)


def figures(count: int, output: str) -> dict[str, Any]:
    """Read a run's figures out of its output."""
    base, verbs, hand = map(int, re.search(r"TIMES (\d+) (\d+) (\d+)", output).groups())  # type: ignore[union-attr]
    status = json.loads(re.search(r"^STATUS (.*)$", output, re.MULTILINE).group(1))  # type: ignore[union-attr]
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{") and line.endswith("}")]
    podman = [line["took_ms"] for line in lines if line["event"] == "command ended" and line["command"] in ("podman-list", "podman-remove")]
    stage = next(line["after_ms"] for line in lines if line["event"] == "step" and line["source"] == "reconciling")
    return {
        "personas": count,
        "reconcile_ms": stage,
        "podman_ms": sum(podman[:2]),
        "podman_calls": len(podman),
        "verb_ms": (verbs - base) / 1e6 / (2 * ROUNDS),
        "hand_ms": hand_ms(hand),
        "longest_turn_ms": status["pid1"]["longest_turn_ms"],
        "rss_kib": status["pid1"]["rss_kib"],
    }


def hand_ms(hand_ns: int) -> float:
    """Return the time of one call by hand, in milliseconds."""
    return hand_ns / 1e6 / (2 * ROUNDS)


def measure(count: int) -> dict[str, Any]:
    """Measure with `count` personas."""
    os.makedirs(f"{TOP}/build", exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench.", dir=f"{TOP}/build") as work:
        disk = f"{work}/persist.img"
        fill(disk, count)
        cut_power(disk, work)
        return figures(count, boot(disk, MEASURE.replace("ROUNDS", str(ROUNDS))))


def at_once(count: int, resume: str | None = None) -> dict[str, Any]:
    """Start and stop so many at once, by bay0 on one fresh disk and by podman alone on another."""
    os.makedirs(f"{TOP}/build", exist_ok=True)
    kept = _kept(resume)
    found: dict[str, Any] = {"personas": count}
    memory = 1024 + 8 * count
    with tempfile.TemporaryDirectory(prefix="bench.", dir=f"{TOP}/build") as work:
        for name, script in (("bay0", AT_ONCE), ("hand", BY_HAND)):
            if f"{name} {count}" in kept:
                found.update(kept[f"{name} {count}"])
                continue
            disk = f"{work}/{name}.img"
            subprocess.run(["bash", f"{TOP}/scripts/mkpersist.sh", "--size", DISK, disk], check=True, capture_output=True)
            text = script.replace("COUNT", str(count)).replace("MANIFEST", json.dumps(WORK))
            output = boot(disk, text, memory, BOOT_S + ONE_S * count)
            half = flow_of(output) if name == "bay0" else hand_of(output)
            half[f"{name}_load"] = os.getloadavg()[0]
            kept[f"{name} {count}"] = half
            found.update(half)
            if resume:
                with open(resume, "w", encoding="utf-8") as file:
                    json.dump(kept, file, indent=1)
    return found


def _kept(resume: str | None) -> dict[str, dict[str, Any]]:
    """Return the halves that were measured before, by name and count."""
    if resume is None or not os.path.exists(resume):
        return {}
    with open(resume, encoding="utf-8") as file:
        kept: dict[str, dict[str, Any]] = json.load(file)
    return kept


def flow_of(output: str) -> dict[str, Any]:
    """Read bay0's half out of the log: when the first and the last ran, when all had stopped, and what a stop of those that wait took."""
    steps = [line for line in map(json.loads, filter(_is_json, output.splitlines())) if line["event"] == "step"]
    rounds: list[list[dict[str, Any]]] = [[], []]
    for step in steps:
        rounds[step["n"] > _half(steps)].append(step)
    first, second = rounds
    began = min(step["t_ms"] for step in first if step["dest"] == "starting")
    ran = sorted(step["t_ms"] for step in first if step["by"] == "started")
    stop = min(step["t_ms"] for step in first if step["by"] == "stop")
    again = min(step["t_ms"] for step in second if step["by"] == "stop")
    cancelled = sorted(step["t_ms"] for step in second if step["dest"] == "stopped" and "podman was not called" in step["why"])
    return {
        "first_ms": ran[0] - began, "all_ms": ran[-1] - began, "timed_out": sum(step["by"] == "timed_out" for step in steps),
        "stop_ms": max(step["t_ms"] for step in first if step["dest"] == "stopped") - stop,
        "cancelled": len(cancelled), "cancelled_ms": cancelled[-1] - again if cancelled else 0,
        "overtaken_ms": max(step["t_ms"] for step in second if step["dest"] == "stopped") - again,
    }  # fmt: skip


def _half(steps: list[dict[str, Any]]) -> int:
    """Return the number of the last step before the second round of starts."""
    starts = [step["n"] for step in steps if step["by"] == "start"]
    return int(sorted(starts)[len(starts) // 2]) - 1


def _is_json(line: str) -> bool:
    return line.startswith("{") and line.endswith("}")


def hand_of(output: str) -> dict[str, Any]:
    """Read podman's half."""
    made, removed = map(int, re.search(r"HAND (\d+) (\d+)", output).groups())  # type: ignore[union-attr]
    return {"hand_all_ms": made / 1e6, "hand_stop_ms": removed / 1e6}


def table_at_once(rows: list[dict[str, Any]]) -> str:
    """Return the other section of docs/BENCHMARKS.md."""
    heads = (
        "at once", "first runs, s", "all run, s", "podman alone, s", "all / alone", "all stopped, s", "podman alone, s", "stop / alone",
        "a stop amid the starts: cancelled", "these after, s", "all after, s", "timed out",
        "the host's load after each boot",
    )  # fmt: skip
    today = dt.datetime.now(tz=dt.UTC).date().isoformat()
    lines = [f"{today}, {os.cpu_count()} cores; two boots for each row.", ""]
    lines += ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in rows:
        s = {key: value / 1000 for key, value in row.items() if key.endswith("_ms")}
        lines.append(
            f"| {row['personas']} | {s['first_ms']:.0f} | {s['all_ms']:.0f} | {s['hand_all_ms']:.0f} | {s['all_ms'] / s['hand_all_ms']:.2f} "
            f"| {s['stop_ms']:.0f} | {s['hand_stop_ms']:.0f} | {s['stop_ms'] / s['hand_stop_ms']:.2f} "
            f"| {row['cancelled']} | {s['cancelled_ms']:.1f} | {s['overtaken_ms']:.0f} | {row['timed_out']} "
            f"| {row['bay0_load']:.0f}, {row['hand_load']:.0f} |"
        )
    return "\n".join(lines)


def table(rows: list[dict[str, Any]]) -> str:
    """Return the section of docs/BENCHMARKS.md."""
    load = os.getloadavg()[0]
    heads = (
        "personas stored as running", "reconcile, ms", "its podman calls, ms", "calls", "reconcile / calls", "a verb, ms", "podman by hand, ms",
        "verb / hand", "PID 1's longest turn, ms", "PID 1 RSS, MiB",
    )  # fmt: skip
    today = dt.datetime.now(tz=dt.UTC).date().isoformat()
    lines = [f"{today}, {os.cpu_count()} cores, the host's load at the end {load:.1f}; one boot for each row.", ""]
    lines += ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in rows:
        ratio, verb = row["reconcile_ms"] / row["podman_ms"], row["verb_ms"] / row["hand_ms"]
        lines.append(
            f"| {row['personas']} | {row['reconcile_ms']} | {row['podman_ms']} | {row['podman_calls']} | {ratio:.2f} | {row['verb_ms']:.0f} "
            f"| {row['hand_ms']:.0f} | {verb:.2f} | {row['longest_turn_ms']:.0f} | {row['rss_kib'] / 1024:.1f} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", default="10,100,1000", help="numbers of personas (default 10,100,1000)")
    parser.add_argument("--at-once", metavar="COUNTS", help="measure so many starts and stops in one moment instead")
    resume = "keep the figures of each boot of --at-once there, and go on with what is missing"
    parser.add_argument("--resume", metavar="FILE", help=resume)
    parser.add_argument("--write", action="store_true", help="rewrite the section of docs/BENCHMARKS.md")
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    chosen = parser.parse_args()
    rows = []
    starts = functools.partial(at_once, resume=chosen.resume)
    one, made, name = (starts, table_at_once, "at-once") if chosen.at_once else (measure, table, "personas")
    for count in map(int, (chosen.at_once or chosen.counts).split(",")):
        print(f"personas.py: {count} personas ...", file=sys.stderr)
        rows.append(one(count))
        print(made(rows), file=sys.stderr)
    print(made(rows))
    if chosen.json:
        with open(chosen.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)
    if chosen.write:
        write(name, made(rows))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (BenchError, SectionError) as error:
        sys.exit(f"personas.py: {error}")
