"""Whose windows are on the screen: the image's own sway, clients through sockets of bay0's, and personas whose steps are told by hand.

A process is said to be in a persona's cgroup by the test: a container takes the VM.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import screencopy
from kit import Log
from parts import Steps
from test_screen_proof import BOUND_S, RealSway, proved, sway_itself, turns, until

from bay0.effects import whose
from bay0.machines import focus, persona
from bay0.pid1 import flow
from bay0.pid1.reactor import Reactor
from bay0.screen import config, ipc, lines, registry, tree
from bay0.screen import windows as windows_module
from bay0.screen.doors import Doors
from bay0.screen.ipc import Ask
from bay0.screen.places import Places
from bay0.screen.windows import Windows

__all__ = ["sway_itself"]
CLIENT = Path(__file__).parents[1] / "shared/waylandclient.py"
WORK, PLAY = "p://work", "p://play"
S = persona.S


def given(text: bytes, fd: int) -> None:
    """Write to a pipe that a test has made, and has room for it."""
    os.write(fd, text)
    os.close(fd)


class Desk:
    """A sway, doors for two personas, and the part of PID 1 that places windows."""

    def __init__(self, top: Path, sway: RealSway, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reactor, self.log, self.engine = Reactor(), Log(), Steps()
        self.groups: dict[int, str] = {}
        real = whose.process
        monkeypatch.setattr(
            whose,
            "process",
            lambda pid: (self.groups.get(pid, "/elsewhere"), found[1]) if (found := real(pid)) else None,
        )
        self.doors = Doors(self.log, str(top / "doors"))
        self.doors.listen()
        engine: Any = self.engine
        self.told: list[str | None] = []
        self.windows = Windows(
            engine, self.reactor, self.log, self.doors, lambda: self.told.append(self.windows.front), given, 8.0
        )
        self.focus = SimpleNamespace(now=focus.S.NONE, config="", name=focus.NAME)
        self.engine.instances[focus.NAME] = self.focus
        for name in (WORK, PLAY):
            self.engine.instances[name] = SimpleNamespace(now=S.RUNNING, name=name, config="")
            self.doors.prepare(name)
            self.doors.grant(name, self.group(name))
        self.use(sway)
        self.clients: list[subprocess.Popen[str]] = []
        self.heard_lines: dict[int, list[str]] = {}

    def use(self, sway: RealSway) -> None:
        self.told_proof = proved(self.reactor, sway)
        self.told_proof.event = self.heard
        self.windows.attach(self.told_proof.proof)

    def heard(self, kind: int, value: Any) -> None:
        if kind == ipc.Event.WINDOW:
            self.windows.event(value)
        elif kind == ipc.Event.OUTPUT:
            self.windows.look_again()

    @staticmethod
    def group(name: str) -> str:
        return f"/personas/libpod-{name[4:]}1"

    def path(self, name: str) -> str:
        return self.doors.doors[name].path

    def client(
        self, name: str, *words: str, colour: str = "c04020", of: str | None = None, said: str = "mapped"
    ) -> subprocess.Popen[str]:
        """Start a program with the socket of `name`, whose processes are said to be those of `of`."""
        argv = [sys.executable, str(CLIENT), self.path(name), colour, "wait", *words]
        found = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        os.set_blocking(found.stdout.fileno(), False)  # type: ignore[union-attr]
        self.groups[found.pid] = self.group(name if of is None else of)
        self.clients.append(found)
        self.say(found)
        self.hear(found, said)
        return found

    def say(self, client: subprocess.Popen[str]) -> None:
        client.stdin.write("\n")  # type: ignore[union-attr]
        client.stdin.flush()  # type: ignore[union-attr]

    def lines_of(self, client: subprocess.Popen[str]) -> list[str]:
        found = self.heard_lines.setdefault(client.pid, [])
        found.extend(client.stdout.readlines())  # type: ignore[union-attr]
        return [line.strip() for line in found]

    def hear(self, client: subprocess.Popen[str], said: str) -> None:
        lines = self.heard_lines.setdefault(client.pid, [])

        def heard() -> bool:
            lines.extend(client.stdout.readlines())  # type: ignore[union-attr]
            return said in [line.split(" ")[0].strip() if " " not in said else line.strip() for line in lines]

        until(self.reactor, heard)

    def bring(self, name: str, now: focus.S = focus.S.SETTLED) -> None:
        self.focus.now, self.focus.config = now, focus.config(name)
        self.engine.tell("focus", now, self.focus)

    def step(self, name: str, to: S) -> None:
        instance = self.engine.instances[name]
        instance.now = to
        self.engine.tell("persona", to, instance)

    def tree(self) -> dict[str, Any]:
        found: list[Any] = []
        self.told_proof.proof.sway.ask(Ask.GET_TREE, BOUND_S, found.append)  # type: ignore[union-attr]
        until(self.reactor, lambda: found)
        return found[0]  # type: ignore[no-any-return]

    def run(self, command: str) -> None:
        found: list[Any] = []
        self.told_proof.proof.sway.ask(Ask.RUN_COMMAND, BOUND_S, found.append, command)  # type: ignore[union-attr]
        until(self.reactor, lambda: found)

    def shown(self) -> dict[int, tuple[str, bool]]:
        """Return pid -> (workspace, visible), as sway itself says."""
        return {each.pid: (each.workspace, each.visible) for each in tree.windows(self.tree())}

    def rests(self) -> bool:
        """No tree is read, nor is to be."""
        return not self.windows._busy and not self.windows._paced

    def until_shown(self, **expected: Any) -> None:
        try:
            until(self.reactor, lambda: self.shown() == expected["of"])
        except AssertionError as error:
            told = f"{self.shown()} is shown, expected {expected['of']}; the log ends {self.log.lines[-6:]}"
            raise AssertionError(told) from error

    def hide(self, name: str) -> list[Any]:
        done: list[Any] = []
        flow.run(self.hiding(name), lambda _: done.append(True))
        return done

    def hiding(self, name: str) -> flow.Flow[None]:
        yield from self.doors.hide(name)

    def close(self) -> None:
        for each in self.clients:
            each.kill()
            each.wait()
        self.windows.detach()
        self.told_proof.proof.close()


@pytest.fixture
def desk(sway_itself: RealSway, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    path = sway_itself.run.parent
    places = Places(run=str(path))
    (path / "config").write_text(config.text(places))
    sway_itself.anew()
    found = Desk(path, sway_itself, monkeypatch)
    try:
        yield found
    finally:
        found.close()


pytestmark = pytest.mark.built


def test_a_persona_is_offered_nothing_that_looks_types_draws_over_or_carries(desk: Desk) -> None:
    client = desk.client(WORK, said="globals")
    client.wait(BOUND_S)
    offered = set(client.stdout.read().split()) if client.stdout else set()
    assert not offered & registry.NEEDED - {"wl_compositor", "wl_seat", "wl_shm", "xdg_wm_base"}


@pytest.mark.parametrize(
    "interface",
    [
        "zwlr_screencopy_manager_v1", "zwlr_export_dmabuf_manager_v1", "zwp_virtual_keyboard_manager_v1", "zwlr_virtual_pointer_manager_v1",
        "zwlr_layer_shell_v1", "zwlr_data_control_manager_v1", "wp_security_context_manager_v1", "ext_session_lock_manager_v1",
    ],
)  # fmt: skip
def test_who_knows_the_number_of_what_is_not_offered_is_refused_it(desk: Desk, interface: str) -> None:
    """Screen capture, injected keys and motions, a layer above all, another's clipboard, a context of one's own, a lock."""
    offered = desk.told_proof.proof.wayland.offered
    number = next(number for number, name in offered.items() if name == interface)
    desk.client(WORK, f"grab={number}:{interface}", said=f"refused {interface}")


def test_a_window_is_seen_only_once_its_persona_is_in_front(desk: Desk) -> None:
    one = desk.client(WORK, "map", "go")
    desk.until_shown(of={one.pid: (tree.SCRATCH, False)})
    desk.bring(WORK)
    desk.until_shown(of={one.pid: (WORK, True)})
    assert desk.windows.front == WORK
    assert desk.windows.describe()[1] | {"colour": ""} == {
        "name": WORK, "windows": 1, "visible": 1, "in_front": True, "colour": "", "socket": True,
    }  # fmt: skip
    two = desk.client(PLAY, "app-id=any", "map", "go")
    desk.until_shown(of={one.pid: (WORK, True), two.pid: (tree.SCRATCH, False)})


def focused(node: dict[str, Any]) -> list[int]:
    """Return the pid of the window that has the keys, if one has them."""
    below = [pid for each in (*node["nodes"], *node["floating_nodes"]) for pid in focused(each)]
    return [node["pid"]] if node.get("pid") and node["focused"] else below


def test_the_keys_are_for_a_window_of_the_one_in_front_and_no_new_one_behind_takes_them(desk: Desk) -> None:
    behind = desk.client(PLAY, "map-full", "go")
    assert focused(desk.tree()) == []
    one = desk.client(WORK, "map", "go")
    desk.bring(WORK)
    desk.until_shown(of={one.pid: (WORK, True), behind.pid: (tree.SCRATCH, False)})
    assert focused(desk.tree()) == [one.pid]
    for words in (("map",), ("map-full",)):
        desk.client(PLAY, *words, "go")
        assert focused(desk.tree()) == [one.pid]
    desk.step(WORK, S.PAUSING)
    done = desk.hide(WORK)
    until(desk.reactor, lambda: done)
    assert focused(desk.tree()) == []


def test_a_switch_shows_the_one_that_came_and_waits_for_a_frame_before_the_other_is_frozen(
    desk: Desk,
) -> None:
    one, two = desk.client(WORK, "map", "draw", "go"), desk.client(PLAY, "map", "draw", "go")
    desk.bring(WORK)
    desk.until_shown(of={one.pid: (WORK, True), two.pid: (tree.SCRATCH, False)})
    desk.engine.instances[PLAY].now = S.PAUSED
    desk.bring(PLAY, focus.S.SWITCHING)
    desk.step(WORK, S.PAUSING)
    done = desk.hide(WORK)
    desk.step(PLAY, S.RUNNING)
    until(desk.reactor, lambda: done)
    assert desk.shown() == {one.pid: (WORK, False), two.pid: (PLAY, True)}
    (said,) = desk.log.of("gpu detach")
    assert said["persona"] == WORK
    assert desk.windows.front == PLAY


def test_a_freeze_waits_until_sway_waits_no_more_for_a_window_that_never_takes_its_size(desk: Desk) -> None:
    """Until then the old picture stays: sway waits 200 ms for each client that gets a new size (its transactions)."""
    red = (0xC0, 0x40, 0x20)
    one, two = desk.client(WORK, "map", "draw", "go"), desk.client(PLAY, "map", "deaf", "go", colour="2040c0")
    desk.bring(WORK)
    desk.until_shown(of={one.pid: (WORK, True), two.pid: (tree.SCRATCH, False)})
    until(desk.reactor, lambda: red in colours(desk))
    desk.bring(PLAY)
    desk.step(WORK, S.PAUSING)
    done = desk.hide(WORK)
    until(desk.reactor, lambda: done)
    assert red not in colours(desk)
    assert desk.log.of("gpu detach")


def test_a_freeze_waits_for_no_frame_of_a_compositor_that_has_ended_meanwhile(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows_module, "SETTLES_S", 2.0)
    desk.client(WORK, "map", "go")
    desk.client(PLAY, "map", "go")
    desk.bring(WORK)
    until(desk.reactor, lambda: desk.windows.front == WORK)
    desk.bring(PLAY)
    desk.step(WORK, S.PAUSING)
    done = desk.hide(WORK)
    until(desk.reactor, lambda: desk.windows.front == PLAY and not desk.windows._hiding)
    turns(desk.reactor, 3)
    assert not done
    desk.windows.detach()
    until(desk.reactor, lambda: done)
    assert not desk.log.of("gpu detach: it goes on without")


def colours(desk: Desk) -> set[tuple[int, ...]]:
    """Return the colours of the next picture."""
    _width, _height, body = screencopy.picture(desk.told_proof.proof.wayland_path)
    return set(zip(body[::3], body[1::3], body[2::3], strict=True))


def test_one_that_is_paused_in_front_leaves_the_screen_to_nobody_and_is_shown_again_once_it_runs(
    desk: Desk,
) -> None:
    one = desk.client(WORK, "map", "go")
    desk.bring(WORK)
    desk.until_shown(of={one.pid: (WORK, True)})
    desk.step(WORK, S.PAUSING)
    done = desk.hide(WORK)
    until(desk.reactor, lambda: done)
    assert (desk.shown(), desk.windows.front) == ({one.pid: (WORK, False)}, None)
    desk.step(WORK, S.PAUSED)
    desk.step(WORK, S.RESUMING)
    desk.step(WORK, S.RUNNING)
    desk.until_shown(of={one.pid: (WORK, True)})


@pytest.mark.parametrize("when", ["before it is shown", "while it is behind"])
def test_a_window_behind_that_asks_for_full_screen_on_the_output_is_not_seen(desk: Desk, when: str) -> None:
    one = desk.client(WORK, "map", "go")
    desk.bring(WORK)
    desk.until_shown(of={one.pid: (WORK, True)})
    other = (
        desk.client(PLAY, "map-full", "go")
        if when == "before it is shown"
        else desk.client(PLAY, "map", "full", "go", said="done full")
    )
    for _ in range(10):
        assert desk.shown() == {one.pid: (WORK, True), other.pid: (tree.SCRATCH, False)}
    desk.bring(PLAY)
    desk.until_shown(of={one.pid: (tree.SCRATCH, False), other.pid: (PLAY, True)})


def test_one_that_has_full_screen_in_front_is_not_seen_behind(desk: Desk) -> None:
    one = desk.client(WORK, "map", "wait", "full", "go")
    two = desk.client(PLAY, "map", "go")
    desk.bring(WORK)
    desk.until_shown(of={one.pid: (WORK, True), two.pid: (tree.SCRATCH, False)})
    desk.say(one)
    desk.hear(one, "done full")
    until(desk.reactor, lambda: [each.full for each in tree.windows(desk.tree())].count(True) == 1)
    desk.bring(PLAY)
    desk.until_shown(of={one.pid: (tree.SCRATCH, False), two.pid: (PLAY, True)})
    desk.bring(WORK)
    desk.until_shown(of={one.pid: (WORK, True), two.pid: (tree.SCRATCH, False)})


def test_a_window_that_was_put_among_those_of_the_one_in_front_is_put_back(desk: Desk) -> None:
    """As one does that asks for full screen between its last sight and its freeze."""
    one, two = desk.client(WORK, "map", "go"), desk.client(PLAY, "map", "go")
    desk.bring(WORK)
    desk.until_shown(of={one.pid: (WORK, True), two.pid: (tree.SCRATCH, False)})
    desk.step(PLAY, S.PAUSED)
    con = next(each.con for each in tree.windows(desk.tree()) if each.pid == two.pid)
    until(desk.reactor, desk.rests)  # nothing but sway's own word on this has the tree read
    desk.run(f'[con_id={con}] move container to workspace "{WORK}"')
    desk.until_shown(of={one.pid: (WORK, True), two.pid: (tree.SCRATCH, False)})


def test_another_workspace_that_somebody_shows_is_not_shown_for_long(desk: Desk) -> None:
    one, two = desk.client(WORK, "map", "go"), desk.client(PLAY, "map", "go")
    desk.bring(WORK)
    desk.until_shown(of={one.pid: (WORK, True), two.pid: (tree.SCRATCH, False)})
    desk.step(PLAY, S.PAUSED)
    con = next(each.con for each in tree.windows(desk.tree()) if each.pid == two.pid)
    desk.run(f'[con_id={con}] move container to workspace "{PLAY}"; workspace "{PLAY}"')
    desk.until_shown(of={one.pid: (WORK, True), two.pid: (PLAY, False)})


def test_a_freeze_waits_for_no_frame_where_there_is_no_output(desk: Desk) -> None:
    one = desk.client(WORK, "map", "go")
    desk.bring(WORK)
    desk.until_shown(of={one.pid: (WORK, True)})
    desk.run("output HEADLESS-1 disable")
    desk.step(WORK, S.PAUSING)
    done = desk.hide(WORK)
    until(desk.reactor, lambda: done)
    assert not desk.log.of("gpu detach: it goes on without")


def test_the_one_in_front_is_shown_again_when_an_output_comes_back_and_nobody_else_is(desk: Desk) -> None:
    """Without an output sway's tree has no windows. A switch meanwhile is one of whom the next output shows."""
    one, two = desk.client(WORK, "map", "go"), desk.client(PLAY, "map", "go")
    desk.bring(WORK)
    desk.until_shown(of={one.pid: (WORK, True), two.pid: (tree.SCRATCH, False)})
    hidden = (tree.SCRATCH, False)
    for front, shown in ((WORK, {one.pid: (WORK, True), two.pid: hidden}), (PLAY, {one.pid: hidden, two.pid: (PLAY, True)})):
        (output,) = tree.current(desk.tree())
        desk.run(f"output {output} unplug")
        until(desk.reactor, lambda: not tree.current(desk.tree()))
        desk.bring(front)
        until(desk.reactor, lambda front=front: desk.windows.front == front)
        desk.run("create_output")
        desk.until_shown(of=shown)
    assert not desk.log.of("windows are not where they belong")


