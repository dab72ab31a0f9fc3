"""Where each window belongs: the commands for any tree are carried out by a small model of sway.

And then the rules hold. And the keys.
"""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest
from attrs import define, evolve
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from kit import Log
from parts import Steps

from bay0.base.errors import RefusedError
from bay0.machines import focus, persona
from bay0.screen import config, tree
from bay0.screen.keys import Keys
from bay0.screen.tree import SCRATCH, Window

PERSONAS = ("p://a", "p://b", "p://c")
S = persona.S
QUICKLY = settings(
    deadline=None, max_examples=150, phases=(Phase.explicit, Phase.generate)
)  # a seeded fault is found here, too


@define
class Sway:
    """Windows, and the workspace that is shown.

    What sway 1.10.1 was seen to do with the commands that are used.
    """

    windows: dict[int, Window]
    current: str

    def run(self, commands: list[str]) -> None:
        for command in "; ".join(commands).split("; "):
            if found := re.fullmatch(r"\[con_id=(\d+)\] (.*)", command):
                self._one(int(found[1]), found[2])
            elif found := re.fullmatch(r'workspace --no-auto-back-and-forth "(.*)"', command):
                self.current = found[1]
            else:
                assert re.fullmatch(r"client\.\w+( #[0-9a-f]{6}){5}", command), command

    def _one(self, con: int, command: str) -> None:
        window = self.windows[con]
        if command == "kill":
            pass  # it is asked, and need not go
        elif command == "fullscreen disable":
            window = evolve(window, full=False)
        elif command == "move scratchpad":
            self.current = (
                window.workspace if window.workspace != SCRATCH else self.current
            )  # sway shows where it was
            window = evolve(window, workspace=SCRATCH, floats=True)
        elif found := re.fullmatch(r'move container to workspace "(.*)"', command):
            assert not (window.full and window.workspace == SCRATCH), "this brings sway 1.10.1 down"
            window = evolve(window, workspace=found[1])
        elif command == "floating disable":
            window = evolve(window, floats=False)
        elif command == "focus":
            self.current = window.workspace
        else:
            assert command.startswith("title_format")
        self.windows[con] = window

    def tree(self) -> list[Window]:
        return [evolve(each, visible=each.workspace == self.current) for each in self.windows.values()]


@st.composite
def worlds(draw: Any) -> tuple[Sway, dict[int, str | None], str | None, set[str]]:
    """Return a sway, whose each window is, who is in front, and who stands."""
    places = st.sampled_from((SCRATCH, tree.NOBODY, *PERSONAS))
    owners = draw(st.dictionaries(st.integers(1, 99), st.sampled_from((None, *PERSONAS)), max_size=8))
    windows = {
        con: Window(
            con,
            1,
            draw(places),
            visible=False,
            floats=draw(st.booleans()),
            full=draw(st.booleans()),
            dialog=draw(st.booleans()),
        )
        for con in owners
    }
    front = draw(st.sampled_from((None, *PERSONAS)))
    return Sway(windows, draw(places)), owners, front, draw(st.sets(st.sampled_from(PERSONAS))) - {front}


# what one draw in many hits: a window in the scratchpad that holds the full screen, of the one that comes to the front
FULL_BEHIND = (
    Sway({1: Window(1, 1, SCRATCH, visible=False, floats=True, full=True, dialog=False)}, tree.NOBODY),
    {1: "p://a"},
    "p://a",
    set[str](),
)


@QUICKLY
@given(worlds())
@example(FULL_BEHIND)
def test_after_one_message_only_the_one_in_front_is_seen_and_all_of_it_and_nothing_is_left_to_say(
    world: Any,
) -> None:
    sway, owners, front, standing = world
    sway = evolve(sway, windows=dict(sway.windows))
    commands = tree.mend(sway.tree(), front, owners, standing.__contains__, ())
    sway.run([*commands, tree.show(front)])
    found = sway.tree()
    assert sway.current == (front or tree.NOBODY)
    for window in found:
        whose = owners[window.con]
        assert window.visible == (whose is not None and whose == front)
        if whose != front and whose not in standing:
            assert window.workspace == SCRATCH, "from a workspace it could come to the front"
    assert (
        tree.mend(
            found,
            front,
            owners,
            standing.__contains__,
            {con for con, whose in owners.items() if whose is None},
        )
        == []
    )


@QUICKLY
@given(worlds())
def test_a_window_is_asked_to_close_once_and_only_if_it_is_nobodys(world: Any) -> None:
    sway, owners, front, standing = world
    for closing in (set[int](), set(owners)):
        commands = "; ".join(tree.mend(sway.tree(), front, owners, standing.__contains__, closing))
        killed = {int(each) for each in re.findall(r"\[con_id=(\d+)\] kill", commands)}
        assert killed == {con for con, whose in owners.items() if whose is None} - closing


def test_what_was_made_to_float_stays_so() -> None:
    window = Window(1, 1, SCRATCH, visible=False, floats=True, full=False, dialog=True)
    assert "floating disable" not in "; ".join(
        tree.mend([window], "p://a", {1: "p://a"}, lambda _: False, ())
    )
    plain = evolve(window, dialog=False)
    assert "floating disable" in "; ".join(tree.mend([plain], "p://a", {1: "p://a"}, lambda _: False, ()))


