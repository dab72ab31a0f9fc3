"""The invariants. They watch from outside: what the engine was told, what SQLite holds, what exists in the modelled world.

Each raises `Broken`, so that a mutant test can tell a caught fault from a broken test.
"""

from __future__ import annotations

import os
import sqlite3
from collections import defaultdict
from enum import Enum
from typing import TYPE_CHECKING, Any

from aichecks import AiChecks
from attrs import asdict, define, field
from broken import hold
from grantchecks import GrantChecks
from podman import options_of
from screenchecks import ScreenChecks

from bay0.base import names, uids
from bay0.containers import life as containers
from bay0.machines import MACHINES, boot, persona, server, storage, tenant
from bay0.machines.engine import Acceptance
from bay0.machines.instance import Instance, Step
from bay0.personas import manifest
from bay0.personas import port as personas
from bay0.reconcile import plan as reconcile
from bay0.state.schema import JOURNAL_KEEP_BOOTS, NO_ROW, JournalRow

if TYPE_CHECKING:
    from people import Asked
    from stateworker import SimWorker
    from world import World

    from bay0.machines.table import MachineDef, Row

TO_COMPLETE_S = 120.0  # every stage's bound together, with room for commits that miss theirs
TO_POWER_S = 60.0
RESTS_S = 40.0  # longer than the longest back-off
ANSWER_S = 12.0  # bounds.verb, and the commits before it
IMAGE_ANSWER_S = 200.0  # podman's own bounds for work on images, behind what it is busy with
SUSPEND_ANSWER_S = 60.0
COPY_ANSWER_S = 8000.0
RESTS = {state.value for state in (persona.S.ABSENT, persona.S.STOPPED, persona.S.FAILED)}
AT_REST = (persona.S.ABSENT, persona.S.STOPPED, persona.S.FAILED)
LONG = ("persona.clone", "persona.snapshot", "persona.restore", "persona.import")
PROMISES = ("create", "clone", "start", "reset", "remove", "configure", "restore", "drop", "import")
COLUMNS = tuple(JournalRow._meta.sorted_field_names)
TOUCHES = ("mount", "open", "migrate", "machines", "stage", "flush", "commit", "probe", "genesis")


@define(eq=False)
class SpyJournal:
    """Stands between the engine and the state port."""

    port: Any
    checks: Checks

    def admits(self, machine: MachineDef, row: Row) -> str | None:
        return self.port.admits(machine, row)

    def commit(self, step: Step, row: Row, done: Any) -> None:
        answered: list[Acceptance] = []

        def accepted(acceptance: Acceptance) -> None:
            hold(not answered, f"step {step.n} was answered twice")
            answered.append(acceptance)
            self.checks.accepted(step, row, acceptance)
            done(acceptance)

        self.checks.proposed(step, row)
        self.port.commit(step, row, accepted)


@define(eq=False)
class SpyEffects:
    """Stands between the engine and the effects."""

    port: Any
    checks: Checks

    @property
    def ports(self) -> Any:
        return self.port.ports

    def start(self, instance: Instance, effect: Enum, token: int) -> None:
        self.checks.effect(instance, effect, token)
        self.port.start(instance, effect, token)


@define
class _Image:
    """What a database holds."""

    journal: list[dict[str, Any]]
    machines: dict[str, dict[str, Any]]
    order: list[str]
    nacks: set[str]

    def of_boot(self, boot_id: str) -> list[dict[str, Any]]:
        return [row for row in self.journal if row["boot_id"] == boot_id]


