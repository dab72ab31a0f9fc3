"""Personas under real podman: one boot, many cases. What the kernel says counts, never `podman inspect` alone."""

from __future__ import annotations

import errno
import itertools
import json
import re
import signal
from collections.abc import Iterator

import alike
import drawn
import harness
import line
import pytest
import syscalls
from harness import NAP, PODMAN, Result, Vm

pytestmark = pytest.mark.vm

LIFE_S = 1800
PREPARED_BY_OTHERS = drawn.Some(1, "logs", "a home")
BY_HAND = drawn.Some(2, "killed", "its monitor killed", "frozen from above", "paused", "removed")
SETTLE_S = 180
VERB_S = 150  # a verb's own bound is 5 s, with patience 5; and a machine that is busy
HANG = "#!/bin/sh\ntrap '' TERM\nwhile :; do sleep 1000; done\n"
BURN = """image = "localhost/alpine:3.23"
command = ["/bin/sh", "-c", "while :; do :; done"]
cpus = 0.1
stop_s = 0
"""
SAY = """image = "localhost/alpine:3.23"
command = ["/bin/sh", "-c", "echo good morning from $(id -un); echo mine >letter"]
user = "nobody"
home = "/home/say"
"""
NESTED = """image = "localhost/alpine:3.23"
command = ["/bin/sh", "-c", "unshare -Ur id -u; unshare -Ur echo one more"]
user = "nobody"
userns = true
"""
USER = """image = "localhost/user:1"
command = ["/bin/sh", "-c", "id -u; echo mine >letter"]
home = "/home/me"
"""
AGAIN = """image = "localhost/alpine:3.23"
command = ["/bin/sh", "-c", "trap 'exit 3' TERM; sleep infinity & wait"]
restart = "on-failure"
retries = 2
"""
POLITE = """image = "localhost/alpine:3.23"
command = ["/bin/sh", "-c", "trap 'echo it was told; exit 0' TERM; while :; do sleep 0.2; done"]
stop_s = 60
"""
DEAF = """image = "localhost/alpine:3.23"
command = ["/bin/sh", "-c", "trap '' TERM; while :; do sleep 1000; done"]
stop_s = 60
"""
# somebody had the disk before: what is in the place of files that the worker opens, and of two logs that conmon opens
# (debugfs takes some names in the directory where it stands only)
PREPARED = """
cd /
mkdir spine
cd spine
mkdir genesis.log
symlink seed /dev/zero
mknod time p
mknod alive p
cd /
mkdir logs
cd logs
mknod p__work.log p
symlink p__say.log /persist/written
cd /
mkdir homes
cd homes
symlink p__thief /persist/homes/p__work
"""
SETUID = r"""
# iconv shows a file; busybox would give such rights back by itself
mkdir -p /usr/local/bin; echo secret >/root/only; chmod 600 /root/only; chmod 711 /root
for place in /home/work /usr/local/bin; do cp /usr/bin/iconv $place/iconv; chmod 4755 $place/iconv; done
chmod 711 /home/work
"""
# a mount namespace of its own, out of reach of who ends what is left: the disk stays in use when /persist is unmounted
# system calls of x86-64, their arguments, and the errno that a persona is to get (0: it is done)
CLONE, PTRACE, KEYCTL, ADD_KEY, UNSHARE, SETNS, BPF, CLONE3 = 56, 101, 250, 248, 272, 308, 321, 435
NEWUSER, NEWNS, FS, THREAD, ATTACH = 0x10000000, 0x20000, 0x200, 0x10F00, 16
CONMON = -7  # stands for the pid of its monitor, which is outside
CALLS = {
    "unshare-user": ((UNSHARE, NEWUSER), errno.EPERM), "unshare-mount": ((UNSHARE, NEWNS), errno.EPERM),
    "unshare-user-and-files": ((UNSHARE, NEWUSER | FS), errno.EPERM), "unshare-files": ((UNSHARE, FS), 0),
    "clone-user": ((CLONE, NEWUSER | signal.SIGCHLD), errno.EPERM), "clone-process": ((CLONE, signal.SIGCHLD), 0),
    "clone-thread": ((CLONE, THREAD), 0), "clone3": ((CLONE3, 0, 0), errno.ENOSYS), "setns": ((SETNS, -1, 0), errno.EPERM),
    "keyctl": ((KEYCTL, 0, -3, 1), errno.EPERM), "add-key": ((ADD_KEY, 0, 0, 0, 0), errno.EPERM), "bpf": ((BPF, 0, 0, 0), errno.EPERM),
    "ptrace-of-a-stranger": ((PTRACE, ATTACH, CONMON, 0, 0), errno.ESRCH), "ptrace-of-its-own": ((PTRACE, 0), 0),
}  # fmt: skip
# what would enter a persona; podman is no program meanwhile
ENTER = """mount --bind /dev/null /usr/bin/podman
for verb in shell exec enter; do bay0 persona $verb polite -- true; echo "status $?"; done 2>&1
umount /usr/bin/podman"""
HOLD = "unshare -m sh -c 'echo $$ >/sys/fs/cgroup/cgroup.procs; exec setsid sleep 1000' >/dev/null 2>&1 & sleep 1"


@pytest.fixture(scope="module")
def disk(folder: str) -> str:
    path = harness.make_disk(f"{folder}/personas.img", "2G")
    harness.prepare(path, PREPARED)
    return path


@pytest.fixture(scope="module")
def spine(disk: str) -> Iterator[Vm]:
    with harness.vm(disk, qemu=line.words(f"{disk}.line"), life_s=LIFE_S) as machine:
        machine.wait_console(harness.COMPLETE)
        machine.wait_durable()
        machine.out("bay0 persona create work")
        machine.create("nap", NAP)
        machine.create("burn", BURN)
        yield machine


