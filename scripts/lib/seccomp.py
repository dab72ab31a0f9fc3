#!/usr/bin/env python3
"""Make the system call filter of system tenants out of podman's default one.

Usage: seccomp.py DEFAULT.json OUT.json

podman's default lets a container without any capability make user namespaces, in which it has all of them, and use the kernel's keyrings: personas
may want that, a tenant that serves does not. What is taken fails with EPERM. clone(2) stays, without flags for namespaces; clone3(2), whose flags
a filter cannot see, does not exist for it (ENOSYS), so that C libraries take clone. Source: seccomp(2), containers-common's seccomp.json.
"""

import json
import sys
from pathlib import Path

TAKEN = (
    "add_key", "fsconfig", "fsmount", "fsopen", "fspick", "keyctl", "mount", "mount_setattr", "move_mount", "name_to_handle_at", "open_tree",
    "pivot_root", "process_vm_readv", "process_vm_writev", "ptrace", "request_key", "setns", "umount", "umount2", "unshare",
)  # fmt: skip
EPERM, ENOSYS = 1, 38
NAMESPACES = 0x7E020000  # every CLONE_NEW* of clone(2), sched.h


def tighten(profile: dict) -> dict:
    """Return the filter. Raises SystemExit if the default is not what this was written for."""
    allowed = {name for rule in profile["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW" for name in rule["names"]}
    if profile["defaultAction"] != "SCMP_ACT_ERRNO" or not {"clone", "clone3", "unshare", "keyctl"} <= allowed:
        raise SystemExit("seccomp.py: this default filter is not the known one: look at it, and at the list TAKEN")
    gone = {*TAKEN, "clone", "clone3"}
    rules = [{**rule, "names": [name for name in rule["names"] if name not in gone]} for rule in profile["syscalls"]]
    rules = [rule for rule in rules if rule["names"]]
    no_namespace = {"index": 0, "value": NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}
    rules += [
        {"names": list(TAKEN), "action": "SCMP_ACT_ERRNO", "errnoRet": EPERM, "args": [], "comment": "", "includes": {}, "excludes": {}},
        {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS, "args": [], "comment": "", "includes": {}, "excludes": {}},
        {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [no_namespace], "comment": "", "includes": {}, "excludes": {}},
    ]
    return {**profile, "syscalls": rules}


if __name__ == "__main__":
    if len(sys.argv) != 3:  # noqa: PLR2004 - two files
        sys.exit(__doc__)
    made = tighten(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    Path(sys.argv[2]).write_text(json.dumps(made, indent=1, sort_keys=True) + "\n", encoding="utf-8")
