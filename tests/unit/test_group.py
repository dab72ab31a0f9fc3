"""Which cgroup is within which: a name that only begins alike is another group."""

from __future__ import annotations

import pytest

from bay0.base.group import within


@pytest.mark.parametrize(
    ("group", "inside"),
    [
        ("/personas/libpod-1", True),
        ("/personas/libpod-1/container", True),
        ("/personas/libpod-1/a/b", True),
        ("/personas/libpod-12", False),
        ("/personas", False),
        ("/", False),
        ("", False),
    ],
)
def test_a_group_is_within_itself_and_those_above_it(group: str, inside: bool) -> None:
    assert within(group, "/personas/libpod-1") is inside
