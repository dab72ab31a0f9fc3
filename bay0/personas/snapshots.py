"""Snapshots of personas: their effects, and what the control socket offers of them.

Files are copied and placed as those of a clone are (copies.py). There is no snapshot of a filesystem below: ext4 has none, so one takes as much
room and time as a copy does. What a persona's container wrote outside its home is not part of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import define

from bay0.base import names
from bay0.base.errors import RefusedError
from bay0.containers import lookup
from bay0.containers.life import owe
from bay0.control.answers import Listing
from bay0.machines import MACHINES
from bay0.machines.persona import E as PersonaE
from bay0.machines.persona import S as PersonaS
from bay0.machines.snapshot import E, Effect, S
from bay0.personas import copyduties, kept
from bay0.personas.copies import AGAIN_S, SOURCE
from bay0.pid1 import flow

if TYPE_CHECKING:
    from bay0.containers.life import Duty, Means, Outcome_
    from bay0.control.server import Reply
    from bay0.machines.instance import Instance, Step
    from bay0.personas.copies import Copies
    from bay0.state.link import Answer

NOTE_MAX = 200  # characters
OF_ONE_MAX, ALL_MAX = 100, 1000


@define(eq=False, repr=False)
class Snapshots:
    """One a boot; the effect port of all snapshots. `now`: seconds since 1970."""

    means: Means
    copies: Copies
    now: Callable[[], float] = time.time

    # ---- the effects

    def start(self, instance: Instance, effect: Enum, token: int) -> None:
        """Do what `instance` owes since its step number `token`."""
        duties: dict[Enum, Duty] = {Effect.COPY: self.copies.copy, Effect.PLACE: self.copies.place, Effect.DELETE: self._delete}
        owe(self.means, instance, token, duties[effect](instance))

    def _delete(self, instance: Instance) -> flow.Flow[Outcome_]:
        """Take its files away; what the disk did not answer is asked again."""
        while True:
            if self.means.state.healthy:
                answer: Answer = yield partial(self.copies.life.ask, "snapshot_delete", name=names.on_disk(instance.name))
                if answer.ok:
                    self.copies.sweep()
                    return E.GONE, ""
            yield self.copies.life.pause(AGAIN_S)

    # ---- the methods

    def snapshot(self, params: Mapping[str, Any], reply: Reply) -> None:
        """Take a snapshot of `name`, answered when it is there. `keep`: then delete the oldest, so that so many are left (0: all of them)."""
        note, keep = params.get("note", ""), params.get("keep", 0)
        if not isinstance(note, str) or len(note) > NOTE_MAX or not (note.isprintable() or not note):
            raise RefusedError(f"a note is one line of at most {NOTE_MAX} characters. Nothing was changed")
        if not isinstance(keep, int) or isinstance(keep, bool) or keep < 0:
            raise TypeError("keep is a number of snapshots, 0 for all")
        source = lookup.persona(self.means.engine, self.copies.verbs.replay, params)
        self.copies.need_rest(source)
        kept.manifest_of(source)
        self.copies.need_disk()
        self._need_place(source)
        whose = names.persona(source.name)

        def found(answer: Answer) -> None:
            if answer.ok:
                self._take(whose, int(answer.value), source, note, partial(self._taken, whose, keep, reply))
            else:
                reply(RefusedError(f"the disk does not say what lies on it: {answer.why}. Nothing was changed"))

        self.copies.life.ask("snapshot_number", found, name=whose.podman, least=self._next(whose))

    def _need_place(self, source: Instance) -> None:
        everybody = list(self.means.engine.of_kind("snapshot"))
        if len(everybody) >= ALL_MAX:
            raise RefusedError(f"there are {ALL_MAX} snapshots already; `bay0 persona drop` deletes one. Nothing was changed")
        if len(self.of(names.persona(source.name))) >= OF_ONE_MAX:
            raise RefusedError(f"there are {OF_ONE_MAX} snapshots of {source.name}; `bay0 persona drop` deletes one. Nothing was changed")

    def of(self, whose: names.Name) -> list[Instance]:
        """Return the snapshots of a persona, the oldest first."""
        start = f"{whose.semantic}@"
        found = [each for each in self.means.engine.of_kind("snapshot") if each.name.startswith(start)]
        return sorted(found, key=lambda each: names.snapshot(each.name).number)

    def _next(self, whose: names.Name) -> int:
        last = self.of(whose)[-1:]
        return names.snapshot(last[0].name).number + 1 if last else 1

    def _take(self, whose: names.Name, number: int, source: Instance, note: str, reply: Reply) -> None:
        name = names.Snapshot(whose, max(number, self._next(whose))).semantic  # another may have been asked for meanwhile
        engine = self.means.engine
        engine.add(name, MACHINES["snapshot"])
        answered = self.copies.taken(name, reply)

        def taken(result: Step | Exception | None) -> None:
            if isinstance(result, Exception):
                self.means.reactor.call_soon(partial(copyduties.let_go, engine, name))
            answered(result)

        config = kept.text(source.config, note, int(self.now()))
        engine.send(name, E.TAKE, f"of {source.name}", taken, config=config, **{SOURCE: source.name})

    def _taken(self, whose: names.Name, keep: int, reply: Reply, result: Any) -> None:
        """Delete the oldest, now that the new one is there."""
        if isinstance(result, Exception):
            reply(result)
            return
        there = [each for each in self.of(whose) if each.now is S.KEPT]
        surplus = there[: max(0, len(there) - keep)] if keep else []
        for each in surplus:
            self.means.engine.send(each.name, E.DROP, f"the newest {keep} are kept")
        reply({**result, "dropped": [each.name for each in surplus]})

    def list_all(self, params: Mapping[str, Any], reply: Reply) -> None:
        """Answer with every snapshot, the oldest of each persona first; with `name` only that persona's, which may have been removed.

        With `number` too that one alone, and its `manifest`.
        """
        self.copies.verbs.replay.need_known()
        if params.get("number") is not None:
            instance = kept.find(self.means.engine, self.copies.verbs.replay, f"{lookup.name(params).semantic}@{params['number']}")
            reply({**kept.facts(instance), "manifest": kept.manifest_of(instance).to_wire()})
            return
        if params.get("name") is not None:
            found = self.of(lookup.name(params))
        else:
            found = list(self.means.engine.of_kind("snapshot"))
            found.sort(key=lambda each: (names.snapshot(each.name).of.semantic, names.snapshot(each.name).number))
        reply(Listing(kept.facts(each) for each in found if each.now is not S.ABSENT))

    def drop(self, params: Mapping[str, Any], reply: Reply) -> None:
        """Delete the snapshot `name`; answered when that is kept: its files go then, whatever happens."""
        instance = kept.find(self.means.engine, self.copies.verbs.replay, params["name"])
        shown = kept.facts(instance)

        def dropped(result: Step | Exception | None) -> None:
            reply(result if isinstance(result, Exception) else {**shown, "state": instance.now.value})

        self.means.engine.send(instance.name, E.DROP, "", dropped)

    def restore(self, params: Mapping[str, Any], reply: Reply) -> None:
        """Bring `name` back to one of its snapshots, `number` or the newest: manifest and home. Answered when it is, or is as it was."""
        instance = lookup.persona(self.means.engine, self.copies.verbs.replay, params)
        source = self._meant(names.persona(instance.name), params.get("number"))
        if source.now is not S.KEPT:
            raise RefusedError(f"{source.name} is {source.now.value}; ask again when it rests. Nothing was changed")
        if instance.now not in (PersonaS.STOPPED, PersonaS.FAILED):
            raise RefusedError(f"{instance.name} is {instance.now.value}: stop it first. Nothing was changed")
        for each in (instance, source):
            kept.manifest_of(each)
        self.copies.need_disk()
        taken = self.copies.taken(instance.name, reply)
        self.means.engine.send(instance.name, PersonaE.RESTORE, f"to {source.name}", taken, **{SOURCE: source.name})

    def _meant(self, whose: names.Name, number: Any) -> Instance:
        if number is not None:
            return kept.find(self.means.engine, self.copies.verbs.replay, f"{whose.semantic}@{number}")
        there = [each for each in self.of(whose) if each.now is S.KEPT]
        if not there:
            raise RefusedError(f"there is no snapshot of {whose.semantic}; `bay0 persona snapshot {whose.label}` takes one. Nothing was changed")
        return there[-1]

