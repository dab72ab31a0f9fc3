"""The model is honest (see alike.py), for long. The default tier's sample of it is in test_vm_persona.py, in a boot that is there anyway."""

from __future__ import annotations

from pathlib import Path

import alike
import harness
import pytest

pytestmark = [pytest.mark.vm, pytest.mark.full]


def test_a_long_random_life_shows_the_same_states_on_the_model_and_on_real_podman(tmp_path: Path):
    with harness.vm(harness.make_disk(f"{tmp_path}/model.img", "2G"), life_s=alike.LIFE_S) as machine:
        machine.wait_console(harness.COMPLETE)
        machine.wait_durable()
        alike.compare(machine, 500)
