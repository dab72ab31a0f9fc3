"""The invariants of the ways to the AI, from outside: what listens, what containers have mounted, what the forwarder has. checks.py calls them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from attrs import define
from broken import hold

from bay0.base import names, uids
from bay0.containers import life as containers
from bay0.machines import boot, server, tenant
from bay0.machines.persona import HAS_CONTAINER, S
from bay0.personas import port as personas
from bay0.umbilical.places import CONSOLE_NAME, IN_PERSONA, SOCKET, UMBILICAL

if TYPE_CHECKING:
    from grants import Forwarder, Listener
    from world import World

    from bay0.machines.instance import Instance, Step

MAY_HAVE = (S.STARTING, *HAS_CONTAINER)  # a door


@define(eq=False)
class GrantChecks:
    """All that is to be held of them."""

    world: World

    def booted(self) -> None:
        grants = self.world.grants
        hold(not grants.listeners and grants.forwarder is None and not os.path.exists(grants.run), "something of an earlier boot listens")

    def podman_runs(self, options: dict[str, list[str]]) -> None:
        """Whoever was granted the AI has his own door mounted, where he cannot put another in its place; nobody else has any."""
        name = names.from_podman(options["name"][0])
        if name is None or not name.semantic.startswith("p:"):
            return
        ways = [each.split(",") for each in options.get("mount", ()) if "personas" in each and self.world.grants.run in each]
        grants, instance = self.world.grants, self.world.spine.engine.instances[name.semantic]
        hold(len(ways) == _granted(instance), f"{name.semantic} is granted the AI: {_granted(instance)}; it has {ways} mounted")
        for way in ways:
            wanted = {f"source={grants.directory(name.semantic)}", f"destination={IN_PERSONA}", "ro=true"}
            hold(wanted <= set(way), f"{name.semantic} has {way} mounted, it should be {wanted}")

    def proposed(self, step: Step) -> None:
        late = step.machine == UMBILICAL and step.event == tenant.E.START.value and self.world.state_of_boot in boot.LEAVES
        hold(not late, "the forwarder is started while the spine goes down, and holds that up")

    # ---- after each turn

    def turned(self) -> None:
        doors: dict[str, Listener] = {}
        for each in self.world.grants.open():
            hold(each.path not in doors, f"two sockets listen at {each.path}")
            doors[each.path] = each
        console = doors.pop(f"{self.world.grants.run}/{SOCKET}", None)
        if console is not None:
            self._is_served()
        engine = self.world.spine.engine
        theirs: dict[str, Listener | None] = {}
        for instance in engine.of_kind("persona"):
            directory = self.world.grants.directory(instance.name)
            door = doors.pop(f"{directory}/{SOCKET}", None)
            if not instance.pending:
                self._is_as_it_should(instance, directory, door)
                theirs[instance.name] = door
        hold(not doors, f"{list(doors)} are doors of nobody")
        forwarder = self._caught_up()
        if forwarder is not None:
            self._knows(forwarder, console, theirs)

    def _is_served(self) -> None:
        machine = self.world.spine.engine.instances.get(UMBILICAL)
        served = machine is not None and (machine.pending or machine.queue or machine.now not in (tenant.S.STOPPED, tenant.S.FAILED))
        hold(served or self.world.state_of_boot in boot.LEAVES, f"there are doors, and {UMBILICAL} is {machine and machine.now.value}")

    def _is_as_it_should(self, instance: Instance, directory: str, door: Listener | None) -> None:
        says = f"{instance.name} is {instance.now.value}"
        if door is not None:
            hold(_granted(instance), f"{says}, was not granted the AI, and has a door")
            hold(instance.now in MAY_HAVE, f"{says}, and its door is open")
            hold(os.path.exists(door.path), f"{says}, and its door cannot be found: {door.path} is not there")
        else:
            hold(instance.now not in HAS_CONTAINER or not _granted(instance), f"{says}, was granted the AI, and has no door")
            hold(not os.path.exists(directory), f"{says}, has no door, and {directory} is there")

    def _caught_up(self) -> Forwarder | None:
        """Return the forwarder if it has heard all that it was told."""
        grants, umbilical = self.world.grants, self.world.spine.umbilical.made
        forwarder = grants.forwarder
        if umbilical is None or forwarder is None or not umbilical._link.there or umbilical._link._outbox:
            return None
        grants.pump()
        return None if forwarder.gone or grants.deaf else forwarder

    def _knows(self, forwarder: Forwarder, console: Listener | None, theirs: dict[str, Listener | None]) -> None:
        world = self.world
        inode = {name: door.inode for name, door in ((CONSOLE_NAME, console), *theirs.items()) if door is not None}
        pending = [i.name for i in world.spine.engine.of_kind("persona") if i.pending]
        for name, given in forwarder.doors.items():
            hold(name in pending or inode.get(name) == given.inode, f"the forwarder has a door of {name} that is closed")
        hold(CONSOLE_NAME in forwarder.doors, "the forwarder has not got the console's door")
        bases = [given.uid_base for given in forwarder.doors.values()]
        hold(len(bases) == len(set(bases)), f"two doors are for the same uids: {bases}")
        for name in theirs:
            instance = world.spine.engine.instances[name]
            if instance.now in HAS_CONTAINER and _granted(instance):
                self._has(forwarder, instance)
        self._knows_the_ai(forwarder)

    def _has(self, forwarder: Forwarder, instance: Instance) -> None:
        given = forwarder.doors.get(instance.name)
        hold(given is not None, f"{instance.name} is {instance.now.value}, and the forwarder has not got its door")
        config, found = personas.read_config(instance.config), self.world.podman.containers.get(names.parse(instance.name).podman)
        assert config is not None
        hold((given.uid_base, given.uids) == (config.uid, uids.UIDS), f"at the door of {instance.name} may speak uids from {given.uid_base}")
        if found is not None and self.world.kernel.lives(found.id) and not found.excused:
            hold(given.group == f"{containers.PERSONAS}/libpod-{found.id}", f"at the door of {instance.name} may speak who is in {given.group}")

    def _knows_the_ai(self, forwarder: Forwarder) -> None:
        instance = self.world.spine.engine.instances.get(server.NAME)
        if instance is not None and not instance.pending and self.world.spine.replay.known:
            told = forwarder.tenant["state"]
            hold(told == instance.now.value, f"{server.NAME} is {instance.now.value}, and the forwarder was told {told}")

    # ---- when all is well

    def settled(self) -> None:
        """Whoever was granted the AI reaches the forwarder through what is mounted in him."""
        world = self.world
        forwarder = self._caught_up()
        if world.grants.open():
            machine = world.spine.engine.instances.get(UMBILICAL)
            hold(machine is not None and machine.now is tenant.S.RUNNING, f"there are doors, and {UMBILICAL} is {machine and machine.now.value}")
            hold(forwarder is not None, "there are doors, and no forwarder that knows them")
        for instance in world.spine.engine.of_kind("persona"):
            if instance.now in HAS_CONTAINER and _granted(instance):
                mounted = world.podman.containers[names.parse(instance.name).podman].door
                hold(mounted is not None, f"{instance.name} was granted the AI, and has nothing mounted")
                try:
                    mounted.connect().close()
                except OSError as error:
                    hold(False, f"{instance.name} was granted the AI, and its socket says: {error}")
                hold(forwarder.hears(instance.name), f"{instance.name} connects, and the forwarder does not hear of it at its door")
                world.checks.count["reached"] += 1


def _granted(instance: Instance) -> bool:
    config = personas.read_config(instance.config)
    return config is not None and config.manifest.ai and instance.now is not S.ABSENT


__all__ = ["GrantChecks", "boot"]
