"""What may not be staged: one clear sentence, and slots, database and journal are bit for bit as before."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from diskkit import quick_digest
from kit import in_child
from slotkit import SIZE, digest, image
from upgradekit import NEW, Computer

from bay0.base.errors import RefusedError
from bay0.init.spine import Spine
from bay0.machines import upgrade
from bay0.machines.upgrade import S
from bay0.state import bootenv, slots, slotwork
from bay0.upgrade import methods

GOOD = image("3.0")
COFF = struct.unpack_from("<I", GOOD, 0x3C)[0] + 4


def changed(old: str, new: str) -> bytes:
    """Return a spine whose .osrel says something else, of the same length."""
    assert GOOD.count(old.encode()) == 1
    assert len(old) == len(new)
    return GOOD.replace(old.encode(), new.encode())


def at(place: int, data: bytes) -> bytes:
    return GOOD[:place] + data + GOOD[place + len(data) :]


# what it is -> the file, and what the refusal says
FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "nothing in it": (lambda: b"", "it is empty"),
    "a text": (lambda: b"#!/bin/sh\nreboot\n", "does not begin with MZ"),
    "a script for DOS": (lambda: b"MZ" + bytes(100), "its header is said to be at 0"),
    "half of one": (lambda: GOOD[: len(GOOD) // 2], "is it cut short?"),
    "all but the last byte": (lambda: GOOD[:-1], "is it cut short?"),
    "no PE": (lambda: at(COFF - 4, b"ELF\0"), "has no PE signature"),
    "a program for a processor nobody knows": (lambda: at(COFF, b"\x34\x12"), "an unknown machine, 0x1234"),
    "another system": (
        lambda: changed("ID=alpine-spline\n", "ID=alpine-splino\n"),
        "and not of alpine-spline",
    ),
    "no build id": (lambda: changed("BUILD_ID=", "BOILD_ID="), "says no BUILD_ID"),
    "a word to the shell": (
        lambda: changed("ID=alpine-spline\n", "ID=$(reboot)####\n"),
        "a line that makes no sense",
    ),
    "another architecture, as it says": (lambda: changed("x86-64", "arm64 "), "for"),
    "an older schema": (lambda: changed("SCHEMA=3", "SCHEMA=1"), "reads databases up to version 1"),
    "larger than the slot": (lambda: image("3.0", SIZE), "and the slot room for"),
    "the build that runs": (lambda: image("1.0"), "it is the build that runs"),
    "what is refused": (lambda: NEW, "it ate the cat"),
}


@pytest.fixture
def new(tmp_path: Path) -> Path:
    return tmp_path / "given.efi"


class Refusal:
    """Asks for what must be refused, and compares all that could have been written."""

    def __init__(self, pc: Computer, spine: Spine) -> None:
        self.pc, self.spine = pc, spine

    def everything(self) -> list[Any]:
        self.pc.machine.turn_until(self.spine, lambda: not self.spine.state.memory, "an empty memory journal")
        kept = [quick_digest(self.pc.folder / f"persist/spine/state.db{suffix}") for suffix in ("", "-wal")]
        live = self.spine.engine.instances[upgrade.NAME]
        return [
            *(self.pc.disk.bytes_of(name) for name in bootenv.SLOTS),
            *kept,
            live.seq,
            live.now,
            live.config,
            live.attempts,
        ]

    def __call__(self, path: Path | str, **params: Any) -> str:
        before = self.everything()
        answer = self.pc.call(self.spine, "upgrade.stage", path=str(path), **params)
        assert isinstance(answer, Exception), answer
        assert self.everything() == before
        said = str(answer)
        if isinstance(answer, RefusedError):
            assert said.lower().endswith("nothing was changed"), said
            assert "\n" not in said
        return said


@in_child
def test_what_may_not_be_staged_is_refused_and_nothing_is_changed(tmp_path: Path, new: Path) -> None:
    pc = Computer(tmp_path)
    spine = pc.boot()
    pc.call(spine, "nack.add", digest=digest(NEW), why="it ate the cat")
    refused = Refusal(pc, spine)
    for what, (data, why) in FILES.items():
        new.write_bytes(data())
        said = refused(new)
        assert why in said, f"{what}: {said}"
    new.write_bytes(GOOD)
    assert "and not sha256:" in refused(new, digest="sha256:" + "1" * 64)
    assert "digest" in refused(new, digest="sha256:1")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "dangling").symlink_to("nowhere")
    for path, why in (
        (tmp_path / "none", "No such file"), (tmp_path / "dangling", "No such file"),
        (tmp_path, "is no file"), (tmp_path / "fifo", "is no file"),
        ("given.efi", "absolute path"), ("/given\0.efi", "absolute path"),
    ):  # fmt: skip
        assert why in refused(path), path
    pc.machine.leave(spine)


@in_child
def test_where_it_may_not_be_staged_it_is_refused_and_nothing_is_changed(
    tmp_path: Path, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A good file, and a machine, a disk or a firmware that is not as it must be."""
    pc = Computer(tmp_path)
    spine = pc.boot()
    refused = Refusal(pc, spine)
    new.write_bytes(GOOD)

    def unreadable(_port: Any, done: Callable[[Any], None], _digest: str | None = None) -> None:
        done(RefusedError("the NACK registry cannot be read"))

    cases: dict[str, tuple[object, str, object]] = {
        "Secure Boot is on": (slotwork, "secure_boot", lambda: True),
        "cannot be read": (slotwork, "secure_boot", lambda: None),
        "--one-slot": (slots, "on_disk", dict),
        "was booted from elsewhere": (
            slotwork,
            "stated",
            lambda word: {"BUILD_ID": "of-a-stick", "VERSION_ID": "1.0"}.get(word, "3"),
        ),
        "the NACK registry cannot be read": (methods, "read_nack_registry", unreadable),
    }
    for why, (holder, name, instead) in cases.items():
        with monkeypatch.context() as patch:
            patch.setattr(holder, name, instead)
            assert why in refused(new), why
    before = refused.everything()
    with monkeypatch.context() as patch:
        patch.setattr(type(spine.state), "healthy", False)
        said = str(pc.call(spine, "upgrade.stage", path=str(new)))
    assert "nothing was changed" in said, said
    assert refused.everything() == before
    assert pc.call(spine, "upgrade.stage", path=str(new))["state"] == "staging", (
        "and without all that it is staged"
    )
    pc.until(spine, S.STAGED)
    assert refused.everything() != before
    pc.machine.leave(spine)


