"""Boots as pictures and tables."""

from __future__ import annotations

import xml.dom.minidom
from typing import Any

import pytest

from bay0.cli import picture

STEP = {
    "boot_id": "0123456789abcdef", "n": 1, "machine": "boot:01234567", "kind": "boot", "seq": 1, "source": "new", "event": "begin",
    "dest": "mounting", "why": "the kernel handed over", "at_ms": 2500, "attempts": 0,
}  # fmt: skip


def boot(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"boot_id": "0123456789abcdef", "version": "0.1.0", "kernel": "6.18", "steps": [{**STEP, **step} for step in steps]}


def texts(svg: str) -> list[str]:
    return [node.firstChild.data for node in xml.dom.minidom.parseString(svg).getElementsByTagName("text")]


def test_a_span_lasts_until_the_next_step_of_the_same_machine() -> None:
    steps = boot(
        {"at_ms": 10}, {"machine": "storage:01234567", "kind": "storage", "dest": "opening", "at_ms": 15}, {"dest": "shielding", "at_ms": 40}
    )["steps"]
    spans = [(span["machine"], span["state"], span["start_ms"], span["end_ms"]) for span in picture.spans(steps)]
    assert spans == [("boot", "mounting", 10, 40), ("storage", "opening", 15, None), ("boot", "shielding", 40, None)]


def test_machines_of_other_boots_keep_their_full_names_and_do_not_end_ours() -> None:
    steps = boot(
        {"at_ms": 10}, {"boot_id": "fedcba98", "at_ms": 5}, {"boot_id": "fedcba98", "machine": "sys://console", "kind": "tenant", "at_ms": 7}
    )["steps"]
    assert [(span["machine"], span["end_ms"]) for span in picture.spans(steps)] == [("boot", None), ("boot:01234567", None), ("sys://console", None)]


def test_a_table_has_a_line_for_each_step() -> None:
    lines = picture.table(boot({}, {"dest": "shielding", "at_ms": 2610})["steps"])
    assert len(lines) == 3
    assert lines[1].split()[:5] == ["2.500", "s", "110", "ms", "boot"]


def test_a_boot_is_drawn_as_well_formed_xml_with_its_states() -> None:
    drawn = picture.svg(boot({}, {"dest": "shielding", "at_ms": 2610}, {"dest": "complete", "at_ms": 3000}))
    shown = texts(drawn)
    assert "boot mounting" in shown
    assert "110 ms" in shown
    assert "boot 0123456789abcdef, bay0 0.1.0, kernel 6.18" in shown


@pytest.mark.parametrize("steps", [(), ({},), ({"at_ms": 0},)])
def test_a_boot_with_hardly_a_step_can_be_drawn(steps: tuple[dict[str, Any], ...]) -> None:
    assert xml.dom.minidom.parseString(picture.svg(boot(*steps)))


@pytest.mark.parametrize("why", ["<script>&\"'", "\x1b[31mred\x1b[0m", "nul\0 and bell\a", "\ud800 alone", "\ufffe"])
def test_whatever_a_command_said_the_picture_stays_xml(why: str) -> None:
    """A reason may hold the last line of a command's output."""
    drawn = picture.svg(boot({"why": why}, {"dest": "shielding", "at_ms": 2610}))
    assert xml.dom.minidom.parseString(drawn.encode())


def test_a_spine_that_has_run_for_a_month_is_drawn_as_small_as_any() -> None:
    """A disk that flaps adds steps for as long as the spine runs; the seconds must not be drawn one by one."""
    month = 30 * 86400 * 1000
    drawn = picture.svg(
        boot(
            {},
            {"dest": "shielding", "at_ms": 2610},
            {"machine": "storage:01234567", "kind": "storage", "at_ms": month},
            {"dest": "complete", "at_ms": month + 5},
        )
    )
    assert len(drawn) < 20000
    assert "s" in texts(drawn)[2]
