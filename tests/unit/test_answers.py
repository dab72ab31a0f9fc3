"""Every answer of a whole spine with as many and as large personas as there may be: whole for who reads, and never much of it waiting in PID 1."""

from __future__ import annotations

import json
import socket
from collections import deque
from pathlib import Path
from typing import Any

import pytest
from bootkit import THING, Machine
from kit import in_child

from bay0.boot import methods as verbs
from bay0.control import answers
from bay0.control import server as control
from bay0.control.clients import LISTEN_MAX
from bay0.control.outcomes import STEPS_KEPT
from bay0.init import Spine
from bay0.machines import MACHINES, persona, snapshot
from bay0.machines.engine import WHY_MAX
from bay0.machines.instance import Step
from bay0.personas import kept
from bay0.personas.manifest import WIRE_MAX, Manifest
from bay0.personas.methods import PERSONAS_MAX
from bay0.personas.port import Config
from bay0.personas.snapshots import ALL_MAX, NOTE_MAX
from bay0.state import registry

WIDE = "\U0001f600"  # a character that is twelve bytes of JSON
LISTINGS = ("persona.list", "persona.snapshots", "machines", "status", "history", "nack.list", "image.list")
ASKED: dict[str, dict[str, Any]] = {
    "status": {}, "turns": {}, "boots": {"previous": 5}, "machines": {}, "history": {"machine": THING, "limit": verbs.HISTORY_MAX},
    "governor": {}, "inhibit": {}, "validate": {"only": ["machines"]}, "validate.progress": {}, "validate.last": {}, "storage.retry": {},
    "storage.grow": {}, "screen": {},
    "persona.list": {}, "persona.show": {"name": "p://n7"}, "persona.create": {"name": "p://n7", "manifest": {"image": "localhost/x:y"}},
    **{f"persona.{verb}": {"name": "p://n7", "wait": False} for verb in ("start", "stop", "pause", "resume", "reset", "remove")},
    "focus": {"name": "p://n7", "wait": False}, "focus.show": {}, "image.list": {}, "image.load": {"path": "/x"}, "image.remove": {"name": "x"},
    "nack.add": {"digest": "sha256:" + "f" * 64}, "nack.check": {"digest": "sha256:" + "f" * 64}, "nack.remove": {"digest": "sha256:" + "f" * 64},
    "nack.list": {}, "tenant.list": {}, "tenant.show": {"name": "sys://ai"}, "tenant.start": {"name": "sys://nobody"},
    "tenant.stop": {"name": "sys://nobody"}, "tenant.restart": {"name": "sys://nobody"}, "tenant.configure": {"name": "sys://nobody"},
    "persona.configure": {"name": "p://n7", "changes": {"description": WIDE * 200}}, "persona.restart": {"name": "p://n7", "wait": False},
    "persona.wait": {"name": "p://n7", "for": "stopped", "seconds": 1}, "persona.clone": {"source": "p://n7", "name": "p://copy"},
    "persona.copying": {"name": "p://n7"}, "persona.give_up": {"name": "p://n7"}, "persona.snapshot": {"name": "p://n7", "note": WIDE * NOTE_MAX},
    "persona.snapshots": {}, "persona.restore": {"name": "p://n7"},
    "persona.import": {"name": "p://n7", "archive": "/x", "manifest": {"image": "localhost/x:y"}}, "persona.drop": {"name": "p://n8@1"},
    "upgrade.status": {},
    "upgrade.stage": {"path": "/x"},
    "persona.net": {"name": "p://n7"}, **{f"net.{verb}": {"wait": False} for verb in ("status", "up", "down", "configure")},
    **{f"upgrade.{verb}": {} for verb in ("try", "cancel", "accept", "rollback")},
    "run": {"argv": ["sh", "-c", "head -c 200000 /dev/zero; head -c 200000 /dev/zero >&2"]},
}  # fmt: skip
NOT_ASKED = {"power", "suspend"}  # they end the machine's day; their answers are a word


