"""What lasts: an earlier program's disk, the clock, the seed, the NACK registry.

And a state worker that personas cannot starve. One disk; the machine's clock says 2001.
"""

from __future__ import annotations

import itertools
import json
import re
from binascii import crc32
from collections.abc import Iterator
from pathlib import Path

import harness
import old_disk
import olddisk
import pytest
from harness import Vm

pytestmark = pytest.mark.vm

RTC = ("-rtc", "base=2001-01-01")
DAYS = 30  # the disk was last seen so long after the image was built
OLD_SEED = bytes(range(32))
BAD, WORSE = (f"sha256:{digit * 64}" for digit in "ef")
LIFE_S = 1500
SETTLE_S = 180
OLD = olddisk.names()[-1]  # tests/unit/test_old_disk.py has them all
HOME = "/persist/homes/p__"
COMMITS = 40
COMMIT_BOUND_S = 1.0  # bay0/base/bounds.py
STORM = """image = "localhost/alpine:3.23"
command = ["/bin/sh", "-c", "for k in 1 2 3; do (while :; do dd if=/dev/zero of=/home/s/$k bs=64k count=400 conv=fsync 2>/dev/null; done) & done; \
while :; do echo x >/home/s/g; sync; done"]
home = "/home/s"
stop_s = 0
"""


def line(text: str) -> bytes:
    return f"{text} {crc32(text.encode()):08x}\n".encode()


def build_time() -> int:
    found: int = json.loads(Path(harness.TOP, "build", "spine.manifest.json").read_text())["source_date_epoch"]
    return found


@pytest.fixture(scope="module")
def disk(folder: str) -> str:
    path = harness.make_disk(f"{folder}/durable.img", "2G")
    old_disk.lay(olddisk.archive(OLD), path)
    for name, data in (("time", line(f"bay0-time 1 {build_time() + DAYS * 86_400}")), ("seed", line(f"bay0-seed 1 new {OLD_SEED.hex()}"))):
        Path(folder, name).write_bytes(data)
        harness.put(path, f"{folder}/{name}", f"/spine/{name}")
    return path


@pytest.fixture(scope="module")
def spine(disk: str) -> Iterator[Vm]:
    with harness.vm(disk, "bay0.trust_seed bay0.console=debug", RTC, life_s=LIFE_S) as machine:
        machine.wait_console(harness.COMPLETE)
        machine.wait_durable()
        yield machine


def seed_of(text: str) -> tuple[str, str]:
    found = re.fullmatch(r"bay0-seed 1 (\w+) ([0-9a-f]{64}) [0-9a-f]{8}\n?", text)
    assert found, text
    return found[1], found[2]


def test_a_disk_of_an_earlier_program_whose_plug_was_pulled_says_the_same_under_this_one(spine: Vm):
    old = olddisk.answers(OLD)
    harness.until(
        lambda: spine.show("left")["state"] == "stopped",
        SETTLE_S,
        "what ran when the plug was pulled is stopped",
    )
    harness.until(
        lambda: spine.show("daily")["state"] == "running", SETTLE_S, "what starts with the spine runs"
    )
    olddisk.check(
        old, {name: spine.call(method, **params) for name, (method, params) in olddisk.QUESTIONS.items()}
    )
    assert spine.call("focus.show") == {"active": None}, "who was in front has ended"
    assert spine.out("stat -c '%u:%g %a' " + " ".join(f"{HOME}{each}" for each in ("daily", "notes"))).split(
        "\n"
    ) == ["0:0 700", "1234:1234 700"]
    assert spine.out("bay0 persona shell daily -- cat /home/daily/letter") == "precious"
    assert spine.out(f"cat {HOME}notes/list") == "buy milk"


def test_the_clock_is_not_before_the_time_the_disk_was_last_seen(spine: Vm):
    assert int(spine.out("date +%s")) >= build_time() + DAYS * 86_400
    found = spine.status()["continuity"]
    assert found["sane"]
    assert found["moved_s"] > 20 * 365 * 86_400
    log = spine.out("bay0 log")
    assert log.count("clock moved forward") == 2, "to the build time before there is a disk, then to the saved one"
    assert spine.json("bay0 boot --json --previous 0")["this"]["started_wall"] >= build_time() + DAYS * 86_400


def test_a_trusted_seed_is_credited_once_and_replaced(spine: Vm):
    assert spine.status()["continuity"]["seed"] == {"found": "new", "mixed": True, "credited": True, "why": ""}
    state, value = harness.until(lambda: (now := seed_of(spine.out("cat /persist/spine/seed")))[1] != OLD_SEED.hex() and now, 60, "a new seed")
    assert state == "new"
    assert spine.out("stat -c %a /persist/spine/seed") == "600"
    assert value not in spine.out("bay0 log --json; bay0 status --json; cat /proc/cmdline"), "and it is said nowhere"


def test_the_state_worker_goes_first_at_the_disk(spine: Vm):
    worker = spine.out("head -n 1 /sys/fs/cgroup/services/state/cgroup.procs")
    assert spine.out(f"ionice -p {worker}") == "realtime: prio 4"
    assert spine.out("ionice -p 1").startswith("none"), "PID 1 itself asks for nothing"
    assert "[mq-deadline]" in spine.out("cat /sys/block/vda/queue/scheduler")
    assert spine.out("cat /sys/fs/cgroup/services/io.bfq.weight") in ("1000", "default 1000")


