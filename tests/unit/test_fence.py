"""Only `bay0/state/` reaches /persist, only one module starts processes, imports go one way. Each fence is also shown to bite."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kit import in_child

import bay0
from bay0.state import fence, paths
from bay0.state.fence import PersistFenceError

TOP = Path(bay0.__file__).parent
MODULES = {str(path.relative_to(TOP)): path.read_text(encoding="utf-8") for path in sorted(TOP.rglob("*.py"))}

# Who may do what, and why; everybody else may not.
MAY_NAME_PERSIST = ("state/",)
MAY_OPEN_DATABASES = ("state/db.py", "state/schema.py", "state/faults.py")  # the last one for the names of their errors
MAY_START_PROCESSES = {
    "effects/spawn.py": "the one spawner",
    "effects/power.py": "the last resort, when the spawner is not to be trusted",
    "cli/kit.py": "Graphviz's dot, in the caller's own process",
    "cli/persona_own.py": "becomes podman exec, in the caller's own process",
    "cli/persona_change.py": "the caller's editor, in the caller's own process",
}
MAY_IMPORT_TRANSITIONS = ("machines/engine.py",)
MAY_SLEEP = {
    "effects/power.py": "the last resort: there is no reactor any more",
    "state/device.py": "in the state worker",
    "cli/client.py": "in the caller's own process",
    "cli/net.py": "in the caller's own process",
    "cli/logview.py": "in the caller's own process",
    "cli/stats.py": "in the caller's own process",
    "cli/upgrade.py": "in the caller's own process",
    "state/personalog.py": "as above",
}
MAY_OPEN_IN_STATE = {
    "state/files.py": "the one way to what is on the disk",
    "state/device.py": "devices, /sys and /proc",
    "state/entropy.py": "the kernel's random number generator",
    "state/worker.py": "/proc",
    "state/homes.py": "what lies in the trash",
    "state/incoming.py": "a file without a name",
    "state/resize.py": "the mount point itself",
    "state/tree.py": "what lies in a home, each by its directory's descriptor and O_NOFOLLOW",
    "state/carry.py": "a new file in a home, in a folder that the kernel found there",
    "state/export.py": "what lies in a home, as state/tree.py",
    "state/unpack.py": "an archive, and what is made of it in a staging directory, each by its directory's descriptor",
    "state/copier.py": "how far it is, on /run",
    "state/slots.py": "the slots, which no filesystem of the kernel's shows",
    "state/slotwork.py": "an image that is to be staged, the firmware's variables, /run",
    "state/slotcalls.py": "/run",
    "state/partition.py": "the disk that a partition is on",
}
PERSIST = re.compile(r"/[/.]*persist(/|$)")  # a path; "/persist is mounted" is prose
STARTERS = ("fork", "forkpty", "posix_spawn", "posix_spawnp", "system", "popen", "exec", "spawn")


# ---- what is written down (static)


def findings(
    source: str, *, persist: bool = False, databases: bool = False, processes: bool = False, transitions: bool = False, sleep: bool = False
) -> list[str]:
    """Everything in a module's source that needs a permission, by line. A flag that is set permits it."""
    tree = ast.parse(source)
    found = []
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)}
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes) and id(node) not in docstrings and not persist:
            text = node.value if isinstance(node.value, str) else os.fsdecode(node.value)
            if PERSIST.match(text):
                found.append(f"{line}: names {text!r}")
        for name in imported(node):
            root = name.split(".")[0]
            if root in ("sqlite3", "_sqlite3", "peewee", "playhouse") and not databases:
                found.append(f"{line}: imports {name}")
            if root in ("subprocess", "_posixsubprocess", "multiprocessing", "pty") and not processes:
                found.append(f"{line}: imports {name}")
            if root == "transitions" and not transitions and not is_type_checking(tree, node):
                found.append(f"{line}: imports {name}")
            if name == "time.sleep" and not sleep:
                found.append(f"{line}: imports time.sleep")
            if name.startswith("os.") and name[3:].startswith(STARTERS) and not processes:
                found.append(f"{line}: imports {name}")
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id == "os" and node.attr.startswith(STARTERS) and not processes:
                found.append(f"{line}: os.{node.attr}")
            if (node.value.id, node.attr) == ("time", "sleep") and not sleep:
                found.append(f"{line}: time.sleep")
    return found


