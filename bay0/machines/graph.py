"""Pictures of a table: Mermaid, Graphviz dot, and the page that docs/machines/ holds. The live state can be marked."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from enum import Enum

    from bay0.machines.table import MachineDef, StateSpec


def _edges(machine: MachineDef) -> dict[tuple[Enum, Enum], list[str]]:
    edges: dict[tuple[Enum, Enum], list[str]] = defaultdict(list)
    for row in machine.rows:
        edges[row.source, row.dest].append(row.event.value)
    return edges


def _flavour(spec: StateSpec) -> str:
    if spec.busy is not None:
        return "busy"
    return "converged" if spec.converged else "rest"


def mermaid(machine: MachineDef, live: Enum | None = None) -> str:
    """Return the state diagram as Mermaid text; GitHub and `mmdc` draw it."""
    lines = ["stateDiagram-v2", "    direction LR", f"    [*] --> {machine.initial.value}"]
    for (source, dest), events in _edges(machine).items():
        lines.append(f"    {source.value} --> {dest.value}: {', '.join(events)}")
    lines += [
        "    classDef busy fill:#fff3cd,stroke:#b58900",
        "    classDef converged fill:#d9f2d9,stroke:#3a7d3a",
        "    classDef live stroke:#c0392b,stroke-width:4px",
    ]
    for spec in machine.specs:
        if _flavour(spec) != "rest":
            lines.append(f"    class {spec.state.value} {_flavour(spec)}")
    if live is not None:
        lines.append(f"    class {live.value} live")
    return "\n".join(lines) + "\n"


_FILL = {"busy": "#fff3cd", "converged": "#d9f2d9", "rest": "#ffffff"}


def dot(machine: MachineDef, live: Enum | None = None) -> str:
    """Return the state diagram as Graphviz dot; `dot -Tsvg` draws it."""
    lines = [f'digraph "{machine.kind}" {{', "    rankdir=LR;", '    node [shape=box, style="rounded,filled", fontname="Helvetica"];']
    for spec in machine.specs:
        mark = ', color="#c0392b", penwidth=4' if spec.state is live else ""
        lines.append(f'    "{spec.state.value}" [fillcolor="{_FILL[_flavour(spec)]}", tooltip="{spec.about}"{mark}];')
    for (source, dest), events in _edges(machine).items():
        lines.append(f'    "{source.value}" -> "{dest.value}" [label="{", ".join(events)}", fontname="Helvetica", fontsize=10];')
    return "\n".join([*lines, "}"]) + "\n"


def page(machine: MachineDef, theory: str) -> str:
    """Return the Markdown page of a machine: theory, diagram, states, rows. docs/machines/KIND.md is exactly this."""
    lines = [f"# The {machine.kind} machine", "", f"<!-- made by `bay0 graph {machine.kind} --format page`; a test compares it -->", ""]
    lines += [theory.strip(), "", "```mermaid", mermaid(machine).rstrip(), "```", ""]
    lines += ["| state | kind | owes | bound | meaning |", "|---|---|---|---|---|"]
    for spec in machine.specs:
        owes = f"`{spec.busy.value}`" if spec.busy is not None else ""
        bound = f"{spec.deadline_s:g} s" if spec.deadline_s is not None else ""
        lines.append(f"| `{spec.state.value}` | {_flavour(spec)} | {owes} | {bound} | {spec.about} |")
    lines += ["", "| from | event | to | why |", "|---|---|---|---|"]
    lines += [f"| `{r.source.value}` | `{r.event.value}` | `{r.dest.value}` | {r.why} |" for r in machine.rows]
    return "\n".join(lines) + "\n"