def test_with_two_outputs_the_one_behind_is_not_left_in_sight_on_the_other(desk: Desk) -> None:
    one, two = desk.client(WORK, "map", "go"), desk.client(PLAY, "map", "go")
    desk.run("create_output")
    until(desk.reactor, lambda: len(tree.current(desk.tree())) == 2)
    desk.bring(WORK)
    desk.until_shown(of={one.pid: (WORK, True), two.pid: (tree.SCRATCH, False)})
    desk.run("focus output HEADLESS-2")
    desk.step(WORK, S.PAUSING)
    desk.bring(PLAY)
    until(desk.reactor, lambda: desk.windows.front == PLAY)
    desk.until_shown(of={one.pid: (WORK, False), two.pid: (PLAY, True)})
    assert tree.current(desk.tree())["HEADLESS-1"] == PLAY


def test_a_window_of_a_process_that_is_no_personas_or_of_another_one_without_a_door_is_closed(
    desk: Desk,
) -> None:
    stranger = desk.client(WORK, "map", "go", of="p://nobody")
    desk.hear(stranger, "closed")
    assert desk.shown() == {stranger.pid: (tree.SCRATCH, False)}
    assert desk.windows.owners.nobodys == 1


def test_a_window_is_closed_once_the_process_that_opened_its_connection_has_ended(desk: Desk) -> None:
    one = desk.client(WORK, "map", "go")
    desk.bring(WORK)
    desk.until_shown(of={one.pid: (WORK, True)})
    del desk.groups[one.pid]
    real = whose.process
    whose.process = lambda pid: None if pid == one.pid else real(pid)  # monkeypatch undoes it
    desk.step(WORK, S.RUNNING)
    desk.hear(one, "closed")
    desk.until_shown(of={one.pid: (tree.SCRATCH, False)})


