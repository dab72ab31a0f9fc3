"""JSON (RFC 8259) without the package `json`, which brings `re` and `enum`.

Their import takes as long as all else that a short verb does.

Reading is CPython's own scanner, the very function that `json.loads` calls; where there is none the package
is taken. Writing covers what the control socket carries: dict, list, str, int, float, bool and None.
"""

from __future__ import annotations

try:
    from _json import encode_basestring_ascii as _quoted
    from _json import make_scanner as _make_scanner
except ImportError:  # another Python
    from json.encoder import py_encode_basestring_ascii as _quoted  # type: ignore[attr-defined, no-redef, unused-ignore]
    from json.scanner import py_make_scanner as _make_scanner  # type: ignore[attr-defined, no-redef, unused-ignore]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

BLANK = " \t\n\r"
_NUMBERS = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


class _Rules:
    """What the scanner asks its decoder for, as `json.JSONDecoder` would have it."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_float, parse_int = float, int
    parse_constant = _NUMBERS.__getitem__
    memo: dict[str, str] = {}  # noqa: RUF012 - the scanner written in Python asks for one
    parse_object = parse_array = parse_string = None


def loads(text: str | bytes) -> Any:
    """Return the value of one JSON text. `ValueError` if it is none."""
    said = text.decode() if isinstance(text, bytes) else text
    said = said.strip(BLANK)
    try:
        value, end = _make_scanner(_Rules)(said, 0)  # type: ignore[arg-type, unused-ignore]
    except StopIteration:
        raise ValueError("not JSON") from None
    if end != len(said):
        raise ValueError(f"not JSON: more follows at character {end}")
    return value


def dumps(value: Any, indent: int = 0) -> str:
    """Return `value` as `json.dumps` writes it, on one line or, with `indent`, on many.

    What JSON has no form for is written as its text.
    """
    return "".join(_parts(value, indent, "\n" if indent else ""))


def _parts(value: Any, indent: int, line: str) -> Iterator[str]:
    if isinstance(value, str):
        yield _quoted(value)
    elif value is None or value is True or value is False:
        yield {None: "null", True: "true", False: "false"}[value]
    elif isinstance(value, int):
        yield int.__repr__(value)
    elif isinstance(value, float):
        yield _float(value)
    elif isinstance(value, dict):
        yield from _many(
            "{}", ((f"{_quoted(str(key))}: ", each) for key, each in value.items()), indent, line
        )
    elif isinstance(value, list | tuple):
        yield from _many("[]", (("", each) for each in value), indent, line)
    else:
        yield _quoted(str(value))


def _many(ends: str, items: Iterator[tuple[str, Any]], indent: int, line: str) -> Iterator[str]:
    inner = line + " " * indent
    between = ""
    yield ends[0]
    for head, value in items:
        yield between + inner + head
        yield from _parts(value, indent, inner)
        between = "," if indent else ", "
    yield (line if between else "") + ends[1]


def _float(value: float) -> str:
    if value - value != 0:  # neither of the two ends, nor what is no number
        return next(word for word, number in _NUMBERS.items() if repr(number) == repr(value))
    return float.__repr__(value)
