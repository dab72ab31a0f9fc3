"""What a persona with a network needs before it starts, what podman is told of it, and which manifests are refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from personakit import IMAGE, WORK, Bench

from bay0.base.errors import ManifestError
from bay0.machines.persona import E, S
from bay0.net import rules
from bay0.net.allow import Allowed
from bay0.personas import manifest
from bay0.podman import argv


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    return Bench(monkeypatch)


def test_its_namespace_and_filter_are_made_before_podman_is_called(bench: Bench) -> None:
    bench.persona(network="net", allow=["203.0.113.0/24:443"])
    bench.engine.send(WORK, E.START)
    bench.wait(0.15)
    (verb, name, space, slot, table), = bench.cables.said
    assert (verb, name, space) == ("attach", WORK, "p__work")
    assert slot == 2
    assert table == rules.persona([Allowed("203.0.113.0/24", (443, 443), "tcp")], lan=False, dns=True)
    assert "run" not in bench.podman.verbs(), "not before that is done"
    assert bench.wait(3) is S.RUNNING
    spec = next(words for words in bench.podman.asked if words[0] == "run")[1]
    assert (spec.netns, spec.dns) == ("/run/netns/p__work", "169.254.1.1")
    line = argv.run(spec)
    assert "--network=ns:/run/netns/p__work" in line
    assert "--dns=169.254.1.1" in line
    assert "--network=none" not in line


def test_it_does_not_start_without_its_filter_and_says_why(bench: Bench) -> None:
    bench.cables.refuses = "its packet filter is not as it must be: a rule is missing"
    bench.persona(network="net")
    assert bench.send(E.START) is not S.RUNNING
    assert "run" not in bench.podman.verbs()
    assert any("a rule is missing" in step.why for step in bench.journal.steps)


def test_its_namespace_is_let_go_of_as_its_end_begins(bench: Bench) -> None:
    bench.running(network="net")
    bench.send(E.STOP)
    assert ("detach", WORK) in bench.cables.said
    assert bench.cables.said[-1] == ("detach", WORK)


def test_one_without_a_network_asks_for_nothing_and_has_lo_alone(bench: Bench) -> None:
    bench.running()
    assert not [words for words in bench.cables.said if words[0] == "attach"]
    spec = next(words for words in bench.podman.asked if words[0] == "run")[1]
    assert "--network=none" in argv.run(spec)
    assert not [word for word in argv.run(spec) if word.startswith("--dns")]


def test_without_names_podman_names_no_server_of_its_own(bench: Bench) -> None:
    bench.running(network="net", dns=False)
    spec = next(words for words in bench.podman.asked if words[0] == "run")[1]
    assert "--dns=none" in argv.run(spec)


@pytest.mark.parametrize(
    ("keys", "at", "why"),
    [
        ({"allow": ["203.0.113.7:443"]}, "allow", 'say network = "net"'),
        ({"lan": True}, "lan", 'say network = "net"'),
        ({"dns": False}, "dns", 'say network = "net"'),
        ({"nf_tables_risk": True}, "nf_tables_risk", 'say network = "net"'),
        ({"network": "net", "userns": True}, "userns", "nf_tables_risk = true"),
        ({"network": "net", "lan": True, "allow": ["203.0.113.7"]}, "lan", "leave `lan` out"),
        ({"network": "net", "allow": ["example.org:443"]}, "allow", "names are not looked up"),
        ({"network": "net", "allow": ["203.0.113.7", 7]}, "allow", "a list of texts"),
        ({"network": "net", "allow": "203.0.113.7"}, "allow", "a list of texts"),
        ({"network": "net", "allow": ["203.0.113.7"] * 65}, "allow", "64 are the most"),
        ({"network": "net", "lan": "yes"}, "lan", "true or false"),
        ({"network": "host"}, "network", '"none" or "net"'),
    ],
)
def test_a_manifest_that_is_wrong_about_its_network_names_the_key(keys: dict[str, Any], at: str, why: str) -> None:
    with pytest.raises(ManifestError) as refused:
        manifest.from_wire({"image": IMAGE, **keys})
    assert str(refused.value).startswith(f"{at}: ")
    assert why in str(refused.value)


def test_who_says_that_the_risk_is_his_has_both() -> None:
    assert manifest.from_wire({"image": IMAGE, "network": "net", "userns": True, "nf_tables_risk": True}).userns


def test_the_mistake_of_two_keys_together_has_the_line_of_its_key() -> None:
    text = f'image = "{IMAGE}"\nlan = true\n'
    with pytest.raises(ManifestError, match=r"x:2: lan: this is about a network"):
        manifest.load(text, "x")