def crowd(spine: Spine, count: int = PERSONAS_MAX) -> None:
    """Personas with the largest manifests, descriptions and reasons there may be."""
    about, image = WIDE * 200, "localhost/" + "x" * 240 + ":y"
    spare = WIRE_MAX - len(json.dumps({"image": image, "description": about})) - 600
    text = Config(Manifest(image=image, description=about, command=("x", '"' * (spare // 2))), 1).text()
    assert spine.persona_verbs is not None
    for number in range(count):
        instance = spine.engine.add(f"p://n{number}-" + "x" * 24 if number != 7 else "p://n7", MACHINES["persona"], persona.S.STOPPED, seq=1)
        instance.config = text
        step = Step(spine.engine.boot_id, 1, instance.name, "persona", 1, "starting", "gave_up", "failed", WIDE * WHY_MAX, 1)
        instance.committed = step
        spine.outcomes._recent[instance.name] = deque([step] * STEPS_KEPT)
    for number in range(1, ALL_MAX + 1):
        instance = spine.engine.add(f"p://n8@{number}", MACHINES["snapshot"], snapshot.S.KEPT, seq=1)
        instance.config = kept.text(text, WIDE * NOTE_MAX, 1 << 31)


class Client:
    """Reads as fast as it can, which is once a turn."""

    def __init__(self, machine: Machine, spine: Spine) -> None:
        self.machine, self.spine = machine, spine
        self.peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.peer.connect(spine.control.path)
        self.peer.setblocking(False)
        self.waiting = 0

    def ask(self, method: str, **params: Any) -> tuple[dict[str, Any], int]:
        """Return the answer and its size."""
        self.peer.sendall(json.dumps({"jsonrpc": "2.0", "id": method, "method": method, "params": params}).encode() + b"\n")
        parts: list[bytes] = []

        def look() -> bool:
            self.waiting = max([self.waiting, *(each.outbox.waiting for each in self.spine.control._clients)])
            try:
                parts.append(self.peer.recv(1 << 20))
            except BlockingIOError:
                return False
            assert parts[-1], f"cut off: {self.machine.logged()[-3:]}"
            return parts[-1].endswith(b"\n")

        self.machine.turn_until(self.spine, look, f"an answer to {method}")
        data = b"".join(parts)
        return json.loads(data), len(data)


def has_a_past(machine: Machine, spine: Spine, count: int) -> None:
    """A journal and a NACK registry full of the longest reasons."""
    done: list[Any] = []
    for start in range(0, count, 10):
        steps = [
            {
                "boot_id": spine.engine.boot_id, "n": 1_000_000 + n, "machine": THING, "kind": "tenant", "seq": n, "source": "a", "event": "b",
                "dest": "running", "why": WIDE * WHY_MAX, "at_ms": n, "attempts": 0, "desired": "stopped", "config": None,
            }
            for n in range(start, start + 10)
        ]  # fmt: skip
        spine.state.ask("commit", 20, done.append, steps=steps, full=False)
        machine.turn_until(spine, lambda: done and done.pop().ok, "a commit")
    for number in range(count):
        spine.state.ask("nack_put", 20, done.append, digest=f"sha256:{number:064x}", why=WIDE * registry.WHY_MAX, at=number, boot_id="b")
        machine.turn_until(spine, lambda: done and done.pop().ok, "a NACK")


@in_child
def test_every_answer_of_a_full_spine_reaches_who_reads_and_little_of_it_ever_waits(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    spine = machine.complete(machine.boot())
    machine.turn_until(spine, lambda: spine.replay.known, "what is stored")
    assert set(ASKED) | NOT_ASKED == set(spine.control.methods), "a method is missing here"
    has_a_past(machine, spine, verbs.HISTORY_MAX)
    crowd(spine)
    sizes: dict[str, int] = {}
    client = Client(machine, spine)
    for method, params in ASKED.items():
        client.waiting = 0
        answer, sizes[method] = client.ask(method, **params)
        most = LISTEN_MAX if method in LISTINGS else control.BACKLOG_MAX
        assert client.waiting < most, f"{method}: {client.waiting} bytes waited"
        assert method in LISTINGS or sizes[method] < control.BACKLOG_MAX, f"{method} answers with {sizes[method]} bytes at once"
        if method == "persona.list":
            assert len({each["name"] for each in answer["result"]}) == PERSONAS_MAX
            assert all(len(each["why"]) == WHY_MAX for each in answer["result"])
        elif method == "history":
            assert [row["seq"] for row in answer["result"]] == list(range(verbs.HISTORY_MAX))
        elif method == "nack.list":
            assert (answer["result"]["total"], len(answer["result"]["entries"])) == (verbs.HISTORY_MAX, verbs.HISTORY_MAX)
    assert sizes["persona.list"] > 4 * control.BACKLOGS_MAX
    assert [line for line in machine.logged() if line["event"] in ("control client cut off", "method failed", "answer not finished")] == []
    print(*(f"{size:>9} {method}" for method, size in sorted(sizes.items(), key=lambda each: -each[1])), sep="\n")


@pytest.mark.parametrize("size", [0, 1, answers.AHEAD - 1, answers.AHEAD, 3 * answers.AHEAD])
def test_an_outbox_gives_back_what_was_put_in_its_order(size: int) -> None:
    outbox = answers.Outbox()
    given = [b"a" * size, iter([b"b" * size, b"", b"c"]), b"d", iter([]), b"e"]
    wanted = b"a" * size + b"b" * size + b"cde"
    for each in given:
        outbox.put(each)
    taken = b""
    while outbox:
        outbox.fill()
        assert outbox.waiting >= len(outbox.ready)
        taken += bytes(outbox.ready[:1000])
        del outbox.ready[:1000]
    assert (taken, outbox.waiting) == (wanted, 0)
