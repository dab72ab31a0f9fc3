"""Homes that are made as copies of others: what the states owe that copy one or put one in its place, and `persona.clone`.

Theory of operation. A copy is made by a process of its own (bay0/state/copier.py) beside its place, and put there by one rename,
so it is there whole or not at all. Who is copied must not change meanwhile: it is stopped, or frozen for as long as that takes.
Nobody is kept from starting it again, or from thawing it: that counts as a change, and ends the copy. What is made is a persona,
a snapshot (snapshots.py), or the home of a persona that goes back to a snapshot.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen

from bay0.base import names
from bay0.base.errors import RefusedError
from bay0.containers import lookup
from bay0.machines import focus, persona, snapshot, storage
from bay0.machines.persona import E, S
from bay0.personas import grants, kept, manifest
from bay0.pid1 import flow
from bay0.state import copying
from bay0.state.link import MISPLACED

if TYPE_CHECKING:
    from bay0.containers.life import Life, Means, Outcome_
    from bay0.control.server import Reply
    from bay0.machines.instance import Instance, Step
    from bay0.personas.manifest import Manifest
    from bay0.personas.methods import PersonaVerbs
    from bay0.state.copying import Copied
    from bay0.state.link import Answer

SOURCE, ARCHIVE = "copy_of", "archive"  # in the context of a machine for which a home is copied, or unpacked
LOOK_S = 0.1  # at the freeze of who is copied
AGAIN_S = 1.0  # until a disk that gave no answer is asked again
STAND = (S.STOPPED, S.FAILED, S.PAUSED, snapshot.S.KEPT)
COPIED_FROM = (*STAND, S.RUNNING)
COPIES = (S.COPYING, S.RESTORING, snapshot.S.COPYING)


@frozen(eq=False, repr=False)
class _Words:
    """A kind's own events, and its states between the wish for a copy and the end of that."""

    copied: Enum
    placed: Enum
    fault: Enum
    stop: Enum
    under_way: tuple[str, ...]


_WORDS = {
    "persona": _Words(E.COPIED, E.PLACED, E.FAULT, E.STOP, tuple(state.value for state in (*persona.MADE, *persona.GOES_BACK))),
    "snapshot": _Words(
        snapshot.E.COPIED, snapshot.E.PLACED, snapshot.E.FAULT, snapshot.E.STOP, tuple(state.value for state in snapshot.MADE)
    ),
}  # fmt: skip


def _words(instance: Instance) -> _Words:
    return _WORDS[instance.definition.kind]


@define(eq=False, repr=False)
class _Work:
    """A copy under way. `seq`: of the source's last step when it stood still; any other is a change. `froze`: it was frozen for this."""

    source: str
    seq: int = -1
    froze: bool = False
    was_front: bool = False
    end: Callable[[], None] = lambda: None
    changed: str = ""
    frozen_s: float | None = None
    copied: Copied | None = None