@define(eq=False)
class Checks:
    """All invariants of one world."""

    world: World
    steps: dict[tuple[str, int], Step] = field(factory=dict)
    rows: dict[tuple[str, int], Row] = field(factory=dict)
    verdicts: dict[tuple[str, int], Acceptance] = field(factory=dict)
    promised: set[tuple[str, int]] = field(factory=set)
    expected: dict[str, str] = field(factory=dict)
    seen: dict[str, Instance] = field(factory=dict)
    attempts: dict[str, int] = field(factory=dict)
    manifests: dict[str, list[dict[str, Any]]] = field(factory=lambda: defaultdict(list))
    foreign: dict[str, str] = field(factory=dict)
    lossy: set[str] = field(factory=set)
    nacks: dict[str, bool | None] = field(factory=dict)  # digest -> what an operator was told last; None: nobody can know
    began: float = 0.0
    leaving: float | None = None
    complete: bool = False
    count: dict[str, int] = field(factory=lambda: defaultdict(int))
    ai: AiChecks = field(init=False)
    grants: GrantChecks = field(init=False)
    screen: ScreenChecks = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.ai, self.grants = AiChecks(self.world), GrantChecks(self.world)
        self.screen = ScreenChecks(self.world)

    # ---- while it runs

    def booted(self) -> None:
        world = self.world
        engine = world.spine.engine
        engine._journal = SpyJournal(engine.journal, self)
        engine._ports = {kind: SpyEffects(port, self) for kind, port in engine._ports.items()}
        self.seen = dict(engine.instances)
        self.attempts = {}
        self.expected = {name: instance.now.value for name, instance in engine.instances.items()}
        self.began, self.leaving, self.complete = world.now, None, False
        self.ai.booted()
        self.grants.booted()
        self.screen.booted()
        self.count["boots"] += 1

    def proposed(self, step: Step, row: Row) -> None:
        key = (step.boot_id, step.n)
        hold(key not in self.steps or self.steps[key] == step, f"number {key} is used twice, with different contents")
        self.steps[key], self.rows[key] = step, row
        hold(step.boot_id == self.world.boot_id, "a step of another boot")
        instance = self.world.spine.engine.instances[step.machine]
        if self.seen.setdefault(step.machine, instance) is not instance:  # taken over anew, from what a disk that came late had stored
            self.seen[step.machine] = instance
            self.expected.pop(step.machine, None)
            self.attempts.pop(step.machine, None)
        known = self.expected.get(step.machine)
        hold(known in (None, step.source), f"{step.machine} leaves {step.source}, it was in {known}")
        self.grants.proposed(step)
        if step.kind == "persona":
            self._proposed_of_persona(step, row)
        elif step.kind == "server":
            self.ai.proposed(instance, step, row)

    def _proposed_of_persona(self, step: Step, row: Row) -> None:
        """Attempts are counted before the attempt, and nothing is wanted of what is at rest."""
        before = self.attempts.get(step.machine)
        if before is None:
            before = self.attempts[step.machine] = self.world.spine.engine.instances[step.machine].attempts
        if step.dest == persona.S.STARTING.value:
            wanted = 1 if step.event == persona.E.START.value else before + 1
            hold(step.attempts == wanted, f"{step.machine} is started for the {wanted}. time, its step says {step.attempts}")
            hold(row.promised, f"{step.machine} is started without a promise")
            hold(step.desired != "stopped", f"{step.machine} is started and wanted stopped")
            config = personas.read_config(self.world.spine.engine.instances[step.machine].config)
            late = step.event == persona.E.AUTOSTART.value and self.world.state_of_boot in boot.LEAVES
            hold(not late, f"{step.machine} is started with the spine while that goes down")
            limit = 1 + (config.manifest.retries if config is not None else 0)
            automatic = step.event != persona.E.AUTOSTART.value or (config is not None and config.manifest.autostart)
            hold(automatic, f"{step.machine} is started by the boot, and its manifest does not say so")
            hold(step.attempts <= limit, f"{step.machine} is started for the {step.attempts}. time, its manifest allows {limit}")
        if step.dest in {s.value for s in AT_REST}:
            hold(step.desired == "stopped", f"{step.machine} is {step.dest} and wanted {step.desired}")

    def accepted(self, step: Step, row: Row, acceptance: Acceptance) -> None:
        self.verdicts[step.boot_id, step.n] = acceptance
        if acceptance is not Acceptance.REFUSED:
            self.expected[step.machine] = step.dest
            self.attempts[step.machine] = step.attempts
            if step.kind == "server":
                self.ai.accepted(step)
        hold(not (row.promised and acceptance is Acceptance.VOLATILE), "a promise was accepted that nothing keeps")
        self.count["steps"] += 1
        self.count[acceptance.value] += 1

    # ---- what operators are told

    def asked_for(self, asked: Asked) -> None:
        name = asked.params.get("name", "")
        self.ai.asked_for(asked)
        if asked.method.startswith("nack."):
            asked.before = self.nacks.get(asked.params["digest"])
        if asked.method in ("nack.add", "nack.remove") and self.nacks.get(asked.params["digest"]) is not (asked.method == "nack.add"):
            self.nacks[asked.params["digest"]] = None
        if asked.method in ("persona.create", "persona.import"):
            self.manifests[name].append(asked.params["manifest"])
        if asked.method == "persona.clone":
            self.manifests[name].extend(self.manifests[asked.params["source"].partition("@")[0]])
        if asked.method == "persona.configure":  # a change to any of those that were asked for before
            self.manifests[name] += [{**known, **asked.params["changes"]} for known in self.manifests[name]]
        if asked.params.get("home"):
            self.world.homes.asked_to_empty(names.parse(name).podman)

    def answered(self, asked: Asked, result: Any) -> None:
        """An operator was told: once, and if it was a yes to a promise, the promise is to be kept."""
        hold(len(asked.answers) == 1, f"{asked.method} was answered twice: {asked.answers}")
        if asked.params.get("home"):
            self.world.homes.answered(names.parse(asked.params["name"]).podman)
        hold(self.world.now - asked.at < _bound(asked), f"{asked.method} was answered after {self.world.now - asked.at:.1f} s")
        if isinstance(result, Exception):
            self.count["refusals"] += 1
            if asked.method.startswith("nack.") and "nothing was changed" in str(result) and not self._others(asked):
                self.nacks[asked.params["digest"]] = asked.before
            return
        self.count["answers"] += 1
        if asked.method.startswith("nack."):
            self._nack_answered(asked, result)
            return
        if asked.method.startswith("tenant."):
            self.ai.answered(asked, result)
        verb = asked.method.rpartition(".")[2]
        if verb in ("clone", "import"):
            self.world.copies.answered(result)
            self.count["copies"] += 1
        if verb in PROMISES or verb == "focus":
            machine = "focus" if verb == "focus" else asked.params["name"]
            made = [k for k, s in self.steps.items() if k[0] == asked.boot_id and s.machine == machine and s.event == verb]
            made = [k for k in made if self.rows[k].promised and self.verdicts.get(k) is Acceptance.DURABLE]
            if made:
                self.promised.add(max(made))
                self.count["promises"] += 1
        if asked.params.get("home") and result["settled"]:
            name = names.parse(asked.params["name"]).podman
            hold(not self.world.homes.left(name) or name in self.world.homes.kept, f"the home of {name} was told to be empty")

    def _nack_answered(self, asked: Asked, result: dict[str, Any]) -> None:
        if not self._others(asked):  # else the last of them decides
            self.nacks[asked.params["digest"]] = result["nacked"]
            self.count["nacks"] += 1

    def _others(self, asked: Asked) -> list[Asked]:
        """Return who asks about the same digest and waits."""
        digest = asked.params["digest"]
        return [each for each in self.world.asked if each is not asked and not each.answers and each.params.get("digest") == digest]

    def podman_called(self, argv: list[str]) -> None:
        """Nothing is removed before the stored personas are known, and never anything of somebody else. Nothing is frozen by podman."""
        hold(argv[1] != "pause", "podman is asked to freeze what one write freezes")
        if argv[1] == "rm":
            spine = self.world.spine
            hold(spine.state.stored is not None and spine.replay._begun, "containers are removed in a boot that could not read its database")
            strangers = [name for name in argv[argv.index("--") + 1 :] if names.from_podman(name) is None]
            hold(not strangers, f"{strangers} are not ours to remove")
        elif argv[1] in ("run", "create"):
            self.grants.podman_runs(options_of(argv))

    def effect(self, instance: Instance, effect: Enum, token: int) -> None:
        verdict = self.verdicts.get((self.world.boot_id, token))
        hold(verdict in (Acceptance.DURABLE, Acceptance.VOLATILE), f"{effect} of {instance.name} started, its step {token} is {verdict}")
        step = self.steps[self.world.boot_id, token]
        hold(step.machine == instance.name and step.dest == instance.now.value, f"{effect} does not belong to step {token}")
        hold(instance.definition.spec(instance.now).busy is effect, f"{effect} is not what {instance.now} owes")

    def worker_starts(self, others: list[SimWorker]) -> None:
        hold(not [w for w in others if w.alive], "a second worker starts while the first lives")
        hold(self.world.state_of_storage in (storage.S.OPENING, storage.S.REATTACHING), f"a worker starts in {self.world.state_of_storage}")

    def asked(self, worker: SimWorker, op: str) -> None:
        if op in TOUCHES and not worker.killed:  # a killed one may still finish what it was asked before
            hold(self.world.state_of_storage is not storage.S.CLOSED, f"{op} reaches the disk after it was closed")
            hold("close" not in worker.ops[:-1], f"{op} reaches the disk after its worker closed it")
        hold(sum(w.alive for w in self.world.workers) == 1, "two workers live")

    def turned(self) -> None:
        """After each turn of the reactor."""
        world = self.world
        spine = world.spine
        for name, instance in spine.engine.instances.items():
            if self.seen.setdefault(name, instance) is not instance:
                continue
            before = self.expected.setdefault(name, instance.now.value)
            hold(instance.now.value == before, f"{name} is {instance.now.value} in memory, accepted was {before}")
        hold(sum(w.alive for w in world.workers) <= 1, "two workers live")
        hold(spine.state.link.left_behind <= 1, "more than one worker left behind")
        if spine.state._unwritten.lost:
            self.lossy.add(world.boot_id)
        self._in_time()
        self._personas_are_what_they_say()
        self.ai.turned()
        self.grants.turned()
        self.screen.turned()
        for asked in world.asked:
            hold(asked.answers or world.now - asked.at < _bound(asked), f"{asked.method} {asked.params} got no answer in {_bound(asked):g} s")
        world.asked[:] = [asked for asked in world.asked if not asked.answers]

    def _personas_are_what_they_say(self) -> None:
        """At rest means: nothing wanted, no container that bay0 made and knows of, no process of it."""
        world = self.world
        there = {i.name: i.config for i in world.spine.engine.of_kind("persona") if i.now is not persona.S.ABSENT}
        _one_range_each(there)
        for instance in world.spine.engine.of_kind("persona"):
            if instance.pending or instance.now not in AT_REST:
                continue
            hold(instance.desired == "stopped", f"{instance.name} is {instance.now.value} and wanted {instance.desired}")
            found = world.podman.containers.get(names.parse(instance.name).podman)
            hold(
                found is None or found.excused or found.external or not world.spine.replay.known,
                f"{instance.name} is {instance.now.value} and has a container, {found and found.state}",
            )
        world.copies.whole_or_not_there()
        lost = [name for name in world.homes.lost() if not world.copies.moved_away(name)]
        hold(not lost, f"the data in the homes {lost} are gone, and nobody asked for that")

    def _in_time(self) -> None:
        world, now = self.world, self.world.state_of_boot
        self.complete = self.complete or now is boot.S.COMPLETE
        if now in boot.LEAVES and self.leaving is None:
            self.leaving = world.now
        if self.leaving is not None:
            hold(world.now - self.leaving < TO_POWER_S, f"{TO_POWER_S:g} s after it was asked to stop it is {now.value}")
        elif not self.complete:
            hold(world.now - self.began < TO_COMPLETE_S, f"{TO_COMPLETE_S:g} s after power-on the boot is {now.value}")

    def note_foreign(self) -> None:
        """Whatever is there of somebody else now, must stay."""
        self.foreign = self.world.podman.theirs(lambda name: names.from_podman(name) is not None)

    def lights_out(self, files: dict[str, bytes]) -> None:
        self.note_foreign()
        self.world.homes.asking.clear()
        old = self.world.rolled_back
        hold(old is None or old == files, "a program too old for the database has changed it")

    def powered_off(self) -> None:
        hold(self.world.state_of_boot in (boot.S.POWERING, boot.S.FORCING), "the power goes in another state than POWERING and FORCING")

    # ---- what a database holds

    def look(self, files: dict[str, bytes]) -> _Image | None:
        """Read a set of files as a later boot would; None if there is no database yet."""
        if not files.get(""):
            return None
        path = self.world.disk.copy_to(os.path.join(self.world.folder, "look"), files)
        link = sqlite3.connect(path)
        link.row_factory = sqlite3.Row
        try:
            hold(_sound(link), "SQLite finds the database damaged")
            if not link.execute("PRAGMA user_version").fetchone()[0]:
                hold(not link.execute("SELECT name FROM sqlite_master").fetchall(), "tables of a migration that was not finished")
                return None
            journal = [dict(r) for r in link.execute("SELECT * FROM journal ORDER BY boot_id, n")]
            machines = {r["name"]: dict(r) for r in link.execute("SELECT * FROM machine")}
            old = not link.execute("SELECT name FROM sqlite_master WHERE name='nack'").fetchall()
            nacks = set() if old else {r["digest"] for r in link.execute("SELECT digest FROM nack")}
            order = [r["boot_id"] for r in link.execute("SELECT boot_id FROM boot ORDER BY ordinal")]
        finally:
            link.close()
        return _Image(journal, machines, order, nacks)

    def after_cut(self) -> None:
        """The machine has just stopped: is what the disk holds good enough for the next boot?"""
        self.count["cuts"] += 1
        image = self.look(self.world.disk.read())
        self._promises_kept(image)
        if image is not None:
            self.journal_is_sound(image)
        self.ai.after_cut(None if image is None else image.machines.get(server.NAME))
        stored = {} if image is None else image.machines
        for name, container in self.world.podman.containers.items():
            ours = names.from_podman(name)
            if ours is None or container.excused or container.external:
                continue
            state = stored[ours.semantic]["state"] if ours.semantic in stored else None
            rests = state is None or state in {s.value for s in AT_REST}
            hold(not rests, f"{name} has a container; the database says {state}")

    def _promises_kept(self, image: _Image | None) -> None:
        kept = set() if image is None else {(row["boot_id"], row["n"]) for row in image.journal}
        forgotten = set() if image is None or len(image.order) < JOURNAL_KEEP_BOOTS else {b for b, _ in self.promised} - set(image.order)
        lost = {key for key in self.promised - kept if key[0] not in self.lossy | forgotten}
        self._nacks_kept(set() if image is None else image.nacks)
        hold(not lost, f"acknowledged and lost: {_told([self.steps[key] for key in sorted(lost)])}")

    def _nacks_kept(self, there: set[str]) -> None:
        forgotten = {digest for digest, nacked in self.nacks.items() if nacked} - there
        hold(not forgotten, f"NACKed, acknowledged and forgotten: {forgotten}")
        back = there & {digest for digest, nacked in self.nacks.items() if nacked is False}
        hold(not back, f"allowed again, acknowledged and refused after all: {back}")
        hold(there <= set(self.nacks), "a NACK that nobody asked for")

    def journal_is_sound(self, image: _Image) -> None:
        self._rows_are_ours(image)
        for boot_id in image.order:
            if boot_id not in self.lossy:
                self._in_order(image, boot_id)
        self._contiguous(image)
        self._machines_match(image)
        _one_range_each({name: row["config"] for name, row in image.machines.items() if row["kind"] == "persona"})

    def _rows_are_ours(self, image: _Image) -> None:
        for row in image.journal:
            key = (row["boot_id"], row["n"])
            hold(key in self.steps, f"a journal row nobody made: {row}")
            hold({name: row[name] for name in COLUMNS} == _columns(self.steps[key]), f"journal row {key} is not the step that was taken")
            hold(self.verdicts.get(key) is not Acceptance.REFUSED, f"refused, and yet in the journal: {row}")

    def _in_order(self, image: _Image, boot_id: str) -> None:
        there = {row["n"] for row in image.of_boot(boot_id)}
        made = sorted(n for b, n in self.steps if b == boot_id and self.verdicts.get((b, n)) is not Acceptance.REFUSED)
        hold(set(made[: len(there)]) == there, f"boot {boot_id}: the journal has {sorted(there)} of {made}, not its beginning")

    def _contiguous(self, image: _Image) -> None:
        last: dict[str, str] = {}
        for boot_id in image.order:
            seen: dict[str, dict[str, Any]] = {}
            for row in image.of_boot(boot_id):
                name = row["machine"]
                if name in seen and boot_id not in self.lossy:
                    before = seen[name]
                    hold(row["source"] == before["dest"], f"{name}: {before['dest']} is followed by a step from {row['source']}")
                    anew = row["event"] in ("create", "clone", "import", "take")  # its name had been removed, and counts from the start
                    hold(anew or row["seq"] == before["seq"] + 1, f"{name}: seq {before['seq']} is followed by {row['seq']}")
                elif name not in seen and boot_id not in self.lossy:
                    start = {last.get(name), MACHINES[row["kind"]].initial.value}
                    forgotten = name not in last and len(image.order) >= JOURNAL_KEEP_BOOTS
                    hold(row["source"] in start or forgotten, f"{name}: boot {boot_id} begins from {row['source']}, stored was {last.get(name)}")
                seen[name] = row
            last.update({name: row["dest"] for name, row in seen.items()})

    def _machines_match(self, image: _Image) -> None:
        last = {row["machine"]: row for boot_id in image.order for row in image.of_boot(boot_id)}
        gone = {name for name, row in last.items() if (row["kind"], row["dest"]) in NO_ROW}
        hold(not gone & image.machines.keys(), f"removed, and still stored: {gone & image.machines.keys()}")
        lost = {name for name, row in last.items() if row["kind"] in ("persona", "snapshot")} - gone - image.machines.keys()
        hold(not lost, f"not removed, and stored no more: {lost}")
        for name, row in image.machines.items():
            newest = last.get(name)
            if newest is not None:
                kept = {name: (row[name], newest[name]) for name in ("attempts", "desired")}
                hold(all(one == other for one, other in kept.values()), f"{name} is stored with, and its last journal row has: {kept}")
                hold(
                    (row["state"], row["seq"], row["boot_id"]) == (newest["dest"], newest["seq"], newest["boot_id"]),
                    f"{name} is stored as {row['state']} (seq {row['seq']}), its last journal row leads to {newest['dest']} (seq {newest['seq']})",
                )

    # ---- when everything has been mended and time has passed

    def well(self) -> bool:
        """Tell whether nothing is left to wait for."""
        spine = self.world.spine
        if self.world.rolled_back is not None:
            return spine.boot.now is boot.S.COMPLETE and spine.state.storage.now is storage.S.READONLY  # nothing more can come of it
        return (
            spine.boot.now is boot.S.COMPLETE
            and (spine.replay.known or spine.state.stored is None)
            and not (self.world.podman.late or self.world.podman.under_way)
            and not self._haunted()
            and all(live.calm is None or live.calm.call is None for live in (*self._lives(), *spine.services._live.values()))
            and spine.state.healthy
            and not spine.state.memory
            and self.screen.well()
            and not self.world.disk.unplugged  # noticed by the next probe
            and not any(i.definition.spec(i.now).busy or i.pending for i in spine.engine.instances.values())
        )

    def _lives(self) -> list[containers.Live]:
        """Every container that bay0 has started and not ended."""
        spine = self.world.spine
        return [live for port in (spine.personas, spine.servers.made) if port is not None for live in port.life._live.values()]

    def _haunted(self) -> bool:
        world = self.world
        alive = {i.name for kind in reconcile.CONTAINED for i in world.spine.engine.of_kind(kind) if i.now.value not in RESTS}
        ours = {found.semantic for name in world.podman.containers if (found := names.from_podman(name)) is not None}
        return bool(ours - alive) or bool(world.kernel.living() - {c.id for c in world.podman.containers.values()})

    def settled(self) -> None:
        world = self.world
        self.count["settled"] += 1
        if world.state_of_boot is not boot.S.COMPLETE:
            return
        if world.rolled_back is not None:
            hold(world.state_of_storage is storage.S.READONLY, f"the database is of a newer program, and storage is {world.state_of_storage.value}")
            hold(not world.spine.replay.known, "what could not be read is taken for known")
            return
        world.copies.settled()
        hold(world.state_of_storage is storage.S.DURABLE, f"the disk is well, storage is {world.state_of_storage.value}")
        hold(world.spine.state.link.left_behind == 0, "a worker is still left behind")
        before = {key for key in self.steps if key[0] == world.boot_id}
        world.run(RESTS_S)
        hold(world.on, "it stopped by itself")
        new = [s for key, s in self.steps.items() if key[0] == world.boot_id and key not in before]
        hold(not new, f"it does not rest: {_told(new)}")
        self._written_out(before)
        self._all_as_it_should()

    def _written_out(self, steps: set[tuple[str, int]]) -> None:
        world = self.world
        hold(not world.spine.state.memory, f"steps {list(world.spine.state.memory)} stay in memory")
        image = self.look(world.disk.read())
        hold(image is not None, "there is no database")
        self.journal_is_sound(image)
        self._promises_kept(image)
        there = {(row["boot_id"], row["n"]) for row in image.journal}
        missing = {key for key in steps - there if self.verdicts.get(key) is not Acceptance.REFUSED}
        hold(not missing or world.boot_id in self.lossy, f"never written out: {_told([self.steps[k] for k in sorted(missing)])}")
        self._reconciled(image)

    def _reconciled(self, image: _Image) -> None:
        world = self.world
        others = [row for row in image.machines.values() if row["boot_id"] != world.boot_id]
        for row in others:
            hold(row["state"] in _converged(row["kind"]), f"{row['name']} of boot {row['boot_id']} is still {row['state']}")
        for row in image.machines.values():
            if row["kind"] == "boot" and row["name"] != world.spine.boot.name:
                hold(row["state"] in ("ended", "died"), f"{row['name']} is {row['state']}")
        again = [replay.name for replay in reconcile.plan(others, MACHINES, world.podman.containers).replays if replay.converge]
        hold(not again, f"a second reconcile would do something: {again}")
        self._reconcile_again(list(image.machines.values()))

    def _reconcile_again(self, stored: list[dict[str, Any]]) -> None:
        world, replay = self.world, self.world.spine.replay
        count, removed = len(self.steps), [call for call in world.podman.calls if call.startswith("rm")]
        then, replay._then, replay._begun = replay._then, [], False  # nothing starts with it
        world.spine.state._opening.stored = stored
        replay.begin()
        world.run(5)
        replay._then = then
        hold(len(self.steps) == count, f"a second reconcile did something: {_told(list(self.steps.values())[count:])}")
        hold(removed == [call for call in world.podman.calls if call.startswith("rm")], "a second reconcile removed something")

    def _all_as_it_should(self) -> None:
        world = self.world
        live = world.spine.engine.instances
        busy = [i.name for i in live.values() if i.definition.spec(i.now).busy is not None or i.pending is not None]
        hold(not busy, f"{busy} are still busy")
        self._containers_are(live)
        self.grants.settled()
        self.screen.settled()
        processes = sorted(p.name for p in world.processes)
        tenants = sorted(i.name for i in live.values() if i.definition.kind == "tenant" and i.now is tenant.S.RUNNING)
        hold(processes == tenants, f"processes {processes}, running are {tenants}")
        hold("sys://console" in tenants, f"there is no console: it is {live['sys://console'].now.value}")


    def _containers_are(self, live: dict[str, Instance]) -> None:
        world = self.world
        wanted = {i.name: i.now.value for i in live.values() if i.definition.kind == "persona" and i.now not in AT_REST}
        for each in world.spine.engine.of_kind("server"):
            state = self.ai.settled(each)
            wanted.update({each.name: state} if state is not None else {})
        there = {}
        for name, container in world.podman.containers.items():
            ours = names.from_podman(name)
            if ours is not None and not container.external:
                frozen = (group := world.kernel.group(container.id)) is not None and group.asked_frozen
                alive = world.kernel.lives(container.id)
                there[ours.semantic] = ("paused" if frozen else "running") if alive else f"a dead container ({container.state})"
        hold(there == wanted, f"containers {there}, personas {wanted}")
        ours = [c for name, c in world.podman.containers.items() if names.from_podman(name) is not None]
        unwatched = [c.name for c in ours if (g := world.kernel.group(c.id)) is not None and g.on_end is None]
        hold(not unwatched, f"{unwatched} run without a monitor")
        unlike = {i.name: i.desired for i in live.values() if i.name in wanted and i.desired != wanted[i.name]}
        hold(not unlike, f"personas {wanted}, and desired is {unlike}")
        ghosts = world.kernel.living() - {c.id for c in world.podman.containers.values()}
        hold(not ghosts, f"{len(ghosts)} groups of processes that podman does not know")
        theirs = world.podman.theirs(lambda name: names.from_podman(name) is not None)
        hold(theirs == self.foreign, f"of somebody else there was {self.foreign}, there is {theirs}")
        for instance in live.values():
            if instance.definition.kind == "persona" and instance.now is not persona.S.ABSENT:
                config = personas.read_config(instance.config)
                hold(config is not None, f"{instance.name} has no configuration")
                asked = [manifest.from_wire(wire) for wire in self.manifests[instance.name]]
                hold(config is not None and config.manifest in asked, f"{instance.name} is not what was asked for: {instance.config}")


