"""The boot sequence as a machine: one instance a boot, from BEGIN to the moment the power goes.

Theory of operation. Each busy state is one stage. A stage that fails is logged and the next one starts: the spine comes up
as far as it can, because a machine that does not boot cannot be repaired. What was lost is kept as the boot's *dirty* reason.
A request to stop wins over every stage. The last step that can reach the disk is STOPPING -> LEAVING; a later boot that
finds LEAVING stored knows the earlier one left as asked, and any other state means it died there.

FORCE is the way out when a stop hangs: everything is ended without asking podman, what answers within the bound is synced, and the
power goes by the kernel's short way. The disk is not closed, so the next boot counts such an end among the deaths.
"""

from enum import Enum

from bay0.machines.table import MachineDef, Row, StateSpec, cells


class S(Enum):
    """Stages of a boot."""

    NEW = "new"
    MOUNTING = "mounting"
    SHIELDING = "shielding"
    LOADING = "loading"
    ATTACHING = "attaching"
    RECONCILING = "reconciling"
    SERVING = "serving"
    COMPLETE = "complete"
    STOPPING = "stopping"
    LEAVING = "leaving"
    POWERING = "powering"
    CUTTING = "cutting"
    FORCING = "forcing"
    ENDED = "ended"
    DIED = "died"


class E(Enum):
    """What can happen to a boot."""

    BEGIN = "begin"
    DONE = "done"
    DURABLE = "durable"
    DIRTY = "dirty"
    CLOSED = "closed"
    POWEROFF = "poweroff"
    REBOOT = "reboot"
    FORCE = "force"
    FAULT = "fault"
    TIMED_OUT = "timed_out"
    CONVERGE = "converge"


class Effect(Enum):
    """What a stage owes."""

    MOUNT_KERNEL_FS = "mount_kernel_fs"
    SHIELD = "shield"
    LOAD_MODULES = "load_modules"
    ATTACH_STORAGE = "attach_storage"
    RECONCILE = "reconcile"
    START_SERVICES = "start_services"
    STOP_SERVICES = "stop_services"
    CLOSE_STORAGE = "close_storage"
    POWER = "power"
    END_ALL = "end_all"
    POWER_NOW = "power_now"


SPECS = (
    StateSpec(S.NEW, "the kernel has just started us"),
    StateSpec(S.MOUNTING, "proc, sys, dev, run, tmp, cgroup2", busy=Effect.MOUNT_KERNEL_FS, deadline_s=5),
    StateSpec(S.SHIELDING, "oom score, own cgroup, watchdog, no network", busy=Effect.SHIELD, deadline_s=5),
    StateSpec(S.LOADING, "kernel modules", busy=Effect.LOAD_MODULES, deadline_s=5),
    StateSpec(S.ATTACHING, "/persist is found, mounted, opened, migrated", busy=Effect.ATTACH_STORAGE, deadline_s=30),
    StateSpec(S.RECONCILING, "stored machines are driven to stopped", busy=Effect.RECONCILE, deadline_s=20),
    StateSpec(S.SERVING, "the console and what else belongs to the spine", busy=Effect.START_SERVICES, deadline_s=10),
    StateSpec(S.COMPLETE, "init complete"),
    StateSpec(S.STOPPING, "personas and services are stopped", busy=Effect.STOP_SERVICES, deadline_s=25),
    StateSpec(S.LEAVING, "the database is closed, /persist unmounted", busy=Effect.CLOSE_STORAGE, deadline_s=12),
    StateSpec(S.POWERING, "reboot(2) is owed", busy=Effect.POWER, deadline_s=5),
    StateSpec(S.CUTTING, "all is killed, what answers is synced", busy=Effect.END_ALL, deadline_s=2),
    StateSpec(S.FORCING, "sysrq is owed", busy=Effect.POWER_NOW, deadline_s=5),
    StateSpec(S.ENDED, "it left as it was asked to", converged=True),
    StateSpec(S.DIED, "power loss or crash", converged=True),
)

STAGES = (S.MOUNTING, S.SHIELDING, S.LOADING, S.ATTACHING, S.RECONCILING, S.SERVING)
FORCED = (S.CUTTING, S.FORCING)
LEAVES = (S.STOPPING, S.LEAVING, S.POWERING, *FORCED)
OVER = (S.ENDED, S.DIED)


def _onward(source: S, dest: S, went_well: str) -> tuple[Row, ...]:
    """Give a stage its three ways on: all lead to the next stage, each for its own reason."""
    return (
        Row(source, E.DONE, dest, went_well),
        Row(source, E.FAULT, dest, f"{source.value} failed, the boot goes on without it"),
        Row(source, E.TIMED_OUT, dest, f"{source.value} took too long, the boot goes on without it"),
    )


