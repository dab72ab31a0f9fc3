"""podman's command lines, what its answers mean, and the order in which it is asked. The texts are what podman 5.4.2 said in the VM."""

from __future__ import annotations

import json
import os
import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest
from attrs import define, evolve, field
from hypothesis import given
from hypothesis import strategies as st
from kit import Log, Timers

from bay0.base.bounds import Bounds
from bay0.base.errors import PodmanError
from bay0.effects import cgroup
from bay0.effects.spawn import CAPTURE_LIMIT, Ending, Result
from bay0.podman import argv as podman_argv
from bay0.podman import calls as podman
from bay0.podman import words as podman_words
from bay0.podman.calls import AT_ONCE, WAITING_MAX, Asker, Container, Image, Outcome, Podman, RunSpec, StoragePaths, Verdict
from bay0.podman.words import WHY_MAX, Verb, classify, judge, parse_images, parse_list

ID = "b8e5ac663970997c6ad064cc03199ee6a045ba9113e5f8c138fc6d9f10699896"
OTHER = "cd6232eb8de79592e342cc90880e11de59dc4355051e027892120321902208ae"
END = '{"end":true}'
TEXTS = ("--rm", "-v", "--", "a b", "a\nb", "q\"u'o`te", "a,b=c", "", "é", "$(x)", "--privileged=true")
SPEC = RunSpec(
    name="p__a", image="localhost/alpine:3.23", command=("sh", "-c", "sleep 5"), environment={"HOME": "/home"},
    labels={"bay0.persona": "p://a", "bay0.seq": "7"}, memory=64 << 20, cpus=0.5, pids=32, capabilities=("CAP_CHOWN", "CAP_KILL"),
    cgroup_parent="/personas", uid_base=165_536, mounts=(("/data/homes/a", "/home", "rw"), ("/run/socket", "/socket", "ro")), workdir="/home",
    hostname="a", log_path="/data/logs/a.log", log_size=65_536, oom_score_adj=300, read_only=False, stop_s=2.5,
)  # fmt: skip


def exited(status: int, stderr: str = "", stdout: str = "", dropped: int = 0) -> Result:
    return Result(Ending.EXITED, status, stdout, stderr, dropped, 0.5)


# ---- command lines


def split(argv: list[str]) -> tuple[list[str], list[str]]:
    """Options before the first bare `--`, and what podman takes as it is behind it."""
    at = argv.index("--")
    return argv[:at], argv[at + 1 :]


def test_a_container_gets_every_limit_and_loses_every_right() -> None:
    options, rest = split(podman_argv.run(SPEC))
    assert rest == ["localhost/alpine:3.23", "sh", "-c", "sleep 5"]
    assert options[0] == "run"
    wanted = {
        "--detach", "--pull=never", "--network=none", "--name=p__a", "--uidmap=0:165536:65536", "--gidmap=0:165536:65536", "--cap-drop=all",
        "--cap-add=CAP_CHOWN", "--cap-add=CAP_KILL", "--security-opt=no-new-privileges", "--cgroup-parent=/personas", "--memory=67108864b",
        "--memory-swap=67108864b", "--cpus=0.500", "--pids-limit=32", "--oom-score-adj=300", "--stop-timeout=3", "--read-only=false",
        "--workdir=/home", "--hostname=a", "--log-driver=k8s-file", "--log-opt=path=/data/logs/a.log", "--log-opt=max-size=65536",
        "--env=HOME=/home", "--label=bay0.persona=p://a", "--label=bay0.seq=7",
        "--mount=type=bind,source=/data/homes/a,destination=/home,ro=false,idmap,nosuid,nodev",
        "--mount=type=bind,source=/run/socket,destination=/socket,ro=true,idmap,nosuid,nodev",
    }  # fmt: skip
    assert wanted <= set(options)


def test_what_was_not_asked_for_is_left_to_the_image() -> None:
    options, _ = split(podman_argv.run(evolve(SPEC, workdir="", hostname="", mounts=(), capabilities=(), environment={}, labels={})))
    heads = {option.partition("=")[0] for option in options}
    assert heads.isdisjoint({"--workdir", "--hostname", "--mount", "--cap-add", "--env", "--label", "--privileged", "--replace", "--rm"})


def test_a_directory_to_run_in_takes_the_images_place() -> None:
    options, rest = split(podman_argv.run(evolve(SPEC, image="", rootfs="/:O")))
    assert (options[-1], rest) == ("--rootfs", ["/:O", "sh", "-c", "sleep 5"])


@pytest.mark.parametrize("text", TEXTS)
def test_no_text_of_the_callers_becomes_an_option(text: str) -> None:
    plain, plain_rest = split(podman_argv.run(SPEC))
    changed = evolve(
        SPEC, name=text, image=text, command=(text, text), environment={"HOME": text}, labels={"bay0.persona": text, "bay0.seq": text},
        workdir=text or "/", hostname=text or "h", log_path=text, mounts=((text, text, "rw"), (text, text, "ro")),
        cgroup_parent=text, capabilities=(text, text),
    )  # fmt: skip
    argv = podman_argv.run(changed)
    options, rest = argv[: len(plain)], argv[len(plain) + 1 :]
    assert argv[len(plain)] == "--"
    assert rest == [text] * 3
    assert [o.partition("=")[0] for o in options] == [o.partition("=")[0] for o in plain]
    assert len(plain_rest) == 4