def imported(node: ast.AST) -> Iterator[str]:
    """Every name an import statement, or a call that imports, brings in."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str):
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if name in ("__import__", "import_module"):
            yield node.args[0].value


def is_type_checking(tree: ast.Module, node: ast.AST) -> bool:
    """The import stands under `if TYPE_CHECKING:`, so it does not happen."""
    blocks = [block for block in ast.walk(tree) if isinstance(block, ast.If) and getattr(block.test, "id", "") == "TYPE_CHECKING"]
    return any(node in list(ast.walk(block)) for block in blocks)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_module_does_only_what_it_may(name: str) -> None:
    assert (
        findings(
            MODULES[name],
            persist=name.startswith(MAY_NAME_PERSIST),
            databases=name in MAY_OPEN_DATABASES,
            processes=name in MAY_START_PROCESSES,
            transitions=name in MAY_IMPORT_TRANSITIONS,
            sleep=name in MAY_SLEEP,
        )
        == []
    )


@pytest.mark.parametrize("name", [*MAY_OPEN_DATABASES, *MAY_START_PROCESSES, *MAY_IMPORT_TRANSITIONS, *MAY_SLEEP, "state/paths.py"])
def test_every_permission_is_needed(name: str) -> None:
    assert findings(MODULES[name]) != []


@pytest.mark.parametrize(
    "code",
    [
        'open("/persist/spine/state.db")',
        'ROOT = "/persist"',
        'ROOT = b"/persist/x"',
        'PATHS = ["//persist/x"]',
        'f"/persist/{name}"',
        'run("umount", "/persist/")',
        "import sqlite3",
        "from peewee import Model",
        'importlib.import_module("peewee")',
        "import subprocess",
        "from subprocess import run",
        "from os import fork",
        "os.fork()",
        "os.posix_spawn(a, b, c)",
        "os.execvpe(a, b, c)",
        "os.spawnl(a, b)",
        'os.system("x")',
        'os.popen("x")',
        "import multiprocessing",
        "from transitions.extensions import GraphMachine",
        "import transitions",
        "time.sleep(1)",
        "from time import sleep",
    ],
)
def test_the_static_fence_bites(code: str) -> None:
    assert findings(code) != []


@pytest.mark.parametrize(
    "code",
    [
        '"""Nothing but /persist in words."""',
        'say("/persist is wedged")',
        'KEY = "/persistent"',
        "os.forward()",
        "time.time()",
        "if TYPE_CHECKING:\n    import transitions",
    ],
)
def test_the_static_fence_lets_innocent_code_through(code: str) -> None:
    assert findings(code) == []


# ---- how bay0/state/ opens what is on the disk


def opened_directly(source: str) -> list[str]:
    """Every open and every directory made that does not go through `files`, which waits for no FIFO and follows no link."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        through = node.args and isinstance(node.args[0], ast.Call) and ast.unparse(node.args[0].func).startswith("files.")
        if called in ("os.open", "os.mkdir", "os.makedirs") or (called in ("open", "io.open") and not through):
            found.append(f"{node.lineno}: {called}")
    return found


@pytest.mark.parametrize("name", sorted(name for name in MODULES if name.startswith("state/") and name not in MAY_OPEN_IN_STATE))
def test_a_module_of_the_state_opens_files_on_the_disk_in_the_one_way_only(name: str) -> None:
    assert opened_directly(MODULES[name]) == []


@pytest.mark.parametrize("code", ["open(path)", "os.open(path, 0)", "os.makedirs(path)", "os.mkdir(path)", "open(os.path.join(a, b))"])
def test_an_open_past_the_one_way_is_seen(code: str) -> None:
    assert opened_directly(code) != []


@pytest.mark.parametrize("code", ["open(files.open_file(path), 'rb')", "files.side_file(path)", "files.directory(path, 0o700, anew=True)"])
def test_an_open_in_the_one_way_is_fine(code: str) -> None:
    assert opened_directly(code) == []


