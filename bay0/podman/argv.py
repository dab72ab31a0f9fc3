"""podman's command lines and its configuration: pure text. Facts: podman-run(1), containers.conf(5), containers-storage.conf(5), podman 5.4.

Every option is one word `--option=value`, and what the caller named stands behind `--`: no text of his can become an option.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

from attrs import frozen

from bay0.base.uids import UIDS

CONF_DIR = "/run/containers"
CONF = f"{CONF_DIR}/containers.conf"
STORAGE_CONF = f"{CONF_DIR}/storage.conf"
CONMON = f"{CONF_DIR}/conmon"
CONMON_GROUP = "/sys/fs/cgroup/conmon"
TMP_DIR = "/run/libpod"
RUNROOT = f"{CONF_DIR}/storage"
RUNTIME = "/run/crun"  # of each container the configuration that it has made, an OCI one
EXITS = f"{TMP_DIR}/exits"
# One JSON object a line; the last line says that nothing was cut off, so silence cannot pass for "there is none".
_FIELDS = ("ID", "Names", "State", "ExitCode", "Pid", "Image", "Labels")
_CONTAINER = ",".join(f'"{name.lower()}":{{{{json .ListContainer.{name}}}}}' for name in _FIELDS)
_IMAGE = '"id":{{json .ID}},"names":{{json .ImageSummary.Names}},"size":{{json .ImageSummary.Size}}'
_LINES = '{{range .}}{%s}{{"\\n"}}{{end}}{"end":true}'


@frozen
class RunSpec:
    """A container to be made and started. `memory`, `log_size` in bytes, `stop_s` in seconds; `uid_base` is root's uid outside.

    `mounts`: (directory or file outside, path inside, "rw" or "ro"); owners are as inside, so uid 0 inside writes uid 0 on the disk.
    "" for `workdir`, `hostname` and `user` means the image's and podman's own, as None does for `cpu_shares` (1024 is a weight of 100).
    """

    name: str
    image: str
    command: Sequence[str]
    environment: Mapping[str, str]
    labels: Mapping[str, str]
    memory: int
    cpus: float
    pids: int
    capabilities: Sequence[str]
    cgroup_parent: str
    uid_base: int
    mounts: Sequence[tuple[str, str, str]]
    workdir: str
    hostname: str
    log_path: str
    log_size: int
    oom_score_adj: int
    read_only: bool
    stop_s: float
    cpu_shares: int | None = None
    user: str = ""
    seccomp: str = ""  # a filter of its own; "" means podman's default
    rootfs: str = ""  # a directory to run in, in place of an image
    netns: str = ""  # a network namespace that is there; "" is one with lo alone
    dns: str = ""  # what /etc/resolv.conf names; "" leaves the image's


def run(spec: RunSpec) -> list[str]:
    """Make a container and start it; prints its id.

    No `--init`: catatonit is not in the image, so a command that does not ask for TERM is killed after `stop_s`. Volumes and health checks
    that an image declares are ignored: the first would be left behind, the second need systemd.
    """
    return ["run", "--detach", *_container(spec)]


def create(spec: RunSpec) -> list[str]:
    """Make a container and start nothing of it; prints its id."""
    return ["create", *_container(spec)]


def init(name: str) -> list[str]:
    """Have the runtime prepare a container that was made: only its program has not begun; prints the name."""
    return ["init", "--", name]


def start(name: str) -> list[str]:
    """Let the program of such a container begin; prints the name."""
    return ["start", "--", name]


def _container(spec: RunSpec) -> list[str]:
    return [
        "--pull=never", *_network(spec), "--systemd=false", "--no-healthcheck", "--image-volume=ignore",
        f"--name={spec.name}",
        *_identity(spec),
        *_limits(spec),
        *_places(spec),
        *(f"--env={key}={value}" for key, value in spec.environment.items()),
        *(f"--label={key}={value}" for key, value in spec.labels.items()),
        *(["--rootfs"] if spec.rootfs else ()), "--", spec.rootfs or spec.image, *spec.command,
    ]  # fmt: skip


def _network(spec: RunSpec) -> list[str]:
    """Without `--dns` podman would name servers of its own choice in a namespace that is not its own making."""
    return [f"--network=ns:{spec.netns}", f"--dns={spec.dns or 'none'}"] if spec.netns else ["--network=none"]


def _identity(spec: RunSpec) -> list[str]:
    """Who it is outside, and what it may do."""
    return [
        f"--uidmap=0:{spec.uid_base}:{UIDS}", f"--gidmap=0:{spec.uid_base}:{UIDS}", "--cap-drop=all",
        *(f"--cap-add={capability}" for capability in spec.capabilities), "--security-opt=no-new-privileges",
        *([f"--user={spec.user}"] if spec.user else ()),
        *([f"--security-opt=seccomp={spec.seccomp}"] if spec.seccomp else ()),
    ]  # fmt: skip


def _limits(spec: RunSpec) -> list[str]:
    return [
        f"--cgroup-parent={spec.cgroup_parent}", f"--memory={spec.memory}b", f"--memory-swap={spec.memory}b", f"--cpus={spec.cpus:.3f}",
        *([f"--cpu-shares={spec.cpu_shares}"] if spec.cpu_shares is not None else ()),
        f"--pids-limit={spec.pids}", f"--oom-score-adj={spec.oom_score_adj}", f"--stop-timeout={math.ceil(spec.stop_s)}",
    ]  # fmt: skip


def _places(spec: RunSpec) -> list[str]:
    """Say what it sees of the disk, and where its output goes: one file that conmon starts anew when it is full."""
    return [
        f"--read-only={json.dumps(spec.read_only)}", *(_mount(*mount) for mount in spec.mounts),
        *([f"--workdir={spec.workdir}"] if spec.workdir else ()), *([f"--hostname={spec.hostname}"] if spec.hostname else ()),
        "--log-driver=k8s-file", f"--log-opt=path={spec.log_path}", f"--log-opt=max-size={spec.log_size}",
    ]  # fmt: skip


def _mount(source: str, target: str, mode: str) -> str:
    # idmap: an id-mapped mount (mount_setattr(2)), so that nothing on the disk has to be chowned to the container's uids
    options = ["type=bind", f"source={source}", f"destination={target}", f"ro={json.dumps(mode != 'rw')}", "idmap", "nosuid", "nodev"]
    return "--mount=" + ",".join(map(_csv, options))


def _csv(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"\r\n') else text


def list_all() -> list[str]:
    """Everybody's containers, in whatever state."""
    return ["ps", "--all", "--no-trunc", "--format=" + _LINES % _CONTAINER]


