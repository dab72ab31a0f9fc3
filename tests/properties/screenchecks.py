"""The invariants of the screen, from outside: what a frame shows, what is frozen, who is served. checks.py calls them."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from attrs import define, field
from broken import hold
from sway import FRAME_S, TRANSACTION_S

from bay0.machines import boot, focus, persona
from bay0.machines.screen import NAME, S
from bay0.personas import port as personas
from bay0.screen.windows import STANDS

if TYPE_CHECKING:
    from kernel import Group
    from sway import Sway
    from world import World

SWITCH_S = 6.0  # from a change of who is in front, or of a persona, to the screen's; of a sway that is well
HEALS_S = 12.0  # after which nothing of a sickness is left: a beat, its bounds, a death noticed
HUNG_S = 12.0  # that one which is silent may still be called ready: a beat, its bound, and the ending
STRAY_S = 0.5  # until a window is put away again that has come into sight between the hiding and the freeze of its persona
WENT_ON = "gpu detach: it goes on without"
SAID_S = 0.1  # from that word to the write


@define(eq=False)
class ScreenChecks:
    """All that is to be held of it."""

    world: World
    said: set[str] = field(factory=set)  # groups of which it was said that they may be seen though frozen
    froze: dict[str, float] = field(factory=dict)  # group -> when bay0 froze it
    wrong_since: float | None = None
    false_since: float | None = None  # since then it is called ready, and does not answer
    stray_since: float | None = (
        None  # one that is about to be frozen has come into sight once more by asking for full screen
    )
    frames: int = 0

    def booted(self) -> None:
        screen = self.world.screen
        hold(
            not screen.listeners and screen.sway is None and not os.path.exists(screen.doors),
            "a way to the screen outlives a boot",
        )
        self.said.clear()
        self.froze.clear()
        self.wrong_since = self.false_since = self.stray_since = None

    # ---- as it happens

    def written(self, group: Group, *, frozen: bool) -> None:
        """bay0 freezes a persona, or thaws it."""
        screen = self.world.screen
        if not screen.there:
            return
        if frozen:
            self._freezes(group)
        else:
            self.said.discard(group.directory)
            self.froze.pop(group.directory, None)
            self._thaws(group)

    def _freezes(self, group: Group) -> None:
        sway, screen = self.world.screen.sway, self.world.screen
        self.froze[group.directory] = self.world.now
        if self._said(group):
            hold(
                self._sickness(),
                "nothing is wrong with the compositor, and a freeze has waited for it in vain",
            )
            self.said.add(group.directory)
        shown = self._shown(sway) if sway is not None and not sway.gone else {}
        name = next((each for each, its in shown.items() if its == group.directory), "")
        told = (
            group.directory in self.said or not self._ready() or screen.lies or self.stray_since is not None
        )
        hold(not name or told, f"{name} is frozen while it is on the screen, and nobody was told")

    def _thaws(self, group: Group) -> None:
        """Whoever is thawed finds its socket served again, by a compositor that is ready."""
        doors = self.world.spine.personas.doors.made
        sway = self.world.screen.sway
        if doors is None or not self._ready() or sway is None or sway.gone:
            return
        display = self.world.spine.screen.made.proof.wayland
        for door in doors.doors.values():
            if door.group and group.directory.endswith(door.group):
                served = doors._display is display and door.context >= 0
                hold(served, f"{door.name} is thawed before the new compositor was given its socket")

    def _said(self, group: Group) -> bool:
        names = {each.persona for each in self.world.screen.programs if group.directory.endswith(each.group)}
        recent = (line for line in self.world.log.lines if line[0] >= self.world.now - SAID_S)
        return any(event == WENT_ON and keys.get("persona") in names for _at, event, keys in recent)

    def _ready(self) -> bool:
        live = self.world.spine.engine.instances.get(NAME)
        return live is not None and live.now is S.READY

    def _shown(self, sway: Sway) -> dict[str, str]:
        """Return who is on the screen: persona ("": of none) -> its cgroup's directory."""
        windows = [sway.windows[con] for con in sway.picture if con in sway.windows]
        return {each.program.persona: f"{self.world.kernel.root}{each.program.group}" for each in windows}

    def composed(self, sway: Sway) -> None:
        """sway has what the next frame shows: only windows of the persona whom bay0 told it to show, whatever clients want."""
        shown = {sway.windows[con].program.persona for con in sway.scene}
        strays = shown - {sway.told}
        if not strays or self.world.screen.lies == "deaf":
            self.stray_since = None
            return
        racing = all(self.world.state_of(name) in STANDS for name in strays if name) and "" not in strays
        hold(racing, f"sway was told to show {sway.told}, and shows windows of {sorted(shown)}")
        self.stray_since = self.stray_since if self.stray_since is not None else self.world.now

    def drawn(self, sway: Sway) -> None:
        """A frame comes on the screen."""
        if self.world.spine is None:
            return
        self.frames += 1
        screen, shown = self.world.screen, self._shown(sway)
        if screen.lies == "deaf":
            return
        hold("" not in shown, "a window of a program that is no persona's is on the screen")
        hold(len(shown) <= 1 or self.stray_since is not None, f"one frame shows windows of {sorted(shown)}")
        for name, directory in shown.items():
            since = self.froze.get(directory)
            late = since is not None and self.world.now - since > TRANSACTION_S + 2 * FRAME_S
            quiet = directory in self.said or not self._ready() or screen.lies
            hold(
                not late or quiet,
                f"{name} is on the screen, was frozen {self.world.now - (since or 0):.2f} s ago, and nobody was told",
            )
        self._in_front(set(shown))

    def _in_front(self, shown: set[str]) -> None:
        """Who is on the screen is who was asked for, but for the moment of a switch."""
        front = focus.front(self.world.spine.engine.instances)
        wrong = bool(shown - {front}) and not self._sickness()
        self.wrong_since = (
            None if not wrong else self.wrong_since if self.wrong_since is not None else self.world.now
        )
        late = self.wrong_since is not None and self.world.now - self.wrong_since > SWITCH_S
        hold(not late, f"{sorted(shown)} have been on the screen for {SWITCH_S:g} s, and {front} is in front")

    def _sickness(self) -> bool:
        return self.world.now - self.world.screen.sick_at < HEALS_S

    def switched(self, sway: Sway) -> None:
        """sway is told to show another workspace: nothing of another persona is to be pasted there."""
        empty = "the clipboards may not be empty"
        recent = (line for line in self.world.log.lines if line[0] >= self.world.now - SAID_S)
        told = any(event == empty for _at, event, _keys in recent)
        leaks = sway.selection not in ("", sway.current) and sway.current.startswith("p:")
        hold(
            not leaks or told or self._sickness(),
            f"{sway.current} comes to the front, and may paste what {sway.selection} has copied",
        )

    # ---- after each turn

    def turned(self) -> None:
        world, screen = self.world, self.world.screen
        if not screen.there:
            return
        strays = (
            self.stray_since is not None and world.now - self.stray_since > STRAY_S and not self._sickness()
        )
        hold(not strays, "a window that came into sight as its persona was frozen is still there")
        hold(not screen.told_impostor, f"an impostor was told {screen.told_impostor[:40]!r}")
        gone = screen.sway is None or screen.sway.gone
        false = self._ready() and (gone or screen.silent or screen.never)
        self.false_since = (
            None if not false else self.false_since if self.false_since is not None else world.now
        )
        late = self.false_since is not None and world.now - self.false_since > HUNG_S
        hold(
            not late,
            f"the compositor {'has ended' if gone else 'is silent'}, and {HUNG_S:g} s later it is still called ready",
        )

    # ---- when all is well

    def well(self) -> bool:
        """Tell whether nothing is left to wait for."""
        screen = self.world.screen
        if not screen.there or self.world.state_of_boot is not boot.S.COMPLETE:
            return True
        waits = [
            each
            for each in screen.programs
            if each.lives and not each.stands and each.persona and each.served is not screen.sway
        ]
        return self._ready() and not waits and not self._sickness()

    def settled(self) -> None:
        """Each persona's socket is served, once, by the compositor that is there; the right one is on the screen, and said to be."""
        world, screen = self.world, self.world.screen
        if not screen.there:
            return
        live = world.spine.engine.instances.get(NAME)
        hold(
            live is not None and live.now is S.READY,
            f"all is well, and the screen is {live and live.now.value}",
        )
        sway = screen.sway
        contexts = sorted(each.persona for each in sway.wayland.contexts if not each.over)
        screened = [each for each in world.spine.engine.of_kind("persona") if _screened(each)]
        wanted = sorted(each.name for each in screened)
        hold(
            contexts == wanted,
            f"the compositor serves the sockets of {contexts}, personas with windows are {wanted}",
        )
        told = self._asked()
        hold(
            told["state"] == "ready" and told["compositor"]["pid"] == sway.process.pid,
            f"`bay0 screen` says {told}",
        )
        rows = {each["name"]: each for each in told["personas"]}
        for each in screened:
            self._served(sway, each, rows.get(each.name))
        self._front(sway, told)
        world.checks.count["screens"] += 1

    def _asked(self) -> dict[str, Any]:
        told: list[Any] = []
        self.world.spine.control.methods["screen"]({}, told.append)
        for _ in range(20):
            if not told:
                self.world.run(0.1)
        hold(told, "`bay0 screen` is not answered")
        return told[0]  # type: ignore[no-any-return]

    def _served(self, sway: Sway, instance: Any, row: dict[str, Any] | None) -> None:
        program = self.world.screen.of(instance.name)
        hold(
            row is not None and row["socket"],
            f"{instance.name} may have windows, and `bay0 screen` says {row}",
        )
        if program is None or program.stands:
            return
        hold(
            program.served is sway,
            f"the program of {instance.name} waits at its socket, and nobody serves it",
        )
        has = sum(each.program is program for each in sway.windows.values())
        hold(row["windows"] == has, f"{instance.name} has {has} windows, and `bay0 screen` says {row}")
        hold(has >= min(program.wants, 1), f"{instance.name} has no window though nothing is wrong")

    def _front(self, sway: Sway, told: dict[str, Any]) -> None:
        front = focus.front(self.world.spine.engine.instances)
        instance = self.world.spine.engine.instances.get(front) if front is not None else None
        front = front if instance is not None and instance.now is persona.S.RUNNING else None
        has = {each.program.persona for each in sway.windows.values()}
        shown = set(self._shown(sway))
        hold(
            shown == ({front} & has if front else set()),
            f"{front} is in front, has windows: {front in has}, and on the screen is {shown}",
        )
        hold(told["front"] == front, f"{front} is in front, and `bay0 screen` says {told['front']}")
        said = json.loads(sway.bar.rstrip(","))[1]["full_text"].strip()  # behind the name of the whole; keys come later
        hold(said == (front or "no persona is in front"), f"{front} is in front, and the bar says {said}")


def _screened(instance: Any) -> bool:
    config = personas.read_config(instance.config)
    return config is not None and config.manifest.screen and instance.now in persona.HAS_CONTAINER