@pytest.fixture(scope="module")
def web(spine: Vm) -> None:
    """Somebody else's container, there from now on."""
    running(spine, "work")  # its image is there then
    spine.out(f"{PODMAN} create --name web localhost/alpine:3.23 true >/dev/null", VERB_S)


@pytest.fixture(scope="module")
def hung(spine: Vm, web: None) -> Result:
    """What `persona stop work` said while podman hung. Podman is itself again now, but for that one call, which hangs on."""
    running(spine, "work")
    spine.out(f"cat >/tmp/podman <<'END'\n{HANG}END\nchmod +x /tmp/podman; mount --bind /tmp/podman /usr/bin/podman")
    try:
        return spine.sh("bay0 persona stop work", VERB_S)
    finally:
        spine.out("umount /usr/bin/podman || umount -l /usr/bin/podman")


def wait_state(spine: Vm, name: str, state: str) -> dict:
    return harness.until(lambda: (found := spine.show(name))["state"] == state and found, SETTLE_S, f"{name} is {state}")


def running(spine: Vm, name: str) -> dict:
    """Make it run, whatever it is now."""
    found = spine.show(name)
    if found["state"] != "running":
        found = spine.act("resume" if found["state"] == "paused" else "start", name, VERB_S)
    return found if found["state"] == "running" else wait_state(spine, name, "running")


def group(found: dict) -> str:
    return f"/sys/fs/cgroup/personas/libpod-{found['container']}"


def cpu_used(spine: Vm, directory: str) -> int:
    return int(spine.out(f"awk '$1 == \"usage_usec\" {{ print $2 }}' {directory}/cpu.stat"))


# ---- making one, and what it may do


def test_a_created_persona_is_stopped_and_nothing_of_it_runs(spine: Vm):
    found = {each["name"]: each for each in spine.json("bay0 persona list --json")}
    assert found["p://work"]["state"] == found["p://burn"]["state"] == "stopped"
    assert spine.out(f"{PODMAN} ps -a -q") == ""


def test_a_name_twice_and_a_bad_name_and_a_tenants_name_are_refused_and_change_nothing(spine: Vm):
    before = spine.call("persona.list")
    for words in ("create work", "create p__work", "start nobody"):
        refused = spine.sh(f"bay0 persona {words}")
        assert refused.status in (1, 2), words
        assert refused.stderr.startswith("bay0: "), words
    manifest = {"image": "localhost/alpine:3.23", "command": ["/bin/true"]}
    for name in ("p://work", "p://Work", "work", "p__work", "sys://ai", "p://a b"):  # PID 1 itself, without the command's help
        assert "error" in spine.ask("persona.create", name=name, manifest=manifest), name
    assert spine.call("persona.list") == before


def test_a_started_persona_has_its_limits_in_the_kernel(spine: Vm):
    found = running(spine, "work")
    directory = group(found)
    read = spine.out(f"cd {directory}; cat memory.max memory.swap.max cpu.max pids.max; head -n 1 cgroup.procs").splitlines()
    assert read[:4] == [str(128 << 20), "0", "100000 100000", "128"]
    pid = read[4]
    status = dict(line.split(":\t", 1) for line in spine.out(f"cat /proc/{pid}/status").splitlines() if ":\t" in line)
    assert (status["NoNewPrivs"], status["CapBnd"], status["Seccomp"]) == ("1", "0000000000000000", "2")
    inside, outside, count = spine.out(f"cat /proc/{pid}/uid_map").split()
    assert (inside, count) == ("0", "65536")
    assert int(outside) >= 100_000
    assert spine.out(f"cat /proc/{pid}/oom_score_adj") == "100"
    assert re.findall(r"^\s*(\w+):", spine.out(f"cat /proc/{pid}/net/dev"), re.MULTILINE) == ["lo"]


def test_its_container_says_whose_it_is(spine: Vm):
    found = running(spine, "work")
    labels = json.loads(spine.out(f"{PODMAN} inspect --format '{{{{json .Config.Labels}}}}' p__work"))
    assert labels["bay0.persona"] == "p://work"
    assert labels["bay0.boot"] == spine.status()["boot_id"]
    assert int(labels["bay0.seq"]) <= found["seq"]
    assert re.fullmatch("[0-9a-f]{16}", labels["bay0.config"])


def test_two_personas_have_uid_ranges_of_their_own(spine: Vm):
    ranges = set()
    for name in ("work", "nap"):
        found = running(spine, name)
        ranges.add(spine.out(f"cat /proc/$(head -n 1 {group(found)}/cgroup.procs)/uid_map").split()[1])
    assert len(ranges) == 2


def test_a_shell_in_it_is_root_of_its_own_and_its_home_is_on_the_disk(spine: Vm):
    running(spine, "work")
    script = "id -u; head -n 1 /etc/os-release; echo hello >/home/work/letter; pwd"
    assert spine.out(f"bay0 persona shell work -- sh -c '{script}'").splitlines() == ["0", 'NAME="Alpine Linux"', "/home/work"]
    assert spine.out("stat -c '%u %s' /persist/homes/p__work/letter") == "0 6"


def test_a_command_in_it_has_its_own_streams_and_its_exact_status(spine: Vm):
    running(spine, "work")
    script = 'echo "$A in $(pwd) as $(id -u)"; echo amiss >&2; exit 7'
    ran = spine.sh(f"bay0 persona exec work --env A=1 --workdir /tmp --user 65534 -- sh -c '{script}'", VERB_S)
    assert (ran.stdout, ran.stderr, ran.status) == ("1 in /tmp as 65534\n", "amiss\n", 7)
    assert spine.out("echo over | bay0 persona exec work -- cat", VERB_S) == "over"
    for command, status in (("sh -c 'kill -9 $$'", 137), ("no-such-program", 127), ("/etc", 126)):
        assert spine.sh(f"bay0 persona exec work -- {command}", VERB_S).status == status, command