ROWS = (
    Row(S.NEW, E.BEGIN, S.MOUNTING, "the kernel handed over"),
    *_onward(S.MOUNTING, S.SHIELDING, "mounted proc/sys/dev"),
    *_onward(S.SHIELDING, S.LOADING, "PID 1 is shielded"),
    *_onward(S.LOADING, S.ATTACHING, "drivers are there"),
    Row(S.ATTACHING, E.DURABLE, S.RECONCILING, "/persist keeps what it is told"),
    Row(S.ATTACHING, E.DIRTY, S.RECONCILING, "dirty boot: nothing will be kept"),
    Row(S.ATTACHING, E.FAULT, S.RECONCILING, "dirty boot: storage failed"),
    Row(S.ATTACHING, E.TIMED_OUT, S.RECONCILING, "dirty boot: storage gave no answer"),
    *_onward(S.RECONCILING, S.SERVING, "reality matches intent"),
    *_onward(S.SERVING, S.COMPLETE, "init complete"),
    *(Row(s, E.POWEROFF, S.STOPPING, "asked to power off") for s in (S.NEW, *STAGES, S.COMPLETE)),
    *(Row(s, E.REBOOT, S.STOPPING, "asked to reboot") for s in (S.NEW, *STAGES, S.COMPLETE)),
    *_onward(S.STOPPING, S.LEAVING, "services are stopped"),
    Row(S.LEAVING, E.CLOSED, S.POWERING, "the disk is closed"),
    Row(S.LEAVING, E.FAULT, S.POWERING, "the disk could not be closed: its journal replays what is missing"),
    Row(S.LEAVING, E.TIMED_OUT, S.POWERING, "the disk did not close in time: its journal replays what is missing"),
    Row(S.POWERING, E.FAULT, S.POWERING, "reboot(2) failed: again, by the short way"),
    Row(S.POWERING, E.TIMED_OUT, S.POWERING, "reboot(2) hangs: again, by the short way"),
    *(Row(s, E.FORCE, S.CUTTING, "asked to end by force") for s in (S.NEW, *STAGES, S.COMPLETE, S.STOPPING, S.LEAVING)),
    Row(S.POWERING, E.FORCE, S.FORCING, "asked to end by force"),
    Row(S.CUTTING, E.DONE, S.FORCING, "what answers is synced"),
    Row(S.CUTTING, E.FAULT, S.FORCING, "nothing could be synced: the disk's journal replays what is missing"),
    Row(S.CUTTING, E.TIMED_OUT, S.FORCING, "the sync gave no answer: the disk's journal replays what is missing"),
    Row(S.FORCING, E.FAULT, S.FORCING, "the kernel did not take it: a restart, whatever was asked for"),
    Row(S.FORCING, E.TIMED_OUT, S.FORCING, "the power is still on: a restart, whatever was asked for"),
    Row(S.NEW, E.CONVERGE, S.DIED, "an earlier boot died before its first stage"),
    *(Row(s, E.CONVERGE, S.DIED, f"an earlier boot died in {s.value}") for s in STAGES),
    Row(S.COMPLETE, E.CONVERGE, S.DIED, "an earlier boot lost power or crashed while it ran"),
    Row(S.STOPPING, E.CONVERGE, S.DIED, "an earlier boot died while it stopped its services"),
    *(Row(s, E.CONVERGE, S.DIED, "an earlier boot was ended by force") for s in FORCED),
    Row(S.LEAVING, E.CONVERGE, S.ENDED, "an earlier boot left as it was asked to"),
    Row(S.POWERING, E.CONVERGE, S.ENDED, "an earlier boot left as it was asked to"),
)

IGNORED = {
    **cells((S.NEW, S.COMPLETE, *OVER), (E.DONE, E.FAULT, E.TIMED_OUT), "no stage is under way"),
    **cells((S.ATTACHING, S.LEAVING, S.POWERING, S.FORCING), (E.DONE,), "storage or the kernel ends this stage"),
    **cells([s for s in S if s is not S.ATTACHING], (E.DURABLE, E.DIRTY), "the boot waits for storage in one stage only"),
    **cells([s for s in S if s is not S.LEAVING], (E.CLOSED,), "the boot waits for the disk to close in one stage only"),
    **cells(OVER, (E.CONVERGE,), "it is over already"),
    **cells([s for s in S if s is not S.NEW], (E.BEGIN,), "it has begun already"),
}
REFUSED = {
    **cells(LEAVES, (E.POWEROFF, E.REBOOT), "the spine is going down already"),
    **cells(FORCED, (E.FORCE,), "the spine is ending by force already"),
    **cells(OVER, (E.POWEROFF, E.REBOOT, E.FORCE), "that boot is over"),
}

BOOT = MachineDef("boot", S, E, S.NEW, SPECS, ROWS, IGNORED, REFUSED)
