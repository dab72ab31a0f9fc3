"""The AI tenant broken on purpose (Gate D, full tier): twelve ways out of it, deaths in mid-request, spoofs at a persona's socket, storms.

Without KVM the model makes about one token a second, and patience is 5: bounds in seconds are the contract's times five.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator

import harness
import pytest
from harness import Vm
from test_vm_ai import ARCHIVES, CURL, LIFE_S, PLAIN, READY_S, VERB_S, inside, persona, show, wait_state

pytestmark = [pytest.mark.vm, pytest.mark.full]

PROBES = 12
STORMS = int(os.environ.get("SPINE_STORMS", "20"))
ERROR_S = 5.0  # a client hears of a death within a second; times the patience
CLIENT = os.path.join(harness.TOP, "build", "ai-client.tar")  # the OpenAI library and tests/vm/ai_client.py
LIBRARY = 'image = "localhost/ai-client:1"\nrestart = "no"\n'
LIBRARY_S = 400  # to load its modules, and two answers of 12 tokens
LONG = '{"messages": [{"role": "user", "content": "Tell a long story."}], "max_tokens": 400, "stream": true}'


@pytest.fixture(scope="module")
def disk(folder: str) -> str:
    for archive in ARCHIVES:
        if not os.path.exists(archive):
            harness.skip_or_fail(f"{archive} is missing: build it with scripts/mkai.sh and scripts/mkask.sh")
    escaping = f"{folder}/spine-ai.tar"
    harness.tool("bash", os.path.join(harness.TOP, "tests", "vm", "mkescape.sh"), ARCHIVES[0], escaping, bound_s=600)
    path = f"{folder}/ai.img"
    client = ("--image", CLIENT) if os.path.exists(CLIENT) else ()
    harness.tool("bash", harness.MKPERSIST, "--size", "3G", "--image", escaping, "--image", ARCHIVES[1], *client, path)
    return path


def prepared(machine: Vm) -> None:
    """Wait for the AI and start two personas that were granted it and one that was not."""
    machine.wait_console(harness.COMPLETE)
    machine.wait_durable()
    wait_state(machine, "ready", READY_S)
    machine.out("bay0 image load /persist/images/persona-ask.tar", VERB_S)
    machine.out("bay0 persona create ask")
    machine.create("plain", PLAIN.replace("stop_s = 1", 'stop_s = 1\nmemory = "8G"'))
    machine.create("other", "ai = true\n" + PLAIN)
    for name in ("ask", "plain", "other"):
        machine.sh(f"bay0 persona start {name}", VERB_S)
        harness.until(lambda name=name: persona(machine, name)["state"] == "running", VERB_S, f"{name} runs", every_s=1)  # type: ignore[misc]


@pytest.fixture(scope="module")
def spine(disk: str) -> Iterator[Vm]:
    # without the governor, which would slow the AI for whoever looks on
    with harness.vm(disk, append="bay0.governor=off", qemu=("-m", "1024"), life_s=4 * LIFE_S) as machine:
        prepared(machine)
        yield machine


def group_of(spine: Vm) -> str:
    return f"/sys/fs/cgroup/tenants/libpod-{show(spine)['container']}"


def others(spine: Vm) -> dict[str, str]:
    """Return the state of every machine but the AI's and the forwarder's."""
    found = spine.json("bay0 machines --json")
    return {each["name"]: each["state"] for each in found if each["name"] not in ("sys://ai", "sys://umbilical")}


def behind(spine: Vm, script: str) -> None:
    """Start a script that goes on while other commands run."""
    spine.out(f"cat >/tmp/behind <<'END'\n{script}\nEND\nbash /tmp/behind >/dev/null 2>&1 3<&- &")


# ---- at its sockets


def test_a_process_of_another_cgroup_is_refused_at_a_personas_socket(spine: Vm) -> None:
    """The spine's own root, and a process of another persona that was handed the directory: neither is the persona."""
    mine, theirs = (f"/run/bay0/ai/personas/p__{name}" for name in ("ask", "other"))
    spine.out(f"test -S {mine}/ai.sock && test -S {theirs}/ai.sock")
    pid = spine.out(f"head -n 1 /sys/fs/cgroup/personas/libpod-{persona(spine, 'other')['container']}/cgroup.procs")
    # into the mount namespace of `ask`, whose curl is the only one there is, from the cgroup and uids of the spine and of `other`
    ask = spine.out(f"head -n 1 /sys/fs/cgroup/personas/libpod-{persona(spine, 'ask')['container']}/cgroup.procs")
    curl = "curl -sS -m 60 -o /dev/null -w '%{http_code}' --unix-socket /run/ai/ai.sock http://ai/health"
    root = spine.sh(f"nsenter -t {ask} -m -- {curl}")
    assert root.stdout == "403", root.stdout + root.stderr
    moved = spine.sh(f"sh -c 'echo $$ >/sys/fs/cgroup/personas/libpod-{persona(spine, 'other')['container']}/cgroup.procs; exec nsenter -t {pid} -U "
                     f"nsenter -t {ask} -m -- {curl}'")  # fmt: skip
    assert moved.stdout in ("403", ""), moved.stdout + moved.stderr
    assert inside(spine, "ask", curl).stdout == "200"


