"""Lives drawn by weight: the same rules as test_life.py, but personas, podman's vices and people are where most of the dice fall.

Hypothesis is better at making a failure small; this meets more of them in the same time. A seed is a life: `one_life(seed)` repeats it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random

import pytest
from ai import LEVERS, TROUBLES
from conftest import SEED, Size
from grants import WAYS
from pagecache import LOSES
from people import PERSONAS
from podman import AI_IMAGE, DAMAGES, ERRORS, IMAGE, Vice
from test_life import CALLED, COMMANDS, Life

from bay0.containers.life import PERSONAS as PERSONA_GROUP
from bay0.containers.life import TENANTS
from bay0.machines import boot
from bay0.pid1.reactor import TURN_S

ACTS_MAX = 25
PARTS = 4
KEPT = (0.0, 0.3, 0.7, 1.0)
CONTAINERS = ("p__work", "p__play", "p__idle", "sys__ai")
Acts = list[tuple[int, Callable[[], object]]]  # weight, act


def vice(dice: Random) -> Vice:
    error = dice.choice((*ERRORS, "garbage", "silent", "absent", *["hang"] * 9))
    return Vice(
        dice.choice(COMMANDS), error, dice.randint(-1, 5), dice.choice(("term", "kill", "never", "late")), dice.choice((0.5, 5.0, 30.0, 100.0)),
        lasting=dice.random() < 0.15, about="sys__ai" if dice.random() < 0.2 else "",
    )  # fmt: skip


def of_people(life: Life, dice: Random) -> Acts:
    name, some = dice.choice(PERSONAS), dice.random() < 0.5
    manifest = (dice.choice(("no", "on-failure", "always")), dice.randint(0, 2))
    home, ai = dice.choice(("", "/home/x")), dice.random() < 0.5
    return [
        (4, lambda: life.world.start(name)),
        (3, lambda: life.ask(name, dice.choice(("start", "stop", "restart", "pause", "resume", "remove")), some)),
        (5, lambda: life.ask_in_trouble(name, dice.choice(tuple(CALLED)), vice(dice), dice.choice((0.1, 2.0, 30.0)))),
        (2, lambda: life.begin_anew(name, dice.choice(("reset", "remove")), some)),
        (2, lambda: life.change(name, dice.choice(("memory", "retries", "description")), dice.randint(1, 3))),
        (3, lambda: life.focus(name, some)),
        (1, lambda: life.converge(name)),
        (1, lambda: life.remove_image(dice.choice((IMAGE, AI_IMAGE)))),
        (1, lambda: life.create(name, *manifest, some, home=home, ai=ai) if life.world.state_of_boot is boot.S.COMPLETE else None),
        (1, lambda: life.ask_to_stop(dice.choice(("poweroff", "reboot", "force")), dice.choice((0.0, 0.3, 60.0)))),
    ]


def of_ai(life: Life, dice: Random) -> Acts:
    autostart, model = dice.choice((None, True, False)), dice.choice((None, 0, 1, "own"))
    return [
        (4, lambda: life.ask_ai(dice.choice(("start", "start", "stop", "restart")), dice.choice((0.0, 0.4, 2.0, 8.0)))),
        (2, lambda: life.configure_ai(autostart, model)),
        (2, lambda: life.governor_acts(dice.choice(LEVERS), dice.choice((0.0, 0.4, 2.0)))),
        (2, lambda: life.ai_has_trouble(dice.choice(TROUBLES), dice.random() < 0.6)),
    ]


def of_ways(life: Life, dice: Random) -> Acts:
    return [
        (3, lambda: life.grant_anew(dice.choice(PERSONAS), dice.random() < 0.6, dice.choice((0.0, 0.4, 2.0)))),
        (2, lambda: life.forwarder_ends(dice.choice(("dies", "lies")), dice.choice((0.0, 0.1, 1.0)))),
        (2, lambda: life.way_has_trouble(dice.choice(WAYS), dice.random() < 0.5)),
    ]


def of_containers(life: Life, dice: Random) -> Acts:
    name = dice.choice(CONTAINERS)
    return [
        (2, lambda: life.container_ends(name, dice.choice((0, 1, 137)))),
        (1, lambda: life.container_vanishes(name)),
        (1, lambda: life.monitor_dies(name)),
        (2, lambda: life.frozen_by_hand(name, dice.random() < 0.5)),
        (1, lambda: life.paused_by_hand(name, dice.random() < 0.6)),
        (1, lambda: life.waits_for_a_disk(name, dice.random() < 0.5)),
        (1, lambda: life.frozen_from_above(dice.choice((PERSONA_GROUP, TENANTS)), dice.random() < 0.3)),
        (1, lambda: life.container_by_hand(dice.choice((*CONTAINERS, "p__nobody", "web")), dice.random() < 0.5)),
    ]


def of_time_and_power(life: Life, dice: Random) -> Acts:
    kept = dice.choice(KEPT)
    return [
        (5, lambda: life.world.run(dice.choice((0.001, 0.02, 0.2, 0.5, 1.0, 3.0, 11.0, 40.0)))),
        (1, life.world.settle),
        (1, lambda: life.pull_the_plug(kept)),
        (2, lambda: life.crash_soon(dice.randint(1, 60), kept)),
        (1, life.worker_dies),
        (1, lambda: life.worker_dies_soon(dice.randint(1, 60))),
    ]


def of_power_off(life: Life, dice: Random) -> Acts:
    seconds = dice.choice((0.0, 0.5, 5.0, 40.0))
    return [
        (6, lambda: life.power_on(dice.random() < 0.3, seconds, dice.random() < 0.15)),
        (2, lambda: life.power_on_and_crash(dice.randint(1, 200), dice.choice(KEPT))),
    ]


def of_podman(life: Life, dice: Random) -> Acts:
    return [
        (2, lambda: life.podman_will(vice(dice))),
        (1, life.podman_is_well),
        (1, lambda: life.podman_storage(dice.choice((*DAMAGES, "full")))),
        (1, lambda: life.freezes_are_slow(dice.choice((0.0, 0.3, 5.0, 1000.0)))),
        (1, lambda: life.freezes_fail(dice.choice(("", "Input/output error")))),
        (1, lambda: life.ignores_term(dice.choice(CONTAINERS))),
    ]


def of_the_disk(life: Life, dice: Random) -> Acts:
    return [
        (1, lambda: life.wedge(dice.choice((0, 1, 3, 6, None)))),
        (2, life.unwedge),
        (1, lambda: life.spoil(dice.choice(("full", "readonly", "damaged")), dice.random() < 0.4)),
        (1, lambda: life.fail_one_write(dice.choice(("full", "readonly", "fault")), dice.randint(0, 9))),
        (1, lambda: life.fail_one_sync(dice.choice(LOSES), dice.randint(0, 5))),
        (1, lambda: life.kernel_fails_to_write(dice.choice(LOSES)) if life.world.on else None),
        (1, lambda: life.slow_down(dice.choice((0.001, 0.001, 0.15, 0.6, 3.0)))),
        (1, lambda: life.plug(dice.random() < 0.7)),
    ]


def one_life(seed: int) -> Counter[str]:
    """Live it to its end; return what was counted."""
    dice, life = Random(seed), Life()
    world = life.world
    world.turn_s = 0.0 if seed % 3 == 0 else TURN_S
    try:
        life.deliver(dice.choice(("lived in", "lived in", "new")), dice.choice((0.001, 0.001, 0.15)))
        for _ in range(dice.randint(3, ACTS_MAX)):
            acts = of_podman(life, dice) + (of_the_disk(life, dice) if dice.random() < 0.5 else [])
            for kind in (of_people, of_ai, of_ways, of_containers, of_time_and_power) if world.on else (of_power_off,):
                acts += kind(life, dice)
            dice.choices([act for _, act in acts], [weight for weight, _ in acts])[0]()
        life.end()
    finally:
        world.__exit__()
    return Counter(world.checks.count) + Counter({f"podman: {what}": n for what, n in world.podman.count.items()}) + Counter(seams=world.seams)


@pytest.mark.parametrize("part", range(PARTS))
def test_whatever_is_done_to_it_in_whatever_order_a_machine_ends_well(part: int, size: Size) -> None:
    count: Counter[str] = Counter()
    first = ((SEED - 1) * PARTS + part) * size.lives
    for seed in range(first, first + size.lives):
        try:
            count += one_life(seed)
        except BaseException as error:
            error.add_note(f"one_life({seed})")
            raise
    print(f"{size.lives} lives: {dict(count)}")
