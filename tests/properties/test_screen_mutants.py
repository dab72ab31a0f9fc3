"""bay0's screen broken on purpose, one fault at a time: the stories of the screen must notice each. As in test_mutants.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import screenstories
from broken import Broken
from conftest import Size
from scenario import live, recover
from screenstories import SCREEN_LIFE, SCREEN_STORIES
from stories import Story
from test_mutants import Mutant, Patch, at_moments
from world import World

from bay0.effects import whose
from bay0.machines import focus
from bay0.screen import clipboards, config, context, doors, owners, port, proof, registry, tree, windows
from bay0.tenants.port import Services

Fault = tuple[Mutant, Sequence[Story]]
FAULTS: list[Fault] = []


def likely(*first: Story) -> Callable[[Mutant], Mutant]:
    """Name what is likely to find it; only the order of the hunts depends on that."""

    def named(fault: Mutant) -> Mutant:
        FAULTS.append((fault, first))
        return fault

    return named


def hunt(first: Sequence[Story]) -> str | None:
    """Return what was broken, or None."""
    rest = [each for each in SCREEN_STORIES if each not in first]
    acts = [*at_moments(*first), lambda world: (live(world, SCREEN_LIFE), recover(world)), *at_moments(*rest)]
    for act in acts:
        with World() as world:
            try:
                act(world)
            except Broken as broken:
                return str(broken)
    return None


def _without(patch: Patch, owner: Any, name: str) -> None:
    patch.setattr(owner, name, lambda *_a, **_k: None)


@likely(screenstories.the_compositor_dies_in_a_switch)
def a_freeze_does_not_wait_for_the_screen(patch: Patch) -> None:
    patch.setattr(doors.Doors, "hide", lambda _self, _name: ())


@likely(screenstories.the_compositor_dies_in_a_switch, screenstories.keys_switch)
def a_freeze_waits_for_no_frame(patch: Patch) -> None:
    patch.setattr(context.Fence, "ask", lambda _self, done: done(""))


@likely(screenstories.a_window_never_takes_its_size_and_does_not_close)
def a_freeze_does_not_wait_until_sway_draws_what_it_was_told(patch: Patch) -> None:
    patch.setattr(windows, "SETTLES_S", 0.0)


@likely(screenstories.a_thaw_takes_long)
def a_freeze_believes_that_nothing_is_seen(patch: Patch) -> None:
    def answer(self: Any) -> None:
        waiting, self._hiding = self._hiding, []
        for _name, resume in waiting:
            self.reactor.call_soon(resume)

    patch.setattr(windows.Windows, "_answer_hiding", answer)


@likely(screenstories.one_that_says_all_is_seen_is_named)
def a_freeze_that_did_not_wait_is_not_told(patch: Patch) -> None:
    hide = windows.Windows.hide

    def quiet(self: Any, name: str) -> Any:
        log = self.log
        self.log = SimpleNamespace(info=log.info, warning=lambda *_a, **_k: None)
        try:
            yield from hide(self, name)
        finally:
            self.log = log

    patch.setattr(windows.Windows, "hide", quiet)


@likely(screenstories.the_compositor_is_silent)
def a_freeze_waits_for_a_silent_compositor_for_ever(patch: Patch) -> None:
    patch.setattr(windows, "HIDE_S", 1e6)
    patch.setattr(port, "BEAT_S", 1e6)


@likely(screenstories.the_compositor_is_silent)
def one_that_is_silent_is_not_noticed(patch: Patch) -> None:
    _without(patch, port.Screen, "_watch")


@likely(screenstories.the_compositor_is_silent)
def one_that_is_silent_is_not_ended(patch: Patch) -> None:
    patch.setattr(Services, "kill", lambda _self, _name: None)


@likely(screenstories.the_compositor_dies_as_one_is_started)
def the_next_compositor_is_not_given_the_sockets(patch: Patch) -> None:
    attach = doors.Doors.attach

    def once(self: Any, display: Any) -> None:
        if getattr(once, "done", None) != id(self):
            once.done = id(self)  # type: ignore[attr-defined]
            attach(self, display)

    patch.setattr(doors.Doors, "attach", once)


@likely(screenstories.one_is_thawed_as_the_next_compositor_becomes_ready)
def the_next_compositor_is_given_the_sockets_late(patch: Patch) -> None:
    attach = windows.Windows.attach

    def late(self: Any, found: Any) -> None:
        self.reactor.call_later(0.5, lambda: attach(self, found))

    patch.setattr(windows.Windows, "attach", late)


@likely(screenstories.the_compositor_dies_as_one_is_started)
def one_that_starts_is_not_served(patch: Patch) -> None:
    def grant(self: Any, name: str, group: str) -> None:
        self.doors[name].group = group

    patch.setattr(doors.Doors, "grant", grant)


@likely(screenstories.a_program_ends_and_its_connection_lives_on)
def a_socket_is_served_after_its_personas_end(patch: Patch) -> None:
    _without(patch, doors, "_end")


@likely(screenstories.an_impostor_answers)
def an_impostor_is_believed(patch: Patch) -> None:
    patch.setattr(proof, "foreign", lambda *_: False)


@likely(screenstories.it_offers_more_than_it_may)
def what_it_offers_is_not_looked_at(patch: Patch) -> None:
    patch.setattr(registry, "fault", lambda _offered: "")


@likely(screenstories.a_window_appears_in_a_switch)
def a_new_window_is_shown_before_it_is_known_whose_it_is(patch: Patch) -> None:
    text = config.text
    patch.setattr(
        config, "text", lambda places: text(places).replace('for_window [shell=".*"] move scratchpad\n', "")
    )


@likely(screenstories.one_that_runs_behind_wants_to_be_seen)
def a_window_activates_itself(patch: Patch) -> None:
    text = config.text
    patch.setattr(
        config, "text", lambda places: text(places).replace("focus_on_window_activation none\n", "")
    )
    patch.setattr(tree, "_hide", lambda window: f"[con_id={window.con}] fullscreen disable")


@likely(screenstories.one_that_runs_behind_wants_to_be_seen)
def windows_of_one_that_runs_behind_stay_where_they_can_come_from(patch: Patch) -> None:
    patch.setattr(tree, "_hide", lambda window: f"[con_id={window.con}] fullscreen disable")


@likely(screenstories.somebody_at_sways_own_socket_moves_a_window_of_one_that_stands)
def a_focus_behind_is_no_news(patch: Patch) -> None:
    patch.setattr(owners.Owners, "stray", lambda *_: False)


@likely(screenstories.one_who_is_no_persona_uses_a_socket)
def windows_of_anybody_are_shown_at_a_personas_socket(patch: Patch) -> None:
    patch.setattr(doors.Doors, "owner", lambda self, _group: next(iter(self.doors)))


@likely(screenstories.a_program_ends_and_its_connection_lives_on)
def a_window_outlives_the_process_that_opened_its_connection(patch: Patch) -> None:
    def owner(self: Any, window: Any) -> Any:
        if window.con not in self._owners:
            now = whose.process(window.pid)
            self._owners[window.con] = owners._Owner(self.doors.owner(now[0]) if now else None, "")
        return self._owners[window.con].persona

    patch.setattr(owners.Owners, "of", owner)


@likely(screenstories.windows_without_end)
def windows_are_not_counted(patch: Patch) -> None:
    patch.setattr(tree, "WINDOWS_MAX", 1000)


@likely(screenstories.what_is_copied_is_not_pasted_elsewhere)
def the_clipboards_are_not_emptied(patch: Patch) -> None:
    patch.setattr(
        clipboards.Clipboards,
        "clear",
        lambda self, _persona, resume: self.reactor.call_soon(lambda: resume(None)),
    )


@likely(screenstories.one_is_paused_in_front_and_one_ends_there)
def one_that_is_frozen_is_shown(patch: Patch) -> None:
    patch.setattr(windows.Windows, "_wanted", lambda self: focus.front(self.engine.instances))


@likely(screenstories.keys_switch)
def the_bar_says_what_was(patch: Patch) -> None:
    write = port.Bar.say
    patch.setattr(port.Bar, "say", lambda self, _persona, others: write(self, None, others))


@likely(screenstories.keys_switch)
def keys_are_not_heard(patch: Patch) -> None:
    _without(patch, port.Keys, "pressed")


@likely(screenstories.the_seat_dies)
def a_compositor_whose_seat_is_gone_goes_on(patch: Patch) -> None:
    _without(patch, port.Screen, "_tenant_stepped")


@pytest.mark.parametrize(("fault", "first"), FAULTS, ids=[fault.__name__ for fault, _ in FAULTS])
def test_the_stories_of_the_screen_see_that(
    fault: Mutant, first: Sequence[Story], monkeypatch: Patch
) -> None:
    fault(monkeypatch)
    found = hunt(first)
    assert found is not None, "nothing noticed it"
    print(found[:160])


def test_the_same_hunts_find_nothing_in_the_program_itself(size: Size) -> None:
    if not size.whole:
        pytest.skip("test_screen.py runs all of it; nightly runs it as it is here")
    assert hunt([]) is None