# ---- what PID 1 loads (in a fresh interpreter)


def loaded_by(code: str) -> set[str]:
    """The modules that are really there after `code`; those put off (lazy.py) are not."""
    script = code + "\nimport json, sys, types\nprint(json.dumps([n for n, m in sys.modules.items() if type(m) is types.ModuleType]))"
    return set(json.loads(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout))


@pytest.fixture(scope="module")
def pid1() -> set[str]:
    return loaded_by("import bay0.__main__, bay0.init")


@pytest.mark.parametrize(
    "name",
    [
        "peewee",
        "sqlite3",
        "_sqlite3",
        "transitions.extensions",
        "argparse",
        "subprocess",
        "asyncio.base_events",
        "ssl",
        "hypothesis",
        "multiprocessing",
    ],
)
def test_pid_1_does_not_load(pid1: set[str], name: str) -> None:
    assert name not in pid1


def test_what_structlog_would_load_if_it_were_there_does_not_ship() -> None:
    shipped = (TOP.parent / "scripts" / "lock" / "freeze.txt").read_text(encoding="utf-8")
    assert not re.search(r"^(rich|better-exceptions|colorama)==", shipped, re.MULTILINE)


def test_pid_1_loads_no_part_of_the_worker_or_the_command_line(pid1: set[str]) -> None:
    ours = {name for name in pid1 if name.startswith("bay0")}
    theirs = {
        "bay0.state.worker",
        "bay0.state.db",
        "bay0.state.schema",
        "bay0.state.device",
        "bay0.state.genesis",
        "bay0.cli",
        "bay0.thermal.governor",
        "bay0.thermal.ladder",
        "bay0.boot.sleep",
        "bay0.effects.sleep",
        "bay0.state.personalog",
    }
    assert ours & theirs == set()
    assert not [name for name in ours if name.startswith("bay0.cli.")]
    assert {"bay0.init", "bay0.state.port", "bay0.machines.engine", "bay0.effects.spawn"} <= ours


def test_nothing_that_pid_1_loads_sleeps_but_its_last_resort(pid1: set[str]) -> None:
    ours = {f"{name.removeprefix('bay0.').replace('.', '/')}.py" for name in pid1 if name.startswith("bay0.")}
    sleeping = {name for name in ours & set(MODULES) if any("time.sleep" in finding for finding in findings(MODULES[name]))}
    assert sleeping == {"effects/power.py"}


def test_the_command_line_pays_for_neither_engine_nor_database() -> None:
    loaded = loaded_by("from bay0.cli.verbs import root; root()")
    assert {"transitions", "peewee", "structlog", "bay0.machines"} & loaded == set()


def test_the_worker_loads_no_engine_and_no_log() -> None:
    loaded = loaded_by("import bay0.state.worker")
    assert {"transitions", "structlog", "bay0.machines", "bay0.effects"} & loaded == set()
    assert "peewee" in loaded


# ---- what is computed (at run time)


@pytest.mark.parametrize(
    "path",
    [
        "/persist",
        "/persist/",
        "/persist/.",
        "//persist",
        "/persist/spine/x",
        "/run/../persist/x",
        "/persist//x",
        b"/persist/x",
        pathlib.Path("/persist/x"),
        "/./persist",
    ],
)
def test_paths_below_persist_are_seen(path: Any) -> None:
    assert fence.below_persist(path)


@pytest.mark.parametrize("path", ["/", "/persistent", "/run/persist", "persist", "/persist/../run", "/sys/class/block", 3, None, b"/dev/null"])
def test_other_paths_are_not(path: Any) -> None:
    assert not fence.below_persist(path)