@in_child
def test_when_it_may_not_be_staged_it_is_refused_and_nothing_is_changed(tmp_path: Path, new: Path) -> None:
    """A good file, at the wrong time."""
    pc = Computer(tmp_path)
    spine = pc.boot()
    pc.hold = "inspect"
    other: list[Any] = []
    new.write_bytes(GOOD)
    spine.control.methods["upgrade.stage"]({"path": str(new)}, other.append)
    pc.machine.turn_until(spine, lambda: pc.held, "a look at the file")
    pc.hold = "stage"
    assert "another image is being looked at" in Refusal(pc, spine)(new)
    pc.held.pop()()
    pc.until(spine, S.STAGING)
    pc.machine.turn_until(spine, lambda: pc.held, "the copy to begin")
    assert "an image is being written" in Refusal(pc, spine)(new)
    pc.hold = None
    pc.held.pop()()
    pc.until(spine, S.STAGED)
    pc.tried(spine)
    spine = pc.boot("bay0.prove=600")
    pc.until(spine, S.PROVING)
    assert "it is being proved" in Refusal(pc, spine)(new)
    pc.call(spine, "upgrade.accept")
    pc.until(spine, S.GOOD)
    assert "one more boot" in Refusal(pc, spine)(new)
    pc.machine.leave(spine, "reboot")
    spine = pc.boot()
    pc.until(spine, S.IDLE)
    spine.power_signals.stop("poweroff", "the test is over")
    pc.machine.turn_until(spine, lambda: spine.boot.now.value == "stopping", "the stop")
    assert "going down" in str(pc.call(spine, "upgrade.stage", path=str(new)))
    pc.machine.turn_until(spine, lambda: pc.machine.powered, "the power")