def test_who_has_windows_over_a_connection_of_an_ended_process_is_cut_off_and_nobody_else(desk: Desk) -> None:
    """It does not close them when it is asked to, and would make more."""
    other = desk.client(PLAY, "map", "go")
    heir = desk.client(PLAY, "pass-on", "map", "go", said="done pass-on")
    desk.say(heir)
    until(desk.reactor, lambda: desk.log.of("a connection is cut off: the process that opened it has ended"))
    until(desk.reactor, lambda: "ended" in desk.lines_of(heir))
    desk.until_shown(of={other.pid: (tree.SCRATCH, False)})
    assert other.poll() is None


def test_a_persona_has_no_more_connections_than_it_may(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "LINES_MAX", 3)
    kept = desk.client(WORK, "map", "go")
    peers = [socket.socket(socket.AF_UNIX) for _ in range(5)]
    for each in peers:
        each.connect(desk.path(PLAY))
        each.send(b"\1\0\0\0\0\0\x0c\0\2\0\0\0")  # wl_display.sync
        until(desk.reactor, lambda each=each: each.recv(100, socket.MSG_PEEK | socket.MSG_DONTWAIT) if readable(each) else b"")
    desk.windows.lines.bound(desk.told_proof.proof.pid)
    until(desk.reactor, lambda: desk.log.of("connections are cut off: too many"))
    until(desk.reactor, lambda: [at_end(each) for each in peers].count(True) == 2)
    assert kept.poll() is None
    assert desk.shown() == {kept.pid: (tree.SCRATCH, False)}
    for each in peers:
        each.close()


