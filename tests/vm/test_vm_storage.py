"""podman's own storage, damaged before a power-off: the next boot mends it or begins it anew, personas and their homes stay."""

from __future__ import annotations

import harness
import pytest
from harness import Vm

pytestmark = [pytest.mark.vm, pytest.mark.full]

SETTLE_S = 240
STORAGE = "/persist/containers/storage"
TORN = '[{"id": "0123'
DAMAGES = {
    "layers.json is torn": f"echo '{TORN}' >{STORAGE}/overlay-layers/layers.json",
    "images.json is torn": f"echo '{TORN}' >{STORAGE}/overlay-images/images.json",
    "its database is none": 'db=$(find /persist/containers -name db.sql); echo garbage >"$db"; rm -f "$db"-*',
}


@pytest.fixture(scope="module")
def disk(folder: str) -> str:
    path = harness.make_disk(f"{folder}/storage.img", "2G")
    with harness.vm(path) as machine:
        ready(machine).out("bay0 persona create work && bay0 persona start work", SETTLE_S)
        machine.out("echo precious >/persist/homes/p__work/letter")
        leave(machine)
    return path


def ready(machine: Vm) -> Vm:
    machine.wait_console(harness.COMPLETE)
    machine.wait_durable()
    return machine


def leave(machine: Vm) -> None:
    assert machine.quit(bound_s=SETTLE_S).status == 0


def test_a_layer_whose_link_a_crash_left_empty_is_loaded_anew_at_the_next_start(disk: str):
    """podman's own check does not see it: `readlink .../overlay/l: invalid argument`."""
    with harness.vm(disk) as machine:
        ready(machine).out(f"for link in {STORAGE}/overlay/*/link; do : >$link; done; sync")
        machine.out("bay0 persona start work", SETTLE_S)
        assert machine.show("work")["state"] == "running"
        assert "a damaged image is removed" in machine.out("bay0 log")
        leave(machine)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_boot_with_damaged_podman_storage_has_its_personas_and_can_start_them(disk: str, damage: str):
    with harness.vm(disk) as machine:
        ready(machine).out(f"{DAMAGES[damage]}; sync")
        leave(machine)
    harness.check_clean(disk)
    with harness.vm(disk) as machine:
        ready(machine)
        assert "storage is damaged" in machine.out("bay0 log")
        assert [(each["name"], each["state"]) for each in machine.json("bay0 persona list --json")] == [("p://work", "stopped")]
        assert machine.out("cat /persist/homes/p__work/letter") == "precious"
        machine.out("bay0 persona start work", SETTLE_S)
        assert machine.show("work")["state"] == "running"
        leave(machine)
