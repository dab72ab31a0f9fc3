"""The build of the tier that CI runs: the same inputs give the same bytes, in another folder and at another time. Boots nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import harness
import pytest

pytestmark = pytest.mark.vm
TOP = Path(harness.TOP)
ARTIFACTS = ("vmlinuz", "build/spine.img", "build/spine.manifest.json", "build/spine.sbom.json", "build/twice.efi")


def digests(top: Path) -> dict[str, str]:
    """Return what a build made, by sha256; a UKI is made of it first."""
    harness.tool("bash", str(top / "scripts/package-efi.sh"), "--output", str(top / "build/twice.efi"))
    found = {name: harness.tool("sha256sum", str(top / name)).stdout.split()[0] for name in ARTIFACTS}
    (top / "build/twice.efi").unlink()
    return found


def test_the_same_inputs_give_the_same_image_and_the_same_uki_in_another_folder_at_another_time(tmp_path: Path):
    said = json.loads((TOP / "build/spine.manifest.json").read_text())
    if said["source"] != "registry" or os.geteuid() != 0:
        harness.skip_or_fail("needs root, and build/spine.img from the registries")
    for part in ("bay0", "personas", "scripts", "pyproject.toml"):
        (shutil.copytree if (TOP / part).is_dir() else shutil.copy)(TOP / part, tmp_path / part)
    (tmp_path / "build").mkdir()
    (tmp_path / "build/cache").symlink_to(TOP / "build/cache")
    environment = {**harness.ENVIRONMENT, "SOURCE_DATE_EPOCH": str(said["source_date_epoch"])}
    environment.pop("SPINE_BUILD", None)
    command = ["bash", str(tmp_path / "scripts/mkspine.sh"), "--from", "registry", "--offline"]
    made = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert made.returncode == 0, made.stderr
    if (tmp_path / "build/spine.inputs").read_text() != (TOP / "build/spine.inputs").read_text():
        pytest.skip("the sources have changed since build/spine.img was built")
    assert digests(tmp_path) == digests(TOP)
