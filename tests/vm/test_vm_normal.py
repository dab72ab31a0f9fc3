"""A spine with a healthy disk, and the same disk through two more boots."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import time
from collections.abc import Iterator

import cuts
import harness
import pytest
from harness import Result, Vm

pytestmark = pytest.mark.vm

GATE_A = ("bay0: starting", "mounted proc/sys/dev", "persist mount attempt", "persist mounted", "state db open/migrate", "init complete")
STAGES = ["mounting", "shielding", "loading", "attaching", "reconciling", "serving", "complete"]
LEAVING = [*STAGES, "stopping", "leaving"]
GRACES_S = 2 + 1  # TERM's and KILL's, times the patience
SLACK_S = 20  # of a busy machine
RSS_MAX_KIB = 32 << 10
CARDS_S = 240
CARD_ROUNDS = 25  # of a plug, a card that is set up, a move and a namespace's end
CARDS = r"""cd /sys/bus/virtio || exit
limbo() { nsenter --net=/proc/2/ns/net "$@"; }
card() { while IFS=' :' read -r name _; do case $name in lo | Inter-* | face) ;; *) return 0 ;; esac; done </proc/2/net/dev; return 1; }
await() { for _ in $(seq 300); do if "$@"; then return; fi; sleep 0.1; done; echo "never: $*" >&2; exit 1; }
plugged() { device=$(grep -l 0x0001 devices/*/device) && device=${device%/device} && device=${device##*/}; }
await plugged
ip monitor link >/tmp/heard 2>&1 &
monitor=$!
modprobe virtio_net
for round in $(seq ROUNDS); do
    [ "$round" = 1 ] || echo "$device" >drivers/virtio_net/bind
    await card && echo down
    limbo ip link set "$name" up && echo up
    ip netns add away
    limbo ip link set "$name" netns away && ! card && echo away
    ip netns del away
    await card && echo back
    echo "$device" >drivers/virtio_net/unbind && ! card && echo unbound
done
rmmod virtio_net
kill "$monitor"
ls /sys/class/net
echo heard:
cat /tmp/heard""".replace("ROUNDS", str(CARD_ROUNDS))
CONSOLE_SHELL = r"""for p in /proc/[0-9]*; do
    [ "$(readlink $p/exe)" = /usr/bin/bash ] && [ "$(readlink $p/fd/0)" = /dev/ttyS0 ] && cat $p/stat
done; true"""


@pytest.fixture(scope="module")
def disk(folder: str) -> str:
    return harness.make_disk(f"{folder}/persist.img", "2G")


@pytest.fixture(scope="module")
def spine(disk: str) -> Iterator[Vm]:
    with harness.vm(disk, "bay0.suspend=on no_console_suspend") as machine:
        machine.wait_console(harness.COMPLETE)
        yield machine


@pytest.fixture(scope="module")
def left(spine: Vm) -> Result:
    """The first boot, after SIGTERM has reached PID 1."""
    spine.send('echo "exit 0" >"$BAY0_EXEC_STATUS"; kill -TERM 1')
    return spine.wait()


@pytest.fixture(scope="module")
def died(left: Result, disk: str) -> Iterator[dict]:
    """The second boot: what it said of the first; then its plug was pulled, in the middle of what a persona was told to do."""
    with harness.vm(disk) as machine:
        machine.wait_console(harness.COMPLETE)
        machine.wait_durable()
        found = machine.json("bay0 boot --json")
        cuts.prepare(machine)  # which syncs. synchronous=NORMAL: what was not synced yet may be lost, and would be
        cuts.cut_at(machine, cuts.drawn())
        yield found


@pytest.fixture(scope="module")
def third(died: dict, disk: str) -> Iterator[Vm]:
    """The third boot, after the power cut."""
    with harness.vm(disk) as machine:
        machine.wait_console(harness.COMPLETE)
        machine.wait_durable()
        yield machine


@pytest.fixture(scope="module")
def told(third: Vm) -> dict:
    """What it says of the others."""
    found: dict = third.json("bay0 boot --json")
    return found


@pytest.fixture(scope="module")
def rebooted(third: Vm, told: dict) -> Result:
    """The same boot, after Ctrl-Alt-Del's signal has reached PID 1."""
    third.send('echo "exit 0" >"$BAY0_EXEC_STATUS"; kill -INT 1')
    return third.wait()