@pytest.mark.parametrize("text", TEXTS)
def test_names_stand_behind_the_options_in_every_other_call(text: str) -> None:
    for argv in (podman_argv.start(text), podman_argv.unpause(text), podman_argv.image_remove(text), podman_argv.remove([text], 1)):
        options, rest = split(argv)
        assert rest == [text]
        assert text not in options[1:] or text in ("image", "rm")
    assert podman_argv.image_load(text)[-1] == f"--input={text}"


@given(st.text(max_size=20), st.text(max_size=20))
def test_a_mount_is_read_back_as_it_was_meant(source: str, target: str) -> None:
    """podman reads it as one record of comma-separated values (RFC 4180)."""
    import csv
    import io

    if "\r" in source + target or "\0" in source + target:
        return  # read as a line feed by Go's reader; not in any path of ours
    option = podman_argv._mount(source, target, "rw").removeprefix("--mount=")
    fields = next(csv.reader(io.StringIO(option, newline=""), strict=True))
    assert fields[1:3] == [f"source={source}", f"destination={target}"]


def test_a_container_that_is_made_in_steps_is_the_one_that_a_run_makes() -> None:
    run, create = podman_argv.run(SPEC), podman_argv.create(SPEC)
    assert (run[:2], create[0], run[2:]) == (["run", "--detach"], "create", create[1:])
    assert (podman_argv.init("p__a"), podman_argv.start("p__a")) == (["init", "--", "p__a"], ["start", "--", "p__a"])


def test_whom_a_prepared_container_will_be_is_what_the_runtime_has_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(podman_argv, "RUNTIME", str(tmp_path))
    (tmp_path / ID).mkdir()
    config = tmp_path / ID / "config.json"
    said: list[tuple[Any, tuple[int, int] | None]] = [
        ({"uid": 1234, "gid": 1235, "umask": 18, "additionalGids": [7]}, (1234, 1235)), ({"uid": 0, "gid": 0}, (0, 0)),
        ({"uid": 65_536, "gid": 0}, None), ({"uid": -1, "gid": 0}, None), ({"uid": "me"}, None), ([], None),
    ]  # fmt: skip
    for user, found in said:
        config.write_text(json.dumps({"ociVersion": "1.2.0", "process": {"user": user}}))
        assert podman.user_of(ID) == found
    config.write_text('{"process"')
    assert podman.user_of(ID) is None
    assert podman.user_of(OTHER) is None


def test_a_monitor_is_who_its_pidfile_names_while_that_is_among_the_monitors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(podman_argv, "RUNROOT", str(tmp_path))
    monkeypatch.setattr(podman, "PROC", str(tmp_path))
    pidfile = tmp_path / f"overlay-containers/{ID}/userdata/conmon.pid"
    for directory in (pidfile.parent, tmp_path / "604"):
        directory.mkdir(parents=True)
    pidfile.write_text("604")
    (tmp_path / "604/cgroup").write_text("0::/conmon\n")
    assert podman.monitor(ID) == 604
    (tmp_path / "604/cgroup").write_text("0::/personas/libpod-1\n")
    assert podman.monitor(ID) == 0, "its number is somebody else's by now"
    for text, said in (("605", 0), ("", None), ("me", None)):
        pidfile.write_text(text)
        assert podman.monitor(ID) == said
    assert podman.monitor(OTHER) is None


def test_monitors_are_limited_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "ROOT", str(tmp_path))
    for name in ("cgroup.controllers", "cgroup.procs"):
        (tmp_path / name).touch()
    assert "No such file" in podman.bound_monitors(), "a kernel without these limits is named"
    for name in ("memory.max", "pids.max"):
        (tmp_path / "conmon" / name).write_text("max")
    assert podman.bound_monitors() == ""
    assert int((tmp_path / "conmon/memory.max").read_text()) >= podman.MONITORS_LEAST
    assert (tmp_path / "conmon/pids.max").read_text() == str(podman.MONITORS_PIDS)


def test_many_are_removed_by_one_call_with_whole_seconds_to_end_in() -> None:
    assert podman_argv.remove(["p__a", "p__b"], 0.2) == ["rm", "--force", "--ignore", "--time=1", "--", "p__a", "p__b"]
    assert "--time=0" in podman_argv.remove(["p__a"], 0)


def test_only_a_repair_may_delete() -> None:
    assert podman_argv.check(repair=False) == ["system", "check"]
    assert podman_argv.check(repair=True) == ["system", "check", "--repair", "--force"]
    assert podman_argv.check(repair=True, force=False) == ["system", "check", "--repair"], "no container goes, damaged or not"


def test_everybodys_containers_are_listed_in_whatever_state() -> None:
    argv = podman_argv.list_all()
    assert argv[:3] == ["ps", "--all", "--no-trunc"]
    assert argv[3].startswith("--format={{range .}}{")
    assert argv[3].endswith('{{"\\n"}}{{end}}' + END)


# ---- configuration

PATHS = StoragePaths('/data/gra"ph', "/data/libpod", "/data/volumes", "/data/tmp")


def test_the_configuration_keeps_what_lasts_on_the_disk_and_the_rest_on_tmpfs() -> None:
    files = podman.config_files(PATHS)
    engine = tomllib.loads(files[podman_argv.CONF])["engine"]
    storage = tomllib.loads(files[podman_argv.STORAGE_CONF])["storage"]
    assert storage == {"driver": "overlay", "graphroot": PATHS.graphroot, "runroot": "/run/containers/storage"}
    assert (engine["static_dir"], engine["volume_path"], engine["image_copy_tmp_dir"]) == ("/data/libpod", "/data/volumes", "/data/tmp")
    assert all(engine[key].startswith("/run/") for key in ("tmp_dir", "events_logfile_path"))
    assert engine["conmon_path"] == [podman_argv.CONMON]


