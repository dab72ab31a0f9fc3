"""What a verb loads before it does anything: its time is the time of its imports, so these are counted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bay0.cli import client
from bay0.control.wire import SOCKET

TOP = Path(__file__).parents[2]
# started as the frozen program is: without site and its modules
LOADED = """
import sys
sys.path.insert(0, sys.argv[1])
before = set(sys.modules)
sys.argv[1:] = sys.argv[2:]
from bay0.__main__ import main
status = main()
print(status, *sorted(set(sys.modules) - before), file=sys.stderr)
"""
OF_ALL = {
    "__future__", "_json", "bay0", "bay0.__main__", "bay0.cli", "bay0.cli.grammar", "bay0.cli.kit", "bay0.cli.main", "bay0.cli.plainjson",
    "bay0.cli.streams", "bay0.cli.verbs", "bay0.base", "bay0.base.errors", "errno",
    "_signal",
}  # fmt: skip
OF_ASKING = {"_socket", "itertools", "bay0.cli.client", "bay0.cli.nospine"}


def loaded(*words: str, socket: str = "/nowhere") -> tuple[int, set[str]]:
    done = subprocess.run(
        [sys.executable, "-S", "-I", "-c", LOADED, str(TOP), *words],
        capture_output=True, text=True, check=True, timeout=60, env={"BAY0_SOCKET": socket},
    )  # fmt: skip
    status, *modules = done.stderr.splitlines()[-1].split()
    return int(status), set(modules)


@pytest.mark.parametrize(
    ("words", "status", "more"),
    [
        (["version"], 0, {"bay0.cli.spine_words", "bay0.cli.version"}),
        (["--version"], 0, {"bay0.cli.spine_words", "bay0.cli.version"}),
        (
            ["status"],
            3,
            OF_ASKING | {"bay0.cli.spine_words", "bay0.cli.spine", "bay0.cli.report", "bay0.cli.text"},
        ),
        (
            ["persona", "list"],
            3,
            OF_ASKING
            | {"bay0.cli.persona_words", "bay0.cli.persona", "bay0.cli.persona_text", "bay0.cli.text"},
        ),
        (
            ["focus"],
            3,
            OF_ASKING
            | {"bay0.cli.persona_words", "bay0.cli.persona", "bay0.cli.persona_text", "bay0.cli.text"},
        ),
    ],
)
def test_a_short_verb_loads_its_own_grammar_and_function_and_nothing_more(
    words: list[str], status: int, more: set[str]
) -> None:
    got, modules = loaded(*words)
    assert got == status
    assert modules - OF_ALL - more == set()
    assert "bay0.cli.verbs" in modules, "it is not seen what is loaded"


@pytest.mark.parametrize(
    "words", ["persona start work", "persona show work", "machines", "poweroff", "storage", "rm work"]
)
def test_a_verb_that_asks_loads_neither_argparse_nor_what_takes_as_long(words: str) -> None:
    _, modules = loaded(*words.split())
    slow = {
        "argparse",
        "attr",
        "cattrs",
        "collections",
        "enum",
        "inspect",
        "json",
        "os",
        "re",
        "socket",
        "structlog",
        "typing",
        "transitions",
    }
    assert slow & modules == set()


def test_the_words_of_the_socket_stand_twice_and_are_the_same() -> None:
    assert client.SOCKET == SOCKET, "cli/client.py does not load wire, which loads json"


def test_an_answer_is_read_and_shown_by_the_few_modules_too(tmp_path: Path) -> None:
    import socket
    import threading

    answer = {"jsonrpc": "2.0", "id": 1, "result": {"active": "p://work"}}
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()

        def once() -> None:
            peer, _ = server.accept()
            with peer:
                peer.recv(65536)
                peer.sendall(json.dumps(answer).encode() + b"\n")

        thread = threading.Thread(target=once)
        thread.start()
        status, modules = loaded("focus", socket=path)
        thread.join(10)
    assert status == 0
    assert {"json", "os", "re", "enum"} & modules == set()
