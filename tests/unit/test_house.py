"""What keeps the house in order: who sends what, who may set what, where what is said to be.

Found by reading the program's own text (ast): a rule that only people hold is broken by the first who is in a hurry.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from bay0.machines import MACHINES, RIPPLES

TOP = Path(__file__).resolve().parents[2]
SOURCES = sorted((TOP / "bay0").rglob("*.py"))
ENGINE_SENDS = {"CONVERGE", "TIMED_OUT"}  # machines/engine.py: a stored machine, an overdue effect
DOCUMENTS = ("README.md", "CHANGELOG.md", "tests/README.md", "personas/README.md", "docs/ARCHITECTURE.md", "docs/HANDOFF.md", "docs/THREATMODEL.md")


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


# ---- every event is sent by some code


def _named(kind: str, module: ast.Module) -> Iterator[str]:
    """Yield the events of a kind that a module names: `E.START` of an enum imported from its table, `persona.E.START`, `event("START")`."""
    table = MACHINES[kind].states.__module__
    names, modules = set(), set()
    for node in ast.walk(module):
        if isinstance(node, ast.ImportFrom) and node.module == table:
            names |= {each.asname or each.name for each in node.names if each.name == "E"}
        if isinstance(node, ast.ImportFrom) and f"{node.module}" == table.rpartition(".")[0]:
            modules |= {each.asname or each.name for each in node.names if each.name == table.rpartition(".")[2]}
    for node in ast.walk(module):
        if isinstance(node, ast.Attribute):
            of = node.value
            if isinstance(of, ast.Name) and of.id in names:
                yield node.attr
            if isinstance(of, ast.Attribute) and of.attr == "E" and isinstance(of.value, ast.Name) and of.value.id in modules:
                yield node.attr


def _by_words(module: ast.Module) -> Iterator[str]:
    """Yield the events that two tables have (machines/container.py): `words.events.PAUSED`, `e.PAUSED` with such an `e`."""
    short = {
        target.id
        for node in ast.walk(module)
        if isinstance(node, ast.Assign)
        for targets in node.targets
        for target, value in (
            zip(targets.elts, node.value.elts, strict=False)
            if isinstance(targets, ast.Tuple) and isinstance(node.value, ast.Tuple)
            else [(targets, node.value)]
        )
        if isinstance(target, ast.Name) and isinstance(value, ast.Attribute) and value.attr == "events"
    }
    for node in ast.walk(module):
        if isinstance(node, ast.Attribute):
            of = node.value
            if isinstance(of, ast.Attribute) and of.attr == "events":
                yield node.attr
            if isinstance(of, ast.Name) and of.id in short:
                yield node.attr


SHARED = {"persona": "bay0/containers/", "server": "bay0/containers/"}  # sends events of the kinds that are containers


def senders(kind: str) -> dict[str, set[str]]:
    """Return event -> the files that name it, but for the tables themselves."""
    found: dict[str, set[str]] = {}
    for path in SOURCES:
        where = str(path.relative_to(TOP))
        if where.startswith("bay0/machines/") and where != "bay0/machines/__init__.py":
            continue
        module = tree(path)
        named = set(_named(kind, module))
        if where.startswith(SHARED.get(kind, "nowhere")) or (kind in SHARED and where == "bay0/thermal/governor.py"):
            named |= set(_by_words(module))
        for event in named:
            found.setdefault(event, set()).add(where)
    return found


@pytest.mark.parametrize("kind", sorted(MACHINES))
def test_every_event_of_a_table_is_sent_by_some_code(kind: str) -> None:
    rippled = {ripple.event.name for ripple in RIPPLES if ripple.told == kind}
    sent = senders(kind).keys() | ENGINE_SENDS | rippled
    unsent = [event.name for event in MACHINES[kind].events if event.name not in sent]
    assert unsent == [], f"no code sends {unsent} to a {kind}: delete the rows, or send it"


@pytest.mark.parametrize("kind", sorted(MACHINES))
def test_every_state_is_reached_by_events_that_are_sent(kind: str) -> None:
    machine = MACHINES[kind]
    sent = senders(kind).keys() | ENGINE_SENDS | {ripple.event.name for ripple in RIPPLES if ripple.told == kind}
    reached, todo = {machine.initial}, [machine.initial]
    while todo:
        state = todo.pop()
        for row in machine.rows:
            if row.source is state and row.event.name in sent and row.dest not in reached:
                reached.add(row.dest)
                todo.append(row.dest)
    assert set(machine.states) - reached == set()


def test_no_event_is_looked_up_by_a_name_that_is_spelled_out() -> None:
    """`definition.event("PAUSED")` is a slip that mypy does not see."""
    found = [
        f"{path.relative_to(TOP)}:{node.lineno}: {each.value}"
        for path in SOURCES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("event", "send")
        for each in node.args
        if isinstance(each, ast.Constant) and isinstance(each.value, str) and each.value.isupper()
    ]
    assert found == []


# ---- parts are made by their constructors


def set_from_outside(module: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield each assignment to an attribute of something that is neither `self` nor made in the same function."""
    for function in ast.walk(module):
        if not isinstance(function, ast.FunctionDef):
            continue
        made = {
            target.id
            for node in ast.walk(function)
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
            for each in node.targets
            for target in (each.elts if isinstance(each, ast.Tuple) else [each])
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(function):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AugAssign | ast.AnnAssign) else []
            flat = [each for target in targets for each in (target.elts if isinstance(target, ast.Tuple) else [target])]
            for each in flat:
                if isinstance(each, ast.Attribute):
                    root = ast.unparse(each.value)
                    if root not in ("self", "cls") and root not in made:
                        yield node.lineno, ast.unparse(each)