# ---- the boot itself


def test_gate_a_lines_are_on_the_serial_console_in_their_order(spine: Vm):
    at = [spine.console.find(line) for line in GATE_A]
    assert -1 not in at, dict(zip(GATE_A, at, strict=True))
    assert at == sorted(at)


def test_status_is_complete_and_durable_and_pid_1_is_small(spine: Vm):
    status = spine.status()
    assert (status["boot"], status["storage"]["state"], status["dirty"]) == ("complete", "durable", None)
    assert status["storage"]["in_memory"] == status["storage"]["lost"] == 0
    assert status["pid1"]["pid"] == 1
    assert 0 < status["pid1"]["rss_kib"] < RSS_MAX_KIB
    assert status["watchdog"]["armed"]


def test_pid_1_is_the_frozen_program_in_one_thread_and_the_state_worker_its_only_fork(spine: Vm):
    assert spine.out("readlink /proc/1/exe") == "/usr/lib/bay0/bay0"
    assert spine.out("ls /proc/1/task") == "1"
    program, parent = "$(readlink $p/exe) = /usr/lib/bay0/bay0", "$(awk '/^PPid/ {print $2}' $p/status) -le 1"  # not a command line of the test's own
    same = spine.out(f"for p in /proc/[0-9]*; do [ {program} ] && [ {parent} ] && echo ${{p#/proc/}}; done 2>/dev/null; true").split()
    assert sorted(same, key=int) == ["1", spine.out("cat /sys/fs/cgroup/services/state/cgroup.procs")]


def test_pid_1_is_shielded_from_the_oom_killer_and_its_children_are_not(spine: Vm):
    assert spine.out("cat /proc/1/oom_score_adj") == "-1000"
    assert spine.out("bay0 run -- cat /proc/self/oom_score_adj") == "0"
    assert spine.out("cat /proc/self/oom_score_adj") == "0"


def test_pid_1_has_its_own_cgroup_and_the_controllers_are_on(spine: Vm):
    assert spine.out("cat /proc/1/cgroup") == "0::/init"
    assert {"cpu", "memory", "io", "pids"} <= set(spine.out("cat /sys/fs/cgroup/cgroup.subtree_control").split())
    assert re.fullmatch(r"0::/commands/\d+", spine.out("bay0 run -- cat /proc/self/cgroup"))


def test_a_child_inherits_nothing_of_the_frozen_program(spine: Vm):
    words = spine.out("bay0 run -- env").splitlines()
    assert {word.partition("=")[0] for word in words} <= {"PATH", "HOME", "LANG", "PWD", "SHLVL", "_"}
    assert spine.out("bay0 run -- ls /proc/self/fd").split() == ["0", "1", "2", "3"]  # 3 is how ls reads the folder


def test_the_root_is_erofs_and_cannot_be_written(spine: Vm):
    assert spine.out("stat -f -c %T /") in {"erofs", "UNKNOWN (0xe0f5e1e2)"}
    assert " / erofs ro," in spine.out("cat /proc/mounts")
    refused = spine.sh("touch /sbin/new")
    assert refused.status != 0
    assert "Read-only file system" in refused.stderr


def test_there_is_no_network(spine: Vm):
    assert spine.out("ls /sys/class/net") == "lo"
    assert spine.out("tail -n +2 /proc/net/route") == ""
    assert spine.out("[ /proc/1/ns/net -ef /proc/2/ns/net ] || echo apart") == "apart"