@define(eq=False, repr=False)
class Copies:
    """One a boot. `run`: the spawner's. `sweep` deletes what was taken away."""

    means: Means
    life: Life
    verbs: PersonaVerbs
    run: copying.Run
    sweep: Callable[[], None]
    _work: dict[str, _Work] = field(init=False, factory=dict)  # by the name of what is made
    _asked: dict[str, Reply] = field(init=False, factory=dict)

    def __attrs_post_init__(self) -> None:
        for kind in _WORDS:
            self.means.engine.on(kind, call=self._stepped)
        lost = (storage.S.DETACHED, storage.S.WEDGED, storage.S.FULL, storage.S.READONLY)
        self.means.engine.on("storage", *lost, call=self._lost, of=self.means.state.storage)

    # ---- the methods

    def clone(self, params: Mapping[str, Any], reply: Reply) -> None:
        """Make a persona `name` as a copy of `source`, a persona or a snapshot; answered when it is there, or when it is given up."""
        name, source = lookup.name(params), self.source(params["source"])
        self.need_rest(source)
        wanted = kept.manifest_of(source)
        self.need_disk()
        self._if_free(name, reply, partial(self._make, name, wanted, reply, {SOURCE: source.name, ARCHIVE: ""}))

    def bring(self, params: Mapping[str, Any], reply: Reply) -> None:
        """Make a persona `name` of the file `archive`, whose manifest is `manifest`; answered as `clone` is.

        What that asks for beyond its own four walls is refused unless `accept` is true.
        """
        name, archive, wanted = lookup.name(params), params["archive"], manifest.from_wire(params["manifest"])
        if not isinstance(archive, str) or not archive.startswith("/"):
            raise RefusedError("archive is the whole path of a file. Nothing was changed")
        asks = grants.asked(wanted)
        if asks and params.get("accept") is not True:
            raise RefusedError(f"its manifest asks for {'; '.join(asks)}: import it with --accept if it may have that. Nothing was changed")
        self.need_disk()
        self._if_free(name, reply, partial(self._make, name, wanted, reply, {SOURCE: "", ARCHIVE: archive}))

    def _if_free(self, name: names.Name, reply: Reply, make: Callable[[], None]) -> None:
        """Go on unless a home of that name is kept, of one that was removed."""

        def looked(answer: Answer) -> None:
            if not answer.ok:
                reply(RefusedError(f"the disk does not say whether there is a home of {name.semantic}: {answer.why}. Nothing was changed"))
            elif not answer.value:
                reply(RefusedError(_in_the_way(name)))
            else:
                make()

        there = self.means.engine.instances.get(name.semantic)
        if there is not None and there.now is not S.ABSENT:
            make()  # which the table refuses
        else:
            self.life.ask("home_is_free", looked, name=name.podman)

    def source(self, name: Any) -> Instance:
        """Return whose home is to be copied: a persona, or a snapshot. `RefusedError`: there is none."""
        if names.is_snapshot(name):
            return kept.find(self.means.engine, self.verbs.replay, name)
        return lookup.persona(self.means.engine, self.verbs.replay, {"name": name})

    @staticmethod
    def need_rest(source: Instance) -> None:
        """Refuse to copy what is on its way somewhere."""
        if source.now not in COPIED_FROM:
            raise RefusedError(f"{source.name} is {source.now.value}; ask again when it rests, or stop it first. Nothing was changed")

    def need_disk(self) -> None:
        """Refuse what the disk could not keep, or has no time for."""
        self.means.state.need_durable()
        self.means.state.keep_out_a_crowd()

    def _make(self, name: names.Name, wanted: Manifest, reply: Reply, context: dict[str, str]) -> None:
        event, why = (E.IMPORT, "") if context[ARCHIVE] else (E.CLONE, f"of {context[SOURCE]}")
        try:
            self.verbs.make(name, wanted, event, self.taken(name.semantic, reply), why=why, **context)
        except RefusedError as refusal:
            reply(refusal)

    def taken(self, name: str, reply: Reply) -> Callable[[Any], None]:
        """Return what hears of the step that asks for a copy; `reply` has the answer when the copy is in its place, or given up."""

        def taken(result: Step | Exception | None) -> None:
            if isinstance(result, Exception):
                reply(result)
            else:
                self._asked[name] = reply

        return taken

    def give_up(self, params: Mapping[str, Any], reply: Reply) -> None:
        """Give up the copy that becomes `name`, a persona's home or a snapshot; what is whole already stays. Answered once that is decided."""
        name = names.snapshot(params["name"]).semantic if names.is_snapshot(params["name"]) else lookup.name(params).semantic
        instance = self.means.engine.instances.get(name)
        if name not in self._work or instance is None:
            reply({"given_up": False})
            return
        self.means.engine.send(name, _words(instance).stop, "", lambda result: reply(result if isinstance(result, Exception) else {"given_up": True}))

    def progress(self, params: Mapping[str, Any], reply: Reply) -> None:
        """Answer with how far the copy is that becomes `name`; {} while there is none, or it does not say."""
        name = names.snapshot(params["name"]) if names.is_snapshot(params["name"]) else lookup.name(params)
        reply(copying.progress(name.podman) if name.semantic in self._work else {})

    # ---- the effects

    def copy(self, instance: Instance) -> flow.Flow[Outcome_]:
        """Copy a home beside the place where it is to be."""
        work = self._work[instance.name] = _Work(str(instance.context.get(SOURCE, "")))
        archive = str(instance.context.get(ARCHIVE, ""))
        why = yield from (self._unpack(instance, work, archive) if archive else self._copy(instance, work))
        self._thaw(work)
        words = _words(instance)
        if why or work.copied is None:
            return words.fault, why
        how = f"{work.copied.entries} entries, {work.copied.bytes} bytes" + _frozen_for(work)
        made = kept.becomes(instance, self.means.engine.instances.get(work.source), work.copied)
        return (words.copied, how) if made is None else (words.copied, how, made)

    def _copy(self, instance: Instance, work: _Work) -> flow.Flow[str]:
        """Return why nothing was copied, or ""."""
        engine, name = self.means.engine, names.on_disk(instance.name)
        source = engine.instances.get(work.source)
        if source is None:
            return f"{work.source} is not there any more"
        began = self.means.reactor.clock()
        if source.now is S.RUNNING:
            work.froze, work.was_front = True, self._is_front(source.name)
            self.life.send(source.name, E.PAUSE, f"to be copied to {instance.name}")
            yield from self._at_rest(source)
            if not _stands(source):
                return f"{source.name} could not be frozen: it is {source.now.value}"
            work.frozen_s = began
        if not _stands(source):
            return f"{source.name} is {source.now.value}"
        work.seq = source.seq
        begun: Answer = yield partial(self._make_room, instance, source)
        if not begun.ok:
            return f"nothing can be put beside its place: {begun.why}"
        work.copied = copying.Copied("")
        if begun.value and not work.changed:
            work.copied = yield partial(self._process, work, names.on_disk(source.name), name)
        if work.frozen_s is not None:
            work.frozen_s = self.means.reactor.clock() - work.frozen_s
        return work.changed or work.copied.why

    def _unpack(self, instance: Instance, work: _Work, archive: str) -> flow.Flow[str]:
        """Return why no home was made of an archive, or ""."""
        name = names.on_disk(instance.name)
        begun: Answer = yield partial(self.life.ask, "staging_begin_anew", name=name)
        if not begun.ok:
            return f"nothing can be put beside its place: {begun.why}"

        def process(resume: flow.Resume) -> None:
            work.end = copying.unpack(self.run, self.means.bounds.copy, archive, name, resume)

        work.copied = yield process
        return work.changed or work.copied.why

    def _make_room(self, instance: Instance, source: Instance, resume: flow.Resume) -> None:
        words = {"name": names.on_disk(instance.name), "source": names.on_disk(source.name)}
        if instance.now is S.RESTORING:
            self.life.ask("staging_begin_again", resume, **words, home=kept.read(source)["home"])
        else:
            self.life.ask("staging_begin", resume, **words)

    def _at_rest(self, source: Instance) -> flow.Flow[None]:
        """Wait until it is frozen, or is not; the table gives that a bound."""
        while source.pending is not None or source.queue or source.now is S.PAUSING:
            yield self.life.pause(LOOK_S)

    def _process(self, work: _Work, source: str, name: str, resume: flow.Resume) -> None:
        work.end = copying.start(self.run, self.means.bounds.copy, source, name, resume)

    def _thaw(self, work: _Work) -> None:
        """Let the source go on, if it was frozen for this and nothing has happened to it since, nor is it behind another one now."""
        source, froze, work.froze = self.means.engine.instances.get(work.source), work.froze, False
        if source is None or not froze or (work.was_front and not self._is_front(work.source)):
            return
        if source.now in (S.PAUSING, S.PAUSED) and work.seq in (-1, source.seq):
            work.seq = -1  # what follows is no change
            self.life.send(source.name, E.RESUME, "it is copied")

    def _is_front(self, name: str) -> bool:
        return focus.active(self.means.engine.instances[focus.NAME]) == name

    def place(self, instance: Instance, op: str = "staging_place") -> flow.Flow[Outcome_]:
        """Put the copy in its place; what the disk did not answer is asked again, since it may have been done.

        `op`: `staging_replace` where a home is there that gives way.
        """
        words = _words(instance)
        while True:
            if self.means.state.healthy:
                placed: Answer = yield partial(self.life.ask, op, name=names.on_disk(instance.name))
                if placed.ok:
                    return words.placed, ""
                if placed.code == MISPLACED and op == "staging_place":
                    return words.fault, placed.why
            yield self.life.pause(AGAIN_S)

    # ---- news

    def _stepped(self, instance: Instance, step: Step) -> None:
        for work in self._work.values():
            if work.source == instance.name and 0 <= work.seq < step.seq:
                if step.source == step.dest:  # what it is made of was changed, and nothing in its home
                    work.seq = step.seq
                else:
                    self._changed(work, f"{instance.name} did not stand still: it is {instance.now.value}")
        under_way = _words(instance).under_way
        if step.source in under_way and step.dest not in under_way:
            self._ended(instance, step)

    def _changed(self, work: _Work, why: str) -> None:
        work.changed = work.changed or why
        work.end()

    def _lost(self, _storage: Instance, step: Step) -> None:
        """End every copy: the disk is not what it was. What is whole and on its way to its place may be there: it is asked for again."""
        for name, work in tuple(self._work.items()):
            instance = self.means.engine.instances.get(name)
            if instance is not None and instance.now in COPIES:
                self._changed(work, f"the disk failed: {step.why}")
                self.life.send(name, _words(instance).fault, work.changed)

    def _ended(self, instance: Instance, step: Step) -> None:
        """Answer who asked for it: it is there, or it is given up."""
        work, reply = self._work.pop(instance.name, None), self._asked.pop(instance.name, None)
        if work is not None:
            work.end()
            self._thaw(work)
        placed = step.event == E.PLACED.value
        if placed:
            self.sweep()  # of the home that gave way
        elif self.means.state.healthy:
            self.life.ask("staging_drop", lambda _answer: self.sweep(), name=names.on_disk(instance.name))
        if reply is None:
            return
        if not placed:
            there = f"there is no {instance.name}" if step.dest == S.ABSENT.value else f"{instance.name} is {step.dest}"
            reply(RefusedError(f"{there}: {step.why}. Nothing was changed"))
            return
        copied = work.copied if work is not None and work.copied is not None else copying.Copied("")
        told = {"entries": copied.entries, "bytes": copied.bytes, "frozen_s": work.frozen_s if work is not None else None}
        facts = kept.facts(instance) if instance.definition.kind == "snapshot" else self.verbs.facts(instance)
        reply({**facts, "copied": told})


def _stands(source: Instance) -> bool:
    """Tell whether it changes nothing in its home."""
    return source.pending is None and source.now in STAND


def _in_the_way(name: names.Name) -> str:
    return (
        f"a home of {name.semantic} is kept on the disk, of one that was removed; take another name, or delete that home: "
        f"`bay0 persona create {name.label}`, `bay0 persona remove {name.label} --home`. Nothing was changed"
    )


def _frozen_for(work: _Work) -> str:
    return "" if work.frozen_s is None else f"; {work.source} was frozen for {work.frozen_s:.1f} s"
