"""What a verb reads: files of any kind, texts of any size, every kind of TOML. It takes it, or says in one line what is wrong and changes nothing."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bay0.base.errors import ManifestError, RefusedError
from bay0.cli import inputs
from bay0.cli import main as cli
from bay0.personas import manifest

GOOD = b'image = "localhost/shell:latest"\n'
TAKEN = 3  # it was read and checked; only then is a spine looked for, and there is none


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAY0_SOCKET", str(tmp_path / "no-spine"))


def create(path: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    status = cli.main(["persona", "create", "work", "--file", path])
    return status, capsys.readouterr().err


# ---- what kind of a file it is


@contextlib.contextmanager
def somebody_else() -> Iterator[None]:
    """Root may read everything: act as a user who may not. The real uid stays, so that there is a way back."""
    own = os.geteuid()
    if own == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(own)


@pytest.fixture(params=["fifo", "directory", "zeroes", "tty", "socket", "dangling", "loop", "locked", "nothing", "too-long", "nul"])
def odd(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Give the path of something that is no file with a manifest."""
    path = tmp_path / "persona.toml"
    if request.param == "fifo":
        os.mkfifo(path)
    elif request.param == "directory":
        path.mkdir()
    elif request.param == "zeroes":
        path.symlink_to("/dev/zero")
    elif request.param == "tty":
        ours, theirs = os.openpty()
        yield os.ttyname(theirs)
        os.close(ours)
        os.close(theirs)
        return
    elif request.param == "socket":
        import socket

        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
    elif request.param == "dangling":
        path.symlink_to(tmp_path / "gone")
    elif request.param == "loop":
        path.symlink_to(path)
    elif request.param == "locked":
        path.write_bytes(GOOD)
        path.chmod(0)
        tmp_path.chmod(0o711)
        monkeypatch.chdir(tmp_path)
        with somebody_else():
            assert not os.access(path.name, os.R_OK, effective_ids=True)
            yield path.name
        return
    elif request.param == "too-long":
        yield "x" * 5000 + ".toml"
        return
    elif request.param == "nul":
        yield "per\0sona.toml"
        return
    yield str(path)


def test_what_is_no_readable_file_is_refused_at_once(odd: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, said = create(odd, capsys)
    assert status == 1
    assert said.startswith("bay0: ")
    assert "manifest" in said
    assert said.count("\n") == 1


def test_a_file_larger_than_a_manifest_can_be_is_not_read_to_its_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "persona.toml"
    with open(path, "wb") as file:
        file.truncate(1 << 40)  # sparse
    status, said = create(str(path), capsys)
    assert (status, said) == (1, f"bay0: {path}: more than 64 KiB, which no manifest needs; nothing was sent\n")


@pytest.mark.parametrize("text", [b"\xff\xfe" + GOOD.decode().encode("utf-16-le"), b"\xff\xfe\x00\x00", b'image = "\xe9"', b"\xc3", b"\x80"])
def test_a_file_that_is_not_utf_8_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: bytes) -> None:
    path = tmp_path / "persona.toml"
    path.write_bytes(text)
    status, said = create(str(path), capsys)
    assert status == 1
    assert f"{path}: not UTF-8 text" in said


@pytest.mark.parametrize("text", [b"\xef\xbb\xbf" + GOOD, GOOD.replace(b"\n", b"\r\n"), GOOD.rstrip(), b"\n\n" + GOOD, "# né 日本\n".encode() + GOOD])
def test_what_editors_make_of_a_file_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: bytes) -> None:
    path = tmp_path / "persona.toml"
    path.write_bytes(text)
    status, _ = create(str(path), capsys)
    assert status == TAKEN


def test_a_manifest_may_come_from_stdin(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(GOOD)))
    assert create("-", capsys)[0] == TAKEN
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"cpus = x")))
    assert "stdin:1: syntax" in create("-", capsys)[1]
    assert cli.main(["persona", "create", "--file", "-"]) == 2


