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


@pytest.mark.parametrize("damage", DAMAGES)
def test_storage_that_is_damaged_while_it_runs_is_mended_without_a_boot_and_who_runs_goes_on(damage: str, folder: str):
    with harness.vm(harness.make_disk(f"{folder}/{damage.replace(' ', '-')}.img", "2G")) as machine:
        ready(machine).out("bay0 persona create work && bay0 persona start work", SETTLE_S)
        machine.create("nap", harness.NAP)
        container = machine.show("work")["container"]
        machine.out(f"{DAMAGES[damage]}; sync")
        machine.sh("bay0 persona start nap", SETTLE_S)  # it fails, or waits for what mends it
        said = "storage is well|set aside when no persona runs"
        harness.until(lambda: machine.sh(f"bay0 log | grep -qE '{said}'").status == 0, SETTLE_S, "it was looked into", every_s=2)
        found = machine.show("work")
        assert (found["state"], found["container"]) == ("running", container)
        machine.sh("bay0 persona stop work; bay0 persona stop nap", SETTLE_S)
        harness.until(lambda: machine.show("work")["state"] == "stopped", SETTLE_S, "the one that ran has stopped", every_s=1)
        harness.until(lambda: "storage is well" in machine.out("bay0 log"), SETTLE_S, "the storage is well", every_s=2)
        harness.until(lambda: machine.show("nap")["state"] in ("stopped", "failed"), SETTLE_S, "the other one rests", every_s=1)
        machine.out("bay0 persona start nap", SETTLE_S)
        assert machine.show("nap")["state"] == "running"
        leave(machine)