def test_a_card_that_comes_and_goes_is_never_where_the_spine_is(spine: Vm):
    """Plugged, bound to its driver, set up, moved, and back from a namespace that ends.

    Nothing listens at its other end.
    """
    spine.qmp("netdev_add", type="hubport", id="wire", hubid=0)
    spine.qmp("device_add", driver="virtio-net-pci", netdev="wire", id="card")
    found = spine.sh(CARDS, CARDS_S)
    assert (found.status, found.stderr) == (0, "")
    seen, _, heard = found.stdout.partition("heard:\n")
    assert seen.split() == [*(["down", "up", "away", "back", "unbound"] * CARD_ROUNDS), "lo"]
    assert heard == "", "no word of a link in the namespace of the spine"
    finding = spine.call("validate", only=["network"])["checks"][0]
    assert (finding["level"], finding["why"]) == ("green", "")
    spine.qmp("device_del", id="card")


def test_the_log_under_run_is_json_lines_and_bay0_log_shows_them(spine: Vm):
    records = [json.loads(line) for line in spine.out("cat /run/bay0/log.jsonl").splitlines()]
    events = [record["event"] for record in records]
    assert events[0] == "starting"
    assert "init complete" in events
    assert all(a["t_ms"] <= b["t_ms"] for a, b in itertools.pairwise(records))
    assert json.loads(spine.out("bay0 log --json -n 1000000").splitlines()[0]) == records[0]
    assert "bay0: starting" in spine.out("bay0 log").splitlines()[0]


def test_the_consoles_times_are_the_kernels(spine: Vm):
    assert spine.status()["up_ms"] == pytest.approx(float(spine.out("cut -d' ' -f1 /proc/uptime")) * 1000, abs=15_000)


def test_bay0_boot_lists_the_steps_of_this_boot_and_draws_them(spine: Vm):
    found = spine.json("bay0 boot --json --svg /tmp/boot.svg")
    assert [step["dest"] for step in found["this"]["steps"] if step["kind"] == "boot"] == STAGES
    assert [step["dest"] for step in found["this"]["steps"] if step["kind"] == "storage"] == ["opening", "durable"]
    assert found["previous"] == []
    assert spine.out("cat /tmp/boot.svg").startswith("<svg ")
    assert "verdict: complete, /persist durable" in spine.out("bay0 boot")


def test_bay0_draws_its_tables(spine: Vm):
    assert "stateDiagram" in spine.out("bay0 graph boot")
    assert spine.sh("bay0 graph nothing").status == 2


def test_only_root_may_talk_to_bay0(spine: Vm):
    assert spine.out("stat -c '%a %u %g %F' /run/bay0/control.sock") == "600 0 0 socket"
    refused = spine.sh("setpriv --reuid=65534 --clear-groups bay0 status")
    assert (refused.status, "only root" in refused.stderr) == (3, True)


def test_the_spine_says_which_image_it_is_as_the_manifest_beside_that_image_has_it(spine: Vm):
    with open(f"{os.path.dirname(harness.IMAGES[1])}/spine.manifest.json", encoding="utf-8") as file:
        manifest = json.load(file)
    said = spine.json("bay0 version --json")
    assert said["kernel"] == manifest["kernel_release"]
    keys = ("content_sha256", "lock_sha256", "packages_sha256", "source", "flavor")
    assert {key: said["image"][key] for key in keys} == {key: manifest[key] for key in keys}
    assert "T" in said["image"]["built"]


def test_what_a_stranger_types_is_understood_or_answered_with_what_was_meant(spine: Vm) -> None:
    assert spine.json("bay0 ls --json") == spine.json("bay0 persona list --json") == []
    assert "A persona is a container" in spine.out("bay0 help personas")
    assert spine.out("bay0 -V") == f"bay0 {spine.json('bay0 version --json')['bay0']}"
    wrong = spine.sh("bay0 persona strat work")
    assert wrong.status == 2
    assert "did you mean start?" in wrong.stdout + wrong.stderr
    tabs = ". /etc/bash.bashrc; _bay0_load; COMP_WORDS=(bay0 persona r); COMP_CWORD=2; _bay0; echo ${COMPREPLY[@]}"
    completed = set(spine.out(f"bash -c '{tabs}'").split())
    assert completed >= {"restart", "resume", "reset", "remove", "restore", "rm"}
    assert all(word.startswith("r") for word in completed)
    assert spine.out("bash -c 'cat <(echo here)'").split() == ["here"], "which needs /dev/fd"


