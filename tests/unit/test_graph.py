"""Pictures of tables: the pages under docs/machines/ are what the tables say, and our edges are those of `transitions` itself."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from kit import S, small

import bay0
from bay0.cli import report
from bay0.machines import MACHINES, graph

DOCS = Path(bay0.__file__).parent.parent / "docs" / "machines"
KINDS = sorted(MACHINES)


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_of_a_machine_is_what_its_table_says(kind: str) -> None:
    made = graph.page(MACHINES[kind], report.theory(kind))
    assert (DOCS / f"{kind}.md").read_text(encoding="utf-8") == made, f"write it anew: bay0 graph {kind} --format page > docs/machines/{kind}.md"


def test_every_machine_has_a_page_and_every_page_a_machine() -> None:
    assert sorted(path.stem for path in DOCS.glob("*.md")) == KINDS


def edges(text: str, between: str) -> set[tuple[str, str, str]]:
    """The (source, event, dest) triples of a Mermaid state diagram; events of one arrow are joined by `between`."""
    found = set()
    for source, dest, events in re.findall(r"^\s+(\w+) --> (\w+): (.+)$", text, re.MULTILINE):
        found |= {(source.lower(), event, dest.lower()) for event in events.split(between)}
    return found


THEIRS = """
import sys
from transitions.extensions import GraphMachine
from bay0.machines import MACHINES
class Model: pass
table, model = MACHINES[sys.argv[1]], Model()
GraphMachine(
    model, states=table.states, initial=table.initial, auto_transitions=False, graph_engine="mermaid",
    transitions=[{"trigger": row.event.value, "source": row.source, "dest": row.dest} for row in table.rows],
)
print(model.get_graph().source)
"""


@pytest.mark.parametrize("kind", KINDS)
def test_our_diagram_has_the_edges_that_transitions_itself_draws(kind: str) -> None:
    theirs = subprocess.run([sys.executable, "-c", THEIRS, kind], capture_output=True, text=True, check=True).stdout
    ours = edges(graph.mermaid(MACHINES[kind]), ", ")
    assert ours == edges(theirs, " | ")
    assert ours == {(row.source.value, row.event.value, row.dest.value) for row in MACHINES[kind].rows}


def test_the_kinds_of_states_and_the_live_one_are_marked() -> None:
    text = graph.mermaid(small(), live=S.READY)
    assert "class working busy" in text
    assert "class idle converged" in text
    assert "class ready live" in text
    assert "class ready busy" not in text
    assert 'color="#c0392b", penwidth=4' in graph.dot(small(), live=S.READY)
    assert "penwidth" not in graph.dot(small())


def test_a_page_lists_states_with_what_they_owe_and_rows_with_their_reason() -> None:
    text = graph.page(small(), "A theory.")
    assert "| `working` | busy | `do` | 10 s | work is owed |" in text
    assert "| `idle` | `work` | `working` | asked to work |" in text
    assert "A theory." in text
