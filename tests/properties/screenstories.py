"""Short lives with a screen: something happens to the compositor, its seat or a window at a moment that is moved. As in stories.py."""

from __future__ import annotations

from collections.abc import Sequence

from broken import hold
from people import PLAY, WORK
from scenario import Act, wait
from stories import Story
from world import World

from bay0.machines import focus, screen
from bay0.machines.persona import S
from bay0.screen import config, registry
from bay0.screen.places import COMPOSITOR, SEAT

FROZEN_S = 3.0  # that a switch may take, whatever the compositor does: a thaw, its own two bounds, a clipboard's, a freeze


def screened(world: World, front: str | None = WORK, **manifest: object) -> None:
    """Boot with a screen; two personas have a window each, and one of them is in front."""
    world.screen.there = True
    world.boot()
    world.run(3)
    for name in (WORK, PLAY):
        world.be(name, screen=True, autostart=False, **manifest)
        world.verb("start", name)
        world.run(1)
    world.run(6)
    if front is not None:
        world.call("focus", name=front)
        world.run(1)


def _switch(world: World, to: str, bound_s: float = FROZEN_S) -> None:
    """Bring one to the front: the other is frozen soon, whatever the compositor does."""
    behind = WORK if to == PLAY else PLAY
    world.call("focus", name=to)
    world.run(bound_s)
    hold(
        world.state_of(to) is S.RUNNING,
        f"{to} was asked to the front {bound_s:g} s ago, and is {world.state_of(to)}",
    )
    hold(
        world.state_of(behind) is S.PAUSED,
        f"{to} was asked to the front {bound_s:g} s ago, and {behind} is {world.state_of(behind)}",
    )


def the_compositor_dies_in_a_switch(world: World, moment: float) -> None:
    screened(world)
    world.call("focus", name=PLAY)
    world.run(moment / 40)
    world.screen.dies()
    world.run(moment)
    world.call("focus", name=WORK)
    world.run(0.5)
    world.settle()


def the_compositor_dies_as_one_is_started(world: World, moment: float) -> None:
    screened(world)
    world.verb("stop", PLAY)
    world.run(3)
    world.verb("start", PLAY)
    world.run(moment)
    world.screen.dies()
    world.verb("pause", WORK)
    world.run(moment)
    world.verb("resume", WORK)
    world.settle()


def one_is_thawed_as_the_next_compositor_becomes_ready(world: World, moment: float) -> None:
    """Before it can draw, its socket must be served by that one."""
    screened(world)
    world.verb("pause", WORK)
    world.screen.dies()
    world.run(0.5)
    until = world.now + 10
    while world.state_of("screen") is not screen.S.READY and world.now < until:
        world.run(0.01)
    world.run(moment / 10)
    world.verb("resume", WORK)
    world.settle()


def the_compositor_is_silent(world: World, moment: float) -> None:
    """For ever, from a moment of a switch on: the switch goes on without it, and another one takes its place."""
    screened(world)
    world.call("focus", name=PLAY)
    world.run(moment / 40)
    world.screen.silent = True
    before = world.screen.sway
    world.run(0.1)
    _switch(world, WORK)
    world.run(15)
    hold(before is None or before.gone, "the compositor has been silent for 15 s, and nobody has ended it")
    world.settle()


def the_compositor_serves_nobody_from_its_start(world: World, moment: float) -> None:
    screened(world)
    world.screen.never = True
    world.screen.dies()
    world.run(5 * moment)
    _switch(world, PLAY)
    world.run(60)
    world.settle()


def a_thaw_takes_long(world: World, moment: float) -> None:
    """The old one stays on the screen for a moment, and is not frozen before it is off."""
    screened(world)
    world.kernel.freeze_lag_s = 0.05 + moment / 10
    for to in (PLAY, WORK):
        world.call("focus", name=to)
        world.run(2)
    world.settle()


def the_compositor_answers_late(world: World, moment: float) -> None:
    screened(world)
    world.screen.late_s = moment / 2
    _switch(world, PLAY)
    _switch(world, WORK)
    world.run(10)
    world.settle()


def the_compositor_lies_about_what_is_seen(world: World, moment: float) -> None:
    """Whatever it says, nothing waits for it longer than its bound."""
    screened(world)
    for lie in ("visible", "hidden", "deaf"):
        world.screen.lies = lie
        _switch(world, PLAY)
        world.run(moment)
        _switch(world, WORK)
    world.settle()


def one_that_says_all_is_seen_is_named(world: World, moment: float) -> None:
    screened(world)
    world.run(moment)
    world.screen.lies, before = "visible", world.now
    _switch(world, PLAY)
    said = [event for at, event, _keys in world.log.lines if at >= before]
    hold(
        "gpu detach: it goes on without" in said, "a persona was frozen that may be seen, and nobody was told"
    )
    world.settle()