def test_the_configuration_says_what_the_image_s_own_says_but_for_places() -> None:
    here = Path(__file__).resolve().parents[2] / "scripts/rootfs/etc/containers"
    ours, images = (tomllib.loads(text) for text in (podman.config_files(PATHS)[podman_argv.CONF], (here / "containers.conf").read_text()))
    ours["engine"].pop("conmon_path")
    for key in ("static_dir", "volume_path", "image_copy_tmp_dir"):
        ours["engine"].pop(key)
        images["engine"].pop(key)
    assert ours == images


def test_the_environment_points_at_the_files_and_at_room_on_the_disk() -> None:
    wanted = {"CONTAINERS_CONF": podman_argv.CONF, "CONTAINERS_STORAGE_CONF": podman_argv.STORAGE_CONF, "TMPDIR": "/data/tmp"}
    assert podman.environment(PATHS) == wanted


def test_conmon_leaves_the_command_that_started_it() -> None:
    text = podman.config_files(PATHS)[podman_argv.CONMON]
    assert text.startswith("#!/bin/sh\n")
    assert 'echo 0 >/sys/fs/cgroup/conmon/cgroup.procs\nexec /usr/bin/conmon "$@"\n' in text


def test_configuration_is_written_whole_and_programs_can_be_run(tmp_path: Path) -> None:
    files = {f"{tmp_path}/new/a.conf": "x = 1\n", f"{tmp_path}/new/run": "#!/bin/sh\n"}
    podman.write_config(files)
    podman.write_config(files)
    assert {path: Path(path).read_text() for path in files} == files
    assert [stat.S_IMODE(os.stat(path).st_mode) for path in files] == [0o644, 0o755]
    assert sorted(os.listdir(tmp_path / "new")) == ["a.conf", "run"]


# ---- what podman says when it fails: (verb, status, stderr, outcome)

