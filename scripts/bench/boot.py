#!/usr/bin/env python3
"""Measure the spine's boot against OpenRC's, a bare busybox init's and the frozen program's imports alone.

All four start the same Alpine kernel in the same QEMU, one after another, in rounds
whose order turns. What is measured, and how, is in docs/BENCHMARKS.md. The peers come
from the wheel that the build has locked and cached. Needs no root.
"""

import argparse
import datetime as dt
import hashlib
import json
import os
import re
import signal
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import Any

from console import BootError, Console
from section import SectionError, write
from systems import KERNEL_STARTS_INIT, MEMORY_MB, TOP, SetupError, System, machine, make_all, run

SETTLE_S = 3.0
TICKS_PER_S = 100
START_TIME_FIELD = 19  # of /proc/PID/stat, behind the name's closing bracket
MB = 1_000_000
TIMES = 1.5  # what bay0's part may take of a program that only imports what a boot imports
# Only the shell's own words: nothing is started that would count, and the bare system has no `cat`.
ASK = (
    "echo 'bench'-begin; for f in /proc/1/smaps_rollup /proc/meminfo /proc/$$/stat; "
    'do while read -r l; do echo "$l"; done <$f; done; echo \'bench\'-end\n'
)


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    key: str
    text: str
    scale: float
    digits: int
    ratios: bool = True


ROWS = (
    Row("ready_s", "kernel start to ready, s", 1, 2),
    Row("pid1_s", "PID 1's own part, s", 1, 2),
    Row("initramfs_s", "initramfs before PID 1, s", 1, 2, ratios=False),
    Row("init_s", "kernel alone, s", 1, 2, ratios=False),
    Row("ready_guest_s", "ready by the guest's own clock, s", 1, 2, ratios=False),
    Row("power_on_s", "QEMU's start to ready, s", 1, 2),
    Row("rss", "PID 1 RSS, MB", MB, 1),
    Row("pss", "PID 1 PSS, MB", MB, 1),
    Row("available", f"memory available after boot, of {MEMORY_MB} MiB, MB", MB, 0),
    Row("image", "image without kernel, MB", MB, 1),
)


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="scripts/bench/boot.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="boots of each system (default 3)")
    parser.add_argument("--json", metavar="FILE", help="write every boot's figures there")
    parser.add_argument("--write", action="store_true", help="rewrite the marked section of docs/BENCHMARKS.md")
    parser.add_argument("--kernel", default=os.path.join(TOP, "vmlinuz"), metavar="F", help="default ./vmlinuz")
    parser.add_argument("--image", default=os.path.join(TOP, "build", "spine.img"), metavar="F", help="default ./build/spine.img")
    parser.add_argument("--accel", default="auto", choices=("auto", "kvm", "tcg"), help="default auto: KVM only where it really works")
    parser.add_argument("--cpu", action="append", metavar="MODEL",
                        help="QEMU's processor, for all (default: that of scripts/boot-qemu.sh); more than once: a table for each")  # fmt: skip
    parser.add_argument("--timeout", type=int, default=240, metavar="S", help="end a boot after S seconds, as failed (default 240)")
    chosen = parser.parse_args(arguments)
    if chosen.rounds < 1 or chosen.timeout < 1:
        parser.error("--rounds and --timeout take numbers above 0")
    return chosen


def boot(system: System, words: list[str], kernel: str, name: str, bound_s: int) -> dict[str, float]:
    """Boot once; return the figures."""
    argv = [*words, "-kernel", kernel, *system.arguments(name)]
    with Console(argv, bound_s) as console:
        init = console.wait_for(KERNEL_STARTS_INIT)
        zero = console.kernel_zero(init)
        init_s = float(init.group(1))
        # Without an initramfs of its own, PID 1 starts when the kernel says so.
        pid1 = console.when(console.wait_for(system.pid1_starts).end()) - zero if system.pid1_starts else init_s
        ready = console.wait_for(system.ready)
        ready_at = console.when(ready.end())
        times = {
            "init_s": init_s,
            "initramfs_s": pid1 - init_s,
            "pid1_s": ready_at - zero - pid1,
            "ready_s": ready_at - zero,
            "power_on_s": ready_at - console.started,
        }
        if system.ends:
            return times
        answer = ask(console, system)
        return times | {
            "ready_guest_s": float(ready.group(1)) if system.ready_stamp else answer.pop("shell_s"),
            "rss": answer["Rss"],
            "pss": answer["Pss"],
            "available": answer["MemAvailable"],
            "image": system.image_bytes,
        }