def the_compositor_hangs_up_in_the_middle_of_a_message(world: World, moment: float) -> None:
    screened(world)
    for answers in (1, 3):
        world.call("focus", name=PLAY)
        world.run(moment / 50)
        world.screen.cuts = answers
        world.run(1 + moment)
        world.call("focus", name=WORK)
        world.run(moment)
    world.settle()


def a_window_appears_in_a_switch(world: World, moment: float) -> None:
    """Of the one behind, which asks for full screen at once."""
    screened(world)
    for to, behind in ((PLAY, WORK), (WORK, PLAY)):
        program = world.screen.of(behind)
        world.call("focus", name=to)
        world.run(moment / 50)
        if program is not None and program.served is world.screen.sway and not program.stands:
            made = world.screen.sway.opens(program)
            world.run(moment / 100)
            world.screen.sway.wants_full(made)
            world.screen.sway.activates(made)
        world.run(2)
    world.settle()


def one_that_runs_behind_wants_to_be_seen(world: World, moment: float) -> None:
    screened(world, PLAY, behind="run")
    _shows_itself(world, WORK)
    world.run(moment)
    world.call("focus", name=WORK)
    world.run(moment / 50)
    _shows_itself(world, PLAY)
    world.run(1)
    world.settle()


def _shows_itself(world: World, name: str) -> None:
    program, sway = world.screen.of(name), world.screen.sway
    if program is None or sway is None or program.served is not sway:
        return
    sway.opens(program)
    for window in [each for each in sway.windows.values() if each.program is program]:
        sway.wants_full(window)
        sway.activates(window)


def somebody_at_sways_own_socket_moves_a_window_of_one_that_stands(world: World, moment: float) -> None:
    screened(world)
    world.run(moment / 10)
    program, sway = world.screen.of(PLAY), world.screen.sway
    for window in [each for each in sway.windows.values() if each.program is program]:
        sway.puts(window, sway.current)
    world.run(1)
    world.settle()


def a_window_never_takes_its_size_and_does_not_close(world: World, moment: float) -> None:
    screened(world, None)
    program = world.screen.of(WORK)
    program.acks, program.stubborn = False, True
    for to in (PLAY, WORK, PLAY):
        world.call("focus", name=to)
        world.run(moment / 10)
        if program.served is not None and not program.stands:
            world.screen.sway.opens(program)
        world.run(1)
    world.settle()


def a_program_ends_and_its_connection_lives_on(world: World, moment: float) -> None:
    """A fork has it, and wants to be seen."""
    screened(world)
    program, sway = world.screen.of(WORK), world.screen.sway
    world.call("focus", name=PLAY)
    world.run(moment / 50)
    program.end(passes_on=True)
    for window in list(sway.windows.values()):
        if window.program is program:
            sway.wants_full(window)
    world.run(2)
    left = [each.workspace for each in sway.windows.values() if each.program is program]
    hold(not any(left), f"a program has ended, and its windows are on the workspaces {left}")
    world.verb("reset", WORK)
    world.settle()


def one_who_is_no_persona_uses_a_socket(world: World, moment: float) -> None:
    screened(world)
    stranger = world.screen.stranger(WORK)
    stranger.stubborn = moment > 1.6
    world.run(0.5 + moment / 10)
    world.call("focus", name=PLAY)
    world.run(2)
    stranger.end()
    world.settle()


def windows_without_end(world: World, moment: float) -> None:
    """Its program is killed when it has too many; the others go on."""
    screened(world)
    program, sway = world.screen.of(WORK), world.screen.sway
    for _ in range(40):
        if not program.ended and program.served is sway:
            sway.opens(program)
        world.run(moment / 100)
    hold(program.ended, "a program has opened 40 windows, and nobody has ended it")
    _switch(world, PLAY)
    world.verb("reset", WORK)
    world.settle()


def what_is_copied_is_not_pasted_elsewhere(world: World, moment: float) -> None:
    screened(world)
    for to, behind in ((PLAY, WORK), (WORK, PLAY)):
        world.run(0.1 + moment / 10)
        world.screen.sway.copies(world.screen.of(behind))
        world.call("focus", name=to)
        world.run(1)
    world.settle()


def the_seat_dies(world: World, moment: float) -> None:
    screened(world)
    world.call("focus", name=PLAY)
    world.run(moment / 20)
    world.screen.dies(SEAT)
    world.run(moment)
    world.screen.dies(COMPOSITOR)
    world.run(2)
    world.settle()


def both_will_not_end(world: World, moment: float) -> None:
    screened(world)
    world.unkillable = world.stubborn = True
    world.screen.silent = True
    world.run(3 * moment)
    _switch(world, PLAY)
    world.run(15)
    world.settle()