def test_two_personas_are_counted_apart_and_neither_sees_the_others_socket(spine: Vm) -> None:
    before = show(spine)["sessions"]
    assert inside(spine, "ask", f"{CURL} http://ai/v1/models").status == 0
    after = show(spine)["sessions"]
    assert after["p://ask"]["requests"] == before["p://ask"]["requests"] + 1
    assert after["p://other"]["requests"] == before["p://other"]["requests"]
    assert inside(spine, "other", "ls /run/ai; ls -d /run/bay0").stdout.split() == ["ai.sock"]


# ---- the OpenAI client library


@pytest.fixture(scope="module")
def asking(spine: Vm) -> Vm:
    """Two personas whose program asks by the library: `library` may, `ungranted` may not."""
    if not os.path.exists(CLIENT):
        harness.skip_or_fail(f"{CLIENT} is missing: build it with scripts/mkaiclient.sh")
    spine.out("bay0 image load /persist/images/ai-client.tar", VERB_S)
    spine.create("library", "ai = true\n" + LIBRARY)
    spine.create("ungranted", LIBRARY)
    return spine


def says(spine: Vm, name: str, what: str) -> str:
    """Start a persona, wait until its program prints `what`, and return all it said."""
    spine.sh(f"bay0 persona start {name}", VERB_S)
    text: list[str] = []

    def look() -> bool:
        done = spine.sh(f"bay0 persona logs {name}")
        text[:] = [done.stdout + done.stderr]
        return what in text[0]

    try:
        harness.until(look, LIBRARY_S, f"{name} says {what!r}", every_s=2)
    except harness.VmError as error:
        raise harness.VmError(f"{error}; it says {text[0]!r}") from None
    return text[0]


def verdicts(spine: Vm, name: str) -> list[str]:
    """Return what the umbilical decided about a persona's connections; its session ends with the persona."""
    lines = spine.out("grep 'umbilical decision' /run/bay0/log.jsonl || true").splitlines()
    return [found["verdict"] for found in map(json.loads, lines) if found["name"] == name]


def test_the_openai_library_asks_in_one_piece_and_streamed(asking: Vm) -> None:
    text = says(asking, "library", "}")
    found = json.loads(text[text.index("{") : text.rindex("}") + 1])
    print(found)
    assert "SmolLM2" in found["model"]
    assert found["answer"].strip()
    assert 0 < found["tokens"] <= 12
    assert found["streamed"].strip()
    assert found["pieces"] > 1
    assert "served" in verdicts(asking, "p://library")


def test_the_openai_library_finds_no_socket_in_a_persona_that_was_not_granted_ai(asking: Vm) -> None:
    assert "No such file or directory" in says(asking, "ungranted", "client: APIConnectionError")
    assert verdicts(asking, "p://ungranted") == []


def test_the_openai_library_hears_a_503_with_its_reason_while_the_ai_is_stopped(asking: Vm) -> None:
    asking.sh("bay0 tenant stop ai", VERB_S)
    wait_state(asking, "stopped")
    assert "the AI is stopped" in says(asking, "library", "client: InternalServerError: Error code: 503")
    asking.sh("bay0 tenant start ai", VERB_S)
    wait_state(asking, "ready", READY_S)


# ---- out of it


def test_twelve_ways_out_are_refused_and_nobody_else_is_harmed(spine: Vm) -> None:
    before = others(spine)
    done = spine.sh(f"{harness.PODMAN} exec sys__ai /usr/lib/escape/escape 2>/tmp/escape.err; tail -n 3 /tmp/escape.err >&2", 900)
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    for line in found:
        print(line)
    assert [line for line in found if not line["refused"]] == []
    names = {line["probe"] for line in found}
    # the hog may take the whole container with it, its own witness too
    assert len(names | {"memory hog"}) == PROBES, done.stderr
    assert int(spine.out("awk '/^oom_kill / {print $2}' /sys/fs/cgroup/tenants/memory.events")) >= 1
    assert others(spine) == before
    spine.out("sleep 2")  # what the hog takes with it ends a moment later; until then the AI is ready as before
    wait_state(spine, "ready", READY_S)


