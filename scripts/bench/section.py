"""One section of docs/BENCHMARKS.md, between `<!-- bench:NAME -->` and `<!-- /bench:NAME -->`."""

import os

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PATH = os.path.join(TOP, "docs", "BENCHMARKS.md")


class SectionError(Exception):
    """The page has no such section."""


def write(name: str, text: str) -> None:
    """Replace what stands between the marks of `name`."""
    first, last = f"<!-- bench:{name} -->", f"<!-- /bench:{name} -->"
    with open(PATH, encoding="utf-8") as file:
        before, mark, rest = file.read().partition(first)
    _, end, after = rest.partition(last)
    if not mark or not end:
        raise SectionError(f"docs/BENCHMARKS.md has no section {first} ... {last}")
    with open(PATH, "w", encoding="utf-8") as file:
        file.write(f"{before}{first}\n{text}\n{last}{after}")