@pytest.mark.parametrize(
    "nonsense",
    [
        {},
        {"type": "root"},
        {"type": "root", "nodes": 1, "floating_nodes": []},
        {"type": "con", "pid": "x", "marks": []},
    ],
)
def test_what_is_no_tree_is_refused(nonsense: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        tree.windows(nonsense)


def test_a_tree_without_end_is_refused() -> None:
    deep: dict[str, Any] = {"type": "con", "nodes": [], "floating_nodes": []}
    for _ in range(200):
        deep = {"type": "con", "nodes": [deep], "floating_nodes": []}
    with pytest.raises(ValueError, match="too deep"):
        tree.windows(deep)


def test_colours_are_the_personas_own_and_dark_enough_for_white_letters() -> None:
    colours = [tree.colour(f"p://{n}") for n in range(50)]
    assert len(set(colours)) > 40
    assert tree.colour("p://1") == colours[1]
    for each in colours:
        red, green, blue = (int(each[at : at + 2], 16) / 255 for at in (1, 3, 5))
        assert 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.6


# ---- the keys


def keys(front: str | None = None, **states: S) -> tuple[Keys, Steps]:
    engine = Steps()
    now = focus.S.NONE if front is None else focus.S.SETTLED
    engine.instances[focus.NAME] = SimpleNamespace(
        now=now, config=focus.config(front) if front else "", name=focus.NAME
    )
    of = [
        SimpleNamespace(name=f"p://{name}", now=state, config='{"screen":true}')
        for name, state in states.items()
    ]
    of.append(SimpleNamespace(name="p://blind", now=S.RUNNING, config='{"screen":false}'))
    engine.of_kind = lambda _kind: of  # type: ignore[attr-defined]
    wired: Any = engine
    return Keys(wired, Log()), engine


@pytest.mark.parametrize(
    ("command", "front", "asked"),
    [
        ("nop bay0 persona 1", None, 1), ("nop bay0 persona 2", "p://b", 1), ("nop bay0 persona 3", None, 0), ("nop bay0 persona 0", None, 0),
        ("nop bay0 persona x", None, 0), ("nop bay0 persona", None, 0), ("nop bay0 next", None, 1), ("nop bay0 next", "p://c", 1),
        ("nop other 1", None, 0), ("exec true", None, 0), ("nop bay0 persona 1", "p://b", 0),
    ],
)  # fmt: skip
def test_a_key_asks_for_the_persona_that_it_names(command: str, front: str | None, asked: int) -> None:
    found, engine = keys(front, c=S.PAUSED, b=S.RUNNING, a=S.STOPPED)
    found.pressed(command)
    assert engine.sent == [(focus.NAME, focus.E.FOCUS)] * asked


def test_a_switch_that_is_refused_is_said() -> None:
    found, engine = keys(None, a=S.RUNNING)
    engine.send = lambda _name, _event, _why, reply, **_: reply(RefusedError("the disk is gone"))  # type: ignore[method-assign]
    found.pressed("nop bay0 persona 1")
    assert found.log.of("a key's switch is refused")[0]["why"] == "the disk is gone"


def test_the_digits_are_in_the_order_of_names_and_next_goes_round() -> None:
    found, _ = keys("p://c", c=S.PAUSED, b=S.RUNNING, d=S.STARTING, a=S.FAILED)
    assert found.personas() == ["p://b", "p://c", "p://d"]
    assert [found._meant(f"{config.PERSONA} {n}") for n in (1, 2, 3)] == ["p://b", "p://c", "p://d"]
    assert found._meant(config.NEXT) == "p://d"
    assert keys("p://d", c=S.PAUSED, d=S.RUNNING)[0]._meant(config.NEXT) == "p://c"
    assert keys(None)[0]._meant(config.NEXT) is None


# ---- seeded faults, each found by the properties


def _leaves_those_behind(found: Any, front: Any, owners: Any, stands: Any, closing: Any) -> list[str]:
    return REAL([each for each in found if owners[each.con] in (front, None)], front, owners, stands, closing)


def _lets_nobodys_stay(found: Any, front: Any, owners: Any, stands: Any, closing: Any) -> list[str]:
    return REAL([each for each in found if owners[each.con] is not None], front, owners, stands, closing)


def _all_stand(found: Any, front: Any, owners: Any, _stands: Any, closing: Any) -> list[str]:
    return REAL(found, front, owners, lambda _: True, closing)


def _asks_again(found: Any, front: Any, owners: Any, stands: Any, _closing: Any) -> list[str]:
    return REAL(found, front, owners, stands, ())


def _does_not_place(found: Any, front: Any, owners: Any, stands: Any, closing: Any) -> list[str]:
    return REAL(
        [each for each in found if owners[each.con] != front or front is None], front, owners, stands, closing
    )


def _moves_what_has_the_full_screen(*arguments: Any) -> list[str]:
    return [
        re.sub(r"\[con_id=\d+\] fullscreen disable; (?=\[con_id=\d+\] move container)", "", each)
        for each in REAL(*arguments)
    ]


REAL = tree.mend
FAULTS = (
    _leaves_those_behind,
    _lets_nobodys_stay,
    _all_stand,
    _asks_again,
    _does_not_place,
    _moves_what_has_the_full_screen,
)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_seeded_fault_is_found(fault: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "mend", fault)
    found = []
    for check in (
        test_after_one_message_only_the_one_in_front_is_seen_and_all_of_it_and_nothing_is_left_to_say,
        test_a_window_is_asked_to_close_once_and_only_if_it_is_nobodys,
    ):
        try:
            check()
        except (AssertionError, ExceptionGroup) as error:  # a group: it is found in more than one way
            found.append(error)
    assert found


def test_a_message_that_moves_something_and_does_not_show_at_its_end_is_found() -> None:
    """sway shows where it took a window from."""
    window = Window(1, 1, "p://b", visible=False, floats=False, full=False, dialog=False)
    sway = Sway({1: window}, "p://a")
    sway.run(tree.mend(sway.tree(), "p://a", {1: "p://b"}, lambda _: False, ()))
    assert sway.current == "p://b"