def test_what_is_changed_of_one_that_runs_is_in_the_kernel_at_once_and_no_limit_ends_its_processes(spine: Vm):
    found = running(spine, "work")
    directory = group(found)
    said = spine.json("bay0 persona set work memory=64M cpus=0.5 pids=50 description=changed user=0 --json", VERB_S)
    assert said["changed"] == {"memory": "now", "cpus": "now", "pids": "now", "description": "now", "user": "at its next start"}
    assert said["failed"] == ""
    read = f"cd {directory}; cat memory.max cpu.max pids.max"
    assert spine.out(read).splitlines() == [str(64 << 20), "50000 100000", "50"]
    spine.out("bay0 persona exec work -- dd if=/dev/zero of=/dev/shm/taken bs=1M count=40", VERB_S)
    refused = spine.sh("bay0 persona set work memory=32M", VERB_S)
    assert refused.status == 1
    assert re.search(r"uses 4\d MiB now, without the cache of files, and 32 MiB are asked for", refused.stderr), refused.stderr
    spine.out("bay0 persona exec work -- rm /dev/shm/taken", VERB_S)
    spine.out("bay0 persona exec work -- dd if=/dev/zero of=/home/work/cached bs=1M count=40", VERB_S)
    assert spine.json("bay0 persona set work memory=32M --json", VERB_S)["failed"] == "", "its cache of files is given back"
    assert int(spine.out(f"cat {directory}/memory.current")) <= 32 << 20
    assert spine.show("work")["container"] == found["container"]
    assert "oom_kill 0" in spine.out(f"cat {directory}/memory.events")
    spine.out("rm /persist/homes/p__work/cached; bay0 persona set work memory=128M cpus=1 pids=128 --unset user", VERB_S)
    assert spine.out(read).splitlines() == [str(128 << 20), "100000 100000", "128"]
    assert 'description = "changed"' in spine.out("bay0 persona show work --manifest")
    assert spine.out("readlink /usr/bin/vi") == "../lib/stage0/busybox", "an editor is there"
    assert [row["event"] for row in spine.json("bay0 persona history work -n 3 --json")] == ["configure"] * 3


def test_what_one_uses_is_what_the_kernel_counts(spine: Vm):
    directory = group(running(spine, "burn"))
    before = cpu_used(spine, directory)
    (burn,) = spine.json("bay0 persona stats burn --json")
    assert before <= burn["cpu_us"] <= cpu_used(spine, directory)
    look = lambda: spine.json("bay0 persona stats burn --json")[0]["cpu_percent"]
    assert harness.until(look, VERB_S, "it got some of the processor") <= 30, "its limit is a tenth, and a look is not exact"
    assert (burn["pids"], burn["pids_max"]) == (1, 256)
    rows = {row["name"]: row for row in spine.json("bay0 top --json")}
    assert {"PID 1", "services", "all personas", "p://burn"} <= set(rows)
    assert rows["PID 1"]["cpu_us"] > 0
    assert "burn" in spine.out("bay0 persona stats 'bu*'")


def test_several_are_moved_at_once_and_each_is_named(spine: Vm):
    for name in ("work", "nap"):
        running(spine, name)
    before = {name: spine.show(name)["container"] for name in ("work", "nap")}
    moved = spine.sh("bay0 persona pause work 'na?' nobody", VERB_S)
    assert moved.status == 1
    assert [line.split(":")[0:2] for line in moved.stdout.splitlines()] == [["p", "//work is paused"], ["p", "//nap is paused"]]
    assert moved.stderr.startswith("bay0: p://nobody: there is no persona p://nobody")
    spine.sh("bay0 persona restart work nap --no-wait", VERB_S)
    assert spine.out("bay0 persona wait work nap --timeout 600", SETTLE_S) == "p://work is running\np://nap is running"
    assert {name: spine.show(name)["container"] for name in before} != before
    assert spine.sh("bay0 persona wait work --for stopped --timeout 1").status == 4


@pytest.mark.full
def test_a_setuid_file_in_an_image_or_a_home_gives_nobody_anything(spine: Vm):
    running(spine, "work")
    spine.out(f"cat >/tmp/setuid <<'END'\n{SETUID}END\n{PODMAN} exec -i p__work sh </tmp/setuid", VERB_S)
    as_root = spine.out(f"{PODMAN} exec p__work /usr/local/bin/iconv /root/only", VERB_S)
    assert as_root == "secret"
    for place in ("/home/work", "/usr/local/bin"):
        tried = spine.sh(f"{PODMAN} exec --user 1000:1000 p__work {place}/iconv /root/only", VERB_S)
        assert tried.status != 0, place
        assert "Permission denied" in tried.stderr, place
    free = "cp /usr/bin/iconv /tmp; chmod 4755 /tmp/iconv; mkdir -m 711 /tmp/o; echo secret >/tmp/o/o; chmod 600 /tmp/o/o; exec sleep 100"
    options = "-d --rm --network=none --name control"
    spine.out(f"{PODMAN} run {options} localhost/alpine:3.23 sh -c '{free}' >/dev/null", VERB_S)
    try:  # without no_new_privs such a file does give them: so the cases above show something
        harness.until(
            lambda: spine.sh(f"{PODMAN} exec --user 1000:1000 control /tmp/iconv /tmp/o/o", VERB_S).stdout.strip() == "secret",
            SETTLE_S,
            "the rights of a setuid file where they are not taken",
        )
    finally:
        spine.sh(f"{PODMAN} rm -f -t 0 control", VERB_S)