LAYERS = "[]*storage.Layer: decode slice: expect [ or n, but found {, error found in #1 byte of ...|{x\n|..., bigger context ...|{x\n|...\n"
CORRUPT = (
    'time="2026-11-25T13:14:19Z" level=error msg="Image localhost/ff:1 exists in local storage but may be corrupted (remove the image to resolve '
    "the issue): "
)
TAKEN = (
    f'Error: creating container storage: the container name "p__a" is already in use by {ID}. You have to remove that container to be able to '
    "reuse that name: that name is already in use, or use --replace to instruct Podman to do so.\n"
)
IN_USE = f"Error: image used by {ID}: image is in use by a container: consider listing external containers and force-removing image\n"
NO_FORMAT = "Error: payload does not match any of the supported image formats:\n * oci: open /tmp/x.tar/index.json: not a directory\n"
NO_TAR = f'{NO_FORMAT} * oci-archive: creating temp directory: untarring file "/data/tmp/container_images_oci8": archive/tar: invalid tar header\n'
NO_ROOM = f"{NO_FORMAT} * docker-archive: creating a temporary directory: mkdir /data/tmp/container_images_storage4: no space left on device\n"
NO_LAYER = "Error: creating container storage: write /data/storage/overlay-layers/.tmp-layers.json550210380: no space left on device\n"
NO_COMMAND = (
    "Error: crun: executable file `/nosuch` not found: No such file or directory: OCI runtime attempted to invoke a command that was not found\n"
)
NOT_ALLOWED = "Error: crun: the path `/etc/passwd` exists but it is not executable: Operation not permitted: OCI permission denied\n"
NO_CONMON = (
    f"Error: cannot remove container {ID} as it could not be stopped: container {ID} conmon exited prematurely, exit code could not be retrieved: "
    "internal libpod error\n"
)
NO_MANIFEST = (
    f'Error: locating item named "manifest" for image with ID "{ID}" (consider removing the image to resolve the issue): file does not exist\n'
)
NO_LINK = (
    f'Error: creating container storage: creating read-write layer with ID "{ID}": recreating the links: 1 error occurred:\n'
    f'\t* reading name of symlink for "{OTHER}": open /data/storage/overlay/{OTHER}/link: no such file or directory\n\n\n'
)
FULL_STATE = f"saving container {ID} state: writing container {ID} state: database or disk is full\n"
CHECKED = f"\t* layer {OTHER}: mkdir /data/storage/overlay/{OTHER}/merged.1: no space left on device\n\n"
SAID = (
    (Verb.UNPAUSE, 125, 'Error: no container with name or ID "p__none" found: no such container\n', Outcome.NO_CONTAINER),
    (Verb.UNPAUSE, 125, 'Error: no container with name or ID "-x" found: no such container\n', Outcome.NO_CONTAINER),
    (Verb.UNPAUSE, 125, f'Error: "{ID}" is not paused, can\'t unpause: container state improper\n', Outcome.WRONG_STATE),
    (Verb.UNPAUSE, 125, 'Error: "exited" is not running, can\'t unpause: container state improper\n', Outcome.WRONG_STATE),
    (Verb.RUN, 125, "Error: localhost/nosuch:1: image not known\n", Outcome.NO_IMAGE),
    (Verb.UNTAG, 1, "Error: localhost/nosuch:1: image not known\n", Outcome.NO_IMAGE),
    (Verb.RUN, 125, TAKEN, Outcome.NAME_TAKEN),
    (Verb.RUN, 125, 'Error: parsing reference "-x": invalid reference format\n', Outcome.REFUSED),
    (Verb.RUN, 125, "Error: running container create option: names must match [a-zA-Z0-9][a-zA-Z0-9_.-]*: invalid argument\n", Outcome.REFUSED),
    (Verb.RUN, 125, 'Error: "CAP_NOSUCH": unknown capability\n', Outcome.REFUSED),
    (Verb.RUN, 125, "Error: statfs /data/nosuch: no such file or directory\n", Outcome.REFUSED),
    (Verb.UNTAG, 2, IN_USE, Outcome.REFUSED),
    (Verb.LOAD, 125, "Error: faccessat /tmp/nosuch.tar: no such file or directory\n", Outcome.REFUSED),
    (Verb.LOAD, 125, NO_TAR, Outcome.REFUSED),
    # of the command in the container, not of podman
    (Verb.RUN, 127, NO_COMMAND, Outcome.REFUSED),
    (Verb.RUN, 126, NOT_ALLOWED, Outcome.REFUSED),
    (Verb.RUN, 126, f'Error: workdir "/nodir" does not exist on container {ID}\n', Outcome.REFUSED),
    # podman itself
    (Verb.LIST, 127, "/bin/sh: 1: exec: podman: not found\n", Outcome.NOT_THERE),
    (Verb.RUN, 126, "/bin/sh: 1: exec: /usr/bin/podman: Permission denied\n", Outcome.NOT_THERE),
    (Verb.LIST, 127, "podman-list: podman could not be started: [Errno 24] Too many open files", Outcome.FAULT),
    (Verb.LIST, 126, "the spine is going down", Outcome.FAULT),
    (Verb.LIST, 126, "16 commands hang in the kernel; is a disk dead?", Outcome.FAULT),
    (Verb.RUN, 125, "/bin/sh: 1: cannot create /sys/fs/cgroup/commands/7/cgroup.procs: Directory nonexistent\n", Outcome.FAULT),
    (Verb.LIST, 1, 'Failed to obtain podman configuration: reading system config "/run/c3": decode configuration\n', Outcome.FAULT),
    (Verb.RUN, 1, "", Outcome.FAULT),  # ended by TERM, says nothing
    (Verb.RUN, 126, "[conmon:e]: Failed to open log file No such file or directory\nError: conmon failed: exit status 1\n", Outcome.FAULT),
    (Verb.REMOVE, 125, NO_CONMON, Outcome.FAULT),
    (Verb.LIST, 137, "", Outcome.FAULT),
    # damage
    (Verb.RUN, 125, f"Error: faccessat /data/storage/overlay/{OTHER}: no such file or directory\n", Outcome.STORAGE),
    (Verb.RUN, 125, "Error: readlink /data/storage/overlay: invalid argument\n", Outcome.STORAGE),
    (Verb.RUN, 125, "Error: readlink /data/storage/overlay/l/QRPHWAOMUOP7RQXQKPUY4Y7I3Z: no such file or directory\n", Outcome.STORAGE),
    (Verb.LIST, 125, "Error: mkdir /data/storage/overlay/l: file exists\n", Outcome.STORAGE),
    (Verb.LIST, 125, "Error: beginning transaction: file is not a database\n", Outcome.STORAGE),
    (Verb.RUN, 125, "Error: scanning schema version from DB config: database disk image is malformed\n", Outcome.STORAGE),
    (Verb.LIST, 125, 'Error: configure storage: loading "/data/storage/overlay-images/images.json": []*storage.Image\n', Outcome.STORAGE),
    (Verb.REMOVE, 125, f'Error: looking up container "p__b": loading primary layer store data: loading "/d/layers.json": {LAYERS}', Outcome.STORAGE),
    (Verb.RUN, 125, f'{CORRUPT}layer not known"\nError: localhost/ff:1: image not known\n', Outcome.STORAGE),
    (Verb.IMAGES, 125, NO_MANIFEST, Outcome.STORAGE),
    (Verb.RUN, 125, NO_LINK, Outcome.STORAGE),
    (Verb.CHECK, 125, f"Damaged layer {OTHER}:\n1 error occurred:\n\nError: damage detected in local storage\n", Outcome.STORAGE),
    (Verb.LIST, 125, "Error: failed to open 2048 locks in /libpod_lock: bad file descriptor\n", Outcome.STORAGE),
    # a full or broken disk is no damage
    (Verb.RUN, 125, NO_LAYER, Outcome.DISK_FULL),
    (Verb.UNPAUSE, 125, f"Error: {FULL_STATE}", Outcome.DISK_FULL),
    (Verb.REMOVE, 125, f"Error: cannot remove container {ID} as it could not be stopped: {FULL_STATE}", Outcome.DISK_FULL),
    (Verb.LOAD, 125, NO_ROOM, Outcome.DISK_FULL),
    (Verb.CHECK, 125, f"Damaged layer {OTHER}:\n1 error occurred:\n{CHECKED}Error: damage detected in local storage\n", Outcome.DISK_FULL),
    (Verb.RUN, 126, "Error: crun: write to `/sys/fs/cgroup/x`: No space left on device: OCI runtime error\n", Outcome.DISK_FULL),
    (Verb.LIST, 125, "Error: beginning transaction: disk I/O error\n", Outcome.FAULT),
    (Verb.RUN, 125, f"Error: open /data/storage/overlay/{OTHER}/link: read-only file system\n", Outcome.FAULT),
)  # fmt: skip


