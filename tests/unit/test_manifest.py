"""Manifests: what is taken, what is refused with which words, all mistakes of a file at once, and the way over the wire."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from attrs.exceptions import FrozenInstanceError
from hypothesis import given
from hypothesis import strategies as st

from bay0.base.errors import ManifestError
from bay0.control.wire import FRAME_MAX
from bay0.personas import manifest
from bay0.personas import rules as manifestrules
from bay0.personas.manifest import Manifest, digest, from_wire, load
from bay0.personas.tomltext import written

TOP = Path(__file__).parents[2]
IMAGE = "localhost/alpine:3.23"
MIB = 1 << 20
KERNEL_CAPABILITIES = 41  # capabilities(7): CAP_CHOWN (0) to CAP_CHECKPOINT_RESTORE (40)


def toml(rest: str = "") -> str:
    return f'image = "{IMAGE}"\n{rest}\n'


def complaints(text: str) -> list[str]:
    with pytest.raises(ManifestError) as refusal:
        load(text, "persona.toml")
    return str(refusal.value).split("\n")


# ---- what is taken


def test_an_image_is_all_a_manifest_needs() -> None:
    assert load(toml(), "x") == Manifest(
        image=IMAGE, command=(), environment={}, home="", memory=256 * MIB, cpus=1.0, pids=256, network="none", user="",
        capabilities=(), userns=False, ai=False, behind="freeze", autostart=False, restart="no", retries=3, stop_s=5.0,
        description="",
    )  # fmt: skip


@pytest.mark.parametrize("path", sorted(TOP.glob("personas/*/persona.toml")), ids=lambda path: path.parent.name)
def test_every_sample_loads(path: Path) -> None:
    sample = load(path.read_text(), str(path))
    made_by = TOP / f"scripts/mk{path.parent.name}.sh"
    assert sample.image == IMAGE or made_by.exists(), "a sample is made of what the spine brings, or a script makes its image"
    assert sample.description
    if sample.command[0] == "/bin/sh":  # the others' programs: test_window_samples.py
        assert "TERM" in " ".join(sample.command), "the first process of a sample stops at once"


def test_there_are_samples() -> None:
    assert {path.parent.name for path in TOP.glob("personas/*/persona.toml")} >= {"work", "burn"}


def test_the_readme_has_a_row_for_every_key_with_its_default() -> None:
    rows = [line.split(" | ") for line in (TOP / "personas/README.md").read_text().splitlines() if line.startswith("| `")]
    stated = {row[0].strip("| `"): row[2] for row in rows}
    assert tuple(stated) == manifest.NAMES
    for key, default in stated.items():
        if default.startswith("`"):
            assert load(toml(f"{key} = {default.strip('`')}"), "x") == load(toml(), "x")


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ('command = ["/bin/sh", "-c", "echo \\"hi\\"\\n"]', "command", ("/bin/sh", "-c", 'echo "hi"\n')),
        ('command = ["x", ""]', "command", ("x", "")),
        ('environment = {A = "1", _b2 = ""}', "environment", {"A": "1", "_b2": ""}),
        ('[environment]\nPATH = "/bin"', "environment", {"PATH": "/bin"}),
        ('environment.A = "\u00e9=\\n"', "environment", {"A": "\u00e9=\n"}),
        ('home = "/home/work"', "home", "/home/work"),
        ('home = "/usr/src/app"', "home", "/usr/src/app"),
        ('home = "/etcetera"', "home", "/etcetera"),
        ('home = "/root"', "home", "/root"),
        ('memory = "16M"', "memory", 16 * MIB),
        ('memory = "1T"', "memory", 1 << 40),
        ('memory = "65536K"', "memory", 64 * MIB),
        ("memory = 33554432", "memory", 32 * MIB),
        ('memory = "33554432"', "memory", 32 * MIB),
        ("cpus = 0.01", "cpus", 0.01),
        ("cpus = 256", "cpus", 256.0),
        ("pids = 1", "pids", 1),
        ("pids = 100_000", "pids", 100_000),
        ('capabilities = ["cap_chown", "KILL", "CHOWN"]', "capabilities", ("CHOWN", "KILL")),
        ("autostart = true", "autostart", True),
        ("ai = true", "ai", True),
        ("userns = true", "userns", True),
        ('user = "me"', "user", "me"),
        ('user = "_www-data:65535"', "user", "_www-data:65535"),
        ('user = "1000:1000"', "user", "1000:1000"),
        ('user = ""', "user", ""),
        ('behind = "run"', "behind", "run"),
        ('restart = "on-failure"', "restart", "on-failure"),
        ("retries = 0", "retries", 0),
        ("stop_s = 0", "stop_s", 0.0),
        ("stop_s = 60", "stop_s", 60.0),
        ('description = "caf\u00e9, a persona"', "description", "caf\u00e9, a persona"),
    ],
)
def test_a_good_value_is_taken(line: str, key: str, value: object) -> None:
    taken = getattr(load(toml(line), "x"), key)
    assert taken == value
    assert type(taken) is type(value)


# ---- and written again


def manifests() -> st.SearchStrategy[Manifest]:
    text = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=20)
    return st.builds(
        Manifest, image=st.just(IMAGE), command=st.lists(text.filter(bool), max_size=3).map(tuple),
        environment=st.dictionaries(st.from_regex("[A-Za-z_][A-Za-z0-9_]{0,5}", fullmatch=True), text, max_size=3),
        home=st.sampled_from(("", "/home/x")), memory=st.integers(16 * MIB, 1 << 40), cpus=st.floats(0.01, 256),
        pids=st.integers(1, 100_000), capabilities=st.sets(st.sampled_from(sorted(manifestrules.GRANTED)), max_size=3).map(tuple),
        userns=st.booleans(), ai=st.booleans(), screen=st.booleans(), behind=st.sampled_from(("freeze", "run")), autostart=st.booleans(),
        restart=st.sampled_from(("no", "always")), retries=st.integers(0, 100), stop_s=st.floats(0, 60),
        description=text.filter(str.isprintable), user=st.sampled_from(("", "me", "1000:1000")),
    )  # fmt: skip


@given(manifests())
def test_what_is_written_as_toml_is_read_as_the_same_manifest(made: Manifest) -> None:
    assert load(written(made), "x") == made


def test_a_manifest_is_written_as_a_person_would() -> None:
    made = load(toml('memory = "1G"\ncommand = ["sh", "-c", "x"]\nai = true\ncpus = 2\n[environment]\nA = "é"'), "x")
    assert written(made) == (
        'image = "localhost/alpine:3.23"\ncommand = ["sh", "-c", "x"]\nmemory = "1G"\ncpus = 2.0\nai = true\n\n[environment]\nA = "é"\n'
    )
    assert written(load(toml(), "x")) == toml().rstrip("\n") + "\n"


@pytest.mark.parametrize("image", ["localhost/a:1", "localhost/a/b/c:latest", "localhost/a.b_c__d--e:1.2-rc_3", "localhost/" + "a" * 100 + ":1"])
def test_a_local_image_is_taken(image: str) -> None:
    assert Manifest(image=image).image == image


# ---- what is refused


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('command = "sh -c x"', "a list of words"),
        ('command = [["sh"]]', "word 1: this must be text"),
        ('command = ["sh", 7]', "word 2: this must be text in quotes, not a whole number"),
        ('command = [""]', "the program and cannot be empty"),
        ('command = ["a\\u0000b"]', "word 1: text here cannot hold a NUL"),
        (f"command = {['x'] * 257}", "257 words, and 256 are the most"),
        (f"command = ['{'x' * 40000}']", "32768 is the most"),
        ("environment = []", "a table of names and texts"),
        ('home = "home"', "absolute path"),
        ('home = "/"', "absolute path below /"),
        ('home = "/home/"', "without //"),
        ('home = "//home"', "without //"),
        ('home = "/home/../etc"', "/../"),
        ('home = "/home/./x"', "/./"),
        ('home = "/home/a b"', "may hold letters"),
        ('home = "/home/a:ro"', "may hold letters"),
        ('home = "/home/a,b"', "may hold letters"),
        ('home = "/home/w\u00f6rk"', "may hold letters"),
        ('home = "/home/a\\n"', "may hold letters"),
        (f'home = "/{"a" * 255}"', "255 characters at most"),
        ("home = 7", "text in quotes"),
        ('memory = "15M"', "from 16M to 1T"),
        ('memory = "2T"', "from 16M to 1T"),
        ("memory = 0", "from 16M to 1T"),
        ("memory = -1", "from 16M to 1T"),
        ('memory = "256 MB"', 'a size like "256M"'),
        ('memory = "256m"', 'a size like "256M"'),
        ('memory = "1.5G"', 'a size like "256M"'),
        ("memory = 1.5", 'a size like "256M"'),
        ("memory = true", 'a size like "256M"'),
        ("cpus = 0", "from 0.01 to 256 processors"),
        ("cpus = 257", "from 0.01 to 256"),
        ("cpus = nan", "from 0.01 to 256"),
        ("cpus = inf", "from 0.01 to 256"),
        ('cpus = "1"', "a number of processors, not text"),
        ("cpus = true", "a number of processors, not true or false"),
        (f"cpus = 1{'0' * 400}", "from 0.01 to 256"),
        ("pids = 0", "from 1 to 100000 processes"),
        ("pids = 100001", "from 1 to 100000"),
        ("pids = 1.0", "a whole number"),
        ("retries = -1", "from 0 to 100"),
        ("retries = 101", "from 0 to 100"),
        ("stop_s = 60.5", "from 0 to 60 seconds"),
        ("stop_s = 1979-05-27", "a number of seconds, not a date or time"),
        ('network = "host"', 'this must be "none" or "net"'),
        ("network = false", 'this must be "none" or "net"'),
        ('behind = "pause"', '"freeze" or "run"'),
        ("behind = true", '"freeze" or "run"'),
        ('restart = "yes"', '"no" or "on-failure" or "always"'),
        ("restart = true", '"no" or "on-failure" or "always"'),
        ('autostart = "true"', "without quotes"),
        ("ai = 1", "true or false"),
        ("userns = 1", "true or false"),
        ("user = 1000", "text in quotes"),
        ('user = "Me"', "a user of the image"),
        ('user = "a b"', "a user of the image"),
        ('user = "me:"', "a user of the image"),
        ('user = "-u"', "a user of the image"),
        ('user = "me:1:2"', "a user of the image"),
        ('user = "65536"', "the ids 0 to 65535"),
        ('user = "me:70000"', "the ids 0 to 65535"),
        ("autostart = 1", "true or false"),
        ('capabilities = "CHOWN"', "a list of names"),
        ("capabilities = [1]", "a list of names"),
        ('capabilities = ["ALL"]', "no capability 'ALL'"),
        ('capabilities = ["CAP_CAP_CHOWN"]', "no capability"),
        ('capabilities = ["\u017fetuid"]', "no capability"),
        ('description = "a\\u001b[31m"', "without control characters"),
        ('description = "a\\u202eb"', "without control characters"),
        (f'description = "{"x" * 201}"', "201 characters, and 200 are the most"),
    ],
)
def test_a_bad_value_is_refused_with_its_line_key_and_reason(line: str, problem: str) -> None:
    found = complaints(toml(line))
    assert len(found) == 1
    place, _, reason = found[0].partition(": ")
    key = line.partition(" ")[0]
    assert reason.startswith(f"{key}: ")
    assert problem in reason
    assert place == ("persona.toml:1" if key not in line else "persona.toml:2")


@pytest.mark.parametrize(
    ("image", "problem"),
    [
        ("", "starts with localhost/"),
        ("alpine", "starts with localhost/"),
        ("docker.io/library/alpine:3", "nothing is ever pulled"),
        ("localhost:5000/alpine:3", "starts with localhost/"),
        ("LOCALHOST/alpine:3", "lower case"),
        ("localhost/Alpine:3", "lower case"),
        ("localhost/alpine", "ends in a tag"),
        ("localhost/alpine:", "localhost/NAME:TAG"),
        ("localhost/:3", "localhost/NAME:TAG"),
        ("localhost//a:3", "localhost/NAME:TAG"),
        ("localhost/../a:3", "localhost/NAME:TAG"),
        ("localhost/a-:3", "localhost/NAME:TAG"),
        ("localhost/a:3:4", "localhost/NAME:TAG"),
        ("localhost/a:3\n", "localhost/NAME:TAG"),
        ("localhost/a:-v", "localhost/NAME:TAG"),
        ("localhost/a b:3", "localhost/NAME:TAG"),
        ("localhost/a@sha256:" + "0" * 64, "not by a digest"),
        ("localhost/" + "a" * 300 + ":1", "255 characters"),
        ("localhost/a:" + "1" * 129, "localhost/NAME:TAG"),
        ("localhost/a\0:1", "NUL"),
        ("--privileged", "starts with localhost/"),
    ],
)
def test_an_image_that_is_not_exactly_a_local_name_is_refused(image: str, problem: str) -> None:
    with pytest.raises(ManifestError, match="image: ") as refusal:
        Manifest(image=image)
    assert problem in str(refusal.value)


@pytest.mark.parametrize("place", ["/proc", "/sys", "/dev", "/run", "/etc", "/bin", "/sbin", "/lib", "/lib64", "/boot", "/var/run"])
def test_no_home_hides_what_the_kernel_or_the_image_needs(place: str) -> None:
    for home in (place, f"{place}/x", f"{place}/x/y"):
        with pytest.raises(ManifestError, match="belongs to the kernel or the image"):
            Manifest(image=IMAGE, home=home)


@pytest.mark.parametrize("name", ["1A", "A B", "A=B", "", "A-B", "A.B", "\u00c4", "A\n", "A\0"])
def test_a_variable_with_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ManifestError, match="letters, digits and _"):
        Manifest(image=IMAGE, environment={name: "x"})


def test_every_capability_of_the_kernel_is_either_given_or_refused_with_a_reason() -> None:
    assert not set(manifestrules.REFUSED) & set(manifestrules.GRANTED)
    assert len(manifestrules.REFUSED) + len(manifestrules.GRANTED) == KERNEL_CAPABILITIES
    for name, reason in manifestrules.REFUSED.items():
        with pytest.raises(ManifestError) as refusal:
            Manifest(image=IMAGE, capabilities=[f"cap_{name.lower()}"])  # type: ignore[arg-type]
        assert reason in str(refusal.value)
    assert {"SYS_ADMIN", "SYS_MODULE", "SYS_RAWIO", "SYS_PTRACE", "SYS_BOOT", "SYS_TIME", "NET_ADMIN", "MAC_ADMIN", "BPF"} <= set(
        manifestrules.REFUSED
    )


def test_all_mistakes_of_a_file_are_reported_at_once_in_the_order_of_its_lines() -> None:
    text = """# no image