def test_it_gets_no_namespace_no_keyring_no_bpf_and_sees_no_stranger_and_all_that_programs_need_works(spine: Vm):
    conmon = int(spine.out(f"cat /run/containers/storage/overlay-containers/{running(spine, 'work')['container']}/userdata/conmon.pid"))
    calls = {name: ([conmon if each == CONMON else each for each in words], wanted) for name, (words, wanted) in CALLS.items()}
    spine.out(syscalls.script("/persist/homes/p__work", {name: syscalls.program(*words) for name, (words, _) in calls.items()}))
    inside = f"for each in {' '.join(calls)}; do ./$each; echo $each $?; done; unshare -U true || echo refused; unshare -Ur true || echo refused; "
    inside += "seq 50 | sort -rn | head -n 1"
    said = spine.out(f"bay0 persona shell work -- sh -c '{inside}' 2>/dev/null; rm /persist/homes/p__work/*").splitlines()
    assert said == [*(f"{name} {wanted}" for name, (_, wanted) in calls.items()), "refused", "refused", "50"]


def test_its_history_and_its_picture_are_from_the_journal_and_the_table(spine: Vm):
    running(spine, "work")
    moves = [(row["source"], row["dest"]) for row in spine.json("bay0 persona history work --json")]
    assert moves[0] == ("absent", "stopped")
    assert ("stopped", "starting") in moves
    assert all(one[1] == two[0] for one, two in itertools.pairwise(moves))
    assert "class running live" in spine.out("bay0 persona graph work")
    assert "stateDiagram" in spine.out("bay0 persona graph")


def test_images_are_listed_and_one_in_use_is_not_removed(spine: Vm):
    running(spine, "work")
    found = {each["name"]: each for each in spine.json("bay0 image list --json")}
    assert found["localhost/alpine:3.23"]["built_in"]
    assert spine.sh("bay0 image remove localhost/alpine:3.23", VERB_S).status == 1


@pytest.mark.full
def test_an_archive_from_stdin_is_loaded_and_leaves_nothing_on_the_disk(spine: Vm):
    before = spine.out("ls -A /persist/containers/tmp | wc -l")
    said = spine.out("bay0 image load - </usr/share/spine-images/alpine-3.23.tar", VERB_S)
    assert "loaded localhost/alpine:3.23" in said
    assert spine.out("ls -A /persist/containers/tmp | wc -l") == before
    refused = spine.sh("echo no archive | bay0 image load -", VERB_S)
    assert (refused.status, refused.stderr.startswith("bay0: ")) == (1, True)


@pytest.mark.full
def test_a_shell_on_a_serial_line_has_the_terminals_size_and_so_has_the_shell_in_a_persona(spine: Vm, disk: str):
    running(spine, "work")
    with line.Line(f"{disk}.line") as terminal:
        spine.out(f"setsid env TERM=vt220 bash -c 'exec bash -l <{line.DEVICE} >{line.DEVICE} 2>&1' >/dev/null 2>&1 &")
        at = terminal.wait("spine:.*# ", VERB_S)
        terminal.type("stty size; bay0 persona shell work")
        at = terminal.wait("40 100\r?\n", VERB_S, at)
        terminal.type("stty size")  # in the persona by now or in a moment
        at = terminal.wait("stty size\r?\n(.*\n)*40 100\r?\n", VERB_S, at)
        spine.out(f"stty -F {line.DEVICE} rows 50 cols 132")  # as `resize` does, or a window that is pulled

        def followed() -> bool:
            terminal.type("stty size")
            return b"50 132" in terminal.seen[at:]

        harness.until(followed, VERB_S, "the shell in the persona has the new size", every_s=2)
        at = len(terminal.seen)
        terminal.type("exit")
        terminal.wait("spine:.*# ", VERB_S, at)
        terminal.rows, terminal.columns = 33, 99
        at = len(terminal.seen)
        terminal.type("resize; stty size; exit")
        terminal.wait("33 99\r?\n", VERB_S, at)


# ---- a disk that somebody else has prepared


def test_a_disk_with_other_things_in_the_place_of_files_boots_and_each_is_named(spine: Vm):
    assert spine.status()["dirty"] is None
    harness.until(lambda: spine.sh("test -f /persist/spine/alive").status == 0, SETTLE_S, "the first probe")
    found = spine.sh("bay0 doctor")
    for name in ("time", "alive", "seed", "genesis.log"):
        assert f"/persist/spine/{name}.set-aside" in found.stdout, name
    assert "gave no answer" not in spine.out("bay0 log")


@PREPARED_BY_OTHERS("logs")
def test_a_log_that_is_a_pipe_hangs_no_start_and_one_that_is_a_link_is_not_written_through(spine: Vm):
    running(spine, "work")
    spine.create("say", SAY)
    spine.act("start", "say", VERB_S)
    wait_state(spine, "say", "stopped")
    spine.out("cd /persist/logs; test -f p__work.log && test ! -L p__say.log && test -f p__say.log")
    spine.out("cd /persist/logs; test -p p__work.log.set-aside && test -L p__say.log.set-aside")
    assert spine.sh("test -e /persist/written").status == 1
    assert spine.out("stat -c %a /persist/logs") == "700"
    assert "good morning" in spine.out("bay0 persona logs say")
    spine.act("remove", "say", VERB_S)


@PREPARED_BY_OTHERS("a home")
def test_a_home_that_is_a_link_to_another_personas_is_not_given(spine: Vm):
    spine.create("thief", NAP + 'home = "/home/thief"\n')
    spine.act("start", "thief", VERB_S)
    found = wait_state(spine, "thief", "failed")
    assert "/persist/homes/p__thief is a symbolic link, where a directory belongs" in found["why"]
    spine.act("remove", "thief", VERB_S)


# ---- focus