def test_a_verb_starts_the_frozen_program_once(spine: Vm) -> None:
    traced = spine.sh("strace -f -e trace=execve -o /tmp/started bay0 -V && grep -c 'execve(\"/usr/lib/bay0/bay0\"' /tmp/started")
    assert traced.stdout.split()[-1] == "1", "the bootloader starts it again to set what /usr/bin/bay0 sets"


def test_podman_is_there(spine: Vm):
    assert spine.out("podman --version").startswith("podman version ")


# ---- commands


def test_the_clock_of_the_machine_can_be_set_by_what_the_documents_say(spine: Vm):
    spine.out("hwclock --systohc --utc && hwclock --show --utc")


def test_bay0_run_has_its_commands_status_and_output(spine: Vm):
    assert spine.sh("bay0 run -- false").status == 1
    assert spine.sh("bay0 run -- sh -c 'exit 42'").status == 42
    assert spine.sh("bay0 run -- sh -c 'kill -KILL $$'").status == 128 + 9
    assert spine.sh("bay0 run -- no-such-program").status == 127
    said = spine.sh("bay0 run -- sh -c 'echo out; echo err >&2'")
    assert (said.stdout, said.stderr, said.status) == ("out\n", "err\n", 0)


@pytest.fixture(scope="module")
def nasty(spine: Vm) -> dict:
    """Five commands that do not want to end, all at once, while a sixth is asked for the time PID 1 takes to answer."""
    soon = math.ceil(harness.slow(10))  # a shell that is not yet there when its time is over cannot ignore anything
    commands = {
        "holds its pipe": (["sh", "-c", "sleep 3000 & echo up"], 60),
        "holds its pipe in a session of its own": (["sh", "-c", "setsid sleep 3000 & echo up"], 60),
        "ignores TERM": (["sh", "-c", "trap '' TERM; while :; do sleep 1; done"], soon),
        "ignores TERM in many processes": (["sh", "-c", "trap '' TERM; for i in 1 2 3; do setsid sleep 3001 & done; wait; sleep 3001"], soon),
        "writes without end": (["cat", "/dev/zero"], soon),
    }
    requests = [
        {"jsonrpc": "2.0", "id": name, "method": "run", "params": {"argv": argv, "deadline_s": deadline}}
        for name, (argv, deadline) in commands.items()
    ]
    answers = spine.rpc(requests, bound_s=240)
    return {name: {**answers[name]["result"], "deadline_s": deadline} for name, (_, deadline) in commands.items()}


def test_every_command_is_ended_within_its_deadline_and_the_graces(nasty: dict):
    for name, result in nasty.items():
        assert result["took_s"] < result["deadline_s"] + GRACES_S * harness.patience() + harness.slow(SLACK_S), name
        assert result["ending"] != "abandoned", name


@pytest.mark.parametrize("name", ["holds its pipe", "holds its pipe in a session of its own"])
def test_a_grandchild_that_holds_the_pipe_does_not_hold_its_command(nasty: dict, name: str):
    result = nasty[name]
    assert (result["ending"], result["status"], result["stdout"]) == ("exited", 0, "up\n")


@pytest.mark.parametrize("name", ["ignores TERM", "ignores TERM in many processes"])
def test_a_command_that_ignores_term_is_killed(nasty: dict, name: str):
    assert (nasty[name]["ending"], nasty[name]["status"]) == ("timed_out", -9)


def test_output_without_end_is_read_counted_and_thrown_away_until_the_time_is_over(nasty: dict):
    result = nasty["writes without end"]
    assert result["ending"] == "timed_out"
    assert len(result["stdout"]) <= 64 << 10
    assert result["dropped"] > 0


