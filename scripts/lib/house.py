"""Usage: house.py [DIR]. Measures the structure of a checkout, for comparing one with another: `git worktree add /tmp/before REV`.

Prints: modules and lines by package, the longest and the median module and function, imports in a circle between packages,
attributes that are assigned to a part from outside, replacements by module path in tests.
"""

import ast
import collections
import re
import statistics
import sys
from pathlib import Path

SCREEN = 30  # lines
PATCH = re.compile(r"\bsetattr_?\(|monkeypatch\.|self\.patch\.|\.setitem\(|^\s*[a-z_.]+\.[A-Za-z_]+ = .*# type: ignore", re.MULTILINE)
PARTS = "engine|state|personas|servers|podman|spawner|stages|services|control|umbilical|reactor|made|port|spine|audit|switch"
OUTSIDE = re.compile(rf"^\s+(?:\w+\.)?(?:{PARTS})\.\w+(?:, [\w.]+)* = ", re.MULTILINE)


def main(top: Path) -> None:
    """Print all of it."""
    files = sorted((top / "bay0").rglob("*.py"))
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    packages: collections.Counter[str] = collections.Counter()
    for path, count in lines.items():
        inside = path.relative_to(top / "bay0")
        packages[inside.parts[0] if len(inside.parts) > 1 else "(top)"] += count
    functions = [
        (node.end_lineno - node.lineno + 1, f"{path.relative_to(top)}:{node.name}")
        for path in files
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.end_lineno
    ]
    longest = max((count, str(path.relative_to(top))) for path, count in lines.items())
    sizes = [length for length, _ in functions]
    print(f"top level: {sum(path.parent == top / 'bay0' for path in files)} modules, {len(packages) - 1} packages")
    print("lines by package: " + ", ".join(f"{name} {count}" for name, count in sorted(packages.items())))
    print(f"modules: {len(files)}, median {statistics.median(lines.values()):.0f} lines, longest {longest}")
    over = sum(size > SCREEN for size in sizes)
    print(f"functions: {len(sizes)}, median {statistics.median(sizes):.0f} lines, over {SCREEN}: {over}, longest {max(functions)}")
    edges, circles = arrows(top, files)
    rooms = {end for edge in edges for end in edge}
    print(f"rooms: {len(rooms)}, arrows between them: {len(edges)}, rooms in a circle: {len(circles)} {sorted(circles)}")
    texts = [path.read_text(encoding="utf-8") for path in files if "cli" not in path.parts]
    assigned = [found for text in texts for found in OUTSIDE.findall(text) if not found.strip().startswith("self.")]
    print(f"attributes assigned to a part from outside: {len(assigned)}")
    tests = [path.read_text(encoding="utf-8") for path in sorted((top / "tests").rglob("*.py"))]
    replaced = sum(len(PATCH.findall(text)) for text in tests)
    print(f"replacements in tests: {replaced}, lines of tests: {sum(len(text.splitlines()) for text in tests)}")


def arrows(top: Path, files: list[Path]) -> tuple[set[tuple[str, str]], set[str]]:
    """Return the imports between rooms (a package, or a module on top), those for type checking too, and the rooms in a circle."""
    names = {".".join(path.relative_to(top).with_suffix("").parts).removesuffix(".__init__") for path in files}

    def room(name: str) -> str:
        return name.split(".")[1] if "." in name else name

    edges = set()
    for path in files:
        own = room(".".join(path.relative_to(top).with_suffix("").parts))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bay0"):
                for each in node.names:
                    full = f"{node.module}.{each.name}"
                    other = room(full if full in names else str(node.module))
                    if other not in (own, "bay0"):
                        edges.add((own, other))
    reach = {start: reached(start, edges) for start, _ in edges}
    return edges, {start for start in reach if start in reach[start]}


def reached(start: str, edges: set[tuple[str, str]]) -> set[str]:
    """Return all rooms that imports lead to from `start`."""
    seen: set[str] = set()
    todo = [start]
    while todo:
        at = todo.pop()
        new = {end for begin, end in edges if begin == at} - seen
        seen |= new
        todo += new
    return seen


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve())