def readable(peer: socket.socket) -> bool:
    return bool(select.select([peer], [], [], 0)[0])


def at_end(peer: socket.socket) -> bool:
    """Read what is there; tell whether the other end has hung up."""
    while readable(peer):
        try:
            if not peer.recv(4096):
                return True
        except ConnectionResetError:
            return True
    return False


def test_what_one_persona_copied_another_cannot_paste(desk: Desk) -> None:
    """sway's own word: with a selection there, a new data-control device is told of an offer."""
    from waylandclient import Client

    desk.bring(WORK)
    until(desk.reactor, lambda: desk.windows.front == WORK)
    # no key was pressed here, so a persona's own offer would be refused
    owner = Client(desk.told_proof.proof.wayland_path)
    owner.offer("image/secret")
    assert sorted(selections(desk)) == ["image/secret"] * 2
    desk.bring(PLAY)
    until(desk.reactor, lambda: desk.windows.front == PLAY)
    assert selections(desk) == []
    assert not desk.log.of("the clipboards may not be empty")


def test_what_a_persona_copied_it_has_again_when_it_comes_back_and_no_other_sees_it(desk: Desk) -> None:
    desk.bring(WORK)
    until(desk.reactor, lambda: desk.windows.front == WORK)
    owner = offers(desk, "text of work")
    desk.bring(PLAY)
    until(desk.reactor, lambda: desk.windows.front == PLAY)
    assert selections(desk) == []
    owner.peer.close()
    desk.bring(WORK)
    for _ in range(2):  # more than once, as one may paste
        assert pasted(desk) == {"clipboard": "text of work", "primary selection": "text of work"}
    desk.bring(PLAY)
    until(desk.reactor, lambda: desk.windows.front == PLAY)
    assert selections(desk) == []
    desk.bring(WORK)
    assert pasted(desk) == {"clipboard": "text of work", "primary selection": "text of work"}
    newer = offers(desk, "newer")
    desk.bring(PLAY)
    until(desk.reactor, lambda: desk.windows.front == PLAY)
    newer.peer.close()
    desk.bring(WORK)
    assert pasted(desk) == {"clipboard": "newer", "primary selection": "newer"}
    assert not desk.log.of("the clipboards may not be empty")


