"""Personas that are made as copies of others: what their states COPYING and PLACING owe, and `persona.clone`.

Theory of operation. A copy is made by a process of its own (bay0/state/copier.py) beside its place, and put there by one rename,
so it is there whole or not at all. Who is copied must not change meanwhile: it is stopped, or frozen for as long as that takes.
Nobody is kept from starting it again, or from thawing it: that counts as a change, and ends the copy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import define, field

from bay0.base import names
from bay0.base.errors import RefusedError
from bay0.containers import lookup
from bay0.machines import focus, storage
from bay0.machines.persona import E, S
from bay0.personas import port as personas
from bay0.pid1 import flow
from bay0.state import copying
from bay0.state.link import MISPLACED

if TYPE_CHECKING:
    from bay0.containers.life import Life, Means, Outcome_
    from bay0.control.server import Reply
    from bay0.machines.instance import Instance, Step
    from bay0.personas.methods import PersonaVerbs
    from bay0.state.copying import Copied
    from bay0.state.link import Answer

SOURCE = "copy_of"  # in the context of a machine that is COPYING
LOOK_S = 0.1  # at the freeze of who is copied
AGAIN_S = 1.0  # until a disk that gave no answer is asked again
STAND = (S.STOPPED, S.FAILED, S.PAUSED)
COPIED_FROM = (*STAND, S.RUNNING)


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
        self.means.engine.on("persona", call=self._stepped)
        lost = (storage.S.DETACHED, storage.S.WEDGED, storage.S.FULL, storage.S.READONLY)
        self.means.engine.on("storage", *lost, call=self._lost, of=self.means.state.storage)

    # ---- the methods

    def clone(self, params: Mapping[str, Any], reply: Reply) -> None:
        """Make a persona `name` as a copy of `source`; answered when it is there, or when it is given up."""
        source = lookup.persona(self.means.engine, self.verbs.replay, {"name": params["source"]})
        name = lookup.name(params)
        if source.now not in COPIED_FROM:
            raise RefusedError(f"{source.name} is {source.now.value}; ask again when it rests, or stop it first. Nothing was changed")
        config = personas.read_config(source.config)
        if config is None:
            raise RefusedError(f"{source.name} is not copied: {personas.not_understood(source.config)}. Nothing was changed")
        self.means.state.need_durable()
        self.means.state.keep_out_a_crowd()

        def looked(answer: Answer) -> None:
            if not answer.ok:
                reply(RefusedError(f"the disk does not say whether there is a home of {name.semantic}: {answer.why}. Nothing was changed"))
            elif not answer.value:
                reply(RefusedError(_kept(name)))
            else:
                self._begin(name, config, source, reply)

        there = self.means.engine.instances.get(name.semantic)
        if there is not None and there.now is not S.ABSENT:
            self._begin(name, config, source, reply)  # which the table refuses
        else:
            self.life.ask("home_is_free", looked, name=name.podman)

    def _begin(self, name: names.Name, config: personas.Config, source: Instance, reply: Reply) -> None:
        def taken(result: Step | Exception | None) -> None:
            if isinstance(result, Exception):
                reply(result)
            else:
                self._asked[name.semantic] = reply

        try:
            self.verbs.make(name, config.manifest, E.CLONE, taken, why=f"of {source.name}", **{SOURCE: source.name})
        except RefusedError as refusal:
            reply(refusal)

    def progress(self, params: Mapping[str, Any], reply: Reply) -> None:
        """Answer with how far the copy is that becomes `name`; {} while there is none, or it does not say."""
        name = lookup.name(params)
        reply(copying.progress(name.podman) if name.semantic in self._work else {})

    # ---- the effects

    def copy(self, instance: Instance) -> flow.Flow[Outcome_]:
        """Copy a home beside the place where it is to be."""
        work = self._work[instance.name] = _Work(str(instance.context.get(SOURCE, "")))
        why = yield from self._copy(instance, work)
        self._thaw(work)
        if why or work.copied is None:
            return E.FAULT, why
        return E.COPIED, f"{work.copied.entries} entries, {work.copied.bytes} bytes" + _frozen_for(work)

    def _copy(self, instance: Instance, work: _Work) -> flow.Flow[str]:
        """Return why nothing was copied, or ""."""
        engine, name = self.means.engine, names.parse(instance.name).podman
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
        begun: Answer = yield partial(self.life.ask, "staging_begin", name=name, source=names.parse(source.name).podman)
        if not begun.ok:
            return f"nothing can be put beside its place: {begun.why}"
        work.copied = copying.Copied("")
        if begun.value and not work.changed:
            work.copied = yield partial(self._process, work, names.parse(source.name).podman, name)
        if work.frozen_s is not None:
            work.frozen_s = self.means.reactor.clock() - work.frozen_s
        return work.changed or work.copied.why

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

    def place(self, instance: Instance) -> flow.Flow[Outcome_]:
        """Put the copy in its place; what the disk did not answer is asked again, since it may have been done."""
        name = names.parse(instance.name).podman
        while True:
            if self.means.state.healthy:
                placed: Answer = yield partial(self.life.ask, "staging_place", name=name)
                if placed.ok:
                    return E.PLACED, ""
                if placed.code == MISPLACED:
                    return E.FAULT, placed.why
            yield self.life.pause(AGAIN_S)

    # ---- news

    def _stepped(self, instance: Instance, step: Step) -> None:
        for work in self._work.values():
            if work.source == instance.name and 0 <= work.seq < step.seq:
                if step.source == step.dest:  # what it is made of was changed, and nothing in its home
                    work.seq = step.seq
                else:
                    self._changed(work, f"{instance.name} did not stand still: it is {instance.now.value}")
        if step.source in (S.COPYING.value, S.PLACING.value) and step.dest != S.PLACING.value:
            self._ended(instance, step)

    def _changed(self, work: _Work, why: str) -> None:
        work.changed = work.changed or why
        work.end()

    def _lost(self, _storage: Instance, step: Step) -> None:
        """End every copy: the disk is not what it was."""
        for name, work in tuple(self._work.items()):
            self._changed(work, f"the disk failed: {step.why}")
            self.life.send(name, E.FAULT, work.changed)

    def _ended(self, instance: Instance, step: Step) -> None:
        """Answer who asked for it: it is there, or it is given up."""
        work, reply = self._work.pop(instance.name, None), self._asked.pop(instance.name, None)
        if work is not None:
            work.end()
            self._thaw(work)
        if step.dest == S.ABSENT.value:
            if self.means.state.healthy:
                self.life.ask("staging_drop", lambda _answer: self.sweep(), name=names.parse(instance.name).podman)
            if reply is not None:
                reply(RefusedError(f"there is no {instance.name}: {step.why}. Nothing was changed"))
        elif reply is not None:
            copied = work.copied if work is not None and work.copied is not None else copying.Copied("")
            told = {"entries": copied.entries, "bytes": copied.bytes, "frozen_s": work.frozen_s if work is not None else None}
            reply({**self.verbs.facts(instance), "copied": told})


def _stands(source: Instance) -> bool:
    """Tell whether it changes nothing in its home."""
    return source.pending is None and source.now in STAND


def _kept(name: names.Name) -> str:
    return (
        f"a home of {name.semantic} is kept on the disk, of one that was removed; take another name, or delete that home: "
        f"`bay0 persona create {name.label}`, `bay0 persona remove {name.label} --home`. Nothing was changed"
    )


def _frozen_for(work: _Work) -> str:
    return "" if work.frozen_s is None else f"; {work.source} was frozen for {work.frozen_s:.1f} s"