@pytest.mark.parametrize("size", [8 << 20, pytest.param(1 << 30, marks=pytest.mark.full)])
def test_a_lot_of_output_is_counted_to_the_byte(spine: Vm, size: int):
    result = spine.call("run", 240, argv=["head", "-c", str(size), "/dev/zero"], deadline_s=120)
    assert len(result["stdout"]) <= 64 << 10
    if result["ending"] == "exited":
        assert len(result["stdout"]) + result["dropped"] == size
    else:
        assert (size, result["ending"]) == (1 << 30, "timed_out")


def test_nothing_of_a_command_is_left_behind(spine: Vm, nasty: dict):
    harness.until(lambda: spine.out("find /sys/fs/cgroup/commands -mindepth 1 -type d") == "", 30, "no cgroup of a command is left")
    assert spine.sh("pgrep -f 'sleep 300[01]'").stdout == ""
    assert spine.status()["pid1"]["commands_left_behind"] == 0


@pytest.mark.parametrize(("orphans", "commands"), [(100, 20), pytest.param(2000, 200, marks=pytest.mark.full)])
def test_orphans_leave_no_zombie_while_commands_report_0_wrong(spine: Vm, orphans: int, commands: int):
    before = spine.status()["pid1"]
    made = f"i=0; while [ $i -lt {orphans} ]; do ( : & ) ; i=$((i+1)); done; echo done >/tmp/orphans.done"
    spine.out(f"rm -f /tmp/orphans.done; cat >/tmp/orphans <<'EOF'\n{made}\nEOF")
    spine.out("setsid sh /tmp/orphans >/dev/null 2>&1 &")
    requests = [
        {"jsonrpc": "2.0", "id": i, "method": "run", "params": {"argv": ["sh", "-c", f"exit {i}"], "deadline_s": 120}} for i in range(commands)
    ]
    answers = spine.rpc(requests, bound_s=300)
    wrong = {i: answers[i] for i in range(commands) if (answers[i]["result"]["status"], answers[i]["result"]["ending"]) != (i, "exited")}
    assert wrong == {}
    harness.until(lambda: spine.sh("test -e /tmp/orphans.done").status == 0, 240, "the orphans were made")
    count = "ps -eo stat= | grep -c ^Z; true"
    harness.until(lambda: spine.out(count) == "0", 60, "0 zombies are left")
    after = spine.status()["pid1"]
    assert after["orphans"] - before["orphans"] >= orphans
    assert after["reaped"] - before["reaped"] >= orphans + commands


# ---- signals and the console


@pytest.mark.parametrize("number", ["HUP", "USR1", "USR2", "QUIT", "ALRM", "PIPE", "SEGV", "STOP", "KILL"])
def test_a_signal_that_means_nothing_does_not_end_or_stop_pid_1(spine: Vm, number: str):
    spine.out(f"kill -{number} 1")
    status = spine.status()
    assert (status["boot"], status["storage"]["state"]) == ("complete", "durable")


def _console_shell(spine: Vm) -> list[str]:
    """The fields of proc(5)'s stat from ppid on, with the pid before them."""
    line = spine.out(CONSOLE_SHELL)
    return [line.split()[0], *line.rpartition(") ")[2].split()[1:]] if line else []


def test_the_console_has_a_shell_with_a_controlling_terminal_of_its_own(spine: Vm):
    pid, parent, group, session, tty, foreground, *_ = _console_shell(spine)
    assert parent == "1"
    assert pid == group == session == foreground  # job control needs all four
    assert int(tty) != 0
    assert "bay0 help" in spine.console  # the line that tells how to get help


def test_the_console_shell_comes_back_when_it_is_killed(spine: Vm):
    first = _console_shell(spine)[0]
    spine.out(f"kill -KILL {first}")
    second = harness.until(lambda: [pid for pid in _console_shell(spine)[:1] if pid != first], 60, "another console shell")
    assert int(second[0]) > int(first)