def test_the_focus_freezes_the_others_and_comes_back(spine: Vm, web: None):
    for name in ("work", "nap"):
        running(spine, name)
    assert spine.json("bay0 focus work --json", VERB_S)["active"] == "p://work"
    wait_state(spine, "nap", "paused")
    assert spine.show("work")["state"] == "running"
    spine.call("focus", VERB_S, name="p://nap")
    wait_state(spine, "work", "paused")
    wait_state(spine, "nap", "running")
    assert spine.json("bay0 focus --json")["active"] == "p://nap"
    spine.act("stop", "nap", VERB_S)
    harness.until(lambda: spine.call("focus.show")["active"] is None, 30, "nobody is in front")


# ---- keeping and emptying


def test_a_reset_keeps_the_home_and_empties_it_only_when_asked(spine: Vm):
    running(spine, "work")
    letter = "/persist/homes/p__work/letter"
    spine.out("bay0 persona shell work -- sh -c 'echo dear >/home/work/letter'")
    spine.out("bay0 persona reset work", VERB_S)
    assert spine.out(f"cat {letter}") == "dear"
    assert spine.sh("bay0 persona reset work --home").status != 0, "without a terminal and without --yes nothing is emptied"
    assert spine.out(f"cat {letter}") == "dear"
    spine.out("bay0 persona reset work --home --yes", VERB_S)
    assert spine.sh(f"test -e {letter}").status == 1


def test_a_clone_of_who_runs_has_its_home_as_it_is_and_who_was_copied_goes_on(spine: Vm):
    running(spine, "work")
    inside = "cd /home/work && echo dear >letter && ln letter again && chmod 4711 letter && mkfifo pipe && ln -s /etc/shadow out"
    spine.out(f"bay0 persona shell work -- sh -c '{inside}'")
    made = spine.json("bay0 persona clone work try --json", VERB_S)
    assert (made["state"], made["copied"]["entries"]) == ("stopped", 4)
    assert made["copied"]["frozen_s"] > 0
    assert spine.json("bay0 persona show work --json")["state"] == "running"
    assert spine.out("cd /persist/homes/p__try && stat -c '%a %u %h' letter && readlink out && test -p pipe && ls /persist/spine/staging") == (
        "4711 0 2\n/etc/shadow"
    )
    running(spine, "try")
    assert spine.out("bay0 persona shell try -- cat /home/work/again") == "dear"
    refused = spine.sh("bay0 persona clone work try", VERB_S)
    assert (refused.status, "exists already" in refused.stdout + refused.stderr) == (1, True)
    spine.out("bay0 persona stop try && bay0 persona remove try --home --yes && rm /persist/homes/p__work/*", VERB_S)


def test_who_goes_back_to_a_snapshot_has_the_home_and_the_manifest_of_then(spine: Vm):
    running(spine, "work")
    spine.out("bay0 persona shell work -- sh -c 'echo then >/home/work/letter && ln -f /home/work/letter /home/work/again'")
    made = spine.json("bay0 persona snapshot work --note 'a letter' --json", VERB_S)
    assert (made["name"], made["state"], made["copied"]["entries"]) == ("p://work@1", "kept", 2)
    assert spine.json("bay0 persona show work --json")["state"] == "running"
    spine.out("bay0 persona shell work -- sh -c 'rm /home/work/again; echo now >/home/work/letter' && bay0 persona set work description=afterwards")
    spine.out("bay0 persona stop work", VERB_S)
    assert "a letter" in spine.out("bay0 persona snapshots work")
    assert spine.sh("bay0 persona restore work@1", VERB_S).status == 1, "nobody can be asked"
    spine.out("bay0 persona restore work@1 --yes", VERB_S)
    assert spine.out("cd /persist/homes/p__work && cat again && stat -c %h letter && ls /persist/spine/staging") == "then\n2"
    assert spine.json("bay0 persona show work --json")["description"] != "afterwards"
    spine.out("bay0 persona drop work@1 && rm /persist/homes/p__work/*", VERB_S)
    assert spine.out("ls /persist/snapshots") == ""


def test_a_persona_is_exported_and_made_again_of_the_archive_and_tar_reads_it_too(spine: Vm):
    running(spine, "work")
    inside = "cd /home/work && echo dear >letter && ln -f letter again && chmod 4711 letter && ln -sf /etc/shadow out && truncate -s 1G hole"
    spine.out(f"bay0 persona shell work -- sh -c '{inside}'")
    told = spine.json("bay0 persona export work /persist/work.tar --json", VERB_S)
    assert told["entries"] == 4
    assert spine.out("bay0 persona snapshots work --json") == "[]", "the one that was taken for it is gone"
    assert spine.json("bay0 persona show work --json")["state"] == "running"
    assert "home/letter" in spine.out("tar -tf /persist/work.tar")
    refused = spine.sh("bay0 persona import /persist/work.tar", VERB_S)
    assert (refused.status, "exists already" in refused.stderr) == (1, True)
    made = spine.json("bay0 persona import /persist/work.tar --as again --json", VERB_S)
    assert (made["name"], made["state"], made["copied"]["entries"]) == ("p://again", "stopped", 4)
    looked = "cd /persist/homes/p__again && stat -c '%a %u %h' letter && readlink out && stat -c %s hole && du -k hole | cut -f1"
    assert spine.out(looked) == "4711 0 2\n/etc/shadow\n1073741824\n0"
    running(spine, "again")
    assert spine.out("bay0 persona shell again -- cat /home/work/again") == "dear"
    assert spine.out("bay0 persona cp again:/home/work/letter -") == "dear"
    assert spine.sh("bay0 persona cp again:out -").status == 1, "a link of its own leads nowhere"
    assert spine.out("echo there | bay0 persona cp - again:out >/dev/null; bay0 persona shell again -- cat /home/work/out") == "there"
    spine.out("bay0 persona stop again && bay0 persona remove again --home --yes", VERB_S)
    assert spine.out("bay0 persona export work - | bay0 persona import - --as again", 2 * VERB_S).startswith("p://again is made and stopped")
    assert spine.sh("head -c 3000 /persist/work.tar >/persist/half.tar; bay0 persona import /persist/half.tar --as half", VERB_S).status == 1
    assert spine.sh("bay0 persona show half").status == 1, "there is none"
    spine.out("bay0 persona remove again --home --yes; rm /persist/homes/p__work/* /persist/*.tar; ls /persist/spine/staging", VERB_S)