imag = "localhost/alpine:3.23"
memory = "8M"
description = '''
cpus = 1
'''
cpus = "one"
capabilities = ["SYS_ADMIN", "NOPE"]

[environment]
GOOD = "1"
PORT = 8080
"2X" = "a"

[enviroment]
x = 1
"""
    places = [line.split(": ")[:2] for line in complaints(text)]
    assert places == [
        ["persona.toml:1", "image"],
        ["persona.toml:2", "imag"],
        ["persona.toml:3", "memory"],
        ["persona.toml:4", "description"],
        ["persona.toml:7", "cpus"],
        ["persona.toml:8", "capabilities"],
        ["persona.toml:8", "capabilities"],
        ["persona.toml:12", "environment.PORT"],
        ["persona.toml:13", "environment.'2X'"],
        ["persona.toml:15", "enviroment"],
    ]


@pytest.mark.parametrize(("key", "meant"), [("comand", "command"), ("Memory", "memory"), ("stop-s", "stop_s"), ("auto_start", "autostart")])
def test_an_unknown_key_is_refused_with_the_one_that_was_meant(key: str, meant: str) -> None:
    assert complaints(toml(f"{key} = 1")) == [f"persona.toml:2: {key}: a manifest has no such key; did you mean `{meant}`?"]


def test_an_unknown_key_like_no_other_is_refused_with_all_there_are() -> None:
    (line,) = complaints(toml("zzz = 1"))
    assert all(key in line for key in manifest.NAMES)


def test_no_message_holds_what_a_terminal_obeys_or_has_no_end() -> None:
    evil, long = '"\\u001b[2J" = 1', "x" * 50_000
    for line in (evil, f"{long} = 1", f'restart = "\\u001b[2J{long}"', f'capabilities = ["{long}"]', f'memory = "{long}"', f'image2 = "{long}"'):
        (found,) = complaints(toml(line))
        assert found.isprintable()
        assert len(found) < 400


@pytest.mark.parametrize(
    ("text", "line"),
    [("image =", 1), ('image = "x"\n\nb = [', 3), ("a = 1\na = 2", 2), ("[a\n", 1), ("x = " + "[" * 5000, 1), ("\0", 1), ('a = "\n"', 1)],
)
def test_a_text_that_is_not_toml_is_refused_with_its_line(text: str, line: int) -> None:
    (found,) = complaints(text)
    assert found.startswith(f"persona.toml:{line}: syntax: this is not TOML")


@pytest.mark.parametrize(
    "text",
    ["environment.PORT = 1", "environment . PORT = 1", '"environment"."PORT" = 1', "environment = {PORT = 1}", "[environment]\nPORT = 1",
     "[ environment ]  # x\n'PORT'=1"],
)  # fmt: skip
def test_a_key_is_found_however_toml_lets_it_be_written(text: str) -> None:
    (found,) = complaints(toml("\n" + text))
    assert found.startswith(f"persona.toml:{3 + text.count(chr(10))}: environment.PORT: ")


# ---- over the wire


def test_a_manifest_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        Manifest(image=IMAGE).pids = 9  # type: ignore[misc]


def test_a_manifest_keeps_no_hold_on_the_table_it_was_made_of() -> None:
    table = {"A": "1"}
    made = Manifest(image=IMAGE, environment=table)
    table["A"] = "2"
    assert made.environment == {"A": "1"}


def test_the_wire_form_is_plain_json_of_all_keys() -> None:
    wire = load((TOP / "personas/work/persona.toml").read_text(), "x").to_wire()
    assert tuple(wire) == manifest.NAMES
    assert json.loads(json.dumps(wire)) == wire


def test_from_wire_reports_all_mistakes_too() -> None:
    with pytest.raises(ManifestError) as refusal:
        from_wire({"imag": 1, "memory": None, "environment": {"A": "\ud800"}, "command": ["\udcff"]})
    assert [line.split(":")[0] for line in str(refusal.value).split("\n")] == ["imag", "image", "command", "environment.A", "memory"]


@pytest.mark.parametrize(
    "wire", [None, 7, "image", [], [["image", IMAGE]], {}, {"image": None}, {"image": IMAGE, "pids": None}, {7: 7, "image": IMAGE}]
)
def test_a_wire_form_that_is_none_is_refused(wire: Any) -> None:
    with pytest.raises(ManifestError):
        from_wire(wire)


def test_the_largest_manifest_fits_into_a_frame_of_the_control_socket() -> None:
    assert manifest.WIRE_MAX * 2 <= FRAME_MAX
    most = Manifest(image=IMAGE, command=("x" * (manifest.WIRE_MAX - 400),))
    assert len(json.dumps(most.to_wire())) < FRAME_MAX
    with pytest.raises(ManifestError, match="is the most"):
        evolve(most, command=("\u00e9" * (manifest.WIRE_MAX // 4),))


def test_a_digest_depends_on_what_is_said_and_not_on_its_order_or_spelling() -> None:
    one = load(toml('cpus = 1\nmemory = "1G"\ncapabilities = ["KILL", "cap_chown"]\n[environment]\nA = "1"\nB = "2"'), "x")
    other = load('environment = {B = "2", A = "1"}\ncapabilities = ["CHOWN", "KILL"]\nmemory = "1024M"\ncpus = 1.0\n' + toml(), "y")
    assert digest(one) == digest(other) == digest(from_wire(dict(reversed(one.to_wire().items()))))
    assert digest(one) != digest(evolve(one, pids=257))


def test_a_digest_is_16_hex_digits_and_the_same_in_every_release() -> None:
    assert digest(Manifest(image=IMAGE)) == "9d2dc6a48bbb68a5"
    assert digest(Manifest(image=IMAGE, ai=True)) != "9d2dc6a48bbb68a5"


def test_what_is_stored_says_nothing_of_later_keys_that_an_older_program_would_not_understand() -> None:
    later = {"ai": True, "behind": "run", "screen": True, "user": "me", "userns": True, "dns": False, "nf_tables_risk": True}
    wide, narrow = {"lan": True}, {"allow": ["192.0.2.0/24"]}
    assert not {*later, *wide, *narrow} & Manifest(image=IMAGE).to_stored().keys()
    for each in (wide, narrow):
        values = {**later, **each}
        assert values.items() <= Manifest(image=IMAGE, network="net", **values).to_stored().items()  # type: ignore[arg-type]
    assert {*later, *wide, *narrow} == set(manifest.LATER)


def test_pid_1_reads_the_wire_without_cattrs_or_tomllib() -> None:
    code = "import sys; from bay0.personas import manifest; m = manifest.from_wire({'image': 'localhost/a:1'}); manifest.digest(m); "
    code += "print(sorted({'cattrs', 'tomllib', 'difflib'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
MANIFESTS = st.builds(
    Manifest,
    image=st.from_regex(r"localhost/[a-z0-9]{1,9}(-[a-z]{1,3})?:[a-z0-9_][a-z0-9._-]{0,9}", fullmatch=True),
    command=st.lists(TEXT, max_size=5).map(lambda words: ("x", *words)) | st.just(()),
    environment=st.dictionaries(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,9}", fullmatch=True), TEXT, max_size=5),
    home=st.sampled_from(["", "/home/work", "/root", "/data/a.b+c@d"]),
    memory=st.integers(16 * MIB, 1 << 40),
    cpus=st.floats(0.01, 256) | st.integers(1, 256),
    pids=st.integers(1, 100_000),
    capabilities=st.lists(st.sampled_from(sorted(manifestrules.GRANTED)), max_size=6),
    user=st.sampled_from(["", "me", "1000", "me:staff", "1000:1000"]),
    userns=st.booleans(),
    ai=st.booleans(),
    behind=st.sampled_from(["freeze", "run"]),
    autostart=st.booleans(),
    restart=st.sampled_from(["no", "on-failure", "always"]),
    retries=st.integers(0, 100),
    stop_s=st.floats(0, 60),
    description=st.text(st.characters(exclude_categories=["C", "Z"]), max_size=200),
)


@given(MANIFESTS)
def test_any_manifest_comes_back_from_the_wire_as_it_went(made: Manifest) -> None:
    back = from_wire(json.loads(json.dumps(made.to_wire())))
    assert back == made
    assert digest(back) == digest(made)
    assert from_wire(json.loads(json.dumps(made.to_stored()))) == made


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9), lambda kids: st.lists(kids, max_size=3), max_leaves=5
)


@given(
    st.dictionaries(st.sampled_from([*manifest.NAMES, "other"]) | st.text(max_size=5), JSON | st.dictionaries(st.text(max_size=4), JSON, max_size=3))
)
def test_any_json_is_a_manifest_or_is_refused_and_nothing_else_is_raised(wire: dict[str, Any]) -> None:
    try:
        made = from_wire(wire)
    except ManifestError:
        return
    assert from_wire(made.to_wire()) == made
