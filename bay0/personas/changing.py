"""What a persona is made of is changed: a step of its machine, and what the kernel can change of one that runs at once.

The step is kept first, so whatever becomes of the rest the next start is as asked. Then a command of the spine writes the limits into the
container's cgroup: a smaller memory.max makes its writer wait until so much is given back (cgroup-v2.rst, memory.max), so that is not PID 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from attrs import define, fields

from bay0.base.errors import RefusedError
from bay0.containers import lookup
from bay0.effects import cgroup, gauges
from bay0.effects.readings import pairs
from bay0.machines.persona import E, S
from bay0.personas import manifest
from bay0.personas import port as personas

if TYPE_CHECKING:
    from bay0.base.bounds import Bounds
    from bay0.control.server import Reply
    from bay0.effects.spawn import Result
    from bay0.machines.engine import Engine
    from bay0.machines.instance import Instance, Step
    from bay0.personas.manifest import Manifest
    from bay0.personas.port import Personas
    from bay0.reconcile.replay import Replay

KERNEL = ("cpus", "pids", "memory")  # what is written into the cgroup, in this order: the last may take its time
AT_NEED = ("behind", "restart", "retries", "stop_s", "autostart", "description")  # what is looked up when it is needed
NOW, SWITCH, START = "now", "at the next switch of the focus", "at its next start"
PERIOD_US = 100_000  # of cpu.max; the kernel's default, and podman's
STAT_MAX = 16 << 10  # bytes of memory.stat
CACHE = ("inactive_file", "active_file", "slab_reclaimable")  # what the kernel gives back when less is allowed
# a limit that cannot be written ends it with the shell's own words; nothing is made, cgroup files only are there or not
WRITE = 'cd "$1" && shift && while [ $# -gt 0 ]; do echo "$2" >"$1" || exit 1; shift 2; done'
Run = Callable[[str, tuple[str, ...], float, Callable[["Result"], None]], object]  # the spawner's
Facts = Callable[["Instance"], dict[str, Any]]


def used(directory: str) -> int:
    """Return the bytes that a group could not give back: what it has without the cache of files."""
    stat = pairs(gauges.read(f"{directory}/memory.stat", STAT_MAX))
    return max(0, gauges.memory(directory) - sum(stat.get(key, 0) for key in CACHE))


def limits(wanted: Manifest, keys: list[str]) -> dict[str, str]:
    """Return what to write for these keys: file of the cgroup -> value."""
    files = {
        "cpus": ("cpu.max", f"{int(wanted.cpus * PERIOD_US)} {PERIOD_US}"),
        "pids": ("pids.max", str(wanted.pids)),
        "memory": ("memory.max", str(wanted.memory)),
    }
    return dict(files[key] for key in KERNEL if key in keys)


@define(eq=False, repr=False)
class Changing:
    """The method. `facts` describes a persona; `limited` hears which container may have how many processors now."""

    engine: Engine
    bounds: Bounds
    log: Any
    run: Run
    personas: Personas
    replay: Replay
    facts: Facts
    limited: Callable[[str, str, float], None]

    def configure(self, params: Mapping[str, Any], reply: Reply) -> None:
        """Change a persona to `manifest`, or by `changes`: key -> value, null for the default. Durable before the answer.

        `if_digest`: refuse if it is another one by now. The answer says when each key counts (`changed`), and `failed` why the
        kernel did not take what it was to take at once.
        """
        instance = lookup.persona(self.engine, self.replay, params)
        config = personas.read_config(instance.config)
        if config is None:
            raise RefusedError(f"{instance.name} is not changed: {personas.not_understood(instance.config)}")
        if instance.pending is not None or instance.queue:  # what it is made of may be about to change
            raise RefusedError(f"{instance.name} is being changed by somebody else; nothing was changed, ask again")
        if params.get("if_digest") not in (None, manifest.digest(config.manifest)):
            raise RefusedError(f"the manifest of {instance.name} is another one by now: look at it again. Nothing was changed")
        wanted = manifest.from_wire(_asked(config.manifest.to_wire(), params))
        keys = [each.name for each in fields(manifest.Manifest) if getattr(wanted, each.name) != getattr(config.manifest, each.name)]
        if not keys:
            reply({**self.facts(instance), "changed": {}, "failed": ""})
            return
        directory = self._directory(instance)
        if directory and "memory" in keys:
            _room(instance, wanted.memory, directory)

        def taken(result: Step | Exception | None) -> None:
            if isinstance(result, Exception):
                reply(result)
            else:
                self._kept(instance, wanted, keys, reply)

        text = personas.Config(wanted, config.slot).text()
        self.engine.send(instance.name, E.CONFIGURE, ", ".join(keys), taken, config=text)

    def _directory(self, instance: Instance) -> str:
        """Return the cgroup of the container that it has, or ""."""
        container = self.personas.container(instance.name) if instance.now in (S.RUNNING, S.PAUSED) else None
        return f"{cgroup.ROOT}{personas.GROUP}/libpod-{container}" if container else ""

    def _kept(self, instance: Instance, wanted: Manifest, keys: list[str], reply: Reply) -> None:
        """Have the kernel's part written, if it has a container still."""
        directory = self._directory(instance)
        writes = limits(wanted, keys) if directory else {}
        when = {key: _when(key, runs=bool(directory)) for key in keys}
        if not writes:
            reply({**self.facts(instance), "changed": when, "failed": ""})
            return
        container = str(self.personas.container(instance.name))

        def written(result: Result) -> None:
            failed = "" if result.ok else result.stderr.strip() or result.reason()
            if failed:
                self.log.warning("limits not changed", persona=instance.name, why=failed)
                when.update({key: START for key in keys if key in KERNEL})
            elif "cpus" in keys:
                self.limited(instance.name, container, wanted.cpus)
            reply({**self.facts(instance), "changed": when, "failed": failed})

        words = [word for pair in writes.items() for word in pair]
        self.run("limits", ("/bin/sh", "-c", WRITE, "limits", directory, *words), self.bounds.limits, written)


def _asked(wire: dict[str, Any], params: Mapping[str, Any]) -> Any:
    """Return the wire form that is asked for. `TypeError`: neither of the two ways to say so, or both."""
    whole, changes = params.get("manifest"), params.get("changes")
    if (whole is None) is (changes is None):
        raise TypeError("say either manifest, the whole one, or changes: key -> value")
    if whole is not None:
        return whole
    if not isinstance(changes, dict):
        raise TypeError("changes is an object: key -> value")
    return {key: value for key, value in {**wire, **changes}.items() if value is not None}


def _room(instance: Instance, memory: int, directory: str) -> None:
    """Refuse a limit below what it uses: the kernel would end its processes to keep it."""
    taken = used(directory)
    if taken > memory:
        raise RefusedError(
            f"{instance.name} uses {taken >> 20} MiB now, without the cache of files, and {memory >> 20} MiB are asked for: the kernel would end "
            "its processes. Stop it first, or let it free some. Nothing was changed"
        )


def _when(key: str, *, runs: bool) -> str:
    if key == "behind":
        return SWITCH
    return NOW if key in AT_NEED or (runs and key in KERNEL) else START
