"""Our reader of a UKI against binutils and sbsigntool, on the UKI that package-efi.sh makes of what is built here."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
from pathlib import Path

import pytest
from diskkit import SCRIPTS, have, run

from bay0.state import schema, uki

BUILT = SCRIPTS.parent / "build/spine.img"
ROOT = SCRIPTS.parent / "build/rootfs"
pytestmark = [
    pytest.mark.scripts,
    pytest.mark.built,
    pytest.mark.skipif(not BUILT.exists(), reason="no spine is built here"),
    pytest.mark.skipif(not have("objdump", "objcopy"), reason="binutils is not installed"),
]


@pytest.fixture(scope="module")
def spine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("uki") / "spine.efi"
    done = run(SCRIPTS / "package-efi.sh", "--append", "bay0.patience=3", "--output", made)
    assert done.returncode == 0, done.stderr
    return made


def examined(path: Path) -> uki.Uki:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return uki.of_fd(fd)
    finally:
        os.close(fd)


def test_objdump_and_objcopy_see_the_same_sections(spine: Path, tmp_path: Path):
    found = examined(spine)
    rows = re.findall(
        r"^ +\d+ (\S+) +([0-9a-f]{8})  [0-9a-f]+  [0-9a-f]+  ([0-9a-f]{8}) ", run("objdump", "-h", spine).stdout, re.MULTILINE
    )
    assert [(each.name, each.content, each.offset) for each in found.sections] == [
        (name, int(size, 16), int(offset, 16)) for name, size, offset in rows
    ]
    by_name = {each.name: each for each in found.sections}
    with spine.open("rb") as file:
        for name in (".osrel", ".cmdline", ".uname"):
            assert run("objcopy", "-O", "binary", "--only-section", name, spine, tmp_path / "out").returncode == 0
            file.seek(by_name[name].offset)
            assert file.read(by_name[name].content) == (tmp_path / "out").read_bytes()


def test_it_says_what_the_image_inside_says_of_itself(spine: Path, tmp_path: Path):
    found = examined(spine)
    stated = dict(line.split("=", 1) for line in (ROOT / "etc/os-release").read_text().splitlines())
    assert "@" not in (ROOT / "etc/os-release").read_text()
    manifest = json.loads((SCRIPTS.parent / "build/spine.manifest.json").read_text())
    assert manifest["os_release"] == (ROOT / "etc/os-release").read_text()
    assert (found.version, found.build_id, found.built) == (stated["VERSION_ID"], stated["BUILD_ID"], stated["BAY0_BUILT"])
    assert re.fullmatch("[0-9a-f]{32}", found.build_id)
    assert found.schema == schema.VERSION
    assert found.architecture == stated["ARCHITECTURE"] == "x86-64"
    assert found.kernel == manifest["kernel_release"]
    assert found.cmdline.endswith(" bay0.patience=3")
    assert not found.signed
    built = dt.datetime.strptime(found.built, "%Y-%m-%dT%H:%M:%S%z")
    assert int(built.timestamp()) == manifest["source_date_epoch"]
    assert stated["VARIANT_ID"] == f"{manifest['source']}-{manifest['flavor']}"


@pytest.mark.skipif(not have("sbsign", "sbverify", "openssl"), reason="sbsigntool or openssl is not installed")
def test_sbsign_puts_a_signature_where_it_is_found_and_taking_it_off_is_seen(spine: Path, tmp_path: Path):
    key, certificate, signed = tmp_path / "key", tmp_path / "pem", tmp_path / "signed.efi"
    request = ("openssl", "req", "-new", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test/", "-days", "30")
    assert run(*request, "-keyout", key, "-out", certificate).returncode == 0
    assert run("sbsign", "--key", key, "--cert", certificate, "--output", signed, spine).returncode == 0
    found = examined(signed)
    assert found.signed
    assert found.certificate is not None
    offset, length = found.certificate
    assert offset + length == found.size
    assert found.sections == examined(spine).sections
    assert run("sbattach", "--remove", signed).returncode == 0
    assert not examined(signed).signed
