"""What strangers and configurations say to sys://net, read strictly: a DHCP server's answers, `allow`, addresses, the kernel's links."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bay0.net import allow, config, ipv4, lease, links, rules

GOOD = {"ip": "192.168.1.7", "subnet": "255.255.255.0", "router": "192.168.1.1", "dns": "192.168.1.1,9.9.9.9", "lease": "3600"}


def line(event: str = "bound", **changes: str | None) -> bytes:
    values = {key: value for key, value in {**GOOD, **changes}.items() if value is not None}
    return " ".join([event, *(f"{key}={value}" for key, value in values.items())]).encode()


def test_an_ordinary_answer_is_taken() -> None:
    found = lease.report(line())
    assert found.lease == lease.Lease("192.168.1.7", 24, "192.168.1.1", ("192.168.1.1", "9.9.9.9"), 3600)
    assert lease.report(line("renew", lease=str(lease.FOREVER))).lease == lease.Lease(
        "192.168.1.7", 24, "192.168.1.1", ("192.168.1.1", "9.9.9.9"), None
    )


def test_an_answer_without_router_and_names_is_one_too() -> None:
    assert lease.report(line(router=None, dns=None)).lease == lease.Lease("192.168.1.7", 24, seconds=3600)


HOSTILE_WHOLE = {
    "loopback": {"ip": "127.0.0.1"},
    "an address of ours": {"ip": "10.137.0.1", "subnet": "255.0.0.0"},
    "the gateway of the personas": {"ip": "169.254.1.1", "subnet": "255.255.0.0"},
    "nothing": {"ip": "0.0.0.0"},
    "no address at all": {"ip": None},
    "a multicast group": {"ip": "224.0.0.5"},
    "everybody": {"ip": "255.255.255.255"},
    "class E": {"ip": "240.0.0.1"},
    "its own network": {"ip": "192.168.1.0"},
    "its own broadcast": {"ip": "192.168.1.255"},
    "too large a number": {"ip": "192.168.1.256"},
    "octal": {"ip": "0300.0250.01.07"},
    "leading zero": {"ip": "192.168.01.7"},
    "hexadecimal": {"ip": "0xc0a80107"},
    "one number": {"ip": "3232235783"},
    "three numbers": {"ip": "192.168.7"},
    "two addresses": {"ip": "192.168.1.7,192.168.1.8"},
    "no mask": {"subnet": None},
    "a mask with holes": {"subnet": "255.0.255.0"},
    "a mask of everything": {"subnet": "0.0.0.0"},
    "a mask of half the world": {"subnet": "128.0.0.0"},
    "an inverted mask": {"subnet": "0.0.0.255"},
    "no lease": {"lease": None},
    "a lease of nothing": {"lease": "0"},
    "a lease of a second": {"lease": "1"},
    "a lease beyond all": {"lease": "99999999999"},
    "a lease with a point": {"lease": "3600.5"},
}


@pytest.mark.parametrize("name", HOSTILE_WHOLE)
def test_a_hostile_answer_is_refused_whole(name: str) -> None:
    found = lease.report(line(**HOSTILE_WHOLE[name]))
    assert found.lease is None
    assert found.why
    assert not found.lost


HOSTILE_PARTS = {
    "names from the spine's loopback": ({"dns": "127.0.0.1"}, "dns"),
    "names from the end of the cable": ({"dns": "169.254.1.1"}, "dns"),
    "names from a persona": ({"dns": "10.137.0.9"}, "dns"),
    "names from the card itself": ({"dns": "192.168.1.7"}, "dns"),
    "names from everybody": ({"dns": "255.255.255.255"}, "dns"),
    "names from nobody": ({"dns": "0.0.0.0,0.0.0.0"}, "dns"),
    "a gateway elsewhere": ({"router": "8.8.8.8"}, "gateway"),
    "a gateway that is the card": ({"router": "192.168.1.7"}, "gateway"),
    "a gateway on the loopback": ({"router": "127.0.0.1"}, "gateway"),
    "a gateway among the personas": ({"ip": "10.1.2.3", "subnet": "255.0.0.0", "router": "10.137.0.1"}, "gateway"),
}


@pytest.mark.parametrize("name", HOSTILE_PARTS)
def test_a_part_that_makes_no_sense_is_left_out_and_said(name: str) -> None:
    changes, part = HOSTILE_PARTS[name]
    found = lease.report(line(**changes)).lease
    assert found is not None
    assert not getattr(found, part)
    assert found.without


HOSTILE_LINES = {
    "routes": line() + b" staticroutes=10.137.0.0/16,192.168.1.66",
    "an MTU": line() + b" mtu=68",
    "twice": line() + b" ip=192.168.1.8",
    "a domain": line() + b" domain=$(reboot)",
    "a quote": line().replace(b"192.168.1.7", b"'192.168.1.7'"),
    "NUL": line() + b"\0",
    "two lines in one": line() + b"\r" + line(),
    "an unknown event": line("reboot"),
    "no event": b"",
    "other letters": "bound ip=\uff11\uff19\uff12.168.1.7".encode(),
    "no text": b"\xff\xfe\xfd",
    "very long": line(dns="9.9.9.9," * 200),
}


@pytest.mark.parametrize("name", HOSTILE_LINES)
def test_a_line_that_is_no_line_of_the_script_is_nothing(name: str) -> None:
    found = lease.report(HOSTILE_LINES[name])
    assert found.lease is None
    assert not found.lost
    assert found.why


def test_who_takes_an_address_back_is_heard() -> None:
    assert lease.report(b"nak").lost
    assert lease.report(b"deconfig").lost
    assert not lease.report(b"leasefail").lost


NUMBER = st.integers(0, 300).map(str)
ADDRESS = st.one_of(
    st.builds(".".join, st.lists(NUMBER, min_size=3, max_size=5)),
    st.integers(0, 2**32 - 1).map(ipv4.text),
    st.sampled_from(["10.137.3.4", "127.0.0.1", "169.254.1.1", "255.255.255.0", "255.255.0.0", "0.0.0.0", "192.168.1.7", "", "x"]),
)


@given(ADDRESS, ADDRESS | st.integers(0, 32).map(lambda n: ipv4.text(ipv4.mask(n))), st.lists(ADDRESS, max_size=4), st.lists(ADDRESS, max_size=5),
       st.integers(-5, 2**33).map(str))  # fmt: skip
def test_whatever_a_server_says_what_is_applied_is_harmless(ip: str, mask: str, routers: list[str], dns: list[str], seconds: str) -> None:
    found = lease.report(line(ip=ip, subnet=mask, router=",".join(routers), dns=",".join(dns), lease=seconds)).lease
    if found is None:
        return
    for each in (found.address, *([found.gateway] if found.gateway else []), *found.dns):
        value = ipv4.number(each)
        assert value is not None
        assert ipv4.text(value) == each, "one way to write it"
        assert not any(ipv4.within(value, never) for never in ("127.0.0.0/8", "169.254.0.0/16", "10.137.0.0/16", "224.0.0.0/3", "0.0.0.0/8"))
    assert found.address not in (found.gateway, *found.dns)
    assert lease.LENGTH_MIN <= found.length <= 32
    assert found.seconds is None or found.seconds >= lease.LEASE_MIN_S
    assert len(found.dns) <= lease.SERVERS_MAX
    rules.names(found.dns[0] if found.dns else "").text()


@given(st.binary(max_size=700))
def test_no_bytes_of_the_client_are_an_error(data: bytes) -> None:
    lease.report(data)


# ---- allow


@pytest.mark.parametrize(
    ("entry", "meant"),
    [
        ("203.0.113.0/24:443/tcp", allow.Allowed("203.0.113.0/24", (443, 443), "tcp")),
        ("203.0.113.7:443", allow.Allowed("203.0.113.7", (443, 443), "tcp")),
        ("203.0.113.7", allow.Allowed("203.0.113.7")),
        ("203.0.113.7:8000-8080/udp", allow.Allowed("203.0.113.7", (8000, 8080), "udp")),
        ("0.0.0.0/0", allow.Allowed("0.0.0.0/0")),
    ],
)
def test_an_entry_of_allow_is_read(entry: str, meant: allow.Allowed) -> None:
    assert allow.read(entry) == meant


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ("example.org:443", "names are not looked up"),
        ("203.0.113.7/24", "203.0.113.0/24"),
        ("203.0.113.0/33", "no address or prefix"),
        ("203.0.113.0/024", "no address or prefix"),
        ("203.0.113.256", "no address or prefix"),
        ("203.0.113.7:0", "ports are 1"),
        ("203.0.113.7:70000", "ports are 1"),
        ("203.0.113.7:90-80", "the lower one first"),
        ("203.0.113.7/tcp", "a protocol goes with a port"),
        ("203.0.113.7:443/sctp", "no address or prefix"),
        ("::1", "no address or prefix"),
        ("", "no address or prefix"),
        ("1.2.3.4 accept\n", "no address or prefix"),
    ],
)
def test_an_entry_that_is_wrong_says_why(entry: str, why: str) -> None:
    found = allow.read(entry)
    assert isinstance(found, str)
    assert why in found


@given(st.text(st.sampled_from("0123456789./:-tcpudp a;{}\n\"'"), max_size=40))
def test_nothing_but_numbers_of_an_entry_is_ever_part_of_a_filter(entry: str) -> None:
    found = allow.read(entry)
    if isinstance(found, allow.Allowed):
        text = rules.persona([found], lan=False, dns=True).text()
        assert set(found.net) <= set("0123456789./")
        assert text.count('comment "allowed 1"') == 1


def test_an_address_for_each_slot_is_its_own() -> None:
    assert ipv4.of_slot(0) == "10.137.0.1"
    assert ipv4.of_slot(254) == "10.137.0.255"
    assert ipv4.of_slot(31_999) == "10.137.125.0"
    assert len({ipv4.of_slot(slot) for slot in range(32_000)}) == 32_000


# ---- the configuration


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"address": "192.168.1.5"}, "address"),
        ({"address": "10.137.0.5/24"}, "address"),
        ({"address": "192.168.1.0/24"}, "address"),
        ({"address": "192.168.1.5/24", "gateway": "10.0.0.1"}, "gateway"),
        ({"gateway": "192.168.1.1"}, "gateway"),
        ({"dns": ["127.0.0.1"]}, "dns"),
        ({"dns": "9.9.9.9"}, "dns"),
        ({"dns": ["9.9.9.9"] * 4}, "dns"),
        ({"device": "../etc"}, "device"),
        ({"device": 7}, "device"),
        ({"mtu": "68"}, "mtu"),
    ],
)
def test_a_configuration_that_is_wrong_names_the_key(values: dict[str, Any], key: str) -> None:
    assert [each for each, _ in config.faults(values)] == [key]


def test_a_configuration_is_kept_as_it_was_said() -> None:
    kept = config.Config("virtio3", "192.168.1.5/24", "192.168.1.1", ("9.9.9.9",))
    assert config.read(kept.text()) == kept
    assert kept.static == lease.Lease("192.168.1.5", 24, "192.168.1.1", ("9.9.9.9",))
    assert config.Config().static is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"address": "127.0.0.1/8"}', '{"later": 1, "dns": ["9.9.9.9"]}', '{"dns": 7}', "7"])
def test_what_is_not_understood_of_a_configuration_is_the_default(text: str) -> None:
    assert config.read(text) in (config.Config(), config.Config(dns=("9.9.9.9",)))


# ---- links and filters, as the kernel tells them

CARD = {
    "ifindex": 3, "ifname": "eth0", "flags": ["BROADCAST", "MULTICAST", "UP", "LOWER_UP"], "link_type": "ether", "address": "52:54:00:12:34:56",
    "parentbus": "virtio", "parentdev": "virtio3",
}  # fmt: skip


def test_a_card_is_an_interface_with_a_device_behind_it() -> None:
    others = [{**CARD, "parentdev": None}, {**CARD, "link_type": "loopback"}, {**CARD, "ifname": "a b"}, {**CARD, "ifindex": "3"}, 7, None]
    assert links.read(json.dumps([*others, CARD])) == (links.Link("eth0", 3, "virtio3", "virtio", "52:54:00:12:34:56", True, True),)
    for text in ("", "[]", "{", "7", '{"a": 1}'):
        assert links.read(text) == ()


def test_the_card_is_chosen_by_its_device_and_never_by_its_name() -> None:
    here = links.read(json.dumps([{**CARD, "ifname": f"eth{n}", "parentdev": f"virtio{9 - n}"} for n in range(3)]))
    assert [link.name for link in links.ordered(here, "")] == ["eth2", "eth1", "eth0"]
    assert [link.name for link in links.ordered(here, "virtio8")] == ["eth1"]
    assert links.ordered(here, "eth0") == ()


def listing(*tables: rules.Table) -> list[dict[str, Any]]:
    """Return what nft would list of these tables."""
    found: list[dict[str, Any]] = [{"metainfo": {"version": "1"}}]
    for table in tables:
        found.append({"table": {"family": "inet", "name": table.name}})
        for chain in table.chains:
            words = {"table": table.name, "name": chain.name, "type": chain.kind, "hook": chain.hook, "policy": chain.policy}
            found.append({"chain": {"family": "inet", **words}})
            for name, _ in chain.rules:
                counter = {"counter": {"packets": 1, "bytes": 60}}
                found.append({"rule": {"family": "inet", "table": table.name, "chain": chain.name, "comment": name, "expr": [counter]}})
    return found


@pytest.mark.parametrize("table", [rules.net(), rules.persona([], lan=True, dns=True)])
def test_what_no_rule_names_is_dropped(table: rules.Table) -> None:
    policies = {chain.hook: chain.policy for chain in table.chains if chain.kind == "filter" and chain.hook != "prerouting"}
    assert set(policies.values()) == {"drop"}
    assert policies.keys() & {"forward", "output"}


PERSONA = rules.persona([], lan=False, dns=True)


def test_a_filter_that_is_whole_misses_nothing() -> None:
    assert rules.missing(json.dumps({"nftables": listing(PERSONA)}), (PERSONA,)) == ""
    assert {each["rule"] for each in rules.counters(json.dumps({"nftables": listing(PERSONA)}))} >= {"private", "refused"}


@pytest.mark.parametrize("gone", range(1, len(listing(PERSONA))))
def test_a_filter_without_any_one_part_is_not_the_one_that_was_written(gone: int) -> None:
    found = listing(PERSONA)
    del found[gone]
    assert rules.missing(json.dumps({"nftables": found}), (PERSONA,))


@pytest.mark.parametrize(
    "more",
    [
        {"table": {"family": "ip", "name": "x"}},
        {"chain": {"family": "inet", "table": "bay0", "name": "more", "type": "filter", "hook": "output", "policy": "accept"}},
        {"rule": {"family": "inet", "table": "bay0", "chain": "out", "expr": []}},
    ],
)
def test_nor_is_one_with_more_in_it(more: dict[str, Any]) -> None:
    assert rules.missing(json.dumps({"nftables": [*listing(PERSONA), more]}), (PERSONA,))


def test_a_chain_that_lets_everything_through_is_seen() -> None:
    found = listing(PERSONA)
    next(each for each in found if "chain" in each)["chain"]["policy"] = "accept"
    assert rules.missing(json.dumps({"nftables": found}), (PERSONA,))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"nftables": 7}', '{"nftables": [7]}', "[" * 5000])
def test_a_listing_that_makes_no_sense_is_no_filter(text: str) -> None:
    assert rules.missing(text, (PERSONA,))
    assert rules.counters(text) == []