# ---- reality; more of it below, while podman hangs


@pytest.mark.full
def test_a_persona_that_may_make_namespaces_makes_them(spine: Vm):
    spine.create("nested", NESTED)
    spine.act("start", "nested", VERB_S)
    wait_state(spine, "nested", "stopped")
    assert spine.out("bay0 persona logs nested").splitlines() == ["0", "one more"]
    spine.act("remove", "nested", VERB_S)


@pytest.mark.full
def test_an_image_that_names_its_user_has_a_home_of_that_user_from_its_first_start_on(spine: Vm):
    running(spine, "work")
    passwd = "echo me:x:1234:1235::/home/me:/bin/sh >>/etc/passwd; echo us:x:1235: >>/etc/group"
    # in a container without a uid range of its own: what podman commits of a persona has the owners of that range
    made = f"{PODMAN} run --network=none --name made localhost/alpine:3.23 sh -c '{passwd}'"
    spine.out(f"{made}; {PODMAN} commit -q -c USER=me made localhost/user:1; {PODMAN} rm made >/dev/null", VERB_S)
    spine.create("mine", USER)
    for time in ("first", "second"):
        spine.act("start", "mine", VERB_S)
        assert "status 0" in wait_state(spine, "mine", "stopped")["why"], time
    assert spine.out("bay0 persona logs mine").splitlines() == ["1234", "1234"]
    owners = "stat -c '%u %g %a' /persist/homes/p__mine; stat -c '%u %g' /persist/homes/p__mine/letter"
    assert spine.out(owners).splitlines() == ["1234 1235 700", "1234 1235"]
    spine.out("bay0 persona reset mine --home --yes", VERB_S)
    spine.act("start", "mine", VERB_S)
    wait_state(spine, "mine", "stopped")
    assert spine.out("stat -c '%u %a' /persist/homes/p__mine") == "1234 700"
    spine.act("remove", "mine", VERB_S)


@pytest.mark.full
def test_one_that_is_to_be_restarted_is_until_its_attempts_are_used_up(spine: Vm):
    spine.create("again", AGAIN)
    running(spine, "again")
    for _ in range(3):
        found = wait_state(spine, "again", "running")
        spine.out(f"{PODMAN} kill p__again >/dev/null")
        harness.until(lambda was=found: spine.show("again")["seq"] > was["seq"] + 1, SETTLE_S, "its death is noticed")
    assert "3 attempts" in wait_state(spine, "again", "failed")["why"]
    attempts = [row["attempts"] for row in spine.json("bay0 persona history again --json") if row["dest"] == "starting"]
    assert attempts == [1, 2, 3]


# ---- podman that does not answer: one verb waits for it to the bound, the others go on, in all cases down to "all is well"


def test_a_verb_answers_within_its_bound_while_podman_hangs(spine: Vm, hung: Result):
    assert (hung.status, "accepted" in hung.stdout + hung.stderr) == (4, True)
    assert spine.status()["pid1"]["longest_turn_ms"] < 5000


@BY_HAND("killed")
def test_a_container_that_is_killed_by_hand_is_noticed_and_cleared(spine: Vm):
    running(spine, "nap")
    spine.out(f"{PODMAN} kill p__nap >/dev/null")
    found = wait_state(spine, "nap", "failed")
    assert "status 137" in found["why"]
    assert spine.out(f"{PODMAN} ps -a -q --filter name=p__nap") == ""


@BY_HAND("its monitor killed")
def test_when_its_monitor_is_killed_that_is_said_and_the_persona_is_ended(spine: Vm):
    found = running(spine, "nap")
    pidfile = f"/run/containers/storage/overlay-containers/{found['container']}/userdata/conmon.pid"
    limits = "/sys/fs/cgroup/conmon/memory.max /sys/fs/cgroup/conmon/pids.max"
    score, memory, pids = spine.out(f"cat /proc/$(cat {pidfile})/oom_score_adj {limits}").splitlines()
    assert (score, pids) == ("0", "8192")
    assert int(memory) >= 128 << 20
    spine.out(f"kill -KILL $(cat {pidfile})")
    found = wait_state(spine, "nap", "failed")
    assert "its monitor has ended" in found["why"]
    assert "its monitor has ended" in spine.sh("bay0 doctor").stdout
    assert spine.out(f"{PODMAN} ps -a -q --filter name=p__nap") == ""


def test_a_paused_persona_burns_no_cpu_and_a_resumed_one_does_again(spine: Vm):
    directory = group(running(spine, "burn"))
    spine.out("bay0 persona pause burn", VERB_S)
    assert "frozen 1" in spine.out(f"cat {directory}/cgroup.events")
    frozen = cpu_used(spine, directory)
    spine.out("sleep 2")
    assert cpu_used(spine, directory) == frozen
    spine.out("bay0 persona resume burn", VERB_S)
    assert "frozen 0" in spine.out(f"cat {directory}/cgroup.events")
    harness.until(lambda: cpu_used(spine, directory) > frozen, 30, "it burns again")


def podman_calls(spine: Vm) -> int:
    """How often the spine has called podman, but for the look that comes by itself."""
    log = "cat /run/bay0/log.jsonl.1 /run/bay0/log.jsonl 2>/dev/null"
    return int(spine.out(f"{log} | grep 'command starts' | grep podman- | grep -vc podman-list; true"))