@pytest.mark.parametrize("words", [["ask"], ["rpc"], ["rpc", "--each"], ["persona", "create", "work", "--file", "-"], ["nack", "check", "-"]])
def test_an_endless_stdin_is_not_read_until_memory_ends(words: list[str]) -> None:
    """With 64 MiB of memory beyond what Python has mapped, a verb that reads on would end with MemoryError or be killed."""
    code = "import resource, sys; resource.setrlimit(resource.RLIMIT_DATA, (160 << 20, 160 << 20)); from bay0.__main__ import main; sys.exit(main())"
    with open("/dev/zero", "rb") as endless:
        done = subprocess.run([sys.executable, "-c", code, *words], stdin=endless, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode in (1, 2, 3)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("text", [b"\xff what?", b"what \xed\xa0\x80?"])
def test_a_question_that_is_no_text_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    assert cli.main(["ask"]) == 2
    assert "UTF-8" in capsys.readouterr().err
    assert cli.main(["ask", os.fsdecode(text)]) == 2
    assert "UTF-8" in capsys.readouterr().err


def test_a_short_file_is_read_whole_and_a_long_one_refused_by_its_size(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"x" * 100)
    assert inputs.text(str(path), 100, "list") == "x" * 100
    with pytest.raises(RefusedError, match="which no list needs"):
        inputs.text(str(path), 99, "list")


# ---- the kinds of TOML that a parser is to take and to refuse (toml.io/en/v1.0.0), each in a manifest

AN_IMAGE = 'image = "localhost/shell:latest"\n'
WHOLE = {
    "a comment": "# one\n",
    "a comment behind a value": "cpus = 1 # one\n",
    "no end of line": "cpus = 1",
    "tabs and spaces": "\tcpus \t=  1 \n",
    "a quoted key": '"cpus" = 1\n',
    "a literal key": "'cpus' = 1\n",
    "a dotted key": 'environment.A = "1"\n',
    "spaces in a dotted key": 'environment . A = "1"\n',
    "a table": '[environment]\nA = "1"\n',
    "an inline table": 'environment = { A = "1", B = "2" }\n',
    "an empty table": "[environment]\n",
    "an empty inline table": "environment = {}\n",
    "a literal string": "description = 'a\\b'\n",
    "an escape": 'environment.A = "a\\tb \\u00e9 \\U0001F600"\n',
    "a string of several lines": 'environment.A = """\na\nb"""\n',
    "a literal of several lines": "environment.A = '''\na'b\n'''\n",
    "an end of line escaped": 'description = """a \\\n   b"""\n',
    "a quote in it": 'description = """a "quoted" b"""\n',
    "an empty string": 'description = ""\n',
    "a decimal": "pids = 100\n",
    "underscores": "pids = 1_000\n",
    "a plus": "pids = +100\n",
    "hexadecimal": "pids = 0x1F\n",
    "octal": "pids = 0o17\n",
    "binary": "pids = 0b11\n",
    "a float": "cpus = 1.5\n",
    "an exponent": "cpus = 1e0\n",
    "both": "cpus = 0.5E+1\n",
    "true": "ai = true\n",
    "false": "ai = false\n",
    "a list": 'command = ["a", "b"]\n',
    "a list over lines": 'command = [\n  "a", # one\n  "b",\n]\n',
    "an empty list": "command = []\n",
}
NOT_TOML = {
    "no value": "cpus =\n",
    "no key": "= 1\n",
    "a bare word": "cpus = one\n",
    "no equals sign": "cpus 1\n",
    "two on a line": "cpus = 1 pids = 2\n",
    "a key twice": "cpus = 1\ncpus = 2\n",
    "a table twice": "[environment]\n[environment]\n",
    "a key and a table": 'environment = 1\n[environment]\nA = "1"\n',
    "a table beside dotted keys": 'environment.A = "1"\n[environment]\n',
    "an inline table extended": 'environment = {}\nenvironment.A = "1"\n',
    "a table in a list's place": "command = []\n[[command]]\n",
    "an open string": 'description = "a\n',
    "an open literal": "description = 'a\n",
    "an open long string": 'description = """a\n',
    "an open list": "command = [\n",
    "an open table": "environment = {\n",
    "an open header": "[environment\n",
    "a line in a string": 'description = "a\nb"\n',
    "an escape that is none": 'description = "\\q"\n',
    "half a character": 'description = "\\ud800"\n',
    "beyond Unicode": 'description = "\\U00110000"\n',
    "a control character": 'description = "a\x01b"\n',
    "NUL": "cpus = 1\0\n",
    "DEL": "# \x7f\n",
    "a bare return": "cpus = 1\rpids = 2\n",
    "a leading zero": "pids = 01\n",
    "two underscores": "pids = 1__0\n",
    "an underscore at the end": "pids = 1_\n",
    "a capital prefix": "pids = 0X1\n",
    "a negative in hexadecimal": "pids = -0x1\n",
    "no digit before the point": "cpus = .5\n",
    "no digit behind it": "cpus = 1.\n",
    "an empty exponent": "cpus = 1e\n",
    "True": "ai = True\n",
    "a comma first": "command = [,]\n",
    "two commas": 'command = ["a",,"b"]\n',
    "a comma at the end": 'environment = { A = "1", }\n',
    "a line in an inline table": 'environment = { A = "1",\nB = "2" }\n',
    "a thirteenth month": "cpus = 2026-13-01\n",
    "the thirtieth of February": "cpus = 2026-02-30\n",
    "a hundredth hour": "cpus = 100:00:00\n",
    "a byte order mark inside": "cpus = 1\n\ufeffpids = 1\n",
    "a key of several lines": '"""a""" = 1\n',
    "an unquoted é": "é = 1\n",
    "a number of 5,000 digits": f"pids = {'9' * 5000}\n",
    "a negative one": f"memory = -{'9' * 5000}\n",
    "a list 3,000 deep": "command = " + "[" * 3000 + "\n",
    "tables 3,000 deep": "environment = " + "{a=" * 3000 + "\n",
}
NO_MANIFEST = {
    "infinity": "cpus = inf\n",
    "no number": "cpus = nan\n",
    "a date": "cpus = 2026-01-01\n",
    "a time": "cpus = 07:32:00\n",
    "a moment": "cpus = 2026-01-01T07:32:00Z\n",
    "a list of tables": "[[command]]\n",
    "a table in a table": "[environment.A]\n",
    "mixed kinds": 'command = ["a", 1]\n',
    "a huge hexadecimal": f"pids = 0x{'f' * 5000}\n",
    "a huge one in a list": f"command = [0x{'f' * 5000}]\n",
    "a huge float": f"cpus = {'9' * 5000}.0\n",
    "an empty key": '"" = 1\n',
    "a key that a terminal would obey": '"\\u001b[2J" = 1\n',
    "a key of 2,000 parts": "a" + ".a" * 2000 + " = 1\n",
    "6,000 tables": "".join(f"[a{n}]\n" for n in range(6000)),
}


@pytest.mark.parametrize("text", WHOLE.values(), ids=WHOLE)
def test_every_kind_of_toml_can_be_a_manifest(text: str) -> None:
    assert manifest.load(AN_IMAGE + text, "x").image == "localhost/shell:latest"


@pytest.mark.parametrize("text", NOT_TOML.values(), ids=NOT_TOML)
def test_what_is_not_toml_is_refused_with_a_line(text: str) -> None:
    with pytest.raises(ManifestError, match=r"^x:\d+: syntax: this is not TOML: ") as refusal:
        manifest.load(AN_IMAGE + text, "x")
    assert len(str(refusal.value)) < 1000


@pytest.mark.parametrize("text", NO_MANIFEST.values(), ids=NO_MANIFEST)
def test_toml_that_no_manifest_has_is_refused_with_its_key(text: str) -> None:
    with pytest.raises(ManifestError) as refusal:
        manifest.load(AN_IMAGE + text, "x")
    assert str(refusal.value).isprintable() or "\n" in str(refusal.value)
    assert "syntax" not in str(refusal.value)
