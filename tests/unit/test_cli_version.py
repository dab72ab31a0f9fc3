"""What `bay0 version` says of the image it runs from."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import bay0
from bay0.cli import version as imagefacts

MANIFEST = {
    "content_sha256": "c" * 64, "source": "alpine", "flavor": "vm", "kernel_release": "6.18.56-0-virt", "lock_sha256": "1" * 64,
    "lock_verified": True, "packages_sha256": "2" * 64, "builder_image": "alpine@sha256:3", "source_date_epoch": 1767225600, "packages": [{}],
}  # fmt: skip


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "manifest.json"
    path.write_text(text)
    return str(path)


def test_where_there_is_no_image_the_version_stands_alone(tmp_path: Path) -> None:
    said = imagefacts.facts(str(tmp_path / "absent"))
    assert said["image"] is None
    assert imagefacts.text(said) == f"bay0 {bay0.__version__}"
    assert said["kernel"] == os.uname().release


@pytest.mark.parametrize("text", ["", "{", "[]", '{"source": "alpine"}', '{"source_date_epoch": "soon"}', '{"source_date_epoch": 1e99}'])
def test_a_manifest_that_cannot_be_read_is_no_image(tmp_path: Path, text: str) -> None:
    assert imagefacts.image(written(tmp_path, text)) is None


def test_the_image_is_named_by_its_content_with_its_locks_kernel_and_build_time(tmp_path: Path) -> None:
    said = imagefacts.facts(written(tmp_path, json.dumps(MANIFEST)))
    found = said["image"]
    assert {key: found[key] for key in MANIFEST.keys() - {"source_date_epoch", "packages"}} == {
        key: MANIFEST[key] for key in MANIFEST.keys() - {"source_date_epoch", "packages"}
    }
    assert found["built"] == "2026-01-01T00:00:00+00:00"
    text = imagefacts.text(said)
    assert f"content sha256:{'c' * 64}" in text
    assert "(the image is for 6.18.56-0-virt)" in text, "another kernel runs here than the image has modules for"
    assert "UNVERIFIED" not in text


def test_an_image_from_an_unverified_lock_says_so(tmp_path: Path) -> None:
    said = imagefacts.facts(written(tmp_path, json.dumps(MANIFEST | {"lock_verified": False})))
    assert "(UNVERIFIED)" in imagefacts.text(said)
