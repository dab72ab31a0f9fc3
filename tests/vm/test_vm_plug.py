"""Gate B by pulling the plug at all points of cuts.py, in one life of a disk. The default tier's point is in test_vm_normal.py, in boots that are
there anyway.
"""

from __future__ import annotations

import cuts
import harness
import pytest

pytestmark = [pytest.mark.vm, pytest.mark.full]


def pull(disk: str, points: tuple[cuts.Point, ...]) -> None:
    """Each boot looks at what the last cut left, then goes to the next point and is cut there."""
    last: cuts.Point | None = None
    for point in (*points, None):
        with harness.vm(disk) as machine:
            machine.wait_console(harness.COMPLETE)
            machine.wait_durable()
            if last is None:
                cuts.prepare(machine)
            else:
                cuts.check_converged(machine, last)
            if point is None:
                assert machine.quit().status == 0
                break
            machine.sh("bay0 persona remove spare")
            cuts.cut_at(machine, point)
        if not point.verb:
            with harness.vm(disk) as machine:
                cuts.cut_in_boot(machine, point)
        last = point
    harness.check_clean(disk)
    assert harness.stored(disk).integrity == "ok"


def test_after_a_cut_at_any_of_20_points_one_boot_has_every_persona_stopped_and_no_ghost(tmp_path):
    assert len(cuts.POINTS) == 20
    pull(harness.make_disk(f"{tmp_path}/persist.img", "2G"), cuts.POINTS)
