"""IPv4 addresses as text and number. Pure, and strict: nothing else reads a stranger's addresses.

An address has four decimal numbers without leading zeros (RFC 6943, section 3.1.1, says what else some
programs take). Sources of the ranges: RFC 6890 (special purposes), RFC 1918 (private), RFC 6598 (carriers),
RFC 3927 (link-local).
"""

from __future__ import annotations

import re

_NUMBER = "(0|[1-9][0-9]{0,2})"
_ADDRESS = re.compile(r"\.".join([_NUMBER] * 4), re.ASCII)
BITS = 32
OURS = "10.137.0.0/16"  # personas: one address each, by slot
GATEWAY = "169.254.1.1"  # what each persona sends to, at the other end of its cable
NOBODYS = (
    "0.0.0.0/8",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "224.0.0.0/3",
    OURS,
)  # no card, gateway or server has one of these
# what a persona does not reach unless its manifest says so
PRIVATE = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "224.0.0.0/3",
)


def number(text: str) -> int | None:
    """Return the number of an address; None if it is none."""
    found = _ADDRESS.fullmatch(text)
    parts = [int(part) for part in found.groups()] if found else [256]
    return None if max(parts) > 255 else int.from_bytes(bytes(parts))  # noqa: PLR2004 - a byte


def text(value: int) -> str:
    """Return the address of a number."""
    return ".".join(map(str, value.to_bytes(4)))


def prefix(words: str) -> tuple[int, int] | None:
    """Read "192.0.2.0/24", or an address alone (/32): address and length. None if it is neither."""
    address, slash, length = words.partition("/")
    value = number(address)
    if value is None or (
        slash and not (re.fullmatch("0|[1-9][0-9]?", length, re.ASCII) and int(length) <= BITS)
    ):
        return None
    return value, int(length) if slash else BITS


def mask(length: int) -> int:
    """Return the mask of a prefix's length as a number."""
    return (1 << BITS) - (1 << (BITS - length))


def within(value: int, words: str) -> bool:
    """Tell whether an address is in a prefix (a right one)."""
    found = prefix(words)
    return found is not None and value & mask(found[1]) == found[0] & mask(found[1])


def nobodys(value: int) -> str:
    """Return the prefix that keeps this address from being a host's on a network, or ""."""
    return next((words for words in NOBODYS if within(value, words)), "")


def of_slot(slot: int) -> str:
    """Return the address of the persona in that slot (bay0/base/uids.py): 10.137.0.1 is the first."""
    first = prefix(OURS)
    if first is None:
        raise AssertionError(OURS)
    return text(first[0] + 1 + slot)