def test_what_a_persona_copied_ends_with_it(desk: Desk) -> None:
    desk.bring(WORK)
    until(desk.reactor, lambda: desk.windows.front == WORK)
    offers(desk, "text of work")
    desk.bring(PLAY)
    until(desk.reactor, lambda: desk.windows.front == PLAY)
    desk.step(WORK, S.STOPPED)
    desk.step(WORK, S.RUNNING)
    desk.bring(WORK)
    until(desk.reactor, lambda: desk.windows.front == WORK)
    for _ in range(5):  # answers of sway's, in the time of which it would have been offered
        desk.tree()
        assert selections(desk) == []


@pytest.mark.parametrize("vice", ["does not write", "writes without end", "offers no text", "hangs up"])
def test_an_owner_that_does_not_write_its_text_holds_up_no_switch(desk: Desk, vice: str) -> None:
    desk.windows._clipboards.patience = 2.0
    desk.bring(WORK)
    until(desk.reactor, lambda: desk.windows.front == WORK)
    owner = offers(desk, "", vice)
    desk.bring(PLAY)
    until(desk.reactor, lambda: desk.windows.front == PLAY)
    assert selections(desk) == []
    until(desk.reactor, lambda: vice == "hangs up" or len(desk.log.of("what was copied is lost")) == 2)
    desk.bring(WORK)
    until(desk.reactor, lambda: desk.windows.front == WORK)
    assert selections(desk) == []
    owner.peer.close()