def test_removing_what_pid_1_keeps_on_run_makes_it_deaf_for_seconds_only(spine: Vm):
    """The requests of other cases go through a connection that is there already; these are new ones."""
    spine.out("rm -rf /run/bay0")
    refused = spine.sh("bay0 status")
    if refused.status != 0:  # or it has listened anew in between
        assert refused.status == 3
        assert "PID 1 of this machine is bay0" in refused.stderr
        assert "quickstart" not in refused.stderr
    harness.until(lambda: spine.sh("bay0 status").status == 0, 60, "it listens anew")
    log = spine.out("bay0 log")
    assert "made anew on /run" in log
    assert "the control socket" in log


# ---- sleeping


def test_a_closed_lid_flushes_puts_the_machine_to_sleep_and_it_wakes_as_it_was(spine: Vm):
    spine.wait_durable()
    spine.out("(bay0 suspend --reason lid --json >/tmp/slept; echo $? >/tmp/slept.status) >/dev/null 2>&1 &")
    harness.until(lambda: spine.qmp("query-status")["status"] == "suspended", 60, "it sleeps")
    time.sleep(2)
    spine.qmp("system_wakeup")
    harness.until(lambda: spine.sh("test -s /tmp/slept.status").status == 0, 60, "the request is answered")
    said = spine.json("cat /tmp/slept")
    assert (spine.out("cat /tmp/slept.status"), said["suspended"], said["reason"]) == ("0", True, "lid")
    status = spine.wait_durable()
    assert (status["boot"], status["dirty"], status["watchdog"]["armed"]) == ("complete", None, True)
    assert {each["name"]: each["state"] for each in status["machines"]}["inhibit"] == "free"
    moves = [row["dest"] for row in spine.json("bay0 history inhibit --json")]
    assert moves == ["pending", "suspending", "free"]
    assert spine.sh("bay0 validate --only clock --only watchdog --only persist --only database", 120).status == 0


def test_the_kernel_has_seen_no_trouble_by_now(spine: Vm):
    assert not re.search(r"BUG:|Oops|hung task|blocked for more than|Call Trace|lockup", spine.out("dmesg"))


# ---- leaving, and what the next boots say of it


def test_sigterm_powers_off_in_order(left: Result):
    assert left.status == 0, left.stderr
    assert "reboot: Power down" in left.console
    assert "checkpointed and unmounted" in left.console


def test_the_next_boot_tells_of_the_earlier_one_with_its_steps(died: dict):
    earlier = died["previous"]
    assert len(earlier) == 1
    assert [step["dest"] for step in earlier[0]["steps"] if step["kind"] == "boot"] == LEAVING
    assert earlier[0]["end"] == "an earlier boot left as it was asked to"
    assert died["unread"] is None


def test_a_boot_after_a_power_cut_tells_of_both(told: dict, died: dict):
    assert [boot["boot_id"] for boot in told["previous"]] == [died["this"]["boot_id"], died["previous"][0]["boot_id"]]
    assert told["previous"][0]["end"] == "an earlier boot lost power or crashed while it ran"
    own = f"boot:{died['this']['boot_id'][:8]}"  # the list also holds what it did about the boot before it
    assert [step["dest"] for step in told["previous"][0]["steps"] if step["machine"] == own] == STAGES


def test_after_a_power_cut_one_boot_has_every_persona_stopped_and_no_ghost(third: Vm):
    cuts.check_converged(third, cuts.drawn())


def test_sigint_reboots_in_order(rebooted: Result):
    assert rebooted.status == 0
    assert "reboot: Restarting system" in rebooted.console
    assert "checkpointed and unmounted" in rebooted.console


def test_the_disk_is_clean_its_database_checkpointed_and_every_boot_kept_as_it_ended(rebooted: Result, told: dict, disk: str):
    harness.check_clean(disk)
    harness.check_checkpointed(disk)
    found = harness.stored(disk)
    assert found.integrity == "ok"
    first, second, last = found.boots
    assert last == told["this"]["boot_id"]
    ends = [found.machines[f"boot:{boot[:8]}"] for boot in (first, second, last)]
    assert ends == ["ended", "died", "leaving"]
    assert found.boot(last) == found.boot(first) == LEAVING
    assert found.boot(second) == STAGES
    found.check_numbers()
