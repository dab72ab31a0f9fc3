#!/usr/bin/env python3
"""Make the system call filter of personas or of system tenants out of podman's default one.

Usage: seccomp.py persona|tenant DEFAULT.json OUT.json

podman's default lets a container without any capability make user namespaces, in which it has all of them, the usual first step to a hole in the
kernel, and use the kernel's keyrings. Both are taken from everybody; a tenant that serves has still less. What is taken fails with EPERM.
clone(2) and unshare(2) stay, without flags for namespaces; clone3(2), whose flags a filter cannot see, does not exist (ENOSYS), so that C libraries
take clone. Source: seccomp(2), containers-common's seccomp.json.
"""

import json
import sys
from pathlib import Path

KEYRINGS = ("add_key", "keyctl", "request_key")
TAKEN = {
    "persona": ("setns", *KEYRINGS),
    "tenant": (
        "setns", *KEYRINGS, "fsconfig", "fsmount", "fsopen", "fspick", "mount", "mount_setattr", "move_mount", "name_to_handle_at", "open_tree",
        "pivot_root", "process_vm_readv", "process_vm_writev", "ptrace", "umount", "umount2",
    ),
}  # fmt: skip
EPERM, ENOSYS = 1, 38
# every CLONE_NEW* of sched.h: time, mount, cgroup, uts, ipc, user, pid, net. In clone(2) the first is a part of the signal's number.
FLAGS = (0x80, 0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)
BY_FLAG = {"clone": FLAGS[1:], "unshare": FLAGS}
RULE = {"args": [], "comment": "", "includes": {}, "excludes": {}}


def tighten(profile: dict, taken: tuple[str, ...]) -> dict:
    """Return the filter. Raises SystemExit if the default is not what this was written for."""
    allowed = {name for rule in profile["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW" for name in rule["names"]}
    if profile["defaultAction"] != "SCMP_ACT_ERRNO" or not {"clone", "clone3", "unshare", "keyctl"} <= allowed:
        raise SystemExit("seccomp.py: this default filter is not the known one: look at it, and at the list TAKEN")
    gone = {*taken, "clone3", *BY_FLAG}
    rules = [{**rule, "names": [name for name in rule["names"] if name not in gone]} for rule in profile["syscalls"]]
    rules = [rule for rule in rules if rule["names"]]
    rules.append(_refused(taken, EPERM))
    rules.append(_refused(("clone3",), ENOSYS))
    for name, flags in BY_FLAG.items():
        rules.append({**RULE, "names": [name], "action": "SCMP_ACT_ALLOW", "args": [_masked(sum(flags), 0)]})
        rules += [_refused((name,), EPERM, [_masked(flag, flag)]) for flag in flags]
    return {**profile, "syscalls": rules}


def _refused(names: tuple[str, ...], errno: int, args: list[dict] | None = None) -> dict:
    return {**RULE, "names": list(names), "action": "SCMP_ACT_ERRNO", "errnoRet": errno, "args": args or []}


def _masked(mask: int, equal: int) -> dict:
    return {"index": 0, "value": mask, "valueTwo": equal, "op": "SCMP_CMP_MASKED_EQ"}


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] not in TAKEN:  # noqa: PLR2004 - a kind and two files
        sys.exit(__doc__)
    made = tighten(json.loads(Path(sys.argv[2]).read_text(encoding="utf-8")), TAKEN[sys.argv[1]])
    Path(sys.argv[3]).write_text(json.dumps(made, indent=1, sort_keys=True) + "\n", encoding="utf-8")