# ---- deaths in the middle of a request

VICTIMS = {
    "the server": "kill -KILL $(head -n 1 {group}/cgroup.procs)",
    "its container": "echo 1 >{group}/cgroup.kill",
    "its conmon": "kill -KILL $(awk '/^PPid/ {{print $2}}' /proc/$(head -n 1 {group}/cgroup.procs)/status)",
    "the forwarder": "kill -KILL $(head -n 1 /sys/fs/cgroup/services/umbilical/cgroup.procs)",
}


@pytest.mark.parametrize("victim", VICTIMS)
def test_a_death_in_the_middle_of_a_request_is_an_error_within_a_second_and_all_is_well_again(victim: str, spine: Vm) -> None:
    wait_state(spine, "ready", READY_S)
    before = others(spine)
    curl = f"{CURL.replace('--max-time 240', '--max-time 120')} -N -d '{LONG}' http://ai/v1/chat/completions"
    asking = f"bay0 persona shell ask -- /bin/sh -c {json.dumps(curl)}"
    spine.out("rm -f /tmp/died /tmp/answer")
    behind(spine, f"{asking} >/tmp/answer 2>&1; echo $? $(date +%s%N) >/tmp/died.part; mv /tmp/died.part /tmp/died")
    harness.until(lambda: spine.sh("grep -q content /tmp/answer").status == 0, 180, "the first token", every_s=0.5)
    spine.out(f"date +%s%N >/tmp/killed; {VICTIMS[victim].format(group=group_of(spine))}")
    died = harness.until(lambda: spine.out("cat /tmp/died 2>/dev/null || true"), 180, "the client has ended", every_s=0.5)
    status, ended = map(int, died.split())
    took_s = (ended - int(spine.out("cat /tmp/killed"))) / 1e9
    print(f"{victim}: the client ended with status {status} after {took_s:.2f} s")
    text = spine.out("cat /tmp/answer")
    assert status != 0 or '"error"' in text, text[-500:]
    assert took_s < harness.slow(ERROR_S)
    wait_state(spine, "ready", READY_S)
    done = inside(spine, "ask", f"{CURL} http://ai/v1/models")
    assert (done.status, "SmolLM2" in done.stdout) == (0, True), done.stdout + done.stderr
    assert others(spine) == before


# ---- storms


def test_under_a_personas_memory_storm_the_ai_is_the_victim_each_time_and_comes_back_when_there_is_room(disk: str, folder: str) -> None:
    """The persona in front takes nearly all that personas may have, again and again; the AI yields, and nobody else is touched."""
    again = f"{folder}/storms.img"
    harness.tool("cp", "--sparse=always", disk, again)
    with harness.vm(again, life_s=LIFE_S + 300 * STORMS) as machine:
        prepared(machine)
        machine.out("bay0 focus plain", VERB_S)
        limit = machine.json("bay0 governor --json")["personas_limit"] >> 20
        front, victims = persona(machine, "plain")["container"], []
        for number in range(STORMS):
            wait_state(machine, "ready", READY_S)
            storm = f"while :; do dd if=/dev/zero of=/dev/null bs={limit - 30}M count=2; done"
            behind(machine, f"timeout 300 bay0 persona shell plain -- /bin/sh -c {json.dumps(storm)}")
            began = time.monotonic()
            harness.until(lambda: yielded(machine), 240, "the AI yields", every_s=2)
            took = time.monotonic() - began
            inside(machine, "plain", "killall -9 dd sh; true", 60)
            victims.append((persona(machine, "plain")["state"], persona(machine, "plain")["container"]) == ("running", front))
            print(f"storm {number + 1}: the AI yielded after {took:.0f} s")
            if number:  # the first time the governor lets it come back, and waits longer each time
                machine.sh("bay0 tenant start ai", VERB_S)
        print(f"the AI was the victim {sum(victims)} times of {STORMS}; personas may have {limit} MiB together")
        assert victims == [True] * STORMS


def yielded(machine: Vm) -> bool:
    return any(step["event"] == "yield" for step in show(machine)["steps"][-3:])