def offers(desk: Desk, text: str, vice: str = "") -> Any:
    """Fill both clipboards as one may who is not a persona, and write the text from a thread to who asks."""
    from waylandclient import Client

    owner = Client(desk.told_proof.proof.wayland_path)
    owner.offer("image/png" if vice == "offers no text" else "text/plain;charset=utf-8")

    def write() -> None:
        while fds := owner.turn_fds():
            for fd in fds:
                data = {"": text.encode(), "writes without end": bytes(1 << 20)}.get(vice)
                if data is not None:
                    with contextlib.suppress(OSError):
                        os.write(fd, data)
                if data is not None or vice == "hangs up":
                    os.close(fd)

    threading.Thread(target=write, daemon=True).start()
    return owner


def pasted(desk: Desk) -> dict[str, str]:
    """Return what a client that may look is given of both, once there is something on both."""
    from waylandclient import Client

    found: dict[str, str] = {}

    def look() -> bool:
        watcher = Client(desk.told_proof.proof.wayland_path)
        found.update(watcher.paste(lambda: desk.reactor.turn(0.05)))
        watcher.peer.close()
        return len(found) == 2

    until(desk.reactor, look)
    return found


def selections(desk: Desk) -> list[str]:
    """Return what a client that may look is told is on the clipboard."""
    from waylandclient import Client

    seen: list[str] = []
    watcher = Client(desk.told_proof.proof.wayland_path)
    manager, seat, device = (
        watcher.bind("zwlr_data_control_manager_v1", 2),
        watcher.bind("wl_seat", 1),
        watcher.new(),
    )

    def offered(body: bytes) -> None:
        watcher.heard[int.from_bytes(body, sys.byteorder), 0] = lambda mime: seen.append(
            mime[4:].rstrip(b"\0").decode()
        )

    watcher.heard[device, 0] = offered
    watcher.send(manager, 1, device, seat)
    watcher.sync()
    watcher.peer.close()
    return seen


