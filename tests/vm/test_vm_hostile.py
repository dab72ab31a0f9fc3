"""The control socket of a real spine under attack, by tests/unit/hostile.py inside the guest, while `bay0 status` is asked for.

The spine holds no Python that could run a script, so the build root's comes along on the disk.
"""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import harness
import pytest
from harness import Vm

pytestmark = [pytest.mark.vm, pytest.mark.full]

SEED = int(os.environ.get("SPINE_SEED", "1"))
FRAMES = int(os.environ.get("SPINE_FRAMES", "20000"))  # 100,000 take a quarter of an hour without KVM
ATTACKERS = 2
PATIENCE = 5  # what boot-qemu.sh gives a machine without KVM
ANSWER_S = 1.0 * PATIENCE
WARM_UP = 2000
ATTACK_S = 300 + FRAMES // 40  # a guest without KVM takes 120 to 180 a second
GROWTH_MAX_KIB = 8 << 10  # what all clients together may make wait is 4 MiB
PYTHON = "cd /persist/python && LD_LIBRARY_PATH=lib PYTHONHOME=/persist/python/usr nice usr/bin/python3.13"
VALID = """
import json, os, socket, time
times = []
while not os.path.exists("/tmp/over"):
    began = time.monotonic()
    peer = socket.socket(socket.AF_UNIX)
    while True:
        try:
            peer.connect("/run/bay0/control.sock")
            break
        except BlockingIOError:
            time.sleep(0.01)
    peer.settimeout(60)
    peer.sendall(b'{"jsonrpc":"2.0","id":1,"method":"status"}\\n')
    answer = json.loads(peer.makefile("rb").readline())
    times.append(time.monotonic() - began)
    assert answer["result"]["boot"] == "complete", answer
    peer.close()
    time.sleep(0.2)
print(json.dumps({"answers": len(times), "slowest_s": max(times)}))
"""


def python(to: str) -> None:
    """Pack the Python of the build root."""
    made = [
        "bash", f"{harness.TOP}/scripts/buildroot.sh", "run", "tar", "-C", "/", "-ch", "--exclude=test", "--exclude=__pycache__",
        "--exclude=config-*", "-f", "-", "usr/bin/python3.13", "usr/lib/python3.13", "usr/lib/x86_64-linux-gnu/libexpat.so.1",
    ]  # fmt: skip
    with open(to, "wb") as out:
        subprocess.run(made, stdout=out, check=True, timeout=600, stdin=subprocess.DEVNULL)


def asked(spine: Vm) -> dict[str, Any]:
    """Ask by a client that is new each time: the agent's own is idle during an attack, and its place is needed."""
    found: dict[str, Any] = spine.json("bay0 status --json")
    return found


def clocks(spine: Vm) -> tuple[float, float]:
    """Return the guest's time and the processor time of PID 1, in seconds."""
    uptime, user, system = spine.out("echo $(cut -d ' ' -f 1 /proc/uptime) $(cut -d ' ' -f 14,15 /proc/1/stat)").split()
    return float(uptime), (int(user) + int(system)) / 100  # USER_HZ


def descriptors(spine: Vm) -> int:
    return len(spine.out("ls /proc/1/fd").split())


def test_a_real_spine_under_attack_does_not_end_or_swell_and_answers_valid_clients_in_time(folder: str) -> None:
    disk = harness.make_disk(f"{folder}/hostile.img", "512M")
    python(f"{folder}/python.tar")
    harness.put(disk, f"{folder}/python.tar", "/spine/python.tar")
    with open(os.path.join(harness.TOP, "tests", "unit", "hostile.py"), encoding="utf-8") as file:
        hostile = file.read()
    with harness.vm(disk, life_s=600 + ATTACK_S) as spine:
        spine.wait_console(harness.COMPLETE)
        spine.wait_durable()
        spine.out("mkdir -p /persist/python/lib && tar -C /persist/python -xf /persist/spine/python.tar", 240)
        spine.out("cp /persist/python/usr/lib/x86_64-linux-gnu/libexpat.so.1 /persist/python/lib/")
        spine.out(f"cat >/tmp/hostile.py <<'END'\n{hostile}END\ncat >/tmp/valid.py <<'END'\n{VALID}END")
        attack = f"({PYTHON} /tmp/hostile.py /run/bay0/control.sock {{}} {{}} >/tmp/done.{{}} 2>&1)"
        spine.out(attack.format(WARM_UP, SEED + 1000, "warm"), ATTACK_S)
        open_before, began, (began_s, busy_s) = descriptors(spine), asked(spine)["pid1"], clocks(spine)
        attacks = " & ".join(attack.format(FRAMES // ATTACKERS, SEED * 100 + n, n) for n in range(ATTACKERS))
        spine.send(f"rm -f /tmp/over; ({PYTHON} /tmp/valid.py >/tmp/valid 2>&1) & {attacks} & wait %2 %3; touch /tmp/over; wait")
        spine.sh("true", ATTACK_S)  # the agent runs one script after the other
        took_s, busy_s = (after - before for after, before in zip(clocks(spine), (began_s, busy_s), strict=True))
        valid = spine.json("cat /tmp/valid")
        done = [spine.json(f"cat /tmp/done.{n}") for n in range(ATTACKERS)]
        status = asked(spine)
        turns = {key: value for key, value in spine.json("bay0 turns --json").items() if key != "spans"}
        before, after = began["rss_kib"], status["pid1"]["rss_kib"]
        print(f"seed {SEED}: {done} in {took_s:.0f} s, of which PID 1 took {busy_s:.0f} s of processor; {valid}; RSS {before} -> {after} KiB; "
              f"longest turn {status['pid1']['longest_turn_ms']} ms; {turns}")  # fmt: skip
        assert sum(each["frames"] for each in done) >= FRAMES - ATTACKERS
        assert valid["slowest_s"] < ANSWER_S
        assert after - before < GROWTH_MAX_KIB
        assert descriptors(spine) <= open_before
        assert status["pid1"]["turns"] > began["turns"]
        assert (status["boot"], status["storage"]["state"], status["dirty"]) == ("complete", "durable", None)
        log = [json.loads(line)["event"] for line in spine.out("cat /run/bay0/log.jsonl").splitlines()]
        assert "method failed" not in log
        assert "persist timeout" not in log
        assert spine.quit().status == 0
    harness.check_clean(disk)
