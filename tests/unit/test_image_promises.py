"""What the build promises of an image (docs/THREATMODEL.md, "The image"): pinned by hash, listed with every version, nothing setuid."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
LOCKS = sorted(path.name for path in (SCRIPTS / "lock").glob("*.txt") if not path.stem.endswith("packages") and path.stem != "loader")


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, str(SCRIPTS / "lib" / script), *arguments]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("name", LOCKS)
def test_every_wheel_is_pinned_by_version_and_hash(name: str) -> None:
    text = (SCRIPTS / "lock" / name).read_text().replace("\\\n", " ")
    wheels = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    assert wheels
    assert [line for line in wheels if not re.fullmatch(r"[\w.\[\]-]+==\S+( ;[^-]*)?(\s+--hash=sha256:[0-9a-f]{64})+\s*", line)] == []


def test_a_wheel_that_is_not_the_pinned_one_is_refused(tmp_path: Path) -> None:
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False).returncode:
        pytest.skip("this Python has no pip")
    import zipfile

    with zipfile.ZipFile(tmp_path / "thing-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("thing-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n")
        wheel.writestr("thing-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("thing-1.0.dist-info/RECORD", "")
    (tmp_path / "lock.txt").write_text(f"thing==1.0 --hash=sha256:{'0' * 64}\n")
    assert "--require-hashes" in (SCRIPTS / "lib" / "wheels.sh").read_text()
    words = ["download", "-q", "--no-index", "--find-links", ".", "--require-hashes", "-r", "lock.txt", "-d", "out"]
    done = subprocess.run([sys.executable, "-m", "pip", *words], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr


def test_a_manifest_tells_what_came_in_another_version(tmp_path: Path) -> None:
    for name, version in (("old", "1.0-1"), ("new", "1.0-2")):
        package = {"kind": "deb", "name": "podman", "version": version, "arch": "amd64", "sha256": "0" * 64}
        (tmp_path / name).write_text(json.dumps({"packages": [package], "wheels": [], "build_root": {}}))
    done = run("manifest.py", "--drift", str(tmp_path / "old"), str(tmp_path / "new"))
    assert done.returncode == 0, done.stderr
    assert re.search(r"podman.*1\.0-1.*1\.0-2", done.stdout)


def test_a_setuid_file_stops_the_build_and_only_two_may_be(tmp_path: Path) -> None:
    for place in ("persist", "tmp", "run", "proc", "sys", "dev", "usr/bin"):
        (tmp_path / place).mkdir(parents=True)
    for name in ("newuidmap", "newgidmap", "su"):
        (tmp_path / "usr/bin" / name).write_text("")
        os.chmod(tmp_path / "usr/bin" / name, 0o4755)
    (tmp_path / "persist/left").touch()
    done = run("check_rootfs.py", str(tmp_path))
    assert done.returncode == 1
    assert re.findall(r"/(\S+) is setuid", done.stderr) == ["usr/bin/su"]
    assert "/persist must be empty and holds left" in done.stderr


NAMESPACES = {
    "time": 0x80, "mount": 0x20000, "cgroup": 0x2000000, "uts": 0x4000000, "ipc": 0x8000000, "user": 0x10000000, "pid": 0x20000000, "net": 1 << 30,
}  # fmt: skip
RULE: dict[str, Any] = {"action": "SCMP_ACT_ALLOW", "args": [], "comment": "", "includes": {}, "excludes": {}}
DEFAULT = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "syscalls": [
        {**RULE, "names": ["read", "clone", "clone3", "unshare", "keyctl", "mount", "ptrace"]},
        {**RULE, "names": ["setns", "bpf"], "includes": {"caps": ["CAP_SYS_ADMIN"]}},
    ],
}


def filtered(kind: str, tmp_path: Path, default: dict[str, Any]) -> Any:
    before, after = tmp_path / "default.json", tmp_path / f"{kind}.json"
    before.write_text(json.dumps(default))
    done = run("seccomp.py", kind, str(before), str(after))
    return json.loads(after.read_text()) if done.returncode == 0 else done.stderr


def verdict(made: Any, name: str, flags: int = 0) -> int | None:
    """What a filter does with a call whose first argument is `flags`: None, it is allowed; else its errno (seccomp.json of containers-common)."""
    found = {
        (rule["action"], rule.get("errnoRet"))
        for rule in made["syscalls"]
        if name in rule["names"] and all(flags & arg["value"] == arg["valueTwo"] for arg in rule["args"])
    }
    assert len(found) <= 1, "rules that contradict each other"
    return None if ("SCMP_ACT_ALLOW", None) in found else next(iter(found))[1] if found else 38


@pytest.mark.parametrize("kind", ["persona", "tenant"])
def test_nobody_makes_or_enters_a_namespace_and_threads_and_processes_are_made_as_ever(tmp_path: Path, kind: str) -> None:
    made = filtered(kind, tmp_path, DEFAULT)
    for name, flag in NAMESPACES.items():
        assert verdict(made, "unshare", flag) == 1, name
        assert verdict(made, "unshare", flag | 0x400) == 1, name
        if name != "time":  # its bit is a part of the signal there
            assert verdict(made, "clone", flag | 17) == 1, name
    thread, fork, files_of_its_own = 0x3D0F00, 17, 0x400
    assert [verdict(made, "clone", thread), verdict(made, "clone", fork), verdict(made, "unshare", files_of_its_own)] == [None] * 3
    assert (verdict(made, "clone3"), verdict(made, "setns"), verdict(made, "keyctl")) == (38, 1, 1)
    assert verdict(made, "read") is None


def test_a_tenant_has_less_than_a_persona_and_both_have_nothing_that_podmans_default_has_not(tmp_path: Path) -> None:
    persona, tenant = (filtered(kind, tmp_path, DEFAULT) for kind in ("persona", "tenant"))
    assert (verdict(persona, "ptrace"), verdict(tenant, "ptrace"), verdict(tenant, "mount")) == (None, 1, 1)
    for made in (persona, tenant):
        allowed = {name for rule in made["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW" for name in rule["names"]}
        assert allowed <= {"read", "clone", "unshare", "mount", "ptrace", "bpf"}
        assert [rule["includes"] for rule in made["syscalls"] if "bpf" in rule["names"]] == [{"caps": ["CAP_SYS_ADMIN"]}]


def test_a_default_filter_that_is_not_the_known_one_stops_the_build(tmp_path: Path) -> None:
    assert "not the known one" in filtered("persona", tmp_path, {**DEFAULT, "syscalls": [{**RULE, "names": ["read"]}]})