def unpause(name: str) -> list[str]:
    """Thaw a container that podman calls paused, and have it call it running."""
    return ["unpause", "--", name]


def remove(names: Sequence[str], stop_s: float) -> list[str]:
    """End and remove containers, in any state; absent ones are no error. TERM, then KILL after `stop_s` seconds."""
    return ["rm", "--force", "--ignore", f"--time={math.ceil(stop_s)}", "--", *names]


def image_load(path: str) -> list[str]:
    """Load an archive of images (docker-archive or oci-archive); prints their names."""
    return ["load", "--quiet", f"--input={path}"]


def image_list() -> list[str]:
    """All images; one with several names is listed once for each."""
    return ["images", "--all", "--no-trunc", "--format=" + _LINES % _IMAGE]


def image_remove(name: str) -> list[str]:
    """Take the name from an image; without a name left it is deleted. Refused while a container uses it."""
    return ["image", "rm", "--", name]


def check(*, repair: bool, force: bool = True) -> list[str]:
    """Look for damage in podman's storage. `repair` DELETES what is damaged: images, and with `force` containers too, be they running."""
    return ["system", "check", *(("--repair",) if repair else ()), *(("--force",) if repair and force else ())]


# ---- configuration


@frozen
class StoragePaths:
    """Where podman keeps what outlives a boot. `image_copy_tmp_dir` must exist; podman makes the others."""

    graphroot: str
    static_dir: str
    volume_path: str
    image_copy_tmp_dir: str


# podman 5.4 means to move conmon out of its caller's cgroup but only makes the directory (its AddPid of cgroup v2 forgets the pid). There it
# would be ended together with the command, and a container without conmon has no log and no exit status.
_CONMON = f"""\
#!/bin/sh
mkdir -p {CONMON_GROUP} && echo 0 >{CONMON_GROUP}/cgroup.procs
exec /usr/bin/conmon "$@"
"""

_CONTAINERS_CONF = """\
[containers]
default_ulimits = ["nofile=1024:1024"]
log_driver = "k8s-file"

[network]
network_config_dir = "/run/containers/networks"

[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
events_logfile_path = "/run/containers/events.log"
runtime = "crun"
conmon_path = [%s]
tmp_dir = %s
static_dir = %s
volume_path = %s
image_copy_tmp_dir = %s
"""

_STORAGE_CONF = """\
[storage]
driver = "overlay"
graphroot = %s
runroot = %s
"""


def config_files(paths: StoragePaths) -> dict[str, str]:
    """Return path -> text of podman's configuration; a text that begins with `#!` is a program.

    runroot and tmp_dir are on tmpfs: by that podman notices a reboot.
    """
    disk = (paths.static_dir, paths.volume_path, paths.image_copy_tmp_dir)
    containers = _CONTAINERS_CONF % tuple(map(_toml, (CONMON, TMP_DIR, *disk)))
    return {CONMON: _CONMON, CONF: containers, STORAGE_CONF: _STORAGE_CONF % (_toml(paths.graphroot), _toml(RUNROOT))}


def environment(paths: StoragePaths) -> dict[str, str]:
    """Return what podman needs in its environment to find that configuration."""
    return {"CONTAINERS_CONF": CONF, "CONTAINERS_STORAGE_CONF": STORAGE_CONF, "TMPDIR": paths.image_copy_tmp_dir}


def _toml(text: str) -> str:
    return json.dumps(text)  # a JSON string is a basic string of TOML
