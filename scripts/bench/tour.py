#!/usr/bin/env python3
"""A new user's first upgrade, done for real: flash, boot, build a second version, stage, try, look, go back.

    scripts/bench/tour.py                  # prints what was typed and what came
    scripts/bench/tour.py --write          # and writes docs/upgrade-tour.md
    scripts/bench/tour.py --newer DIR      # the second version, with another __version__, is built there already

Runs as a user would: the scripts of this tree, QEMU with UEFI firmware, and a shell on the spine's serial console.
Needs a built spine and the host tools of scripts/test.sh; without KVM it takes ten minutes, and the second build.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
PAGE = TOP / "docs/upgrade-tour.md"
PROMPT = "spine:/# "
BOUND_S = 900  # of any wait on the console
LIFE_S = 3600
NOISE = re.compile(r"^(\[ *\d+\.\d+\]|bay0: )")  # lines of the kernel's and bay0's log, which come between
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|\r")
PROVE_S = 60
HEAD = """# A first upgrade, as it went

Made by `scripts/bench/tour.py --write` on {date}, which does all of it and keeps what came; lines of the log
that came between are left out. What each state means: [OPERATIONS](OPERATIONS.md#upgrades).
"""


class Tour:
    """What was typed, and what came of it."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.page: list[str] = []
        self.box: list[str] = []

    def say(self, text: str) -> None:
        """Put a paragraph between the commands."""
        self.end_box()
        self.page += [text, ""]
        print(text)

    def show(self, *lines: str) -> None:
        """Put lines of a command and its output."""
        self.box += lines
        print(*lines, sep="\n", flush=True)

    def end_box(self) -> None:
        """Close what is shown of commands."""
        if self.box:
            self.page += ["```", *self.box, "```", ""]
        self.box = []

    def host(self, command: str, where: Path, keep: str = "", *, shown: str = "") -> None:
        """Run a command on the host that must succeed; show it, and its lines that match `keep`."""
        done = subprocess.run(
            ["bash", "-c", command], cwd=where, check=False, stdin=subprocess.DEVNULL, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        if done.returncode != 0:
            raise SystemExit(f"tour.py: {command}: status {done.returncode}:\n{done.stdout[-2000:]}")
        lines = [
            line.replace(f"{self.work}/", "")
            for line in done.stdout.splitlines()
            if keep and re.search(keep, line)
        ]
        self.show(f"$ {shown or command}", *lines)


class Console:
    """The serial console of a machine that boots again and again."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process, self.text, self.at = process, "", 0
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        if self.process.stdout is None:
            raise AssertionError("asked for a pipe")
        while data := os.read(self.process.stdout.fileno(), 65536):
            self.text += data.decode("utf-8", "replace")

    def wait(self, pattern: str) -> str:
        """Wait for it; return what came until then."""
        end = time.monotonic() + BOUND_S
        while time.monotonic() < end:
            if found := re.compile(pattern).search(self.text, self.at):
                before, self.at = self.text[self.at : found.end()], found.end()
                return before
            if self.process.poll() is not None:
                break
            time.sleep(0.2)
        raise SystemExit(f"tour.py: the console never showed {pattern!r}:\n{self.text[-3000:]}")

    def type(self, line: str) -> None:
        """Type a line."""
        if self.process.stdin is None:
            raise AssertionError("asked for a pipe")
        self.process.stdin.write(f"{line}\r".encode())
        self.process.stdin.flush()

    def run(self, line: str) -> list[str]:
        """Type a command, return the lines that it printed."""
        self.type(line)
        self.wait(r"\r?\n")  # the echo
        shown = ESCAPES.sub("", self.wait(re.escape(PROMPT)))
        return [
            each for each in shown.removesuffix(PROMPT).splitlines() if each.strip() and not NOISE.match(each)
        ]

    def settled(self, command: str, pattern: str) -> list[str]:
        """Run a command again and again until its output matches."""
        end = time.monotonic() + BOUND_S
        while time.monotonic() < end:
            lines = self.run(command)
            if re.search(pattern, "\n".join(lines)):
                return lines
            time.sleep(2)
        raise SystemExit(f"tour.py: {command} never showed {pattern!r}: {lines}")


@contextlib.contextmanager
def machine(disk: Path, second: Path) -> Iterator[Console]:
    """Boot the disk, with a second one that is read only."""
    argv = ["bash", str(TOP / "scripts/boot-qemu.sh"), "--efi", str(disk), "--timeout", str(LIFE_S), "--"]
    argv += ["-action", "reboot=reset", "-drive", f"file={second},format=raw,if=virtio,readonly=on"]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        try:
            yield Console(process)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)  # a session of our own


def up(tour: Tour, console: Console, slot: str) -> None:
    """Wait for a boot, and show what the console said of it."""
    for pattern in (
        rf"Starting C:{slot}:spine\.efi[^\r\n]*",
        r"bay0: starting[^\r\n]*",
        r"bay0: init complete[^\r\n]*",
    ):
        tour.show(ESCAPES.sub("", console.wait(pattern)).splitlines()[-1])
    console.wait(re.escape(PROMPT))
    for _ in range(2):  # what a boot still has to say comes first
        console.run("")


def newer(tour: Tour, given: Path | None, words: str) -> Path:
    """Build the second version, if it is not given; return its UKI."""
    tree = given or tour.work / "newer"
    change = "sed -i 's/^__version__ = .*/__version__ = \"0.2.0\"/' bay0/__init__.py"
    build = "scripts/quickstart.sh --build-only"
    if given is None:
        subprocess.run(["git", "clone", "-q", str(TOP), str(tree)], check=True)
        (tree / "build").mkdir()
        shutil.copytree(TOP / "build/cache", tree / "build/cache", symlinks=True)
        tour.host(change, tree)
        tour.host(build, tree, "built; boot it")
    else:
        tour.show(f"$ {change}", f"$ {build}")
    tour.host(f"scripts/package-efi.sh --append '{words}'", tree, "MB|wrote|spine.efi")
    return tree / "build/spine.efi"


def walk(tour: Tour, given: Path | None, words: str) -> None:
    """Go all the way."""
    disk, second = tour.work / "disk.img", tour.work / "newer.efi"
    tour.say("## A disk with two slots")
    uki = tour.work / "spine.efi"
    tour.host(
        f"scripts/package-efi.sh --append '{words}' --output {uki}", TOP, "MB|wrote|spine.efi",
        shown=f"scripts/package-efi.sh --append '{words}'",
    )  # fmt: skip
    tour.host(
        f"scripts/genesis-flash.sh --size 2G --uki {uki} {disk}", TOP, "SLOT|boots|PERSIST|done|ready",
        shown="scripts/genesis-flash.sh --size 2G disk.img",
    )  # fmt: skip
    tour.say("## A second version")
    made = newer(tour, given, words)
    data = made.read_bytes()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    second.write_bytes(data + bytes(-len(data) % 512))
    tour.show("$ sha256sum build/spine.efi", f"{digest.removeprefix('sha256:')}  build/spine.efi")
    tour.say(
        "It comes as a second disk, as bytes: any way that reaches the spine will do. With "
        "`-action reboot=reset` QEMU restarts where it would end."
    )
    tour.show("$ scripts/boot-qemu.sh --efi disk.img -- -action reboot=reset \\")
    tour.show("      -drive file=../newer/build/spine.efi,format=raw,if=virtio,readonly=on")
    with machine(disk, second) as console:
        on_the_spine(tour, console, len(data), digest)
    tour.end_box()


def on_the_spine(tour: Tour, console: Console, size: int, digest: str) -> None:
    """All that is typed on the console."""

    def typed(command: str, until: str = "") -> None:
        lines = console.settled(command, until) if until else console.run(command)
        tour.show(f"{PROMPT}{command}", *lines)

    def leaves(command: str, slot: str) -> None:
        console.type(command)
        tour.show(f"{PROMPT}{command}")
        up(tour, console, slot)

    up(tour, console, "SLOTA")
    typed("bay0 upgrade status", "SLOTA.*runs")
    tour.say(
        "## Stage it\n\nWritten into the slot that does not run, read back from the disk, compared. "
        "What runs stays as it is."
    )
    typed(f"head -c {size} /dev/vdb | bay0 upgrade stage - --digest {digest}; echo status $?")
    typed("bay0 upgrade status")
    tour.say("## Try it\n\nThe machine restarts into it, once.")
    leaves("bay0 upgrade try", "SLOTB")
    typed("bay0 upgrade status", "upgrade +(proving|committing|good)")
    tour.say(
        f"It is watched; here for {PROVE_S} s (`bay0.prove={PROVE_S}` among its words), else for 300. "
        "Then it is the good one."
    )
    typed("bay0 upgrade status", "upgrade +good")
    typed("bay0 history upgrade")
    tour.say(
        "## Look\n\nIt must come through one more boot before anything else can be staged: until then the "
        "old one is the way back."
    )
    leaves("bay0 reboot", "SLOTB")
    typed("bay0 upgrade status", "upgrade +idle")
    typed("bay0 --version")
    tour.say(
        "## Go back\n\nThe old one is still in its slot. Going back is a verdict: the newer one is refused from "
        "then on."
    )
    leaves("bay0 upgrade rollback", "SLOTA")
    typed("bay0 upgrade status", "upgrade +nacked")
    typed("bay0 nack list")
    typed(f"head -c {size} /dev/vdb | bay0 upgrade stage - --digest {digest}; echo status $?")
    tour.say("`bay0 nack remove` would allow it again.")
    console.type("bay0 poweroff")
    tour.show(f"{PROMPT}bay0 poweroff")


def main() -> int:
    """Go, print, and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--newer", type=Path, help="a tree in which the second version is built")
    parser.add_argument("--write", action="store_true", help="write docs/upgrade-tour.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tour") as work:
        tour = Tour(Path(work))
        words = f"bay0.patience=5 bay0.prove={PROVE_S}"
        walk(tour, options.newer, words)
    head = HEAD.format(date=dt.datetime.now(tz=dt.UTC).date())
    if options.write:
        PAGE.write_text("\n".join([head, *tour.page]).rstrip() + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