def test_a_program_that_opens_windows_without_end_is_ended(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree, "WINDOWS_MAX", 2)
    few = [desk.client(PLAY, "map", "go") for _ in range(2)]
    many = [desk.client(WORK, "map", "go", said="globals") for _ in range(3)]
    until(desk.reactor, lambda: desk.log.of("a program is ended: too many windows"))
    until(desk.reactor, lambda: [each.poll() for each in many].count(-9) == 1)
    assert [each.poll() for each in few] == [None, None]


def test_so_is_one_that_opens_ten_thousand_over_one_connection(desk: Desk) -> None:
    client = desk.client(WORK, "windows=10000", said="globals")
    until(desk.reactor, lambda: client.poll() is not None)
    assert desk.log.of("a program is ended: too many windows")
    until(desk.reactor, lambda: not desk.shown())


def test_who_connects_while_there_is_no_compositor_waits_and_is_served_by_the_next(
    desk: Desk, sway_itself: RealSway
) -> None:
    inode = os.stat(desk.path(WORK)).st_ino
    desk.bring(WORK)
    until(desk.reactor, lambda: desk.windows.front == WORK)
    desk.windows.detach()
    desk.told_proof.proof.close()
    sway_itself.process.kill()
    sway_itself.process.wait()
    with socket.socket(socket.AF_UNIX) as early:
        early.connect(desk.path(WORK))
        sway_itself.anew()
        desk.use(sway_itself)
        late = desk.client(WORK, "map", "go")
        desk.until_shown(of={late.pid: (WORK, True)})
        early.send(b"\1\0\0\0\0\0\x0c\0\2\0\0\0")
        early.settimeout(BOUND_S)
        assert early.recv(12)
    assert os.stat(desk.path(WORK)).st_ino == inode


def test_a_socket_that_no_compositor_serves_is_named(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    assert desk.doors.unserved() == []

    def none_free(*_: Any) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("bay0.screen.context.confine", none_free)
    desk.doors.grant(WORK, desk.group(WORK))
    assert desk.doors.unserved() == [WORK]
    assert desk.log.of("a persona has no way to the screen")


def test_a_door_that_was_revoked_is_gone_and_one_without_a_screen_refuses(tmp_path: Path) -> None:
    doors = Doors(Log(), str(tmp_path))
    directory = doors.prepare(WORK)
    with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
        client.connect(f"{directory}/wayland-0")
    doors.listen()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"{directory}/wayland-0")
    doors.revoke(WORK)
    assert not os.path.exists(directory)


def test_a_freeze_waits_for_nothing_without_a_compositor_and_no_longer_than_its_bound_with_one_that_hangs(
    desk: Desk, sway_itself: RealSway
) -> None:
    one = desk.client(WORK, "map", "go")
    desk.bring(WORK)
    desk.until_shown(of={one.pid: (WORK, True)})
    desk.windows.patience = 0.2
    os.kill(sway_itself.process.pid, 19)
    desk.step(WORK, S.PAUSING)
    done, began = desk.hide(WORK), time.monotonic()
    until(desk.reactor, lambda: done)
    assert time.monotonic() - began >= windows_module.HIDE_S * 0.2
    assert desk.log.of("gpu detach: it goes on without")
    os.kill(sway_itself.process.pid, 18)
    desk.windows.detach()
    assert desk.hide(WORK) == [True]


def test_a_frame_comes_for_who_asks_whether_one_does_and_none_from_a_compositor_that_hangs(
    desk: Desk, sway_itself: RealSway
) -> None:
    found: list[str] = []
    desk.windows.await_frame(BOUND_S, found.append)
    until(desk.reactor, lambda: found)
    os.kill(sway_itself.process.pid, 19)
    desk.windows.await_frame(0.2, found.append)
    until(desk.reactor, lambda: len(found) > 1)
    os.kill(sway_itself.process.pid, 18)
    assert found == ["", "no frame came in time"]
