"""The AI tenant in a spine (Gate D): a real model behind the umbilical. One boot, many cases; the full tier breaks it in every way.

Without KVM the model makes about one token a second: a question is short, and its answer shorter.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import harness
import pytest
from harness import Vm

pytestmark = pytest.mark.vm

ARCHIVES = [os.path.join(harness.TOP, "build", name) for name in ("spine-ai.tar", "persona-ask.tar")]
LIFE_S = 1800
READY_S = 600  # from init complete, with an image to be loaded: contract, not speed
ASK_S = 300
VERB_S = 150
WHOLE_S = 400
CURL = "curl -sS --max-time 240 --unix-socket /run/ai/ai.sock -H 'Content-Type: application/json'"
QUESTION = '{"messages": [{"role": "user", "content": "Say hi."}], "max_tokens": 4}'
BARRED = ["slots", "props", "metrics", "tokenize", "lora-adapters", "v1/embeddings", "models/../slots"]
PLAIN = """image = "localhost/ask:1"
command = ["/bin/sh", "-c", "trap 'exit 0' TERM; sleep infinity & wait"]
stop_s = 1
"""


@pytest.fixture(scope="module")
def disk(folder: str) -> str:
    for archive in ARCHIVES:
        if not os.path.exists(archive):
            harness.skip_or_fail(f"{archive} is missing: build it with scripts/mkai.sh and scripts/mkask.sh")
    path = f"{folder}/ai.img"
    harness.tool("bash", harness.MKPERSIST, "--size", "3G", *(word for archive in ARCHIVES for word in ("--image", archive)), path)
    return path


@pytest.fixture(scope="module")
def spine(disk: str) -> Iterator[Vm]:
    # without the governor: on one processor whoever looks on is pressed by the model, and the AI would be slowed and frozen in the middle of a case
    with harness.vm(disk, append="bay0.governor=off bay0.debug bay0.panic=reboot", life_s=LIFE_S) as machine:
        machine.wait_console(harness.COMPLETE)
        machine.wait_durable()
        wait_state(machine, "ready", READY_S)
        machine.out("bay0 image load /persist/images/persona-ask.tar", VERB_S)
        machine.out("bay0 persona create ask")
        machine.create("plain", PLAIN)
        for name in ("ask", "plain"):
            machine.act("start", name, VERB_S)
            harness.until(lambda name=name: persona(machine, name)["state"] == "running", VERB_S, f"{name} runs")  # type: ignore[misc]
        yield machine


def show(spine: Vm) -> dict[str, Any]:
    found: dict[str, Any] = spine.call("tenant.show", name="sys://ai")
    return found


def persona(spine: Vm, name: str) -> dict[str, Any]:
    return spine.show(name)


def wait_state(spine: Vm, state: str, bound_s: float = 300) -> dict[str, Any]:
    seen: list[Any] = []

    def look() -> dict[str, Any] | None:
        seen[:] = [(found := show(spine))["state"], found["why"]]
        return found if found["state"] == state else None

    try:
        return harness.until(look, bound_s, f"the AI is {state}")  # type: ignore[no-any-return]
    except harness.VmError as error:
        raise harness.VmError(f"{error}; it is {seen}\n{spine.out('tail -n 40 /run/bay0/log.jsonl')}") from None


def inside(spine: Vm, name: str, command: str, bound_s: float = ASK_S) -> harness.Result:
    """Run a command in a persona."""
    return spine.sh(f"bay0 persona shell {name} -- /bin/sh -c {json.dumps(command)}", bound_s)


def test_init_complete_does_not_wait_for_the_ai(spine: Vm) -> None:
    steps = show(spine)["steps"]
    complete_ms = spine.status()["complete_ms"]
    assert [step["dest"] for step in steps[:3]] == ["starting", "warming", "ready"]
    assert all(step["at_ms"] >= complete_ms for step in steps)
    print(f"ready {steps[2]['at_ms'] - complete_ms} ms after init complete, first token after {show(spine)['first_token_s']} s")


def test_all_twenty_properties_of_its_envelope_are_what_was_wanted_as_the_kernel_says(spine: Vm) -> None:
    found = show(spine)
    assert [row for row in found["envelope"] if not row["ok"]] == []
    assert len(found["envelope"]) == 20
    assert "20 of 20 properties" in spine.out("bay0 tenant show ai")


def test_its_namespace_has_no_interface_but_lo_and_no_route(spine: Vm) -> None:
    group = f"/sys/fs/cgroup/tenants/libpod-{show(spine)['container']}"
    pid = spine.out(f"head -n 1 {group}/cgroup.procs")
    dev, route = spine.out(f"tail -n +3 /proc/{pid}/net/dev; echo ---; tail -n +2 /proc/{pid}/net/route").split("---")
    assert [line.split(":")[0].strip() for line in dev.strip().splitlines()] == ["lo"]
    assert route.strip() == ""


@pytest.mark.parametrize("only", ["--only umbilical", pytest.param("", marks=pytest.mark.full)], ids=["itself", "everything"])
def test_validate_is_green_with_the_umbilical(spine: Vm, only: str) -> None:
    done = spine.sh(f"bay0 --validate --json {only}", WHOLE_S)
    found = json.loads(done.stdout)
    assert (done.status, found["verdict"]) == (0, "green"), found


def test_a_persona_that_was_granted_ai_gets_tokens_that_the_model_made(spine: Vm) -> None:
    done = inside(spine, "ask", f"{CURL} -d '{QUESTION}' http://ai/v1/chat/completions")
    answer = json.loads(done.stdout)
    assert answer["choices"][0]["message"]["content"].strip(), done.stdout + done.stderr
    assert 0 < answer["usage"]["completion_tokens"] <= 4
    assert show(spine)["sessions"]["p://ask"]["requests"] >= 1


@pytest.mark.full  # a second answer of the model: half a minute
def test_bay0_ask_answers_at_the_console(spine: Vm) -> None:
    found = spine.json("bay0 ask --json --max-tokens 4 'Say hi.'", ASK_S)
    assert found["text"].strip()
    assert found["first_token_s"] <= found["took_s"]


def test_a_persona_that_was_not_granted_ai_has_no_path_to_it(spine: Vm) -> None:
    assert inside(spine, "plain", "ls -d /run/ai").status != 0
    assert "ai" not in inside(spine, "plain", "cat /proc/net/unix /proc/self/mountinfo | grep -E '/run/ai|bay0' || true").stdout
    assert inside(spine, "plain", f"{CURL} http://ai/health").status != 0


def test_the_socket_of_a_persona_cannot_be_replaced_by_it(spine: Vm) -> None:
    assert "Read-only file system" in inside(spine, "ask", "rm /run/ai/ai.sock; touch /run/ai/x").stderr


@pytest.fixture(scope="module")
def codes(spine: Vm) -> dict[str, str]:
    """What each of them is answered with, asked for from inside by one shell."""
    each = f"{CURL} --path-as-is -o /dev/null -w '%{{http_code}} %{{url}}\\n' http://ai/"
    done = inside(spine, "ask", "; ".join(each + path for path in BARRED))
    return {url.removeprefix("http://ai/"): code for code, url in map(str.split, done.stdout.splitlines())}


@pytest.mark.parametrize("path", BARRED)
def test_nothing_of_the_server_but_inference_is_let_through(codes: dict[str, str], path: str) -> None:
    assert codes[path] in ("404", "405", "400"), codes


@pytest.mark.full  # a second start of the model: two minutes
def test_a_restart_ends_ready_again_and_who_asks_meanwhile_is_told(spine: Vm) -> None:
    before = show(spine)["container"]
    spine.sh("bay0 tenant restart ai --no-wait", VERB_S)
    done = inside(spine, "ask", f"{CURL} -d '{QUESTION}' -w '%{{http_code}}' http://ai/v1/chat/completions")
    assert done.stdout.endswith("503"), done.stdout
    assert wait_state(spine, "ready")["container"] != before


def test_configure_refuses_what_is_no_model_and_says_why(spine: Vm) -> None:
    spine.out("mkdir -p /persist/models; head -c 1M /dev/zero >/persist/models/zero.gguf; chmod 644 /persist/models/zero.gguf")
    done = spine.sh("bay0 tenant configure ai --model /persist/models/zero.gguf")
    assert (done.status, "it is no GGUF file" in done.stderr) == (1, True)
    assert "below /persist" in spine.sh("bay0 tenant configure ai --model /tmp/zero.gguf").stderr
    assert show(spine)["model"] is None


def test_it_stops_when_asked_and_the_console_says_how_to_start_it(spine: Vm) -> None:
    assert spine.json("bay0 tenant stop ai --json", VERB_S)["state"] in ("stopped", "stopping", "draining")
    wait_state(spine, "stopped")
    done = spine.sh("bay0 ask hello")
    assert (done.status, "it cannot answer now" in done.stderr, "bay0 tenant" in done.stderr) == (1, True, True)
    assert spine.out("ls -d /sys/fs/cgroup/tenants/libpod-* 2>/dev/null || echo none") == "none"


def test_a_pid_1_that_fails_in_the_middle_of_all_that_says_why_and_follows_its_policy(spine: Vm) -> None:
    spine.send("bay0 debug crash")
    words = spine.wait().console
    assert "PANIC: AssertionError: asked to crash by `bay0 debug crash`" in words
    assert "PANIC: PID 1 failed; sync done; policy: reboot" in words
    assert "reboot: Restarting system" in words
    assert "Kernel panic" not in words