REACHES = {
    "open": lambda: open("/persist/x"),
    "open for writing": lambda: open("/persist/x", "w"),
    "os.open": lambda: os.open("/persist/x", os.O_RDONLY),
    "pathlib": lambda: pathlib.Path("/persist/x").read_text(),
    "listdir": lambda: os.listdir("/persist"),
    "listdir of a path object": lambda: os.listdir(pathlib.Path("/persist")),
    "scandir": lambda: os.scandir("/persist"),
    "mkdir": lambda: os.mkdir("/persist/x"),
    "makedirs": lambda: os.makedirs("/persist/x/y", exist_ok=True),
    "rmdir": lambda: os.rmdir("/persist/x"),
    "unlink": lambda: os.unlink("/persist/x"),
    "rename to": lambda: os.rename("/tmp/x", "/persist/x"),
    "replace from": lambda: os.replace("/persist/x", "/tmp/x"),
    "link": lambda: os.link("/tmp/x", "/persist/x"),
    "symlink": lambda: os.symlink("/tmp/x", "/persist/x"),
    "chmod": lambda: os.chmod("/persist/x", 0o600),
    "chown": lambda: os.chown("/persist/x", 0, 0),
    "truncate": lambda: os.truncate("/persist/x", 0),
    "utime": lambda: os.utime("/persist/x"),
    "chdir": lambda: os.chdir("/persist"),
    "listxattr": lambda: os.listxattr("/persist/x"),
    "removexattr": lambda: os.removexattr("/persist/x", "user.x"),
    "walk": lambda: list(os.walk("/persist")),
    "computed": lambda: open("/" + "tsisrep"[::-1] + "/x"),
}


@pytest.mark.parametrize("how", sorted(REACHES))
def test_pid_1_cannot_reach_persist_by(how: str) -> None:
    @in_child
    def inside() -> None:
        fence.forbid_persist()
        with pytest.raises(PersistFenceError, match="only the state worker"):
            REACHES[how]()

    inside()


# Python tells no audit hook of these, so what PID 1 computes could slip through: docs/HANDOFF.md says so, and the trace
# of a boot (tests/vm/test_vm_trace.py) looks for them.
UNSEEN = {
    "stat": lambda: os.stat("/persist/x"),
    "lstat": lambda: os.lstat("/persist/x"),
    "exists": lambda: os.path.exists("/persist/x"),
    "realpath": lambda: os.path.realpath("/persist/x"),
    "access": lambda: os.access("/persist/x", os.R_OK),
    "readlink": lambda: os.readlink("/persist/x"),
    "statvfs": lambda: os.statvfs("/persist/x"),
}


@pytest.mark.parametrize("how", sorted(UNSEEN))
def test_what_the_fence_cannot_see_is_known(how: str) -> None:
    @in_child
    def inside() -> None:
        fence.forbid_persist()
        with contextlib.suppress(OSError):
            UNSEEN[how]()

    inside()


@in_child
def test_sqlite_is_stopped_as_well() -> None:
    import sqlite3

    fence.forbid_persist()
    with pytest.raises(PersistFenceError):
        sqlite3.connect("/persist/spine/state.db")


@in_child
def test_no_except_clause_of_ours_swallows_the_fence() -> None:
    fence.forbid_persist()
    with pytest.raises(PersistFenceError):
        try:
            open("/persist/x")
        except Exception:
            pytest.fail("swallowed")


@in_child
def test_everything_else_stays_open(tmp_path: Path) -> None:
    fence.forbid_persist()
    (tmp_path / "persist").mkdir()
    (tmp_path / "persist" / "x").write_text("fine")
    assert os.listdir("/") != []


@in_child
def test_only_the_forked_worker_lifts_the_fence() -> None:
    fence.forbid_persist()
    if (pid := os.fork()) == 0:
        fence.lift()
        try:
            open("/persist/nothing-there/x")
        except OSError:
            os._exit(5)
        os._exit(6)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
    with pytest.raises(PersistFenceError):
        open("/persist/x")


def test_without_the_fence_these_reaches_would_go_through() -> None:
    """They fail for lack of such a file only: the fence is what stops them above."""
    for reach in ("open", "os.open", "pathlib", "listdir", "rmdir", "unlink"):
        with contextlib.suppress(OSError):
            REACHES[reach]()


def test_the_fence_guards_the_directory_the_state_lives_in() -> None:
    assert fence.below_persist(paths.DATABASE)
    assert fence.below_persist(paths.GENESIS)