@pytest.mark.parametrize(("verb", "status", "stderr", "outcome"), SAID, ids=[f"{case[0].value}-{case[3].value}-{n}" for n, case in enumerate(SAID)])
def test_what_podman_said_is_understood(verb: Verb, status: int, stderr: str, outcome: Outcome) -> None:
    verdict = judge(exited(status, stderr), verb)
    assert verdict.outcome is outcome
    assert verdict.value is None
    assert verdict.why
    assert len(verdict.why) <= WHY_MAX
    assert "\n" not in verdict.why


@pytest.mark.parametrize(("verb", "status", "stderr", "outcome"), SAID)
def test_what_podman_logs_before_its_error_does_not_change_the_meaning(verb: Verb, status: int, stderr: str, outcome: Outcome) -> None:
    noise = 'time="2026-11-25T13:06:15Z" level=warning msg="StopSignal SIGTERM failed to stop container p__a in 1 seconds, resorting to SIGKILL"\n'
    assert classify(exited(status, noise + stderr), verb).outcome is outcome


@pytest.mark.parametrize("words", ["no space left on device", "layer not known", "no such container", "container state improper"])
def test_the_callers_own_words_are_not_taken_for_podmans(words: str) -> None:
    assert classify(exited(125, f'Error: parsing reference "{words}": invalid reference format\n'), Verb.RUN).outcome is Outcome.REFUSED
    assert classify(exited(127, f"Error: crun: executable file `{words}` not found: OCI runtime\n"), Verb.RUN).outcome is Outcome.REFUSED


def test_the_why_is_podmans_sentence_and_of_a_full_disk_the_line_that_says_so() -> None:
    assert classify(exited(125, "Error: localhost/x: image not known\n"), Verb.RUN).why == "localhost/x: image not known"
    assert classify(exited(125, NO_ROOM), Verb.LOAD).why.startswith("docker-archive: creating a temporary directory")


@pytest.mark.parametrize("verb", Verb)
def test_a_command_that_was_ended_is_never_ok_whatever_it_said(verb: Verb) -> None:
    for ending, outcome in ((Ending.TIMED_OUT, Outcome.TIMED_OUT), (Ending.ABANDONED, Outcome.ABANDONED), (Ending.SIGNALLED, Outcome.FAULT)):
        assert judge(Result(ending, 0, f"{ID}\n{END}\n", "", 0, 9.0), verb).outcome is outcome


@pytest.mark.parametrize("verb", Verb)
def test_exit_status_0_with_an_error_is_not_ok(verb: Verb) -> None:
    assert judge(exited(0, "Error: no such container\n", f"{ID}\n"), verb).outcome is Outcome.FAULT


@given(st.integers(1, 255), st.text(), st.text(), st.sampled_from(Verb))
def test_whatever_a_failed_command_says_it_is_some_failure_with_a_reason(status: int, out: str, err: str, verb: Verb) -> None:
    verdict = judge(exited(status, err, out), verb)
    assert not verdict.ok
    assert verdict.value is None


# ---- what an OK must show


def test_an_ok_has_what_was_asked_for() -> None:
    warned = 'time="2026-11-25T13:04:25Z" level=warning msg="StopSignal SIGTERM failed to stop container p__b in 1 seconds, resorting to SIGKILL"\n'
    assert judge(exited(0, "", f"{ID}\n"), Verb.RUN) == Verdict(Outcome.OK, "", ID)
    assert judge(exited(0, "", "p__a\n"), Verb.UNPAUSE, {"p__a"}).ok
    assert judge(exited(0, "", "p__a\n"), Verb.UNPAUSE, {"p__a"}).ok
    assert judge(exited(0, warned, "p__b\np__c\n"), Verb.REMOVE, {"p__a", "p__b", "p__c"}).value == ("p__b", "p__c")
    assert judge(exited(0, "", ""), Verb.REMOVE).value == ()
    assert judge(exited(0, "", "Loaded image: localhost/a:1\nLoaded image: localhost/b:2\n"), Verb.LOAD).value == ("localhost/a:1", "localhost/b:2")
    assert judge(exited(0, "", f"Untagged: localhost/a:1\nDeleted: {ID}\n"), Verb.UNTAG).ok
    assert judge(exited(0), Verb.CHECK).ok
    assert judge(exited(0, "", f"Damaged image {ID}:\nDeleted damaged image: {ID}\n"), Verb.REPAIR).value == (f"Deleted damaged image: {ID}",)


@pytest.mark.parametrize("verb", [v for v in Verb if v not in (Verb.REMOVE, Verb.CHECK, Verb.REPAIR)])
@pytest.mark.parametrize(
    "said", ["", "\n", "ok\n", "p__b\n", ID[:60] + "\n", ID.upper() + "\n", "\ufffd\n", "[]\n", f"{ID}\n\ufffd\n", "p__a\nx\n", "p__a"]
)
def test_success_that_does_not_show_it_is_a_fault(verb: Verb, said: str) -> None:
    verdict = judge(exited(0, "", said), verb, {"p__a"})
    assert verdict.outcome is Outcome.FAULT
    assert verdict.why


@pytest.mark.parametrize("verb", [v for v in Verb if v not in (Verb.CHECK, Verb.REPAIR)])
def test_cut_off_output_proves_nothing(verb: Verb) -> None:
    assert judge(exited(0, "", f"{ID}\np__a\n{END}", dropped=1), verb, {"p__a"}).outcome is Outcome.FAULT


# ---- lists