def _one_range_each(configs: dict[str, str]) -> None:
    """No two personas own one uid range, understood or not: it is the wall between them."""
    owners: dict[int, str] = {}
    for name, text in configs.items():
        slot = uids.slot_of(text)
        if slot is not None:
            hold(owners.setdefault(slot, name) == name, f"{name} and {owners[slot]} have one uid range, slot {slot}")


def _sound(link: sqlite3.Connection) -> bool:
    try:
        return bool(link.execute("PRAGMA integrity_check").fetchone()[0] == "ok")
    except sqlite3.DatabaseError:
        return False


def _told(steps: list[Step]) -> str:
    return "; ".join(f"{step.n}: {step.machine} {step.source} --{step.event}--> {step.dest} ({step.why})" for step in steps)


def _bound(asked: Asked) -> float:
    if asked.method == "suspend":  # the deadlines of its two busy states
        return SUSPEND_ANSWER_S
    if asked.method in LONG:  # the deadline of a large home; on a disk that is well it is at once
        return COPY_ANSWER_S
    return IMAGE_ANSWER_S if asked.method.startswith("image.") else ANSWER_S


def _columns(step: Step) -> dict[str, Any]:
    return {name: value for name, value in asdict(step).items() if name != "config"}


def _converged(kind: str) -> set[str]:
    return {spec.state.value for spec in MACHINES[kind].specs if spec.converged}
