"""podman's own storage, damaged while the machine was off: the boot mends it or begins it anew, personas and their homes stay."""

from __future__ import annotations

import harness
import pytest
from harness import Vm

pytestmark = [pytest.mark.vm, pytest.mark.full]

SETTLE_S = 240
LAYERS = "/containers/storage/overlay-layers/layers.json"
DAMAGES = {
    "layers.json is torn": (f"rm {LAYERS}", f"write TORN {LAYERS}"),
    "the database is no database": ("rm /containers/storage/db.sql", "write TORN /containers/storage/db.sql"),
    "a layer is missing": ("rm /containers/storage/overlay-images/images.json", "write TORN /containers/storage/overlay-images/images.json"),
}


@pytest.fixture(scope="module")
def disk(folder: str) -> str:
    path = harness.make_disk(f"{folder}/storage.img", "2G")
    with harness.vm(path) as machine:
        machine.wait_console(harness.COMPLETE)
        machine.wait_durable()
        machine.out("bay0 persona create work && bay0 persona start work", SETTLE_S)
        machine.out("echo precious >/persist/homes/p__work/letter; sync")
        assert machine.quit(bound_s=SETTLE_S).status == 0
    return path


def works(machine: Vm) -> None:
    assert [(each["name"], each["state"]) for each in machine.json("bay0 persona list --json")] == [("p://work", "stopped")]
    assert machine.out("cat /persist/homes/p__work/letter") == "precious"
    machine.out("bay0 persona start work", SETTLE_S)
    assert machine.json("bay0 persona show work --json")["state"] == "running"


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_boot_with_damaged_podman_storage_has_its_personas_and_can_start_them(disk: str, damage: str, tmp_path):
    torn = tmp_path / "torn"
    torn.write_text('[{"id": "0123')
    for command in DAMAGES[damage]:
        harness.tool("debugfs", "-w", "-R", command.replace("TORN", str(torn)), disk)
    with harness.vm(disk) as machine:
        machine.wait_console(harness.COMPLETE)
        machine.wait_durable()
        works(machine)
        assert "storage is damaged" in machine.out("bay0 log")
        assert machine.quit(bound_s=SETTLE_S).status == 0