def row(**changes: Any) -> dict[str, Any]:
    plain = {
        "id": ID,
        "names": ["p__a"],
        "state": "running",
        "exitcode": 0,
        "pid": 652,
        "image": "localhost/bb:1",
        "labels": {"bay0.persona": "p://a"},
    }
    return plain | changes


def text(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(each) + "\n" for each in rows) + END


REAL = (
    '{"id":"c8c91e025981d0e6c0df82f5daa92b745395092e2bbe08b73e47d2a87529eb80","names":["p__h1"],"state":"running","exitcode":0,"pid":3353,'
    '"image":"localhost/bb:1","labels":{"bay0.persona":"p://h1","bay0.x":"a,b=c \\"q\\" é","nl":"a\\nb"}}\n' + END
)


def test_a_real_list_is_read() -> None:
    (found,) = parse_list(REAL)
    assert (found.name, found.state, found.exit_code, found.pid, found.image) == ("p__h1", "running", 0, 3353, "localhost/bb:1")
    assert found.labels == {"bay0.persona": "p://h1", "bay0.x": 'a,b=c "q" é', "nl": "a\nb"}


def test_a_list_of_nothing_is_no_silence() -> None:
    assert parse_list(END) == ()
    assert parse_list(END + "\n") == ()
    with pytest.raises(PodmanError):
        parse_list("")


def test_a_container_without_labels_is_as_good_as_any() -> None:
    assert parse_list(text(row(labels=None)))[0].labels == {}


def test_everybodys_states_are_known() -> None:
    for state in ("created", "initialized", "running", "stopped", "paused", "exited", "removing", "stopping", "unknown"):
        assert parse_list(text(row(state=state)))[0].state == state


@pytest.mark.parametrize(
    "bad",
    [
        "x", "[]", "null", "7", '"id"', "{}", json.dumps(row())[:-5], json.dumps(row()) + "x", "[" * 9000,
        *(json.dumps(row(**{key: value})) for key, value in (
            ("id", ID[:12]), ("id", 7), ("id", None), ("names", []), ("names", None), ("names", "p__a"), ("names", ["p a"]), ("names", [7]),
            ("names", ["-x"]), ("names", ["p__\ufffd"]), ("state", "Up 3 seconds"), ("state", []), ("state", None), ("exitcode", "0"),
            ("exitcode", True), ("exitcode", 1.0), ("pid", None), ("image", None), ("image", "\udfff"), ("labels", []), ("labels", [1]),
            ("labels", "x"), ("labels", {"bay0.persona": 7}), ("labels", {"x": None}), ("labels", {"bay0.persona": "p://\ufffd"}),
            ("labels", {"x": "\ud800"}),
        )),
    ],
)  # fmt: skip
def test_a_line_that_is_not_as_podman_writes_it_spoils_the_list_and_is_shown(bad: str) -> None:
    with pytest.raises(PodmanError, match="makes no sense"):
        parse_list(f"{json.dumps(row(id=OTHER))}\n{bad}\n{END}")


@given(st.integers(0, len(text(row(), row(id=OTHER))) - 1))
def test_a_list_that_was_cut_off_anywhere_is_refused(length: int) -> None:
    with pytest.raises(PodmanError):
        parse_list(text(row(), row(id=OTHER))[:length])


def test_a_container_listed_twice_is_refused() -> None:
    with pytest.raises(PodmanError, match="twice"):
        parse_list(text(row(), row()))


def test_a_thousand_containers_fit_what_is_kept_of_a_listing() -> None:
    labels = {"bay0.persona": "p://" + "x" * 32, "bay0.seq": "123456", "bay0.boot": "3195169e-0000-0000-0000-000000000000", "bay0.config": "f" * 16}
    rows = [row(id=f"{n:064x}", names=[f"p__{'x' * 28}{n:04}"], labels=labels) for n in range(1000)]
    assert len(parse_list(text(*rows))) == 1000
    assert len(text(*rows)) < podman.LIST_CAPTURE / 4


def test_images_are_listed_once_for_each_name() -> None:
    both = {"id": f"sha256:{ID}", "names": ["localhost/ff:1", "localhost/bb:1"], "size": 1486320}
    nameless = {"id": f"sha256:{OTHER}", "names": None, "size": 5}
    found = parse_images(text(both, both, nameless))
    assert found == (Image("localhost/ff:1", ID, 1486320), Image("localhost/bb:1", ID, 1486320), Image("", OTHER, 5))
    with pytest.raises(PodmanError):
        parse_images(text(both | {"size": None}))


# ---- the order in which podman is asked


@define(eq=False)
class Spawner:
    """Remembers what it should run; the test ends it."""

    reactor: Timers = field(factory=Timers)
    running: dict[str, Any] = field(factory=dict)
    calls: list[dict[str, Any]] = field(factory=list)
    refuse: bool = False

    def run(self, name: str, argv: list[str], deadline_s: float, done: Any, env: Any = None, *, capture: int = 0) -> None:
        self.calls.append({"name": name, "argv": argv, "deadline_s": deadline_s, "env": env, "capture": capture})
        if self.refuse:
            done(exited(126, "the spine is going down"))
        else:
            self.running[f"{argv[1]} {argv[-1]}" if argv[1] not in ("ps", "images", "system") else " ".join(argv[1:3])] = done

    def end(self, key: str, result: Result) -> None:
        self.running.pop(key)(result)
        self.reactor.advance()


