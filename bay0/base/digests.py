"""Content digests: `sha256:` and 64 lower-case hex digits, in one spelling only, so that nothing can be one thing here and another there."""

from __future__ import annotations

from bay0.base.errors import BadDigestError

PREFIX, DIGITS = "sha256:", 64
_HEX = frozenset("0123456789abcdef")


def parse(text: object) -> str:
    """Return `text` if it is a digest; `BadDigestError` says what is wrong."""
    if not isinstance(text, str):
        raise BadDigestError("a digest is a text")
    shown = f"{text[:80]!r}{' ...' if len(text) > 80 else ''} is no digest"  # noqa: PLR2004 - as much as a line takes
    if not text.startswith(PREFIX):
        raise BadDigestError(f"{shown}: it must begin with {PREFIX}, as image digests do")
    digits = text[len(PREFIX) :]
    for at, digit in enumerate(digits[:DIGITS], start=1):
        if digit not in _HEX:
            raise BadDigestError(f"{shown}: {digit!r} is at place {at} behind {PREFIX}; there may be 0-9 and a-f (lower case)")
    if len(digits) != DIGITS:
        raise BadDigestError(f"{shown}: behind {PREFIX} there must be {DIGITS} digits, there are {len(digits)}")
    return text