def _is_part(what: str, wired: set[str]) -> bool:
    """Tell whether an assignment's target (`engine.log`, `self.state.dirty`) is an attribute of a wired part."""
    of = what.split(".")[:-1]
    return bool(wired & set(of)) and (of[0] != "self" or len(of) == 2)


def test_no_part_is_set_from_outside_after_it_was_made() -> None:
    """`spine.x.y = z` after construction hides who needs what. Private records of a module (`client.open`) are its own business."""
    wired = {"engine", "state", "personas", "servers", "podman", "spawner", "stages", "services", "control", "umbilical", "reactor", "made", "port"}
    found = [
        f"{path.relative_to(TOP)}:{line}: {what}"
        for path in SOURCES
        if "cli" not in path.parts
        for line, what in set_from_outside(tree(path))
        if _is_part(what, wired) and f"class {what.split('.')[-2].title()}:" not in path.read_text(encoding="utf-8")  # its own record
    ]
    assert found == []


def test_an_assignment_from_outside_is_seen() -> None:
    code = "def wire(engine, state):\n    state.engine = engine\n    own = Own()\n    own.x = 1\n    self.y = 2\n"
    assert [what for _, what in set_from_outside(ast.parse(code))] == ["state.engine"]


# ---- what documents say is where it is


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_file_that_a_document_names_is_there(name: str) -> None:
    text = (TOP / name).read_text(encoding="utf-8")
    if name == "CHANGELOG.md":  # of what is released: a name that was right then
        text = text.partition("\n## ")[2].partition("\n## ")[0]
    named = set(re.findall(r"\b(?:bay0|scripts|tests|docs|services|personas)/[\w/.-]+\.(?:py|sh|md|toml)\b", text))
    missing = sorted(each for each in named if not (TOP / each).exists())
    assert missing == []


def test_every_package_says_in_one_line_what_it_is() -> None:
    for path in sorted((TOP / "bay0").glob("*/__init__.py")):
        told = ast.get_docstring(tree(path))
        assert told, f"{path.parent.name} does not say what it is"
        assert len(told.splitlines()[0]) <= 110


def test_the_modules_of_a_package_fit_a_sitting() -> None:
    """Longer ones are split: a module is read as a whole."""
    long = {str(path.relative_to(TOP)): lines for path in SOURCES if (lines := len(path.read_text(encoding="utf-8").splitlines())) > LONGEST}
    assert long == {}


LONGEST = 400


def test_each_term_of_the_glossary_is_linked_from_a_document_and_each_link_leads_to_one() -> None:
    terms = set(re.findall(r'<a id="([\w-]+)">', (TOP / "docs" / "glossary.md").read_text(encoding="utf-8")))
    named = {anchor for path in (TOP / "README.md", *sorted((TOP / "docs").glob("*.md"))) for anchor in GLOSSARY_LINK.findall(path.read_text())}
    assert terms
    assert named == terms


GLOSSARY_LINK = re.compile(r"glossary\.md#([\w-]+)\)")
