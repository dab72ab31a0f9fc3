"""What the build promises of an image (docs/THREATMODEL.md, "The image"): pinned by hash, listed with every version, nothing setuid."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
LOCKS = sorted(path.name for path in (SCRIPTS / "lock").glob("*.txt") if not path.stem.endswith("packages"))


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


def test_the_filter_of_system_tenants_takes_namespaces_and_keyrings_from_podmans_default_and_gives_nothing(tmp_path: Path) -> None:
    rule = {"action": "SCMP_ACT_ALLOW", "args": [], "comment": "", "includes": {}, "excludes": {}}
    default = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [
            {**rule, "names": ["read", "clone", "clone3", "unshare", "keyctl", "mount"]},
            {**rule, "names": ["setns", "bpf"], "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        ],
    }
    before, after = tmp_path / "default.json", tmp_path / "tenant.json"
    before.write_text(json.dumps(default))
    assert run("seccomp.py", str(before), str(after)).returncode == 0
    rules = json.loads(after.read_text())["syscalls"]
    allowed = {name: rule["args"] for rule in rules if rule["action"] == "SCMP_ACT_ALLOW" for name in rule["names"]}
    assert set(allowed) == {"read", "bpf", "clone"}
    assert allowed["clone"] == [{"index": 0, "op": "SCMP_CMP_MASKED_EQ", "value": 0x7E020000, "valueTwo": 0}]
    before.write_text(json.dumps({**default, "syscalls": [{**rule, "names": ["read"]}]}))
    refused = run("seccomp.py", str(before), str(after))
    assert (refused.returncode, "not the known one" in refused.stderr) == (1, True)