@define(eq=False)
class Bench:
    spawner: Spawner = field(factory=Spawner)
    log: Log = field(factory=Log)
    told: list[tuple[str, Verdict]] = field(factory=list)
    podman: Podman = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.podman = Podman(self.spawner, Bounds(), self.log, {"X": "1"})  # type: ignore[arg-type]

    def done(self, key: str) -> Any:
        return lambda verdict: self.told.append((key, verdict))

    @property
    def running(self) -> list[str]:
        return list(self.spawner.running)


def test_calls_about_one_container_come_one_after_the_other_and_others_pass_them() -> None:
    bench = Bench()
    for name in ("a", "a", "b"):
        bench.podman.start(name, bench.done(name))
    bench.podman.unpause("a", bench.done("thaw"))
    assert bench.running == ["start a", "start b"]
    bench.spawner.end("start a", exited(0, "", "a\n"))
    assert bench.running == ["start b", "start a"]
    bench.spawner.end("start a", exited(0, "", "a\n"))
    assert bench.running == ["start b", "unpause a"]
    assert [key for key, _ in bench.told] == ["a", "a"]


def test_a_removal_of_many_waits_for_each_and_holds_each() -> None:
    bench = Bench()
    bench.podman.start("b", bench.done("b"))
    bench.podman.remove(["a", "b"], 1, bench.done("remove"))
    bench.podman.start("a", bench.done("a"))
    bench.podman.start("c", bench.done("c"))
    assert bench.running == ["start b", "start c"]
    bench.spawner.end("start b", exited(0, "", "b\n"))
    assert bench.running == ["start c", "rm b"]
    bench.spawner.end("rm b", exited(0, "", "a\nb\n"))
    assert bench.running == ["start c", "start a"]


def test_no_more_calls_than_the_bound_are_under_way() -> None:
    bench = Bench()
    for n in range(AT_ONCE + 3):
        bench.podman.start(f"c{n}", bench.done(f"c{n}"))
    assert bench.podman.under_way == AT_ONCE
    assert bench.podman.waiting == 3
    bench.spawner.end("start c0", exited(0, "", "c2\n"))
    assert bench.running[-1] == f"start c{AT_ONCE}"


@pytest.mark.parametrize("alone", ["check", "first"])
def test_a_check_and_a_boots_first_listing_run_alone_and_in_their_turn(alone: str) -> None:
    bench = Bench()
    bench.podman.start("a", bench.done("a"))
    if alone == "check":
        bench.podman.check(bench.done("alone"))
    else:
        bench.podman.list(bench.done("alone"), first=True)
    bench.podman.start("b", bench.done("b"))
    assert bench.running == ["start a"]
    bench.spawner.end("start a", exited(0, "", "a\n"))
    (key,) = bench.running
    assert key.startswith(("system", "ps"))
    bench.spawner.end(key, exited(0, "", END if alone == "first" else ""))
    assert bench.running == ["start b"]
    assert bench.told[-1] == ("alone", bench.told[-1][1])
    assert bench.told[-1][1].ok


def test_nothing_is_under_way_while_something_is_done_to_podmans_files() -> None:
    bench, done = Bench(), []
    bench.podman.start("a", bench.done("a"))
    bench.podman.while_it_rests(done.append, bench.done("rested"))
    bench.podman.start("b", bench.done("b"))
    assert (bench.running, done) == (["start a"], [])
    bench.spawner.end("start a", exited(0, "", "a\n"))
    assert (bench.running, len(done)) == ([], 1)
    done[0]("moved")
    assert bench.running == ["start b"]
    assert bench.told[-1] == ("rested", "moved")


def test_only_damage_is_repaired_and_never_what_a_full_disk_makes_look_so() -> None:
    damaged = exited(125, "Error: damage detected in local storage\n")
    full = exited(125, f"Damaged layer {OTHER}:\n{CHECKED}Error: damage detected in local storage\n")
    for checked, repaired in ((damaged, True), (full, False), (exited(0), False)):
        bench = Bench()
        bench.podman.check(bench.done("check"), repair=True)
        bench.spawner.end("system check", checked)
        assert (bench.running == ["system check"]) is repaired
        if repaired:
            assert bench.spawner.calls[-1]["argv"] == ["podman", "system", "check", "--repair", "--force"]
            bench.spawner.end("system check", exited(0, "", f"Deleted damaged image: {ID}\n"))
            assert bench.told[0][1].value == (f"Deleted damaged image: {ID}",)
        assert len(bench.told) == 1


def test_each_call_has_its_own_bound_environment_and_room_for_its_output() -> None:
    bench = Bench()
    bounds = Bounds()
    wait = [
        (lambda done: bench.podman.list(done), bounds.podman_list, podman.LIST_CAPTURE),
        (lambda done: bench.podman.list(done, first=True), bounds.podman_first, podman.LIST_CAPTURE),
        (lambda done: bench.podman.run(SPEC, done), bounds.podman_run, CAPTURE_LIMIT),
        (lambda done: bench.podman.start("a", done), bounds.podman_run, CAPTURE_LIMIT),
        (lambda done: bench.podman.unpause("a", done), bounds.podman_quick, CAPTURE_LIMIT),
        (lambda done: bench.podman.remove(["a"], 5, done), bounds.podman_remove + bounds.podman_each + 5, CAPTURE_LIMIT),
        (lambda done: bench.podman.image_load("/x", done), bounds.podman_load, CAPTURE_LIMIT),
        (lambda done: bench.podman.image_list(done), bounds.podman_list, podman.LIST_CAPTURE),
        (lambda done: bench.podman.image_remove("x", done), bounds.podman_quick, CAPTURE_LIMIT),
        (lambda done: bench.podman.check(done), bounds.podman_check, CAPTURE_LIMIT),
    ]
    for ask, deadline_s, capture in wait:
        ask(bench.done("x"))
        call = bench.spawner.calls[-1]
        assert (call["deadline_s"], call["capture"], call["env"], call["argv"][0]) == (deadline_s, capture, {"X": "1"}, "podman")
        bench.spawner.end(bench.running[0], exited(125, "Error: x\n"))
    assert len(bench.told) == len(wait)
    assert len(bench.log.of("podman: not done")) == len(wait)