def ask(console: Console, system: System) -> dict[str, float]:
    """Read PID 1's memory and the machine's through the console's shell, once the guest has come to rest."""
    for typed, prompt in system.login:
        console.send(typed)
        console.wait_for(prompt)
    console.settle(SETTLE_S)
    console.at = len(console.text)
    console.send(ASK)
    console.wait_for(rb"bench-begin\r?\n")
    text = console.wait_for(rb"(?s)(.*)bench-end").group(1).decode(errors="replace")
    figures = {key: float(kb) * 1024 for key, kb in re.findall(r"^(\w+): +(\d+) kB", text, re.MULTILINE)}
    stat = re.search(r"^\d+ \(.*\) (.*)$", text, re.MULTILINE)
    if stat is None or not {"Rss", "Pss", "MemAvailable"} <= figures.keys():
        raise BootError(f"the guest's answer lacks what was asked for:\n{text}")
    figures["shell_s"] = int(stat.group(1).split()[START_TIME_FIELD]) / TICKS_PER_S
    return figures


def measure(chosen: argparse.Namespace, systems: list[System], machines: dict[str, list[str]]) -> list[dict[str, Any]]:
    """Boot everything in rounds; a boot that fails is one result among the others."""
    results = []
    for number in range(chosen.rounds):
        turn = number % len(systems)
        for cpu, words in machines.items():
            for system in systems[turn:] + systems[:turn]:
                result: dict[str, Any] = {"round": number + 1, "cpu": cpu, "system": system.name, "load": os.getloadavg()[0]}
                try:
                    result |= boot(system, words, chosen.kernel, f"{cpu}.{number}", chosen.timeout)
                    say(f"round {number + 1}, {cpu}, {system.name}: ready after {result['ready_s']:.2f} s, "
                        f"PID 1's part {result['pid1_s']:.2f} s (load before {result['load']:.1f})")  # fmt: skip
                except (BootError, SetupError) as error:
                    result["error"] = str(error)
                    say(f"round {number + 1}, {cpu}, {system.name}: FAILED: {error}")
                results.append(result)
    return results


def say(text: str) -> None:
    """Tell the progress."""
    print(text, file=sys.stderr, flush=True)


def figures(results: list[dict[str, Any]], cpu: str, name: str, key: str) -> list[float]:
    """Return one figure of all boots that have it."""
    return [r[key] for r in results if r["cpu"] == cpu and r["system"] == name and key in r]


def cell(values: list[float], row: Row) -> str:
    """Write minimum, median and maximum; one number if they are the same."""
    if not values:
        return ""
    shown = [f"{value / row.scale:.{row.digits}f}" for value in (min(values), statistics.median(values), max(values))]
    return shown[0] if len(set(shown)) == 1 else " / ".join(shown)


def ratio(mine: list[float], peer: list[float]) -> str:
    """Write the ratio of two medians."""
    if not mine or not peer:
        return ""
    return f"{statistics.median(mine) / statistics.median(peer):.2f}"


def table(results: list[dict[str, Any]], cpu: str, names: list[str]) -> list[str]:
    """Write the table of one processor model."""
    lines = [f"| `-cpu {cpu}` | " + " | ".join(names) + "".join(f" | {names[0]}/{peer}" for peer in names[1:]) + " |"]
    lines.append("|---" * (2 * len(names)) + "|")
    for row in ROWS:
        values = [figures(results, cpu, name, row.key) for name in names]
        ratios = [ratio(values[0], peer) if row.ratios else "" for peer in values[1:]]
        lines.append(f"| {row.text} | " + " | ".join([*(cell(v, row) for v in values), *ratios]) + " |")
    return lines