def an_impostor_answers(world: World, moment: float) -> None:
    screened(world)
    for place in ("wayland", "ipc", "seat"):
        world.screen.impostor = place
        world.screen.dies(SEAT if place == "seat" else COMPOSITOR)
        world.run(3 + 3 * moment)
        told = [event for _at, event, _keys in world.log.lines]
        hold("an impostor is refused: not ready" in told, "an impostor answers, and nobody is told")
        world.screen.impostor = ""
        world.screen.dies(COMPOSITOR)
        world.run(10)
    world.settle()


def it_offers_more_than_it_may(world: World, moment: float) -> None:
    screened(world)
    world.screen.offers = registry.DMABUF
    world.screen.dies()
    world.run(8 + 3 * moment)
    hold(world.state_of("screen").value != "ready", "it offers what it must not, and is called ready")
    world.settle()


def the_output_goes_and_comes(world: World, moment: float) -> None:
    screened(world)
    world.call("focus", name=PLAY)
    world.run(moment / 40)
    world.screen.dark = True
    world.run(1)
    _switch(world, WORK)
    world.screen.dark = False
    world.run(moment)
    world.settle()


def one_is_paused_in_front_and_one_ends_there(world: World, moment: float) -> None:
    screened(world)
    world.verb("pause", WORK)
    world.run(moment)
    world.verb("resume", WORK)
    world.run(moment / 10)
    world.podman.dies("p__work", 1)
    world.run(moment)
    world.verb("start", WORK)
    world.call("focus", name=WORK)
    world.settle()


def keys_switch(world: World, moment: float) -> None:
    screened(world)
    for command in (
        f"{config.PERSONA} 1",
        config.NEXT,
        f"{config.PERSONA} 7",
        config.NEXT,
        "nop something else",
    ):
        world.screen.sway.ipc.press(command)
        world.run(moment / 10)
    world.run(2)
    before = focus.front(world.spine.engine.instances)
    world.screen.sway.ipc.press(config.NEXT)
    world.run(2)
    hold(
        focus.front(world.spine.engine.instances) != before,
        "a key was pressed, and the same persona is in front",
    )
    world.settle()


def the_spine_goes_down_with_a_screen(world: World, moment: float) -> None:
    screened(world)
    world.disk.latency_s = 0.15
    world.screen.silent = moment > 1.6
    world.call("focus", name=PLAY)
    world.run(moment)
    world.stop()
    world.run(60)


def the_disk_hangs_in_a_switch(world: World, moment: float) -> None:
    screened(world)
    world.call("focus", name=PLAY)
    world.run(moment / 100)
    world.disk.wedged = True
    world.run(moment)
    world.screen.dies()
    world.run(10)
    world.settle()


SCREEN_STORIES: tuple[Story, ...] = (
    the_compositor_dies_in_a_switch, the_compositor_dies_as_one_is_started,
    one_is_thawed_as_the_next_compositor_becomes_ready, the_compositor_is_silent,
    the_compositor_serves_nobody_from_its_start, a_thaw_takes_long, the_compositor_answers_late, the_compositor_lies_about_what_is_seen,
    one_that_says_all_is_seen_is_named, the_compositor_hangs_up_in_the_middle_of_a_message, a_window_appears_in_a_switch,
    one_that_runs_behind_wants_to_be_seen, somebody_at_sways_own_socket_moves_a_window_of_one_that_stands,
    a_window_never_takes_its_size_and_does_not_close,
    a_program_ends_and_its_connection_lives_on, one_who_is_no_persona_uses_a_socket, windows_without_end,
    what_is_copied_is_not_pasted_elsewhere, the_seat_dies, both_will_not_end, an_impostor_answers, it_offers_more_than_it_may,
    the_output_goes_and_comes, one_is_paused_in_front_and_one_ends_there, keys_switch, the_spine_goes_down_with_a_screen,
    the_disk_hangs_in_a_switch,
)  # fmt: skip


def _boot(world: World) -> None:
    world.screen.there = True
    world.boot()


def _be(name: str) -> Act:
    return lambda world: world.be(name, screen=True, autostart=False)


SCREEN_LIFE: Sequence[Act] = (  # as scenario.LIFE, with a screen
    _boot,
    wait(3),
    _be(WORK),
    _be(PLAY),
    lambda w: w.start(WORK),
    lambda w: w.start(PLAY),
    wait(6),
    lambda w: w.call("focus", name=WORK),
    wait(1),
    lambda w: w.call("focus", name=PLAY),
    wait(1),
    lambda w: w.screen.dies(),
    wait(4),
    lambda w: w.call("focus", name=WORK),
    wait(1),
    lambda w: w.verb("pause", WORK),
    wait(1),
    lambda w: w.screen.dies(SEAT),
    wait(6),
    lambda w: w.verb("reset", PLAY),
    wait(2),
    lambda w: w.stop("poweroff"),
    wait(60),
)
