"""One random sequence of verbs and accidents, lived by the modelled podman of tests/properties and by the real one of a spine.

The sequence is drawn against the model (SPINE_SEED, default 1), then sent to a spine, one request after the other. After each step every persona
must be in the same state, want the same, and have been refused with the same words. The spine may have other personas, as long as they rest.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import harness
from attrs import define, field

sys.path.append(str(Path(__file__).parent.parent / "properties"))

SEED = int(os.environ.get("SPINE_SEED", "1"))
NAMES = ("p://one", "p://two", "p://three")
CONTAINERS = {name.replace("://", "__") for name in NAMES}
MANIFEST = {"command": ["/bin/sleep", "infinity"], "stop_s": 0, "home": "/home/me"}
POLICIES = {"p://one": {}, "p://two": {"restart": "always", "retries": 100}, "p://three": {"restart": "on-failure", "retries": 100}}
REAL_IMAGE = "localhost/alpine:3.23"
PODMAN = ["env", "CONTAINERS_CONF=/run/containers/containers.conf", "CONTAINERS_STORAGE_CONF=/run/containers/storage.conf", "podman"]
VERBS = {"start": 6, "stop": 3, "pause": 4, "resume": 4, "reset": 1, "remove": 1, "create": 2, "focus": 3, "kill": 2, "rm": 1, "ps": 1}
FITTING = {  # verbs that mean something in a state; drawn for a part of the steps, or most would be refused
    "absent": ("create",),
    "stopped": ("start", "start", "start", "remove", "reset"),
    "failed": ("start", "reset"),
    "running": ("pause", "stop", "kill", "focus", "rm"),
    "paused": ("resume", "resume", "stop", "focus", "reset"),
}
FITTING_PART = 0.35
SETTLE_S = 90  # of the model's time
LIFE_S = 3000

Seen = dict[str, tuple[str, str]]


@define
class Step:
    """What was done, and what was seen then: state and desired of each persona, the refusal if there was one, podman's list if it was asked."""

    verb: str
    name: str
    seen: Seen = field(factory=dict)
    refused: str | None = None
    listed: list[tuple[str, str]] | None = None


def live_modelled(count: int) -> list[Step]:
    """Draw and live `count` steps on the model."""
    from podman import IMAGE
    from world import World

    chance, steps = random.Random(SEED), []
    with World() as world:
        world.boot()
        world.run(5)
        for _ in range(count):
            step = Step(chance.choices(list(VERBS), list(VERBS.values()))[0], chance.choice(NAMES))
            found = world.state_of(step.name)
            state = "absent" if found is None else found.value
            if chance.random() < FITTING_PART:
                step.verb = chance.choice(FITTING[state])
            if step.verb in ("kill", "rm") and state != "running":
                step.verb = "start"  # an accident needs something that runs
            _act(world, step, IMAGE)
            steps.append(step)
    return steps


def _act(world: Any, step: Step, image: str) -> None:
    container = step.name.replace("://", "__")
    asked = None
    if step.verb == "kill":
        world.podman.dies(container, 137)
    elif step.verb == "rm":
        world.podman.vanishes(container)
    elif step.verb != "ps":
        request = request_of(step, image)
        asked = world.call(request["method"], **request["params"])
    for _ in range(int(SETTLE_S / 0.5)):
        world.run(0.5)
        personas = list(world.spine.engine.of_kind("persona"))
        if not any(i.pending or i.definition.spec(i.now).busy for i in personas) and (asked is None or asked.answers):
            break
    step.seen = {i.name: (i.now.value, i.desired) for i in world.spine.engine.of_kind("persona") if i.now.value != "absent"}
    if asked is not None and isinstance(asked.answers[0], Exception):
        step.refused = str(asked.answers[0])
    if step.verb == "ps":
        step.listed = sorted((c.name, c.state) for c in world.podman.containers.values() if c.name in CONTAINERS)


def request_of(step: Step, image: str) -> dict[str, Any]:
    """Return the JSON-RPC request of a step."""
    container = step.name.replace("://", "__")
    if step.verb == "kill":
        return {"method": "run", "params": {"argv": [*PODMAN, "kill", container], "deadline_s": 120}}
    if step.verb == "rm":
        return {"method": "run", "params": {"argv": [*PODMAN, "rm", "-f", "--time", "0", container], "deadline_s": 120}}
    if step.verb == "ps":
        return {"method": "run", "params": {"argv": [*PODMAN, "ps", "-a", "--format", "{{.Names}} {{.State}}"], "deadline_s": 120}}
    if step.verb == "create":
        return {"method": "persona.create", "params": {"name": step.name, "manifest": {**MANIFEST, **POLICIES[step.name], "image": image}}}
    method = "focus" if step.verb == "focus" else f"persona.{step.verb}"
    return {"method": method, "params": {"name": step.name, "wait": True}}


def live_really(machine: harness.Vm, steps: list[Step]) -> Iterator[Step]:
    """Send the same steps to a spine; each is followed by waiting for everybody to rest, then by a list."""
    lines = []
    for number, step in enumerate(steps):
        rests = 3 if step.verb in ("kill", "rm") else 1  # a pause before the next try may be longer than the bound of one answer
        requests = [request_of(step, REAL_IMAGE), *({"method": "persona.show", "params": {"name": name, "wait": True}} for name in NAMES * rests)]
        for part, request in enumerate([*requests, {"method": "persona.list", "params": {}}]):
            lines.append(json.dumps({"jsonrpc": "2.0", "id": f"{number}.{part}", **request}))
    text = "\n".join(lines)
    output = machine.out(f"bay0 rpc --window 1 <<'END'\n{text}\nEND", LIFE_S)
    answers = {answer["id"]: answer for answer in map(json.loads, output.splitlines())}
    lists = {name.partition(".")[0]: answer["result"] for name, answer in answers.items() if isinstance(answer.get("result"), list)}
    for number, step in enumerate(steps):
        answer, listed = answers[f"{number}.0"], lists[str(number)]
        found = Step(step.verb, step.name, {each["name"]: (each["state"], each["desired"]) for each in listed if each["name"] in NAMES})
        if "error" in answer:
            found.refused = answer["error"]["message"]
        if step.verb == "ps":
            found.listed = sorted((name, state) for name, state, *_ in map(str.split, answer["result"]["stdout"].splitlines()) if name in CONTAINERS)
        yield found


def compare(machine: harness.Vm, count: int) -> None:
    """Live `count` steps on both. `AssertionError` names the first one after which they differ."""
    modelled = live_modelled(count)
    for number, (model, real) in enumerate(zip(modelled, live_really(machine, modelled), strict=True)):
        before = [(each.verb, each.name) for each in modelled[max(0, number - 5) : number]]
        assert real == model, f"step {number} of seed {SEED}, after {before}: {real} is not {model}"
    moved = sum(one.seen != two.seen for one, two in itertools.pairwise(modelled))
    print(f"{count} steps, {moved} of them moved something, {sum(step.refused is not None for step in modelled)} were refused")
