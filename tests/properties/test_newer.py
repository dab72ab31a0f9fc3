"""A database that a newer program has written to, below an older one: nothing of what is not understood is lost, or given to somebody else."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from people import WORK
from podman import IMAGE
from world import World

from bay0.base import uids
from bay0.base.errors import RefusedError


def told(world: World, method: str, **params: Any) -> Any:
    asked = world.call(method, **params)
    for _ in range(100):
        if not asked.answers:
            world.run(0.1)
    return asked.answers[0]


def stored(world: World) -> dict[str, str]:
    """What a machine that is off has of each persona."""
    with sqlite3.connect(world.disk.path) as link:
        return dict(link.execute("SELECT name, config FROM machine WHERE kind = 'persona'").fetchall())


def off(world: World) -> None:
    world.stop()
    world.run(60)
    assert not world.on


def a_newer_program_writes(world: World, name: str, **keys: Any) -> str:
    config = json.loads(stored(world)[name])
    config["manifest"].update(keys)
    text = json.dumps(config)
    link = sqlite3.connect(world.disk.path)
    link.execute("UPDATE machine SET config = ? WHERE name = ?", (text, name))
    link.commit()
    link.close()
    return text


def test_a_persona_of_a_newer_program_keeps_its_uid_range_and_all_that_is_stored_of_it() -> None:
    with World() as world:
        world.boot()
        world.run(5)
        told(world, "persona.create", name=WORK, manifest={"image": IMAGE})
        off(world)
        newer = a_newer_program_writes(world, WORK, quota=1 << 30)
        world.boot()
        world.run(10)
        (found,) = told(world, "persona.list")
        assert (found["state"], "quota" in found["not_understood"]) == ("stopped", True)
        assert isinstance(told(world, "persona.start", name=WORK), RefusedError)
        told(world, "persona.create", name="p://other", manifest={"image": IMAGE})
        told(world, "persona.reset", name=WORK)
        world.cut()
        world.boot()
        world.run(30)
        off(world)
        after = stored(world)
        assert after[WORK] == newer
        assert {name: uids.slot_of(text) for name, text in after.items()} == {WORK: 0, "p://other": 1}


def test_names_that_were_used_and_removed_leave_no_rows_over_boots_and_cuts() -> None:
    with World() as world:
        world.boot()
        world.run(5)
        for number in range(6):
            name = f"p://job{number}"
            told(world, "persona.create", name=name, manifest={"image": IMAGE})
            told(world, "persona.remove", name=name, wait=True)
        assert list(world.spine.engine.of_kind("persona")) == []
        world.cut(0.0)
        assert stored(world) == {}
        world.boot()
        world.run(10)
        assert told(world, "persona.list") == []
        world.settle()