def test_a_pause_and_a_switch_call_no_podman_and_what_podman_thinks_of_it_does_no_harm(spine: Vm, web: None):
    spine.create("polite", POLITE)
    for name in ("burn", "polite"):
        running(spine, name)
    calls = podman_calls(spine)
    assert calls > 0, "what is counted is there"
    for front, behind in (("burn", "polite"), ("polite", "burn"), ("burn", "polite")):
        assert spine.call("focus", VERB_S, name=f"p://{front}") == {"active": f"p://{front}", "settled": True, "left": []}
        assert [spine.show(each)["state"] for each in (front, behind)] == ["running", "paused"]
    for verb, state in (("resume", "running"), ("pause", "paused")):
        assert spine.act(verb, "polite", VERB_S)["state"] == state
    entered = spine.out(ENTER)
    assert entered.count("p://polite is paused") == entered.count("status 1") == 3, entered
    assert podman_calls(spine) == calls
    said = spine.sh(f"{PODMAN} ps --format '{{{{.State}}}}' --filter name=p__polite; {PODMAN} exec p__polite true", VERB_S)
    assert said.stdout == "running\n"
    assert said.status != 0, "crun looks at the group"
    assert "is paused" in said.stderr
    spine.act("stop", "polite", VERB_S)
    wait_state(spine, "polite", "stopped")
    assert podman_calls(spine) == calls + 1, "one removal"
    assert "it was told" in spine.out("bay0 persona logs polite"), "frozen it could not have heard that it is to end"
    stopping, stopped = spine.show("polite")["steps"][-2:]
    assert (stopping["dest"], stopped["dest"]) == ("stopping", "stopped")
    assert stopped["at_ms"] - stopping["at_ms"] < 60_000, "its grace was not needed"


@BY_HAND("frozen from above")
def test_one_that_is_resumed_under_a_group_that_is_frozen_from_above_says_so_and_goes_on_when_that_is_thawed(spine: Vm):
    directory = group(running(spine, "burn"))
    spine.out("bay0 persona pause burn && echo 1 >/sys/fs/cgroup/personas/cgroup.freeze", VERB_S)
    try:
        spine.act("resume", "burn", VERB_S)
        found = wait_state(spine, "burn", "running")
        assert "the group above it is frozen (1 in /sys/fs/cgroup/personas/cgroup.freeze)" in found["why"]
        assert "frozen 1" in spine.out(f"cat {directory}/cgroup.events")
    finally:
        spine.out("echo 0 >/sys/fs/cgroup/personas/cgroup.freeze")
    frozen = cpu_used(spine, directory)
    harness.until(lambda: cpu_used(spine, directory) > frozen, 30, "it burns again")
    assert spine.show("burn")["state"] == "running"


@BY_HAND("paused")
def test_one_that_is_paused_by_hand_runs_again_by_itself(spine: Vm):
    directory, was = group(running(spine, "burn")), spine.show("burn")["seq"]
    spine.out(f"{PODMAN} pause p__burn >/dev/null")
    harness.until(lambda: spine.show("burn")["seq"] >= was + 2, SETTLE_S, "it is thawed")  # resuming, running
    assert wait_state(spine, "burn", "running")["desired"] == "running"
    assert "frozen 0" in spine.out(f"cat {directory}/cgroup.events")


@BY_HAND("removed")
def test_a_container_that_is_removed_by_hand_is_noticed(spine: Vm):
    running(spine, "burn")
    spine.out(f"{PODMAN} rm -f --time 0 p__burn >/dev/null")
    wait_state(spine, "burn", "failed")
    spine.act("reset", "burn", VERB_S)
    wait_state(spine, "burn", "stopped")


def test_a_removed_persona_is_gone_and_its_name_free_again(spine: Vm):
    if spine.show("burn")["state"] != "stopped":
        spine.act("stop", "burn", VERB_S)
        wait_state(spine, "burn", "stopped")
    spine.out("bay0 persona remove burn", VERB_S)
    assert "p://burn" not in [each["name"] for each in spine.call("persona.list")]
    spine.out("bay0 persona create burn")


def test_what_it_prints_is_in_its_log_also_after_it_is_gone(spine: Vm):
    spine.create("say", SAY)
    spine.act("start", "say", VERB_S)
    wait_state(spine, "say", "stopped")
    assert "good morning from nobody" in spine.out("bay0 persona logs say")
    assert "status 0" in spine.show("say")["why"]
    home = "/persist/homes/p__say"
    assert spine.out(f"stat -c '%U %a' {home}; cat {home}/letter").splitlines() == ["nobody 700", "mine"], "a new home is its user's"
    spine.act("remove", "say", VERB_S)
    assert spine.sh("test -e /persist/logs/p__say.log").status == 1, "its log goes with it"


def test_all_is_well_after_podman_hung(spine: Vm, hung: Result):
    wait_state(spine, "work", "stopped")
    assert spine.out(f"{PODMAN} ps -a -q --filter name=p__work", VERB_S) == ""


def test_somebody_elses_container_is_left_alone(spine: Vm, hung: Result):
    """By all the stops, resets and removals so far, and by what mended them."""
    assert spine.out(f"{PODMAN} ps -a --format '{{{{.Names}}}}' --filter name=web") == "web"


def test_a_random_life_shows_the_same_states_on_the_model_and_on_real_podman(spine: Vm):
    alike.compare(spine, 15)


def test_pid_1_is_still_small_and_nothing_is_left_behind(spine: Vm):
    status = spine.status()
    assert status["pid1"]["rss_kib"] < 32 << 10
    assert status["pid1"]["commands_left_behind"] == 0


# ---- leaving with one that ignores TERM