def test_a_call_that_is_not_wanted_any_more_when_its_turn_comes_is_not_made_and_still_answered() -> None:
    bench, wanted = Bench(), {"c": True, "d": True}
    for name in "abcd":
        bench.podman.start(name, bench.done(name), asker=Asker(lambda name=name: wanted.get(name, True)))  # type: ignore[misc]
    wanted["c"] = False
    bench.spawner.end("start a", exited(0, stdout="a\n"))
    assert bench.running == ["start b", "start d"]
    assert ("c", Verdict(Outcome.WITHDRAWN, "it was not wanted any more when its turn came")) in bench.told


def test_who_asks_is_told_whether_it_waits_and_when_its_turn_comes() -> None:
    bench, told = Bench(), []
    for name in "abc":
        asker = Asker(lambda: True, lambda name=name: told.append(f"{name} waits"), lambda name=name: told.append(f"{name} begins"))  # type: ignore[misc]
        bench.podman.start(name, bench.done(name), asker=asker)
    assert told == ["a begins", "b begins", "c waits"]
    bench.spawner.end("start a", exited(0, stdout="a\n"))
    assert told == ["a begins", "b begins", "c waits", "c begins"]


def test_whoever_mends_the_storage_hears_of_damage_that_any_call_finds_but_a_look_for_it() -> None:
    bench, heard = Bench(), []
    bench.podman.on_damage(heard.append)
    broken = exited(125, "Error: database disk image is malformed\n")
    bench.podman.list(bench.done("list"))
    bench.spawner.end("ps --all", broken)
    bench.podman.start("a", bench.done("start"))
    bench.spawner.end("start a", exited(125, "Error: no such container\n"))
    bench.podman.check(bench.done("check"))
    bench.spawner.end("system check", broken)
    assert heard == ["database disk image is malformed"]


def test_a_queue_that_is_full_answers_at_once_but_not_within_the_call() -> None:
    bench = Bench()
    for _ in range(WAITING_MAX + 1):
        bench.podman.start("a", bench.done("a"))
    bench.podman.start("b", bench.done("refused"))
    assert bench.told == []
    bench.spawner.reactor.advance()
    assert [(key, verdict.outcome) for key, verdict in bench.told] == [("refused", Outcome.FAULT)]
    assert bench.podman.waiting == WAITING_MAX


def test_where_nothing_can_be_started_every_call_is_still_answered_once_and_in_order() -> None:
    bench = Bench()
    bench.spawner.refuse = True
    for n in range(20):
        bench.podman.start("a", bench.done(str(n)))
    for _ in range(40):
        bench.spawner.reactor.advance()
    assert [key for key, _ in bench.told] == [str(n) for n in range(20)]
    assert {verdict.outcome for _, verdict in bench.told} == {Outcome.FAULT}


def test_a_caller_who_raises_does_not_hold_up_the_queue() -> None:
    bench = Bench()

    def fails(_verdict: Verdict) -> None:
        raise ValueError

    bench.podman.start("a", fails)
    bench.podman.start("a", bench.done("second"))
    with pytest.raises(ValueError):
        bench.spawner.end("start a", exited(0, "", "a\n"))
    assert bench.running == ["start a"]


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.booleans()), max_size=30), st.randoms())
def test_in_whatever_order_calls_end_each_is_answered_once_and_no_two_of_a_name_overlap(asked: list[tuple[str, bool]], random: Any) -> None:
    bench = Bench()
    for n, (name, alone) in enumerate(asked):
        if alone:
            bench.podman.check(bench.done(f"{n}"))
        else:
            bench.podman.remove([name], 0, bench.done(f"{n}"))
    order: dict[str, list[int]] = {}
    while bench.podman.under_way:
        assert len(bench.spawner.running) == bench.podman.under_way <= AT_ONCE  # a second one of a name would hide the first in this dict
        assert "system check" not in bench.running or len(bench.running) == 1
        bench.spawner.end(random.choice(bench.running), exited(0))
    for key, _ in bench.told:
        name, alone = asked[int(key)]
        order.setdefault("alone" if alone else name, []).append(int(key))
    assert sorted(key for keys in order.values() for key in keys) == list(range(len(asked)))
    assert all(keys == sorted(keys) for keys in order.values())


# ---- what podman has forgotten


def test_a_container_that_podman_does_not_know_is_found_by_its_cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "ROOT", str(tmp_path))
    for name in (f"libpod-{ID}", f"libpod-{OTHER}", "conmon"):
        (tmp_path / "personas" / name).mkdir(parents=True)
    assert podman.ghosts({ID}, "/personas") == [f"{tmp_path}/personas/libpod-{OTHER}"]
    assert podman.ghosts((), "/tenants") == []


def test_podman_words_names_each_verb_s_proof() -> None:
    assert set(podman_words._PROOFS) == set(Verb)
    assert Container(ID, ("a", "b"), "running", 0, 1, "i", {}).name == "a"