def test_a_digest_is_refused_from_its_nack_to_its_removal(spine: Vm):
    assert not spine.call("nack.check", digest=BAD)["nacked"]
    spine.out(f"bay0 nack add {BAD} --why 'it did not boot'")
    spine.call("nack.add", digest=WORSE, why="")
    spine.call("nack.add", digest=BAD, why="again")
    assert spine.sh(f"bay0 nack check {BAD}").status == 1
    listed = spine.json("bay0 nack list --json")
    assert {row["digest"]: row["why"] for row in listed["entries"][:2]} == {BAD: "it did not boot", WORSE: ""}
    spine.out(f"bay0 nack remove {WORSE}")
    assert spine.sh(f"bay0 nack check {WORSE}").status == 0
    assert spine.sh("bay0 nack add latest").status == 2
    assert "error" in spine.ask("nack.add", digest=BAD[:-1], why="")
    assert spine.call("nack.list")["total"] == 1 + 2, "with those of the earlier program"
    assert f"NACK added: {BAD} it did not boot" in spine.out("cat /persist/spine/genesis.log")


def commits(spine: Vm, first: int) -> list[float]:
    """Make durable commits one after the other; return how many seconds each took, as the guest sees them."""
    requests = [
        {"jsonrpc": "2.0", "id": n, "method": "nack.add", "params": {"digest": f"sha256:{first + n:064x}"}} for n in range(COMMITS)
    ]
    text = "\n".join(map(json.dumps, requests))
    said = spine.out(f"bay0 rpc --window 1 <<'END' | while read -r l; do echo $EPOCHREALTIME $l; done\n{text}\nEND", SETTLE_S).splitlines()
    assert all('"changed": true' in each for each in said), said
    times = [float(each.split()[0]) for each in said]
    return sorted(later - earlier for earlier, later in itertools.pairwise(times))


@pytest.mark.full
def test_personas_that_write_and_sync_without_end_cannot_starve_it(spine: Vm):
    quiet = commits(spine, 0)
    for name in ("storm", "gale"):
        spine.out(f"mkdir -p /tmp/{name}; cat >/tmp/{name}/persona.toml <<'END'\n{STORM}END\nbay0 persona create /tmp/{name}")
        spine.sh(f"bay0 persona start {name}", SETTLE_S)
    harness.until(
        lambda: {spine.show(name)["state"] for name in ("storm", "gale")} == {"running"},
        SETTLE_S,
        "both personas run",
        every_s=1,
    )
    stormy = commits(spine, 1000)
    spine.out("sleep 15")  # a probe in the middle of it
    status = spine.status()
    longest = status["storage"]["longest_ms"]
    pressure = spine.out("grep some /proc/pressure/io")
    for name, found in (("quiet", quiet), ("in the storm", stormy)):
        print(f"\ndurable commits {name}: median {found[len(found) // 2] * 1000:.0f} ms, longest {found[-1] * 1000:.0f} ms", end="")
    turn = status["pid1"]["longest_turn_ms"]
    print(f"\nlongest probe {longest['probe']:.0f} ms, commit {longest['commit']:.0f} ms, PID 1's turn {turn} ms; {pressure}")
    assert status["storage"]["state"] == "durable"
    assert "persist timeout" not in spine.out("bay0 log")
    assert stormy[-1] < COMMIT_BOUND_S * harness.patience(), "the bound, with this machine's patience"
    spine.out("bay0 persona stop --all", SETTLE_S)


def test_the_time_is_saved_each_minute(spine: Vm):
    saved, now = spine.out("cut -d ' ' -f 3 /persist/spine/time; date +%s").splitlines()
    assert 0 <= int(now) - int(saved) <= 90


def test_power_off_saves_time_and_seed_before_the_disk_is_closed(spine: Vm, disk: str, tmp_path: Path):
    now = int(spine.out("date +%s"))
    before = seed_of(spine.out("cat /persist/spine/seed"))[1]
    done = spine.quit(bound_s=SETTLE_S)
    assert done.status == 0
    order = [done.console.index(text) for text in ("time and seed kept for the next boot", "persist closed", "power (how=poweroff)")]
    assert order == sorted(order)
    harness.check_clean(disk)
    harness.check_checkpointed(disk)
    assert harness.fetch(disk, "/spine/time", f"{tmp_path}/time")
    assert int((tmp_path / "time").read_text().split()[2]) >= now
    assert harness.fetch(disk, "/spine/seed", f"{tmp_path}/seed")
    state, value = seed_of((tmp_path / "seed").read_text())
    assert state == "new"
    assert value != before


@pytest.mark.full
def test_after_a_plug_was_pulled_the_next_boot_has_the_nack_a_later_time_and_no_credit_unasked(folder: str):
    disk, late = harness.make_disk(f"{folder}/pulled.img", "2G"), f"sha256:{'d' * 64}"
    with harness.vm(disk, qemu=RTC) as machine:
        machine.wait_console(harness.COMPLETE)
        machine.wait_durable()
        first = int(machine.out("date +%s"))
        machine.out(f"bay0 nack add {late}")
        machine.pull_the_plug()
    with harness.vm(disk, qemu=RTC) as machine:
        machine.wait_console(harness.COMPLETE)
        machine.wait_durable()
        assert machine.sh(f"bay0 nack check {late}").status == 1
        assert int(machine.out("date +%s")) >= first - 60, "at most the minute since the last save is lost"
        assert machine.status()["continuity"]["seed"] | {"why": ""} == {"found": "new", "mixed": True, "credited": False, "why": ""}
        assert machine.quit().status == 0