def test_power_off_with_a_persona_that_ignores_term_kills_it_when_its_time_is_over_and_the_disk_is_clean(spine: Vm, disk: str):
    spine.create("deaf", DEAF.replace("stop_s = 60", "stop_s = 5"))
    running(spine, "deaf")
    spine.act("reset", "polite", VERB_S, home=False)
    wait_state(spine, "polite", "stopped")
    running(spine, "polite")
    spine.act("pause", "polite", VERB_S)
    wait_state(spine, "polite", "paused")
    heard = spine.out("grep -c 'it was told' /persist/logs/p__polite.log; true")
    spine.out(HOLD)
    assert spine.quit().status == 0
    harness.check_clean(disk)
    harness.check_checkpointed(disk)
    assert harness.stored(disk).integrity == "ok"
    log = harness.tool("debugfs", "-R", "cat /logs/p__polite.log", disk).stdout
    assert log.count("it was told") == int(heard) + 1, "the paused one was thawed, and told"


# ---- leaving, and podman does not answer: boots of their own


def twice(machine: Vm) -> None:
    """Press Ctrl-Alt-Del until two of them count; the pause between two is one that a person makes."""

    def pressed() -> bool:
        machine.qmp("send-key", keys=[{"type": "qcode", "data": key} for key in ("ctrl", "alt", "delete")])
        return "asked to end by force" in machine.console

    harness.until(pressed, VERB_S, "Ctrl-Alt-Del twice is taken", every_s=1)


@pytest.mark.full
@pytest.mark.parametrize("way", ["reboot", "poweroff", "keys"])
def test_by_force_it_ends_though_podman_hangs_and_the_disk_is_dead(folder: str, way: str):
    disk = harness.make_disk(f"{folder}/force-{way}.img", "2G")
    with harness.pausable(disk) as paused, harness.vm(paused.uri, life_s=LIFE_S) as machine:
        machine.wait_console(harness.COMPLETE)
        machine.wait_durable()
        machine.create("deaf", DEAF)
        running(machine, "deaf")
        machine.out(f"sync; {HANGS['by itself']}")
        boot_id = machine.status()["boot_id"]
        force = "" if way == "keys" else f"until grep -q 'longer than usual' /run/bay0/log.jsonl; do sleep 1; done; sleep 3; bay0 {way} --force"
        machine.out(f'setsid sh -c "{force}" >/dev/null 2>&1 &')  # ready in the guest, whose clock may be slower than ours
        machine.send('echo "exit 0" >"$BAY0_EXEC_STATUS"; bay0 poweroff')
        machine.wait_console("the stop takes longer than usual.*waits_for=.*deaf", VERB_S)
        paused.pause()
        if way == "keys":
            twice(machine)
        machine.wait_console("sysrq: ", VERB_S)
        paused.resume()  # QEMU itself ends only when the disk has answered what it was asked
        left = machine.wait(VERB_S)
    assert left.status == 0
    assert "ending by force" in left.console
    assert ("sysrq: Power Off" if way == "poweroff" else "sysrq: Resetting") in left.console
    assert "reboot: " not in left.console.partition("ending by force")[2].partition("sysrq: ")[0], "no reboot(2) was asked"
    with harness.vm(disk, life_s=LIFE_S) as machine:
        machine.wait_console(harness.COMPLETE)
        machine.wait_durable()
        assert machine.show("deaf")["state"] == "stopped"
        assert boot_id in [each["boot_id"] for each in machine.json("bay0 boot --json")["previous"]]
        assert machine.quit().status == 0
    harness.check_clean(disk)


@pytest.mark.full
def test_where_power_off_cannot_be_had_the_machine_restarts_and_says_so(folder: str):
    disk = harness.make_disk(f"{folder}/no-acpi.img")
    # without ACPI QEMU's commands do not reach the guest either: it is told at its console
    with harness.vm(disk, "acpi=off", ("-action", "reboot=shutdown"), console=True, life_s=LIFE_S) as machine:
        machine.wait_console("spine:.*# ")
        machine.type("bay0 status\n")
        machine.wait_console(r"storage +durable on /dev/vda", VERB_S)
        machine.type("bay0 poweroff\n")
        left = machine.wait(VERB_S)
    assert "power-off cannot be had: the machine restarts instead" in left.console
    assert left.status == 0
    harness.check_clean(disk)


HANGS = {
    "by itself": f"cat >/tmp/podman <<'END'\n{HANG}END\nchmod +x /tmp/podman; mount --bind /tmp/podman /usr/bin/podman",
    "by a signal": "setsid sh -c 'while :; do pkill -STOP -x podman; sleep 0.05; done' >/dev/null 2>&1 &",
}


@pytest.mark.full
def test_power_off_does_not_wait_for_a_podman_that_hangs_and_the_next_boot_finds_all_stopped(folder: str):
    disk = harness.make_disk(f"{folder}/hangs.img", "2G")
    for hang in (*HANGS.values(), None):
        with harness.vm(disk, life_s=LIFE_S) as machine:
            machine.wait_console(harness.COMPLETE)
            machine.wait_durable()
            if not machine.json("bay0 persona list --json"):
                for name, manifest in (("nap", NAP), ("deaf", DEAF)):
                    machine.create(name, manifest)
            for name in ("nap", "deaf"):
                assert machine.show(name)["state"] == "stopped", "an earlier boot left them running"
            assert machine.out(f"{PODMAN} ps -a -q", VERB_S) == ""
            if hang is None:
                break
            for name in ("nap", "deaf"):
                running(machine, name)
            machine.out(hang)
            left = machine.quit()
        assert left.status == 0
        ended = all(re.search(rf"p://{name}: stopping -> stopped", left.console) for name in ("nap", "deaf"))
        assert ended or "containers killed" in left.console, "a persona's own stop needs no podman, if it has the time"
        harness.check_clean(disk)
        harness.check_checkpointed(disk)
        assert harness.stored(disk).integrity == "ok"
