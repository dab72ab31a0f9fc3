"""Names by the million: there and back, no two alike to podman, and any text at all is either a name or refused."""

from __future__ import annotations

import random
import string

from hypothesis import given
from hypothesis import strategies as st

from bay0.base import names
from bay0.base.errors import BadNameError
from bay0.base.names import LABEL_MAX

MILLION = 1_000_000
SEED = 20260401
FIRST, LATER = string.ascii_lowercase, string.ascii_lowercase + string.digits
LABELS = st.from_regex(r"[a-z](-?[a-z0-9]){0,31}", fullmatch=True, alphabet=LATER + "-").filter(lambda label: len(label) <= LABEL_MAX)
NEAR = st.text("ps:/y_-aZ09.\n\x00\u0430 ", max_size=12)


def label(draw: random.Random) -> str:
    """Make a label by the grammar's own rule: a letter, then letters and digits, some behind a hyphen."""
    length = draw.randrange(1, LABEL_MAX + 1)
    text = "".join([draw.choice(FIRST), *draw.choices(LATER, k=length - 1)])
    if length > 2 and draw.random() < 0.7:
        at = draw.randrange(1, length - 1)
        text = f"{text[:at]}-{text[at + 1 :]}"
    return text


def test_a_million_names_go_to_podman_and_back_and_no_persona_meets_a_tenant() -> None:
    draw = random.Random(SEED)
    seen: dict[str, str] = {}
    for number in range(MILLION):
        text = ("p://", "sys://")[number % 2] + label(draw)
        name = names.parse(text)
        container = name.podman
        back = names.from_podman(container)
        assert back is not None
        assert back == name
        assert name.semantic == back.semantic == text
        assert seen.setdefault(container, text) == text, "podman would call two names the same"
    print(f"\n{MILLION} names of seed {SEED} went to podman and back, {len(seen)} different ones")
    assert len(seen) > MILLION // 2


@given(st.one_of(st.text(), NEAR, LABELS.map(lambda text: f"p://{text}"), LABELS.map(lambda text: f"sys://{text}"), NEAR.map(lambda t: f"p://{t}")))
def test_any_text_is_a_name_that_round_trips_or_is_refused(text: str) -> None:
    try:
        name = names.parse(text)
    except BadNameError as refusal:
        message = str(refusal)
    else:
        message = ""
        assert name.semantic == text
        assert names.from_podman(name.podman) == name
    assert message.isascii()
    assert message.isprintable()


@given(st.one_of(st.text(), NEAR.map(lambda t: f"p__{t}"), LABELS.map(lambda text: f"p__{text}"), LABELS.map(lambda text: f"sys__{text}")))
def test_any_container_name_is_ours_exactly_or_not_at_all(text: str) -> None:
    name = names.from_podman(text)
    assert name is None or name.podman == text


@given(LABELS, LABELS)
def test_no_persona_has_the_container_of_a_tenant(persona: str, tenant: str) -> None:
    assert names.parse(f"p://{persona}").podman != names.parse(f"sys://{tenant}").podman