def targets(results: list[dict[str, Any]], cpu: str) -> list[str]:
    """Say for each target what was reached."""
    mine, peer, floor = (figures(results, cpu, name, "pid1_s") for name in ("spine", "OpenRC", "imports only"))
    rss, image = figures(results, cpu, "spine", "rss"), figures(results, cpu, "spine", "image")
    if not mine or not peer or not floor:
        return ["- no target can be judged: a system has no figures"]
    part, loads = (statistics.median(mine) / statistics.median(other) for other in (peer, floor))
    judged = (
        (part <= 1 / 4, f"bay0's part at most 1/4 of OpenRC's: {part:.3f}"),
        (loads <= TIMES, f"bay0's part at most {TIMES} times a frozen program that only imports what a boot imports: {loads:.2f}"),
        (image[0] < 180 * MB, f"spine.img under 180 MB, podman in it: {image[0] / MB:.1f} MB"),
        (max(rss) < 32 * MB, f"PID 1 under 32 MB RSS: at most {max(rss) / MB:.1f} MB"),
    )
    return [f"- {'reached' if good else '**missed**'}: {text}" for good, text in judged]


def context(chosen: argparse.Namespace, accel: str, results: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the figures depend on. No path and no host name is among it."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = re.search(r"^model name\s*: (.*)$", file.read(), re.MULTILINE)
    with open(chosen.image, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    loads = [r["load"] for r in results]
    return {
        "date": dt.datetime.now(tz=dt.UTC).date().isoformat(),
        "processor": model.group(1) if model else "unknown",
        "cores": os.cpu_count(),
        "qemu": run("qemu-system-x86_64", "--version").splitlines()[0],
        "accel": accel,
        "rounds": chosen.rounds,
        "load_min": min(loads),
        "load_max": max(loads),
        "spine_sha256": digest,
    }


def report(about: dict[str, Any], results: list[dict[str, Any]], names: list[str]) -> str:
    """Write the section that goes into docs/BENCHMARKS.md."""
    machine_line = f"{about['processor']} ({about['cores']} cores), {about['qemu']}, {about['accel']}"
    load_line = f"the host's load before each boot {about['load_min']:.1f} to {about['load_max']:.1f}"
    lines = [
        f"{about['date']}, {about['rounds']} rounds; {machine_line}; {load_line}; spine.img sha256 {about['spine_sha256'][:12]}.",
        "Figures are minimum / median / maximum; ratios are those of the medians; MB are 1,000,000 bytes.",
    ]
    for cpu in dict.fromkeys(r["cpu"] for r in results):
        lines += ["", *table(results, cpu, names), "", *targets(results, cpu)]
    failed = sum("error" in r for r in results)
    if failed:
        lines += ["", f"**{failed} of {len(results)} boots failed.**"]
    return "\n".join(lines)


def main() -> int:
    """Measure, show, write; status 1 if any boot failed."""
    chosen = options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    started = time.monotonic()
    os.makedirs(os.path.join(TOP, "build"), exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench.", dir=os.path.join(TOP, "build")) as work:
        machines = {}
        for cpu in chosen.cpu or [None]:
            accel, words = machine(chosen.accel, cpu)
            machines[words[words.index("-cpu") + 1]] = words
        systems = make_all(work, chosen.kernel, chosen.image, accel)
        results = measure(chosen, systems, machines)
    about = context(chosen, accel, results)
    section = report(about, results, [system.name for system in systems])
    print(section)
    if chosen.json:
        with open(chosen.json, "w", encoding="utf-8") as file:
            json.dump({"about": about, "boots": results}, file, indent=1)
            file.write("\n")
    failed = any("error" in r for r in results)
    if chosen.write and failed:
        say("docs/BENCHMARKS.md is left as it was: not every boot gave its figures.")
    elif chosen.write:
        write("boot", section)
    say(f"done in {time.monotonic() - started:.0f} s")
    return int(failed)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (SetupError, SectionError) as error:
        sys.exit(f"boot.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
